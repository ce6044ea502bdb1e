"""espeak-ng as a reader and a speaker: text to IPA, and text to a wave with the moment of every
phone.

It is GPL-3+ and an optional extra (`pip install 'distill[songbook]'`), reached through ctypes;
where it is missing `ipa` gives nothing. The library keeps one global state, so it is started for
each use and stopped behind it.
"""

from __future__ import annotations

import _ctypes
import ctypes
import functools
import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distill.errors import SongError

_SYNCHRONOUS, _PHONEME_EVENTS, _IPA_EVENTS, _UTF8, _IPA = 2, 1, 2, 1, 2
_RATE, _PITCH, _RANGE = 1, 3, 4
_VOICES = {"en": "en-us", "zh": "cmn", "fr": "fr", "es": "es-419", "pt": "pt-br"}
_END, _PHONEME = 0, 7


class Spoken(NamedTuple):
    """A spoken text: float32 wave_W, its sample rate (Hz), and (sample where it starts, IPA) of
    every phone."""

    wave_W: NDArray[np.float32]
    sample_rate: int
    phones: list[tuple[int, str]]


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


@functools.cache
def installed() -> bool:
    """Whether espeak-ng is there."""
    try:
        importlib.import_module("espeakng_loader")
    except ImportError:
        return False
    return True


@contextmanager
def _started(voice: str) -> Iterator[tuple[Any, int] | None]:
    """The library with this voice and its sample rate (Hz); None where it knows no such voice."""
    loader = importlib.import_module("espeakng_loader")
    library = ctypes.CDLL(str(loader.get_library_path()))
    try:
        options = _PHONEME_EVENTS | _IPA_EVENTS
        rate = library.espeak_Initialize(
            _SYNCHRONOUS, 500, str(loader.get_data_path()).encode(), options
        )
        if rate <= 0:
            raise SongError("espeak-ng does not start; reinstall: pip install 'distill[songbook]'")
        library.espeak_ng_SetRandSeed(1)
        yield (library, rate) if library.espeak_SetVoiceByName(voice.encode()) == 0 else None
    finally:
        library.espeak_Terminate()
        _ctypes.dlclose(library._handle)


def ipa(texts: Sequence[str], language: str) -> list[str]:
    """Each text in IPA, phones apart by "_"; "" where espeak-ng or its voice for the language is
    missing."""
    if not texts or not installed():
        return ["" for _ in texts]
    with _started(voice_of(language)) as started:
        if started is None:
            return ["" for _ in texts]
        library, _ = started
        library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        library.espeak_TextToPhonemes.argtypes = [
            ctypes.POINTER(ctypes.c_void_p),
            ctypes.c_int,
            ctypes.c_int,
        ]
        return [_read(library, text) for text in texts]


def _read(library: Any, text: str) -> str:
    buffer = ctypes.create_string_buffer(text.encode())
    rest = ctypes.c_void_p(ctypes.addressof(buffer))
    found = []
    while rest.value:  # clause by clause
        part = library.espeak_TextToPhonemes(ctypes.byref(rest), _UTF8, _IPA | ord("_") << 8)
        found.append((part or b"").decode("utf-8", "replace"))
    return "_".join(found)


def voice_of(language: str) -> str:
    """espeak-ng's voice for a language tag: "zh-CN" -> "cmn"."""
    short = language.partition("-")[0].lower()
    return _VOICES.get(short, short)


def speak(
    text: str, voice: str, words_per_minute: int = 130, pitch: int = 45, pitch_range: int = 30
) -> Spoken:
    """The text spoken by a voice such as "es" or "en-us+f3". Raises SongError where there is no
    such voice."""
    pieces: list[NDArray[np.int16]] = []
    phones: list[tuple[int, str]] = []

    def receive(wave: Any, count: int, events: Any) -> int:
        if count > 0 and wave:
            pieces.append(np.ctypeslib.as_array(wave, (count,)).copy())
        index = 0
        while events and events[index].type != _END:
            if events[index].type == _PHONEME:
                phones.append(
                    (int(events[index].sample), events[index].id.string.decode("utf-8", "replace"))
                )
            index += 1
        return 0

    callback = _Callback(receive)  # the library keeps only the address: hold the object
    with _started(voice) as started:
        if started is None:
            raise SongError(f"espeak-ng has no voice {voice!r}; choose another one")
        library, rate = started
        library.espeak_SetSynthCallback(callback)
        for parameter, value in ((_RATE, words_per_minute), (_PITCH, pitch), (_RANGE, pitch_range)):
            library.espeak_SetParameter(parameter, value, 0)
        spelled = text.encode()
        library.espeak_Synth(spelled, len(spelled) + 1, 0, 1, 0, _UTF8, None, None)
        library.espeak_Synchronize()
    wave = np.concatenate(pieces) if pieces else np.zeros(0, np.int16)
    return Spoken(wave.astype(np.float32) / np.float32(32768), rate, phones)
