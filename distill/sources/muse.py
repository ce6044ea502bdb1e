"""Muse's training data: a chat in which each section is asked for and answered by its codes.

    {"song_id": ..., "lang": "en", "messages": [
      {"role": "user", "content": "Please generate a song in the following style:Pop, Piano.\\n
                                   Next, I will ...\\n[Intro][desc:A gentle piano ...]"},
      {"role": "assistant", "content": "[SOA]<AUDIO_7224><AUDIO_5151>...[EOA]"},
      {"role": "user", "content": "[Verse 1][desc:The voice enters ...][lyrics:\\nrow row\\n...]
                                   [phoneme:\\n...]"}, ...]}

The layout is that of yuhui1038/Muse (January 2026): data_pipeline/meta_process/convert_messages.py
writes it at 25 codes a second, examples/train_inputs/messages.jsonl is one JSON list of rows,
infer/test.jsonl has empty answers. The examples leave song_id and lang out: then `language` says
what is sung ("en", so set zh for train_cn.jsonl).

Such songs have no audio: the codes of a song (MuCodec, one codebook of 16,384) are written to a
.npy in the cache, which the Fact codes_path_mix names. So sections have exact times, by their codes
(Fact "sections"); a section of a single line gives them to the line.
"""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from distill.errors import LyricsError, SongError
from distill.folders import sha256_bytes, write_atomic
from distill.lyrics import parse
from distill.songs import Fact, Line, Section, Song
from distill.sources._formats.jsonl import JsonLines, Row

FRAME_RATE = 25.0  # Hz
CODES = 16_384
STYLE = re.compile(r"in the following style:\s*(.*?)\.?\s*(?:\n|$)")
SECTION = re.compile(r"\[([^\[\]:\n]{1,60})\]\s*\[desc:")
LYRICS = re.compile(r"\[lyrics:\s*(.*?)\](?=\s*(?:\[phoneme:|$))", re.DOTALL)
LANGUAGES = {"cn": "zh", "zh": "zh", "en": "en"}


@dataclass(frozen=True)
class Settings(JsonLines):
    """`path` of the .jsonl; `cache` for codes ("": $DISTILL_CACHE, else ~/.cache/distill)."""

    KIND: ClassVar[str] = "Muse's chats"
    cache: str = ""
    language: str = "en"
    licence: str = "unknown"
    voice: str = ""

    def _song(self, row: Row, where: str, number: int) -> Song:
        turns = _turns(row["messages"], where)
        style = STYLE.search(turns[0][0])
        codes: list[int] = []
        sections: list[Section] = []
        timed = []
        for question, answer in turns:
            start = len(codes) / FRAME_RATE
            codes += _codes(answer, where)
            end = len(codes) / FRAME_RATE
            name, text = _question(question, where)
            if text.strip():
                sections += _sections(name, text, (start, end) if end > start else None, where)
            desc = question.partition("[desc:")[2].partition("][lyrics:")[0].removesuffix("]")
            timed.append({"tag": name, "start": start, "end": end, "description": desc})
        if not sections:
            raise LyricsError(f"{where}: no section has a word to sing; leave the row out")
        facts: tuple[Fact, ...] = ()
        if codes:
            facts = (
                Fact("codes_path_mix", self._codes_path(codes)),
                Fact("codes_frame_rate_hz", FRAME_RATE),
                Fact("seconds", len(codes) / FRAME_RATE),
                Fact("sections", timed),
            )
        path, song_id, track = Path(self.path), row.get("song_id"), row.get("track_index")
        return Song(
            id=f"{path.stem}-{number:06d}" if song_id is None else f"{song_id}-{track or 0}",
            sections=tuple(sections),
            style=style.group(1) if style else "",
            voice=self.voice,
            language=LANGUAGES.get(str(row.get("lang", "")).lower(), self.language),
            licence=self.licence,
            source=str(row.get("src_path") or path.name),
            facts=facts,
        )

    def _codes_path(self, codes: list[int]) -> str:
        """The .npy that holds these codes, named by its content."""
        buffer = io.BytesIO()
        np.save(buffer, np.array([codes], np.uint16))
        home = self.cache or os.environ.get("DISTILL_CACHE") or "~/.cache/distill"
        key = sha256_bytes(buffer.getvalue())
        path = Path(home).expanduser() / "muse" / key[:2] / f"{key}.npy"
        if not path.is_file():
            write_atomic(path, buffer.getvalue())
        return str(path.resolve())


def _turns(messages: list[Row], where: str) -> list[tuple[str, str]]:
    """(question, answer) in turn."""
    texts = [(str(m["role"]), str(m["content"])) for m in messages if m["role"] != "system"]
    if not texts or [role for role, _ in texts] != ["user", "assistant"] * (len(texts) // 2):
        raise SongError(f"{where}: user and assistant do not take turns; rewrite the row")
    contents = [content for _, content in texts]
    return list(zip(contents[::2], contents[1::2], strict=True))


def _codes(answer: str, where: str) -> list[int]:
    text = answer.strip().removeprefix("[SOA]").removesuffix("[EOA]")
    codes = [int(code) for code in re.findall(r"<AUDIO_(\d{1,6})>", text)]
    if re.sub(r"<AUDIO_\d{1,6}>|\s", "", text) or (codes and max(codes) >= CODES):
        form = f"[SOA]<AUDIO_n>...[EOA], n below {CODES:,}"
        raise SongError(f"{where}: an answer that is not {form}; rewrite it")
    return codes


def _question(question: str, where: str) -> tuple[str, str]:
    """The section's name and its lyrics."""
    name = SECTION.search(question)
    if name is None:
        raise SongError(f"{where}: a question without [Section][desc: ...]; rewrite it")
    lyrics = LYRICS.search(question)
    return name.group(1).strip(), lyrics.group(1) if lyrics else ""


def _sections(name: str, text: str, span: tuple[float, float] | None, where: str) -> list[Section]:
    tag = "-".join(re.sub(r"[\d()]+", " ", name).lower().split()) or "verse"
    lines = [line for verse in parse(text, where) for line in verse.lines]
    if len(lines) == 1 and span is not None:
        return [Section(tag, (Line(lines[0], *span),))]
    return [Section(tag, tuple(Line(line) for line in lines))]
