"""What every test stands on: no network but loopback, one thread, torchaudio, a hub of our own."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCRATCH = Path(tempfile.mkdtemp(prefix="distill-tests-"))
SOCKETS = SCRATCH / "sockets.txt"

# Before anything heavy is imported, and for the processes that tests start:
os.environ.update(
    DISTILL_SOCKETS=str(SOCKETS),
    PYTHONPATH=os.pathsep.join(
        filter(None, [str(HERE / "guard"), str(HERE.parent), os.environ.get("PYTHONPATH")])
    ),
    OMP_NUM_THREADS="1",  # results are promised per thread count, so the tests fix it
    HF_HOME=str(SCRATCH / "hub"),  # nobody's cache, and nobody's token
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    # xet speaks to a server of its own, which the stand-in hub does not play
    HF_HUB_DISABLE_XET="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    TOKENIZERS_PARALLELISM="false",
)
os.environ.pop("HF_TOKEN", None)
sys.path.insert(0, str(HERE / "guard"))
sys.path.insert(0, str(HERE))

import sitecustomize as guard  # tests/guard/sitecustomize.py, whatever else has that name

# Python loaded another one at start: ours by its path
if Path(guard.__file__).parent != HERE / "guard":
    import runpy

    runpy.run_path(str(HERE / "guard" / "sitecustomize.py"))

import pytest
import torch

from distill.runtime import torchaudio_standin

torchaudio_standin.install()
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def only_loopback() -> Iterator[None]:
    """Fails a test that asked for any address but loopback, itself or in a process it started."""
    before = SOCKETS.read_text() if SOCKETS.exists() else ""
    yield
    after = SOCKETS.read_text() if SOCKETS.exists() else ""
    assert after == before, (
        f"this test reached for the network: {after[len(before) :].split(chr(10))[:-1]}"
    )


@pytest.fixture
def hub_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[object]:
    """A stand-in hub on loopback, and huggingface_hub pointed at it; `.url`, `.repos`, `.asked`."""
    from huggingface_hub import constants
    from stand_in_hub import StandInHub

    with StandInHub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            server.url + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("HF_TOKEN", "hf_stand_in")
        yield server
