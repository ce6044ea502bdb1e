"""YuE's fine-tuning data: JSON lines that name a song's codes, its sections in seconds and their
lyrics.

    {"id": "1", "codec": "example/npy/dummy.npy", "vocals_codec": "example/npy/dummy.Vocals.npy",
     "instrumental_codec": "example/npy/dummy.Instrumental.npy", "audio_length_in_sec": 85.16,
     "msa": [{"start": 0, "end": 13.93, "label": "intro"}, ...], "genres": "male, youth, powerful, rock",
     "splitted_lyrics": {"segmented_lyrics": [{"offset": 0, "duration": 13.93, "codec_frame_start": 0,
     "codec_frame_end": 696, "line_content": "[intro]\\n\\n"}, ...]}}

The layout is that of multimodal-art-projection/YuE, finetune/README.md ("JSONL File Format"), and
what may be is what its finetune/core/preprocess_data_conditional_xcodec_segment.py takes: 49 to 51
frames a second, vocals and instrumental at most 10 frames apart. Where that skips a segment whose
times are wrong, the whole song is refused here.

Such songs have no audio: the Facts codes_path_mix, codes_path_vocals and codes_path_instrumental
name the files of their codes (codebooks, frames). The times are of sections; a section of a single
line gives them to the line, and the Fact "sections" holds all.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill.errors import DistillError, FolderError, LyricsError, SongError
from distill.lyrics import parse, words
from distill.songs import Fact, Line, Section, Song
from distill.sources import Refusal, loaded, scanned
from distill.sources._formats.jsonl import songs

FRAME_RATE = 50.0  # Hz, of X-Codec
MOST_FRAMES_APART = 10
TRACKS = {"codec": "mix", "vocals_codec": "vocals", "instrumental_codec": "instrumental"}


@dataclass(frozen=True)
class Settings:
    """`path` of the .jsonl; `root` the folder that its paths of codes start from ("": wherever
    above the file they are found). `language`, `licence`, `voice`: what the rows do not say."""

    path: str
    root: str = ""
    language: str = "en"
    licence: str = "unknown"
    voice: str = ""

    def load(self) -> list[Song]:
        """The songs. Raises FolderError without a file, SongError and LyricsError for the first row
        that is none."""
        return loaded(self._found())

    def scan(self) -> Iterator[Song | Refusal]:
        """The songs, with a Refusal in place of each row that is none."""
        return scanned(self._found())

    def _found(self) -> Iterator[tuple[str, Song | DistillError]]:
        path = Path(self.path).expanduser()
        return songs(
            path, lambda row, where, _: self._song(row, path, where), "YuE's fine-tuning data"
        )

    def _song(self, row: dict[str, Any], path: Path, where: str) -> Song:
        seconds = _seconds(row["audio_length_in_sec"], where)
        codes = self._codes(row, path, seconds, where)
        spans = [_span(one, "start", "end", seconds, where) for one in row.get("msa") or ()]
        labels = [str(one["label"]) for one in row.get("msa") or ()]
        sections, timed = [], []
        for one in row["splitted_lyrics"]["segmented_lyrics"]:
            start, end = _span(
                {**one, "end": one["offset"] + one["duration"]}, "offset", "end", seconds, where
            )
            text = str(one["line_content"])
            label = next(
                (n for n, (a, b) in zip(labels, spans, strict=True) if a <= (start + end) / 2 < b),
                "verse",
            )
            _same_place(one, start, end, where)
            found = _sections(text, label, start, end, where)
            sections += found
            tag = (
                found[0].tag
                if found
                else text.strip().strip("[]").partition("]")[0].lower() or label
            )
            timed.append({"tag": tag, "start": start, "end": end})
        if not sections:
            raise LyricsError(f"{where}: no section has a word to sing; leave the row out")
        given = [Fact(f"codes_path_{name}", file) for name, file in codes.items()]
        given += [
            Fact("codes_frame_rate_hz", FRAME_RATE),
            Fact("seconds", seconds),
            Fact("sections", timed),
        ]
        return Song(
            id=str(row["id"]), sections=tuple(sections), style=str(row.get("genres") or ""), voice=self.voice,
            language=self.language, licence=self.licence, source=path.name, facts=tuple(given),
        )  # fmt: skip

    def _codes(self, row: dict[str, Any], path: Path, seconds: float, where: str) -> dict[str, str]:
        """The files of codes by track, their heads checked against the song's length and each
        other."""
        found, frames = {}, {}
        for key, name in TRACKS.items():
            if not row.get(key):
                continue
            file = _place(str(row[key]), path, self.root, where)
            frames[name] = _frames(file)
            if abs(frames[name] / seconds - FRAME_RATE) > 1:
                raise SongError(
                    f"{file}: {frames[name]:,} frames for {seconds:.2f} s, not {FRAME_RATE:g} a "
                    "second; code it again"
                )
            found[name] = str(file)
        if not found:
            raise SongError(f"{where}: names no codes; give {', '.join(TRACKS)}")
        if max(frames.values()) - min(frames.values()) > MOST_FRAMES_APART:
            raise SongError(f"{where}: its codes are of unequal length ({frames}); code it again")
        return found


def _seconds(value: Any, where: str) -> float:
    seconds = float(value)
    if not 0 < seconds < 86_400:
        raise SongError(f"{where}: lasts {seconds:g} s; correct audio_length_in_sec")
    return seconds


def _span(
    one: dict[str, Any], first: str, last: str, seconds: float, where: str
) -> tuple[float, float]:
    start, end = float(one[first]), float(one[last])
    if not (math.isfinite(start) and math.isfinite(end) and 0 <= start < end <= seconds + 1):
        raise SongError(
            f"{where}: a section from {start:g} to {end:g} s of {seconds:g} s; correct it"
        )
    return start, min(end, seconds)


def _same_place(one: dict[str, Any], start: float, end: float, where: str) -> None:
    """YuE cuts by frames and we by seconds, so they must mean the same."""
    for name, at in (("codec_frame_start", start), ("codec_frame_end", end)):
        if name in one and abs(float(one[name]) / FRAME_RATE - at) > 1:
            raise SongError(
                f"{where}: {name} is {one[name]}, which is not at {at:g} s; correct one of them"
            )


def _sections(text: str, label: str, start: float, end: float, where: str) -> list[Section]:
    """The lyrics of one segment; a tag of its own stands above the label that structure analysis
    gave."""
    if not words(re.sub(r"^\s*\[[^\]\n]*\]", "", text, flags=re.MULTILINE)):
        return []
    if not text.lstrip().startswith("["):
        text = f"[{label}]\n{text}"
    verses = parse(text, where)
    if len(verses) == 1 and len(verses[0].lines) == 1:
        return [Section(verses[0].tag, (Line(verses[0].lines[0], start, end),))]
    return [Section(verse.tag, tuple(Line(line) for line in verse.lines)) for verse in verses]


def _place(named: str, path: Path, root: str, where: str) -> Path:
    """The file of codes: under `root`, else under the first folder from the .jsonl's own upwards
    that has it."""
    places = [Path(root).expanduser()] if root else path.resolve().parents[:4]
    for place in places:
        if (place / named).is_file():
            return (place / named).resolve()
    raise FolderError(
        f"{where}: {named[:80]} is nowhere above {path.name}; set root to the folder it starts from"
    )


def _frames(file: Path) -> int:
    """How many frames a .npy of codes (codebooks, frames) promises; only its head is read, and
    never a pickle."""
    try:
        codes_SF = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise SongError(
            f"{file}: not a .npy of numbers ({str(error)[:60]}); code it again"
        ) from None
    if (
        not isinstance(codes_SF, np.ndarray)
        or codes_SF.ndim != 2
        or codes_SF.dtype.kind not in "iu"
    ):
        raise SongError(f"{file}: not whole numbers of shape (codebooks, frames); code it again")
    return int(codes_SF.shape[1])
