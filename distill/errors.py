"""What can go wrong, as one tree under DistillError; each is also the builtin that comes nearest.

Every message is one line: where, what, what to do. Each class can be pickled (one string argument).
"""


class DistillError(Exception):
    """Anything this library refuses or cannot do."""


class SettingsError(DistillError, ValueError):
    """A recipe or an option is wrong."""


class SongError(DistillError, ValueError):
    """A song cannot be used as it is."""


class AudioError(SongError):
    """Audio that is empty, silent, truncated, NaN or not audio."""


class LyricsError(SongError):
    """Lyrics that are empty, too long or not text."""


class FitError(DistillError, ValueError):
    """A song is longer than the model can hold."""


class CodecError(DistillError, ValueError):
    """Codes and codec do not belong together, or weights are damaged."""


class VocabularyError(DistillError, ValueError):
    """An id or a code lies outside its block."""


class GraftError(DistillError, ValueError):
    """A base LLM cannot be grafted as asked."""


class AdapterError(DistillError, ValueError):
    """An adapter does not belong to this base."""


class TeacherError(DistillError, ValueError):
    """A teacher cannot teach this student."""


class TrainingError(DistillError, RuntimeError):
    """Training cannot go on (NaN, a second process in the folder)."""


class CheckpointError(DistillError, RuntimeError):
    """A checkpoint cannot be written or cannot be trusted."""


class FolderError(DistillError, OSError):
    """A file or folder is missing, damaged or not ours."""


class HubError(DistillError, RuntimeError):
    """A hub refused, or must not be pushed to."""


class ElsewhereError(DistillError, RuntimeError):
    """Another process of the same run has failed; that one says why."""


def first_line(error: BaseException) -> str:
    """What a library's error says, for a message of one line; its type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].strip()
