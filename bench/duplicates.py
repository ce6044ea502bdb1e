"""Do copies of songs find each other, do strangers stay apart, and what does it cost?

    python bench/duplicates.py --songs songs/manifest.jsonl [MORE ...] --count 1000

Songs of the manifests are the originals; where they are fewer than --count, the longest are cut at
a line into two recordings with other words and notes. Each is copied once in every way of
MUTATIONS, and the step looks at originals and the copies of one way together (so that no copy is
found through a milder one), then at everything at once. Sound and words are judged apart. A copy is
found when it is in its original's group; a song is falsely paired when its group holds another
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
from typing import Any, NamedTuple

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from distill.curation.steps import Item, Sound
from distill.curation.steps.duplicates import NAME, Settings
from distill.songs import Line, Section, Song, read_manifest

Wave = NDArray[np.float32]
SHORTEST_HALF_SECONDS = 6.0


# --- copies of a recording ------------------------------------------------------------------------
def coded(
    kbps: int, rate: int, format: str = "MP3", subtype: str | None = None
) -> Callable[[Wave, int], Sound]:
    """Encoded at this sample rate and decoded again. MP3 holds its bit rate; Vorbis is set by
    quality."""

    def copy(wave: Wave, from_rate: int) -> Sound:
        most, least = (320, 32) if rate >= 32000 else (160, 8)  # MPEG-1 and MPEG-2
        # libsndfile's scale from 0 (best) to 1
        how: dict[str, Any] = {"compression_level": (most - kbps) / (most - least)}
        how |= {"bitrate_mode": "CONSTANT"} if format == "MP3" else {}
        file = io.BytesIO()
        soundfile.write(
            file, soxr.resample(wave, from_rate, rate), rate, format=format, subtype=subtype, **how
        )
        SENT.setdefault(f"{subtype or format} {kbps}", []).append(
            file.tell() * 8e-3 / (len(wave) / from_rate)
        )
        file.seek(0)
        again, heard_rate = soundfile.read(file, dtype="float32", always_2d=True)
        return Sound(np.ascontiguousarray(again.T), heard_rate)

    return copy


SENT: dict[str, list[float]] = {}  # kb/s as measured


def cut(first: float, last: float) -> Callable[[Wave, int], Sound]:
    """Without these shares of the song at its start and end."""
    return lambda wave, rate: Sound(
        wave[None, int(first * len(wave)) : len(wave) - int(last * len(wave))], rate
    )


def later(seconds: float) -> Callable[[Wave, int], Sound]:
    return lambda wave, rate: Sound(np.pad(wave, (round(seconds * rate), 0))[None], rate)


def gain(factor: float) -> Callable[[Wave, int], Sound]:
    return lambda wave, rate: Sound(np.clip(factor * wave, -1, 1)[None], rate)


def all_at_once(wave: Wave, rate: int) -> Sound:
    trimmed = cut(0.05, 0.05)(wave, rate).wave_CW[0]
    return coded(64, 22050)(np.float32(0.9) * np.pad(trimmed, (round(1.013 * rate), 0)), rate)


def edited(wave: Wave, rate: int) -> Sound:
    """A fifth of the song taken out of its middle."""
    return Sound(
        np.concatenate([wave[: int(0.4 * len(wave))], wave[int(0.6 * len(wave)) :]])[None], rate
    )


MUTATIONS: dict[str, Callable[[Wave, int], Sound]] = {
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
def misheard(share: float) -> Callable[[list[str], np.random.Generator], list[str]]:
    """This share of the words is another one."""

    def copy(lines: list[str], draw: np.random.Generator) -> list[str]:
        words = [line.split() for line in lines]
        places = [(row, at) for row, line in enumerate(words) for at in range(len(line))]
        for n in draw.permutation(len(places))[: round(share * len(places))]:
            row, at = places[n]
            words[row][at] = f"mis{draw.integers(10**6)}"
        return [" ".join(line) for line in words]

    return copy


REWORDED: dict[str, Callable[[list[str], np.random.Generator], list[str]]] = {
    "capitals, marks, first two lines sung twice": lambda lines, _: [
        f"{x.upper()}!" for x in [*lines, *lines[:2]]
    ],
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
    whole = []
    for number, manifest in enumerate(manifests):
        for song in read_manifest(manifest):
            seconds = soundfile.info(str(song.audio)).duration
            lines = tuple(line.text for line in song.lines)
            whole.append(Original(replace(song, id=f"{number}/{song.id}"), 0.0, seconds, lines))
    whole = whole[:count]
    whole.sort(key=lambda one: -one.end)
    found = []
    for place, one in enumerate(whole):
        left = len(whole) - place  # songs not looked at yet, this one counted
        found += list(halves(one)) if len(found) + left < count else [one]
    if len(found) < count:
        sys.exit(f"bench: the manifests make {len(found)} recordings, not {count}; name more")
    return sorted(found, key=lambda one: one.song.id)


def halves(one: Original) -> Iterator[Original]:
    """Both parts of a song, cut where a line starts near its middle; the song itself if a part
    would be too short.

    Or if a line is in both: a chorus that returns is the same sound twice, and finding that would
    be no mistake.
    """
    starts = [float(line.start or 0.0) for line in one.song.lines]
    at = min(range(len(starts)), key=lambda n: abs(starts[n] - one.end / 2))
    shared = set(one.lines[:at]) & set(one.lines[at:])
    if shared or min(starts[at], one.end - starts[at]) < SHORTEST_HALF_SECONDS:
        yield one
        return
    parts = (("a", 0.0, starts[at], one.lines[:at]), ("b", starts[at], one.end, one.lines[at:]))
    for name, start, end, lines in parts:
        yield Original(replace(one.song, id=f"{one.song.id}/{name}"), start, end, lines)


def told(id: str, lines: Sequence[str]) -> Song:
    """A song of these words, without times."""
    return Song(id, (Section("verse", tuple(Line(line) for line in lines)),))


# --- the campaign ---------------------------------------------------------------------------------
@dataclass
class Spent:
    """CPU seconds and sound seconds."""

    cpu: float = 0.0
    sound: float = 0.0
    bytes: list[int] = field(default_factory=list)


def heard(one: Original, step: Settings, spent: Spent) -> dict[str, Item]:
    """The original ("") and its copies, fingerprinted."""
    wave, rate = soundfile.read(str(one.song.audio), dtype="float32", always_2d=True)
    wave = wave.mean(1)[int(one.start * rate) : int(one.end * rate)]
    items = {}
    for name, mutate in {"": gain(1.0), **MUTATIONS}.items():
        sound = mutate(wave, rate)
        item = Item(told(f"{one.song.id}{'' if not name else ' | ' + name}", ()), {"audio": sound})
        began = time.process_time()
        item = step.curate(item)
        spent.cpu += time.process_time() - began
        spent.sound += sound.seconds
        spent.bytes.append(len(item.traces[NAME]["peaks"]))
        items[name] = replace(item, tracks={})
    return items


def judged(items: Sequence[Item], step: Settings) -> tuple[set[str], set[str], float]:
    """(copies in their original's group, originals in a group with another original, CPU seconds)."""
    began = time.process_time()
    done = step.curate_all(items)
    seconds = time.process_time() - began
    groups: dict[str, list[str]] = {}
    for item in done:
        groups.setdefault(item.song.group or item.song.id, []).append(item.song.id)
    found, false = set(), set()
    for ids in groups.values():
        roots = {id.partition(" | ")[0] for id in ids}
        found |= {id for id in ids if " | " in id and id.partition(" | ")[0] in ids}
        if len(roots) > 1:
            false |= roots
    return found, false, seconds


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Recall and false pairs of distill/curation/duplicates.py."
    )
    parser.add_argument("--songs", nargs="+", required=True, metavar="MANIFEST")
    parser.add_argument("--count", type=int, default=1000, help="recordings to copy (1000)")
    asked = parser.parse_args()
    songs = originals(asked.songs, asked.count)
    by_sound, by_words = (
        Settings(lyrics_jaccard=None, keep="all"),
        Settings(audio_share=None, keep="all"),
    )
    spent = Spent()
    items = []
    for n, one in enumerate(songs, 1):
        items.append(heard(one, by_sound, spent))
        if n % 50 == 0:
            print(f"{n} of {len(songs)} songs copied", file=sys.stderr, flush=True)
    lengths = [one.end - one.start for one in songs]
    print(
        f"{len(songs)} recordings of {min(lengths):.0f} to {max(lengths):.0f} s, "
        f"{sum(lengths) / 3600:.1f} h\n"
    )
    print("| copies by | found | of | recall % | songs falsely paired |\n|---|---|---|---|---|")
    wrong = 0
    for name in MUTATIONS:
        found, false, _ = judged(
            [item for both in items for item in (both[""], both[name])], by_sound
        )
        wrong += len(false) > 1 or ("excerpt" not in name and len(found) < 0.99 * len(songs))
        print(
            f"| {name} | {len(found)} | {len(songs)} | {100 * len(found) / len(songs):.1f} | "
            f"{len(false)} |",
            flush=True,
        )
    everything = [item for copies in items for item in copies.values()]
    found, false, seconds = judged(everything, by_sound)
    of = len(everything) - len(songs)
    print(
        f"| all of these in one pool | {len(found)} | {of} | {100 * len(found) / of:.1f} | "
        f"{len(false)} |"
    )
    draw = np.random.default_rng(3)
    for name, reword in REWORDED.items():
        copies = [told(f"{one.song.id} | {name}", reword(list(one.lines), draw)) for one in songs]
        pool = [Item(song) for song in [*(told(one.song.id, one.lines) for one in songs), *copies]]
        found, false, _ = judged(pool, by_words)
        print(
            f"| words: {name} | {len(found)} | {len(songs)} | {100 * len(found) / len(songs):.1f} "
            f"| {len(false)} |"
        )
    print(f"\nfingerprints: {spent.sound / spent.cpu:.0f} s of sound per CPU second")
    print(f"pairing: {len(everything):,} recordings in {seconds:.1f} CPU seconds")
    print(
        f"kept for a song: {np.mean(spent.bytes) / 1e3:.1f} kB "
        f"({sum(spent.bytes) / spent.sound:.0f} bytes a second)"
    )
    print(
        "bit rates: "
        + ", ".join(f"{name}: {np.mean(rates):.0f} kb/s" for name, rates in SENT.items())
    )
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
