"""What hosts and attempts of a run add up to, and which process shows what of it."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_eco2ai.ledger import Ledger
from hf_eco2ai.records import (
    PHASES,
    DeviceTotals,
    Footprint,
    GridFactor,
    HostTotals,
    Progress,
    RunIdentity,
    Snapshot,
    Tariff,
    run_total,
)

GRID = GridFactor(400.0, "lifecycle", "a test", "DE", "")

# Whole numbers, so that sums are exact whatever their order.
amounts = st.integers(0, 10**9).map(float)
costs = st.none() | amounts
footprints = st.builds(Footprint, amounts, amounts, costs, costs)


@st.composite
def totals_of(draw: Any, host: str = "h") -> HostTotals:
    """A host's totals that agree with themselves, with some of the devices, phases and factor types that there are."""
    uuids = draw(st.lists(st.sampled_from(["GPU-1", "GPU-2", "package-0"]), unique=True))
    return HostTotals(
        host,
        total=draw(footprints),
        wasted=draw(footprints),
        grams_by_factor_type=tuple(
            (kind, draw(amounts)) for kind in draw(st.lists(st.sampled_from(["lifecycle", "direct", "marginal"]), unique=True))
        ),
        phases=tuple((phase, draw(footprints)) for phase in draw(st.lists(st.sampled_from(PHASES), unique=True))),
        phase_seconds=tuple((phase, draw(amounts)) for phase in draw(st.lists(st.sampled_from(PHASES), unique=True))),
        devices=tuple(
            DeviceTotals(uuid, "cpu" if uuid == "package-0" else "gpu", "measured", draw(amounts), draw(amounts))
            for uuid in uuids
        ),
    )


def unordered(totals: HostTotals) -> tuple[Any, ...]:
    """To be compared: which device, phase or factor type comes first means nothing."""
    return (
        totals.host,
        totals.total,
        totals.wasted,
        dict(totals.grams_by_factor_type),
        dict(totals.phases),
        dict(totals.phase_seconds),
        {device.uuid: device for device in totals.devices},
    )


def used(host: str, joules: float, wasted: float = 0.0) -> HostTotals:
    return HostTotals(host, Footprint(joules, joules), Footprint(wasted, wasted))


def shown_by(
    host: str,
    joules: float,
    inherited: tuple[HostTotals, ...] = (),
    elsewhere: tuple[HostTotals, ...] = (),
    *,
    leads: bool = True,
) -> Snapshot:
    """What the process on `host` shows, which itself has used so much in this attempt."""
    books = Ledger(RunIdentity("r", "p", "m", host), Tariff(), 1.0, inherited, leads=leads)
    books.elsewhere = elsewhere
    books.add("train", 10.0, Footprint(joules, joules), "lifecycle")
    return books.snapshot(state="running", updated_unix=0.0, progress=Progress(), factor=GRID, tick_seconds=0.0)


# Totals of a host


@settings(deadline=None)
@given(totals_of(), totals_of(), totals_of())
def test_it_does_not_matter_which_of_three_attempts_are_added_first(a: HostTotals, b: HostTotals, c: HostTotals) -> None:
    assert unordered((a + b) + c) == unordered(a + (b + c))


@settings(deadline=None)
@given(totals_of(), totals_of())
def test_it_does_not_matter_in_which_order_two_attempts_of_one_host_are_added(a: HostTotals, b: HostTotals) -> None:
    assert unordered(a + b) == unordered(b + a)


@settings(deadline=None)
@given(totals_of())
def test_an_attempt_that_has_used_nothing_adds_nothing(a: HostTotals) -> None:
    assert unordered(a + HostTotals("h")) == unordered(HostTotals("h") + a) == unordered(a)


@settings(deadline=None)
@given(totals_of(), totals_of())
def test_every_device_has_the_sum_of_its_own_joules_and_seconds(a: HostTotals, b: HostTotals) -> None:
    joules: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for device in (*a.devices, *b.devices):
        joules[device.uuid] = joules.get(device.uuid, 0.0) + device.joules
        seconds[device.uuid] = seconds.get(device.uuid, 0.0) + device.observed_seconds
    both = a + b

    assert {device.uuid: device.joules for device in both.devices} == joules
    assert {device.uuid: device.observed_seconds for device in both.devices} == seconds
    assert len(both.devices) == len(joules)
    assert both.seconds == a.seconds + b.seconds


def test_two_attempts_on_one_host_by_hand() -> None:
    first = HostTotals(
        "h",
        Footprint(1000.0, 100.0, 0.5),
        Footprint(200.0, 20.0, 0.1),
        (("lifecycle", 100.0),),
        (("setup", Footprint(300.0, 30.0)), ("train", Footprint(700.0, 70.0, 0.5))),
        (("setup", 3.0), ("train", 7.0)),
        (DeviceTotals("GPU-1", "gpu", "measured", 1000.0, 10.0),),
    )
    second = HostTotals(
        "h",
        Footprint(500.0, 20.0),
        Footprint(),
        (("direct", 20.0),),
        (("train", Footprint(500.0, 20.0)),),
        (("train", 5.0),),
        (DeviceTotals("GPU-1", "gpu", "measured", 400.0, 5.0), DeviceTotals("GPU-2", "gpu", "measured", 100.0, 5.0)),
    )

    assert first + second == HostTotals(
        "h",
        Footprint(1500.0, 120.0, 0.5),
        Footprint(200.0, 20.0, 0.1),
        (("lifecycle", 100.0), ("direct", 20.0)),
        (("setup", Footprint(300.0, 30.0)), ("train", Footprint(1200.0, 90.0, 0.5))),
        (("setup", 3.0), ("train", 12.0)),
        (DeviceTotals("GPU-1", "gpu", "measured", 1400.0, 15.0), DeviceTotals("GPU-2", "gpu", "measured", 100.0, 5.0)),
    )
    assert (first + second).seconds == 15.0


# Totals of a run


def test_a_run_has_used_what_all_its_hosts_have_in_all_attempts() -> None:
    shown = shown_by("a", 100.0, inherited=(used("a", 10.0), used("gone", 20.0), used("b", 40.0)), elsewhere=(used("b", 400.0),))

    assert shown.total.joules == 570.0
    assert shown.here.total.joules == 110.0


def test_a_process_that_does_not_lead_has_the_totals_of_its_own_host() -> None:
    shown = shown_by("b", 400.0, inherited=(used("b", 40.0), used("gone", 20.0)), leads=False)

    assert shown.total.joules == 440.0
    assert [totals.host for totals in shown.hosts] == ["b"]


def test_what_resumes_rolled_back_is_part_of_the_total_and_not_added_to_it() -> None:
    shown = shown_by("a", 100.0, inherited=(used("a", 50.0, wasted=30.0), used("gone", 20.0, wasted=5.0)))

    assert (shown.total.joules, shown.wasted.joules) == (170.0, 35.0)
    assert shown.here.wasted.joules == 30.0


def test_a_host_that_has_left_is_shown_by_the_leading_process_and_one_that_takes_part_by_its_own() -> None:
    inherited = (used("a", 10.0), used("b", 40.0), used("gone", 20.0))
    leading = shown_by("a", 100.0, inherited, elsewhere=(used("b", 400.0),))
    following = shown_by("b", 400.0, inherited=(used("b", 40.0),), leads=False)

    assert {totals.host: totals.total.joules for totals in leading.hosts} == {"a": 110.0, "gone": 20.0}
    assert {totals.host: totals.total.joules for totals in following.hosts} == {"b": 440.0}


joules = st.integers(0, 10**9).map(float)


@settings(deadline=None)
@given(
    before=st.dictionaries(st.sampled_from("abcde"), joules),
    now=st.dictionaries(st.sampled_from("bcde"), joules),
    own=joules,
)
def test_every_joule_of_a_run_is_shown_by_just_one_process_however_it_has_moved(
    before: dict[str, float], now: dict[str, float], own: float
) -> None:
    inherited = tuple(used(host, amount) for host, amount in before.items())
    leading = shown_by("a", own, inherited, tuple(used(host, amount) for host, amount in now.items()))
    following = [
        shown_by(host, amount, tuple(totals for totals in inherited if totals.host == host), leads=False)
        for host, amount in now.items()
    ]
    shown = [totals for process in (leading, *following) for totals in process.hosts]

    assert len({totals.host for totals in shown}) == len(shown)
    assert sum(totals.total.joules for totals in shown) == own + sum(before.values()) + sum(now.values())
    assert leading.total.joules == own + sum(before.values()) + sum(now.values())


@given(own=footprints, before=footprints, other=footprints)
def test_the_total_of_a_run_is_the_same_for_a_snapshot_and_for_those_that_make_one(
    own: Footprint, before: Footprint, other: Footprint
) -> None:
    inherited, elsewhere = (HostTotals("gone", before),), (HostTotals("b", other),)
    shown = shown_by("a", 0.0, inherited, elsewhere)
    shown = replace(shown, attempt=replace(shown.attempt, total=own))

    assert shown.total == run_total(shown.attempt, inherited, elsewhere, leads=True) == own + before + other


def test_a_changed_snapshot_does_not_keep_the_sums_of_the_one_it_was_made_from() -> None:
    shown = shown_by("a", 100.0)
    assert (shown.total.joules, shown.here.total.joules, len(shown.hosts)) == (100.0, 100.0, 1)
    changed = replace(shown, inherited=(used("a", 10.0), used("gone", 20.0)), elsewhere=(used("b", 400.0),))

    assert (changed.total.joules, changed.here.total.joules, len(changed.hosts)) == (530.0, 110.0, 2)


def test_a_run_that_had_used_nothing_before_has_only_its_own_host() -> None:
    shown = shown_by("a", 100.0)

    assert shown.hosts == (shown.attempt,) == (shown.here,)
    assert shown.wasted == Footprint()
    assert dict(shown.phases)["train"].joules == pytest.approx(100.0)
    assert dict(shown.phase_seconds)["train"] == shown.seconds == 10.0
