"""A harmonic source for a decoder whose input knows no phase.

Codes say which pitch sounds, not where its periods begin. A network that turns them into a spectrum
frame by frame has to guess phases that fit from frame to frame, and a local network cannot: it
begins anew with every frame, and a low voice, with three periods in a frame, is sung out of tune.
So the pitch is read off the hidden state, its phase is summed up over time, and a pulse train of
that phase is given to the head, which shapes it with a smooth gain and adds a spectrum of its own
(breath, consonants, other instruments). The idea is that of neural source-filter models (Wang 2019,
arXiv 1904.12088), in the inverse-STFT form of HiFTNet (Li 2023, arXiv 2309.09493).

In training the pulses have the pitch that was sung, where one is heard (`yin`): with a pitch that
is still being learnt they would fit nothing, and the network would learn to do without them.

The phase at a moment depends on everything before it, through one number. Whoever works in blocks
hands that on.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

LOWEST_HZ, BINS_AN_OCTAVE, BINS = 50.0, 48, 216  # 25 cents each, up to 1,131 Hz
BLURRED = 2  # states on each side that are heard about the pitch of one
AROUND = 3  # bins on each side of the likeliest that make the pitch
# parts of an octave (0.3 cents): what rounding does to a hidden state does not add up
ROUNDED = 4096
BANDS = 128  # of the gain
YIN_DIP = 0.15


class HarmonicSource(nn.Module):
    """hidden_BTD, a state every `hop` samples -> the spectrum of what is voiced, on the frames of
    an inverse STFT."""

    window_W: Tensor
    spread_BK: Tensor

    def __init__(self, width: int, sample_rate: int, hop: int, window: int):
        super().__init__()
        self.sample_rate, self.hop = sample_rate, hop
        self.pitch, self.level = nn.Linear(width, BINS), nn.Linear(width, BANDS)
        self.register_buffer("window_W", torch.hann_window(window), persistent=False)
        self.register_buffer("spread_BK", _bands(window // 2 + 1, sample_rate), persistent=False)

    @property
    def reach(self) -> int:
        """States on each side, at most, whose pitch is heard in the samples of one."""
        return BLURRED + 1 + math.ceil(len(self.window_W) / self.hop)

    def hertz(self, logits_BTN: Tensor) -> Tensor:
        """The pitch that `pitch` says, in Hz: the mean of the likeliest bin's neighbourhood, where
        the states nearby have their say too; float64. No gradient."""
        with torch.no_grad():
            logits_BTN = _blurred(logits_BTN)
            best_BT1 = logits_BTN.argmax(-1, keepdim=True)
            near_J = torch.arange(-AROUND, AROUND + 1, device=logits_BTN.device)
            bins_BTJ = (best_BT1 + near_J).clamp(0, BINS - 1)
            weights_BTJ = logits_BTN.float().gather(-1, bins_BTJ).softmax(-1)
            octaves_BT = (weights_BTJ * bins_BTJ).sum(-1) / BINS_AN_OCTAVE
            return LOWEST_HZ * torch.exp2((octaves_BT * ROUNDED).round().double() / ROUNDED)

    def forward(self, hidden_BTD: Tensor, hertz_BT: Tensor, cycles_BW: Tensor) -> Tensor:
        """spectrum_BKT, complex, of pulses with these phases (`cycles`) under the gain that the
        hidden state asks for."""
        pulses_BW = pulses(cycles_BW[:, :-1], samples(hertz_BT, self.hop), self.sample_rate)
        reach = (len(self.window_W) - self.hop) // 2
        padded_BW = functional.pad(pulses_BW, (reach, len(self.window_W) - self.hop - reach))
        spectrum_BKT = torch.stft(
            padded_BW,
            len(self.window_W),
            self.hop,
            window=self.window_W,
            center=False,
            return_complex=True,
        )
        level_BTN = self.level(hidden_BTD).float().clamp_max(6.0)
        return (
            spectrum_BKT
            * (level_BTN @ self.spread_BK).exp().transpose(1, 2)
            * (4 / len(self.window_W))
        )


def _blurred(logits_BTN: Tensor) -> Tensor:
    """Each state's logits with those of BLURRED states on each side, weighted by a triangle.

    Summed place by place, so that the sum does not depend on how many states there are.
    """
    states, width = logits_BTN.shape[1], BLURRED + 1
    padded_BTN = functional.pad(
        logits_BTN.transpose(1, 2), (BLURRED, BLURRED), mode="replicate"
    ).transpose(1, 2)
    blurred_BTN = logits_BTN / width
    for away in range(1, width):
        both_BTN = (
            padded_BTN[:, BLURRED - away :][:, :states]
            + padded_BTN[:, BLURRED + away :][:, :states]
        )
        blurred_BTN = blurred_BTN + both_BTN * ((width - away) / width**2)
    return blurred_BTN


def samples(hertz_BT: Tensor, hop: int) -> Tensor:
    """hertz_BW, float64: a value every `hop` samples, in the middle of its hop, drawn out in
    straight lines.

    Not by `interpolate`: its float32 positions depend on how long the song is.
    """
    hertz_BT1 = hertz_BT.double()[..., None]
    away_H = (torch.arange(hop, device=hertz_BT.device).double() + 0.5) / hop - 0.5
    rise_BT1 = hertz_BT1.diff(dim=1)
    before_BT1, behind_BT1 = (functional.pad(rise_BT1, (0, 0, *side)) for side in ((1, 0), (0, 1)))
    return (
        hertz_BT1 + away_H.clamp_max(0) * before_BT1 + away_H.clamp_min(0) * behind_BT1
    ).flatten(1)


def cycles(
    hertz_BT: Tensor, hop: int, sample_rate: int, anchor: int = 0, at_anchor: Tensor | None = None
) -> Tensor:
    """Periods passed where each sample begins, and where the last one ends: [B, W + 1], float64.
    Where state `anchor` begins it is `at_anchor` (B numbers; none: 0).
    """
    steps_BW = samples(hertz_BT, hop) / sample_rate
    sum_BW = functional.pad(steps_BW.cumsum(1), (1, 0))
    passed_BW = sum_BW - sum_BW[:, anchor * hop, None]
    return passed_BW if at_anchor is None else passed_BW + at_anchor[:, None]


def pulses(cycles_BW: Tensor, hertz_BW: Tensor, sample_rate: int) -> Tensor:
    """The sum of cos(2 pi h cycles) over all harmonics h below half the sample rate: Dirichlet's
    kernel, float32."""
    # within half a period of a pulse
    phase_BW = (2 * math.pi * (cycles_BW - cycles_BW.round())).float()
    count_BW = (0.46 * sample_rate / hertz_BW).floor().float()
    half_BW = torch.sin(phase_BW / 2)
    near_BW = half_BW.abs() < 1e-4
    summed_BW = torch.sin((count_BW + 0.5) * phase_BW) / (
        2 * torch.where(near_BW, torch.ones_like(half_BW), half_BW)
    )
    return torch.where(near_BW, count_BW, summed_BW - 0.5)


def off_pitch(logits_BTN: Tensor, hertz_BT: Tensor, voiced_BT: Tensor) -> Tensor:
    """Cross entropy of the bins against a pitch in Hz, blurred by a bin, over voiced frames: B
    numbers."""
    where_BT = BINS_AN_OCTAVE * torch.log2(hertz_BT / LOWEST_HZ)
    away_BTN = torch.arange(BINS, device=logits_BTN.device) - where_BT[..., None]
    target_BTN = torch.exp(-0.5 * away_BTN.square())
    target_BTN = target_BTN / target_BTN.sum(-1, keepdim=True).clamp_min(1e-6)
    nats_BT = -(target_BTN * logits_BTN.float().log_softmax(-1)).sum(-1)
    return (nats_BT * voiced_BT).sum(1) / voiced_BT.shape[1]


@torch.no_grad()
def yin(wave_BW: Tensor, sample_rate: int, hop: int) -> tuple[Tensor, Tensor]:
    """(hertz_BT, voiced_BT) of every hop, by YIN (de Cheveigne 2002, doi:10.1121/1.1458024) at half
    the rate."""
    kernel_C1K = wave_BW.new_tensor([0.25, 0.5, 0.25])[None, None]
    slow_BW = functional.conv1d(functional.pad(wave_BW, (1, 1))[:, None], kernel_C1K, stride=2)[
        :, 0
    ]
    rate, step = sample_rate / 2, hop / 2
    most = int(rate / LOWEST_HZ)
    span = 3 * most // 2
    size = span + most
    frames = wave_BW.shape[1] // hop
    first = round(step / 2 - size / 2)
    padded_BW = functional.pad(slow_BW, (-first, size))
    pieces_BTW = padded_BW.unfold(1, size, round(step))[:, :frames]
    fast = 2 ** math.ceil(math.log2(size + span))
    whole_BTK, head_BTK = (
        torch.fft.rfft(pieces_BTW, fast),
        torch.fft.rfft(pieces_BTW[..., :span], fast),
    )
    alike_BTL = torch.fft.irfft(whole_BTK * head_BTK.conj(), fast)[..., :most]
    energy_BTW = functional.pad(pieces_BTW.square().cumsum(-1), (1, 0))
    power_BTL = energy_BTW[..., span : span + most] - energy_BTW[..., :most]
    unlike_BTL = (power_BTL[..., :1] + power_BTL - 2 * alike_BTL).clamp_min(0)
    lags_L = torch.arange(1, most, device=wave_BW.device)
    mean_BTL = unlike_BTL[..., 1:].cumsum(-1) / lags_L
    dips_BTL = functional.pad(unlike_BTL[..., 1:] / mean_BTL.clamp_min(1e-9), (1, 1), value=9.0)[
        ..., :-1
    ]
    least = int(rate / (LOWEST_HZ * 2 ** ((BINS - 1) / BINS_AN_OCTAVE)))
    inner_BTL = dips_BTL[..., 1:-1]
    low_BTL = (
        (inner_BTL < YIN_DIP) & (inner_BTL <= dips_BTL[..., :-2]) & (inner_BTL <= dips_BTL[..., 2:])
    )
    low_BTL[..., : least - 1] = False
    voiced_BT = low_BTL.any(-1) & (power_BTL[..., 0] > 1e-5 * span)
    lag_BT1 = low_BTL.float().argmax(-1, keepdim=True) + 1
    left, middle, right = (
        dips_BTL.gather(-1, (lag_BT1 + n).clamp(0, most - 1))[..., 0] for n in (-1, 0, 1)
    )
    bend_BT = (left - 2 * middle + right).clamp_min(1e-6)
    lag_BT = lag_BT1[..., 0] + (0.5 * (left - right) / bend_BT).clamp(-0.5, 0.5)
    return rate / lag_BT.clamp_min(2.0), voiced_BT


def _bands(bins: int, sample_rate: int) -> Tensor:
    """spread_BK: values of BANDS bands, narrow below, drawn out in straight lines over the bins of
    a spectrum."""
    mel_K = 2595 * torch.log10(1 + torch.linspace(0, sample_rate / 2, bins) / 700)
    place_K = mel_K / mel_K[-1] * (BANDS - 1)
    return (1 - (torch.arange(BANDS)[:, None] - place_K).abs()).clamp_min(0)
