"""Alerts on money. Every figure is in its own currency, and currencies are never added."""

from hf_eco2ai.stack import budgets
from hf_eco2ai.stack.alerts import Alert
from hf_eco2ai.stack.alerts.texts import OF_WHAT, PERCENT, WHOSE_BUDGET, label, number
from hf_eco2ai.stack.promql import averaged, while_running, with_model
from hf_eco2ai.stack.thresholds import Thresholds

DASHBOARD = "hf-executive-overview"

_MONEY = f"{number('.2f')} {label('currency')}"


def alerts(t: Thresholds) -> tuple[Alert, ...]:
    """Those of the category cost."""
    return (_rate(t), _nearly_spent(t), _exceeded(t))


def _rate(t: Thresholds) -> Alert:
    limit, window = t["high_cost_per_hour"], t["high_cost_for"]
    mean = averaged("hf_training_cost_rate_usd_per_hour", window, "run_id", "host", "currency")
    return Alert(
        name="HighCostRate",
        severity="warning",
        expr=with_model(while_running(f"sum by (run_id, currency) {mean} > {limit}")),
        summary=f"{OF_WHAT} costs {_MONEY} per hour",
        description=f"Over the last {window} the run cost {_MONEY} per hour on all its hosts, energy and GPU hours together.",
        action="See whether all its GPUs are used; take fewer, cheaper or spot machines, or raise high_cost_per_hour.",
        value=f"{_MONEY} per hour",
        limit=f"{limit} {label('currency')} per hour",
        dashboard=DASHBOARD,
    )


def _spent(kept: str) -> str:
    """What the run has cost so far, where that is what its budget counts. Else only the share of the budget is exposed."""
    cost = f"sum by (currency) (max by (currency, host) (last_over_time(hf_training_estimated_cost_usd{{run_id=%q}}[{kept}])))"
    each = (
        "{{ range query (printf `"
        + cost
        + '` $labels.run_id) }}: {{ . | value | printf "%.2f" }} {{ .Labels.currency }}{{ end }}'
    )
    return '{{ if and $labels.run_id (eq $labels.period "none") }}' + each + "{{ end }}"


def _nearly_spent(t: Thresholds) -> Alert:
    """It goes on at 100 %, silenced by CostBudgetExceeded: if it ended, people were told of an end just before that."""
    kept, ratio = t["budget_kept_for"], t["budget_nearly_spent_ratio"]
    return Alert(
        name="CostBudgetNearlySpent",
        severity="warning",
        expr=f"{budgets.used('cost', kept)} >= {ratio}",
        summary=f"{PERCENT} of the cost budget of {WHOSE_BUDGET} is spent",
        description=f"{PERCENT} of the budget are spent{_spent(kept)}.",
        action="See in the forecast whether the rest is enough; if not, stop early, train less, or agree on a larger budget.",
        value=f"{PERCENT} of the budget{_spent(kept)}",
        limit="100% of the cost budget",
        dashboard=DASHBOARD,
    )


def _exceeded(t: Thresholds) -> Alert:
    kept = t["budget_kept_for"]
    return Alert(
        name="CostBudgetExceeded",
        severity="critical",
        expr=f"{budgets.used('cost', kept)} >= 1",
        summary=f"The cost budget of {WHOSE_BUDGET} is spent: {PERCENT}",
        description=f"{PERCENT} of the budget are spent{_spent(kept)}.",
        action="Stop the training now (budget_action='stop' does it by itself), or agree on a larger budget.",
        value=f"{PERCENT} of the budget{_spent(kept)}",
        limit="100% of the cost budget",
        dashboard=DASHBOARD,
    )
