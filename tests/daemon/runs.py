"""Runs in a folder for a daemon to serve, of a process that lives: the test's own, unless it says otherwise."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from hf_eco2ai.journal import format as lines
from hf_eco2ai.journal.format import Header, ProcessIdentity, Totals
from tests.journal.make import header, identity, put, snapshot, this_process

QUIET_SECONDS = 600.0
"""Journal interval of these runs, which write when the test has them write: nobody wonders whether they live."""


def begun(run_id: str, *, gpus: int = 1, process: ProcessIdentity | None = None, at: float | None = None, **more: Any) -> Header:
    """The header of a run that begins now."""
    first = snapshot(0.0, gpus=gpus, run=identity(run_id, **more), updated_unix=time.time() if at is None else at)
    return header(first, process=process or this_process(), journal_interval=QUIET_SECONDS)


def used(begin: Header, seconds: float, *, gpus: int = 1, end: bool = False, **more: Any) -> Totals:
    """A line that says what the run has used in so many seconds, written now."""
    said = {name: getattr(begin.run, name) for name in ("project_name", "model_name", "experiment_name", "started_unix")}
    run = identity(begin.run.run_id, begin.host, attempt=begin.attempt, **said)
    now = snapshot(seconds, gpus=gpus, run=run, updated_unix=time.time())
    if end:
        now = replace(now, state="ended", end_reason="completed")
    return lines.totals_line(replace(now, **more), begin, monotonic=begin.monotonic + seconds, end=end)


def live(folder: Path, run_id: str, *, gpus: int = 1, seconds: float = 10.0, **more: Any) -> Path:
    """A run that goes on."""
    begin = begun(run_id, gpus=gpus, **more)
    return put(folder, [begin, used(begin, seconds, gpus=gpus)])


def over(folder: Path, run_id: str, *, seconds: float = 10.0, **more: Any) -> Path:
    """A run that has just ended."""
    begin = begun(run_id, **more)
    return put(folder, [begin, used(begin, seconds, end=True)])
