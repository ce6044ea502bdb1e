"""A recorded teacher: its signals are read from disk, so that teaching costs no teacher's
arithmetic.

Each passage has a file named by what its signal depends on: the passage as it is written (header,
pieces, lengths), its codes, and the teacher's fingerprint. `record` fills what is missing; an
interrupted recording goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill.codecs import Codec
from distill.errors import TeacherError
from distill.folders import cache_folder, fingerprint, locate, sha256_bytes
from distill.lm.prompts import Coded
from distill.lm.signals import Signal, check_signal, read_signal, write_signal
from distill.singing.singer_folder import about_singer, singer_folder
from distill.teachers import Teacher, check_codec

WRITER = 1  # raise when prompts.write changes what a teacher sees


@dataclass(frozen=True)
class Settings:
    """`singer`: whose signals. `folder`: where they lie (default: the cache)."""

    singer: str = "embedded/teacher"
    folder: str = ""

    def load(self, codec: Codec) -> RecordedTeacher:
        """The recordings of this teacher. Raises TeacherError for another codec's."""
        singer = singer_folder(locate(self.singer))
        check_codec(self.singer, about_singer(singer), codec)
        folder = Path(self.folder) if self.folder else cache_folder() / "signals"
        return RecordedTeacher(folder, fingerprint(singer), self.singer)


class RecordedTeacher:
    """Reads signals; says what to run when one is missing."""

    def __init__(self, folder: Path, teacher_fingerprint: str, name: str) -> None:
        self.folder, self.fingerprint, self.name = folder, teacher_fingerprint, name

    def path(self, coded: Coded) -> Path:
        """Where a passage's signal lies."""
        passage = coded.passage
        codes = coded.codes_FS.numpy().astype("<i4").tobytes()
        text = f"{WRITER} {self.fingerprint} {passage.header} {passage.pieces}"
        key = sha256_bytes(text.encode() + codes)
        return self.folder / key[:2] / f"{key}.safetensors"

    def signals(self, coded: Sequence[Coded]) -> list[Signal]:
        """One Signal per passage. Raises TeacherError naming a passage that was never recorded."""
        signals = []
        for item in coded:
            path = self.path(item)
            if not path.exists():
                raise TeacherError(
                    f"{item.passage.id}: {self.name} has not been recorded on it; run `distill "
                    "record RECIPE` first"
                )
            signal = read_signal(path)
            check_signal(signal, item.codes_FS, len(item.passage.pieces), item.passage.id)
            signals.append(signal)
        return signals

    def record(self, coded: Sequence[Coded], load: Callable[[], Teacher], at_once: int = 32) -> int:
        """Records what is missing with the live teacher that `load` gives: how many passages."""
        missing = [item for item in coded if not self.path(item).exists()]
        if not missing:
            return 0
        live = load()
        for first in range(0, len(missing), at_once):
            batch = missing[first : first + at_once]
            for item, signal in zip(batch, live.signals(batch), strict=True):
                path = self.path(item)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_signal(path, signal)
        return len(missing)
