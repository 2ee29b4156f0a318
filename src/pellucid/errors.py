"""What can go wrong, said in one sentence with the cure. The command line prints the message and exits with 1."""


class PellucidError(Exception):
    """Base of every error a user can cause; its message is one clear sentence that names the cure."""


class MediaError(PellucidError):
    """A picture (clip, volume) is missing, broken, too large or of the wrong kind."""


class ModelError(PellucidError):
    """A model can't be found, loaded or run on the inputs given."""


class OutOfMemoryError(ModelError):
    """Memory ran out, although batches were halved down to one input."""


class UnsteadyError(ModelError):
    """A model answers the same input differently, so that nothing it has said can be relied on."""


class LayerError(PellucidError):
    """A layer doesn't exist, never runs, or can't be explained."""


class DeadLayerError(LayerError):
    """No gradient of a target reaches the layer's cells.

    Attributes:
        target: which of those that were asked.
        better: the layer that would explain it.
    """

    def __init__(self, message: str, target: object, better: str) -> None:
        super().__init__(message)
        self.target, self.better = target, better


class TargetError(PellucidError):
    """A target doesn't fit the model's labels or its output."""


class AbsentError(TargetError):
    """What is asked for is not in this picture; it may be in others."""


class MethodError(PellucidError):
    """A method is unknown, or its hyper-parameters make no sense."""


class StorageError(PellucidError):
    """A stored explanation can't be written, read or recomputed."""


class DataError(PellucidError, ValueError):
    """Data don't fit what is asked of them: too few, of the wrong sign, or all the same."""
