"""Copies of songs that are found, strangers that are falsely paired, and what it costs.

    python bench/duplicates.py --songs songs/manifest.jsonl [MORE ...] --count 1000

Songs of the manifests are the originals; where they are fewer than --count, the longest are cut at
a line into two recordings with other words and notes. Each is copied once in every way of
MUTATIONS, and the step looks at originals and the copies of one way together (so that no copy is
found through a milder one), then at everything at once, sound and words each by themselves. A copy
is found when it is in its original's group; a song is falsely paired when its group holds another
original.
"""

from __future__ import annotations

import argparse
import io
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from distill.curation.steps import Item, Sound
from distill.curation.steps.duplicates import NAME, Settings
from distill.songs import Line, Section, Song, read_manifest

Wave = NDArray[np.float32]
Copy = Callable[[Wave, int], Sound]
Reword = Callable[[list[str], np.random.Generator], list[str]]
SHORTEST_HALF_SECONDS = 6.0


# --- copies of a recording ------------------------------------------------------------------------
def coded(kbps: int, rate: int, format: str = "MP3", subtype: str | None = None) -> Copy:
    """Encoded at this sample rate and decoded again.

    MP3 holds its bit rate; Vorbis is set by quality.
    """

    def copy(wave: Wave, from_rate: int) -> Sound:
        most, least = (320, 32) if rate >= 32000 else (160, 8)  # MPEG-1 and MPEG-2
        # libsndfile's scale from 0 (best) to 1
        level: dict[str, object] = {"compression_level": (most - kbps) / (most - least)}
        level |= {"bitrate_mode": "CONSTANT"} if format == "MP3" else {}
        kind: dict[str, object] = {"format": format, "subtype": subtype}
        file = io.BytesIO()
        soundfile.write(file, soxr.resample(wave, from_rate, rate), rate, **kind, **level)
        sent_kbps = file.tell() * 8e-3 / (len(wave) / from_rate)
        SENT.setdefault(f"{subtype or format} {kbps}", []).append(sent_kbps)
        file.seek(0)
        again, heard_rate = soundfile.read(file, dtype="float32", always_2d=True)
        return Sound(np.ascontiguousarray(again.T), heard_rate)

    return copy


SENT: dict[str, list[float]] = {}  # kb/s as measured


def cut(first: float, last: float) -> Copy:
    """Without these shares of the song at its start and end."""

    def copy(wave: Wave, rate: int) -> Sound:
        kept = slice(int(first * len(wave)), len(wave) - int(last * len(wave)))
        return Sound(wave[None, kept], rate)

    return copy


def later(seconds: float) -> Copy:
    return lambda wave, rate: Sound(np.pad(wave, (round(seconds * rate), 0))[None], rate)


def gain(factor: float) -> Copy:
    return lambda wave, rate: Sound(np.clip(factor * wave, -1, 1)[None], rate)


def all_at_once(wave: Wave, rate: int) -> Sound:
    trimmed = cut(0.05, 0.05)(wave, rate).wave_CW[0]
    return coded(64, 22050)(np.float32(0.9) * np.pad(trimmed, (round(1.013 * rate), 0)), rate)


def edited(wave: Wave, rate: int) -> Sound:
    """A fifth of the song taken out of its middle."""
    before, after = wave[: int(0.4 * len(wave))], wave[int(0.6 * len(wave)) :]
    return Sound(np.concatenate([before, after])[None], rate)


MUTATIONS: dict[str, Copy] = {
    "MP3, 64 kb/s": coded(64, 22050),
    "MP3, 128 kb/s": coded(128, 22050),
    "MP3, 320 kb/s": coded(320, 44100),
    "Vorbis": coded(64, 22050, "OGG", "VORBIS"),
    "gain +10 %": gain(1.1),
    "gain -10 %": gain(0.9),
    "1 s later": later(1.0),
    "1.013 s later": later(1.013),
    "ends trimmed by 10 %": cut(0.1, 0.1),
    "trimmed, 1.013 s later, -10 %, MP3 64 kb/s": all_at_once,
    "a fifth taken out": edited,
    "an excerpt: the middle third": cut(1 / 3, 1 / 3),
}


# --- copies of lyrics -----------------------------------------------------------------------------
def misheard(share: float) -> Reword:
    """This share of the words is another one."""

    def copy(lines: list[str], generator: np.random.Generator) -> list[str]:
        words = [line.split() for line in lines]
        indices = [(row, at) for row, line in enumerate(words) for at in range(len(line))]
        for n in generator.permutation(len(indices))[: round(share * len(indices))]:
            row, at = indices[n]
            words[row][at] = f"mis{generator.integers(10**6)}"
        return [" ".join(line) for line in words]

    return copy


def shouted(lines: list[str], _: np.random.Generator) -> list[str]:
    return [f"{line.upper()}!" for line in [*lines, *lines[:2]]]


REWORDED: dict[str, Reword] = {
    "capitals, marks, first two lines sung twice": shouted,
    "5 % of words misheard": misheard(0.05),
    "10 % of words misheard": misheard(0.1),
    "15 % of words misheard": misheard(0.15),
    "a quarter of the lines missing": lambda lines, _: lines[len(lines) // 4 :],
    "a half of the lines missing": lambda lines, _: lines[len(lines) // 2 :],
}


# --- originals ------------------------------------------------------------------------------------
class Original(NamedTuple):
    """A recording, or a part of one (seconds)."""

    song: Song
    start: float
    end: float
    lines: tuple[str, ...]


def originals(manifests: Sequence[str], count: int) -> list[Original]:
    """Songs in order; from the longest on cut into two where that makes up the number."""
    songs = []
    for number, manifest in enumerate(manifests):
        for song in read_manifest(manifest):
            seconds = soundfile.info(str(song.audio)).duration
            lines = tuple(line.text for line in song.lines)
            songs.append(Original(replace(song, id=f"{number}/{song.id}"), 0.0, seconds, lines))
    songs = songs[:count]
    songs.sort(key=lambda original: -original.end)
    recordings: list[Original] = []
    for number, original in enumerate(songs):
        left = len(songs) - number  # songs not looked at yet, this one counted
        enough = len(recordings) + left >= count
        recordings += [original] if enough else halves(original)
    if len(recordings) < count:
        sys.exit(f"bench: the manifests make {len(recordings)} recordings, not {count}; name more")
    return sorted(recordings, key=lambda original: original.song.id)


def halves(original: Original) -> Iterator[Original]:
    """Both parts of a song, cut where a line starts near its middle.

    The song itself if a part would be too short, or if a line is in both: a chorus that returns is
    the same sound twice, and finding that would be no mistake.
    """
    song, _, seconds, lines = original
    starts = [float(line.start or 0.0) for line in song.lines]
    at = min(range(len(starts)), key=lambda n: abs(starts[n] - seconds / 2))
    shared = set(lines[:at]) & set(lines[at:])
    if shared or min(starts[at], seconds - starts[at]) < SHORTEST_HALF_SECONDS:
        yield original
        return
    yield Original(replace(song, id=f"{song.id}/a"), 0.0, starts[at], lines[:at])
    yield Original(replace(song, id=f"{song.id}/b"), starts[at], seconds, lines[at:])


def song_of(id: str, lines: Sequence[str]) -> Song:
    """A song of these words, without times."""
    return Song(id, (Section("verse", tuple(Line(line) for line in lines)),))


# --- the campaign ---------------------------------------------------------------------------------
@dataclass
class Spent:
    """CPU seconds, seconds of sound, and the bytes of every fingerprint."""

    cpu: float = 0.0
    sound: float = 0.0
    bytes: list[int] = field(default_factory=list)


def fingerprinted(original: Original, step: Settings, spent: Spent) -> dict[str, Item]:
    """The original ("") and its copies, fingerprinted."""
    song, start, end, _ = original
    wave, rate = soundfile.read(str(song.audio), dtype="float32", always_2d=True)
    wave = wave.mean(1)[int(start * rate) : int(end * rate)]
    items = {}
    for name, mutate in {"": gain(1.0), **MUTATIONS}.items():
        sound = mutate(wave, rate)
        id = f"{song.id} | {name}" if name else song.id
        item = Item(song_of(id, ()), {"audio": sound})
        began = time.process_time()
        item = step.curate(item)
        spent.cpu += time.process_time() - began
        spent.sound += sound.seconds
        spent.bytes.append(len(item.traces[NAME]["peaks"]))
        items[name] = replace(item, tracks={})
    return items


def grouped(items: Sequence[Item], step: Settings) -> tuple[set[str], set[str], float]:
    """(copies in their original's group, originals grouped with another original, CPU seconds)."""
    began = time.process_time()
    curated = step.curate_all(items)
    seconds = time.process_time() - began
    groups: dict[str, list[str]] = {}
    for item in curated:
        groups.setdefault(item.song.group or item.song.id, []).append(item.song.id)
    copies, false = set(), set()
    for ids in groups.values():
        roots = {id.partition(" | ")[0] for id in ids}
        copies |= {id for id in ids if " | " in id and id.partition(" | ")[0] in ids}
        if len(roots) > 1:
            false |= roots
    return copies, false, seconds


def show(name: str, copies: set[str], of: int, false: set[str]) -> None:
    """A row of the table."""
    recall = f"{100 * len(copies) / of:.1f}"
    print(f"| {name} | {len(copies)} | {of} | {recall} | {len(false)} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Recall and false pairs of distill/curation/steps/duplicates.py."
    )
    parser.add_argument("--songs", nargs="+", required=True, metavar="MANIFEST")
    parser.add_argument("--count", type=int, default=1000, help="recordings to copy (1000)")
    options = parser.parse_args()
    songs = originals(options.songs, options.count)
    by_sound = Settings(lyrics_jaccard=None, keep="all")
    spent, items = Spent(), []
    for n, original in enumerate(songs, 1):
        items.append(fingerprinted(original, by_sound, spent))
        if n % 50 == 0:
            print(f"{n} of {len(songs)} songs copied", file=sys.stderr, flush=True)
    lengths = [original.end - original.start for original in songs]
    shortest, longest, hours = min(lengths), max(lengths), sum(lengths) / 3600
    print(f"{len(songs)} recordings of {shortest:.0f} to {longest:.0f} s, {hours:.1f} h\n")
    print("| copies by | found | of | recall % | songs falsely paired |\n|---|---|---|---|---|")
    wrong = 0
    for name in MUTATIONS:
        pairs = [item for both in items for item in (both[""], both[name])]
        copies, false, _ = grouped(pairs, by_sound)
        wrong += len(false) > 1 or ("excerpt" not in name and len(copies) < 0.99 * len(songs))
        show(name, copies, len(songs), false)
    everything = [item for of_song in items for item in of_song.values()]
    copies, false, seconds = grouped(everything, by_sound)
    show("all of these in one pool", copies, len(everything) - len(songs), false)
    by_words(songs)
    print(f"\nfingerprints: {spent.sound / spent.cpu:.0f} s of sound per CPU second")
    print(f"pairing: {len(everything):,} recordings in {seconds:.1f} CPU seconds")
    kilobytes, rate = np.mean(spent.bytes) / 1e3, sum(spent.bytes) / spent.sound
    print(f"kept for a song: {kilobytes:.1f} kB ({rate:.0f} bytes a second)")
    bit_rates = [f"{name}: {np.mean(rates):.0f} kb/s" for name, rates in SENT.items()]
    print(f"bit rates: {', '.join(bit_rates)}")
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB")
    return 1 if wrong else 0


def by_words(songs: Sequence[Original]) -> None:
    """A row of the table for every way of REWORDED."""
    step = Settings(audio_share=None, keep="all")
    generator = np.random.default_rng(3)
    unchanged = [song_of(song.id, lines) for song, _, _, lines in songs]
    for name, reword in REWORDED.items():
        reworded = [
            song_of(f"{song.id} | {name}", reword(list(lines), generator))
            for song, _, _, lines in songs
        ]
        copies, false, _ = grouped([Item(song) for song in [*unchanged, *reworded]], step)
        show(f"words: {name}", copies, len(songs), false)


if __name__ == "__main__":
    sys.exit(main())
