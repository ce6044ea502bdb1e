"""Plain child processes that share a list of jobs: each takes the next that nobody has begun.

Not `multiprocessing`: forking is unsafe beside torch's threads, and spawning would run the caller's
script again (a notebook, a pipe and an unguarded script have none to run). Not loky, which keeps
every other promise made here: when a parent is killed, its workers stay for ever.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from distill.errors import DistillError

Job = TypeVar("Job")
Result = TypeVar("Result")


def share_out(
    work: Callable[[Iterator[Job]], Result],
    jobs: Sequence[Job],
    processes: int,
    environment: Mapping[str, str],
    name: str,
    advice: str,
) -> list[Result]:
    """What `work` gives in each of several children, called with the jobs that its child takes.

    Jobs are taken in order (longest first ends together), none once the parent is gone. Pickled:
    `work`, jobs, results. Raises a child's DistillError, or one with `name` and `advice`.
    """
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-c", "from distill.runtime.workers import _child; _child()"]
    pipe = subprocess.PIPE
    variables = {**os.environ, "PYTHONPATH": path, **environment}
    children = [
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=variables)
        for _ in range(processes)
    ]
    try:
        with tempfile.TemporaryDirectory() as claims:
            order = pickle.dumps((os.getpid(), claims, work, tuple(jobs)))
            for child in children:
                stream, child.stdin = child.stdin, None  # `communicate` would flush a closed pipe
                assert stream is not None
                # one that died at once says so by its status
                with contextlib.suppress(BrokenPipeError), stream:
                    stream.write(order)
            return [_result(child, name, advice) for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()
            for output in (child.stdout, child.stderr):
                assert output is not None
                output.close()


def _result(child: subprocess.Popen[bytes], name: str, advice: str) -> Any:
    answer, complaint = child.communicate()
    if child.returncode != 0:
        last = complaint.decode(errors="replace").strip().splitlines()[-1:] or ["no word"]
        fault = f"a process ended with status {child.returncode} ({last[0]})"
        raise DistillError(f"{name}: {fault}; {advice}")
    result = pickle.loads(answer)
    if isinstance(result, DistillError):
        raise result
    return result


def _child() -> None:
    """What a child runs: its order from standard input, the result to standard output."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not stand before the result
    parent, claims, work, jobs = pickle.loads(sys.stdin.buffer.read())
    try:
        result = work(_claimed(jobs, Path(claims), parent))
    except DistillError as error:
        result = error
    with output:
        pickle.dump(result, output)


def _claimed(jobs: Iterable[Job], claims: Path, parent: int) -> Iterator[Job]:
    """The jobs that nobody else has begun, as long as the parent lives."""
    for number, job in enumerate(jobs):
        if os.getppid() != parent:
            return
        try:
            (claims / str(number)).touch(exist_ok=False)
        except FileExistsError:
            continue
        yield job
