"""Runs without a label of their own: what adds adds, what cannot does not, and no counter ever falls."""

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families as parse_text

from hf_eco2ai.outputs.exposition import Exposition
from hf_eco2ai.outputs.folding import LIVE, REMEMBERED_RUNS, SAVE_SECONDS, OfAll, OfThoseServed
from hf_eco2ai.outputs.labels import LabelRules
from hf_eco2ai.outputs.metrics import METRICS
from hf_eco2ai.records import BudgetStatus, HostTotals, Rates, RunState, Snapshot, StepHistogram
from tests.journal.make import BEGAN, host_totals, identity, snapshot

FOLDED = LabelRules(run_label=False)
ENERGY = next(metric for metric in METRICS if metric.name == "hf_training_energy_kwh_total")
KWH = 3.6e6
"""Joules."""


def run(run_id: str, joules: float = KWH, *, project: str = "llm", at: float = 0.0, **more: Any) -> Snapshot:
    """A run that has used so much, by one host, as of `at` seconds after the begin."""
    who = identity(run_id, project_name=project)
    fields: dict[str, Any] = {"attempt": host_totals("node1", joules), "updated_unix": BEGAN + at}
    return replace(snapshot(10.0, run=who), **{**fields, **more})


def with_progress(s: Snapshot, **more: Any) -> Snapshot:
    return replace(s, progress=s.progress._replace(**more))


class Daemon:
    """Serves these runs, keeps what it saves as a file would, and can be begun again."""

    def __init__(self) -> None:
        self.runs: dict[str, Snapshot] = {}
        self.seconds = 0.0
        self.file = "{}"
        self.saves: list[tuple[dict[str, Any], str]] = []
        self.begin()

    def begin(self) -> None:
        self.folded = OfAll(json.loads(self.file), self.save, now=lambda: self.seconds)
        self.exposition = Exposition(lambda: list(self.runs.values()), FOLDED, folded=self.folded)

    def save(self, kept: dict[str, Any]) -> None:
        self.file = json.dumps(kept, allow_nan=False)
        self.saves.append((kept, self.file))

    def show(self, *runs: Snapshot) -> None:
        self.runs.update({s.identity.run_id: s for s in runs})

    def leave(self, *run_ids: str) -> None:
        for run_id in run_ids:
            del self.runs[run_id]

    def scrape(self, after: float = 10.0) -> dict[str, float]:
        self.seconds += after
        return series(self.exposition)

    def kwh(self, project: str = "llm") -> float:
        return sum(value for name, value in self.scrape().items() if name.startswith(ENERGY.name) and f"'{project}'" in name)


def series(exposition: Exposition) -> dict[str, float]:
    families = parse_text(exposition.render().decode())
    return {f"{sample.name}{sorted(sample.labels.items())}": sample.value for family in families for sample in family.samples}


def value(exposition: Exposition, name: str, **labels: str) -> float:
    families = parse_text(exposition.render().decode())
    matching = [
        sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(matching) == 1, (name, matching)
    return matching[0]


# What adds


def test_no_series_tells_runs_apart() -> None:
    text = Exposition(lambda: [run("a"), run("b")], FOLDED).render().decode()
    lines = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(lines) == len(set(lines))
    assert not [line for line in lines if "run_id" in line]


def test_totals_power_rates_costs_and_counts_of_a_projects_runs_add() -> None:
    two = [run("a", 1 * KWH), run("b", 2 * KWH)]
    exposition = Exposition(lambda: [*two, run("c", 8 * KWH, project="other one")], FOLDED)
    assert value(exposition, "hf_training_energy_kwh_total", project_name="llm", host="node1") == pytest.approx(3.0)
    assert value(exposition, "hf_training_co2_kg_total", project_name="llm") == pytest.approx(3 * KWH / 10 / 1000)
    assert value(exposition, "hf_training_energy_rate_kwh_per_hour", project_name="llm") == pytest.approx(2 * 0.312)
    assert value(exposition, "hf_training_cost_rate_usd_per_hour", project_name="llm") == pytest.approx(0.6)
    assert value(exposition, "hf_training_running", project_name="llm") == 2
    assert value(exposition, "hf_training_run_state", state="running") == 3
    assert value(exposition, "hf_training_gpu_count", host="node1") == 3
    assert value(exposition, "hf_training_step_count", project_name="llm") == 2 * 14
    assert value(exposition, "hf_training_samples_total", project_name="llm") == 2 * 8 * 14
    assert value(exposition, "hf_training_phase_energy_joules_total", phase="train") == pytest.approx(11 * KWH)


def test_the_durations_of_all_steps_make_one_histogram() -> None:
    counts = (1, 0, 2, *[0] * 12, 3)
    runs = [with_progress(run(name), step_durations=StepHistogram(counts, 1.5)) for name in "ab"]
    exposition = Exposition(lambda: runs, FOLDED)
    name = "hf_training_step_duration_seconds"
    assert value(exposition, f"{name}_bucket", le="0.005") == 2
    assert value(exposition, f"{name}_bucket", le="0.025") == 6
    assert value(exposition, f"{name}_bucket", le="+Inf") == value(exposition, f"{name}_count") == 12
    assert value(exposition, f"{name}_sum") == 3.0


def test_losses_intensities_and_ratios_are_those_of_the_run_that_was_heard_last() -> None:
    old, new = (with_progress(run(name, at=at), loss=loss) for name, at, loss in (("a", 1, 2.5), ("b", 2, 1.5)))
    new = replace(new, observed_ratio=0.25, factor=replace(new.factor, grams_per_kwh=99.0))
    for order in ([old, new], [new, old]):
        exposition = Exposition(lambda order=order: order, FOLDED)  # type: ignore[misc]
        assert value(exposition, "hf_training_loss", project_name="llm") == 1.5
        assert value(exposition, "hf_training_observed_ratio") == 0.25
        assert value(exposition, "hf_training_grid_carbon_intensity_g_per_kwh") == 99.0
        assert value(exposition, "hf_training_last_update_timestamp") == BEGAN + 2


def test_a_loss_that_is_nan_stays_nan_and_a_rate_that_is_none_spoils_no_sum() -> None:
    diverged = with_progress(run("a", at=1), loss=math.nan)
    forged = [replace(run(f"r{n}"), rates=Rates(watts, 1.0, None)) for n, watts in enumerate((math.nan, math.inf))]
    exposition = Exposition(lambda: [diverged, *forged], FOLDED)
    assert math.isnan(value(exposition, "hf_training_loss"))
    assert value(exposition, "hf_training_energy_rate_kwh_per_hour") == pytest.approx(0.312)


def test_budgets_of_runs_add_and_that_of_a_project_is_one() -> None:
    own = [replace(run(name), budgets=(BudgetStatus("carbon", 5.0, 2.0),)) for name in "ab"]
    assert value(Exposition(lambda: own, FOLDED), "hf_training_carbon_budget_kg") == 10.0
    assert value(Exposition(lambda: own, FOLDED), "hf_training_carbon_budget_remaining_kg") == 6.0
    shared = [
        replace(run(name, at=at), budgets=(BudgetStatus("carbon", 50.0, spent, scope="project", period="month"),))
        for name, at, spent in (("a", 1, 20.0), ("b", 2, 21.0))
    ]
    # A host that does not lead knows of no budget; that one must not make the project's one of many.
    follower = replace(shared[0], leads=False, budgets=(), identity=replace(shared[0].identity, host="node2"))
    exposition = Exposition(lambda: [follower, *shared], FOLDED)
    assert value(exposition, "hf_training_carbon_budget_kg") == 50.0
    assert value(exposition, "hf_training_carbon_budget_remaining_kg") == 29.0


# Who has left


def test_a_run_that_left_goes_on_counting_and_shows_nothing_else() -> None:
    daemon = Daemon()
    daemon.show(run("a", 1 * KWH), run("b", 2 * KWH))
    assert daemon.kwh() == pytest.approx(3)
    daemon.leave("a")
    assert daemon.kwh() == pytest.approx(3)
    assert value(daemon.exposition, "hf_training_running", project_name="llm") == 1
    assert value(daemon.exposition, "hf_training_energy_rate_kwh_per_hour") == pytest.approx(0.312)
    daemon.leave("b")
    assert daemon.kwh() == pytest.approx(3)
    assert not [name for name in daemon.scrape() if name.startswith(("hf_training_loss", "hf_training_running"))]


def test_without_a_daemon_nobody_is_remembered() -> None:
    exposition = Exposition(list, FOLDED, folded=OfThoseServed())
    assert not [line for line in exposition.render().decode().splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("restart", [False, True])
def test_a_run_that_left_and_is_resumed_is_counted_once(restart: bool) -> None:
    daemon = Daemon()
    daemon.show(run("a", 1 * KWH), run("b", 2 * KWH))
    daemon.scrape()
    daemon.leave("a", "b")
    assert daemon.kwh() == pytest.approx(3)
    if restart:
        daemon.begin()
        assert daemon.kwh() == pytest.approx(3)
    again = replace(run("a"), inherited=(host_totals("node1", 1 * KWH),), attempt=HostTotals("node1"))
    daemon.show(again)
    assert daemon.kwh() == pytest.approx(3)
    daemon.show(replace(again, attempt=host_totals("node1", 0.5 * KWH)))
    assert daemon.kwh() == pytest.approx(3.5)


def test_runs_that_come_end_or_go_are_saved_before_they_are_shown_and_what_they_use_meanwhile_now_and_then() -> None:
    daemon = Daemon()

    def saves_after(*runs: Snapshot, after: float = 0.0) -> int:
        before = len(daemon.saves)
        daemon.show(*runs)
        daemon.scrape(after)
        return len(daemon.saves) - before

    assert saves_after(run("a")) == 1
    assert saves_after(run("b")) == 1
    assert saves_after(run("a", 2 * KWH)) == 0
    assert saves_after(run("a", 3 * KWH), after=SAVE_SECONDS - 1) == 0
    assert saves_after(run("a", 4 * KWH), after=1) == 1
    assert saves_after(run("a", 5 * KWH, state="ended")) == 1
    daemon.leave("a")
    assert saves_after() == 1
    daemon.runs.clear()
    daemon.begin()
    assert daemon.kwh() == pytest.approx(6)


def test_what_is_saved_says_which_runs_live_since_only_their_journals_tell_what_they_use_from_then_on() -> None:
    daemon = Daemon()
    daemon.show(run("lives"), run("is over", state="ended"))
    daemon.scrape()
    assert json.loads(daemon.file)[LIVE] == ["lives"]
    daemon.show(run("lives", state="lost"))
    daemon.scrape()
    assert json.loads(daemon.file)[LIVE] == []


def test_what_has_been_given_to_be_saved_is_never_changed_so_that_another_thread_may_write_it() -> None:
    daemon = Daemon()
    for number in range(40):
        daemon.show(run(f"r{number % 7}", (1 + number) * KWH, errors=(("gap", 40 - number),)))
        if number % 5 == 4:
            daemon.runs.pop(next(iter(daemon.runs)))
        daemon.scrape()
    daemon.begin()
    daemon.show(run("last"))
    daemon.scrape()
    assert len(daemon.saves) > 10
    for kept, written in daemon.saves:
        assert json.dumps(kept) == written


def test_so_many_runs_are_remembered_one_by_one_and_the_sum_of_the_others_stays_exact() -> None:
    daemon = Daemon()
    count = REMEMBERED_RUNS + 60
    shown = OfAll({}, daemon.save, now=lambda: daemon.seconds)
    figures = [0.1 + 1e-9 * n for n in range(count)]
    for number, kwh in enumerate(figures):
        shown.lines(ENERGY, [(run(f"r{number}"), {"line": kwh})])
        shown.settle([f"r{number}"])
    assert shown.lines(ENERGY, []) == {"line": math.fsum(figures)}
    shown.settle([])
    kept = json.loads(daemon.file)
    assert len(kept["runs"]) == REMEMBERED_RUNS
    assert "r59" not in kept["runs"]
    assert "r60" in kept["runs"]
    again = OfAll(kept, daemon.save)
    assert again.lines(ENERGY, [(run("r60"), {"line": figures[60]})]) == {"line": math.fsum(figures)}


def test_of_those_that_are_remembered_the_first_to_leave_is_the_first_to_be_forgotten() -> None:
    daemon = Daemon()
    shown = OfAll({}, daemon.save, now=lambda: daemon.seconds)

    def scrape(*run_ids: str) -> None:
        shown.lines(ENERGY, [(run(run_id), {"line": 1.0}) for run_id in run_ids])
        shown.settle(run_ids)

    scrape("long", "short")
    scrape("long")
    for number in range(REMEMBERED_RUNS - 1):
        scrape("long", f"r{number}")
    scrape()
    scrape()
    kept = json.loads(daemon.file)["runs"]
    assert "long" in kept
    assert "short" not in kept


def test_what_a_process_counts_goes_on_where_the_next_one_of_the_run_begins_again() -> None:
    daemon = Daemon()
    counted = []
    for errors in (0, 3, 5, 0, 2, 2, 1):
        daemon.show(run("a", errors=(("gap", errors),)))
        daemon.scrape()
        counted.append(value(daemon.exposition, "hf_training_monitoring_errors_total", error_type="gap"))
    assert counted == [0, 3, 5, 5, 7, 7, 8]
    daemon.begin()
    assert value(daemon.exposition, "hf_training_monitoring_errors_total", error_type="gap") == 8


def test_a_journal_that_knows_less_than_was_shown_takes_nothing_back() -> None:
    daemon = Daemon()
    daemon.show(run("a", 5 * KWH))
    assert daemon.kwh() == pytest.approx(5)
    daemon.show(run("a", 4 * KWH))
    assert daemon.kwh() == pytest.approx(5)
    daemon.show(run("a", 6 * KWH))
    assert daemon.kwh() == pytest.approx(6)


def test_figures_that_are_none_spoil_neither_sums_nor_what_is_saved() -> None:
    daemon = Daemon()
    daemon.show(run("a", 1 * KWH))
    for number, flops in enumerate((math.nan, math.inf, -1.0, 1.7e308, 1e20)):
        daemon.show(with_progress(run(f"r{number}", 0.0), flops=flops))
    assert daemon.kwh() == pytest.approx(1)
    assert value(daemon.exposition, "hf_training_flops_total") == pytest.approx(1e20 + 1.5e14 * 14)
    assert daemon.saves


# Whatever happens

OF_A_PROCESS = {
    "hf_training_monitoring_errors_total",
    "hf_training_journal_bytes_total",
    "hf_training_process_cpu_seconds_total",
}
"""What one process has counted since the last save is lost when the daemon is killed and that process too: no journal of the next
one tells of it."""


def counters(exposition: Exposition, *, but: Iterable[str] = ()) -> dict[str, float]:
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in parse_text(exposition.render().decode())
        for sample in family.samples
        if (family.type in {"counter", "histogram"} or sample.name in {"hf_training_step_count", "hf_training_epoch_count"})
        and sample.name not in but
    }


class Run:
    """As its journals tell: totals of all attempts, and what the process of this one has counted."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.before = self.own = 0.0
        self.steps = self.errors = 0
        self.attempt = 1
        self.model = "m1"
        self.state: RunState = "running"
        self.at = 0.0

    def snapshot(self) -> Snapshot:
        who = identity(f"r{self.number}", project_name=f"p{self.number % 2}", model_name=self.model, attempt=self.attempt)
        made = replace(
            snapshot(0.0, run=who),
            inherited=(host_totals("node1", self.before),) if self.attempt > 1 else (),
            attempt=host_totals("node1", self.own),
            errors=(("gap", self.errors),),
            state=self.state,
            updated_unix=BEGAN + self.at,
        )
        durations = StepHistogram((self.steps, *[0] * 15), 0.1 * self.steps)
        return with_progress(made, steps=self.steps, samples=8 * self.steps, step_durations=durations)

    def do(self, what: str, joules: float, at: float) -> None:
        self.at = at
        if what == "progress" and self.state == "running":
            self.own += joules
            self.steps += 1
            self.errors += 1
        elif what == "end":
            self.state = "ended"
        elif what == "resume" and self.state != "running":
            self.before, self.own, self.errors = self.before + self.own, 0.0, 0
            self.attempt, self.state = self.attempt + 1, "running"
            self.model = f"m{self.attempt % 2}"


events = st.lists(
    st.tuples(
        st.sampled_from(["progress", "progress", "progress", "end", "leave", "resume", "restart", "scrape"]),
        st.integers(0, 3),
        st.just(0.0) | st.floats(1e-6, 1e9),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=120)
@given(events, st.booleans())
def test_no_counter_ever_falls_whatever_comes_and_goes_and_however_often_the_daemon_is_begun_again(
    done: list[tuple[str, int, float]], restarts: bool
) -> None:
    daemon = Daemon()
    runs = [Run(number) for number in range(4)]
    shown: dict[str, float] = {}
    for number, (what, who, joules) in enumerate([*done, ("scrape", 0, 0.0)]):
        one = runs[who]
        if what == "restart":
            if restarts:
                daemon.begin()
        elif what == "leave":
            if one.state != "running":
                daemon.runs.pop(f"r{who}", None)
        elif what != "scrape":
            one.do(what, joules, float(number))
            daemon.show(one.snapshot())
        daemon.seconds += 7
        now = counters(daemon.exposition, but=OF_A_PROCESS if restarts else ())
        assert not {name: (before, now.get(name)) for name, before in shown.items() if now.get(name, -1.0) < before}
        shown.update(now)
    energy = sum(number for name, number in shown.items() if name.startswith("hf_training_device_energy_joules_total"))
    used = sum(one.before + one.own for one in runs)
    assert energy == pytest.approx(used, rel=1e-9, abs=1e-9)
