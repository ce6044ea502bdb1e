"""Sound in and out of files that this library trusts: training songs, curated or its own.

`read` gives a waveform at the sample rate asked for or says what is wrong with the file; never
silence, NaN or half a recording, because a model trained on those learns them. What a file promises
is checked before it is decoded (safe_decode.py, which also takes files that nobody vouches for).
`write` never clips: a wave above full scale is turned down as a whole.

What a codec does not speak is converted on the way, by these rules and no others
(tests/test_audio_files.py holds them):

    sample rate   soxr at its quality HQ (resampling.py)
    channels      many into one: averaged; one into many: repeated; anything else is refused
"""

from __future__ import annotations

import io
import math
import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from distill.audio.resampling import resample_array
from distill.audio.safe_decode import Limits, decode, promise
from distill.errors import AudioError
from distill.folders import write_atomic

LARGEST_BYTES = 2 * 1024**3
SILENCE_PEAK = 3e-5  # about one step of 16-bit PCM, -90 dBFS


def read(
    path: str | Path, sample_rate: int, channels: int = 1, largest_bytes: int = LARGEST_BYTES
) -> Tensor:
    """The file as float32 wave_CW at `sample_rate` Hz, full scale +-1.

    WAV, FLAC, Ogg (Vorbis, Opus), MP3; M4A where the program ffmpeg is installed. AudioError for a
    file that is missing, not audio, empty, truncated, silent, not finite, of a channel count that
    is not converted, or that would decode to more than `largest_bytes`.
    """
    path = Path(path)
    frames, file_channels, file_rate = promise(path)
    decoded_bytes = 4 * frames * max(file_channels, channels) * max(1.0, sample_rate / file_rate)
    if decoded_bytes > largest_bytes:
        sizes = f"{decoded_bytes / 2**20:,.0f} MiB, the limit is {largest_bytes / 2**20:,.0f} MiB"
        raise AudioError(f"{path}: decodes to {sizes}; cut it into shorter files")
    wave_CW = decode(path, Limits(seconds=math.inf, bytes=largest_bytes)).wave_CW
    if not np.isfinite(wave_CW).all():
        raise AudioError(f"{path}: holds NaN or infinity; write it again from its source")
    if float(np.abs(wave_CW).max()) < SILENCE_PEAK:
        raise AudioError(f"{path}: is silent; leave it out")
    fitted_CW = _fit_channels(torch.from_numpy(np.ascontiguousarray(wave_CW)), channels, path)
    return resample(fitted_CW, file_rate, sample_rate)


def decoder(path: str | Path) -> str:
    """What decodes and resamples this file, with versions: another one may give other samples."""
    libsndfile = f"soundfile {soundfile.__version__} {soundfile.__libsndfile_version__}"
    versions = f"{libsndfile} soxr {soxr.__version__}"
    if Path(path).suffix.lower() in (".m4a", ".mp4") and (program := shutil.which("ffmpeg")):
        versions += " " + _version(program)
    return versions


@cache
def _version(program: str) -> str:
    output = subprocess.run([program, "-version"], capture_output=True, check=False).stdout
    return output.decode(errors="replace").partition("\n")[0]


def seconds(path: str | Path) -> float:
    """Length of an audio file in seconds, from its header. AudioError like `read`."""
    return promise(path).seconds


def write(path: str | Path, wave_CW: Tensor, sample_rate: int) -> float:
    """Write wave_CW (full scale +-1) as a 16-bit PCM WAV file, whole or not at all.

    Gives the gain applied: below 1.0 where the peak was above 1. AudioError: empty, NaN, infinity.
    """
    if wave_CW.ndim != 2 or wave_CW.shape[-1] == 0:
        fault = f"a wave of shape {tuple(wave_CW.shape)} cannot be written"
        raise AudioError(f"{path}: {fault}; give [channels, samples]")
    wave_CW = wave_CW.detach().to("cpu", torch.float32)
    if not bool(torch.isfinite(wave_CW).all()):
        fault = "the wave holds NaN or infinity, so nothing was written"
        raise AudioError(f"{path}: {fault}; look for the step that made it")
    peak = float(wave_CW.abs().max())
    gain = 1.0 if peak <= 1.0 else 0.999 / peak
    memory = io.BytesIO()
    soundfile.write(memory, (gain * wave_CW).T.numpy(), sample_rate, format="WAV", subtype="PCM_16")
    write_atomic(Path(path), memory.getvalue())
    return gain


def resample(wave_CW: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """wave_CW from one sample rate (Hz) to another, as `resample_array`."""
    if from_rate == to_rate or wave_CW.shape[-1] == 0:
        return wave_CW
    return torch.from_numpy(resample_array(wave_CW.numpy(), from_rate, to_rate))


def _fit_channels(wave_CW: Tensor, channels: int, path: Path) -> Tensor:
    count = wave_CW.shape[0]
    if count == channels:
        return wave_CW
    if channels == 1:
        return wave_CW.mean(0, keepdim=True)
    if count == 1:
        return wave_CW.repeat(channels, 1)
    raise AudioError(f"{path}: has {count} channels where {channels} are wanted; mix it down first")
