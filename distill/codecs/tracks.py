"""Vocals and accompaniment encoded apart, and stereo: any codec, as slots of one frame.

    codec: {kind: tracks, codec: {kind: embedded}, tracks: [vocals, accompaniment], channels: 1}

Frame f holds frame f of every stream, coarse slots first: v0 a0 v1 a1 ... (as in YuE's first stage
and stereo MusicGen). So whatever is sung comes apart into stems without a separator, and an LLM
hears the voice before it plays to it.

**Stereo** is mid and side by default, (L + R) / 2 and (L - R) / 2: what stands in the middle, a
voice as a rule, has the side 0 and stays in the middle, where unlike errors of left and right would
blur it. What is panned hard pays: the side's error is heard in the silent channel too. Log-mel
distance after the embedded codec (two slots, six seconds of two voices), left and right then mid
and side: of the side 1.37 and 0.88 where the voices stand a little apart; of the channels 0.32 and
1.60 where each has its own side. Such songs want `stereo: left_right`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from distill.audio.codec_format import CodecFormat
from distill.codecs import Codec, CodecSettings, check_codes, check_wave
from distill.config.settings import part
from distill.errors import SettingsError
from distill.folders import sha256_bytes
from distill.songs import TRACKS
from distill.writing.sampling import Sampling


@dataclass(frozen=True)
class Settings:
    """`codec`: of every stream. `tracks`: of a song's, in the order of their slots."""

    codec: CodecSettings = part("codecs")
    tracks: tuple[str, ...] = ("vocals", "accompaniment")
    channels: int = 1  # of each track; 2: stereo by a mono codec
    stereo: Literal["mid_side", "left_right"] = "mid_side"

    def __post_init__(self) -> None:
        if isinstance(self.codec, Settings):
            raise SettingsError("codec is itself of kind tracks; name the codec of one stream")
        twice = len(set(self.tracks)) < len(self.tracks)
        if not self.tracks or twice or set(self.tracks) - set(TRACKS):
            given, known = ", ".join(self.tracks) or "none", ", ".join(TRACKS)
            raise SettingsError(f"tracks are {given}; give one or more of {known}, each once")
        if self.channels not in (1, 2):
            raise SettingsError(f"channels is {self.channels}; give 1, or 2 for stereo")

    @property
    def terms(self) -> str:
        return self.codec.terms

    @property
    def format(self) -> CodecFormat:
        """The codec's, with its slots once a stream. SettingsError for stereo of a stereo codec."""
        stream = self.codec.format
        if self.channels == 2 and stream.channels != 1:
            raise SettingsError("channels is 2 and the codec speaks stereo itself; set channels: 1")
        streams = len(self.tracks) * self.channels
        return dataclasses.replace(
            stream,
            slot_sizes=tuple(size for size in stream.slot_sizes for _ in range(streams)),
            channels=stream.channels * streams,
            tracks=self.tracks,
            streams=streams,
        )

    @property
    def sampling(self) -> Sampling:
        """The codec's, whose levels all streams share."""
        return self.codec.sampling

    def load(self) -> TracksCodec:
        """The codec with its weights, which all streams share. Raises what `codec` raises."""
        mid_side = self.channels == 2 and self.stereo == "mid_side"
        return TracksCodec(self.codec.load(), self.format, mid_side)


class TracksCodec:
    """distill.codecs.Codec over another, once a stream."""

    def __init__(self, codec: Codec, format: CodecFormat, mid_side: bool):
        self.codec, self.format, self.mid_side = codec, format, mid_side
        words = f"tracks 1 {codec.fingerprint} {format.tracks} {format.streams} {mid_side}"
        self.fingerprint = sha256_bytes(words.encode())

    @property
    def device(self) -> torch.device:
        return self.codec.device

    def to(self, device: torch.device | str) -> TracksCodec:
        self.codec.to(device)
        return self

    def encode(self, wave_CW: Tensor) -> Tensor:
        check_wave(wave_CW, self.format)
        streams = self._streams(wave_CW).chunk(self.format.streams)
        encode_many = getattr(self.codec, "encode_many", None)  # side by side on a GPU
        codes = encode_many(streams) if encode_many else [*map(self.codec.encode, streams)]
        return torch.stack(codes, -1).flatten(1)

    def decode(self, codes_FS: Tensor, samples: int | None = None) -> Tensor:
        check_codes(codes_FS, self.format)
        count = self.format.streams
        streams = [codes_FS[:, stream::count].contiguous() for stream in range(count)]
        waves = [self.codec.decode(stream_FS, samples) for stream_FS in streams]
        return self._channels(torch.cat(waves))

    def codebooks(self) -> list[Tensor]:
        return [book_CD for book_CD in self.codec.codebooks() for _ in range(self.format.streams)]

    def _streams(self, wave_CW: Tensor) -> Tensor:
        """Left and right of each track as mid and side."""
        if not self.mid_side:
            return wave_CW
        left_CW, right_CW = wave_CW[0::2], wave_CW[1::2]
        return torch.stack([(left_CW + right_CW) / 2, (left_CW - right_CW) / 2], 1).flatten(0, 1)

    def _channels(self, streams_CW: Tensor) -> Tensor:
        """And back: left is mid + side, right is mid - side."""
        if not self.mid_side:
            return streams_CW
        mid_CW, side_CW = streams_CW[0::2], streams_CW[1::2]
        return torch.stack([mid_CW + side_CW, mid_CW - side_CW], 1).flatten(0, 1)
