"""A singer small enough to test in a blink: text, a codec, LLMs of two families, songs."""

from __future__ import annotations

import functools
import random
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.audio.codec_format import CodecFormat
from distill.lm.from_scratch import FromScratchSettings, make
from distill.lm.student import LoraSettings, Student, graft, rows_of
from distill.runtime import torchaudio_standin
from distill.songs import Line, Note, Section, Song, Word
from distill.writing.grammar import State
from distill.writing.prompts import END, LENGTH, OPEN, PIECE, TEXT, Coded, WritingSettings, passages
from distill.writing.vocabulary import AudioVocabulary

torchaudio_standin.install()

FORMAT = CodecFormat(16_000, 25.0, (40, 24))
LONGEST = 16  # frames that a length symbol can say
WORDS = (
    "row your boat gently down the stream merrily life is but a dream sing low sweet morning bell"
).split()
SYLLABLES = [
    "r o",
    "y O r",
    "b o t",
    "J e n t",
    "l I",
    "d W n",
    "D u",
    "s t r I m",
    "l Y f",
    "i z",
    "s w I t",
]


class ToyCodec:
    """A codec without a network: each frame sounds as a tone of its codes."""

    fingerprint = "toy" * 20

    def __init__(self, format: CodecFormat = FORMAT):
        self.format = format

    def encode(self, wave_CW: Tensor) -> Tensor:
        frames = -(-wave_CW.shape[1] * 25 // 16_000)
        return torch.stack([torch.arange(frames) % size for size in self.format.slot_sizes], 1)

    def decode(self, codes_FS: Tensor, samples: int | None = None) -> Tensor:
        seconds = torch.arange(640) / 16_000
        tones = [torch.sin(6.28 * (200 + 10 * int(codes.sum())) * seconds) for codes in codes_FS]
        return 0.1 * torch.cat(tones)[None, :samples]

    def codebooks(self) -> list[Tensor]:
        generator = torch.Generator().manual_seed(1)
        return [torch.randn(size, 6, generator=generator) for size in self.format.slot_sizes]


def text_folder(folder: Path) -> Path:
    """A text to train tokenizers on, in two splits."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = random.Random(0)
    for split, lines in (("train", 80), ("held-out", 8)):
        rows = [" ".join(generator.choice(WORDS) for _ in range(6)) for _ in range(lines)]
        (folder / f"{split}.txt").write_text(
            "\n".join(rows) + "\n\n" + "style: folk; voice: low\n" * 3
        )
    return folder


@functools.cache
def _text() -> str:
    return str(text_folder(Path(tempfile.mkdtemp(prefix="distill-text-"))))


def from_scratch(family: str = "llama", text: str = "", **more: Any) -> FromScratchSettings:
    """A Llama with sentencepiece pieces, or a Qwen3 with byte pieces, tied head and other sizes."""
    shape: dict[str, Any] = {"width": 32, "inner": 48, "layers": 2, "heads": 2, "context": 1024}
    if family == "llama":
        own: dict[str, Any] = {"tokenizer": "sentencepiece", "pieces": 330, "tied": False}
    else:
        own = {"tokenizer": "bytes", "pieces": 400, "tied": True, "width": 48, "heads": 3}
    return FromScratchSettings(
        **{"family": family, "text": text or _text(), **shape, **own, **more}
    )


def student(
    family: str = "llama",
    seed: int = 0,
    lively: float = 0.3,
    lora: bool = False,
    layout: str = "flat",
    **more: Any,
) -> Student:
    """A grafted random LLM; `lively` noise on what trains makes it prefer something."""
    model, tokenizer = make(from_scratch(family, **more), seed)
    vocabulary = AudioVocabulary(rows_of(model), FORMAT, longest=LONGEST, layout=layout)
    made = graft(model, tokenizer, vocabulary, ToyCodec().codebooks(), seed)
    if lora:
        made.adapt(LoraSettings(rank=4, alpha=8), seed)
    else:
        made.train_all()
    generator = torch.Generator().manual_seed(seed + 100)
    with torch.no_grad():
        for parameter in made.trainable().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * lively)
    made.model.eval()
    return made


def kind_of_token(state: State) -> int:
    """The place of what comes next, told from the grammar alone."""
    if state.owed:
        return state.owed[0]
    if state.kind == "boundary":
        return OPEN if state.left is None else PIECE
    return {"start": TEXT, "text": TEXT, "length": LENGTH, "end": END}[state.kind]


def song(seed: int, lines: int = 3, times: str = "notes") -> Song:
    """A random song whose times are known by "notes", "words", "lines" or not at all ("none")."""
    generator = random.Random(f"{seed} {times}")
    now, made = round(generator.uniform(0, 1), 3), []
    for _ in range(lines):
        start = now
        text = " ".join(generator.choice(WORDS) for _ in range(generator.randint(1, 4)))
        now += generator.choice([0.0, 0.24, 0.5])
        notes, words = [], []
        for word in text.split():
            begun = now
            for _ in range(generator.randint(1, 2)):
                end = now + generator.choice([0.011, 0.12, 0.2, 0.333, 0.2, 1.7])
                piece = generator.choice(SYLLABLES) if not notes or generator.random() < 0.8 else ""
                notes.append(Note(now, end, float(generator.randint(40, 80)), piece))
                now = end + generator.choice([0.0, 0.0, 0.0, 0.3])
            words.append(Word(word, begun, now))
        now += generator.choice([0.0, 0.4])
        known = (start, max(now, start + 0.1)) if times != "none" else (None, None)
        made.append(
            Line(
                text,
                *known,
                tuple(words) if times in ("notes", "words") else (),
                tuple(notes) if times == "notes" else (),
            )
        )
        now += generator.choice([0.0, 0.5, 2.0])
    return Song(f"song-{seed}", (Section("verse", tuple(made)),), "folk, calm", "low voice")


def coded(
    songs: int = 3, writing: WritingSettings | None = None, times: str = "notes", seed: int = 0
) -> list[Coded]:
    """Passages of random songs with random codes."""
    generator = torch.Generator().manual_seed(seed)
    codings = []
    for number in range(songs):
        for passage in passages(
            song(seed + number, times=times), 25.0, LONGEST, writing or WritingSettings()
        ):
            frames = passage.frames if passage.stop >= 0 else 37
            codes = [
                torch.randint(size, (frames,), generator=generator) for size in FORMAT.slot_sizes
            ]
            codings.append(Coded(passage, torch.stack(codes, 1)))
    return codings
