"""Sound and pictures for pages and notebooks: Ogg Opus, spectrograms as PNGs, a player of both.

A spectrogram has a logarithmic frequency axis, so that a semitone is as high everywhere.
"""

from __future__ import annotations

import base64
import html
import io
import struct
import zlib

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.signal import resample_poly, spectrogram

OPUS_RATE = 24_000  # Hz; Opus takes 8, 12, 16, 24 or 48 kHz
LOWEST_HZ, HIGHEST_HZ = 55.0, 8_000.0
PICTURE_ROWS = 144
HOP_SECONDS = 0.01
BLOCK_FRAMES = 1024  # of a spectrogram at once
RANGE_DB = 65.0
COLOURS = 64
# quiet to loud
INK = ((11, 10, 30), (63, 26, 98), (140, 41, 103), (214, 82, 70), (249, 160, 63), (252, 250, 205))


def player_html(wave_W: NDArray[np.float32], sample_rate: int, text: str) -> str:
    """A player and a spectrogram of mono sound as HTML that needs nothing else."""
    sound = base64.b64encode(opus(wave_W, sample_rate)).decode()
    picture = base64.b64encode(spectrogram_png(wave_W, sample_rate)).decode()
    style = "width:100%;max-width:60em;height:9em"
    return (
        f"<figure><figcaption>{html.escape(text)}</figcaption>"
        f'<img src="data:image/png;base64,{picture}" style="{style}"><br>'
        f'<audio controls src="data:audio/ogg;base64,{sound}"></audio></figure>'
    )


def opus(wave_W: NDArray[np.float32], sample_rate: int) -> bytes:
    """A mono wave as an Ogg Opus file, turned down where it would clip."""
    wave_W = np.asarray(wave_W, dtype=np.float64)
    if sample_rate != OPUS_RATE and len(wave_W):
        wave_W = resample_poly(wave_W, OPUS_RATE, sample_rate)
    wave_W = wave_W / max(1.0, np.abs(wave_W).max(initial=0))
    memory, options = io.BytesIO(), {"format": "OGG", "subtype": "OPUS", "compression_level": 0.8}
    soundfile.write(memory, wave_W, OPUS_RATE, **options)
    return memory.getvalue()


def spectrogram_png(
    wave_W: NDArray[np.float32],
    sample_rate: int,
    hop_seconds: float = HOP_SECONDS,
    columns: int | None = None,
    colours: int = COLOURS,
) -> bytes:
    """A PNG: level over time (`hop_seconds` a pixel) and log frequency (55 Hz to 8 kHz at most).

    Sound that would be wider than `columns` pixels has neighbours averaged until it is not, for
    whole songs in small files; fewer `colours` make them smaller still.
    """
    level_HF = levels(wave_W, sample_rate, hop_seconds, columns)
    return png(np.round(level_HF * (colours - 1)).astype(np.uint8), palette(colours))


def levels(
    wave_W: NDArray[np.float32],
    sample_rate: int,
    hop_seconds: float = HOP_SECONDS,
    columns: int | None = None,
) -> NDArray[np.float64]:
    """What `spectrogram_png` shows, [PICTURE_ROWS, columns], from 0 (quiet) to 1 (loudest)."""
    level_HF = 10 * np.log10(_power(wave_W, sample_rate, hop_seconds, columns) + 1e-12)
    return np.clip((level_HF - level_HF.max()) / RANGE_DB + 1, 0, 1)


def _power(
    wave_W: NDArray[np.float32], sample_rate: int, hop_seconds: float, columns: int | None
) -> NDArray[np.float64]:
    """Mean power by picture row (top first) and column, a block at a time: memory stays flat."""
    hop = round(hop_seconds * sample_rate)
    wave_W = np.pad(wave_W, (0, max(0, 8 * hop - len(wave_W))))
    frames = len(wave_W) // hop - 3  # each of four hops
    pooled = 1 if columns is None else -(-frames // columns)
    block = pooled * max(1, BLOCK_FRAMES // pooled)
    rows = []
    for first in range(0, frames, block):
        piece_W = wave_W[first * hop : (min(first + block, frames) + 3) * hop]
        hertz_H, _, power_HF = spectrogram(
            piece_W, sample_rate, "hann", 4 * hop, 3 * hop, 16 * hop, mode="psd", detrend=False
        )
        power_RF = _by_row(hertz_H, power_HF)
        starts = np.arange(0, power_RF.shape[1], pooled)
        counts = np.diff(np.append(starts, power_RF.shape[1]))
        rows.append(np.add.reduceat(power_RF, starts, axis=1) / counts)
    return np.concatenate(rows, axis=1)


def _by_row(hertz_H: NDArray[np.float64], power_HF: NDArray[np.float32]) -> NDArray[np.float64]:
    """The mean over each picture row's band; where rows are finer than bins, the nearest bin."""
    heights = (np.arange(PICTURE_ROWS + 1) - 0.5) / (PICTURE_ROWS - 1)
    edges = LOWEST_HZ * (HIGHEST_HZ / LOWEST_HZ) ** heights
    low_R = np.clip(np.searchsorted(hertz_H, edges[:-1]), 0, len(hertz_H) - 1)
    high_R = np.maximum(np.searchsorted(hertz_H, edges[1:]), low_R + 1)
    total_HF = np.cumsum(np.pad(power_HF, ((1, 0), (0, 0))), axis=0, dtype=np.float64)
    high_R = np.minimum(high_R, len(hertz_H))
    return ((total_HF[high_R] - total_HF[low_R]) / (high_R - low_R)[:, None])[::-1]


def height(hertz: float) -> float:
    """Where a frequency lies in the picture: 0 bottom, 1 top."""
    return float(np.log(hertz / LOWEST_HZ) / np.log(HIGHEST_HZ / LOWEST_HZ))


def palette(colours: int = COLOURS) -> NDArray[np.uint8]:
    """[colours, 3] RGB from quiet to loud."""
    levels, stops = np.linspace(0, 1, colours), np.linspace(0, 1, len(INK))
    channels = [np.interp(levels, stops, channel) for channel in zip(*INK, strict=True)]
    return np.stack(channels, 1).round().astype(np.uint8)


def png(index_HF: NDArray[np.uint8], colours_C3: NDArray[np.uint8]) -> bytes:
    """A palette picture as a PNG file (RFC 2083); the format is short enough to need no library."""

    def chunk(name: bytes, data: bytes) -> bytes:
        size, checksum = len(data), zlib.crc32(name + data)
        return struct.pack(">I", size) + name + data + struct.pack(">I", checksum)

    height, width = index_HF.shape
    # each row begins with its filter, none
    rows = np.concatenate([np.zeros((height, 1), np.uint8), index_HF], axis=1)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"PLTE", colours_C3.tobytes())
    chunks += chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks
