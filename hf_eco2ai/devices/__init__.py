"""1 read: one file per kind of hardware, each with one class, each class one row here.

To add a reader: write the file, add its row. CLI, docs and error messages are made from this table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from hf_eco2ai.records import Component, Device, Sample


class Reader(Protocol):
    """Reads one kind of hardware. Not thread-safe; one thread owns it."""

    @property
    def devices(self) -> tuple[Device, ...]:
        """The devices that this reader found when it was opened. They do not change."""

    @property
    def power_only(self) -> bool:
        """Whether a device has no energy counter now, so that its power must be read every `power_interval`."""

    def read(self) -> Sample:
        """One pass over all devices. Raises nothing: what failed is in the sample."""

    def read_power(self) -> Sample:
        """One quick pass over those devices that have no energy counter; empty where all have one."""

    def close(self) -> None:
        """Give the driver back. Called once."""


@dataclass(frozen=True)
class ReaderContext:
    """What a reader may need to know to open itself. Each takes what it needs."""

    host: str
    now: Callable[[], float]
    root: Path = Path("/")
    """Where `/sys` and `/proc` are; a folder of recorded files in tests."""
    gpu_ids: tuple[int | str, ...] | None = None
    cuda_visible_devices: str | None = None
    cuda_device_order: str | None = None
    mig_attribution: str = "whole"
    use_gpus: bool = True
    """False when the Trainer runs on the CPU and nobody named a GPU: the machine's GPUs are then not the job's."""
    simulated_gpus: int = 0
    replay: Path | None = None
    whole_machine: bool = False
    """True where the node is measured: all of its CPUs and memory, not what an affinity or a container leaves this process."""


class ReaderRow(NamedTuple):
    """One kind of reader. `opener` is `module:Class`, a string so that an unused reader costs no import."""

    name: str
    components: tuple[Component, ...]
    basis: str
    opener: str
    what: str


READERS: tuple[ReaderRow, ...] = (
    ReaderRow(
        "replay",
        ("gpu", "cpu", "dram"),
        "as recorded",
        "hf_eco2ai.devices.replay:Replay",
        "plays a recording (setting `replay`), for tests and demonstrations",
    ),
    ReaderRow(
        "simulated",
        ("gpu",),
        "simulated",
        "hf_eco2ai.devices.simulated:Simulated",
        "made-up GPUs with an energy counter (setting `simulated_gpus`), for demonstrations",
    ),
    ReaderRow(
        "nvml",
        ("gpu",),
        "measured",
        "hf_eco2ai.devices.nvml:Nvml",
        "NVIDIA GPUs: the energy counter where the GPU answers it, else the trapezoid over its power",
    ),
    ReaderRow(
        "rapl",
        ("cpu", "dram"),
        "measured",
        "hf_eco2ai.devices.rapl:Rapl",
        "CPU packages and DRAM by the energy counters of Linux powercap",
    ),
    ReaderRow(
        "cpu_model",
        ("cpu",),
        "modelled",
        "hf_eco2ai.devices.cpu_model:CpuModel",
        "where RAPL cannot be read: watts per logical CPU between idle and full load, by micro-architecture and utilisation",
    ),
    ReaderRow(
        "dram_model",
        ("dram",),
        "modelled",
        "hf_eco2ai.devices.dram_model:DramModel",
        "where RAPL has no DRAM zone: watts per GB of installed memory",
    ),
)
"""In order of preference: for each component the first reader that opens is used, and no other."""
