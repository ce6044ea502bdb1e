"""JSON lines (or one JSON list) of strangers: rows, or errors, with where each of them stands."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from distill.errors import DistillError, FolderError, SongError
from distill.songs import Song
from distill.sources import Imported, Rows

LARGEST_LIST_BYTES = 256 * 2**20
Row = dict[str, Any]  # one JSON object


@dataclass(frozen=True)
class JsonLines(Imported):
    """Settings of a source of JSON lines at `path`, each row of a KIND a song."""

    KIND: ClassVar[str]

    path: str

    @abstractmethod
    def _song(self, row: Row, where: str, number: int) -> Song:
        """The song of row `number`, which stands at "file:line"."""

    def _rows(self) -> Rows:
        for number, (where, row) in enumerate(rows(Path(self.path).expanduser()), 1):
            if isinstance(row, SongError):
                yield where, row
                continue
            try:
                yield where, self._song(row, where, number)
            except DistillError as error:
                yield where, error
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
                reason = f"not a row of {self.KIND} ({type(error).__name__}: {error}); rewrite it"
                yield where, SongError(" ".join(f"{where}: {reason}".split())[:300])


def rows(path: Path) -> Iterator[tuple[str, Row | SongError]]:
    """("file:line", row), or a SongError where a row is no JSON object. FolderError: no file."""
    if not path.is_file():
        raise FolderError(f"{path}: there is no such file; name a .jsonl file")
    with path.open("rb") as file:
        listed = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
        file.seek(0)
        if not listed:
            for number, line in enumerate(file, 1):
                if line.strip():
                    where = f"{path}:{number}"
                    yield where, _row(_loaded(line, where), where)
            return
        size = path.stat().st_size
        if size > LARGEST_LIST_BYTES:
            raise FolderError(f"{path}: one JSON list of {size:,} bytes; write a row a line")
        values = _loaded(file.read(), f"{path}")
    for number, row in enumerate(values if isinstance(values, list) else [values], 1):
        where = f"{path}, row {number}"
        yield where, _row(row, where)


def _loaded(text: bytes, where: str) -> object:
    try:
        return json.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return SongError(f"{where}: not JSON ({str(error)[:60]}); remove or rewrite it")


def _row(row: object, where: str) -> Row | SongError:
    if isinstance(row, (dict, SongError)):
        return row
    kind = type(row).__name__
    return SongError(f"{where}: a {kind} where a row of names and values belongs; rewrite it")
