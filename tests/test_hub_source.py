"""A dataset by its id on a hub: a stand-in on loopback answers, the client is the real one."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from stand_in_hub import StandInHub

from distill.errors import FolderError
from distill.exporters import datasets as to_datasets
from distill.songs import Line, Section, Song
from distill.sources import Refusal
from distill.sources.hub import Settings


@pytest.fixture
def hub(hub_server: StandInHub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> StandInHub:
    """The stand-in, with `datasets` pointed at it; its viewer server, which nobody asks, is not."""
    config = pytest.importorskip("datasets", reason="datasets is not installed").config
    for name, value in {
        "HF_ENDPOINT": hub_server.url,
        "HUB_DATASETS_URL": hub_server.url + "/datasets/{repo_id}/resolve/{revision}/{path}",
        "HF_HUB_OFFLINE": False,
        "USE_PARQUET_EXPORT": False,
        "HF_UPDATE_DOWNLOAD_COUNTS": False,
        "HF_DATASETS_CACHE": tmp_path / "datasets-cache",
    }.items():
        assert hasattr(config, name)
        monkeypatch.setattr(config, name, value)
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    return hub_server


def record(path: Path, seconds: float) -> str:
    wave_W = 0.1 * np.sin(2 * np.pi * 220 * np.arange(int(seconds * 8000)) / 8000)
    soundfile.write(path, wave_W.astype(np.float32), 8000)
    return str(path)


def files_under(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


@pytest.fixture
def songs(tmp_path: Path) -> list[Song]:
    return [
        Song(
            f"song-{n}",
            (Section("verse", (Line("row row", 0.5, 1.5),)),),
            licence="CC-BY-4.0",
            credit="Boat by Nobody",
            source="https://example.org",
            audio=record(tmp_path / f"{n}.flac", 2 + n),
        )
        for n in range(2)
    ]  # fmt: skip


@pytest.mark.parametrize("streaming", [True, False])
def test_our_own_dataset_by_its_id(
    hub: StandInHub, songs: list[Song], tmp_path: Path, streaming: bool
):
    to_datasets.export(songs, tmp_path / "out")
    hub.put("org/songs", files_under(tmp_path / "out"))
    back = Settings("org/songs@main", streaming=streaming).load()
    assert [(song.id, song.sections, song.licence, song.credit, song.source) for song in back] == [
        (song.id, song.sections, song.licence, song.credit, song.source) for song in songs
    ]
    for song, other in zip(back, songs, strict=True):
        assert Path(str(song.audio)).read_bytes() == Path(str(other.audio)).read_bytes()
        assert Path(str(song.audio)).is_relative_to(tmp_path / "cache")
    assert any("/resolve/" in path for path in hub.asked)


def test_a_folder_of_recordings_on_the_hub(hub: StandInHub, tmp_path: Path):
    """`datasets`' own AudioFolder: sound in files, the rest in metadata.csv."""
    csv = (
        "file_name,lyrics,license\n"
        "a.wav,row row,CC0-1.0\n"
        "sub/b.wav,,CC0-1.0\n"
        "sub/c.wav,[00:00.50]la,CC0-1.0\n"
    )
    sound = Path(record(tmp_path / "a.wav", 1.0)).read_bytes()
    hub.put(
        "org/folder",
        {"metadata.csv": csv.encode(), "a.wav": sound, "sub/b.wav": sound, "sub/c.wav": sound},
    )
    source = Settings("org/folder", columns={"licence": "license"})
    if find_spec("torchcodec") is None:  # which `datasets` wants even to hand a path on
        with pytest.raises(FolderError, match=r"install 'torchcodec'.*; install what it asks for"):
            source.load()
        return
    first, second, third = source.scan()
    assert isinstance(first, Song)
    assert (first.text, first.licence) == ("[verse]\nrow row", "CC0-1.0")
    assert Path(str(first.audio)).read_bytes() == sound
    assert isinstance(second, Refusal) and "has no lyrics" in second.reason
    assert isinstance(third, Song) and third.lines[0].start == 0.5


def test_a_dataset_that_is_not_there(hub: StandInHub):
    with pytest.raises(FolderError, match="org/none: cannot be read") as caught:
        Settings("org/none").load()
    assert "\n" not in str(caught.value)


def test_a_hub_that_refuses(hub: StandInHub, songs: list[Song], tmp_path: Path):
    to_datasets.export(songs, tmp_path / "out")
    hub.put("org/songs", files_under(tmp_path / "out"))
    hub.refuses = "parquet"
    source: Any = Settings("org/songs")
    with pytest.raises(FolderError, match="org/songs: cannot be read"):
        source.load()
