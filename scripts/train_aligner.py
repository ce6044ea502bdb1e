"""Trains the network of `hearing`, from nothing but a seed.

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
WARMUP_STEPS = 50
FRAME_SECONDS = hearing.HOP / hearing.RATE
LogMel = NDArray[np.float16]  # of a band alone: frames, bands


class Network(nn.Module):
    """What `hearing.classify` computes, for torch: mel_BFT -> logits_BCT."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Conv1d(hearing.BANDS, WIDTH, 1)
        self.deep = nn.ModuleList(
            nn.Conv1d(WIDTH, WIDTH, 5, padding=2 * 2**k, dilation=2**k, groups=WIDTH)
            for k in range(LAYERS)
        )
        self.wide = nn.ModuleList(nn.Conv1d(WIDTH, WIDTH, 1) for _ in range(LAYERS))
        self.out = nn.Conv1d(WIDTH, len(CLASSES), 1)

    def forward(self, mel_BFT: Tensor) -> Tensor:
        state = functional.relu(self.into(mel_BFT))
        for deep, wide in zip(self.deep, self.wide, strict=True):
            update = functional.relu(wide(deep(state)))
            state = state + functional.dropout(update, 0.1, self.training)
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
    lessons, bands = _material(rng, options.hours, options.bands, options.lessons)
    class_T = np.concatenate([lesson.class_T for lesson in lessons])
    print(f"{len(lessons)} lessons, {len(class_T) * FRAME_SECONDS / 3600:.2f} h", flush=True)
    held_out, unheard = max(1, len(lessons) // 20), max(1, len(bands) // 20)
    rng = np.random.default_rng(options.seed + 1)  # the same whether lessons were made or kept
    network = train(rng, lessons[held_out:], bands[unheard:], options.steps)
    for name, heard_through in (("alone", None), ("with a band", bands[:unheard])):
        print(f"held out, {name}: {evaluated(network, lessons[:held_out], heard_through)}")
    counts_C = np.bincount(class_T, minlength=len(CLASSES)) + 1.0
    export(network, np.log(counts_C / counts_C.sum()), options.out)
    print(f"{options.out}: {options.out.stat().st_size:,} bytes")


def _material(
    rng: np.random.Generator, hours: float, clips: int, file: Path | None
) -> tuple[list[Lesson], list[LogMel]]:
    """Lessons and bands, read from the file or made and kept there."""
    if file and file.is_file():
        stored = np.load(file)
        ends = np.cumsum(stored["frames"])[:-1]
        mels, labels = np.split(stored["log_mel"], ends), np.split(stored["classes"], ends)
        return list(map(Lesson, mels, labels)), list(stored["bands"])
    lessons, frames = [], 0
    while frames * FRAME_SECONDS < 3600 * hours:
        lessons.append(lesson(rng))
        frames += len(lessons[-1].class_T)
    powers = [hearing.mel_power(Sound(band(rng)[None], hearing.RATE)) for _ in range(clips)]
    bands = [np.log(mel_TB + 1e-10).astype(np.float16) for mel_TB in powers]
    if file:
        np.savez(
            file,
            log_mel=np.concatenate([lesson.log_mel_TB for lesson in lessons]),
            classes=np.concatenate([lesson.class_T for lesson in lessons]),
            frames=[len(lesson.class_T) for lesson in lessons],
            bands=np.stack(bands),
        )
    return lessons, bands


def mixed(
    rng: np.random.Generator, lessons: list[Lesson], bands: list[LogMel] | None, batch: int = BATCH
) -> tuple[Tensor, Tensor]:
    """A batch: what the network sees (mel_BFT), and class_BT that it should name."""
    mel_BFT = np.zeros((batch, hearing.BANDS, FRAMES), np.float32)
    class_BT = np.zeros((batch, FRAMES), np.int64)
    for row in range(batch):
        mel_TF, class_T = _joined(rng, lessons)
        mel_TF = mel_TF * np.exp(np.cumsum(rng.normal(0, 0.18, hearing.BANDS)))
        if bands is not None and rng.random() < 0.8:
            mel_TF = _through(rng, mel_TF, bands)
        first = rng.integers(0, len(mel_TF) - FRAMES + 1)
        normal_TF = hearing.normalise(mel_TF.astype(np.float32))
        mel_BFT[row] = normal_TF[first : first + FRAMES].T
        class_BT[row] = class_T[first : first + FRAMES]
    return torch.from_numpy(mel_BFT), torch.from_numpy(class_BT)


def _joined(
    rng: np.random.Generator, lessons: list[Lesson]
) -> tuple[NDArray[np.floating], NDArray[np.uint8]]:
    """Mel powers and classes of lessons end to end, a little more than FRAMES."""
    mels: list[NDArray[np.float32]] = []
    labels: list[NDArray[np.uint8]] = []
    while sum(map(len, labels)) < FRAMES + 100:
        lesson = held(rng, lessons[rng.integers(len(lessons))])
        loud = np.float32(10 ** rng.normal(0, 0.15))
        mels.append(np.exp(lesson.log_mel_TB.astype(np.float32)) * loud)
        labels.append(lesson.class_T)
    return np.concatenate(mels)[: FRAMES + 300], np.concatenate(labels)[: FRAMES + 300]


def _through(
    rng: np.random.Generator, mel_TF: NDArray[np.floating], bands: list[LogMel]
) -> NDArray[np.floating]:
    """Mel powers with a band's, at -6 to +18 dB, and a random cross term."""
    band_TF = np.exp(bands[rng.integers(len(bands))].astype(np.float32))
    tilt_F = np.exp(np.cumsum(rng.normal(0, 0.15, hearing.BANDS)))
    band_TF = np.resize(band_TF, mel_TF.shape) * tilt_F
    band_TF *= mel_TF.mean() / (band_TF.mean() + 1e-12) * 10 ** (-rng.uniform(-6, 18) / 10)
    cross_TF = 0.6 * np.sqrt(mel_TF * band_TF) * np.cos(rng.uniform(0, 2 * np.pi, mel_TF.shape))
    return np.maximum(mel_TF + band_TF + cross_TF, 1e-10)


def held(rng: np.random.Generator, lesson: Lesson, share: float = 0.15) -> Lesson:
    """Some lessons with one of their vowels held for seconds, as songs end their lines."""
    mel_TF, class_T = lesson.log_mel_TB, lesson.class_T
    vowels = np.flatnonzero(class_T < len(VOWELS))
    if rng.random() > share or not len(vowels):
        return lesson
    at = int(rng.choice(vowels))
    around = np.arange(max(0, at - 4), min(at + 4, len(class_T)))
    around = around[class_T[around] == class_T[at]]
    times = int(rng.integers(40, 250)) // len(around) + 1
    frames = np.concatenate([around if k % 2 else around[::-1] for k in range(times)])
    softer_N1 = np.linspace(0, rng.uniform(-2.5, 0.3), len(frames))[:, None]  # nats of power
    return Lesson(
        np.concatenate([mel_TF[:at], mel_TF[frames] + softer_N1, mel_TF[at:]]),
        np.concatenate([class_T[:at], class_T[frames], class_T[at:]]),
    )


def train(
    rng: np.random.Generator, lessons: list[Lesson], bands: list[LogMel], steps: int
) -> Network:
    """The mean of a network's late steps, steadier than the last one."""
    network = Network()
    mean = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.99))
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=1e-3)
    for step in range(1, steps + 1):
        cosine = 0.505 + 0.495 * np.cos(np.pi * step / steps)  # down to a hundredth
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1, step / WARMUP_STEPS) * cosine
        mel_BFT, class_BT = mixed(rng, lessons, bands)
        loss = functional.cross_entropy(network(mel_BFT), class_BT, label_smoothing=0.02)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean.update_parameters(network)
        if step % 200 == 0:
            print(f"step {step}: {loss.item():.3f} nats", flush=True)
    trained = mean.module.eval()
    assert isinstance(trained, Network)
    return trained


def evaluated(network: Network, lessons: list[Lesson], bands: list[LogMel] | None) -> str:
    mel_BFT, class_BT = mixed(np.random.default_rng(1), lessons, bands, 48)
    with torch.inference_mode():
        logits = network(mel_BFT)
    right = (logits.argmax(1) == class_BT).float()
    nats = functional.cross_entropy(logits, class_BT).item()
    frames, sung = 100 * right.mean(), 100 * right[class_BT != NONE].mean()
    return f"{nats:.3f} nats, {frames:.1f} % of frames, {sung:.1f} % of sung ones"


def export(network: Network, log_prior_C: NDArray[np.float64], out: Path) -> None:
    """int8 rows with a scale each; biases, scales and the prior in float16."""
    stored: dict[str, NDArray[Any]] = {"prior": log_prior_C.astype(np.float16)}
    layers: dict[str, nn.Module] = {"in": network.into, "out": network.out}
    layers |= {f"deep.{k}": layer for k, layer in enumerate(network.deep)}
    layers |= {f"wide.{k}": layer for k, layer in enumerate(network.wide)}
    for name, layer in layers.items():
        assert isinstance(layer, nn.Conv1d) and layer.bias is not None
        weight = layer.weight.detach().numpy().squeeze(1 if name.startswith("deep") else 2)
        scale = (np.abs(weight).max(1) / 127 + 1e-8).astype(np.float16)
        rounded = np.round(weight / scale[:, None].astype(np.float32))
        stored[f"{name}.weight"] = np.clip(rounded, -127, 127).astype(np.int8)
        stored[f"{name}.weight.scale"] = scale
        stored[f"{name}.bias"] = layer.bias.detach().numpy().astype(np.float16)
    out.parent.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(stored, out)


if __name__ == "__main__":
    main()
