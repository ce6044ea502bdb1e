"""Packing loses and doubles nothing, batches are numbered, every target is where its song says."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import tiny_singer
import torch
from tiny_singer import FORMAT, kind_of_token

from distill.errors import FitError
from distill.lm import logits
from distill.tasks import _singing_task, sing
from distill.tasks._singing_task import SingingTask
from distill.writing import batches, layouts
from distill.writing.batches import OPEN_ROWS, PackingSettings, build, epoch, pack_rows, schedule
from distill.writing.grammar import Grammar, State
from distill.writing.lanes import pack_lanes
from distill.writing.losses import CrossEntropy, ForwardKl
from distill.writing.prompts import END, HEADER, LENGTH, OPEN, PIECE, TEXT, WritingSettings, write
from distill.writing.signals import Signal

ROW = 640
ONE_LINE = WritingSettings(max_lines=1)


@pytest.fixture(scope="module", params=layouts.names())
def student(request):
    return tiny_singer.student(layout=request.param)


@pytest.fixture(scope="module")
def coded():
    """Notes, words and lines: closed and open pieces."""
    return [
        item
        for times in ("notes", "words", "lines")
        for item in tiny_singer.coded(2, ONE_LINE, times)
    ]


@pytest.fixture(scope="module")
def written(student, coded):
    return [write(c.passage, c.codes_FS, student.encode_text, student.vocabulary) for c in coded]


# --- packing --------------------------------------------------------------------------------------
def lengths(seed: int, count: int = 200) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(5, 300, (count,), generator=generator).tolist()


@pytest.mark.parametrize("seed", range(4))
def test_every_passage_is_packed_once_and_no_row_overflows(seed):
    sizes = lengths(seed)
    rows = pack_rows(sizes, range(len(sizes)), 512)
    assert sorted(i for row in rows for i in row) == list(range(len(sizes)))
    fullness = [sum(sizes[i] for i in row) for row in rows]
    assert all(full <= 512 for full in fullness)
    assert sum(fullness) / (512 * len(rows)) > 0.8  # packing packs
    for number in range(3):
        batches = epoch(sizes, PackingSettings(512, 4), seed, number)
        packed = Counter(i for batch in batches for row in batch for i in row)
        assert packed == Counter(range(len(sizes)))
        assert all(len(batch) == 4 for batch in batches[:-1]) and 1 <= len(batches[-1]) <= 4
        assert all(sum(sizes[i] for i in row) <= 512 for batch in batches for row in batch)


def test_a_passage_longer_than_a_row_is_refused():
    with pytest.raises(FitError, match="passage 1 has 513 tokens, rows hold 512"):
        pack_rows([3, 513], range(2), 512)


def test_batch_k_depends_on_seed_and_k_only():
    sizes, packing = lengths(9), PackingSettings(512, 4)
    first = list(islice(schedule(sizes, packing, 3), 40))
    assert len(epoch(sizes, packing, 3, 0)) < 20  # 40 batches are more than two passes
    for start in (0, 1, 7, 17, 18, 19, 30):
        assert list(islice(schedule(sizes, packing, 3, start), 40 - start)) == first[start:]
    assert list(islice(schedule(sizes, packing, 4), 40)) != first
    passes = len(epoch(sizes, packing, 3, 0))
    assert first[:passes] != first[passes : 2 * passes]  # each pass has an order of its own


def test_a_task_gives_the_same_batch_k_from_any_start(student, coded):
    task = task_of(student, coded, rows=1)
    generator = torch.Generator().manual_seed(5)
    first = list(islice(task.batches(generator, 0), 9))
    torch.rand(7, generator=generator)  # a generator that was drawn from still has its seed
    for number, batch in enumerate(islice(task.batches(generator, 4), 5), 4):
        assert torch.equal(batch.ids_BT, first[number].ids_BT)
        assert torch.equal(batch.format_N, first[number].format_N)
    assert not torch.equal(first[0].ids_BT, first[1].ids_BT)


# --- targets --------------------------------------------------------------------------------------
def fake_signal(number: int, item) -> Signal:
    """Its values say which passage, frame or piece, and slot they belong to."""
    frames, pieces = len(item.codes_FS), len(item.passage.pieces)
    slots = tuple(
        (1000.0 * number + torch.arange(frames))[:, None] + 0.25 * slot + torch.zeros(frames, size)
        for slot, size in enumerate(FORMAT.slot_sizes)
    )
    rows_P = (1000.0 * number + torch.arange(pieces))[:, None]
    return Signal(
        slots, rows_P.expand(pieces, 90), rows_P.expand(pieces, tiny_singer.LONGEST + 1) + 0.5
    )


def test_targets_are_predicted_by_the_token_before_them(student, coded, written):
    v = student.vocabulary
    rows = pack_rows([len(w) for w in written], range(len(written)), ROW)
    signals = [[fake_signal(i, coded[i]) for i in row] for row in rows]
    batch = build([[written[i] for i in row] for row in rows], v, ROW, signals, 1.0)
    flat = batch.ids_BT.flatten()
    where = {}  # flat index -> (passage, index in it)
    for number, row in enumerate(rows):
        at = number * ROW
        for i in row:
            where |= {at + t: (i, t) for t in range(len(written[i]))}
            at += len(written[i])
    assert all(int(flat[at]) == int(written[i].ids_T[t]) for at, (i, t) in where.items())
    seen: Counter = Counter()

    def target(at: int) -> tuple[int, int]:
        assert where[at][0] == where[at + 1][0], "predicted from another passage"
        return where[at + 1]

    for slot, targets in enumerate(batch.slots):
        for row, (at, code) in enumerate(
            zip(targets.at_N.tolist(), targets.target_N.tolist(), strict=True)
        ):
            i, t = target(at)
            frame = int(written[i].frame_T[t])
            assert code == int(coded[i].codes_FS[frame, slot])
            assert float(targets.teacher_NC[row, 0]) == 1000 * i + frame + 0.25 * slot
            seen[("slot", i, frame, slot)] += 1
    for name, targets, first, extra in (
        ("pitch", batch.pitches, v.pitch_span.start, 0.0),
        ("length", batch.lengths, 0, 0.5),
    ):
        for row, (at, id) in enumerate(
            zip(targets.at_N.tolist(), targets.target_N.tolist(), strict=True)
        ):
            i, t = target(at)
            assert int(written[i].ids_T[t]) == id + first
            piece = int(written[i].piece_T[t])
            assert float(targets.teacher_NC[row, 0]) == 1000 * i + piece + extra
            seen[(name, i, piece)] += 1
    wanted = Counter(
        ("slot", i, f, s)
        for i, c in enumerate(coded)
        for f in range(len(c.codes_FS))
        for s in range(2)
    )
    wanted |= Counter(
        (k, i, p)
        for k in ("pitch", "length")
        for i, c in enumerate(coded)
        for p in range(len(c.passage.pieces))
    )
    assert seen == wanted
    predicted = Counter()
    for kind, targets in (
        ("piece", batch.pieces),
        ("open", batch.opens),
        ("length", batch.lengths),
    ):
        for at, id in zip(targets.at_N.tolist(), targets.target_N.tolist(), strict=True):
            i, t = target(at)
            assert int(written[i].ids_T[t]) == id
            predicted[(kind, i, t)] += 1
    names = {PIECE: "piece", TEXT: "piece", LENGTH: "length", OPEN: "open"}
    # which is certain
    assert predicted == Counter(
        (names[place], i, t)
        for i, w in enumerate(written)
        for t, place in enumerate(w.kind_T.tolist())
        if place < HEADER and place != END
    )
    assert any(kind == "open" for kind, _, _ in predicted)
    everything = {at for at, (i, t) in where.items() if int(written[i].kind_T[t]) != HEADER}
    # a share of 1: all of them
    assert sorted(batch.format_N.tolist()) == sorted(at - 1 for at in everything)


def test_legal_by_place_is_the_grammars(student):
    v = student.vocabulary
    grammar, legal = Grammar(v), logits.legal_by_kind(v)
    states = [State("start"), State("text"), State("text", left=None), State("length")]
    states += [State("boundary", left=left) for left in (0, None)] + [State("end")]
    states += [
        State(kind, (slot,), left)
        for kind in ("slot", "tail")
        for slot in (0, 1)
        for left in (2, None)
    ]
    for state in states:
        ids = {id for span in grammar.legal(state) for id in range(span.start, span.stop)}
        row = int(logits._row_of(torch.tensor([kind_of_token(state)]), v)[0])
        assert set(legal[row].nonzero().flatten().tolist()) == ids, state
    assert len({kind_of_token(state) for state in states}) == len(legal)


# --- hidden states and losses ---------------------------------------------------------------------
def test_a_packed_passage_has_the_hidden_states_of_the_passage_alone(student, written):
    rows = pack_rows([len(w) for w in written], range(len(written)), ROW)
    assert max(len(row) for row in rows) > 1
    batch = build([[written[i] for i in row] for row in rows], student.vocabulary, ROW)
    with torch.no_grad():
        packed_ND = logits.hidden_ND(student, batch)
        for number, row in enumerate(rows):
            at = number * ROW
            for i in row:
                alone_TD = student.hidden(written[i].ids_T[None])[0]
                torch.testing.assert_close(
                    packed_ND[at : at + len(written[i])], alone_TD, atol=2e-5, rtol=1e-4
                )
                at += len(written[i])


def test_the_terms_are_what_the_stock_logits_say(student, coded, written):
    """Each term of the loss, counted again token by token from full logits and the grammar."""
    v, grammar = student.vocabulary, Grammar(student.vocabulary)
    task = task_of(student, coded)
    rows = [[i] for i in range(len(written))]
    batch = build([[written[i] for i in row] for row in rows], v, ROW, None, 1.0)
    with torch.no_grad():
        terms = task.loss(batch)
        wanted: Counter = Counter()
        for w in written:
            logits_TV = student.model(input_ids=w.ids_T[None], use_cache=False).logits[0]
            state = grammar.start()
            cut = w.ids_T.tolist().index(v.sing)
            for t in range(cut + 1, len(w)):
                id, row_V = int(w.ids_T[t]), logits_TV[t - 1]
                spans = [[*range(s.start, s.stop)] for s in grammar.legal(state)]
                kind = kind_of_token(state)
                legal = [i for span in spans for i in span]
                wanted["format"] += float(row_V.logsumexp(-1) - row_V[legal].logsumexp(-1))
                if kind == OPEN:
                    wanted["opens"] += float(row_V[legal].logsumexp(-1) - outcome(v, row_V, id))
                elif kind in (PIECE, TEXT):
                    wanted["pieces"] += float(row_V[legal].logsumexp(-1) - outcome(v, row_V, id))
                elif kind == LENGTH:
                    wanted["lengths"] += float(row_V[legal].logsumexp(-1) - row_V[id])
                slot = next((s for s in range(v.format.slots) if id in v.span(s)), None)
                if slot is not None:
                    codes_V = row_V[v.span(slot).start : v.span(slot).stop]
                    wanted[f"slot{slot}.cross_entropy"] += float(codes_V.logsumexp(-1) - row_V[id])
                state = grammar.step(state, id)
    assert set(wanted) == set(terms)
    for name, (total, count) in terms.items():
        assert count > 0 and float(total) == pytest.approx(wanted[name], rel=2e-4), name


def outcome(v, row_V: torch.Tensor, id: int) -> torch.Tensor:
    """Logit of a text, pitch or end, or of all codes of a slot together: which, its term says."""
    span = next((v.span(s) for s in range(v.format.slots) if id in v.span(s)), None)
    return row_V[id] if span is None else row_V[span.start : span.stop].logsumexp(-1)


def task_of(student, coded, rows: int = 4, teacher=None) -> sing.Task:
    losses = (CrossEntropy(weight=0.3), ForwardKl(weight=0.7)) if teacher else (CrossEntropy(),)
    parts = {"songs": None, "codec": None, "teacher": teacher, "losses": losses}
    settings = sing.Settings(
        **parts, packing=PackingSettings(ROW, rows), terms=sing.TermSettings(format_share=1.0)
    )
    return SingingTask(student, coded, settings, 0, teacher)


class RandomTeacher:
    """Says something else about every frame."""

    def signals(self, coded):
        generator = torch.Generator().manual_seed(len(coded))
        return [self._signal(item, generator) for item in coded]

    def _signal(self, item, generator):
        def drawn(rows: int, size: int) -> torch.Tensor:
            return torch.randn(rows, size, generator=generator).log_softmax(-1)

        pieces = len(item.passage.pieces)
        return Signal(
            tuple(drawn(len(item.codes_FS), size) for size in FORMAT.slot_sizes),
            drawn(pieces, 90),
            drawn(pieces, tiny_singer.LONGEST + 1),
        )


def test_accumulated_micro_batches_are_one_large_batch(student, coded):
    """Loss and gradients in float32; the micro-batches hold unlike counts."""
    task = task_of(student, coded, teacher=RandomTeacher())
    v, weights = student.vocabulary, task.loss_weights()
    signals = RandomTeacher().signals(coded)
    cut = len(coded) // 3
    halves = [list(range(cut)), list(range(cut, len(coded)))]

    def batch(numbers: list[int]):
        rows = pack_rows([len(task.coded.tokens(i)) for i in numbers], range(len(numbers)), ROW)
        rows = [[numbers[i] for i in row] for row in rows]
        return build(
            [[task.coded.tokens(i) for i in r] for r in rows],
            v,
            ROW,
            [[signals[i] for i in r] for r in rows],
            1.0,
        )

    def run(batches) -> tuple[float, dict[str, torch.Tensor]]:
        totals: Counter = Counter()
        for large in batches:
            totals.update(task.counts(large))
        student.model.zero_grad(set_to_none=True)
        loss = 0.0
        for large in batches:
            terms = task.loss(large)
            assert {name: count for name, (_, count) in terms.items()} == task.counts(large)
            assert set(terms) == set(weights)
            part = sum(
                total * (weights[name] / max(1.0, totals[name]))
                for name, (total, _) in terms.items()
            )
            part.backward()
            loss += float(part.detach())
        return loss, {name: p.grad.clone() for name, p in student.trainable().items()}

    one_loss, large = run([batch(list(range(len(coded))))])
    two_loss, two = run([batch(numbers) for numbers in halves])
    assert two_loss == pytest.approx(one_loss, rel=1e-5)
    largest = max(float(gradient.abs().max()) for gradient in large.values())
    for name in large:
        assert float((large[name] - two[name]).abs().max()) <= 1e-5 * max(1.0, largest), name
    mean = sum(run([batch(numbers)])[0] for numbers in halves) / 2
    assert abs(mean - one_loss) > 1e-4  # the mean of means is something else: the test can fail


def test_opens_and_lengths_of_a_batch_without_any_are_nothing(student):
    only_notes = tiny_singer.coded(1, ONE_LINE)
    task = task_of(student, only_notes)
    batch = next(task.batches(torch.Generator().manual_seed(0), 0))
    assert len(batch.opens.at_N) == 0
    terms = task.loss(batch)
    assert float(terms["opens"][0]) == 0 and terms["opens"][1] == 0
    assert batch.audio_seconds == pytest.approx(sum(len(c.codes_FS) for c in only_notes) / 25)
    assert replace(batch).to(torch.device("cpu")).tokens == batch.ids_BT.numel()


# --- at size --------------------------------------------------------------------------------------
@pytest.mark.parametrize("total", [1, 63, 64, 65, 1000])
def test_lanes_pack_every_block_as_it_is_packed_alone(total):
    sizes = np.array(lengths(total, total), np.int32)
    order_N = np.random.default_rng(total).permutation(total).astype(np.int32)
    rows = pack_lanes(sizes, order_N, 512, OPEN_ROWS, lane=64)
    members = [*map(np.ndarray.tolist, np.split(rows.members_N, rows.starts_R[1:-1]))]
    alone = [
        row
        for first in range(0, total, 64)
        for row in pack_rows(sizes.tolist(), order_N[first : first + 64].tolist(), 512)
    ]
    assert sorted(members) == sorted(alone)


def test_rows_of_large_data_are_packed_once_and_shuffled_in_every_pass(monkeypatch):
    monkeypatch.setattr(batches, "BLOCK", 100)
    sizes, packing = np.array(lengths(3, 5000), np.int32), PackingSettings(512, 4)
    first, second = (epoch(sizes, packing, 7, number) for number in (0, 1))
    for batches_of in (first, second):
        assert sorted(i for b in batches_of for row in b for i in row) == list(range(5000))
        assert all(sizes[row].sum() <= 512 for b in batches_of for row in b)
        assert all(len(b) == 4 for b in batches_of[:-1])
    rows_of_first, rows_of_second = ([row for b in e for row in b] for e in (first, second))
    assert rows_of_first != rows_of_second and sorted(rows_of_first) == sorted(rows_of_second)
    assert sorted(rows_of_first) != sorted(row for b in epoch(sizes, packing, 8, 0) for row in b)
    spread = [abs(a - b) for row in rows_of_first for a, b in itertools.pairwise(row)]
    assert sum(spread) / len(spread) > 1000  # a third of 5,000 where neighbours are strangers
    with pytest.raises(FitError, match="passage 17 has 513 tokens, rows hold 512"):
        epoch(np.where(np.arange(5000) == 17, 513, sizes), packing, 7, 0)


def test_batch_k_of_large_data_is_found_without_those_before_it(monkeypatch):
    monkeypatch.setattr(batches, "BLOCK", 100)
    sizes, packing = np.array(lengths(3, 1000), np.int32), PackingSettings(512, 4)
    each = len(epoch(sizes, packing, 7, 0))
    passes = []
    real = batches.epoch
    monkeypatch.setattr(batches, "epoch", lambda *a: passes.append(a[3]) or real(*a))
    k = 10**6 * each + 5
    assert next(schedule(sizes, packing, 7, k)) == real(sizes, packing, 7, 10**6)[5]
    assert passes == [10**6]


@pytest.mark.parametrize("block", [100, 10_000])
@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_ranks_share_the_same_batches_and_make_their_own_alone(monkeypatch, block, ranks):
    monkeypatch.setattr(batches, "BLOCK", block)
    sizes, packing = lengths(9, 400), PackingSettings(512, 4)
    whole = list(islice(schedule(sizes, packing, 3), 60))
    for rank in range(ranks):
        own = list(islice(schedule(sizes, packing, 3, 5 + rank, ranks), 6))
        assert own == whole[5 + rank :: ranks][:6]


def test_a_task_skips_what_other_processes_make(student, coded, monkeypatch):
    task = task_of(student, coded, rows=1)
    generator = torch.Generator().manual_seed(5)
    whole = list(islice(task.batches(generator, 0), 9))
    made = []
    real = _singing_task.build
    monkeypatch.setattr(_singing_task, "build", lambda *a: made.append(a[-1]) or real(*a))
    for number, batch in zip((2, 5, 8), task.batches(generator, 2, 3), strict=False):
        assert torch.equal(batch.ids_BT, whole[number].ids_BT)
        assert torch.equal(batch.format_N, whole[number].format_N)
    assert made == [2, 5, 8]
