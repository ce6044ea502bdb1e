"""MP3, frame by frame: how many there are, and whether each begins where the one before ends.

An MP3 has no header: it is a row of frames (ISO/IEC 11172-3 and 13818-3), each with its length in
its first four bytes, with tags before and after. Encoders add a silent first frame that holds the
number of the others (the Xing header); what is missing at the end shows there. A Layer III frame
may keep part of its sound in the frames before it, so a first frame that does is not the first.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

from distill.errors import AudioError

FETCH = "fetch the file again"
READABLE = "give WAV, FLAC, OGG or MP3"
UNREADABLE = "not an audio file that can be read"
SEVERAL = "are these several files in one?"
LATEST_FIRST_FRAME = 1024  # bytes of padding before an MP3's first frame: what mpg123 searches, too
TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")  # what taggers append to any file


def after_id3(file: BinaryIO, size: int) -> int:
    """Where the file begins behind the ID3v2 tags at its front (id3.org, ID3v2.4.0 section 3.1)."""
    at = 0
    while True:
        file.seek(at)
        head = file.read(10)
        if head[:3] != b"ID3" or len(head) < 10 or max(head[6:10]) >= 0x80 or at >= size:
            return at
        length = sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        at += 10 + length + (10 if head[5] & 0x10 else 0)


class Frame(NamedTuple):
    """A frame of MPEG audio by its header (ISO/IEC 11172-3, 2.4.1.3): its bytes and samples."""

    bytes: int
    samples: int
    sample_rate: int
    channels: int
    side_bytes: int  # of side information, behind which an encoder hides its Xing header

    @property
    def format(self) -> tuple[int, int, int]:
        """What stays the same within a file."""
        return self.sample_rate, self.channels, self.samples


_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_KBPS = {
    (1, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


def frame_header(head: bytes) -> Frame | None:
    """The frame that four bytes head; None if they head none (or one of free format)."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    rate_index, kbps_index = head[2] >> 2 & 3, head[2] >> 4
    if version == 1 or layer == 4 or rate_index == 3 or kbps_index in (0, 15):
        return None
    first = version == 3
    rate = _RATES[version][rate_index]
    bits = 1000 * _KBPS[1 if first else 2, layer][kbps_index]
    pad = head[2] >> 1 & 1
    channels = 1 if head[3] >> 6 == 3 else 2
    if layer == 1:
        return Frame((12 * bits // rate + pad) * 4, 384, rate, channels, 0)
    samples = 576 if layer == 3 and not first else 1152
    side = (17 if channels == 1 else 32) if first else (9 if channels == 1 else 17)
    return Frame(samples // 8 * bits // rate + pad, samples, rate, channels, side)


class Mp3(NamedTuple):
    """An MP3: samples of each channel (a decoder cuts some off), and whether it counts them."""

    samples: int
    channels: int
    sample_rate: int
    counted: bool


def walk(file: BinaryIO, path: Path) -> Mp3:
    """Every frame of the file from where it stands. AudioError where it is cut or no MP3."""
    first = _first_frame(file, path)
    begin = file.tell() - 4
    promised, promised_bytes = _xing(file, first)
    if promised is None:
        _begins_at_the_beginning(file, begin, first, path)
    frames, end = _walk_frames(file, begin, first, path)
    audio_frames = frames - (promised is not None)
    if promised is not None:
        all_bytes = promised_bytes is not None and end - begin >= promised_bytes
        counted_itself = all_bytes and audio_frames == promised - 1
        if audio_frames < promised and not counted_itself:
            raise AudioError(f"{path}: truncated, {audio_frames:,} of {promised:,} frames; {FETCH}")
        if audio_frames > promised:
            raise AudioError(f"{path}: goes on after the {promised:,} frames announced; {SEVERAL}")
    if not audio_frames:
        raise AudioError(f"{path}: holds no sound; leave it out")
    samples = audio_frames * first.samples
    return Mp3(samples, first.channels, first.sample_rate, promised is not None)


def _first_frame(file: BinaryIO, path: Path) -> Frame:
    """The first frame whose successor is one too; leaves `file` behind its four bytes."""
    start = file.tell()
    front = file.read(LATEST_FIRST_FRAME + 4096)
    for at in range(min(LATEST_FIRST_FRAME, len(front))):
        frame = frame_header(front[at : at + 4])
        if frame is None:
            continue
        after = front[at + frame.bytes : at + frame.bytes + 4]
        follower = frame_header(after)
        if follower is None and len(after) == 4 and not after.startswith(TAGS[:1]):
            continue
        if front[:at].strip(b"\0"):
            break  # padding may stand there, but not half a frame
        file.seek(start + at + 4)
        return frame
    raise AudioError(f"{path}: {UNREADABLE}; {READABLE}")


def _xing(file: BinaryIO, first: Frame) -> tuple[int | None, int | None]:
    """Frames and bytes as a silent first frame counts them (Xing for VBR, Info for CBR)."""
    rest = file.read(first.bytes - 4)[first.side_bytes :]
    if rest[:4] not in (b"Xing", b"Info"):
        return None, None
    flags = int.from_bytes(rest[4:8], "big")
    numbers = iter(struct.unpack(">II", rest[8:16].ljust(8, b"\0")))
    frames = next(numbers) if flags & 1 else None
    return frames, next(numbers) if flags & 2 else None


def _begins_at_the_beginning(file: BinaryIO, begin: int, first: Frame, path: Path) -> None:
    """A Layer III frame's sound may begin in the frames before it; that of the first one cannot."""
    file.seek(begin)
    head = file.read(8)
    layer_3, checked = head[1] & 6 == 2, not head[1] & 1
    # main_data_begin: 9 bits in MPEG-1, 8 in MPEG-2 (ISO/IEC 13818-3, 2.4.1.7)
    unused_bits = 7 if first.samples == 1152 else 8
    borrowed = int.from_bytes(head[6:8] if checked else head[4:6], "big") >> unused_bits
    if layer_3 and borrowed:
        fault = "begins in the middle, its first frame needs the one before"
        raise AudioError(f"{path}: {fault}; encode it again")


def _walk_frames(file: BinaryIO, begin: int, first: Frame, path: Path) -> tuple[int, int]:
    """How many frames there are, each beginning where the one before ended, and where all end."""
    file.seek(begin)
    frames, at = 0, begin
    while head := file.read(4):
        if head.startswith(b"TAG") or _is_tag(head, file):
            break
        if not head.strip(b"\0") and not file.read(64 * 1024).strip(b"\0"):
            break  # padding
        frame = frame_header(head)
        if frame is None:
            damage = "truncated" if len(head) < 4 else "damaged"
            raise AudioError(f"{path}: {damage} at byte {at:,}, no MPEG frame; {FETCH}")
        if frame.format != first.format:
            raise AudioError(f"{path}: changes its format at byte {at:,}; {SEVERAL}")
        if len(file.read(frame.bytes - 4)) < frame.bytes - 4:
            raise AudioError(f"{path}: truncated in its last MPEG frame; {FETCH}")
        frames, at = frames + 1, at + frame.bytes
    return frames, at


def _is_tag(head: bytes, file: BinaryIO) -> bool:
    long_tag = head in (b"APET", b"LYRI") and (head + file.read(7)).startswith(TAGS[2:])
    return head[:3] == b"ID3" or long_tag


def counted(path: Path) -> io.BytesIO:
    """The MPEG frames of a file behind a Xing header with their number.

    Without it libsndfile guesses the length of an MP3 from the rate of its first frame, and reads
    no further (529 times 1,152 samples became 112 in a trial).
    """
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(after_id3(file, size))
        first = _first_frame(file, path)
        begin = file.tell() - 4
        frames, end = _walk_frames(file, begin, first, path)
        file.seek(begin)
        sound = file.read(end - begin)
    head = bytearray(first.bytes)
    head[:4] = sound[:4]
    head[1] |= 1  # no checksum, which would stand where the header is looked for
    mark = b"Xing" + struct.pack(">II", 1, frames)
    head[4 + first.side_bytes : 4 + first.side_bytes + len(mark)] = mark
    return io.BytesIO(bytes(head[: first.bytes]) + sound)
