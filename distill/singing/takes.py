"""Many takes for others to judge: every line of a text file sung, with a list of what was sung
when.

The list is `takes.jsonl`, one row a take, and needs none of our code to be read:

    {"line": "row row row your boat", "wav": "0000.wav", "notes": [[0.24, 0.56, 62.0], ...]}

Notes are [start, end, MIDI pitch], in seconds of that file; a start is where the vowel begins. A
score to follow is written in the same rows ("wav" not needed; one note a syllable, what is left
over goes on with the last), or is one of our manifests.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill import lyrics
from distill.errors import FolderError, LyricsError, SongError
from distill.folders import write_atomic
from distill.songs import TAIL_SECONDS, Line, Note, from_its_start, read_manifest

if TYPE_CHECKING:
    from distill.singing.singer import Singer


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
) -> Path:
    """Sings every line of the text file `lines` (empty ones and [tags] aside) into folder `out`;
    gives its takes.jsonl.

    With `score`, the singer follows its notes; with `stems`, a folder, each take's tracks go into a
    folder of its number there. Raises LyricsError and SongError where lines or score cannot be
    used, FolderError where `out` cannot be written, and what `Singer.sing_lines` raises.
    """
    texts = read_lines(lines)
    asked = scored(texts, score) if score is not None else [Line(text) for text in texts]
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderError(
            f"{out}: cannot be made ({error.strerror}); give another folder"
        ) from None
    rows = []
    takes = singer.sing_lines(asked, style, voice, seed, temperature)
    for number, (line, take) in enumerate(zip(asked, takes, strict=True)):
        name = f"{number:04d}.wav"
        take.save(out / name)
        if stems is not None:
            take.save_stems(Path(stems) / f"{number:04d}")
        notes = [
            [round(start, 4), round(end, 4), midi]
            for start, end, midi in take.notes
            if midi is not None
        ]
        row = {"line": line.text, "wav": name, "notes": notes}
        rows.append(json.dumps(row, ensure_ascii=False))
    write_atomic(out / "takes.jsonl", ("\n".join(rows) + "\n").encode())
    return out / "takes.jsonl"


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


def scored(texts: Sequence[str], path: str | Path) -> list[Line]:
    """Each text with its notes from a score file; equal texts take its rows in turn. Raises
    SongError."""
    rows: dict[str, list[Line]] = {}
    for line in _rows(Path(path)):
        rows.setdefault(line.text.strip(), []).append(line)
    result: list[Line] = []
    for text in texts:
        if text not in rows:
            raise SongError(
                f"{path}: has no notes for the line {text!r}; add a row, or sing without --score"
            )
        turn = sum(line.text == text for line in result)
        result.append(replace(rows[text][turn % len(rows[text])], text=text))
    return result


def _rows(path: Path) -> list[Line]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise SongError(
            f"{path}: cannot be read as JSON lines ({error}); give a score or a manifest"
        ) from None
    if rows and all(isinstance(row, dict) and "version" in row for row in rows):
        timed = [line for song in read_manifest(path) for line in song.lines]
        return [from_its_start(line) for line in timed if line.notes]
    return [_row(row, f"{path}:{number}") for number, row in enumerate(rows, start=1)]


def _row(row: Any, where: str) -> Line:
    """A line whose syllables are laid on its notes, one each."""
    try:
        text = str(row["line"])
        notes = [(float(start), float(end), float(midi)) for start, end, midi in row["notes"]]
    except (TypeError, KeyError, ValueError):
        raise SongError(
            f'{where}: not {{"line", "notes": [[start_s, end_s, midi], ...]}}; write it so'
        ) from None
    ends = [0.0, *(end for _, end, _ in notes)]
    if not all(
        before <= start + 1e-6 and start < end
        for before, (start, end, _) in zip(ends, notes, strict=False)
    ):
        raise SongError(f"{where}: notes overlap or end before they start; mend their times")
    pieces = lyrics.sing_texts(text)
    if len(notes) < len(pieces):
        raise SongError(
            f"{where}: {len(notes)} notes for {len(pieces)} syllables; give every syllable a note"
        )
    pieces += [""] * (len(notes) - len(pieces))
    timed = tuple(Note(*note, piece) for note, piece in zip(notes, pieces, strict=True))
    return Line(text, 0.0, ends[-1] + TAIL_SECONDS, (), timed)
