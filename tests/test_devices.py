"""Several processes of one run (gloo, two of them here): equal to one process at the same global
batch, in pieces or not, killed and resumed; and what goes wrong in one ends all with one line."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import test_pipeline
import tiny_singer
import torch
from safetensors.torch import load_file
from test_pipeline import home  # noqa: F401 - a fixture

from distill import folders, pipeline
from distill.errors import SettingsError
from distill.runtime import ranks
from distill.training import sharding
from distill.training.trainer import TrainSettings

HERE = Path(__file__).parent
FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}


@dataclass
class Ended:
    """How a process ended, and what it printed to standard error."""

    status: int
    complaint: str


def launch(count: int, folder: Path, *orders: dict[str, object]) -> list[Ended]:
    """`count` processes that do these orders of ranks_work.py, begun as a launcher begins them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    own = {"PYTHONPATH": path, "GLOO_SOCKET_IFNAME": "lo"}
    if count > 1:
        own |= {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, str(HERE / "ranks_work.py"), str(folder), json.dumps(orders)]
    running = [
        subprocess.Popen(
            command,
            env=os.environ | own | ({"RANK": str(n), "LOCAL_RANK": str(n)} if count > 1 else {}),
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(count)
    ]
    complaints = [process.communicate(timeout=1800)[1] for process in running]
    return [Ended(p.returncode, words) for p, words in zip(running, complaints, strict=True)]


def trained(count: int, folder: Path, *orders: dict[str, object]) -> None:
    ends = launch(count, folder, *orders)
    assert [end.status for end in ends] == [0] * count, ends


def state(folder: Path) -> dict[str, torch.Tensor]:
    """The trained parameters."""
    return load_file(folder / "state.safetensors")


def steps(folder: Path) -> list[int]:
    rows = (folder / "run/steps.jsonl").read_text().splitlines()
    return [json.loads(row)["step"] for row in rows]


def near(state: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert state.keys() == other.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(tensor, other[name], atol=1e-5, rtol=0)


def same(state: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert state.keys() == other.keys()
    assert [name for name, tensor in state.items() if not torch.equal(tensor, other[name])] == []


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs by one process, then the same and others by two, resumed where one had stopped."""
    folder, families = tmp_path_factory.mktemp("done"), ("llama", "qwen3")  # untied, and tied
    trained(
        1, folder,
        *({"name": f"one {family}", "accumulate": 4, "family": family} for family in families),
        {"name": "to two", "accumulate": 4, "stop": 3},
    )  # fmt: skip
    last = {"name": "to one", "accumulate": 2, "stop": 3, "fsdp": True}
    trained(
        2, folder,
        *(
            {"name": f"{how} {family}", "accumulate": 2, "family": family, "fsdp": how == "pieces"}
            for family in families
            for how in ("whole", "pieces")
        ),
        *(
            {"name": f"cut {how}", "accumulate": 2, "stop": stop, "fsdp": how == "pieces"}
            for how in ("whole", "pieces")
            for stop in (3, 0)
        ),
        last,
    )  # fmt: skip
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("how", ["whole", "pieces"])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_two_processes_are_one_at_the_same_global_batch(done: Path, family: str, how: str) -> None:
    one, two = done / f"one {family}", done / f"{how} {family}"
    near(state(two), state(one))
    assert any(not torch.equal(tensor, state(one)[name]) for name, tensor in fresh(family).items())
    for file in ("adapter_config.json", "distill.json", "adapter_model.safetensors"):
        assert (two / "adapter" / file).is_file()
    for file in ("adapter", "run/checkpoints/step-00000004"):
        for path in (one / file).glob("*.safetensors"):
            near(load_file(two / file / path.name), load_file(path))
    assert steps(two) == [1, 2, 3, 4] and folders.whole(two / "run/checkpoints/step-00000004")


def fresh(family: str) -> dict[str, torch.Tensor]:
    return tiny_singer.student(family, lively=0.05, lora=True).state()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["whole", "pieces"])
def test_stopped_and_resumed_it_ends_equal(done: Path, how: str) -> None:
    same(state(done / f"cut {how}"), state(done / f"{how} llama"))
    assert steps(done / f"cut {how}") == [1, 2, 3, 4]


@pytest.mark.slow
def test_in_pieces_it_resumes_on_another_number_of_processes(done: Path, tmp_path: Path) -> None:
    """The settings of a folder stay, so another number of processes is another global batch from
    there on; what it starts from is what was left."""
    left = "run/checkpoints/step-00000002"
    for file in ("weights.safetensors", "optimizer.safetensors"):
        near(load_file(done / "to one" / left / file), load_file(done / "one llama" / left / file))
    trained(1, done, {"name": "to one", "accumulate": 2})
    trained(2, done, {"name": "to two", "accumulate": 4, "fsdp": True})
    for name, micro_batches in (("to one", 8 + 4), ("to two", 8 + 16)):
        path = done / name / "run/checkpoints/step-00000004/state.json"
        assert json.loads(path.read_text())["micro_batches"] == micro_batches
        assert steps(done / name) == [1, 2, 3, 4]
        assert all(tensor.isfinite().all() for tensor in state(done / name).values())


def lines(ends: list[Ended]) -> list[str]:
    told = [line for end in ends for line in end.complaint.splitlines()]
    return [line for line in told if line.startswith("distill:") or "Traceback" in line]


@pytest.mark.slow
def test_an_error_of_one_process_ends_all_with_one_line(tmp_path: Path) -> None:
    ends = launch(2, tmp_path, {"name": "run", "accumulate": 2, "wrong": "error"})
    assert [end.status for end in ends] == [2, 2]
    assert lines(ends) == ["distill: song 7: is odd; leave it out"]


@pytest.mark.slow
def test_a_killed_process_ends_all_with_one_line_and_nothing_is_lost(
    done: Path, tmp_path: Path
) -> None:
    ends = launch(2, tmp_path, {"name": "run", "accumulate": 2, "wrong": "killed"})
    assert [end.status for end in ends] == [2, -9]
    assert len(lines(ends)) == 1 and "lost another one" in lines(ends)[0], ends
    trained(2, tmp_path, {"name": "run", "accumulate": 2})
    same(state(tmp_path / "run"), state(done / "whole llama"))


@pytest.mark.slow
def test_two_processes_with_different_songs_are_refused(tmp_path: Path) -> None:
    ends = launch(2, tmp_path, {"name": "run", "accumulate": 2, "wrong": "songs"})
    assert [end.status for end in ends] == [2, 2]
    (line,) = lines(ends)
    assert "processes 0 and 1 have different songs (" in line and "one cache" in line
    assert not list((tmp_path / "run").rglob("step-*"))


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"FSDP_VERSION": "1"}, "add --fsdp_version 2"),
        ({"FSDP_OFFLOAD_PARAMS": "true"}, "fsdp_offload_params .* leave it out"),
    ],
)
def test_other_kinds_of_fsdp_are_refused(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], words: str
) -> None:
    for name, value in ({"WORLD_SIZE": "2"} | FSDP | environment).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=words):
        sharding.is_wanted()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"precision": "fp16"}, "FSDP: train.precision: fp16 does not go with it; launch without"),
        ({"optimizer": "adamw8bit"}, "FSDP: train.optimizer: adamw8bit does not"),
        ({"compile": True}, "FSDP: train.compile: true does not"),
    ],
)
def test_what_does_not_go_with_fsdp_is_refused(settings: dict[str, object], words: str) -> None:
    sharding.refuse(SimpleNamespace(precision="bf16", optimizer="adamw", compile=False))
    sharding.refuse(TrainSettings(steps=1))
    with pytest.raises(SettingsError, match=words):
        sharding.refuse(SimpleNamespace(**settings))


def test_a_quantised_base_is_refused_before_anything_is_done(
    home: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in ({"WORLD_SIZE": "2"} | FSDP).items():
        monkeypatch.setenv(name, value)
    quantised = test_pipeline.my_songs(home, **{"base.quantise": "int8"})
    with pytest.raises(SettingsError, match=r"FSDP: base\.quantise: int8 does not go with it"):
        pipeline.run(quantised, str(home / "songs"), home / "quantised")
    assert not (home / "quantised").exists()


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(SettingsError, match="4 processes for the 2 GPUs of this machine"):
        ranks.join()


def test_shares_are_everything_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    shares = []
    for number in "012":
        monkeypatch.setenv("RANK", number)
        shares.append(ranks.share(range(8)))
    assert sorted(item for share in shares for item in share) == list(range(8))


@pytest.mark.slow
def test_a_launched_recipe_is_one_run(
    home: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`make distill GPUS=2`, which is `accelerate launch -m distill run`, against one process."""
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    recipe = tmp_path / "mine.yaml"
    text = test_pipeline.MY_SONGS.format(home=home)
    recipe.write_text(text.replace("steps: 6", "steps: 2").replace("rows: 2", "rows: 1"))
    folder = {"RECIPE": str(recipe), "SONGS": str(home / "songs")}
    settings = [f"{name}={value}" for name, value in folder.items()]

    def command(*more: str) -> list[str]:
        """What `make distill` calls."""
        make = ["make", "-n", "distill", *settings, *more]
        printed = subprocess.run(make, cwd=HERE.parent, capture_output=True, text=True, check=True)
        return shlex.split(printed.stdout.splitlines()[-1])[1:]

    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}

    def call(command: list[str], status: int = 0) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(
            [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=900
        )
        assert bool(ended.returncode) == bool(status), ended.stderr
        return ended

    two = call(command("GPUS=2", f"OUT={tmp_path / 'two'}"))
    assert two.stdout.count("listen to") == 1 and two.stdout.count("trained:") == 1
    assert len(list((tmp_path / "cache" / "codes").rglob("*.npy"))) == 3
    report = json.loads((tmp_path / "two" / "report.json").read_text())
    assert report["steps"] == 2 and (tmp_path / "two" / "take.wav").is_file()
    call(command(f"OUT={tmp_path / 'one'}", "SET=train.accumulate=2"))
    one = json.loads((tmp_path / "one" / "report.json").read_text())
    for slot, nats in enumerate(one["after"]["nats_per_token"]):
        assert report["after"]["nats_per_token"][slot] == pytest.approx(nats, abs=1e-4)
    wrong = call(command("GPUS=2", f"OUT={tmp_path / 'three'}", "ENGINE=ray"), status=2)
    (line,) = [line for line in wrong.stderr.splitlines() if line.startswith("distill:")]
    assert "--engine ray and 2 processes do not go together" in line
