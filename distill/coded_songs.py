"""From songs to coded passages, with the codes kept on disk.

A cache entry is named by what its codes depend on: the sha256 of the audio files and which tracks
they are, the decoder and resampler with their versions, the codec's fingerprint (its weights) and
slots. So stale codes are never read again; deleting the cache costs time and nothing else.

A song's codes appear whole or not at all, and a song that has them is not encoded again: work that
was interrupted goes on where it stopped. Files are decoded and resampled by threads ahead of the
codec. A codec with

    encode_many(waves) -> [codes_FS, ...]       the same codes as one by one

gets several songs together on a GPU, and works through their blocks side by side; nothing is ever
filled up to another song's length, since that would change its last codes. On a CPU the work is
done by processes of one thread each: convolutions over sound are too thin for threads to share
well, and a process of its own may keep its memory (KEEP_MEMORY). They cost seconds to start, so the
first song is encoded here, and the rest is shared out only where it will take longer than that.
"""

from __future__ import annotations

import functools
import io
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from distill.audio import files as audio_files
from distill.audio import stems
from distill.codecs import Codec
from distill.errors import DistillError, FitError, SongError
from distill.folders import cache_folder, sha256_bytes, sha256_file, write_atomic
from distill.lm.prompts import Coded, Encode, WritingSettings, passages, write
from distill.lm.vocabulary import AudioVocabulary
from distill.runtime import engines, ranks
from distill.runtime.devices import full_float32
from distill.runtime.workers import ONE_THREAD, Died, Local
from distill.songs import Song

AHEAD = 2  # songs decoded before the codec wants them, each by a thread
BATCH_SECONDS = 30.0  # of sound that encode_many gets at once
WORTHWHILE_SECONDS = 30.0  # of work on one thread, before processes are started for it
# glibc gives large tensors back to the kernel as soon as they are freed, and gets them again page
# by page, zeroed: for a network over sound a third of its time. A process that only encodes may
# keep them.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}


def codes_of(song: Song, codec: Codec) -> Tensor:
    """codes_FS of a song's audio, cached. Raises SongError for a song without audio."""
    return next(codes_of_all([song], codec, processes=0))


def codes_of_all(
    songs: Sequence[Song], codec: Codec, processes: int | None = None
) -> Iterator[Tensor]:
    """codes_FS of every song, in order; what the cache lacks is encoded first.

    `processes`: started for it (0: this one alone; None: as many as pay). SongError without audio,
    AudioError for a file that cannot be read.
    """
    entries = [_entry(song, codec) for song in songs]
    missing = {entry.path: entry for entry in entries if not entry.path.exists()}
    _fill([*missing.values()], codec, processes)
    for entry in entries:
        yield torch.from_numpy(np.load(entry.path, allow_pickle=False).astype(np.int64))


def encode_shared(songs: Sequence[Song], codec: Codec) -> None:
    """Encodes what the cache lacks of these, each process of a run its share; all must call it."""
    if ranks.processes() == 1:
        return
    entries = {entry.path: entry for entry in (_entry(song, codec) for song in songs)}
    missing = [entry for path, entry in entries.items() if not path.exists()]
    ranks.meet()  # nobody begins before all have looked
    _encode(ranks.share(missing), codec)
    ranks.meet()


class _Entry(NamedTuple):
    """One song's codes: the files they are made from, and where they are kept."""

    files: tuple[str, ...]
    path: Path


def _entry(song: Song, codec: Codec) -> _Entry:
    files = stems.files(song, codec.format)
    tracks = codec.format.tracks or ("audio",)
    pairs = zip(tracks, files, strict=True)
    words = [f"{track} {sha256_file(file)} {audio_files.decoder(file)}" for track, file in pairs]
    key = sha256_bytes(" ".join([*words, codec.fingerprint, str(codec.format.slots)]).encode())
    return _Entry(files, cache_folder() / "codes" / key[:2] / f"{key}.npy")


# --- what the cache lacks -------------------------------------------------------------------------
def _fill(entries: list[_Entry], codec: Codec, processes: int | None) -> None:
    """Encodes these: the shortest to learn the pace, then longest first, to end together."""
    engine = engines.chosen()
    if engine is not None and entries:
        _deal(entries, codec, engine)
        return
    if len(entries) < 2:
        _encode(entries, codec)
        return
    seconds = {entry: audio_files.seconds(entry.files[0]) for entry in entries}
    *rest, shortest = sorted(entries, key=lambda entry: -seconds[entry])
    began = time.perf_counter()
    _encode([shortest], codec)
    pace = (time.perf_counter() - began) * torch.get_num_threads() / seconds[shortest]
    if processes is None:
        pays = pace * sum(seconds[entry] for entry in rest) > WORTHWHILE_SECONDS
        processes = torch.get_num_threads() if pays and codec.device.type == "cpu" else 0
    if processes:
        _deal(rest, codec, Local(processes))
    else:
        _encode(rest, codec)


def _encode(entries: Iterable[_Entry], codec: Codec, ahead: int | None = None) -> None:
    if ahead is None:  # a GPU is fed by every core
        ahead = AHEAD if codec.device.type == "cpu" else max(AHEAD, os.cpu_count() or 1)
    for batch in _batches(_read_ahead(entries, codec, ahead), codec):
        waves = [wave_CW for _, wave_CW in batch]
        with full_float32():
            if len(waves) > 1 and hasattr(codec, "encode_many"):
                codes = codec.encode_many(waves)
            else:
                codes = [codec.encode(wave_CW) for wave_CW in waves]
        for (entry, _), codes_FS in zip(batch, codes, strict=True):
            entry.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(entry.path, _npy(codes_FS.cpu()))


def _deal(entries: Sequence[_Entry], codec: Codec, engine: engines.Engine) -> None:
    """The same by the workers of an engine; what they make goes through the cache."""
    device = codec.device
    work = functools.partial(_encode_alone, codec if device.type == "cpu" else codec.to("cpu"))
    environment = {**ONE_THREAD, **KEEP_MEMORY}
    try:
        for number, answer in engine.each(work, entries, "encoding", environment):
            if isinstance(answer, Died):
                file = entries[number].files[0]
                words = f"{file}: the process that encodes it dies, time and again ({answer.how})"
                raise DistillError(f"{words}; what is done is kept, leave it out and run again")
    finally:
        if device.type != "cpu":
            codec.to(device)


def _encode_alone(codec: Codec, entry: _Entry) -> None:
    torch.set_num_threads(1)
    _encode([entry], codec, ahead=0)


def _read_ahead(
    entries: Iterable[_Entry], codec: Codec, ahead: int
) -> Iterator[tuple[_Entry, Tensor]]:
    """Every entry with its sound at the codec's rate, in order; `ahead` of them wait at most."""
    with ThreadPoolExecutor(max(1, ahead)) as pool:
        waiting: deque[tuple[_Entry, Future[Tensor]]] = deque()
        for entry in entries:
            waiting.append((entry, pool.submit(stems.read, entry.files, codec.format)))
            if len(waiting) > ahead:
                first, sound = waiting.popleft()
                yield first, sound.result()
        while waiting:
            first, sound = waiting.popleft()
            yield first, sound.result()


def _batches(
    read: Iterable[tuple[_Entry, Tensor]], codec: Codec
) -> Iterator[list[tuple[_Entry, Tensor]]]:
    """Neighbours together on a GPU where the codec takes many; else one by one, as fast."""
    takes_many = hasattr(codec, "encode_many") and codec.device.type != "cpu"
    left = most = BATCH_SECONDS * codec.format.sample_rate if takes_many else 0
    batch: list[tuple[_Entry, Tensor]] = []
    for entry, wave_CW in read:
        if batch and wave_CW.shape[1] > left:
            yield batch
            batch, left = [], most
        batch.append((entry, wave_CW))
        left -= wave_CW.shape[1]
    if batch:
        yield batch


def _npy(codes_FS: Tensor) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, codes_FS.numpy().astype(np.uint16 if int(codes_FS.max()) < 65536 else np.int32))
    return buffer.getvalue()


# --- passages -------------------------------------------------------------------------------------
def code(
    songs: Sequence[Song], codec: Codec, longest: int, writing: WritingSettings
) -> list[Coded]:
    """Every passage of every song with its codes."""
    coded = []
    for song, codes_FS in zip(songs, codes_of_all(songs, codec), strict=True):
        for passage in passages(song, codec.format.frame_rate, longest, writing):
            stop = len(codes_FS) if passage.stop < 0 else min(passage.stop, len(codes_FS))
            if stop < passage.stop - 1:
                fault = f"its times reach frame {passage.stop}, its audio has {len(codes_FS)}"
                raise SongError(f"song {song.id}: {fault}; check its times")
            own_FS = codes_FS[passage.start : stop]
            if len(own_FS) < passage.frames:  # rounding promised a frame that the audio lacks
                own_FS = torch.cat([own_FS, own_FS[-1:]])
            coded.append(Coded(passage, own_FS))
    if not coded:
        raise SongError("there is no song to sing; name a source that holds some")
    return coded


def fitting(
    coded: Sequence[Coded], encode: Encode, vocabulary: AudioVocabulary, tokens: int
) -> tuple[list[Coded], list[str]]:
    """Passages that fit `tokens`, and a line on each that does not. FitError when none does."""
    kept, aside = [], []
    for item in coded:
        needed = len(write(item.passage, item.codes_FS, encode, vocabulary))
        if needed <= tokens:
            kept.append(item)
        else:
            words = f"needs {needed} tokens, a row holds {tokens}; set aside"
            aside.append(f"{item.passage.id}: {words}")
    if not kept:
        ways = "raise packing.row_tokens or give line times"
        raise FitError(f"no passage fits {tokens} tokens ({aside[0]}); {ways}")
    return kept, aside
