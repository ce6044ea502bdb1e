"""The harmonic source of a decoder: pulses against float64, pitch, phase in pieces."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import tiny_codecs
import torch

from distill.codecs._source import (
    BINS,
    BINS_AN_OCTAVE,
    BLURRED,
    LOWEST_HZ,
    HarmonicSource,
    cycles,
    off_pitch,
    pulses,
    yin,
)
from distill.codecs._source import samples as drawn_out
from distill.vocoders.codec import CodecVocoder

RATE, HOP = 24_000, 240


def glide(low: float, high: float, states: int = 120) -> torch.Tensor:
    return torch.linspace(math.log(low), math.log(high), states).exp()[None]


def test_pulses_are_the_sum_of_all_harmonics() -> None:
    hertz_BT = glide(80, 900)
    hertz_BW = drawn_out(hertz_BT, HOP)
    passed_BW = cycles(hertz_BT, HOP, RATE)[:, :-1]
    count_BW = (0.46 * RATE / hertz_BW).floor()
    h_H11 = torch.arange(1, int(count_BW.max()) + 1).double()[:, None, None]
    summed_BW = (torch.cos(2 * math.pi * h_H11 * passed_BW) * (h_H11 <= count_BW)).sum(0)
    assert (pulses(passed_BW, hertz_BW, RATE) - summed_BW).abs().max() < 1e-3 * count_BW.max()


def test_phase_goes_on_from_piece_to_piece() -> None:
    hertz_BT = glide(60, 1000).repeat(2, 1)
    whole_BW = cycles(hertz_BT, HOP, RATE)
    at_B = whole_BW[:, 70 * HOP]
    piece_BW = cycles(hertz_BT[:, 50:], HOP, RATE, anchor=20, at_anchor=at_B)
    inner = slice(HOP, -HOP)  # the first half state has lost its neighbour
    assert (piece_BW[:, inner] - whole_BW[:, 50 * HOP :][:, inner]).abs().max() < 1e-9
    assert abs(float(whole_BW[0, -1]) - float(drawn_out(hertz_BT, HOP)[0].sum()) / RATE) < 1e-9


@pytest.mark.parametrize("hertz", [65.0, 98.0, 220.0, 440.0, 740.0, 1000.0])
def test_yin_hears_a_tone(hertz: float) -> None:
    t_W = torch.arange(RATE).double() / RATE
    wave_BW = (
        sum(torch.cos(2 * math.pi * hertz * h * t_W + h) / h for h in range(1, 9))[None].float()
        * 0.1
    )
    heard_BT, voiced_BT = yin(wave_BW, RATE, HOP)
    assert voiced_BT[:, 5:-5].all() and heard_BT.shape == (1, RATE // HOP)
    assert (1200 * torch.log2(heard_BT[:, 5:-5] / hertz)).abs().max() < 10  # cents


def test_yin_hears_no_pitch_in_noise_and_silence() -> None:
    chance = torch.Generator().manual_seed(0)
    for wave_BW in (torch.zeros(1, RATE), 0.1 * torch.randn(1, RATE, generator=chance)):
        assert yin(wave_BW, RATE, HOP)[1].float().mean() < 0.02


def test_the_source_learns_a_pitch_and_sings_it() -> None:
    source = HarmonicSource(4, RATE, HOP, 960)
    hertz_BT = glide(70, 1050)
    bins_BT = BINS_AN_OCTAVE * torch.log2(hertz_BT / LOWEST_HZ)
    logits_BTN = -0.5 * (torch.arange(BINS) - bins_BT[..., None]).square()
    # cents; the first and the last miss a neighbour
    off_BT = 1200 * torch.log2(source.hertz(logits_BTN) / hertz_BT)
    assert off_BT[:, BLURRED:-BLURRED].abs().max() < 2
    voiced_BT = torch.ones_like(hertz_BT, dtype=torch.bool)
    assert off_pitch(logits_BTN, hertz_BT, voiced_BT) < off_pitch(
        logits_BTN.roll(3, -1), hertz_BT, voiced_BT
    )
    with torch.no_grad():
        for layer in (source.level.weight, source.level.bias):
            layer.zero_()
        spectrum_BKT = source(
            torch.zeros(1, 120, 4),
            torch.full((1, 120), 250.0),
            cycles(torch.full((1, 120), 250.0), HOP, RATE),
        )
    loud_K = spectrum_BKT.abs().mean(-1)[0]
    assert loud_K[10::10][:40].min() > 10 * loud_K[5::10][:40].max()  # bins of 25 Hz: 250, 500, ...


def test_a_stream_through_a_source_is_the_whole(tmp_path: Path) -> None:
    """Pieces decoded each by itself would begin with a phase of their own."""
    torch.manual_seed(0)
    vocoder = CodecVocoder(tiny_codecs.embedded_sourced(tmp_path).settings.load())
    codes_FS = torch.randint(32, (400, 2), generator=torch.Generator().manual_seed(0))
    streamed_CW = torch.cat(list(vocoder.stream(codes_FS.split(30))), 1)
    assert (streamed_CW - vocoder.decode(codes_FS)).abs().max() <= 1e-5
