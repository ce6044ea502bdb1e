"""From songs to coded passages, with the codes kept on disk.

A cache entry is named by what its codes depend on: the audio file's sha256, the decoder and its version, the codec's
fingerprint and slots. So stale codes are never read again; deleting the cache costs time and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from distill import audio
from distill.errors import FitError, SongError
from distill.folders import sha256_bytes, sha256_file, write_atomic
from distill.prompts import Coded, WritingSettings, passages, write
from distill.songs import Song
from distill.vocabulary import AudioVocabulary


def cache_folder() -> Path:
    """$DISTILL_CACHE, else ~/.cache/distill."""
    return Path(os.environ.get("DISTILL_CACHE") or Path.home() / ".cache" / "distill")


def codes_of(song: Song, codec: Any) -> Tensor:
    """codes_FS of a song's audio, from the cache where they are. Raises SongError for a song without audio."""
    if song.audio is None:
        raise SongError(f"song {song.id}: it has no audio to encode; give it a recording or leave it out")
    decoder = f"soundfile {soundfile.__version__} {soundfile.__libsndfile_version__}"
    key = sha256_bytes(
        f"{sha256_file(song.audio)} {decoder} {codec.fingerprint} {codec.format.slots}".encode()
    )
    path = cache_folder() / "codes" / key[:2] / f"{key}.npy"
    if path.exists():
        return torch.from_numpy(np.load(path, allow_pickle=False).astype(np.int64))
    wave_CW = audio.read(song.audio, codec.format.sample_rate, codec.format.channels)
    codes_FS = codec.encode(wave_CW).cpu()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, _npy(codes_FS))
    return codes_FS


def _npy(codes_FS: Tensor) -> bytes:
    import io

    buffer = io.BytesIO()
    np.save(buffer, codes_FS.numpy().astype(np.uint16 if int(codes_FS.max()) < 65536 else np.int32))
    return buffer.getvalue()


def code(songs: Sequence[Song], codec: Any, longest: int, writing: WritingSettings) -> list[Coded]:
    """Every passage of every song with its codes."""
    coded = []
    for song in songs:
        codes_FS = codes_of(song, codec)
        for passage in passages(song, codec.format.frame_rate, longest, writing):
            stop = len(codes_FS) if passage.stop < 0 else min(passage.stop, len(codes_FS))
            if stop < passage.stop - 1:
                raise SongError(
                    f"song {song.id}: its times reach frame {passage.stop}, its audio has {len(codes_FS)}; check its times"
                )
            coded.append(Coded(passage, _whole(codes_FS[passage.start : stop], passage.frames)))
    if not coded:
        raise SongError("there is no song to sing; name a source that holds some")
    return coded


def _whole(codes_FS: Tensor, frames: int) -> Tensor:
    """A last frame that rounding promised and the audio lacks is held."""
    return codes_FS if len(codes_FS) >= frames else torch.cat([codes_FS, codes_FS[-1:]])


def fitting(
    coded: Sequence[Coded], encode: Callable[[str], list[int]], vocabulary: AudioVocabulary, tokens: int
) -> tuple[list[Coded], list[str]]:
    """Passages that fit `tokens`, and one line for each that does not. Raises FitError when none does."""
    kept, aside = [], []
    for item in coded:
        needed = len(write(item.passage, item.codes_FS, encode, vocabulary))
        if needed <= tokens:
            kept.append(item)
        else:
            aside.append(f"{item.passage.id}: needs {needed} tokens, a row holds {tokens}; set aside")
    if not kept:
        raise FitError(
            f"no passage fits {tokens} tokens ({aside[0]}); raise packing.row_tokens or give line times"
        )
    return kept, aside
