"""Recorded signals in shards: files of many passages each, that are mapped and never rewritten.

    <folder>/shard-<hash of its keys>.safetensors
        keys (n, 16), frames (n,), pieces (n,), and the tensors of `signals.packed`, one behind the
        other: a passage's rows are where those before it end

Each shard appears whole or not at all under a name of its own. So recorders that work on one folder
at once never touch each other's work, and what was written before a disk filled, or a process was
killed, stays. A shard that is damaged is named and counts as missing.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from distill.errors import TeacherError
from distill.folders import write_atomic
from distill.writing.passage_index import KEY_BYTES
from distill.writing.signals import Form, Signal, unpacked

log = logging.getLogger("distill")

VERSION = 2  # 1 was one file a passage
BY_PIECE = ("pitch", "length")  # tensors of a row a piece; the others have one a frame
OPEN_AT_ONCE = 64  # shards that a process keeps mapped


@dataclass(frozen=True)
class About:
    """What a folder's shards hold: whose signals (a fingerprint), of how many slots, how kept."""

    teacher: str
    slots: int
    form: Form
    top_k: int
    version: int = VERSION


class Shards:
    """The signals of a folder, by passage key. `refresh` sees what others wrote since."""

    def __init__(self, folder: Path, about: About) -> None:
        self.folder, self.about = folder, about
        self._names: list[str] = []
        self._seen: set[str] = set()
        self._prefix_N = np.empty(0, np.uint64)  # of the keys, in ascending order
        self._where_N2 = np.empty((0, 2), np.int32)  # shard, row
        self._open = functools.lru_cache(OPEN_AT_ONCE)(_Shard)
        self.refresh()

    def __reduce__(self) -> tuple[type[Shards], tuple[Path, About]]:
        return Shards, (self.folder, self.about)  # in a worker it is opened again

    def refresh(self) -> None:
        """Reads the keys of shards that are new."""
        prefixes, wheres = [self._prefix_N], [self._where_N2]
        for path in sorted(self.folder.glob("shard-*.safetensors")):
            if path.name in self._seen:
                continue
            self._seen.add(path.name)
            try:
                keys_N16 = _Shard(path, self.about).keys_N16
            except TeacherError as error:
                log.warning("%s", error)
                continue
            rows_N = np.arange(len(keys_N16), dtype=np.int32)
            wheres.append(np.stack([np.full_like(rows_N, len(self._names)), rows_N], 1))
            prefixes.append(_prefixes(keys_N16))
            self._names.append(path.name)
        if len(prefixes) > 1:
            prefix_N = np.concatenate(prefixes)
            order_N = np.argsort(prefix_N, kind="stable")
            self._prefix_N = prefix_N[order_N]
            self._where_N2 = np.concatenate(wheres)[order_N]

    def holds(self, keys_N16: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which of these passages have a signal here."""
        prefix_N = _prefixes(keys_N16)
        at_N = np.searchsorted(self._prefix_N, prefix_N)
        known_N = at_N < len(self._prefix_N)
        known_N[known_N] = self._prefix_N[at_N[known_N]] == prefix_N[known_N]
        return known_N

    def read(self, key: bytes) -> Signal | None:
        """A passage's signal in float32; None without one. TeacherError for a damaged shard."""
        keys_116 = np.frombuffer(key, np.uint8)[None]
        if not self.holds(keys_116)[0]:
            return None
        at = int(np.searchsorted(self._prefix_N, _prefixes(keys_116))[0])
        number, row = map(int, self._where_N2[at])
        return self._open(self.folder / self._names[number], self.about).signal(row, key)

    def write(self, keys: Sequence[bytes], signals: Sequence[dict[str, Tensor]]) -> None:
        """One shard of packed signals. FolderError when the disk refuses."""
        rows: dict[str, Tensor] = {
            "keys": torch.frombuffer(bytearray(b"".join(keys)), dtype=torch.uint8).view(-1, 16),
            "frames": torch.tensor([len(tensors["slot0"]) for tensors in signals]),
            "pieces": torch.tensor([len(tensors["pitch"]) for tensors in signals]),
        }
        rows |= {name: torch.cat([tensors[name] for tensors in signals]) for name in signals[0]}
        name = f"shard-{hashlib.sha256(b''.join(keys)).hexdigest()[:24]}.safetensors"
        content = save(rows, {"about": json.dumps(asdict(self.about))})
        write_atomic(self.folder / name, content)
        self._seen.discard(name)  # it may have been there, damaged
        self.refresh()


class _Shard:
    """One file, mapped."""

    def __init__(self, path: Path, about: About) -> None:
        self.path, self.about = path, about
        try:
            self._file: Any = safe_open(str(path), "pt")
            has = json.loads((self._file.metadata() or {})["about"])
            names = set(self._file.keys())  # not a dict, whatever it looks like
            self.names = sorted(names - {"keys", "frames", "pieces"})
            self.keys_N16: NDArray[np.uint8] = self._file.get_tensor("keys").numpy()
            counts = {n: self._file.get_tensor(n).numpy() for n in ("frames", "pieces")}
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise self._damaged(str(error)) from None
        if has != asdict(about):
            raise TeacherError(f"{path}: holds {has}, not {asdict(about)}; move it elsewhere")
        if self.keys_N16.shape != (len(counts["frames"]), KEY_BYTES):
            raise self._damaged("its keys are not those of its rows")
        self._ends = {n: np.concatenate([[0], np.cumsum(c)]) for n, c in counts.items()}

    def signal(self, row: int, key: bytes) -> Signal:
        """The signal in a row, which must be that of `key`."""
        if self.keys_N16[row].tobytes() != key:
            raise self._damaged("a passage's row is another's")
        try:
            tensors = {name: self._rows(name, row) for name in self.names}
            return unpacked(tensors, self.about.slots, self.about.teacher)
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise self._damaged(str(error)) from None

    def _rows(self, name: str, row: int) -> Tensor:
        ends_N = self._ends["pieces" if name in BY_PIECE else "frames"]
        rows: Tensor = self._file.get_slice(name)[int(ends_N[row]) : int(ends_N[row + 1])]
        return rows

    def _damaged(self, reason: str) -> TeacherError:
        return TeacherError(
            f"{self.path}: not a shard of signals ({reason}); delete it and record it again"
        )


def _prefixes(keys_N16: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The first 8 bytes of each key as a number."""
    return np.ascontiguousarray(keys_N16[:, :8]).view("<u8").reshape(-1)
