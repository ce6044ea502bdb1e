"""A teacher's signals recorded, by every process of a run its share, or by an engine's workers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from distill.errors import TeacherError
from distill.runtime import engines, ranks
from distill.runtime.workers import Died
from distill.teachers import Teacher
from distill.teachers.recorded import RecordedTeacher
from distill.writing.prompts import Coded

JOB = 256  # passages that a worker of an engine gets at once


def record(
    teacher: RecordedTeacher, sets: Sequence[Sequence[Coded]], load: Callable[[], Teacher]
) -> int:
    """Records what is missing with the live teacher that `load` gives: how many passages. All
    processes of a run must call it."""
    engine = engines.chosen()
    if engine is None:
        once = functools.cache(load)
        share = (ranks.number(), ranks.processes())
        own = sum(teacher.record(coded, once, share=share) for coded in sets)
        count = sum(ranks.all_of(own))
        teacher.shards.refresh()  # what the others have recorded
        return count
    jobs = [coded[at : at + JOB] for coded in sets for at in range(0, len(coded), JOB)]
    count = 0
    for number, answer in engine.each(_Recording(teacher, load), jobs, "recording"):
        if isinstance(answer, Died):
            fault = f"the process that records it dies, time and again ({answer.how})"
            ways = "what is done is kept, give each worker more memory"
            raise TeacherError(f"{jobs[number][0].passage.id} and on: {fault}; {ways}")
        count += answer
    teacher.shards.refresh()
    return count


class _Recording:
    """What a worker does; the live teacher is loaded for the first passage that lacks a signal."""

    def __init__(self, teacher: RecordedTeacher, load: Callable[[], Teacher]) -> None:
        self.teacher, self.load = teacher, load

    @functools.cached_property
    def live(self) -> Teacher:
        return self.load()

    def __call__(self, coded: Sequence[Coded]) -> int:
        return self.teacher.record(coded, lambda: self.live)
