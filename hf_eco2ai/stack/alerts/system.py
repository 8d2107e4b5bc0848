"""Alerts on the monitoring itself: who watches, whether it sees all, and how far its figures can be trusted."""

from hf_eco2ai.stack.alerts import Alert
from hf_eco2ai.stack.alerts.counted import grown
from hf_eco2ai.stack.alerts.texts import OF_WHAT, PERCENT, number
from hf_eco2ai.stack.promql import RUNNING, once, while_running, with_model
from hf_eco2ai.stack.thresholds import Thresholds

DASHBOARD = "hf-data-quality"
WHERE = (
    "{{ if $labels.run_id }}run {{ $labels.run_id }} ({{ $labels.project_name }})"
    "{{ else }}the daemon at {{ $labels.instance }}{{ end }}"
)


def alerts(t: Thresholds) -> tuple[Alert, ...]:
    """Those of the category system."""
    return (_down(t), _stale(t), _errors(t), _factor_stale(t), _factor_assumed(t), _coverage(t), _cardinality(t), _lost(t))


def _down(t: Thresholds) -> Alert:
    """Of daemons. A run's own endpoint goes with the run, and a killed run leaves its target behind: that is no exporter down."""
    hold = t["exporter_down_for"]
    return Alert(
        name="ExporterDown",
        severity="critical",
        expr='up{job="hf-eco2ai"} == 0',
        hold=hold,
        summary="The exporter {{ $labels.instance }} does not answer",
        description=(
            f"Prometheus has had no usable answer from it for {hold}. Nothing is seen of its runs, "
            "and alerts on them are silent. Trainings go on."
        ),
        action="Read its log (journalctl -u hf-eco2ai, docker compose logs exporter) and start it; no figure is lost.",
        value="no answer",
        dashboard=DASHBOARD,
    )


def _stale(t: Thresholds) -> Alert:
    """A run as a whole, since a host that it has left is as old as that. And a daemon that answers, but sees its folder no more.

    It goes on for a while, so that an exporter that goes down then does not make it look mended; it names the daemon that
    serves the run, one if there are several, so that ExporterDown can silence it.
    """
    limit, hold = t["stale_seconds"], t["stale_for"]
    updated = "hf_training_last_update_timestamp"
    served = once(f'{updated}{{job="hf-eco2ai", run_id!=""}}', "run_id", "job", "instance")
    anywhere = once(updated, "run_id")
    age = f"time() - (topk by (run_id) (1, {served}) or on (run_id) {anywhere})"
    run = with_model(while_running(f"{age} > {limit} and on (run_id) time() - {anywhere} > {limit}"))
    look = once("hf_exporter_last_look_timestamp_seconds", "job", "instance")
    return Alert(
        name="MetricsStale",
        severity="warning",
        expr=f"{run} or time() - {look} > {limit}",
        hold=hold,
        keep=t["stale_kept_for"],
        summary=f"Figures of {WHERE} are {number('.0f')} s old",
        description=(
            "{{ if $labels.run_id }}The run is said to live, but was last measured"
            "{{ else }}The daemon answers, but last read its runs folder{{ end }}"
            f" {number('.0f')} s ago, more than {limit} s. What is shown is of then."
        ),
        action="See whether its process is stopped, a driver call hangs, the disk of the runs folder is full, or clocks differ.",
        value=f"{number('.0f')} s old",
        limit=f"{limit} s",
        dashboard=DASHBOARD,
    )


def _errors(t: Thresholds) -> Alert:
    """Of runs that live, and of daemons. A device that is lost has GpuLost."""
    limit, window = t["errors_in_window"], t["errors_window"]
    counter = 'hf_training_monitoring_errors_total{run_id!="", error_type!="device_lost"}'
    run = with_model(while_running(f"{grown(counter, window, 'run_id', 'host', 'error_type')} >= {limit}"))
    return Alert(
        name="MonitoringErrors",
        severity="warning",
        expr=f"{run} or {grown('hf_exporter_failures_total', window, 'job', 'instance', 'error_type')} >= {limit}",
        summary=f"{number('.0f')} monitoring errors of {WHERE}: {{{{ $labels.error_type }}}}",
        description=(
            f"In the last {window} {WHERE}{{{{ if $labels.host }}}} on {{{{ $labels.host }}}}{{{{ end }}}} had "
            f"{number('.0f')} errors of the type {{{{ $labels.error_type }}}}. Figures may be incomplete; the training goes on."
        ),
        action="Read the first such line in its log, which says what to do, and what the type means in the runbook.",
        value=f"{number('.0f')} {{{{ $labels.error_type }}}}",
        limit=f"{limit} in {window}",
        dashboard=DASHBOARD,
    )


def _factor_stale(t: Thresholds) -> Alert:
    limit = t["grid_factor_age_seconds"]
    place = "{{ $labels.country }}{{ if $labels.region }}-{{ $labels.region }}{{ end }}"
    return Alert(
        name="GridFactorStale",
        severity="warning",
        expr=f"{once('hf_training_grid_carbon_intensity_age_seconds', 'country', 'region')} > {limit}",
        hold=t["grid_factor_for"],
        summary=f"The grid factor of {place} is {{{{ $value | humanizeDuration }}}} old",
        description=(
            f"CO₂e is computed with a live factor from {{{{ $value | humanizeDuration }}}} ago, more than {limit} s. "
            "Energy is not touched by that."
        ),
        action="See whether its provider answers (hf_training_network_latency_ms, the run's log), and your key is valid.",
        value="{{ $value | humanizeDuration }}",
        limit=f"{limit} s",
        dashboard=DASHBOARD,
    )


def _factor_assumed(t: Thresholds) -> Alert:
    """WORLD is the country of the factor that stands in where nobody said where the machine is. One alert for a project."""
    runs = while_running(once('hf_training_run_info{run_id!="", country="WORLD"}', "run_id", pick="group"))
    return Alert(
        name="GridFactorAssumed",
        severity="info",
        expr=f"count by (project_name) ({with_model(runs)})",
        hold=t["grid_factor_for"],
        summary="{{ $labels.project_name }} computes CO₂e with the world's average",
        description=(
            "Its live runs that do not know where they are: {{ $value }}. The true factor may be a tenth or double of that."
        ),
        action="Set country, as CarbonConfig(country='DE') or HF_ECO2AI_COUNTRY=DE, before the next run.",
        value="runs without a country: {{ $value }}",
        dashboard=DASHBOARD,
    )


def _coverage(t: Thresholds) -> Alert:
    limit, hold = t["low_coverage_ratio"], t["low_coverage_for"]
    return Alert(
        name="MeasurementCoverageLow",
        severity="warning",
        expr=with_model(while_running(f"{once('hf_training_observed_ratio', 'run_id', 'host')} < {limit}")),
        hold=hold,
        summary=f"{OF_WHAT} is measured for {PERCENT} of the time on {{{{ $labels.host }}}}",
        description=(
            f"The energy of its devices there is known for {PERCENT} of the time, less than {limit} of it. "
            "The rest is missing from energy, CO₂e and cost; it is never filled in."
        ),
        action="See which device does not answer (hf_training_monitoring_errors_total); call the figures a lower bound.",
        value=f"{PERCENT} of the time",
        limit=f"{limit} of the time",
        dashboard=DASHBOARD,
    )


def _cardinality(t: Thresholds) -> Alert:
    limit = t["series_of_target"]
    return Alert(
        name="HighCardinality",
        severity="warning",
        expr=f'scrape_samples_post_metric_relabeling{{job=~"hf-eco2ai|hf-eco2ai-runs"}} > {limit}',
        hold=t["series_for"],
        summary=f"{{{{ $labels.instance }}}} shows {number('.0f')} series",
        description=(
            f"Each of its scrapes has {number('.0f')} samples, more than {limit}. "
            "Beyond the sample_limit in prometheus.yml scrapes are refused as a whole."
        ),
        action="Serve ended runs for a shorter time (--retention), drop series (prometheus/relabel-debug.yml); see the runbook.",
        value=f"{number('.0f')} series",
        limit=f"{limit} series",
        dashboard=DASHBOARD,
    )


def _lost(t: Thresholds) -> Alert:
    """`failed` is no alert: who trains sees an exception, Ctrl-C, a preemption. Of a process that is gone nobody.

    Only a daemon can tell. Of two that follow one folder, the one that says it lives knows better: it is on the run's own host.
    """
    lost = once('hf_training_run_state{run_id!="", state="lost"}', "run_id")
    return Alert(
        name="RunLost",
        severity="critical",
        expr=with_model(f"{lost} == 1 unless on (run_id) {RUNNING}"),
        hold=t["run_lost_for"],
        keep=t["critical_kept_for"],
        summary=f"{OF_WHAT} is gone without a word",
        description=(
            "Its process has ended without saying so: it was killed (SIGKILL, out of memory), or its machine went down. "
            "Its figures end there."
        ),
        action="Look at dmesg and the scheduler's log of its host, then resume the last checkpoint: it is the same run.",
        value="lost",
        dashboard="hf-run-detail",
    )
