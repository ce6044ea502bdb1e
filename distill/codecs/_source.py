"""A harmonic source for a decoder whose input knows no phase.

Codes say which pitch sounds, not where its periods begin. A local network that turns them into a
spectrum frame by frame cannot guess phases that fit from frame to frame: a low voice, with three
periods in a frame, is sung out of tune. So the pitch is read off the hidden state, its phase is
summed up over time, and a pulse train of that phase is given to the head, which shapes it with a
smooth gain and adds a spectrum of its own (breath, consonants, other instruments). The idea is that
of neural source-filter models (Wang 2019, arXiv 1904.12088), in the inverse-STFT form of HiFTNet
(Li 2023, arXiv 2309.09493).

In training the pulses have the pitch that was sung, where one is heard (`yin`): with a pitch that
is still being learnt they would fit nothing, and the network would learn to do without them.

The phase at a moment depends on everything before it, through one number, which goes from block to
block.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

LOWEST_HZ, BINS_AN_OCTAVE, BINS = 50.0, 48, 216  # 25 cents each, up to 1,131 Hz
BLURRED = 2  # states on each side that are heard about the pitch of one
AROUND = 3  # bins on each side of the likeliest that make the pitch
ROUNDED = 4096  # parts of an octave (0.3 cents): rounding of a hidden state does not add up
BANDS, LOUDEST_NATS = 128, 6.0  # of the gain
HIGHEST_SHARE = 0.46  # of the sample rate: up to there are harmonics
YIN_DIP = 0.15  # the normalised difference below which a lag is a period
YIN_POWER = 1e-5  # of full scale: what is quieter is unvoiced


class HarmonicSource(nn.Module):
    """hidden_BTD, a state every `hop` samples -> what is voiced as frames of an inverse STFT."""

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
        """hertz_BT, float64, no gradient: mean around the likeliest bin of the blurred logits."""
        with torch.no_grad():
            logits_BTN = _blurred(logits_BTN)
            best_BT1 = logits_BTN.argmax(-1, keepdim=True)
            near_J = torch.arange(-AROUND, AROUND + 1, device=logits_BTN.device)
            bins_BTJ = (best_BT1 + near_J).clamp(0, BINS - 1)
            weights_BTJ = logits_BTN.float().gather(-1, bins_BTJ).softmax(-1)
            octaves_BT = (weights_BTJ * bins_BTJ).sum(-1) / BINS_AN_OCTAVE
            return LOWEST_HZ * torch.exp2((octaves_BT * ROUNDED).round().double() / ROUNDED)

    def forward(self, hidden_BTD: Tensor, hertz_BT: Tensor, cycles_BW: Tensor) -> Tensor:
        """spectrum_BKT, complex: pulses of these `cycles` under the hidden state's gain."""
        pulses_BW = pulses(cycles_BW[:, :-1], samples(hertz_BT, self.hop), self.sample_rate)
        spectrum_BKT = stft(pulses_BW, self.window_W, self.hop)
        level_BTN = self.level(hidden_BTD).float().clamp_max(LOUDEST_NATS)
        gain_BKT = (level_BTN @ self.spread_BK).exp().transpose(1, 2)
        return spectrum_BKT * gain_BKT * (4 / len(self.window_W))


def stft(wave_BW: Tensor, window_W: Tensor, hop: int) -> Tensor:
    """spectrum_BKT, complex, K = window / 2 + 1, T = W / hop, whole; silence beyond both ends."""
    size = len(window_W)
    before = (size - hop) // 2
    padded_BW = functional.pad(wave_BW, (before, size - hop - before))
    return torch.stft(padded_BW, size, hop, window=window_W, center=False, return_complex=True)


def _blurred(logits_BTN: Tensor) -> Tensor:
    """Each state's logits with those of BLURRED states on each side, weighted by a triangle.

    Summed one shift after another, so that it does not depend on how many states there are.
    """
    states, width = logits_BTN.shape[1], BLURRED + 1
    padded_BTN = functional.pad(logits_BTN.mT, (BLURRED, BLURRED), mode="replicate").mT
    blurred_BTN = logits_BTN / width
    for away in range(1, width):
        left_BTN = padded_BTN[:, BLURRED - away :][:, :states]
        right_BTN = padded_BTN[:, BLURRED + away :][:, :states]
        blurred_BTN = blurred_BTN + (left_BTN + right_BTN) * ((width - away) / width**2)
    return blurred_BTN


def samples(hertz_BT: Tensor, hop: int) -> Tensor:
    """hertz_BW, float64, as `drawn_out`."""
    return drawn_out(hertz_BT.double(), hop)


def drawn_out(values_T: Tensor, hop: int) -> Tensor:
    """[..., T * hop]: each value in the middle of its hop, and straight lines between.

    Not by `interpolate`: its float32 positions depend on how long the song is.
    """
    away_H = torch.arange(hop, dtype=values_T.dtype, device=values_T.device)
    away_H = (away_H + 0.5) / hop - 0.5
    rise_T = values_T.diff(dim=-1)
    before_T1, behind_T1 = (functional.pad(rise_T, side)[..., None] for side in ((1, 0), (0, 1)))
    lines_TH = away_H.clamp_max(0) * before_T1 + away_H.clamp_min(0) * behind_T1
    return (values_T[..., None] + lines_TH).flatten(-2)


def cycles(
    hertz_BT: Tensor, hop: int, sample_rate: int, anchor: int = 0, at_anchor: Tensor | None = None
) -> Tensor:
    """Periods passed where each sample begins, and at the end: [B, W + 1], float64; `at_anchor`
    (B numbers; None: 0) where state `anchor` begins."""
    steps_BW = samples(hertz_BT, hop) / sample_rate
    sum_BW = functional.pad(steps_BW.cumsum(1), (1, 0))
    passed_BW = sum_BW - sum_BW[:, anchor * hop, None]
    return passed_BW if at_anchor is None else passed_BW + at_anchor[:, None]


def pulses(cycles_BW: Tensor, hertz_BW: Tensor, sample_rate: int) -> Tensor:
    """Sum of cos(2 pi h cycles) over the harmonics h there are: Dirichlet's kernel, float32."""
    # within half a period of a pulse
    phase_BW = (2 * math.pi * (cycles_BW - cycles_BW.round())).float()
    count_BW = (HIGHEST_SHARE * sample_rate / hertz_BW).floor().float()
    half_BW = torch.sin(phase_BW / 2)
    near_BW = half_BW.abs() < 1e-4
    divisor_BW = 2 * torch.where(near_BW, torch.ones_like(half_BW), half_BW)
    summed_BW = torch.sin((count_BW + 0.5) * phase_BW) / divisor_BW
    return torch.where(near_BW, count_BW, summed_BW - 0.5)


def off_pitch(logits_BTN: Tensor, hertz_BT: Tensor, voiced_BT: Tensor) -> Tensor:
    """loss_B: cross entropy (nats) of the bins against a blurred pitch, over voiced frames."""
    where_BT = BINS_AN_OCTAVE * torch.log2(hertz_BT / LOWEST_HZ)
    away_BTN = torch.arange(BINS, device=logits_BTN.device) - where_BT[..., None]
    target_BTN = torch.exp(-0.5 * away_BTN.square())
    target_BTN = target_BTN / target_BTN.sum(-1, keepdim=True).clamp_min(1e-6)
    nats_BT = -(target_BTN * logits_BTN.float().log_softmax(-1)).sum(-1)
    return (nats_BT * voiced_BT).sum(1) / voiced_BT.shape[1]


@torch.no_grad()
def yin(wave_BW: Tensor, sample_rate: int, hop: int) -> tuple[Tensor, Tensor]:
    """(hertz_BT, voiced_BT) by YIN (de Cheveigne 2002, doi:10.1121/1.1458024) at half the rate."""
    kernel_C1K = wave_BW.new_tensor([0.25, 0.5, 0.25])[None, None]
    slow_BCW = functional.conv1d(functional.pad(wave_BW, (1, 1))[:, None], kernel_C1K, stride=2)
    rate, step = sample_rate / 2, hop / 2
    longest = int(rate / LOWEST_HZ)
    shortest = int(rate / (LOWEST_HZ * 2 ** ((BINS - 1) / BINS_AN_OCTAVE)))
    span = 3 * longest // 2
    size = span + longest
    first = round(step / 2 - size / 2)
    padded_BW = functional.pad(slow_BCW[:, 0], (-first, size))
    pieces_BTW = padded_BW.unfold(1, size, round(step))[:, : wave_BW.shape[1] // hop]
    unlike_BTL, power_BT = _differences(pieces_BTW, span)
    lags_L = torch.arange(1, longest, device=wave_BW.device)
    mean_BTL = unlike_BTL[..., 1:].cumsum(-1) / lags_L
    normal_BTL = unlike_BTL[..., 1:] / mean_BTL.clamp_min(1e-9)
    dips_BTL = functional.pad(normal_BTL, (1, 1), value=9.0)[..., :-1]
    inner_BTL = dips_BTL[..., 1:-1]
    lowest_BTL = (inner_BTL <= dips_BTL[..., :-2]) & (inner_BTL <= dips_BTL[..., 2:])
    low_BTL = (inner_BTL < YIN_DIP) & lowest_BTL
    low_BTL[..., : shortest - 1] = False
    voiced_BT = low_BTL.any(-1) & (power_BT > YIN_POWER * span)
    lag_BT1 = low_BTL.float().argmax(-1, keepdim=True) + 1
    left_BT, middle_BT, right_BT = (
        dips_BTL.gather(-1, (lag_BT1 + away).clamp(0, longest - 1))[..., 0] for away in (-1, 0, 1)
    )
    bend_BT = (left_BT - 2 * middle_BT + right_BT).clamp_min(1e-6)
    lag_BT = lag_BT1[..., 0] + (0.5 * (left_BT - right_BT) / bend_BT).clamp(-0.5, 0.5)
    return rate / lag_BT.clamp_min(2.0), voiced_BT


def _differences(pieces_BTW: Tensor, span: int) -> tuple[Tensor, Tensor]:
    """(squared difference of the first `span` samples to those at every lag, their power)."""
    size = pieces_BTW.shape[2]
    lags = size - span
    padded = 2 ** math.ceil(math.log2(size + span))  # nothing wraps, and the transform is fast
    all_BTK = torch.fft.rfft(pieces_BTW, padded)
    head_BTK = torch.fft.rfft(pieces_BTW[..., :span], padded)
    alike_BTL = torch.fft.irfft(all_BTK * head_BTK.conj(), padded)[..., :lags]
    energy_BTW = functional.pad(pieces_BTW.square().cumsum(-1), (1, 0))
    power_BTL = energy_BTW[..., span:size] - energy_BTW[..., :lags]
    unlike_BTL = (power_BTL[..., :1] + power_BTL - 2 * alike_BTL).clamp_min(0)
    return unlike_BTL, power_BTL[..., 0]


def _bands(bins: int, sample_rate: int) -> Tensor:
    """spread_BK: values of BANDS bands, evenly spaced in mel, in straight lines over all bins."""
    mel_K = 2595 * torch.log10(1 + torch.linspace(0, sample_rate / 2, bins) / 700)
    band_K = mel_K / mel_K[-1] * (BANDS - 1)
    return (1 - (torch.arange(BANDS)[:, None] - band_K).abs()).clamp_min(0)
