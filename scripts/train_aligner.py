"""Teaches the network of `hearing`, from nothing but a seed.

    python scripts/train_aligner.py [--hours 1.6] [--bands 200] [--steps 1000] [--lessons FILE.npz]

Needs espeak-ng and pyworld (`pip install 'distill[songbook]'`) and torch. Lessons are made in about
1/25 of their length and kept in FILE where one is named. In every batch lessons are put end to end,
filtered at random and mixed with a band at -6 to +18 dB; mixing is done on mel powers (the sum, and
a random cross term), so that no two batches are alike.

More is not clearly better: one run with four layers, more held vowels and 3,000 steps named more of
the synthesised frames and placed the lines of the one real song worse (median 0.36 s against 0.10
s). Whether it had learnt the synthesisers, or 17 lines are too few to tell, is open.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from aligner_bands import band
from aligner_lessons import Lesson, lesson
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from distill.curation.steps import Sound
from distill.curation.steps._alignment import hearing
from distill.curation.steps._alignment.phones import CLASSES, NONE, VOWELS

WIDTH, LAYERS, FRAMES, BATCH = 88, 3, 400, 16
LEARNING_RATE = 4e-3


class Network(nn.Module):
    """What `hearing.classify` computes, for torch: seen_BFT -> logits_BCT."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Conv1d(hearing.BANDS, WIDTH, 1)
        self.deep = nn.ModuleList(
            nn.Conv1d(WIDTH, WIDTH, 5, padding=2 * 2**k, dilation=2**k, groups=WIDTH)
            for k in range(LAYERS)
        )
        self.wide = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 1) for _ in range(LAYERS))
        self.out = nn.Conv1d(WIDTH, len(CLASSES), 1)

    def forward(self, seen_BFT: Tensor) -> Tensor:
        state = functional.relu(self.into(seen_BFT))
        for deep, wide in zip(self.deep, self.wide, strict=True):
            state = state + functional.dropout(
                functional.relu(wide(deep(state))), 0.1, self.training
            )
        return self.out(state)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=1.6, help="of lessons")
    parser.add_argument("--bands", type=int, default=200, help="clips of 14 s")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--lessons", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=hearing.WEIGHTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    lessons, bands = _made(rng, options.hours, options.bands, options.lessons)
    print(
        f"{len(lessons)} lessons, {sum(len(one.class_T) for one in lessons) * 0.02 / 3600:.2f} h",
        flush=True,
    )
    kept, unheard = max(1, len(lessons) // 20), max(1, len(bands) // 20)  # to judge by
    rng = np.random.default_rng(options.seed + 1)  # the same whether lessons were made or kept
    network = train(rng, lessons[kept:], bands[unheard:], options.steps)
    for name, heard_through in (("alone", None), ("with a band", bands[:unheard])):
        print(f"held out, {name}: {judged(network, lessons[:kept], heard_through)}")
    counts = (
        np.bincount(np.concatenate([one.class_T for one in lessons]), minlength=len(CLASSES)) + 1.0
    )
    export(network, np.log(counts / counts.sum()), options.out)
    print(f"{options.out}: {options.out.stat().st_size:,} bytes")


def _made(
    rng: np.random.Generator, hours: float, clips: int, file: Path | None
) -> tuple[list[Lesson], list[NDArray[np.float16]]]:
    if file and file.is_file():
        stored = np.load(file)
        ends = np.cumsum(stored["frames"])[:-1]
        pairs = zip(
            np.split(stored["log_mel"], ends), np.split(stored["classes"], ends), strict=True
        )
        return [Lesson(mel, labels) for mel, labels in pairs], list(stored["bands"])
    lessons, frames = [], 0
    while frames * 0.02 < 3600 * hours:
        lessons.append(lesson(rng))
        frames += len(lessons[-1].class_T)
    heard = [hearing.mel_power(Sound(band(rng)[None], hearing.RATE)) for _ in range(clips)]
    bands = [np.log(mel + 1e-10).astype(np.float16) for mel in heard]
    if file:
        np.savez(
            file,
            log_mel=np.concatenate([one.log_mel_TB for one in lessons]),
            classes=np.concatenate([one.class_T for one in lessons]),
            frames=[len(one.class_T) for one in lessons],
            bands=np.stack(bands),
        )
    return lessons, bands


def mixed(
    rng: np.random.Generator,
    lessons: list[Lesson],
    bands: list[NDArray[np.float16]] | None,
    batch: int = BATCH,
) -> tuple[Tensor, Tensor]:
    """A batch: what the network sees, and the classes it should name."""
    seen_BFT = np.zeros((batch, hearing.BANDS, FRAMES), np.float32)
    class_BT = np.zeros((batch, FRAMES), np.int64)
    for row in range(batch):
        mels: list[NDArray[np.float32]] = []
        labels: list[NDArray[np.uint8]] = []
        while sum(len(label) for label in labels) < FRAMES + 100:
            one = held(rng, lessons[rng.integers(len(lessons))])
            mels.append(
                np.exp(one.log_mel_TB.astype(np.float32)) * np.float32(10 ** rng.normal(0, 0.15))
            )
            labels.append(one.class_T)
        mel, label = np.concatenate(mels)[: FRAMES + 300], np.concatenate(labels)[: FRAMES + 300]
        mel = mel * np.exp(np.cumsum(rng.normal(0, 0.18, hearing.BANDS)))
        if bands is not None and rng.random() < 0.8:
            other = np.exp(bands[rng.integers(len(bands))].astype(np.float32))
            other = np.resize(other, mel.shape) * np.exp(
                np.cumsum(rng.normal(0, 0.15, hearing.BANDS))
            )
            other *= mel.mean() / (other.mean() + 1e-12) * 10 ** (-rng.uniform(-6, 18) / 10)
            cross = 0.6 * np.sqrt(mel * other) * np.cos(rng.uniform(0, 2 * np.pi, mel.shape))
            mel = np.maximum(mel + other + cross, 1e-10)
        at = rng.integers(0, len(mel) - FRAMES + 1)
        seen_BFT[row] = hearing.normalise(mel.astype(np.float32))[at : at + FRAMES].T
        class_BT[row] = label[at : at + FRAMES]
    return torch.from_numpy(seen_BFT), torch.from_numpy(class_BT)


def held(rng: np.random.Generator, one: Lesson, share: float = 0.15) -> Lesson:
    """Some lessons with one of their vowels held for seconds, as songs end their lines and sing
    their oohs."""
    vowels = np.flatnonzero(one.class_T < len(VOWELS))
    if rng.random() > share or not len(vowels):
        return one
    at = int(rng.choice(vowels))
    run = np.arange(max(0, at - 4), at + 4)
    run = run[
        (run < len(one.class_T))
        & (one.class_T[np.minimum(run, len(one.class_T) - 1)] == one.class_T[at])
    ]
    longer = np.concatenate(
        [run if k % 2 else run[::-1] for k in range(int(rng.integers(40, 250)) // len(run) + 1)]
    )
    softer = np.linspace(0, rng.uniform(-2.5, 0.3), len(longer))[:, None]  # nats of power
    return Lesson(
        np.concatenate([one.log_mel_TB[:at], one.log_mel_TB[longer] + softer, one.log_mel_TB[at:]]),
        np.concatenate([one.class_T[:at], one.class_T[longer], one.class_T[at:]]),
    )


def train(
    rng: np.random.Generator, lessons: list[Lesson], bands: list[NDArray[np.float16]], steps: int
) -> Network:
    network = Network()
    # steadier than any last step
    mean = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.99))
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=1e-3)
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = (
                LEARNING_RATE * min(1, step / 50) * (0.505 + 0.495 * np.cos(np.pi * step / steps))
            )
        seen, classes = mixed(rng, lessons, bands)
        loss = functional.cross_entropy(network(seen), classes, label_smoothing=0.02)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean.update_parameters(network)
        if step % 200 == 0:
            print(f"step {step}: {loss.item():.3f} nats", flush=True)
    taught = mean.module.eval()
    assert isinstance(taught, Network)
    return taught


def judged(network: Network, lessons: list[Lesson], bands: list[NDArray[np.float16]] | None) -> str:
    seen, classes = mixed(np.random.default_rng(1), lessons, bands, 48)
    with torch.inference_mode():
        logits = network(seen)
    right = (logits.argmax(1) == classes).float()
    sung = classes != NONE
    nats = functional.cross_entropy(logits, classes).item()
    return f"{nats:.3f} nats, {100 * right.mean():.1f} % of frames, {100 * right[sung].mean():.1f} % of sung ones"


def export(network: Network, log_prior_C: NDArray[np.float64], out: Path) -> None:
    """int8 rows with a scale each; biases, scales and the prior in float16."""
    stored = {"prior": log_prior_C.astype(np.float16)}
    parts: dict[str, Any] = {"in": network.into, "out": network.out}
    parts |= {f"deep.{k}": layer for k, layer in enumerate(network.deep)}
    parts |= {f"wide.{k}": layer for k, layer in enumerate(network.wide)}
    for name, layer in parts.items():
        weight = layer.weight.detach().numpy().squeeze(1 if name.startswith("deep") else 2)
        scale = (np.abs(weight).max(1) / 127 + 1e-8).astype(np.float16)
        stored[f"{name}.weight"] = np.clip(
            np.round(weight / scale[:, None].astype(np.float32)), -127, 127
        ).astype(np.int8)
        stored[f"{name}.weight.scale"] = scale
        stored[f"{name}.bias"] = layer.bias.detach().numpy().astype(np.float16)
    out.parent.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(stored, out)


if __name__ == "__main__":
    main()
