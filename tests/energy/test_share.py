"""What is a run's own of a device that several runs use. Powers are lines between breakpoints, so every joule is known."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_eco2ai.energy.share import HISTORY_SECONDS, REMEMBERED_SECONDS, Claim, Shares
from hf_eco2ai.records import Device, Energy

GPU = Device(host="h", uuid="GPU-1", component="gpu", basis="measured", source="NVML energy counter")
OTHER_GPU = Device(host="h", uuid="GPU-2", component="gpu", basis="measured", source="NVML energy counter")
CPU = Device(host="h", uuid="package-0", component="cpu", basis="measured", source="RAPL package")
MODELLED_CPU = Device(host="h", uuid="cpu", component="cpu", basis="modelled", source="CPU model")

GRID = 20.0
"""Seconds between two breakpoints of the power curve, at which every run reads."""


def energy(start: float, end: float, joules: float, *, slope: float = 0.0, device: Device = GPU) -> Energy:
    return Energy(device, start, end, joules, "trapezoid" if slope else "counter", slope)


def joules(parts: Iterable[Energy]) -> float:
    return math.fsum(part.joules for part in parts)


# By hand


def test_a_run_alone_gets_everything_as_it_is() -> None:
    energies = [energy(0.0, 1.0, 100.0), energy(1.0, 2.0, 50.0, slope=10.0)]
    assert Shares().own(energies) == energies


@pytest.mark.parametrize("others", [1, 2, 7])
def test_each_of_n_runs_gets_the_nth_part(others: int) -> None:
    shares = Shares()
    shares.claims = tuple(Claim(GPU.claim, float(-n), math.inf) for n in range(others))
    assert joules(shares.own([energy(0.0, 1.0, 840.0)])) == pytest.approx(840.0 / (1 + others))
    assert shares.of_now(GPU, 0.5) == pytest.approx(1 / (1 + others))


def test_energy_is_cut_where_another_run_comes_and_goes() -> None:
    shares = Shares()
    shares.claims = (Claim(GPU.claim, 2.0, 6.0),)
    parts = shares.own([energy(0.0, 10.0, 1000.0)])
    assert [part[1:4] for part in parts] == [(0.0, 2.0, 200.0), (2.0, 6.0, 200.0), (6.0, 10.0, 400.0)]
    assert [shares.of_now(GPU, at) for at in (1.9, 2.0, 5.9, 6.0)] == [1.0, 0.5, 0.5, 1.0]


def test_rising_power_is_cut_along_its_line() -> None:
    """From 0 to 100 W in 10 s: 125 J in the first half, of which 62.5 are its own, and 375 J in the second."""
    shares = Shares()
    shares.claims = (Claim(GPU.claim, -1.0, 5.0),)
    first, second = shares.own([energy(0.0, 10.0, 500.0, slope=10.0)])
    assert [first.joules, first.slope] == pytest.approx([62.5, 5.0])
    assert [second.joules, second.slope] == pytest.approx([375.0, 10.0])
    # Half of a line is a line of half the slope: 25 W at 5 s before, so 0 to 2.5 s are 1/4 of the first half's energy.
    assert first.between(0.0, 2.5) == pytest.approx(62.5 / 4)


def test_the_claim_of_another_device_does_not_matter() -> None:
    shares = Shares()
    shares.claims = (Claim(OTHER_GPU.claim, 0.0, math.inf), Claim(CPU.claim, 0.0, math.inf))
    assert shares.own([energy(0.0, 1.0, 100.0)]) == [energy(0.0, 1.0, 100.0)]
    assert shares.of_now(GPU, 0.5) == 1.0


def test_the_cpu_is_one_thing_however_each_run_measures_it() -> None:
    shares = Shares()
    shares.claims = (Claim(CPU.claim, 0.0, math.inf),)
    assert joules(shares.own([energy(0.0, 1.0, 100.0, device=MODELLED_CPU)])) == pytest.approx(50.0)


def test_what_was_taken_too_much_is_taken_off_what_comes_and_no_total_falls() -> None:
    """Alone for all it knew, it took 10 s at 100 W; half of 8 of them were another's. 400 J too many are paid back at 50 W."""
    shares = Shares()
    assert joules(shares.own([energy(n, n + 1, 100.0) for n in range(10)])) == 1000.0
    shares.claims = (Claim(GPU.claim, 2.0, math.inf),)
    paid = [joules(shares.own([energy(n, n + 1, 100.0)])) for n in range(10, 20)]
    assert paid == pytest.approx([0.0] * 8 + [50.0] * 2)


def test_what_was_left_to_a_run_that_had_gone_is_got_at_once() -> None:
    shares = Shares()
    shares.claims = (Claim(GPU.claim, 0.0, math.inf),)
    assert joules(shares.own([energy(n, n + 1, 100.0) for n in range(10)])) == 500.0
    shares.claims = (Claim(GPU.claim, 0.0, 4.0),)
    assert joules(shares.own([energy(10.0, 11.0, 100.0)])) == pytest.approx(100.0 + 6 * 50.0)


def test_what_one_device_owes_is_not_taken_from_another() -> None:
    shares = Shares()
    shares.own([energy(0.0, 1.0, 100.0), energy(0.0, 1.0, 70.0, device=OTHER_GPU)])
    shares.claims = (Claim(GPU.claim, 0.0, math.inf),)
    parts = shares.own([energy(1.0, 2.0, 70.0, device=OTHER_GPU), energy(1.0, 2.0, 100.0)])
    assert {part.device.uuid: part.joules for part in parts} == {"GPU-2": 70.0, "GPU-1": 0.0}


def test_a_claim_that_is_told_no_more_since_it_is_long_over_stays_true() -> None:
    """The folder of journals forgets it after as long as the history lasts; an interval that began before is still in that."""
    shares = Shares()
    shares.claims = (Claim(GPU.claim, 0.0, 10.0),)
    assert joules(shares.own([energy(0.0, 60.0, 6000.0)])) == pytest.approx(5500.0)
    shares.claims = ()
    assert joules(shares.own([energy(60.0, 120.0, 6000.0)])) == pytest.approx(6000.0)


def test_a_run_that_was_thought_over_and_is_not_counts_all_the_time() -> None:
    """Its journal was deleted, and has been made again."""
    shares = Shares()
    shares.claims = (Claim(GPU.claim, 0.0, math.inf),)
    shares.own([energy(0.0, 10.0, 1000.0)])
    shares.claims = (Claim(GPU.claim, 0.0, 10.0),)
    assert joules(shares.own([energy(10.0, 20.0, 1000.0)])) == pytest.approx(1000.0)
    shares.claims = (Claim(GPU.claim, 0.0, math.inf),)
    assert joules(shares.own([energy(20.0, 40.0, 2000.0)])) == pytest.approx(500.0)


def test_what_becomes_known_too_late_is_made_up_for_as_far_as_the_history_goes() -> None:
    shares = Shares()
    seconds = 10 * int(HISTORY_SECONDS)
    for n in range(seconds):
        shares.own([energy(n, n + 1, 100.0)])
    shares.claims = (Claim(GPU.claim, 0.0, math.inf),)
    later = joules(shares.own([energy(n, n + 1, 100.0) for n in range(seconds, 2 * seconds)]))
    assert later == pytest.approx(50.0 * seconds - 50.0 * (HISTORY_SECONDS + 1))


def test_what_is_remembered_is_bounded() -> None:
    shares = Shares()
    sizes = set()
    for n in range(2000):
        shares.claims = (Claim(GPU.claim, float(n), n + 0.5),)
        shares.own([energy(n, n + 1, 100.0), energy(n, n + 1, 50.0, device=CPU)])
        sizes.add((len(shares._history), len(shares._known)))
    assert max(sizes)[0] <= 2 * (HISTORY_SECONDS + 2)
    assert max(known for _, known in sizes) <= REMEMBERED_SECONDS + 2


# Several runs of one host, each with what it knows


@dataclass(frozen=True)
class Curve:
    """Power, on lines between its values at multiples of GRID."""

    watts: Sequence[float]

    def at(self, seconds: float) -> float:
        n = min(int(seconds / GRID), len(self.watts) - 2)
        low, high = self.watts[n], self.watts[n + 1]
        return low + (high - low) * (seconds - n * GRID) / GRID

    def between(self, start: float, end: float, device: Device = GPU) -> list[Energy]:
        """As the trapezoid over readings at the breakpoints gives them, which is exact."""
        inner = [n * GRID for n in range(len(self.watts)) if start < n * GRID < end]
        cuts = [start, *inner, end]
        return [
            energy(a, b, (self.at(a) + self.at(b)) / 2 * (b - a), slope=(self.at(b) - self.at(a)) / (b - a), device=device)
            for a, b in pairwise(cuts)
            if b > a
        ]


@dataclass
class Run:
    """One of the runs, with what it learns of the others so many seconds after it happened."""

    start: float
    end: float
    delay: float
    shares: Shares = field(default_factory=Shares)
    total: float = 0.0

    def knows(self, others: Iterable["Run"], now: float) -> tuple[Claim, ...]:
        at = now - self.delay
        return tuple(Claim(GPU.claim, o.start, o.end if o.end <= at else math.inf) for o in others if o.start <= at)

    def live(self, curve: Curve, others: Sequence["Run"], forget: float = math.inf) -> None:
        for whole in curve.between(self.start, self.end):
            claims = self.knows(others, whole.end)
            claims = tuple(claim for claim in claims if claim.end > whole.end - forget)
            if claims != self.shares.claims:
                self.shares.claims = claims
            for part in self.shares.own([whole]):
                assert part.joules >= 0
                assert part.start < part.end
                self.total += part.joules


def others_of(run: Run, runs: Sequence[Run]) -> list[Run]:
    return [other for other in runs if other is not run]


def used(curve: Curve, runs: Sequence[Run]) -> float:
    """By the device while at least one of them lived."""
    edges = sorted({edge for run in runs for edge in (run.start, run.end)})
    spans = pairwise(edges)
    return math.fsum(
        joules(curve.between(a, b)) for a, b in spans if b > a and any(run.start <= (a + b) / 2 < run.end for run in runs)
    )


powers = st.floats(0.0, 1000.0) | st.sampled_from([0.0, 50.0, 700.0])


@st.composite
def curves(draw: st.DrawFn, size: int, watts: st.SearchStrategy[float] = powers) -> Curve:
    some = draw(st.lists(watts, min_size=2, max_size=20))
    return Curve([some[n % len(some)] for n in range(size)])


instants = st.floats(0.0, 400.0) | st.integers(0, 20).map(lambda n: n * GRID)


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_what_is_known_at_once_adds_up_to_the_device_whoever_comes_and_goes(data: st.DataObject) -> None:
    curve = data.draw(curves(22))
    lives = data.draw(st.lists(st.tuples(instants, instants).map(sorted), min_size=1, max_size=5))
    runs = [Run(start, end, 0.0) for start, end in lives if end > start]
    for run in runs:
        # All that will happen until the end of an interval is known before it: that is what "at once" can mean at best.
        run.shares.claims = tuple(Claim(GPU.claim, o.start, o.end) for o in others_of(run, runs))
        for whole in curve.between(run.start, run.end):
            parts = run.shares.own([whole])
            assert all(part.joules >= 0 for part in parts)
            run.total += joules(parts)
    assert math.fsum(run.total for run in runs) == pytest.approx(used(curve, runs), rel=1e-9, abs=1e-6)


CALM = 3000.0
"""Seconds between two changes, in which every debt that a delay can make is paid, since power stays within a factor of 5."""


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_what_is_learnt_late_adds_up_to_the_device_in_the_end(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 4), label="runs")
    slots = data.draw(st.permutations(range(2 * count)), label="order")
    offsets = data.draw(st.lists(st.floats(0.0, 100.0), min_size=2 * count, max_size=2 * count), label="offsets")
    delays = data.draw(st.lists(st.floats(0.0, HISTORY_SECONDS - GRID), min_size=count, max_size=count), label="delays")
    forget = data.draw(st.sampled_from([math.inf, HISTORY_SECONDS]), label="claims are told for so long")
    curve = data.draw(curves(int((2 * count + 1) * CALM / GRID), st.floats(100.0, 500.0)))
    runs = []
    for n in range(count):
        first, last = sorted(slots[2 * n : 2 * n + 2])
        runs.append(Run(first * CALM + offsets[first], last * CALM + offsets[last], delays[n]))
    for run in runs:
        run.live(curve, others_of(run, runs), forget)
    assert math.fsum(run.total for run in runs) == pytest.approx(used(curve, runs), rel=1e-9)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_however_late_anything_is_learnt_no_part_is_negative_and_no_run_has_more_than_there_was(data: st.DataObject) -> None:
    curve = data.draw(curves(22))
    lives = data.draw(st.lists(st.tuples(instants, instants).map(sorted), min_size=1, max_size=4))
    delays = st.floats(0.0, 1000.0)
    runs = [Run(start, end, data.draw(delays)) for start, end in lives if end > start]
    for run in runs:
        run.live(curve, others_of(run, runs), forget=data.draw(st.floats(1.0, 500.0)))
        assert run.total <= joules(curve.between(run.start, run.end)) + 1e-6
