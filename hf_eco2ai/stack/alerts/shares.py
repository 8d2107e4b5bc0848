"""Alerts on budgets of which only the share used is exposed: those of energy and of money."""

from dataclasses import dataclass

from hf_eco2ai.stack import budgets
from hf_eco2ai.stack.alerts import Alert
from hf_eco2ai.stack.alerts.texts import PERCENT, WHOSE_BUDGET
from hf_eco2ai.stack.thresholds import Thresholds


@dataclass(frozen=True)
class Kind:
    """One kind of budget. `each` writes one answer of `query`: what the run (`%q`) has used, with its unit.

    It is said where that is what the budget counts: of a run, without a period.
    """

    budget: str
    query: str
    each: str
    dashboard: str

    def alerts(self, t: Thresholds) -> tuple[Alert, ...]:
        """Nearly spent, and spent."""
        return (self._nearly_spent(t), self._exceeded(t))

    def _used(self) -> str:
        answers = f"{{{{ range query (printf `{self.query}` $labels.run_id) }}}}: {self.each}{{{{ end }}}}"
        return f'{{{{ if and $labels.run_id (eq $labels.period "none") }}}}{answers}{{{{ end }}}}'

    def _nearly_spent(self, t: Thresholds) -> Alert:
        """It goes on at 100 %, silenced by the other: if it ended, people were told of an end just before that."""
        return Alert(
            name=f"{self.budget.capitalize()}BudgetNearlySpent",
            severity="warning",
            expr=f"{budgets.used(self.budget, t['budget_kept_for'])} >= {t['budget_nearly_spent_ratio']}",
            summary=f"{PERCENT} of the {self.budget} budget of {WHOSE_BUDGET} is spent",
            description=f"{PERCENT} of the budget are spent{self._used()}.",
            action="See in the forecast whether the rest is enough; if not, stop early, train less, or agree on a larger budget.",
            value=f"{PERCENT} of the budget{self._used()}",
            limit=f"100% of the {self.budget} budget",
            dashboard=self.dashboard,
        )

    def _exceeded(self, t: Thresholds) -> Alert:
        return Alert(
            name=f"{self.budget.capitalize()}BudgetExceeded",
            severity="critical",
            expr=f"{budgets.used(self.budget, t['budget_kept_for'])} >= 1",
            summary=f"The {self.budget} budget of {WHOSE_BUDGET} is spent: {PERCENT}",
            description=f"{PERCENT} of the budget are spent{self._used()}.",
            action="Stop the training now (budget_action='stop' does it by itself), or agree on a larger budget.",
            value=f"{PERCENT} of the budget{self._used()}",
            limit=f"100% of the {self.budget} budget",
            dashboard=self.dashboard,
        )
