"""UltraStar, version 1.0.0 (https://usdx.eu/format): a karaoke file a song, its sound, and rights.

    folder/rights.csv
    folder/KEY.txt, KEY.flac, KEY.vocals.flac, KEY.accompaniment.flac

The source kind `folder` reads it back. Times fall on a grid of 15 / bpm seconds and pitches on
semitones. Notes become notes; where there are none for every word each word is a freestyle note,
and where not every word has its time, the line is one. Letters are divided over a word's notes so
that joined they spell it again. Lost are sections, facts, and who is how sure. Songs in which a
line has no times are left out.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from distill import lyrics
from distill.errors import SettingsError
from distill.exporters import LeftOut
from distill.exporters._files import each, new_folder, put, track_name
from distill.songs import Line, Note, Song, Word

MIDDLE_C = 60
BEAT = 15  # seconds at 1 bpm: the format counts in quarters of a beat
TOUCH_SECONDS = 1e-6  # what rounding may move a note past its word
VOWELS = re.compile(r"[aeiouyáàâäãåéèêëíìîïóòôöõøúùûüýœæ]+", re.IGNORECASE)
LANGUAGES = {
    "en": "English", "de": "German", "fr": "French", "es": "Spanish", "it": "Italian",
    "zh": "Chinese", "pt": "Portuguese", "nl": "Dutch", "pl": "Polish", "sv": "Swedish",
    "ja": "Japanese", "ko": "Korean",
}  # fmt: skip


def export(
    songs: Iterable[Song], folder: str | Path, bpm: float = 1500.0, link: bool = False
) -> list[LeftOut]:
    """Write songs as UltraStar files with their sound; gives back those without times. bpm: the
    grid, 1500 is 10 ms. Raises SettingsError outside 30 to 6000, FolderError as every exporter."""
    if not 30 <= bpm <= 6000:
        raise SettingsError(f"bpm is {bpm:g}; give 30 to 6000 (a grid of 15 / bpm seconds)")
    left: list[LeftOut] = []
    rights = [["file", "licence", "source", "credit"]]
    with new_folder(folder) as filling:
        for key, song in each(songs):
            if song.audio is None or not song.lines or None in [line.start for line in song.lines]:
                lacks = "no sound" if song.audio is None else "a line without times"
                left.append(LeftOut(song.id, f"has {lacks}, which UltraStar cannot hold"))
                continue
            files = {track: track_name(key, track, path) for track, path in song.tracks.items()}
            for track, path in song.tracks.items():
                put(path, filling / files[track], link)
            (filling / f"{key}.txt").write_text(text_of(song, files, bpm), encoding="utf-8")
            rights.append([files["audio"], song.licence, song.source, song.credit])
        with (filling / "rights.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rights)
    return left


def text_of(song: Song, files: Mapping[str, str], bpm: float) -> str:
    """The UltraStar file of a song whose lines all have times."""
    title, by, artist = song.credit.partition(";")[0].partition(" by ")
    if title in ("words", "timed"):  # no title, but others to be named
        title, by, artist = "", "", ""
    header = {
        "VERSION": "1.0.0",
        "TITLE": title if by else song.id,
        "ARTIST": artist if by else song.credit or "unknown",
        "MP3": files["audio"],
        "AUDIO": files["audio"],
        "VOCALS": files.get("vocals"),
        "INSTRUMENTAL": files.get("accompaniment"),
        "BPM": f"{bpm:g}",
        "GAP": "0",
        "GENRE": song.style,
        "LANGUAGE": LANGUAGES.get(song.language.lower().partition("-")[0]),
        "PROVIDEDBY": song.source,
    }
    rows = [f"#{name}:{' '.join(str(value).split())}" for name, value in header.items() if value]
    free = 0  # the first beat that is not sung yet
    for index, line in enumerate(song.lines):
        if index:
            rows.append(f"- {free}")
        for start, end, midi, letters in _notes(line):
            first = max(free, round(start * bpm / BEAT))
            free = max(first + 1, round(end * bpm / BEAT))
            kind, pitch = ("F", 0) if midi is None else (":", round(midi) - MIDDLE_C)
            rows.append(f"{kind} {first} {free - first} {pitch} {letters}")
    return "\n".join([*rows, "E", ""])


def _notes(line: Line) -> list[tuple[float, float, float | None, str]]:
    """(start, end, MIDI pitch, letters) of what is sung; a space before letters begins a word."""
    if [w for word in line.words for w in lyrics.words(word.text)] != lyrics.words(line.text):
        start = line.start or 0.0  # some words have no times: the line keeps them all
        return [(start, start + 1 if line.end is None else line.end, None, _plain(line.text))]
    groups = _by_word(line)
    # not one run of notes to each word
    if [word for word, _ in groups if word is not None] != list(line.words):
        return [(w.start, w.end, None, f" {_plain(w.text)}") for w in line.words]
    sung: list[tuple[float, float, float | None, str]] = []
    for word, notes in groups:
        begun = [bool(note.text) for note in notes]
        letters = ["~"] * len(notes) if word is None else spell(_plain(word.text), begun)
        sung += [(n.start, n.end, n.midi, text) for n, text in zip(notes, letters, strict=True)]
    return sung


def _by_word(line: Line) -> list[tuple[Word | None, list[Note]]]:
    """The notes of each word of a line."""
    groups: list[tuple[Word | None, list[Note]]] = []
    for note in line.notes:
        word = next((w for w in line.words if _within(w, note)), None)
        if groups and groups[-1][0] is word:
            groups[-1][1].append(note)
        else:
            groups.append((word, [note]))
    return groups


def _within(word: Word, note: Note) -> bool:
    return word.start - TOUCH_SECONDS <= note.start < word.end - TOUCH_SECONDS


def spell(word: str, begun: list[bool]) -> list[str]:
    """A word's letters over its notes, `~` where a syllable goes on:

    spell("gently", [True, False, True]) -> [" gent", "~", "ly"]"""
    syllables = [note for note, begins in enumerate(begun) if begins] or [0]
    letters = ["~"] * len(begun)
    for note, part in zip(syllables, _cut(word, len(syllables)), strict=False):
        letters[note] = part
    letters[syllables[0]] = f" {letters[syllables[0]]}"
    return letters


def _cut(word: str, count: int) -> list[str]:
    """At most `count` parts, each with a vowel where possible; a consonant goes with the next."""
    vowels = list(VOWELS.finditer(word))
    if count > len(vowels):
        size = max(1, -(-len(word) // count))
        return [word[at : at + size] for at in range(0, len(word), size)]
    starts = [0]
    for before, vowel in itertools.pairwise(vowels[:count]):
        starts.append(max(before.end(), vowel.start() - 1))
    return [word[a:b] for a, b in zip(starts, [*starts[1:], len(word)], strict=True)]


def _plain(text: str) -> str:
    """Text that cannot be taken for something else in the format."""
    return " ".join(text.replace("~", " ").split())
