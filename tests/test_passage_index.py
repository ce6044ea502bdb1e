"""Passages on disk are those in memory; found again, never stale, never half; a full disk said."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import soundfile
import tiny_singer
import torch
from tiny_singer import FORMAT, ToyCodec

from distill import coded_songs, folders
from distill.errors import FitError, FolderError, SongError
from distill.songs import Song
from distill.tasks._singing_task import SingingTask
from distill.writing import passage_index
from distill.writing.passage_index import PassageIndex, build, gather, opened, passage_key
from distill.writing.prompts import Coded, WritingSettings, grain_of

WRITING = WritingSettings()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def student():
    return tiny_singer.student()


@pytest.fixture(scope="module")
def coded() -> list[Coded]:
    return [
        item for times in ("notes", "words", "lines") for item in tiny_singer.coded(2, times=times)
    ]


def same(index: PassageIndex, coded: list[Coded], student: Any) -> None:
    assert len(index) == len(coded) and index.frames == sum(len(c.codes_FS) for c in coded)
    for number, item in enumerate(coded):
        again, written = index[number], student.write(item)
        assert again.passage == item.passage and repr(again) == repr(item)
        assert torch.equal(again.codes_FS, item.codes_FS)
        tokens = index.tokens(number)
        assert torch.equal(tokens.ids_T, written.ids_T)
        assert torch.equal(tokens.kind_T, written.kind_T)
        assert index.lengths[number] == len(tokens) == len(written)
        assert index.keys_P16[number].tobytes() == passage_key(item)
    assert [c.passage for c in index[1:4]] == [c.passage for c in coded[1:4]]
    with pytest.raises(IndexError):
        index[len(coded)]


def test_an_index_on_disk_or_in_memory_gives_back_the_passages(student, coded, tmp_path):
    sizes = FORMAT.slot_sizes
    held = gather(coded, student.write, sizes, WRITING)
    build(tmp_path / "index", coded, student.write, sizes, WRITING, ["one was set aside"])
    mapped = opened(tmp_path / "index")
    for index in (held, mapped):
        same(index, coded, student)
        assert index.about.grain == grain_of([c.passage for c in coded], WRITING) == "note"
    assert mapped.about.remarks == ("one was set aside",) and held.digest == mapped.digest
    assert type(mapped.columns["ids"].base).__name__ == "memmap"  # mapped, not read
    assert opened(tmp_path / "none") is None


@pytest.mark.parametrize("times", ["notes", "words", "lines", ""])
@pytest.mark.parametrize("grain", ["finest", "line", "none"])
def test_the_grain_of_all_is_the_finest_of_each(student, times, grain):
    writing = WritingSettings(grain=grain)
    coded = tiny_singer.coded(2, writing, times)
    index = gather(coded, student.write, FORMAT.slot_sizes, writing)
    assert index.about.grain == grain_of([c.passage for c in coded], writing)


def test_wide_codes_and_many_slots_keep_their_values():
    types = passage_index._types((70_000, 5))
    assert types["codes"] == "<i4" and passage_index._types((2**16,))["codes"] == "<u2"
    assert passage_index._types((4,) * 200)["kinds"] == "<i2"


def test_digests_differ_by_a_code_a_word_and_the_tokenizer(student, coded):
    changed = coded[0].codes_FS.clone()
    changed[0, 0] = (changed[0, 0] + 1) % FORMAT.slot_sizes[0]
    other_codes = [replace(coded[0], codes_FS=changed), *coded[1:]]
    words = replace(coded[0].passage, header="style: other\n")
    other_words = [replace(coded[0], passage=words), *coded[1:]]
    reader = tiny_singer.student("qwen3")
    digests = {
        gather(some, who.write, FORMAT.slot_sizes, WRITING).digest
        for some, who in (
            (coded, student),
            (coded[::-1], student),
            (coded[1:], student),
            (other_codes, student),
            (other_words, student),
            (coded, reader),
        )
    }
    assert len(digests) == 6


def test_a_task_trains_on_an_index_as_on_a_list(student, coded, tmp_path):
    from test_batches import task_of

    build(tmp_path / "index", coded, student.write, FORMAT.slot_sizes, WRITING)
    generator = torch.Generator().manual_seed(5)
    listed, mapped = task_of(student, coded), task_of(student, opened(tmp_path / "index"))
    assert isinstance(mapped, SingingTask) and listed.digest() == mapped.digest()
    for first, second in zip(
        *(islice(t.batches(generator, 3), 5) for t in (listed, mapped)), strict=True
    ):
        assert torch.equal(first.ids_BT, second.ids_BT)
        assert all(map(torch.equal, *([s.target_N for s in b.slots] for b in (first, second))))


# --- found again ----------------------------------------------------------------------------------
@pytest.fixture
def songs(tmp_path: Path) -> list[Song]:
    made = []
    for seed in range(3):
        song = tiny_singer.song(seed, times="notes")
        path = tmp_path / f"{seed}.wav"
        generator = torch.Generator().manual_seed(seed)
        sound = 0.1 * torch.randn(30 * 16_000, generator=generator)
        soundfile.write(path, sound.numpy(), 16_000)
        made.append(replace(song, audio=str(path)))
    return made


class Counting:
    """Indexes songs as a run does, and counts how often passages had to be made."""

    def __init__(self, student: Any, tokens: int = 2000) -> None:
        self.student, self.tokens, self.made = student, tokens, 0

    def __call__(self, songs: list[Song], writing: WritingSettings = WRITING) -> PassageIndex:
        codec, v = ToyCodec(), self.student.vocabulary
        codec.device = torch.device("cpu")

        def make(aside: list[str]) -> Any:
            self.made += 1
            coded = coded_songs.code(songs, codec, v.longest, writing)
            return coded_songs.fitting(coded, self.student.tokens_of, self.tokens, 25.0, aside)

        depends = (self.student.text.identity, v, self.tokens)
        return coded_songs.indexed(songs, codec, depends, make, self.student.write, writing)


def test_a_second_start_writes_no_passage(student, songs):
    index = Counting(student)
    first, second = index(songs), index(songs)
    assert index.made == 1 and len(first) == len(second) > 3 and first.digest == second.digest
    moved = [replace(song, credit="somebody", licence="cc0") for song in songs]
    assert len(index(moved)) == len(first) and index.made == 1  # nothing written depends on it


def test_what_passages_depend_on_makes_them_anew(student, songs, monkeypatch):
    index = Counting(student)
    index(songs)
    line = replace(songs[0].lines[0], text="another text")
    section = replace(songs[0].sections[0], lines=(line, *songs[0].lines[1:]))
    others: list[Callable[[], object]] = [
        lambda: index(songs[:2]),
        lambda: index([replace(songs[0], sections=(section,)), *songs[1:]]),
        lambda: index([replace(songs[0], style="opera"), *songs[1:]]),
        lambda: index([replace(songs[0], audio=songs[1].audio), *songs[1:]]),
        lambda: index(songs, WritingSettings(max_lines=1)),
    ]
    for count, other in enumerate(others, 2):
        other()
        assert index.made == count
    for other_index in (Counting(tiny_singer.student("qwen3")), Counting(student, 1999)):
        other_index(songs)
        assert other_index.made == 1
    monkeypatch.setattr(coded_songs, "_writing_code", lambda: "another lexicon")
    index(songs)
    assert index.made == len(others) + 2


@pytest.mark.parametrize("name", [*passage_index.COLUMNS, passage_index.ABOUT, folders.MANIFEST])
@pytest.mark.parametrize("fault", ["truncated", "one bit", "deleted"])
def test_a_damaged_index_is_named_and_made_again(student, songs, cache, caplog, name, fault):
    index = Counting(student)
    digest = index(songs).digest
    (path,) = cache.glob(f"passages/*/{name}")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    if fault != "deleted":
        path.write_bytes(content if fault == "one bit" else content[: len(content) // 2])
    again = index(songs)
    if fault == "one bit" and name == folders.MANIFEST and index.made == 1:
        pytest.skip("the flipped bit stood between two names")
    assert index.made == 2 and again.digest == digest
    assert "not a whole index of passages" in caplog.text and str(path.parent) in caplog.text


def test_what_is_set_aside_is_said_at_every_start(student, songs):
    lengths = sorted(Counting(student)(songs).lengths.tolist())
    index = Counting(student, lengths[-1] - 1)
    for _ in range(2):
        *_, words, share = index(songs).about.remarks
        assert share.endswith("of the song fit no row and are left out")
        assert words.endswith(
            f"needs {lengths[-1]} tokens, a row holds {lengths[-1] - 1}; set aside"
        )
    assert index.made == 1
    with pytest.raises(FitError, match="rows of 3 tokens cannot hold 100 %"):
        Counting(student, 3)(songs)
    with pytest.raises(SongError, match="there is no song to sing"):
        Counting(student)([])


def test_a_full_disk_is_one_line_and_leaves_nothing(student, songs, cache, monkeypatch):
    index = Counting(student)
    written = []

    class Full(passage_index.ExitStack):
        def enter_context(self, file: Any) -> Any:
            opened_file = super().enter_context(file)
            if Path(file.name).name != "codes":
                return opened_file
            return Refusing()

    class Refusing:
        def write(self, content: bytes) -> None:
            written.append(content)
            if len(written) > 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(passage_index, "ExitStack", Full)
        with pytest.raises(FolderError, match=r"cannot be written \(No space left on device\)"):
            index(songs)
    assert not list((cache / "passages").iterdir())
    assert len(index(songs)) > 3 and index.made == 2
