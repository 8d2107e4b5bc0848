"""Alerts on money: when they stand, when they do not, and what they say."""

from collections.abc import Mapping

import pytest

from hf_eco2ai.stack.alerts.cost import alerts
from hf_eco2ai.stack.rules import recording_files
from tests.stack.committed import alert_names, file_of
from tests.stack.labelled import budget, measured, run, series, served_twice
from tests.stack.promtool import Alerts, Case, failures, nan, uncovered

RUN = {"project_name": "llama", "run_id": "r1"}
NAMED = {**RUN, "model_name": "m1"}
EUR = {**NAMED, "currency": "EUR"}
OF_RUN = {**NAMED, "budget": "cost", "scope": "run", "period": "none"}
OF_PROJECT = {"project_name": "llama", "budget": "cost", "scope": "project", "period": "day"}

LINK = "http://localhost:3000/d/hf-executive-overview?&var-project=llama"
OF_RUN_LINK = LINK + "&var-model=m1&var-run=r1"
BOOK = "https://github.com/terragonlabs/hf-eco2ai-plugin/blob/main/docs/runbooks/"


def rate(values: str, host: str = "h1", currency: str = "EUR", run_id: str = "r1") -> dict[str, str]:
    labels = {"project_name": "llama", "run_id": run_id, "host": host, "currency": currency}
    return {series("hf_training_cost_rate_usd_per_hour", **labels): values}


def cost(values: str, host: str = "h1") -> dict[str, str]:
    return {series("hf_training_estimated_cost_usd", **RUN, host=host, currency="EUR"): values}


HIGH_COST_RATE = {
    "summary": "llama: run r1 costs 60.00 EUR per hour",
    "description": "Over the last 10m the run cost 60.00 EUR per hour on all its hosts, energy and GPU hours together.",
    "action": "See whether all its GPUs are used; take fewer, cheaper or spot machines, or raise high_cost_per_hour.",
    "value": "60.00 EUR per hour",
    "limit": "50 EUR per hour",
    "dashboard_url": OF_RUN_LINK,
    "runbook_url": BOOK + "HighCostRate.md",
}
NEARLY_SPENT = {
    "summary": "85% of the cost budget of project llama for this day (UTC) is spent",
    "description": "85% of the budget are spent.",
    "action": "See in the forecast whether the rest is enough; if not, stop early, train less, or agree on a larger budget.",
    "value": "85% of the budget",
    "limit": "100% of the cost budget",
    "dashboard_url": LINK,
    "runbook_url": BOOK + "CostBudgetNearlySpent.md",
}
EXCEEDED = {
    "summary": "The cost budget of run r1 (llama) is spent: 110%",
    "description": "110% of the budget are spent: 33.00 EUR.",
    "action": "Stop the training now (budget_action='stop' does it by itself), or agree on a larger budget.",
    "value": "110% of the budget: 33.00 EUR",
    "limit": "100% of the cost budget",
    "dashboard_url": OF_RUN_LINK,
    "runbook_url": BOOK + "CostBudgetExceeded.md",
}

CASES = (
    Case(
        "a run whose hosts cost 60 euros per hour over ten minutes costs much",
        run() | rate("20x80") | rate("40x80", host="h2"),
        (Alerts("9m30s", "HighCostRate"), Alerts("12m", "HighCostRate", (EUR,), (HIGH_COST_RATE,))),
    ),
    Case("50 euros are not more than 50", run() | rate("50x80"), (Alerts("12m", "HighCostRate"),)),
    Case(
        "euros and dollars never add up", run() | rate("40x80") | rate("40x80", currency="USD"), (Alerts("12m", "HighCostRate"),)
    ),
    Case(
        "two runs of a project do not add up to one that costs much",
        run() | run("r2") | rate("40x80") | rate("40x80", run_id="r2"),
        (Alerts("12m", "HighCostRate"),),
    ),
    Case("a run that is served twice costs once", served_twice(run() | rate("40x80")), (Alerts("12m", "HighCostRate"),)),
    Case(
        "a run that is served twice is one alert",
        served_twice(run() | rate("60x80")),
        (Alerts("12m", "HighCostRate", (EUR,)),),
    ),
    Case(
        "a run that has ended costs no more",
        run(running="1x60 0x60") | rate("60x120"),
        (Alerts("14m", "HighCostRate", (EUR,)), Alerts("16m", "HighCostRate")),
    ),
    Case(
        "a run that is resumed has not cost so much for ten minutes before it has run as long again",
        run(info="1x8 stale _x60 1x80") | rate("60x8 stale _x60 60x80"),
        (Alerts("20m", "HighCostRate"), Alerts("28m", "HighCostRate", (EUR,))),
    ),
    Case("a rate that is no number is not high", run() | rate(nan(80)), (Alerts("12m", "HighCostRate"),)),
    Case(
        "from 80 % on a project's budget is nearly spent, and from 100 % on it is spent as well",
        run() | run("r2") | budget("0.85x19 1x40", kind="cost", scope="project", period="day") | cost("9x60"),
        (
            Alerts("4m", "CostBudgetNearlySpent", (OF_PROJECT,), (NEARLY_SPENT,)),
            Alerts("4m", "CostBudgetExceeded"),
            Alerts("6m", "CostBudgetNearlySpent", (OF_PROJECT,)),
            Alerts("6m", "CostBudgetExceeded", (OF_PROJECT,)),
        ),
    ),
    Case(
        "a run that has spent its budget says what it has cost on all hosts, once",
        served_twice(run() | budget("1.1x40", kind="cost") | cost("11x40") | cost("22x40", host="h2")),
        (Alerts("5m", "CostBudgetExceeded", (OF_RUN,), (EXCEEDED,)), Alerts("5m", "CostBudgetNearlySpent", (OF_RUN,))),
    ),
    Case(
        "a project's budget that two runs tell of is one alert",
        served_twice(
            run()
            | run("r2")
            | budget("0.9x40", kind="cost", scope="project", period="day")
            | budget("0.9x40", "r2", kind="cost", scope="project", period="day")
        ),
        (Alerts("5m", "CostBudgetNearlySpent", (OF_PROJECT,)),),
    ),
    Case(
        "the alert of a run whose endpoint has gone goes on for an hour",
        run(running="1x8 stale", info="1x8 stale") | budget("1.1x8 stale", kind="cost"),
        (Alerts("1h", "CostBudgetExceeded", (OF_RUN,)), Alerts("1h5m", "CostBudgetExceeded")),
    ),
    Case(
        "a resumed run with a raised budget has not spent it",
        run(info="1x8 stale _x20 1x40") | budget("1.1x8 stale _x20 0.5x40", kind="cost"),
        (Alerts("6m", "CostBudgetExceeded", (OF_RUN,)), Alerts("10m", "CostBudgetExceeded")),
    ),
    Case(
        "a project's budget that was raised is spent no more, also while an ended run that knew the old one is served",
        run(running="1x8 0x60")
        | budget("1.2x60", kind="cost", scope="project", period="day")
        | measured("0+15x8 120x60")
        | run("r2", info="_x20 1x60")
        | budget("_x20 0.6x60", "r2", kind="cost", scope="project", period="day")
        | measured("_x20 315+15x60", "r2"),
        (Alerts("4m", "CostBudgetExceeded", (OF_PROJECT,)), Alerts("10m", "CostBudgetExceeded")),
    ),
    Case(
        "a resumed run with a raised budget of money has not spent it",
        run(info="1x8 stale _x20 1x40") | budget("1.1x8 stale _x20 0.5x40", kind="cost"),
        (
            Alerts("6m", "CostBudgetExceeded", (OF_RUN,)),
            Alerts("6m", "CostBudgetNearlySpent", (OF_RUN,)),
            Alerts("10m", "CostBudgetExceeded"),
            Alerts("10m", "CostBudgetNearlySpent"),
        ),
    ),
    Case(
        "budgets of carbon, and shares that are no number, are no spent money",
        run() | run("r2") | budget("2x40") | budget(nan(40), "r2", kind="cost"),
        (Alerts("5m", "CostBudgetExceeded"), Alerts("5m", "CostBudgetNearlySpent")),
    ),
)


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    rules = [recording_files()["hf-eco2ai-budgets.yml"], file_of("cost", alerts)]
    return failures(CASES, rules, tmp_path_factory.mktemp("promtool"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_alerts_on_cost(case: Case, failed: Mapping[str, str]) -> None:
    assert case.name not in failed, failed[case.name]


def test_every_alert_on_cost_is_seen_firing_and_silent() -> None:
    assert uncovered(CASES, alert_names(alerts)) == []
