"""A counter's difference: energy, wrap, reset, jump, or nothing that can be known."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_eco2ai.energy.plausible import UPDATE_SLACK_SECONDS, judge
from hf_eco2ai.records import CounterReading, Device

CPU = Device(host="h", uuid="package-0", component="cpu", basis="measured", source="RAPL package counter", max_watts=1000.0)

INTEL_RANGE = 262143.328850
"""`max_energy_range_uj` of an Intel server package: 2^32 units of 2^-14 J (61 µJ), Intel SDM vol. 3B, 15.10.1."""


def reading(at: float, joules: float, wraps_at: float | None = INTEL_RANGE, device: Device = CPU) -> CounterReading:
    return CounterReading(device, at, joules, wraps_at)


@settings(deadline=None)
@given(
    wraps_at=st.floats(2_500.0, 300_000.0),
    begins_at=st.floats(0.0, 1.0, exclude_max=True),
    intervals=st.lists(st.tuples(st.floats(0.01, 1.4), st.floats(0.0, 1000.0)), min_size=1, max_size=60),
)
def test_a_counter_conserves_energy_whatever_the_wraps(
    wraps_at: float, begins_at: float, intervals: list[tuple[float, float]]
) -> None:
    at, used = 0.0, 0.0
    origin = begins_at * wraps_at
    readings = [reading(at, origin, wraps_at)]
    for seconds, watts in intervals:
        at += seconds
        used += watts * seconds
        readings.append(reading(at, (origin + used) % wraps_at, wraps_at))

    verdicts = [judge(before, after) for before, after in pairwise(readings)]

    assert [verdict.problem for verdict in verdicts] == [None] * len(intervals)
    assert sum(verdict.joules or 0.0 for verdict in verdicts) == pytest.approx(used, abs=1e-5)


@settings(deadline=None)
@given(at=st.floats(1.0, 1e6), seconds=st.floats(0.01, 3600.0), joules=st.floats(0.0, 1e12), watts=st.floats(0.0, 1000.0))
def test_a_counter_without_a_range_gives_its_rise(at: float, seconds: float, joules: float, watts: float) -> None:
    verdict = judge(reading(at, joules, None), reading(at + seconds, joules + watts * seconds, None))

    assert verdict.problem is None
    assert verdict.joules == pytest.approx(watts * seconds, abs=1e-3)


def test_a_counter_that_passes_its_range_has_wrapped() -> None:
    # 143.32885 J to the end of the range, and 56.67115 J after it.
    verdict = judge(reading(0.0, 262_000.0), reading(1.0, 56.671150))

    assert verdict.problem is None
    assert verdict.joules == pytest.approx(200.0)


def test_a_counter_that_fell_too_far_for_its_power_was_reset_and_did_not_wrap() -> None:
    # As a wrap this would be 261,148 J in one second.
    assert judge(reading(0.0, 1_000.0), reading(1.0, 5.0)) == (None, "counter_reset")


def test_a_counter_without_a_range_that_fell_was_reset() -> None:
    assert judge(reading(0.0, 1_000.0, None), reading(1.0, 999.0, None)) == (None, "counter_reset")


def test_a_gap_in_which_the_counter_could_have_wrapped_unseen_is_no_energy() -> None:
    # 1000 W for 270 s are 270 kJ, more than the 262 kJ of the range: a rise of 10 J may be 10 J or 262,153 J.
    assert judge(reading(0.0, 0.0), reading(270.0, 10.0)) == (None, "gap")


def test_a_long_interval_in_which_the_counter_cannot_have_wrapped_is_energy() -> None:
    assert judge(reading(0.0, 0.0), reading(240.0, 24_000.0)) == (24_000.0, None)


def test_a_counter_that_rose_by_more_than_the_device_can_draw_has_jumped() -> None:
    assert judge(reading(0.0, 0.0, None), reading(10.0, 1e6, None)) == (None, "counter_jump")


def test_a_short_interval_may_carry_the_energy_of_the_refresh_period_before_it() -> None:
    # 1 ms at 1000 W is 1 J, but the counter may have just been refreshed after 100 ms: 100 J.
    assert judge(reading(0.0, 0.0, None), reading(0.001, 100.0, None)) == (100.0, None)


def test_what_is_plausible_follows_the_device() -> None:
    laptop = replace(CPU, max_watts=15.0)
    assert UPDATE_SLACK_SECONDS == 1.0  # so 10 s may carry 15 W × 11 s = 165 J

    assert judge(reading(0.0, 0.0, None, laptop), reading(10.0, 165.0, None, laptop)).problem is None
    assert judge(reading(0.0, 0.0, None, laptop), reading(10.0, 166.0, None, laptop)).problem == "counter_jump"
