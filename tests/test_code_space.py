"""Code space: teacher and student of unlike tokenizers mean the same frame and slot."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import tiny_singer
import torch
from tiny_singer import FORMAT, ToyCodec

from distill.audio.codec_format import CodecFormat
from distill.errors import TeacherError
from distill.lm import logits
from distill.lm.merge import merge
from distill.singing.singer_folder import About, write_about
from distill.tasks import sing
from distill.tasks._singing_task import SingingTask
from distill.teachers import model, recorded
from distill.teachers.model import ModelTeacher
from distill.teachers.recorded import RecordedTeacher
from distill.writing import layouts
from distill.writing.batches import build, pack_rows
from distill.writing.losses import CrossEntropy, ForwardKl
from distill.writing.prompts import HEADER, WritingSettings, write
from distill.writing.signals import check_signal

ROW = 900


@pytest.fixture(scope="module")
def llama():
    return tiny_singer.student("llama")


@pytest.fixture(scope="module")
def qwen():
    return tiny_singer.student("qwen3", seed=1)


@pytest.fixture(scope="module")
def late():
    """A student that writes what the others write, one slot a frame later."""
    return tiny_singer.student("llama", seed=7, lively=0.1, layout="delayed")


@pytest.fixture(scope="module")
def coded():
    writing = WritingSettings(max_lines=1)
    return [
        item
        for times in ("notes", "words", "lines")
        for item in tiny_singer.coded(2, writing, times)
    ]


def written_by(student, coded):
    return [write(c.passage, c.codes_FS, student.encode_text, student.vocabulary) for c in coded]


def used(batch, rows, written) -> list[tuple[int, ...]]:
    """(slot, passage, frame) of every hidden state that predicts an audio target, in order."""
    where = {}
    for number, row in enumerate(rows):
        at = number * ROW
        for i in row:
            where |= {at + t: (i, t) for t in range(len(written[i]))}
            at += len(written[i])
    states = []
    for slot, targets in enumerate(batch.slots):
        for at in targets.at_N.tolist():
            i, t = where[at + 1]
            assert where[at] == (i, t - 1)
            states.append((slot, i, int(written[i].frame_T[t])))
    return states


def test_two_layouts_give_the_same_frame_and_slot_for_every_hidden_state_used(qwen, late, coded):
    sides = [(student, written_by(student, coded)) for student in (qwen, late)]
    rows = [[i] for i in range(len(coded))]
    batches = [build([[w[i] for i in r] for r in rows], s.vocabulary, ROW) for s, w in sides]
    states = [used(batch, rows, w) for batch, (_, w) in zip(batches, sides, strict=True)]
    assert states[0] == states[1]
    orders = [[id for id in w[0].frame_T.tolist() if id >= 0] for _, w in sides]
    assert sorted(orders[0]) == sorted(orders[1]) and orders[0] != orders[1]
    for mine, theirs in zip(batches[0].slots, batches[1].slots, strict=True):
        assert torch.equal(mine.target_N, theirs.target_N)


def test_two_tokenizers_give_the_same_frame_and_slot_for_every_hidden_state_used(
    llama, qwen, coded
):
    first, second = written_by(llama, coded), written_by(qwen, coded)
    # the pieces do differ in length
    assert all(len(a) != len(b) for a, b in zip(first, second, strict=True))
    headers = [[int((w.kind_T == HEADER).sum()) for w in side] for side in (first, second)]
    assert headers[0] != headers[1] and llama.vocabulary.base_rows != qwen.vocabulary.base_rows
    rows = [[i] for i in range(len(coded))]
    batches = [
        build([[w[i] for i in r] for r in rows], s.vocabulary, ROW)
        for s, w in ((llama, first), (qwen, second))
    ]
    states = [used(batch, rows, w) for batch, w in zip(batches, (first, second), strict=True)]
    assert states[0] == states[1]
    wanted = [
        (s, i, f)
        for s in range(FORMAT.slots)
        for i, c in enumerate(coded)
        for f in range(len(c.codes_FS))
    ]
    assert states[0] == wanted
    for mine, theirs in zip(batches[0].slots, batches[1].slots, strict=True):
        assert torch.equal(mine.target_N, theirs.target_N)
        assert not torch.equal(mine.at_N, theirs.at_N)  # token positions would have been wrong
    for name in ("pitches", "lengths"):
        mine, theirs = getattr(batches[0], name), getattr(batches[1], name)
        assert len(mine.at_N) == len(theirs.at_N) == sum(len(c.passage.pieces) for c in coded)


def test_a_teacher_of_another_family_signals_by_frame_and_slot(llama, qwen, coded):
    teacher = ModelTeacher(qwen, 2000, "qwen")
    signals = teacher.signals(coded)
    v = llama.vocabulary
    for item, signal in zip(coded, signals, strict=True):
        frames, pieces = len(item.codes_FS), len(item.passage.pieces)
        assert [tuple(s.shape) for s in signal.slots] == [
            (frames, size) for size in FORMAT.slot_sizes
        ]
        assert signal.pitch_PK.shape == (pieces, len(v.pitch_span))
        assert signal.length_PL.shape == (pieces, len(v.length_span))
        for logp_NC in (*signal.slots, signal.pitch_PK, signal.length_PL):
            torch.testing.assert_close(
                logp_NC.logsumexp(-1), torch.zeros(len(logp_NC)), atol=1e-5, rtol=0
            )
        check_signal(signal, item.codes_FS, pieces, "here")
        alone = teacher.signals([item])[0]  # neighbours in its rows change nothing
        for mine, theirs in zip(signal.slots, alone.slots, strict=True):
            torch.testing.assert_close(mine, theirs, atol=5e-5, rtol=1e-4)


def test_a_signal_is_what_the_stock_model_says_of_that_frame(qwen, coded):
    v, item = qwen.vocabulary, coded[0]
    (signal,) = ModelTeacher(qwen, 2000, "qwen").signals([item])
    (written,) = written_by(qwen, [item])
    with torch.no_grad():
        logits_TV = qwen.model(input_ids=written.ids_T[None], use_cache=False).logits[0]
    for t, id in enumerate(written.ids_T.tolist()):
        for slot in range(v.format.slots):
            span = v.span(slot)
            if id in span:
                said_C = logits_TV[t - 1, span.start : span.stop].log_softmax(-1)
                torch.testing.assert_close(
                    signal.slots[slot][int(written.frame_T[t])], said_C, atol=5e-5, rtol=1e-4
                )
        for span, said_PN in ((v.pitch_span, signal.pitch_PK), (v.length_span, signal.length_PL)):
            if id in span and int(written.kind_T[t]) != HEADER:
                wanted_N = logits_TV[t - 1, span.start : span.stop].log_softmax(-1)
                torch.testing.assert_close(
                    said_PN[int(written.piece_T[t])], wanted_N, atol=5e-5, rtol=1e-4
                )


def test_kl_is_zero_where_the_student_is_the_teacher_and_only_there(llama, qwen, coded):
    itself, foreign = ModelTeacher(llama, 2000, "itself"), ModelTeacher(qwen, 2000, "qwen")
    same = logits.held_out(llama, coded, itself)
    other = logits.held_out(llama, coded, foreign, tokens=2000)
    assert all(abs(kl) < 1e-5 for kl in same["kl_per_token"])
    assert all(kl > 0.05 for kl in other["kl_per_token"])
    assert same["nats_per_token"] == pytest.approx(other["nats_per_token"], rel=1e-4)
    assert same["nats_per_second"] == pytest.approx([n * 25 for n in same["nats_per_token"]])
    frames = sum(len(c.codes_FS) for c in coded)
    assert same["seconds"] == pytest.approx(frames / 25)
    signals = itself.signals(coded)  # nats again, from the signals alone
    for slot in range(FORMAT.slots):
        nats = [
            s.slots[slot].gather(1, c.codes_FS[:, slot : slot + 1])
            for s, c in zip(signals, coded, strict=True)
        ]
        assert -float(torch.cat(nats).sum()) / frames == pytest.approx(
            same["nats_per_token"][slot], rel=1e-4
        )


def test_what_was_recorded_is_what_the_live_teacher_says(qwen, coded, tmp_path):
    live = ModelTeacher(qwen, 2000, "qwen")
    tape = RecordedTeacher(tmp_path, "qwen", "a teacher", FORMAT.slots)
    with pytest.raises(
        TeacherError, match=r"song-0:0: a teacher has not been recorded on it; run `distill record"
    ):
        tape.signals(coded)
    asked = []

    def load():
        asked.append(1)
        return live

    assert tape.record(coded[:3], load, at_once=2) == 3
    assert tape.record(coded, load, at_once=2) == len(coded) - 3  # goes on where it stopped
    # nothing missing: the teacher is not even loaded
    assert tape.record(coded, load) == 0 and len(asked) == 2
    for signal, heard in zip(live.signals(coded), tape.signals(coded), strict=True):
        assert heard.fingerprint == "qwen"
        for mine, theirs in zip(
            (*signal.slots, signal.pitch_PK, signal.length_PL),
            (*heard.slots, heard.pitch_PK, heard.length_PL),
            strict=True,
        ):
            torch.testing.assert_close(theirs, mine, atol=2e-3, rtol=2e-3)  # half precision


def about(codec=None, **more) -> About:
    codec = codec or ToyCodec()
    codec_row = {"kind": "toy"}
    return About(codec_row, codec.fingerprint, codec.format.slot_sizes, "", 900, **more)


@pytest.fixture(scope="module")
def run_folder(qwen, tmp_path_factory):
    """The teacher in a run folder: singer/ merged, as a recipe's run leaves it."""
    folder = tmp_path_factory.mktemp("run")
    merge(qwen, folder / "singer")
    write_about(folder / "singer", about())
    return folder


def test_a_teacher_on_disk_signals_as_in_memory_live_or_recorded(run_folder, qwen, coded, tmp_path):
    codec = ToyCodec()
    live = model.Settings(str(run_folder)).load(codec)
    tape = recorded.Settings(str(run_folder), str(tmp_path)).load(codec)
    assert live.fingerprint == tape.fingerprint  # one teacher, one name
    before = tape.fingerprint
    # what a run folder holds beside its singer is not the teacher
    (run_folder / "steps.jsonl").write_text("{}\n")
    assert recorded.Settings(str(run_folder), str(tmp_path)).load(codec).fingerprint == before
    tape.record(coded[:2], lambda: live)
    for signal, heard in zip(
        ModelTeacher(qwen, 2000, "").signals(coded[:2]), tape.signals(coded[:2]), strict=True
    ):
        torch.testing.assert_close(heard.slots[1], signal.slots[1], atol=3e-3, rtol=3e-3)


def test_a_foreign_codec_is_refused_by_name(run_folder):
    retrained = SimpleNamespace(format=FORMAT, fingerprint="f" * 64)
    other = ToyCodec(CodecFormat(16_000, 25.0, (24, 40)))
    for kind in (model.Settings, recorded.Settings):
        for codec in (retrained, other):
            with pytest.raises(
                TeacherError, match=f"teacher {run_folder}.*another codec.*{codec.fingerprint[:12]}"
            ):
                kind(str(run_folder)).load(codec)
    assert json.loads((run_folder / "singer" / "singer.json").read_text())["slot_sizes"] == list(
        asdict(about())["slot_sizes"]
    )


@pytest.mark.parametrize("layout", layouts.names())
def test_a_student_of_one_family_learns_from_a_teacher_of_another(qwen, coded, layout):
    """Forward KL alone brings a Llama towards a flat Qwen3 that shares no token with it."""
    student = tiny_singer.student("llama", seed=7, lively=0.1, layout=layout)
    some = coded[:3]
    teacher = ModelTeacher(qwen, 2000, "qwen")
    settings = sing.Settings(songs=None, codec=None, teacher=teacher, losses=(ForwardKl(),))
    settings = replace(settings, packing=replace(settings.packing, row_tokens=ROW, rows=1))
    task = SingingTask(student, some, settings, 0, teacher)
    before = logits.held_out(student, some, teacher)["kl_per_token"]
    optimizer = torch.optim.Adam(
        [p for group in task.parameters() for p in group["params"]], lr=1e-2
    )
    weights = task.loss_weights()
    batch = next(iter_batches(task))
    for _ in range(20):
        terms = task.loss(batch)
        loss = sum(
            total * weights[name] / max(1.0, count) for name, (total, count) in terms.items()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = logits.held_out(student, some, teacher)["kl_per_token"]
    assert all(b < 0.8 * a for a, b in zip(before, after, strict=True)), (before, after)


def iter_batches(task):
    rows = pack_rows(task.coded.lengths.tolist(), range(len(task.coded)), ROW)
    signals = task.teacher.signals(task.coded)
    written = [[task.coded.tokens(i) for i in row] for row in rows]
    yield build(
        written, task.student.vocabulary, ROW, [[signals[i] for i in row] for row in rows], 0.1
    )


def test_losses_and_teacher_of_a_recipe_must_belong_together():
    from distill.errors import SettingsError

    with pytest.raises(SettingsError, match="ask for a teacher"):
        sing.Settings(songs=None, codec=None, losses=(ForwardKl(),))
    with pytest.raises(SettingsError, match="no loss listens"):
        sing.Settings(songs=None, codec=None, teacher=object(), losses=(CrossEntropy(),))
    with pytest.raises(SettingsError, match="adapter: null"):
        sing.Settings(
            songs=None, codec=None, base=sing.BaseSettings(from_scratch=tiny_singer.from_scratch())
        )
