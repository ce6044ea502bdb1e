"""What an audio file promises by its bytes, and whether the bytes for it are all there.

Given half a file, a decoder hands on half a song and says nothing. libsndfile shortens a cut WAV to
what is left, takes a cut Ogg's length from the last page it finds, trusts a cut MP3's frame count
(and then reads fewer), and without one guesses, and stops there, mid-song. So each container is
walked here, by its own rules, before anything is decoded:

    WAV, RF64    the chunks: the data must be in the file, and only chunks may follow it
    FLAC         STREAMINFO: the samples and their MD5, which `safe_decode` compares
    Ogg          every page: checksum, running number, and the mark of the last one (RFC 3533)
    MP3          every frame: it begins where the one before ends; as many as the Xing header says
    MP4          the boxes: all inside the file; the length of its one track (ISO/IEC 14496-12)

Only the standard library is used, files are read front to back, and every refusal is an AudioError.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from distill.audio import mpeg
from distill.audio.mpeg import FETCH, TAGS, UNREADABLE, after_id3
from distill.errors import AudioError

STREAMED = 0x7FFFFFFF - 64  # a WAV size at or above this: a pipe that did not know its length


class Header(NamedTuple):
    """What a container says of its sound; None where only a decoder can tell."""

    container: str
    frames: int | None = None  # samples a channel
    channels: int | None = None
    sample_rate: int | None = None  # Hz
    md5: bytes = b""  # of the samples as `bits`-bit integers (FLAC), or none
    bits: int = 0
    counted: bool = True  # whether the file carries the number of its frames (`mpeg.counted`)


def tell(path: Path) -> Header:
    """What the file promises. AudioError for a file of another kind, damaged or cut short."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, io.SEEK_END)
            start = after_id3(file, size)
            file.seek(start)
            head = file.read(12)
            walk = _walker(head, start)
            file.seek(start)
            return walk(file, size, path)
    except OSError as error:
        reason = error.strerror or error
        raise AudioError(f"{path}: cannot be read ({reason}); check its rights") from error


def _walker(head: bytes, start: int) -> Callable[[BinaryIO, int, Path], Header]:
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE" and not start:
        return _wav
    if head[:4] == b"fLaC":
        return _flac
    if head[:4] == b"OggS" and not start:
        return _ogg
    if head[4:8] == b"ftyp" and not start:
        return _mp4
    return _mp3


# -- WAV -------------------------------------------------------------------------------------------


def _wav(file: BinaryIO, size: int, path: Path) -> Header:
    kind = file.read(12)[:4]
    order = ">" if kind == b"RIFX" else "<"
    channels = rate = block = code = long_data = None
    while len(head := file.read(8)) == 8:
        name, length = struct.unpack(f"{order}4sI", head)
        at = file.tell()
        if name == b"ds64":  # EBU Tech 3306: sizes of more than 4 GiB
            sizes = file.read(24)
            long_data = struct.unpack("<8xQ8x", sizes)[0] if len(sizes) == 24 else None
        elif name == b"fmt ":
            fields = file.read(16)
            if len(fields) < 16:
                break
            code, channels, rate, _, block, _ = struct.unpack(f"{order}HHIIHH", fields)
        elif name == b"data":
            if kind == b"RF64" and length == 0xFFFFFFFF and long_data is not None:
                length = long_data
            elif length >= STREAMED:
                length = size - at
            if at + length > size:
                raise AudioError(f"{path}: truncated by {at + length - size:,} bytes; {FETCH}")
            _nothing_but_chunks(file, at + length, size, order, path)
            # a frame is a block of bytes, not of a compressed code
            plain = code in (1, 3, 6, 7, 0xFFFE) and block
            return Header("wav", length // block if plain and block else None, channels, rate)
        file.seek(at + length + length % 2)
    raise AudioError(f"{path}: {UNREADABLE} (no sound in this WAV); {FETCH}")


def _nothing_but_chunks(file: BinaryIO, at: int, size: int, order: str, path: Path) -> None:
    """Behind the sound, only chunks, tags or padding; else the header announced too little."""
    for start in {at, at + at % 2}:  # a chunk of odd length ought to be padded, and is not always
        next_chunk = start
        while next_chunk + 8 <= size:
            file.seek(next_chunk)
            name, length = struct.unpack(f"{order}4sI", file.read(8))
            if not all(32 <= byte < 127 for byte in name) or next_chunk + 8 + length > size:
                break
            next_chunk += 8 + length + length % 2
        file.seek(min(next_chunk, size))
        rest = file.read(64 * 1024)
        if next_chunk >= size or not rest.strip(b"\0") or rest.startswith(TAGS):
            return
    raise AudioError(f"{path}: {size - at:,} bytes follow the end that it announces; {FETCH}")


# -- FLAC and Ogg ----------------------------------------------------------------------------------


def _flac(file: BinaryIO, size: int, path: Path) -> Header:
    head = file.read(4 + 4 + 34)
    if len(head) < 42 or head[4] & 0x7F != 0:
        raise AudioError(f"{path}: {UNREADABLE} (a FLAC without STREAMINFO); {FETCH}")
    packed = int.from_bytes(head[18:26], "big")  # RFC 9639, section 8.2: 20, 3, 5 and 36 bits
    rate, channels = packed >> 44, (packed >> 41 & 7) + 1
    bits, frames = (packed >> 36 & 31) + 1, packed & (1 << 36) - 1
    if not frames:
        raise AudioError(f"{path}: does not say how long it is; write it again with a FLAC encoder")
    md5 = head[26:42]
    return Header("flac", frames, channels, rate, md5 if md5.strip(b"\0") else b"", bits)


_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg_checksum(page: bytes) -> int:
    """Ogg's CRC-32: zlib's polynomial, bits the other way round, without zlib's two inversions."""
    mirrored = zlib.crc32(page.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)


def _ogg(file: BinaryIO, size: int, path: Path) -> Header:
    serial, number, ended, granule, opening = None, 0, False, 0, b""
    while head := file.read(27):
        if ended and (head.startswith(TAGS) or not head.strip(b"\0")):
            break
        at = file.tell() - len(head)
        if len(head) < 27 or head[:4] != b"OggS":
            damage = "truncated" if len(head) < 27 else "damaged"
            raise AudioError(f"{path}: {damage} at byte {at:,}; {FETCH}")
        flags, position, stream, running, checksum, count = struct.unpack("<5xBqIIIB", head)
        table = file.read(count)
        body = file.read(sum(table))
        if len(table) < count or len(body) < sum(table):
            raise AudioError(f"{path}: truncated, its last page is not whole; {FETCH}")
        if _ogg_checksum(head[:22] + bytes(4) + head[26:] + table + body) != checksum:
            raise AudioError(f"{path}: damaged at byte {at:,}, a page's checksum; {FETCH}")
        if ended or (serial is not None and stream != serial):
            raise AudioError(f"{path}: holds several streams; write each into a file of its own")
        if (serial is not None or running) and running != number:
            raise AudioError(f"{path}: pages are missing before byte {at:,}; {FETCH}")
        serial, number, ended = stream, running + 1, bool(flags & 4)
        granule = granule if position == -1 else position  # -1: no packet ends on this page
        opening = opening or body
    if not ended:
        raise AudioError(f"{path}: truncated, its last page is missing; {FETCH}")
    # RFC 7845: positions count 48 kHz, whatever went in
    if opening.startswith(b"OpusHead") and len(opening) >= 19:
        channels, skipped = struct.unpack("<9xBH", opening[:12])
        return Header("opus", max(0, granule - skipped), channels, 48_000)
    if opening.startswith(b"\x01vorbis") and len(opening) >= 16:
        channels, rate = struct.unpack("<11xBI", opening[:16])
        return Header("ogg", max(0, granule), channels, rate)
    return Header("ogg")


# -- MP3 and MP4 -----------------------------------------------------------------------------------


def _mp3(file: BinaryIO, size: int, path: Path) -> Header:
    mp3 = mpeg.walk(file, path)
    return Header("mp3", mp3.samples, mp3.channels, mp3.sample_rate, counted=mp3.counted)


def _boxes(file: BinaryIO, begin: int, end: int, path: Path) -> Iterator[tuple[bytes, int, int]]:
    """The boxes between two bytes: name, where the content begins, where it ends."""
    at = begin
    while at + 8 <= end:
        file.seek(at)
        length, name = struct.unpack(">I4s", file.read(8))
        inside = at + 8
        if length == 1:
            length, inside = int.from_bytes(file.read(8), "big"), at + 16
        elif length == 0:
            length = end - at
        if length < inside - at or at + length > end:
            raise AudioError(f"{path}: truncated or damaged at byte {at:,}; {FETCH}")
        yield name, inside, at + length
        at += length


def _mp4(file: BinaryIO, size: int, path: Path) -> Header:
    boxes = [(begin, end) for name, begin, end in _boxes(file, 0, size, path) if name == b"moov"]
    for wanted in (b"trak", b"mdia", b"mdhd"):
        inner = [box for outer in boxes for box in list(_boxes(file, *outer, path))]
        boxes = [(begin, end) for name, begin, end in inner if name == wanted]
    tracks: list[tuple[int, int]] = []  # sample rate, length
    for begin, _ in boxes:
        file.seek(begin)
        fields = file.read(32).ljust(32, b"\0")
        tracks.append(struct.unpack(">20xIQ" if fields[0] else ">12xII12x", fields))
    if len(tracks) != 1 or not all(tracks[0]):
        raise AudioError(f"{path}: not an MP4 file with one track of sound; convert it to FLAC")
    rate, length = tracks[0]
    return Header("mp4", length, None, rate)
