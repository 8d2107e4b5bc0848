"""HF Eco2AI Operations: how are the runs, which one is wasteful and why. The golden signals of trainings."""

from hf_eco2ai.stack.dashboards import common, style
from hf_eco2ai.stack.dashboards import queries as q
from hf_eco2ai.stack.dashboards.common import CO2, COST, ENERGY, POWER
from hf_eco2ai.stack.dashboards.dashboard import Dashboard, Row
from hf_eco2ai.stack.dashboards.kinds import Column, Table, Timeline, Timeseries
from hf_eco2ai.stack.dashboards.panels import Query
from hf_eco2ai.stack.thresholds import Thresholds

PHASE = "hf_training_phase_energy_joules_total"
STEPS = "hf_training_step_duration_seconds"
GPU = ("gpu_id", "gpu_model")
MUCH = 0.25
"""Share of a run's energy that is much for anything but training; ours, of a look and no alert."""
GPU_LEGEND = "{{host}} GPU {{gpu_id}}"


def dashboard(t: Thresholds) -> Dashboard:
    """For ML engineers."""
    return Dashboard(
        uid="hf-operations",
        title="HF Eco2AI Operations",
        description="How the runs are, which of them is wasteful and why: latency, traffic, errors and saturation.",
        begin="now-6h",
        rows=(
            Row("How are the runs?", (_states(), _runs(), common.alerts(height=6))),
            Row(
                "Which run is wasteful, and why?",
                (_wasteful(t), common.phases(width=8), _idle_machines(), common.power_over_time(t, width=8)),
            ),
            Row("Latency and traffic", (step_durations(0.95), samples(), tokens())),
            Row("Errors", (failed_steps(), _monitoring_errors())),
            Row("Saturation", (*gpus(t), *_machines())),
        ),
    )


def _states() -> Timeline:
    return Timeline(
        title="Runs over time",
        description="Each run's state. Lost: its process has ended without saying so. A gap: nobody served it then.",
        queries=(Query(q.with_names(q.STATE), q.LEGEND),),
        unit=style.NUMBER,
        mappings=tuple(style.words(style.STATES)),
    )


def _runs() -> Table:
    asked = (
        q.with_names(q.STATE),
        q.of_runs("hf_training_progress_ratio"),
        q.live(q.of_runs("hf_training_eta_seconds")),
        f"1000 * ({q.of_hosts(POWER)})",
        q.of_runs("hf_training_samples_per_second"),
        q.of_runs("hf_training_loss"),
        q.of_hosts(ENERGY),
        q.of_hosts(CO2, "factor_type"),
        q.of_hosts(COST, "currency"),
    )
    return Table(
        title="Runs",
        description="Runs that are served now. A run's id leads to its details.",
        queries=tuple(Query(expr, kind="table") for expr in asked),
        columns=(
            *common.run_columns(),
            common.state_column("A"),
            Column("B", "Done", {"unit": style.SHARE, **common.bar(style.plain())}),
            Column("C", "To go", common.unit(style.DURATION)),
            Column("D", "Power", common.unit(style.POWER)),
            Column("E", "Samples/s", common.unit(style.COUNT)),
            Column("F", "Loss", common.unit(style.NUMBER, decimals=4)),
            Column("G", "Energy", common.unit(style.ENERGY)),
            Column("H", "CO₂e", common.unit(style.MASS)),
            Column("factor_type", "Factor"),
            Column("I", "Cost", common.unit(style.MONEY)),
            Column("currency", "Currency"),
        ),
        sort="Energy",
    )


def _wasteful(t: Thresholds) -> Table:
    """Not training: setup, evaluation, saves and idling. Rolled back: trained again after a resume."""
    whole = q.hosts(PHASE, over=("phase",), window=q.SEEN)

    def share(part: str) -> str:
        return q.with_names(f"{part} / on (run_id) ({whole} > 0)", q.SEEN)

    asked = (
        q.of_hosts(ENERGY, window=q.SEEN),
        q.of_runs("hf_training_efficiency_score", window=q.SEEN),
        share(q.hosts(f'{PHASE}{{phase="setup"}}', over=("phase",), window=q.SEEN)),
        share(q.hosts(f'{PHASE}{{phase="evaluate"}}', over=("phase",), window=q.SEEN)),
        share(q.hosts(f'{PHASE}{{phase="save"}}', over=("phase",), window=q.SEEN)),
        share(q.hosts(f'{PHASE}{{phase="idle"}}', over=("phase",), window=q.SEEN)),
        share(q.hosts("hf_training_wasted_energy_joules_total", window=q.SEEN)),
        q.of_runs("hf_training_samples_per_kwh", window=q.SEEN),
        q.of_runs("hf_training_joules_per_token", window=q.SEEN),
    )
    part = {"unit": style.SHARE, **common.bar(style.high_is_bad(MUCH))}
    score = {"unit": style.SHARE, **common.bar(style.low_is_bad(t.number("low_efficiency_score")))}
    return Table(
        title="Where each run's energy goes",
        description=(
            "Of each run in the time range: its efficiency score (share of its energy in training steps times use of its "
            "GPUs), and the "
            "shares of its energy that trained nothing, orange from a quarter on. Rolled back: steps that a resume did "
            "again. Compare "
            "samples per kWh and joules per token of runs of one model."
        ),
        queries=tuple(Query(expr, kind="table") for expr in asked),
        columns=(
            *common.run_columns(),
            Column("A", "Energy", common.unit(style.ENERGY)),
            Column("B", "Score", score),
            Column("C", "Setup", part),
            Column("D", "Evaluate", part),
            Column("E", "Save", part),
            Column("F", "Idle", part),
            Column("G", "Rolled back", part),
            Column("H", "Samples/kWh", {"unit": style.COUNT, "custom.width": 105}),
            Column("I", "J/token", common.unit(style.JOULES)),
        ),
        sort="Energy",
    )


def _idle_machines() -> Timeseries:
    counter = f"rate(hf_node_unattributed_energy_joules_total{{{q.CHOSEN_HOST}}}[$__rate_interval])"
    expr = f"sum by (host) (max by (host, component, device) ({counter}))"
    return Timeseries(
        title="Power that no run claims",
        description=(
            "What machines draw while no run is on them, as their daemons measure it: GPUs that wait, CPU and memory at rest."
        ),
        queries=(Query(expr, "{{host}}"),),
        unit=style.POWER,
        width=8,
    )


def step_durations(*shares: float) -> Timeseries:
    """The latency of a training: how long a share of the steps took at most."""
    said = ", ".join(f"{share:.0%} of them took less than p{share * 100:.0f}" for share in shares)
    return Timeseries(
        title="Step duration",
        description=f"Optimizer steps lately: {said}. Known as exactly as the histogram's buckets.",
        queries=tuple(Query(q.live(q.quantile(share, STEPS)), f"p{share * 100:.0f} {q.LEGEND}") for share in shares),
        unit=style.SECONDS,
        width=8,
    )


def samples() -> Timeseries:
    """The traffic of a training."""
    return Timeseries(
        title="Samples per second",
        description="Samples trained per second, between the last steps that ended.",
        queries=(Query(q.of_runs("hf_training_samples_per_second"), q.LEGEND),),
        unit=style.COUNT,
        width=8,
    )


def tokens() -> Timeseries:
    """The traffic of a training of a language model."""
    return Timeseries(
        title="Tokens per second",
        description="Tokens trained per second. No data where the Trainer does not count them (include_num_input_tokens_seen).",
        queries=(Query(q.with_names(q.growth("hf_training_tokens_total", hosted=False)), q.LEGEND),),
        unit=style.COUNT,
        width=8,
    )


def failed_steps() -> Timeseries:
    """The errors of a training."""
    return Timeseries(
        title="Failed steps",
        nothing=style.NONE,
        description=(
            "Steps that were lost so far, by reason: a loss or a gradient that is no number, out of memory, an exception."
        ),
        queries=(Query(f"{q.of_runs('hf_training_failed_steps_total', 'reason')} > 0", f"{{{{reason}}}} {q.LEGEND}"),),
        unit=style.COUNT,
    )


def _monitoring_errors() -> Timeseries:
    return Timeseries(
        title="Monitoring errors",
        nothing=style.NONE,
        description=(
            "What went wrong in measuring the chosen runs so far, by type. The trainings go on; figures may be incomplete."
        ),
        queries=(Query(f"{q.by_label('hf_training_monitoring_errors_total', 'error_type')} > 0", "{{error_type}}"),),
        unit=style.COUNT,
    )


def gpus(t: Thresholds) -> tuple[Timeseries, ...]:
    """How full, hot and busy the GPUs are."""
    busy, memory, heat, power = (
        Query(q.devices(f"hf_training_gpu_{what}", *GPU), GPU_LEGEND)
        for what in ("utilization_percent", "memory_usage_percent", "temperature_celsius", "power_watts")
    )
    hot, critical = t.number("gpu_hot_celsius"), t.number("gpu_critical_celsius")
    of_hosts = "GPUs of hosts on which chosen runs are."
    return (
        Timeseries(
            title="GPU use",
            description=(
                f"Share of time in which each GPU had work. {of_hosts} Dashed: below it a GPU of a live run does nothing."
            ),
            queries=(busy,),
            unit=style.PERCENT,
            width=6,
            maximum=100,
            limits=True,
            thresholds=style.line(t.number("gpu_idle_percent")),
        ),
        Timeseries(
            title="GPU memory",
            description=f"Share of each GPU's memory that is in use. {of_hosts} Dashed: the alert's threshold.",
            queries=(memory,),
            unit=style.PERCENT,
            width=6,
            maximum=100,
            limits=True,
            thresholds=style.line(t.number("gpu_memory_percent")),
        ),
        Timeseries(
            title="GPU temperature",
            description=f"{of_hosts} Dashed: the alerts' thresholds, hot and critical.",
            queries=(heat,),
            unit=style.CELSIUS,
            width=6,
            limits=True,
            thresholds=style.line(hot, critical),
        ),
        Timeseries(
            title="GPU power",
            description=f"Power of each GPU. {of_hosts}",
            queries=(power,),
            unit=style.POWER,
            width=6,
        ),
    )


def _machines() -> tuple[Timeseries, ...]:
    """Of the node exporter. Its machines are told by their own names, which in containers are not those of the runs."""
    name = "* on (instance) group_left (nodename) group by (instance, nodename) (node_uname_info)"
    cpu = f'(1 - avg by (instance) (rate(node_cpu_seconds_total{{mode="idle"}}[$__rate_interval]))) {name}'
    free = 'max by (instance) (node_memory_MemAvailable_bytes{job!=""}) / max by (instance) (node_memory_MemTotal_bytes{job!=""})'
    return (
        Timeseries(
            title="CPU use of machines",
            description="Share of all cores that is busy, as the node exporter says, of all machines that it is on.",
            queries=(Query(cpu, "{{nodename}} {{instance}}"),),
            unit=style.SHARE,
            maximum=1,
        ),
        Timeseries(
            title="Memory use of machines",
            description=(
                "Share of the memory that is not available to programs, as the node exporter says, of all machines that it is on."
            ),
            queries=(Query(f"(1 - {free}) {name}", "{{nodename}} {{instance}}"),),
            unit=style.SHARE,
            maximum=1,
        ),
    )
