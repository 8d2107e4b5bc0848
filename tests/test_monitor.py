"""The sampler: what it does when a reader misbehaves, and how little it asks of the Trainer's thread."""

import threading
from collections.abc import Callable, Sequence
from time import monotonic

import pytest

from hf_eco2ai.devices import Reader
from hf_eco2ai.energy.share import Claim, Shares
from hf_eco2ai.footprint.fixed import Fixed
from hf_eco2ai.ledger import Ledger
from hf_eco2ai.monitor import MARK_SPACING_SECONDS, Monitor
from hf_eco2ai.records import (
    BudgetStatus,
    CounterReading,
    Device,
    Failure,
    Footprint,
    Forecast,
    Progress,
    RunIdentity,
    Sample,
    Snapshot,
    Tariff,
    TreeUsage,
)

DEVICE = Device(host="h", uuid="GPU-1", component="gpu", basis="measured", source="test", index="0")
WATTS = 100.0


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Steady:
    """100 W by a counter; counts how often it was read, and fails when told to."""

    devices = (DEVICE,)
    power_only = False

    def __init__(self, now: Callable[[], float], fault: Callable[[], None] = lambda: None) -> None:
        self.now = now
        self.fault = fault
        self.reads = 0
        self.closed = False

    def read(self) -> Sample:
        self.reads += 1
        self.fault()
        return Sample((CounterReading(DEVICE, self.now(), WATTS * self.now()),))

    def read_power(self) -> Sample:
        return Sample()

    def close(self) -> None:
        self.closed = True


def monitor(
    open_readers: Callable[[], Sequence[Reader]],
    now: Callable[[], float],
    interval: float = 1.0,
    tariff: Tariff = Tariff(),  # noqa: B008 - frozen
    **more: object,
) -> Monitor:
    return Monitor(
        open_readers=open_readers,
        ledger=Ledger(RunIdentity("r", "p", "m", "h"), tariff, 1.0),
        grid=Fixed(500.0, "lifecycle", "", ""),
        tariff=tariff,
        pue=1.0,
        progress=Progress,
        measurement_interval=interval,
        power_interval=0.1,
        now=now,
        **more,  # type: ignore[arg-type]
    )


def shown(of: Monitor) -> Snapshot:
    assert of.snapshot is not None
    return of.snapshot


def test_a_defect_in_a_reader_is_logged_once_counted_each_time_and_measuring_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    broken = True

    def fault() -> None:
        if broken:
            raise ZeroDivisionError

    m = monitor(lambda: [Steady(clock, fault)], clock)
    m.begin("train")
    m.open()
    for _ in range(4):
        clock.seconds += 1
        m._safely(m.step)
    assert m.snapshot is None
    broken = False
    for _ in range(3):
        clock.seconds += 1
        m._safely(m.step)
    assert dict(shown(m).errors)["tick_failed"] == 5
    assert len([record for record in caplog.records if "ZeroDivisionError" in record.message]) == 1
    assert shown(m).total.joules == pytest.approx(2 * WATTS)


def test_what_fails_is_tried_again_after_an_interval_and_not_without_pause() -> None:
    clock = Clock()

    def fault() -> None:
        raise ZeroDivisionError

    steady = Steady(clock, fault)
    steady.power_only = True
    m = monitor(lambda: [steady], clock)
    m.begin("train")
    m.open()
    m.mark("evaluate")
    assert m.next_due() == pytest.approx(clock.seconds + 1.0)
    clock.seconds += 1.0
    m._safely(m.step)
    assert m.next_due() == pytest.approx(clock.seconds + 1.0)
    assert steady.reads == 2


def test_a_driver_that_hangs_while_opening_holds_up_neither_begin_nor_end() -> None:
    released = threading.Event()
    seconds = iter(range(10_000))
    steady = Steady(lambda: float(next(seconds)))

    def hang() -> Sequence[Reader]:
        released.wait(60)
        return [steady]

    m = monitor(hang, lambda: 0.0)
    m.start(wait=0.0)
    m.mark("train")
    m.stop(wait=0.0)
    assert m.snapshot is None
    released.set()
    m._thread.join(30)
    assert not m._thread.is_alive()
    assert steady.closed


def test_a_mark_does_not_read_the_driver_in_the_callers_thread() -> None:
    clock = Clock()
    steady = Steady(clock)
    m = monitor(lambda: [steady], clock)
    m.begin("setup")
    m.open()
    assert steady.reads == 1
    for _ in range(1000):
        m.mark("train")
        m.mark("evaluate")
    assert steady.reads == 1
    clock.seconds += MARK_SPACING_SECONDS
    m.step()
    assert steady.reads == 2


def test_marks_cut_a_counters_energy_at_their_exact_instants() -> None:
    clock = Clock()
    m = monitor(lambda: [Steady(clock)], clock, interval=10.0)
    m.begin("setup")
    m.open()
    for at, phase in ((1002.0, "train"), (1007.0, "evaluate"), (1008.5, "train")):
        clock.seconds = at
        m.mark(phase)  # type: ignore[arg-type]
    clock.seconds = 1010.0
    m.step()
    joules = {phase: footprint.joules for phase, footprint in shown(m).phases}
    assert joules["setup"] == pytest.approx(2 * WATTS)
    assert joules["train"] == pytest.approx(6.5 * WATTS)
    assert joules["evaluate"] == pytest.approx(1.5 * WATTS)


def test_nothing_before_the_first_and_after_the_last_instant_is_counted() -> None:
    clock = Clock()
    m = monitor(lambda: [Steady(clock)], clock)
    m.begin("train")
    m.open()
    clock.seconds += 2.5
    m.stop(wait=0)
    clock.seconds += 1.0  # The last reading comes late; what was used since the end is not the run's.
    m.close()
    assert shown(m).seconds == pytest.approx(2.5)
    assert shown(m).total.joules == pytest.approx(2.5 * WATTS)
    assert shown(m).state == "ended"


def test_missed_ticks_are_not_made_up_for() -> None:
    clock = Clock()
    steady = Steady(clock)
    m = monitor(lambda: [steady], clock)
    m.begin("train")
    m.open()
    clock.seconds += 57.3
    m.step()
    assert steady.reads == 2
    assert m.next_due() == pytest.approx(1058.0)
    assert shown(m).total.joules == pytest.approx(57.3 * WATTS)


def test_the_thread_ends_with_the_run_and_gives_the_drivers_back() -> None:
    steady = Steady(monotonic)
    m = monitor(lambda: [steady], monotonic, interval=0.1)
    m.start(wait=30)
    assert shown(m).state == "running"
    m.stop("ended", "completed", wait=30)
    m._thread.join(30)
    assert not m._thread.is_alive()
    assert steady.closed
    assert (shown(m).state, shown(m).end_reason) == ("ended", "completed")
    assert 0 < shown(m).total.joules <= WATTS * shown(m).seconds


def test_training_that_was_left_without_a_word_ends_the_run_as_failed() -> None:
    left = threading.Event()
    m = monitor(lambda: [Steady(monotonic)], monotonic, interval=0.1, missing_since=lambda _: 0.0, abandoned=left.set)
    m.start(wait=30)
    assert left.wait(30)
    assert (shown(m).state, shown(m).end_reason) == ("failed", "")


def test_whoever_knows_how_a_training_was_left_says_the_state_and_the_reason() -> None:
    clock = Clock()
    m = monitor(
        lambda: [Steady(clock)],
        clock,
        missing_since=lambda now: 1000.5 if now > 1000.5 else None,
        how_it_ended=lambda: ("ended", "removed"),
    )
    m.begin("train")
    m.open()
    assert (shown(m).state, shown(m).end_reason) == ("running", "")
    clock.seconds += 1.0
    m.step()
    m.close()
    assert (shown(m).state, shown(m).end_reason) == ("ended", "removed")
    assert shown(m).seconds == pytest.approx(0.5)


def test_a_run_whose_last_reading_is_late_is_over_all_the_same() -> None:
    clock = Clock()
    m = monitor(lambda: [Steady(clock)], clock)
    m.begin("train")
    m.open()
    m.stop("failed", "sigterm", wait=0)
    assert (shown(m).state, shown(m).end_reason) == ("failed", "sigterm")
    clock.seconds += 1.0
    m.close()
    assert (shown(m).state, shown(m).end_reason) == ("failed", "sigterm")


def test_a_failure_from_another_thread_is_in_the_next_snapshot() -> None:
    clock = Clock()
    m = monitor(lambda: [Steady(clock)], clock)
    m.begin("train")
    m.open()
    m.fail(Failure("port_taken", "port", "Port 9091 is taken."))
    clock.seconds += 1
    m.step()
    assert dict(shown(m).errors)["port_taken"] == 1


# What a run is given beside readers


def test_every_snapshot_is_published_with_whether_a_phase_began_since_the_last_one() -> None:
    clock = Clock()
    published: list[tuple[Snapshot, bool]] = []
    m = monitor(lambda: [Steady(clock)], clock, published=lambda *said: published.append(said))
    m.begin("setup")
    m.open()
    begun = len(published)
    assert published[-1][0] is shown(m)
    clock.seconds += 1.0
    m.step()
    m.mark("train")
    clock.seconds += 1.0
    m.step()
    clock.seconds += 1.0
    m.step()
    m.stop(wait=0)
    m.close()
    assert [marked for _, marked in published[begun:]] == [False, True, False, True]
    assert published[-1][0] is shown(m)
    assert [snapshot.state for snapshot, _ in published[begun:]] == ["running", "running", "running", "ended"]


def test_what_a_run_knows_beside_its_energy_is_in_every_snapshot() -> None:
    clock = Clock()
    usage = TreeUsage(1.0, 2, 3, 4, 5)
    m = monitor(lambda: [Steady(clock)], clock, details=lambda: {"journal_bytes": int(clock.seconds), "tree": usage})
    m.begin("train")
    m.open()
    clock.seconds += 1.0
    m.step()
    assert (shown(m).journal_bytes, shown(m).tree) == (1001, usage)


def test_budgets_are_judged_at_every_tick_by_the_total_so_far() -> None:
    clock = Clock()

    def judge(total: Footprint, forecast: Forecast | None) -> tuple[BudgetStatus, ...]:
        assert forecast is None
        return (BudgetStatus("energy", 1.0, total.joules),)

    m = monitor(lambda: [Steady(clock)], clock, budgets=judge)
    m.begin("train")
    m.open()
    spent = []
    for _ in range(3):
        clock.seconds += 1.0
        m.step()
        spent += [budget.spent for budget in shown(m).budgets]
    assert spent == pytest.approx([WATTS, 2 * WATTS, 3 * WATTS])


def test_a_gpu_that_another_run_uses_too_counts_by_half_for_as_long_as_it_does() -> None:
    clock = Clock()
    shares = Shares()
    m = monitor(lambda: [Steady(clock)], clock, shares=shares)
    m.begin("train")
    m.open()
    clock.seconds = 1001.0
    m.step()
    shares.claims = (Claim(DEVICE.claim, 1001.0, 1003.0),)
    for at in (1002.0, 1003.0):
        clock.seconds = at
        m.step()
    clock.seconds = 1004.0
    m.step()
    assert shown(m).total.joules == pytest.approx(WATTS * (1 + 0.5 + 0.5 + 1))
    assert [device.joules for device in shown(m).devices] == [pytest.approx(3 * WATTS)]
    assert shown(m).observed_ratio == pytest.approx(1.0)


def test_the_hours_of_a_gpu_that_another_run_uses_too_are_paid_by_half() -> None:
    clock = Clock()
    shares = Shares()
    shares.claims = (Claim(DEVICE.claim, 0.0, float("inf")),)
    m = monitor(lambda: [Steady(clock)], clock, shares=shares, tariff=Tariff(per_gpu_hour=3600.0))
    m.begin("train")
    m.open()
    clock.seconds += 10.0
    m.step()
    assert shown(m).total.compute_cost == pytest.approx(5.0)
    assert shown(m).total.joules == pytest.approx(5 * WATTS)
