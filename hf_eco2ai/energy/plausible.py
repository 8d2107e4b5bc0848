"""Tells whether the difference of two counter readings is energy, or the counter wrapped, was reset or jumped."""

from typing import NamedTuple

from hf_eco2ai.records import CounterReading, ErrorType

UPDATE_SLACK_SECONDS = 1.0
"""A counter is refreshed now and then (NVML: about every 100 ms, ml.energy "Thermally stable profiling", 2024), so a short
interval may carry the energy of a longer one. Ten refresh periods are let pass before a difference is called implausible."""


class Verdict(NamedTuple):
    """`joules` used between two readings, or None with the `problem`."""

    joules: float | None
    problem: ErrorType | None = None


def judge(before: CounterReading, after: CounterReading) -> Verdict:
    """Joules from `before` to `after`.

    A counter that fell has wrapped if adding its range gives a plausible power, and has been reset otherwise. One that rose
    by more than the device can draw has jumped. A gap in which it could have wrapped unseen says nothing, so it is no energy.
    """
    seconds = after.at - before.at
    possible = before.device.max_watts * (seconds + UPDATE_SLACK_SECONDS)
    rise = after.joules - before.joules
    if after.wraps_at is not None:
        if possible >= after.wraps_at:
            return Verdict(None, "gap")
        if rise < 0:
            rise += after.wraps_at
            return Verdict(rise) if 0 <= rise <= possible else Verdict(None, "counter_reset")
    if rise < 0:
        return Verdict(None, "counter_reset")
    if rise > possible:
        return Verdict(None, "counter_jump")
    return Verdict(rise)
