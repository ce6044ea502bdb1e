"""espeak-ng as a reader and a speaker: text to IPA, and text to a wave with its phones' times.

It is GPL-3+ and an optional extra (`pip install 'distill[songbook]'`), reached through ctypes. The
library keeps one global state and carries some of it from text to text, so it is started anew for
each use (0.3 ms) and stopped behind it: what it says does not depend on what it said before.
"""

from __future__ import annotations

import _ctypes
import ctypes
import functools
import importlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distill.errors import SongError

# of espeak-ng's speak_lib.h
_SYNCHRONOUS, _PHONEME_EVENTS, _IPA_EVENTS = 2, 1, 2
_UTF8, _PHONEMES_IN_BRACKETS, _AS_IPA = 1, 0x100, 2
_RATE, _PITCH, _RANGE = 1, 3, 4
_LAST_EVENT, _PHONEME_EVENT = 0, 7
_BUFFER_MILLISECONDS = 500
_VOICES = {"en": "en-us", "zh": "cmn", "fr": "fr", "es": "es-419", "pt": "pt-br"}


class Spoken(NamedTuple):
    """A spoken text: its wave, sample rate (Hz), and (first sample, name) of each phone."""

    wave_W: NDArray[np.float32]
    sample_rate: int
    phones: list[tuple[int, str]]


class _EventId(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int), ("identifier", ctypes.c_uint), ("text_position", ctypes.c_int),
        ("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p), ("id", _EventId),
    ]  # fmt: skip


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


def extra(module: str) -> ModuleType:
    """A module of the extra `songbook`. Raises SongError where it is not installed."""
    try:
        with warnings.catch_warnings():  # an older pyworld imports pkg_resources, which warns
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ImportError as error:
        advice = "type: pip install 'distill[songbook]'"
        raise SongError(f"songbook: {module} is not installed ({error}); {advice}") from error


@functools.cache
def installed() -> bool:
    """Whether espeak-ng is there."""
    try:
        extra("espeakng_loader")
    except SongError:
        return False
    return True


@contextmanager
def _started(voice: str, as_ipa: bool) -> Iterator[tuple[ctypes.CDLL, int] | None]:
    """The library with this voice and its sample rate (Hz); None where it knows no such voice."""
    loader = extra("espeakng_loader")
    library = ctypes.CDLL(str(loader.get_library_path()))
    try:
        events = _PHONEME_EVENTS | (_IPA_EVENTS if as_ipa else 0)
        data = str(loader.get_data_path()).encode()
        rate = library.espeak_Initialize(_SYNCHRONOUS, _BUFFER_MILLISECONDS, data, events)
        if rate <= 0:
            raise SongError("espeak-ng does not start; reinstall: pip install 'distill[songbook]'")
        library.espeak_ng_SetRandSeed(1)
        yield (library, rate) if library.espeak_SetVoiceByName(voice.encode()) == 0 else None
    finally:
        library.espeak_Terminate()
        _ctypes.dlclose(library._handle)


def ipa(texts: Sequence[str], language: str) -> list[str]:
    """Each text in IPA, phones apart by "_"; "" without espeak-ng or its voice for the language."""
    if not texts or not installed():
        return ["" for _ in texts]
    short = language.partition("-")[0].lower()
    with _started(_VOICES.get(short, short), as_ipa=True) as started:
        if started is None:
            return ["" for _ in texts]
        read = started[0].espeak_TextToPhonemes
        read.restype = ctypes.c_char_p
        read.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_int, ctypes.c_int]
        return ["_".join(_clauses(read, text)) for text in texts]


def _clauses(read: Callable[..., bytes | None], text: str) -> Iterator[str]:
    buffer = ctypes.create_string_buffer(text.encode())
    rest = ctypes.c_void_p(ctypes.addressof(buffer))
    while rest.value:
        clause = read(ctypes.byref(rest), _UTF8, _AS_IPA | ord("_") << 8)
        yield (clause or b"").decode("utf-8", "replace")


def speak(
    text: str, voice: str, words_per_minute: int = 130, pitch: int = 45, pitch_range: int = 30,
    as_ipa: bool = True,
) -> Spoken:  # fmt: skip
    """The text spoken by a voice such as "es" or "en-us+f3". SongError: no such voice or library.

    Without `as_ipa` phones have espeak-ng's own names, and [[...]] in the text holds such names."""
    pieces: list[NDArray[np.int16]] = []
    phones: list[tuple[int, str]] = []

    def receive(wave: Any, count: int, events: Any) -> int:
        if count > 0 and wave:
            pieces.append(np.ctypeslib.as_array(wave, (count,)).copy())
        index = 0
        while events and events[index].type != _LAST_EVENT:
            if events[index].type == _PHONEME_EVENT:
                name = events[index].id.string.decode("utf-8", "replace")
                phones.append((int(events[index].sample), name))
            index += 1
        return 0

    callback = _Callback(receive)  # the library keeps only the address: hold the object
    with _started(voice, as_ipa) as started:
        if started is None:
            raise SongError(f"espeak-ng has no voice {voice!r}; choose another one")
        library, rate = started
        library.espeak_SetSynthCallback(callback)
        for parameter, value in ((_RATE, words_per_minute), (_PITCH, pitch), (_RANGE, pitch_range)):
            library.espeak_SetParameter(parameter, value, 0)
        spelled, flags = text.encode(), _UTF8 | (0 if as_ipa else _PHONEMES_IN_BRACKETS)
        library.espeak_Synth(spelled, len(spelled) + 1, 0, 1, 0, flags, None, None)
        library.espeak_Synchronize()
    wave_W = np.concatenate(pieces) if pieces else np.zeros(0, np.int16)
    return Spoken(wave_W.astype(np.float32) / np.float32(32768), rate, phones)
