"""RAPL: which of the zones that Linux shows are counted, and what happens when one does not answer.

The folders are those of Documentation/power/powercap/powercap.rst.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hf_eco2ai.devices import ReaderContext
from hf_eco2ai.devices.rapl import Rapl
from hf_eco2ai.energy.integrator import Integrator
from hf_eco2ai.errors import Unavailable
from hf_eco2ai.records import CounterReading, Reading

RANGE_MICROJOULES = 262_143_328_850
NOBODY = 65534


class Clock:
    """An instant that the test sets."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


def zone(root: Path, folder: str, name: str, microjoules: int | str, wraps_at: int = RANGE_MICROJOULES) -> Path:
    made = root / "sys/class/powercap" / folder
    made.mkdir(parents=True)
    (made / "name").write_text(f"{name}\n")
    (made / "energy_uj").write_text(f"{microjoules}\n")
    (made / "max_energy_range_uj").write_text(f"{wraps_at}\n")
    return made


def vendor(root: Path, name: str) -> None:
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/cpuinfo").write_text(f"processor\t: 0\nvendor_id\t: {name}\n\nprocessor\t: 1\nvendor_id\t: {name}\n")


def opened(root: Path, clock: Clock) -> Rapl:
    return Rapl.open(ReaderContext(host="h", now=clock, root=root))


def counters(readings: tuple[Reading, ...]) -> dict[str, float]:
    assert all(isinstance(reading, CounterReading) for reading in readings)
    return {reading.device.uuid: reading.joules for reading in readings if isinstance(reading, CounterReading)}


def test_packages_and_their_dram_are_counted_and_nothing_twice(tmp_path: Path, clock: Clock) -> None:
    vendor(tmp_path, "GenuineIntel")
    (tmp_path / "sys/class/powercap/intel-rapl").mkdir(parents=True)
    for package in (0, 1):
        zone(tmp_path, f"intel-rapl:{package}", f"package-{package}", 1_000_000 * (package + 1))
        zone(tmp_path, f"intel-rapl:{package}:0", "core", 400_000)
        zone(tmp_path, f"intel-rapl:{package}:1", "uncore", 100_000)
        zone(tmp_path, f"intel-rapl:{package}:2", "dram", 250_000 * (package + 1), 65_532_610_987)
    zone(tmp_path, "intel-rapl:2", "psys", 9_000_000)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 1_000_000)
    rapl = opened(tmp_path, clock)

    assert [(one.uuid, one.component, one.basis) for one in rapl.devices] == [
        ("package-0", "cpu", "measured"),
        ("package-1", "cpu", "measured"),
        ("dram-0", "dram", "measured"),
        ("dram-1", "dram", "measured"),
    ]
    sample = rapl.read()
    assert counters(sample.readings) == {"package-0": 1.0, "package-1": 2.0, "dram-0": 0.25, "dram-1": 0.5}
    assert sample.failures == ()
    assert {reading.at for reading in sample.readings} == {100.0}
    assert not rapl.power_only
    assert rapl.read_power().readings == ()
    rapl.close()


def test_the_range_of_the_counter_goes_with_each_reading(tmp_path: Path, clock: Clock) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 5)
    (reading,) = opened(tmp_path, clock).read().readings

    assert isinstance(reading, CounterReading)
    assert reading.wraps_at == pytest.approx(262143.328850)


def test_a_counter_that_wraps_loses_no_energy(tmp_path: Path, clock: Clock) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", RANGE_MICROJOULES - 50_000_000)
    rapl, integrator = opened(tmp_path, clock), Integrator(2.0)
    integrator.add(rapl.read().readings)
    clock.at += 1.0
    (package / "energy_uj").write_text("70000000\n")

    (energy,), failures = integrator.add(rapl.read().readings)

    assert energy.joules == pytest.approx(120.0)
    assert failures == []


def test_ten_packages_are_in_the_order_of_their_numbers(tmp_path: Path, clock: Clock) -> None:
    for package in range(11):
        zone(tmp_path, f"intel-rapl:{package}", f"package-{package}", 1)

    assert [one.uuid for one in opened(tmp_path, clock).devices] == [f"package-{i}" for i in range(11)]


def test_counters_that_stand_at_zero_are_a_virtual_machines_and_not_used(tmp_path: Path, clock: Clock) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 0)
    with pytest.raises(Unavailable, match="stands at 0"):
        opened(tmp_path, clock)


def test_a_dram_zone_that_does_not_answer_does_not_take_the_package_with_it(tmp_path: Path, clock: Clock) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 1)
    zone(tmp_path, "intel-rapl:0:0", "dram", "no number")
    assert [one.uuid for one in opened(tmp_path, clock).devices] == ["package-0"]


def test_packages_are_known_by_their_name_and_not_by_the_zones_number(tmp_path: Path, clock: Clock) -> None:
    zone(tmp_path, "intel-rapl:0", "psys", 0)
    zone(tmp_path, "intel-rapl:1", "package-0", 3_000_000)
    zone(tmp_path, "intel-rapl:1:0", "dram", 1_000_000)
    zone(tmp_path, "intel-rapl:0:0", "dram", 7_000_000)  # of psys, which holds the packages' own

    assert counters(opened(tmp_path, clock).read().readings) == {"package-0": 3.0, "dram-0": 1.0}


def dies(root: Path) -> None:
    for number, (package, die) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        zone(root, f"intel-rapl:{number}", f"package-{package}-die-{die}", (10 * package + die + 1) * 1_000_000)


def test_dies_of_an_amd_package_show_one_counter_and_are_counted_once(tmp_path: Path, clock: Clock) -> None:
    vendor(tmp_path, "AuthenticAMD")
    dies(tmp_path)

    assert counters(opened(tmp_path, clock).read().readings) == {"package-0-die-0": 1.0, "package-1-die-0": 11.0}


def test_dies_of_an_intel_package_have_a_counter_each_and_are_all_counted(tmp_path: Path, clock: Clock) -> None:
    vendor(tmp_path, "GenuineIntel")
    dies(tmp_path)

    assert counters(opened(tmp_path, clock).read().readings) == {
        "package-0-die-0": 1.0,
        "package-0-die-1": 2.0,
        "package-1-die-0": 11.0,
        "package-1-die-1": 12.0,
    }


def test_a_machine_without_powercap_has_no_rapl_and_nothing_to_remedy(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(Unavailable) as caught:
        opened(tmp_path, clock)
    assert caught.value.remedy is None


def test_a_machine_with_the_board_only_has_no_rapl(tmp_path: Path, clock: Clock) -> None:
    zone(tmp_path, "intel-rapl:0", "psys", 0)

    with pytest.raises(Unavailable):
        opened(tmp_path, clock)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can enter; pytest's own is its owner's only."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def _as_an_ordinary_user() -> Iterator[None]:
    """Root may read everything, so it becomes nobody for a while."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    yield
    os.seteuid(before)


@pytest.fixture
def kept_to_root(open_folder: Path) -> Path:
    (zone(open_folder, "intel-rapl:0", "package-0", 1) / "energy_uj").chmod(0o000)
    return open_folder


@pytest.mark.usefixtures("kept_to_root", "_as_an_ordinary_user")
def test_counters_that_are_kept_to_root_are_unavailable_and_the_remedy_is_named(kept_to_root: Path, clock: Clock) -> None:
    with pytest.raises(Unavailable) as caught:
        opened(kept_to_root, clock)

    assert "root" in caught.value.reason
    assert caught.value.remedy is not None
    assert "chmod a+r /sys/class/powercap" in caught.value.remedy
    assert "CVE-2020-8694" in caught.value.remedy


def test_a_counter_that_cannot_be_read_is_unavailable(tmp_path: Path, clock: Clock) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", 1)
    (package / "energy_uj").unlink()
    (package / "energy_uj").mkdir()

    with pytest.raises(Unavailable, match="package-0"):
        opened(tmp_path, clock)


@pytest.mark.parametrize("text", ["", "many"])
def test_a_counter_that_is_no_number_is_unavailable(tmp_path: Path, clock: Clock, text: str) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", text)

    with pytest.raises(Unavailable):
        opened(tmp_path, clock)


def test_a_counter_that_vanishes_is_a_failure_and_no_reading(tmp_path: Path, clock: Clock) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 2_000_000)
    rapl = opened(tmp_path, clock)
    (second / "energy_uj").unlink()
    sample = rapl.read()

    assert counters(sample.readings) == {"package-0": 1.0}
    (failure,) = sample.failures
    assert failure.error_type == "driver_error"
    assert "package-1" in failure.message
    assert rapl.read().failures[0].cause == failure.cause  # so that it is logged once

    (second / "energy_uj").write_text("5000000\n")
    assert counters(rapl.read().readings) == {"package-0": 1.0, "package-1": 5.0}


def container(root: Path, microseconds: int) -> Path:
    folder = root / "sys/fs/cgroup"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.max").write_text("50000 100000\n")
    (folder / "cpu.stat").write_text(f"usage_usec {microseconds}\nuser_usec 0\n")
    return folder / "cpu.stat"


def test_the_first_package_says_how_busy_the_cpus_are(tmp_path: Path, clock: Clock) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 1)
    container(tmp_path, 0)
    rapl = opened(tmp_path, clock)
    assert rapl.read().telemetry == ()  # utilisation is a difference; there is nothing to differ from yet

    clock.at += 10.0
    container(tmp_path, 2_000_000)
    (telemetry,) = rapl.read().telemetry

    # 2 of the 5 CPU seconds that half a CPU has in 10 s.
    assert telemetry.utilization_percent == pytest.approx(40.0)
    assert telemetry.device.uuid == "package-0"


def test_reading_raises_nothing_where_the_containers_cpu_time_vanishes(tmp_path: Path, clock: Clock) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    file = container(tmp_path, 0)
    rapl = opened(tmp_path, clock)
    rapl.read()
    file.unlink()
    clock.at += 1.0
    sample = rapl.read()

    assert counters(sample.readings) == {"package-0": 1.0}
    assert sample.telemetry == ()
