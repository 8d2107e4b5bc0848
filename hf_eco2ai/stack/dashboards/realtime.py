"""Real-time Carbon Monitoring: what is going on this minute."""

from dataclasses import replace

from hf_eco2ai.stack.dashboards import common, operations, style
from hf_eco2ai.stack.dashboards import queries as q
from hf_eco2ai.stack.dashboards.common import CO2_RATE, POWER
from hf_eco2ai.stack.dashboards.dashboard import Dashboard, Row
from hf_eco2ai.stack.dashboards.kinds import Gauge, Stat, Timeseries
from hf_eco2ai.stack.dashboards.panels import Query
from hf_eco2ai.stack.thresholds import Thresholds

_DIAL = 2
"""Dials go to this many times the threshold, so that it stands in the middle."""


def dashboard(t: Thresholds) -> Dashboard:
    """For a screen on the wall. Prometheus scrapes every 15 s, so most looks show the same as the one before."""
    return Dashboard(
        uid="hf-realtime",
        title="HF Eco2AI Real-time Carbon Monitoring",
        description="Emissions, power, cost and GPUs of the runs that are on, drawn anew every 5 seconds.",
        begin="now-15m",
        refresh="5s",
        rows=(
            Row("Now", (*_dials(t), _cost(t), common.running(6), _age(t))),
            Row("The last minutes", (_co2(t), common.power_over_time(t), _phases(), _cpu())),
            Row("GPUs", operations.gpus(t)),
            Row("Training", (_loss(), operations.samples(), operations.step_durations(0.95))),
            Row("Alerts", (common.alerts(height=6),)),
        ),
    )


def _dials(t: Thresholds) -> tuple[Gauge, ...]:
    figures = (
        (
            "Live CO₂ rate",
            "kg CO₂e per hour",
            q.total(CO2_RATE, "factor_type"),
            "{{factor_type}}",
            style.MASS,
            "high_carbon_rate_kg_per_hour",
        ),
        ("Live power", "Power of the devices", f"1000 * {q.total(POWER)}", "power", style.POWER, "high_power_watts"),
    )
    return tuple(
        Gauge(
            title=title,
            description=(
                f"{what} of all chosen runs together. Orange from the alert's threshold for one run, red from twice that."
            ),
            queries=(Query(expr, legend, "instant"),),
            unit=unit,
            minimum=0,
            maximum=_DIAL * t.number(limit),
            thresholds=style.high_is_bad(t.number(limit), _DIAL * t.number(limit)),
        )
        for title, what, expr, legend, unit, limit in figures
    )


def _cost(t: Thresholds) -> Stat:
    """No dial, which would not show the currency."""
    return replace(common.rates(t)[2], title="Live cost rate", width=6, height=6)


def _age(t: Thresholds) -> Stat:
    measured = q.live(q.of_hosts("hf_training_last_update_timestamp", function="max"))
    return Stat(
        title="Oldest figure",
        description=(
            "Since when the run that was not measured for longest, of those that live, was measured last. Red: it is stale."
        ),
        queries=(Query(f"time() - min ({measured})", "age", "instant"),),
        unit=style.SECONDS,
        width=3,
        height=6,
        decimals=0,
        thresholds=style.steps((t.number("stale_seconds"), style.BAD)),
    )


def _co2(t: Thresholds) -> Timeseries:
    return Timeseries(
        title="CO₂e per hour",
        description="kg CO₂e per hour of each run. Dashed: the alert's threshold for one run.",
        queries=(Query(q.of_hosts(CO2_RATE, "factor_type"), q.LEGEND),),
        unit=style.MASS,
        limits=True,
        thresholds=style.line(t.number("high_carbon_rate_kg_per_hour")),
    )


def _phases() -> Timeseries:
    return Timeseries(
        title="Power by phase",
        description="What the energy goes into right now, of all chosen runs.",
        queries=(Query(q.growth_by_label(operations.PHASE, "phase"), "{{phase}}"),),
        unit=style.POWER,
        stacked=True,
        overrides=common.PHASES,
    )


def _cpu() -> Timeseries:
    return Timeseries(
        title="CPU power",
        description="Power of the CPUs of hosts on which chosen runs are; modelled where it cannot be measured.",
        queries=(Query(q.devices("hf_training_cpu_power_watts", "basis"), "{{host}} ({{basis}})"),),
        unit=style.POWER,
    )


def _loss() -> Timeseries:
    return Timeseries(
        title="Training loss",
        description="Training loss as last logged. A gap: it is no number.",
        queries=(Query(q.live(q.of_runs("hf_training_loss")), q.LEGEND),),
        unit=style.NUMBER,
        width=8,
        minimum=None,
    )
