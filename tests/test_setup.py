"""The ground: set-up runs once, torchaudio imports anywhere, and no test reaches the network."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from distill.runtime import torchaudio_standin

ROOT = Path(__file__).resolve().parent.parent


def python(code: str, **keys: object) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **keys)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return str(done.stdout).strip()


# --- set-up ---------------------------------------------------------------------------------------
@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose setup.sh only counts how often it ran."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    script = tmp_path / "setup.sh"
    script.write_text(
        "#!/bin/sh\nset -e\nmkdir -p .venv/bin\necho ran >> ran.txt\n[ ! -f broken ]\n"
        "ln -sf /bin/true .venv/bin/python\n"
    )
    script.chmod(0o755)
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


def runs(folder: Path) -> int:
    return (folder / "ran.txt").read_text().count("ran") if (folder / "ran.txt").exists() else 0


def test_the_first_target_sets_up_and_the_second_does_not(checkout: Path) -> None:
    assert make(checkout, "test").returncode == 0 and runs(checkout) == 1
    for target in ("distill", "check", "setup"):
        assert make(checkout, target).returncode == 0 and runs(checkout) == 1
    later = (checkout / ".venv" / ".ready").stat().st_mtime + 10
    os.utime(checkout / "pyproject.toml", (later, later))
    assert make(checkout, "setup").returncode == 0 and runs(checkout) == 2


def test_a_set_up_that_failed_is_done_again(checkout: Path) -> None:
    (checkout / "broken").touch()
    assert make(checkout, "test").returncode != 0 and runs(checkout) == 1
    (checkout / "broken").unlink()
    assert make(checkout, "test").returncode == 0 and runs(checkout) == 2


def test_bare_make_lists_the_targets(checkout: Path) -> None:
    listed = make(checkout).stdout
    for target in (
        "distill",
        "sing",
        "eval",
        "push",
        "test",
        "test-all",
        "check",
        "bench",
        "setup",
        "clean",
    ):
        assert f"make {target} " in listed
    assert runs(checkout) == 0


def test_make_passes_on_what_it_is_given(checkout: Path) -> None:
    printed = make(
        checkout, "-n", "distill", "RECIPE=recipes/x.yaml", "SONGS=my songs", "SET=a.b=1 c=2"
    ).stdout
    assert '-m distill run "recipes/x.yaml" --songs "my songs"' in printed
    assert '--set "a.b=1" --set "c=2"' in printed
    assert (
        'eval/run.py "adapters/mine"' in make(checkout, "-n", "eval", "SINGER=adapters/mine").stdout
    )


def test_the_set_up_in_place_is_the_one_described() -> None:
    assert int(metadata.version("protobuf").split(".")[0]) >= 5
    assert metadata.version("torch").split("+")[0].split(".")[:2] in (
        [["2", str(n)] for n in (11, 12, 13)]
    )


def test_all_eight_packages_of_the_design_import() -> None:
    code = """
from distill.runtime import torchaudio_standin
torchaudio_standin.install()
import torch, transformers, peft, accelerate, bitsandbytes, sentencepiece, vocos, dac
from transformers import LlamaForCausalLM, DacModel
from torch.utils.tensorboard import SummaryWriter
print("all")"""
    assert python(code) == "all"


def test_this_environment_imports_models_for_those_who_know_nothing_of_distill() -> None:
    code = """
from transformers import AutoModelForCausalLM, LlamaForCausalLM
from peft import LoraConfig
import sys
print("distill" in sys.modules)"""
    assert python(code) == "False", "run setup.sh: this environment is older than it"


# --- torchaudio -----------------------------------------------------------------------------------
FAKE = """
import importlib, os, sys
folder, raised = sys.argv[1], sys.argv[2]
os.makedirs(f"{folder}/torchaudio/_extension")
open(f"{folder}/torchaudio/__init__.py", "w").write("from . import _extension\\nready = True\\n")
with open(f"{folder}/torchaudio/_extension/__init__.py", "w") as extension:
    extension.write(f"raise {raised}" if raised else "fine = True")
sys.path.insert(0, folder)
from distill.runtime import torchaudio_standin
print(torchaudio_standin.install(), torchaudio_standin.install())
"""


@pytest.mark.parametrize(
    ("raised", "gives"),
    [
        ("", "native native"),
        ("OSError('libc10_cuda.so')", "stand-in stand-in"),
        ("RuntimeError('CUDA 13.2')", "stand-in stand-in"),
    ],
)
def test_the_stand_in_takes_over_only_where_it_must(
    tmp_path: Path, raised: str, gives: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAKE, str(tmp_path), raised], capture_output=True, text=True
    )
    assert done.stdout.strip() == gives, done.stderr


def test_the_environment_is_mended_for_every_process_and_left_as_it_was(tmp_path: Path) -> None:
    site, fake = tmp_path / "site", tmp_path / "fake"
    site.mkdir()
    (fake / "torchaudio" / "_extension").mkdir(parents=True)
    (fake / "torchaudio" / "__init__.py").write_text("from . import _extension\nready = True\n")
    (fake / "torchaudio" / "_extension" / "__init__.py").write_text("raise OSError('no CUDA')")
    code = f"""
import site, sys
site.addsitedir({str(site)!r})
assert not {{"torch", "torchaudio", "distill"}} & sys.modules.keys()
sys.path.insert(0, {str(fake)!r})
import torchaudio
print(torchaudio.ready and sys.modules["torchaudio._extension"].is_standin)"""
    torchaudio_standin.into(site)
    assert python(code) == "True"
    next(site.glob("*.py")).unlink()  # half removed: no interpreter fails to start
    assert python(f"import site; site.addsitedir({str(site)!r}); print('starts')") == "starts"
    torchaudio_standin.out_of(site)
    assert list(site.iterdir()) == []


def test_another_fault_of_torchaudio_is_not_hidden(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAKE, str(tmp_path), "ValueError('broken')"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "ValueError: broken" in done.stderr


def test_without_torchaudio_it_says_so() -> None:
    code = "from importlib import util; util.find_spec = lambda name: None\n"
    assert (
        python(code + "from distill.runtime import torchaudio_standin as t; print(t.install())")
        == "absent"
    )


def test_torchaudio_resamples_and_refuses_what_is_compiled() -> None:
    import torch
    import torchaudio

    wave_CW = torch.sin(torch.arange(1600) * 0.1)[None]
    assert torchaudio.functional.resample(wave_CW, 16000, 8000).shape == (1, 800)
    if torchaudio_standin.install() == "stand-in":
        with pytest.raises(
            RuntimeError, match="forced_align needs torchaudio's compiled extension"
        ):
            torchaudio.functional.forced_align()


# --- no network -----------------------------------------------------------------------------------
@pytest.fixture
def forgiven() -> Iterator[Path]:
    """What these tests do on purpose is struck from the list that would fail them."""
    listed = Path(os.environ["DISTILL_SOCKETS"])
    before = listed.read_text() if listed.exists() else ""
    yield listed
    listed.write_text(before)


def test_a_stranger_is_refused_and_written_down(forgiven: Path) -> None:
    with pytest.raises(OSError, match="no socket but loopback"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(OSError, match="no socket but loopback"):
        socket.getaddrinfo("example.org", 443)
    with pytest.raises(OSError, match="no socket but loopback"), socket.socket() as server:
        server.bind(("0.0.0.0", 0))
    assert "192.0.2.1" in forgiven.read_text() and "example.org" in forgiven.read_text()


def test_processes_that_tests_start_are_held_to_it(forgiven: Path) -> None:
    code = (
        "import socket\n"
        "try: socket.create_connection(('192.0.2.7', 80))\n"
        "except OSError as e: print(e)"
    )
    assert "no socket but loopback" in python(code)
    assert "192.0.2.7" in forgiven.read_text()


def test_loopback_is_free() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        assert client.getpeername() == server.getsockname()
