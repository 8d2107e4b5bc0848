"""Recording rules: energy, CO₂e and cost per project, model and host; now, and of the last hour, day and 30 days; and efficiency.

Names are `level:metric:operations`; the metric's own name stands in the middle.

Figures are first taken once per run and host, then added up by project, model and host together, and of that by each alone. A
window's figure is exact: the last total in it, less the last one before it, or all of it where the run began in it. `increase()`
would miss what a short run used before its first scrape, and guess at both ends. What a run had used before Prometheus could know
of it counts in no window. Totals of a run do not fall at a resume; one that is resumed later than `REMEMBERED` after it was last
seen counts anew.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from hf_eco2ai.stack import budgets
from hf_eco2ai.stack.promql import began, once, who

WINDOWS = ("1h", "1d", "30d")

REMEMBERED = "30d"
"""So long before a window a run may have been seen last. With the longest window that is 60 of the 90 days that are kept."""

UNSEEN = "15m"
"""A run that lives between two evaluations is counted all the same, also if Prometheus skips some."""

SLOW = "4m"
"""Windows read 30 days, so seldom; but a query finds no value that is older than 5 minutes. The windows are multiples of it."""

LEVELS = {"project": "project_name", "model": "model_name", "host": "host"}


@dataclass(frozen=True)
class Record:
    """One recording rule."""

    name: str
    expr: str


@dataclass(frozen=True)
class Group:
    """Rules that are evaluated one after the other, each finding what those before it recorded."""

    name: str
    records: tuple[Record, ...]
    interval: str = ""
    """Empty: as often as prometheus.yml says."""


@dataclass(frozen=True)
class Family:
    """What hosts measure for a run: its total and its rate. `kind` is a label over which nothing is added."""

    total: str
    rate: str
    kind: tuple[str, ...] = ()


FAMILIES = (
    Family("hf_training_energy_kwh_total", "hf_training_energy_rate_kwh_per_hour"),
    Family("hf_training_co2_kg_total", "hf_training_co2_rate_kg_per_hour", ("factor_type",)),
    Family("hf_training_estimated_cost_usd", "hf_training_cost_rate_usd_per_hour", ("currency",)),
)

UNNAMED = ("project_name", "model_name")
"""Labels of a run that has no run_id."""

SAMPLES = "hf_training_samples_total"
SEEN = "run:hf_training_run_info:seen"
"""Its value is the time, so that of two names of a run the newer one can be told."""


def files() -> dict[str, tuple[Group, ...]]:
    """File names to groups. Alerts need the budgets'; the others are for dashboards."""
    return {
        "hf-eco2ai-budgets.yml": (Group("hf-eco2ai-budgets", (Record(budgets.USED, budgets.used()),)),),
        "hf-eco2ai.yml": (
            Group("hf-eco2ai-now", tuple(_now()), "1m"),
            Group("hf-eco2ai-windows", tuple(_windows()), SLOW),
        ),
    }


def of_each_run(metric: str, *by: str, window: str = "", function: str = "last_over_time") -> str:
    """A figure of each run and host, once. Runs without a run_id are told apart by project and model: `project/model`.

    What is no number is left out, for it would make one of all sums.
    """

    def taken(run: str, *labels: str) -> str:
        selector = f'{metric}{{run_id{run}""}}'
        return once(f"{function}({selector}[{window}])" if window else selector, *labels)

    return f"{taken('!=', 'run_id', *by)} >= 0\nor {once(_joined(taken('=', *UNNAMED, *by)), 'run_id', *by)} >= 0"


def _joined(unnamed: str) -> str:
    """With what tells a run apart that has no run_id."""
    return f'label_join({unnamed}, "run_id", "/", "project_name", "model_name")'


def names(window: str = "") -> str:
    """Project and model of each run_id, as `of_each_run` gives them, worth 1. Families without a model know of no model."""
    info = 'hf_training_run_info{run_id=""}'
    info = f"last_over_time({info}[{window}])" if window else info
    folded = "\nor ".join(
        f'label_join(group by ({", ".join(labels)}) ({info}), "run_id", "/", "project_name", "model_name")'
        for labels in (("project_name", "model_name"), ("project_name",))
    )
    return f"({who(window)}\nor {folded})"


def _levels(metric: str, operation: str, whole: str, kind: tuple[str, ...]) -> Iterator[Record]:
    """First of project, model and host together, then of each."""
    base = f"project_model_host:{metric}:{operation}"
    yield Record(base, f"sum by (project_name, model_name, host{''.join(f', {label}' for label in kind)}) (\n{whole}\n)")
    for level, label in LEVELS.items():
        yield Record(f"{level}:{metric}:{operation}", f"sum by ({', '.join((label, *kind))}) ({base})")


def _now() -> Iterator[Record]:
    named = f"* on (run_id) group_left (project_name, model_name)\n{names()}"
    for family in FAMILIES:
        yield Record(f"run:{family.rate}:max", of_each_run(family.rate, "host", *family.kind))
        yield from _levels(family.rate, "sum", f"run:{family.rate}:max\n{named}", family.kind)
    yield Record("run:hf_training_running:max", of_each_run("hf_training_running"))
    yield Record("project:hf_training_running:sum", f"sum by (project_name) (\nrun:hf_training_running:max\n{named}\n)")


def _windows() -> Iterator[Record]:
    yield Record(SEEN, f"{names(UNSEEN)} * time()")
    for family in FAMILIES:
        yield from _totals(family.total, "host", *family.kind)
    yield from _totals(SAMPLES)
    for window in WINDOWS:
        for family in FAMILIES:
            yield from _levels(family.total, f"increase{window}", _named(_gained(family.total, window), window), family.kind)
        for level in ("project", "model"):
            yield Record(f"{level}:hf_training_samples_per_kwh:ratio{window}", _samples_per_kwh(LEVELS[level], window))


def _totals(metric: str, *by: str) -> Iterator[Record]:
    """Of each run: once, when it is met, where its total counts from; then, and each time, how far it has come."""
    labels = ("run_id", *by)
    met = of_each_run(metric, *by, window=UNSEEN, function="min_over_time")
    unnamed = began(f'{metric}{{run_id=""}}', *UNNAMED, *by)
    new = f"""({began(f'{metric}{{run_id!=""}}', *labels)}\nor {once(_joined(unnamed), *labels, pick="group")})"""
    first = f"(({met}) * 0 and {new}\nor ({met}))"
    yield Record(f"run:{metric}:first", f"{first}\nunless last_over_time(run:{metric}:last[{REMEMBERED}])")
    yield Record(f"run:{metric}:last", of_each_run(metric, *by, window=UNSEEN))


def _gained(metric: str, window: str) -> str:
    """What each run has added to a total in the window. Where there is none before it, the run was met in it."""
    last = f"run:{metric}:last"
    before, met = f"last_over_time({last}[{REMEMBERED}] offset {window})", f"last_over_time(run:{metric}:first[{window}])"
    return f"last_over_time({last}[{window}]) - ({before} or {met})"


def _named(expression: str, window: str) -> str:
    """With the project and model that the run had last."""
    newest = f"group by (run_id, project_name, model_name) (topk by (run_id) (1, last_over_time({SEEN}[{window}])))"
    return f"({expression})\n* on (run_id) group_left (project_name, model_name)\n{newest}"


def _samples_per_kwh(label: str, window: str) -> str:
    """Of runs that count samples: the energy of a measured command has none to be divided by."""
    trains = f"last_over_time(run:{SAMPLES}:last[{window}]) > 0"
    energy = f"({_gained('hf_training_energy_kwh_total', window)}) and on (run_id) {trains}"
    samples = f"sum by ({label}) ({_named(_gained(SAMPLES, window), window)})"
    return f"{samples}\n/ (sum by ({label}) ({_named(energy, window)}) > 0)"
