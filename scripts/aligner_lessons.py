"""Synthesised singing to train the network of `hearing` on; every frame's class is known.

espeak-ng speaks made-up lines in nine voices of seven languages with thirty timbres; its phoneme
events say where each phone is. WORLD (Morise et al., 2016) then makes it sing: vowels are held, a
melody replaces the pitch, formants move, silences fall between words, some lines get a room. Bands
come from `aligner_bands`. Nothing here is anyone's recording or text.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import soxr
from numpy.typing import NDArray

from distill.curation.steps import Sound
from distill.curation.steps._alignment import hearing, phones
from distill.errors import SongError
from distill.lyrics.g2p import lexicon
from distill.songbook import espeak

PERIOD = 0.005  # seconds, WORLD's frame
SPOKEN_SHARE, ROOM_SHARE = 0.15, 0.4  # of the lines; the others are sung, and in no room
VOICES = "en-us en-us en-us en es-419 es it de pt-br fr cmn-latn-pinyin".split()
# fmt: off
TIMBRES = (
    "", "m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5", "klatt2", "Andrea",
    "anika", "antonio", "belinda", "boris", "david", "linda", "marcelo", "pablo", "steph",
    "grandma", "Alicia", "Diogo", "michel", "paul", "robert",
)
_SMALL = (
    "the a and of to in i you my your me we he she it is was with for on at by all "
    "never love night day"
).split()
_SPELLED = {  # consonants, vowels and endings of made-up words, as each language spells them
    "es": ("b c d f g j l ll m n ñ p r rr s t v y z ch qu br tr pl gr",
           "a e i o u a e o ie ue ai", "n s r l"),
    "it": ("b c d f g l gl m n gn p r s t v z ch sc br tr pl gr",
           "a e i o u a e o io uo", "n r l"),
    "de": ("b d f g h j k l m n p r s sch t w z pf st br tr pl",
           "a e i o u ä ö ü ei au eu ie aa", "n r l t ch s ng"),
    "pt": ("b c d f g j l lh m n nh p r rr s t v x z ch br tr",
           "a e i o u ão ei ou é ó", "m s r l"),
    "fr": ("b c d f g j l m n p r s t v ch gn br tr pl gr",
           "a e i o u ou eu eau an on in oi é è eu", "r l que ne sse"),
    "cm": ("b p m f d t n l g k h j q x zh ch sh r z c s y w",
           "a o e i u ai ei ao ou an en ang eng ong ia ie iao iu ian in iang ing "
           "ua uo uai ui uan un uang", "1 2 3 4"),
}
# fmt: on
_STEPS = (-7, -5, -4, -3, -2, -1, 0, 0, 1, 2, 3, 4, 5, 7)  # semitones from vowel to vowel
_REACH = 9  # semitones, to either side of where the line begins
_LONGEST_FRAMES = int(5 / PERIOD)


@dataclass(frozen=True)
class Lesson:
    """log_mel_TB of a sung line alone, and the class in every frame."""

    log_mel_TB: NDArray[np.float16]
    class_T: NDArray[np.uint8]


@dataclass
class _Score:
    """What is sung, by WORLD frame: its source frame (-1: silence), class and pitch (MIDI)."""

    sources: list[NDArray[np.float64]] = field(default_factory=list)
    labels: list[NDArray[np.int64]] = field(default_factory=list)
    pitches: list[NDArray[np.float64]] = field(default_factory=list)

    def add(self, source_F: NDArray[np.float64], label_F: NDArray[np.int64], midi: float) -> None:
        self.sources.append(source_F)
        self.labels.append(label_F)
        self.pitches.append(np.full(len(source_F), midi))

    def rest(self, seconds: float, midi: float) -> None:
        frames = int(seconds / PERIOD)
        self.add(np.full(frames, -1.0), np.full(frames, phones.NONE), midi)


def lesson(rng: np.random.Generator) -> Lesson:
    """One sung (or, one in seven, spoken) line. Raises SongError without espeak-ng and pyworld."""
    espeak.extra("espeakng_loader")
    world = espeak.extra("pyworld")
    spoken = _spoken(rng)
    sings = bool(rng.random() > SPOKEN_SHARE)
    score = _score(rng, spoken, sings)
    class_F = np.concatenate(score.labels)
    wave_W = _sung(rng, world, spoken, score, sings)
    wave_W = soxr.resample(wave_W, spoken.sample_rate, hearing.RATE)
    wave_W *= 0.3 / (np.percentile(np.abs(wave_W), 99.5) + 1e-9)
    if rng.random() < ROOM_SHARE:
        wave_W = _in_a_room(rng, wave_W)
    mel_TB = hearing.mel_power(Sound(wave_W[None].astype(np.float32), hearing.RATE))
    frame_T = (np.arange(len(mel_TB)) * hearing.HOP / hearing.RATE / PERIOD).astype(int)
    class_T = class_F[np.minimum(frame_T, len(class_F) - 1)]
    return Lesson(np.log(mel_TB + 1e-10).astype(np.float16), class_T.astype(np.uint8))


def _spoken(rng: np.random.Generator) -> espeak.Spoken:
    voice = str(rng.choice(VOICES))
    while True:
        timbre = str(rng.choice(TIMBRES))
        text = _text(rng, voice)
        words_per_minute = int(rng.integers(100, 171))
        pitch, pitch_range = int(rng.integers(25, 76)), int(rng.integers(0, 51))
        name = f"{voice}+{timbre}" if timbre else voice
        try:
            return espeak.speak(text, name, words_per_minute, pitch, pitch_range)
        except SongError:  # not every language has every timbre
            continue


def _text(rng: np.random.Generator, voice: str) -> str:
    count = int(rng.integers(3, 9))
    if voice.startswith("en"):
        lexicon_words = _lexicon_words()
        drawn = [lexicon_words[index] for index in rng.integers(0, len(lexicon_words), count)]
        return " ".join(str(rng.choice(_SMALL)) if rng.random() < 0.35 else word for word in drawn)
    chinese = voice.startswith("cmn")  # one syllable a word, and its ending is the tone
    consonants, vowels, endings = (row.split() for row in _SPELLED[voice[:2]])
    words = []
    for _ in range(count):
        word = ""
        for _ in range(1 if chinese else int(rng.choice([1, 2, 2, 3]))):
            word += rng.choice(consonants) + rng.choice(vowels)
            word += rng.choice(endings) if chinese or rng.random() < 0.3 else ""
        words.append(word)
    return " ".join(words)


@functools.cache
def _lexicon_words() -> list[str]:
    return [word for word in lexicon() if 2 <= len(word) <= 9 and word.isalpha()]


def _score(rng: np.random.Generator, spoken: espeak.Spoken, sings: bool) -> _Score:
    """How long every phone is held, on which pitch, and where the silences are."""
    per_frame = spoken.sample_rate * PERIOD
    first_pitch = pitch = rng.uniform(43, 76)
    slow = float(np.exp(rng.uniform(0.0, np.log(3.5))))
    score = _Score()
    score.rest(rng.uniform(0.1, 1.5), pitch)
    ends = [*(sample for sample, _ in spoken.phones[1:]), len(spoken.wave_W)]
    for (sample, name), stop in zip(spoken.phones, ends, strict=True):
        start, length = sample / per_frame, (stop - sample) / per_frame
        sounds = phones.classes(name)
        if length < 1:
            continue
        if not sounds:
            score.rest(length * PERIOD * float(rng.choice([0.1, 0.3, 1, 2])), pitch)
            continue
        vowel = sounds[0] in phones.VOWELS or sounds[-1] in phones.VOWELS
        hold = float(np.exp(rng.normal(0.1, 0.25))) if sings else 1.0
        if vowel and sings:
            hold = slow * float(np.exp(rng.normal(0, 0.5)))
            hold *= rng.uniform(2, 6) if rng.random() < 0.06 else 1.0
            low, high = first_pitch - _REACH, first_pitch + _REACH
            pitch = float(np.clip(pitch + rng.choice(_STEPS), low, high))
        frames = min(max(2, int(length * hold)), _LONGEST_FRAMES)
        share_F = _stretch(length, frames, vowel, len(sounds) > 1) / length
        score.add(start + share_F * length - 0.5, _labels(sounds, share_F), pitch)
        if rng.random() < 0.03:
            score.rest(rng.uniform(0.1, 0.8), pitch)
    score.rest(rng.uniform(0.1, 1.2), pitch)
    return score


def _labels(sounds: tuple[str, ...], share_F: NDArray[np.float64]) -> NDArray[np.int64]:
    """The class at each share of a phone's length; of two, a vowel in front takes a little more."""
    first = 0.55 if sounds[0] in phones.VOWELS and len(sounds) == 2 else 1 / len(sounds)
    cuts = np.linspace(first, 1, len(sounds)) if len(sounds) > 1 else np.array([1.0])
    sound_F = np.minimum(np.searchsorted(cuts, share_F), len(sounds) - 1)
    return np.array([phones.INDEX[sound] for sound in sounds])[sound_F]


def _stretch(length: float, frames: int, vowel: bool, gliding: bool) -> NDArray[np.float64]:
    """Source position of each frame: of a long vowel the middle is held."""
    at_F = np.arange(frames) + 0.5
    if not vowel or frames <= length:
        return at_F * length / frames
    head, hold = (0.30, 0.12) if gliding else (0.35, 0.30)
    tail = 1.0 - head - hold
    out_head, out_tail = min(head * length, 0.3 * frames), min(tail * length, 0.5 * frames)
    knots = np.array([0, head, head + hold, 1]) * length
    return np.interp(at_F, [0, out_head, frames - out_tail, frames], knots)


def _sung(
    rng: np.random.Generator, world: Any, spoken: espeak.Spoken, score: _Score, sings: bool
) -> NDArray[np.float64]:
    wave_W, rate = spoken.wave_W.astype(np.float64), spoken.sample_rate
    f0_F, times_F = world.dio(
        wave_W, rate, f0_floor=60.0, f0_ceil=500.0, frame_period=PERIOD * 1000
    )
    f0_F = world.stonemask(wave_W, f0_F, times_F, rate)
    log_envelope_FQ = np.log(world.cheaptrick(wave_W, f0_F, times_F, rate, f0_floor=71.0) + 1e-12)
    noise_FQ = world.d4c(wave_W, f0_F, times_F, rate, fft_size=2 * (log_envelope_FQ.shape[1] - 1))
    source_F, class_F = np.concatenate(score.sources), np.concatenate(score.labels)
    position_F = np.clip(source_F, 0, len(f0_F) - 1)
    low_F = np.minimum(position_F.astype(int), len(f0_F) - 2)
    log_envelope_FQ = _between(log_envelope_FQ, low_F, (position_F - low_F)[:, None])
    noise_FQ = _between(noise_FQ, low_F, (position_F - low_F)[:, None])
    silent_F, vowel_F = source_F < 0, class_F < len(phones.VOWELS)
    log_envelope_FQ[silent_F], noise_FQ[silent_F] = np.log(1e-12), 1.0
    noise_FQ[vowel_F] = np.minimum(noise_FQ[vowel_F], rng.uniform(0.2, 0.7))
    voiced_F = ((f0_F[np.round(position_F).astype(int)] > 0) | vowel_F) & ~silent_F
    bins = log_envelope_FQ.shape[1]
    bin_Q = np.arange(bins) / rng.uniform(0.88, 1.22)  # longer or shorter throats
    low_Q = np.clip(bin_Q.astype(int), 0, bins - 2)
    share_Q = np.clip(bin_Q - low_Q, 0, 1)
    log_envelope_FQ = _between(log_envelope_FQ, low_Q, share_Q, axis=1)
    noise_FQ = _between(noise_FQ, low_Q, share_Q, axis=1)
    if sings:
        hertz_F = _melody(rng, np.concatenate(score.pitches))
    else:
        hertz_F = np.interp(position_F, np.arange(len(f0_F)), f0_F) * rng.uniform(0.7, 1.6)
        hertz_F = np.where(hertz_F < 60, 120.0, hertz_F)
    return world.synthesize(
        np.where(voiced_F, hertz_F, 0.0),
        np.ascontiguousarray(np.exp(log_envelope_FQ)),
        np.ascontiguousarray(np.clip(noise_FQ, 0, 1)),
        rate,
        PERIOD * 1000,
    )


def _between(
    values: NDArray[np.float64], low: NDArray[np.int64], share: NDArray[np.float64], axis: int = 0
) -> NDArray[np.float64]:
    """Values between indices `low` of an axis and the ones behind them."""
    lower, upper = np.take(values, low, axis), np.take(values, low + 1, axis)
    return lower * (1 - share) + upper * share


def _melody(rng: np.random.Generator, midi_F: NDArray[np.float64]) -> NDArray[np.float64]:
    """The pitch in Hz: notes glide into each other within 95 ms, and tremble."""
    window = np.hanning(19)
    midi_F = np.convolve(np.pad(midi_F, 9, mode="edge"), window / window.sum(), "valid")
    time_F = np.arange(len(midi_F)) * PERIOD
    depth, speed = rng.uniform(0, 0.5), rng.uniform(4.5, 6.5)  # semitones, Hz
    midi_F = midi_F + depth * np.sin(2 * np.pi * speed * time_F)
    return 440.0 * 2 ** ((midi_F - 69) / 12)


def _in_a_room(rng: np.random.Generator, wave_W: NDArray[np.float64]) -> NDArray[np.float64]:
    """With noise that dies away behind every sample, as far as a cheap room goes."""
    count = int(hearing.RATE * rng.uniform(0.1, 0.6))
    tail_W = rng.standard_normal(count) * np.exp(-6.9 * np.arange(count) / count)  # to -60 dB
    tail_W *= rng.uniform(0.1, 0.5) / np.sqrt((tail_W**2).sum())
    tail_W[0] = 1.0
    size = len(wave_W) + count
    return np.fft.irfft(np.fft.rfft(wave_W, size) * np.fft.rfft(tail_W, size), size)[: len(wave_W)]
