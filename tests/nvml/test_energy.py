"""Joules of healthy GPUs against the exact integral of the power they drew."""

import random

import pytest

from hf_eco2ai.records import Phase, Tariff
from tests.nvml.standin import Gpu, Standin, measure
from tests.nvml.traces import TRACES, Constant, Trace

every_trace = pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES.keys())
every_count = pytest.mark.parametrize("count", [1, 2, 8])


@every_trace
@every_count
@pytest.mark.parametrize("sampled_at", [0.0, 0.5, 1.0], ids=["asked", "middle", "answered"])
def test_with_a_counter_joules_are_the_exact_integral_within_a_thousandth(
    standin: Standin, trace: Trace, count: int, sampled_at: float
) -> None:
    standin.configure(*[Gpu(trace)] * count, sampled_at=sampled_at)
    measured = measure(standin, 10.0)
    exact, bracket = trace.integral(0, 10), standin.bracket_joules(trace, 10)
    for index in range(count):
        assert measured.joules(index) == pytest.approx(exact, rel=0.001, abs=bracket)
    assert measured.snapshot.total.joules == pytest.approx(count * exact, rel=0.001, abs=count * bracket)
    assert measured.snapshot.observed_ratio == pytest.approx(1.0, abs=0.001)
    assert {method for status in measured.snapshot.devices for method in status.methods} == {"counter"}
    assert measured.errors == {}


@every_trace
@every_count
@pytest.mark.parametrize("interval", [1.0, 10.0])
def test_without_a_counter_each_run_is_within_the_trapezoids_bound_and_their_mean_is_within_three_thousandths(
    standin: Standin, trace: Trace, count: int, interval: float
) -> None:
    # One phase from each twentieth of the period, so that chance has no say in the mean; the next test takes plain ones.
    chance = random.Random(f"{trace} {count} {interval}")
    errors = []
    for twentieth in range(20):
        moved = trace.moved((twentieth + chance.random()) / 20)
        standin.configure(*[Gpu(moved, has_counter=False)] * count)
        measured = measure(standin, 10.0, interval=interval)
        exact = moved.integral(0, 10)
        bound = standin.trapezoid_joules(moved, 0, 10) + standin.bracket_joules(moved, 10)
        for index in range(count):
            assert measured.joules(index) == pytest.approx(exact, rel=1e-9, abs=bound)
        errors.append(measured.snapshot.total.joules / (count * exact) - 1)
        assert measured.snapshot.observed_ratio == pytest.approx(1.0, abs=0.001)
        assert {method for status in measured.snapshot.devices for method in status.methods} == {"trapezoid"}
        assert measured.errors == {}
    assert abs(sum(errors) / len(errors)) <= 0.003


@every_trace
def test_without_a_counter_the_error_has_no_bias_over_plain_random_phases(standin: Standin, trace: Trace) -> None:
    # Nothing is stratified here. A burst's single errors reach 1.7 %, so that the mean of only 20 such draws strays beyond 0.3 %
    # in about one case of six; that of 400 may not, unless the method is biased.
    chance = random.Random(f"plain {trace}")
    errors = []
    for _ in range(400):
        moved = trace.moved(chance.random())
        standin.configure(Gpu(moved, has_counter=False))
        errors.append(measure(standin, 10.0).snapshot.total.joules / moved.integral(0, 10) - 1)
    assert abs(sum(errors) / len(errors)) <= 0.003


def test_gpus_with_and_without_a_counter_are_measured_side_by_side(standin: Standin) -> None:
    traces = list(TRACES.values())
    standin.configure(*(Gpu(trace, has_counter=number % 2 == 0) for number, trace in enumerate(traces)))
    measured = measure(standin, 10.0)
    for index, trace in enumerate(traces):
        bound = standin.bracket_joules(trace, 10) + (standin.trapezoid_joules(trace, 0, 10) if index % 2 else 0.0)
        assert measured.joules(index) == pytest.approx(trace.integral(0, 10), rel=0.001, abs=bound)


@pytest.mark.parametrize("has_counter", [True, False])
def test_four_gpus_at_100_watts_for_an_hour_are_0_4_kwh_and_their_footprint_follows(standin: Standin, has_counter: bool) -> None:
    standin.configure(*[Gpu(Constant(100.0), has_counter=has_counter)] * 4, call_seconds=0.0)
    tariff = Tariff(per_kwh=0.25, per_gpu_hour=2.0, currency="EUR")
    measured = measure(standin, 3600.0, interval=10.0, power_interval=1.0, grams_per_kwh=400.0, tariff=tariff, pue=1.5)
    total = measured.snapshot.total
    assert total.kwh == pytest.approx(0.4, rel=1e-9)
    assert total.kg == pytest.approx(0.4 * 1.5 * 0.400, rel=1e-9)
    assert total.energy_cost == pytest.approx(0.4 * 1.5 * 0.25, rel=1e-9)
    assert total.compute_cost == pytest.approx(4 * 2.0, rel=1e-9)
    assert total.cost == pytest.approx(0.15 + 8.0, rel=1e-9)
    assert measured.snapshot.seconds == pytest.approx(3600.0, rel=1e-9)
    assert measured.snapshot.observed_ratio == pytest.approx(1.0, rel=1e-9)
    assert measured.snapshot.rates is None, "an ended run draws nothing"
    rates = measured.history[-2].rates
    assert rates is not None
    assert rates.watts == pytest.approx(400.0, rel=1e-6)
    assert rates.grams_per_hour == pytest.approx(0.4 * 1.5 * 400.0, rel=1e-6)


@every_trace
@pytest.mark.parametrize("interval", [1.0, 0.05], ids=["longer than the refresh", "shorter"])
def test_a_counter_refreshed_every_tenth_of_a_second_misses_no_more_than_one_refresh_at_either_end(
    standin: Standin, trace: Trace, interval: float
) -> None:
    standin.configure(Gpu(trace, refresh_seconds=0.1))
    measured = measure(standin, 9.97, interval=interval)
    bound = 2 * 0.1 * trace.peak(0, 9.97)
    assert measured.joules() == pytest.approx(trace.integral(0, 9.97), abs=bound + standin.bracket_joules(trace, 9.97))
    assert measured.snapshot.observed_ratio == pytest.approx(1.0, abs=0.001)
    assert measured.errors == {}


MARKS: list[tuple[float, Phase]] = [(2.345, "evaluate"), (4.53, "save"), (4.545, "train"), (8.03, "evaluate")]
"""The third comes less than 50 ms after the second, so the two share one reading."""

WINDOWS: dict[Phase, list[tuple[float, float]]] = {
    "train": [(0.0, 2.345), (4.545, 8.03)],
    "evaluate": [(2.345, 4.53), (8.03, 10.0)],
    "save": [(4.53, 4.545)],
}


@every_trace
def test_without_a_counter_each_phase_is_the_exact_integral_between_its_marks(standin: Standin, trace: Trace) -> None:
    standin.configure(Gpu(trace, has_counter=False))
    measured = measure(standin, 10.0, marks=MARKS)
    for phase, windows in WINDOWS.items():
        exact = sum(trace.integral(start, end) for start, end in windows)
        # A step just outside of a window reaches into it by half an interval.
        bound = sum(standin.trapezoid_joules(trace, max(0.0, start - 0.1), end + 0.1) for start, end in windows)
        assert measured.phases[phase] == pytest.approx(exact, rel=0.001, abs=bound + standin.bracket_joules(trace, 10))
    assert sum(measured.phases.values()) == pytest.approx(measured.snapshot.total.joules)
    assert dict(measured.snapshot.phase_seconds)["train"] == pytest.approx(2.345 + 8.03 - 4.545)


@every_trace
def test_with_a_counter_energy_is_split_at_the_marks_and_pro_rata_between_two_readings(standin: Standin, trace: Trace) -> None:
    standin.configure(Gpu(trace))
    measured = measure(standin, 10.0, marks=MARKS)
    shared = trace.integral(4.53, 4.58)  # The reading for the mark at 4.545 comes 50 ms after the one at 4.53.
    expected = {
        "train": trace.integral(0, 2.345) + shared * 35 / 50 + trace.integral(4.58, 8.03),
        "evaluate": trace.integral(2.345, 4.53) + trace.integral(8.03, 10),
        "save": shared * 15 / 50,
        "setup": 0.0,
        "idle": 0.0,
    }
    for phase, joules in measured.phases.items():
        assert joules == pytest.approx(expected[phase], rel=0.001, abs=standin.bracket_joules(trace, 10))
    assert sum(measured.phases.values()) == pytest.approx(measured.snapshot.total.joules)


@pytest.mark.parametrize("has_counter", [True, False])
def test_at_constant_power_joules_of_a_phase_are_its_seconds_times_watts(standin: Standin, has_counter: bool) -> None:
    standin.configure(Gpu(Constant(300.0), has_counter=has_counter), call_seconds=0.0)
    chance = random.Random(1)
    instants = sorted(chance.uniform(0, 10) for _ in range(200))
    names: list[Phase] = ["train", "evaluate", "save"]
    marks = [(at, chance.choice(names)) for at in instants]
    measured = measure(standin, 10.0, marks=marks)
    seconds: dict[Phase, float] = dict.fromkeys(names, 0.0)
    for (start, phase), (end, _) in zip([(0.0, names[0]), *marks], [*marks, (10.0, names[0])], strict=True):
        seconds[phase] += end - start
    for phase in names:
        # The counter tells whole millijoules.
        assert measured.phases[phase] == pytest.approx(300.0 * seconds[phase], rel=1e-6, abs=0.01)
        assert dict(measured.snapshot.phase_seconds)[phase] == pytest.approx(seconds[phase])


@pytest.mark.parametrize("has_counter", [True, False])
def test_nothing_is_counted_from_before_the_first_reading_or_after_the_end(standin: Standin, has_counter: bool) -> None:
    standin.configure(Gpu(Constant(200.0), has_counter=has_counter), call_seconds=0.15)
    measured = measure(standin, 4.0)
    # The first answer is true in the middle of a call of 0.15 s. The last reading is taken after the end, and cut there.
    seconds = measured.snapshot.seconds
    assert standin.now() > seconds + 0.3
    assert measured.joules() == pytest.approx(200.0 * (seconds - 0.075))
    assert measured.snapshot.observed_ratio == pytest.approx((seconds - 0.075) / seconds)
