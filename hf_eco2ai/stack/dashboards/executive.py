"""HF Eco2AI Executive Overview: what is it all, which project is it of, and will budgets hold."""

from hf_eco2ai.stack.budgets import USED
from hf_eco2ai.stack.dashboards import common, style
from hf_eco2ai.stack.dashboards import queries as q
from hf_eco2ai.stack.dashboards.common import CO2, COST, ENERGY
from hf_eco2ai.stack.dashboards.dashboard import Dashboard, Row
from hf_eco2ai.stack.dashboards.kinds import Bars, Column, Stat, Table, Text, Timeseries
from hf_eco2ai.stack.dashboards.panels import Query
from hf_eco2ai.stack.thresholds import Thresholds

_PROJECT = '{project_name=~"$project"}'
_RECORDED = "It is recorded every 4 minutes, for projects, so the other variables do not narrow it."

_READ = (
    "Figures are of the projects chosen above. **So far** counts all runs that were seen in the time range, whole; "
    "**last 24 hours** and "
    "**last 30 days** count only what was used in that time. Nothing here is filled in: where something is not "
    "known there is no data. "
    "How far to trust a figure: [Data Quality](/d/hf-data-quality?${__url_time_range}&${__all_variables})."
)


def dashboard(t: Thresholds) -> Dashboard:
    """For those who pay and answer for it."""
    return Dashboard(
        uid="hf-executive-overview",
        title="HF Eco2AI Executive Overview",
        description="Emissions, energy and cost of all projects, their budgets, and what they get for it.",
        begin="now-30d",
        refresh="5m",
        rows=(
            Row(
                "What did it cost so far?",
                (
                    *common.headline(t),
                    *(_recorded(*figure) for figure in _FIGURES),
                    Text("How to read this", _READ, "What the figures count."),
                ),
            ),
            Row("Will it stay in budget?", (common.budgets(t, width=14), _worst(t), _firing(), common.running(8))),
            Row("By project", (_projects(), _co2_per_day(), _cost_per_day())),
            Row("Where it goes", (_by_model(), _efficiency(), _runs())),
            Row("Alerts", (common.alerts(height=7),)),
        ),
    )


_FIGURES = (
    ("CO₂e, last 24 hours", CO2, "increase1d", "factor_type", style.MASS),
    ("CO₂e, last 30 days", CO2, "increase30d", "factor_type", style.MASS),
    ("Cost, last 30 days", COST, "increase30d", "currency", style.MONEY),
)


def _recorded(title: str, metric: str, window: str, kind: str, unit: str) -> Stat:
    return Stat(
        title=title,
        description=f"Exactly what runs have added in that time, ended or not. {_RECORDED}",
        queries=(Query(f"sum by ({kind}) (project:{metric}:{window}{_PROJECT})", f"{{{{{kind}}}}}", "instant"),),
        unit=unit,
        named=True,
    )


def _worst(t: Thresholds) -> Stat:
    nearly = t.number("budget_nearly_spent_ratio")
    return Stat(
        title="Budget closest to its end",
        description="The largest share of a budget that is used. Orange when it is nearly spent, red when it is spent.",
        queries=(Query(f"max (last_over_time({USED}{_PROJECT}[{q.SEEN}]))", "used", "instant"),),
        unit=style.SHARE,
        height=8,
        thresholds=style.high_is_bad(nearly, 1),
    )


def _firing() -> Stat:
    return Stat(
        title="Alerts by severity",
        description="Alerts that fire now. None: nothing does.",
        nothing=style.NONE,
        queries=(Query(f"count by (severity) ({q.ALERTS})", "{{severity}}", "instant"),),
        unit=style.COUNT,
        width=3,
        height=8,
        named=True,
        overrides=common.SEVERITIES,
    )


def _projects() -> Table:
    samples = f"sum by (project_name) ({q.of_runs('hf_training_samples_total', window=q.SEEN)})"
    asked = (
        q.by_name(CO2, "project_name", "factor_type", window=q.SEEN),
        q.by_name(ENERGY, "project_name", window=q.SEEN),
        q.by_name(COST, "project_name", "currency", window=q.SEEN),
        f"count by (project_name) ({q.of_runs('hf_training_running', window=q.SEEN)})",
        f"sum by (project_name) ({q.of_runs('hf_training_running')})",
        f"{samples} / {q.by_name(ENERGY, 'project_name', window=q.SEEN)}",
    )
    return Table(
        title="Projects",
        description="Each project's runs that were seen in the time range, whole. A project's name leads to its operations.",
        queries=tuple(Query(expr, kind="table") for expr in asked),
        columns=(
            Column("project_name", "Project", common.link_to("hf-operations", "project", "project_name")),
            Column("A", "CO₂e", common.unit(style.MASS)),
            Column("factor_type", "Factor"),
            Column("B", "Energy", common.unit(style.ENERGY)),
            Column("C", "Cost", common.unit(style.MONEY)),
            Column("currency", "Currency"),
            Column("D", "Runs", common.unit(style.COUNT)),
            Column("E", "Runs that are on", common.unit(style.COUNT)),
            Column("F", "Samples per kWh", common.unit(style.COUNT)),
        ),
        sort="CO₂e",
    )


def _co2_per_day() -> Timeseries:
    expr = f"sum by (project_name, factor_type) (project:{CO2}:increase1d{_PROJECT})"
    return Timeseries(
        title="CO₂e per day",
        description=f"What each project has added in the 24 hours before each column. {_RECORDED}",
        queries=(Query(expr, "{{project_name}} ({{factor_type}})", interval="1d"),),
        unit=style.MASS,
        bars=True,
        stacked=True,
    )


def _cost_per_day() -> Timeseries:
    """Of all projects together, since currencies must not stand on each other."""
    return Timeseries(
        title="Cost per day",
        description=f"What all chosen projects have added in the 24 hours before each column, in each currency. {_RECORDED}",
        queries=(Query(f"sum by (currency) (project:{COST}:increase1d{_PROJECT})", "{{currency}}", interval="1d"),),
        unit=style.MONEY,
        bars=True,
    )


def _by_model() -> Bars:
    return Bars(
        title="Energy by model",
        description="Device energy so far of each model, of the runs that were seen in the time range.",
        queries=(Query(f"topk(10, {q.by_name(ENERGY, 'model_name', window=q.SEEN)})", "{{model_name}}", "instant"),),
        unit=style.ENERGY,
        width=8,
    )


def _efficiency() -> Bars:
    samples = f"sum by (model_name) ({q.of_runs('hf_training_samples_total', window=q.SEEN)})"
    return Bars(
        title="Samples per kWh by model",
        description=(
            "What a kWh trains, of each model's runs in the time range. Higher is better; samples of models differ in size."
        ),
        queries=(Query(f"{samples} / {q.by_name(ENERGY, 'model_name', window=q.SEEN)}", "{{model_name}}", "instant"),),
        unit=style.COUNT,
        width=8,
    )


def _runs() -> Bars:
    dearest = f"topk by (currency) (6, {q.of_hosts(COST, 'currency', window=q.SEEN)})"
    return Bars(
        title="Dearest runs",
        description="The six runs that have cost most, in each currency.",
        queries=(Query(dearest, f"{{{{currency}}}}: {q.LEGEND}", "instant"),),
        unit=style.MONEY,
        width=8,
    )
