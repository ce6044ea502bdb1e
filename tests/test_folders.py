"""Folders: whole or not there, damage seen and named, one fingerprint for one content."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from distill import folders
from distill.errors import CheckpointError, FolderError


def _fill(path: Path, text: str = "one") -> Path:
    with folders.atomic_folder(path) as partial:
        (partial / "a.txt").write_text(text)
        (partial / "deep").mkdir()
        (partial / "deep" / "b.bin").write_bytes(b"12345")
    return path


def _no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_folder_comes_with_its_manifest_and_is_whole(tmp_path: Path) -> None:
    path = _fill(tmp_path / "new" / "thing")
    listed = json.loads((path / "manifest.json").read_text())
    assert listed == {name: folders.sha256_file(path / name) for name in ("a.txt", "deep/b.bin")}
    assert folders.whole(path)
    assert [p.name for p in path.parent.iterdir()] == ["thing"]


@pytest.mark.parametrize("file", ["a.txt", "deep/b.bin", "manifest.json"])
@pytest.mark.parametrize("fault", ["truncated", "one bit", "deleted", "empty"])
def test_every_fault_in_every_file_is_seen(tmp_path: Path, file: str, fault: str) -> None:
    path = _fill(tmp_path / "thing")
    content = bytearray((path / file).read_bytes())
    if fault == "deleted":
        (path / file).unlink()
    else:
        content[len(content) // 2] ^= 1
        half = content[: len(content) // 2]
        changed = {"truncated": half, "one bit": content, "empty": b""}
        (path / file).write_bytes(changed[fault])
    assert not folders.whole(path)
    assert folders.damage(path)


def test_a_failed_block_leaves_nothing_and_touches_nothing(tmp_path: Path) -> None:
    path = _fill(tmp_path / "thing", "old")
    with pytest.raises(KeyError), folders.atomic_folder(path) as partial:
        (partial / "a.txt").write_text("new")
        raise KeyError
    assert (path / "a.txt").read_text() == "old"
    assert folders.whole(path)
    assert [p.name for p in tmp_path.iterdir()] == ["thing"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    path = _fill(_fill(tmp_path / "thing", "old"), "new")
    assert (path / "a.txt").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["thing"]


def test_a_full_disk_is_one_line_and_the_old_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _fill(tmp_path / "thing", "old")
    folders.write_atomic(tmp_path / "file", b"old")
    monkeypatch.setattr(os, "fsync", _no_space)
    for write in (
        lambda: _fill(path, "new"),
        lambda: folders.write_atomic(tmp_path / "file", b"new"),
    ):
        with pytest.raises(
            FolderError, match=r"cannot be written \(No space left on device\)"
        ) as error:
            write()
        assert "\n" not in str(error.value)
    monkeypatch.undo()
    assert (path / "a.txt").read_text() == "old"
    assert (tmp_path / "file").read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "thing"]


def test_leftovers_of_killed_processes_are_swept_and_of_living_ones_kept(tmp_path: Path) -> None:
    dead = 2**22 - 1  # above every process id in use
    (tmp_path / f".partial-thing-{dead}").mkdir()
    unread = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    unread.kill()  # it has ended, and waits for us to hear how
    os.waitid(os.P_PID, unread.pid, os.WEXITED | os.WNOWAIT)
    (tmp_path / f".partial-thing-{unread.pid}").mkdir()
    (tmp_path / f".partial-other-{os.getppid()}").mkdir()
    _fill(tmp_path / "thing")
    unread.communicate()
    assert sorted(p.name for p in tmp_path.iterdir()) == [f".partial-other-{os.getppid()}", "thing"]


def test_the_newest_whole_one_is_taken_and_damaged_newer_ones_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert folders.newest_whole(tmp_path / "nothing") is None
    for step in (1, 2, 10):
        _fill(tmp_path / f"step-{step:08d}")
    assert folders.newest_whole(tmp_path) == tmp_path / "step-00000010"
    (tmp_path / "step-00000010" / "a.txt").write_text("onf")
    with caplog.at_level(logging.WARNING, "distill"):
        assert folders.newest_whole(tmp_path) == tmp_path / "step-00000002"
    assert (
        "step-00000010: damaged: a.txt is not what its manifest says; going on from step-00000002"
        in caplog.text
    )
    for step in (1, 2):
        (tmp_path / f"step-{step:08d}" / "deep" / "b.bin").unlink()
    with pytest.raises(CheckpointError, match=r"step-00000010: damaged.*no whole one is left"):
        folders.newest_whole(tmp_path)


def test_a_fingerprint_is_of_content_alone(tmp_path: Path) -> None:
    first, second = _fill(tmp_path / "one"), _fill(tmp_path / "other")
    assert folders.fingerprint(first) == folders.fingerprint(second)
    (second / "a.txt").rename(second / "c.txt")
    assert folders.fingerprint(first) != folders.fingerprint(second)
    table_VD = torch.arange(6.0).reshape(2, 3)
    tensors = {"a": table_VD, "b": table_VD.bfloat16()}
    # other order, other strides
    same = {"b": table_VD.bfloat16(), "a": table_VD.t().contiguous().t()}
    assert folders.fingerprint(tensors) == folders.fingerprint(same)
    for different in (
        {"a": table_VD + 1e-6, "b": tensors["b"]},
        {"a": table_VD.reshape(3, 2), "b": tensors["b"]},
        {"a": table_VD, "b": table_VD.half()},
        {"a": table_VD},
    ):
        assert folders.fingerprint(tensors) != folders.fingerprint(different)


def test_locate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert folders.locate(str(tmp_path)) == tmp_path
    shipped = next(p for p in folders.package_path("").iterdir() if p.is_dir())
    assert folders.locate(f"embedded/{shipped.name}") == shipped
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FolderError, match="embedded/nothing: this part is not in the package"):
        folders.locate("embedded/nothing")
    with pytest.raises(FolderError, match="no such folder; give an existing folder"):
        folders.locate("nowhere")
    with pytest.raises(
        FolderError, match=r"nobody/nothing: no such folder, and no hub gave it"
    ) as error:
        folders.locate("nobody/nothing")  # the tests are offline
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("part", ["base", "codec", "singer", "teacher"])
def test_an_embedded_part_is_what_its_manifest_says(part):
    folder = folders.package_path(part)
    assert folders.damage(folder) is None
    listed = json.loads((folder / folders.MANIFEST).read_text())
    assert set(listed) == {p.name for p in folder.iterdir()} - {folders.MANIFEST, "card.md"}


def test_words_may_be_mended_and_weights_may_not(tmp_path):
    (tmp_path / "card.md").write_text("one")
    (tmp_path / "weights").write_bytes(b"12")
    folders.seal(tmp_path)
    (tmp_path / "card.md").write_text("another")
    assert folders.damage(tmp_path) is None
    (tmp_path / "weights").write_bytes(b"13")
    assert folders.damage(tmp_path) == "weights is not what its manifest says"


# --- hashes are remembered ------------------------------------------------------------------------
@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The names of files that were really read, with a clock an hour ahead of the disk's."""
    names: list[str] = []
    real, now = folders.sha256_file, time.time

    def counting(path: str | Path) -> str:
        names.append(Path(path).name)
        return real(path)

    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(folders, "sha256_file", counting)
    monkeypatch.setattr(folders.time, "time", lambda: now() + 3600)
    return names


def test_a_file_is_hashed_once_and_again_when_it_changed(tmp_path, hashed):
    files = [tmp_path / name for name in ("a.flac", "b.flac", os.fsdecode(b"\xff.flac"))]
    for path in files:
        path.write_bytes(path.name.encode("utf-8", "surrogateescape"))
    first = folders.sha256_files(files)
    assert first == [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    assert folders.sha256_files([*files, files[0]]) == [*first, first[0]] and len(hashed) == 3
    status = files[0].stat()
    files[0].write_bytes(b"A.flac")  # as many bytes, and its time set back: a tag editor's habit
    os.utime(files[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    again = folders.sha256_files(files)
    assert again[0] == hashlib.sha256(b"A.flac").hexdigest() and again[1:] == first[1:]
    assert hashed[3:] == ["a.flac"]
    files[1].replace(files[0])  # another file under this name
    assert folders.sha256_files(files[:1]) == first[1:2]


def test_a_file_that_changed_just_now_is_not_remembered(tmp_path, hashed, monkeypatch):
    monkeypatch.setattr(folders.time, "time", lambda: path.stat().st_ctime + 1.0)
    path = tmp_path / "a.flac"
    path.write_bytes(b"one")
    for _ in range(2):
        folders.sha256_files([path])
    assert len(hashed) == 2


@pytest.mark.parametrize("damage", ["garbage", "another form", "no folder"])
def test_damaged_memory_costs_time_and_nothing_else(tmp_path, hashed, damage):
    path, kept = tmp_path / "a.flac", tmp_path / "cache" / folders.HASHES
    path.write_bytes(b"one")
    if damage == "no folder":
        (tmp_path / "cache").write_bytes(b"a file where the cache would be")
    else:
        kept.parent.mkdir()
    if damage == "garbage":
        kept.write_bytes(b"no database" * 1000)
    if damage == "another form":
        with sqlite3.connect(kept) as other:
            other.execute("CREATE TABLE files (name TEXT)")
    expected = [hashlib.sha256(b"one").hexdigest()]
    assert folders.sha256_files([path]) == folders.sha256_files([path]) == expected
    assert len(hashed) == (1 if damage == "garbage" else 2)
