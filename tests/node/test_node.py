"""What a machine uses, and what of it no run claims. Powers are known, so every joule is."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_eco2ai.devices import Reader
from hf_eco2ai.devices.cpu_model import CpuModel
from hf_eco2ai.devices.dram_model import DramModel
from hf_eco2ai.energy.share import Claim, on, unclaimed
from hf_eco2ai.records import Component, Energy, Failure, Sample
from hf_eco2ai.wiring import node_context, open_readers
from tests.node.machine import (
    DRAM,
    GPU,
    OTHER_GPU,
    PACKAGE,
    PUBLISH,
    SETTLE,
    Clock,
    Counters,
    Machine,
    Powers,
    device,
    joules,
    shown,
)

BEGAN = 1000.0


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


# Energy


def test_a_constant_power_is_counted_to_the_joule_and_nobody_claims_it(machine: Machine) -> None:
    node = machine.opened(Counters(machine.clock, {GPU: 100.0}))
    assert joules(node, [GPU]) == [(0.0, 0.0)]
    machine.run(node, BEGAN + 60)
    assert shown(node, GPU).joules == 6000.0
    machine.end(node)
    assert joules(node, [GPU]) == [(6000.0, 6000.0)]
    assert shown(node, GPU).observed_seconds == 60.0


def test_a_rising_power_without_a_counter_is_its_exact_integral_cut_along_its_line(machine: Machine) -> None:
    """From 0 to 400 W in 40 s: 8000 J, of which 2000 J fall into the first half, when nobody claims it."""
    machine.claims = (Claim("GPU-1", BEGAN + 20.03, math.inf),)
    node = machine.opened(Powers(machine.clock, GPU, lambda at: 10 * (at - BEGAN)))
    machine.run(node, BEGAN + 40)
    machine.end(node)
    assert joules(node, [GPU])[0] == pytest.approx((8000.0, 5 * 20.03**2))


def test_what_a_device_uses_while_it_does_not_answer_is_counted_by_its_counter_afterwards(machine: Machine) -> None:
    reader = Counters(machine.clock, {GPU: 100.0, OTHER_GPU: 50.0})
    node = machine.opened(reader)
    reader.silent = {GPU}
    machine.run(node, BEGAN + 10)
    assert (shown(node, GPU).joules, shown(node, GPU).observed_seconds) == (0.0, 0.0)
    assert shown(node, OTHER_GPU).joules == 500.0
    reader.silent = set()
    machine.run(node, BEGAN + 20)
    assert (shown(node, GPU).joules, shown(node, GPU).observed_seconds) == (2000.0, 20.0)


def test_power_stands_in_for_a_counter_that_is_silent_when_the_daemon_ends(machine: Machine) -> None:
    reader = Counters(machine.clock, {GPU: 100.0}, tells_power=True)
    node = machine.opened(reader)
    machine.run(node, BEGAN + 20)
    reader.silent_counters = {GPU}
    machine.run(node, BEGAN + 23)
    machine.end(node)
    assert joules(node, [GPU]) == [(2300.0, 2300.0)]


def test_what_was_missed_of_the_schedule_is_not_made_up_for(machine: Machine) -> None:
    node = machine.opened(Counters(machine.clock, {GPU: 100.0}))
    machine.clock.seconds = BEGAN + 100
    node.step()
    assert node.next_due() == BEGAN + 101
    assert shown(node, GPU).joules == 10000.0


def test_power_is_read_closely_only_where_a_device_has_no_counter(machine: Machine) -> None:
    node = machine.opened(Counters(machine.clock, {GPU: 100.0}))
    assert node.next_due() == BEGAN + 1.0
    machine.kill()
    node = machine.opened(Counters(machine.clock, {GPU: 100.0}), Powers(machine.clock, OTHER_GPU, lambda _at: 100.0))
    assert node.next_due() == BEGAN + 0.1


# Power


def test_power_is_what_was_read_else_the_mean_of_the_last_interval_else_absent(machine: Machine) -> None:
    tells = Counters(machine.clock, {GPU: 100.0}, tells_power=True)
    counts = Counters(machine.clock, {PACKAGE: 60.0})
    node = machine.opened(tells, counts)
    assert [shown(node, one).watts for one in (GPU, PACKAGE)] == [100.0, None]
    machine.run(node, BEGAN + 1)
    assert [shown(node, one).watts for one in (GPU, PACKAGE)] == [100.0, pytest.approx(60.0)]
    tells.silent, counts.silent = {GPU}, {PACKAGE}
    machine.run(node, BEGAN + 2)
    assert [shown(node, one).watts for one in (GPU, PACKAGE)] == [None, None]


# What nobody claims


def test_an_idle_gpu_beside_a_claimed_one_is_unattributed(machine: Machine) -> None:
    machine.claims = (Claim("GPU-1", BEGAN - 5, math.inf),)
    node = machine.opened(Counters(machine.clock, {GPU: 400.0, OTHER_GPU: 75.0}))
    machine.run(node, BEGAN + 30)
    machine.end(node)
    assert joules(node, [GPU, OTHER_GPU]) == [(12000.0, 0.0), (2250.0, 2250.0)]


def test_energy_waits_until_it_has_settled_before_anyone_says_that_nobody_claims_it(machine: Machine) -> None:
    node = machine.opened(Counters(machine.clock, {GPU: 100.0}))
    machine.run(node, BEGAN + SETTLE)
    assert joules(node, [GPU]) == [(1000.0, 0.0)]
    machine.run(node, BEGAN + SETTLE + PUBLISH)
    assert joules(node, [GPU]) == [(1500.0, 500.0)]


def test_a_run_that_becomes_known_late_is_honoured_from_its_first_instant(machine: Machine) -> None:
    node = machine.opened(Counters(machine.clock, {GPU: 100.0}))
    machine.run(node, BEGAN + 29)
    machine.claims = (Claim("GPU-1", BEGAN + 20.5, math.inf),)
    machine.run(node, BEGAN + 60)
    machine.end(node)
    assert joules(node, [GPU])[0] == pytest.approx((6000.0, 2050.0))


def test_once_a_run_has_ended_its_device_is_unattributed_again(machine: Machine) -> None:
    machine.claims = (Claim("GPU-1", BEGAN, math.inf),)
    node = machine.opened(Counters(machine.clock, {GPU: 100.0}))
    machine.run(node, BEGAN + 30)
    machine.claims = (Claim("GPU-1", BEGAN, BEGAN + 27.25),)
    machine.run(node, BEGAN + 60)
    machine.end(node)
    assert joules(node, [GPU])[0] == pytest.approx((6000.0, 3275.0))


@pytest.mark.parametrize("part", ["", ":cpus-0,1,2,3", ":cgroup-4026531835"])
@pytest.mark.parametrize("component", ["cpu", "dram"])
def test_a_run_on_a_part_of_the_cpus_or_of_the_memory_claims_them(machine: Machine, component: Component, part: str) -> None:
    machine.claims = (Claim(f"{component}{part}", BEGAN, math.inf),)
    node = machine.opened(Counters(machine.clock, {PACKAGE: 100.0, DRAM: 10.0, GPU: 1.0}))
    machine.run(node, BEGAN + 30)
    machine.end(node)
    claimed = {"cpu": [0.0, 300.0, 30.0], "dram": [3000.0, 0.0, 30.0]}
    assert [unattributed for _, unattributed in joules(node, [PACKAGE, DRAM, GPU])] == claimed[component]


@pytest.mark.parametrize("other", ["GPU-12", "gpu", "GPU-1:x", "cpus", "cpu-0"])
def test_a_claim_of_something_else_changes_nothing(other: str) -> None:
    assert on(GPU, [Claim(other, 0.0, math.inf)]) == []
    assert on(PACKAGE, [Claim(other, 0.0, math.inf)]) == []


# By hypothesis

instants = st.floats(0.0, 100.0)
some_claims = st.lists(
    st.builds(lambda start, seconds: Claim("GPU-1", start, start + seconds), instants, st.floats(0.0, 60.0) | st.just(math.inf)),
    max_size=6,
)


@st.composite
def energies(draw: st.DrawFn) -> Energy:
    """From one power to another along a line, or by a counter."""
    start, seconds = draw(instants), draw(st.floats(0.01, 50.0))
    first, last = draw(st.floats(0.0, 1000.0)), draw(st.floats(0.0, 1000.0))
    slope = draw(st.sampled_from([0.0, (last - first) / seconds]))
    return Energy(GPU, start, start + seconds, (first + last) / 2 * seconds, "trapezoid" if slope else "counter", slope)


def free_seconds(start: float, end: float, claims: Iterable[Claim]) -> list[tuple[float, float]]:
    """The intervals of [start, end] in no claim, found another way: by shrinking what is free claim after claim."""
    free = [(start, end)]
    for claim in claims:
        free = [
            (a, b)
            for one in free
            for a, b in ((one[0], min(one[1], claim.start)), (max(one[0], claim.end), one[1]))
            if a < b and claim.start < claim.end
        ] or ([] if claim.start < claim.end else free)
    return free


@given(energies(), some_claims)
def test_what_is_unclaimed_is_the_integral_over_the_time_that_no_claim_holds(energy: Energy, claims: list[Claim]) -> None:
    expected = math.fsum(energy.between(a, b) for a, b in free_seconds(energy.start, energy.end, claims))
    assert unclaimed(energy, claims) == pytest.approx(expected, rel=1e-9, abs=1e-6)
    assert 0 <= unclaimed(energy, claims) <= energy.joules * (1 + 1e-9) + 1e-6


@given(energies())
def test_without_a_claim_all_is_unclaimed_and_with_one_over_all_nothing(energy: Energy) -> None:
    assert unclaimed(energy, []) == energy.joules
    assert unclaimed(energy, [Claim("GPU-1", energy.start, energy.end)]) == 0.0
    assert unclaimed(energy, [Claim("GPU-1", energy.end, math.inf)]) == pytest.approx(energy.joules)


@given(energies(), some_claims, st.lists(st.floats(0.0, 1.0), max_size=5))
def test_cutting_an_interval_anywhere_changes_nothing(energy: Energy, claims: list[Claim], cuts: list[float]) -> None:
    at = sorted({energy.start, energy.end, *(energy.start + (energy.end - energy.start) * part for part in cuts)})
    parts = [energy._replace(start=a, end=b, joules=max(0.0, energy.between(a, b))) for a, b in pairwise(at) if a < b]
    assert math.fsum(unclaimed(part, claims) for part in parts) == pytest.approx(unclaimed(energy, claims), rel=1e-9, abs=1e-6)


@settings(deadline=None, max_examples=60)
@given(
    some_claims,
    st.lists(st.tuples(st.floats(0.5, 40.0), st.sampled_from(["goes on", "restart", "SIGKILL"])), min_size=1, max_size=6),
    st.floats(0.0, 500.0),
    st.floats(-4.0, 4.0),
)
def test_totals_never_fall_and_are_the_integral_whatever_claims_and_restarts_there_are(
    claims: list[Claim], stretches: list[tuple[float, str]], watts: float, slope: float
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(Path(folder))
        machine.claims = tuple(claim._replace(start=BEGAN + claim.start, end=BEGAN + claim.end) for claim in claims)
        base = watts + 4 * 240  # Power stays above 0.

        def readers() -> tuple[Reader, Reader]:
            powers = Powers(machine.clock, GPU, lambda at: base + slope * (at - BEGAN))
            return powers, Counters(machine.clock, {OTHER_GPU: 50.0})

        node = machine.opened(*readers())
        killed = False
        for seconds, then in stretches:
            machine.run(node, machine.clock.seconds + seconds)
            if then != "goes on":
                killed |= then == "SIGKILL"
                machine.end(node) if then == "restart" else machine.kill()
                node = machine.opened(*readers())
        machine.end(node)

        until = machine.clock.seconds - BEGAN
        (all_of_it, unattributed), (of_other, unattributed_of_other) = joules(node, [GPU, OTHER_GPU])
        assert unattributed_of_other == pytest.approx(of_other) or killed
        if not killed:
            assert of_other == pytest.approx(50.0 * until)
            assert all_of_it == pytest.approx(base * until + slope * until**2 / 2)
            free = free_seconds(0.0, until, claims)
            expected = math.fsum(base * (b - a) + slope * (b * b - a * a) / 2 for a, b in free)
            assert unattributed == pytest.approx(expected, rel=1e-6, abs=1e-3)
        for before, after in pairwise(machine.history):
            for earlier, later in zip(before.devices, after.devices, strict=True):
                assert 0 <= earlier.joules <= later.joules
                assert 0 <= earlier.unattributed_joules <= later.unattributed_joules <= later.joules
                assert earlier.observed_seconds <= later.observed_seconds


# Restarts


def test_what_is_shown_stands_on_the_disk_already(machine: Machine) -> None:
    node = machine.opened(Counters(machine.clock, {GPU: 100.0}))
    for second in range(1, 31):
        machine.run(node, BEGAN + second)
        if shown(node, GPU).joules:
            (kept,) = json.loads(machine.path.read_bytes())["sections"]["node"]["devices"].values()
            assert kept == {
                "joules": shown(node, GPU).joules,
                "unattributed_joules": shown(node, GPU).unattributed_joules,
                "observed_seconds": shown(node, GPU).observed_seconds,
            }
    assert shown(node, GPU).joules == 3000.0


def test_counters_go_on_from_the_first_scrape_after_a_restart_and_the_time_between_is_not_counted(machine: Machine) -> None:
    node = machine.opened(Counters(machine.clock, {GPU: 100.0}))
    machine.run(node, BEGAN + 20)
    machine.end(node)
    machine.clock.seconds += 1000
    node = machine.opened(Counters(machine.clock, {GPU: 100.0}))
    assert joules(node, [GPU]) == [(2000.0, 2000.0)]
    machine.run(node, machine.clock.seconds + 10)
    assert shown(node, GPU).joules == 3000.0


def test_a_device_that_is_away_for_a_while_goes_on_where_it_stood(machine: Machine) -> None:
    for watts in ({GPU: 100.0, OTHER_GPU: 10.0}, {OTHER_GPU: 10.0}, {GPU: 100.0, OTHER_GPU: 10.0}):
        node = machine.opened(Counters(machine.clock, watts))
        machine.run(node, machine.clock.seconds + 10)
        machine.end(node)
    assert [all_of_it for all_of_it, _ in joules(node, [GPU, OTHER_GPU])] == [2000.0, 300.0]


def test_a_cpu_that_was_modelled_and_is_measured_now_is_counted_anew(machine: Machine) -> None:
    modelled, measured = device("cpu", "cpu", basis="modelled"), device("cpu", "cpu")
    for one in (modelled, measured):
        node = machine.opened(Counters(machine.clock, {one: 100.0}))
        machine.run(node, machine.clock.seconds + 10)
        machine.end(node)
    assert shown(node, measured).joules == 1000.0


def test_a_node_that_is_killed_at_any_moment_goes_on_where_it_was_last_seen_or_higher(tmp_path: Path) -> None:
    dice = random.Random(4)
    seen: dict[str, float] = {}
    for _ in range(10):
        command = [sys.executable, "-m", "tests.node.counting", str(tmp_path / "state.json")]
        root = Path(__file__).parents[2]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root, text=True) as child:
            assert child.stdout is not None
            for _ in range(dice.randrange(5, 60)):
                seen = at_least(seen, child.stdout.readline())
            os.kill(child.pid, signal.SIGKILL)
            for line in child.stdout.read().splitlines(keepends=True):
                if line.endswith("\n"):
                    seen = at_least(seen, line)
    assert seen["SIMULATED-0 joules"] > 0
    assert seen["SIMULATED-1 unattributed_joules"] > 0
    assert not list(tmp_path.glob("*.damaged"))


def at_least(seen: dict[str, float], line: str) -> dict[str, float]:
    now: dict[str, float] = json.loads(line)
    assert len(now) == 6
    assert all(now[name] >= value for name, value in seen.items())
    return now


# What goes wrong


class Full:
    """A disk on which nothing can be opened while it is full."""

    write = staticmethod(os.write)
    fsync = staticmethod(os.fsync)
    close = staticmethod(os.close)
    replace = staticmethod(os.replace)

    def __init__(self) -> None:
        self.is_full = True

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        if self.is_full:
            raise OSError(28, "No space left on device")
        return os.open(path, flags, mode)


def test_on_a_full_disk_figures_go_on_it_is_counted_and_all_is_kept_once_there_is_room(tmp_path: Path) -> None:
    disk = Full()
    machine = Machine(tmp_path, disk)
    node = machine.opened(Counters(machine.clock, {GPU: 100.0}))
    machine.run(node, BEGAN + 20)
    assert shown(node, GPU).joules == 2000.0
    assert [failure.error_type for failure in machine.failures] == ["journal_failed"] * 4
    assert len({failure.cause for failure in machine.failures}) == 1
    assert "--state-dir" in machine.failures[0].message
    disk.is_full = False
    machine.run(node, BEGAN + 25)
    machine.kill()
    assert shown(machine.opened(Counters(machine.clock, {GPU: 100.0})), GPU).joules == 2500.0


def test_what_a_driver_reports_is_passed_on_and_measuring_goes_on(machine: Machine) -> None:
    reader = Counters(machine.clock, {GPU: 100.0})
    reader.failures = (Failure("driver_error", "a cause", "The driver is in a bad mood."),)
    node = machine.opened(reader)
    machine.run(node, BEGAN + 10)
    assert machine.failures == [*reader.failures] * 11
    assert shown(node, GPU).joules == 1000.0


class Raises(Counters):
    def read(self) -> Sample:
        raise RuntimeError("a defect")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_defect_ends_the_thread_and_says_so(machine: Machine) -> None:
    died = threading.Event()
    node = machine.node(Raises(machine.clock, {GPU: 100.0}), died=died.set)
    node.start()
    assert died.wait(30)
    assert node.failed
    node.stop()


def test_a_thread_measures_until_it_is_stopped_and_gives_the_drivers_back(machine: Machine) -> None:
    first = threading.Event()
    reader = Counters(machine.clock, {GPU: 100.0})

    def wall() -> float:
        first.set()
        return 5.0

    node = machine.node(reader, died=lambda: pytest.fail("it ended well"), wall=wall)
    assert (node.snapshot, node.failed) == (None, False)
    node.start()
    assert first.wait(30)
    assert (node.failed, reader.closed) == (False, False)
    machine.clock.seconds += 7
    node.stop(30)
    assert (node.failed, reader.closed) == (False, True)
    assert joules(node, [GPU]) == [(700.0, 700.0)]
    assert node.snapshot is not None
    assert node.snapshot.updated_unix == 5.0


def test_a_driver_that_hangs_does_not_hold_up_the_end(machine: Machine) -> None:
    hangs, goes_on = threading.Event(), threading.Event()

    class Hangs(Counters):
        def read(self) -> Sample:
            hangs.set()
            goes_on.wait()
            return super().read()

    node = machine.node(Hangs(machine.clock, {GPU: 100.0}))
    node.start()
    assert hangs.wait(30)
    node.stop(wait=0)
    assert node.snapshot is None
    goes_on.set()
    node.stop(30)


def test_a_node_that_was_never_started_can_be_stopped(machine: Machine) -> None:
    machine.node(Counters(machine.clock, {GPU: 100.0})).stop()


# The readers of a node


def test_all_of_the_machine_is_meant_whatever_the_daemons_own_container_may_use(tmp_path: Path) -> None:
    for path, text in {
        "sys/fs/cgroup/cpu.max": "10000 100000\n",
        "sys/fs/cgroup/cpu.stat": "usage_usec 1\n",
        "sys/fs/cgroup/memory.max": "1000000\n",
        "proc/stat": "cpu  100 0 100 1000 0 0 0 0 0 0\n",
        "proc/cpuinfo": "",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    context = node_context("h", now=Clock(), root=tmp_path)
    (cpu,), (dram,) = CpuModel(context).devices, DramModel(context).devices
    assert (cpu.claim, dram.claim) == ("cpu", "dram")
    assert cpu.note == f"{os.cpu_count()} logical CPUs"
    assert float(dram.source.split()[2]) > 0.1


def test_a_node_may_have_simulated_gpus_beside_its_own_cpu_and_memory() -> None:
    readers = open_readers(node_context("h", simulated_gpus=2))
    assert [one.uuid for reader in readers for one in reader.devices if one.component == "gpu"] == ["SIMULATED-0", "SIMULATED-1"]
    assert {one.component for reader in readers for one in reader.devices} == {"gpu", "cpu", "dram"}
    for reader in readers:
        reader.close()
