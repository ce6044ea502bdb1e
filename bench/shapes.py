"""A random model of Qwen3-0.6B's shape and random songs, for step.py, tokens.py and memory.py."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from distill.audio.codec_format import CodecFormat
from distill.folders import locate
from distill.lm.student import LoraSettings, Student, graft, rows_of
from distill.runtime import torchaudio_standin
from distill.songs import Line, Section, Song, Word
from distill.writing.prompts import Coded, WritingSettings, passages
from distill.writing.vocabulary import AudioVocabulary

torchaudio_standin.install()
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config

RANK, ALPHA = 32, 64
WORDS = "row your boat gently down the stream merrily life is but a dream".split()


@dataclass(frozen=True)
class Shape:
    """Of a Qwen3 with a tied head, and of the codec it learns: S slots of C codes."""

    layers: int = 28
    width: int = 1024
    heads: int = 16
    kv_heads: int = 8
    head_dim: int = 128
    inner: int = 3072
    rows: int = 151_936
    slots: int = 4
    codes: int = 1024

    @property
    def format(self) -> CodecFormat:
        return CodecFormat(16_000, 50.0, (self.codes,) * self.slots)

    @property
    def body(self) -> int:
        """Parameters of all matrices between the tables."""
        attention = self.width * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.width * self.inner)


REAL = Shape()
TINY = Shape(2, 64, 4, 2, 16, 128, 2048, 2, 64)


def plain_model(shape: Shape) -> Any:
    """A random base, always the same."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=shape.rows,
        hidden_size=shape.width,
        intermediate_size=shape.inner,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    return AutoModelForCausalLM.from_config(config).eval()


def tokenizer() -> Any:
    """Of fewer pieces than the table has rows, as a real one."""
    made = AutoTokenizer.from_pretrained(locate("embedded/base"))
    made.pad_token = made.eos_token
    return made


def student(shape: Shape, lively: float = 0.0) -> Student:
    """The base, grafted, with LoRA; `lively`: how far LoRA is moved off nothing."""
    model = plain_model(shape)
    vocabulary = AudioVocabulary(rows_of(model), shape.format)
    made = graft(model, tokenizer(), vocabulary, init="gaussian")
    made.adapt(LoraSettings(RANK, ALPHA))
    with torch.no_grad():
        for name, parameter in made.trainable().items():
            if ".lora_B" in name:
                parameter.normal_(std=lively)
    return made


def coded(shape: Shape, songs: int) -> list[Coded]:
    """Passages of random songs whose words have times, with random codes."""
    generator, chance = random.Random(0), torch.Generator().manual_seed(0)
    made = []
    for number in range(songs):
        words, now = [], 0.0
        for _ in range(generator.randint(3, 5)):
            end = now + generator.choice([0.2, 0.3, 0.4])
            words.append(Word(generator.choice(WORDS), now, end))
            now = end
        text = " ".join(word.text for word in words)
        line = Line(text, 0.0, now, tuple(words))
        song = Song(f"song-{number}", (Section("verse", (line,)),), "folk", "low")
        for passage in passages(song, shape.format.frame_rate, 64, WritingSettings(max_lines=1)):
            size = (passage.frames, shape.slots)
            made.append(Coded(passage, torch.randint(shape.codes, size, generator=chance)))
    return made


def apart(script: str, words: Sequence[str], *case: str, **variables: str) -> Any:
    """What a bench's `--case` prints last, read as JSON; in a fresh process, so that each has its
    own peak and none warms another up. `variables`: of its environment."""
    command = [sys.executable, script, *words, "--case", *case]
    environment = {**os.environ, **variables}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"bench: {' at '.join(case)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def peak_mib() -> float:
    """The most this process has held so far (resident, Linux: KiB)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
