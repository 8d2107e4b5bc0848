"""Alerts on GPUs that runs use. Their gauges carry `host` and `gpu_id` and no run, and go when the last run on them ends."""

from hf_eco2ai.stack.alerts import Alert
from hf_eco2ai.stack.alerts.counted import grown
from hf_eco2ai.stack.alerts.texts import OF_WHAT, number
from hf_eco2ai.stack.promql import RUNNING, once, while_running, with_model
from hf_eco2ai.stack.thresholds import Thresholds

DASHBOARD = "hf-operations"
GPU = ("host", "gpu_id", "gpu_model")
WHICH = "GPU {{ $labels.gpu_id }} ({{ $labels.gpu_model }}) of {{ $labels.host }}"

SAMPLED = "5m"
"""Utilisation is that of a moment, and pipelines take turns: twenty scrapes say how busy a GPU is."""


def alerts(t: Thresholds) -> tuple[Alert, ...]:
    """Those of the category gpu."""
    return (_hot(t), _critical(t), _memory(t), _lost(t), _uneven(t))


def _hot(t: Thresholds) -> Alert:
    limit, hold = t["gpu_hot_celsius"], t["gpu_hot_for"]
    return Alert(
        name="GpuTemperatureHigh",
        severity="warning",
        expr=f"{once('hf_training_gpu_temperature_celsius', *GPU)} > {limit}",
        hold=hold,
        summary=f"{WHICH} is at {number('.0f')} °C",
        description=f"For {hold} it was hotter than {limit} °C. A few degrees more, and it slows down to cool itself.",
        action="Look at fans, air flow and the room; limit its power (nvidia-smi -pl) if it goes on.",
        value=f"{number('.0f')} °C",
        limit=f"{limit} °C",
        dashboard=DASHBOARD,
    )


def _critical(t: Thresholds) -> Alert:
    limit, hold = t["gpu_critical_celsius"], t["gpu_critical_for"]
    return Alert(
        name="GpuTemperatureCritical",
        severity="critical",
        expr=f"{once('hf_training_gpu_temperature_celsius', *GPU)} > {limit}",
        hold=hold,
        keep=t["critical_kept_for"],
        summary=f"{WHICH} is at {number('.0f')} °C, near the point where it switches off",
        description=(
            f"For {hold} it was hotter than {limit} °C. By now it has slowed down; a few degrees more, and it switches off, "
            "which ends its run."
        ),
        action="Take load off it now: limit its power (nvidia-smi -pl) or stop the run, then see to the cooling.",
        value=f"{number('.0f')} °C",
        limit=f"{limit} °C",
        dashboard=DASHBOARD,
    )


def _memory(t: Thresholds) -> Alert:
    limit, hold = t["gpu_memory_percent"], t["gpu_memory_for"]
    return Alert(
        name="GpuMemoryAlmostFull",
        severity="warning",
        expr=f"{once('hf_training_gpu_memory_usage_percent', *GPU)} > {limit}",
        hold=hold,
        summary=f"{WHICH} has {number('.0f')} % of its memory in use",
        description=f"For {hold} more than {limit} % of its memory was in use; one longer batch may end the run out of memory.",
        action="Halve the batch and double gradient accumulation, or turn on gradient checkpointing, at the next resume.",
        value=f"{number('.0f')} % in use",
        limit=f"{limit} % in use",
        dashboard=DASHBOARD,
    )


def _lost(t: Thresholds) -> Alert:
    """Also of runs that have ended meanwhile: a lost GPU mostly takes its run along, and the next one gets it.

    The value is the number of readings without an answer, or below 0 how many GPUs fewer a run that goes on has.
    """
    window, of = t["gpu_lost_window"], ("run_id", "host")
    unanswered = grown('hf_training_monitoring_errors_total{run_id!="", error_type="device_lost"}', window, *of)
    count = 'hf_training_gpu_count{run_id!=""}'
    fewer = while_running(f"{once(count, *of)} - {once(f'max_over_time({count}[{window}])', *of)} < 0")
    return Alert(
        name="GpuLost",
        severity="critical",
        expr=with_model(f"{unanswered} > 0 or ({fewer})", window),
        keep=t["critical_kept_for"],
        summary=f"{OF_WHAT} has lost a GPU on {{{{ $labels.host }}}}",
        description=(
            f"In the last {window} {{{{ if lt $value 0.0 }}}}the run came to have fewer GPUs there"
            "{{ else }}a GPU of the run stopped answering there; its energy is missing since, "
            "and the run ends at its next call to it{{ end }}."
        ),
        action="Look at nvidia-smi and dmesg (NVRM: Xid) on that host, keep new jobs off it, and resume the run elsewhere.",
        value=f"{number('.0f')} {{{{ if lt $value 0.0 }}}}GPUs{{{{ else }}}}readings without an answer{{{{ end }}}}",
        limit="none",
        dashboard=DASHBOARD,
    )


def _uneven(t: Thresholds) -> Alert:
    """Over all hosts of a run. Hosts on which several runs live are left out, since whose GPU is whose is not known there."""
    limit, hold = t["gpu_uneven_percent"], t["gpu_uneven_for"]
    here = f"({once('hf_training_gpu_count > 0', 'run_id', 'host', pick='group')} and on (run_id) {RUNNING})"
    alone = f"({here} and on (host) count by (host) {here} == 1)"
    busy = once(f"avg_over_time(hf_training_gpu_utilization_percent[{SAMPLED}])", "host", "gpu_id")
    own = f"{busy} * on (host) group_left (run_id) {alone}"
    return Alert(
        name="GpuUneven",
        severity="info",
        expr=with_model(f"{once(own, 'run_id')} - {once(own, 'run_id', pick='min')} > {limit}"),
        hold=hold,
        summary=f"{OF_WHAT} uses its GPUs unevenly",
        description=(
            f"For {hold} its busiest GPU was over {limit} points busier than its idlest; now it is {number('.0f')}. "
            "The others wait for the busiest, and draw power meanwhile."
        ),
        action="Balance pipeline stages or batch sizes, or give the run only the GPUs that it keeps busy.",
        value=f"{number('.0f')} points apart",
        limit=f"{limit} points apart",
        dashboard=DASHBOARD,
    )
