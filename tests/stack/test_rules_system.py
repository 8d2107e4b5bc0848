"""Alerts on the monitoring itself: when they stand, when they do not, and what they say."""

from collections.abc import Mapping

import pytest

from hf_eco2ai.footprint.table import Table
from hf_eco2ai.stack.alerts.system import alerts
from tests.stack.committed import THRESHOLDS, alert_names, file_of
from tests.stack.labelled import run, series, served_twice
from tests.stack.promtool import Alerts, Case, failures, nan, seconds, uncovered

R1 = {"project_name": "llama", "model_name": "m1", "run_id": "r1"}
R2 = {**R1, "run_id": "r2"}
ON_H1 = {**R1, "host": "h1"}
DAEMON = {"job": "hf-eco2ai", "instance": "node-1:9091"}
QUALITY = "http://localhost:3000/d/hf-data-quality"
OF_RUN = "?&var-project=llama&var-model=m1&var-run=r1"
BOOK = "https://github.com/terragonlabs/hf-eco2ai-plugin/blob/main/docs/runbooks/"


def updated(values: str, run_id: str = "r1", host: str = "h1", **target: str) -> dict[str, str]:
    return {series("hf_training_last_update_timestamp", run_id=run_id, host=host, **target): values}


def served(shown: Mapping[str, str], answered: str) -> dict[str, str]:
    """By the daemon, which Prometheus scrapes."""
    return {name.replace("{", '{job="hf-eco2ai", instance="node-1:9091", '): values for name, values in shown.items()} | {
        series("up", **DAEMON): answered
    }


def errors(values: str, error_type: str = "journal_failed", run_id: str = "r1", host: str = "h1") -> dict[str, str]:
    return {series("hf_training_monitoring_errors_total", error_type=error_type, host=host, run_id=run_id): values}


def observed(values: str, run_id: str = "r1", host: str = "h1") -> dict[str, str]:
    return {series("hf_training_observed_ratio", host=host, run_id=run_id): values}


def state(values: str, name: str = "lost", run_id: str = "r1", **target: str) -> dict[str, str]:
    return {series("hf_training_run_state", **target, run_id=run_id, state=name): values}


def placed(country: str, run_id: str = "r1", project: str = "llama", running: str = "1x200") -> dict[str, str]:
    own = {"project_name": project, "run_id": run_id}
    return {
        series("hf_training_run_info", **own, model_name="m1", host="h1", country=country): "1x200",
        series("hf_training_running", **own): running,
    }


def samples(values: str, job: str, instance: str) -> dict[str, str]:
    return {series("scrape_samples_post_metric_relabeling", job=job, instance=instance): values}


DOWN = (
    Case(
        "a daemon that does not answer for two minutes is down",
        {series("up", **DAEMON): "1x4 0x40", series("up", job="hf-eco2ai", instance="node-2:9091"): "1x40"},
        (
            Alerts("3m", "ExporterDown"),
            Alerts(
                "3m15s",
                "ExporterDown",
                (DAEMON,),
                (
                    {
                        "summary": "The exporter node-1:9091 does not answer",
                        "description": "Prometheus has had no usable answer from it for 2m. Nothing is seen of its runs, "
                        "and alerts on them are silent. Trainings go on.",
                        "action": "Read its log (journalctl -u hf-eco2ai, docker compose logs exporter) and start it; "
                        "no figure is lost.",
                        "value": "no answer",
                        "dashboard_url": QUALITY,
                        "runbook_url": BOOK + "ExporterDown.md",
                    },
                ),
            ),
        ),
    ),
    Case("a restart is no outage", {series("up", **DAEMON): "1x8 0x4 1x40"}, (Alerts("4m15s", "ExporterDown"),)),
    Case(
        "the endpoint of a run goes with the run, also where a killed one leaves its target behind",
        {series("up", job="hf-eco2ai-runs", instance="127.0.0.1:9092"): "1x4 0x100"},
        (Alerts("20m", "ExporterDown"),),
    ),
    Case(
        "a target that nobody names any more is not down",
        {series("up", **DAEMON): "1x8 stale"},
        (Alerts("10m", "ExporterDown"),),
    ),
)

STALE = (
    Case(
        "a run that lives and was last measured over two minutes ago shows the past",
        run() | updated("0+15x8 120x60"),
        (
            Alerts("5m", "MetricsStale"),
            Alerts(
                "5m15s",
                "MetricsStale",
                (R1,),
                (
                    {
                        "summary": "Figures of run r1 (llama) are 195 s old",
                        "description": "The run is said to live, but was last measured 195 s ago, more than 120 s. "
                        "What is shown is of then.",
                        "action": "See whether its process is stopped, a driver call hangs, the disk of the runs folder is full, "
                        "or clocks differ.",
                        "value": "195 s old",
                        "limit": "120 s",
                        "dashboard_url": QUALITY + OF_RUN,
                        "runbook_url": BOOK + "MetricsStale.md",
                    },
                ),
            ),
        ),
    ),
    Case("a run that is measured is not stale", run() | updated("0+15x80"), (Alerts("15m", "MetricsStale"),)),
    Case(
        "a run that has ended is as old as its end",
        run(running="1x8 0x80") | updated("0+15x8 120x80"),
        (Alerts("20m", "MetricsStale"),),
    ),
    Case(
        "a host that a run has left is as old as that",
        run() | updated("0+15x8 120x72", host="h2") | updated("0+15x80"),
        (Alerts("20m", "MetricsStale"),),
    ),
    Case(
        "a run that writes again is told of for five minutes more",
        run() | updated("0+15x8 120x22 480+15x80"),
        (Alerts("7m", "MetricsStale", (R1,)), Alerts("10m", "MetricsStale", (R1,)), Alerts("14m", "MetricsStale")),
    ),
    Case(
        "it is told of still when its exporter is down, which is said by then, of the same target",
        {
            name: values + " stale"
            for name, values in (run(running="1x25", info="1x25") | updated("0+15x8 120x16", **DAEMON)).items()
        }
        | {series("up", **DAEMON): "1x25 0x40"},
        (
            Alerts("6m15s", "MetricsStale", ({**R1, **DAEMON},)),
            Alerts("9m", "MetricsStale", ({**R1, **DAEMON},)),
            Alerts("9m", "ExporterDown", (DAEMON,)),
            Alerts("14m", "MetricsStale"),
        ),
    ),
    Case(
        "a daemon that does not read its folder any more shows the past of all runs",
        {series("hf_exporter_last_look_timestamp_seconds", **DAEMON): "0+15x8 120x60"},
        (
            Alerts(
                "6m",
                "MetricsStale",
                (DAEMON,),
                (
                    {
                        "summary": "Figures of the daemon at node-1:9091 are 240 s old",
                        "description": "The daemon answers, but last read its runs folder 240 s ago, more than 120 s. "
                        "What is shown is of then.",
                        "action": "See whether its process is stopped, a driver call hangs, the disk of the runs folder is full, "
                        "or clocks differ.",
                        "value": "240 s old",
                        "limit": "120 s",
                        "dashboard_url": QUALITY + "?",
                        "runbook_url": BOOK + "MetricsStale.md",
                    },
                ),
            ),
        ),
    ),
    Case(
        "of two runs of one project the one that is not measured is stale",
        run() | run("r2") | updated("0+15x80") | updated("0x80", "r2"),
        (Alerts("10m", "MetricsStale", (R2,)),),
    ),
    Case(
        "a resumed run is measured again",
        run(running="1x8 0x40 1x80") | updated("0+15x8 120x40 735+15x80"),
        (Alerts("12m30s", "MetricsStale"), Alerts("20m", "MetricsStale")),
    ),
    Case(
        "a run that is served twice is stale once, and not while one of the two is fresh",
        served_twice(run() | run("r2") | updated("0x80"))
        | {
            series("hf_training_last_update_timestamp", job="hf-eco2ai", run_id="r2", host="h1"): "0x80",
            series("hf_training_last_update_timestamp", job="hf-eco2ai-runs", run_id="r2", host="h1"): "0+15x80",
        },
        (Alerts("10m", "MetricsStale", ({**R1, "job": "hf-eco2ai", "instance": "h1:9092"},)),),
    ),
    Case(
        "a run that two daemons serve is stale once",
        run() | updated("0x80", **DAEMON) | updated("0x80", **{**DAEMON, "instance": "node-2:9091"}),
        (Alerts("10m", "MetricsStale", ({**R1, **DAEMON},)),),
    ),
    Case("a time that is no number is no age", run() | updated(nan(80)), (Alerts("10m", "MetricsStale"),)),
)

ERRORS = (
    Case(
        "five errors of a type within ten minutes are told of, and forgotten ten minutes later",
        run() | errors("2x40 3 4 5 6 7x100"),
        (
            Alerts("11m", "MonitoringErrors"),
            Alerts(
                "11m15s",
                "MonitoringErrors",
                ({**ON_H1, "error_type": "journal_failed"},),
                (
                    {
                        "summary": "5 monitoring errors of run r1 (llama): journal_failed",
                        "description": "In the last 10m run r1 (llama) on h1 had 5 errors of the type journal_failed. "
                        "Figures may be incomplete; the training goes on.",
                        "action": "Read the first such line in its log, which says what to do, and what the type means "
                        "in the runbook.",
                        "value": "5 journal_failed",
                        "limit": "5 in 10m",
                        "dashboard_url": QUALITY + OF_RUN + "&var-host=h1",
                        "runbook_url": BOOK + "MonitoringErrors.md",
                    },
                ),
            ),
            Alerts("21m30s", "MonitoringErrors"),
        ),
    ),
    Case("four are not", run() | errors("0x40 1 2 3 4x100"), (Alerts("12m", "MonitoringErrors"),)),
    Case(
        "those that came before the first scrape count",
        served(run(running="_x20 1x40", info="_x20 1x40") | errors("_x20 6x40"), "1x60"),
        (Alerts("5m15s", "MonitoringErrors", ({**ON_H1, "error_type": "journal_failed"},)),),
    ),
    Case(
        "those that came before Prometheus started do not, whoever counts them",
        served(run() | errors("7x100") | {series("hf_exporter_failures_total", error_type="journal_refused"): "7x100"}, "1x100"),
        (Alerts("15s", "MonitoringErrors"), Alerts("5m", "MonitoringErrors"), Alerts("15m", "MonitoringErrors")),
    ),
    Case(
        "five that come after it started do",
        served(run() | errors("7x8 12x92"), "1x100"),
        (Alerts("2m15s", "MonitoringErrors", ({**ON_H1, "error_type": "journal_failed"},)),),
    ),
    Case(
        "a run that comes back with another counter counts what that one has",
        served(run() | errors("90x60 stale _x20 6x60"), "1x200"),
        (Alerts("20m30s", "MonitoringErrors", ({**ON_H1, "error_type": "journal_failed"},)),),
    ),
    Case(
        "errors of different types, hosts and runs do not add up",
        run()
        | run("r2")
        | errors("0x40 3x40")
        | errors("0x40 3x40", "gap")
        | errors("0x40 3x40", host="h2")
        | errors("0x40 3x40", run_id="r2"),
        (Alerts("12m", "MonitoringErrors"),),
    ),
    Case(
        "many errors of long ago are none when a resumed run counts anew",
        run() | errors("90x60 0x10 4x60"),
        (Alerts("16m", "MonitoringErrors"), Alerts("20m", "MonitoringErrors"), Alerts("30m", "MonitoringErrors")),
    ),
    Case(
        "nor when Prometheus has not looked for a while",
        run() | errors("90x60 _x60 90x60"),
        (Alerts("30m15s", "MonitoringErrors"), Alerts("35m", "MonitoringErrors")),
    ),
    Case(
        "a lost GPU has an alert of its own",
        run() | errors("0+15x40", "device_lost"),
        (Alerts("5m", "MonitoringErrors"),),
    ),
    Case(
        "a run that has ended makes no more",
        run(running="1x20 0x40") | errors("0x10 9x60"),
        (Alerts("5m", "MonitoringErrors", ({**ON_H1, "error_type": "journal_failed"},)), Alerts("6m", "MonitoringErrors")),
    ),
    Case(
        "a run that is served twice makes them once",
        served_twice(run() | errors("0x8 4x40") | errors("0x8 5x40", "gap")),
        (Alerts("5m", "MonitoringErrors", ({**ON_H1, "error_type": "gap"},)),),
    ),
    Case(
        "a daemon's own failures are told of too, the first of a type included",
        served({series("hf_exporter_failures_total", error_type="journal_refused"): "_x8 5x40"}, "1x48"),
        (
            Alerts("1m45s", "MonitoringErrors"),
            Alerts(
                "3m",
                "MonitoringErrors",
                ({**DAEMON, "error_type": "journal_refused"},),
                (
                    {
                        "summary": "5 monitoring errors of the daemon at node-1:9091: journal_refused",
                        "description": "In the last 10m the daemon at node-1:9091 had 5 errors of the type journal_refused. "
                        "Figures may be incomplete; the training goes on.",
                        "action": "Read the first such line in its log, which says what to do, and what the type means "
                        "in the runbook.",
                        "value": "5 journal_refused",
                        "limit": "5 in 10m",
                        "dashboard_url": QUALITY + "?",
                        "runbook_url": BOOK + "MonitoringErrors.md",
                    },
                ),
            ),
        ),
    ),
    Case("a counter that is no number has counted nothing", run() | errors(nan(80)), (Alerts("15m", "MonitoringErrors"),)),
)

AGE = "hf_training_grid_carbon_intensity_age_seconds"
FACTOR = (
    Case(
        "a live grid factor that is older than two hours is stale",
        {series(AGE, country="DE", region=""): "7185+15x200", series(AGE, country="US", region="CA"): "600x200"},
        (
            Alerts("10m15s", "GridFactorStale"),
            Alerts(
                "12m30s",
                "GridFactorStale",
                ({"country": "DE"},),
                (
                    {
                        "summary": "The grid factor of DE is 2h 12m 15s old",
                        "description": "CO₂e is computed with a live factor from 2h 12m 15s ago, more than 7200 s. "
                        "Energy is not touched by that.",
                        "action": "See whether its provider answers (hf_training_network_latency_ms, the run's log), "
                        "and your key is valid.",
                        "value": "2h 12m 15s",
                        "limit": "7200 s",
                        "dashboard_url": QUALITY,
                        "runbook_url": BOOK + "GridFactorStale.md",
                    },
                ),
            ),
        ),
    ),
    Case(
        "one that is fetched every hour is not",
        {series(AGE, country="DE", region=""): "0+15x239 0+15x239"},
        (Alerts("1h", "GridFactorStale"), Alerts("1h45m", "GridFactorStale")),
    ),
    Case(
        "two runs with one factor, each served twice, are one alert",
        served_twice({series(AGE, country="US", region="CA"): "9000x200"}),
        (Alerts("15m", "GridFactorStale", ({"country": "US", "region": "CA"},)),),
    ),
    Case(
        "runs of a project that do not know where they are are told of once",
        placed("WORLD") | placed("WORLD", "r2") | placed("DE", "r3") | placed("DE", "r4", "bert"),
        (
            Alerts("9m45s", "GridFactorAssumed"),
            Alerts(
                "10m",
                "GridFactorAssumed",
                ({"project_name": "llama"},),
                (
                    {
                        "summary": "llama computes CO₂e with the world's average",
                        "description": "Its live runs that do not know where they are: 2. "
                        "The true factor may be a tenth or double of that.",
                        "action": "Set country, as CarbonConfig(country='DE') or HF_ECO2AI_COUNTRY=DE, before the next run.",
                        "value": "runs without a country: 2",
                        "dashboard_url": QUALITY + "?&var-project=llama",
                        "runbook_url": BOOK + "GridFactorAssumed.md",
                    },
                ),
            ),
        ),
    ),
    Case(
        "a factor of one's own needs no country",
        placed(""),
        (Alerts("15m", "GridFactorAssumed"),),
    ),
    Case(
        "a run that has ended needs no country any more",
        placed("WORLD", running="1x60 0x140"),
        (Alerts("15m", "GridFactorAssumed", ({"project_name": "llama"},)), Alerts("16m", "GridFactorAssumed")),
    ),
    Case(
        "a run that is served twice is counted for its project only",
        served_twice(placed("WORLD")),
        (Alerts("15m", "GridFactorAssumed", ({"project_name": "llama"},)),),
    ),
)

COVERAGE = (
    Case(
        "a run whose devices answer 80 % of the time on a host is measured too little there",
        run() | observed("0.8x80") | observed("1x80", host="h2"),
        (
            Alerts("9m45s", "MeasurementCoverageLow"),
            Alerts(
                "10m",
                "MeasurementCoverageLow",
                (ON_H1,),
                (
                    {
                        "summary": "llama: run r1 is measured for 80% of the time on h1",
                        "description": "The energy of its devices there is known for 80% of the time, less than 0.9 of it. "
                        "The rest is missing from energy, CO₂e and cost; it is never filled in.",
                        "action": "See which device does not answer (hf_training_monitoring_errors_total); "
                        "call the figures a lower bound.",
                        "value": "80% of the time",
                        "limit": "0.9 of the time",
                        "dashboard_url": QUALITY + OF_RUN + "&var-host=h1",
                        "runbook_url": BOOK + "MeasurementCoverageLow.md",
                    },
                ),
            ),
        ),
    ),
    Case("90 % are enough", run() | observed("0.9x80"), (Alerts("15m", "MeasurementCoverageLow"),)),
    Case(
        "a run whose devices are still being opened has ten minutes",
        run() | observed("0.2+0.05x15 0.96x80"),
        (Alerts("8m", "MeasurementCoverageLow"), Alerts("15m", "MeasurementCoverageLow")),
    ),
    Case(
        "a run that has ended is told of no more",
        run(running="1x50 0x30") | observed("0.5x80"),
        (Alerts("12m", "MeasurementCoverageLow", (ON_H1,)), Alerts("13m", "MeasurementCoverageLow")),
    ),
    Case(
        "a resumed run is told of ten minutes later",
        run(running="1x20 0x20 1x80") | observed("0.5x120"),
        (Alerts("15m", "MeasurementCoverageLow"), Alerts("21m", "MeasurementCoverageLow", (ON_H1,))),
    ),
    Case(
        "of two runs of one project the one that is measured too little is told",
        run() | run("r2") | observed("1x80") | observed("0.5x80", "r2"),
        (Alerts("15m", "MeasurementCoverageLow", ({**ON_H1, "run_id": "r2"},)),),
    ),
    Case(
        "a run that is served twice is told of once",
        served_twice(run() | observed("0.5x80")),
        (Alerts("15m", "MeasurementCoverageLow", (ON_H1,)),),
    ),
    Case("a share that is no number is not low", run() | observed(nan(80)), (Alerts("15m", "MeasurementCoverageLow"),)),
)

CARDINALITY = (
    Case(
        "a target with more than 10,000 samples for ten minutes has many series",
        samples("14700x80", **DAEMON)
        | samples("9000x80", "hf-eco2ai", "node-2:9091")
        | samples("50000x80", "node", "node-1:9100")
        | samples("10001x80", "hf-eco2ai-runs", "127.0.0.1:9092"),
        (
            Alerts("9m45s", "HighCardinality"),
            Alerts("10m", "HighCardinality", (DAEMON, {"job": "hf-eco2ai-runs", "instance": "127.0.0.1:9092"})),
        ),
    ),
    Case(
        "it says how many",
        samples("14700x80", **DAEMON),
        (
            Alerts(
                "10m",
                "HighCardinality",
                (DAEMON,),
                (
                    {
                        "summary": "node-1:9091 shows 14700 series",
                        "description": "Each of its scrapes has 14700 samples, more than 10000. "
                        "Beyond the sample_limit in prometheus.yml scrapes are refused as a whole.",
                        "action": "Serve ended runs for a shorter time (--retention), "
                        "drop series (prometheus/relabel-debug.yml); see the runbook.",
                        "value": "14700 series",
                        "limit": "10000 series",
                        "dashboard_url": QUALITY,
                        "runbook_url": BOOK + "HighCardinality.md",
                    },
                ),
            ),
        ),
    ),
    Case("a sweep that is over soon is not", samples("200x8 20000x20 200x80", **DAEMON), (Alerts("10m", "HighCardinality"),)),
)

LOST = (
    Case(
        "a run whose process is gone is lost a minute later",
        run(running="1x8 0x80") | state("0x8 1x80"),
        (
            Alerts("3m", "RunLost"),
            Alerts(
                "3m15s",
                "RunLost",
                (R1,),
                (
                    {
                        "summary": "llama: run r1 is gone without a word",
                        "description": "Its process has ended without saying so: it was killed (SIGKILL, out of memory), "
                        "or its machine went down. Its figures end there.",
                        "action": "Look at dmesg and the scheduler's log of its host, then resume the last checkpoint: "
                        "it is the same run.",
                        "value": "lost",
                        "dashboard_url": "http://localhost:3000/d/hf-run-detail" + OF_RUN,
                        "runbook_url": BOOK + "RunLost.md",
                    },
                ),
            ),
        ),
    ),
    Case(
        "a run that has ended, or failed with a word, is not lost",
        run(running="1x8 0x80")
        | run("r2", running="1x8 0x80")
        | state("0x88")
        | state("0x8 1x80", "ended")
        | state("0x88", run_id="r2")
        | state("0x8 1x80", "failed", "r2"),
        (Alerts("10m", "RunLost"),),
    ),
    Case(
        "a run that is resumed is lost no more",
        run(running="1x8 0x20 1x40") | state("0x8 1x20 0x40"),
        (Alerts("5m", "RunLost", (R1,)), Alerts("12m", "RunLost", (R1,)), Alerts("13m", "RunLost")),
    ),
    Case(
        "a daemon that is restarted does not find it again, and lose it anew",
        {name: values.replace("x48", "x20 stale _x3 0x24") for name, values in run(running="0x48", info="0x48").items()}
        | state("1x20 stale _x3 1x24"),
        (
            Alerts("5m", "RunLost", (R1,)),
            Alerts("5m15s", "RunLost", (R1,)),
            Alerts("6m", "RunLost", (R1,)),
            Alerts("6m15s", "RunLost", (R1,)),
        ),
    ),
    Case(
        "one that is served no more is told of for five minutes",
        {name: values + " stale" for name, values in (run(running="0x20", info="1x20") | state("1x20")).items()},
        (Alerts("10m", "RunLost", (R1,)), Alerts("11m", "RunLost")),
    ),
    Case(
        "a host that was silent for half a minute and writes again has lost nothing",
        run(running="1x8 0x1 1x40") | state("0x8 1x1 0x40"),
        (Alerts("2m30s", "RunLost"), Alerts("4m", "RunLost")),
    ),
    Case(
        "of two runs of one project the one that is gone is lost",
        run() | run("r2", running="1x8 0x80") | state("0x88") | state("0x8 1x80", run_id="r2"),
        (Alerts("5m", "RunLost", (R2,)),),
    ),
    Case(
        "a run that is served twice is lost once",
        served_twice(run(running="1x8 0x80") | state("0x8 1x80")),
        (Alerts("5m", "RunLost", (R1,)),),
    ),
    Case(
        "a run that one daemon takes for lost and another one sees running is running",
        {
            series("hf_training_run_info", job="hf-eco2ai", instance="a", **R1): "1x80",
            series("hf_training_running", job="hf-eco2ai", instance="a", run_id="r1", project_name="llama"): "0x80",
            series("hf_training_running", job="hf-eco2ai", instance="b", run_id="r1", project_name="llama"): "1x80",
        }
        | state("1x80", job="hf-eco2ai", instance="a")
        | state("0x80", job="hf-eco2ai", instance="b"),
        (Alerts("10m", "RunLost"),),
    ),
)

CASES = (*DOWN, *STALE, *ERRORS, *FACTOR, *COVERAGE, *CARDINALITY, *LOST)


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    return failures(CASES, [file_of("system", alerts)], tmp_path_factory.mktemp("promtool"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_alerts_on_the_monitoring(case: Case, failed: Mapping[str, str]) -> None:
    assert case.name not in failed, failed[case.name]


def test_every_alert_on_the_monitoring_is_seen_firing_and_silent() -> None:
    assert uncovered(CASES, alert_names(alerts)) == []


def test_critical_alerts_go_on_until_an_exporter_that_stays_away_is_said_to_be_down() -> None:
    assert seconds(THRESHOLDS["critical_kept_for"]) > seconds(THRESHOLDS["exporter_down_for"])


def test_the_country_that_grid_factor_assumed_looks_for_is_that_of_an_assumed_factor() -> None:
    factor = Table("", "").factor()
    assert (factor.country, factor.assumed) == ("WORLD", True)
