"""What can go wrong, as one tree.

    DistillError
    |-- SettingsError     a recipe or option is wrong                     (also ValueError)
    |-- SongError         a song cannot be used                           (also ValueError)
    |   |-- AudioError    its audio is empty, silent, damaged, not audio
    |   `-- LyricsError   its lyrics are empty, too long, not text
    |-- FitError          a song is longer than the model can hold        (also ValueError)
    |-- CodecError        codes or codec do not belong together           (also ValueError)
    |-- VocabularyError   an id or code outside its block                 (also ValueError)
    |-- GraftError        a base LLM cannot be grafted as asked           (also ValueError)
    |-- AdapterError      an adapter on a base it was not made for        (also ValueError)
    |-- TeacherError      a teacher that cannot teach this student        (also ValueError)
    |-- TrainingError     training cannot go on (NaN, second process)     (also RuntimeError)
    |-- CheckpointError   a checkpoint cannot be written or trusted       (also RuntimeError)
    |-- FolderError       a file or folder is missing or not ours         (also OSError)
    `-- HubError          a hub refused, or must not be pushed to         (also RuntimeError)

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
    """Training cannot go on."""


class CheckpointError(DistillError, RuntimeError):
    """A checkpoint cannot be written or cannot be trusted."""


class FolderError(DistillError, OSError):
    """A file or folder is missing, damaged or not ours."""


class HubError(DistillError, RuntimeError):
    """A hub refused, or must not be pushed to."""
