"""Decoding files that nobody vouches for.

Decoders are large C libraries: a damaged file may crash one, hang it, or unpack from kilobytes into
all the memory there is. So a file is decoded in a worker process, which may use so much memory, so
many seconds, and may give back so many bytes:

    parent:  {"path": ...} ------------------------> worker: walks the container (containers.py)
             limits held against the promise <------ P  frames, channels, sample rate
             room is made for exactly that   <------ B  a block of samples, again and again
                                             <------ D  as many as promised, or  E  what is wrong

Nothing is allocated for what was refused. Whatever becomes of the worker (killed, crashed, hung),
an AudioError names the file and a fresh worker takes the next one. A worker starts in a tenth of a
second, lives for many files and imports no torch.

A decoder's silence is not trusted either: the samples that came are held against those that were
promised, and a FLAC's against its MD5.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from distill.audio import ffmpeg, mpeg
from distill.audio.containers import Header, tell
from distill.audio.mpeg import FETCH, READABLE, UNREADABLE
from distill.config.ranges import Checked, above
from distill.errors import AudioError

MIB = 2**20
BLOCK_SAMPLES = 2**19  # of all channels together: 2 MiB on the way at a time
# then a fresh one, so that what a decoder leaks never adds up to its memory limit
FILES_PER_WORKER = 200
FORMATS = {  # a container -> libsndfile's names for it
    "wav": {"WAV", "WAVEX", "RF64"}, "flac": {"FLAC"},
    "ogg": {"OGG"}, "opus": {"OGG"}, "mp3": {"MP3"},
}  # fmt: skip
MESSAGE = struct.Struct("<cQ")  # of a worker: its kind, and how many bytes follow
# samples that an MP3 decoder may cut off: two 12-bit fields of the LAME tag, and its own delay
TRIMMED = 8190 + 529


class Sound(NamedTuple):
    """A decoded track: float32 wave_CW (full scale +-1) and its sample rate (Hz)."""

    wave_CW: NDArray[np.float32]
    sample_rate: int

    @property
    def seconds(self) -> float:
        return self.wave_CW.shape[1] / self.sample_rate

    def mono(self) -> NDArray[np.float32]:
        """All channels averaged: wave_W."""
        return self.wave_CW.mean(0)


class Promise(NamedTuple):
    """What a file says that it holds: samples of each channel, channels, sample rate (Hz)."""

    frames: int
    channels: int
    sample_rate: int

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_rate


@dataclass(frozen=True)
class Limits(Checked):
    """How much a file may be, and how much its decoding may take."""

    seconds: float = above(0, default=1200.0)  # the longest recording
    bytes: int = above(0, default=2 * 1024**3)  # decoded, as float32 of all channels
    # bytes that a worker may use beyond what it has when it starts (on Linux alone)
    memory: int = above(0, default=512 * MIB)
    wall_seconds: float = above(0, default=60.0)  # from question to answer

    def hold(self, path: Path, promise: Promise) -> None:
        """Raises AudioError when a promise is more than what is allowed."""
        if promise.seconds > self.seconds:
            lengths = f"{promise.seconds:,.0f} s, the limit is {self.seconds:,.0f} s"
            raise AudioError(f"{path}: lasts {lengths}; cut it into shorter files")
        decoded = 4 * promise.frames * promise.channels
        if decoded > self.bytes:
            sizes = f"{decoded / MIB:,.0f} MiB, the limit is {self.bytes / MIB:,.0f} MiB"
            raise AudioError(f"{path}: decodes to {sizes}; cut it into shorter files")


def promise(path: str | Path) -> Promise:
    """What its container promises, undecoded. AudioError: missing, no audio, empty, damaged."""
    with _opened(Path(path)) as (_, _, promised):
        return promised


def decode(path: str | Path, limits: Limits = Limits()) -> Sound:
    """The whole file, in this process. AudioError: as `promise`, over the limits, broken off."""
    path = Path(path)
    with _opened(path) as (file, header, promised):
        limits.hold(path, promised)
        wave_CW = np.empty((promised.channels, promised.frames), np.float32)
        at = 0
        for block_WC in _blocks(path, file, header, promised):
            wave_CW[:, at : at + len(block_WC)] = block_WC.T
            at += len(block_WC)
    return Sound(wave_CW[:, :at], promised.sample_rate)


def decode_safely(path: str | Path, limits: Limits = Limits()) -> Sound:
    """The whole file, decoded in this process's worker; AudioError as `Decoder.decode`."""
    return _own(limits).decode(path)


def promise_safely(path: str | Path, limits: Limits = Limits()) -> Promise:
    """`promise`, asked of this process's worker."""
    return _own(limits).promise(path)


# -- in whichever process decodes ------------------------------------------------------------------


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[soundfile.SoundFile | ffmpeg.Stream, Header, Promise]]:
    """The open file, its container's header, and what decoder and container agree to promise."""
    if not path.is_file():
        raise AudioError(f"{path}: no such audio file; check the path")
    header = tell(path)
    if header.container == "mp4":
        assert header.frames is not None and header.sample_rate is not None
        with ffmpeg.opened(path, header.frames, header.sample_rate) as stream:
            yield stream, header, Promise(header.frames, ffmpeg.CHANNELS, header.sample_rate)
        return
    try:
        file = soundfile.SoundFile(os.fsencode(path) if header.counted else mpeg.counted(path))
    except (soundfile.LibsndfileError, RuntimeError, OSError, TypeError) as error:
        raise AudioError(f"{path}: {UNREADABLE} ({_reason(error)}); {READABLE}") from error
    with file:
        if file.frames <= 0 or file.samplerate <= 0 or file.channels <= 0:
            raise AudioError(f"{path}: holds no sound; leave it out")
        promised = Promise(int(file.frames), int(file.channels), int(file.samplerate))
        _agree(path, header, promised, file.format)
        yield file, header, promised


def _agree(path: Path, header: Header, promised: Promise, format: str) -> None:
    """AudioError unless container and decoder see the same file: their parsers differ."""
    if promised.frames >= 2**62:  # libsndfile's mark for "unknown"
        raise AudioError(f"{path}: does not say how long it is; convert it to WAV or FLAC")
    most, sample_rate = header.frames, header.sample_rate
    if header.container == "opus" and most is not None:
        # positions count 48 kHz, decoded is at a rate like that of before
        most, sample_rate = most * promised.sample_rate // 48_000, promised.sample_rate
    trimmed = TRIMMED if header.container == "mp3" else 0
    if (
        format not in FORMATS[header.container]
        or (most is not None and not most - trimmed <= promised.frames <= most)
        or header.channels not in (None, promised.channels)
        or sample_rate not in (None, promised.sample_rate)
    ):
        raise AudioError(f"{path}: its header contradicts its content; {FETCH}")


def _blocks(
    path: Path, file: soundfile.SoundFile | ffmpeg.Stream, header: Header, promised: Promise
) -> Iterator[NDArray[np.float32]]:
    """The samples, wave_WC a block; AudioError when they are not those that were promised."""
    checked = header.container == "flac" and bool(header.md5) and header.bits in (8, 16, 24)
    dtype = "int32" if checked else "float32"
    digest = hashlib.md5(usedforsecurity=False)
    size, seen = max(1, BLOCK_SAMPLES // promised.channels), 0
    while seen < promised.frames:
        try:
            wanted = min(size, promised.frames - seen)
            block_WC = file.read(wanted, dtype=dtype, always_2d=True)
        except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
            raise AudioError(f"{path}: breaks off ({_reason(error)}); {FETCH}") from error
        if not len(block_WC):
            if header.container == "mp4":
                return  # its length is true to a few thousand samples; the stream counts them
            raise AudioError(f"{path}: truncated, {seen:,} of {promised.frames:,} samples; {FETCH}")
        seen += len(block_WC)
        if checked:
            digest.update(_as_encoded(block_WC, header.bits))
            block_WC = block_WC.astype(np.float32) * np.float32(2**-31)
        yield block_WC
    if checked and digest.digest() != header.md5:
        raise AudioError(f"{path}: its samples are not those that were encoded (MD5); {FETCH}")


def _as_encoded(block_WC: NDArray[np.generic], bits: int) -> bytes:
    """libsndfile's left-justified samples as a FLAC's MD5 counts them: shortest little-endian."""
    bytes_WCB = block_WC.astype("<i4", copy=False).view(np.uint8).reshape(*block_WC.shape, 4)
    return bytes_WCB[..., 4 - bits // 8 :].tobytes()


def _reason(error: Exception) -> str:
    """What libsndfile says, without the file's name and in one line."""
    text = str(getattr(error, "error_string", error)).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")


def _serve() -> None:
    """The worker: answers requests, one JSON line each on stdin, until there are no more."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a C library prints must not stand among the answers
    for line in sys.stdin.buffer:
        request = json.loads(line)
        _cap(request["memory"], request["wall_seconds"])
        path = Path(request["path"])
        try:
            with _opened(path) as (file, header, promised):
                _send(answers, b"P", json.dumps(promised).encode())
                if request["whole"] and sys.stdin.buffer.readline() == b"go\n":
                    for block_WC in _blocks(path, file, header, promised):
                        _send(answers, b"B", block_WC.T.tobytes())
                _send(answers, b"D")
        except AudioError as error:
            _send(answers, b"E", str(error).encode(errors="surrogateescape"))
        except MemoryError:
            _send(answers, b"M")


def _cap(memory: int, wall_seconds: float) -> None:
    """Cap the memory (bytes beyond what is in use now), once; a file's processor time (seconds)."""
    import resource  # not on Windows, which has no worker

    pages = Path("/proc/self/statm")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY and pages.exists():
        used = int(pages.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + memory, hard))
    spent = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(spent.ru_utime + spent.ru_stime + wall_seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _send(answers: IO[bytes], kind: bytes, content: bytes = b"") -> None:
    view = memoryview(content)
    answers.write(MESSAGE.pack(kind, len(view)))
    while len(view):
        view = view[answers.write(view) :]


# -- in the process that asks ----------------------------------------------------------------------


class Decoder:
    """A worker process that decodes file after file; a context manager. Threads take turns."""

    def __init__(self, limits: Limits = Limits()) -> None:
        self.limits = limits
        self._worker: subprocess.Popen[bytes] | None = None
        self._files = 0
        self._turn = threading.Lock()

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def decode(self, path: str | Path) -> Sound:
        """The whole file. AudioError as `decode`; the worker crashed, or went over the limits."""
        sound = self._ask(Path(path), whole=True)
        assert isinstance(sound, Sound)
        return sound

    def promise(self, path: str | Path) -> Promise:
        """What the file promises, whatever the limits on length and bytes. Raises AudioError."""
        promised = self._ask(Path(path), whole=False)
        assert isinstance(promised, Promise)
        return promised

    def close(self) -> None:
        """Ends the worker; the next call starts another."""
        if self._worker is None:
            return
        worker, self._worker = self._worker, None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(worker.pid, signal.SIGKILL)  # itself, and an ffmpeg that it may have started
        worker.wait()
        for stream in filter(None, (worker.stdin, worker.stdout)):
            with contextlib.suppress(OSError):
                stream.close()

    def _ask(self, path: Path, whole: bool) -> Sound | Promise:
        with self._turn:
            died = self._worker is not None and self._worker.poll() is not None
            if died or self._files >= FILES_PER_WORKER:
                self.close()  # one that died between two files is nobody's fault
            if self._worker is None:
                self._worker, self._files = _start(), 0
            self._files += 1
            try:
                return self._answer(_Pipe(self._worker, path, self.limits), whole)
            except _WorkerLostError as error:
                self.close()
                raise AudioError(str(error)) from error.__cause__
            except AudioError:
                raise
            except BaseException:  # interrupted: half an answer may still be on its way
                self.close()
                raise

    def _answer(self, pipe: _Pipe, whole: bool) -> Sound | Promise:
        path, limits = pipe.path, pipe.limits
        request = {"path": str(path), "whole": whole, **asdict(limits)}
        pipe.send(json.dumps(request).encode() + b"\n")
        wave_CW, at, promised = np.empty((0, 0), np.float32), 0, Promise(0, 0, 0)
        while True:
            kind, size = MESSAGE.unpack(pipe.read(MESSAGE.size))
            if kind == b"P":
                promised = Promise(*json.loads(pipe.read(size)))
                if whole:
                    try:
                        limits.hold(path, promised)
                    except AudioError:
                        pipe.send(b"no\n")
                        pipe.read(MESSAGE.size)  # D: ready for the next file
                        raise
                    wave_CW = np.empty((promised.channels, promised.frames), np.float32)
                    pipe.send(b"go\n")
            elif kind == b"B":
                block_CW = np.frombuffer(pipe.read(size), np.float32).reshape(promised.channels, -1)
                wave_CW[:, at : at + block_CW.shape[1]] = block_CW
                at += block_CW.shape[1]
            elif kind == b"D":
                return Sound(wave_CW[:, :at], promised.sample_rate) if whole else promised
            elif kind == b"M":
                fault = f"needs more than {limits.memory / MIB:,.0f} MiB to be decoded"
                raise _WorkerLostError(f"{path}: {fault}; convert it to FLAC")
            else:
                raise AudioError(pipe.read(size).decode(errors="surrogateescape"))


class _WorkerLostError(AudioError):
    """The worker is dead, or cannot be trusted with another file."""


class _Pipe:
    """To and from the worker, by a deadline."""

    def __init__(self, worker: subprocess.Popen[bytes], path: Path, limits: Limits) -> None:
        self.worker, self.path, self.limits = worker, path, limits
        self.deadline = time.monotonic() + limits.wall_seconds
        assert worker.stdin is not None and worker.stdout is not None
        self.to, self.out = worker.stdin, worker.stdout.fileno()
        self.poll = select.poll()
        self.poll.register(self.out, select.POLLIN)

    def send(self, line: bytes) -> None:
        try:
            self.to.write(line)
            self.to.flush()
        except OSError:
            raise self._lost() from None

    def read(self, size: int) -> bytearray:
        """Exactly `size` bytes. _WorkerLostError when the worker dies first, or time is over."""
        content = bytearray(size)
        view = memoryview(content)
        while len(view):
            left = self.deadline - time.monotonic()
            if left <= 0 or not self.poll.poll(1000 * left):
                fault = f"took more than {self.limits.wall_seconds:g} s to be decoded"
                raise _WorkerLostError(f"{self.path}: {fault}; cut it into shorter files")
            count = os.readv(self.out, [view])
            if not count:
                raise self._lost()
            view = view[count:]
        return content

    def _lost(self) -> AudioError:
        try:
            code = self.worker.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = 0
        cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        return _WorkerLostError(f"{self.path}: its decoder died ({cause}); convert it to FLAC")


def _start() -> subprocess.Popen[bytes]:
    code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import _serve; _serve()"
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # more only reserve memory
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **one_thread},
        start_new_session=True,  # to be ended as one; Ctrl-C is the parent's business
    )


_OWN: dict[tuple[int, Limits], Decoder] = {}


def _own(limits: Limits) -> Decoder:
    """This process's decoder for these limits: a forked child must not use its parent's worker."""
    key = (os.getpid(), limits)
    if key not in _OWN:
        _OWN[key] = Decoder(limits)
    return _OWN[key]


@atexit.register
def _close_own() -> None:
    for (process, _), decoder in _OWN.items():
        if process == os.getpid():
            decoder.close()
