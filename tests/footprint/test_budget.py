"""Budgets, with amounts that can be worked out by hand and a clock of our own. Unix times are those of `date -u -d … +%s`."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_eco2ai.footprint.budget import AMOUNTS, Budget, Budgets, Spent, period_start
from hf_eco2ai.records import BudgetKind, BudgetPeriod, BudgetScope, Footprint, Forecast

KWH = 3.6e6

NOON_30_JUNE = 1_782_820_800.0
"""2026-06-30 12:00:00 UTC."""
MIDNIGHT_1_JULY = 1_782_864_000.0


class Wall:
    """A clock on the wall that stands still until it is moved."""

    def __init__(self, seconds: float = NOON_30_JUNE) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds


class Judged:
    """Budgets, and all that they said."""

    def __init__(
        self,
        *budgets: Budget,
        stops: bool = False,
        inherited: Footprint | None = None,
        currency: str = "EUR",
        wall: Wall | None = None,
    ) -> None:
        self.said: list[str] = []
        self.wall = wall or Wall()
        self.budgets = Budgets(
            budgets, self.said.append, inherited=inherited or Footprint(), stops=stops, currency=currency, wall=self.wall
        )

    def spent(self, total: Footprint, forecast: Forecast | None = None) -> float:
        (status,) = self.budgets.judge(total, forecast)
        return status.spent


def kg(amount: float) -> Footprint:
    return Footprint(grams=1000 * amount)


def kwh(amount: float) -> Footprint:
    return Footprint(joules=KWH * amount)


# Units


def test_amounts_are_kg_kwh_without_pue_and_both_costs_together() -> None:
    """7.2 MJ are 2 kWh; 1500 g are 1.5 kg; 0.5 for electricity and 2 for GPU hours are 2.5."""
    used = Footprint(7.2e6, 1500.0, 0.5, 2.0)
    kinds: tuple[BudgetKind, ...] = ("carbon", "energy", "cost")
    assert [AMOUNTS[kind](used) for kind in kinds] == [1.5, 2.0, 2.5]
    judged = Judged(Budget("carbon", 3.0), Budget("energy", 8.0), Budget("cost", 25.0))
    statuses = judged.budgets.judge(used, None)
    assert [(status.spent, status.limit, status.used_ratio) for status in statuses] == [
        (1.5, 3.0, 0.5),
        (2.0, 8.0, 0.25),
        (2.5, 25.0, 0.1),
    ]


def test_a_cost_that_is_not_known_is_nothing_spent_of_a_budget_of_money() -> None:
    judged = Judged(Budget("cost", 10.0), stops=True)
    assert judged.spent(Footprint(1e9, 1e9)) == 0.0
    assert judged.said == []
    assert not judged.budgets.exhausted


def test_without_budgets_nothing_is_judged_said_or_stopped() -> None:
    judged = Judged(stops=True)
    assert judged.budgets.judge(Footprint(1e12, 1e12, 1e6), Forecast(1e15, 1e15, 1e9)) == ()
    assert judged.said == []
    assert not judged.budgets.exhausted


# What is said


def test_each_level_is_said_once() -> None:
    judged = Judged(Budget("carbon", 2.0))
    for used in (0.0, 0.99, 1.0, 1.2, 1.59, 1.6, 1.9, 1.999, 2.0, 2.4, 4.0):
        judged.spent(kg(used))
    assert judged.said == [
        "50 % of the carbon budget of this run is spent: 1 kg CO₂e of 2 kg CO₂e.",
        "80 % of the carbon budget of this run is spent: 1.6 kg CO₂e of 2 kg CO₂e.",
        "100 % of the carbon budget of this run is spent: 2 kg CO₂e of 2 kg CO₂e. Set budget_action='stop' to stop such runs.",
    ]


def test_levels_that_are_passed_at_once_are_one_word() -> None:
    judged = Judged(Budget("energy", 1.0))
    judged.spent(kwh(0.9))
    judged.spent(kwh(0.95))
    assert judged.said == ["90 % of the energy budget of this run is spent: 900 Wh of 1 kWh."]


def test_less_than_all_is_never_said_to_be_all() -> None:
    judged = Judged(Budget("carbon", 1.0))
    judged.spent(kg(0.9999))
    assert judged.said[0].startswith("99 % of the carbon budget")


@pytest.mark.parametrize(
    ("budget", "used", "said"),
    [
        (
            Budget("carbon", 5.0, "project", "month"),
            kg(4.0),
            "80 % of the carbon budget of the project this month (UTC) is spent: 4 kg",
        ),
        (Budget("energy", 1200.0, "run", "day"), kwh(1200.0), "of this run today (UTC) is spent: 1,200 kWh of 1,200 kWh."),
        (
            Budget("cost", 3000.0),
            Footprint(energy_cost=1512.4),
            "50 % of the cost budget of this run is spent: 1,512 EUR of 3,000 EUR",
        ),
        (Budget("carbon", 1e-5), kg(5e-6), "5 mg CO₂e of 10 mg CO₂e."),
    ],
)
def test_what_is_said_names_whose_budget_of_what_period_in_plain_numbers(budget: Budget, used: Footprint, said: str) -> None:
    judged = Judged(budget)
    judged.spent(used)
    assert said in judged.said[0]
    assert "e+" not in judged.said[0]


def test_each_kind_has_levels_of_its_own() -> None:
    judged = Judged(Budget("carbon", 1.0), Budget("energy", 1.0))
    judged.budgets.judge(Footprint(0.6 * KWH, 100.0), None)
    judged.budgets.judge(Footprint(0.6 * KWH, 600.0), None)
    assert [line.split(" of the ")[1].split(" ")[0] for line in judged.said] == ["energy", "carbon"]


# The forecast


def test_a_forecast_that_exceeds_the_budget_is_said_before_any_level_and_once() -> None:
    judged = Judged(Budget("carbon", 2.0))
    for used in (0.1, 0.2):
        judged.spent(kg(used), Forecast(0.0, 2500.0, None))
    assert judged.said == ["At its present pace this run will bring the carbon budget to 125 %: 2.5 kg CO₂e of 2 kg CO₂e."]


def test_a_forecast_within_the_budget_is_not_mentioned() -> None:
    judged = Judged(Budget("carbon", 2.0))
    (status,) = judged.budgets.judge(kg(0.1), Forecast(0.0, 2000.0, None))
    assert status.predicted == pytest.approx(2.0)
    assert judged.said == []


def test_a_forecast_is_not_mentioned_any_more_once_the_budget_is_spent() -> None:
    judged = Judged(Budget("carbon", 2.0))
    judged.spent(kg(2.1), Forecast(0.0, 9000.0, None))
    assert len(judged.said) == 1
    assert judged.said[0].startswith("105 % of the carbon budget")


def test_a_forecast_without_a_cost_predicts_no_money() -> None:
    (status,) = Judged(Budget("cost", 2.0)).budgets.judge(Footprint(energy_cost=1.0), Forecast(1.0, 1.0, None))
    assert status.predicted is None
    (status,) = Judged(Budget("cost", 2.0)).budgets.judge(Footprint(energy_cost=1.0), Forecast(1.0, 1.0, 1.75))
    assert status.predicted == pytest.approx(1.75)


def test_a_budget_of_a_period_is_not_forecast_by_the_end_of_the_run() -> None:
    judged = Judged(Budget("carbon", 2.0, "run", "day"))
    (status,) = judged.budgets.judge(kg(0.1), Forecast(0.0, 1e6, None))
    assert status.predicted is None
    assert judged.said == []


def test_the_forecast_of_a_projects_budget_has_what_the_others_used() -> None:
    """0.5 of ours now, 2 in the end, and 3 of the others."""
    judged = Judged(Budget("energy", 4.0, "project"))
    judged.budgets.spent = Spent(0.0, others=kwh(3.0))
    (status,) = judged.budgets.judge(kwh(0.5), Forecast(2 * KWH, 0.0, None))
    assert status.spent == pytest.approx(3.5)
    assert status.predicted == pytest.approx(5.0)
    assert judged.said[1] == "At its present pace this run will bring the energy budget of the project to 125 %: 5 kWh of 4 kWh."


# Stopping


def test_training_stops_at_a_spent_budget_only_where_that_was_asked_for() -> None:
    for stops in (False, True):
        judged = Judged(Budget("carbon", 1.0), stops=stops)
        judged.spent(kg(0.999))
        assert not judged.budgets.exhausted
        judged.spent(kg(1.0))
        assert judged.budgets.exhausted is stops
        assert judged.said[-1].endswith("It is asked to stop." if stops else "to stop such runs.")


def test_one_spent_budget_of_several_is_enough() -> None:
    judged = Judged(Budget("carbon", 100.0), Budget("energy", 1.0), stops=True)
    judged.budgets.judge(Footprint(1.1 * KWH, 1.0), None)
    assert judged.budgets.exhausted


# What was used before, and by others


def test_what_a_run_used_before_it_was_resumed_counts() -> None:
    assert Judged(Budget("carbon", 10.0), inherited=kg(4.0)).spent(kg(4.5)) == pytest.approx(4.5)


def test_in_a_period_what_was_used_before_counts_only_once_a_journal_says_when_that_was() -> None:
    judged = Judged(Budget("carbon", 10.0, "run", "day"), inherited=kg(4.0))
    assert judged.spent(kg(4.5)) == pytest.approx(0.5)
    judged.budgets.spent = Spent(period_start(NOON_30_JUNE, "day"), not_counted=kg(1.0))  # 3 of the 4 kg were today.
    assert judged.spent(kg(4.5)) == pytest.approx(3.5)


def test_what_others_used_counts_for_a_project_and_not_for_a_run() -> None:
    scopes: tuple[tuple[BudgetScope, float], ...] = (("run", 1.0), ("project", 3.5))
    for scope, expected in scopes:
        judged = Judged(Budget("cost", 10.0, scope))
        judged.budgets.spent = Spent(0.0, others=Footprint(energy_cost=0.5, compute_cost=2.0))
        assert judged.spent(Footprint(energy_cost=1.0)) == pytest.approx(expected)


def test_others_without_a_price_have_cost_nothing() -> None:
    judged = Judged(Budget("cost", 10.0, "project"))
    judged.budgets.spent = Spent(0.0, others=Footprint(1e6, 1e6))
    assert judged.spent(Footprint(energy_cost=1.0)) == pytest.approx(1.0)


# Periods


@pytest.mark.parametrize(
    ("now", "day", "month"),
    [
        (0.0, 0.0, 0.0),
        (86_399.0, 0.0, 0.0),
        (86_400.0, 86_400.0, 0.0),
        (1_709_164_799.0, 1_709_078_400.0, 1_706_745_600.0),  # 2024-02-28 23:59:59; 2024 is a leap year.
        (1_709_164_800.0, 1_709_164_800.0, 1_706_745_600.0),  # 2024-02-29 00:00:00
        (1_709_251_199.0, 1_709_164_800.0, 1_706_745_600.0),  # 2024-02-29 23:59:59
        (1_709_251_200.0, 1_709_251_200.0, 1_709_251_200.0),  # 2024-03-01 00:00:00
        (1_772_323_199.5, 1_772_236_800.0, 1_769_904_000.0),  # 2026-02-28 23:59:59.5; 2026 is none.
        (1_772_323_200.0, 1_772_323_200.0, 1_772_323_200.0),  # 2026-03-01 00:00:00
        (4_107_542_399.0, 4_107_456_000.0, 4_105_123_200.0),  # 2100-02-28 23:59:59; 2100 is none either.
        (4_107_542_400.0, 4_107_542_400.0, 4_107_542_400.0),  # 2100-03-01 00:00:00
        (1_798_761_599.0, 1_798_675_200.0, 1_796_083_200.0),  # 2026-12-31 23:59:59
        (1_798_761_600.0, 1_798_761_600.0, 1_798_761_600.0),  # 2027-01-01 00:00:00
    ],
)
def test_days_and_months_begin_at_midnight_utc(now: float, day: float, month: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/Los_Angeles")
    assert (period_start(now, "day"), period_start(now, "month"), period_start(now, "none")) == (day, month, 0.0)


@given(st.floats(0.0, 4e9))
def test_a_day_has_86400_seconds_and_a_month_28_to_31_days(now: float) -> None:
    day, month = period_start(now, "day"), period_start(now, "month")
    assert day <= now < day + 86_400
    assert day % 86_400 == 0
    assert month <= day <= month + 30 * 86_400
    assert period_start(day, "day") == day
    assert period_start(month, "month") == month


@pytest.mark.parametrize(("period", "begins_anew"), [("none", False), ("day", True), ("month", True)])
def test_a_new_period_begins_at_zero_says_its_levels_again_and_lets_training_go_on(
    period: BudgetPeriod, begins_anew: bool
) -> None:
    judged = Judged(Budget("carbon", 1.0, "run", period), stops=True, wall=Wall(MIDNIGHT_1_JULY - 1))
    judged.spent(kg(1.2))
    assert judged.budgets.exhausted
    judged.wall.seconds = MIDNIGHT_1_JULY
    assert judged.spent(kg(1.2)) == pytest.approx(0.0 if begins_anew else 1.2)
    assert judged.budgets.exhausted is not begins_anew
    judged.spent(kg(1.8))
    assert len(judged.said) == (2 if begins_anew else 1)


def test_in_a_new_period_the_journals_do_not_bring_back_what_this_run_used_before_it() -> None:
    """They tell of earlier attempts and of others; what this attempt used before midnight only this process knows."""
    judged = Judged(Budget("carbon", 10.0, "project", "day"), inherited=kg(2.0), wall=Wall(MIDNIGHT_1_JULY - 1))
    judged.spent(kg(5.0))
    judged.wall.seconds = MIDNIGHT_1_JULY + 1
    assert judged.spent(kg(5.0)) == pytest.approx(0.0)
    judged.budgets.spent = Spent(MIDNIGHT_1_JULY, others=kg(0.25), not_counted=kg(2.0))
    assert judged.spent(kg(5.5)) == pytest.approx(0.75)


def test_journals_that_were_read_before_midnight_do_not_count_after_it() -> None:
    judged = Judged(Budget("carbon", 10.0, "project", "day"), wall=Wall(MIDNIGHT_1_JULY))
    judged.budgets.spent = Spent(MIDNIGHT_1_JULY - 86_400, others=kg(7.0))
    assert judged.spent(kg(0.5)) == pytest.approx(0.5)
    assert judged.spent(kg(0.75)) == pytest.approx(0.75)


# For any course of a run

amounts = st.floats(0.0, 1e6)


@settings(deadline=None)
@given(
    st.sampled_from(["carbon", "energy", "cost"]),
    st.sampled_from(["run", "project"]),
    st.sampled_from(["none", "day", "month"]),
    st.lists(st.tuples(amounts, st.floats(0.0, 90_000.0), st.none() | amounts), max_size=30),
    amounts,
    amounts,
    st.floats(1e-3, 1e6),
)
def test_never_more_is_spent_than_was_used_and_no_level_is_said_twice_in_a_period(
    kind: BudgetKind,
    scope: BudgetScope,
    period: BudgetPeriod,
    course: list[tuple[float, float, float | None]],
    before: float,
    others: float,
    limit: float,
) -> None:
    def footprint(amount: float) -> Footprint:
        return Footprint(amount * KWH, amount * 1000, amount)

    judged = Judged(Budget(kind, limit, scope, period), inherited=footprint(before), stops=True)
    total = before
    periods = {period_start(judged.wall(), period)}
    for amount, seconds, not_counted in course:
        total += amount
        judged.wall.seconds += seconds
        periods.add(period_start(judged.wall(), period))
        if not_counted is not None:
            judged.budgets.spent = Spent(
                period_start(judged.wall(), period), others=footprint(others), not_counted=footprint(min(not_counted, before))
            )
        (status,) = judged.budgets.judge(footprint(total), None)
        theirs = others if scope == "project" else 0.0
        assert 0 <= status.spent <= (total + theirs) * (1 + 1e-9)
        assert judged.budgets.exhausted is (status.spent >= limit)
    assert len(judged.said) <= 3 * len(periods)
