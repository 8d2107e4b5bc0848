"""HF Eco2AI Carbon Tracking: what did it cost so far, and will it stay in budget."""

from hf_eco2ai.stack.dashboards import common, style
from hf_eco2ai.stack.dashboards import queries as q
from hf_eco2ai.stack.dashboards.common import CO2, CO2_RATE, ENERGY
from hf_eco2ai.stack.dashboards.dashboard import Dashboard, Row
from hf_eco2ai.stack.dashboards.kinds import Bars, Column, Heatmap, Table, Timeseries
from hf_eco2ai.stack.dashboards.panels import Override, Query
from hf_eco2ai.stack.thresholds import Thresholds

BUDGET = "hf_training_carbon_budget_kg"
EFFICIENCY = "hf_training_samples_per_kwh"


def dashboard(t: Thresholds) -> Dashboard:
    """The guide's own."""
    return Dashboard(
        uid="hf-carbon-tracking",
        title="HF Eco2AI Carbon Tracking",
        description="What the chosen runs have emitted, used and cost so far, and whether they will stay in budget.",
        rows=(
            Row("So far, and now", (*common.headline(t), *common.rates(t))),
            Row("Will it stay in budget?", (common.budgets(t, width=10), _against_budget(), _forecast(t))),
            Row("CO₂e and energy over time", (_rate(t), _grid(), _power(), _energy())),
            Row("What is got for it", (_efficiency_by_hour(), _efficiency())),
            Row("Where it comes from", (*_shares(), common.phases(width=8))),
            Row("Alerts", (common.alerts(height=7),)),
        ),
    )


def _against_budget() -> Timeseries:
    dashed = {
        "custom.lineStyle": {"fill": "dash", "dash": [10, 10]},
        "custom.fillOpacity": 0,
        "custom.lineWidth": 2,
        "custom.hideFrom": {"legend": True, "tooltip": False, "viz": False},  # the legend has room for the runs
    }
    return Timeseries(
        title="CO₂e against the budget",
        description=(
            "CO₂e of each run so far. Dashed: its carbon budget, that of the whole project where the budget is the project's."
        ),
        queries=(
            Query(q.of_hosts(CO2, "factor_type"), f"{q.LEGEND} ({{{{factor_type}}}})"),
            Query(q.of_runs(BUDGET), f"budget: {q.LEGEND}"),
        ),
        unit=style.MASS,
        width=14,
        overrides=(Override("B", dashed, "byFrameRefID"),),
    )


def _forecast(t: Thresholds) -> Table:
    """Asked in the order of the columns."""
    predicted = "hf_training_predicted_co2_kg"
    share = f"{q.run(predicted, 'factor_type')} / on (run_id) group_left () {q.run(BUDGET)}"
    nearly = t.number("budget_nearly_spent_ratio")
    asked = (
        q.of_hosts(CO2, "factor_type"),
        q.of_runs(predicted, "factor_type"),
        q.of_runs(BUDGET),
        q.with_names(share),
        q.of_runs("hf_training_predicted_energy_kwh"),
        q.of_runs("hf_training_predicted_cost_usd", "currency"),
        q.of_runs("hf_training_progress_ratio"),
        q.of_runs("hf_training_eta_seconds"),
    )
    return Table(
        title="Forecast of runs that are on",
        description=(
            "What each run has emitted, and what it will have emitted, used and cost at its end, at its mean pace so far. "
            "A forecast is there from 2 % of the steps on. Over 100 % of the budget it will exceed it; a project's budget is "
            "also spent by its other runs."
        ),
        queries=tuple(Query(q.live(expr), kind="table") for expr in asked),
        columns=(
            *common.run_columns(),
            Column("factor_type", "Factor"),
            Column("A", "CO₂e", common.unit(style.MASS)),
            Column("B", "CO₂e end", common.unit(style.MASS)),
            Column("C", "Budget", common.unit(style.MASS)),
            Column("D", "Of budget", {"unit": style.SHARE, **common.bar(style.high_is_bad(nearly, 1))}),
            Column("E", "Energy end", common.unit(style.ENERGY)),
            Column("F", "Cost end", common.unit(style.MONEY)),
            Column("currency", "Currency"),
            Column("G", "Done", {"unit": style.SHARE, **common.bar(style.plain())}),
            Column("H", "To go", common.unit(style.DURATION)),
        ),
        sort="Of budget",
    )


def _rate(t: Thresholds) -> Timeseries:
    return Timeseries(
        title="CO₂e per hour",
        description="kg CO₂e per hour of each run, at the grid intensity of the time. Dashed: the alert's threshold for one run.",
        queries=(Query(q.of_hosts(CO2_RATE, "factor_type"), q.LEGEND),),
        unit=style.MASS,
        limits=True,
        thresholds=style.line(t.number("high_carbon_rate_kg_per_hour")),
    )


def _grid() -> Timeseries:
    expr = 'max by (country, region, factor_type) (hf_training_grid_carbon_intensity_g_per_kwh{country!=""})'
    return Timeseries(
        title="Grid carbon intensity",
        description="The factor in use, in g CO₂e per kWh: a line per place and kind of factor, of all runs that are served.",
        queries=(Query(expr, "{{country}} {{region}} {{factor_type}}"),),
        unit=style.NUMBER,
        axis="g CO₂e per kWh",
    )


def _power() -> Timeseries:
    return Timeseries(
        title="Energy consumption over time",
        description="Energy per hour by project, which is its power: what the guide asks for as the rate of the energy.",
        queries=(Query(f"1000 * {q.by_name(common.POWER, 'project_name')}", "{{project_name}}"),),
        unit=style.POWER,
        stacked=True,
    )


def _energy() -> Timeseries:
    return Timeseries(
        title="Energy so far",
        description="Device energy by project. Runs that are served no more stay in it for as long as the time range is.",
        queries=(Query(q.by_name(ENERGY, "project_name", window=q.SEEN), "{{project_name}}"),),
        unit=style.ENERGY,
        stacked=True,
    )


def _efficiency_by_hour() -> Heatmap:
    return Heatmap(
        title="Training efficiency by hour",
        description=(
            "How many samples per kWh runs trained, whole runs so far: the brighter, the more often in that hour. "
            "Higher is better."
        ),
        queries=(Query(q.of_runs(EFFICIENCY), q.LEGEND),),
        unit=style.COUNT,
        bucket="1h",
        axis="samples per kWh",
    )


def _efficiency() -> Timeseries:
    return Timeseries(
        title="Samples per kWh",
        description="Samples that each run got from a kWh, over the whole run so far. Compare runs of one model only.",
        queries=(Query(q.of_runs(EFFICIENCY), q.LEGEND),),
        unit=style.COUNT,
        axis="samples per kWh",
    )


def _of_each(name: str) -> str:
    return q.falling(q.by_name(CO2, name, "factor_type", window=q.SEEN))


def _shares() -> tuple[Bars, ...]:
    of = {"project": "project_name", "model": "model_name"}
    return tuple(
        Bars(
            title=f"CO₂e by {title}",
            description=f"CO₂e so far of each {title}, of the runs that were seen in the time range.",
            queries=(
                Query(
                    _of_each(name),
                    f"{{{{{name}}}}} ({{{{factor_type}}}})",
                    "instant",
                ),
            ),
            unit=style.MASS,
            width=8,
        )
        for title, name in of.items()
    )
