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
import hashlib
import io
import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from distill.audio import files as audio_files
from distill.audio import stems
from distill.codecs import Codec
from distill.errors import DistillError, FitError, FolderError, SongError
from distill.folders import cache_folder, package_path, sha256_bytes, sha256_files, write_atomic
from distill.runtime import engines, ranks
from distill.runtime.devices import full_float32
from distill.runtime.workers import ONE_THREAD, Died, Local
from distill.songs import Song
from distill.writing import passage_index
from distill.writing.passage_index import PassageIndex, Write
from distill.writing.prompts import Coded, Fits, Passage, WritingSettings, passages

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
    entries = _entries(songs, codec)
    missing = {entry.path: entry for entry in entries if not entry.path.exists()}
    _fill([*missing.values()], codec, processes)
    for entry in entries:
        yield torch.from_numpy(np.load(entry.path, allow_pickle=False).astype(np.int64))


def encode_shared(songs: Sequence[Song], codec: Codec) -> None:
    """Encodes what the cache lacks of these, each process of a run its share; all must call it."""
    if ranks.processes() == 1:
        return
    entries = {entry.path: entry for entry in _entries(songs, codec)}
    missing = [entry for path, entry in entries.items() if not path.exists()]
    ranks.meet()  # nobody begins before all have looked
    _encode(ranks.share(missing), codec)
    ranks.meet()


class _Entry(NamedTuple):
    """One song's codes: the files they are made from, and where they are kept."""

    files: tuple[str, ...]
    path: Path


def _entries(songs: Sequence[Song], codec: Codec) -> list[_Entry]:
    """Where the codes of each song are kept; files that did not change are not hashed again."""
    files = [stems.files(song, codec.format) for song in songs]
    every = [*dict.fromkeys(itertools.chain.from_iterable(files))]
    contents = dict(zip(every, sha256_files(every), strict=True))
    return [_Entry(own, _kept_at([contents[file] for file in own], own, codec)) for own in files]


def _kept_at(contents: Sequence[str], files: Sequence[str], codec: Codec) -> Path:
    tracks = codec.format.tracks or ("audio",)
    rows = zip(tracks, files, contents, strict=True)
    words = [f"{track} {content} {audio_files.decoder(file)}" for track, file, content in rows]
    key = sha256_bytes(" ".join([*words, codec.fingerprint, str(codec.format.slots)]).encode())
    return cache_folder() / "codes" / key[:2] / f"{key}.npy"


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
TokensOf = Callable[[Passage, int], int]  # of a passage and its frames


def code(
    songs: Sequence[Song],
    codec: Codec,
    longest: int,
    writing: WritingSettings,
    fits: Fits = lambda passage: True,
) -> Iterator[Coded]:
    """Every passage of every song with its codes, song after song; timed ones are cut so that they
    fit. SongError when there is none."""
    nothing = True
    for song, codes_FS in zip(songs, codes_of_all(songs, codec), strict=True):
        for passage in passages(song, codec.format.frame_rate, longest, writing, fits):
            stop = len(codes_FS) if passage.stop < 0 else min(passage.stop, len(codes_FS))
            if stop < passage.stop - 1:
                fault = f"its times reach frame {passage.stop}, its audio has {len(codes_FS)}"
                raise SongError(f"song {song.id}: {fault}; check its times")
            own_FS = codes_FS[passage.start : stop]
            if len(own_FS) < passage.frames:  # rounding promised a frame that the audio lacks
                own_FS = torch.cat([own_FS, own_FS[-1:]])
            yield Coded(passage, own_FS)
            nothing = False
    if nothing:
        raise SongError("there is no song to sing; name a source that holds some")


def fitting(
    coded: Iterable[Coded], tokens_of: TokensOf, tokens: int, frame_rate: float, aside: list[str]
) -> Iterator[Coded]:
    """Passages that fit a row of `tokens`; to `aside` go a line on each that does not, and one on
    the share of the song (seconds) that is lost with them. FitError when that is most of it."""
    total = lost = 0
    for item in coded:
        needed = tokens_of(item.passage, len(item.codes_FS))
        if needed <= tokens:
            yield item
        else:
            words = f"needs {needed} tokens, a row holds {tokens}; set aside"
            aside.append(f"{item.passage.id}: {words}")
            lost += len(item.codes_FS)
        total += len(item.codes_FS)
    if 2 * lost > total:
        share = f"{100 * lost / total:.0f} % of the song ({aside[0]}, and {len(aside) - 1} more)"
        ways = "raise packing.row_tokens, take fewer slots, or give line or word times"
        raise FitError(f"rows of {tokens} tokens cannot hold {share}; {ways}")
    if lost:
        seconds = f"{lost / frame_rate:.1f} of {total / frame_rate:.1f} s ({lost / total:.1%})"
        aside.append(f"{seconds} of the song fit no row and are left out")


Make = Callable[[list[str]], Iterable[Coded]]


def indexed(
    songs: Sequence[Song],
    codec: Codec,
    depends: Sequence[object],
    make: Make,
    write: Write,
    writing: WritingSettings,
) -> PassageIndex:
    """The passages that `make` makes of songs, from the cache where it has them.

    depends: what they depend on beside songs, codec and writing settings. `make` adds a line on
    what it sets aside to the list it is given. Of several processes the first writes them; all must
    call it.
    """
    folder = cache_folder() / "passages" / _key(songs, codec, [*depends, writing])

    def build() -> None:
        if passage_index.opened(folder) is None:
            remarks: list[str] = []
            sizes = codec.format.slot_sizes
            passage_index.build(folder, make(remarks), write, sizes, writing, remarks)

    ranks.from_first(build)
    index = passage_index.opened(folder)
    if index is None:
        raise FolderError(f"{folder}: was written and cannot be read back; look at this disk")
    return index


@functools.cache
def _writing_code() -> str:
    """One hash of the code and the lexicon that make passages of songs: none is kept past them."""
    package = Path(__file__).resolve().parent
    files = [package / "coded_songs.py", package / "songs.py"]
    folders = (package / "writing", package / "lyrics", package_path("lexicon"))
    files += [p for folder in folders for p in sorted(folder.iterdir()) if p.suffix != ".md"]
    return sha256_bytes("".join(sha256_files(p for p in files if p.is_file())).encode())


def _key(songs: Sequence[Song], codec: Codec, depends: Sequence[object]) -> str:
    """The sha256 of all that passages depend on. Where a song's files lie is not among it."""
    words = [_writing_code(), codec.fingerprint, codec.format, *depends]
    digest = hashlib.sha256(repr(words).encode())
    for song, entry in zip(songs, _entries(songs, codec), strict=True):
        told = replace(song.with_tracks({}), facts=(), credit="", source="", licence="", group="")
        digest.update(f"{told} {entry.path.stem}\n".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
