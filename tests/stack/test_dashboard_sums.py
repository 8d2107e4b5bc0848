"""What dashboards' queries make of runs that are served twice, under other names, on several hosts, or without run_id."""

from collections.abc import Mapping

import pytest

from hf_eco2ai.stack.dashboards import common, queries
from hf_eco2ai.stack.rules import recording_files
from tests.stack.committed import THRESHOLDS
from tests.stack.dashboards import filled
from tests.stack.labelled import budget, run, series, served_twice
from tests.stack.promtool import Case, Gives, failures

ENERGY, CO2 = common.ENERGY, common.CO2


def used(kwh: float, run_id: str = "r1", project: str = "llama", model: str = "m1", host: str = "h1") -> dict[str, str]:
    """Energy of a run on a host, and of it a gram for each kWh."""
    labels = {"project_name": project, "model_name": model, "run_id": run_id, "host": host}
    return {
        series(ENERGY, **labels): f"{kwh}x40",
        series(CO2, factor_type="lifecycle", **labels): f"{kwh / 1000}x40",
    }


def gives(expr: str, values: Mapping[str, float], at: str = "5m", **chosen: str) -> Gives:
    return Gives(at, filled(expr, chosen), values)


TOTAL = queries.total(ENERGY, window=queries.SEEN)
BY_PROJECT = queries.by_name(ENERGY, "project_name", window=queries.SEEN)

ON_TWO_HOSTS = used(2.0) | used(3.0, host="h2")
BUDGETS_OF_PROJECTS = common.budgets(THRESHOLDS).queries[1].expr
FOLDED = {
    name.replace("{", f'{{job="{job}", instance="{job}:1", '): values
    for job in ("a", "b")
    for name, values in (
        used(2.0, run_id="", project="llama") | used(3.0, run_id="", project="bert") | run(run_id="", project="llama")
    ).items()
}

CASES = (
    Case(
        "a run that two exporters show under two projects counts once, under its own",
        served_twice(run() | used(2.0)),
        (
            gives(TOTAL, {"{}": 2.0}),
            gives(BY_PROJECT, {'{project_name="llama"}': 2.0}),
            gives(TOTAL, {"{}": 2.0}, project="llama"),
            gives(TOTAL, {}, project="bert"),
        ),
    ),
    Case(
        "hosts of a run add up, and can be looked at alone",
        run() | run(host="h2") | ON_TWO_HOSTS,
        (gives(TOTAL, {"{}": 5.0}), gives(TOTAL, {"{}": 3.0}, host="h2")),
    ),
    Case(
        "runs without run_id count by project, and are no choice of a run",
        FOLDED,
        (
            gives(TOTAL, {"{}": 5.0}),
            gives(TOTAL, {"{}": 3.0}, project="bert"),
            gives(BY_PROJECT, {'{project_name="llama"}': 2.0, '{project_name="bert"}': 3.0}),
            gives(TOTAL, {}, run="r1"),
        ),
    ),
    Case(
        "a run that is served no more counts within the time range, and not beyond it",
        {name: values.replace("x40", "x4 stale") for name, values in (run(running="1x4 stale", info="1x40") | used(2.0)).items()},
        (gives(TOTAL, {"{}": 2.0}, at="5m"), gives(TOTAL, {}, at="20m")),
    ),
    Case(
        "kinds of grid factors are not added",
        run() | used(2.0) | {series(CO2, factor_type="marginal", project_name="llama", run_id="r1", host="h1"): "7x40"},
        (
            gives(
                queries.total(CO2, "factor_type", window=queries.SEEN),
                {'{factor_type="lifecycle"}': 0.002, '{factor_type="marginal"}': 7.0},
            ),
        ),
    ),
    Case(
        "a project's budget is one, whichever of its runs tells of it",
        run("r1")
        | run("r2")
        | budget("0.5x40", "r1", scope="project", period="day")
        | budget("0.5x40", "r2", scope="project", period="day"),
        (gives(BUDGETS_OF_PROJECTS, {'{project_name="llama", budget="carbon", scope="project", period="day"}': 0.5}),),
    ),
    Case(
        "a project's budget that was raised is what the newer run tells of it",
        run("r1")
        | run("r2")
        | budget("1.2x40", "r1", scope="project")
        | budget("0.6x40", "r2", scope="project")
        | {series("hf_training_last_update_timestamp", run_id="r1", host="h1"): "0x40"}
        | {series("hf_training_last_update_timestamp", run_id="r2", host="h1"): "0+15x40"},
        (gives(BUDGETS_OF_PROJECTS, {'{project_name="llama", budget="carbon", scope="project"}': 0.6}),),
    ),
    Case(
        "of two exporters the one that says that a run lives is believed",
        run()
        | {
            series("hf_training_run_state", job="a", run_id="r1", state="running"): "1x40",
            series("hf_training_run_state", job="b", run_id="r1", state="running"): "0x40",
            series("hf_training_run_state", job="b", run_id="r1", state="lost"): "1x40",
        },
        (gives(queries.STATE, {'{run_id="r1"}': 1.0}),),
    ),
)


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    return failures(CASES, recording_files().values(), tmp_path_factory.mktemp("sums"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_sums(case: Case, failed: Mapping[str, str]) -> None:
    assert failed.get(case.name) is None, failed[case.name]
