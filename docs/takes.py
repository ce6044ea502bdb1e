"""The takes of the README, made again: docs/takes/*.flac, and their spectrograms.

    python docs/takes.py        # a minute; the embedded singer, nothing to download

Two lines along tunes that everybody knows, and one whose tune the singer makes up. The seed is the
first that was tried. Where the extra `judge` is installed, what its measures say is printed too.
Other machines and builds of torch may sing other samples.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import soundfile

import distill
from distill import lyrics, measures
from distill.audio.spectrogram import spectrogram_png
from distill.songs import Line, Note

FOLDER = Path(__file__).parent / "takes"
SEED = 7
BEAT, LEAD = 0.4, 0.3  # seconds: of a beat, and before the first vowel
HOP_SECONDS = 0.005  # a pixel of the picture


class Request(NamedTuple):
    """A line to sing; `tune` is (MIDI, beats) of each syllable, or empty: the singer's own."""

    name: str
    text: str
    voice: str
    tune: tuple[tuple[int, float], ...] = ()


REQUESTS = (
    Request(
        "star",
        "twinkle twinkle little star",
        "alto",
        ((60, 1), (60, 1), (67, 1), (67, 1), (69, 1), (69, 1), (67, 2)),
    ),
    Request(
        "boat",
        "row row row your boat",
        "tenor, wide vibrato",
        ((53, 1.5), (53, 1.5), (53, 1), (55, 0.5), (57, 2)),
    ),
    Request("stream", "gently down the stream", "soprano, breathy"),
)


def main() -> None:
    singer = distill.load_singer(device="cpu")
    FOLDER.mkdir(exist_ok=True)
    performances = []
    for request in REQUESTS:
        score = [Line(request.text, notes=notes(request))] if request.tune else None
        take = singer.sing(request.text, "folk, calm", request.voice, seed=SEED, score=score)
        save(take, FOLDER / f"{request.name}.flac")
        performances.append(performance(take))
    try:
        figures = measures.judge({"takes": performances}, reference=None)["rows"]["takes"]
    except distill.DistillError as error:
        print(error)
    else:
        for name in ("in_tune", "word_error"):
            figure = figures["figures"][name]
            print(f"{name}: {figure['hits']} of {figure['count']}")


def notes(request: Request) -> tuple[Note, ...]:
    """The tune in seconds from the line's start, a note a syllable."""
    tune, start = [], LEAD
    for syllable, (midi, beats) in zip(lyrics.sing_texts(request.text), request.tune, strict=True):
        tune.append(Note(start, start + beats * BEAT, midi, syllable))
        start = tune[-1].end
    return tuple(tune)


def save(take: distill.Take, path: Path) -> None:
    """The take as FLAC, and its spectrogram beside it as PNG."""
    wave_W = take.wave_CW[0].numpy()
    soundfile.write(path, wave_W, take.sample_rate, subtype="PCM_16", compression_level=1.0)
    picture = spectrogram_png(wave_W, take.sample_rate, HOP_SECONDS)
    path.with_suffix(".png").write_bytes(picture)
    print(f"{path.name}: {take.seconds:.1f} s, {path.stat().st_size:,} bytes")


def performance(take: distill.Take) -> measures.Performance:
    """The take as the measures want it: words, sounding notes, mono."""
    sounding = tuple((start, end, midi) for start, end, midi in take.notes if midi is not None)
    words = tuple(lyrics.words(take.text))
    return measures.Performance(
        take.text, words, sounding, take.wave_CW[0].numpy(), take.sample_rate
    )


if __name__ == "__main__":
    main()
