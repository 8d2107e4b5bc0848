"""Joules become CO₂e and money."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_eco2ai.footprint.account import account
from hf_eco2ai.records import Footprint, GridFactor, Tariff

joules = st.floats(0.0, 1e12)
grams_per_kwh = st.floats(0.0, 3000.0)
pues = st.floats(1.0, 5.0)
prices = st.none() | st.floats(0.0, 100.0)
seconds = st.floats(0.0, 1e7)
amounts = st.none() | st.floats(0.0, 1e9)
footprints = st.builds(Footprint, joules, st.floats(0.0, 1e9), amounts, amounts)


def grid(grams: float) -> GridFactor:
    return GridFactor(grams, "lifecycle", "a test", "DE", "")


def close(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-3)


def test_one_kilowatt_hour_by_hand() -> None:
    # 3.6 MJ = 1 kWh; at the meter 1.2 kWh; × 329.65 g; × 0.30; 2 GPUs for half an hour at 4.00 each.
    used = account(3.6e6, grid(329.65), Tariff(0.30, 4.00, "EUR"), pue=1.2, gpu_seconds=3600.0)

    assert used.joules == 3.6e6
    assert used.kwh == 1.0
    assert used.grams == pytest.approx(395.58)
    assert used.kg == pytest.approx(0.39558)
    assert used.energy_cost == pytest.approx(0.36)
    assert used.compute_cost == pytest.approx(4.00)
    assert used.cost == pytest.approx(4.36)


def test_a_cost_without_a_price_is_none_and_not_zero() -> None:
    free = account(3.6e6, grid(100.0), Tariff(), 1.0, 3600.0)
    assert (free.energy_cost, free.compute_cost, free.cost) == (None, None, None)

    energy_only = account(3.6e6, grid(100.0), Tariff(per_kwh=0.5), 1.0, 3600.0)
    assert (energy_only.energy_cost, energy_only.compute_cost, energy_only.cost) == (0.5, None, 0.5)

    compute_only = account(3.6e6, grid(100.0), Tariff(per_gpu_hour=2.0), 1.0, 3600.0)
    assert (compute_only.energy_cost, compute_only.compute_cost, compute_only.cost) == (None, 2.0, 2.0)


def test_a_price_of_zero_is_a_price() -> None:
    assert account(3.6e6, grid(100.0), Tariff(0.0, 0.0), 1.0, 3600.0).cost == 0.0


@settings(deadline=None)
@given(joules, joules, seconds, seconds, grams_per_kwh, prices, prices, pues)
def test_accounting_is_linear(
    first: float,
    second: float,
    first_seconds: float,
    second_seconds: float,
    grams: float,
    per_kwh: float | None,
    per_hour: float | None,
    pue: float,
) -> None:
    tariff = Tariff(per_kwh, per_hour)

    apart = account(first, grid(grams), tariff, pue, first_seconds) + account(second, grid(grams), tariff, pue, second_seconds)
    together = account(first + second, grid(grams), tariff, pue, first_seconds + second_seconds)

    assert close(apart.joules, together.joules)
    assert close(apart.grams, together.grams)
    assert close(apart.energy_cost, together.energy_cost)
    assert close(apart.compute_cost, together.compute_cost)


@settings(deadline=None)
@given(joules, grams_per_kwh, prices, prices, pues, seconds)
def test_joules_do_not_depend_on_pue_price_or_intensity(
    used: float, grams: float, per_kwh: float | None, per_hour: float | None, pue: float, gpu_seconds: float
) -> None:
    assert account(used, grid(grams), Tariff(per_kwh, per_hour), pue, gpu_seconds).joules == used


@settings(deadline=None)
@given(joules, grams_per_kwh, st.floats(0.0, 100.0), st.floats(0.0, 100.0), pues, seconds)
def test_pue_multiplies_co2e_and_energy_cost_and_nothing_else(
    used: float, grams: float, per_kwh: float, per_hour: float, pue: float, gpu_seconds: float
) -> None:
    tariff = Tariff(per_kwh, per_hour)
    plain = account(used, grid(grams), tariff, 1.0, gpu_seconds)
    housed = account(used, grid(grams), tariff, pue, gpu_seconds)

    assert close(housed.grams, plain.grams * pue)
    assert plain.energy_cost is not None
    assert close(housed.energy_cost, plain.energy_cost * pue)
    assert housed.compute_cost == plain.compute_cost
    assert housed.joules == plain.joules


@settings(deadline=None)
@given(footprints, footprints)
def test_what_is_added_can_be_taken_away_again(total: Footprint, part: Footprint) -> None:
    left = (total + part) - part

    assert close(left.joules, total.joules)
    assert close(left.grams, total.grams)
    assert close(left.energy_cost or 0.0, total.energy_cost or 0.0)
    assert close(left.compute_cost or 0.0, total.compute_cost or 0.0)


@settings(deadline=None)
@given(footprints, footprints)
def test_addition_does_not_care_about_order(one: Footprint, other: Footprint) -> None:
    assert one + other == other + one


@settings(deadline=None)
@given(footprints)
def test_nothing_added_is_nothing_changed(total: Footprint) -> None:
    assert total + Footprint() == total
    assert total - Footprint() == total
