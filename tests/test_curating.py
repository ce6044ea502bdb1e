"""The runner of curation with toy steps: the same result however it is run, and nothing lost,
changed or passed over."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from test_layers import PACKAGE, imports, modules, name_of, ours, outer, type_checking_lines
from toy_steps import Gain, Level, Odd

from distill.curation import curated_songs, fingerprint
from distill.curation.one_song import file_name
from distill.curation.rows import Report, Row
from distill.curation.runner import curate
from distill.curation.steps import Item
from distill.errors import FolderError, SettingsError, SongError
from distill.songs import Fact, Line, Section, Song, read_manifest, write_manifest
from distill.sources import Refusal, folder

RATE = 8_000


# --- songs to play with ---------------------------------------------------------------------------
def wave(number: int, peak: float = 0.5) -> np.ndarray:
    clock_W = np.arange(RATE // 4 + 100 * number) / RATE
    return (peak * np.sin(2 * np.pi * (200 + 40 * number) * clock_W)).astype(np.float32)


@pytest.fixture
def found(tmp_path: Path) -> list[Song]:
    """Five songs, two of them as loud as each other, one with stems."""
    folder = tmp_path / "source"
    folder.mkdir()
    songs = []
    for number, peak in enumerate([0.2, 0.3, 0.2, 0.4, 0.6]):
        path = folder / f"{number}.wav"
        soundfile.write(path, wave(number, peak), RATE, subtype="FLOAT")
        line = Line(f"la {number}", 0.0, 0.2, confidence=0.5)
        songs.append(
            Song(f"song {number}", (Section("verse", (line,)),), licence="CC0-1.0", audio=str(path))
        )
    for name in ("vocals", "accompaniment"):
        soundfile.write(folder / f"4.{name}.wav", wave(4, 0.3), RATE, subtype="FLOAT")
    stems = {name: str(folder / f"4.{name}.wav") for name in ("vocals", "accompaniment")}
    songs[4] = replace(songs[4], **stems)  # type: ignore[arg-type]
    return songs


def run(
    found: Iterable[Song | Refusal], steps: Sequence[Any], out: Path, workers: int = 1
) -> Report:
    *rows, report = curate(found, steps, out, workers)
    assert all(isinstance(row, Row) for row in rows) and isinstance(report, Report)
    assert len(rows) == len(report.rows)
    return report


def content(out: Path) -> dict[str, str]:
    """All that a user gets, as hashes, times aside."""
    files = {
        path.relative_to(out).as_posix(): path.read_bytes() for path in (out / "audio").iterdir()
    }
    files["manifest.jsonl"] = (out / "manifest.jsonl").read_bytes()
    told = json.loads((out / "report.json").read_text())
    del told["seconds_by_stage"]
    files["report.json"] = json.dumps(told).encode()
    return {name: hashlib.sha256(bytes_).hexdigest() for name, bytes_ in sorted(files.items())}


def reason(report: Report, name: str) -> tuple[str, str, str]:
    row = next(row for row in report.rows if row.name == name)
    return tuple(row.remarks[-1])  # type: ignore[return-value]


# --- the same however it is run -------------------------------------------------------------------
def test_workers_and_repetition_change_nothing(found: list[Song], tmp_path: Path) -> None:
    steps = [Gain(2.0), Odd("song 1", "refuse"), Level()]
    one = run(found, steps, tmp_path / "one", workers=1)
    before = content(tmp_path / "one")
    two = run(found, steps, tmp_path / "two", workers=2)
    again = run(found, steps, tmp_path / "one", workers=2)
    assert content(tmp_path / "two") == before == content(tmp_path / "one")
    assert [replace(row, item=None, spent={}) for row in one.rows] == [
        replace(row, item=None, spent={}) for row in two.rows
    ]
    assert one.rows == again.rows  # times too: they are those of the work, whenever it was done
    assert [row.name for row in one.rows] == [f"song {n}" for n in range(5)]
    assert {
        row.item.song.group for row in one.rows if row.item and row.name in ("song 0", "song 2")
    } == {"level 0.4"}


def test_a_second_call_does_no_work(found: list[Song], tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    run(found, [Gain(2.0, str(log))], tmp_path / "out")
    assert sorted(log.read_text().split("\n")[:-1]) == [song.id for song in found]
    run(found, [Gain(2.0, str(log))], tmp_path / "out")
    assert len(log.read_text().split("\n")[:-1]) == 5
    run([replace(found[0], style="folk"), *found[1:]], [Gain(2.0, str(log))], tmp_path / "out")
    assert log.read_text().split("\n")[5:] == ["song 0", ""]
    with Path(found[1].audio or "").open("ab") as file:  # the file itself, not its name or date
        file.write(b"\0")
    run(found[1:2], [Gain(2.0, str(log))], tmp_path / "out")
    assert log.read_text().split("\n")[6:] == ["song 1", ""]


def test_other_settings_never_leave_a_result_beside_anothers_sound(
    found: list[Song], tmp_path: Path
) -> None:
    run(found, [Gain(0.5)], tmp_path / "out")
    before = content(tmp_path / "out")
    louder = run(found, [Gain(1.5)], tmp_path / "out")
    assert np.abs(soundfile.read(louder.kept[3].audio)[0]).max() == pytest.approx(0.6, abs=0.01)
    run(found, [Gain(0.5)], tmp_path / "out")
    assert content(tmp_path / "out") == before
    run(found, [Odd("song 0", "refuse")], tmp_path / "out")
    assert not [
        path for path in (tmp_path / "out" / "audio").iterdir() if path.name.startswith("song-0")
    ]


def test_stopped_by_its_caller_it_goes_on(found: list[Song], tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    steps = [Gain(2.0, str(log)), Level()]
    whole = run(found, steps, tmp_path / "whole")
    log.unlink()
    for stop in (1, 2, 3):  # after one song, after two more, ...
        rows = curate(found, steps, tmp_path / "out")
        for _ in range(stop):
            next(rows)
        rows.close()  # type: ignore[attr-defined]
    assert log.read_text().split("\n")[:-1] == ["song 0", "song 1", "song 2"]
    rows = curate(found, steps, tmp_path / "out", workers=2)
    next(rows)
    began = time.monotonic()
    rows.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 10
    assert [song.id for song in run(found, steps, tmp_path / "out").kept] == [
        song.id for song in whole.kept
    ]
    assert content(tmp_path / "out") == content(tmp_path / "whole")


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_it_goes_on(found: list[Song], tmp_path: Path, workers: int) -> None:
    log, source = tmp_path / "log.txt", tmp_path / "source" / "manifest.jsonl"
    write_manifest(source, found)
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_curating as "
        "t\n"
        f"from pathlib import Path; from distill.songs import read_manifest\n"
        f"t.run(read_manifest({str(source)!r}), [t.Gain(2.0, {str(log)!r}, 0.5)], "
        f"Path({str(tmp_path / 'out')!r}), {workers})"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out" / "work").glob("song*.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    started = len(log.read_text().split("\n")[:-1])
    assert 1 <= started <= 5 and not (tmp_path / "out" / "manifest.jsonl").exists()
    time.sleep(1.0)
    assert len(log.read_text().split("\n")[:-1]) <= started + workers, (
        "workers went on without their caller"
    )
    report = run(found, [Gain(2.0, str(log), 0.5)], tmp_path / "out")
    assert len(log.read_text().split("\n")[:-1]) < 10
    run(found, [Gain(2.0, str(log), 0.5)], tmp_path / "whole")
    assert len(report.kept) == 5 and content(tmp_path / "out") == content(tmp_path / "whole")


def test_what_is_damaged_is_made_again(found: list[Song], tmp_path: Path) -> None:
    log, out = tmp_path / "log.txt", tmp_path / "out"
    steps = [Gain(2.0, str(log)), Level()]
    report = run(found, steps, out)
    before = content(out)
    results = sorted((out / "work").glob("*.json"))
    assert len(results) == 5
    results[0].write_text(results[0].read_text()[:-20])
    results[1].write_text("[1]")
    results[2].write_text(json.dumps(json.loads(results[2].read_text()) | {"song": [3]}))
    Path(report.kept[3].audio or "").unlink()
    stem = Path(report.kept[4].vocals or "")
    stem.write_bytes(stem.read_bytes()[:-1])
    log.unlink()
    run(found, steps, out)
    assert sorted(log.read_text().split("\n")[:-1]) == [f"song {n}" for n in range(5)]
    assert content(out) == before


def test_its_folder_may_be_moved(found: list[Song], tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    run(found, [Gain(1.5, str(log)), Level()], tmp_path / "out")
    before = content(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "moved")
    report = run(found, [Gain(1.5, str(log)), Level()], tmp_path / "moved")
    assert len(log.read_text().split("\n")[:-1]) == 5 and content(tmp_path / "moved") == before
    assert all(Path(path).is_file() for song in report.kept for path in song.tracks.values())


def test_results_depend_on_all_that_makes_them() -> None:
    paths = {name_of(path): path for path in modules()}
    reached, outside = set[str](), set[str]()
    todo = [name for name in paths if name.startswith("curation.steps")]
    while todo:
        name = todo.pop()
        if name in reached:
            continue
        reached.add(name)
        todo += [below for below, _ in ours(paths[name])]
        loaded = [
            (w, n) for w, n in imports(paths[name]) if n not in type_checking_lines(paths[name])
        ]
        for wanted, _ in loaded:
            outside |= {outer(wanted).replace("_", "-")} - sys.stdlib_module_names - {"distill"}
    files = fingerprint.code((PACKAGE / "curation" / "steps").rglob("*.py"))
    assert files == sorted(paths[name] for name in reached)
    rooms = {name_of(path).partition(".")[0] for path in files}
    assert {"songs", "lyrics", "licences", "audio", "folders"} <= rooms
    assert rooms.isdisjoint({"tasks", "training", "lm", "writing", "pipeline", "cli", "sources"})
    assert all(name.startswith("curation.steps") for name in reached if "curation" in name)
    only_files = {"huggingface-hub", "yaml", "safetensors", "torchaudio", "-ctypes", "--future--"}
    outside -= only_files | sys.stdlib_module_names | {"distill"}
    assert outside <= set(fingerprint.LIBRARIES), outside


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("import distill.songs", {"songs.py"}),
        ("from distill import lyrics", {"lyrics/__init__.py"}),
        ("from distill.lyrics import words, g2p as x", {"lyrics/__init__.py", "lyrics/g2p.py"}),
        ("def f():\n    if x:\n        from distill.errors import E\n", {"errors.py"}),
        ("if TYPE_CHECKING:\n    from distill.lm import base", set()),
        ("import json, numpy.linalg\nfrom distillery.songs import Song", set()),
    ],
)  # fmt: skip
def test_imports_are_found_wherever_they_stand(text: str, wanted: set[str], tmp_path: Path) -> None:
    (tmp_path / "step.py").write_text(text)
    got = fingerprint._imports(tmp_path / "step.py")
    assert {path.relative_to(PACKAGE).as_posix() for path in got} == wanted


def test_another_version_of_a_library_makes_new_results(
    found: list[Song], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log.txt"
    run(found[:1], [Gain(2.0, str(log))], tmp_path / "out")
    monkeypatch.setattr(fingerprint, "_version", lambda library: f"{library} 99")
    fingerprint.of_steps.cache_clear()
    try:
        run(found[:1], [Gain(2.0, str(log))], tmp_path / "out")
    finally:
        fingerprint.of_steps.cache_clear()
    assert log.read_text().split("\n")[:-1] == ["song 0", "song 0"]


# --- its folder -----------------------------------------------------------------------------------
def test_what_is_left_of_dropped_songs_is_swept(found: list[Song], tmp_path: Path) -> None:
    out = tmp_path / "out"
    run([*found, replace(found[0], id="..")], [Odd("song 1", "fault")], out)
    (out / "audio" / ".partial-song-0.audio.flac-999999999").write_bytes(b"half")
    (out / "audio" / "mine.audio.flac").write_bytes(b"not theirs")
    changed = out / "audio" / f"{file_name('song 3')}.audio.flac"
    changed.write_bytes(b"somebody has put another one here")
    run(found[2:3], [Odd("song 1", "fault")], out)
    stem = file_name("song 2")
    assert sorted(path.name for path in (out / "audio").iterdir()) == sorted(
        [f"{stem}.audio.flac", "mine.audio.flac", changed.name]
    )
    assert [path.name for path in (out / "work").iterdir()] == [f"{stem}.json"]
    assert all(Path(path).is_file() for song in found for path in song.tracks.values())


def test_results_never_replace_what_is_somebodys(found: list[Song], tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"source: holds other files; name a new or empty folder"
    ):
        run(found, [], tmp_path / "source")
    kept = run(found, [], tmp_path / "out").kept
    before = content(tmp_path / "out")
    with pytest.raises(
        SettingsError, match=r"song song 0: its audio lies in .*; name another folder"
    ):
        run(kept, [Gain(2.0)], tmp_path / "out")
    assert content(tmp_path / "out") == before
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match="file: cannot be written"):
        run(found, [], tmp_path / "file")


def test_two_folders_of_one_name_are_two_homes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes = []
    for place in ("one", "two"):
        (tmp_path / place / "songs").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / place)
        homes += [
            curated_songs.home_of(folder.Settings("songs"), ()),
            curated_songs.home_of(folder.Settings("songs"), ()),
        ]
    assert homes[0] == homes[1] != homes[2] == homes[3]
    assert curated_songs.home_of(folder.Settings(str(tmp_path / "two" / "songs")), ()) == homes[2]


# --- what is set aside ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("does", "words", "workers"),
    [
        ("fault", "AttributeError", 1),
        ("fault", "AttributeError", 2),
        ("nothing", "NoneType", 1),
        ("numpy", "float32", 1),
        ("nan", "not JSON compliant", 1),
    ],
)
def test_a_faulty_step_sets_its_song_aside_and_leaves_its_traceback(
    found: list[Song], tmp_path: Path, does: str, words: str, workers: int
) -> None:
    report = run(found, [Odd("song 2", does), Level()], tmp_path / "out", workers)
    assert len(report.kept) == 4
    step, verdict, text = reason(report, "song 2")
    assert (step, verdict) == ("odd", "set aside") and words in text and "\n" not in text
    kept = tmp_path / "out" / "work" / f"{file_name('song 2')}.txt"
    assert kept.name in text and "Traceback" in kept.read_text() and words in kept.read_text()
    run(found, [Odd("another", does), Level()], tmp_path / "out")
    assert not kept.exists()


def test_a_fault_is_tried_again(
    found: list[Song], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(run(found, [Odd("song 2", "fault")], tmp_path / "out").kept) == 4
    monkeypatch.setattr(Song, "nonsense", Item(found[2]), raising=False)
    assert len(run(found, [Odd("song 2", "fault")], tmp_path / "out").kept) == 5


def test_an_error_about_the_song_is_its_verdict(found: list[Song], tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    report = run(found, [Odd("song 2", "refuse"), Gain(2.0, str(log))], tmp_path / "out")
    assert reason(report, "song 2") == ("odd", "set aside", "song song 2: too odd; sing it again")
    assert "song 2" not in log.read_text()  # it goes no further
    assert not list((tmp_path / "out" / "work").glob("*.txt"))
    report = run(found, [Odd("song 2", "noise")], tmp_path / "other")
    assert (
        reason(report, "song 2")[:2] == ("writing", "set aside")
        and "NaN" in reason(report, "song 2")[2]
    )


def test_an_error_about_the_disk_ends_the_run(found: list[Song], tmp_path: Path) -> None:
    for workers in (1, 2):
        with pytest.raises(FolderError, match="disk: full"):
            run(found[2:], [Odd("song 2", "disk")], tmp_path / "out", workers)
    assert not (tmp_path / "out" / "manifest.jsonl").exists()


def test_a_song_that_kills_its_worker_is_set_aside_alone(found: list[Song], tmp_path: Path) -> None:
    report = run(found[:3], [Odd("song 1", "die")], tmp_path / "out", workers=2)
    assert [row.verdict for row in report.rows] == ["kept", "set aside", "kept"]
    assert "worker process died" in reason(report, "song 1")[2]


def test_files_that_are_missing_or_no_sound_are_set_aside(
    found: list[Song], tmp_path: Path
) -> None:
    Path(found[0].audio or "").unlink()
    Path(found[1].audio or "").write_text("not sound")
    report = run(found, [Level()], tmp_path / "out")
    assert [row.verdict for row in report.rows] == [
        "set aside",
        "set aside",
        "kept",
        "kept",
        "kept",
    ]
    assert (
        "cannot be read" in reason(report, "song 0")[2]
        and reason(report, "song 1")[0] == "decoding"
    )
    assert [song.id for song in read_manifest(tmp_path / "out" / "manifest.jsonl")] == [
        "song 2",
        "song 3",
        "song 4",
    ]


def test_bytes_that_are_no_text_are_set_aside(found: list[Song], tmp_path: Path) -> None:
    foul = "s\udcff"  # what a file name that is not UTF-8 becomes
    songs: list[Song | Refusal] = [
        replace(found[0], id=foul),
        replace(found[1], style=foul),
        *found[2:],
        Refusal(foul, f"{foul}: no"),
    ]
    report = run(songs, [Level()], tmp_path / "out")
    assert [row.verdict for row in report.rows] == ["set aside"] * 2 + ["kept"] * 3 + ["set aside"]
    assert "UTF-8" in reason(report, foul)[2] or reason(report, foul)[2].endswith("no")
    json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))


def test_refusals_of_the_source_stand_in_the_report(found: list[Song], tmp_path: Path) -> None:
    refusal = Refusal("bad.mp3", "bad.mp3: not audio; leave it out")
    report = run([found[0], refusal, found[1]], [Level()], tmp_path / "out")
    assert [row.name for row in report.rows] == ["song 0", "bad.mp3", "song 1"]
    assert reason(report, "bad.mp3") == ("source", "set aside", refusal.reason)
    told = json.loads((tmp_path / "out" / "report.json").read_text())
    assert told["songs"][1]["remarks"] == [
        {"step": "source", "verdict": "set aside", "text": refusal.reason}
    ]
    assert told["counts"]["songs"] == {"kept": 2, "mended": 0, "set aside": 1}
    assert told["counts"]["source"]["set aside"] == 1 and told["steps"] == ["level"]
    assert {"decoding", "level", "writing", "level, all songs"} == set(told["seconds_by_stage"])


def test_a_name_or_step_given_twice_is_refused(found: list[Song], tmp_path: Path) -> None:
    with pytest.raises(SongError, match="song 0: two songs"):
        run([found[0], replace(found[1], id="song 0")], [], tmp_path / "out")
    with pytest.raises(SettingsError, match="level, level names a step twice"):
        run(found, [Level(), Level()], tmp_path / "out")
    with pytest.raises(SettingsError, match="0 workers do no work"):
        run(found, [], tmp_path / "out", workers=0)


# --- what goes on ---------------------------------------------------------------------------------
def test_the_source_is_only_read(found: list[Song], tmp_path: Path) -> None:
    def state() -> list[tuple[str, bytes, int]]:
        paths = sorted((tmp_path / "source").iterdir())
        return [(path.name, path.read_bytes(), path.stat().st_mtime_ns) for path in paths]

    before = state()
    run(found, [Gain(3.0), Level()], tmp_path / "out")
    assert state() == before


def test_the_manifest_says_what_was_kept(found: list[Song], tmp_path: Path) -> None:
    report = run(
        [*found, Song("words only", found[0].sections)],
        [Level(), Odd("song 1", "refuse")],
        tmp_path / "out",
    )
    kept = read_manifest(tmp_path / "out" / "manifest.jsonl")
    assert kept == report.kept and [song.id for song in kept] == [
        "song 0",
        "song 2",
        "song 3",
        "song 4",
        "words only",
    ]
    assert all(
        Path(path).parent == (tmp_path / "out" / "audio").resolve()
        for s in kept
        for path in s.tracks.values()
    )
    assert kept[0].lines == found[0].lines and kept[0].fact("level") == Fact(
        "level", 0.2, "level", 0.5
    )
    assert set(kept[3].tracks) == {"audio", "vocals", "accompaniment"} and kept[4].tracks == {}
    got_W, rate = soundfile.read(kept[0].audio, dtype="float32")
    assert rate == RATE and np.abs(got_W - wave(0, 0.2)).max() <= 2**-15


def test_sound_over_full_scale_is_turned_down_all_tracks_alike(
    found: list[Song], tmp_path: Path
) -> None:
    report = run(found[3:], [Gain(2.0)], tmp_path / "out")
    assert [row.remarks[-1].step for row in report.rows] == ["gain", "writing"]
    assert reason(report, "song 4") == (
        "writing",
        "mended",
        "turned down by 1.6 dB to fit full scale",
    )
    tracks = {
        name: soundfile.read(path, dtype="float32")[0]
        for name, path in report.kept[1].tracks.items()
    }
    assert np.abs(tracks["audio"]).max() == pytest.approx(0.999, abs=1e-4)
    for name in ("vocals", "accompaniment"):
        assert np.abs(tracks["audio"] - 2 * tracks[name]).max() < 1e-4
    assert np.abs(tracks["audio"] - 2 * 0.999 / 1.2 * wave(4, 0.6)).max() < 1e-4


def test_rows_hold_no_more_than_is_asked_for_again(found: list[Song], tmp_path: Path) -> None:
    report = run(found, [Odd("nobody", "fault"), Level()], tmp_path / "out")
    items = [row.item for row in report.rows if row.item is not None]
    assert all(set(item.traces) == {"level"} and item.tracks == {} for item in items)


IDS = [
    "a",
    "A",
    "a/b",
    "a-b",
    "a b",
    "..",
    ".",
    "",
    "../a",
    "/a",
    "é",
    "e",
    "副歌",
    "片段",
    "a" * 300,
    "a" * 301,
    "con.",
    "a\n",
    "-a",
]


def test_every_id_has_a_safe_file_name_of_its_own() -> None:
    names = [file_name(id) for id in IDS]
    assert len({name.lower() for name in names}) == len(IDS)
    for name in names:
        assert name.isascii() and "/" not in name and name[0] not in ".-" and 0 < len(name) <= 80
    assert file_name("fantasma") == "fantasma" and file_name("01-boat.v2") == "01-boat.v2"


def test_songs_with_wild_ids_stay_apart(found: list[Song], tmp_path: Path) -> None:
    songs = [replace(found[n % 2], id=id) for n, id in enumerate(IDS)]
    report = run(songs, [], tmp_path / "deep" / "out")
    assert (
        len({song.audio for song in report.kept})
        == len(IDS)
        == len(read_manifest(report.folder / "manifest.jsonl"))
    )
    inside = {path.name for path in (tmp_path / "deep").rglob("*") if path.is_file()}
    assert inside == {path.name for path in report.folder.rglob("*") if path.is_file()}
