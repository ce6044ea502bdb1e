"""Coded passages, written for one LLM, in flat columns: mapped from disk, or held in memory.

    ids, kinds      of every token, passage after passage; kinds as in `prompts.Written`
    codes           of every frame, S slots each
    texts           what else a passage is (JSON in UTF-8): header, pieces, lines
    keys            16 bytes a passage: what a teacher's signal for it is named by
    ends            (P, 3): where each passage ends among tokens, frames and texts

A thousand hours are read like ten seconds: nothing is loaded but what a batch asks for, and what
the kernel keeps of it, it can drop. A folder is named by all that its content depends on, appears
whole or not at all, and is checked against its manifest when it is opened.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import IO, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.folders import MANIFEST, atomic_folder, sha256_files
from distill.songs import Line, Note, Word
from distill.writing.prompts import Coded, Grain, Passage, Piece, WritingSettings, Written, grain_of

log = logging.getLogger("distill")

VERSION = 1
ABOUT = "index.json"
KEY_BYTES = 16
COLUMNS = ("ids", "kinds", "codes", "texts", "keys", "ends")
FINEST_FIRST: tuple[Grain, ...] = ("note", "word", "line", "none")

Column = NDArray[np.generic]
T = TypeVar("T")


@dataclass(frozen=True)
class About:
    """What holds for all passages. types: of the columns, as numpy names them. remarks: lines on
    what was set aside. digest: of all passages, to compare between processes."""

    version: int
    passages: int
    slots: int
    types: dict[str, str]
    grain: Grain
    remarks: tuple[str, ...]
    digest: str


@dataclass(frozen=True)
class Tokens:
    """A passage's ids and kinds, as much of a `Written` as a batch needs."""

    ids_T: Tensor
    kind_T: Tensor

    def __len__(self) -> int:
        return len(self.ids_T)


def passage_key(coded: Coded) -> bytes:
    """16 bytes that name a passage as any teacher hears it: header, pieces, lengths and codes."""
    passage = coded.passage
    codes = coded.codes_FS.numpy().astype("<i4").tobytes()
    text = f"{passage.header} {passage.pieces}"
    return hashlib.sha256(text.encode() + codes).digest()[:KEY_BYTES]


class PassageIndex(Sequence[Coded]):
    """Passages by number, each made from the columns when it is asked for."""

    def __init__(self, columns: Mapping[str, Column], about: About) -> None:
        self.columns, self.about = columns, about
        self.ends_P3 = columns["ends"].reshape(-1, 3)
        self.codes_FS = columns["codes"].reshape(-1, about.slots)
        keys: NDArray[np.uint8] = columns["keys"].view(np.uint8)
        self.keys_P16 = keys.reshape(-1, KEY_BYTES)

    def __len__(self) -> int:
        return self.about.passages

    @overload
    def __getitem__(self, index: int) -> Coded: ...
    @overload
    def __getitem__(self, index: slice) -> list[Coded]: ...
    def __getitem__(self, index: int | slice) -> Coded | list[Coded]:
        numbers = range(len(self))[index]
        if isinstance(numbers, range):
            return [self[number] for number in numbers]
        text = self.columns["texts"][self._own(numbers, 2)].tobytes()
        codes_FS = self.codes_FS[self._own(numbers, 1)].astype(np.int64)
        return Coded(_passage(text), torch.from_numpy(codes_FS))

    def tokens(self, number: int) -> Tokens:
        """A passage as it was written."""
        own = self._own(number, 0)
        columns = (self.columns["ids"][own], self.columns["kinds"][own])
        return Tokens(*(torch.from_numpy(column.astype(np.int64)) for column in columns))

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        """Tokens of every passage."""
        return np.diff(self.ends_P3[:, 0], prepend=0).astype(np.int32)

    @property
    def frames(self) -> int:
        """Of all passages."""
        return len(self.codes_FS)

    @property
    def digest(self) -> str:
        """Two processes that have the same passages, written alike, have the same."""
        return self.about.digest

    def _own(self, number: int, column: int) -> slice:
        start = self.ends_P3[number - 1, column] if number else 0
        return slice(int(start), int(self.ends_P3[number, column]))


# --- making one -----------------------------------------------------------------------------------
Write = Callable[[Coded], Written]


def gather(
    coded: Iterable[Coded], write: Write, slot_sizes: Sequence[int], writing: WritingSettings
) -> PassageIndex:
    """An index in memory, of few passages."""
    files = {name: io.BytesIO() for name in COLUMNS}
    about = _fill(files, coded, write, slot_sizes, writing, ())
    return PassageIndex(
        {n: np.frombuffer(file.getbuffer(), about.types[n]) for n, file in files.items()}, about
    )


def build(
    folder: Path,
    coded: Iterable[Coded],
    write: Write,
    slot_sizes: Sequence[int],
    writing: WritingSettings,
    remarks: Sequence[str] = (),
) -> None:
    """Writes an index; `remarks` may grow while `coded` is gone through. FolderError on a full disk
    (nothing of it is left)."""
    with atomic_folder(folder) as partial, ExitStack() as open_files:
        files = {n: open_files.enter_context((partial / n).open("wb")) for n in COLUMNS}
        about = _fill(files, coded, write, slot_sizes, writing, remarks)
        (partial / ABOUT).write_text(json.dumps(asdict(about)), encoding="utf-8")


def opened(folder: Path) -> PassageIndex | None:
    """The index of a folder, mapped; None without one. A damaged one is named, and none."""
    if not folder.exists():
        return None
    try:
        _check(folder)
        row = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        about = About(**row | {"remarks": tuple(row["remarks"])})
        return PassageIndex({n: _mapped(folder / n, about.types[n]) for n in COLUMNS}, about)
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.warning("%s: not a whole index of passages (%s); made again", folder, error)
        return None


def _check(folder: Path) -> None:
    """Raises ValueError for a file that is not what the manifest says (hashes are remembered)."""
    listed = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    names = [*COLUMNS, ABOUT]
    for name, content in zip(names, sha256_files(folder / n for n in names), strict=True):
        if listed.get(name) != content:
            raise ValueError(f"{name} is not what its manifest says")


def _mapped(path: Path, type: str) -> Column:
    if not path.stat().st_size:  # which cannot be mapped
        return np.empty(0, type)
    return np.memmap(path, type, mode="r").view(np.ndarray)  # plain: its slices cost half as much


def _fill(
    files: Mapping[str, IO[bytes]],
    coded: Iterable[Coded],
    write: Write,
    slot_sizes: Sequence[int],
    writing: WritingSettings,
    remarks: Sequence[str],
) -> About:
    """Writes every passage behind the last."""
    types = _types(slot_sizes)
    digest, ends, passages = hashlib.sha256(), np.zeros(3, types["ends"]), 0
    grains: set[Grain] = set()
    for item in coded:
        written, key, text = write(item), passage_key(item), _text(item.passage)
        row = {"ids": written.ids_T, "kinds": written.kind_T, "codes": item.codes_FS}
        parts = {n: tensor.numpy().astype(types[n]).tobytes() for n, tensor in row.items()}
        ends += (len(written), len(item.codes_FS), len(text))
        for name, content in (parts | {"texts": text, "keys": key, "ends": ends.tobytes()}).items():
            files[name].write(content)
        digest.update(key + parts["ids"] + parts["kinds"])
        grains.add(grain_of([item.passage], writing))
        passages += 1
    grain: Grain = next((grain for grain in FINEST_FIRST if grain in grains), "none")
    slots = len(slot_sizes)
    return About(VERSION, passages, slots, types, grain, tuple(remarks), digest.hexdigest())


def _types(slot_sizes: Sequence[int]) -> dict[str, str]:
    """The narrowest type of each column."""
    codes = "<u2" if max(slot_sizes) <= 2**16 else "<i4"
    kinds = "<i1" if len(slot_sizes) < 2**7 else "<i2"
    return {
        "ids": "<u4",
        "kinds": kinds,
        "codes": codes,
        "texts": "u1",
        "keys": "u1",
        "ends": "<i8",
    }


# --- a passage as text ----------------------------------------------------------------------------
def _text(passage: Passage) -> bytes:
    lines = [
        _named(line) | {"words": _rows(line.words), "notes": _rows(line.notes)}
        for line in passage.lines
    ]
    row = _named(passage) | {"pieces": _rows(passage.pieces), "lines": lines}
    text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


def _passage(text: bytes) -> Passage:
    row = json.loads(text.decode("utf-8", "surrogatepass"))
    lines = (
        Line(**line | {"words": _made(Word, line["words"]), "notes": _made(Note, line["notes"])})
        for line in row["lines"]
    )
    return Passage(**row | {"pieces": _made(Piece, row["pieces"]), "lines": tuple(lines)})


def _named(value: Passage | Line) -> dict[str, object]:
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _rows(values: Sequence[Piece | Word | Note]) -> list[list[object]]:
    """Without their names, which would be most of the text."""
    return [[getattr(value, field.name) for field in fields(value)] for value in values]


def _made(cls: Callable[..., T], rows: Iterable[list[object]]) -> tuple[T, ...]:
    return tuple(cls(*row) for row in rows)
