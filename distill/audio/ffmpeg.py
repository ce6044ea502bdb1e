"""M4A (AAC in MP4), decoded by the program ffmpeg where there is one.

libsndfile knows no AAC. ffmpeg is not a dependency: without it an M4A is refused and says so. It is
asked for one file with one demuxer, no network and no playlist, and inherits the memory and time
limits of the process that starts it.

An AAC encoder puts silence before and behind the sound, which the container may or may not count;
so an MP4's length is true to a few thousand samples, and a file that gives fewer than that is cut
short.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.errors import AudioError

CHANNELS = 2
PRIMING = 2 * 2112  # samples around the sound: Apple's encoder puts 2,112 in front, others 1,024


class Stream:
    """What ffmpeg writes, to be read like a soundfile: `frames` samples of each of two channels, or
    a few less."""

    def __init__(self, process: subprocess.Popen[bytes], path: Path, frames: int) -> None:
        self.process, self.path = process, path
        self.left, self.seen, self.least = frames, 0, max(1, frames - PRIMING)

    def read(self, frames: int, **_: Any) -> NDArray[np.float32]:
        """Up to `frames` further samples, wave_WC; nothing at the end. RuntimeError when ffmpeg
        fails or gives less."""
        assert self.process.stdout is not None
        content = self.process.stdout.read(4 * CHANNELS * min(frames, self.left))
        wave_WC = np.frombuffer(content[: len(content) // 8 * 8], "<f4").reshape(-1, CHANNELS)
        self.left -= len(wave_WC)
        self.seen += len(wave_WC)
        if not len(wave_WC) and (
            self.seen < self.least or (self.left and self.process.wait() != 0)
        ):
            raise RuntimeError(
                f"ffmpeg gave {self.seen:,} of about {self.seen + self.left:,} samples"
            )
        return wave_WC


@contextlib.contextmanager
def opened(path: Path, frames: int, sample_rate: int) -> Iterator[Stream]:
    """The sound of an M4A as a stream. Raises AudioError when there is no ffmpeg."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise AudioError(
            f"{path}: M4A needs the program ffmpeg, which is not there; install it or convert to "
            "FLAC"
        )
    order = [
        program,
        "-nostdin",
        "-v",
        "error",
        "-xerror",
        "-threads",
        "1",
        "-protocol_whitelist",
        "file",
    ]
    order += [
        "-f",
        "mov",
        "-i",
        f"file:{path}",
        "-map",
        "0:a:0",
        "-ac",
        str(CHANNELS),
        "-ar",
        str(sample_rate),
    ]
    order += ["-f", "f32le", "-protocol_whitelist", "pipe", "pipe:1"]
    try:
        process = subprocess.Popen(
            order, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    except OSError as problem:
        raise AudioError(
            f"{path}: ffmpeg cannot be started ({problem.strerror}); convert to FLAC"
        ) from problem
    try:
        yield Stream(process, path, frames)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
