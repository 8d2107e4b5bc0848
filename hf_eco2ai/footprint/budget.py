"""Budgets of CO₂e, energy and money: what is spent of them, when to say so, and when to stop."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone

from hf_eco2ai.records import BudgetKind, BudgetPeriod, BudgetScope, BudgetStatus, Footprint, Forecast

LEVELS = (0.5, 0.8, 1.0)
"""Shares of a budget at which its use is said."""

AMOUNTS: dict[BudgetKind, Callable[[Footprint], float | None]] = {
    "carbon": lambda f: f.kg,
    "energy": lambda f: f.kwh,
    "cost": lambda f: f.cost,
}

_UNITS: dict[BudgetKind, tuple[tuple[float, str], ...]] = {
    "carbon": ((1.0, "kg CO₂e"), (1e-3, "g CO₂e"), (1e-6, "mg CO₂e")),
    "energy": ((1.0, "kWh"), (1e-3, "Wh"), (1 / 3.6e6, "J")),
}

_WORDS: dict[BudgetPeriod, str] = {"none": "", "day": " today (UTC)", "month": " this month (UTC)"}


@dataclass(frozen=True)
class Budget:
    """A limit in kg CO₂e, kWh, or money. An energy budget is of device energy, without PUE, as `energy_kwh` is."""

    kind: BudgetKind
    limit: float
    scope: BudgetScope = "run"
    period: BudgetPeriod = "none"


@dataclass(frozen=True)
class Spent:
    """What the journals say about a period, beside what this attempt uses."""

    since_unix: float
    """Begin of the period; 0 where there is none."""
    others: Footprint = field(default_factory=Footprint)
    """Used in it by the other runs of the project."""
    not_counted: Footprint = field(default_factory=Footprint)
    """Of what this run had used before this attempt, what was used before the period."""


def period_start(now_unix: float, period: BudgetPeriod) -> float:
    """When the day or month (UTC) of an instant began, in Unix seconds; 0 where there is no period."""
    if period == "none":
        return 0.0
    midnight = datetime.fromtimestamp(now_unix, timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight.replace(day=1) if period == "month" else midnight).timestamp()


class Budgets:
    """Judges a run's total against its budgets, at every tick. Says each level once, by `say`.

    `spent` is replaced by one assignment, from the thread that reads the journals.
    """

    def __init__(
        self,
        budgets: Sequence[Budget],
        say: Callable[[str], None],
        *,
        inherited: Footprint = Footprint(),  # noqa: B008 - frozen
        stops: bool = False,
        currency: str = "USD",
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._budgets = tuple(budgets)
        self._say = say
        self._stops = stops
        self._currency = currency
        self._wall = wall
        self._inherited = inherited
        self._period: BudgetPeriod = budgets[0].period if budgets else "none"
        self._since = period_start(wall(), self._period)
        self._before = Footprint()
        """What this attempt had used when the present period began."""
        self.spent = self._unread()
        self._said: set[tuple[str, float | str]] = set()
        self.exhausted = False
        """Whether a budget is spent and training shall stop. Falls back when a new period begins."""

    def judge(self, total: Footprint, forecast: Forecast | None) -> tuple[BudgetStatus, ...]:
        """How each budget stands, given the run's total and its forecast."""
        if not self._budgets:
            return ()
        start = period_start(self._wall(), self._period)
        if start != self._since:
            self._since, self._before = start, total - self._inherited
            self._said.clear()
        spent = self.spent
        if spent.since_unix != start:  # The journals have not been read since the period began.
            spent = self._unread()
        statuses = tuple(self._status(budget, total, forecast, spent) for budget in self._budgets)
        for status in statuses:
            self._tell(status)
        self.exhausted = self._stops and any(status.spent >= status.limit for status in statuses)
        return statuses

    def _unread(self) -> Spent:
        """What was used before this attempt counts in a period only where a journal says that it was used in it."""
        return Spent(self._since, not_counted=self._inherited if self._period != "none" else Footprint())

    def _status(self, budget: Budget, total: Footprint, forecast: Forecast | None, known: Spent) -> BudgetStatus:
        amount = AMOUNTS[budget.kind]
        used = amount(total) or 0.0
        earlier = (amount(known.not_counted) or 0.0) + (amount(self._before) or 0.0)
        spent = min(used, max(0.0, used - earlier))
        if budget.scope == "project":
            spent += amount(known.others) or 0.0
        predicted = None
        # The end of the run may lie in another period, so a periodic budget is not forecast by it.
        if forecast is not None and budget.period == "none":
            whole = amount(Footprint(forecast.joules, forecast.grams, forecast.cost))
            predicted = None if whole is None else spent + whole - used
        return BudgetStatus(budget.kind, budget.limit, spent, predicted, budget.scope, budget.period)

    def _tell(self, status: BudgetStatus) -> None:
        reached = [level for level in LEVELS if status.used_ratio >= level]
        of_project = status.scope == "project"
        if reached and (status.kind, reached[-1]) not in self._said:
            self._said.update((status.kind, level) for level in reached)
            whose = ("the project" if of_project else "this run") + _WORDS[status.period]
            then = ""
            if reached[-1] >= 1:
                then = " It is asked to stop." if self._stops else " Set budget_action='stop' to stop such runs."
            self._say(
                f"{math.floor(100 * status.used_ratio)} % of the {status.kind} budget of {whose} is spent: "
                f"{self._amount(status.kind, status.spent)} of {self._amount(status.kind, status.limit)}.{then}"
            )
        predicted = status.predicted
        if predicted is None or predicted <= status.limit or reached[-1:] == [1.0]:
            return
        if (status.kind, "forecast") not in self._said:
            self._said.add((status.kind, "forecast"))
            self._say(
                f"At its present pace this run will bring the {status.kind} budget{' of the project' if of_project else ''} to "
                f"{math.floor(100 * predicted / status.limit)} %: {self._amount(status.kind, predicted)} of "
                f"{self._amount(status.kind, status.limit)}."
            )

    def _amount(self, kind: BudgetKind, value: float) -> str:
        """Three digits, or all before the point, in the unit that fits."""
        units = _UNITS.get(kind, ((1.0, self._currency),))
        size, unit = next(((s, u) for s, u in units if value >= s), units[-1])
        scaled = value / size
        return f"{scaled:,.0f} {unit}" if scaled >= 100 else f"{scaled:.3g} {unit}"  # noqa: PLR2004
