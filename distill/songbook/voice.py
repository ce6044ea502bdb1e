"""A voice that speaks one word at a time, on one pitch, as WORLD features.

espeak-ng is driven with phonemes, never with spelling, so the sound follows the pronunciation of
`distill.lyrics` and what a song's score says is what is heard; Mandarin is driven with pinyin, a
syllable at a time, on the level tone. A word whose phoneme events do not match the phones asked for
is refused, not guessed. WORLD (Morise et al., 2016, doi:10.1587/transinf.2015EDP7457) then takes
the word apart into a spectral envelope, an aperiodicity and voicing, every 5 ms, which `singing`
stretches and re-pitches.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
from numpy.typing import NDArray

from distill.errors import SongError
from distill.songbook import espeak

FRAME_SECONDS = 0.005
NOISE_FRAMES = 4  # D4C, the slow part, looks every 20 ms
VOICE_RATE = 22_050  # Hz, espeak's own
BINS = 257
_WORDS_PER_MINUTE, _PITCH, _RANGE = 120, 40, 0  # range 0: every word is monotone
_PITCH_HERTZ = (60.0, 300.0)  # where DIO looks for it
_ENVELOPE_FLOOR_HERTZ = 71.0  # WORLD's default
_TAIL_SAMPLES = VOICE_RATE // 50  # behind the last phone is silence
_CLOSURE_SECONDS = 0.045  # the event marks a stop's burst; its closure comes before
_FINAL_SHARE = 0.3  # of a vowel's length, for an l or r that espeak-ng folds into it
_NASAL_AT = 0.65  # where in -ong the vowel ends

# fmt: off
_MNEMONICS = {
    "AA": "A:", "AE": "a", "AH": "V", "AO": "O:", "AW": "aU", "AY": "aI", "EH": "E", "ER": "3:",
    "EY": "eI", "IH": "I", "IY": "i:", "OW": "oU", "OY": "OI", "UH": "U", "UW": "u:",
    "B": "b", "CH": "tS", "D": "d", "DH": "D", "F": "f", "G": "g", "HH": "h", "JH": "dZ", "K": "k",
    "L": "l", "M": "m", "N": "n", "NG": "N", "P": "p", "R": "r", "S": "s", "SH": "S", "T": "t",
    "TH": "T", "V": "v", "W": "w", "Y": "j", "Z": "z", "ZH": "Z",
}
# fmt: on
VOWELS = frozenset("AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW".split())
DIPHTHONGS = frozenset("AW AY EY OW OY".split())
UNVOICED = frozenset("CH F HH K P S SH T TH".split())
_STOPS = frozenset("B D G K P T".split())

Events = list[tuple[int, str]]  # (sample, espeak-ng's name of a phoneme)


@dataclasses.dataclass(frozen=True)
class Phone:
    """One phone of a spoken word: its ARPABET name and the frames [start, end) it takes."""

    name: str
    start: float
    end: float


@dataclasses.dataclass(frozen=True)
class SpokenWord:
    """Features of one word, a row per 5 ms frame.

    Q: 257 bins from 0 Hz to half the sample rate. B: D4C's two bands, 3 and 6 kHz; between them,
    -60 dB at 0 Hz and 0 dB at the top, the aperiodicity is linear in dB."""

    phones: tuple[Phone, ...]
    log_envelope_FQ: NDArray[np.float16]  # natural log of power
    noise_FB: NDArray[np.float16]  # aperiodicity in dB, 0 is all noise
    voiced_F: NDArray[np.bool_]


class Voice:
    """espeak-ng through WORLD. `speak(phones)` is cached: the same phones, the same features."""

    def __init__(self) -> None:
        espeak.extra("espeakng_loader")
        espeak.extra("pyworld")
        self._words: dict[tuple[str, ...], SpokenWord] = {}
        self._say("en-us", "la")  # a library that does not start is found before songs are begun

    def sound(self, phones: tuple[str, ...]) -> tuple[NDArray[np.float64], Events]:
        """The spoken word and its phoneme events."""
        return self._say("en-us", f"[[{_spell(phones)}]]")

    def _say(self, voice: str, text: str) -> tuple[NDArray[np.float64], Events]:
        spoken = espeak.speak(text, voice, _WORDS_PER_MINUTE, _PITCH, _RANGE, as_ipa=False)
        if spoken.sample_rate != VOICE_RATE:
            needed = f"songs are made of a voice at {VOICE_RATE}"
            raise SongError(f"songbook: espeak-ng speaks at {spoken.sample_rate} Hz; {needed}")
        return spoken.wave_W.astype(np.float64), spoken.phones

    def speak(self, phones: tuple[str, ...]) -> SpokenWord:
        """Features of the word with these ARPABET phones. SongError if others are spoken."""
        if phones not in self._words:
            wave_W, events = self.sound(phones)
            samples = _boundaries(phones, events, len(wave_W))
            self._words[phones] = self._analyse(wave_W, samples, phones, phones[0] in _STOPS)
        return self._words[phones]

    def speak_pinyin(self, pinyin: str) -> tuple[SpokenWord, int]:
        """Features of a syllable ("hua"), and how many phones precede its vowel. Or SongError."""
        if (pinyin,) not in self._words:
            wave_W, events = self._say("cmn-latn-pinyin", pinyin + "1")
            names, samples = _chinese_boundaries(pinyin, events, len(wave_W))
            self._words[pinyin,] = self._analyse(wave_W, samples, names, pinyin[0] in "bdgptk")
        word = self._words[pinyin,]
        return word, next(k for k, phone in enumerate(word.phones) if phone.name.startswith("'"))

    def _analyse(
        self, wave_W: NDArray[np.float64], samples: list[int], phones: tuple[str, ...], stop: bool
    ) -> SpokenWord:
        """`samples`: where each phone starts, and the end; `stop`: the first one is a stop."""
        starts = [sample / VOICE_RATE / FRAME_SECONDS for sample in samples]
        if stop:
            starts[0] = max(0.0, starts[0] - _CLOSURE_SECONDS / FRAME_SECONDS)
        features = analyse(wave_W[: samples[-1] + _TAIL_SAMPLES], _PITCH_HERTZ)
        return SpokenWord(tuple(map(Phone, phones, starts, starts[1:])), *features)


def analyse(
    wave_W: NDArray[np.float64], pitch_hertz: tuple[float, float]
) -> tuple[NDArray[np.float16], NDArray[np.float16], NDArray[np.bool_]]:
    """(log_envelope_FQ, noise_FB, voiced_F) of speech at VOICE_RATE; its pitch is looked for in
    this range."""
    world, rate = espeak.extra("pyworld"), VOICE_RATE
    size = int(world.get_cheaptrick_fft_size(rate))
    low, high = pitch_hertz
    f0_F, times_F = world.dio(
        wave_W, rate, f0_floor=low, f0_ceil=high, frame_period=FRAME_SECONDS * 1000, speed=2
    )
    f0_F = world.stonemask(wave_W, f0_F, times_F, rate)
    envelope_FQ = world.cheaptrick(
        wave_W, f0_F, times_F, rate, f0_floor=_ENVELOPE_FLOOR_HERTZ, fft_size=size
    )
    sparse_f0_N, sparse_times_N = f0_F[::NOISE_FRAMES].copy(), times_F[::NOISE_FRAMES].copy()
    noise_NQ = world.d4c(wave_W, sparse_f0_N, sparse_times_N, rate, fft_size=size)
    noise_BN = world.code_aperiodicity(noise_NQ, rate).T
    noise_BF = [np.interp(times_F, sparse_times_N, noise_N) for noise_N in noise_BN]
    envelope_FQ = envelope_FQ[:, :: (envelope_FQ.shape[1] - 1) // (BINS - 1)]
    return (
        np.log(envelope_FQ + 1e-12).astype(np.float16),
        np.stack(noise_BF, 1).astype(np.float16),
        f0_F > 0,
    )


def _spell(phones: tuple[str, ...]) -> str:
    """ARPABET to espeak mnemonics; every vowel stressed, so that none is reduced to a schwa."""
    return "|".join(("'" if phone in VOWELS else "") + _MNEMONICS[phone] for phone in phones)


def _boundaries(phones: tuple[str, ...], events: Events, length: int) -> list[int]:
    """Sample where each phone starts, and the end. SongError if the events are not these phones."""
    bare = [(sample, name.strip("',%=|")) for sample, name in events]
    spoken = [e for e in bare if e[1] and e[1] not in ("?", ";") and not e[1].startswith("_")]
    if len(spoken) > len(phones):  # a linking r after 3: before a vowel is part of the 3:
        pairs = itertools.pairwise([(0, ""), *spoken])
        spoken = [later for earlier, later in pairs if (earlier[1], later[1]) != ("3:", "r")]
    if len(spoken) != len(phones):
        said, word = " ".join(name for _, name in bare), " ".join(phones)
        raise SongError(f"songbook: espeak-ng said {said!r} for {word!r}; leave this word out")
    bounds = [*(sample for sample, _ in spoken), _end(bare, length)]
    for index in range(len(phones) - 1, 0, -1):
        if bounds[index + 1] <= bounds[index]:  # a final l or r, folded into the vowel before it
            bounds[index] -= int(_FINAL_SHARE * (bounds[index] - bounds[index - 1]))
    if any(later <= earlier for earlier, later in itertools.pairwise(bounds)):
        silent = f"gave no length to a phone of {' '.join(phones)!r}"
        raise SongError(f"songbook: espeak-ng {silent}; leave this word out")
    return bounds


def _chinese_boundaries(
    pinyin: str, events: Events, length: int
) -> tuple[tuple[str, ...], list[int]]:
    """(names of the phones, where each starts and the last ends) of a syllable; 'x is its vowel."""
    end = _end(events, length)
    spoken = [event for event in events if event[1] and not event[1].startswith(("_", "("))]
    vowels = sum(name.startswith("'") for _, name in spoken)
    if vowels != 1 or len(spoken) > 4 or any(name.startswith("(") for _, name in events):
        unsaid = f"cannot say {pinyin!r} as one syllable"
        raise SongError(f"songbook: espeak-ng {unsaid}; leave this word out")
    start, last = spoken[-1]
    if last == "'ong":  # its nasal becomes a phone of its own
        spoken = [*spoken[:-1], (start, "'o"), (start + int(_NASAL_AT * (end - start)), "N")]
    return tuple(name for _, name in spoken), [*(sample for sample, _ in spoken), end]


def _end(events: Events, length: int) -> int:
    """Where the silence behind the word begins."""
    return next((sample for sample, name in reversed(events) if name == "_:"), length)
