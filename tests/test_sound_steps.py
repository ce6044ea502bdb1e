"""distill/curation/{loudness,faults,bandwidth}.py against sounds whose truth is built here."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pytest
import soxr
from numpy.typing import NDArray
from scipy.signal import firwin, oaconvolve

from distill.curation.steps import Item, Sound
from distill.curation.steps import bandwidth as bandwidth_step
from distill.curation.steps import faults as faults_step
from distill.curation.steps import loudness as loudness_step
from distill.curation.steps.bandwidth import bandwidth
from distill.curation.steps.faults import click_places, flat_tops
from distill.curation.steps.loudness import integrated, true_peak
from distill.errors import SettingsError
from distill.songs import Song

RATE = 48_000


def sine(
    seconds: float,
    dbfs: float,
    hertz: float = 1000.0,
    rate: int = RATE,
    channels: int = 1,
    phase: float = 0.0,
) -> NDArray[np.float32]:
    """wave_CW, its peaks at `dbfs`."""
    t = np.arange(round(seconds * rate)) / rate
    wave_W = 10 ** (dbfs / 20) * np.sin(2 * np.pi * hertz * t + phase)
    return np.tile(wave_W.astype(np.float32), (channels, 1))


@lru_cache(maxsize=16)
def voice(
    seconds: float = 6.0, rate: int = 44_100, level: float = 0.1, seed: int = 0
) -> NDArray[np.float32]:
    """Like singing: harmonics of a vibrating tone, syllables that swell, breath. Copy to write."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(220 + 4 * np.sin(2 * np.pi * 5.5 * t)) / rate
    tones = sum(np.sin(k * phase + k) / k**2 for k in range(1, min(40, int(rate / 2 / 240))))
    syllables = 0.55 - 0.45 * np.cos(2 * np.pi * 2.0 * t)
    breath = rng.standard_normal(len(t)) * 0.002
    wave_W = syllables * (tones + breath)
    return (level * wave_W / np.sqrt(np.mean(np.square(wave_W)))).astype(np.float32)[None]


def item(rate: int = RATE, **tracks: NDArray[np.float32]) -> Item:
    return Item(Song("a", ()), {name: Sound(wave_CW, rate) for name, wave_CW in tracks.items()})


def remarks(item: Item, step: str) -> list[tuple[str, str]]:
    return [(remark.verdict, remark.text) for remark in item.remarks if remark.step == step]


# -- loudness --------------------------------------------------------------------------------------


def test_a_sine_of_full_scale_in_one_channel_is_minus_3_01_lufs() -> None:
    """ITU-R BS.1770-4, annex 1: 0 dBFS, 997 Hz, left, right or centre: -3.01 LKFS."""
    full_CW = sine(5, 0.0, 997.0)
    assert integrated(Sound(full_CW, RATE)) == pytest.approx(-3.01, abs=0.02)
    both_CW = np.concatenate([full_CW, 0 * full_CW])
    assert integrated(Sound(both_CW, RATE)) == pytest.approx(-3.01, abs=0.02)
    assert integrated(Sound(both_CW[::-1], RATE)) == pytest.approx(-3.01, abs=0.02)


@pytest.mark.parametrize(
    ("case", "parts"),
    [
        ("1", [(20, -23)]),
        ("2", [(20, -33)]),
        ("3", [(10, -36), (60, -23), (10, -36)]),
        ("4", [(10, -72), (10, -36), (60, -23), (10, -36), (10, -72)]),
        ("5", [(20, -26), (20.1, -20), (20, -26)]),
    ],
)
def test_ebu_tech_3341_signals(case: str, parts: list[tuple[float, float]]) -> None:
    """Stereo sines of 1 kHz, "peak level per channel" (cases 1 to 5): -23 LUFS but for case 2, -33.

    All within 0.1 LU."""
    rate = 24_000  # half the samples; the weighting is designed for each rate
    wave_CW = np.concatenate(
        [sine(seconds, dbfs, rate=rate, channels=2) for seconds, dbfs in parts], 1
    )
    assert integrated(Sound(wave_CW, rate)) == pytest.approx(-33 if case == "2" else -23, abs=0.1)


def test_true_peak_sees_between_the_samples() -> None:
    """A sine of a quarter of the rate, 45 degrees off, sampled below 0.708 (Tech 3341, case 15)."""
    wave_CW = sine(1, -6.0, RATE / 4, phase=math.pi / 4)
    fade_W = np.minimum(1, np.minimum(np.arange(RATE), np.arange(RATE)[::-1]) / 4800)
    assert 20 * math.log10(np.abs(wave_CW).max()) == pytest.approx(-9.01, abs=0.02)
    peak = true_peak(wave_CW * fade_W.astype(np.float32))
    assert 20 * math.log10(peak) == pytest.approx(-6, abs=0.2)
    assert true_peak(np.zeros((2, 1000), np.float32)) == 0


def test_true_peak_is_that_of_the_whole_wave_oversampled_at_once() -> None:
    rng = np.random.default_rng(0)
    wave_CW = (0.1 * rng.standard_normal((2, 300_000))).astype(np.float32)
    from scipy.signal import resample_poly

    whole = float(np.abs(resample_poly(wave_CW.astype(np.float64), 4, 1, axis=1)).max())
    assert true_peak(wave_CW) == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize("dbfs", [-40.0, -30.0, -18.0, -12.0])
def test_a_song_comes_to_the_target(dbfs: float) -> None:
    curated = loudness_step.Settings().curate(item(audio=sine(3, dbfs, channels=2)))
    assert integrated(curated.tracks["audio"]) == pytest.approx(-18, abs=0.15)
    fact = curated.song.fact("loudness_lufs")
    assert fact is not None and fact.value == pytest.approx(dbfs, abs=0.1)
    verdicts = [verdict for verdict, _ in remarks(curated, "loudness")]
    assert verdicts == ([] if dbfs == -18 else ["mended"])
    again = loudness_step.Settings().curate(curated)
    assert again.tracks["audio"] is curated.tracks["audio"] and again.remarks == curated.remarks


def test_the_gain_stops_at_the_true_peak_and_says_so() -> None:
    wave_CW = sine(4, -40.0)
    wave_CW[:, 24_000:24_040] *= 60  # -4.4 dBFS: room for 3.4 dB
    curated = loudness_step.Settings().curate(item(audio=wave_CW))
    assert true_peak(curated.tracks["audio"].wave_CW) == pytest.approx(10 ** (-1 / 20), rel=1e-3)
    (mended, _), (noted, text) = remarks(curated, "loudness")
    assert (mended, noted) == ("mended", "noted") and "true peak is -1.0 dBTP" in text
    loud = loudness_step.Settings(target_lufs=-3.0).curate(item(audio=sine(3, 0.0)))
    # down, though at target
    assert true_peak(loud.tracks["audio"].wave_CW) == pytest.approx(10 ** (-1 / 20), rel=1e-3)


def test_stems_are_scaled_alike_by_what_is_heard_together() -> None:
    sung_CW, played_CW = voice(3, RATE, 0.02), sine(3, -30.0, 300.0)
    mixed = item(audio=sung_CW + played_CW, vocals=sung_CW, accompaniment=played_CW)
    curated = loudness_step.Settings().curate(mixed)
    tracks = {name: sound.wave_CW for name, sound in curated.tracks.items()}
    assert np.abs(tracks["audio"] - tracks["vocals"] - tracks["accompaniment"]).max() < 1e-6
    stems = loudness_step.Settings().curate(item(vocals=sung_CW, accompaniment=played_CW))
    assert np.allclose(stems.tracks["vocals"].wave_CW, tracks["vocals"], atol=1e-5)


def test_what_has_no_loudness_passes() -> None:
    nan_CW = sine(2, -20.0)
    nan_CW[0, 7] = np.nan
    for wave_CW in (np.zeros((1, RATE), np.float32), sine(0.1, -20.0), nan_CW):
        given = item(audio=wave_CW)
        curated = loudness_step.Settings().curate(given)
        assert curated.tracks["audio"].wave_CW is given.tracks["audio"].wave_CW
        assert remarks(curated, "loudness")[0][0] == "noted"
    assert remarks(loudness_step.Settings().curate(item()), "loudness")[0][0] == "noted"
    quiet = loudness_step.Settings().curate(item(audio=sine(2, -60.0)))
    assert quiet.traces["loudness"] == {"gain_db": 30.0}
    assert "15.0 dB below the target: its gain is limited" in remarks(quiet, "loudness")[1][1]


# -- faults ----------------------------------------------------------------------------------------


def faults(wave_CW: NDArray[np.float32], rate: int = 44_100, **settings: float) -> Item:
    return faults_step.Settings(**settings).curate(item(rate, audio=wave_CW))


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("bits", [0, 16])
def test_sound_without_fault_is_left_alone(rate: int, bits: int) -> None:
    rng = np.random.default_rng(1)
    # digital silence between two lines, faded as an editor fades
    rest_CW = np.zeros((1, rate), np.float32)
    fade_W = np.minimum(1, np.arange(3 * rate)[::-1] / (0.01 * rate)).astype(np.float32)
    noise_CW = (0.1 * rng.standard_normal((2, 6 * rate))).astype(np.float32)
    drums_CW = (
        noise_CW
        * np.exp(-np.arange(6 * rate) % (rate // 2) / (0.03 * rate)).astype(np.float32)[None]
    )
    waves = {
        "voice": voice(6, rate),
        "two lines": np.concatenate(
            [voice(3, rate) * fade_W, rest_CW, voice(3, rate) * fade_W[::-1]], 1
        ),
        "noise": noise_CW,
        "drums": drums_CW,
        "a low tone": sine(4, -40, 41.0, rate),
        "a quiet tone": sine(4, -66, 41.0, rate),
        "a tone at full scale": sine(4, 0, 441.0, rate),
    }
    for name, wave_CW in waves.items():
        rounded_CW = np.round(wave_CW * 2**15) / np.float32(2**15) if bits else wave_CW
        curated = faults(rounded_CW, rate)
        assert remarks(curated, "faults") == [], name
        assert curated.tracks["audio"].wave_CW is rounded_CW


def test_nan_and_infinity_are_set_aside() -> None:
    for value in (np.nan, np.inf, -np.inf):
        wave_CW = voice().copy()
        wave_CW[0, 100:103] = value
        assert remarks(faults(wave_CW), "faults") == [
            ("set aside", "audio: 3 samples are NaN or infinite")
        ]


def test_length() -> None:
    assert remarks(faults(voice(1.5)), "faults") == [
        ("set aside", "audio: lasts 1.50 s, less than 2")
    ]
    assert faults(voice(3), longest_seconds=2.5).aside
    assert not faults(voice(3)).aside


def test_silence() -> None:
    assert remarks(faults(np.zeros((2, 200_000), np.float32)), "faults") == [
        ("set aside", "audio: is silent")
    ]
    empty = item(44_100, vocals=voice(), accompaniment=np.zeros_like(voice()))
    assert not faults_step.Settings().curate(empty).aside  # a voice alone is no fault
    hiss_CW = (1e-5 * np.random.default_rng(0).standard_normal((1, 7 * 44_100))).astype(np.float32)
    curated = faults(np.concatenate([hiss_CW, voice(6), hiss_CW[:, : 6 * 44_100]], 1))
    assert [remark for remark in remarks(curated, "faults") if "silence" in remark[1]] == [
        ("noted", "begins with 7.0 s of silence"),
        ("noted", "ends with 6.0 s of silence"),
    ]
    long_CW = np.concatenate([voice(2), np.tile(hiss_CW, 4)], 1)
    assert remarks(faults(long_CW), "faults")[0] == ("set aside", "93 % of it is silent")


@pytest.mark.parametrize("gain", [1.0, 0.37])
def test_clipping_is_counted_at_full_scale_and_below(gain: float) -> None:
    wave_CW = voice(6, level=0.25)
    clipped_CW = np.clip(wave_CW, -0.4, 0.4)
    flat_W = np.abs(clipped_CW[0]) == np.float32(0.4)
    truth = sum(
        n for n in map(len, "".join("x" if flat else " " for flat in flat_W).split()) if n >= 3
    )
    assert truth > 1000
    rounded_CW = np.round(gain * clipped_CW * 2**15) / np.float32(2**15)
    ((verdict, text),) = remarks(faults(rounded_CW, most_clipped=0.5), "faults")
    counted = int(text.split()[1].replace(",", ""))
    assert verdict == "noted" and 0.9 * truth < counted <= truth
    assert faults(rounded_CW, most_clipped=0.5 * truth / wave_CW.size).aside


def test_flat_tops_of_a_clipped_sine() -> None:
    wave_W = np.clip(1.2 * sine(1, 0.0, 100.0, 48_000)[0], -1, 1)
    lengths = flat_tops(wave_W)
    # samples above, a period
    over = 2 * (math.pi / 2 - math.asin(1 / 1.2)) / (2 * math.pi * 100) * 48_000
    assert len(lengths) == 100 and abs(lengths.mean() - over) < 1
    assert not len(flat_tops(np.zeros(100, np.float32)))
    assert not len(flat_tops(np.zeros(0, np.float32)))


def test_a_constant_offset_is_subtracted_from_all_tracks() -> None:
    sung_CW, played_CW = voice(4) + np.float32(0.02), sine(4, -20.0, 300.0, 44_100)
    given = item(44_100, audio=sung_CW + played_CW, vocals=sung_CW, accompaniment=played_CW)
    curated = faults_step.Settings().curate(given)
    ((verdict, text),) = remarks(curated, "faults")
    assert verdict == "mended" and "0.0200" in text
    tracks = {name: sound.wave_CW for name, sound in curated.tracks.items()}
    assert all(abs(float(wave_CW.mean())) < 1e-6 for wave_CW in tracks.values())
    assert np.abs(tracks["audio"] - tracks["vocals"] - tracks["accompaniment"]).max() < 1e-5
    assert tracks["audio"].dtype == np.float32
    assert remarks(faults(voice(4) + np.float32(5e-4)), "faults") == []  # -46 dB of it


@pytest.mark.parametrize("held", [False, True])
def test_dropouts_are_found_with_their_length(held: bool) -> None:
    wave_CW, rng = voice(10).copy(), np.random.default_rng(3)
    # 20 ms apart at least
    starts = np.sort(rng.choice(np.arange(20, 480), 25, replace=False)) * 882
    loud = [s for s in starts if np.abs(wave_CW[0, s - 441 : s + 882]).mean() > 0.05]
    for start in loud:
        wave_CW[0, start : start + 220] = wave_CW[0, start - 1] if held else 0.0
    ((verdict, text),) = [
        r for r in remarks(faults(wave_CW, most_dropped=0.5), "faults") if "dropouts" in r[1]
    ]
    gaps = int(text.split()[1])
    assert verdict == "noted" and len(loud) > 10 and 0.9 * len(loud) <= gaps <= len(loud)
    assert f"{gaps * 5:.0f} ms" in text
    assert faults(wave_CW, most_dropped=0.001).aside


def test_clicks_are_found_where_they_are() -> None:
    wave_CW = voice(10).copy()
    wave_CW[0, 100_000] += 0.5  # one wrong sample
    wave_CW[0, 250_000:] += 0.2  # a splice
    assert [int(sample) for sample in click_places(wave_CW[0], 441)] == pytest.approx(
        [100_000, 250_000], abs=3
    )
    texts = [text for _, text in remarks(faults(wave_CW, offset_db=-1.0), "faults")]
    assert texts == ["clicks: 2 (12.0 a minute)"]
    assert faults(wave_CW, offset_db=-1.0, most_clicks_per_minute=10).aside


# -- bandwidth -------------------------------------------------------------------------------------


def fading(
    rate: int = 44_100, seconds: float = 8.0, decibels_an_octave: float = 6.0, seed: int = 0
) -> NDArray[np.float32]:
    """Noise with a spectrum that falls evenly, as music does on average, in 16 bits."""
    n = round(seconds * rate)
    spectrum_N = np.fft.rfft(np.random.default_rng(seed).standard_normal(n))
    hertz_N = np.maximum(np.fft.rfftfreq(n, 1 / rate), 60)
    wave_W = np.fft.irfft(spectrum_N * hertz_N ** (-decibels_an_octave / 20 / math.log10(2)), n)
    return sixteen_bits(0.5 * wave_W / np.abs(wave_W).max())[None]


def sixteen_bits(wave: NDArray[np.floating]) -> NDArray[np.float32]:
    return (np.round(wave * 2**15) / 2**15).astype(np.float32)


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100])
@pytest.mark.parametrize("slope", [0.0, 3.0, 6.0, 9.0])
def test_sound_that_fades_reaches_all_the_way_and_is_not_remarked(rate: int, slope: float) -> None:
    curated = bandwidth_step.Settings().curate(item(rate, audio=fading(rate, 4.0, slope)))
    fact = curated.song.fact("bandwidth_hz")
    assert fact is not None and fact.value > 0.9 * rate / 2 and curated.remarks == ()


@pytest.mark.parametrize("slope", [0.0, 6.0])
@pytest.mark.parametrize(
    ("low", "remark"),
    [(8_000, "set aside"), (11_025, "noted"), (16_000, "noted"), (32_000, "noted")],
)
def test_upsampled_sound_is_found_at_the_rate_it_had(low: int, remark: str, slope: float) -> None:
    wave_W = soxr.resample(
        soxr.resample(fading(decibels_an_octave=slope)[0], 44_100, low), low, 44_100
    )
    curated = bandwidth_step.Settings().curate(item(44_100, audio=sixteen_bits(wave_W)[None]))
    fact = curated.song.fact("bandwidth_hz")
    assert fact is not None and 0.9 * low / 2 < fact.value <= 1.02 * low / 2
    ((verdict, text),) = remarks(curated, "bandwidth")
    assert verdict == remark and "cut off at" in text and "of 22.1 kHz" in text


@pytest.mark.parametrize("hertz", [3_400, 5_000, 10_000, 16_000, 19_000])
def test_a_low_pass_is_found_where_it_is(hertz: int) -> None:
    """Flanks as codecs have them: 400 Hz from full to nothing."""
    wave_W = oaconvolve(fading()[0], firwin(601, hertz, width=400, fs=44_100), "same")
    highest_hertz, cut = bandwidth(Sound(sixteen_bits(wave_W)[None], 44_100), 20.0)
    assert cut and abs(highest_hertz - hertz) <= 300


def test_no_sound_has_no_bandwidth() -> None:
    for given in (
        item(),
        item(audio=np.zeros((1, RATE), np.float32)),
        item(audio=sine(0.001, -6.0)),
    ):
        curated = bandwidth_step.Settings().curate(given)
        assert remarks(curated, "bandwidth")[0][0] == "noted" and curated.song.facts == ()
    stems = bandwidth_step.Settings().curate(item(44_100, accompaniment=fading()))
    assert stems.song.fact("bandwidth_hz") is not None


# -- all three -------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [loudness_step, faults_step, bandwidth_step])
def test_the_same_item_gives_the_same_and_the_source_is_not_touched(step: object) -> None:
    wave_CW = np.clip(3 * voice(3), -0.5, 0.5) + np.float32(0.1)
    before = wave_CW.copy()
    first, second = (step.Settings().curate(item(44_100, audio=wave_CW)) for _ in range(2))  # type: ignore[attr-defined]
    assert np.array_equal(wave_CW, before)
    assert first.remarks == second.remarks and first.song == second.song
    assert np.array_equal(first.tracks["audio"].wave_CW, second.tracks["audio"].wave_CW)


@pytest.mark.parametrize(
    ("step", "wrong"),
    [
        (loudness_step, {"target_lufs": 3.0}),
        (loudness_step, {"peak_dbtp": 1.0}),
        (loudness_step, {"most_gain_db": 0.0}),
        (faults_step, {"shortest_seconds": 5.0, "longest_seconds": 4.0}),
        (faults_step, {"most_clipped": 0.0}),
        (faults_step, {"offset_db": 1.0}),
        (faults_step, {"silence_db": -1.0}),
        (bandwidth_step, {"noted_share": 1.5}),
        (bandwidth_step, {"cut_db": 0.0}),
    ],
)
def test_wrong_settings_are_refused(step: object, wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        step.Settings(**wrong)  # type: ignore[attr-defined]
