"""Models that stand in where nothing can be measured: watts by micro-architecture and utilisation, and by memory.

CPU time comes from the files of a container with half a CPU, so that every figure can be worked out by hand. Model numbers are
those of Linux arch/x86/include/asm/intel-family.h; watts those of Cloud Carbon Footprint.
"""

import os
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from hf_eco2ai.devices import ReaderContext
from hf_eco2ai.devices.cpu_model import MICROARCHITECTURES, CpuModel, coefficients, detect
from hf_eco2ai.devices.cpu_usage import CpuUsage
from hf_eco2ai.devices.dram_model import DramModel
from hf_eco2ai.errors import Unavailable
from hf_eco2ai.records import CounterReading, Sample


class Clock:
    """An instant that the test sets."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


def context(root: Path, clock: Clock) -> ReaderContext:
    return ReaderContext(host="h", now=clock, root=root)


def write(root: Path, path: str, text: str) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def x86(vendor: str, family: int, model: int, stepping: int) -> str:
    one = f"vendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\nmodel name\t: a CPU\nstepping\t: {stepping}\n"
    return f"processor\t: 0\n{one}\nprocessor\t: 1\n{one}"


def version2(root: Path, busy_seconds: float, quota: str = "50000 100000") -> Path:
    write(root, "sys/fs/cgroup/cpu.max", f"{quota}\n")
    return write(root, "sys/fs/cgroup/cpu.stat", f"usage_usec {round(busy_seconds * 1e6)}\nuser_usec 1\nsystem_usec 2\n")


def version1(root: Path, busy_seconds: float, quota: int = 50000) -> Path:
    write(root, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", f"{quota}\n")
    write(root, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    return write(root, "sys/fs/cgroup/cpuacct/cpuacct.usage", f"{round(busy_seconds * 1e9)}\n")


def joules(sample: Sample) -> float:
    (reading,) = sample.readings
    assert isinstance(reading, CounterReading)
    return reading.joules


# The micro-architecture


@pytest.mark.parametrize(
    ("family", "model", "stepping", "name"),
    [
        (6, 0x2A, 7, "Sandy Bridge"),
        (6, 0x2D, 7, "Sandy Bridge"),
        (6, 0x3A, 9, "Ivy Bridge"),
        (6, 0x3E, 4, "Ivy Bridge"),
        (6, 0x3C, 3, "Haswell"),
        (6, 0x3F, 2, "Haswell"),
        (6, 0x45, 1, "Haswell"),
        (6, 0x46, 1, "Haswell"),
        (6, 0x3D, 4, "Broadwell"),
        (6, 0x47, 1, "Broadwell"),
        (6, 0x4F, 1, "Broadwell"),
        (6, 0x56, 3, "Broadwell"),
        (6, 0x4E, 3, "Skylake"),
        (6, 0x5E, 3, "Skylake"),
        (6, 0x55, 4, "Skylake"),
        (6, 0x55, 5, "Cascade Lake"),
        (6, 0x55, 6, "Cascade Lake"),
        (6, 0x55, 7, "Cascade Lake"),
        (6, 0x9E, 10, "Coffee Lake"),
        (6, 0x8E, 10, "Coffee Lake"),
        (6, 0x8F, 8, "unknown (average)"),  # Sapphire Rapids
        (15, 0x06, 5, "unknown (average)"),  # Pentium 4
    ],
)
def test_intel_is_told_by_model_and_stepping(tmp_path: Path, family: int, model: int, stepping: int, name: str) -> None:
    assert detect(write(tmp_path, "proc/cpuinfo", x86("GenuineIntel", family, model, stepping))) == name


@pytest.mark.parametrize(
    ("family", "model", "name"),
    [
        (0x17, 0x01, "AMD EPYC 1st Gen"),
        (0x17, 0x31, "AMD EPYC 2nd Gen"),
        (0x19, 0x01, "AMD EPYC 3rd Gen"),
        (0x19, 0x11, "unknown (average)"),  # Genoa
        (6, 0x55, "unknown (average)"),  # Intel's number, not AMD's
    ],
)
def test_amd_is_told_by_family_and_model(tmp_path: Path, family: int, model: int, name: str) -> None:
    assert detect(write(tmp_path, "proc/cpuinfo", x86("AuthenticAMD", family, model, 1))) == name


def test_graviton2_is_told_by_the_part_number_of_neoverse_n1(tmp_path: Path) -> None:
    text = "processor\t: 0\nBogoMIPS\t: 243.75\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: {}\nCPU revision\t: 1\n"

    assert detect(write(tmp_path, "n1", text.format("0xd0c"))) == "AWS Graviton2"
    assert detect(write(tmp_path, "v1", text.format("0xd40"))) == "unknown (average)"


@pytest.mark.parametrize("text", ["", "nonsense", "vendor_id: GenuineIntel\ncpu family: six\n", "\x00\x01\n\n"])
def test_what_cannot_be_told_is_the_average(tmp_path: Path, text: str) -> None:
    assert detect(write(tmp_path, "proc/cpuinfo", text)) == "unknown (average)"


def test_without_cpuinfo_it_is_the_average(tmp_path: Path) -> None:
    assert detect(tmp_path / "proc/cpuinfo") == "unknown (average)"


def test_every_microarchitecture_that_can_be_told_has_watts() -> None:
    told = {name for models in MICROARCHITECTURES.values() for name in models}

    assert told | {"Cascade Lake", "AWS Graviton2", "unknown (average)"} == set(coefficients())


def test_the_watts_are_those_of_cloud_carbon_footprint() -> None:
    assert coefficients()["Cascade Lake"] == (0.64, 3.97)
    assert coefficients()["AMD EPYC 2nd Gen"] == (0.47, 1.69)
    assert coefficients()["unknown (average)"] == (0.74, 3.5)
    assert all(0 < watts.idle < watts.full for watts in coefficients().values())


# The modelled counter


@pytest.mark.parametrize("files", [version2, version1])
def test_the_counter_is_idle_power_over_time_and_the_rest_over_busy_seconds(tmp_path: Path, clock: Clock, files: object) -> None:
    write_files = version2 if files is version2 else version1
    write(tmp_path, "proc/cpuinfo", x86("GenuineIntel", 6, 0x55, 7))  # Cascade Lake: 0.64 to 3.97 W
    write_files(tmp_path, 70.0)
    model = CpuModel.open(context(tmp_path, clock))
    assert joules(model.read()) == pytest.approx(0.0)

    clock.at += 10.0
    write_files(tmp_path, 72.0)
    sample = model.read()
    assert joules(sample) == pytest.approx(0.64 * 0.5 * 10 + (3.97 - 0.64) * 2.0)
    assert sample.telemetry[0].utilization_percent == pytest.approx(40.0)  # 2 of 5 CPU seconds

    clock.at += 10.0
    write_files(tmp_path, 77.0)
    assert joules(model.read()) == pytest.approx(0.64 * 0.5 * 20 + (3.97 - 0.64) * 7.0)


def test_full_load_is_full_power(tmp_path: Path, clock: Clock) -> None:
    version2(tmp_path, 0.0)
    model = CpuModel(context(tmp_path, clock))
    clock.at += 100.0
    version2(tmp_path, 50.0)

    assert joules(model.read()) == pytest.approx(3.5 * 0.5 * 100)


def test_however_seldom_the_model_is_read_its_energy_is_the_same(tmp_path: Path, clock: Clock) -> None:
    version2(tmp_path, 0.0)
    often, seldom = CpuModel(context(tmp_path, clock)), CpuModel(context(tmp_path, clock))
    for busy in (0.1, 0.4, 0.4, 1.9, 2.0):
        clock.at += 1.0
        version2(tmp_path, busy)
        last = joules(often.read())

    assert last == pytest.approx(joules(seldom.read()))


def test_busy_time_that_steps_back_by_rounding_does_not_take_energy_back(tmp_path: Path, clock: Clock) -> None:
    version2(tmp_path, 10.0)
    model = CpuModel(context(tmp_path, clock))
    seen = []
    for busy in (10.02, 10.01, 10.02, 10.05):
        clock.at += 0.001
        version2(tmp_path, busy)
        seen.append(joules(model.read()))

    assert all(before <= after for before, after in pairwise(seen))
    assert seen[-1] == pytest.approx(0.74 * 0.5 * 0.004 + (3.5 - 0.74) * 0.05)


def test_the_device_says_that_it_is_modelled_and_by_what(tmp_path: Path, clock: Clock) -> None:
    write(tmp_path, "proc/cpuinfo", x86("AuthenticAMD", 0x19, 0x01, 1))
    version2(tmp_path, 0.0)
    (device,) = CpuModel(context(tmp_path, clock)).devices

    assert (device.component, device.basis) == ("cpu", "modelled")
    assert device.idle_watts == pytest.approx(0.45 * 0.5)
    for word in ("AMD EPYC 3rd Gen", "0.45", "2.02"):
        assert word in device.source
    assert "0.5 of the machine's" in device.note


def test_a_container_whose_cpu_time_vanishes_is_a_failure_and_no_reading(tmp_path: Path, clock: Clock) -> None:
    file = version2(tmp_path, 0.0)
    model = CpuModel(context(tmp_path, clock))
    file.unlink()
    sample = model.read()

    assert (sample.readings, sample.telemetry) == ((), ())
    assert [failure.error_type for failure in sample.failures] == ["driver_error"]


@pytest.mark.parametrize("text", ["", "nr_periods 0\n", "usage_usec\n", "usage_usec many\n"])
def test_a_container_whose_cpu_time_is_no_number_is_unavailable(tmp_path: Path, clock: Clock, text: str) -> None:
    version2(tmp_path, 0.0).write_text(text)

    with pytest.raises(Unavailable):
        CpuModel.open(context(tmp_path, clock))


@pytest.mark.parametrize("text", ["", "nr_periods 0\n", "usage_usec\n", "usage_usec many\n"])
def test_cpu_time_that_becomes_unreadable_while_the_run_lives_raises_nothing(tmp_path: Path, clock: Clock, text: str) -> None:
    file = version2(tmp_path, 0.0)
    model = CpuModel(context(tmp_path, clock))
    file.write_text(text)

    assert [failure.error_type for failure in model.read().failures] == ["driver_error"]


# The CPUs that are the job's


@pytest.mark.parametrize(("quota", "cpus"), [("50000 100000", 0.5), ("25000 100000", 0.25), ("10000 50000", 0.2)])
def test_a_quota_limits_the_cpus(tmp_path: Path, clock: Clock, quota: str, cpus: float) -> None:
    version2(tmp_path, 0.0, quota)

    assert CpuUsage(tmp_path, clock).cpus == cpus


def test_a_quota_of_version_1_limits_the_cpus(tmp_path: Path, clock: Clock) -> None:
    version1(tmp_path, 3.0, 20000)
    usage = CpuUsage(tmp_path, clock)

    assert usage.cpus == 0.2
    assert usage.busy_seconds() == 3.0


@pytest.mark.parametrize("quota", ["max 100000", "100000000000 100000", "nonsense"])
def test_without_a_quota_or_with_one_beyond_the_machine_the_machine_is_the_limit(
    tmp_path: Path, clock: Clock, quota: str
) -> None:
    version2(tmp_path, 12345.0, quota)
    usage = CpuUsage(tmp_path, clock)

    assert usage.cpus == CpuUsage(tmp_path / "nothing", clock).cpus
    assert usage.busy_seconds() != 12345.0


def test_without_a_quota_of_version_1_the_machine_is_the_limit(tmp_path: Path, clock: Clock) -> None:
    version1(tmp_path, 12345.0, -1)  # Documentation/scheduler/sched-bwc.rst: -1 is no limit

    assert CpuUsage(tmp_path, clock).cpus == CpuUsage(tmp_path / "nothing", clock).cpus


def test_the_job_never_has_more_cpus_than_the_machine(tmp_path: Path, clock: Clock) -> None:
    usage = CpuUsage(tmp_path, clock)

    assert 1 <= usage.cpus <= (psutil.cpu_count() or 1)
    assert usage.machine_cpus == (psutil.cpu_count() or 1)


def test_utilisation_is_since_the_last_look_and_stays_within_0_and_100(tmp_path: Path, clock: Clock) -> None:
    version2(tmp_path, 0.0)
    usage = CpuUsage(tmp_path, clock)
    assert usage.percent_since_last() is None
    assert usage.percent_since_last() is None  # no time has passed

    clock.at += 10.0
    version2(tmp_path, 1.0)
    assert usage.percent_since_last() == pytest.approx(20.0)
    clock.at += 10.0
    version2(tmp_path, 9.0)  # a burst beyond the quota
    assert usage.percent_since_last() == 100.0
    clock.at += 10.0
    version2(tmp_path, 8.99)
    assert usage.percent_since_last() == 0.0


# Memory


@pytest.mark.parametrize("name", ["sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"])
def test_the_memory_of_a_container_draws_its_share(tmp_path: Path, clock: Clock, name: str) -> None:
    write(tmp_path, name, "250000000\n")
    model = DramModel.open(context(tmp_path, clock))
    assert joules(model.read()) == 0.0
    clock.at += 3600.0

    # 0.000392 kWh per GB and hour (Cloud Carbon Footprint), a quarter of a GB, one hour.
    assert joules(model.read()) == pytest.approx(0.25 * 0.000392 * 3.6e6)


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("sys/fs/cgroup/memory.max", "max"),
        ("sys/fs/cgroup/memory.max", str(1 << 61)),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712"),
        ("nothing", "1"),
    ],
)
def test_without_a_limit_the_memory_is_the_machines(tmp_path: Path, clock: Clock, name: str, limit: str) -> None:
    write(tmp_path, name, f"{limit}\n")
    (device,) = DramModel(context(tmp_path, clock)).devices

    assert device.idle_watts == pytest.approx(0.392 * psutil.virtual_memory().total / 1e9)
    assert (device.component, device.basis) == ("dram", "modelled")
    assert "0.392 W per GB" in device.source


def test_the_machines_busy_time_is_all_but_idle_waiting_and_stolen_time(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    # proc(5): user nice system idle iowait irq softirq steal guest guest_nice, in ticks
    (tmp_path / "proc/stat").write_text("cpu  1000 200 300 90000 5000 40 60 700 80 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    busy = CpuUsage(tmp_path, lambda: 0.0)._machine_seconds()
    assert busy == pytest.approx((1000 + 200 + 300 + 40 + 60) / os.sysconf("SC_CLK_TCK"))


def test_the_machines_busy_time_is_psutils() -> None:
    before, ours, after = psutil.cpu_times(), CpuUsage(Path("/"), lambda: 0.0)._machine_seconds(), psutil.cpu_times()
    sums = [times.user + times.nice + times.system + times.irq + times.softirq for times in (before, after)]
    assert sums[0] - 1e-6 <= ours <= sums[1] + 1e-6
