"""Recorded signals: three forms with a stated error, in shards that nothing makes half."""

from __future__ import annotations

import errno
import json
import logging
import os
import pickle
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_singer
import torch
from safetensors.torch import save_file
from tiny_singer import FORMAT
from torch import Tensor

from distill import folders
from distill.errors import FolderError, SettingsError, TeacherError
from distill.tasks import sing
from distill.teachers import recorded
from distill.teachers.recorded import RecordedTeacher
from distill.writing import signal_shards
from distill.writing.batches import Targets
from distill.writing.losses import CrossEntropy, ForwardKl, ReverseKl
from distill.writing.passage_index import gather, passage_key
from distill.writing.prompts import Coded, WritingSettings
from distill.writing.signals import Form, Signal, bucketed, check_signal, packed, unpacked

FORMS: tuple[Form, ...] = ("fp16", "int8", "topk")
TOP_K = 8


@pytest.fixture(scope="module")
def coded() -> list[Coded]:
    return tiny_singer.coded(4, WritingSettings(max_lines=1))


def signal_of(item: Coded, peak: float = 3.0) -> Signal:
    """Random, but always the same for a passage."""
    seed = int.from_bytes(passage_key(item)[:6], "big")
    generator = torch.Generator().manual_seed(seed)

    def drawn(rows: int, columns: int) -> Tensor:
        return (peak * torch.randn(rows, columns, generator=generator)).log_softmax(-1)

    frames, pieces = len(item.codes_FS), len(item.passage.pieces)
    slots = tuple(drawn(frames, size) for size in FORMAT.slot_sizes)
    return Signal(slots, drawn(pieces, 90), drawn(pieces, 17), "me")


class Teacher:
    """Answers for passages, counts them, and may fail after some."""

    fingerprint = "me"

    def __init__(self, fail_after: int = 10_000) -> None:
        self.heard, self.fail_after = [], fail_after

    def signals(self, coded: Sequence[Coded]) -> list[Signal]:
        if len(self.heard) >= self.fail_after:
            raise RuntimeError("the power went")
        self.heard += [passage_key(item) for item in coded]
        return [signal_of(item) for item in coded]


def tape(folder: Path, form: Form = "fp16", top_k: int = TOP_K) -> RecordedTeacher:
    return RecordedTeacher(folder, "me", "a teacher", FORMAT.slots, form, top_k)


def shards(folder: Path) -> list[Path]:
    return sorted(folder.rglob("shard-*"))


# --- forms ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_what_the_teacher_said_within_its_precision(coded, tmp_path, form):
    made = tape(tmp_path, form)
    assert made.record(coded, Teacher) == len(coded)
    for item, heard in zip(coded, tape(tmp_path, form).signals(coded), strict=True):
        exact = signal_of(item)
        for slot, logp_FC in enumerate(exact.slots):
            kept_FK = heard.kept_FK(slot)
            assert (kept_FK is not None) == (form == "topk")
            if kept_FK is not None:
                best_FK = logp_FC.topk(TOP_K).indices.sort(-1).values
                assert torch.equal(kept_FK, best_FK)
                logp_FC = bucketed(logp_FC, kept_FK).log_softmax(-1)
                tail_F = 1 - signal_of(item).slots[slot].exp().gather(1, best_FK).sum(-1)
                torch.testing.assert_close(
                    heard.slots[slot][:, -1].exp(), tail_F, atol=1e-3, rtol=0
                )
            worst = (logp_FC - heard.slots[slot]).abs().max()
            range_of_row = float((logp_FC.amax(-1) - logp_FC.amin(-1)).max())
            assert worst < (0.01 if form == "fp16" else 0.6 * range_of_row / 255 + 0.01)
            assert worst > 0  # it was stored, not passed on
        torch.testing.assert_close(heard.pitch_PK, exact.pitch_PK, atol=0.01, rtol=0)
        torch.testing.assert_close(heard.length_PL, exact.length_PL, atol=0.01, rtol=0)
        assert heard.fingerprint == "me"


def test_forms_take_the_bytes_they_promise():
    frames, codes = 50, 1024
    logp_FC = torch.randn(frames, codes).log_softmax(-1)
    signal = Signal((logp_FC,), torch.zeros(1, 90), torch.zeros(1, 17))
    forms: list[tuple[Form, int]] = [("fp16", 0), ("int8", 0), ("topk", 8), ("topk", 64)]
    by_form = {
        (form, k): sum(t.nbytes for n, t in packed(signal, form, k).items() if n[-1] == "0")
        / frames
        for form, k in forms
    }
    topk = {8: 8 + 16 + 4, 64: 64 + 128 + 4}  # by numbers; by a bit for every code
    assert by_form == {("fp16", 0): 2 * codes, ("int8", 0): codes + 2} | {
        ("topk", k): size for k, size in topk.items()
    }


@pytest.mark.parametrize("form", FORMS)
def test_a_certain_teacher_stays_certain(form):
    certain_FC = torch.full((3, 40), -torch.inf).index_fill(1, torch.tensor([3]), 0.0)
    signal = Signal((certain_FC,), torch.zeros(1, 90), torch.zeros(1, 17))
    again = unpacked(packed(signal, form, 8), 1, "")
    kept_FK = again.kept_FK(0)
    best_F = again.slots[0].argmax(-1)
    best_F = best_F if kept_FK is None else kept_FK.gather(1, best_F[:, None])[:, 0]
    assert again.slots[0].isfinite().all() and (best_F == 3).all()
    assert float(again.slots[0].log_softmax(-1).amax(-1).min()) > -1e-6
    logits_NC = torch.randn(3, 40, requires_grad=True)
    targets = Targets(torch.arange(3), torch.full((3,), 3), again.slots[0], kept_FK)
    nats = targets.nats_N(ForwardKl(), logits_NC).sum()
    nats.backward()
    expected = torch.nn.functional.cross_entropy(logits_NC, torch.full((3,), 3), reduction="sum")
    assert float(nats.detach()) == pytest.approx(float(expected.detach()), abs=1e-4)
    assert logits_NC.grad is not None and logits_NC.grad.isfinite().all()


def test_a_slot_of_few_codes_is_kept_whole_and_wide_codes_keep_their_numbers():
    few_FC, many_FC, some_FC = (torch.randn(4, n).log_softmax(-1) for n in (9, 50_000, 43))
    signal = Signal((few_FC, many_FC, some_FC), torch.zeros(1, 90), torch.zeros(1, 17))
    again = unpacked(packed(signal, "topk", 8), 3, "")
    assert again.kept_FK(0) is None and again.slots[0].shape == (4, 9)
    assert torch.equal(again.kept_FK(1), many_FC.topk(8).indices.sort(-1).values)
    assert int(again.kept_FK(1).max()) > 2**15
    assert torch.equal(again.kept_FK(2), some_FC.topk(8).indices.sort(-1).values)
    check_signal(again, torch.zeros(4, 3), 1, "here")


# --- the law of the tail --------------------------------------------------------------------------
@pytest.mark.parametrize("peak", [0.3, 2.0, 6.0])
@pytest.mark.parametrize("top_k", [1, 8, 30])
def test_what_the_tail_leaves_out_is_the_divergence_within_it(peak, top_k):
    """KL(p || q) = KL over the outcomes + p(tail) KL(p || q within the tail), both ways round; the
    gradient of the forward one errs by at most 2 p(tail), summed over codes."""
    generator = torch.Generator().manual_seed(top_k)
    p_NC, q_NC = (peak * torch.randn(16, 40, generator=generator).double() for _ in range(2))
    p_NC, kept_NK = p_NC.log_softmax(-1), p_NC.topk(top_k).indices
    tail_NC = torch.ones_like(p_NC).scatter(1, kept_NK, 0.0).bool()
    logits_NC = q_NC.clone().requires_grad_()
    q_NC = logits_NC.log_softmax(-1)

    def within(first_NC: Tensor, other_NC: Tensor) -> Tensor:
        first, other = (
            x.masked_fill(~tail_NC, -torch.inf).log_softmax(-1) for x in (first_NC, other_NC)
        )
        inside_N = torch.where(tail_NC, first.exp() * (first - other), 0.0).sum(-1)
        return first_NC.exp().masked_fill(~tail_NC, 0.0).sum(-1) * inside_N

    for loss, hidden_N in ((ForwardKl(), within(p_NC, q_NC)), (ReverseKl(), within(q_NC, p_NC))):
        targets = Targets(torch.arange(16), torch.zeros(16).long(), None, kept_NK)
        outcomes = replace(targets, teacher_NC=bucketed(p_NC, kept_NK).log_softmax(-1))
        exact_N, tailed_N = (
            loss(logits_NC, targets.target_N, p_NC),
            outcomes.nats_N(loss, logits_NC),
        )
        torch.testing.assert_close(exact_N, tailed_N + hidden_N.float(), atol=1e-4, rtol=1e-4)
        assert bool((hidden_N > -1e-9).all())
        if isinstance(loss, ForwardKl):
            exact_NC, tailed_NC = (
                torch.autograd.grad(nats_N.sum(), logits_NC, retain_graph=True)[0]
                for nats_N in (exact_N, tailed_N)
            )
            tail_N = p_NC.exp().masked_fill(~tail_NC, 0.0).sum(-1)
            assert bool(((exact_NC - tailed_NC).abs().sum(-1) <= 2 * tail_N + 1e-5).all())


def test_cross_entropy_beside_a_top_k_teacher_sees_every_code():
    logits_NC, target_N = torch.randn(5, 40), torch.arange(5)
    targets = Targets(target_N, target_N, torch.zeros(5, 3), torch.zeros(5, 2).long())
    assert torch.equal(
        targets.nats_N(CrossEntropy(), logits_NC), CrossEntropy()(logits_NC, target_N)
    )


def test_a_recipe_may_not_ask_of_a_tail_what_it_does_not_know():
    for form, loss in (("topk", ReverseKl()), ("topk", ForwardKl(1.0, temperature=2.0))):
        with pytest.raises(SettingsError, match=r"teacher\.form topk knows no more than the sum"):
            sing.Settings(None, None, teacher=recorded.Settings(form=form), losses=(loss,))
    for form, loss in (
        ("topk", ForwardKl(0.5)),
        ("int8", ReverseKl()),
        ("fp16", ForwardKl(1, 2.0)),
    ):
        sing.Settings(None, None, teacher=recorded.Settings(form=form), losses=(loss,))
    with pytest.raises(SettingsError, match="top_k is 0"):
        recorded.Settings(top_k=0)
    with pytest.raises(SettingsError, match="form is 'int4'; it must be one of fp16, int8, topk"):
        recorded.Settings(form="int4")


def test_a_batch_carries_the_kept_codes_to_where_their_targets_are(coded):
    from test_batches import task_of

    student = tiny_singer.student()
    live = task_of(student, coded, teacher=Teacher())

    class Packed(Teacher):
        def signals(self, some: Sequence[Coded]) -> list[Signal]:
            return [unpacked(packed(s, "topk", TOP_K), 2, "me") for s in super().signals(some)]

    few = task_of(student, coded, teacher=Packed())
    generator = torch.Generator().manual_seed(1)
    whole, tailed = (
        next(task.batches(generator, 0)).to(torch.device("cpu")) for task in (live, few)
    )
    for slot, exact in zip(tailed.slots, whole.slots, strict=True):
        expected_NB = bucketed(exact.teacher_NC, slot.kept_NK).log_softmax(-1)
        torch.testing.assert_close(slot.teacher_NC, expected_NB, atol=0.05, rtol=0)
    exact_sums, tailed_sums = (
        {name: float(nats.detach()) for name, (nats, _) in task.loss(batch).items()}
        for task, batch in ((live, whole), (few, tailed))
    )
    for name, exact_nats in exact_sums.items():
        assert tailed_sums[name] <= exact_nats * 1.001 + 1e-2, name  # a tail can only hide


# --- shards ---------------------------------------------------------------------------------------
def test_a_signal_is_named_by_all_that_it_depends_on(coded, tmp_path):
    item = coded[0]
    restyled = replace(item, passage=replace(item.passage, header="style: rock\n"))
    shorter = replace(item.passage.pieces[0], text="b o t")
    pieces = (shorter, *item.passage.pieces[1:])
    others = [
        replace(item, codes_FS=(item.codes_FS + 1) % 24),
        restyled,
        replace(item, passage=replace(item.passage, pieces=pieces)),
    ]
    assert len({passage_key(each) for each in (item, *others)}) == 4
    tape(tmp_path).record([item], Teacher)
    for stranger in others:
        with pytest.raises(TeacherError, match="has not been recorded on it; run `distill record"):
            tape(tmp_path).signals([stranger])
    other = RecordedTeacher(tmp_path, "another", "another", FORMAT.slots)
    for foreign in (
        other,
        tape(tmp_path, "int8"),
        tape(tmp_path, "topk"),
        tape(tmp_path, "topk", 9),
    ):
        assert foreign.record([item], Teacher) == 1  # each form and teacher apart
    assert len(shards(tmp_path)) == 4 + 1


def test_many_passages_share_few_files(coded, tmp_path, monkeypatch):
    tape(tmp_path).record(coded, Teacher, at_once=2)
    assert len(shards(tmp_path)) == 1 < len(coded)
    monkeypatch.setattr(recorded, "SHARD_BYTES", 1)
    tape(tmp_path / "small").record(coded, Teacher, at_once=2)
    assert len(shards(tmp_path / "small")) == -(-len(coded) // 2)
    monkeypatch.setattr(signal_shards, "OPEN_AT_ONCE", 1)
    signals = tape(tmp_path / "small").signals([*coded[::-1], *coded])
    for item, signal in zip([*coded[::-1], *coded], signals, strict=True):
        torch.testing.assert_close(signal.slots[0], signal_of(item).slots[0], atol=0.01, rtol=0)


def test_a_worker_gets_the_recordings_by_their_folder(coded, tmp_path):
    first = tape(tmp_path, "topk")
    first.record(coded[:2], Teacher)
    sent = pickle.loads(pickle.dumps(first))
    assert sent.record(coded, Teacher) == len(coded) - 2 and len(first.signals(coded[:2])) == 2
    first.shards.refresh()
    assert len(first.signals(coded)) == len(sent.signals(coded)) == len(coded)


def test_an_index_and_a_list_are_recorded_alike(coded, tmp_path):
    student = tiny_singer.student()
    index = gather(coded, student.write, FORMAT.slot_sizes, WritingSettings())
    assert tape(tmp_path).record(coded[:2], Teacher) == 2
    assert tape(tmp_path).record(index, Teacher) == len(coded) - 2
    assert tape(tmp_path).record(index, Teacher) == tape(tmp_path).record([], Teacher) == 0


def test_a_stopped_recording_keeps_what_it_has_and_goes_on(coded, tmp_path):
    teacher = Teacher(fail_after=4)
    with pytest.raises(RuntimeError, match="the power went"):
        tape(tmp_path).record(coded, lambda: teacher, at_once=2)
    again = Teacher()
    assert tape(tmp_path).record(coded, lambda: again, at_once=2) == len(coded) - 4
    assert sorted(again.heard + teacher.heard) == sorted(map(passage_key, coded))


def test_recorders_side_by_side_lose_nothing_and_share_out(coded, tmp_path, monkeypatch):
    monkeypatch.setattr(recorded, "SHARD_BYTES", 1)
    first, second = tape(tmp_path), tape(tmp_path)
    inner, outer = Teacher(), Teacher()

    class Meanwhile(Teacher):
        """While it is asked for its first passages, another process records all."""

        def signals(self, some: Sequence[Coded]) -> list[Signal]:
            if not inner.heard:
                second.record(coded, lambda: inner, at_once=2)
            outer.heard += [passage_key(item) for item in some]
            return super().signals(some)

    first.record(coded, Meanwhile, at_once=2)
    assert len(inner.heard) == len(coded) and len(outer.heard) == 2  # the rest was there by then
    for teacher in (first, second, tape(tmp_path)):
        assert len(teacher.signals(coded)) == len(coded)
    apart = [Teacher() for _ in range(3)]
    for rank, teacher in enumerate(apart):
        tape(tmp_path / "apart").record(coded, lambda t=teacher: t, share=(rank, 3))
    assert all(teacher.heard for teacher in apart)
    assert tape(tmp_path / "apart").record(coded, Teacher) == 0


def test_a_disk_that_fills_is_one_line_and_what_was_recorded_stays(coded, tmp_path, monkeypatch):
    monkeypatch.setattr(recorded, "SHARD_BYTES", 1)
    real, written = folders.os.fsync, []

    def full(handle: int) -> None:
        written.append(handle)
        if len(written) > 4:  # a file and its folder, twice
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    with monkeypatch.context() as patch:
        patch.setattr(folders.os, "fsync", full)
        with pytest.raises(FolderError, match="No space left on device") as refused:
            tape(tmp_path).record(coded, Teacher, at_once=2)
    assert f"4 of {len(coded)} passages are recorded and stay" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(shards(tmp_path)) == 2 and not list(tmp_path.rglob(".partial*"))
    assert len(tape(tmp_path).signals(coded[:4])) == 4
    assert tape(tmp_path).record(coded, Teacher) == len(coded) - 4


@pytest.mark.parametrize("fault", ["truncated", "empty", "garbage", "another's"])
def test_a_damaged_shard_is_named_and_recorded_again(coded, tmp_path, caplog, fault):
    tape(tmp_path).record(coded, Teacher)
    (path,) = shards(tmp_path)
    content = path.read_bytes()
    if fault == "another's":
        RecordedTeacher(tmp_path / "o", "other", "o", FORMAT.slots).record(coded, Teacher)
        path.write_bytes(shards(tmp_path / "o")[0].read_bytes())
    else:
        faults = {"truncated": content[: len(content) // 2], "empty": b"", "garbage": b"x" * 5000}
        path.write_bytes(faults[fault])
    again = tape(tmp_path)
    assert str(path) in caplog.text
    with pytest.raises(TeacherError, match="has not been recorded"):
        again.signals(coded[:1])
    assert again.record(coded, Teacher) == len(coded)
    assert len(again.signals(coded)) == len(coded)


def test_signals_of_another_song_or_of_no_numbers_are_refused(coded, tmp_path):
    item = coded[0]
    signal, pieces = signal_of(item), len(item.passage.pieces)
    check_signal(signal, item.codes_FS, pieces, "here")
    for codes_FS, count in (
        (item.codes_FS[1:], pieces),
        (item.codes_FS[:, :1], pieces),
        (item.codes_FS, pieces + 1),
    ):
        with pytest.raises(TeacherError, match="here: the signal has"):
            check_signal(signal, codes_FS, count, "here")

    class Holed(Teacher):
        def signals(self, some: Sequence[Coded]) -> list[Signal]:
            return [
                replace(s, slots=(s.slots[0] * torch.nan, s.slots[1]))
                for s in super().signals(some)
            ]

    for form in FORMS:  # int8 has no way to write it down: it is refused before
        with pytest.raises(TeacherError, match="NaN"):
            tape(tmp_path, form).record(coded, Holed)
    assert not shards(tmp_path)


def test_recordings_of_one_file_a_passage_are_taken_over(coded, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for number, item in enumerate(coded[:3]):
        signal, passage = signal_of(item), item.passage
        codes = item.codes_FS.numpy().astype("<i4").tobytes()
        key = folders.sha256_bytes(f"1 me {passage.header} {passage.pieces}".encode() + codes)
        path = tmp_path / key[:2] / f"{key}.safetensors"
        path.parent.mkdir(exist_ok=True)
        tensors = {f"slot{s}": logp_FC.half() for s, logp_FC in enumerate(signal.slots)}
        tensors |= {"pitch": signal.pitch_PK.half(), "length": signal.length_PL.half()}
        about = {"version": "1", "slots": "2", "teacher": "me"}
        save_file(tensors, path, {"about": json.dumps(about)})
        if number == 2:
            path.write_bytes(path.read_bytes()[:100])
    teacher = Teacher()
    assert tape(tmp_path).record(coded, lambda: teacher) == len(coded)
    assert sorted(teacher.heard) == sorted(map(passage_key, coded[2:]))
    assert "2 passages taken over from older recordings" in caplog.text
    assert "recorded again" in caplog.text
    torch.testing.assert_close(
        tape(tmp_path).signals(coded)[1].slots[0], signal_of(coded[1]).slots[0], atol=0.01, rtol=0
    )
