"""Rendered songs made small enough to ship: FLAC to Ogg Opus (RFC 7845), aligned to the sample.

python scripts/pack_songs.py --songs TRAIN --held-out HELD_OUT --out distill/embedded/songs
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path

import soundfile

from distill.audio import files as audio_files
from distill.errors import AudioError
from distill.songs import Song, read_manifest, write_manifest

SAMPLE_RATE = 24_000  # Hz; Opus knows 8, 12, 16, 24 and 48 kHz
COMPRESSION = 0.95  # libsndfile's 0 to 1; about 17 kbit/s here
HELD_OUT_COMPRESSION = 0.9  # about 30 kbit/s: as clear as what a singer is compared with should be


def pack(manifest: Path, out: Path, name: str, seconds: float, compression: float) -> list[Song]:
    """The first `seconds` of a manifest's songs as `out`/<id>.ogg, listed in `out`/`name`."""
    out.mkdir(parents=True, exist_ok=True)
    songs, taken = [], 0.0
    for song in read_manifest(manifest):
        taken += song.lines[-1].end or 0.0
        if taken > seconds:
            break
        wave_W = audio_files.read(str(song.audio), SAMPLE_RATE)[0].numpy()
        path = out / f"{song.id}.ogg"
        soundfile.write(
            path, wave_W, SAMPLE_RATE, format="OGG", subtype="OPUS", compression_level=compression
        )
        if soundfile.info(path).frames != len(wave_W):
            raise AudioError(f"{path}: its length changed in packing; use another libsndfile")
        songs.append(dataclasses.replace(song, audio=path.name))
    write_manifest(out / name, songs)
    return songs


def main() -> None:
    """Packs one folder for training and one held out."""
    parser = argparse.ArgumentParser(description="Pack rendered songs into package data.")
    parser.add_argument("--songs", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=745.0, help="of the songs to train on")
    options = parser.parse_args()
    out = options.out
    for folder, name, seconds, compression in (
        (options.songs, "manifest.jsonl", options.seconds, COMPRESSION),
        (options.held_out, "held-out.jsonl", math.inf, HELD_OUT_COMPRESSION),
    ):
        songs = pack(folder / "manifest.jsonl", out, name, seconds, compression)
        length = sum(song.lines[-1].end or 0 for song in songs)
        print(f"{songs[0].split}: {len(songs)} songs, {length:.0f} s")
    size = sum(file.stat().st_size for file in out.iterdir())
    print(f"{out}: {size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
