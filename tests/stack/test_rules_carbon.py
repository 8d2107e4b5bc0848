"""Alerts on CO₂e: when they stand, when they do not, and what they say."""

from collections.abc import Mapping

import pytest

from hf_eco2ai.stack.alerts.carbon import alerts
from hf_eco2ai.stack.rules import recording_files
from tests.stack.committed import alert_names, file_of
from tests.stack.labelled import budget, budget_kg, run, series, served_twice
from tests.stack.promtool import Alerts, Case, failures, nan, uncovered

RUN = {"project_name": "llama", "run_id": "r1"}
NAMED = {**RUN, "model_name": "m1"}
LIFECYCLE = {**NAMED, "factor_type": "lifecycle"}

LINK = "http://localhost:3000/d/hf-carbon-tracking?&var-project=llama"
OF_RUN_LINK = LINK + "&var-model=m1&var-run=r1"
BOOK = "https://github.com/terragonlabs/hf-eco2ai-plugin/blob/main/docs/runbooks/"


def co2(values: str, host: str = "h1", factor_type: str = "lifecycle", run_id: str = "r1") -> dict[str, str]:
    labels = {"project_name": "llama", "model_name": "m1", "run_id": run_id, "host": host, "factor_type": factor_type}
    return {series("hf_training_co2_kg_total", **labels): values}


def rate(values: str, host: str = "h1", factor_type: str = "lifecycle") -> dict[str, str]:
    return {series("hf_training_co2_rate_kg_per_hour", **RUN, host=host, factor_type=factor_type): values}


def forecast(values: str) -> dict[str, str]:
    return {series("hf_training_predicted_co2_kg", **RUN, factor_type="lifecycle"): values}


HIGH_CARBON_EMISSIONS = {
    "summary": "llama: run r1 has emitted 25 kg CO₂e",
    "description": "The run has emitted 25 kg CO₂e so far (lifecycle factor, PUE included), more than 20 kg.",
    "action": "See which phase used the energy, and whether the run still learns enough to go on.",
    "value": "25 kg CO₂e",
    "limit": "20 kg CO₂e",
    "dashboard_url": OF_RUN_LINK,
    "runbook_url": BOOK + "HighCarbonEmissions.md",
}

HIGH_CARBON_RATE = {
    "summary": "llama: run r1 emits 4 kg CO₂e per hour",
    "description": "Over the last 10m the run emitted 4 kg CO₂e per hour on all its hosts, more than 3.",
    "action": "Move it to hours or a region with a cleaner grid, or take fewer or better used GPUs.",
    "value": "4 kg CO₂e per hour",
    "limit": "3 kg CO₂e per hour",
    "dashboard_url": OF_RUN_LINK,
    "runbook_url": BOOK + "HighCarbonRate.md",
}

CARBON_FORECAST_OVER_BUDGET = {
    "summary": "llama: run r1 will exceed its carbon budget",
    "description": "At its present pace the run will have emitted 30 kg CO₂e when it ends; its budget is 20 kg CO₂e.",
    "action": "Shorten the run or make it more efficient while there is budget left, or agree on a larger one.",
    "value": "30 kg CO₂e forecast",
    "limit": "20 kg CO₂e",
    "dashboard_url": OF_RUN_LINK,
    "runbook_url": BOOK + "CarbonForecastOverBudget.md",
}

EMISSIONS = (
    Case(
        "a run that has emitted 25 kg for two minutes has emitted much",
        run() | co2("25x40"),
        (
            Alerts("1m45s", "HighCarbonEmissions"),
            Alerts(
                "5m",
                "HighCarbonEmissions",
                (LIFECYCLE,),
                (HIGH_CARBON_EMISSIONS,),
            ),
        ),
    ),
    Case("20 kg are not more than 20 kg", run() | co2("20x40"), (Alerts("5m", "HighCarbonEmissions"),)),
    Case(
        "what two hosts emitted for a run adds up",
        run() | co2("12x40") | co2("12x40", host="h2"),
        (Alerts("5m", "HighCarbonEmissions", (LIFECYCLE,)),),
    ),
    Case(
        "lifecycle and direct emissions never add up",
        run() | co2("12x40") | co2("12x40", factor_type="direct"),
        (Alerts("5m", "HighCarbonEmissions"),),
    ),
    Case(
        "two runs of one project do not add up to one that has emitted much",
        run() | run("r2") | co2("12x40") | co2("12x40", run_id="r2"),
        (Alerts("5m", "HighCarbonEmissions"),),
    ),
    Case(
        "a run that is served twice has emitted once",
        served_twice(run() | co2("12x40")),
        (Alerts("5m", "HighCarbonEmissions"),),
    ),
    Case(
        "a run that is served twice is one alert, with the project that is not other",
        served_twice(run() | co2("25x40")),
        (Alerts("5m", "HighCarbonEmissions", (LIFECYCLE,)),),
    ),
    Case(
        "a run that is resumed goes on from its former total",
        run(info="1x8 _x40 1x40") | co2("19x8 _x40 19.5+0.1x40"),
        (Alerts("2m", "HighCarbonEmissions"), Alerts("20m", "HighCarbonEmissions", (LIFECYCLE,))),
    ),
    Case("a total that is no number is not much", run() | co2(nan(40)), (Alerts("5m", "HighCarbonEmissions"),)),
    Case(
        "runs that no label tells apart are not taken for one run",
        {
            series("hf_training_run_info", project_name="llama", model_name="m1", host="h1"): "1x40",
            series(
                "hf_training_co2_kg_total", project_name="llama", model_name="m1", host="h1", factor_type="lifecycle"
            ): "99x40",
            series("hf_training_co2_kg_total", project_name="bert", model_name="m1", host="h1", factor_type="lifecycle"): "99x40",
        },
        (Alerts("5m", "HighCarbonEmissions"),),
    ),
)

RATE = (
    Case(
        "a run whose hosts emit 4 kg per hour over ten minutes emits fast",
        run() | rate("1.5x80") | rate("2.5x80", host="h2"),
        (
            Alerts("9m30s", "HighCarbonRate"),
            Alerts(
                "12m",
                "HighCarbonRate",
                (LIFECYCLE,),
                (HIGH_CARBON_RATE,),
            ),
        ),
    ),
    Case("a short peak is no high rate", run() | rate("1x40 9x8 1x40"), (Alerts("13m", "HighCarbonRate"),)),
    Case(
        "a run that is served twice emits once",
        served_twice(run() | rate("2x80")),
        (Alerts("15m", "HighCarbonRate"),),
    ),
    Case(
        "a run that has ended emits no more, though its last rate is shown",
        run(running="1x60 0x60") | rate("4x120"),
        (Alerts("14m", "HighCarbonRate", (LIFECYCLE,)), Alerts("16m", "HighCarbonRate")),
    ),
    Case(
        "a daemon that is restarted does not hide it again ten minutes later",
        run(running="1x60 stale _x3 1x60", info="1x60 stale _x3 1x60") | rate("4x60 stale _x3 4x60"),
        (
            Alerts("15m", "HighCarbonRate", (LIFECYCLE,)),
            Alerts("16m15s", "HighCarbonRate", (LIFECYCLE,)),
            Alerts("25m30s", "HighCarbonRate", (LIFECYCLE,)),
            Alerts("25m45s", "HighCarbonRate", (LIFECYCLE,)),
        ),
    ),
    Case(
        "a run that began five minutes before has no mean of ten",
        run() | rate("9x80"),
        (Alerts("9m45s", "HighCarbonRate"),),
    ),
    Case(
        "of two runs of one project the one that emits fast is named",
        run()
        | run("r2")
        | rate("1x80")
        | {
            series(
                "hf_training_co2_rate_kg_per_hour", project_name="llama", run_id="r2", host="h1", factor_type="lifecycle"
            ): "4x80"
        },
        (Alerts("15m", "HighCarbonRate", ({**LIFECYCLE, "run_id": "r2"},)),),
    ),
    Case(
        "a run that has ended has emitted it all the same",
        run(running="1x8 0x80") | co2("25x80"),
        (Alerts("15m", "HighCarbonEmissions", (LIFECYCLE,)),),
    ),
    Case(
        "of two runs of one project the one that will exceed its budget is named",
        run()
        | run("r2")
        | forecast("30x80")
        | {series("hf_training_predicted_co2_kg", project_name="llama", run_id="r2", factor_type="lifecycle"): "10x80"}
        | budget("0.5x80")
        | budget("0.5x80", "r2")
        | budget_kg("20x80")
        | budget_kg("20x80", "r2"),
        (Alerts("12m", "CarbonForecastOverBudget", (LIFECYCLE,)),),
    ),
    Case(
        "a resumed run will exceed its budget again",
        run(running="1x60 0x20 1x80") | forecast("30x160") | budget("0.5x160") | budget_kg("20x160"),
        (
            Alerts("14m", "CarbonForecastOverBudget", (LIFECYCLE,)),
            Alerts("16m", "CarbonForecastOverBudget"),
            Alerts("32m", "CarbonForecastOverBudget", (LIFECYCLE,)),
        ),
    ),
    Case("a rate that is no number is not high", run() | rate(nan(80)), (Alerts("15m", "HighCarbonRate"),)),
)

FORECAST = (
    Case(
        "a run that will have emitted 30 kg of a budget of 20",
        run() | budget("0.4x80") | budget_kg("20x100") | forecast("30x80"),
        (
            Alerts("9m30s", "CarbonForecastOverBudget"),
            Alerts(
                "12m",
                "CarbonForecastOverBudget",
                (LIFECYCLE,),
                (CARBON_FORECAST_OVER_BUDGET,),
            ),
        ),
    ),
    Case(
        "a forecast within the budget",
        run() | budget("0.4x80") | budget_kg("20x100") | forecast("19x80"),
        (Alerts("15m", "CarbonForecastOverBudget"),),
    ),
    Case(
        "a run that is served twice has one forecast",
        served_twice(run() | budget("0.4x80") | budget_kg("20x100") | forecast("30x80")),
        (Alerts("15m", "CarbonForecastOverBudget", (LIFECYCLE,)),),
    ),
    Case(
        "a forecast of a run is not held against its project's budget",
        run() | budget("0.4x80", scope="project", period="month") | budget_kg("20x80") | forecast("300x80"),
        (Alerts("15m", "CarbonForecastOverBudget"),),
    ),
    Case(
        "a forecast that is no number",
        run() | budget("0.4x80") | budget_kg("20x100") | forecast(nan(80)),
        (Alerts("15m", "CarbonForecastOverBudget"),),
    ),
    Case(
        "a budget that is spent needs no forecast",
        run() | budget("1x80") | budget_kg("20x100") | forecast("30x80"),
        (Alerts("15m", "CarbonForecastOverBudget"),),
    ),
    Case(
        "a run that has ended has no forecast",
        run(running="1x50 0x50") | budget("0.4x100") | budget_kg("20x100") | forecast("30x100"),
        (Alerts("12m", "CarbonForecastOverBudget", (LIFECYCLE,)), Alerts("13m", "CarbonForecastOverBudget")),
    ),
)

CASES = (*EMISSIONS, *RATE, *FORECAST)


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    rules = [recording_files()["hf-eco2ai-budgets.yml"], file_of("carbon", alerts)]
    return failures(CASES, rules, tmp_path_factory.mktemp("promtool"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_alerts_on_carbon(case: Case, failed: Mapping[str, str]) -> None:
    assert case.name not in failed, failed[case.name]


def test_every_other_alert_on_carbon_is_seen_firing_and_silent() -> None:
    names = [name for name in alert_names(alerts) if not name.startswith("CarbonBudget")]
    assert len(names) == 3
    assert uncovered(CASES, names) == []
