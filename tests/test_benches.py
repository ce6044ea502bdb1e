"""Every bench that has a small size runs in it, so that none is found broken when it counts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SMALL = sorted(path for path in (ROOT / "bench").glob("*.py") if "--tiny" in path.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("script", SMALL, ids=lambda path: path.stem)
def test_a_bench_runs_in_its_small_size(script: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(script), "--tiny"], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) > 3
