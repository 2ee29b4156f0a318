"""The studio: pages for those who do not type commands. A web server on this machine alone, one worker a device.

The server (`app`, `guard`) knows no model and never imports torch; what computes is another process (`worker`), asked
through `line` and kept busy by `queue`. What was asked is a file (`jobs`), what was found are the same artefacts as
the command line writes.
"""
