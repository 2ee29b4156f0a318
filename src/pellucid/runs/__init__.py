"""Many requests over many inputs: resumable, each row exactly once, on processes of this machine or on a cluster."""
