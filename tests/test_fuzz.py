"""Mutated recordings: each comes out whole or is refused by name, and the next one is none the
worse for it.

2,000 files in four containers (500 each of WAV, FLAC, Ogg with Vorbis or Opus, MP3), mutated from a
seed. For each the decoder must give sound, or an AudioError that names the file; no other
exception, no hang, no dead process here. And no silent short read: what lost bytes may not come out
shorter than it went in (it can have lost a tag or padding), and what does come out shorter had its
own promise changed, which the test reads for itself from the bytes.

`pytest -m slow -s tests/test_fuzz.py` prints the table.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.random import Generator

from distill.audio.containers import _ogg_checksum
from distill.audio.safe_decode import Decoder, Limits
from distill.errors import AudioError

SEED = 20261122
CONTAINERS = ("wav", "flac", "ogg", "mp3")
KINDS: dict[str, list[dict[str, object]]] = {
    "wav": [
        {"subtype": "PCM_16"},
        {"subtype": "PCM_24"},
        {"subtype": "FLOAT"},
        {"subtype": "IMA_ADPCM"},
    ],
    "flac": [{"subtype": "PCM_16"}, {"subtype": "PCM_24"}],
    "ogg": [{"subtype": "VORBIS"}, {"format": "OGG", "subtype": "OPUS"}],
    "mp3": [{"bitrate_mode": "CONSTANT"}, {"bitrate_mode": "VARIABLE"}],
}
LOSING = {"cut", "behead", "delete"}


def originals(folder: Path) -> dict[str, list[tuple[bytes, int]]]:
    """A second of sound in every kind, mono and stereo: its bytes, and its length in samples."""
    files: dict[str, list[tuple[bytes, int]]] = {name: [] for name in CONTAINERS}
    t = np.arange(24_000) / 24_000
    noise = 0.05 * np.random.default_rng(0).standard_normal((24_000, 2))
    glide = 0.4 * np.sin(2 * np.pi * (200 * t + 300 * t * t))[:, None]
    wave_WC = (glide + noise).astype(np.float32)
    for name, kinds in KINDS.items():
        for kind in kinds:
            for channels in (1, 2):
                path = folder / f"whole.{name}"
                soundfile.write(str(path), wave_WC[:, :channels], 24_000, **kind)  # type: ignore[arg-type]
                files[name].append((path.read_bytes(), soundfile.info(str(path)).frames))
    return files


# -- mutations: bytes in, bytes out ----------------------------------------------------------------


def flip(data: bytearray, rng: Generator) -> None:
    for at in rng.integers(0, len(data), rng.integers(1, 20)):
        data[at] ^= 1 << int(rng.integers(8))


def flip_header(data: bytearray, rng: Generator) -> None:
    for at in rng.integers(0, min(len(data), 160), rng.integers(1, 4)):
        data[at] ^= 1 << int(rng.integers(8))


def lie(data: bytearray, rng: Generator) -> None:
    """A number of the header becomes another one: sizes of chunks, lengths, counts."""
    values = [
        0,
        1,
        0xFFFFFFFF,
        0x7FFFFFFF,
        0x80000000,
        0xFFFFFFFE,
        len(data),
        int(rng.integers(2**32)),
    ]
    names = {
        b"RIFF": 4,
        b"fmt ": 4,
        b"fact": 4,
        b"data": 4,
        b"fLaC": 14,
        b"OggS": 6,
        b"Xing": 8,
        b"Info": 8,
    }
    offsets = [data.find(name) + skip for name, skip in names.items() if name in data[:4096]]
    at = min(int(rng.choice(offsets)) + 4 * int(rng.integers(2)), len(data) - 4)
    data[at : at + 4] = struct.pack(str(rng.choice(["<I", ">I"])), int(rng.choice(values)))


def cut(data: bytearray, rng: Generator) -> None:
    del data[int(rng.integers(1, len(data))) :]


def behead(data: bytearray, rng: Generator) -> None:
    del data[: int(rng.integers(1, len(data)))]


def delete(data: bytearray, rng: Generator) -> None:
    at = int(rng.integers(0, len(data)))
    del data[at : at + int(rng.integers(1, max(2, len(data) // 4)))]


def insert(data: bytearray, rng: Generator) -> None:
    at = int(rng.integers(0, len(data)))
    data[at:at] = rng.bytes(int(rng.integers(1, 5000)))


def blank(data: bytearray, rng: Generator) -> None:
    at, length = int(rng.integers(0, len(data))), int(rng.integers(1, 3000))
    data[at : at + length] = bytes(len(data[at : at + length]))


def double(data: bytearray, rng: Generator) -> None:
    at = int(rng.integers(0, len(data)))
    data[at:at] = data[at : at + int(rng.integers(1, 5000))]


def empty(data: bytearray, rng: Generator) -> None:
    del data[int(rng.choice([0, 1, 4, 12, 27])) :]


def garbage(data: bytearray, rng: Generator) -> None:
    data[int(rng.choice([0, 4, 12, 44])) :] = rng.bytes(int(rng.integers(1, 20_000)))


MUTATIONS: list[Callable[[bytearray, Generator], None]] = [
    flip, flip_header, lie, cut, behead, delete, insert, blank, double, empty, garbage,
]  # fmt: skip


def swap(data: bytearray, other: bytes, rng: Generator) -> None:
    """The head of one file on the body of another."""
    at = int(rng.choice([4, 12, 44, 58, 100]))
    data[:at] = other[:at]


def with_true_checksums(data: bytearray) -> None:
    """Pages of an Ogg with checksums that are right again, so that damage reaches the decoder."""
    at = data.find(b"OggS")
    while 0 <= at <= len(data) - 27:
        count = data[at + 26]
        end = at + 27 + count + sum(data[at + 27 : at + 27 + count])
        if end > len(data):
            return
        data[at + 22 : at + 26] = bytes(4)
        data[at + 22 : at + 26] = struct.pack("<I", _ogg_checksum(bytes(data[at:end])))
        at = data.find(b"OggS", end)


def mutated(whole: dict[str, list[tuple[bytes, int]]], number: int) -> tuple[str, str, bytes, int]:
    """Container, mutation, bytes, and how many samples there were."""
    rng = np.random.default_rng([SEED, number])
    container = CONTAINERS[number % len(CONTAINERS)]
    content, frames = whole[container][int(rng.integers(len(whole[container])))]
    data = bytearray(content)
    choice = int(rng.integers(len(MUTATIONS) + 1))
    if choice == len(MUTATIONS):
        others = whole[str(rng.choice(CONTAINERS))]
        swap(data, others[int(rng.integers(len(others)))][0], rng)
        name = "swap"
    else:
        MUTATIONS[choice](data, rng)
        name = MUTATIONS[choice].__name__
    if container == "ogg" and rng.random() < 0.5:
        with_true_checksums(data)
    return container, name, bytes(data), frames


# -- judgement -------------------------------------------------------------------------------------


def announced(data: bytes) -> Iterator[int]:
    """Lengths in samples that the bytes themselves announce, read without the code under test."""
    if data[8:12] == b"WAVE":
        order = ">" if data[:4] == b"RIFX" else "<"
        at = data.find(b"fmt ") + 8
        block, code = (
            struct.unpack_from(f"{order}H", data, at + 12)[0],
            struct.unpack_from(f"{order}H", data, at)[0],
        )
        start = data.find(b"data") + 8
        size = struct.unpack_from(f"{order}I", data, start - 4)[0]
        sound = min(size, len(data) - start)
        yield sound // max(1, block)
        # compressed: only a decoder knows
        yield (soundfile.info(_Bytes(data)).frames if code not in (1, 3) else -1)
    elif data[:4] == b"fLaC":
        yield int.from_bytes(data[18:26], "big") & (1 << 36) - 1
    elif data[:4] == b"OggS":
        granule = struct.unpack_from("<q", data, data.rfind(b"OggS") + 6)[0]
        at = data.find(b"OpusHead")
        rate = struct.unpack_from("<I", data, at + 12)[0] if at >= 0 else 0
        skip = struct.unpack_from("<H", data, at + 10)[0] if at >= 0 else 0
        yield from (
            granule,
            (granule - skip) * rate // 48_000,
            (granule - skip) // 2,
            granule - skip,
        )
    else:
        for name in (b"Xing", b"Info"):
            at = data.find(name)
            if at >= 0:
                frames = struct.unpack_from(">I", data, at + 8)[0]
                yield from (frames * 576 - back for back in range(0, 9000))
                yield from (frames * 1152 - back for back in range(0, 9000))


class _Bytes:
    """Bytes as a file, as soundfile wants one."""

    def __new__(cls, data: bytes) -> object:  # type: ignore[misc]
        import io

        return io.BytesIO(data)


def campaign(folder: Path, numbers: range) -> Counter[tuple[str, str, str]]:
    """How often which mutation of which container ended how."""
    whole = originals(folder)
    counts: Counter[tuple[str, str, str]] = Counter()
    path = folder / "mutated"
    with Decoder(Limits(wall_seconds=20)) as worker:
        for number in numbers:
            container, mutation, data, frames = mutated(whole, number)
            path.write_bytes(data)
            try:
                sound = worker.decode(path)
            except AudioError as problem:
                text = str(problem)
                assert text.startswith(str(path)) and "\n" not in text, (number, text)
                end = "refused"
                if "died" in text or "took more" in text or "needs more" in text:
                    end = "decoder lost"
                counts[container, mutation, end] += 1
                continue
            assert sound.wave_CW.dtype == np.float32 and sound.wave_CW.shape[1] > 0, number
            length = sound.wave_CW.shape[1]
            if length == frames:
                counts[container, mutation, "whole"] += 1
                continue
            if length > frames:  # its length of before is no longer told, or another one is
                counts[container, mutation, "longer"] += 1
                continue
            assert mutation not in LOSING, (
                f"{number}: {mutation} of {container}: {length} of {frames} samples"
            )
            assert length in set(announced(data)), (
                f"{number}: {mutation} of {container}: {length}, was {frames}"
            )
            counts[container, mutation, "shorter, told"] += 1
        for name, kinds in whole.items():  # and after all that, it decodes as ever
            path.write_bytes(kinds[0][0])
            assert worker.decode(path).wave_CW.shape[1] == kinds[0][1], name
    return counts


def table(counts: Counter[tuple[str, str, str]]) -> str:
    ends = ["whole", "longer", "shorter, told", "refused", "decoder lost"]
    rows = [["", *ends]]
    for column, names in ((0, CONTAINERS), (1, sorted({key[1] for key in counts}))):
        for name in names:
            rows.append(
                [
                    name,
                    *(
                        str(
                            sum(
                                n
                                for key, n in counts.items()
                                if key[column] == name and key[2] == end
                            )
                        )
                        for end in ends
                    ),
                ]
            )
    return "\n".join("".join(f"{cell:>15}" for cell in row) for row in rows)


def test_a_sample_of_mutated_recordings(tmp_path: Path) -> None:
    counts = campaign(tmp_path, range(120))
    assert sum(counts.values()) == 120
    assert sum(n for key, n in counts.items() if key[2] == "refused") > 60


@pytest.mark.slow
def test_two_thousand_mutated_recordings(tmp_path: Path) -> None:
    counts = campaign(tmp_path, range(2000))
    assert sum(counts.values()) == 2000
    print("\n" + table(counts))
