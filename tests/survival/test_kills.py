"""SIGKILL at random moments, twenty times in one training that is resumed each time, measured against a known truth.

The truth is a GPU that draws 300 W for ever: what an attempt has used is 300 W × the time from its first reading to its death.
"""

import itertools
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hf_eco2ai.outputs.exposition import Exposition
from hf_eco2ai.outputs.labels import LabelRules
from hf_eco2ai.records import Snapshot
from tests.survival.kept import Kept, carried, journals, only, refused, whole_checkpoints
from tests.survival.processes import ENDLESS, WATTS, Child, Server, gpus

KILLS = 20
LATEST_SECONDS = 2.4
"""After begin: two journal intervals and more, with some ten checkpoints in them."""

JOURNAL_INTERVAL, MEASUREMENT_INTERVAL = 1.0, 0.1
WAKE_UPS = 4
"""A line takes that many: the sampler's, the journal's, the write, and the disk's."""

OWN_TO_A_PROCESS = {"hf_training_journal_bytes", "hf_training_monitoring_errors", "hf_training_process_cpu_seconds"}
"""Counters of the process and not of the run, which begin at zero with each, as Prometheus expects of a restart."""

Counters = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@dataclass(frozen=True)
class Attempt:
    """One life: what it said, when it died, and what lay on the disk then."""

    begin: float
    begun: dict[str, Any] | None
    """None: killed before our callback had begun."""
    checkpoint: dict[str, Any] | None
    """What the checkpoint that it went on from says; None for the first."""
    checkpoint_step: int
    killed: tuple[float, float]
    lateness: float
    """The longest time in the last two seconds in which a thread that only wakes up and writes a line did not manage to."""
    state: str
    journals: tuple[Kept, ...]
    """All of the run after its death, in order."""
    kept: Snapshot
    """The run as it can be read from the disk."""
    shown: tuple[Counters, ...]
    """What `/metrics` said meanwhile."""

    @property
    def own(self) -> Kept | None:
        """Its own journal, if it lived to make one."""
        mine = [kept for kept in self.journals if self.begun and kept.header["monotonic"] >= self.begin]
        return mine[-1] if mine else None

    def total(self, name: str) -> float:
        """Of the whole run: what each attempt has used, and what a checkpoint knew that the journal of a killed one did not."""
        total = 0.0
        for kept in self.journals:
            total = max(total, kept.inherited(name)) + kept.used(name)
        return total

    def done(self, name: str) -> int:
        return max((kept.done(name) for kept in self.journals), default=0)


def counters(text: str) -> Counters:
    """The run's counters, histograms included, but not the gauges among them."""
    found: Counters = {}
    for family in text_string_to_metric_families(text):
        if family.type in {"counter", "histogram"} and family.name not in OWN_TO_A_PROCESS:
            for sample in family.samples:
                found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found


def shown(snapshot: Snapshot) -> Counters:
    return counters(Exposition(lambda: (snapshot,), LabelRules()).render().decode())


def lateness(child: Child, died: float) -> float:
    lines = (child.folder / f"pace.{child.pid}").read_text().split("\n")[:-1]
    instants = [at for at in map(float, lines) if at > died - 2.0]
    return max((b - a for a, b in zip([*instants, died], [*instants[1:], died], strict=False)), default=0.0)


def live_and_die(server: Server, folder: Path, moment: float, checkpoint: Path | None) -> Attempt:
    saved = carried(checkpoint) if checkpoint is not None else None
    child = server.start(
        "endless",
        folder,
        environ=gpus(),
        resume=checkpoint is not None,
        say_saved=checkpoint is None,
        render_every=5,
        arguments={"max_steps": ENDLESS, "save_strategy": "steps", "save_steps": 60, "save_total_limit": 2},
    )
    begin = child.hear("begin")["at"]
    if checkpoint is None:
        child.hear("saved")
    assert child.lives(moment)
    killed = child.kill()
    begun = child.all_heard("begun")
    texts = folder / f"metrics.{child.pid}"
    run = only(folder / "runs")
    return Attempt(
        begin=begin,
        begun=begun[0] if begun else None,
        checkpoint=saved,
        checkpoint_step=int(checkpoint.name.rpartition("-")[2]) if checkpoint is not None else 0,
        killed=killed,
        lateness=lateness(child, killed[0]),
        state=run.state,
        journals=tuple(journals(folder / "runs")),
        kept=run.snapshot,
        shown=tuple(counters(text) for text in texts.read_text().split("\0")[:-1]) if texts.exists() else (),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("killed")


@pytest.fixture(scope="module")
def attempts(server: Server, folder: Path) -> list[Attempt]:
    """Kill, resume, kill, resume … in one folder."""
    chance = random.Random(20)
    found: list[Attempt] = []
    for _ in range(KILLS):
        whole = whole_checkpoints(folder / "out")
        for path in (folder / "out").glob("checkpoint-*"):
            if path not in whole:  # Killed while the Trainer wrote it, which it would stumble over itself.
                shutil.rmtree(path)
        assert bool(whole) == bool(found)
        found.append(live_and_die(server, folder, chance.uniform(0, LATEST_SECONDS), whole[-1] if whole else None))
    return found


def test_every_journal_can_be_read_and_nothing_in_it_is_refused(attempts: list[Attempt], folder: Path) -> None:
    assert len(attempts) == KILLS
    assert refused(folder / "runs") == []
    assert len(attempts[-1].journals) > KILLS / 2  # The others were killed before there was one.


def test_a_killed_run_is_lost_as_soon_as_its_process_is_gone(attempts: list[Attempt]) -> None:
    assert {attempt.state for attempt in attempts} == {"lost"}


def test_at_most_one_journal_interval_is_missing_and_nothing_is_invented(attempts: list[Attempt]) -> None:
    judged = 0
    for attempt in attempts:
        joules = 0.0 if attempt.own is None else sum(attempt.own.gpu_joules.values())
        assert joules <= WATTS * (attempt.killed[1] - attempt.begin) * 1.001
        if attempt.begun is None:
            continue  # It had not begun to measure.
        at_most = JOURNAL_INTERVAL + MEASUREMENT_INTERVAL + WAKE_UPS * attempt.lateness
        missing = WATTS * (attempt.killed[0] - attempt.begun["at"]) - joules
        assert missing <= WATTS * at_most
        judged += 1
        print(
            round(missing / WATTS, 3),
            "lateness",
            round(attempt.lateness, 3),
            "life",
            round(attempt.killed[0] - attempt.begun["at"], 2),
        )
    assert judged > KILLS / 2


def test_a_resumed_run_goes_on_with_every_total_that_the_killed_one_had_kept(attempts: list[Attempt]) -> None:
    for killed, resumed in itertools.pairwise(attempts):
        if resumed.begun is None:
            continue
        saved = resumed.checkpoint
        assert saved is not None
        assert resumed.begun["run_id"] == attempts[0].kept.identity.run_id
        assert resumed.begun["parent"] == ""
        assert resumed.begun["global_step"] == resumed.checkpoint_step
        # To the twelve digits that a journal keeps. Where the checkpoint was written last, it tells more.
        assert resumed.begun["inherited"] == pytest.approx(max(killed.total("joules"), saved["hosts"][0]["joules"]), rel=1e-9)
        assert resumed.begun["inherited_grams"] == pytest.approx(max(killed.total("grams"), saved["hosts"][0]["grams"]), rel=1e-9)
        assert resumed.begun["steps"] == max(killed.done("steps"), saved["done"]["steps"])
        assert resumed.begun["samples"] == max(killed.done("samples"), saved["done"]["samples"])


def test_wasted_is_what_was_used_after_the_checkpoint(attempts: list[Attempt]) -> None:
    rolled_back = 0
    for killed, resumed in itertools.pairwise(attempts):
        if resumed.begun is None:
            continue
        saved = resumed.checkpoint
        assert saved is not None
        (host,) = saved["hosts"]
        since = max(killed.total("joules"), host["joules"]) - host["joules"]
        went_on = killed.done("steps") > saved["done"]["steps"]
        before = host.get("wasted", {"joules": 0.0})["joules"]
        assert resumed.begun["wasted"] == pytest.approx(before + (since if went_on else 0.0), rel=1e-9, abs=1e-6)
        rolled_back += went_on
    assert rolled_back > KILLS / 2


def test_no_counter_on_metrics_ever_falls(attempts: list[Attempt]) -> None:
    """Within a process, from what a killed one had kept to what the next one shows, and from kept to kept.

    What was shown and not yet kept when the process was killed (an interval's worth) is what a SIGKILL costs.
    """
    kept: Counters = {}
    compared = 0
    for attempt in attempts:
        for earlier, later in itertools.pairwise([kept, *attempt.shown]):
            compared += not_below(earlier, later)
        now = shown(attempt.kept)
        compared += not_below(kept, now)
        kept = now
    assert compared > 1000


def not_below(earlier: Counters, later: Counters) -> int:
    assert set(earlier) <= set(later)
    for name, value in earlier.items():
        assert later[name] >= value * (1 - 1e-9), name
    return len(earlier)
