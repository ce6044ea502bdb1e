"""M4A (AAC in MP4), decoded by the program ffmpeg where there is one.

libsndfile knows no AAC. ffmpeg is not a dependency: without it an M4A is refused. It is asked for
one file with one demuxer, no network and no playlist, and inherits the memory and time limits of
the process that starts it.

An AAC encoder puts silence around the sound, which the container may or may not count; so an MP4's
length is true to a few thousand samples, and a file that gives fewer than that is cut short.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill.errors import AudioError

CHANNELS = 2
PRIMING = 2 * 2112  # samples around the sound: Apple's encoder puts 2,112 in front, others 1,024
SAMPLE_BYTES = 4  # float32


class Stream:
    """What ffmpeg writes, read like a soundfile: `frames` samples of two channels, or fewer."""

    def __init__(self, process: subprocess.Popen[bytes], path: Path, frames: int) -> None:
        self.process, self.path = process, path
        self.left, self.seen, self.least = frames, 0, max(1, frames - PRIMING)

    def read(self, frames: int, **_: object) -> NDArray[np.float32]:
        """Up to `frames` more, wave_WC float32; none at the end. RuntimeError if ffmpeg fails."""
        assert self.process.stdout is not None
        width = SAMPLE_BYTES * CHANNELS
        content = self.process.stdout.read(width * min(frames, self.left))
        size = len(content) // width * width
        wave_WC = np.frombuffer(content[:size], "<f4").reshape(-1, CHANNELS)
        self.left -= len(wave_WC)
        self.seen += len(wave_WC)
        ended = not len(wave_WC)
        if ended and (self.seen < self.least or (self.left and self.process.wait() != 0)):
            total = self.seen + self.left
            raise RuntimeError(f"ffmpeg gave {self.seen:,} of about {total:,} samples")
        return wave_WC


@contextlib.contextmanager
def opened(path: Path, frames: int, sample_rate: int) -> Iterator[Stream]:
    """The sound of an M4A as a stream. Raises AudioError when there is no ffmpeg."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise AudioError(f"{path}: M4A needs the program ffmpeg; install it or convert to FLAC")
    options = "-nostdin -v error -xerror -threads 1 -protocol_whitelist file -f mov -i".split()
    output = f"-map 0:a:0 -ac {CHANNELS} -ar {sample_rate} -f f32le -protocol_whitelist pipe pipe:1"
    command, nothing = [program, *options, f"file:{path}", *output.split()], subprocess.DEVNULL
    try:
        process = subprocess.Popen(command, stdin=nothing, stdout=subprocess.PIPE, stderr=nothing)
    except OSError as error:
        raise AudioError(f"{path}: ffmpeg fails ({error.strerror}); convert to FLAC") from error
    try:
        yield Stream(process, path, frames)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
