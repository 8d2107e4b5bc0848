"""HF Eco2AI Data Quality: can the numbers be trusted. What is measured, with which grid factor, and does the monitoring work."""

from hf_eco2ai.stack.dashboards import common, style
from hf_eco2ai.stack.dashboards import queries as q
from hf_eco2ai.stack.dashboards.dashboard import Dashboard, Row
from hf_eco2ai.stack.dashboards.kinds import Bars, Column, Stat, Table, Text, Timeline, Timeseries
from hf_eco2ai.stack.dashboards.panels import Override, Query
from hf_eco2ai.stack.promql import once
from hf_eco2ai.stack.thresholds import Thresholds

DEVICE = "hf_training_device_energy_joules_total"
ERRORS = "hf_training_monitoring_errors_total"
AGE = "hf_training_grid_carbon_intensity_age_seconds"
JOBS = 'job=~"hf-eco2ai.*"'
"""The daemon's and the runs' own endpoints', as prometheus.yml names them."""

_READ = (
    "**Measured** energy comes from counters of the hardware, **modelled** from a model of what cannot be measured "
    "here, **simulated** is "
    "made up for demonstrations. What was not observed is missing from all figures, never filled in: call them a "
    "lower bound. CO₂e is that "
    "energy times a grid factor, so a factor that is assumed or old makes CO₂e wrong, and energy not."
)
_UP = {0: ("down", style.BAD), 1: ("up", style.GOOD)}


def dashboard(t: Thresholds) -> Dashboard:
    """For who doubts a number."""
    return Dashboard(
        uid="hf-data-quality",
        title="HF Eco2AI Data Quality",
        description=(
            "Whether the numbers can be trusted: what is measured and how much of the time, the grid factor, the "
            "monitoring itself."
        ),
        rows=(
            Row(
                "Is it measured?",
                (Text("How to read this", _READ, "What the words mean."), _basis(), _observed(t), _each_run(t)),
            ),
            Row("Is CO₂e right?", (_assumed(), _factors(), _intensity(), _ages(t))),
            Row("Were there errors?", (_errors(t), _errors_over_time(t), _since_update(t))),
            Row("Does the monitoring work?", (_up(), _scrape_duration(), _series(t), *_daemon())),
            Row("Alerts", (common.alerts(height=6),)),
        ),
    )


def _basis() -> Bars:
    energy = q.by_label(DEVICE, "component", "basis", over=("device",), window=q.SEEN)
    whole = f"sum ({energy}) > 0"
    return Bars(
        title="Share of the energy that is measured",
        description="Of the chosen runs' energy so far, by part of the machine: measured, modelled or simulated.",
        queries=(Query(f"{energy} / on () group_left () ({whole})", "{{component}} {{basis}}", "instant"),),
        unit=style.SHARE,
        maximum=1,
        overrides=tuple(
            Override(f"/{basis}$/", {"color": {"mode": "fixed", "fixedColor": colour}}, "byRegexp")
            for basis, colour in style.BASES.items()
        ),
    )


def _observed(t: Thresholds) -> Timeseries:
    limit = t.number("low_coverage_ratio")
    return Timeseries(
        title="Share of the time that is observed",
        description=(
            f"For how much of its time a run's energy is known, on the host where least is. Dashed: below {limit:.0%} is "
            "an alert."
        ),
        queries=(Query(q.of_hosts("hf_training_observed_ratio", function="min"), q.LEGEND),),
        unit=style.SHARE,
        maximum=1,
        limits=True,
        thresholds=style.line(limit),
    )


def _each_run(t: Thresholds) -> Table:
    labels = ("run_id", "trainer", "basis", "country", "region")
    measured = q.hosts(f'{DEVICE}{{basis="measured"}}', over=("component", "device"), window=q.SEEN)
    whole = q.hosts(DEVICE, over=("component", "device", "basis"), window=q.SEEN)
    asked = (
        q.of_runs("hf_training_run_info", *labels[1:], window=q.SEEN),
        q.with_names(f"{measured} / on (run_id) ({whole} > 0)", q.SEEN),
        q.of_hosts("hf_training_observed_ratio", window=q.SEEN, function="min"),
        q.of_hosts(ERRORS, over=("error_type",), window=q.SEEN),
        f"1000 * ({q.of_hosts('hf_training_last_update_timestamp', window=q.SEEN, function='max')})",
        q.of_hosts("hf_training_tick_duration_seconds", window=q.SEEN, function="max"),
    )
    observed = {"unit": style.SHARE, **common.bar(style.low_is_bad(t.number("low_coverage_ratio")))}
    return Table(
        title="How each run is measured",
        description=(
            "Country WORLD: nobody said where the run is, and the world's average is assumed. Measurement: how long the "
            "last one took, on "
            "the slowest host."
        ),
        queries=tuple(Query(expr, kind="table") for expr in asked),
        columns=(
            *common.run_columns(),
            Column("basis", "Basis"),
            Column("B", "Measured", {"unit": style.SHARE, **common.bar(style.plain())}),
            Column("C", "Observed time", observed),
            Column("country", "Country"),
            Column("region", "Region"),
            Column("D", "Errors", {"unit": style.COUNT, **common.tinted(style.high_is_bad(1))}),
            Column("E", "Last measured", {"unit": style.AGO, "custom.width": 140}),
            Column("F", "Measurement", common.unit(style.SECONDS)),
        ),
        sort="Errors",
    )


def _assumed() -> Stat:
    runs = q.of_runs('hf_training_run_info{country="WORLD"}', window=q.SEEN)
    return Stat(
        title="Runs without a place",
        description="Runs that do not know where they are, so that the world's average stands in. None: all know it.",
        nothing=style.NONE,
        queries=(Query(f"count ({runs})", "runs", "instant"),),
        unit=style.COUNT,
        height=8,
        thresholds=style.high_is_bad(1),
    )


def _factors() -> Table:
    labels = ("source", "factor_type", "year", "assumed")
    expr = once('last_over_time(hf_training_grid_carbon_intensity_info{source!=""}[$__range])', *labels, pick="group")
    return Table(
        title="Grid factors in use",
        description=(
            "Where the factors come from, of which year they are, and whether one is assumed; of all runs in the time range."
        ),
        queries=(Query(expr, kind="table"),),
        unit=style.NUMBER,
        width=8,
        columns=(
            Column("source", "Source"),
            Column("factor_type", "Kind"),
            Column("year", "Year"),
            Column("assumed", "Assumed"),
        ),
        sort="Year",
    )


def _intensity() -> Timeseries:
    expr = 'max by (country, region, factor_type) (hf_training_grid_carbon_intensity_g_per_kwh{country!=""})'
    return Timeseries(
        title="Grid carbon intensity",
        description="The factor in use, in g CO₂e per kWh: a line per place and kind of factor, of all runs that are served.",
        queries=(Query(expr, "{{country}} {{region}} {{factor_type}}"),),
        unit=style.NUMBER,
        width=6,
        axis="g CO₂e per kWh",
    )


def _ages(t: Thresholds) -> Timeseries:
    return Timeseries(
        title="Age of live grid factors",
        description="How old each live factor is; yearly ones have no age. Dashed: older than this is an alert.",
        nothing="no live factor",
        queries=(Query(f'max by (country, region) ({AGE}{{country!=""}})', "{{country}} {{region}}"),),
        unit=style.SECONDS,
        width=6,
        limits=True,
        thresholds=style.line(t.number("grid_factor_age_seconds")),
    )


def _errors(t: Thresholds) -> Bars:
    return Bars(
        title="Monitoring errors",
        nothing=style.NONE,
        description=(
            "What went wrong in measuring the chosen runs so far, by type. What each means is in the runbook MonitoringErrors."
        ),
        queries=(Query(f"{q.by_label(ERRORS, 'error_type', window=q.SEEN)} > 0", "{{error_type}}", "instant"),),
        unit=style.COUNT,
        width=8,
        thresholds=style.high_is_bad(1, t.number("errors_in_window")),
    )


def _errors_over_time(t: Thresholds) -> Timeseries:
    return Timeseries(
        title="Monitoring errors of each run",
        description=f"Errors so far. {t['errors_in_window']} within {t['errors_window']} are an alert.",
        queries=(Query(q.of_hosts(ERRORS, over=("error_type",)), q.LEGEND),),
        unit=style.COUNT,
        width=8,
    )


def _since_update(t: Thresholds) -> Timeseries:
    return Timeseries(
        title="Age of figures",
        description=(
            "Since when each run was measured last. It grows when a run has ended. Dashed: a live run that is older is stale."
        ),
        queries=(Query(f"time() - ({q.of_hosts('hf_training_last_update_timestamp', function='max')})", q.LEGEND),),
        unit=style.SECONDS,
        width=8,
        limits=True,
        thresholds=style.line(t.number("stale_seconds")),
    )


def _up() -> Timeline:
    return Timeline(
        title="Exporters",
        description="Whether each daemon and each run's own endpoint answers. A run's own endpoint goes with the run.",
        queries=(Query(f"max by (job, instance) (up{{{JOBS}}})", "{{job}} {{instance}}"),),
        unit=style.NUMBER,
        height=5,
        mappings=tuple(style.words(_UP)),
    )


def _scrape_duration() -> Timeseries:
    return Timeseries(
        title="Scrape duration",
        description="How long Prometheus waits for each exporter's answer; after 10 seconds it gives up.",
        queries=(Query(f"max by (job, instance) (scrape_duration_seconds{{{JOBS}}})", "{{job}} {{instance}}"),),
        unit=style.SECONDS,
        width=8,
    )


def _series(t: Thresholds) -> Timeseries:
    return Timeseries(
        title="Series",
        description="Series that each exporter shows. Dashed: more are an alert (HighCardinality).",
        queries=(Query(f"max by (job, instance) (scrape_samples_post_metric_relabeling{{{JOBS}}})", "{{job}} {{instance}}"),),
        unit=style.COUNT,
        width=8,
        limits=True,
        thresholds=style.line(t.number("series_of_target")),
    )


def _daemon() -> tuple[Timeseries, ...]:
    figures = (
        ("Runs of daemons", "hf_exporter_runs", "state", style.COUNT, "Runs that each daemon serves, by state."),
        ("Lines refused", "hf_exporter_lines_refused_total", "reason", style.COUNT, "Lines of journals that could not be used."),
        ("Failures of daemons", "hf_exporter_failures_total", "error_type", style.COUNT, "What else went wrong, by type."),
        (
            "Look at the runs folder",
            "hf_exporter_look_duration_seconds",
            "",
            style.SECONDS,
            "How long each daemon's last look took.",
        ),
    )
    return tuple(
        Timeseries(
            title=title,
            description=said,
            queries=(
                Query(
                    f"{once(f'{metric}{{{JOBS}}}', *filter(None, (label,)), 'instance')}",
                    f"{{{{instance}}}} {{{{{label or 'job'}}}}}",
                ),
            ),
            unit=unit,
            width=8,
            nothing=style.NONE if label == "error_type" else style.NO_DATA,
        )
        for title, metric, label, unit, said in figures
    )
