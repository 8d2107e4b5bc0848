"""Commands the stand-in driver (standin.c) and drives the real pipeline over it in virtual time."""

import ctypes
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_eco2ai.devices import ReaderContext
from hf_eco2ai.devices.nvml import Nvml
from hf_eco2ai.footprint.fixed import Fixed
from hf_eco2ai.ledger import Ledger
from hf_eco2ai.monitor import Monitor
from hf_eco2ai.records import Phase, Progress, RunIdentity, Snapshot, Tariff
from tests.nvml.traces import Trace

CALL_SECONDS = 0.00005
CALLS_PER_GPU = 6
"""Of one pass at most: energy, power, utilisation, memory, temperature, and power again where there is no counter."""

NO_PRICES = Tariff()

_Text = ctypes.c_char * 96


class _Gpu(ctypes.Structure):
    """`gpu_t` of standin.c."""

    _fields_ = (
        ("uuid", _Text),
        ("name", _Text),
        ("slice_uuids", _Text * 7),
        *((name, ctypes.c_uint * 7) for name in ("slice_sizes", "slice_compute_sizes", "slice_instances", "slice_computes")),
        *((name, ctypes.c_uint) for name in ("mig", "cores", "clock_mhz", "has_counter", "has_power")),
        ("trace_kind", ctypes.c_int),
        ("trace", ctypes.c_double * 4),
        *((name, ctypes.c_double) for name in ("limit_watts", "counter_origin_joules", "refresh_seconds")),
        *((name, ctypes.c_double) for name in ("reset_at", "jump_at", "jump_joules", "stuck_at", "stuck_until")),
        *((name, ctypes.c_double) for name in ("counter_fails_at", "counter_fails_until", "lost_at", "lost_until")),
        *((name, ctypes.c_double) for name in ("sensors_fail_at", "sensors_fail_until", "slow_at", "slow_seconds")),
    )


@dataclass(frozen=True)
class Slice:
    """A MIG device: one compute instance of a GPU instance. Sizes are compute slices, of 7."""

    uuid: str
    size: int
    """Of its GPU instance."""
    instance: int = 1
    """Number of its GPU instance."""
    compute: int = 0
    """Number of the compute instance within."""
    compute_size: int = 0
    """Of the compute instance; 0: all of its GPU instance."""


@dataclass(frozen=True)
class Gpu:
    """One GPU. Instants are seconds on the stand-in's clock; infinity means never."""

    trace: Trace
    uuid: str = ""
    """Empty: made from its number."""
    name: str = "Stand-in GPU"
    slices: tuple[Slice | None, ...] = ()
    """MIG devices; None for a hole in the numbering."""
    cores: int = 1000
    clock_mhz: int = 1000
    has_counter: bool = True
    has_power: bool = True
    limit_watts: float = 700.0
    counter_origin_joules: float = 123_456.789
    refresh_seconds: float = 0.0
    """How often the counter moves; 0 for always. Real ones: about every 0.1 s."""
    reset_at: float = math.inf
    jump_at: float = math.inf
    jump_joules: float = 1e6
    stuck_at: float = math.inf
    stuck_until: float = math.inf
    counter_fails_at: float = math.inf
    counter_fails_until: float = math.inf
    lost_at: float = math.inf
    lost_until: float = math.inf
    sensors_fail_at: float = math.inf
    sensors_fail_until: float = math.inf
    slow_at: float = math.inf
    slow_seconds: float = 3.0

    def struct(self, number: int) -> _Gpu:
        result = _Gpu(
            uuid=(self.uuid or uuid(number)).encode(),
            name=self.name.encode(),
            mig=bool(self.slices),
            trace_kind=self.trace.kind,
        )
        for position, value in enumerate(vars(self.trace).values()):
            result.trace[position] = value
        for position, part in enumerate(self.slices):
            if part is not None:
                result.slice_uuids[position].value = part.uuid.encode()
                result.slice_sizes[position] = part.size
                result.slice_compute_sizes[position] = part.compute_size or part.size
                result.slice_instances[position] = part.instance
                result.slice_computes[position] = part.compute
        for name, value in vars(self).items():
            if name not in {"trace", "uuid", "name", "slices"}:
                setattr(result, name, value)
        return result


def uuid(number: int) -> str:
    return f"GPU-{number:08x}-aaaa-bbbb-cccc-0123456789ab"


class Standin:
    """The loaded library. `pynvml` is the real binding, bound to it."""

    def __init__(self, path: Path, load_pynvml: Callable[[], Any]) -> None:
        # First by path and for all to see: dlopen("libnvidia-ml.so.1") then finds it by its soname.
        self._library = ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
        self.handle = self._library._handle
        self._library.standin_now.restype = ctypes.c_double
        self._library.standin_set_now.argtypes = [ctypes.c_double]
        self._library.standin_set_call.argtypes = [ctypes.c_double, ctypes.c_double]
        self.pynvml = load_pynvml()
        self.gpus: tuple[Gpu, ...] = ()
        self.call_seconds = 0.0

    def clear(self) -> None:
        """No GPU, no driver, time 0."""
        self._library.standin_clear()

    def configure(self, *gpus: Gpu, call_seconds: float = CALL_SECONDS, sampled_at: float = 0.5) -> "Standin":
        """A machine with these GPUs in PCI order. A call's answer was true after the part `sampled_at` of its duration."""
        self.clear()
        self.gpus = gpus
        self.call_seconds, self._sampled_at = call_seconds, sampled_at
        for number, gpu in enumerate(gpus):
            assert self._library.standin_add_gpu(ctypes.byref(gpu.struct(number))) == number
        return self

    def calls_last(self, seconds: float) -> None:
        self._library.standin_set_call(seconds, self._sampled_at)

    def now(self) -> float:
        return float(self._library.standin_now())

    def advance_to(self, instant: float) -> None:
        """Time does not run backwards."""
        self._library.standin_set_now(max(instant, self.now()))

    @property
    def inits(self) -> int:
        """nvmlInit calls that no nvmlShutdown has answered yet."""
        return int(self._library.standin_inits())

    @property
    def pass_seconds(self) -> float:
        """How long one pass over all GPUs takes: by so much at most a reading misses the instant at which it is due."""
        return CALLS_PER_GPU * len(self.gpus) * self.call_seconds

    def bracket_joules(self, trace: Trace, seconds: float) -> float:
        """What the first and the last pass may get wrong together by taking time: power × duration of each."""
        return 2 * self.pass_seconds * trace.peak(0, seconds)

    def trapezoid_joules(self, trace: Trace, start: float, end: float, every: float = 0.1) -> float:
        """What the trapezoid may get wrong at most: half an interval at each step of power."""
        return (every + self.pass_seconds) / 2 * trace.power_steps(start, end)


@dataclass(frozen=True)
class Measured:
    """What the pipeline said: at the end, and after every tick."""

    snapshot: Snapshot
    history: tuple[Snapshot, ...]

    def joules(self, index: int = 0) -> float:
        """Of the GPU with this NVML index."""
        return next(status.joules for status in self.snapshot.devices if status.device.index == str(index))

    @property
    def errors(self) -> dict[str, int]:
        """Those that occurred."""
        return {name: count for name, count in self.snapshot.errors if count}

    @property
    def phases(self) -> dict[Phase, float]:
        return {phase: footprint.joules for phase, footprint in self.snapshot.phases}


def context(standin: Standin, **choice: Any) -> ReaderContext:
    return ReaderContext(host="h", now=standin.now, **choice)


def measure(
    standin: Standin,
    seconds: float,
    *,
    interval: float = 1.0,
    power_interval: float = 0.1,
    marks: Sequence[tuple[float, Phase]] = (),
    grams_per_kwh: float = 0.0,
    tariff: Tariff = NO_PRICES,
    pue: float = 1.0,
    **choice: Any,
) -> Measured:
    """Run the real reader and the real monitor, without its thread, over `seconds` of virtual time from instant 0.

    Opening the driver takes no time here, so that the first reading is at instant 0 and every joule is expected to be there.
    """

    def open_readers() -> list[Nvml]:
        standin.calls_last(0.0)
        reader = Nvml(standin.pynvml, context(standin, **choice))
        standin.calls_last(standin.call_seconds)
        return [reader]

    monitor = Monitor(
        open_readers=open_readers,
        ledger=Ledger(RunIdentity("r", "p", "m", "h"), tariff, pue),
        grid=Fixed(grams_per_kwh, "lifecycle", "", ""),
        tariff=tariff,
        pue=pue,
        progress=Progress,
        measurement_interval=interval,
        power_interval=power_interval,
        now=standin.now,
        wall=standin.now,
    )
    history: list[Snapshot] = []
    to_mark = list(marks)

    def look() -> None:
        if monitor.snapshot is not None and (not history or monitor.snapshot is not history[-1]):
            history.append(monitor.snapshot)

    monitor.begin("train")
    monitor.open()
    look()
    while True:
        due = max(monitor.next_due(), standin.now())
        if to_mark and to_mark[0][0] <= min(due, seconds):
            standin.advance_to(to_mark[0][0])
            monitor.mark(to_mark.pop(0)[1])
        elif due < seconds:
            standin.advance_to(due)
            monitor.step()
            look()
        else:
            break
    standin.advance_to(seconds)
    monitor.stop(wait=0)
    monitor.close()
    look()
    return Measured(history[-1], tuple(history))
