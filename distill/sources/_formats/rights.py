"""rights.csv: who allows what, for a whole folder of songs.

    file,licence,source,credit
    fantasma.mp3,CC-BY-SA-4.0,https://example.org/fantasma,Fantasma by Los Rombos
    *,CC0-1.0,,

`file` is a song's id, its recording's path in the folder, or * for every song without a row; the
other columns may be empty. A licence is an SPDX id where there is one.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import ClassVar, NamedTuple

from distill.errors import SongError
from distill.sources._formats.text import read_text


class Row(NamedTuple):
    """Whose one song is and who allows it; "" where the file is silent."""

    licence: str = ""
    source: str = ""
    credit: str = ""


class Rights:
    """The rows by file, and which of them have been asked for."""

    FILE: ClassVar[str] = "rights.csv"

    def __init__(self, rows: dict[str, tuple[int, Row]]) -> None:
        self._rows = rows
        self._used = {"*"}

    def of(self, *names: str) -> Row:
        """The row of a song, by the first of its names that has one."""
        self._used.update(names)
        return next((self._rows[name][1] for name in (*names, "*") if name in self._rows), Row())

    def unused(self) -> list[tuple[int, str]]:
        """(line, file) of the rows that no song has asked for."""
        return [(line, file) for file, (line, _) in self._rows.items() if file not in self._used]


def read_rights(folder: Path) -> Rights:
    """A folder's rights.csv, empty where there is none. SongError for one that cannot be read."""
    path = folder / Rights.FILE
    if not path.is_file():
        return Rights({})
    text, _ = read_text(path)
    rows: dict[str, tuple[int, Row]] = {}
    reader = csv.DictReader(io.StringIO(text), strict=True)
    try:
        columns = [name.strip().lower() for name in reader.fieldnames or ()]
        unknown = set(columns) - {"file", *Row._fields}
        if "file" not in columns or unknown or len(set(columns)) < len(columns):
            given = ", ".join(columns)[:80]
            raise SongError(f"{path}:1: its columns are {given}; write file,licence,source,credit")
        reader.fieldnames = columns
        for row in reader:
            file = (row["file"] or "").strip()
            if None in row or not file or file in rows:
                where = f"{path}:{reader.line_num}: {file[:40]!r}"
                raise SongError(f"{where} is no row of its own; write one for a file")
            rights = {name: (row.get(name) or "").strip() for name in Row._fields}
            rows[file] = (reader.line_num, Row(**rights))
    except csv.Error as error:
        where = f"{path}:{reader.line_num}"
        raise SongError(f"{where}: not CSV ({error}); quote texts with commas") from None
    return Rights(rows)
