"""A voice that speaks one word at a time, on one pitch, as WORLD features.

espeak-ng is driven with phonemes, never with spelling, so the sound follows the pronunciation of
`distill.lyrics` and what a song's score says is what is heard; Mandarin is driven with pinyin, a
syllable at a time, on the level tone. Each phoneme event tells where its phone starts; a word whose
events do not match the phones asked for is refused, not guessed. WORLD (Morise et al., 2016,
doi:10.1587/transinf.2015EDP7457) then takes the word apart into a spectral envelope, an
aperiodicity and voicing, every 5 ms, which `singing` stretches and re-pitches.

espeak-ng is GPL-3+ and optional; it keeps one global state, so there is one Voice per process.
"""

from __future__ import annotations

import _ctypes
import ctypes
import dataclasses
import itertools
import warnings
from typing import Any

import numpy as np

from distill.errors import SongError

FRAME_SECONDS = 0.005
NOISE_FRAMES = 4  # D4C, the slow part, looks every 20 ms
VOICE_RATE = 22_050  # Hz, espeak's own
BINS = 257
_WORDS_PER_MINUTE, _PITCH, _RANGE = 120, 40, 0  # range 0: every word is monotone
_CLOSURE_SECONDS = 0.045  # the event marks a stop's burst; its closure comes before

_MNEMONICS = {
    "AA": "A:", "AE": "a", "AH": "V", "AO": "O:", "AW": "aU", "AY": "aI", "EH": "E", "ER": "3:", "EY": "eI",
    "IH": "I", "IY": "i:", "OW": "oU", "OY": "OI", "UH": "U", "UW": "u:",
    "B": "b", "CH": "tS", "D": "d", "DH": "D", "F": "f", "G": "g", "HH": "h", "JH": "dZ", "K": "k", "L": "l",
    "M": "m", "N": "n", "NG": "N", "P": "p", "R": "r", "S": "s", "SH": "S", "T": "t", "TH": "T", "V": "v",
    "W": "w", "Y": "j", "Z": "z", "ZH": "Z",
}  # fmt: skip
VOWELS = frozenset(
    ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
)
DIPHTHONGS = frozenset(("AW", "AY", "EY", "OW", "OY"))
UNVOICED = frozenset(("CH", "F", "HH", "K", "P", "S", "SH", "T", "TH"))
_STOPS = frozenset(("B", "D", "G", "K", "P", "T"))


@dataclasses.dataclass(frozen=True)
class Phone:
    """One phone of a spoken word: its ARPABET name and the frames [start, end) it takes."""

    name: str
    start: float
    end: float


@dataclasses.dataclass(frozen=True)
class SpokenWord:
    """Features of one word, a row per 5 ms frame. Q: 257 bins from 0 Hz to half the sample rate. B:
    D4C's two bands, 3 and 6 kHz; between them (and to -60 dB at 0 Hz, 0 dB at the top) its
    aperiodicity is linear in dB."""

    phones: tuple[Phone, ...]
    log_envelope_FQ: np.ndarray  # float16, natural log of power
    noise_FB: np.ndarray  # float16, aperiodicity in dB, 0 is all noise
    voiced_F: np.ndarray  # bool


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


def _need(module: str) -> Any:
    try:
        with warnings.catch_warnings():
            # pyworld imports pkg_resources, which says it is deprecated
            warnings.simplefilter("ignore")
            return __import__(module)
    except ImportError as error:
        raise SongError(
            f"songbook: {module} is not installed ({error}); type: pip install 'distill[songbook]'"
        ) from error


class Voice:
    """espeak-ng in this process. `speak(phones)` is cached: the same phones always give the same
    features."""

    def __init__(self) -> None:
        loader = _need("espeakng_loader")
        self.world = _need("pyworld")
        self._library_path = str(loader.get_library_path())
        self._data_path = str(loader.get_data_path()).encode()
        self._library: Any = None
        self._pieces: list[np.ndarray] = []
        self._events: list[tuple[int, str]] = []
        # the library keeps only the address: hold the object
        self._callback = _Callback(self._receive)
        self._start()
        self.fft_size = int(self.world.get_cheaptrick_fft_size(VOICE_RATE))
        self._words: dict[tuple[str, ...], SpokenWord] = {}

    def _start(self) -> None:
        """espeak-ng anew (0.3 ms): it carries state from word to word, and a word must not depend
        on its past."""
        if self._library is not None:
            self._library.espeak_Terminate()
            _ctypes.dlclose(self._library._handle)
        self._library = ctypes.CDLL(self._library_path)
        rate = self._library.espeak_Initialize(2, 500, self._data_path, 1)
        if rate <= 0:
            raise SongError(
                "songbook: espeak-ng does not start; reinstall: pip install 'distill[songbook]'"
            )
        if rate != VOICE_RATE:
            raise SongError(
                f"songbook: espeak-ng speaks at {rate} Hz; songs are made of a voice at "
                f"{VOICE_RATE}"
            )
        self._library.espeak_ng_SetRandSeed(1)
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, wave: Any, count: int, events: Any) -> int:
        if count > 0 and wave:
            self._pieces.append(np.ctypeslib.as_array(wave, (count,)).copy())
        index = 0
        while events and events[index].type != 0:
            if events[index].type == 7:
                name = events[index].id.string.decode("utf-8", "replace")
                self._events.append((int(events[index].sample), name))
            index += 1
        return 0

    def sound(self, phones: tuple[str, ...]) -> tuple[np.ndarray, list[tuple[int, str]]]:
        """The spoken word and its phoneme events (sample, espeak's name)."""
        return self._say("en-us", f"[[{_spell(phones)}]]", 1 | 0x100)

    def _say(self, voice: str, text: str, flags: int) -> tuple[np.ndarray, list[tuple[int, str]]]:
        self._start()
        self._pieces, self._events = [], []
        spelled = text.encode()
        self._library.espeak_SetVoiceByName(voice.encode())
        for parameter, value in ((1, _WORDS_PER_MINUTE), (3, _PITCH), (4, _RANGE)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._library.espeak_Synth(spelled, len(spelled) + 1, 0, 1, 0, flags, None, None)
        self._library.espeak_Synchronize()
        wave = np.concatenate(self._pieces) if self._pieces else np.zeros(0, np.int16)
        return wave.astype(np.float64) / 32768, self._events

    def speak(self, phones: tuple[str, ...]) -> SpokenWord:
        """Features of the word with these ARPABET phones.

        Raises SongError where espeak-ng did not say exactly these phones."""
        if phones not in self._words:
            wave, events = self.sound(phones)
            samples = _boundaries(phones, events, len(wave))
            self._words[phones] = self._analyse(wave, samples, phones, phones[0] in _STOPS)
        return self._words[phones]

    def speak_pinyin(self, pinyin: str) -> tuple[SpokenWord, int]:
        """Features of a Mandarin syllable ("hua"), and how many of its phones come before the
        vowel.

        Raises SongError where espeak-ng did not say one syllable."""
        if (pinyin,) not in self._words:
            wave, events = self._say("cmn-latn-pinyin", pinyin + "1", 1)
            names, samples = _chinese_boundaries(pinyin, events, len(wave))
            self._words[pinyin,] = self._analyse(wave, samples, names, pinyin[0] in "bdgptk")
        word = self._words[pinyin,]
        return word, next(k for k, phone in enumerate(word.phones) if phone.name.startswith("'"))

    def _analyse(
        self, wave: np.ndarray, samples: list[int], phones: tuple[str, ...], stop: bool
    ) -> SpokenWord:
        world, rate = self.world, VOICE_RATE
        wave = wave[: samples[-1] + rate // 50]  # behind the last phone is silence
        period = FRAME_SECONDS * 1000
        f0, times = world.dio(
            wave, rate, f0_floor=60.0, f0_ceil=300.0, frame_period=period, speed=2
        )
        f0 = world.stonemask(wave, f0, times, rate)
        envelope_FQ = world.cheaptrick(wave, f0, times, rate, f0_floor=71.0, fft_size=self.fft_size)
        some = slice(None, None, NOISE_FRAMES)
        noise_FQ = world.d4c(
            wave, f0[some].copy(), times[some].copy(), rate, fft_size=self.fft_size
        )
        noise_FB = world.code_aperiodicity(noise_FQ, rate)
        noise_FB = np.stack([np.interp(times, times[some], noise_F) for noise_F in noise_FB.T], 1)
        frames = [sample / rate / FRAME_SECONDS for sample in samples]
        if stop:
            frames[0] = max(0.0, frames[0] - _CLOSURE_SECONDS / FRAME_SECONDS)
        return SpokenWord(
            tuple(Phone(p, a, b) for p, a, b in zip(phones, frames, frames[1:], strict=False)),
            np.log(envelope_FQ[:, :: (envelope_FQ.shape[1] - 1) // (BINS - 1)] + 1e-12).astype(
                np.float16
            ),
            noise_FB.astype(np.float16),
            f0 > 0,
        )


def _spell(phones: tuple[str, ...]) -> str:
    """ARPABET to espeak mnemonics. Every vowel is stressed, so that none is reduced to a schwa: a
    sung vowel is held, and one phone must stand for one sound."""
    return "|".join(("'" if phone in VOWELS else "") + _MNEMONICS[phone] for phone in phones)


def _boundaries(phones: tuple[str, ...], events: list[tuple[int, str]], length: int) -> list[int]:
    """Sample where each phone starts, and the end; raises SongError if the events are not these
    phones.

    espeak-ng folds a final l or r into the vowel before it (an event without length): it gets the
    vowel's last part.
    """
    bare = [(sample, name.strip("',%=|")) for sample, name in events]
    end = next((s for s, name in reversed(bare) if name == "_:"), length)
    said = [
        (s, name)
        for s, name in bare
        if name and name not in ("?", ";") and not name.startswith("_")
    ]
    if len(said) > len(phones):  # a linking r after 3: before a vowel is part of the 3:
        said = [e for k, e in enumerate(said) if not (e[1] == "r" and k and said[k - 1][1] == "3:")]
    starts = [s for s, _ in said]
    if len(starts) != len(phones):
        names = " ".join(name for _, name in bare)
        raise SongError(
            f"songbook: espeak-ng said {names!r} for {' '.join(phones)!r}; leave this word out"
        )
    bounds = [*starts, end]
    for index in range(len(phones) - 1, 0, -1):
        if bounds[index + 1] <= bounds[index]:
            bounds[index] -= int(0.3 * (bounds[index] - bounds[index - 1]))
    if any(later <= earlier for earlier, later in itertools.pairwise(bounds)):
        raise SongError(
            f"songbook: espeak-ng gave no length to a phone of {' '.join(phones)!r}; leave this "
            "word out"
        )
    return bounds


def _chinese_boundaries(
    pinyin: str, events: list[tuple[int, str]], length: int
) -> tuple[tuple[str, ...], list[int]]:
    """(names of the phones, where each starts and the last ends) of one spoken syllable. The
    vowel's name begins with '. The nasal that espeak-ng keeps inside -ong becomes a phone of its
    own."""
    end = next((s for s, name in reversed(events) if name == "_:"), length)
    said = [(s, name) for s, name in events if name and not name.startswith(("_", "("))]
    vowels = [k for k, (_, name) in enumerate(said) if name.startswith("'")]
    if len(vowels) != 1 or len(said) > 4 or any(name.startswith("(") for _, name in events):
        raise SongError(
            f"songbook: espeak-ng cannot say {pinyin!r} as one syllable; leave this word out"
        )
    if said[-1][1] == "'ong":
        start = said[-1][0]
        said = [*said[:-1], (start, "'o"), (start + int(0.65 * (end - start)), "N")]
    return tuple(name for _, name in said), [*(s for s, _ in said), end]
