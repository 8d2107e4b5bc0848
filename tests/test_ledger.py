"""Running totals of one run, and what the outputs are told of them."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_eco2ai.footprint.account import account
from hf_eco2ai.ledger import Ledger
from hf_eco2ai.records import (
    PHASES,
    Basis,
    BudgetStatus,
    Component,
    Device,
    DeviceTotals,
    Energy,
    Footprint,
    Forecast,
    GridFactor,
    HostTotals,
    Phase,
    PowerReading,
    Progress,
    Reading,
    RunIdentity,
    RunState,
    Sample,
    Snapshot,
    Tariff,
    Telemetry,
)

RUN = RunIdentity(run_id="r", project_name="p", model_name="m", host="h")
GRID = GridFactor(400.0, "lifecycle", "a test", "DE", "")
TARIFF = Tariff(per_kwh=0.25, per_gpu_hour=2.0)


def device(uuid: str, component: Component = "gpu", basis: Basis = "measured", idle_watts: float | None = None) -> Device:
    return Device(host="h", uuid=uuid, component=component, basis=basis, source="a test", idle_watts=idle_watts)


GPU, GPU_2, CPU = device("GPU-1"), device("GPU-2"), device("package-0", "cpu")


def ledger(
    *devices: Device,
    tariff: Tariff = TARIFF,
    pue: float = 1.0,
    inherited: tuple[HostTotals, ...] = (),
    leads: bool = True,
) -> Ledger:
    made = Ledger(RUN, tariff, pue, inherited, leads=leads)
    made.open(devices)
    return made


def snapshot(of: Ledger, progress: Progress | None = None, state: RunState = "running", **more: Any) -> Snapshot:
    return of.snapshot(state=state, updated_unix=0.0, progress=progress or Progress(), factor=GRID, tick_seconds=0.0, **more)


def again(former: Ledger, *devices: Device) -> Ledger:
    """The next attempt of the run, on the same host."""
    return ledger(*devices, inherited=snapshot(former, state="ended").hosts)


def elsewhere(host: str, joules: float = 0.0, setup: float = 0.0, cost: float | None = None) -> HostTotals:
    """What another host has used: `setup` joules before training, and the rest of `joules` in it. A gram is a joule."""
    return HostTotals(
        host,
        Footprint(joules, joules, cost),
        phases=(("setup", Footprint(setup, setup)), ("train", Footprint(joules - setup, joules - setup, cost))),
        phase_seconds=(("setup", 1.0), ("train", 9.0)),
        devices=(DeviceTotals("GPU-9", "gpu", "measured", joules, 10.0),),
    )


def use(
    of: Ledger,
    phase: Phase,
    start: float,
    end: float,
    watts: dict[Device, float],
    tariff: Tariff = TARIFF,
    grid: GridFactor = GRID,
) -> None:
    """The devices draw so much from `start` to `end`, as the monitor would book it."""
    for one, power in watts.items():
        of.add_energy(Energy(one, start, end, power * (end - start), "counter"), power * (end - start), end - start)
    joules = sum(watts.values()) * (end - start)
    of.add(phase, end - start, account(joules, grid, tariff, 1.0, (end - start) * len(of.gpus())), grid.factor_type)


def see(of: Ledger, at: float, watts: dict[Device, float], utilization: dict[Device, float] | None = None) -> None:
    readings: tuple[Reading, ...] = tuple(PowerReading(one, at, power) for one, power in watts.items())
    telemetry = tuple(Telemetry(one, at, utilization_percent=percent) for one, percent in (utilization or {}).items())
    of.see(Sample(readings, telemetry))


def status(shown: Snapshot, of: Device) -> tuple[float | None, Telemetry | None]:
    (found,) = [one for one in shown.devices if one.device == of or one.device.id == of.id]
    return found.watts, found.telemetry


# Totals

bookings = st.lists(
    st.tuples(
        st.sampled_from(PHASES),
        st.floats(0.01, 60.0),
        st.floats(0.0, 1000.0),
        st.floats(0.0, 1000.0),
        st.sampled_from([GRID, GridFactor(30.0, "marginal", "a test", "FR", "")]),
    ),
    min_size=1,
    max_size=30,
)


@settings(deadline=None)
@given(bookings)
def test_totals_never_fall(booked: list[tuple[Phase, float, float, float, GridFactor]]) -> None:
    books = ledger(GPU, CPU)
    shown, at = [snapshot(books)], 0.0
    for phase, seconds, gpu_watts, cpu_watts, grid in booked:
        use(books, phase, at, at + seconds, {GPU: gpu_watts, CPU: cpu_watts}, grid=grid)
        at += seconds
        shown.append(snapshot(books))

    for before, after in pairwise(shown):
        assert after.total.joules >= before.total.joules
        assert after.total.grams >= before.total.grams
        assert (after.total.cost or 0.0) >= (before.total.cost or 0.0)
        assert after.seconds >= before.seconds
        assert all(b.joules >= a.joules for a, b in zip(before.devices, after.devices, strict=True))
        assert all(b.joules >= a.joules for (_, a), (_, b) in zip(before.phases, after.phases, strict=True))


@settings(deadline=None)
@given(bookings)
def test_devices_phases_and_factor_types_each_add_up_to_the_total(
    booked: list[tuple[Phase, float, float, float, GridFactor]],
) -> None:
    books, at, joules, grams = ledger(GPU, CPU), 0.0, 0.0, 0.0
    for phase, seconds, gpu_watts, cpu_watts, grid in booked:
        use(books, phase, at, at + seconds, {GPU: gpu_watts, CPU: cpu_watts}, grid=grid)
        at += seconds
        joules += (gpu_watts + cpu_watts) * seconds
        grams += (gpu_watts + cpu_watts) * seconds / 3.6e6 * grid.grams_per_kwh
    shown = snapshot(books)

    assert shown.total.joules == pytest.approx(joules, rel=1e-9, abs=1e-9)
    assert shown.total.grams == pytest.approx(grams, rel=1e-9, abs=1e-9)
    assert sum(one.joules for one in shown.devices) == pytest.approx(joules, rel=1e-9, abs=1e-9)
    assert sum(used.joules for _, used in shown.phases) == pytest.approx(joules, rel=1e-9, abs=1e-9)
    assert sum(used.grams for _, used in shown.phases) == pytest.approx(grams, rel=1e-9, abs=1e-9)
    assert sum(of_type for _, of_type in shown.attempt.grams_by_factor_type) == pytest.approx(grams, rel=1e-9, abs=1e-9)
    assert sum(seconds for _, seconds in shown.phase_seconds) == pytest.approx(at)
    assert shown.seconds == pytest.approx(at)
    assert shown.observed_ratio == pytest.approx(1.0)


def test_grams_are_kept_apart_by_the_type_of_the_factor() -> None:
    books = ledger(GPU)
    direct = replace(GRID, grams_per_kwh=100.0, factor_type="direct")

    use(books, "train", 0.0, 3600.0, {GPU: 1000.0})  # 1 kWh × 400 g
    use(books, "train", 3600.0, 7200.0, {GPU: 1000.0}, grid=direct)  # 1 kWh × 100 g
    use(books, "train", 7200.0, 10800.0, {GPU: 1000.0})  # 1 kWh × 400 g

    assert dict(snapshot(books).attempt.grams_by_factor_type) == pytest.approx({"lifecycle": 800.0, "direct": 100.0})


def test_before_anything_is_used_everything_countable_is_zero_and_no_rate_is_known() -> None:
    shown = snapshot(ledger(GPU, tariff=Tariff()))

    assert shown.total == Footprint()
    assert shown.attempt.grams_by_factor_type == (("lifecycle", 0.0),)
    assert [phase for phase, _ in shown.phases] == list(PHASES)
    assert (shown.rates, shown.forecast, shown.efficiency_score, shown.observed_ratio) == (None, None, None, None)
    assert set(dict(shown.errors).values()) == {0}
    assert shown.cpu_watts == ()


def test_errors_are_counted_by_type() -> None:
    books = ledger(GPU)
    books.count("gap")
    books.count("gap")
    books.count("device_lost")

    counted = dict(snapshot(books).errors)
    assert (counted["gap"], counted["device_lost"], counted["tick_failed"]) == (2, 1, 0)


def test_what_is_only_shown_is_shown() -> None:
    shown = snapshot(ledger(GPU, GPU_2, CPU, pue=1.3), end_reason="budget", state="ended", journal_bytes=512)

    assert (shown.pue, shown.tariff, shown.gpu_count) == (1.3, TARIFF, 2)
    assert (shown.state, shown.end_reason, shown.journal_bytes, shown.tree) == ("ended", "budget", 512, None)


def test_the_gpus_of_a_run_are_its_devices_that_are_gpus() -> None:
    assert ledger(GPU, CPU, GPU_2).gpus() == [GPU, GPU_2]
    assert ledger(CPU).gpus() == []


def test_budgets_are_judged_by_the_total_and_the_forecast_of_the_whole_run() -> None:
    books = ledger(GPU, inherited=(elsewhere("h", 500.0), elsewhere("gone", 300.0)))
    books.elsewhere = (elsewhere("other", 200.0),)
    use(books, "train", 0.0, 10.0, {GPU: 100.0})

    def judge(total: Footprint, forecast: Forecast | None) -> tuple[BudgetStatus, ...]:
        assert forecast is not None
        return (BudgetStatus("energy", 8000.0, total.joules, forecast.joules),)

    # 500 + 300 before, and 1000 + 200 now, which is half of what is to do.
    (budget,) = snapshot(books, Progress(to_do_per_done=1.0), budgets=judge).budgets
    assert budget.spent == pytest.approx(2000.0)
    assert budget.predicted == pytest.approx(3200.0)
    assert budget.used_ratio == pytest.approx(0.25)
    assert snapshot(books).budgets == ()


# Now


def test_rates_are_differences_over_a_regular_interval() -> None:
    books = ledger(GPU, CPU)
    books.regular(0.0)
    use(books, "train", 0.0, 2.0, {GPU: 300.0, CPU: 100.0})
    books.regular(2.0)
    rates = snapshot(books).rates

    # 400 W: 0.4 kWh an hour, × 400 g = 160 g an hour; 0.4 kWh × 0.25 + 1 GPU × 2.00 = 2.10 an hour.
    assert rates is not None
    assert rates.watts == pytest.approx(400.0)
    assert rates.grams_per_hour == pytest.approx(160.0)
    assert rates.cost_per_hour == pytest.approx(2.10)


def test_a_rate_forgets_the_intervals_before() -> None:
    books = ledger(GPU)
    books.regular(0.0)
    use(books, "train", 0.0, 1.0, {GPU: 700.0})
    books.regular(1.0)
    use(books, "train", 1.0, 2.0, {GPU: 100.0})
    books.regular(2.0)
    rates = snapshot(books).rates

    assert rates is not None
    assert rates.watts == pytest.approx(100.0)


def test_a_mark_within_an_interval_does_not_change_its_rate() -> None:
    books = ledger(GPU)
    books.regular(0.0)
    use(books, "setup", 0.0, 0.25, {GPU: 100.0})
    use(books, "train", 0.25, 1.0, {GPU: 500.0})
    books.regular(1.0)
    rates = snapshot(books).rates

    assert rates is not None
    assert rates.watts == pytest.approx(0.25 * 100 + 0.75 * 500)


def test_without_a_price_there_is_no_cost_rate() -> None:
    books = ledger(GPU, tariff=Tariff())
    books.regular(0.0)
    use(books, "train", 0.0, 1.0, {GPU: 700.0}, tariff=Tariff())
    books.regular(1.0)
    rates = snapshot(books).rates

    assert rates is not None
    assert rates.cost_per_hour is None


def test_rates_disappear_when_nothing_was_observed() -> None:
    books = ledger(GPU, CPU)
    books.regular(0.0)
    use(books, "train", 0.0, 1.0, {GPU: 300.0, CPU: 50.0})
    books.regular(1.0)
    assert snapshot(books).rates is not None

    use(books, "train", 1.0, 2.0, {})
    books.regular(2.0)

    assert snapshot(books).rates is None
    assert snapshot(books).cpu_watts == ()


def test_an_observed_power_of_zero_is_a_rate() -> None:
    books = ledger(GPU)
    books.regular(0.0)
    use(books, "train", 0.0, 1.0, {GPU: 0.0})
    books.regular(1.0)
    rates = snapshot(books).rates

    assert rates is not None
    assert rates.watts == 0.0


@pytest.mark.parametrize("state", ["ended", "failed"])
def test_a_run_that_is_over_has_totals_but_no_rates(state: RunState) -> None:
    books = ledger(GPU, CPU)
    books.regular(0.0)
    use(books, "train", 0.0, 1.0, {GPU: 300.0, CPU: 50.0})
    books.regular(1.0)

    shown = snapshot(books, state=state)
    assert (shown.rates, shown.cpu_watts) == (None, ())
    assert shown.total.joules == pytest.approx(350.0)


def test_cpu_power_is_the_mean_over_the_interval_by_basis() -> None:
    second, modelled = device("package-1", "cpu"), device("cpu", "cpu", "modelled")
    books = ledger(GPU, CPU, second, modelled)
    books.regular(0.0)
    use(books, "train", 0.0, 2.0, {GPU: 300.0, CPU: 80.0, second: 60.0, modelled: 25.0})
    books.regular(2.0)

    assert dict(snapshot(books).cpu_watts) == pytest.approx({"measured": 140.0, "modelled": 25.0})


def test_a_device_that_says_nothing_shows_nothing() -> None:
    books = ledger(GPU, GPU_2)
    see(books, 0.0, {GPU: 300.0, GPU_2: 310.0}, {GPU: 90.0, GPU_2: 91.0})
    see(books, 1.0, {GPU_2: 320.0}, {GPU_2: 95.0})
    shown = snapshot(books)

    assert status(shown, GPU) == (None, None)
    assert status(shown, GPU_2) == (320.0, Telemetry(GPU_2, 1.0, 95.0))


def test_the_baseline_is_the_first_power_seen() -> None:
    books = ledger(GPU, GPU_2, device("cpu", "cpu", "modelled", idle_watts=7.5))
    see(books, 0.0, {GPU: 60.0})
    see(books, 1.0, {GPU: 300.0, GPU_2: 70.0})
    see(books, 2.0, {GPU: 310.0, GPU_2: 320.0})

    assert [one.baseline_watts for one in snapshot(books).devices] == [60.0, 70.0, 7.5]


def test_the_observed_ratio_is_the_share_of_device_time_that_was_measured() -> None:
    books = ledger(GPU, GPU_2)
    use(books, "train", 0.0, 6.0, {GPU: 300.0, GPU_2: 300.0})
    use(books, "train", 6.0, 10.0, {GPU: 300.0})

    # 6 + 4 of GPU-1 and 6 of GPU-2, of twice 10.
    assert snapshot(books).observed_ratio == pytest.approx(0.8)


def test_without_a_device_there_is_no_observed_ratio() -> None:
    books = ledger()
    use(books, "train", 0.0, 10.0, {})

    assert snapshot(books).observed_ratio is None
    assert snapshot(books).basis == "none"


def test_the_basis_of_a_run_is_that_of_its_devices() -> None:
    modelled, simulated = device("cpu", "cpu", "modelled"), device("SIMULATED-0", "gpu", "simulated")

    assert snapshot(ledger(GPU, CPU)).basis == "measured"
    assert snapshot(ledger(modelled)).basis == "modelled"
    assert snapshot(ledger(GPU, modelled)).basis == "mixed"
    assert snapshot(ledger(simulated, CPU, modelled)).basis == "simulated"


# Efficiency


def test_the_efficiency_score_is_the_share_of_training_steps_times_the_mean_gpu_utilisation() -> None:
    books = ledger(GPU, GPU_2, CPU)
    use(books, "setup", 0.0, 10.0, {GPU: 100.0, GPU_2: 100.0, CPU: 50.0})  # 2500 J
    use(books, "train", 10.0, 20.0, {GPU: 400.0, GPU_2: 300.0, CPU: 50.0})  # 7500 J
    see(books, 0.0, {}, {GPU: 0.0, GPU_2: 0.0, CPU: 100.0})
    see(books, 10.0, {}, {GPU: 40.0, GPU_2: 20.0, CPU: 100.0})
    see(books, 20.0, {}, {GPU: 90.0, GPU_2: 70.0, CPU: 100.0})

    # 7500 of 10000 J; (40 + 20 + 90 + 70) / 4 = 55 %.
    assert snapshot(books).efficiency_score == pytest.approx(0.75 * 0.55)


def test_utilisation_weighs_by_the_time_for_which_it_is_known() -> None:
    books = ledger(GPU)
    use(books, "train", 0.0, 10.0, {GPU: 400.0})
    see(books, 0.0, {}, {GPU: 100.0})
    see(books, 9.0, {}, {GPU: 100.0})
    see(books, 10.0, {}, {GPU: 0.0})

    assert snapshot(books).efficiency_score == pytest.approx(0.9)


def test_without_a_gpu_the_cpus_utilisation_counts() -> None:
    books = ledger(CPU)
    use(books, "train", 0.0, 10.0, {CPU: 100.0})
    see(books, 0.0, {}, {CPU: 80.0})
    see(books, 10.0, {}, {CPU: 80.0})

    assert snapshot(books).efficiency_score == pytest.approx(0.8)


def test_without_any_utilisation_there_is_no_efficiency_score() -> None:
    books = ledger(GPU)
    use(books, "train", 0.0, 10.0, {GPU: 100.0})
    see(books, 0.0, {GPU: 100.0})
    see(books, 10.0, {GPU: 100.0})

    assert snapshot(books).efficiency_score is None


# Forecast


def test_the_forecast_pays_the_setup_once_and_everything_since_by_the_step() -> None:
    books = ledger(GPU)
    use(books, "setup", 0.0, 10.0, {GPU: 100.0})  # 1000 J once
    use(books, "train", 10.0, 20.0, {GPU: 400.0})  # 4000 J
    use(books, "evaluate", 20.0, 30.0, {GPU: 200.0})  # 2000 J
    forecast = snapshot(books, Progress(to_do_per_done=3.0)).forecast

    # 1000 + 6000 × (1 + 3) J; × 400 g per 3.6 MJ; at 0.25 per kWh, and 1 GPU at 2.00 for 10 + 20 × 4 = 90 s.
    assert forecast is not None
    assert forecast.joules == pytest.approx(25_000.0)
    assert forecast.grams == pytest.approx(25_000 / 3.6e6 * 400)
    assert forecast.cost == pytest.approx(25_000 / 3.6e6 * 0.25 + 90 / 3600 * 2.0)


def test_at_the_end_the_forecast_is_the_total() -> None:
    books = ledger(GPU)
    use(books, "setup", 0.0, 10.0, {GPU: 100.0})
    use(books, "train", 10.0, 20.0, {GPU: 400.0})
    shown = snapshot(books, Progress(to_do_per_done=0.0))

    assert shown.forecast is not None
    assert (shown.forecast.joules, shown.forecast.grams, shown.forecast.cost) == (
        shown.total.joules,
        shown.total.grams,
        shown.total.cost,
    )


def test_without_a_price_the_forecast_has_no_cost() -> None:
    books = ledger(GPU, tariff=Tariff())
    use(books, "train", 10.0, 20.0, {GPU: 400.0}, tariff=Tariff())
    forecast = snapshot(books, Progress(to_do_per_done=1.0)).forecast

    assert forecast is not None
    assert forecast.cost is None


def test_the_forecast_takes_in_what_other_hosts_have_used_and_pays_their_setup_once_too() -> None:
    books = ledger(GPU)
    books.elsewhere = (elsewhere("b", 500.0, setup=100.0, cost=0.5), elsewhere("c", 900.0, setup=300.0))
    use(books, "setup", 0.0, 10.0, {GPU: 10.0}, tariff=Tariff())  # 100 J
    use(books, "train", 10.0, 20.0, {GPU: 100.0}, tariff=Tariff())  # 1000 J
    forecast = snapshot(books, Progress(to_do_per_done=4.0)).forecast

    # 100 + 100 + 300 J once; 1000 + 400 + 600 J for each fifth. Host b alone has a price: 0.50 for a fifth.
    assert forecast is not None
    assert forecast.joules == pytest.approx(500 + 2000 * 5)
    assert forecast.grams == pytest.approx((100 + 1000 * 5) / 3.6e6 * 400 + (100 + 400 * 5) + (300 + 600 * 5))
    assert forecast.cost == pytest.approx(0.5 * 5)


def test_the_forecast_adds_what_hosts_that_have_left_had_used_and_does_not_multiply_it() -> None:
    books = ledger(GPU, inherited=(elsewhere("gone", 7000.0, setup=100.0),))
    use(books, "train", 0.0, 10.0, {GPU: 100.0})  # 1000 J
    forecast = snapshot(books, Progress(to_do_per_done=3.0)).forecast

    assert forecast is not None
    assert forecast.joules == pytest.approx(7000 + 1000 * 4)


def test_a_process_that_does_not_lead_forecasts_nothing() -> None:
    books = ledger(GPU, leads=False)
    use(books, "train", 0.0, 10.0, {GPU: 100.0})

    assert snapshot(books, Progress(to_do_per_done=3.0)).forecast is None


# Another attempt of the same run


def test_a_second_training_of_the_run_goes_on_with_the_totals() -> None:
    first = ledger(GPU)
    use(first, "train", 0.0, 10.0, {GPU: 100.0})
    books = again(first, GPU, GPU_2)
    assert snapshot(books).total.joules == pytest.approx(1000.0)

    use(books, "train", 100.0, 110.0, {GPU: 100.0, GPU_2: 200.0})
    shown = snapshot(books)

    assert shown.total.joules == pytest.approx(4000.0)
    assert [one.joules for one in shown.devices] == [pytest.approx(2000.0), pytest.approx(2000.0)]
    assert shown.seconds == pytest.approx(20.0)  # the break between them belongs to neither
    assert dict(shown.phases)["train"].joules == pytest.approx(4000.0)
    assert dict(shown.here.grams_by_factor_type) == pytest.approx({"lifecycle": 4000 / 3.6e6 * 400})
    assert shown.total.cost == pytest.approx(4000 / 3.6e6 * 0.25 + 30 / 3600 * 2.0)  # 10 s of one GPU, 10 s of two


def test_what_an_attempt_itself_has_used_is_told_apart_from_what_it_inherited() -> None:
    first = ledger(GPU)
    use(first, "train", 0.0, 10.0, {GPU: 100.0})
    books = again(first, GPU)
    use(books, "train", 100.0, 110.0, {GPU: 30.0})

    assert snapshot(books).attempt.total.joules == pytest.approx(300.0)
    assert [one.joules for one in snapshot(books).attempt.devices] == [pytest.approx(300.0)]
    assert [totals.total.joules for totals in snapshot(books).inherited] == [pytest.approx(1000.0)]


def test_a_device_goes_on_with_its_own_joules_and_not_with_those_of_one_of_the_same_name_elsewhere() -> None:
    before = HostTotals(
        "h",
        Footprint(900.0),
        devices=(
            DeviceTotals("GPU-1", "gpu", "measured", 600.0, 5.0),
            DeviceTotals("GPU-2", "gpu", "measured", 300.0, 5.0),
        ),
    )
    other_host = HostTotals("gone", Footprint(50.0), devices=(DeviceTotals("package-0", "cpu", "measured", 50.0, 5.0),))
    books = ledger(GPU, CPU, inherited=(before, other_host))
    use(books, "train", 0.0, 1.0, {GPU: 10.0, CPU: 20.0})
    shown = snapshot(books)

    # GPU-1 goes on with 600 J; every host has a package-0, and this one's has done nothing before.
    assert {one.device.uuid: one.joules for one in shown.devices} == pytest.approx({"GPU-1": 610.0, "package-0": 20.0})
    # GPU-2 takes part no more, and what it has used remains the run's.
    assert {one.uuid: one.joules for one in shown.here.devices} == pytest.approx(
        {"GPU-1": 610.0, "GPU-2": 300.0, "package-0": 20.0}
    )
    assert shown.total.joules == pytest.approx(980.0)


@settings(deadline=None)
@given(st.lists(bookings, min_size=1, max_size=4))
def test_totals_never_fall_from_one_attempt_to_the_next(
    attempts: list[list[tuple[Phase, float, float, float, GridFactor]]],
) -> None:
    books, at, shown, joules = ledger(GPU, CPU), 0.0, [], 0.0
    for booked in attempts:
        shown.append(snapshot(books))
        for phase, seconds, gpu_watts, cpu_watts, grid in booked:
            use(books, phase, at, at + seconds, {GPU: gpu_watts, CPU: cpu_watts}, grid=grid)
            at += seconds
            joules += (gpu_watts + cpu_watts) * seconds
            shown.append(snapshot(books))
        books = again(books, GPU, CPU)

    for before, after in pairwise(shown):
        assert after.total.joules >= before.total.joules
        assert after.total.grams >= before.total.grams
        assert (after.total.cost or 0.0) >= (before.total.cost or 0.0)
        assert after.seconds >= before.seconds
        assert all(b.joules >= a.joules for a, b in zip(before.devices, after.devices, strict=True))
    assert shown[-1].total.joules == pytest.approx(joules, rel=1e-9, abs=1e-9)
    assert sum(one.joules for one in shown[-1].here.devices) == pytest.approx(joules, rel=1e-9, abs=1e-9)


def test_a_second_training_does_not_begin_with_the_rates_of_the_first() -> None:
    first = ledger(GPU, CPU)
    first.regular(0.0)
    use(first, "train", 0.0, 1.0, {GPU: 300.0, CPU: 50.0})
    first.regular(1.0)
    assert snapshot(first).rates is not None

    books = again(first, GPU, CPU)
    books.regular(100.0)
    assert snapshot(books).rates is None
    assert snapshot(books).cpu_watts == ()

    use(books, "train", 100.0, 101.0, {GPU: 70.0, CPU: 30.0})
    books.regular(101.0)
    rates = snapshot(books).rates
    assert rates is not None
    assert rates.watts == pytest.approx(100.0)


def test_a_second_training_does_not_begin_with_the_gauges_of_the_first() -> None:
    first = ledger(GPU)
    see(first, 0.0, {GPU: 300.0}, {GPU: 90.0})

    assert status(snapshot(again(first, GPU)), GPU) == (None, None)


def test_neither_the_break_between_two_trainings_nor_the_first_one_counts_as_utilisation_of_the_second() -> None:
    first = ledger(GPU)
    use(first, "train", 0.0, 10.0, {GPU: 100.0})
    see(first, 0.0, {}, {GPU: 100.0})
    see(first, 10.0, {}, {GPU: 100.0})

    books = again(first, GPU)
    see(books, 3610.0, {}, {GPU: 0.0})
    use(books, "train", 3610.0, 3620.0, {GPU: 100.0})
    see(books, 3620.0, {}, {GPU: 50.0})

    # 10 s at 50 %; the idle hour between is not the run's.
    assert snapshot(books).efficiency_score == pytest.approx(0.5)


def test_the_observed_ratio_is_of_the_present_training() -> None:
    first = ledger(GPU)
    use(first, "train", 0.0, 10.0, {})
    books = again(first, GPU)
    use(books, "train", 100.0, 108.0, {GPU: 100.0})
    use(books, "train", 108.0, 110.0, {})

    assert snapshot(books).observed_ratio == pytest.approx(0.8)


def test_the_forecast_of_a_second_training_does_not_multiply_what_the_first_one_used() -> None:
    first = ledger(GPU)
    use(first, "setup", 0.0, 10.0, {GPU: 10.0})  # 100 J
    use(first, "train", 10.0, 20.0, {GPU: 100.0})  # 1000 J
    books = again(first, GPU)
    use(books, "setup", 100.0, 110.0, {GPU: 5.0})  # 50 J
    use(books, "train", 110.0, 120.0, {GPU: 20.0})  # 200 J
    forecast = snapshot(books, Progress(to_do_per_done=4.0)).forecast

    assert forecast is not None
    assert forecast.joules == pytest.approx(100 + 1000 + 50 + 200 * (1 + 4))


def test_what_the_journals_tell_later_of_the_run_takes_the_place_of_what_was_known() -> None:
    books = ledger(GPU, inherited=(elsewhere("gone", 100.0),))
    books.inherited = (elsewhere("gone", 150.0),)
    use(books, "train", 0.0, 1.0, {GPU: 10.0})

    assert snapshot(books).total.joules == pytest.approx(160.0)


# What a device's account keeps


def test_an_account_keeps_every_method_by_which_its_joules_came() -> None:
    books = ledger(GPU)
    books.add_energy(Energy(GPU, 0.0, 1.0, 10.0, "trapezoid"), 10.0, 1.0)
    books.add_energy(Energy(GPU, 1.0, 2.0, 10.0, "counter"), 10.0, 1.0)
    (shown,) = snapshot(books).devices

    assert (shown.methods, shown.observed_seconds, shown.joules) == (("counter", "trapezoid"), 2.0, 20.0)
