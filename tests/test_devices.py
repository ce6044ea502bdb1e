"""Several processes of one run (gloo, two of them here): equal to one process at the same global
batch, in pieces or not, killed and resumed; and what goes wrong in one ends all with one line."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import test_pipeline
import torch
from safetensors.torch import load_file
from test_pipeline import home  # noqa: F401 - a fixture

from distill import folders
from distill.errors import SettingsError
from distill.runtime import ranks
from distill.training import sharding

HERE = Path(__file__).parent
FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
pytestmark = pytest.mark.slow


@dataclass
class Ended:
    """How a process ended, and what it printed to standard error."""

    status: int
    complaint: str


def launch(
    count: int, folder: Path, accumulate: int, stop: int = 0, family: str = "llama",
    wrong: str = "", **environment: str,
) -> list[Ended]:  # fmt: skip
    """`count` processes of ranks_work.py, as a launcher begins them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    own = {"PYTHONPATH": path, "GLOO_SOCKET_IFNAME": "lo", **environment}
    if count > 1:
        own |= {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, str(HERE / "ranks_work.py"), str(folder), str(accumulate)]
    command += [str(stop), family, wrong]
    running = [
        subprocess.Popen(
            command,
            env=os.environ | own | ({"RANK": str(n), "LOCAL_RANK": str(n)} if count > 1 else {}),
            stderr=subprocess.PIPE,
            text=True,
        )
        for n in range(count)
    ]
    complaints = [process.communicate(timeout=900)[1] for process in running]
    return [Ended(p.returncode, words) for p, words in zip(running, complaints, strict=True)]


def trained(*arguments: object, **more: object) -> dict[str, torch.Tensor]:
    """The trained parameters that a launch leaves."""
    ends = launch(*arguments, **more)  # type: ignore[arg-type]
    assert [end.status for end in ends] == [0] * len(ends), ends
    return load_file(Path(str(arguments[1])) / "state.safetensors")


def near(state: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert state.keys() == other.keys()
    for name, tensor in state.items():
        torch.testing.assert_close(tensor, other[name], atol=1e-5, rtol=0)


def same(state: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert state.keys() == other.keys()
    assert [name for name, tensor in state.items() if not torch.equal(tensor, other[name])] == []


@pytest.fixture(scope="module", params=["llama", "qwen3"])  # two tables, and one that is tied
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, family: str) -> Path:
    """One process, four micro-batches a step."""
    folder = tmp_path_factory.mktemp("alone")
    trained(1, folder, 4, family=family)
    return folder


def start(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "state.safetensors")


@pytest.mark.parametrize("how", [{}, FSDP], ids=["whole", "in pieces"])
def test_two_processes_are_one_at_the_same_global_batch(
    alone: Path, family: str, tmp_path: Path, how: dict[str, str]
) -> None:
    two = trained(2, tmp_path / "two", 2, family=family, **how)
    near(two, start(alone))
    for file in ("adapter_config.json", "distill.json", "adapter_model.safetensors"):
        assert (tmp_path / "two" / "adapter" / file).is_file()
    near(
        load_file(tmp_path / "two" / "adapter" / "adapter_model.safetensors"),
        load_file(alone / "adapter" / "adapter_model.safetensors"),
    )
    last = "run/checkpoints/step-00000004"
    for file in ("weights.safetensors", "optimizer.safetensors"):
        pieces, whole = (load_file(home / last / file) for home in (tmp_path / "two", alone))
        near(pieces, whole)
    rows = [json.loads(row) for row in (tmp_path / "two/run/steps.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert folders.whole(tmp_path / "two" / last)


@pytest.mark.parametrize("how", [{}, FSDP], ids=["whole", "in pieces"])
def test_stopped_and_resumed_it_ends_equal(tmp_path: Path, how: dict[str, str]) -> None:
    whole = trained(2, tmp_path / "whole", 2, **how)
    assert [end.status for end in launch(2, tmp_path / "cut", 2, stop=3, **how)] == [0, 0]
    same(trained(2, tmp_path / "cut", 2, **how), whole)


def test_in_pieces_it_resumes_on_another_number_of_processes(tmp_path: Path) -> None:
    reference = trained(1, tmp_path / "one", 2)
    steps = (tmp_path / "one" / "run" / "steps.jsonl").read_text().splitlines()
    assert [end.status for end in launch(2, tmp_path / "cut", 2, stop=3, **FSDP)] == [0, 0]
    state = json.loads((tmp_path / "cut/run/checkpoints/step-00000002/state.json").read_text())
    assert state["micro_batches"] == 8
    alone = trained(1, tmp_path / "cut", 2)
    assert alone.keys() == reference.keys() and len(steps) == 4
    launch(1, tmp_path / "back", 2, stop=3)
    back = trained(2, tmp_path / "back", 2, **FSDP)
    assert back.keys() == alone.keys()
    rows = (tmp_path / "back" / "run" / "steps.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [1, 2, 3, 4]


def lines(ends: list[Ended]) -> list[str]:
    told = [line for end in ends for line in end.complaint.splitlines()]
    return [line for line in told if line.startswith("distill:") or "Traceback" in line]


def test_an_error_of_one_process_ends_all_with_one_line(tmp_path: Path) -> None:
    ends = launch(2, tmp_path, 2, wrong="error")
    assert [end.status for end in ends] == [2, 2]
    assert lines(ends) == ["distill: song 7: is odd; leave it out"]


def test_a_killed_process_ends_all_with_one_line(tmp_path: Path) -> None:
    ends = launch(2, tmp_path, 2, wrong="killed")
    assert [end.status for end in ends] == [2, -9]
    assert len(lines(ends)) == 1 and "lost another one" in lines(ends)[0], ends
    near(trained(2, tmp_path, 2), trained(2, tmp_path / "whole", 2))


def test_two_processes_with_different_songs_are_refused(tmp_path: Path) -> None:
    ends = launch(2, tmp_path, 2, wrong="songs")
    assert [end.status for end in ends] == [2, 2]
    (line,) = lines(ends)
    assert "processes 0 and 1 have different songs (" in line and "one cache" in line
    assert not list((tmp_path / "run").glob("checkpoints/*"))


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


def test_shares_are_everything_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    shares = []
    for number in "012":
        monkeypatch.setenv("RANK", number)
        shares.append(ranks.share(range(8)))
    assert sorted(item for share in shares for item in share) == list(range(8))


def test_a_launched_recipe_is_one_run(
    home: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`accelerate launch -m distill run`, as `make distill GPUS=2` calls it, against one process."""
    monkeypatch.setenv("DISTILL_CACHE", str(tmp_path / "cache"))
    recipe = tmp_path / "mine.yaml"
    text = test_pipeline.MY_SONGS.format(home=home)
    recipe.write_text(text.replace("steps: 6", "steps: 2").replace("rows: 2", "rows: 1"))
    run = ["-m", "distill", "run", str(recipe), "--songs", str(home / "songs"), "--out"]
    makefile = (HERE.parent / "Makefile").read_text()
    (launcher,) = [line for line in makefile.splitlines() if line.startswith("LAUNCH ")]
    options = launcher.partition("-m accelerate")[2].replace('"$(GPUS)"', "2")
    options = options.replace("$(if $(filter-out 0 1,2),", "").partition(")")[0]
    launch = ["-m", *f"accelerate{options}".split()]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}

    def call(command: list[str], status: int = 0) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(
            [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=900
        )
        assert bool(ended.returncode) == bool(status), ended.stderr
        return ended

    two = call([*launch, *run, str(tmp_path / "two")])
    assert two.stdout.count("listen to") == 1 and two.stdout.count("trained:") == 1
    assert len(list((tmp_path / "cache" / "codes").rglob("*.npy"))) == 3
    report = json.loads((tmp_path / "two" / "report.json").read_text())
    assert report["steps"] == 2 and (tmp_path / "two" / "take.wav").is_file()
    call([*run, str(tmp_path / "one"), "--set", "train.accumulate=2"])
    one = json.loads((tmp_path / "one" / "report.json").read_text())
    for slot, nats in enumerate(one["after"]["nats_per_token"]):
        assert report["after"]["nats_per_token"][slot] == pytest.approx(nats, abs=1e-4)
    wrong = call([*launch, *run, str(tmp_path / "three"), "--engine", "ray"], status=2)
    (line,) = [line for line in wrong.stderr.splitlines() if line.startswith("distill:")]
    assert "--engine ray and 2 processes do not go together" in line
