"""LoRA folded for singing: the same hidden states, and a student that nothing was done to."""

from __future__ import annotations

import pytest
import tiny_bases
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import GPT2Config

from distill.lm.folding import folded
from distill.lm.student import LoraSettings, Student, graft, rows_of

FAMILIES = ["llama", "qwen2", "qwen3", "gemma", "gpt_neox", "gpt2"]


def make(family: str) -> Student:
    """A LoRA student of a tiny base that was moved off its first values."""
    if family == "gpt2":  # whose layers are Conv1D, their weights the other way round
        settings = GPT2Config(vocab_size=tiny_bases.ROWS, n_embd=32, n_layer=2, n_head=4)
    else:
        settings = tiny_bases.config(family, tied=True)
    model = tiny_bases.build(settings)
    vocabulary = tiny_bases.vocabulary(rows_of(model))
    student = graft(model, tiny_bases.tokenizer(), vocabulary, tiny_bases.codebooks())
    student.adapt(LoraSettings(rank=4, alpha=8))
    tiny_bases.disturb(student)
    student.model.eval()
    return student


def hidden(student: Student) -> Tensor:
    ids_BT = torch.arange(0, 120, 5)[None] % student.vocabulary.rows
    return student.hidden(ids_BT)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_hidden_states_are_the_same_and_no_lora_layer_is_left(family):
    student = make(family)
    with torch.no_grad():
        plain_BTD = hidden(student)
        with folded(student):
            assert not any(isinstance(m, LoraLayer) for m in student.model.modules())
            folded_BTD = hidden(student)
        torch.testing.assert_close(folded_BTD, plain_BTD, rtol=1e-4, atol=1e-4)
        assert torch.equal(hidden(student), plain_BTD)


def test_the_student_trains_on_bit_for_bit_even_after_an_error():
    trained, untouched = make("llama"), make("llama")
    before = {name: value.clone() for name, value in trained.model.state_dict().items()}
    addresses = {name: value.data_ptr() for name, value in trained.trainable().items()}
    with pytest.raises(RuntimeError, match="stop"), folded(trained):
        raise RuntimeError("stop")
    after = trained.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert addresses == {name: value.data_ptr() for name, value in trained.trainable().items()}
    for student in (trained, untouched):
        hidden(student).square().mean().backward()
    for name, parameter in trained.trainable().items():
        other = untouched.trainable()[name].grad
        assert (parameter.grad is None) == (other is None)
        assert parameter.grad is None or torch.equal(parameter.grad, other)


def test_half_precision_is_folded_as_a_merge_in_it(monkeypatch):
    student = make("llama")
    exact = {
        name: module.get_base_layer().weight + module.get_delta_weight("default")
        for name, module in student.model.named_modules()
        if isinstance(module, LoraLayer)
    }
    for module in student.model.modules():
        if isinstance(module, LoraLayer):
            module.get_base_layer().bfloat16()
    with folded(student):
        modules = dict(student.model.named_modules())
        for name, weight in exact.items():
            assert modules[name].weight.dtype == torch.bfloat16
            torch.testing.assert_close(modules[name].weight.float(), weight, rtol=0.02, atol=2e-3)


def test_what_cannot_be_folded_stays_as_it_is():
    student = make("llama")
    layer = next(m for m in student.model.modules() if isinstance(m, LoraLayer))
    layer.get_base_layer().weight = torch.nn.Parameter(
        torch.zeros(4, dtype=torch.uint8), requires_grad=False
    )
    with folded(student):
        left = [m for m in student.model.modules() if isinstance(m, LoraLayer)]
    assert left == [layer]


def test_singing_is_done_on_folded_weights(monkeypatch):
    import tiny_singer

    from distill.singing.generation import generate
    from distill.singing.sampling import Sampling
    from distill.writing.prompts import WritingSettings

    student = tiny_singer.student(lora=True)
    passages = [c.passage for c in tiny_singer.coded(1, WritingSettings(max_lines=1))][:1]

    def refuse(self, *given, **named):
        raise AssertionError("a LoRA layer was asked")

    for kind in {type(m) for m in student.model.modules() if isinstance(m, LoraLayer)}:
        monkeypatch.setattr(kind, "forward", refuse)
    (sung,) = generate(student, passages, [500], [3], Sampling((0.0, 0.5)))
    assert sung.ids
