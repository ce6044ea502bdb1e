"""YuE's fine-tuning data: JSON lines of a song's codes, its sections in seconds and their lyrics.

    {"id": "1", "codec": "example/npy/dummy.npy", "vocals_codec": "example/npy/dummy.Vocals.npy",
     "instrumental_codec": "example/npy/dummy.Instrumental.npy", "audio_length_in_sec": 85.16,
     "msa": [{"start": 0, "end": 13.93, "label": "intro"}, ...], "genres": "male, youth, rock",
     "splitted_lyrics": {"segmented_lyrics": [{"offset": 0, "duration": 13.93, "codec_frame_start":
     0, "codec_frame_end": 696, "line_content": "[intro]\\n\\n"}, ...]}}

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
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from distill.errors import FolderError, LyricsError, SongError
from distill.lyrics import parse, words
from distill.songs import Fact, Line, Section, Song
from distill.sources._formats.jsonl import JsonLines, Row

FRAME_RATE = 50.0  # Hz, of X-Codec
MOST_FRAMES_APART = 10
LONGEST_SECONDS = 86_400
TRACKS = {"codec": "mix", "vocals_codec": "vocals", "instrumental_codec": "instrumental"}


@dataclass(frozen=True)
class Settings(JsonLines):
    """`path` of the .jsonl; `root` that its paths start from ("": wherever above it they are)."""

    KIND: ClassVar[str] = "YuE's fine-tuning data"
    root: str = ""
    language: str = "en"
    licence: str = "unknown"
    voice: str = ""

    def _song(self, row: Row, where: str, number: int) -> Song:
        path = Path(self.path).expanduser()
        seconds = _seconds(row["audio_length_in_sec"], where)
        codes = self._codes(row, path, seconds, where)
        parts = row.get("msa") or ()
        spans = [_span(part["start"], part["end"], seconds, where) for part in parts]
        labelled = [(str(part["label"]), span) for part, span in zip(parts, spans, strict=True)]
        sections, timed = [], []
        for segment in row["splitted_lyrics"]["segmented_lyrics"]:
            offset = segment["offset"]
            start, end = _span(offset, offset + segment["duration"], seconds, where)
            middle = (start + end) / 2
            label = next((label for label, (a, b) in labelled if a <= middle < b), "verse")
            _same_times(segment, start, end, where)
            text = str(segment["line_content"])
            verses = _sections(text, label, start, end, where)
            sections += verses
            unsung = text.strip().strip("[]").partition("]")[0].lower() or label
            tag = verses[0].tag if verses else unsung
            timed.append({"tag": tag, "start": start, "end": end})
        if not sections:
            raise LyricsError(f"{where}: no section has a word to sing; leave the row out")
        return Song(
            id=str(row["id"]),
            sections=tuple(sections),
            style=str(row.get("genres") or ""),
            voice=self.voice,
            language=self.language,
            licence=self.licence,
            source=path.name,
            facts=(
                *(Fact(f"codes_path_{track}", file) for track, file in codes.items()),
                Fact("codes_frame_rate_hz", FRAME_RATE),
                Fact("seconds", seconds),
                Fact("sections", timed),
            ),
        )

    def _codes(self, row: Row, path: Path, seconds: float, where: str) -> dict[str, str]:
        """The files of codes by track, as long as the song and as each other by their heads."""
        files, frames = {}, {}
        for key, track in TRACKS.items():
            if not row.get(key):
                continue
            file = _codes_file(str(row[key]), path, self.root, where)
            frames[track] = _frames(file)
            if abs(frames[track] / seconds - FRAME_RATE) > 1:
                rate = f"{frames[track]:,} frames for {seconds:.2f} s, not {FRAME_RATE:g} a second"
                raise SongError(f"{file}: {rate}; code it again")
            files[track] = str(file)
        if not files:
            raise SongError(f"{where}: names no codes; give {', '.join(TRACKS)}")
        if max(frames.values()) - min(frames.values()) > MOST_FRAMES_APART:
            raise SongError(f"{where}: its codes are of unequal length ({frames}); code it again")
        return files


def _seconds(value: str | float, where: str) -> float:
    seconds = float(value)
    if not 0 < seconds < LONGEST_SECONDS:
        raise SongError(f"{where}: lasts {seconds:g} s; correct audio_length_in_sec")
    return seconds


def _span(first: float, last: float, seconds: float, where: str) -> tuple[float, float]:
    start, end = float(first), float(last)
    if not (math.isfinite(start) and math.isfinite(end) and 0 <= start < end <= seconds + 1):
        span = f"from {start:g} to {end:g} s of {seconds:g} s"
        raise SongError(f"{where}: a section {span}; correct it")
    return start, min(end, seconds)


def _same_times(segment: Row, start: float, end: float, where: str) -> None:
    """YuE cuts by frames and we by seconds, so they must mean the same."""
    for name, at in (("codec_frame_start", start), ("codec_frame_end", end)):
        if name in segment and abs(float(segment[name]) / FRAME_RATE - at) > 1:
            other = f"which is not at {at:g} s; correct one of them"
            raise SongError(f"{where}: {name} is {segment[name]}, {other}")


def _sections(text: str, label: str, start: float, end: float, where: str) -> list[Section]:
    """The lyrics of one segment; its own tag stands above the label of structure analysis."""
    if not words(re.sub(r"^\s*\[[^\]\n]*\]", "", text, flags=re.MULTILINE)):
        return []
    if not text.lstrip().startswith("["):
        text = f"[{label}]\n{text}"
    verses = parse(text, where)
    if len(verses) == 1 and len(verses[0].lines) == 1:
        return [Section(verses[0].tag, (Line(verses[0].lines[0], start, end),))]
    return [Section(verse.tag, tuple(Line(line) for line in verse.lines)) for verse in verses]


def _codes_file(name: str, path: Path, root: str, where: str) -> Path:
    """Under `root`, else under the first folder from the .jsonl's own upwards that has it."""
    folders = [Path(root).expanduser()] if root else path.resolve().parents[:4]
    for folder in folders:
        if (folder / name).is_file():
            return (folder / name).resolve()
    advice = "set root to the folder it starts from"
    raise FolderError(f"{where}: {name[:80]} is nowhere above {path.name}; {advice}")


def _frames(file: Path) -> int:
    """Frames that a .npy of codes (codebooks, frames) promises; only its head is read."""
    try:
        codes_SF = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        reason = str(error)[:60]
        raise SongError(f"{file}: not a .npy of numbers ({reason}); code it again") from None
    array = isinstance(codes_SF, np.ndarray)  # and no .npz
    if not array or codes_SF.dtype.kind not in "iu" or codes_SF.ndim != 2:
        raise SongError(f"{file}: not whole numbers of shape (codebooks, frames); code it again")
    return int(codes_SF.shape[1])
