"""What is recorded per project, model and host: exact, once, and also of runs that have left."""

from collections.abc import Mapping

import pytest

from hf_eco2ai.stack.rules import recording_files
from tests.stack.labelled import budget, run, series, served_twice
from tests.stack.promtool import Case, Gives, failures, nan


def energy(values: str, run_id: str = "r1", project: str = "llama", model: str = "m1", host: str = "h1") -> dict[str, str]:
    labels = {"project_name": project, "model_name": model, "run_id": run_id, "host": host}
    return {series("hf_training_energy_kwh_total", **labels): values}


def co2(values: str, factor_type: str = "lifecycle", run_id: str = "r1") -> dict[str, str]:
    labels = {"project_name": "llama", "model_name": "m1", "run_id": run_id, "host": "h1", "factor_type": factor_type}
    return {series("hf_training_co2_kg_total", **labels): values}


def cost(values: str, currency: str = "EUR", run_id: str = "r1") -> dict[str, str]:
    return {series("hf_training_estimated_cost_usd", project_name="llama", run_id=run_id, host="h1", currency=currency): values}


def samples(values: str, run_id: str = "r1") -> dict[str, str]:
    return {series("hf_training_samples_total", project_name="llama", run_id=run_id): values}


def kilowatts(values: str, run_id: str = "r1", host: str = "h1") -> dict[str, str]:
    return {series("hf_training_energy_rate_kwh_per_hour", project_name="llama", run_id=run_id, host=host): values}


def looking(answered: str, job: str = "prometheus", **target: str) -> dict[str, str]:
    """Prometheus scrapes a target."""
    return {series("up", job=job, **target): answered}


def of_daemon(shown: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("{", '{job="hf-eco2ai", instance="a", '): values for name, values in shown.items()}


def of_itself(shown: Mapping[str, str]) -> dict[str, str]:
    """By the run's own endpoint."""
    return {name.replace("{", '{job="hf-eco2ai-runs", instance="b", '): values for name, values in shown.items()}


def recorded(level: str, window: str, metric: str = "hf_training_energy_kwh_total", **labels: str) -> str:
    return series(f"{level}:{metric}:increase{window}", **labels)


def gives(at: str, name: str, value: float | None = None) -> Gives:
    """One series of a recorded name, by its labels, and its value; without a value it is not there."""
    return Gives(at, name, {} if value is None else {name: value})


OF_LLAMA = recorded("project", "1h", project_name="llama")
OF_LLAMA_BY_DAY = recorded("project", "1d", project_name="llama")
OF_LLAMA_BY_MONTH = recorded("project", "30d", project_name="llama")

USED = "budget:hf_training_budget_used_ratio:max"

THREE_RUNS = (
    run("r1", info="1x120")
    | run("r2", model="m2", host="h2", info="1x120")
    | run("r3", project="bert", model="m2", host="h2", info="1x120")
)

WINDOWS = (
    Case(
        "a run that lives for a minute between two evaluations is counted with all that it used",
        of_daemon(run(info="_x17 1x3 stale", running="_x17 1x3 stale") | energy("_x17 0.5 0.75 0.875 1 stale"))
        | looking("1x300", "hf-eco2ai", instance="a"),
        (gives("4m", OF_LLAMA), gives("8m", OF_LLAMA, 1), gives("1h4m", OF_LLAMA, 1), gives("1h8m", OF_LLAMA, 0)),
        evaluated="4m",
    ),
    Case(
        "so is one that is seen in a single scrape, of its own endpoint",
        of_itself(run(info="_x17 1 stale", running="_x17 1 stale") | energy("_x17 0.0125 stale"))
        | looking("_x17 1 stale", "hf-eco2ai-runs", instance="b")
        | looking("1x300"),
        (gives("4m", OF_LLAMA), gives("8m", OF_LLAMA, 0.0125), gives("1h8m", OF_LLAMA, 0)),
        evaluated="4m",
    ),
    Case(
        "a Prometheus that starts invents nothing: what a run has used before counts in no window",
        of_itself(run(info="1x1600") | energy("500x120 500+0.25x1480"))
        | looking("1x1600", "hf-eco2ai-runs", instance="b")
        | looking("1x1600"),
        (
            gives("4m", OF_LLAMA, 0),
            gives("28m", OF_LLAMA, 0),
            gives("40m", OF_LLAMA, 9.75),
            gives("40m", OF_LLAMA_BY_DAY, 9.75),
            gives("40m", OF_LLAMA_BY_MONTH, 9.75),
            gives("4h", OF_LLAMA, 60),
        ),
        evaluated="4m",
    ),
    Case(
        "nor does one that meets a daemon for the first time, or again after two hours",
        of_daemon(
            run(info="_x40 1x400")
            | energy("_x40 500x400")
            | run("r2", project="bert", info="_x40 1x100 _x480 1x200")
            | energy("_x40 500x100 _x480 500x200", "r2", "bert")
        )
        | looking("0x40 1x800", "hf-eco2ai", instance="a")
        | looking("1x840"),
        (
            gives("20m", OF_LLAMA, 0),
            gives("1h", OF_LLAMA, 0),
            gives("2h40m", recorded("project", "1h", project_name="bert"), 0),
            gives("2h40m", recorded("project", "1d", project_name="bert"), 0),
        ),
        evaluated="4m",
    ),
    Case(
        "rules that come to a Prometheus later find its old runs old, and its new ones new",
        # Nothing is recorded before the first evaluation, 40 minutes later.
        of_daemon(run() | energy("500x400") | run("r2", project="bert", info="_x80 1x400") | energy("_x80 2x400", "r2", "bert"))
        | looking("1x400", "hf-eco2ai", instance="a"),
        (gives("40m", OF_LLAMA, 0), gives("40m", recorded("project", "1h", project_name="bert"), 2)),
        evaluated="40m",
    ),
    Case(
        "a long run counts in each window what it used in it",
        # A kWh every 4 minutes, for 30 hours.
        run(info="1x450") | energy("0+1x450"),
        (
            gives("32m", OF_LLAMA, 8),
            gives("20h", OF_LLAMA, 15),
            gives("20h", OF_LLAMA_BY_DAY, 300),
            gives("28h", OF_LLAMA_BY_DAY, 360),
        ),
        step="4m",
    ),
    Case(
        "runs add up by project, by model and by host",
        THREE_RUNS
        | energy("0+1x120")
        | energy("0+2x120", "r2", "llama", "m2", "h2")
        | energy("0+4x120", "r3", "bert", "m2", "h2"),
        (
            Gives(
                "4h",
                "project:hf_training_energy_kwh_total:increase1h",
                {OF_LLAMA: 45, recorded("project", "1h", project_name="bert"): 60},
            ),
            Gives(
                "4h",
                "model:hf_training_energy_kwh_total:increase1h",
                {recorded("model", "1h", model_name="m1"): 15, recorded("model", "1h", model_name="m2"): 90},
            ),
            Gives(
                "4h",
                "host:hf_training_energy_kwh_total:increase1h",
                {recorded("host", "1h", host="h1"): 15, recorded("host", "1h", host="h2"): 90},
            ),
        ),
        step="4m",
    ),
    Case(
        "a run that is served twice counts once, for its project",
        served_twice(run(info="1x60") | energy("0+1x60") | energy("0+1x60", host="h2")),
        (
            Gives("3h", "project:hf_training_energy_kwh_total:increase1h", {OF_LLAMA: 30}),
            Gives(
                "3h",
                "run:hf_training_energy_kwh_total:last",
                {
                    series("run:hf_training_energy_kwh_total:last", run_id="r1", host="h1"): 45,
                    series("run:hf_training_energy_kwh_total:last", run_id="r1", host="h2"): 45,
                },
            ),
        ),
        step="4m",
    ),
    Case(
        "a run that is resumed after three hours counts only what it has used since",
        run(info="1x15 stale _x45 1x30") | energy("0+1x15 stale _x45 15+1x30"),
        (gives("3h", OF_LLAMA), gives("4h32m", OF_LLAMA, 6), gives("4h32m", OF_LLAMA_BY_DAY, 21)),
        step="4m",
    ),
    Case(
        "a run that is resumed with another project and on another host counts once, for the project that it has now",
        run(info="1x15 stale", running="1x15 stale")
        | energy("0+1x15 stale")
        | run(project="bert", host="h2", info="_x20 1x30")
        | energy("_x20 15x30", project="bert")
        | energy("_x20 0+1x30", project="bert", host="h2"),
        (gives("2h", OF_LLAMA_BY_DAY), gives("2h", recorded("project", "1d", project_name="bert"), 25)),
        step="4m",
    ),
    Case(
        "a run that has ended and left counts in its day and in its month",
        run(info="1x2 stale", running="1x2 stale") | energy("0 5 8 stale"),
        (
            gives("20h", OF_LLAMA_BY_DAY, 8),
            gives("2d", OF_LLAMA_BY_DAY),
            gives("29d", OF_LLAMA_BY_MONTH, 8),
            gives("31d", OF_LLAMA_BY_MONTH),
        ),
        step="4h",
    ),
    Case(
        "a month counts what a run that began before it has used in it",
        # A kWh every day, for 45 days.
        run(info="1x45") | energy("0+1x45"),
        (gives("40d", OF_LLAMA_BY_MONTH, 30), gives("40d", OF_LLAMA_BY_DAY, 1)),
        step="1d",
    ),
    Case(
        "kinds of grid factor and currencies are kept apart",
        run(info="1x60") | co2("0+1x60") | co2("0+2x60", "direct") | cost("0+4x60") | cost("0+8x60", "USD"),
        (
            Gives(
                "3h",
                "project:hf_training_co2_kg_total:increase1h",
                {
                    recorded("project", "1h", "hf_training_co2_kg_total", project_name="llama", factor_type="lifecycle"): 15,
                    recorded("project", "1h", "hf_training_co2_kg_total", project_name="llama", factor_type="direct"): 30,
                },
            ),
            Gives(
                "3h",
                "model:hf_training_estimated_cost_usd:increase1h",
                {
                    recorded("model", "1h", "hf_training_estimated_cost_usd", model_name="m1", currency="EUR"): 60,
                    recorded("model", "1h", "hf_training_estimated_cost_usd", model_name="m1", currency="USD"): 120,
                },
            ),
        ),
        step="4m",
    ),
    Case(
        "a total that is no number takes nothing from the others",
        run(info="1x30") | run("r2", info="1x30") | energy("0+1x30") | energy(nan(31), "r2"),
        (gives("1h32m", OF_LLAMA, 15),),
        step="4m",
    ),
    Case(
        "runs that no label tells apart count for their project and model",
        {
            series("hf_training_run_info", project_name="llama", model_name="m1", host="h1"): "1x60",
            series("hf_training_run_info", project_name="bert", model_name="m2", host="h1"): "1x60",
            series("hf_training_energy_kwh_total", project_name="llama", model_name="m1", host="h1"): "0+1x60",
            series("hf_training_energy_kwh_total", project_name="bert", model_name="m2", host="h1"): "0+2x60",
            series("hf_training_estimated_cost_usd", project_name="bert", host="h1", currency="EUR"): "0+4x60",
        },
        (
            gives("3h", OF_LLAMA, 15),
            gives("3h", recorded("model", "1h", model_name="m2"), 30),
            gives("3h", recorded("project", "1h", "hf_training_estimated_cost_usd", project_name="bert", currency="EUR"), 60),
        ),
        step="4m",
    ),
)

EFFICIENCY = (
    Case(
        "samples per kWh are those of runs that train, not of a measured command beside them",
        # 100 samples for 0.5 kWh; the command uses 4 kWh for none.
        served_twice(
            run(info="1x60")
            | run("r2", info="1x60")
            | samples("0+100x60")
            | samples("0x60", "r2")
            | energy("0+0.5x60")
            | energy("0+4x60", "r2")
        ),
        (
            gives("3h", series("project:hf_training_samples_per_kwh:ratio1h", project_name="llama"), 200),
            gives("3h", series("model:hf_training_samples_per_kwh:ratio1d", model_name="m1"), 200),
        ),
        step="4m",
    ),
    Case(
        "a project that has used nothing in the window has no samples per kWh",
        run(info="1x60") | samples("100x60") | energy("5x60"),
        (gives("3h", series("project:hf_training_samples_per_kwh:ratio1h", project_name="llama")),),
        step="4m",
    ),
)

NOW = (
    Case(
        "the power of a project is that of its runs on all their hosts, once",
        served_twice(run() | run("r2") | kilowatts("1.5x8") | kilowatts("2x8", host="h2") | kilowatts("4x8", "r2")),
        (
            gives("2m", series("project:hf_training_energy_rate_kwh_per_hour:sum", project_name="llama"), 7.5),
            gives("2m", series("host:hf_training_energy_rate_kwh_per_hour:sum", host="h1"), 5.5),
            gives("2m", series("project:hf_training_running:sum", project_name="llama"), 2),
        ),
    ),
    Case(
        "a run that has left draws nothing",
        run(info="1x8 stale", running="1x8 stale") | kilowatts("1.5x8 stale"),
        (gives("3m", series("project:hf_training_energy_rate_kwh_per_hour:sum", project_name="llama")),),
    ),
    Case(
        "a budget of a project is one, and one of a run has its names",
        served_twice(
            run()
            | run("r2")
            | budget("0.5x8")
            | budget("0.25x8", scope="project", period="day", kind="cost")
            | budget("0.25x8", "r2", scope="project", period="day", kind="cost")
        ),
        (
            Gives(
                "2m",
                USED,
                {
                    series(
                        USED, budget="carbon", scope="run", period="none", project_name="llama", model_name="m1", run_id="r1"
                    ): 0.5,
                    series(USED, budget="cost", scope="project", period="day", project_name="llama"): 0.25,
                },
            ),
        ),
    ),
)

CASES = (*WINDOWS, *EFFICIENCY, *NOW)


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    return failures(CASES, recording_files().values(), tmp_path_factory.mktemp("promtool"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_recording_rules(case: Case, failed: Mapping[str, str]) -> None:
    assert case.name not in failed, failed[case.name]
