"""With what a run begins: what the checkpoint knows, what the journals know, and what of it was for nothing."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_eco2ai.journal import format as lines
from hf_eco2ai.journal.folder import Attempt, Run, RunsFolder
from hf_eco2ai.journal.format import FORMAT
from hf_eco2ai.journal.resume import Beginning, Checkpoint, begin
from hf_eco2ai.records import Counts, Footprint, HostTotals
from tests.journal.make import (
    BEGAN,
    any_counts,
    any_host_totals,
    header,
    here,
    host_totals,
    identity,
    put,
    snapshot,
    used,
)

NOW = BEGAN + 10_000
RUN = "0123456789ab"


def nobody(_attempt: Attempt) -> bool:
    return False


def everybody(_attempt: Attempt) -> bool:
    return True


def checkpoint(*hosts: HostTotals, steps: int = 0, global_step: int | None = None, run_id: str = RUN) -> Checkpoint:
    return Checkpoint.of(
        hosts,
        Counts(steps=steps, samples=8 * steps),
        run_id=run_id,
        started_unix=BEGAN,
        global_step=steps if global_step is None else global_step,
    )


def beginning(
    *,
    run_id: str = "",
    checkpoint: Checkpoint | None = None,
    found: Run | None = None,
    is_rival: Callable[[Attempt], bool] = nobody,
) -> Beginning:
    return begin(NOW, run_id=run_id, checkpoint=checkpoint, found=found, is_rival=is_rival)


class Training:
    """A run that is killed and resumed again and again, on one host."""

    def __init__(self, folder: Path, run_id: str = RUN) -> None:
        self.folder = folder
        self.run_id = run_id
        self.attempts = 0

    @property
    def found(self) -> Run | None:
        return RunsFolder(self.folder, here()).run(self.run_id)

    def attempt(self, joules: float, steps: int, begun: Beginning | None = None, host: str = "node1", **more: Any) -> Beginning:
        """Uses so many joules for so many steps, and is killed."""
        begun = begun or Beginning(self.run_id, BEGAN, f"launch{self.attempts}")
        self.attempts += 1
        before = begun.counts or Counts()
        top = header(
            at_unix=BEGAN + 100 * self.attempts,
            launch=begun.launch,
            attempt=begun.attempt,
            host=host,
            run=lines.run(identity(run_id=begun.run_id, started_unix=begun.started_unix)),
            inherited=[lines.host_used(totals) for totals in begun.inherited],
            done_before=lines.done(before),
            **more,
        )
        line = used(joules, at=100 * self.attempts + 10, header=top, steps=before.steps + steps)
        put(self.folder, [top, line])
        return begun

    def resume(self, checkpoint: Checkpoint | None) -> Beginning:
        return beginning(checkpoint=checkpoint, found=self.found)


def figures(begun: Beginning) -> dict[str, tuple[float, float]]:
    """Joules used and wasted, by host."""
    return {totals.host: (totals.total.joules, totals.wasted.joules) for totals in begun.inherited}


def test_a_first_training_is_a_run_of_its_own_with_a_random_id() -> None:
    one, other = beginning(), beginning()
    assert re.fullmatch("[0-9a-f]{12}", one.run_id)
    assert one.run_id != other.run_id
    assert one.launch != other.launch
    assert (one.started_unix, one.parent, one.inherited, one.counts, one.attempt) == (NOW, "", (), None, 1)
    assert not one.resumes


def test_a_run_id_that_is_set_is_the_runs() -> None:
    begun = beginning(run_id="lora")
    assert (begun.run_id, begun.started_unix, begun.resumes) == ("lora", NOW, False)


def test_with_a_checkpoint_alone_the_run_goes_on_with_what_that_says() -> None:
    begun = beginning(checkpoint=checkpoint(host_totals("node1", 60, wasted=5), steps=80))
    assert (begun.run_id, begun.started_unix, begun.attempt) == (RUN, BEGAN, 1)
    assert figures(begun) == {"node1": (60, 5)}
    assert begun.counts is not None
    assert (begun.counts.steps, begun.counts.samples) == (80, 640)
    assert begun.resumes


def test_with_journals_alone_the_run_goes_on_with_what_those_say(tmp_path: Path) -> None:
    training = Training(tmp_path, "lora")
    training.attempt(100, steps=90)
    begun = beginning(run_id="lora", found=training.found)
    assert figures(begun) == {"node1": (100, 0)}
    assert (begun.run_id, begun.started_unix, begun.attempt) == ("lora", BEGAN, 2)
    assert begun.counts is not None
    assert begun.counts.steps == 90


def test_what_was_used_after_the_checkpoint_is_used_and_wasted(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.attempt(100, steps=90)
    begun = training.resume(checkpoint(host_totals("node1", 60), steps=80))
    assert figures(begun) == {"node1": (100, 40)}
    assert begun.inherited[0].wasted.grams == pytest.approx(4)
    assert begun.counts is not None
    assert begun.counts.steps == 90  # The ten that are done again count again.


def test_of_a_price_that_was_lowered_since_the_checkpoint_nothing_less_than_nothing_is_wasted(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.attempt(100, steps=90)
    begun = training.resume(checkpoint(replace(host_totals("node1", 60), total=Footprint(60, 11, 0.5)), steps=80))
    assert begun.inherited[0].wasted == Footprint(40, 0)  # The journal says 100 J, 10 g, and no cost.


def test_where_no_step_was_rolled_back_nothing_is_wasted(tmp_path: Path) -> None:
    """The checkpoint is of the last step; what came after it went into saving and the end."""
    training = Training(tmp_path)
    training.attempt(100, steps=80)
    assert figures(training.resume(checkpoint(host_totals("node1", 98), steps=80))) == {"node1": (100, 0)}


def test_wasted_energy_adds_up_over_resumes(tmp_path: Path) -> None:
    """Checkpoint at 60 J; killed at 100 J; resumed and killed 30 J later, from the same checkpoint; and so on."""
    training = Training(tmp_path)
    saved = checkpoint(host_totals("node1", 60), steps=80)
    training.attempt(100, steps=90)
    second = training.resume(saved)
    assert figures(second) == {"node1": (100, 40)}
    training.attempt(30, steps=5, begun=second)
    third = training.resume(saved)
    assert figures(third) == {"node1": (130, 70)}
    # 50 J go into a new checkpoint, and 8 more are lost with the steps after it.
    training.attempt(58, steps=20, begun=third)
    newer = checkpoint(host_totals("node1", 180, wasted=70), steps=95 + 18)
    fourth = training.resume(newer)
    assert figures(fourth) == {"node1": (188, 78)}
    training.attempt(2, steps=1, begun=fourth)
    last = training.found
    assert last is not None
    assert {t.host: (t.total.joules, t.wasted.joules) for t in last.hosts} == {"node1": (190, 78)}


def test_an_attempt_killed_before_its_first_step_leaves_wasted_what_was(tmp_path: Path) -> None:
    """Its own set-up goes the way of the steps that were rolled back before it."""
    training = Training(tmp_path)
    saved = checkpoint(host_totals("node1", 60), steps=80)
    training.attempt(100, steps=90)
    training.attempt(5, steps=0, begun=training.resume(saved))
    assert figures(training.resume(saved)) == {"node1": (105, 45)}


def test_an_older_attempt_that_had_come_further_rolls_nothing_back_twice(tmp_path: Path) -> None:
    """Attempt 1 came to step 100. Attempt 2 went from 80 to 90, saved, and ended well: going on from there wastes nothing."""
    training = Training(tmp_path)
    training.attempt(100, steps=100)
    second = training.resume(checkpoint(host_totals("node1", 80), steps=80))
    training.attempt(11, steps=10, begun=second)
    saved = checkpoint(host_totals("node1", 110, wasted=20), steps=110, global_step=90)
    assert figures(training.resume(saved)) == {"node1": (111, 20)}


def test_a_checkpoint_that_knows_more_than_the_journals_is_believed(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.attempt(10, steps=9)
    assert figures(training.resume(checkpoint(host_totals("node1", 60), steps=80))) == {"node1": (60, 0)}


def test_two_hosts_go_on_each_with_its_own(tmp_path: Path) -> None:
    """The journal of the second host is on its own disk; the first knows it by hearsay and by the checkpoint."""
    training = Training(tmp_path)
    training.attempt(100, steps=90)
    training.attempt(70, steps=90, host="node2", begun=Beginning(RUN, BEGAN, "launch0"), leads=False)
    saved = checkpoint(host_totals("node1", 60), host_totals("node2", 50), host_totals("node3", 9), steps=80)
    assert figures(training.resume(saved)) == {"node1": (100, 40), "node2": (70, 20), "node3": (9, 0)}


def test_a_host_that_the_checkpoint_does_not_know_has_wasted_all_it_used_since(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.attempt(100, steps=90)
    training.attempt(70, steps=90, host="node2", begun=Beginning(RUN, BEGAN, "launch0"), leads=False)
    begun = training.resume(checkpoint(host_totals("node1", 60), steps=80))
    assert figures(begun) == {"node1": (100, 40), "node2": (70, 70)}


@pytest.mark.parametrize("run_id", ["", RUN])
def test_a_run_that_still_goes_on_elsewhere_is_left_alone(tmp_path: Path, run_id: str) -> None:
    training = Training(tmp_path)
    training.attempt(100, steps=90)
    saved = checkpoint(host_totals("node1", 60), steps=80)
    begun = beginning(run_id=run_id, checkpoint=saved, found=training.found, is_rival=everybody)
    assert begun.run_id != RUN
    assert (begun.parent, begun.inherited, begun.counts, begun.started_unix) == (RUN, (), None, NOW)


def test_a_checkpoint_of_another_run_than_run_id_says_is_its_parent() -> None:
    begun = beginning(run_id="lora", checkpoint=checkpoint(host_totals("node1", 60), run_id="base"))
    assert (begun.run_id, begun.parent, begun.inherited) == ("lora", "base", ())


def test_a_run_begun_from_anothers_checkpoint_goes_on_with_its_own_journals(tmp_path: Path) -> None:
    training = Training(tmp_path, "lora")
    training.attempt(100, steps=90)
    base = checkpoint(host_totals("node1", 60_000), run_id="base", steps=1000)
    begun = beginning(run_id="lora", checkpoint=base, found=training.found)
    assert (begun.run_id, begun.parent, begun.attempt) == ("lora", "base", 2)
    assert figures(begun) == {"node1": (100, 0)}
    rival = beginning(run_id="lora", checkpoint=base, found=training.found, is_rival=everybody)
    assert rival.run_id not in {"lora", "base"}
    assert rival.parent == "lora"


def test_the_parent_of_a_run_stays_its_parent(tmp_path: Path) -> None:
    top = header(run=lines.Run(run_id=RUN, parent="base", started_unix=BEGAN))
    put(tmp_path, [top, used(1, at=1, header=top)])
    assert beginning(run_id=RUN, found=RunsFolder(tmp_path, here()).run(RUN)).parent == "base"


# The checkpoint


@settings(deadline=None)
@given(st.lists(any_host_totals("node1"), max_size=2), any_counts())
def test_a_checkpoint_comes_back_from_the_trainers_json_as_it_was(hosts: list[HostTotals], done: Counts) -> None:
    saved = Checkpoint.of(tuple(hosts), done, run_id=RUN, started_unix=BEGAN, global_step=7)
    read = Checkpoint.read(json.loads(json.dumps(saved.as_json())))
    assert read is not None
    assert [lines.host_totals(written) for written in read.hosts] == hosts
    assert repr(lines.counts(read.done)) == repr(done)
    assert (read.run_id, read.started_unix, read.global_step) == (RUN, BEGAN, 7)


@pytest.mark.parametrize(
    "saved",
    [
        None,
        {},
        "text",
        {"run_id": 7},
        {"format": FORMAT + 1, "run_id": RUN},
        {"format": FORMAT + 1, "everything": "different"},
        {"run_id": RUN, "hosts": [{"host": "node1"}]},
    ],
)
def test_a_checkpoint_of_a_newer_format_or_of_something_else_is_none(saved: object) -> None:
    assert Checkpoint.read(saved) is None


def test_what_a_snapshot_has_used_goes_through_a_checkpoint() -> None:
    attempt = snapshot(10).attempt
    begun = beginning(checkpoint=checkpoint(attempt))
    assert begun.inherited[0].total.joules == pytest.approx(attempt.total.joules)
    assert begun.inherited[0].devices[0].joules == pytest.approx(2503)


def test_attempts_are_put_in_order_by_what_they_went_on_with_and_not_by_clocks_that_differ(tmp_path: Path) -> None:
    """The second attempt's clock is an hour behind the first's. Used: 100, 50 and 25 J; nothing of it twice."""
    inherited = 0.0
    for number, (joules, clock) in enumerate([(100.0, 0.0), (50.0, -3600.0), (25.0, -3000.0)]):
        before = [] if number == 0 else [lines.host_used(HostTotals("node1", Footprint(inherited)))]
        written = header(
            launch=f"launch {number}", attempt=number + 1, attempts_before=number, at_unix=BEGAN + clock, inherited=before
        )
        line = used(joules, at=1.0, header=written, end=True, steps=10 * (number + 1), at_unix=BEGAN + clock + 1)
        put(tmp_path, [written, line])
        inherited += joules
    run = RunsFolder(tmp_path, here()).run(header().run.run_id)

    assert run is not None
    assert [attempt.header.attempt for attempt in run.attempts] == [1, 2, 3]
    assert sum(host.total.joules for host in run.hosts) == pytest.approx(175.0)
    assert run.newest.header.attempt == 3


def test_each_attempt_says_how_many_came_before_it_also_without_the_journals() -> None:
    checkpoint = Checkpoint(run_id="0123456789ab", attempts_before=3)
    begun = begin(1000.0, run_id="", checkpoint=checkpoint, found=None, is_rival=lambda _attempt: False)
    assert begun.attempts_before == 4
