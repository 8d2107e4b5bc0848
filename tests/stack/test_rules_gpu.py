"""Alerts on GPUs: when they stand, when they do not, and what they say."""

from collections.abc import Mapping

import pytest

from hf_eco2ai.stack.alerts.gpu import alerts
from hf_eco2ai.stack.recording import SEEN
from tests.stack.committed import alert_names, file_of
from tests.stack.labelled import run, series, served_twice
from tests.stack.promtool import Alerts, Case, failures, nan, uncovered

H100 = "NVIDIA H100 80GB HBM3"
GPU0 = {"host": "h1", "gpu_id": "0", "gpu_model": H100}
GPU1 = {**GPU0, "gpu_id": "1"}
R1 = {"project_name": "llama", "model_name": "m1", "run_id": "r1"}
ON_H1 = {**R1, "host": "h1"}
OPERATIONS = "http://localhost:3000/d/hf-operations?"
BOOK = "https://github.com/terragonlabs/hf-eco2ai-plugin/blob/main/docs/runbooks/"


def gauge(what: str, values: str, gpu_id: str = "0", host: str = "h1") -> dict[str, str]:
    return {series(f"hf_training_gpu_{what}", gpu_id=gpu_id, gpu_model=H100, host=host): values}


def celsius(values: str, gpu_id: str = "0") -> dict[str, str]:
    return gauge("temperature_celsius", values, gpu_id)


def busy(values: str, gpu_id: str = "0", host: str = "h1") -> dict[str, str]:
    return gauge("utilization_percent", values, gpu_id, host)


def served(shown: Mapping[str, str], job: str = "hf-eco2ai", answered: str = "1x800") -> dict[str, str]:
    """By one target, which Prometheus scrapes."""
    target = f'job="{job}", instance="node-1:9091"'
    return {name.replace("{", f"{{{target}, "): values for name, values in shown.items()} | {f"up{{{target}}}": answered}


def count(values: str, run_id: str = "r1", host: str = "h1") -> dict[str, str]:
    return {series("hf_training_gpu_count", host=host, run_id=run_id): values}


def unanswered(values: str, error_type: str = "device_lost", run_id: str = "r1") -> dict[str, str]:
    return {series("hf_training_monitoring_errors_total", error_type=error_type, host="h1", run_id=run_id): values}


TEMPERATURE = (
    Case(
        "a GPU above 83 °C for five minutes is hot, and not in danger",
        celsius("84x40") | celsius("70x40", "1"),
        (
            Alerts("4m45s", "GpuTemperatureHigh"),
            Alerts(
                "5m",
                "GpuTemperatureHigh",
                (GPU0,),
                (
                    {
                        "summary": f"GPU 0 ({H100}) of h1 is at 84 °C",
                        "description": "For 5m it was hotter than 83 °C. A few degrees more, and it slows down to cool itself.",
                        "action": "Look at fans, air flow and the room; limit its power (nvidia-smi -pl) if it goes on.",
                        "value": "84 °C",
                        "limit": "83 °C",
                        "dashboard_url": OPERATIONS + "&var-host=h1",
                        "runbook_url": BOOK + "GpuTemperatureHigh.md",
                    },
                ),
            ),
            Alerts("9m", "GpuTemperatureCritical"),
        ),
    ),
    Case("83 °C are not more than 83 °C", celsius("83x40"), (Alerts("8m", "GpuTemperatureHigh"),)),
    Case(
        "above 90 °C it is in danger after a minute",
        celsius("80x8 92x40"),
        (
            Alerts("3m", "GpuTemperatureCritical"),
            Alerts(
                "3m15s",
                "GpuTemperatureCritical",
                (GPU0,),
                (
                    {
                        "summary": f"GPU 0 ({H100}) of h1 is at 92 °C, near the point where it switches off",
                        "description": "For 1m it was hotter than 90 °C. By now it has slowed down; a few degrees more, "
                        "and it switches off, which ends its run.",
                        "action": "Take load off it now: limit its power (nvidia-smi -pl) or stop the run, "
                        "then see to the cooling.",
                        "value": "92 °C",
                        "limit": "90 °C",
                        "dashboard_url": OPERATIONS + "&var-host=h1",
                        "runbook_url": BOOK + "GpuTemperatureCritical.md",
                    },
                ),
            ),
        ),
    ),
    Case(
        "one reading of 120 °C is a slip of the sensor", celsius("70x8 120 70x40"), (Alerts("2m30s", "GpuTemperatureCritical"),)
    ),
    Case(
        "two GPUs of a host are two alerts",
        celsius("92x40") | celsius("93x40", "1"),
        (Alerts("5m", "GpuTemperatureCritical", (GPU0, GPU1)), Alerts("5m", "GpuTemperatureHigh", (GPU0, GPU1))),
    ),
    Case("a GPU that is served twice is one", served_twice(celsius("92x40")), (Alerts("5m", "GpuTemperatureHigh", (GPU0,)),)),
    Case(
        "with its last run a GPU's temperature goes, and the alert",
        celsius("92x40 stale"),
        (Alerts("10m", "GpuTemperatureHigh", (GPU0,)), Alerts("10m15s", "GpuTemperatureHigh")),
    ),
    Case(
        "a GPU in danger that is served twice is one",
        served_twice(celsius("92x40")),
        (Alerts("5m", "GpuTemperatureCritical", (GPU0,)),),
    ),
    Case(
        "a temperature that is no number is none",
        celsius(nan(40)),
        (Alerts("8m", "GpuTemperatureHigh"), Alerts("8m", "GpuTemperatureCritical")),
    ),
)

MEMORY = (
    Case(
        "a GPU with 97 % of its memory in use for five minutes is almost full",
        gauge("memory_usage_percent", "97x40") | gauge("memory_usage_percent", "95x40", "1"),
        (
            Alerts("4m45s", "GpuMemoryAlmostFull"),
            Alerts(
                "5m",
                "GpuMemoryAlmostFull",
                (GPU0,),
                (
                    {
                        "summary": f"GPU 0 ({H100}) of h1 has 97 % of its memory in use",
                        "description": "For 5m more than 95 % of its memory was in use; "
                        "one longer batch may end the run out of memory.",
                        "action": "Halve the batch and double gradient accumulation, or turn on gradient checkpointing, "
                        "at the next resume.",
                        "value": "97 % in use",
                        "limit": "95 % in use",
                        "dashboard_url": OPERATIONS + "&var-host=h1",
                        "runbook_url": BOOK + "GpuMemoryAlmostFull.md",
                    },
                ),
            ),
        ),
    ),
    Case(
        "a peak is not",
        gauge("memory_usage_percent", "50x8 99x8 50x40"),
        (Alerts("4m", "GpuMemoryAlmostFull"), Alerts("8m", "GpuMemoryAlmostFull")),
    ),
    Case(
        "a use of memory that is no number is not full",
        gauge("memory_usage_percent", nan(40)),
        (Alerts("6m", "GpuMemoryAlmostFull"),),
    ),
    Case(
        "a full GPU that is served twice is one",
        served_twice(gauge("memory_usage_percent", "97x40")),
        (Alerts("6m", "GpuMemoryAlmostFull", (GPU0,)),),
    ),
)

LOST = (
    Case(
        "a GPU that stops answering is lost at once, and told of for a quarter of an hour after its run has ended by it",
        run(running="1x11 0x100") | count("8x111") | unanswered("0x8 15 30 45x101"),
        (
            Alerts("2m", "GpuLost"),
            Alerts(
                "2m15s",
                "GpuLost",
                (ON_H1,),
                (
                    {
                        "summary": "llama: run r1 has lost a GPU on h1",
                        "description": "In the last 15m a GPU of the run stopped answering there; its energy is missing since, "
                        "and the run ends at its next call to it.",
                        "action": "Look at nvidia-smi and dmesg (NVRM: Xid) on that host, keep new jobs off it, "
                        "and resume the run elsewhere.",
                        "value": "15 readings without an answer",
                        "limit": "none",
                        "dashboard_url": OPERATIONS + "&var-project=llama&var-model=m1&var-run=r1&var-host=h1",
                        "runbook_url": BOOK + "GpuLost.md",
                    },
                ),
            ),
            Alerts("22m", "GpuLost", (ON_H1,)),
            Alerts("23m", "GpuLost"),
        ),
    ),
    Case(
        "it is told of also when the run's own endpoint goes with it",
        {name: values + " stale" for name, values in (run(running="1x8", info="1x8") | unanswered("0x7 9")).items()},
        (Alerts("3m", "GpuLost", (ON_H1,)), Alerts("21m", "GpuLost", (ON_H1,)), Alerts("23m", "GpuLost")),
    ),
    Case(
        "a counter that begins with what was lost before the first scrape counts from 0",
        served(run(running="_x8 1x40", info="_x8 1x40") | unanswered("_x8 3x40")),
        (Alerts("2m15s", "GpuLost", (ON_H1,)),),
    ),
    Case(
        "so does one whose own endpoint came with the run, while Prometheus was looking elsewhere",
        served(run(running="_x8 1x40", info="_x8 1x40") | unanswered("_x8 3x40"), "hf-eco2ai-runs", "_x8 1x40")
        | {series("up", job="prometheus", instance="localhost:9090"): "1x48"},
        (Alerts("2m15s", "GpuLost", (ON_H1,)),),
    ),
    Case(
        "a Prometheus that starts does not tell of what was lost before it",
        served(run() | unanswered("3x100"), "hf-eco2ai-runs")
        | {series("up", job="prometheus", instance="localhost:9090"): "1x100"},
        (Alerts("15s", "GpuLost"), Alerts("10m", "GpuLost"), Alerts("20m", "GpuLost")),
    ),
    Case(
        "nor does one that meets a daemon for the first time",
        served(run(running="_x40 1x100", info="_x40 1x100") | unanswered("_x40 3x100"), answered="0x40 1x100")
        | {series("up", job="prometheus", instance="localhost:9090"): "1x140"},
        (Alerts("10m15s", "GpuLost"), Alerts("15m", "GpuLost")),
    ),
    Case(
        "nor one that has not looked for two hours",
        served(
            run(running="1x100 _x480 1x100", info="1x100 _x480 1x100") | unanswered("3x100 _x480 3x100"),
            answered="1x100 _x480 1x100",
        ),
        (Alerts("2h25m30s", "GpuLost"), Alerts("2h30m", "GpuLost")),
    ),
    Case(
        "a run that is served again after two hours has lost what it had lost before, and what it loses now",
        served(run(running="1x100 stale _x480 1x100", info="1x100 stale _x480 1x100") | unanswered("3x100 stale _x480 3x20 4x80"))
        | {series(SEEN, **R1): "1x100"},
        (Alerts("2h26m", "GpuLost"), Alerts("2h29m", "GpuLost"), Alerts("2h31m", "GpuLost", (ON_H1,))),
    ),
    Case(
        "a daemon that is restarted does not end the alert on a GPU that is too hot",
        celsius("92x40 stale _x3 92x40"),
        (
            Alerts("10m", "GpuTemperatureCritical", (GPU0,)),
            Alerts("10m30s", "GpuTemperatureCritical", (GPU0,)),
            Alerts("11m15s", "GpuTemperatureCritical", (GPU0,)),
        ),
    ),
    Case(
        "readings that failed in another way have lost no GPU",
        run() | unanswered("0+5x80", "driver_error") | unanswered("0x80"),
        (Alerts("10m", "GpuLost"),),
    ),
    Case(
        "a resumed run whose counter begins anew has lost none",
        run() | unanswered("9x70 0x70"),
        (Alerts("17m", "GpuLost"), Alerts("30m", "GpuLost")),
    ),
    Case(
        "a run that goes on with seven of eight GPUs has lost one",
        run(running="1x20 0x8 1x100") | count("8x28 7x101") | unanswered("0x130"),
        (
            Alerts("7m", "GpuLost"),
            Alerts(
                "8m",
                "GpuLost",
                (ON_H1,),
                (
                    {
                        "summary": "llama: run r1 has lost a GPU on h1",
                        "description": "In the last 15m the run came to have fewer GPUs there.",
                        "action": "Look at nvidia-smi and dmesg (NVRM: Xid) on that host, keep new jobs off it, "
                        "and resume the run elsewhere.",
                        "value": "-1 GPUs",
                        "limit": "none",
                        "dashboard_url": OPERATIONS + "&var-project=llama&var-model=m1&var-run=r1&var-host=h1",
                        "runbook_url": BOOK + "GpuLost.md",
                    },
                ),
            ),
        ),
    ),
    Case(
        "a run that opens its GPUs one second after it has begun has lost none",
        run() | count("0x1 8x100"),
        (Alerts("1m", "GpuLost"), Alerts("16m", "GpuLost")),
    ),
    Case(
        "of two runs of one project the one whose GPU is lost is told",
        run() | run("r2") | unanswered("0x80") | unanswered("0x8 1x80", run_id="r2"),
        (Alerts("5m", "GpuLost", ({**ON_H1, "run_id": "r2"},)),),
    ),
    Case(
        "a run that is served twice has lost it once",
        served_twice(run() | unanswered("0x8 15 30 45x101")),
        (Alerts("5m", "GpuLost", (ON_H1,)),),
    ),
)

UNEVEN = (
    Case(
        "GPUs of a run that are busy for 90 and 30 % of the time are used unevenly",
        run() | count("2x100") | busy("90x100") | busy("30x100", "1"),
        (
            Alerts("14m45s", "GpuUneven"),
            Alerts(
                "15m",
                "GpuUneven",
                (R1,),
                (
                    {
                        "summary": "llama: run r1 uses its GPUs unevenly",
                        "description": "For 15m its busiest GPU was over 40 points busier than its idlest; now it is 60. "
                        "The others wait for the busiest, and draw power meanwhile.",
                        "action": "Balance pipeline stages or batch sizes, or give the run only the GPUs that it keeps busy.",
                        "value": "60 points apart",
                        "limit": "40 points apart",
                        "dashboard_url": OPERATIONS + "&var-project=llama&var-model=m1&var-run=r1",
                        "runbook_url": BOOK + "GpuUneven.md",
                    },
                ),
            ),
        ),
    ),
    Case(
        "a use that is no number is not uneven",
        run() | count("2x100") | busy("90x100") | busy(nan(100), "1"),
        (Alerts("20m", "GpuUneven"),),
    ),
    Case(
        "a resumed run uses its GPUs as unevenly as before",
        run(running="1x80 0x20 1x100") | count("2x200") | busy("90x200") | busy("30x200", "1"),
        (Alerts("18m", "GpuUneven", (R1,)), Alerts("22m", "GpuUneven"), Alerts("42m", "GpuUneven", (R1,))),
    ),
    Case(
        "GPUs that take turns are used evenly",
        run() | count("2x100") | busy("100 0 " * 50) | busy("0 100 " * 50, "1"),
        (Alerts("20m", "GpuUneven"),),
    ),
    Case(
        "hosts of a run are compared as well",
        run() | count("1x100") | count("1x100", host="h2") | busy("90x100") | busy("30x100", host="h2"),
        (Alerts("20m", "GpuUneven", (R1,)),),
    ),
    Case(
        "of two runs on one host nobody knows whose GPU is idle",
        run() | run("r2") | count("1x100") | count("1x100", "r2") | busy("90x100") | busy("30x100", "1"),
        (Alerts("20m", "GpuUneven"),),
    ),
    Case(
        "two runs of one project on two hosts are two",
        run() | run("r2", host="h2") | count("1x100") | count("1x100", "r2", "h2") | busy("90x100") | busy("30x100", host="h2"),
        (Alerts("20m", "GpuUneven"),),
    ),
    Case(
        "a run that has ended leaves its host to the other",
        run() | run("r2", running="0x100") | count("2x100") | count("1x100", "r2") | busy("90x100") | busy("30x100", "1"),
        (Alerts("20m", "GpuUneven", (R1,)),),
    ),
    Case(
        "a run that has ended uses nothing",
        run(running="1x70 0x30") | count("2x100") | busy("90x100") | busy("30x100", "1"),
        (Alerts("17m", "GpuUneven", (R1,)), Alerts("18m", "GpuUneven")),
    ),
    Case(
        "a run that is served twice is one, on its own on its host",
        served_twice(run() | count("2x100") | busy("90x100") | busy("30x100", "1")),
        (Alerts("20m", "GpuUneven", (R1,)),),
    ),
)

CASES = (*TEMPERATURE, *MEMORY, *LOST, *UNEVEN)


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    return failures(CASES, [file_of("gpu", alerts)], tmp_path_factory.mktemp("promtool"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_alerts_on_gpus(case: Case, failed: Mapping[str, str]) -> None:
    assert case.name not in failed, failed[case.name]


def test_every_alert_on_gpus_is_seen_firing_and_silent() -> None:
    assert uncovered(CASES, alert_names(alerts)) == []
