"""What saves memory or time in a step, by recipe key: fp16, an 8-bit optimiser, checkpointed and
compiled layers. Each trains, resumes as if nothing had happened, or is refused by name."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import tiny_singer
import torch
from torch import Tensor, nn
from toy_task import SETTINGS, Toy

from distill.errors import CheckpointError, SettingsError, TrainingError
from distill.lm import training_layers
from distill.tasks import sing
from distill.tasks._singing_task import SingingTask
from distill.training import trainer
from distill.training.trainer import Step, TrainSettings, train
from distill.writing.batches import PackingSettings
from distill.writing.prompts import WritingSettings

SHORT = dataclasses.replace(SETTINGS, steps=12)
FP16 = dataclasses.replace(SHORT, precision="fp16")
EIGHT_BITS = dataclasses.replace(SHORT, optimizer="adamw8bit")


class Wide(Toy):
    """Large enough for moments in 8 bits; its vectors are not."""

    def __post_init__(self) -> None:
        super().__post_init__()
        torch.manual_seed(1)
        self.network = nn.Sequential(
            nn.Linear(8, 600), nn.Tanh(), nn.Dropout(self.dropout), nn.Linear(600, 1)
        )


def run(folder: Path, settings: TrainSettings, task: Toy | None = None) -> tuple[Toy, list[Step]]:
    task = task or Wide()
    return task, list(train(task, settings, folder, seed=3))


def interrupted(folder: Path, settings: TrainSettings) -> Toy:
    """Stopped between two checkpoints, and called again."""
    for step in train(Wide(), settings, folder, seed=3):
        if step.index == 8:
            break
    return run(folder, settings)[0]


def same(task: Toy, other: Toy) -> bool:
    return all(torch.equal(value, other.state()[name]) for name, value in task.state().items())


# --- moments in 8 bits ----------------------------------------------------------------------------
def test_an_8_bit_optimiser_learns_about_what_the_whole_one_does(tmp_path):
    settings = dataclasses.replace(EIGHT_BITS, steps=60)
    _, eight = run(tmp_path / "8", settings)
    _, whole = run(tmp_path / "32", dataclasses.replace(settings, optimizer="adamw"))

    def end(steps: list[Step]) -> float:
        return sum(step.loss for step in steps[-10:])

    assert end(eight) < 0.5 * sum(step.loss for step in eight[:10])
    assert abs(end(eight) / end(whole) - 1) < 0.2
    assert eight[-1].loss != whole[-1].loss


def test_its_bytes_are_in_the_checkpoint_and_a_resumed_run_is_the_same_bit_for_bit(tmp_path):
    task, _ = run(tmp_path / "whole", EIGHT_BITS)
    assert same(interrupted(tmp_path / "cut", EIGHT_BITS), task)
    last = "checkpoints/step-00000012/optimizer.safetensors"
    assert (tmp_path / "cut" / last).read_bytes() == (tmp_path / "whole" / last).read_bytes()
    assert b'"U8"' in (tmp_path / "whole" / last).read_bytes()


def test_the_moments_of_another_optimiser_are_refused(tmp_path):
    run(tmp_path, SHORT)
    last = tmp_path / "checkpoints" / "step-00000012"
    loop = trainer._Loop(Wide(), EIGHT_BITS, 3, trainer.Accelerator())
    with pytest.raises(CheckpointError, match="optimiser's state of parameter 0 does not fit"):
        trainer.checkpoints.load(last, loop.optimizer)


# --- float16 --------------------------------------------------------------------------------------
@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """float16 here too, for the tests: slow on a CPU, and the same arithmetic."""
    monkeypatch.setattr(trainer, "FP16_DEVICES", ("cpu",))


class Overflows(Wide):
    """Its gradients leave float16 at some micro-batches while the loss of the scale is large."""

    most = 1.0
    at: tuple[int, ...] = (16, 17)

    def loss(self, batch: Any) -> dict[str, tuple[Tensor, float]]:
        terms = super().loss(batch)
        total, count = terms["square"]
        if batch[0] in self.at:
            total.register_hook(self.beyond)
        return terms | {"square": (total, count)}

    def beyond(self, gradient: Tensor) -> Tensor:
        return gradient * math.inf if float(gradient.abs().max()) > self.most else gradient


def test_fp16_trains_and_a_resumed_run_is_the_same_with_its_scale(on_cpu, tmp_path):
    task, steps = run(tmp_path / "whole", FP16)
    assert same(interrupted(tmp_path / "cut", FP16), task)
    assert all(math.isfinite(step.loss) for step in steps)
    assert {value.dtype for value in task.state().values()} == {torch.float32}
    state = json.loads((tmp_path / "cut/checkpoints/step-00000012/state.json").read_text())
    assert state["loss_scale"]["scale"] == 16384.0  # two steps found 65536 too much for this net
    assert math.isfinite(steps[-1].gradient_norm)


def test_a_step_that_overflows_is_left_out_and_the_scale_halves(on_cpu, tmp_path, caplog):
    before: dict[int, dict[str, Tensor]] = {}
    task = Overflows()
    with caplog.at_level(logging.WARNING, "distill"):
        for step in train(task, FP16, tmp_path, seed=3):
            before[step.index] = {name: value.clone() for name, value in task.state().items()}
            assert math.isfinite(step.gradient_norm) == (step.index not in (1, 2, 9))
    assert "step 9: its gradients overflow float16 at a loss scale of 16384" in caplog.text
    assert all(torch.equal(value, before[8][name]) for name, value in before[9].items())
    assert not all(torch.equal(value, before[9][name]) for name, value in before[10].items())
    state = json.loads((tmp_path / "checkpoints/step-00000012/state.json").read_text())
    assert state["loss_scale"]["scale"] == 8192.0


def test_gradients_that_no_scale_mends_stop_the_run(on_cpu, tmp_path):
    task = Overflows()
    task.most, task.at = 0.0, tuple(range(16, 200))
    with pytest.raises(TrainingError, match=r"step 2[0-9]: the gradient norm is"):
        run(tmp_path, dataclasses.replace(FP16, steps=60), task)


def test_a_loss_that_is_not_finite_stops_fp16_too(on_cpu, tmp_path):
    class Breaks(Wide):
        def scale(self, number: int) -> float:
            return math.nan if number == 8 else 1.0

    with pytest.raises(TrainingError, match="step 5: the loss is nan"):
        run(tmp_path, FP16, Breaks())


def test_a_checkpoint_without_its_scale_is_refused(on_cpu, tmp_path):
    run(tmp_path, SHORT)
    loop = trainer._Loop(Wide(), FP16, 3, trainer.Accelerator())
    last = tmp_path / "checkpoints" / "step-00000012"
    with pytest.raises(CheckpointError, match="holds no loss_scale"):
        trainer.checkpoints.load(last, loop.optimizer, loop.scaler)


# --- refused by name ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"precision": "fp16"}, r"train\.precision: fp16 is for CUDA, this device is cpu"),
        ({"compile": True}, r"train\.compile: this task knows no such thing"),
        ({"gradient_checkpointing": True}, r"train\.gradient_checkpointing: this task knows no"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(tmp_path, wrong, words):
    with pytest.raises(SettingsError, match=words) as error:
        run(tmp_path, dataclasses.replace(SHORT, **wrong))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "checkpoints").exists()


def test_an_8_bit_optimiser_without_its_package_or_device_is_refused(monkeypatch):
    with pytest.raises(SettingsError, match="bitsandbytes does not compute on mps; use adamw"):
        trainer.refuse(EIGHT_BITS, torch.device("mps"), frozenset())
    monkeypatch.setattr(trainer.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="bitsandbytes is not installed; use adamw"):
        trainer.refuse(EIGHT_BITS, torch.device("cpu"), frozenset())


# --- a singer's layers ----------------------------------------------------------------------------
def singing_task(**train_settings: Any) -> SingingTask:
    """A tiny LoRA student, its layers as the recipe says."""
    settings = sing.Settings(
        songs=None,
        codec=None,
        train=TrainSettings(steps=3, precision="fp32", warmup_steps=0, **train_settings),
        packing=PackingSettings(row_tokens=640, rows=2),
    )
    coded = tiny_singer.coded(3, WritingSettings(max_lines=1), "words")
    return SingingTask(tiny_singer.student("qwen3", lora=True), coded, settings, seed=3)


def gradients(task: SingingTask) -> tuple[float, dict[str, Tensor]]:
    batch = next(task.batches(torch.Generator().manual_seed(3), 0))
    loss = torch.stack([total for total, _ in task.loss(batch).values()]).sum()
    loss.backward()
    trained = task.student.trainable()
    return float(loss.detach()), {n: p.grad for n, p in trained.items() if p.grad is not None}


def kept(task: SingingTask) -> int:
    """Bytes that the graph of a step's hidden states holds."""
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    batch = next(task.batches(torch.Generator().manual_seed(3), 0))
    task.student.model.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        alive = task.student.hidden(batch.ids_BT, batch.positions_BT)
    assert alive.requires_grad
    return sum(held.values())


def test_checkpointed_layers_give_the_same_gradients_and_keep_less():
    plain, saving = singing_task(), singing_task(gradient_checkpointing=True)
    assert kept(saving) < 0.5 * kept(plain)
    loss, wanted = gradients(plain)
    again, ours = gradients(saving)
    assert again == pytest.approx(loss, rel=1e-6)
    assert ours.keys() == wanted.keys() and len(wanted) > 10
    for name, gradient in wanted.items():
        rounding = 1e-4 * max(1.0, float(gradient.abs().max()))
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=rounding)


def test_a_family_that_cannot_checkpoint_its_layers_is_refused(monkeypatch):
    student = tiny_singer.student("qwen3", lora=True)
    monkeypatch.setattr(type(student.model), "supports_gradient_checkpointing", False)
    with pytest.raises(SettingsError, match=r"train\.gradient_checkpointing: qwen3 .*leave it out"):
        training_layers.checkpoint_layers(student)


def compiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Compiled for nothing but the count of its graphs: inductor takes minutes."""
    graphs: list[int] = []

    def count(graph: Any, inputs: Any) -> Any:
        graphs.append(len(graph.graph.nodes))
        return graph.forward

    monkeypatch.setattr(training_layers, "BACKEND", count)
    return graphs


def test_compiled_layers_give_the_same_gradients_whatever_the_songs_lengths(monkeypatch):
    torch.compiler.reset()
    plain, graphs = singing_task(), compiled(monkeypatch)
    task = singing_task(compile=True)
    loss, wanted = gradients(plain)
    again, ours = gradients(task)
    assert graphs and again == pytest.approx(loss, rel=1e-5)
    for name, gradient in wanted.items():
        rounding = 1e-4 * max(1.0, float(gradient.abs().max()))
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=rounding)
    made = len(graphs)
    stream = task.batches(torch.Generator().manual_seed(3), 0)
    for _ in range(12):  # other songs in rows of the same length
        batch = next(stream)
        if batch.ids_BT.shape[0] == 2:
            task.loss(batch)
    assert len(graphs) <= 2 * made
    # what is not training is not compiled, and a copy is the stock model
    made = len(graphs)
    task.student.model.eval()
    with torch.no_grad():
        for length in (5, 6, 7):
            task.student.hidden(torch.arange(length)[None])
        other = copy.deepcopy(task.student.model).double()
        other(input_ids=torch.arange(5)[None], use_cache=False)
    assert len(graphs) == made


def test_compiled_layers_need_a_compiler(monkeypatch):
    monkeypatch.setattr(training_layers, "_has_compiler", lambda device: False)
    with pytest.raises(SettingsError, match=r"train\.compile: .* no C\+\+ compiler"):
        singing_task(compile=True)


@pytest.mark.parametrize(
    "key", ["gradient_checkpointing", pytest.param("compile", marks=pytest.mark.slow)]
)
def test_a_singer_trains_so_and_is_saved_and_resumed(monkeypatch, tmp_path, key):
    torch.compiler.reset()
    compiled(monkeypatch)
    task = singing_task(**{key: True})
    settings = dataclasses.replace(task.settings.train, checkpoint_every_steps=1)
    steps = list(train(task, settings, tmp_path, seed=3))
    assert [step.index for step in steps] == [1, 2, 3]
    assert all(math.isfinite(step.loss) for step in steps)
    assert not any(".lora_" in name and "_orig_mod" in name for name in task.state())
    task.student.model.eval()
    task.student.save_adapter(tmp_path / "adapter")
    again = singing_task(**{key: True})
    assert list(train(again, settings, tmp_path, seed=3)) == []
    for name, value in task.state().items():
        assert torch.equal(value, again.state()[name])
