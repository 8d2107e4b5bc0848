"""HF Eco2AI Run Detail: what one run used, in which phase and part of the machine, and what it got for it."""

from hf_eco2ai.stack.dashboards import common, operations, style
from hf_eco2ai.stack.dashboards import queries as q
from hf_eco2ai.stack.dashboards.dashboard import Dashboard, Row
from hf_eco2ai.stack.dashboards.kinds import Bars, Column, Heatmap, Stat, Table, Timeseries
from hf_eco2ai.stack.dashboards.panels import Query
from hf_eco2ai.stack.promql import once
from hf_eco2ai.stack.thresholds import Thresholds

DEVICE = "hf_training_device_energy_joules_total"
PHASE = operations.PHASE


def dashboard(t: Thresholds) -> Dashboard:
    """For tuning."""
    return Dashboard(
        uid="hf-run-detail",
        title="HF Eco2AI Run Detail",
        description=("One run, to be chosen above: what it used and where, what it got for it, how it learns."),
        begin="now-6h",
        one_run=True,
        rows=(
            Row("What did it cost, and what will it?", (_who(), *common.headline(t), *_progress(t), *_forecasts())),
            Row("Which phase burns the energy?", (common.phases(width=8), _phase_power(), _wasted())),
            Row("Which part of the machine?", (_component_power(), _devices())),
            Row("What does it get for it?", (_efficiency(t), *_per_unit())),
            Row("How does it learn?", (_loss(t), *_learning())),
            Row(
                "How fast?",
                (operations.step_durations(0.5, 0.95), operations.samples(), operations.tokens(), _step_heatmap(), _steps()),
            ),
            Row("GPUs", operations.gpus(t)),
            Row("Errors", (operations.failed_steps(), _errors())),
        ),
    )


def _who() -> Table:
    labels = ("run_id", *q.NAMES, "trainer", "host", "country", "region", "basis")
    info = once(
        f"last_over_time(hf_training_run_info{{run_id!='', {q.CHOSEN}, {q.CHOSEN_HOST}}}[{q.SEEN}])", *labels, pick="group"
    )
    return Table(
        title="Which run is it?",
        description="What the run is, a line for each host, and how far its energy is measured.",
        queries=(Query(info, kind="table"),),
        unit=style.NUMBER,
        height=5,
        columns=(
            *common.run_columns(),
            Column("trainer", "Trainer"),
            Column("host", "Host"),
            Column("country", "Country"),
            Column("region", "Region"),
            Column("basis", "Measured or modelled"),
        ),
        sort="Run",
    )


def _progress(t: Thresholds) -> tuple[Stat, ...]:
    return (
        Stat(
            title="Done",
            description="Steps that are done, of those to do.",
            queries=(Query(q.of_runs("hf_training_progress_ratio", window=q.SEEN), q.LEGEND, "instant"),),
            unit=style.SHARE,
        ),
        Stat(
            title="Time to go",
            description="At its mean pace so far; there from 2 % of the steps on.",
            queries=(Query(q.of_runs("hf_training_eta_seconds"), q.LEGEND, "instant"),),
            unit=style.DURATION,
        ),
        Stat(
            title="Efficiency score",
            description=(
                "Share of its energy that went into training steps, times the use of its GPUs: 1 is best. Orange below "
                "the alert's threshold."
            ),
            queries=(Query(q.of_runs("hf_training_efficiency_score", window=q.SEEN), q.LEGEND, "instant"),),
            unit=style.SHARE,
            thresholds=style.low_is_bad(t.number("low_efficiency_score")),
        ),
    )


def _forecasts() -> tuple[Stat, ...]:
    said = "of the whole run when it ends, at its mean pace so far. No data below 2 % of the steps and when it has ended."
    figures = (
        ("CO₂e at the end", "hf_training_predicted_co2_kg", "factor_type", style.MASS),
        ("Energy at the end", "hf_training_predicted_energy_kwh", "", style.ENERGY),
        ("Cost at the end", "hf_training_predicted_cost_usd", "currency", style.MONEY),
    )
    budget = Stat(
        title="Carbon budget",
        description="The run's, or its whole project's. No data: none is set.",
        queries=(Query(q.of_runs("hf_training_carbon_budget_kg", window=q.SEEN), q.LEGEND, "instant"),),
        unit=style.MASS,
        width=6,
    )
    return (
        *(
            Stat(
                title=title,
                description=f"{title.split()[0]} {said}",
                queries=(Query(q.of_runs(metric, *filter(None, (kind,))), f"{{{{{kind or 'run_id'}}}}}", "instant"),),
                unit=unit,
                width=6,
                named=bool(kind),
            )
            for title, metric, kind, unit in figures
        ),
        budget,
    )


def _phase_power() -> Timeseries:
    return Timeseries(
        title="Power by phase",
        description=("What the energy goes into while it is used: setup, training steps, evaluation, saving, idling."),
        queries=(Query(q.growth_by_label(PHASE, "phase"), "{{phase}}"),),
        unit=style.POWER,
        width=10,
        stacked=True,
        overrides=common.PHASES,
    )


def _wasted() -> Stat:
    wasted = q.of_hosts("hf_training_wasted_energy_joules_total", window=q.SEEN)
    return Stat(
        title="Energy of steps done again",
        description="Energy of steps that a resume rolled back, so that they were done again; part of the run's energy.",
        queries=(Query(f"{wasted} / 3.6e6", q.LEGEND, "instant"),),
        unit=style.ENERGY,
        width=6,
        height=8,
    )


def _component_power() -> Timeseries:
    return Timeseries(
        title="Power by component",
        description="Power of GPUs, CPUs and memory; measured, modelled and simulated apart.",
        queries=(Query(q.growth_by_label(DEVICE, "component", "basis", over=("device",)), "{{component}} ({{basis}})"),),
        unit=style.POWER,
        stacked=True,
    )


def _devices() -> Bars:
    energy = q.by_label(DEVICE, "component", "device", "basis", window=q.SEEN)
    return Bars(
        title="Energy by device",
        description="Energy so far of each device. GPUs by their UUID.",
        queries=(Query(f"{energy} / 3.6e6", "{{component}} {{device}} ({{basis}})", "instant"),),
        unit=style.ENERGY,
    )


def _efficiency(t: Thresholds) -> Timeseries:
    return Timeseries(
        title="Efficiency score over time",
        description="Share of its energy in training steps, times the use of its GPUs. Dashed: the alert's threshold.",
        queries=(Query(q.of_runs("hf_training_efficiency_score"), q.LEGEND),),
        unit=style.SHARE,
        width=6,
        maximum=1,
        limits=True,
        thresholds=style.line(t.number("low_efficiency_score")),
    )


def _per_unit() -> tuple[Timeseries, ...]:
    figures = (
        ("Samples per kWh", "hf_training_samples_per_kwh", style.COUNT, "Samples for a kWh of device energy. More is better."),
        ("Joules per token", "hf_training_joules_per_token", style.JOULES, "Device energy for a token. Less is better."),
        ("Floating point operations per joule", "hf_training_flops_per_joule", style.COUNT, "As the Trainer estimates them."),
    )
    return tuple(
        Timeseries(
            title=title,
            description=f"{said} Over the whole run so far.",
            queries=(Query(q.of_runs(metric), q.LEGEND),),
            unit=unit,
            width=6,
        )
        for title, metric, unit, said in figures
    )


def _loss(t: Thresholds) -> Timeseries:
    return Timeseries(
        title="Loss",
        description="Training and evaluation loss as last logged. A gap: it is no number. Dashed: the alert's threshold.",
        queries=(
            Query(q.of_runs("hf_training_loss"), f"training {q.LEGEND}"),
            Query(q.of_runs("hf_training_eval_loss"), f"evaluation {q.LEGEND}"),
        ),
        unit=style.NUMBER,
        minimum=None,
        limits=True,
        thresholds=style.line(t.number("high_loss")),
    )


def _learning() -> tuple[Timeseries, ...]:
    figures = (
        ("Learning rate", "hf_training_learning_rate", style.SMALL, "Learning rate as last logged."),
        ("Gradient norm", "hf_training_grad_norm", style.NUMBER, "Norm of the gradient as last logged."),
    )
    return tuple(
        Timeseries(title=title, description=said, queries=(Query(q.of_runs(metric), q.LEGEND),), unit=unit, width=6, decimals=2)
        for title, metric, unit, said in figures
    )


def _step_heatmap() -> Heatmap:
    steps = q.growth_by_label(f"{operations.STEPS}_bucket", "le", hosted=False)
    return Heatmap(
        title="How long steps take",
        description="Steps per second by how long they took: a second band is a second kind of step.",
        queries=(Query(steps, "{{le}}", "heatmap"),),
        unit=style.SECONDS,
    )


def _steps() -> Timeseries:
    return Timeseries(
        title="Steps done",
        description="Optimizer steps of each run, those before a resume included.",
        queries=(Query(q.of_runs("hf_training_step_count"), q.LEGEND),),
        unit=style.COUNT,
    )


def _errors() -> Bars:
    return Bars(
        title="Monitoring errors",
        nothing=style.NONE,
        description="What went wrong in measuring, by type, so far. What each type means is in the runbook MonitoringErrors.",
        queries=(
            Query(
                f"{q.by_label('hf_training_monitoring_errors_total', 'error_type', window=q.SEEN)} > 0",
                "{{error_type}}",
                "instant",
            ),
        ),
        unit=style.COUNT,
        thresholds=style.high_is_bad(1),
    )
