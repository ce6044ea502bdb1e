"""What a codec keeps of recordings: mel distance and pitch agreement of the round trip, at 1 ... S slots.

    python eval/fidelity.py FILE [FILE ...] [--codec embedded/codec]

mel distance: mean absolute difference of natural-log mel spectra (80 bands, window 1024, hop 256; floor 1e-5).
pitch agreement: of the 5 ms frames that WORLD's harvest calls voiced before, the share voiced after and within 50 cents
(on a voice alone; on a mix harvest follows whatever is loudest). Tracked at 16 kHz in pieces of 10 s.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from distill import audio
from distill.codecs._network import melscale_fbanks
from distill.codecs.embedded import Settings
from distill.measures.pitch import track


def log_mel(wave_W: torch.Tensor, sample_rate: int) -> torch.Tensor:
    """(80, frames) natural log of the mel magnitudes."""
    window = torch.hann_window(1024)
    magnitude_HF = torch.stft(wave_W, 1024, 256, window=window, return_complex=True).abs()
    bank_HM = melscale_fbanks(513, 0.0, sample_rate / 2, 80, sample_rate)
    return (bank_HM.T @ magnitude_HF).clamp(min=1e-5).log()


def midi(wave_W: torch.Tensor, sample_rate: int) -> np.ndarray:
    """Pitch in MIDI units every 5 ms, NaN where unvoiced."""
    pieces = wave_W.split(10 * sample_rate)
    return np.concatenate([track(piece.numpy(), sample_rate) for piece in pieces])


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+")
    parser.add_argument("--codec", default="embedded/codec")
    options = parser.parse_args()
    table = Table(title="codec round trip")
    for column in ("file", "seconds", "slots", "mel distance, nats", "pitch agreement, %"):
        table.add_column(column)
    most = Settings(options.codec, None).format.slots
    for file in options.files:
        rate = Settings(options.codec, None).format.sample_rate
        before_CW = audio.read(file, rate)
        pitch = midi(before_CW[0], rate)
        for slots in range(1, most + 1):
            codec = Settings(options.codec, slots).load()
            after_CW = codec.decode(codec.encode(before_CW), before_CW.shape[1])
            distance = (log_mel(before_CW[0], rate) - log_mel(after_CW[0], rate)).abs().mean()
            voiced = ~np.isnan(pitch)
            cents = 100 * np.abs(
                midi(after_CW[0], rate)[voiced] - pitch[voiced]
            )  # NaN, not voiced, is not below 50
            seconds = before_CW.shape[1] / rate
            share = 100 * float(np.mean(cents < 50))
            table.add_row(
                file.rpartition("/")[2],
                f"{seconds:.0f}",
                str(slots),
                f"{float(distance):.3f}",
                f"{share:.1f}",
            )
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
