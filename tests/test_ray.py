"""Ray as an engine: what its workers make is byte for byte what this machine's make, and killing
them loses nothing. A Ray of two workers on loopback, where Ray is installed."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import test_curating
import tiny_singer
from test_curating import found  # noqa: F401 - a fixture
from toy_steps import Gain, Level
from toy_steps import Odd as OddStep
from workers_work import Odd, product

from distill import coded_songs
from distill.codecs.embedded import Settings as EmbeddedCodec
from distill.errors import AudioError, DistillError, SettingsError, SongError
from distill.lm.merge import merge
from distill.runtime import engines, on_ray
from distill.runtime.workers import Died, Local
from distill.songs import Song
from distill.tasks import _recording
from distill.tasks._recording import record
from distill.teachers import model, recorded
from distill.writing.prompts import WritingSettings

pytest.importorskip("ray", reason='Ray is not installed; pip install -e ".[ray]"')
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[on_ray.OnRay]:
    """Two workers of a Ray that nobody but these tests hears of."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else it writes a token into the home
        patch.setenv("DISTILL_CACHE", str(tmp_path_factory.mktemp("cache")))
        with on_ray.OnRay.started(None, workers=2) as engine:
            yield engine


@pytest.fixture
def chosen(ray: on_ray.OnRay) -> Iterator[on_ray.OnRay]:
    token = engines._chosen.set(ray)
    yield ray
    engines._chosen.reset(token)


def files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_jobs_are_done_as_on_this_machine(ray: on_ray.OnRay, tmp_path: Path) -> None:
    here = dict(Local(2).each(product, range(12), "products"))
    assert dict(ray.each(product, range(12), "products")) == here
    answers = dict(ray.each(Odd(str(tmp_path)), range(12), "squares"))
    assert answers == {n: n * n for n in range(12)}
    pids = {path.suffix for path in tmp_path.iterdir()}
    assert f".{os.getpid()}" not in pids and len(list(tmp_path.iterdir())) == 12
    assert dict(ray.each(product, [], "products")) == {}


def test_a_killed_workers_jobs_are_done_again(ray: on_ray.OnRay, tmp_path: Path) -> None:
    answers = dict(ray.each(Odd(str(tmp_path), 2, "die once"), range(6), "squares"))
    assert answers == {n: n * n for n in range(6)}
    assert len(list(tmp_path.glob("2.*"))) == 2


def test_a_job_that_always_kills_its_worker_is_named(ray: on_ray.OnRay, tmp_path: Path) -> None:
    answers = dict(ray.each(Odd(str(tmp_path), 1, "die"), range(3), "squares"))
    died = answers.pop(1)
    assert isinstance(died, Died) and "\n" not in died.how and answers == {0: 0, 2: 4}
    assert len(list(tmp_path.glob("1.*"))) == on_ray.TRIES + 1


@pytest.mark.parametrize(
    ("does", "error", "words"),
    [
        ("refuse", SongError, "song 3: is odd; leave it out"),
        ("fault", DistillError, "squares: a worker failed .RuntimeError: not ours.; run it"),
    ],
)
def test_a_workers_error_ends_the_call(
    ray: on_ray.OnRay, tmp_path: Path, does: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        dict(ray.each(Odd(str(tmp_path), 3, does), range(6), "squares"))


def test_curation(found: list[Song], chosen: on_ray.OnRay, tmp_path: Path) -> None:  # noqa: F811
    steps = [Gain(2.0), OddStep("song 3", "refuse"), Level()]
    there = test_curating.run(found, steps, tmp_path / "there")
    engines._chosen.set(None)
    here = test_curating.run(found, steps, tmp_path / "here", workers=2)
    assert test_curating.content(tmp_path / "there") == test_curating.content(tmp_path / "here")
    assert [replace(row, item=None, spent={}) for row in there.rows] == [
        replace(row, item=None, spent={}) for row in here.rows
    ]
    engines._chosen.set(chosen)
    deadly = test_curating.run(found[:3], [OddStep("song 1", "die")], tmp_path / "deadly")
    assert [row.verdict for row in deadly.rows] == ["kept", "set aside", "kept"]
    assert "worker process died" in test_curating.reason(deadly, "song 1")[2]


def test_encoding(chosen: on_ray.OnRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    songs = []
    for number in range(3):
        wave_W = test_curating.wave(number)
        soundfile.write(tmp_path / f"{number}.flac", wave_W, test_curating.RATE)
        songs.append(Song(str(number), (), audio=str(tmp_path / f"{number}.flac")))
    codec, made = EmbeddedCodec().load(), []
    for place in ("there", "here"):
        monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / place))
        list(coded_songs.codes_of_all(songs, codec, processes=2))
        made.append(files(tmp_path / place))
        engines._chosen.set(None)
    assert made[0] == made[1] and len(made[0]) >= 3
    engines._chosen.set(chosen)
    soundfile.write(tmp_path / "1.flac", 0 * wave_W, test_curating.RATE)
    with pytest.raises(AudioError, match=r"1\.flac: is silent"):
        list(coded_songs.codes_of_all(songs, codec))


def test_recording(chosen: on_ray.OnRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from test_code_space import about

    from distill.singing.singer_folder import write_about

    merge(tiny_singer.student("qwen3", seed=1), tmp_path / "run" / "singer")
    write_about(tmp_path / "run" / "singer", about())
    coded = tiny_singer.coded(4, WritingSettings(max_lines=1), "notes")
    monkeypatch.setattr(_recording, "JOB", 32)  # what `record` gives a teacher at once
    live = functools.partial(model.Settings(str(tmp_path / "run")).load, tiny_singer.ToyCodec())
    made = []
    for place in ("there", "here"):
        tape = recorded.Settings(str(tmp_path / "run"), str(tmp_path / place))
        teacher = tape.load(tiny_singer.ToyCodec())
        assert record(teacher, coded, live) == len(coded) > 3
        made.append(files(tmp_path / place))
        engines._chosen.set(None)
    assert made[0] == made[1] and made[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"probe": "/no/such/file"}, "does not see the cache .*share it between the machines"),
        ({"content": b"another"}, "does not see the cache"),
        ({"folder": "/no/such/folder"}, "does not see the folder /no/such/folder; share it"),
        ({"versions": {"torch": "1.0"}}, "has torch .*, not 1.0; install the same"),
        ({"versions": {"nonsense": "1.0"}}, "has nonsense not at all, not 1.0; install the same"),
    ],
)
def test_a_machine_that_is_not_as_the_callers_is_refused(
    ray: on_ray.OnRay,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, object],
    words: str,
) -> None:
    whole = on_ray.Meeting
    monkeypatch.setattr(on_ray, "Meeting", lambda *given: replace(whole(*given), **change))
    with pytest.raises(SettingsError, match=f"--engine ray: the machine .* {words}"):
        dict(ray.each(Odd(str(tmp_path)), range(2), "squares"))
    assert not list(tmp_path.iterdir())


def test_no_cluster_at_an_address_is_said() -> None:
    with (
        pytest.raises(SettingsError, match=r"--engine ray: no cluster at 127\.0\.0\.1:9"),
        engines.using("ray:127.0.0.1:9"),
    ):
        pass
