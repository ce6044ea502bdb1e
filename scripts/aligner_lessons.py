"""Synthesised singing that the network of `hearing` is taught on: what is sung in every frame is
known exactly.

espeak-ng speaks made-up lines in nine voices of seven languages with thirty timbres; its phoneme
events say where each phone is. WORLD (Morise et al., 2016) then makes it sing: vowels are held, a
melody replaces the pitch, formants move, silences fall between words, some lines get a room. Bands
come from `bands`. Nothing here is anyone's recording or text.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from distill.curation.steps import Sound
from distill.curation.steps._alignment import hearing, phones, speech
from distill.errors import SongError
from distill.lyrics.g2p import lexicon

PERIOD = 0.005  # seconds, WORLD's frame
VOICES = (
    "en-us",
    "en-us",
    "en-us",
    "en",
    "es-419",
    "es",
    "it",
    "de",
    "pt-br",
    "fr",
    "cmn-latn-pinyin",
)
TIMBRES = (
    "", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5", "klatt2", "Andrea", "anika", "antonio",
    "belinda", "boris", "david", "linda", "marcelo", "pablo", "steph", "grandma", "Alicia", "Diogo", "michel", "paul",
    "robert",
)  # fmt: skip
_SMALL = "the a and of to in i you my your me we he she it is was with for on at by all never love night day".split()
_SPELLED = {  # consonants, vowels and endings of made-up words, as each language spells them
    "es": ("b c d f g j l ll m n ñ p r rr s t v y z ch qu br tr pl "
           "gr", "a e i o u a e o ie ue ai", "n s r l"),
    "it": ("b c d f g l gl m n gn p r s t v z ch sc br tr pl gr", "a e i o u a e o io uo", "n r l"),
    "de": ("b d f g h j k l m n p r s sch t w z pf st br tr "
           "pl", "a e i o u ä ö ü ei au eu ie aa", "n r l t ch s ng"),
    "pt": ("b c d f g j l lh m n nh p r rr s t v x z ch br "
           "tr", "a e i o u ão ei ou é ó", "m s r l"),
    "fr": ("b c d f g j l m n p r s t v ch gn br tr pl "
           "gr", "a e i o u ou eu eau an on in oi é è eu", "r l que ne sse"),
    "cm": (
        "b p m f d t n l g k h j q x zh ch sh r z c s y w",
        "a o e i u ai ei ao ou an en ang eng ong ia ie iao iu ian in iang ing ua uo uai ui uan un "
        "uang",
        "1 2 3 4",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Lesson:
    """log_mel_TB (float16) of a sung line alone and the class in every frame."""

    log_mel_TB: NDArray[np.float16]
    class_T: NDArray[np.uint8]


@dataclass(frozen=True)
class _Score:
    """By WORLD frame: the source frame it is taken from (-1: silence), its class and its pitch
    (MIDI)."""

    source_F: NDArray[np.float64]
    class_F: NDArray[np.int64]
    midi_F: NDArray[np.float64]


def lesson(rng: np.random.Generator) -> Lesson:
    """One sung (or, one in seven, spoken) line."""
    with warnings.catch_warnings():
        # pyworld imports pkg_resources, which says it is deprecated
        warnings.simplefilter("ignore")
        world = importlib.import_module("pyworld")
    spoken = _spoken(rng)
    sings = bool(rng.random() > 0.15)
    score = _score(rng, spoken, sings)
    wave_W = _sung(rng, world, spoken, score, sings)
    wave_W = soxr.resample(wave_W, spoken.sample_rate, hearing.RATE)
    wave_W *= 0.3 / (np.percentile(np.abs(wave_W), 99.5) + 1e-9)
    if rng.random() < 0.4:
        wave_W = _in_a_room(rng, wave_W)
    mel_TB = hearing.mel_power(Sound(wave_W[None].astype(np.float32), hearing.RATE))
    at = (np.arange(len(mel_TB)) * hearing.HOP / hearing.RATE / PERIOD).astype(int)
    class_T = score.class_F[np.minimum(at, len(score.class_F) - 1)]
    return Lesson(np.log(mel_TB + 1e-10).astype(np.float16), class_T.astype(np.uint8))


def _spoken(rng: np.random.Generator) -> speech.Spoken:
    voice = str(rng.choice(VOICES))
    while True:
        timbre = str(rng.choice(TIMBRES))
        try:
            return speech.speak(
                _text(rng, voice),
                f"{voice}+{timbre}" if timbre else voice,
                int(rng.integers(100, 171)),
                int(rng.integers(25, 76)),
                int(rng.integers(0, 51)),
            )
        except SongError:  # not every language has every timbre
            continue


def _text(rng: np.random.Generator, voice: str) -> str:
    count = int(rng.integers(3, 9))
    if voice.startswith("en"):
        known = _known()
        pick = [known[int(place)] for place in rng.integers(0, len(known), count)]
        return " ".join(str(rng.choice(_SMALL)) if rng.random() < 0.35 else word for word in pick)
    consonants, vowels, endings = (row.split() for row in _SPELLED[voice[:2]])
    found = []
    for _ in range(count):
        syllables = 1 if voice.startswith("cmn") else int(rng.choice([1, 2, 2, 3]))
        closed = voice.startswith("cmn")  # in pinyin the ending is the tone
        found.append(
            "".join(
                rng.choice(consonants)
                + rng.choice(vowels)
                + (rng.choice(endings) if closed or rng.random() < 0.3 else "")
                for _ in range(syllables)
            )
        )
    return " ".join(found)


@functools.cache
def _known() -> list[str]:
    return [word for word in lexicon() if 2 <= len(word) <= 9 and word.isalpha()]


def _score(rng: np.random.Generator, spoken: speech.Spoken, sings: bool) -> _Score:
    """How long every phone is held, on which pitch, and where the silences are."""
    per_frame = spoken.sample_rate * PERIOD
    base = rng.uniform(43, 76)
    pitch, slow = base, float(np.exp(rng.uniform(0.0, np.log(3.5))))
    sources, labels, pitches = [], [], []

    def add(source_F: NDArray[np.float64], label: NDArray[np.int64]) -> None:
        sources.append(source_F)
        labels.append(label)
        pitches.append(np.full(len(source_F), pitch))

    def silence(seconds: float) -> None:
        frames = int(seconds / PERIOD)
        add(np.full(frames, -1.0), np.full(frames, phones.NONE))

    silence(rng.uniform(0.1, 1.5))
    ends = [*(sample for sample, _ in spoken.phones[1:]), len(spoken.wave_W)]
    for (sample, name), stop in zip(spoken.phones, ends, strict=True):
        start, length = sample / per_frame, (stop - sample) / per_frame
        sounds = phones.classes(name)
        if length < 1:
            continue
        if not sounds:
            silence(length * PERIOD * float(rng.choice([0.1, 0.3, 1, 2])))
            continue
        vowel = sounds[0] in phones.VOWELS or sounds[-1] in phones.VOWELS
        hold = float(np.exp(rng.normal(0.1, 0.25))) if sings else 1.0
        if vowel and sings:
            hold = (
                slow
                * float(np.exp(rng.normal(0, 0.5)))
                * (rng.uniform(2, 6) if rng.random() < 0.06 else 1.0)
            )
            step = rng.choice([-7, -5, -4, -3, -2, -1, 0, 0, 1, 2, 3, 4, 5, 7])
            pitch = float(np.clip(pitch + step, base - 9, base + 9))
        frames = min(max(2, int(length * hold)), int(5 / PERIOD))
        part_F = _stretch(length, frames, vowel, len(sounds) > 1) / length
        first = 0.55 if sounds[0] in phones.VOWELS and len(sounds) == 2 else 1 / len(sounds)
        cuts = np.linspace(first, 1, len(sounds)) if len(sounds) > 1 else np.array([1.0])
        which = np.minimum(np.searchsorted(cuts, part_F), len(sounds) - 1)
        add(
            start + part_F * length - 0.5,
            np.array([phones.INDEX[sound] for sound in sounds])[which],
        )
        if rng.random() < 0.03:
            silence(rng.uniform(0.1, 0.8))
    silence(rng.uniform(0.1, 1.2))
    return _Score(np.concatenate(sources), np.concatenate(labels), np.concatenate(pitches))


def _stretch(length: float, frames: int, vowel: bool, gliding: bool) -> NDArray[np.float64]:
    """Source position of each frame: a held vowel keeps its beginning and end and is held in its
    middle."""
    at = np.arange(frames) + 0.5
    if not vowel or frames <= length:
        return at * length / frames
    head, hold = (0.30, 0.12) if gliding else (0.35, 0.30)
    tail = 1.0 - head - hold
    out_head, out_tail = min(head * length, 0.3 * frames), min(tail * length, 0.5 * frames)
    return np.interp(
        at, [0, out_head, frames - out_tail, frames], np.array([0, head, head + hold, 1]) * length
    )


def _sung(
    rng: np.random.Generator, world: Any, spoken: speech.Spoken, score: _Score, sings: bool
) -> NDArray[np.float64]:
    wave, rate = spoken.wave_W.astype(np.float64), spoken.sample_rate
    f0, times = world.dio(wave, rate, f0_floor=60.0, f0_ceil=500.0, frame_period=PERIOD * 1000)
    f0 = world.stonemask(wave, f0, times, rate)
    log_envelope_FQ = np.log(world.cheaptrick(wave, f0, times, rate, f0_floor=71.0) + 1e-12)
    noise_FQ = world.d4c(wave, f0, times, rate, fft_size=2 * (log_envelope_FQ.shape[1] - 1))
    position = np.clip(score.source_F, 0, len(f0) - 1)
    low = np.minimum(position.astype(int), len(f0) - 2)
    part = (position - low)[:, None]
    shape = log_envelope_FQ[low] * (1 - part) + log_envelope_FQ[low + 1] * part
    noise = noise_FQ[low] * (1 - part) + noise_FQ[low + 1] * part
    silent = score.source_F < 0
    vowel = score.class_F < len(phones.VOWELS)
    shape[silent], noise[silent] = np.log(1e-12), 1.0
    noise[vowel] = np.minimum(noise[vowel], rng.uniform(0.2, 0.7))
    voiced = ((f0[np.round(position).astype(int)] > 0) | vowel) & ~silent
    bins = np.arange(shape.shape[1]) / rng.uniform(0.88, 1.22)  # longer or shorter throats
    lower = np.clip(bins.astype(int), 0, shape.shape[1] - 2)
    upper = np.clip(bins - lower, 0, 1)
    shape = shape[:, lower] * (1 - upper) + shape[:, lower + 1] * upper
    noise = noise[:, lower] * (1 - upper) + noise[:, lower + 1] * upper
    if sings:
        window = np.hanning(19)
        midi = np.convolve(np.pad(score.midi_F, 9, mode="edge"), window / window.sum(), "valid")
        seconds = np.arange(len(midi)) * PERIOD
        midi = midi + rng.uniform(0, 0.5) * np.sin(2 * np.pi * rng.uniform(4.5, 6.5) * seconds)
        hertz = 440.0 * 2 ** ((midi - 69) / 12)
    else:
        hertz = np.interp(position, np.arange(len(f0)), f0) * rng.uniform(0.7, 1.6)
        hertz = np.where(hertz < 60, 120.0, hertz)
    return world.synthesize(
        np.where(voiced, hertz, 0.0),
        np.ascontiguousarray(np.exp(shape)),
        np.ascontiguousarray(np.clip(noise, 0, 1)),
        rate,
        PERIOD * 1000,
    )


def _in_a_room(rng: np.random.Generator, wave_W: NDArray[np.float64]) -> NDArray[np.float64]:
    """With noise that dies away behind every sample, as far as a cheap room goes."""
    count = int(hearing.RATE * rng.uniform(0.1, 0.6))
    tail = rng.standard_normal(count) * np.exp(-6.9 * np.arange(count) / count)
    tail *= rng.uniform(0.1, 0.5) / np.sqrt((tail**2).sum())
    tail[0] = 1.0
    size = len(wave_W) + count
    return np.fft.irfft(np.fft.rfft(wave_W, size) * np.fft.rfft(tail, size), size)[: len(wave_W)]
