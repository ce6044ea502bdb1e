"""Laws of the graft, for tiny random bases of every family, head tied and untied.

A family passes them all or is refused in one line before anything is trained; docs/families.md is
the table of both, and a test here holds it to these lists.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import tiny_bases
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy

from distill.errors import FolderError, GraftError
from distill.lm import attention
from distill.lm.base import open_base
from distill.lm.families import opener, text_config
from distill.lm.merge import load_merged, merge, stock_model
from distill.lm.student import LoraSettings, Student, graft, load
from distill.tasks import sing
from distill.tasks._singing_task import SingingTask
from distill.writing.losses import CrossEntropy, ForwardKl
from distill.writing.prompts import Coded, Passage, Piece
from distill.writing.signals import Signal

LIVELY = {"initializer_range": 0.1}  # so that layers do something to what they read
NEAR = 1e-4  # of the largest number: what rounding may do
ROW = 96
ROOT = Path(__file__).parents[2]
MERGED: dict[str, Path] = {}  # by case, for the process that never imports distill


@dataclass
class Case:
    name: str
    family: str
    tied: bool
    folder: Path
    student: Student


EVERY_CASE = [
    pytest.param(
        case,
        id=f"{case[0]}-{'tied' if case[1] else 'untied'}",
        marks=() if case in tiny_bases.QUICK_CASES else pytest.mark.slow,
    )
    for case in tiny_bases.CASES
]


@pytest.fixture(scope="module", params=EVERY_CASE)
def case(request, tmp_path_factory) -> Case:
    """A student that stands for a trained one; all its laws are tried before the next is made."""
    family, tied = request.param
    folder = tmp_path_factory.mktemp(family.replace("/", "-"))
    base = tiny_bases.write(folder / "base", tiny_bases.config(family, tied, **LIVELY))
    student = graft(*open_base(base), tiny_bases.vocabulary(), tiny_bases.codebooks())
    student.adapt(LoraSettings(rank=4, alpha=8))
    tiny_bases.disturb(student)
    return Case(f"{family}-{tied}", family, tied, folder, student)


def drawn(rows: int, *shape: int, seed: int = 3) -> torch.Tensor:
    return torch.randint(rows, shape, generator=torch.Generator().manual_seed(seed))


def near(ours: torch.Tensor, theirs: torch.Tensor, slack: float = NEAR) -> bool:
    ours, theirs = ours.detach(), theirs.detach()
    return float((ours - theirs).abs().max()) <= slack * max(1e-6, float(theirs.abs().max()))


# --- the graft ------------------------------------------------------------------------------------
def test_text_logits_are_bit_identical_until_something_is_trained(case):
    stock, _ = open_base(case.folder / "base")
    student = graft(*open_base(case.folder / "base"), tiny_bases.vocabulary(), init="gaussian")
    assert student.tied is case.tied and len(student.new_rows()) == (1 if case.tied else 2)
    ids_BT, rows = drawn(tiny_bases.ROWS, 2, 40), tiny_bases.ROWS
    with torch.no_grad():
        before_BTV = stock(input_ids=ids_BT).logits
        assert torch.equal(student.model(input_ids=ids_BT).logits[..., :rows], before_BTV)
        student.adapt(LoraSettings(rank=4, alpha=8))  # B begins at zero: still the same text LLM
        assert torch.equal(student.model(input_ids=ids_BT).logits[..., :rows], before_BTV)
        moved_BTV = case.student.model(input_ids=ids_BT).logits[..., :rows]
        assert not near(moved_BTV, before_BTV)


def test_logits_are_the_stock_logits(case):
    student, rows = case.student, case.student.vocabulary.rows
    mixed_BT, span = drawn(rows, 2, 40, seed=4), case.student.vocabulary.span(1)
    with torch.no_grad():
        all_NV = student.model(input_ids=mixed_BT).logits.flatten(0, 1)
        hidden_ND = student.hidden(mixed_BT).flatten(0, 1)
        for start, end in ((span.start, span.stop), (0, 10), (290, 310), (0, rows)):
            assert near(student.logits(hidden_ND, start, end), all_NV[:, start:end])


# --- packed, cached, padded -----------------------------------------------------------------------
@pytest.mark.parametrize("lengths", [(3, 5, 8, 6), (13, 17, 9, 1)], ids=["short", "long"])
def test_a_song_packed_behind_others_is_the_song_alone(case, lengths):
    """Songs within the window that a layer looks back, and beyond it; nothing is said to pass by
    a difference that is small: the neighbour is changed, too."""
    student = case.student
    ids_BT = drawn(student.vocabulary.rows, 2, sum(lengths), seed=5)
    positions_BT = torch.cat([torch.arange(length) for length in lengths]).expand(2, -1)
    first, second = lengths[0], lengths[0] + lengths[1]
    other_BT = ids_BT.clone()
    other_BT[:, :first] = (ids_BT[:, :first] + 7) % student.vocabulary.rows
    with torch.no_grad():
        alone_BTD = student.hidden(ids_BT[:, first:second])
        packed_BTD = student.hidden(ids_BT, positions_BT)[:, first:second]
        beside_BTD = student.hidden(other_BT, positions_BT)[:, first:second]
        unpacked_BTD = student.hidden(ids_BT)[:, first:second]
    assert near(packed_BTD, alone_BTD, 1e-5) and near(beside_BTD, packed_BTD, 1e-5)
    assert not near(unpacked_BTD, alone_BTD, 1e-3)  # the test can fail


def test_cached_is_whole_and_padded_on_the_left_is_single(case):
    student = case.student
    ids_BT = drawn(student.vocabulary.rows, 2, 30, seed=6)
    padded_BT = torch.cat([torch.zeros(1, 9, dtype=torch.int64), ids_BT[:1, :21]], -1)
    both_BT = torch.cat([padded_BT, ids_BT[1:]])
    mask_BT = torch.ones_like(both_BT)
    mask_BT[0, :9] = 0
    with torch.no_grad():
        whole_BTD = student.hidden(ids_BT)
        alone_BTD = in_steps(student, ids_BT[:1], [14, 5, 1, 1, 6, 1, 2])
        side_BTD = in_steps(student, both_BT, [20] + [1] * 10, mask_BT)
    assert near(alone_BTD, whole_BTD[:1])
    assert near(side_BTD[:1, 9:], whole_BTD[:1, :21]) and near(side_BTD[1:], whole_BTD[1:])


def in_steps(student, ids_BT, steps, mask_BT=None):
    counted_BT = torch.ones_like(ids_BT) if mask_BT is None else mask_BT
    positions_BT = (counted_BT.cumsum(-1) - 1).clamp(min=0)
    cache, parts, start = student.new_cache(), [], 0
    for step in steps:
        at = slice(start, start + step)
        seen_BT = None if mask_BT is None else mask_BT[:, : start + step]
        parts.append(student.hidden(ids_BT[:, at], positions_BT[:, at], cache, seen_BT))
        start += step
    return torch.cat(parts, 1)


def test_the_docs_say_how_songs_are_kept_apart(case):
    student, way = case.student, table("family")[case.family][-1]
    if student.packing == "songs" and student.reach < attention.EVERY:
        assert way == "songs, rows beyond a window"
    else:
        assert way == student.packing


def table(first: str, behind: str = "") -> dict[str, list[str]]:
    """Rows of the first table of docs/families.md behind some words, by their first cell."""
    text = (ROOT / "docs" / "families.md").read_text(encoding="utf-8")
    text = text[text.index(behind) :]
    lines = text[text.index(f"| {first} |") :].partition("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    return {row[0]: row[1:] for row in rows}


# --- what trains ----------------------------------------------------------------------------------
def test_only_new_rows_and_lora_of_the_language_model_get_gradients(case):
    student = case.student
    student.model.zero_grad()
    trained, rows = student.trainable(), student.vocabulary.rows
    hidden_BTD = student.hidden(drawn(rows, 4, 30, seed=7))
    student.logits(hidden_BTD.flatten(0, 1), 0, rows).logsumexp(-1).sum().backward()
    body = {id(parameter) for parameter in student.body.parameters()}
    body |= {id(parameter) for parameter in student.new_rows().values()}
    for name, parameter in student.model.named_parameters():
        assert (parameter.grad is not None) is (name in trained), name
        if name in trained:
            assert parameter.dtype == torch.float32 and id(parameter) in body
            assert name.endswith(".new") or ".lora_" in name
            assert bool(parameter.grad.isfinite().all()) and bool(parameter.grad.any()), name
    student.model.zero_grad()


def coded_passages() -> list[Coded]:
    """Three passages of two pieces: their frames are longer than any window."""
    generator, coded = torch.Generator().manual_seed(8), []
    for number in range(3):
        pieces = (Piece("row", 50 + number, 3), Piece("boat", 60.0, 4, open=True))
        codes = [torch.randint(size, (7,), generator=generator) for size in tiny_bases.CODES]
        coded.append(Coded(Passage(f"p{number}", "style: a\n", pieces), torch.stack(codes, 1)))
    return coded


class CertainTeacher:
    """Is certain of the songs: all of its probability is on what was sung."""

    def __init__(self, student: Student):
        self.vocabulary = student.vocabulary

    def signals(self, coded):
        return [self._signal(item) for item in coded]

    def _signal(self, item: Coded) -> Signal:
        v, pieces = self.vocabulary, item.passage.pieces
        slots = zip(item.codes_FS.unbind(1), tiny_bases.CODES, strict=True)
        pitches = torch.tensor([v.pitch(p.midi) - v.pitch_span.start for p in pieces])
        frames = [None if p.open else p.frames for p in pieces]
        lengths = torch.tensor([v.length(count) - v.length_span.start for count in frames])
        return Signal(
            tuple(certain(codes_F, size) for codes_F, size in slots),
            certain(pitches, len(v.pitch_span)),
            certain(lengths, len(v.length_span)),
        )


def certain(index_N: torch.Tensor, size: int) -> torch.Tensor:
    return torch.full((len(index_N), size), -1e4).scatter(1, index_N[:, None], 0.0)


def task_of(student: Student, loss, teacher=None) -> SingingTask:
    settings = sing.Settings(songs=None, codec=None, teacher=teacher, losses=(loss,))
    terms = replace(settings.terms, format_share=1.0)
    settings = replace(settings, packing=replace(settings.packing, row_tokens=ROW, rows=2))
    return SingingTask(student, coded_passages(), replace(settings, terms=terms), 0, teacher)


def gradients(student: Student, totals) -> dict[str, torch.Tensor]:
    student.model.zero_grad()
    sum(totals).backward(retain_graph=True)
    grads = {n: p.grad for n, p in student.trainable().items() if p.grad is not None}
    student.model.zero_grad()  # sets them to None: what was given stays
    return grads


def test_a_teacher_that_is_certain_of_the_songs_gives_cross_entropys_gradient(case, monkeypatch):
    """The shift law: with the labels, too, that plain transformers has for each song alone."""
    student = case.student
    monkeypatch.setattr(student.model, "train", lambda mode=True: student.model)  # no dropout
    by_song = task_of(student, CrossEntropy())
    by_teacher = task_of(student, ForwardKl(), CertainTeacher(student))
    alone = next(iter(by_song.batches(torch.Generator().manual_seed(0), 0)))
    taught = next(iter(by_teacher.batches(torch.Generator().manual_seed(0), 0)))
    sung, heard = by_song.loss(alone), by_teacher.loss(taught)
    slots = range(student.vocabulary.format.slots)
    ours = [sung[f"slot{s}.cross_entropy"][0] for s in slots]
    theirs = [heard[f"slot{s}.forward_kl"][0] for s in slots]
    stock = stock_losses(student, [by_song.coded.tokens(i) for i in range(len(by_song.coded))])
    for own, told, plain in zip(ours, theirs, stock, strict=True):
        assert float(own.detach()) > 1
        assert near(own, plain, 1e-4) and near(told, own, 1e-4)
    assert near(heard["lengths.kl"][0], sung["lengths"][0], 1e-4)
    first = gradients(student, ours)
    for other in (gradients(student, theirs), gradients(student, stock)):
        assert first.keys() == other.keys()
        largest = max(float(grad.abs().max()) for grad in first.values())
        assert all(near(other[n], g, 1e-3 * max(1.0, largest)) for n, g in first.items())
    rows = list(student.new_rows().values())[-1]
    for name, (total, count) in heard.items():
        (grad,) = torch.autograd.grad(total, rows, retain_graph=True)
        assert count > 0 and bool(grad.any()), name


def stock_losses(student: Student, written) -> list[torch.Tensor]:
    """By slot: cross entropy of its codes at the stock logits of the token before, songs alone."""
    totals = [torch.zeros(()) for _ in range(student.vocabulary.format.slots)]
    for song in written:
        ids_T = song.ids_T
        logits_TV = student.model(input_ids=ids_T[None]).logits[0]
        for slot in range(len(totals)):
            span = student.vocabulary.span(slot)
            at_N = ((ids_T >= span.start) & (ids_T < span.stop)).nonzero().flatten()
            own_NC = logits_TV[at_N - 1, span.start : span.stop]
            wanted_N = ids_T[at_N] - span.start
            totals[slot] = totals[slot] + cross_entropy(own_NC, wanted_N, reduction="sum")
    return totals


# --- on disk --------------------------------------------------------------------------------------
def test_adapter_on_disk_is_plain_peft_and_merges_to_the_same_logits(case):
    student, folder, rows = case.student, case.folder, case.student.vocabulary.rows
    student.save_adapter(folder / "adapter", dtype="float32")
    ids_BT = drawn(rows, 2, 40, seed=7)
    kind = opener(student.model.config)
    resized = kind.from_pretrained(folder / "base")
    resized.resize_token_embeddings(rows, mean_resizing=False)
    plain = PeftModel.from_pretrained(resized, folder / "adapter").eval()
    again = load(folder / "base", folder / "adapter")
    with torch.no_grad():
        ours_BTV = student.model(input_ids=ids_BT).logits
        assert ours_BTV.shape[-1] == rows
        assert near(plain(input_ids=ids_BT).logits, ours_BTV)
        assert torch.equal(again.model(input_ids=ids_BT).logits, ours_BTV)

    merged = merge(again, folder / "merged")
    assert merged.tied is case.tied
    whole = load_merged(folder / "merged")
    config = whole.model.config
    assert text_config(config).vocab_size == rows and config.tie_word_embeddings is case.tied
    assert config.model_type == case.student.model.config.model_type
    assert (whole.packing, whole.reach) == (student.packing, student.reach)
    with torch.no_grad():
        assert near(whole.model(input_ids=ids_BT).logits, ours_BTV)
    names = load_file(folder / "merged" / "model.safetensors")
    assert sum(tensor.shape == (rows, 32) for tensor in names.values()) == (1 if case.tied else 2)
    assert whole.base_fingerprint == student.base_fingerprint
    save_file({"ids": ids_BT, "logits": ours_BTV.contiguous()}, folder / "merged" / "wanted")
    MERGED[case.name] = folder / "merged"


def test_a_merge_in_half_the_bits_is_the_student_rounded(case):
    merged = merge(case.student, case.folder / "half", dtype="bfloat16")
    assert merged.largest_difference > 0  # the file is what was rounded, not what it came from
    whole = dict(stock_model(case.student).named_parameters())
    for name, tensor in load_file(case.folder / "half" / "model.safetensors").items():
        assert tensor.dtype == torch.bfloat16, name
        if name in whole:
            assert torch.equal(tensor, whole[name].bfloat16()), name


BARE = """
import importlib.util, sys
here = importlib.util.find_spec  # torchaudio is of no use here, and may want a GPU's libraries
importlib.util.find_spec = lambda name, *a: None if "torchaudio" in name else here(name, *a)
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
torch.set_num_threads(1)
for folder in sys.argv[1:]:
    wanted = load_file(folder + "/wanted")
    try:
        model = AutoModelForCausalLM.from_pretrained(folder)
    except ValueError:
        model = AutoModelForImageTextToText.from_pretrained(folder)
    with torch.no_grad():
        logits = model.eval()(input_ids=wanted["ids"]).logits
        ids = model.generate(input_ids=wanted["ids"][:1, :5], max_new_tokens=3, do_sample=False)
    apart = float((logits - wanted["logits"]).abs().max() / wanted["logits"].abs().max())
    assert apart <= 1e-4 and ids.shape[1] > 5, (folder, apart)
assert not any(name.partition(".")[0] == "distill" for name in sys.modules)
print(len(sys.argv[1:]), "alike")
"""


def test_plain_transformers_reads_what_was_merged_in_a_process_that_never_imports_distill():
    if not MERGED:
        pytest.skip("no family was merged before")
    folders = [str(folder) for folder in MERGED.values()]
    done = subprocess.run([sys.executable, "-c", BARE, *folders], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"{len(folders)} alike" in done.stdout


# --- refused --------------------------------------------------------------------------------------
@pytest.mark.parametrize("family", tiny_bases.REFUSED)
def test_a_family_that_cannot_is_refused_in_one_line_before_anything_is_trained(family):
    model = tiny_bases.build(tiny_bases.refused(family))
    words = tiny_bases.REFUSED[family][1]
    with pytest.raises(GraftError, match=words) as refusal:
        graft(model, tiny_bases.tokenizer(), tiny_bases.vocabulary(), tiny_bases.codebooks())
    line = str(refusal.value)
    assert "\n" not in line and line.startswith(family) and "; " in line


def test_the_docs_name_these_families_and_no_others():
    assert list(table("family")) == list(tiny_bases.FAMILIES)
    refused = table("family", behind="Refused,")
    assert list(refused) == list(tiny_bases.REFUSED) and all(row[0] for row in refused.values())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model_type": "odd", "auto_map": {"AutoConfig": "odd.Odd"}}, "odd|code"),
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "causal LM"),
    ],
)
def test_bases_that_bring_code_or_an_encoder_are_refused_when_they_are_opened(
    settings, words, tmp_path, monkeypatch
):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked to run a stranger's code"))
    tiny_bases.write(tmp_path / "base", tiny_bases.config())
    (tmp_path / "base" / "config.json").write_text(json.dumps(settings))
    (tmp_path / "base" / "odd.py").write_text("raise SystemExit('ran')\n")
    with pytest.raises(FolderError, match=words) as refusal:
        open_base(tmp_path / "base")
    assert "\n" not in str(refusal.value)
