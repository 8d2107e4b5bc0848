"""Panels that several dashboards have in the same form, and links between them."""

from hf_eco2ai.stack.budgets import USED
from hf_eco2ai.stack.dashboards import queries as q
from hf_eco2ai.stack.dashboards import style
from hf_eco2ai.stack.dashboards.kinds import Bars, Column, Stat, Table, Timeseries
from hf_eco2ai.stack.dashboards.panels import Override, Query
from hf_eco2ai.stack.dashboards.style import Json
from hf_eco2ai.stack.thresholds import Thresholds

RUN_DETAIL = "hf-run-detail"

CO2, ENERGY, COST = "hf_training_co2_kg_total", "hf_training_energy_kwh_total", "hf_training_estimated_cost_usd"
CO2_RATE = "hf_training_co2_rate_kg_per_hour"
POWER = "hf_training_energy_rate_kwh_per_hour"
COST_RATE = "hf_training_cost_rate_usd_per_hour"


def link_to_run() -> Json:
    """From a row to its run, with the time range and the other variables."""
    url = f"/d/{RUN_DETAIL}?${{__url_time_range}}&${{datasource:queryparam}}&var-run=${{__data.fields.run_id}}"
    return {"links": [{"title": "This run in detail", "url": url, "targetBlank": False}]}


def link_to(uid: str, variable: str, label: str) -> Json:
    """From a row to another dashboard, of what the row is of."""
    url = f"/d/{uid}?${{__url_time_range}}&${{datasource:queryparam}}&var-{variable}=${{__data.fields.{label}}}"
    return {"links": [{"title": "Its runs", "url": url, "targetBlank": False}]}


def run_columns() -> tuple[Column, ...]:
    """Who a run is."""
    return (
        Column("project_name", "Project"),
        Column("experiment_name", "Experiment", {"custom.width": 95}),
        Column("model_name", "Model", {"custom.width": 190}),
        Column("run_id", "Run", {"custom.width": 120, **link_to_run()}),
    )


def unit(name: str, **more: object) -> Json:
    """Of a column."""
    return {"unit": name, **more}


def bar(bounds: Json, top: float = 1) -> Json:
    """A column whose cells are bars, as wide as their share of the largest that there may be."""
    cell = {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"}
    return {"custom.cellOptions": cell, "custom.width": 100, "decimals": 1, "min": 0, "max": top, "thresholds": bounds}


def tinted(bounds: Json) -> Json:
    """A column whose cells have the colour of what they say."""
    return {"custom.cellOptions": {"type": "color-text"}, "thresholds": bounds}


def state_column(of: str) -> Column:
    """A run's state in words."""
    return Column(of, "State", {"mappings": style.words(style.STATES), **tinted(style.plain())})


def headline(t: Thresholds) -> tuple[Stat, ...]:
    """What the runs have used so far."""
    so_far = "so far, of the chosen runs that were seen in the time range; what they used before it is in it."
    return (
        Stat(
            title="Total CO₂e emissions",
            description=f"CO₂e {so_far} PUE is included. Kinds of grid factors stand apart, since they do not add up.",
            queries=(Query(q.total(CO2, "factor_type", window=q.SEEN), "{{factor_type}}", "instant"),),
            unit=style.MASS,
            named=True,
            thresholds=style.high_is_bad(t.number("high_emissions_kg")),
        ),
        Stat(
            title="Energy",
            description=f"Energy of the devices {so_far} PUE is not included.",
            queries=(Query(q.total(ENERGY, window=q.SEEN), "energy", "instant"),),
            unit=style.ENERGY,
        ),
        Stat(
            title="Cost",
            description=f"Energy and compute {so_far} In the currency of the runs' settings; no data where they have no price.",
            queries=(Query(q.total(COST, "currency", window=q.SEEN), "{{currency}}", "instant"),),
            unit=style.MONEY,
            named=True,
        ),
    )


def rates(t: Thresholds) -> tuple[Stat, ...]:
    """What the runs use now."""
    return (
        Stat(
            title="CO₂e per hour now",
            description=(
                "kg CO₂e per hour at the power and the grid intensity of now. Orange from the alert's threshold for one run."
            ),
            queries=(Query(q.total(CO2_RATE, "factor_type"), "{{factor_type}}", "instant"),),
            unit=style.MASS,
            named=True,
            thresholds=style.high_is_bad(t.number("high_carbon_rate_kg_per_hour")),
        ),
        Stat(
            title="Power now",
            description="Power of the devices of the chosen runs. Orange from the alert's threshold for one run on one host.",
            queries=(Query(f"1000 * {q.total(POWER)}", "power", "instant"),),
            unit=style.POWER,
            thresholds=style.high_is_bad(t.number("high_power_watts")),
        ),
        Stat(
            title="Cost per hour now",
            description="Energy and compute, per hour, in the currency of the runs' settings.",
            queries=(Query(q.total(COST_RATE, "currency"), "{{currency}}", "instant"),),
            unit=style.MONEY,
            named=True,
            thresholds=style.high_is_bad(t.number("high_cost_per_hour")),
        ),
    )


BUDGET_USED = "hf_training_budget_used_ratio"
OF_BUDGET = ("budget", "scope", "period")


def budgets(t: Thresholds, **more: int) -> Bars:
    """How much of each budget is used. That of a project is recorded: what its newest runs tell of it, as the alerts take it."""
    of_runs = q.of_runs(f'{BUDGET_USED}{{scope="run"}}', *OF_BUDGET, window=q.SEEN)
    of_projects = f'last_over_time({USED}{{scope="project", project_name=~"$project"}}[{q.SEEN}])'
    nearly = t.number("budget_nearly_spent_ratio")
    return Bars(
        title="Budgets used",
        description=(
            "Share of each budget that is spent: 100 % is all of it. Budgets of projects are one for all runs of the project. "
            f"Orange from {nearly:.0%}, red when it is spent, as in the alerts."
        ),
        queries=(
            Query(q.falling(_period(of_runs)), f"{q.LEGEND}: {{{{budget}}}} {{{{period}}}}", "instant"),
            Query(
                _period(f"max by (project_name, {', '.join(OF_BUDGET)}) ({of_projects})"),
                "all of {{project_name}}: {{budget}} {{period}}",
                "instant",
            ),
        ),
        unit=style.SHARE,
        maximum=1,
        thresholds=style.high_is_bad(nearly, 1),
        **more,  # type: ignore[arg-type]
    )


def running(height: int) -> Stat:
    """How many runs live."""
    return Stat(
        title="Runs that are on",
        description="Chosen runs that live now.",
        queries=(Query(q.chosen_runs("hf_training_running"), "runs", "instant"),),
        unit=style.COUNT,
        width=3,
        height=height,
    )


def _period(budget: str) -> str:
    """Nothing is said of a period where there is none."""
    return f'label_replace({budget}, "period", "", "period", "none")'


PHASES = tuple(
    Override(phase, {"color": {"mode": "fixed", "fixedColor": colour}}) for phase, colour in style.PHASE_COLOURS.items()
)


def phases(**more: int) -> Bars:
    """Which phase burns the energy."""
    return Bars(
        title="Energy by phase",
        description=(
            "What the energy went into, of all that the chosen runs used so far: setup, training steps, evaluation, "
            "saving, idling."
        ),
        queries=(
            Query(
                f"{q.by_label('hf_training_phase_energy_joules_total', 'phase', window=q.SEEN)} / 3.6e6", "{{phase}}", "instant"
            ),
        ),
        unit=style.ENERGY,
        overrides=PHASES,
        **more,  # type: ignore[arg-type]
    )


_SEVERITIES = {"critical": "red", "warning": "orange", "info": "blue"}
SEVERITIES = tuple(
    Override(severity, {"color": {"mode": "fixed", "fixedColor": colour}}) for severity, colour in _SEVERITIES.items()
)


def alerts(**more: int) -> Table:
    """What fires now."""
    coloured = {name: {"text": name, "color": colour, "index": index} for index, (name, colour) in enumerate(_SEVERITIES.items())}
    severities: Json = {"mappings": [{"type": "value", "options": coloured}]}
    label = ("alertname", "severity", "category", "project_name", "model_name", "run_id", "host")
    titles = ("Alert", "Severity", "Category", "Project", "Model", "Run", "Host")
    special = {"severity": {**severities, "custom.cellOptions": {"type": "color-text"}}, "run_id": link_to_run()}
    return Table(
        title="Firing alerts",
        description="Alerts on the chosen projects and runs, and on what is of no project. None: nothing fires.",
        nothing=style.NONE,
        queries=(Query(f"group by ({', '.join(label)}) ({q.ALERTS})", kind="table"),),
        unit=style.NUMBER,
        columns=tuple(Column(of, title, special.get(of, {})) for of, title in zip(label, titles, strict=True)),
        sort="Severity",
        descending=False,  # critical first, as it happens
        **more,  # type: ignore[arg-type]
    )


def power_over_time(t: Thresholds, **more: int) -> Timeseries:
    """Of each run."""
    return Timeseries(
        title="Power over time",
        description="Power of each run's devices on all its hosts. Dashed: the alert's threshold for one host.",
        queries=(Query(f"1000 * ({q.of_hosts(POWER)})", q.LEGEND),),
        unit=style.POWER,
        limits=True,
        thresholds=style.line(t.number("high_power_watts")),
        **more,  # type: ignore[arg-type]
    )
