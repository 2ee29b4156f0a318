"""The verbs: load -> prepare -> method -> result. One file a verb, no numerics here.

What all verbs share: `inputs` (what users give, made ready for a model), `choices` (texts to methods and targets),
`records` (provenance). `verify` recomputes any result from its record.
"""
