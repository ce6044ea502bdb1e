"""For the tasks that learn to make sound (codec, vocoder): how far two sounds are apart, and sound to listen to."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from distill.codecs._network import magnitude, melscale_fbanks
from distill.pictures import spectrogram_png

# About the rounding noise of 16-bit PCM: what lies below is nothing to learn.
MEL_FLOOR, STFT_FLOOR = 1e-4, 1e-3
BANDS = {256: 20, 512: 40, 1024: 80, 2048: 80, 4096: 0}  # mel bands by window of the distance, in samples


class SpectralDistance(nn.Module):
    """How far two waves are apart: (mel_B, stft_B).

    mel: mean |difference| of natural-log mel bands, averaged over windows of 256 ... 2048 samples. stft: mean
    |difference| of log magnitudes plus spectral convergence ||A| - |B|| / ||B||, averaged over windows of 512
    ... 4096.
    """

    def __init__(self, sample_rate: int):
        super().__init__()
        for window, bands in BANDS.items():
            self.register_buffer(f"window_{window}", torch.hann_window(window), persistent=False)
            if not bands:
                continue
            mel_KB = melscale_fbanks(
                window // 2 + 1, 0.0, sample_rate / 2, bands, sample_rate, "slaney", "slaney"
            )
            self.register_buffer(f"mel_{window}", mel_KB, persistent=False)

    def forward(self, made_BW: Tensor, true_BW: Tensor) -> tuple[Tensor, Tensor]:
        mel, stft = [], []
        for window, bands in BANDS.items():
            made_BKT = magnitude(made_BW, getattr(self, f"window_{window}"), window // 4)
            true_BKT = magnitude(true_BW, getattr(self, f"window_{window}"), window // 4)
            if bands:
                mel_BK = getattr(self, f"mel_{window}").T
                away_BKT = _log(mel_BK @ made_BKT, MEL_FLOOR) - _log(mel_BK @ true_BKT, MEL_FLOOR)
                mel.append(away_BKT.abs().mean((1, 2)))
            if window > 256:
                logs_B = (_log(made_BKT, STFT_FLOOR) - _log(true_BKT, STFT_FLOOR)).abs().mean((1, 2))
                norm_B = true_BKT.square().sum((1, 2)).add(1.0).sqrt()  # 1: silence divides by little
                away_B = (made_BKT - true_BKT).square().sum((1, 2)).add(1e-8).sqrt()
                stft.append(logs_B + (away_B / norm_B).clamp_max(10.0))
        return torch.stack(mel).mean(0), torch.stack(stft).mean(0)


class Listening:
    """Sound and spectrograms of a run for TensorBoard, in a folder of their own: a resumed run's numbers begin with an
    order to forget all that came after them, and that would take the sounds along."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a second to import, and only a real run needs it

        self._board = SummaryWriter(str(folder / "tensorboard" / "sound"))

    def write(self, step: int, sounds: dict[str, Tensor], sample_rate: int) -> None:
        """Each wave_CW as a player (channels averaged) and a picture."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        for name, wave_CW in sounds.items():
            wave_W = wave_CW.mean(0)
            self._board.add_audio(name, wave_W[None], step, sample_rate)
            picture = Summary.Image(encoded_image_string=spectrogram_png(wave_W.numpy(), sample_rate))
            value = Summary.Value(tag=f"{name}/spectrogram", image=picture)
            self._board.file_writer.add_summary(Summary(value=[value]), step)
        self._board.flush()

    def close(self) -> None:
        self._board.close()


def _log(x: Tensor, floor: float) -> Tensor:
    return x.clamp_min(floor).log()
