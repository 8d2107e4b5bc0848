"""The metrics contract, one row per family. The docs table, the exposition and the checks of dashboards come from it.

To add a metric: add a row. Its `samples` function takes a snapshot and yields label values and number; what has no value yet
yields nothing, for absent is not zero.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

from hf_eco2ai.records import (
    RUN_STATES,
    BudgetStatus,
    DeviceStatus,
    Footprint,
    Forecast,
    HostTotals,
    Rates,
    Snapshot,
    Telemetry,
)
from hf_eco2ai.run import STEP_BUCKETS
from hf_eco2ai.version import __version__, commit

Kind = Literal["counter", "gauge", "info", "histogram", "untyped"]
Values = tuple[str, ...]
Labelled = Iterable[tuple[Values, float]]


SCOPE_LABELS: dict[str, Values] = {
    "totals": ("run_id",),
    "host": ("run_id", "host"),
    "run": ("run_id",),
    "device": ("host",),
    "exporter": (),
}
"""Labels that say whose figure it is.

`totals`: what a host has used for a run, earlier attempts included; the host is among the metric's own labels, since the leading
process also shows the totals of hosts that have left. `host`: how this host's part of the run does now. `run`: the whole run's,
shown by the global rank 0 alone. `device`: a device's, whichever run uses it. `exporter`: its own.
"""


Fold = Literal["add", "latest", "budget"]


class Metric(NamedTuple):
    """One family. `labels` are in the order in which `samples` yields their values; those of the `scope` come after them."""

    name: str
    kind: Kind
    labels: Values
    scope: Literal["totals", "host", "run", "device", "exporter"]
    help: str
    samples: Callable[[Snapshot], Labelled]
    fold: Fold = "latest"
    """What becomes of the figures of several runs that no `run_id` tells apart (`run_label=False`).

    Those of counters add. Budgets of runs add too, but the budget of a project is one, whichever of its runs tells of it.
    """

    @property
    def keeps(self) -> bool:
        """Whether it goes on counting a run that has left `/metrics`, where runs are folded."""
        return self.kind in {"counter", "untyped", "histogram"} or self.scope == "totals"

    def adds(self, snapshot: Snapshot) -> bool:
        """Whether a run's figures are added to those of other runs, or the latest one stands for all."""
        if self.fold == "budget":
            return all(budget.scope == "run" for budget in snapshot.budgets if budget.kind == "carbon")
        return self.keeps or self.fold == "add"


def _one(value: float | None, *labels: str) -> Iterator[tuple[Values, float]]:
    if value is not None:
        yield labels, value


def _gpus(value: Callable[[DeviceStatus], float | None]) -> Callable[[Snapshot], Labelled]:
    def samples(snapshot: Snapshot) -> Labelled:
        for status in snapshot.devices:
            if status.device.component == "gpu":
                yield from _one(value(status), status.device.index, status.device.model)

    return samples


def _telemetry(value: Callable[[Telemetry], float | None]) -> Callable[[Snapshot], Labelled]:
    return _gpus(lambda status: None if status.telemetry is None else value(status.telemetry))


def _memory_percent(telemetry: Telemetry) -> float | None:
    used, total = telemetry.memory_used_bytes, telemetry.memory_total_bytes
    return 100 * used / total if used is not None and total else None


def _project(s: Snapshot) -> str:
    return s.identity.project_name


def _model(s: Snapshot) -> str:
    return s.identity.model_name


def _rate(s: Snapshot, value: Callable[[Rates], float | None]) -> float | None:
    return None if s.rates is None else value(s.rates)


def _forecast(s: Snapshot, value: Callable[[Forecast], float | None]) -> float | None:
    return None if s.forecast is None else value(s.forecast)


def _per_joule(s: Snapshot, amount: float | None) -> float | None:
    return amount / s.total.joules if amount and s.total.joules > 0 else None


def _joules_per(s: Snapshot, amount: float | None) -> float | None:
    return s.total.joules / amount if amount else None


def _samples_per_kwh(s: Snapshot) -> float | None:
    return s.progress.samples / s.total.kwh if s.total.kwh > 0 else None


def _carbon_budget(s: Snapshot, value: Callable[[BudgetStatus], float]) -> float | None:
    return next((value(budget) for budget in s.budgets if budget.kind == "carbon"), None)


def _by_host(value: Callable[[HostTotals], float | None], *, model: bool = False) -> Callable[[Snapshot], Labelled]:
    def samples(s: Snapshot) -> Labelled:
        for totals in s.hosts:
            yield from _one(value(totals), _project(s), *((_model(s),) if model else ()), totals.host)

    return samples


def _cost_by_host(value: Callable[[Footprint], float | None]) -> Callable[[Snapshot], Labelled]:
    def samples(s: Snapshot) -> Labelled:
        for totals in s.hosts:
            yield from _one(value(totals.total), _project(s), s.tariff.currency, totals.host)

    return samples


def _baselines(s: Snapshot) -> Labelled:
    watts: dict[str, float] = {}
    for status in s.devices:
        if status.baseline_watts is not None:
            watts[status.device.component] = watts.get(status.device.component, 0.0) + status.baseline_watts
    return (((component,), value) for component, value in watts.items())


def _histogram(s: Snapshot) -> Labelled:
    """Cumulative buckets, labelled with their bound, then the sum under the pseudo bound `sum`."""
    histogram = s.progress.step_durations
    if histogram is None:
        return
    count = 0
    for bound, in_bucket in zip((*map(str, STEP_BUCKETS), "+Inf"), histogram.counts, strict=True):
        count += in_bucket
        yield (_project(s), bound), float(count)
    yield (_project(s), "sum"), histogram.sum_seconds


PROJECT = ("project_name",)
PROJECT_MODEL = ("project_name", "model_name")
GPU = ("gpu_id", "gpu_model")
PLACE = ("country", "region")

METRICS: tuple[Metric, ...] = (
    # Carbon
    Metric(
        "hf_training_co2_kg_total",
        "counter",
        (*PROJECT_MODEL, "factor_type", "host"),
        "totals",
        "CO2e so far in kg, PUE included; factor_type is the kind of grid factor, never to be summed over.",
        lambda s: (
            ((_project(s), _model(s), kind, h.host), grams / 1000) for h in s.hosts for kind, grams in h.grams_by_factor_type
        ),
    ),
    Metric(
        "hf_training_co2_rate_kg_per_hour",
        "gauge",
        (*PROJECT, "factor_type"),
        "host",
        "CO2e rate over the last measurement interval, PUE included.",
        lambda s: _one(_rate(s, lambda r: r.grams_per_hour / 1000), _project(s), s.factor.factor_type),
        fold="add",
    ),
    Metric(
        "hf_training_grid_carbon_intensity_g_per_kwh",
        "gauge",
        (*PLACE, "factor_type"),
        "exporter",
        "The grid factor in use, in gCO2e per kWh.",
        lambda s: _one(s.factor.grams_per_kwh, s.factor.country, s.factor.region, s.factor.factor_type),
    ),
    Metric(
        "hf_training_carbon_budget_kg",
        "gauge",
        PROJECT,
        "run",
        "Carbon budget of the run, or of its project, in kg CO2e; absent when none is set.",
        lambda s: _one(_carbon_budget(s, lambda b: b.limit), _project(s)),
        fold="budget",
    ),
    Metric(
        "hf_training_carbon_budget_remaining_kg",
        "gauge",
        PROJECT,
        "run",
        "What is left of the carbon budget in kg CO2e; negative once it is exceeded.",
        lambda s: _one(_carbon_budget(s, lambda b: b.limit - b.spent), _project(s)),
        fold="budget",
    ),
    # Energy
    Metric(
        "hf_training_energy_kwh_total",
        "counter",
        (*PROJECT_MODEL, "host"),
        "totals",
        "Energy that the devices used so far in kWh, PUE not included.",
        _by_host(lambda h: h.total.kwh, model=True),
    ),
    Metric(
        "hf_training_energy_rate_kwh_per_hour",
        "gauge",
        PROJECT,
        "host",
        "Energy rate over the last measurement interval, that is the power in kW.",
        lambda s: _one(_rate(s, lambda r: r.watts / 1000), _project(s)),
        fold="add",
    ),
    Metric("hf_training_gpu_power_watts", "gauge", GPU, "device", "Power of a GPU now.", _gpus(lambda status: status.watts)),
    Metric(
        "hf_training_cpu_power_watts",
        "gauge",
        ("basis",),
        "device",
        "Mean power of the CPUs over the last measurement interval; basis says measured or modelled.",
        lambda s: (((basis,), watts) for basis, watts in s.cpu_watts),
    ),
    Metric(
        "hf_training_samples_per_kwh",
        "gauge",
        PROJECT,
        "run",
        "Samples trained per kWh of device energy, over the whole run.",
        lambda s: _one(_samples_per_kwh(s), _project(s)),
    ),
    # Training
    Metric(
        "hf_training_loss",
        "gauge",
        PROJECT_MODEL,
        "run",
        "Training loss as last logged; NaN stays NaN.",
        lambda s: _one(s.progress.loss, _project(s), _model(s)),
    ),
    Metric(
        "hf_training_eval_loss",
        "gauge",
        PROJECT_MODEL,
        "run",
        "Evaluation loss as last logged; NaN stays NaN.",
        lambda s: _one(s.progress.eval_loss, _project(s), _model(s)),
    ),
    Metric(
        "hf_training_learning_rate",
        "gauge",
        PROJECT,
        "run",
        "Learning rate as last logged.",
        lambda s: _one(s.progress.learning_rate, _project(s)),
    ),
    Metric(
        "hf_training_step_count",
        "untyped",
        PROJECT,
        "run",
        "Optimizer steps done by this run, those before a resume included.",
        lambda s: _one(s.progress.steps, _project(s)),
    ),
    Metric(
        "hf_training_epoch_count",
        "untyped",
        PROJECT,
        "run",
        "Whole epochs done.",
        lambda s: _one(s.progress.epochs, _project(s)),
    ),
    Metric(
        "hf_training_samples_per_second",
        "gauge",
        PROJECT,
        "run",
        "Samples trained per second, between the last steps that ended.",
        lambda s: _one(s.progress.samples_per_second, _project(s)),
    ),
    Metric(
        "hf_training_efficiency_score",
        "gauge",
        PROJECT,
        "run",
        "0 to 1: share of this attempt's energy that training steps used, times mean GPU utilisation (CPU without a GPU).",
        lambda s: _one(s.efficiency_score, _project(s)),
    ),
    # GPU
    Metric(
        "hf_training_gpu_temperature_celsius",
        "gauge",
        GPU,
        "device",
        "Temperature of a GPU.",
        _telemetry(lambda t: t.temperature_celsius),
    ),
    Metric(
        "hf_training_gpu_memory_usage_bytes",
        "gauge",
        GPU,
        "device",
        "Memory of a GPU that is in use.",
        _telemetry(lambda t: t.memory_used_bytes),
    ),
    Metric(
        "hf_training_gpu_memory_total_bytes",
        "gauge",
        GPU,
        "device",
        "Memory that a GPU has.",
        _telemetry(lambda t: t.memory_total_bytes),
    ),
    Metric(
        "hf_training_gpu_memory_usage_percent",
        "gauge",
        GPU,
        "device",
        "Memory of a GPU that is in use, 0 to 100.",
        _telemetry(_memory_percent),
    ),
    Metric(
        "hf_training_gpu_utilization_percent",
        "gauge",
        GPU,
        "device",
        "Share of time in which a GPU had work, 0 to 100.",
        _telemetry(lambda t: t.utilization_percent),
    ),
    Metric(
        "hf_training_gpu_count",
        "gauge",
        (),
        "host",
        "GPUs that the run measures on this host.",
        lambda s: _one(s.gpu_count),
        fold="add",
    ),
    # Cost
    Metric(
        "hf_training_estimated_cost_usd",
        "gauge",
        (*PROJECT, "currency", "host"),
        "totals",
        "Energy and compute cost so far, in `currency`; absent when no price is set.",
        _cost_by_host(lambda total: total.cost),
    ),
    Metric(
        "hf_training_cost_rate_usd_per_hour",
        "gauge",
        (*PROJECT, "currency"),
        "host",
        "Cost per hour over the last measurement interval, in `currency`; absent when no price is set.",
        lambda s: _one(_rate(s, lambda r: r.cost_per_hour), _project(s), s.tariff.currency),
        fold="add",
    ),
    Metric(
        "hf_training_energy_cost_usd",
        "gauge",
        (*PROJECT, "currency", "host"),
        "totals",
        "Cost of the energy so far, PUE included, in `currency`; absent when no electricity price is set.",
        _cost_by_host(lambda total: total.energy_cost),
    ),
    Metric(
        "hf_training_compute_cost_usd",
        "gauge",
        (*PROJECT, "currency", "host"),
        "totals",
        "GPU hours so far at the price of one, in `currency`; absent when no GPU price is set.",
        _cost_by_host(lambda total: total.compute_cost),
    ),
    # The exporter
    Metric(
        "hf_training_last_update_timestamp",
        "gauge",
        (),
        "host",
        "When the run was last measured, in Unix seconds.",
        lambda s: _one(s.updated_unix),
    ),
    Metric(
        "hf_training_plugin_version",
        "info",
        ("version", "commit"),
        "exporter",
        "Version of hf_eco2ai.",
        lambda _: _one(1.0, __version__, commit()),
    ),
    Metric(
        "hf_training_monitoring_errors_total",
        "counter",
        ("error_type",),
        "host",
        "What went wrong in measuring and publishing, by type.",
        lambda s: (((error_type,), count) for error_type, count in s.errors),
    ),
    Metric(
        "hf_training_network_latency_ms",
        "gauge",
        ("target",),
        "exporter",
        "Duration of the last call to a grid API or integration; absent when none is called.",
        lambda s: (((target,), seconds * 1000) for target, seconds in s.network_seconds),
    ),
    # Beyond the guide
    Metric(
        "hf_training_run",
        "info",
        (*PROJECT_MODEL, "experiment_name", "trainer", *PLACE, "basis"),
        "host",
        "What a run is, to be joined by run_id; basis sums up its devices: measured, modelled, simulated, mixed or none.",
        lambda s: _one(
            1.0,
            _project(s),
            _model(s),
            s.identity.experiment_name,
            s.identity.trainer,
            s.factor.country,
            s.factor.region,
            s.basis,
        ),
    ),
    Metric(
        "hf_training_running",
        "gauge",
        PROJECT,
        "run",
        "1 while the run lives, 0 when it has ended.",
        lambda s: _one(float(s.state == "running"), _project(s)),
        fold="add",
    ),
    Metric(
        "hf_training_run_state",
        "gauge",
        ("state",),
        "run",
        "1 for the state that the run is in, 0 for the others.",
        lambda s: (((state,), float(state == s.state)) for state in RUN_STATES),
        fold="add",
    ),
    Metric(
        "hf_training_progress_ratio",
        "gauge",
        PROJECT,
        "run",
        "Optimizer steps done over steps to do, 0 to 1.",
        lambda s: _one(s.progress.ratio, _project(s)),
    ),
    Metric(
        "hf_training_eta_seconds",
        "gauge",
        PROJECT,
        "run",
        "Time until training ends, at its mean pace; absent below 2 % of the run.",
        lambda s: _one(s.progress.eta_seconds, _project(s)),
    ),
    Metric(
        "hf_training_predicted_energy_kwh",
        "gauge",
        PROJECT,
        "run",
        "Energy of the whole run, extrapolated from the steps done; absent below 2 % of the run.",
        lambda s: _one(_forecast(s, lambda f: f.joules / 3.6e6), _project(s)),
        fold="add",
    ),
    Metric(
        "hf_training_predicted_co2_kg",
        "gauge",
        (*PROJECT, "factor_type"),
        "run",
        "CO2e of the whole run, extrapolated from the steps done; absent below 2 % of the run.",
        lambda s: _one(_forecast(s, lambda f: f.grams / 1000), _project(s), s.factor.factor_type),
        fold="add",
    ),
    Metric(
        "hf_training_predicted_cost_usd",
        "gauge",
        (*PROJECT, "currency"),
        "run",
        "Cost of the whole run in `currency`, extrapolated from the steps done; absent below 2 % and without a price.",
        lambda s: _one(_forecast(s, lambda f: f.cost), _project(s), s.tariff.currency),
        fold="add",
    ),
    Metric(
        "hf_training_samples_total",
        "counter",
        PROJECT,
        "run",
        "Samples trained.",
        lambda s: _one(s.progress.samples, _project(s)),
    ),
    Metric(
        "hf_training_tokens_total",
        "counter",
        PROJECT,
        "run",
        "Tokens trained, as the Trainer or TRL counts them; absent when they do not.",
        lambda s: _one(s.progress.tokens, _project(s)),
    ),
    Metric(
        "hf_training_flops_total",
        "counter",
        PROJECT,
        "run",
        "Floating point operations, as the Trainer estimates them at each log and save; absent before.",
        lambda s: _one(s.progress.flops, _project(s)),
    ),
    Metric(
        "hf_training_failed_steps_total",
        "counter",
        (*PROJECT, "reason"),
        "run",
        "Steps that were lost, by reason.",
        lambda s: (((_project(s), reason), count) for reason, count in s.progress.failed_steps),
    ),
    Metric(
        "hf_training_joules_per_token",
        "gauge",
        PROJECT,
        "run",
        "Device energy per token trained, over the whole run.",
        lambda s: _one(_joules_per(s, s.progress.tokens_by_now), _project(s)),
    ),
    Metric(
        "hf_training_joules_per_sample",
        "gauge",
        PROJECT,
        "run",
        "Device energy per sample trained, over the whole run.",
        lambda s: _one(_joules_per(s, s.progress.samples), _project(s)),
    ),
    Metric(
        "hf_training_flops_per_joule",
        "gauge",
        PROJECT,
        "run",
        "Floating point operations per joule of device energy, over the whole run.",
        lambda s: _one(_per_joule(s, s.progress.flops_by_now), _project(s)),
    ),
    Metric(
        "hf_training_device_energy_joules_total",
        "counter",
        ("component", "device", "basis", "host"),
        "totals",
        "Energy of one device in this run; basis says measured, modelled or simulated.",
        lambda s: (((d.component, d.uuid, d.basis, h.host), d.joules) for h in s.hosts for d in h.devices),
    ),
    Metric(
        "hf_training_phase_energy_joules_total",
        "counter",
        ("phase", "host"),
        "totals",
        "Device energy by what the Trainer was doing.",
        lambda s: (((phase, h.host), footprint.joules) for h in s.hosts for phase, footprint in h.phases),
    ),
    Metric(
        "hf_training_wasted_energy_joules_total",
        "counter",
        (*PROJECT, "host"),
        "totals",
        "Device energy of steps that a resume rolled back; part of the run's energy.",
        _by_host(lambda h: h.wasted.joules),
    ),
    Metric(
        "hf_training_budget_used_ratio",
        "gauge",
        (*PROJECT, "budget", "scope", "period"),
        "run",
        "Share of a budget (carbon, energy or cost) that is used, 1 where it is spent; absent when none is set.",
        lambda s: (((_project(s), b.kind, b.scope, b.period), b.used_ratio) for b in s.budgets),
    ),
    Metric(
        "hf_training_observed_ratio",
        "gauge",
        (),
        "host",
        "Share of the wall time for which the energy of the devices is known, 0 to 1.",
        lambda s: _one(s.observed_ratio),
    ),
    Metric(
        "hf_training_grid_carbon_intensity",
        "info",
        ("source", "factor_type", "year", "assumed"),
        "exporter",
        "Where the grid factor comes from; assumed is true where the world average stands in for an unknown place.",
        lambda s: _one(1.0, s.factor.source, s.factor.factor_type, str(s.factor.year or ""), str(s.factor.assumed).lower()),
    ),
    Metric(
        "hf_training_grid_carbon_intensity_age_seconds",
        "gauge",
        PLACE,
        "exporter",
        "Age of a live grid factor; absent for a yearly one.",
        lambda s: _one(s.factor.age_seconds, s.factor.country, s.factor.region),
    ),
    Metric(
        "hf_training_baseline_power_watts",
        "gauge",
        ("component",),
        "device",
        "Draw before training: GPUs as first read, the models' idle draw for CPU and DRAM.",
        _baselines,
    ),
    Metric(
        "hf_training_step_duration_seconds",
        "histogram",
        (*PROJECT, "le"),
        "run",
        "Duration of optimizer steps.",
        _histogram,
    ),
    Metric(
        "hf_training_grad_norm",
        "gauge",
        PROJECT,
        "run",
        "Gradient norm as last logged.",
        lambda s: _one(s.progress.grad_norm, _project(s)),
    ),
    Metric(
        "hf_training_tick_duration_seconds",
        "gauge",
        (),
        "host",
        "Duration of the last measurement, driver calls included.",
        lambda s: _one(s.tick_seconds),
    ),
    Metric(
        "hf_training_journal_bytes_total",
        "counter",
        (),
        "host",
        "Bytes written to the run's journal by this process; absent without a journal.",
        lambda s: _one(s.journal_bytes),
    ),
    Metric(
        "hf_training_process_cpu_seconds_total",
        "counter",
        (),
        "host",
        "CPU time of a measured command and all its descendants; only for `hf-eco2ai monitor`.",
        lambda s: _one(None if s.tree is None else s.tree.cpu_seconds),
    ),
    Metric(
        "hf_training_processes",
        "gauge",
        (),
        "host",
        "Processes of a measured command; only for `hf-eco2ai monitor`.",
        lambda s: _one(None if s.tree is None or s.state != "running" else s.tree.processes),
        fold="add",
    ),
)


def exposed_name(metric: Metric) -> str:
    """The name that a query uses."""
    return metric.name + "_info" if metric.kind == "info" else metric.name


def markdown_table() -> str:
    """The contract as a table, for docs/metrics.md and `hf-eco2ai metrics`."""
    return as_table((exposed_name(m), m.kind, (*m.labels, *SCOPE_LABELS[m.scope]), m.help) for m in METRICS)


def as_table(families: Iterable[tuple[str, Kind, Values, str]]) -> str:
    """Name, type, labels and meaning of families, as a table."""
    lines = ["| family | type | labels | meaning |", "|---|---|---|---|"]
    for name, kind, labels, said in families:
        lines.append(f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {said} |")
    return "\n".join(lines)
