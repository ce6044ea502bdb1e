"""The head's network: Vocos (Siuzdak 2023, arXiv 2306.00814), hearing codes instead of a mel.

    codes -> sum of the slots' embeddings -> ConvNeXt at the codec's frame rate
          -> `ratio` frames out of each -> Vocos backbone (ConvNeXt) at the head's frame rate
          -> magnitude and phase -> inverse STFT -> limit

Nothing works at the sample rate, which is why it is fast. Every layer is local in time: a sample
depends on frames at most `context_frames` away (measured, codecs/_blocks.py).

Level, by construction. No DC: the synthesis window (Hann) leaks half of bin 1 into bin 0, so bin 0
is set to the real part of bin 1, and every windowed frame sums to zero. No clipping: `limit` leaves
what is below 0.9 as it is and bends the rest smoothly to below 1. Silence: where a codec has one
frame of codes for silence, a frame in the midst of such frames sounds as nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.audio.codec_format import CodecFormat
from distill.codecs._blocks import receptive_frames
from distill.codecs._source import drawn_out
from distill.config.ranges import Checked, at_least, between
from distill.errors import SettingsError
from distill.runtime.torchaudio_standin import install
from distill.vocoders import samples_a_frame

install()

from vocos.heads import ISTFTHead
from vocos.models import VocosBackbone
from vocos.modules import ConvNeXtBlock

KNEE = 0.9  # of full scale, from which sound is limited
LOUDEST = 1e2  # magnitude of a bin
RATES = (16_000, 48_000)  # Hz
STILL_FRAMES = 2  # frames of silence on each side that make a silent frame silent


@dataclass(frozen=True)
class HeadSettings(Checked):
    """Sizes of the head. `hop`: samples of its frame, a whole number of which fill a codec's."""

    sample_rate: int | None = between(*RATES, default=None)  # Hz; None: the codec's
    hop: int = at_least(1, default=160)
    window: int = at_least(1, default=640)  # of its inverse STFT: an even number of hops from 4
    width: int = at_least(1, default=256)
    inner: int = at_least(1, default=768)
    blocks: int = at_least(1, default=8)
    coarse_blocks: int = at_least(0, default=2)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window % (2 * self.hop) or self.window < 4 * self.hop:
            raise SettingsError(f"window is {self.window}, hop {self.hop}; give 4, 6, 8, ... hops")

    def for_codec(self, format: CodecFormat) -> HeadSettings:
        """With the sample rate named. SettingsError unless a codec frame is whole hops."""
        sample_rate = self.sample_rate or format.sample_rate
        samples = samples_a_frame(format, sample_rate)
        if samples % self.hop:
            frame = f"a frame of the codec lasts {samples} samples at {sample_rate} Hz"
            wanted = f"hop must divide that, say {_divisor(samples, self.hop)}"
            raise SettingsError(f"hop is {self.hop}; {frame}, and {wanted}")
        return replace(self, sample_rate=sample_rate)


class HeadNetwork(nn.Module):
    """codes_BFS -> wave_BCW of F * ratio * hop samples. `silence_S`: codes of a silent frame."""

    def __init__(
        self,
        settings: HeadSettings,
        format: CodecFormat,
        latent_width: int,
        silence_S: tuple[int, ...] | None = None,
    ):
        super().__init__()
        self.silence_S = silence_S
        self.settings = settings.for_codec(format)
        assert self.settings.sample_rate is not None
        width, inner, self.format = settings.width, settings.inner, format
        self.hop = samples_a_frame(format, self.settings.sample_rate)
        ratio = self.hop // settings.hop
        self.latent_width = latent_width
        self.slots = nn.ModuleList(nn.Embedding(size, latent_width) for size in format.slot_sizes)
        self.project = nn.Linear(latent_width, width) if latent_width != width else nn.Identity()
        coarse = range(settings.coarse_blocks)
        self.coarse = nn.Sequential(
            *(ConvNeXtBlock(width, inner, layer_scale_init_value=1 / len(coarse)) for _ in coarse)
        )
        self.finer: nn.Module = nn.Identity()
        if ratio > 1:
            self.finer = nn.ConvTranspose1d(width, width, ratio, stride=ratio)
        self.backbone = VocosBackbone(width, width, inner, settings.blocks)
        self.heads = nn.ModuleList(
            ZeroMeanHead(width, settings.window, settings.hop) for _ in range(format.channels)
        )
        heard = receptive_frames(lambda x_BDF: self.sound(x_BDF.mT), latent_width, 1, self.hop)
        self.context_frames = max(heard, STILL_FRAMES + 1)

    def begin(self, codebooks: Sequence[Tensor]) -> None:
        """Start the embeddings from the codec's own codebooks."""
        with torch.no_grad():
            for slot, book_CD in zip(self.slots, codebooks, strict=True):
                assert isinstance(slot, nn.Embedding)
                slot.weight.copy_(book_CD)

    def forward(self, codes_BFS: Tensor, slots_B: Tensor | None = None) -> Tensor:
        """`slots_B`: how many slots, from the first, each song may use; codes may have fewer."""
        latent_BFD = torch.zeros((), device=codes_BFS.device)
        for s in range(codes_BFS.shape[2]):
            part_BFD = self.slots[s](codes_BFS[:, :, s])
            if slots_B is not None:
                part_BFD = part_BFD * (s < slots_B)[:, None, None]
            latent_BFD = latent_BFD + part_BFD
        wave_BCW = self.sound(latent_BFD)
        if not self.training and self.silence_S is not None:
            wave_BCW = wave_BCW * self._gain(codes_BFS, self.silence_S)
        return limit(wave_BCW)

    def sound(self, latent_BFD: Tensor) -> Tensor:
        """wave_BCW of summed embeddings, before silence and `limit`; inverse STFT in float32."""
        coarse_BDF = self.coarse(self.project(latent_BFD).transpose(1, 2))
        hidden_BTD = self.backbone(self.finer(coarse_BDF))
        with torch.autocast(hidden_BTD.device.type, enabled=False):
            return torch.stack([head(hidden_BTD.float()) for head in self.heads], 1)

    def _gain(self, codes_BFS: Tensor, silence_S: tuple[int, ...]) -> Tensor:
        """gain_B1W: 0 in the midst of silence (also beyond the ends), else 1; ramps of a frame."""
        still = codes_BFS.new_tensor(silence_S[: codes_BFS.shape[2]])
        sounds_B1F = (codes_BFS != still).any(-1)[:, None].float()
        near_B1F = functional.max_pool1d(sounds_B1F, 2 * STILL_FRAMES + 1, 1, STILL_FRAMES)
        return drawn_out(near_B1F, self.hop)


class ZeroMeanHead(ISTFTHead):
    """Vocos' head, whose windowed frames each sum to zero; `hop` samples a frame, odd ones too."""

    def __init__(self, width: int, window: int, hop: int):
        super().__init__(width, window, hop, padding="same")

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        log_BKT, phase_BKT = self.out(hidden_BTD).transpose(1, 2).chunk(2, dim=1)
        bins_BKT = torch.polar(log_BKT.exp().clamp_max(LOUDEST), phase_BKT)
        zero_B1T = torch.complex(bins_BKT[:, 1:2].real, torch.zeros_like(phase_BKT[:, :1]))
        wave_BW = self.istft(torch.cat([zero_B1T, bins_BKT[:, 1:]], 1))
        return wave_BW[:, : hidden_BTD.shape[1] * self.istft.hop_length]


def limit(wave: Tensor) -> Tensor:
    """Sample by sample: what is below 0.9 unchanged; above, 0.9 + 0.1 tanh((|x| - 0.9) / 0.1)."""
    over = (wave.abs() - KNEE).clamp_min(0)
    return wave.clamp(-KNEE, KNEE) + wave.sign() * (1 - KNEE) * torch.tanh(over / (1 - KNEE))


def _divisor(samples: int, near: int) -> int:
    return min((n for n in range(1, samples + 1) if samples % n == 0), key=lambda n: abs(n - near))
