"""One held-out line three times: the song's own audio, through the codec and back, and a singer.

    python eval/picture.py [SINGER] [--line TEXT] [--voice NAME] [--out eval/take.png]

Spectrograms one under another, as in the README: what a listener would compare. TEXT: the beginning
of the line; else the first one that a voice whose name begins with NAME sings. Three WAV files in
eval/reports let you hear the same.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from run import load

from distill.audio.spectrogram import COLOURS, levels, palette, png
from distill.errors import DistillError, SongError
from distill.measures import Performance
from distill.singing.evaluate import Asked, ceilings, lines_of, sing
from distill.sources.embedded import Settings as EmbeddedSongs

REPORTS = Path(__file__).parent / "reports"
LARGER, GAP = 2, 8  # times; pixels of white


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 2 and a line on standard error where something is wrong with what was given."""
    parser = argparse.ArgumentParser(
        prog="eval/picture.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("singer", nargs="?", default="embedded")
    parser.add_argument("--line", default="", metavar="TEXT")
    parser.add_argument("--voice", default="", metavar="NAME")
    parser.add_argument("--out", type=Path, default=REPORTS / "take.png")
    options = parser.parse_args(arguments)
    try:
        singer = load(options.singer)
        asked = [chosen(lines_of(EmbeddedSongs("held-out").load()), options.line, options.voice)]
        rows = ceilings(asked, singer.codec)
        rows["singer"], _ = sing(singer, asked, 0, None)
    except DistillError as error:
        print(f"picture: {error}", file=sys.stderr)
        return 2
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_bytes(picture([takes[0] for takes in rows.values()]))
    REPORTS.mkdir(exist_ok=True)
    for row, takes in rows.items():
        soundfile.write(REPORTS / f"take.{row}.wav", takes[0].wave_W, takes[0].sample_rate)
    line, voice = asked[0].line.text, asked[0].song.voice
    print(f"{options.out}: {line!r}, {voice}; from above {', '.join(rows)}")
    return 0


def chosen(asked: Sequence[Asked], line: str, voice: str) -> Asked:
    """The first line that begins so, by a voice that is called so."""
    for each in asked:
        if each.line.text.startswith(line) and each.song.voice.startswith(voice):
            return each
    raise SongError(
        f"no held-out line begins with {line!r} in a voice {voice!r}; leave one of them out"
    )


def picture(takes: Sequence[Performance]) -> bytes:
    """A PNG of spectrograms one under another, on one scale of time."""
    spectrograms = [levels(take.wave_W, take.sample_rate) for take in takes]
    width = max(level_HF.shape[1] for level_HF in spectrograms)
    white = np.full((GAP, LARGER * width), COLOURS, np.uint8)
    rows = []
    for level_HF in spectrograms:
        index_HF = np.round(level_HF * (COLOURS - 1)).astype(np.uint8)
        wide_HF = np.pad(index_HF, ((0, 0), (0, width - index_HF.shape[1])))
        rows += [white, wide_HF.repeat(LARGER, 0).repeat(LARGER, 1)]
    colours = np.concatenate([palette(), np.full((1, 3), 255, np.uint8)])
    return png(np.concatenate(rows[1:]), colours)


if __name__ == "__main__":
    sys.exit(main())
