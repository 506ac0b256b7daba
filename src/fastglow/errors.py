"""The errors that fastglow raises: each says what was found, what was expected and the mend."""


class FastglowError(Exception):
    """Base of every error raised on purpose; the command line prints it as one line."""


class CheckpointError(FastglowError):
    """A checkpoint cannot be read, is unsafe, or is no WaveGlow."""


class InputError(FastglowError, ValueError):
    """A mel, an audio file or an argument is unusable as given."""


class OutputError(InputError):
    """Where outputs go takes no more of them: it is full, read-only or forbidden."""


class EngineError(FastglowError, RuntimeError):
    """The engine cannot run here, or produced something that must not be written."""
