"""What a base's own tokenizer puts before a text stands before every song, written and sung."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_bases
import tiny_singer
import torch
from test_singer import about
from tokenizers.processors import TemplateProcessing

from distill.errors import FolderError
from distill.folders import locate
from distill.lm import base, logits
from distill.lm.base import open_base, opening_of
from distill.lm.merge import load_merged, merge
from distill.lm.student import LoraSettings, Student, graft, load, rows_of
from distill.singing.singer import Singer, load_singer
from distill.songs import Line
from distill.tasks._singing_task import SingingTask
from distill.teachers.model import ModelTeacher
from distill.training.trainer import TrainSettings
from distill.writing import layouts
from distill.writing.prompts import HEADER, Coded, WritingSettings
from distill.writing.vocabulary import AudioVocabulary

BOS = 0


def opening_tokenizer() -> Any:
    """As tiny_bases', and it puts <s> before a text, as LLaMA's and Gemma's do."""
    tokenizer = tiny_bases.tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", BOS)]
    )
    return tokenizer


def opened_student(tokenizer: Any = None, layout: str = "flat") -> Student:
    model = tiny_bases.build(tiny_bases.config(max_position_embeddings=1024))
    vocabulary = AudioVocabulary(
        rows_of(model), tiny_singer.FORMAT, longest=tiny_singer.LONGEST, layout=layout
    )
    codebooks = tiny_singer.ToyCodec().codebooks()
    student = graft(model, tokenizer or opening_tokenizer(), vocabulary, codebooks)
    student.train_all()
    tiny_bases.disturb(student, 0.3)
    student.model.eval()
    return student


def seen(student: Student, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The ids_BT that the student reads from here on."""
    read, hidden = [], student.hidden

    def watched(ids_BT: torch.Tensor, *more: Any, **named: Any) -> torch.Tensor:
        read.append(ids_BT)
        return hidden(ids_BT, *more, **named)

    monkeypatch.setattr(student, "hidden", watched)
    return read


def test_the_rule_is_what_the_tokenizer_does(monkeypatch):
    assert opening_of(opening_tokenizer()) == (BOS,)
    assert opening_of(tiny_bases.tokenizer()) == ()
    both = tiny_bases.tokenizer()  # what stands behind a text is no opening
    both.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> </s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    assert opening_of(both) == (0, 1)

    class Odd:
        def encode(self, text: str, add_special_tokens: bool) -> list[int]:
            return [5, 6] if add_special_tokens else [7]

    with pytest.raises(FolderError, match=r"stock tokenizer\.json"):
        opening_of(Odd())  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_bases_of_our_own_were_pretrained_without_and_say_so(family, tmp_path):
    """Task text reads crops of a running text, so nothing must stand before a song either."""
    model, tokenizer = tiny_singer.make(tiny_singer.from_scratch(family), 0)
    assert opening_of(tokenizer) == ()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert opening_of(open_base(tmp_path)[1]) == ()


def test_the_embedded_parts_open_with_nothing():
    for part in ("embedded/base", "embedded/teacher"):
        assert opening_of(base.AutoTokenizer.from_pretrained(locate(part))) == ()
    assert load_singer(device="cpu").student.opening == ()


@pytest.mark.parametrize("layout", layouts.names())
def test_it_is_written_before_the_header_and_carries_no_loss(layout):
    student = opened_student(layout=layout)
    for times in ("notes", "words", "lines", "none"):
        for item in tiny_singer.coded(2, times=times):
            written = student.write(item)
            head = student.opened(item.passage.header)
            assert written.ids_T[: len(head)].tolist() == head
            assert head[0] == BOS and head[-1] == student.vocabulary.sing
            assert written.kind_T[: len(head)].eq(HEADER).all()
            assert len(written) == student.tokens_of(item.passage, len(item.codes_FS))
            student.opening, before = (), student.opening
            assert student.write(item).ids_T.tolist() == written.ids_T[1:].tolist()
            student.opening = before


def test_training_figures_teachers_and_singing_read_it(monkeypatch):
    student, items = opened_student(), tiny_singer.coded(2)
    settings = SimpleNamespace(writing=WritingSettings(), train=TrainSettings(steps=1))
    task = SingingTask(student, items, settings, seed=0)  # type: ignore[arg-type]
    firsts = [int(task.coded.tokens(i).ids_T[0]) for i in range(len(items))]
    assert firsts == [BOS] * len(items)
    read = seen(student, monkeypatch)
    logits.held_out(student, items)
    ModelTeacher(student, 4096, "x").signals(items)
    packed = [ids_BT for ids_BT in read if ids_BT.shape[1] > 1]
    assert len(packed) >= 2 and all(ids_BT[:, 0].eq(BOS).all() for ids_BT in packed)
    assert sum(int(ids_BT.eq(BOS).sum()) for ids_BT in packed) >= 2 * len(items)
    read.clear()
    singer = Singer(student, tiny_singer.ToyCodec(), about())
    singer.sing_lines([Line("row"), Line("gently down the stream")], seed=0)
    heads = [student.opened(singer._plan(Line(text), "folk", "low").header) for text in
             ("row", "gently down the stream")]  # fmt: skip
    width = max(map(len, heads))
    assert read[0].tolist() == [[0] * (width - len(head)) + head for head in heads]


def test_an_opening_takes_room():
    student, passage = opened_student(), Line("row your boat")
    singer = Singer(student, tiny_singer.ToyCodec(), about(tokens=200))
    planned = singer._plan(passage, "folk", "low")
    text = student.tokens_of(planned, 0)
    assert singer._room(planned) == (200 - text) // 2
    student.opening = (BOS,) * 9
    assert singer._room(planned) == (200 - text - 8) // 2


def test_files_say_it_and_what_says_nothing_opens_with_nothing(tmp_path: Path):
    """A run of before: its base's tokenizer opens texts, its songs were trained without."""
    tiny_bases.build(tiny_bases.config()).save_pretrained(tmp_path / "base")
    opening_tokenizer().save_pretrained(tmp_path / "base")
    model, tokenizer = open_base(tmp_path / "base")
    student = graft(model, tokenizer, tiny_bases.vocabulary(), tiny_bases.codebooks())
    student.adapt(LoraSettings(rank=2, alpha=4))
    student.save_adapter(tmp_path / "adapter")
    merge(student, tmp_path / "merged")
    for folder in ("adapter", "merged"):
        card = tmp_path / folder / "distill.json"
        row = json.loads(card.read_text())
        assert row["opening"] == [BOS] == list(student.opening)

        def opened(name: str = folder) -> tuple[int, ...]:
            if name == "merged":
                return load_merged(tmp_path / name).opening
            return load(tmp_path / "base", tmp_path / name).opening

        assert opened() == (BOS,)
        del row["opening"]
        card.write_text(json.dumps(row))
        assert opened() == ()


def test_a_plain_servers_tokenizer_opens_a_song_by_itself(tmp_path: Path):
    student = opened_student()
    merge(student, tmp_path / "merged")
    tokenizer = base.AutoTokenizer.from_pretrained(tmp_path / "merged")
    header = "style: folk; voice: low\nr o, b o t\n"
    sing = student.vocabulary.name(student.vocabulary.sing)
    assert tokenizer(header + sing)["input_ids"] == student.opened(header)


def test_passages_of_a_foreign_teacher_are_opened_as_it_was_trained():
    """Both read the same passage, each behind its own opening."""
    student, teacher = opened_student(), opened_student(tiny_bases.tokenizer())
    items: list[Coded] = tiny_singer.coded(1)
    (ours, theirs) = (each.write(items[0]) for each in (student, teacher))
    assert (student.opening, teacher.opening) == ((BOS,), ())
    assert ours.ids_T[1:].tolist() == theirs.ids_T.tolist()
    (signal,) = ModelTeacher(teacher, 4096, "x").signals(items[:1])
    assert signal.frames == len(items[0].codes_FS)
