"""Alerts on CO₂e: how much, how fast, and against the budget.

Kinds of grid factor (`factor_type`) are never added: a run whose factors were of two kinds has two figures.
"""

from collections.abc import Callable

from hf_eco2ai.stack import budgets
from hf_eco2ai.stack.alerts import Alert
from hf_eco2ai.stack.alerts.texts import AMOUNT, OF_WHAT, PERCENT, WHOSE_BUDGET, label, number, queried
from hf_eco2ai.stack.promql import RUNNING, averaged, of_run, once, seconds, while_running, with_model
from hf_eco2ai.stack.thresholds import Thresholds

DASHBOARD = "hf-carbon-tracking"


def alerts(t: Thresholds) -> tuple[Alert, ...]:
    """Those of the category carbon."""
    return (_emissions(t), _rate(t), _nearly_spent(t), _exceeded(t), _burning(t), _forecast(t))


def _emissions(t: Thresholds) -> Alert:
    limit = t["high_emissions_kg"]
    return Alert(
        name="HighCarbonEmissions",
        severity="warning",
        expr=with_model(f"{of_run('hf_training_co2_kg_total', 'factor_type')} > {limit}"),
        hold=t["high_emissions_for"],
        summary=f"{OF_WHAT} has emitted {AMOUNT} kg CO₂e",
        description=(
            f"The run has emitted {AMOUNT} kg CO₂e so far ({label('factor_type')} factor, PUE included), more than {limit} kg."
        ),
        action="See which phase used the energy, and whether the run still learns enough to go on.",
        value=f"{AMOUNT} kg CO₂e",
        limit=f"{limit} kg CO₂e",
        dashboard=DASHBOARD,
    )


def _rate(t: Thresholds) -> Alert:
    limit, window = t["high_carbon_rate_kg_per_hour"], t["high_rate_for"]
    mean = averaged("hf_training_co2_rate_kg_per_hour", window, "run_id", "host", "factor_type")
    return Alert(
        name="HighCarbonRate",
        severity="warning",
        expr=with_model(while_running(f"sum by (run_id, factor_type) {mean} > {limit}")),
        summary=f"{OF_WHAT} emits {AMOUNT} kg CO₂e per hour",
        description=f"Over the last {window} the run emitted {AMOUNT} kg CO₂e per hour on all its hosts, more than {limit}.",
        action="Move it to hours or a region with a cleaner grid, or take fewer or better used GPUs.",
        value=f"{AMOUNT} kg CO₂e per hour",
        limit=f"{limit} kg CO₂e per hour",
        dashboard=DASHBOARD,
    )


def _kg(times: str, kept: str, tells: Callable[[str], str]) -> str:
    """The carbon budget of the alert's run or project, times something, in kg: of runs of which one `tells`, else of any.

    A project may have runs with budgets of their own beside, so only runs that tell of the project's budget are asked for it.
    """

    def asked(label: str, scope: str) -> str:
        budget = f"last_over_time(hf_training_carbon_budget_kg{{{label}=%[2]q}}[{kept}])"
        share = f'last_over_time(hf_training_budget_used_ratio{{budget="carbon", scope="{scope}"}}[{kept}])'
        of_scope = f"{budget} and {budgets.SERIES} {share}"
        return f"max({of_scope} and {tells(share)}) or max({of_scope})"

    return queried(times, asked("run_id", "run"), asked("project_name", "project")) + " kg CO₂e"


def _spent(share: str) -> str:
    """Of which the share used is the alert's value: others, or this one before it was resumed, may have another budget."""
    return f"{budgets.SERIES} ({share} == %[3]g)"


def _alive(_: str) -> str:
    return f"on (run_id) ({RUNNING})"


def _spent_and_limit(kept: str) -> tuple[str, str]:
    return _kg("$value", kept, _spent), _kg("1.0", kept, _spent)


def _nearly_spent(t: Thresholds) -> Alert:
    """It goes on at 100 %, silenced by CarbonBudgetExceeded: if it ended, people were told of an end just before that."""
    kept, ratio = t["budget_kept_for"], t["budget_nearly_spent_ratio"]
    spent, limit = _spent_and_limit(kept)
    return Alert(
        name="CarbonBudgetNearlySpent",
        severity="warning",
        expr=f"{budgets.used('carbon', kept)} >= {ratio}",
        summary=f"{PERCENT} of the carbon budget of {WHOSE_BUDGET} is spent",
        description=f"{spent} of {limit} are spent, that is {PERCENT}.",
        action="See in the forecast whether the rest is enough; if not, stop early, train less, or agree on a larger budget.",
        value=f"{spent} ({PERCENT})",
        limit=limit,
        dashboard=DASHBOARD,
    )


def _exceeded(t: Thresholds) -> Alert:
    kept = t["budget_kept_for"]
    spent, limit = _spent_and_limit(kept)
    return Alert(
        name="CarbonBudgetExceeded",
        severity="critical",
        expr=f"{budgets.used('carbon', kept)} >= 1",
        summary=f"The carbon budget of {WHOSE_BUDGET} is spent: {PERCENT}",
        description=f"{spent} are emitted, of a budget of {limit}: {PERCENT}.",
        action="Stop the training now (budget_action='stop' does it by itself), or agree on a larger budget.",
        value=f"{spent} ({PERCENT})",
        limit=limit,
        dashboard=DASHBOARD,
    )


def _burning(t: Thresholds) -> Alert:
    long, short = t["budget_burn_long_window"], t["budget_burn_short_window"]
    times, kept = t["budget_burn_fast"], t["budget_kept_for"]
    end = '{{ if eq $labels.period "none" }}the run{{ else }}the {{ $labels.period }} (UTC){{ end }}'
    fast = budgets.burning("carbon", times, (long, seconds(long)), (short, seconds(short)))
    return Alert(
        name="CarbonBudgetBurningFast",
        severity="warning",
        expr=once(f"\n{fast}\n", "project_name", "model_name", "run_id", *budgets.BUDGET),
        summary=f"The carbon budget of {WHOSE_BUDGET} is spent {number('.3g')} times too fast",
        description=(
            f"In the last {long} it was spent {number('.3g')} times as fast as the pace that would just use it up by the end of "
            f"{end}, and it goes on so. The budget is {_kg('1.0', kept, _alive)}."
        ),
        action="Look for what draws more than was planned; pause what can wait before the budget is gone.",
        value=f"{number('.3g')} times the pace",
        limit=f"{times} times the pace",
        dashboard=DASHBOARD,
    )


def _forecast(t: Thresholds) -> Alert:
    """Only of runs' own budgets: the end of a run may lie in another period, and a project goes on after it."""
    own = 'hf_training_budget_used_ratio{budget="carbon", scope="run", period="none"}'
    budget = f"{once('hf_training_carbon_budget_kg', 'run_id')} and on (run_id) {once(own, 'run_id')} < 1"
    predicted = once("hf_training_predicted_co2_kg", "run_id", "factor_type")
    over = f"{predicted} > on (run_id) group_left () ({budget})"
    limit = _kg("1.0", t["budget_kept_for"], _alive)
    return Alert(
        name="CarbonForecastOverBudget",
        severity="warning",
        expr=with_model(while_running(over)),
        hold=t["forecast_over_budget_for"],
        summary=f"{OF_WHAT} will exceed its carbon budget",
        description=f"At its present pace the run will have emitted {AMOUNT} kg CO₂e when it ends; its budget is {limit}.",
        action="Shorten the run or make it more efficient while there is budget left, or agree on a larger one.",
        value=f"{AMOUNT} kg CO₂e forecast",
        limit=limit,
        dashboard=DASHBOARD,
    )
