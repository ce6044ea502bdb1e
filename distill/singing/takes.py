"""Many takes for others to judge: every line of a text file sung, with a list of what was sung
when.

The list is `takes.jsonl`, one row a take, and needs none of our code to be read:

    {"line": "row row row your boat", "wav": "0000.wav", "notes": [[0.24, 0.56, 62.0], ...],
     "language": "en"}

Notes are [start, end, MIDI pitch], in seconds of that file; a start is where the vowel begins. A
score to follow is written in the same rows ("wav" and "language" not needed; one note a syllable,
what is left over goes on with the last), or is one of our manifests.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from distill import lyrics
from distill.errors import FolderError, LyricsError, SongError
from distill.folders import write_atomic
from distill.songs import TAIL_SECONDS, Line, Note, from_its_start, read_manifest

if TYPE_CHECKING:
    from distill.singing.singer import Singer
    from distill.singing.take import Take


class Asked(NamedTuple):
    """A line, and the language that its words are read in."""

    line: Line
    language: str


class ReadAs(Protocol):
    """The language of a text, of which one may be stated."""

    def __call__(self, text: str, stated: str = "") -> str: ...


def sing_lines(
    singer: Singer,
    lines: str | Path,
    out: str | Path,
    score: str | Path | None = None,
    style: str | None = None,
    voice: str | None = None,
    seed: int | None = None,
    temperature: float | None = None,
    stems: str | Path | None = None,
    language: str | None = None,
) -> Path:
    """Sings every line of the text file `lines` (empty ones and [tags] aside) into folder `out`;
    gives its takes.jsonl.

    With `score`, the singer follows its notes; with `stems`, a folder, each take's tracks go into a
    folder of its number there. `language`: how words are read, see `Singer.sing_lines`; a row of
    the score may say its own. Raises LyricsError and SongError where lines or score cannot be
    used, FolderError where `out` cannot be written, and what `Singer.sing_lines` raises.
    """
    texts = read_lines(lines)

    def read_as(text: str, stated: str = "") -> str:
        known = stated if stated and singer.knows(stated) else ""
        return language or known or singer.language_of([text])

    asked = [Asked(Line(text), read_as(text)) for text in texts]
    if score is not None:
        asked = scored(texts, score, read_as)
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderError(
            f"{out}: cannot be made ({error.strerror}); give another folder"
        ) from None
    lines_asked, languages = [each.line for each in asked], [each.language for each in asked]
    takes = singer.sing_lines(lines_asked, style, voice, seed, temperature, languages)
    rows = []
    for number, (each, take) in enumerate(zip(asked, takes, strict=True)):
        take.save(out / f"{number:04d}.wav")
        if stems is not None:
            take.save_stems(Path(stems) / f"{number:04d}")
        rows.append(_listed(each, take, f"{number:04d}.wav"))
    write_atomic(out / "takes.jsonl", ("\n".join(rows) + "\n").encode())
    return out / "takes.jsonl"


def _listed(asked: Asked, take: Take, name: str) -> str:
    """A row of takes.jsonl."""
    sung = [(start, end, midi) for start, end, midi in take.notes if midi is not None]
    notes = [[round(start, 4), round(end, 4), midi] for start, end, midi in sung]
    row = {"line": asked.line.text, "wav": name, "notes": notes, "language": asked.language}
    return json.dumps(row, ensure_ascii=False)


def read_lines(path: str | Path) -> list[str]:
    """The lines of a text file that can be sung. Raises LyricsError when there is none or it is not
    text."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LyricsError(
            f"{path}: cannot be read ({error}); give a UTF-8 text file with one line to sing a row"
        ) from None
    rows = [row.strip() for row in text.splitlines()]
    rows = [row for row in rows if row and not (row.startswith("[") and row.endswith("]"))]
    if not rows:
        raise LyricsError(f"{path}: holds no line to sing; write one a row")
    for number, row in enumerate(rows, start=1):
        lyrics.parse(row, where=f"{path}: line {number}")
    return rows


def scored(texts: Sequence[str], path: str | Path, read_as: ReadAs) -> list[Asked]:
    """Each text with its notes from a score file; equal texts take its rows in turn. Raises
    SongError."""
    rows: dict[str, list[Asked]] = {}
    for asked in _rows(Path(path), read_as):
        rows.setdefault(asked.line.text.strip(), []).append(asked)
    result: list[Asked] = []
    for text in texts:
        if text not in rows:
            raise SongError(
                f"{path}: has no notes for the line {text!r}; add a row, or sing without --score"
            )
        turn = sum(asked.line.text == text for asked in result)
        line, language = rows[text][turn % len(rows[text])]
        result.append(Asked(replace(line, text=text), language))
    return result


def _rows(path: Path, read_as: ReadAs) -> list[Asked]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise SongError(
            f"{path}: cannot be read as JSON lines ({error}); give a score or a manifest"
        ) from None
    if rows and all(isinstance(row, dict) and "version" in row for row in rows):
        timed = [(line, song.language) for song in read_manifest(path) for line in song.lines]
        return [
            Asked(from_its_start(line), read_as(line.text, language))
            for line, language in timed
            if line.notes
        ]
    return [_row(row, f"{path}:{number}", read_as) for number, row in enumerate(rows, start=1)]


def _row(row: Any, where: str, read_as: ReadAs) -> Asked:
    """A line whose syllables are laid on its notes, one each."""
    try:
        text, language = str(row["line"]), str(row.get("language") or "")
        notes = [(float(start), float(end), float(midi)) for start, end, midi in row["notes"]]
    except (TypeError, KeyError, ValueError, AttributeError):
        raise SongError(
            f'{where}: not {{"line", "notes": [[start_s, end_s, midi], ...]}}; write it so'
        ) from None
    ends = [0.0, *(end for _, end, _ in notes)]
    if not all(
        before <= start + 1e-6 and start < end
        for before, (start, end, _) in zip(ends, notes, strict=False)
    ):
        raise SongError(f"{where}: notes overlap or end before they start; mend their times")
    language = read_as(text, language)
    pieces = lyrics.sing_texts(text, language)
    if len(notes) < len(pieces):
        raise SongError(
            f"{where}: {len(notes)} notes for {len(pieces)} syllables; give every syllable a note"
        )
    pieces += [""] * (len(notes) - len(pieces))
    timed = tuple(Note(*note, piece) for note, piece in zip(notes, pieces, strict=True))
    return Asked(Line(text, 0.0, ends[-1] + TAIL_SECONDS, (), timed), language)
