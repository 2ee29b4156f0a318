"""Models: loading and wrapping, preprocessing, layers and their layouts, targets.

A `VisionModel` is a network with what is needed to use it on a picture; a `Target` is what score is explained.
"""
