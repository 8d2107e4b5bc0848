"""Joules of GPUs whose driver fails: right on the time that was observed, and the rest is said to be missing."""

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.nvml.standin import Gpu, Measured, Standin, measure
from tests.nvml.traces import TRACES, Constant, Trace

every_trace = pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES.keys())
every_interval = pytest.mark.parametrize("interval", [1.0, 0.999, 0.5, 0.2])
"""0.999: what a real clock makes of 1 s now and then."""


def assert_never_falls(measured: Measured) -> None:
    """No total and no error count of any snapshot lies below that of the snapshot before."""
    for before, after in zip(measured.history, measured.history[1:], strict=False):
        assert after.total.joules >= before.total.joules
        assert after.total.grams >= before.total.grams
        assert after.seconds >= before.seconds
        for one, next_one in zip(before.devices, after.devices, strict=True):
            assert next_one.joules >= one.joules
            assert next_one.observed_seconds >= one.observed_seconds
        for one_phase, next_phase in zip(before.phases, after.phases, strict=True):
            assert next_phase[1].joules >= one_phase[1].joules
        assert all(count >= dict(before.errors)[name] for name, count in after.errors)


# The counter lies


@every_trace
@pytest.mark.parametrize("error", ["counter_reset", "counter_jump"])
def test_where_the_counter_is_reset_or_jumps_power_stands_in_for_that_one_interval(
    standin: Standin, trace: Trace, error: str
) -> None:
    standin.configure(Gpu(trace, reset_at=4.5) if error == "counter_reset" else Gpu(trace, jump_at=4.5))
    measured = measure(standin, 10.0)
    bound = standin.trapezoid_joules(trace, 4, 5, every=1.0) + standin.bracket_joules(trace, 10)
    assert measured.joules() == pytest.approx(trace.integral(0, 10), rel=0.001, abs=bound)
    assert measured.snapshot.observed_ratio == pytest.approx(1.0, abs=0.001)
    assert measured.errors == {error: 1}
    assert measured.snapshot.devices[0].methods == ("counter", "trapezoid")
    assert_never_falls(measured)


def test_a_reset_of_one_gpu_does_not_touch_the_others(standin: Standin) -> None:
    standin.configure(*(Gpu(Constant(100.0 + 10 * i), reset_at=4.5 if i == 3 else 1e9) for i in range(8)), call_seconds=0.0)
    measured = measure(standin, 10.0)
    for i in range(8):
        assert measured.joules(i) == pytest.approx(10 * (100.0 + 10 * i), abs=0.01)
    assert measured.errors == {"counter_reset": 1}
    assert [i for i, status in enumerate(measured.snapshot.devices) if "trapezoid" in status.methods] == [3]


@pytest.mark.parametrize("watts", [50.0, 300.0, 700.0])
@every_interval
def test_a_counter_that_stands_still_loses_nothing_but_the_interval_in_which_it_stopped(
    standin: Standin, watts: float, interval: float
) -> None:
    standin.configure(Gpu(Constant(watts), stuck_at=4.05))
    measured = measure(standin, 10.0, interval=interval)
    assert watts * 10 == pytest.approx(measured.joules(), abs=watts * interval + standin.bracket_joules(Constant(watts), 10))
    assert set(measured.errors) == {"counter_stuck"}
    assert measured.snapshot.observed_ratio == pytest.approx(1.0, abs=0.001)
    assert_never_falls(measured)


def test_a_counter_that_stands_still_is_found_out_also_when_marks_make_the_intervals_short(standin: Standin) -> None:
    standin.configure(Gpu(Constant(300.0), stuck_at=2.05))
    measured = measure(standin, 10.0, marks=[(0.3 * i + 0.01, "train") for i in range(1, 33)])
    assert measured.joules() == pytest.approx(3000.0, abs=300.0)
    assert set(measured.errors) == {"counter_stuck"}


@every_interval
def test_a_counter_that_stood_still_and_catches_up_is_not_counted_twice(standin: Standin, interval: float) -> None:
    standin.configure(Gpu(Constant(300.0), stuck_at=4.05, stuck_until=7.05))
    measured = measure(standin, 10.0, interval=interval)
    assert measured.joules() == pytest.approx(3000.0, rel=0.001, abs=300.0 * interval)
    assert_never_falls(measured)


def test_a_counter_of_an_idle_gpu_that_draws_nothing_is_not_called_stuck(standin: Standin) -> None:
    standin.configure(Gpu(Constant(0.0)))
    measured = measure(standin, 10.0)
    assert measured.joules() == 0
    assert measured.snapshot.observed_ratio == pytest.approx(1.0, abs=0.001)
    assert measured.errors == {}


# The counter fails


@every_trace
def test_a_counter_that_fails_for_good_gives_way_to_power_read_every_tenth_of_a_second(standin: Standin, trace: Trace) -> None:
    standin.configure(Gpu(trace, counter_fails_at=2.5, counter_fails_until=1e9))
    measured = measure(standin, 20.0)
    # At 3, 4, 5, 6 and 7 s it is asked in vain, then no more, and power is read closely.
    bound = standin.trapezoid_joules(trace, 2, 7, every=1.0) + standin.trapezoid_joules(trace, 7, 20)
    assert measured.joules() == pytest.approx(trace.integral(0, 20), rel=0.001, abs=bound + standin.bracket_joules(trace, 20))
    assert measured.errors == {"driver_error": 5}
    assert measured.snapshot.observed_ratio == pytest.approx(1.0, abs=0.001)
    assert_never_falls(measured)


def test_a_counter_that_fails_just_before_the_end_costs_nothing(standin: Standin) -> None:
    standin.configure(Gpu(Constant(300.0), counter_fails_at=8.5, counter_fails_until=1e9))
    measured = measure(standin, 10.0)
    assert measured.joules() == pytest.approx(3000.0, abs=standin.bracket_joules(Constant(300.0), 10))
    assert measured.snapshot.observed_ratio == pytest.approx(1.0, abs=0.001)
    assert measured.errors == {"driver_error": 2}


@every_trace
def test_a_counter_that_is_silent_for_three_readings_covers_them_with_its_next_one(standin: Standin, trace: Trace) -> None:
    standin.configure(Gpu(trace, counter_fails_at=2.5, counter_fails_until=5.5))
    measured = measure(standin, 10.0)
    assert measured.joules() == pytest.approx(trace.integral(0, 10), rel=0.001, abs=standin.bracket_joules(trace, 10))
    assert measured.errors == {"driver_error": 3}
    assert measured.snapshot.devices[0].methods == ("counter",)
    assert_never_falls(measured)


@every_trace
def test_a_counter_that_misses_one_reading_covers_it_with_its_next_one_also_at_a_long_interval(
    standin: Standin, trace: Trace
) -> None:
    standin.configure(Gpu(trace, counter_fails_at=15.0, counter_fails_until=25.0))
    measured = measure(standin, 60.0, interval=10.0)
    assert measured.joules() == pytest.approx(trace.integral(0, 60), rel=0.001, abs=standin.bracket_joules(trace, 60))


# Something else fails


def test_a_counter_alone_is_enough(standin: Standin) -> None:
    standin.configure(Gpu(Constant(300.0), has_power=False))
    measured = measure(standin, 10.0)
    assert measured.joules() == pytest.approx(3000.0, rel=0.001)
    assert measured.snapshot.devices[0].watts is None
    assert measured.errors == {}


def test_a_gpu_with_neither_counter_nor_power_has_no_joules_and_says_that_all_are_missing(standin: Standin) -> None:
    standin.configure(Gpu(Constant(300.0), has_counter=False, has_power=False), Gpu(Constant(200.0)))
    measured = measure(standin, 10.0)
    assert measured.joules(0) == 0
    assert measured.joules(1) == pytest.approx(2000.0, rel=0.001)
    assert measured.snapshot.observed_ratio == pytest.approx(0.5, abs=0.001)
    assert set(measured.errors) == {"driver_error"}


@pytest.mark.parametrize("has_counter", [True, False])
def test_a_sensor_that_fails_takes_no_joules_with_it_and_nobody_is_told_that_energy_is_missing(
    standin: Standin, has_counter: bool, caplog: pytest.LogCaptureFixture
) -> None:
    standin.configure(Gpu(Constant(300.0), has_counter=has_counter, sensors_fail_at=4.5, sensors_fail_until=6.5))
    measured = measure(standin, 10.0)
    assert measured.joules() == pytest.approx(3000.0, rel=0.001)
    assert measured.snapshot.observed_ratio == pytest.approx(1.0, abs=0.001)
    assert set(measured.errors) == {"driver_error"}
    assert "energy is missing" not in caplog.text


# The GPU is lost


@every_trace
def test_a_counter_gpu_lost_for_ever_keeps_its_joules_up_to_the_last_reading(standin: Standin, trace: Trace) -> None:
    standin.configure(Gpu(trace, lost_at=4.5, lost_until=1e9))
    measured = measure(standin, 10.0)
    assert measured.joules() == pytest.approx(trace.integral(0, 4), rel=0.001, abs=standin.bracket_joules(trace, 10))
    assert measured.snapshot.observed_ratio == pytest.approx(4 / 10, abs=0.001)
    assert measured.errors == {"device_lost": 6}  # At 5, 6, 7, 8, 9 and 10 s.
    assert measured.snapshot.devices[0].watts is None
    assert measured.snapshot.devices[0].telemetry is None
    assert_never_falls(measured)


@every_trace
def test_a_power_only_gpu_lost_for_ever_keeps_its_joules_up_to_the_last_reading(standin: Standin, trace: Trace) -> None:
    standin.configure(Gpu(trace, has_counter=False, lost_at=4.45, lost_until=1e9))
    measured = measure(standin, 10.0)
    bound = standin.trapezoid_joules(trace, 0, 4.4) + standin.bracket_joules(trace, 10)
    assert measured.joules() == pytest.approx(trace.integral(0, 4.4), rel=0.001, abs=bound)
    assert measured.snapshot.observed_ratio == pytest.approx(4.4 / 10, abs=0.001)
    assert set(measured.errors) == {"device_lost"}
    assert_never_falls(measured)


@every_trace
def test_the_counter_of_a_gpu_that_comes_back_covers_the_time_for_which_it_was_lost(standin: Standin, trace: Trace) -> None:
    standin.configure(Gpu(trace, lost_at=2.45, lost_until=8.25))
    measured = measure(standin, 10.0)
    assert measured.joules() == pytest.approx(trace.integral(0, 10), rel=0.001, abs=standin.bracket_joules(trace, 10))
    assert measured.snapshot.observed_ratio == pytest.approx(1.0, abs=0.001)
    assert measured.errors == {"device_lost": 6}
    assert_never_falls(measured)


@every_trace
def test_without_a_counter_the_time_for_which_a_gpu_was_lost_is_missing(standin: Standin, trace: Trace) -> None:
    standin.configure(Gpu(trace, has_counter=False, lost_at=4.45, lost_until=7.25))
    measured = measure(standin, 10.0)
    exact = trace.integral(0, 4.4) + trace.integral(7.3, 10)
    bound = standin.trapezoid_joules(trace, 0, 4.4) + standin.trapezoid_joules(trace, 7.3, 10)
    assert measured.joules() == pytest.approx(exact, rel=0.001, abs=bound + standin.bracket_joules(trace, 10))
    assert measured.snapshot.observed_ratio == pytest.approx((4.4 + 2.7) / 10, abs=0.001)
    assert set(measured.errors) == {"device_lost", "gap"}
    assert measured.errors["gap"] == 1
    assert_never_falls(measured)


@every_trace
def test_a_counter_reset_while_the_gpu_was_lost_makes_that_time_missing(standin: Standin, trace: Trace) -> None:
    standin.configure(Gpu(trace, lost_at=4.45, lost_until=7.25, reset_at=7.25))
    measured = measure(standin, 10.0)
    exact = trace.integral(0, 4) + trace.integral(8, 10)
    assert measured.joules() == pytest.approx(exact, rel=0.001, abs=2 * standin.bracket_joules(trace, 10))
    assert measured.snapshot.observed_ratio == pytest.approx(6 / 10, abs=0.001)
    assert measured.errors == {"device_lost": 3, "counter_reset": 1}
    assert_never_falls(measured)


@pytest.mark.parametrize("origin", [0.0, 123_456.789])
def test_a_gpu_that_comes_back_with_a_counter_near_its_old_value_is_not_overcounted(standin: Standin, origin: float) -> None:
    # Fresh counters start at 0, so after a reset one can stand above the last reading and still not tell the truth.
    standin.configure(Gpu(Constant(300.0), counter_origin_joules=origin, lost_at=1.45, lost_until=7.25, reset_at=2.0))
    measured = measure(standin, 10.0)
    assert measured.joules() <= 3000.0 + standin.bracket_joules(Constant(300.0), 10)
    assert_never_falls(measured)


@pytest.mark.parametrize("has_counter", [True, False])
def test_one_lost_gpu_of_eight_does_not_take_the_others_with_it(standin: Standin, has_counter: bool) -> None:
    gpus = [Gpu(Constant(300.0), has_counter=has_counter, lost_at=4.45 if i == 2 else 1e9, lost_until=1e10) for i in range(8)]
    standin.configure(*gpus)
    measured = measure(standin, 10.0)
    seen = 4.0 if has_counter else 4.4
    for index in range(8):
        seconds = seen if index == 2 else 10.0
        assert measured.joules(index) == pytest.approx(300.0 * seconds, rel=0.001)
    assert measured.snapshot.observed_ratio == pytest.approx((70 + seen) / 80, abs=0.001)
    assert set(measured.errors) == {"device_lost"}


def test_all_gpus_lost_at_the_end_and_still_the_run_ends_with_what_was_observed(standin: Standin) -> None:
    standin.configure(*[Gpu(Constant(300.0), lost_at=9.5, lost_until=1e9)] * 2)
    measured = measure(standin, 10.0)
    assert measured.snapshot.state == "ended"
    assert measured.snapshot.total.joules == pytest.approx(2 * 2700.0, rel=0.001)
    assert measured.snapshot.observed_ratio == pytest.approx(0.9, abs=0.001)
    assert measured.errors == {"device_lost": 2}
    assert standin.inits == 0


# The driver is slow


@every_trace
@pytest.mark.parametrize("sampled_at", [0.0, 0.5, 1.0], ids=["asked", "middle", "answered"])
def test_a_call_of_three_seconds_costs_a_counter_nothing(standin: Standin, trace: Trace, sampled_at: float) -> None:
    standin.configure(Gpu(trace, slow_at=3.99), sampled_at=sampled_at)
    measured = measure(standin, 10.0)
    assert measured.joules() == pytest.approx(trace.integral(0, 10), rel=0.001, abs=standin.bracket_joules(trace, 10))
    assert measured.snapshot.observed_ratio == pytest.approx(1.0, abs=0.001)
    assert measured.errors == {"slow_read": 1}
    assert_never_falls(measured)


@every_trace
def test_a_call_of_three_seconds_is_bridged_where_only_power_is_read(standin: Standin, trace: Trace) -> None:
    standin.configure(Gpu(trace, has_counter=False, slow_at=4.05))
    measured = measure(standin, 10.0)
    # The answer is dated to the middle of the call, so that no gap is longer than the 2 s over which power is interpolated.
    bound = standin.trapezoid_joules(trace, 0, 10) + standin.trapezoid_joules(trace, 4, 7.2, every=1.6)
    assert measured.joules() == pytest.approx(trace.integral(0, 10), rel=0.001, abs=bound + standin.bracket_joules(trace, 10))
    assert measured.snapshot.observed_ratio == pytest.approx(1.0, abs=0.001)
    assert measured.errors == {"slow_read": 1}
    assert_never_falls(measured)


def test_a_call_of_three_seconds_to_one_power_only_gpu_leaves_a_gap_in_the_other_that_is_said_to_be_missing(
    standin: Standin,
) -> None:
    standin.configure(Gpu(Constant(300.0), has_counter=False, slow_at=4.05), Gpu(Constant(200.0), has_counter=False))
    measured = measure(standin, 10.0)
    # The other was read at 4.0 s and then, after the call of 4.1 s to 7.1 s, at 7.1 s.
    assert measured.joules(0) == pytest.approx(3000.0, abs=standin.bracket_joules(Constant(300.0), 10))
    assert measured.joules(1) == pytest.approx(200.0 * 6.9, abs=standin.bracket_joules(Constant(200.0), 10))
    assert measured.snapshot.observed_ratio == pytest.approx((10 + 6.9) / 20, abs=0.001)
    assert measured.errors == {"slow_read": 1, "gap": 1}
    assert_never_falls(measured)


@pytest.mark.parametrize("refresh_seconds", [0.0, 0.1])
def test_a_counter_answered_at_the_end_of_a_slow_call_is_not_taken_for_a_stuck_one(
    standin: Standin, refresh_seconds: float
) -> None:
    # The answer is dated 1.5 s too early, so the next one, from the same refresh, seems to stand still for 1.5 s.
    standin.configure(Gpu(Constant(300.0), slow_at=3.99, refresh_seconds=refresh_seconds), sampled_at=1.0)
    measured = measure(standin, 10.0)
    assert measured.joules() == pytest.approx(3000.0, abs=2 * 0.1 * 300.0)
    assert measured.snapshot.observed_ratio == pytest.approx(1.0, abs=0.02)
    assert measured.errors == {"slow_read": 1}


def test_a_slow_call_as_the_run_ends_counts_nothing_beyond_the_end(standin: Standin) -> None:
    standin.configure(Gpu(Constant(300.0), slow_at=9.99))
    measured = measure(standin, 10.0)
    assert measured.snapshot.seconds == pytest.approx(10.0)
    assert measured.joules() == pytest.approx(3000.0, rel=0.001)
    assert measured.errors == {"slow_read": 1}


@pytest.mark.parametrize("reset_at", [3.5, 4.5], ids=["before the slow call", "after it"])
def test_where_power_is_read_later_than_the_counter_no_time_is_counted_twice_and_none_is_lost(
    standin: Standin, reset_at: float
) -> None:
    # In the pass of 4 s the counter answers at once. Power takes 1 s and is dated 4.5 s, where the counter has its next say.
    standin.configure(Gpu(Constant(300.0), reset_at=reset_at, slow_at=4.00002, slow_seconds=1.0))
    measured = measure(standin, 10.0)
    assert measured.joules() == pytest.approx(3000.0, abs=standin.bracket_joules(Constant(300.0), 10))
    assert measured.snapshot.devices[0].observed_seconds == pytest.approx(10.0, abs=0.002)
    assert measured.errors == {"slow_read": 1, "counter_reset": 1}


# Anything at once

_instants = st.one_of(st.just(math.inf), st.floats(0.3, 19.0))
_lengths = st.floats(0.05, 12.0)


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    has_counter=st.booleans(),
    interval=st.sampled_from([0.2, 1.0, 5.0]),
    refresh=st.sampled_from([0.0, 0.1]),
    reset_at=_instants,
    jump_at=_instants,
    fails_at=_instants,
    fails_for=_lengths,
    lost_at=_instants,
    lost_for=_lengths,
    slow_at=_instants,
)
def test_whatever_fails_joules_are_watts_times_the_seconds_said_to_be_observed(
    standin: Standin,
    has_counter: bool,
    interval: float,
    refresh: float,
    reset_at: float,
    jump_at: float,
    fails_at: float,
    fails_for: float,
    lost_at: float,
    lost_for: float,
    slow_at: float,
) -> None:
    gpu = Gpu(
        Constant(300.0),
        has_counter=has_counter,
        refresh_seconds=refresh,
        reset_at=reset_at,
        jump_at=jump_at,
        counter_fails_at=fails_at,
        counter_fails_until=fails_at + fails_for,
        lost_at=lost_at,
        lost_until=lost_at + lost_for,
        slow_at=slow_at,
        slow_seconds=3.0,
    )
    standin.configure(gpu)
    measured = measure(standin, 20.0, interval=interval)
    status = measured.snapshot.devices[0]
    assert status.observed_seconds <= measured.snapshot.seconds + 0.001
    # Each of at most seven changes between counter and power may cost a refresh of the counter, and one bracketing pass.
    allowed = 300.0 * 7 * (refresh + standin.pass_seconds)
    assert status.joules == pytest.approx(300.0 * status.observed_seconds, abs=allowed)
    assert_never_falls(measured)
