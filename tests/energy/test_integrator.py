"""Readings become joules, and nothing is counted twice."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_eco2ai.energy.integrator import COUNTER_PATIENCE_SECONDS, Integrator
from hf_eco2ai.records import CounterReading, Device, Energy, Failure, PowerReading, Reading

GPU = Device(host="h", uuid="GPU-1", component="gpu", basis="measured", source="NVML energy counter", index="0", max_watts=1400.0)
OTHER_GPU = Device(host="h", uuid="GPU-2", component="gpu", basis="measured", source="NVML power", index="1")


def counter(at: float, joules: float, device: Device = GPU) -> CounterReading:
    return CounterReading(device, at, joules)


def power(at: float, watts: float, device: Device = GPU) -> PowerReading:
    return PowerReading(device, at, watts)


def integrate(passes: Sequence[Sequence[Reading]], max_gap: float = 1000.0) -> tuple[list[Energy], list[Failure]]:
    integrator = Integrator(max_gap)
    energies: list[Energy] = []
    failures: list[Failure] = []
    for readings in passes:
        more, problems = integrator.add(readings)
        energies += more
        failures += problems
    return energies + integrator.add([], last=True)[0], failures


def joules(passes: Sequence[Sequence[Reading]], max_gap: float = 1000.0) -> float:
    return sum(energy.joules for energy in integrate(passes, max_gap)[0])


def problems(failures: Sequence[Failure]) -> list[str]:
    return [failure.error_type for failure in failures]


instants = st.lists(st.floats(0.0, 900.0), min_size=2, max_size=40, unique=True).map(sorted)


# Intervals


@settings(deadline=None)
@given(
    start=st.floats(0.0, 1e5),
    seconds=st.floats(0.01, 3600.0),
    total=st.floats(0.0, 1e6),
    cuts=st.lists(st.floats(0.0, 1.0), max_size=10),
)
def test_splitting_a_counter_interval_changes_nothing(start: float, seconds: float, total: float, cuts: list[float]) -> None:
    energy = Energy(GPU, start, start + seconds, total, "counter")
    edges = [energy.start, *sorted(start + cut * (energy.end - start) for cut in cuts), energy.end]

    parts = [energy.between(a, b) for a, b in pairwise(edges)]

    assert sum(parts) == pytest.approx(total, abs=1e-6)
    assert all(part >= 0 for part in parts)


@settings(deadline=None)
@given(
    seconds=st.floats(0.01, 900.0),
    before=st.floats(0.0, 1400.0),
    after=st.floats(0.0, 1400.0),
    cuts=st.lists(st.floats(0.0, 1.0), max_size=10),
)
def test_each_piece_of_a_trapezoid_is_the_exact_integral_of_the_line(
    seconds: float, before: float, after: float, cuts: list[float]
) -> None:
    (energy,), _ = integrate([[power(0.0, before)], [power(seconds, after)]])
    edges = [0.0, *sorted(cut * seconds for cut in cuts), seconds]

    for a, b in pairwise(edges):
        # ∫ (before + slope·t) dt from a to b
        exact = before * (b - a) + (after - before) / seconds * (b * b - a * a) / 2
        assert energy.between(a, b) == pytest.approx(exact, rel=1e-6, abs=1e-6)
    assert sum(energy.between(a, b) for a, b in pairwise(edges)) == pytest.approx((before + after) / 2 * seconds, abs=1e-6)


@settings(deadline=None)
@given(at=instants, offset=st.floats(0.0, 500.0), slope=st.floats(0.0, 1.0))
def test_extra_readings_of_the_same_linear_power_change_nothing(at: list[float], offset: float, slope: float) -> None:
    def line(instant: float) -> PowerReading:
        return power(instant, offset + slope * instant)

    few = joules([[line(at[0])], [line(at[-1])]])
    many = joules([[line(instant)] for instant in at])

    exact = offset * (at[-1] - at[0]) + slope * (at[-1] ** 2 - at[0] ** 2) / 2
    assert few == pytest.approx(exact, rel=1e-9, abs=1e-6)
    assert many == pytest.approx(exact, rel=1e-9, abs=1e-6)


def test_several_readings_in_one_pass_are_as_good_as_one_pass_each() -> None:
    ramp = [power(0.0, 0.0), power(1.0, 100.0), power(3.0, 100.0)]

    assert joules([ramp]) == joules([[reading] for reading in ramp]) == 50.0 + 200.0


def test_devices_do_not_mix() -> None:
    energies, _ = integrate([[power(0.0, 100.0), power(0.0, 10.0, OTHER_GPU)], [power(2.0, 100.0), power(2.0, 30.0, OTHER_GPU)]])

    assert {energy.device.uuid: energy.joules for energy in energies} == {"GPU-1": 200.0, "GPU-2": 40.0}


# Instants


def test_two_power_readings_at_one_instant_use_no_energy() -> None:
    assert joules([[power(0.0, 100.0)], [power(1.0, 100.0)], [power(1.0, 100.0)], [power(2.0, 100.0)]]) == 200.0
    assert integrate([[power(1.0, 100.0)], [power(1.0, 300.0)]]) == ([], [])


def test_two_counter_readings_at_one_instant_use_no_energy() -> None:
    assert integrate([[counter(1.0, 100.0)], [counter(1.0, 100.0)]]) == ([], [])
    assert joules([[counter(0.0, 0.0)], [counter(1.0, 50.0)], [counter(1.0, 50.0)], [counter(2.0, 80.0)]]) == 80.0


def test_a_counter_reading_from_the_past_gives_nothing() -> None:
    assert joules([[counter(0.0, 0.0)], [counter(10.0, 1000.0)], [counter(5.0, 500.0)], [counter(11.0, 1100.0)]]) == 1100.0


def test_a_power_reading_from_the_past_gives_nothing() -> None:
    assert joules([[power(0.0, 100.0)], [power(10.0, 100.0)], [power(5.0, 100.0)]]) == 1000.0


def test_time_that_runs_backwards_is_not_counted_a_second_time() -> None:
    assert joules([[power(0.0, 100.0)], [power(10.0, 100.0)], [power(5.0, 100.0)], [power(11.0, 100.0)]]) == 1100.0


def test_a_device_seen_once_has_used_nothing_yet() -> None:
    assert integrate([[counter(0.0, 5e6), power(0.0, 300.0)]]) == ([], [])


# Counters


def test_where_there_is_a_counter_power_is_not_counted_as_well() -> None:
    passes: list[list[Reading]] = [[counter(float(t), 1000 + 250.0 * t), power(float(t), 300.0)] for t in range(5)]

    energies, failures = integrate(passes)

    assert [energy.joules for energy in energies] == [250.0] * 4
    assert {energy.method for energy in energies} == {"counter"}
    assert failures == []


def test_a_reset_counter_is_replaced_by_power_for_that_interval_only() -> None:
    passes: list[list[Reading]] = [
        [counter(0.0, 5000.0), power(0.0, 300.0)],
        [counter(1.0, 5290.0), power(1.0, 300.0)],
        [counter(2.0, 10.0), power(2.0, 100.0)],
        [counter(3.0, 120.0), power(3.0, 100.0)],
    ]

    energies, failures = integrate(passes)

    assert [(energy.joules, energy.method) for energy in energies] == [
        (290.0, "counter"),
        (200.0, "trapezoid"),
        (110.0, "counter"),
    ]
    assert problems(failures) == ["counter_reset"]


def test_a_reset_counter_without_power_leaves_a_hole_and_says_so() -> None:
    energies, failures = integrate([[counter(0.0, 5000.0)], [counter(1.0, 10.0)], [counter(2.0, 110.0)]])

    assert [(energy.start, energy.end, energy.joules) for energy in energies] == [(1.0, 2.0, 100.0)]
    assert problems(failures) == ["counter_reset"]
    assert "missing" in failures[0].message


def test_a_counter_that_jumps_is_replaced_by_power_for_that_interval_only() -> None:
    passes: list[list[Reading]] = [
        [counter(0.0, 0.0), power(0.0, 300.0)],
        [counter(1.0, 9e9), power(1.0, 300.0)],
        [counter(2.0, 9e9 + 310.0), power(2.0, 300.0)],
    ]

    energies, failures = integrate(passes)

    assert [(energy.joules, energy.method) for energy in energies] == [(300.0, "trapezoid"), (310.0, "counter")]
    assert problems(failures) == ["counter_jump"]


def test_a_counter_that_stands_still_while_power_is_drawn_is_stuck_and_power_stands_in() -> None:
    passes: list[list[Reading]] = [[counter(float(t), 700.0), power(float(t), 300.0)] for t in range(4)]

    energies, failures = integrate(passes)

    assert sum(energy.joules for energy in energies) == 900.0
    assert set(problems(failures)) == {"counter_stuck"}


def test_a_counter_is_found_stuck_however_often_it_is_read() -> None:
    # measurement_interval may be 0.1 s, and every mark of the Trainer reads the counter as well.
    passes: list[list[Reading]] = [[counter(t / 4, 700.0), power(t / 4, 300.0)] for t in range(41)]

    energies, failures = integrate(passes)

    assert sum(energy.joules for energy in energies) == pytest.approx(3000.0)
    assert set(problems(failures)) == {"counter_stuck"}


def test_a_stuck_counter_that_catches_up_is_not_counted_twice() -> None:
    # True energy is 300 J a second; the counter stands from 2 s to 4 s and shows all of it again at 5 s.
    shown = [0.0, 300.0, 600.0, 600.0, 600.0, 1500.0, 1800.0]
    passes: list[list[Reading]] = [[counter(float(t), joules_), power(float(t), 300.0)] for t, joules_ in enumerate(shown)]

    assert joules(passes) == pytest.approx(1800.0)


def test_a_counter_not_refreshed_yet_is_not_stuck() -> None:
    # NVML refreshes about every 0.1 s, so two marks within that time see one value.
    passes: list[list[Reading]] = [
        [counter(0.0, 0.0), power(0.0, 300.0)],
        [counter(0.06, 0.0), power(0.06, 300.0)],
        [counter(0.12, 36.0), power(0.12, 300.0)],
    ]

    energies, failures = integrate(passes)

    assert sum(energy.joules for energy in energies) == pytest.approx(36.0)
    assert failures == []


def test_a_device_that_draws_nothing_does_not_have_a_stuck_counter() -> None:
    energies, failures = integrate([[counter(float(t), 700.0), power(float(t), 0.0)] for t in range(4)])

    assert sum(energy.joules for energy in energies) == 0.0
    assert sum(energy.end - energy.start for energy in energies) == 3.0
    assert failures == []


# Silence


def test_a_short_silence_of_the_counter_is_bridged_by_the_counter() -> None:
    passes: list[list[Reading]] = [[counter(0.0, 0.0), power(0.0, 300.0)]]
    passes += [[power(t, 300.0)] for t in (1.0, 2.0, 3.0)]
    passes += [[counter(4.0, 1300.0), power(4.0, 300.0)]]

    energies, _ = integrate(passes)

    assert [(energy.joules, energy.method) for energy in energies] == [(1300.0, "counter")]


def test_a_counter_silent_beyond_patience_releases_the_power_readings_exactly_once() -> None:
    assert COUNTER_PATIENCE_SECONDS == 5.0
    integrator = Integrator(max_gap=2.0)
    integrator.add([counter(0.0, 0.0), power(0.0, 300.0)])

    released = [sum(energy.joules for energy in integrator.add([power(float(t), 300.0)])[0]) for t in range(1, 9)]

    # Nothing up to 5 s; all of it as 6 s are reached; from then on as they come.
    assert released == [0.0, 0.0, 0.0, 0.0, 0.0, 1800.0, 300.0, 300.0]
    assert integrator.add([], last=True)[0] == []


def test_a_counter_that_comes_back_counts_from_there_on() -> None:
    passes: list[list[Reading]] = [[counter(0.0, 0.0), power(0.0, 300.0)]]
    passes += [[power(float(t), 300.0)] for t in range(1, 10)]
    passes += [[counter(float(t), 310.0 * t), power(float(t), 300.0)] for t in range(10, 13)]

    energies, failures = integrate(passes)

    assert sum(energy.joules for energy in energies if energy.method == "trapezoid") == 3000.0
    assert sum(energy.joules for energy in energies if energy.method == "counter") == pytest.approx(620.0)
    assert failures == []


def test_what_waits_for_a_counter_that_never_comes_back_is_released_at_the_end() -> None:
    integrator = Integrator(max_gap=2.0)
    integrator.add([counter(0.0, 0.0), power(0.0, 300.0)])
    integrator.add([power(1.0, 300.0)])

    assert [(energy.start, energy.end, energy.joules) for energy in integrator.add([], last=True)[0]] == [(0.0, 1.0, 300.0)]
    assert integrator.add([], last=True)[0] == []


@settings(deadline=None, max_examples=300)
@given(
    watts=st.floats(10.0, 1000.0),
    heard=st.lists(st.tuples(st.floats(0.2, 3.0), st.booleans(), st.booleans()), min_size=1, max_size=60),
    max_gap=st.floats(0.5, 10.0),
)
def test_whatever_reading_is_missing_nothing_is_counted_twice(
    watts: float, heard: list[tuple[float, bool, bool]], max_gap: float
) -> None:
    at = 0.0
    passes: list[list[Reading]] = []
    for seconds, with_counter, with_power in heard:
        at += seconds
        passes.append([counter(at, watts * at)] * with_counter + [power(at, watts)] * with_power)

    energies, failures = integrate(passes, max_gap)

    observed = sum(energy.end - energy.start for energy in energies)
    total = sum(energy.joules for energy in energies)
    assert total == pytest.approx(watts * observed, abs=1e-4)
    assert total <= watts * at + 1e-4
    in_order = sorted(energies, key=lambda energy: energy.start)
    assert all(before.end <= after.start + 1e-9 for before, after in pairwise(in_order))
    assert set(problems(failures)) <= {"gap"}


@settings(deadline=None, max_examples=300)
@given(
    heard=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40),
    power_after=st.floats(-0.2, 0.2),
)
def test_nothing_is_counted_twice_where_counter_and_power_are_read_one_after_the_other(
    heard: list[tuple[bool, bool]], power_after: float
) -> None:
    passes: list[list[Reading]] = []
    for second, (with_counter, with_power) in enumerate(heard, start=1):
        passes.append(
            [counter(second, 300.0 * second)] * with_counter + [power(second + power_after, 300.0)] * with_power,
        )

    energies, _ = integrate(passes, max_gap=2.0)

    in_order = sorted(energies, key=lambda energy: energy.start)
    assert all(before.end <= after.start + 1e-9 for before, after in pairwise(in_order))


# Gaps


def test_power_is_not_interpolated_over_more_than_the_greatest_gap() -> None:
    passes: list[list[Reading]] = [[power(0.0, 100.0)], [power(2.0, 100.0)], [power(5.0, 900.0)], [power(6.0, 100.0)]]

    energies, failures = integrate(passes, max_gap=2.0)

    assert [(energy.start, energy.end, energy.joules) for energy in energies] == [(0.0, 2.0, 200.0), (5.0, 6.0, 500.0)]
    assert problems(failures) == ["gap"]


def test_a_counter_bridges_a_gap_of_any_length() -> None:
    energies, failures = integrate([[counter(0.0, 0.0), power(0.0, 300.0)], [counter(3600.0, 1e6), power(3600.0, 300.0)]], 2.0)

    assert [energy.joules for energy in energies] == [1e6]
    assert failures == []
