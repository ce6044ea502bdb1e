"""The local engine: every job once, in whatever order, and none lost with the worker that dies."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from workers_work import Odd

from distill.errors import DistillError, SettingsError, SongError
from distill.runtime import engines, workers
from distill.runtime.workers import Died, Local


def done(work: Odd, jobs: int = 6, processes: int = 2) -> dict[int, int | Died]:
    return dict(Local(processes).each(work, range(jobs), "squares"))


def who(folder: Path) -> list[tuple[int, str]]:
    return sorted((int(path.name.partition(".")[0]), path.suffix) for path in folder.iterdir())


@pytest.mark.parametrize("processes", [1, 2, 9])
def test_every_job_is_done_once(tmp_path: Path, processes: int) -> None:
    assert done(Odd(str(tmp_path)), 6, processes) == {n: n * n for n in range(6)}
    assert [number for number, _ in who(tmp_path)] == list(range(6))
    assert 1 <= len({pid for _, pid in who(tmp_path)}) <= processes
    assert done(Odd(str(tmp_path)), 0) == {}


def test_a_killed_workers_job_is_done_again(tmp_path: Path) -> None:
    assert done(Odd(str(tmp_path), 2, "die once")) == {n: n * n for n in range(6)}
    assert [number for number, _ in who(tmp_path)] == [0, 1, 2, 2, 3, 4, 5]


def test_a_job_that_always_kills_its_worker_is_named_and_the_rest_is_done(tmp_path: Path) -> None:
    answers = done(Odd(str(tmp_path), 0, "die"))
    assert answers.pop(0) == Died("status -9")
    assert answers == {n: n * n for n in range(1, 6)}


@pytest.mark.parametrize(
    ("does", "error", "words"),
    [
        ("refuse", SongError, "song 3: is odd; leave it out"),
        ("fault", DistillError, "squares: a worker failed .RuntimeError: not ours.; run it"),
    ],
)
def test_a_workers_error_ends_the_call(
    tmp_path: Path, does: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        done(Odd(str(tmp_path), 3, does))


def test_workers_that_cannot_start_blame_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.sys, "executable", "/bin/false")
    with pytest.raises(SettingsError, match=r"squares: worker processes cannot start .*status 1"):
        done(Odd(str(tmp_path)))


def test_work_that_cannot_be_sent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"squares: .* cannot be sent .*put it into a module"):
        dict(Local(2).each(lambda number: number, range(3), "squares"))


def test_a_caller_that_stops_leaves_no_worker(tmp_path: Path) -> None:
    answers = Local(2).each(Odd(str(tmp_path), 1, "sleep"), range(6), "squares")
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    for _, pid in who(tmp_path):
        assert not Path(f"/proc/{pid[1:]}").exists()


def test_workers_end_with_a_caller_that_is_killed_and_need_no_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"  # without `if __name__ == "__main__"`
    script.write_text(
        "from distill.runtime.workers import Local\nfrom workers_work import Odd\n"
        f"for answer in Local(2).each(Odd({str(tmp_path / 'log')!r}, 1, 'sleep'), range(2), 'x'):\n"
        "    print(*answer, flush=True)\n"
    )
    (tmp_path / "log").mkdir()
    path = os.pathsep.join([str(Path(__file__).parent), os.environ["PYTHONPATH"]])
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path}
    )
    assert process.stdout is not None and process.stdout.readline() == b"0 0\n"
    while len(who(tmp_path / "log")) < 2:
        time.sleep(0.01)
    process.kill()
    process.wait()
    process.stdout.close()
    pids = [pid[1:] for _, pid in who(tmp_path / "log")]
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize("text", ["spark", "local:4", "rays", ":6379"])
def test_an_engine_that_is_none_is_refused(text: str) -> None:
    with (
        pytest.raises(SettingsError, match=f"--engine {text}: unknown; give local"),
        engines.using(text),
    ):
        pass


@pytest.mark.parametrize("text", [None, "local"])
def test_the_local_engine_leaves_the_number_of_processes_to_the_stage(text: str | None) -> None:
    with engines.using(text):
        assert engines.chosen() is None


def test_ray_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(SettingsError, match=r'Ray is not installed; pip install "distill\[ray\]"'),
        engines.using("ray"),
    ):
        pass
