"""Alerts on power, on what is got for it, and on energy budgets: when they stand, when they do not, and what they say."""

from collections.abc import Mapping

import pytest

from hf_eco2ai.stack.alerts.energy import alerts
from hf_eco2ai.stack.rules import recording_files
from tests.stack.committed import alert_names, file_of
from tests.stack.labelled import budget, measured, run, series, served_twice
from tests.stack.promtool import Alerts, Case, failures, nan, uncovered

RUN = {"project_name": "llama", "run_id": "r1"}
NAMED = {**RUN, "model_name": "m1"}
ON_H1 = {**NAMED, "host": "h1"}
OF_RUN = {**NAMED, "budget": "energy", "scope": "run", "period": "none"}
OF_PROJECT = {"project_name": "llama", "budget": "energy", "scope": "project", "period": "month"}
GPU_1 = {"host": "h1", "gpu_id": "1"}

VARIABLES = "?&var-project=llama&var-model=m1&var-run=r1"
OPERATIONS = "http://localhost:3000/d/hf-operations" + VARIABLES + "&var-host=h1"
OVERVIEW = "http://localhost:3000/d/hf-executive-overview"
DETAIL = "http://localhost:3000/d/hf-run-detail" + VARIABLES
BOOK = "https://github.com/terragonlabs/hf-eco2ai-plugin/blob/main/docs/runbooks/"


def kilowatts(values: str, host: str = "h1") -> dict[str, str]:
    return {series("hf_training_energy_rate_kwh_per_hour", **RUN, host=host): values}


def gpu(values: str, gpu_id: str = "1", host: str = "h1") -> dict[str, str]:
    return {series("hf_training_gpu_utilization_percent", gpu_id=gpu_id, gpu_model="H100", host=host): values}


def gpus(run_id: str = "r1", host: str = "h1", count: str = "2x200") -> dict[str, str]:
    return {series("hf_training_gpu_count", run_id=run_id, host=host): count}


def trained(samples: str, joules: str, host: str = "h1") -> dict[str, str]:
    return {
        series("hf_training_samples_total", **RUN): samples,
        series("hf_training_phase_energy_joules_total", run_id="r1", host=host, phase="train"): joules,
    }


def unknown_samples(run_id: str) -> dict[str, str]:
    return {
        series("hf_training_samples_total", project_name="llama", run_id=run_id): nan(160),
        series("hf_training_phase_energy_joules_total", run_id=run_id, host="h1", phase="train"): "0+100x160",
    }


def evaluated(joules: str) -> dict[str, str]:
    return {series("hf_training_phase_energy_joules_total", run_id="r1", host="h1", phase="evaluate"): joules}


def score(values: str, run_id: str = "r1") -> dict[str, str]:
    return {series("hf_training_efficiency_score", project_name="llama", run_id=run_id): values}


def used_kwh(values: str, host: str = "h1") -> dict[str, str]:
    return {series("hf_training_energy_kwh_total", **RUN, host=host): values}


HIGH_POWER = {
    "summary": "llama: run r1 draws 9000 W on h1",
    "description": "Over the last 10m the devices of the run on h1 drew 9000 W, more than 8000 W.",
    "action": "Make sure that the circuit and the cooling bear it; a power limit (nvidia-smi -pl) costs little speed.",
    "value": "9000 W",
    "limit": "8000 W",
    "dashboard_url": OPERATIONS,
    "runbook_url": BOOK + "HighPowerDraw.md",
}
IDLE = {
    "summary": "GPU 1 of h1 idles while run r1 is on",
    "description": "Over the last 15m GPU 1 of h1 was busy 2 % of the time, less than 10 %, but it draws power and is paid for.",
    "action": "Give the run only the GPUs that it uses (CUDA_VISIBLE_DEVICES), or see what it waits for: data, or other ranks.",
    "value": "2 % busy",
    "limit": "10 % busy",
    "dashboard_url": OPERATIONS,
    "runbook_url": BOOK + "GpuIdleWhileRunning.md",
}
REGRESSION = {
    "summary": "llama: run r1 trains 50% of the samples per kWh that it did",
    "description": "In the last 15m its training steps got 50% of the samples from a kWh that they got before, "
    "less than 0.7 of it.",
    "action": "Look for what changed: a hot GPU, a data loader that lags, longer sequences, a neighbour on the machine.",
    "value": "50% of its own past",
    "limit": "0.7 of its own past",
    "dashboard_url": DETAIL,
    "runbook_url": BOOK + "EnergyEfficiencyRegression.md",
}
LOW = {
    "summary": "llama: run r1 has an efficiency score of 0.20",
    "description": "For 30m its efficiency score, the share of its energy that training steps used times the mean use of its "
    "GPUs, was below 0.3; it is 0.20.",
    "action": "See which phase uses the energy and how busy the GPUs are; a larger batch or more loader workers often help.",
    "value": "score 0.20",
    "limit": "score 0.3",
    "dashboard_url": DETAIL,
    "runbook_url": BOOK + "LowEfficiency.md",
}
NEARLY_SPENT = {
    "summary": "85% of the energy budget of project llama for this month (UTC) is spent",
    "description": "85% of the budget are spent.",
    "action": "See in the forecast whether the rest is enough; if not, stop early, train less, or agree on a larger budget.",
    "value": "85% of the budget",
    "limit": "100% of the energy budget",
    "dashboard_url": OVERVIEW + "?&var-project=llama",
    "runbook_url": BOOK + "EnergyBudgetNearlySpent.md",
}
EXCEEDED = {
    "summary": "The energy budget of run r1 (llama) is spent: 110%",
    "description": "110% of the budget are spent: 44 kWh.",
    "action": "Stop the training now (budget_action='stop' does it by itself), or agree on a larger budget.",
    "value": "110% of the budget: 44 kWh",
    "limit": "100% of the energy budget",
    "dashboard_url": OVERVIEW + VARIABLES,
    "runbook_url": BOOK + "EnergyBudgetExceeded.md",
}

POWER = (
    Case(
        "a run that draws 9 kW on one host for ten minutes draws much",
        run() | kilowatts("9x80") | kilowatts("4x80", host="h2"),
        (Alerts("9m30s", "HighPowerDraw"), Alerts("12m", "HighPowerDraw", (ON_H1,), (HIGH_POWER,))),
    ),
    Case(
        "what two hosts draw is drawn from two sockets",
        run() | kilowatts("5x80") | kilowatts("5x80", host="h2"),
        (Alerts("12m", "HighPowerDraw"),),
    ),
    Case("a run that is served twice draws once", served_twice(run() | kilowatts("5x80")), (Alerts("12m", "HighPowerDraw"),)),
    Case(
        "a run that is served twice is one alert",
        served_twice(run() | kilowatts("9x80")),
        (Alerts("12m", "HighPowerDraw", (ON_H1,)),),
    ),
    Case(
        "a run that has ended draws nothing",
        run(running="1x60 0x60") | kilowatts("9x120"),
        (Alerts("14m", "HighPowerDraw", (ON_H1,)), Alerts("16m", "HighPowerDraw")),
    ),
    Case(
        "of two runs of one project the one that draws much is named",
        run()
        | run("r2")
        | kilowatts("4x80")
        | {series("hf_training_energy_rate_kwh_per_hour", project_name="llama", run_id="r2", host="h1"): "9x80"},
        (Alerts("12m", "HighPowerDraw", ({**ON_H1, "run_id": "r2"},)),),
    ),
    Case(
        "a resumed run draws much again",
        run(running="1x60 0x20 1x80") | kilowatts("9x160"),
        (Alerts("16m", "HighPowerDraw"), Alerts("32m", "HighPowerDraw", (ON_H1,))),
    ),
    Case("a power that is no number is not high", run() | kilowatts(nan(80)), (Alerts("12m", "HighPowerDraw"),)),
)

IDLING = (
    Case(
        "of two GPUs of a run one does nothing",
        run() | gpus() | gpu("90x80", "0") | gpu("2x80"),
        (
            Alerts("14m30s", "GpuIdleWhileRunning"),
            Alerts("16m", "GpuIdleWhileRunning", ({**ON_H1, "gpu_id": "1"},), (IDLE,)),
        ),
    ),
    Case(
        "on a host with two runs it is not said whose GPU it is",
        run() | run("r2") | gpus() | gpus("r2") | gpu("2x80"),
        (Alerts("16m", "GpuIdleWhileRunning", (GPU_1,)),),
    ),
    Case(
        "a run on another host does not make it theirs",
        run() | run("r2", host="h2") | gpus() | gpus("r2", host="h2") | gpu("2x80") | gpu("90x80", host="h2"),
        (Alerts("16m", "GpuIdleWhileRunning", ({**ON_H1, "gpu_id": "1"},)),),
    ),
    Case(
        "a GPU of a run that is served twice is one alert",
        served_twice(run() | gpus() | gpu("2x80")),
        (Alerts("16m", "GpuIdleWhileRunning", ({**ON_H1, "gpu_id": "1"},)),),
    ),
    Case(
        "a GPU may idle when the run has ended",
        run(running="1x62 0x60") | gpus() | gpu("2x120"),
        (Alerts("15m15s", "GpuIdleWhileRunning", ({**ON_H1, "gpu_id": "1"},)), Alerts("17m", "GpuIdleWhileRunning")),
    ),
    Case(
        "an evaluation of some minutes is no idling", run() | gpus() | gpu("90x40 0x40"), (Alerts("19m", "GpuIdleWhileRunning"),)
    ),
    Case(
        "a GPU of a resumed run idles again",
        run(running="1x62 0x20 1x80") | gpus() | gpu("2x160"),
        (Alerts("17m", "GpuIdleWhileRunning"), Alerts("36m", "GpuIdleWhileRunning", ({**ON_H1, "gpu_id": "1"},))),
    ),
    Case("a use that is no number is no idling", run() | gpus() | gpu(nan(80)), (Alerts("16m", "GpuIdleWhileRunning"),)),
)

# 10 samples every 15 s for 100 J each are ten joules a sample; then 5 samples for the same.
REGRESSING = (
    Case(
        "a run that trains half as much with the same energy as before regresses",
        run() | trained("0+10x79 800+5x80", "0+100x160"),
        (Alerts("19m", "EnergyEfficiencyRegression"), Alerts("35m", "EnergyEfficiencyRegression", (NAMED,), (REGRESSION,))),
    ),
    Case(
        "a run that is always the same", run() | trained("0+10x160", "0+100x160"), (Alerts("35m", "EnergyEfficiencyRegression"),)
    ),
    Case(
        "a long evaluation is no regression",
        run() | trained("0+10x79 800x80", "0+100x79 8000x80") | evaluated("0x79 0+1000x80"),
        (Alerts("36m", "EnergyEfficiencyRegression"),),
    ),
    Case(
        "a resumed run is held against its own past, not against a sudden total",
        run(info="1x40 stale _x40 1x100") | trained("0+10x40 stale _x40 400+10x100", "0+100x40 stale _x40 4000+100x100"),
        (Alerts("21m", "EnergyEfficiencyRegression"), Alerts("40m", "EnergyEfficiencyRegression")),
    ),
    Case(
        "a host that is seen for the first time has not used its total in the last minutes",
        run() | trained("0+10x160", "0+100x160") | trained("0+10x160", "_x100 90000+100x60", host="h2"),
        (Alerts("30m", "EnergyEfficiencyRegression"),),
    ),
    Case(
        "a run that is served twice regresses once",
        served_twice(run() | trained("0+10x79 800+5x80", "0+100x160")),
        (Alerts("35m", "EnergyEfficiencyRegression", (NAMED,)),),
    ),
    Case(
        "a run that has ended regresses no more",
        run(running="1x142 0x40") | trained("0+10x79 800+5x80", "0+100x160"),
        (Alerts("35m30s", "EnergyEfficiencyRegression", (NAMED,)), Alerts("36m30s", "EnergyEfficiencyRegression")),
    ),
    Case(
        "a measured command without samples has no efficiency, and no number is none",
        run() | trained("0x160", "0+100x160") | run("r2") | unknown_samples("r2"),
        (Alerts("35m", "EnergyEfficiencyRegression"),),
    ),
)

INEFFICIENT = (
    Case(
        "a run that scores low for half an hour",
        run() | score("0.2x160"),
        (Alerts("29m", "LowEfficiency"), Alerts("32m", "LowEfficiency", (NAMED,), (LOW,))),
    ),
    Case(
        "of two runs of a project one is low",
        run() | run("r2") | score("0.2x160") | score("0.5x160", "r2"),
        (Alerts("32m", "LowEfficiency", (NAMED,)),),
    ),
    Case(
        "a run that is served twice has one score",
        served_twice(run() | score("0.2x160")),
        (Alerts("32m", "LowEfficiency", (NAMED,)),),
    ),
    Case(
        "a run that has ended can not do better",
        run(running="1x130 0x40") | score("0.2x170"),
        (Alerts("32m", "LowEfficiency", (NAMED,)), Alerts("34m", "LowEfficiency")),
    ),
    Case(
        "a resumed run begins anew to be low",
        run(running="1x80 stale _x20 1x150") | score("0.2x80 stale _x20 0.2x150"),
        (Alerts("35m", "LowEfficiency"), Alerts("58m", "LowEfficiency", (NAMED,))),
    ),
    Case("a score that is no number is not low", run() | score(nan(160)), (Alerts("32m", "LowEfficiency"),)),
)

BUDGETS = (
    Case(
        "from 80 % on a project's energy budget is nearly spent, and from 100 % on it is spent as well",
        run() | run("r2") | budget("0.79x3 0.85x15 1x40", kind="energy", scope="project", period="month") | used_kwh("9x60"),
        (
            Alerts("45s", "EnergyBudgetNearlySpent"),
            Alerts("4m", "EnergyBudgetNearlySpent", (OF_PROJECT,), (NEARLY_SPENT,)),
            Alerts("4m", "EnergyBudgetExceeded"),
            Alerts("6m", "EnergyBudgetNearlySpent", (OF_PROJECT,)),
            Alerts("6m", "EnergyBudgetExceeded", (OF_PROJECT,)),
        ),
    ),
    Case(
        "a run that has spent its energy budget says what it has used on all hosts, once",
        served_twice(run() | budget("1.1x40", kind="energy") | used_kwh("11x40") | used_kwh("33x40", host="h2")),
        (Alerts("5m", "EnergyBudgetExceeded", (OF_RUN,), (EXCEEDED,)), Alerts("5m", "EnergyBudgetNearlySpent", (OF_RUN,))),
    ),
    Case(
        "the alert on energy of a run whose endpoint has gone goes on for an hour",
        run(running="1x8 stale", info="1x8 stale") | budget("1.1x8 stale", kind="energy"),
        (Alerts("1h", "EnergyBudgetExceeded", (OF_RUN,)), Alerts("1h5m", "EnergyBudgetExceeded")),
    ),
    Case(
        "an energy budget that begins anew with another run's month is spent no more",
        run(running="1x8 0x60")
        | budget("1.2x60", kind="energy", scope="project", period="month")
        | measured("0+15x8 120x60")
        | run("r2", info="_x20 1x60")
        | budget("_x20 0.01x60", "r2", kind="energy", scope="project", period="month")
        | measured("_x20 315+15x60", "r2"),
        (Alerts("4m", "EnergyBudgetExceeded", (OF_PROJECT,)), Alerts("10m", "EnergyBudgetExceeded")),
    ),
    Case(
        "a resumed run with a raised budget of energy has not spent it",
        run(info="1x8 stale _x20 1x40") | budget("1.1x8 stale _x20 0.5x40", kind="energy"),
        (
            Alerts("6m", "EnergyBudgetExceeded", (OF_RUN,)),
            Alerts("6m", "EnergyBudgetNearlySpent", (OF_RUN,)),
            Alerts("10m", "EnergyBudgetExceeded"),
            Alerts("10m", "EnergyBudgetNearlySpent"),
        ),
    ),
    Case(
        "budgets of carbon and money, and shares that are no number, are no spent energy",
        run() | run("r2") | budget("2x40") | budget("2x40", kind="cost") | budget(nan(40), "r2", kind="energy"),
        (Alerts("5m", "EnergyBudgetExceeded"), Alerts("5m", "EnergyBudgetNearlySpent")),
    ),
)

CASES = (*POWER, *IDLING, *REGRESSING, *INEFFICIENT, *BUDGETS)


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    rules = [recording_files()["hf-eco2ai-budgets.yml"], file_of("energy", alerts)]
    return failures(CASES, rules, tmp_path_factory.mktemp("promtool"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_alerts_on_energy(case: Case, failed: Mapping[str, str]) -> None:
    assert case.name not in failed, failed[case.name]


def test_every_alert_on_energy_is_seen_firing_and_silent() -> None:
    assert uncovered(CASES, alert_names(alerts)) == []
