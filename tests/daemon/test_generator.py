"""What benchmarks/journals.py makes is what a reader of journals finds: figures of the daemon's benchmarks rest on it."""

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped] # has no types of its own
import pytest

from benchmarks.journals import LIVE_FROM, NEWEST_END, OLDEST_END, Writer, main, write_ended
from benchmarks.synthetic import SyntheticRun, this_process
from hf_eco2ai.journal.folder import RECENT_SECONDS, Run, RunsFolder
from hf_eco2ai.journal.follow import Follower
from hf_eco2ai.journal.format import Totals
from hf_eco2ai.journal.read import Here, Refused, read
from hf_eco2ai.wiring import hostname

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "docs" / "journal.schema.json"

ENDED, LIVE, GPUS = 20, 5, 8


def here() -> Here:
    return Here.now(hostname())


def runs_in(folder: Path) -> list[Run]:
    """All of them, of which no line is refused."""
    refused: list[Refused] = []
    runs = RunsFolder(folder, here(), refused.append).runs()
    assert refused == []
    return runs


def test_runs_that_are_over_ended_or_failed_and_were_last_written_when_they_did(tmp_path: Path) -> None:
    now = time.time()
    write_ended(tmp_path, ENDED, GPUS)
    runs = runs_in(tmp_path)
    assert Counter(run.state for run in runs) == {"ended": 18, "failed": 2}
    ago = sorted(now - run.newest.at_unix for run in runs)
    assert ago[0] == pytest.approx(NEWEST_END, abs=60)
    assert NEWEST_END > RECENT_SECONDS  # Else their files would be opened.
    assert ago[-1] < OLDEST_END
    for run in runs:
        assert run.newest.path.stat().st_mtime == pytest.approx(run.newest.at_unix, abs=0.01)


def test_files_of_runs_that_are_over_may_be_of_now(tmp_path: Path) -> None:
    now = time.time()
    write_ended(tmp_path, ENDED, GPUS, fresh=True)
    assert all(run.newest.at_unix < now - RECENT_SECONDS for run in runs_in(tmp_path))
    assert all(path.stat().st_mtime > now - 60 for path in tmp_path.iterdir())


def test_a_daemon_serves_those_that_live_and_none_of_the_others(tmp_path: Path) -> None:
    write_ended(tmp_path, ENDED, GPUS)
    Writer(tmp_path, LIVE, GPUS, 5.0).begin()
    follower = Follower(tmp_path, here())
    follower.look()
    assert {snapshot.identity.run_id for snapshot in follower.snapshots} == {f"{LIVE_FROM + n:012x}" for n in range(LIVE)}
    assert {snapshot.state for snapshot in follower.snapshots} == {"running"}
    gpus = [claim for claim in follower.claims if claim.device.startswith("GPU-")]
    assert len({claim.device for claim in gpus}) == len(gpus) == LIVE * GPUS


def test_each_run_that_lives_gets_a_line_in_turn_and_an_end_line_when_all_are_done(tmp_path: Path) -> None:
    every = 0.2
    writer = Writer(tmp_path, LIVE, GPUS, every)
    writer.begin()
    writer.append(2.9 * every)  # The last one's third line is due after 2.8 times that.
    assert {run.state for run in runs_in(tmp_path)} == {"running"}
    writer.end()
    assert {(run.state, run.newest.line.end_reason if run.newest.line else None) for run in runs_in(tmp_path)} == {
        ("ended", "completed")
    }
    for path in tmp_path.iterdir():
        _, *totals = list(read(path))
        assert [line.type for line in totals] == ["totals"] * 4 + ["end"]


def test_every_line_is_of_the_published_schema(tmp_path: Path) -> None:
    write_ended(tmp_path, ENDED, GPUS)
    validator: Any = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    lines = [line for path in tmp_path.iterdir() for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == 3 * ENDED
    for line in lines:
        validator.validate(json.loads(line))


def test_totals_are_those_of_their_devices_and_phases_and_never_fall(tmp_path: Path) -> None:
    run = SyntheticRun(7, 1_795_000_000.0, 1000.0, this_process(), gpus=GPUS)
    run.begin(tmp_path, 0.0)
    for seconds in (5.0, 10.0, 3600.0):
        run.append(tmp_path, seconds)
    _, *lines = read(run.path(tmp_path))
    totals = [line for line in lines if isinstance(line, Totals)]
    for line in totals:
        assert sum(device.joules for device in line.used.devices.values()) == pytest.approx(line.used.joules)
        assert sum(phase.joules for phase in line.used.phases.values()) == pytest.approx(line.used.joules)
        assert sum(phase.seconds for phase in line.used.phases.values()) == pytest.approx(line.at_unix - run.began_unix)
    figures = [(line.used.joules, line.used.grams, line.progress.steps, line.progress.samples) for line in totals]
    for ordered in zip(*figures, strict=True):
        assert list(ordered) == sorted(ordered)
    assert len(set(figures)) == len(figures)


def test_two_calls_make_the_same_figures() -> None:
    one, other = (SyntheticRun(42, 1_795_000_000.0, 1000.0, this_process()).line(60.0) for _ in range(2))
    assert one == other


def test_who_writes_is_a_process_of_its_own_whose_runs_are_lost_when_it_is_killed(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks.journals",
        str(tmp_path),
        "--live",
        str(LIVE),
        "--ended",
        "2",
        "--seconds",
        "600",
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "live\n"
        assert Counter(run.state for run in runs_in(tmp_path)) == {"running": LIVE, "ended": 2}
        writer.kill()
    assert Counter(run.state for run in runs_in(tmp_path)) == {"lost": LIVE, "ended": 2}


def test_it_says_how_late_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tmp_path), "--live", "2", "--gpus", "1", "--append-every", "0.05", "--seconds", "0.1"])
    live, late = capsys.readouterr().out.splitlines()
    assert live == "live"
    assert late.startswith("lines were 0.")
    assert Counter(run.state for run in runs_in(tmp_path)) == {"ended": 2}
