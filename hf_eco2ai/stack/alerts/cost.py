"""Alerts on money. Every figure is in its own currency, and currencies are never added."""

from hf_eco2ai.stack.alerts import Alert
from hf_eco2ai.stack.alerts.shares import Kind
from hf_eco2ai.stack.alerts.texts import OF_WHAT, label, number
from hf_eco2ai.stack.promql import averaged, once, while_running, with_model
from hf_eco2ai.stack.thresholds import Thresholds

DASHBOARD = "hf-executive-overview"

_MONEY = f"{number('.2f')} {label('currency')}"


def alerts(t: Thresholds) -> tuple[Alert, ...]:
    """Those of the category cost."""
    return (_rate(t), *_budget(t).alerts(t))


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


def _budget(t: Thresholds) -> Kind:
    cost = f"last_over_time(hf_training_estimated_cost_usd{{run_id=%q}}[{t['budget_kept_for']}])"
    return Kind(
        budget="cost",
        query=f"sum by (currency) ({once(cost, 'currency', 'host')})",
        each='{{ . | value | printf "%.2f" }} {{ .Labels.currency }}',
        dashboard=DASHBOARD,
    )
