"""How like two sounds are, before and after a codec; and what a codec's numbers say of themselves.

Every figure is taken at a rate of its own, from the same reference, so that codecs of different
rates can be compared:

    mel          mean absolute difference of natural-log mel spectra at 16 kHz
                 (80 bands, window 1024, hop 256, floor 1e-5)
    mel, whole   the same at the codec's own rate: all that it can speak of
    pesq         wide band PESQ, 1 to 4.64 (ITU-T P.862.2 by the package `pesq`),
                 made and tried on telephone speech
    stoi         short-time objective intelligibility, 0 to 1 (Taal 2011,
                 doi:10.1109/TASL.2011.2114881; `pystoi`), made for speech too
    pitch        of the 5 ms frames that harvest calls voiced before, the share voiced after
                 and within 50 cents

PESQ and STOI are libraries' figures for speech: on singing they rank one codec's settings, and are
no listener's opinion. Each function gives (sum, count) so that pieces add up and can be drawn again
(`distill.measures._bootstrap`).
"""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.audio.codec_format import CodecFormat
from distill.measures._notes import IN_TUNE_CENTS, track
from distill.runtime import torchaudio_standin

torchaudio_standin.install()

from torchaudio.functional import melscale_fbanks

SPEECH_RATE = 16_000  # Hz, of PESQ wide band; STOI resamples to 10 kHz by itself
BANDS, WINDOW, HOP, FLOOR = 80, 1024, 256, 1e-5

Counted = tuple[float, float]  # sum, count

# name; frames a second of each slot (several rates for SNAC); codes; slots offered; paper
PUBLISHED: list[tuple[str, list[float], int, list[int], str]] = [
    ("EnCodec 24 kHz", [75.0], 1024, [2, 4, 8, 16], "arXiv 2210.13438"),
    ("DAC 16 kHz", [16_000 / 320], 1024, [12], "arXiv 2306.06546"),
    ("DAC 24 kHz", [24_000 / 320], 1024, [32], "arXiv 2306.06546"),
    ("DAC 44.1 kHz", [44_100 / 512], 1024, [9], "arXiv 2306.06546"),
    ("Mimi 24 kHz", [12.5], 2048, [8], "arXiv 2410.00037"),
    ("SNAC 24 kHz", [24_000 / 512 / k for k in (4, 2, 1)], 4096, [1], "arXiv 2410.14411"),
    ("SNAC 32 kHz", [32_000 / 384 / k for k in (8, 4, 2, 1)], 4096, [1], "arXiv 2410.14411"),
    ("SNAC 44.1 kHz", [44_100 / 384 / k for k in (8, 4, 2, 1)], 4096, [1], "arXiv 2410.14411"),
    ("X-Codec 16 kHz (YuE)", [50.0], 1024, [1, 2, 3, 4, 8], "arXiv 2408.17175, 2503.08638"),
]  # fmt: skip


def published() -> list[tuple[str, float, float, str]]:
    """(codec and slots, tokens a second, kbit a second, paper) as published; nothing measured."""
    rows = []
    for name, rates, codes, offered, paper in PUBLISHED:
        for slots in offered:
            tokens = slots * sum(rates)
            shown = f"{name}, {slots if len(rates) == 1 else len(rates)} slots"
            rows.append((shown, tokens, tokens * math.log2(codes) / 1000, paper))
    return rows


def rates(format: CodecFormat) -> tuple[float, float]:
    """(tokens a second, kbit a second): frame rate times slots, times the slots' bits."""
    bits = sum(math.log2(size) for size in format.slot_sizes)
    return format.frame_rate * format.slots, format.frame_rate * bits / 1000


def log_mel(wave_W: Tensor, sample_rate: int) -> Tensor:
    """(80, frames) natural log of the mel magnitudes."""
    wave_W = torch.nn.functional.pad(wave_W, (0, max(0, WINDOW - len(wave_W))))
    window_W = torch.hann_window(WINDOW)
    magnitude_HF = torch.stft(wave_W, WINDOW, HOP, window=window_W, return_complex=True).abs()
    bank_HM = melscale_fbanks(WINDOW // 2 + 1, 0.0, sample_rate / 2, BANDS, sample_rate)
    return (bank_HM.T @ magnitude_HF).clamp(min=FLOOR).log()


def mel(before_W: Tensor, after_W: Tensor, sample_rate: int) -> Counted:
    """Mel distance in nats, summed over frames."""
    off_MF = (log_mel(before_W, sample_rate) - log_mel(after_W, sample_rate)).abs()
    return float(off_MF.mean(0).sum()), off_MF.shape[1]


def pesq(before_W: Tensor, after_W: Tensor) -> Counted:
    """Wide band PESQ of sound at 16 kHz.

    Nothing is counted where it hears no utterance before; 1.0, less than its worst, where only what
    comes after holds none.
    """
    import pesq as library

    def quality(wave_W: Tensor) -> float | None:
        try:
            return float(library.pesq(SPEECH_RATE, before_W.numpy(), wave_W.numpy(), "wb"))
        except (library.NoUtterancesError, library.BufferTooShortError):
            return None

    if not before_W.any():
        return 0.0, 0
    # of digital silence the library makes NaN
    if after_W.any() and (of_after := quality(after_W)) is not None:
        return of_after, 1
    return (0.0, 0) if quality(before_W) is None else (1.0, 1)


def stoi(before_W: Tensor, after_W: Tensor) -> Counted:
    """STOI of sound at 16 kHz; nothing counted where less than 0.4 s of it is above silence."""
    import pystoi

    clean_W, coded_W = before_W.double().numpy(), after_W.double().numpy()
    with warnings.catch_warnings():
        # it warns and gives 1e-5
        warnings.filterwarnings("error", "Not enough STFT frames", RuntimeWarning)
        try:
            return float(pystoi.stoi(clean_W, coded_W, SPEECH_RATE)), 1
        except RuntimeWarning:
            return 0.0, 0


def pitch(before_W: Tensor, after_W: Tensor, sample_rate: int) -> Counted:
    """Voiced frames whose pitch is kept, and voiced frames."""
    midi_F, after_F = (track(wave_W.numpy(), sample_rate) for wave_W in (before_W, after_W))
    frames = min(len(midi_F), len(after_F))
    voiced_F = ~np.isnan(midi_F[:frames])
    cents = 100 * np.abs(after_F[:frames][voiced_F] - midi_F[:frames][voiced_F])
    # NaN, unvoiced, is not below
    return float((cents <= IN_TUNE_CENTS).sum()), float(voiced_F.sum())


def codebook_use(codes: Iterable[Tensor], slot_sizes: Sequence[int]) -> list[dict[str, float]]:
    """Of every slot: how many of its codes occur in these codes_FS, and the perplexity of them."""
    counts = [np.zeros(size, dtype=np.int64) for size in slot_sizes]
    for codes_FS in codes:
        for slot, count_C in enumerate(counts):
            count_C += np.bincount(codes_FS[:, slot].numpy(), minlength=len(count_C))
    return [
        {"slot": slot, "codes": len(count_C), **_use(count_C)}
        for slot, count_C in enumerate(counts)
    ]


def _use(count_C: NDArray[np.int64]) -> dict[str, float]:
    frames = int(count_C.sum())
    share_C = count_C[count_C > 0] / max(1, frames)
    return {
        "frames": frames,
        "used": int((count_C > 0).sum()),
        "share": float((count_C > 0).mean()),
        "perplexity": float(np.exp(-(share_C * np.log(share_C)).sum())),
    }


def has_pesq() -> bool:
    """Whether `pesq` is installed; it has no wheels, so it needs a C compiler."""
    return importlib.util.find_spec("pesq") is not None
