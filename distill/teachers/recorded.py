"""A recorded teacher: its signals are read from disk, so that teaching costs no teacher's
arithmetic.

They lie in shards (writing/signal_shards.py), in a folder of their own for each teacher, way of
writing and form (writing/signals.py). `record` fills what is missing; an interrupted recording goes
on where its last shard ended, and several may record into one folder at once.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from distill.codecs import Codec
from distill.config.ranges import Checked, at_least
from distill.errors import FolderError, TeacherError
from distill.folders import cache_folder, fingerprint, locate, sha256_bytes
from distill.singing.singer_folder import about_singer, singer_folder
from distill.teachers import Teacher, check_codec
from distill.writing.passage_index import KEY_BYTES, PassageIndex, passage_key
from distill.writing.prompts import Coded
from distill.writing.signal_shards import About, Shards
from distill.writing.signals import Form, Signal, check_signal, packed, unpacked

log = logging.getLogger("distill")

WRITER = 1  # raise when prompts.write changes what a teacher sees
SHARD_BYTES = 64 * 2**20
SHARD_SECONDS = 60.0  # after which a shard is closed, however small: what a kill may cost


@dataclass(frozen=True)
class Settings(Checked):
    """`singer`: whose signals. `folder`: where they lie (default: the cache). `form`: how they are
    kept, and `top_k`: of how many codes, in form topk."""

    singer: str = "embedded/teacher"
    folder: str = ""
    form: Form = "fp16"
    top_k: int = at_least(1, default=128)

    def load(self, codec: Codec) -> RecordedTeacher:
        """The recordings of this teacher. Raises TeacherError for another codec's."""
        singer = singer_folder(locate(self.singer))
        check_codec(self.singer, about_singer(singer), codec)
        folder = Path(self.folder) if self.folder else cache_folder() / "signals"
        slots = codec.format.slots
        return RecordedTeacher(
            folder, fingerprint(singer), self.singer, slots, self.form, self.top_k
        )


class RecordedTeacher:
    """Reads signals; says what to run when one is missing."""

    def __init__(
        self,
        folder: Path,
        teacher_fingerprint: str,
        name: str,
        slots: int,
        form: Form = "fp16",
        top_k: int = 128,
    ) -> None:
        self.folder, self.fingerprint, self.name = folder, teacher_fingerprint, name
        self.form, self.top_k = form, top_k if form == "topk" else 0
        about = About(teacher_fingerprint, slots, form, self.top_k)
        words = f"{teacher_fingerprint[:16]}-w{WRITER}-{form}{self.top_k or ''}"
        self.shards = Shards(folder / words, about)

    def signals(self, coded: Sequence[Coded]) -> list[Signal]:
        """One Signal per passage. Raises TeacherError naming a passage that was never recorded."""
        signals = []
        for item in coded:
            signal = self.shards.read(passage_key(item))
            if signal is None:
                raise TeacherError(
                    f"{item.passage.id}: {self.name} has not been recorded on it; run `distill "
                    "record RECIPE` first"
                )
            check_signal(signal, item.codes_FS, len(item.passage.pieces), item.passage.id)
            signals.append(signal)
        return signals

    def record(
        self,
        coded: Sequence[Coded],
        load: Callable[[], Teacher],
        at_once: int = 32,
        share: tuple[int, int] = (0, 1),
    ) -> int:
        """Records what is missing with the live teacher that `load` gives: how many passages.

        share: (r, n), for the r-th of n processes that record side by side. FolderError on a full
        disk; what was recorded before it stays.
        """
        self.shards.refresh()
        keys_N16 = _keys(coded)
        own_N = np.arange(share[0], len(coded), share[1])
        missing_N = own_N[~self.shards.holds(keys_N16[own_N])]
        shard, load = _OpenShard(self.shards), functools.cache(load)
        try:
            for first in range(0, len(missing_N), at_once):
                numbers_N = missing_N[first : first + at_once]
                # all but what somebody else has recorded since
                numbers_N = numbers_N[~self.shards.holds(keys_N16[numbers_N])]
                batch = [coded[number] for number in numbers_N.tolist()]
                for item, signal in zip(batch, self._heard(batch, load), strict=True):
                    check_signal(signal, item.codes_FS, len(item.passage.pieces), item.passage.id)
                    shard.add(passage_key(item), packed(signal, self.form, self.top_k))
                if shard.is_full():
                    shard.close()
            shard.close()
        except FolderError as error:
            stays = f"{shard.done} of {len(missing_N)} passages are recorded and stay"
            raise FolderError(f"{error}; {stays}") from error
        finally:
            shard.close()  # of a recording that was stopped; after a full disk there is nothing
        return shard.done

    def _heard(self, batch: Sequence[Coded], load: Callable[[], Teacher]) -> list[Signal]:
        """Signals of older recordings as they are, the others from the teacher."""
        old = [_old_recording(self.folder, self.fingerprint, item) for item in batch]
        new = [item for item, signal in zip(batch, old, strict=True) if signal is None]
        if len(new) < len(old):
            words = "%s: %d passages taken over from older recordings, of one file each"
            log.info(words, self.name, len(old) - len(new))
        heard = iter(load().signals(new) if new else ())
        return [next(heard) if signal is None else signal for signal in old]


class _OpenShard:
    """Packed signals that wait for their shard; `done`: how many have been written."""

    def __init__(self, shards: Shards) -> None:
        self.shards, self.done = shards, 0
        self._begin()

    def _begin(self) -> None:
        self.keys: list[bytes] = []
        self.signals: list[dict[str, Tensor]] = []
        self.bytes, self.began = 0, time.monotonic()

    def add(self, key: bytes, tensors: dict[str, Tensor]) -> None:
        """One passage more."""
        self.keys.append(key)
        self.signals.append(tensors)
        self.bytes += sum(tensor.nbytes for tensor in tensors.values())

    def is_full(self) -> bool:
        """Whether it holds enough, or has waited long enough, to be written."""
        return self.bytes >= SHARD_BYTES or time.monotonic() - self.began >= SHARD_SECONDS

    def close(self) -> None:
        """Writes it, and begins another. What a disk refuses is dropped."""
        keys, signals = self.keys, self.signals
        self._begin()
        if keys:
            self.shards.write(keys, signals)
            self.done += len(keys)


def _keys(coded: Sequence[Coded]) -> NDArray[np.uint8]:
    """The passage keys (P, 16); those of an index are mapped, not computed."""
    if isinstance(coded, PassageIndex):
        return coded.keys_P16
    if not coded:
        return np.empty((0, KEY_BYTES), np.uint8)
    keys = b"".join(map(passage_key, coded))
    return np.frombuffer(keys, np.uint8).reshape(-1, KEY_BYTES)


def _old_recording(folder: Path, teacher: str, coded: Coded) -> Signal | None:
    """A signal as it was recorded before there were shards, in a file of its own; None without."""
    passage = coded.passage
    codes = coded.codes_FS.numpy().astype("<i4").tobytes()
    text = f"{WRITER} {teacher} {passage.header} {passage.pieces}"
    key = sha256_bytes(text.encode() + codes)
    path = folder / key[:2] / f"{key}.safetensors"
    if not path.exists():
        return None
    try:
        signal = unpacked(load_file(path), coded.codes_FS.shape[1], teacher)
        check_signal(signal, coded.codes_FS, len(passage.pieces), passage.id)
        return signal
    except (OSError, KeyError, ValueError, SafetensorError, TeacherError) as error:
        log.warning("%s: not a recorded signal (%s); recorded again", path, error)
        return None
