"""Alerts on carbon budgets: when they stand, when they do not, and what they say."""

from collections.abc import Mapping

import pytest

from hf_eco2ai.stack.alerts.carbon import alerts
from hf_eco2ai.stack.rules import recording_files
from tests.stack.committed import alert_names, file_of
from tests.stack.labelled import budget, budget_kg, measured, run, series, served_twice
from tests.stack.promtool import Alerts, Case, failures, nan, uncovered

RUN = {"project_name": "llama", "run_id": "r1"}
NAMED = {**RUN, "model_name": "m1"}
OF_RUN = {**NAMED, "budget": "carbon", "scope": "run", "period": "none"}
OF_PROJECT = {"project_name": "llama", "budget": "carbon", "scope": "project", "period": "month"}

LINK = "http://localhost:3000/d/hf-carbon-tracking?&var-project=llama"
OF_RUN_LINK = LINK + "&var-model=m1&var-run=r1"
BOOK = "https://github.com/terragonlabs/hf-eco2ai-plugin/blob/main/docs/runbooks/"


def pace(eta: str, progress: str) -> dict[str, str]:
    return {series("hf_training_eta_seconds", **RUN): eta, series("hf_training_progress_ratio", **RUN): progress}


def of_run(ratio: str, kg: str = "20x400", run_id: str = "r1", period: str = "none") -> dict[str, str]:
    return budget(ratio, run_id, period=period) | budget_kg(kg, run_id)


def of_project(ratio: str, kg: str = "100x400", run_id: str = "r1", period: str = "month") -> dict[str, str]:
    return budget(ratio, run_id, scope="project", period=period) | budget_kg(kg, run_id)


def at_port(port: int, shown: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("{", f'{{job="hf-eco2ai-runs", instance="h1:{port}", '): values for name, values in shown.items()}


RAISED = (
    run(running="1x8 0x400")
    | of_project("1.2x400", kg="5x400", period="none")
    | measured("0+15x8 120x400")
    | of_project("_x20 0.6x400", kg="_x20 10x400", run_id="r2", period="none")
)
"""r1 ended after 2 minutes with 6 kg of 5, and is still served. r2 began after 5 minutes with a budget of 10 kg."""


CARBON_BUDGET_NEARLY_SPENT = {
    "summary": "80% of the carbon budget of run r1 (llama) is spent",
    "description": "16 kg CO₂e of 20 kg CO₂e are spent, that is 80%.",
    "action": "See in the forecast whether the rest is enough; if not, stop early, train less, or agree on a larger budget.",
    "value": "16 kg CO₂e (80%)",
    "limit": "20 kg CO₂e",
    "dashboard_url": OF_RUN_LINK,
    "runbook_url": BOOK + "CarbonBudgetNearlySpent.md",
}

CARBON_BUDGET_EXCEEDED = {
    "summary": "The carbon budget of project llama for this month (UTC) is spent: 125%",
    "description": "125 kg CO₂e are emitted, of a budget of 100 kg CO₂e: 125%.",
    "action": "Stop the training now (budget_action='stop' does it by itself), or agree on a larger budget.",
    "value": "125 kg CO₂e (125%)",
    "limit": "100 kg CO₂e",
    "dashboard_url": LINK,
    "runbook_url": BOOK + "CarbonBudgetExceeded.md",
}

CARBON_BUDGET_BURNING_FAST = {
    "summary": "The carbon budget of run r1 (llama) is spent 3 times too fast",
    "description": "In the last 1h it was spent 3 times as fast as the pace that would just use it up by the end of the run, "
    "and it goes on so. The budget is 20 kg CO₂e.",
    "action": "Look for what draws more than was planned; pause what can wait before the budget is gone.",
    "value": "3 times the pace",
    "limit": "2 times the pace",
    "dashboard_url": OF_RUN_LINK,
    "runbook_url": BOOK + "CarbonBudgetBurningFast.md",
}

BUDGET = (
    Case(
        "from 80 % on a run's budget is nearly spent, and from 100 % on it is spent as well",
        run() | of_run("0.79x3 0.8x7 0.99x3 1x40"),
        (
            Alerts("45s", "CarbonBudgetNearlySpent"),
            Alerts(
                "2m",
                "CarbonBudgetNearlySpent",
                (OF_RUN,),
                (CARBON_BUDGET_NEARLY_SPENT,),
            ),
            Alerts("2m", "CarbonBudgetExceeded"),
            Alerts("5m", "CarbonBudgetNearlySpent", (OF_RUN,)),
            Alerts("5m", "CarbonBudgetExceeded", (OF_RUN,)),
        ),
    ),
    Case(
        "a budget of a project is one alert, whichever of its runs tell of it",
        run()
        | run("r2")
        | of_project("1.2x40")
        | of_project("1.25x40", run_id="r2")
        | run("r3")
        | of_run("0.1x40", kg="7000x40", run_id="r3"),
        (
            Alerts(
                "5m",
                "CarbonBudgetExceeded",
                (OF_PROJECT,),
                (CARBON_BUDGET_EXCEEDED,),
            ),
        ),
    ),
    Case(
        "budgets of two runs of a project are two",
        run() | run("r2") | of_run("1.1x40") | of_run("1.2x40", run_id="r2"),
        (Alerts("5m", "CarbonBudgetExceeded", (OF_RUN, {**OF_RUN, "run_id": "r2"})),),
    ),
    Case(
        "budgets of a run that is served twice are one alert",
        served_twice(run() | of_run("1.1x40")),
        (Alerts("5m", "CarbonBudgetExceeded", (OF_RUN,)), Alerts("5m", "CarbonBudgetNearlySpent", (OF_RUN,))),
    ),
    Case(
        "a project's budget that is told of twice is one alert",
        served_twice(run() | run("r2") | of_project("0.9x40") | of_project("0.9x40", run_id="r2")),
        (Alerts("5m", "CarbonBudgetNearlySpent", (OF_PROJECT,)),),
    ),
    Case(
        "a project's budget is told of without run_id as well",
        {series("hf_training_budget_used_ratio", **OF_PROJECT): "1.1x40"},
        (Alerts("5m", "CarbonBudgetExceeded", (OF_PROJECT,)),),
    ),
    Case(
        "the alert of a run whose endpoint has gone goes on for an hour",
        run(running="1x8 stale", info="1x8 stale") | of_run("1.1x8 stale", kg="20x8 stale"),
        (
            Alerts("3m", "CarbonBudgetExceeded", (OF_RUN,)),
            Alerts("1h", "CarbonBudgetExceeded", (OF_RUN,)),
            Alerts("1h5m", "CarbonBudgetExceeded"),
        ),
    ),
    Case(
        "it goes on also for a run that has ended and is still served",
        run(running="1x8 0x40") | of_run("1.1x48"),
        (Alerts("10m", "CarbonBudgetExceeded", (OF_RUN,)),),
    ),
    Case(
        "the alert keeps its project when the endpoint goes and only the daemon's other is left",
        {
            name: values if "9092" in name else values + " stale"
            for name, values in served_twice(run(info="1x8") | of_run("1.1x8")).items()
        },
        (Alerts("2m30s", "CarbonBudgetExceeded", (OF_RUN,)),),
    ),
    Case(
        "a budget that begins anew with the month is spent no more, whatever an ended run said last",
        run(info="1x8 stale") | of_project("1.1x8 stale") | run("r2", info="_x8 1x40") | of_project("_x8 0.01x40", run_id="r2"),
        (Alerts("1m", "CarbonBudgetExceeded", (OF_PROJECT,)), Alerts("5m", "CarbonBudgetExceeded")),
    ),
    Case(
        "a resumed run with a raised budget has not spent it",
        run(info="1x8 stale _x20 1x40") | of_run("1.1x8 stale _x20 0.5x40", kg="20x8 stale _x20 44x40"),
        (
            Alerts("6m", "CarbonBudgetExceeded", (OF_RUN,)),
            Alerts("10m", "CarbonBudgetExceeded"),
            Alerts("10m", "CarbonBudgetNearlySpent"),
        ),
    ),
    Case(
        "a resumed run with a budget of the day has left the former budget behind",
        run(info="1x8 stale _x20 1x40") | of_run("1.1x8 stale") | of_run("_x29 0.5x40", period="day"),
        (Alerts("6m", "CarbonBudgetExceeded", (OF_RUN,)), Alerts("10m", "CarbonBudgetExceeded")),
    ),
    Case(
        "a share that is no number is not spent",
        run() | of_run(nan(40)),
        (Alerts("5m", "CarbonBudgetExceeded"), Alerts("5m", "CarbonBudgetNearlySpent")),
    ),
    Case(
        "budgets of money are none of carbon",
        run() | {series("hf_training_budget_used_ratio", **RUN, budget="cost", scope="run", period="none"): "2x40"},
        (Alerts("5m", "CarbonBudgetExceeded"),),
    ),
)

OF_PROJECT_FOR_GOOD = {**OF_PROJECT, "period": "none"}

OF_TWO = {
    "summary": "The carbon budget of project llama is spent: 120%",
    "description": "6 kg CO₂e are emitted, of a budget of 5 kg CO₂e: 120%.",
    "action": CARBON_BUDGET_EXCEEDED["action"],
    "value": "6 kg CO₂e (120%)",
    "limit": "5 kg CO₂e",
    "dashboard_url": LINK,
    "runbook_url": BOOK + "CarbonBudgetExceeded.md",
}

LATER = (
    Case(
        "a project's budget that was raised is spent no more, also while an ended run that knew the old one is served",
        RAISED | run("r2", info="_x20 1x400") | measured("_x20 315+15x400", run_id="r2"),
        (
            Alerts("4m", "CarbonBudgetExceeded", (OF_PROJECT_FOR_GOOD,), (OF_TWO,)),
            Alerts("10m", "CarbonBudgetExceeded"),
            Alerts("10m", "CarbonBudgetNearlySpent"),
        ),
    ),
    Case(
        "nor when the run with the raised budget has ended as well",
        RAISED | run("r2", running="_x20 1x20 0x400", info="_x20 1x400") | measured("_x20 315+15x20 615x400", run_id="r2"),
        (Alerts("20m", "CarbonBudgetExceeded"), Alerts("20m", "CarbonBudgetNearlySpent")),
    ),
    Case(
        "of two live runs that know different budgets of their project, the number is of the one whose budget is spent",
        run()
        | run("r2")
        | of_project("1.2x80", kg="5x80", period="none")
        | of_project("0.6x80", kg="10x80", run_id="r2", period="none")
        | measured("-60+15x80")
        | measured("0+15x80", run_id="r2"),
        (Alerts("10m", "CarbonBudgetExceeded", (OF_PROJECT_FOR_GOOD,), (OF_TWO,)),),
    ),
    Case(
        "a project's budget that is spent stays so when its runs have ended",
        run(running="1x8 0x80") | of_project("1.2x80", period="none") | measured("0+15x8 120x80"),
        (Alerts("15m", "CarbonBudgetExceeded", (OF_PROJECT_FOR_GOOD,)),),
    ),
    Case(
        "a live run with a budget of its own says nothing of the project's",
        run(running="1x8 0x80")
        | of_project("1.2x80", period="none")
        | measured("0+15x8 120x80")
        | run("r2")
        | of_run("0.1x80", run_id="r2")
        | measured("0+15x80", run_id="r2"),
        (Alerts("15m", "CarbonBudgetExceeded", (OF_PROJECT_FOR_GOOD,)),),
    ),
    Case(
        "a run that was resumed elsewhere with a raised budget, and has gone, has not spent it",
        at_port(9091, run(running="1x8 stale", info="1x8 stale") | of_run("1.1x8 stale", kg="20x8 stale"))
        | at_port(9094, run(info="_x20 1x20 stale") | of_run("_x20 0.5x20 stale", kg="_x20 44x20 stale")),
        (Alerts("4m", "CarbonBudgetExceeded", (OF_RUN,)), Alerts("20m", "CarbonBudgetExceeded")),
    ),
    Case(
        "the alert of a project whose endpoint has gone goes on for an hour, with its number",
        run(running="1x8 stale", info="1x8 stale") | of_project("1.25x8 stale", kg="100x8 stale", period="none"),
        (Alerts("1h", "CarbonBudgetExceeded", (OF_PROJECT_FOR_GOOD,)), Alerts("1h5m", "CarbonBudgetExceeded")),
    ),
    Case(
        "a project's alert keeps its name when the endpoint goes and only the daemon's other is left",
        {
            name: values if "9092" in name else values.replace("x80", "x8 stale")
            for name, values in served_twice(
                run(running="1x80", info="1x80") | of_project("1.1x80", kg="100x80", period="none") | measured("0+15x80")
            ).items()
        },
        (Alerts("10m", "CarbonBudgetExceeded", (OF_PROJECT_FOR_GOOD,)),),
    ),
    Case(
        "a lowered budget is the one that is told",
        at_port(9091, run(info="1x8 stale") | of_run("0.9x8 stale", kg="20x8 stale"))
        | at_port(9094, run(info="_x20 1x40") | of_run("_x20 1.5x40", kg="_x20 12x40")),
        (
            Alerts(
                "10m",
                "CarbonBudgetExceeded",
                (OF_RUN,),
                (
                    {
                        **CARBON_BUDGET_EXCEEDED,
                        "summary": "The carbon budget of run r1 (llama) is spent: 150%",
                        "description": "18 kg CO₂e are emitted, of a budget of 12 kg CO₂e: 150%.",
                        "value": "18 kg CO₂e (150%)",
                        "limit": "12 kg CO₂e",
                        "dashboard_url": OF_RUN_LINK,
                    },
                ),
            ),
        ),
    ),
)


def over_midnight(name: str, shown: Mapping[str, str], over: bool, *labels: Mapping[str, str]) -> Case:
    """Of runs that are seen from 23:00 on, and were last measured at 23:28."""
    after = () if over else labels
    return Case(
        name,
        {one: f"_x345 {values}" for one, values in shown.items()},
        (
            Alerts("23h48m", "CarbonBudgetExceeded", tuple(labels)),
            Alerts("1d4m", "CarbonBudgetExceeded", after),
            Alerts("1d20m", "CarbonBudgetExceeded", after),
        ),
        step="4m",
    )


GONE = "x7 stale"
ENDED = measured("84480x60")

MIDNIGHT = (
    over_midnight(
        "an ended run that is still served has not spent the budget of the next day",
        run(running="0x60", info="1x60") | of_run("1.1x60", kg="20x60", period="day") | ENDED,
        True,
        {**OF_RUN, "period": "day"},
    ),
    over_midnight(
        "nor its project's",
        served_twice(run(running="0x60", info="1x60") | of_project("1.1x60", kg="20x60", period="day") | ENDED),
        True,
        {**OF_PROJECT, "period": "day"},
    ),
    over_midnight(
        "nor where no run_id tells its runs apart",
        {series("hf_training_budget_used_ratio", **{**OF_PROJECT, "period": "day"}): "1.1x60"} | measured("84480x60", run_id=""),
        True,
        {**OF_PROJECT, "period": "day"},
    ),
    over_midnight(
        "a run that is served no more has not spent the budget of the next day",
        run(running="1" + GONE, info="1" + GONE) | of_run("1.1" + GONE, kg="20" + GONE, period="day"),
        True,
        {**OF_RUN, "period": "day"},
    ),
    over_midnight(
        "nor has its project",
        run(running="1" + GONE, info="1" + GONE) | of_project("1.1" + GONE, kg="20" + GONE, period="day"),
        True,
        {**OF_PROJECT, "period": "day"},
    ),
    over_midnight(
        "a budget of the month, or for good, is spent on the next day as well",
        run(running="0x60", info="1x60")
        | of_project("1.1x60", kg="20x60")
        | ENDED
        | run("r2", running="1" + GONE, info="1" + GONE)
        | of_run("1.1" + GONE, kg="20" + GONE, run_id="r2"),
        False,
        OF_PROJECT,
        {**OF_RUN, "run_id": "r2"},
    ),
    # January 1970: the 31st ends after 31 days. The run was last measured on the 31st at 19:00.
    Case(
        "a month's budget is spent until the first of the next month, midnight UTC",
        {
            name: "_x11000 " + values
            for name, values in (
                run(running="0x300", info="1x300") | of_project("1.1x300", kg="20x300") | measured("2660400x300")
            ).items()
        },
        (Alerts("30d20h", "CarbonBudgetExceeded", (OF_PROJECT,)), Alerts("31d", "CarbonBudgetExceeded")),
        step="4m",
        evaluated="4h",
    ),
)

BURNING = (
    # A run of ten hours: after half of it five hours are to go. 0.3 of the budget an hour is three times the pace of a tenth.
    Case(
        "a run that spends three tenths of its budget in a tenth of its time spends it too fast",
        run() | of_run("0.1+0.005x140") | pace("18000x140", "0.5x140"),
        (
            Alerts("50m", "CarbonBudgetBurningFast"),
            Alerts(
                "1h30m",
                "CarbonBudgetBurningFast",
                (OF_RUN,),
                (CARBON_BUDGET_BURNING_FAST,),
            ),
        ),
        step="1m",
    ),
    Case(
        "1.5 times the pace is not too fast",
        run() | of_run("0.1+0.0025x140") | pace("18000x140", "0.5x140"),
        (Alerts("1h30m", "CarbonBudgetBurningFast"),),
        step="1m",
    ),
    Case(
        "what was burnt in the last hour but not in the last five minutes does not go on",
        run() | of_run("0.1+0.005x70 0.45x70") | pace("18000x140", "0.5x140"),
        (Alerts("1h8m", "CarbonBudgetBurningFast", (OF_RUN,)), Alerts("1h20m", "CarbonBudgetBurningFast")),
        step="1m",
    ),
    Case(
        "a run that is nearly done has enough left, however fast",
        run() | of_run("0.1+0.005x140") | pace("600x140", "0.98333333x140"),
        (Alerts("1h30m", "CarbonBudgetBurningFast"),),
        step="1m",
    ),
    Case(
        "a resumed run does not seem to have spent in this hour what it had spent before",
        run(info="1x5 stale _x70 1x30") | of_run("0.6x5 stale _x70 0.6+0.0001x30") | pace("18000x140", "0.5x140"),
        (Alerts("1h30m", "CarbonBudgetBurningFast"),),
        step="1m",
    ),
    Case(
        "a run that has ended burns nothing",
        run(running="1x90 0x40") | of_run("0.1+0.005x90 0.55x40") | pace("18000x90 stale", "0.5x130"),
        (Alerts("1h28m", "CarbonBudgetBurningFast", (OF_RUN,)), Alerts("1h32m", "CarbonBudgetBurningFast")),
        step="1m",
    ),
    Case(
        "a budget that is spent burns no more",
        run() | of_run("0.8+0.005x140") | pace("18000x140", "0.5x140"),
        (Alerts("1h30m", "CarbonBudgetBurningFast"),),
        step="1m",
    ),
    # promtool's time begins in January 1970, which has 31 days, so an hour's share of the month is 1/744 = 0.00134.
    Case(
        "a project that spends a month's budget at four times its pace, also when it is told of twice",
        served_twice(run() | run("r2") | of_project("0.1+0.0000896x140") | of_project("0.1+0.0000896x140", run_id="r2")),
        (Alerts("1h30m", "CarbonBudgetBurningFast", (OF_PROJECT,)),),
        step="1m",
    ),
    Case(
        "a month's budget that is spent at its pace",
        run() | of_project("0.1+0.0000224x140"),
        (Alerts("1h30m", "CarbonBudgetBurningFast"),),
        step="1m",
    ),
    Case(
        "a day's budget that is spent at three times its pace lasts until midnight only if enough of it is left",
        run(info="1x1400", running="1x1400") | of_run("0+0.00208333x1400", kg="20x1400", period="day"),
        (
            Alerts("1h30m", "CarbonBudgetBurningFast", ({**OF_RUN, "period": "day"},)),
            Alerts("8h20m", "CarbonBudgetBurningFast"),
        ),
        step="1m",
    ),
    Case(
        "a project's budget without an end has no pace",
        run() | of_project("0.1+0.005x140", period="none") | pace("18000x140", "0.5x140"),
        (Alerts("1h30m", "CarbonBudgetBurningFast"),),
        step="1m",
    ),
    Case(
        "a pace that is no number is none",
        run() | of_run(nan(140)) | pace(nan(140), "1x140"),
        (Alerts("1h30m", "CarbonBudgetBurningFast"),),
        step="1m",
    ),
)

CASES = (*BUDGET, *LATER, *MIDNIGHT, *BURNING)


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    rules = [recording_files()["hf-eco2ai-budgets.yml"], file_of("carbon", alerts)]
    return failures(CASES, rules, tmp_path_factory.mktemp("promtool"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_alerts_on_carbon_budgets(case: Case, failed: Mapping[str, str]) -> None:
    assert case.name not in failed, failed[case.name]


def test_every_alert_on_what_a_carbon_budget_has_left_is_seen_firing_and_silent() -> None:
    names = [name for name in alert_names(alerts) if name.startswith("CarbonBudget")]
    assert len(names) == 3
    assert uncovered(CASES, names) == []
