"""The yardstick itself: the truth in C and the truth in Python were written apart, and agree."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.nvml.standin import Gpu, Standin
from tests.nvml.traces import TRACES, Constant


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(TRACES)), part=st.floats(0, 1), t=st.floats(0, 20))
def test_the_counter_is_the_exact_integral_of_the_power_that_is_read(standin: Standin, name: str, part: float, t: float) -> None:
    trace = TRACES[name].moved(part)
    nvml = standin.configure(Gpu(trace, counter_origin_joules=0.0)).pynvml
    nvml.nvmlInit()
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    standin.advance_to(t)
    assert nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1000 == pytest.approx(trace.integral(0, t), abs=0.001)
    # At the very instant of a jump, rounding decides on which side the reading lies.
    if not any(abs(t - at) < 1e-9 for at in trace.breaks(t - 1, t + 1)):
        assert nvml.nvmlDeviceGetPowerUsage(gpu) / 1000 == pytest.approx(trace.watts(t), abs=0.001)


@pytest.mark.parametrize(
    ("name", "joules", "steps"),
    [
        ("constant", 2500.0, 0.0),
        ("square of 2 s", 3000.0, 10 * 400.0),
        ("square of 0.4 s", 3000.0, 50 * 400.0),
        ("ramp", 3500.0, 600.0),
        ("burst in the last second", 1500.0, 500.0),
    ],
)
def test_energy_and_steps_of_every_trace_over_ten_seconds_are_those_worked_out_by_hand(
    name: str, joules: float, steps: float
) -> None:
    assert TRACES[name].integral(0, 10) == pytest.approx(joules)
    assert TRACES[name].power_steps(0, 10) == pytest.approx(steps)


def test_every_call_moves_the_virtual_clock_on_and_a_slow_one_does_so_once(standin: Standin) -> None:
    nvml = standin.configure(Gpu(Constant(100.0), slow_at=0.0)).pynvml
    nvml.nvmlInit()
    standin.calls_last(0.5)
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    assert standin.now() == 3.0
    nvml.nvmlDeviceGetPowerUsage(gpu)
    assert standin.now() == 3.5


def test_without_gpus_there_is_no_driver_so_that_other_tests_are_not_misled(standin: Standin) -> None:
    with pytest.raises(standin.pynvml.NVMLError_DriverNotLoaded):
        standin.pynvml.nvmlInit()
