"""A vocoder head small enough to test in a blink, its codec, and songs to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from test_codec import melody, random_network

from distill.audio import files as audio_files
from distill.codecs import embedded
from distill.songs import Line, Section, Song
from distill.tasks.vocoder import Settings, VocoderTask
from distill.training.trainer import TrainSettings
from distill.vocoders._network import HeadNetwork, HeadSettings
from distill.vocoders.head import CodecCard, HeadVocoder, load_head, save_head

SMALL = HeadSettings(hop=160, window=640, width=24, inner=32, blocks=2, coarse_blocks=1)


def codec_in(folder: Path, slots: int = 3) -> embedded.EmbeddedCodec:
    """Random weights, always the same."""
    embedded.save_codec(random_network(), folder, ["apache-2.0"])
    return embedded.Settings(str(folder), slots=slots).load()


def network_of(
    codec: embedded.EmbeddedCodec, settings: HeadSettings = SMALL, seed: int = 0
) -> HeadNetwork:
    """A head with random weights for a codec; its own silence is not told to it."""
    torch.manual_seed(seed)
    books = codec.codebooks()
    network = HeadNetwork(settings, codec.format, books[0].shape[1])
    network.begin(books)
    return network


def head_in(
    folder: Path, codec: embedded.EmbeddedCodec, settings: HeadSettings = SMALL
) -> HeadVocoder:
    """The same, saved and loaded."""
    card = CodecCard("embedded", codec.fingerprint, codec.format)
    save_head(
        network_of(codec, settings), folder, card, {"codec": "apache-2.0", "song: x": "CC0-1.0"}
    )
    return load_head(folder, codec)


def songs_in(folder: Path) -> list[Song]:
    """Three melodies, 4 s, 6 s (held out) and 0.5 s, with silence in the midst of the first."""
    made = []
    for number, seconds in enumerate((4.0, 6.0, 0.5)):
        wave_CW = melody(seconds)
        wave_CW[:, 16_000:32_000] *= number > 0
        audio_files.write(folder / f"{number}.wav", wave_CW, 16_000)
        section = Section("verse", (Line("la"),))
        split = "held-out" if number == 1 else "train"
        path = str(folder / f"{number}.wav")
        made.append(Song(f"song-{number}", (section,), licence="CC0-1.0", audio=path, split=split))
    return made


@dataclass(frozen=True)
class Given:
    """A source of songs that are there already."""

    songs: tuple[Song, ...]

    def load(self) -> list[Song]:
        return list(self.songs)


def task_of(
    codec_folder: Path, songs: Sequence[Song], seed: int = 3, **changes: object
) -> VocoderTask:
    return settings_of(codec_folder, songs, **changes).task(seed)


def settings_of(codec_folder: Path, songs: Sequence[Song], **changes: object) -> Settings:
    """Small, three slots."""
    settings = Settings(
        songs=Given(tuple(songs)),
        codec=embedded.Settings(str(codec_folder), slots=3),
        train=TrainSettings(steps=6, learning_rate=2e-3, warmup_steps=1, precision="fp32"),
        network=SMALL,
        batch=4,
        crop_frames=12,
    )
    return replace(settings, **changes)  # type: ignore[arg-type]
