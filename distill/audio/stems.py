"""Songs whose tracks are encoded apart: their files read side by side, their sound mixed.

A codec whose format names `tracks` (codecs/tracks.py) speaks all of them at once: the channels of
its wave_CW are those of the first track, then those of the second.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from distill.audio import files as audio_files
from distill.audio.codec_format import CodecFormat
from distill.errors import SongError
from distill.songs import Song

LOUDEST = 0.999  # of full scale, where a mix would pass it: what files.write turns a wave down to


def files(song: Song, format: CodecFormat) -> tuple[str, ...]:
    """The files a codec of this format hears. Raises SongError naming the track a song lacks."""
    tracks = format.tracks or ("audio",)
    for track in tracks:
        if track not in song.tracks:
            missing = "audio" if track == "audio" else f"{track} of its own"
            makes = "" if track == "audio" else " (curation step `separation` makes stems)"
            advice = f"give it a recording{makes} or leave it out"
            raise SongError(f"song {song.id}: it has no {missing} to encode; {advice}")
    return tuple(song.tracks[track] for track in tracks)


def read(paths: Sequence[str], format: CodecFormat) -> Tensor:
    """wave_CW of those files for the codec, short tracks filled up with silence; AudioError."""
    channels = format.channels // len(paths)
    waves = [audio_files.read(path, format.sample_rate, channels) for path in paths]
    longest = max(wave_CW.shape[1] for wave_CW in waves)
    return torch.cat([functional.pad(w_CW, (0, longest - w_CW.shape[1])) for w_CW in waves])


def apart(wave_CW: Tensor, format: CodecFormat) -> dict[str, Tensor]:
    """Each track's own channels; nothing where the codec knows no tracks."""
    if not format.tracks:
        return {}
    return dict(zip(format.tracks, wave_CW.chunk(len(format.tracks)), strict=True))


def mixed(wave_CW: Tensor, format: CodecFormat) -> Tensor:
    """The tracks as one song: their sum, turned down to LOUDEST where it passes full scale."""
    if len(format.tracks) < 2:
        return wave_CW
    mix_CW = torch.stack(wave_CW.chunk(len(format.tracks))).sum(0)
    peak = float(mix_CW.abs().max()) if mix_CW.numel() else 0.0
    return mix_CW if peak <= 1.0 else mix_CW * (LOUDEST / peak)
