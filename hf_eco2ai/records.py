"""The nouns, in the order in which they flow: Reading, Sample, Energy, GridFactor, Footprint, Snapshot. All frozen.

Instants named `at`, `start` or `end` are seconds on the monotonic clock that the monitor was given; only names that end in
`_unix` are wall-clock time. Units are in the field's name or docstring; kWh appears only in `account.py` and where people read.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeVar

Basis = Literal["measured", "modelled", "simulated"]
"""How a figure came about: a sensor, a model of the hardware, or a made-up trace for demonstrations."""

Component = Literal["gpu", "cpu", "dram"]
Method = Literal["counter", "trapezoid"]
"""How joules were obtained: the difference of an energy counter, or the trapezoid rule over power readings."""

Phase = Literal["setup", "train", "evaluate", "save", "idle"]
PHASES: tuple[Phase, ...] = ("setup", "train", "evaluate", "save", "idle")

RunState = Literal["running", "ended", "failed", "lost"]
"""`lost`: the process is gone without a word (SIGKILL, out of memory, power cut). Only a reader of its journal can tell."""
RUN_STATES: tuple[RunState, ...] = ("running", "ended", "failed", "lost")

EndReason = Literal[
    "", "completed", "budget", "exception", "out_of_memory", "interrupted", "sigterm", "exit", "exit_code", "removed"
]
"""Why a run is no longer running; empty while it is, and where nobody knows."""

BudgetKind = Literal["carbon", "energy", "cost"]
BudgetScope = Literal["run", "project"]
BudgetPeriod = Literal["none", "day", "month"]

FactorType = Literal["lifecycle", "direct", "marginal"]

ErrorType = Literal[
    "device_lost",
    "driver_error",
    "slow_read",
    "counter_reset",
    "counter_jump",
    "counter_stuck",
    "gap",
    "tick_failed",
    "callback_failed",
    "endpoint_failed",
    "port_taken",
    "journal_failed",
    "journal_refused",
    "exchange_failed",
]
ERROR_TYPES: tuple[ErrorType, ...] = (
    "device_lost",
    "driver_error",
    "slow_read",
    "counter_reset",
    "counter_jump",
    "counter_stuck",
    "gap",
    "tick_failed",
    "callback_failed",
    "endpoint_failed",
    "port_taken",
    "journal_failed",
    "journal_refused",
    "exchange_failed",
)

FailedStepReason = Literal["nan_loss", "infinite_loss", "nonfinite_grad", "out_of_memory", "exception"]
FAILED_STEP_REASONS: tuple[FailedStepReason, ...] = (
    "nan_loss",
    "infinite_loss",
    "nonfinite_grad",
    "out_of_memory",
    "exception",
)


# 1 read


@dataclass(frozen=True, eq=False)
class Device:
    """One thing that draws power. `id` is stable across reboots: host and UUID."""

    host: str
    uuid: str
    component: Component
    basis: Basis
    source: str
    """Who says so, in words for the report: `NVML energy counter`, `RAPL package`, `CPU model (AMD EPYC 3rd Gen)`."""
    index: str = ""
    """The number by which people know it (NVML index of a GPU)."""
    model: str = ""
    max_watts: float = 3000.0
    """No plausible mean power lies above this; a counter that implies more has been reset or has jumped."""
    note: str = ""
    """What a reader of the figures must know, e.g. that a MIG slice is charged with its whole GPU."""
    idle_watts: float | None = None
    """Draw at idle by a model's own coefficients; None for a measured device."""
    scope: str = ""
    """The part of the host's CPUs that is meant (an affinity, a container); empty for all of them."""
    id: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", f"{self.host}/{self.uuid}")

    @property
    def claim(self) -> str:
        """What runs on one host compare, to see that they use the same thing: the GPU, or the CPUs however they are read."""
        return self.uuid if self.component == "gpu" else f"{self.component}{self.scope}"


class CounterReading(NamedTuple):
    """Cumulative energy of a device since some origin of its own."""

    device: Device
    at: float
    joules: float
    wraps_at: float | None = None
    """Joules at which the counter starts again from 0; None if it never does."""


class PowerReading(NamedTuple):
    """Power of a device at one instant."""

    device: Device
    at: float
    watts: float


Reading = CounterReading | PowerReading


class Telemetry(NamedTuple):
    """What a device says about itself beside energy. None where it does not say."""

    device: Device
    at: float
    utilization_percent: float | None = None
    memory_used_bytes: float | None = None
    memory_total_bytes: float | None = None
    temperature_celsius: float | None = None
    power_limit_watts: float | None = None


class Failure(NamedTuple):
    """Something did not work. Logged once per `cause`, counted each time under `error_type`."""

    error_type: ErrorType
    cause: str
    message: str


class Sample(NamedTuple):
    """One pass over one or all readers."""

    readings: tuple[Reading, ...] = ()
    telemetry: tuple[Telemetry, ...] = ()
    failures: tuple[Failure, ...] = ()


# 2 integrate


class Energy(NamedTuple):
    """Joules that one device used from `start` to `end`.

    `slope` (W/s) is how fast power changed meanwhile, so that the interval can be cut exactly: 0 for a counter (whose course
    between two readings is unknown), the slope of the line between two power readings for the trapezoid.
    """

    device: Device
    start: float
    end: float
    joules: float
    method: Method
    slope: float = 0.0

    def between(self, start: float, end: float) -> float:
        """Joules that fall into [start, end], which must lie within the interval."""
        seconds = self.end - self.start
        mean_watts = self.joules / seconds
        middle = (start + end - self.start - self.end) / 2
        return (mean_watts + self.slope * middle) * (end - start)


# 3 account


@dataclass(frozen=True)
class GridFactor:
    """Carbon intensity of electricity (gCO₂e/kWh) with its provenance."""

    grams_per_kwh: float
    factor_type: FactorType
    source: str
    country: str
    region: str
    year: int | None = None
    licence: str = ""
    assumed: bool = False
    """True where nobody said where the machine is and the world average stands in."""
    age_seconds: float | None = None
    """How old a live factor is; None for a yearly one."""


@dataclass(frozen=True)
class Tariff:
    """Prices in `currency`; None where no price is known."""

    per_kwh: float | None = None
    per_gpu_hour: float | None = None
    currency: str = "USD"


@dataclass(frozen=True)
class Footprint:
    """Device energy (PUE not included), CO₂e and cost (PUE included). A total, or the difference of two totals."""

    joules: float = 0.0
    grams: float = 0.0
    energy_cost: float | None = None
    compute_cost: float | None = None

    def __add__(self, other: "Footprint") -> "Footprint":
        return Footprint(
            self.joules + other.joules,
            self.grams + other.grams,
            _sum(self.energy_cost, other.energy_cost),
            _sum(self.compute_cost, other.compute_cost),
        )

    def __sub__(self, other: "Footprint") -> "Footprint":
        return Footprint(
            self.joules - other.joules,
            self.grams - other.grams,
            _difference(self.energy_cost, other.energy_cost),
            _difference(self.compute_cost, other.compute_cost),
        )

    @property
    def kwh(self) -> float:
        """Device energy in kWh."""
        return self.joules / 3.6e6

    @property
    def kg(self) -> float:
        """CO₂e in kg."""
        return self.grams / 1000

    @property
    def cost(self) -> float | None:
        """Energy and compute cost together; None while neither price is known."""
        return _sum(self.energy_cost, self.compute_cost)


def _sum(a: float | None, b: float | None) -> float | None:
    if a is None or b is None:
        return a if b is None else b
    return a + b


def _difference(a: float | None, b: float | None) -> float | None:
    return None if a is None else a - (b or 0.0)


Key = TypeVar("Key")
Amount = TypeVar("Amount", float, Footprint)


class DeviceTotals(NamedTuple):
    """What one device has used for a run."""

    uuid: str
    component: Component
    basis: Basis
    joules: float
    observed_seconds: float


@dataclass(frozen=True)
class HostTotals:
    """What one host has used for a run. Adds, as attempts of a run on one host do."""

    host: str
    total: Footprint = Footprint()
    wasted: Footprint = Footprint()
    """Of the total, what was used on steps that a resume rolled back."""
    grams_by_factor_type: tuple[tuple[FactorType, float], ...] = ()
    phases: tuple[tuple[Phase, Footprint], ...] = ()
    phase_seconds: tuple[tuple[Phase, float], ...] = ()
    devices: tuple[DeviceTotals, ...] = ()

    @property
    def seconds(self) -> float:
        """Wall seconds that the run has lived on this host."""
        return sum(seconds for _, seconds in self.phase_seconds)

    def __add__(self, other: "HostTotals") -> "HostTotals":
        devices = {device.uuid: device for device in self.devices}
        for device in other.devices:
            known = devices.get(device.uuid)
            devices[device.uuid] = device if known is None else _joined(known, device)
        return HostTotals(
            host=self.host,
            total=self.total + other.total,
            wasted=self.wasted + other.wasted,
            grams_by_factor_type=_added(self.grams_by_factor_type, other.grams_by_factor_type, 0.0),
            phases=_added(self.phases, other.phases, Footprint()),
            phase_seconds=_added(self.phase_seconds, other.phase_seconds, 0.0),
            devices=tuple(devices.values()),
        )


def _joined(a: DeviceTotals, b: DeviceTotals) -> DeviceTotals:
    return b._replace(joules=a.joules + b.joules, observed_seconds=a.observed_seconds + b.observed_seconds)


def _added(a: "tuple[tuple[Key, Amount], ...]", b: "tuple[tuple[Key, Amount], ...]", zero: Amount) -> Any:
    sums = dict(a)
    for key, amount in b:
        sums[key] = sums.get(key, zero) + amount
    return tuple(sums.items())


def run_total(
    attempt: HostTotals, inherited: tuple[HostTotals, ...], elsewhere: tuple[HostTotals, ...], *, leads: bool
) -> Footprint:
    """What the whole run has used; for a process that does not lead, what its own host has."""
    total = attempt.total
    for totals in (*inherited, *elsewhere):
        if leads or totals.host == attempt.host:
            total += totals.total
    return total


# 4 show


@dataclass(frozen=True)
class RunIdentity:
    """Which run this is. Everything here is a label somewhere, so nothing here changes while the run lives."""

    run_id: str
    project_name: str
    model_name: str
    host: str
    experiment_name: str = ""
    trainer: str = "transformers"
    """What is measured: `transformers`, `track` (a loop of one's own) or `monitor` (a command)."""
    started_unix: float = 0.0
    """When the run first began, before any resume."""
    parent: str = ""
    """The run whose checkpoint this one began with while that was still going on elsewhere."""
    attempt: int = 1
    """Which time it is that the run is begun on this host."""


class StepHistogram(NamedTuple):
    """Durations of optimizer steps. `counts[i]` are those up to `STEP_BUCKETS[i]` seconds and above the bound before."""

    counts: tuple[int, ...]
    sum_seconds: float


class Counts(NamedTuple):
    """What a run has done, all attempts together. Never falls: steps done again after a resume count again."""

    steps: int = 0
    samples: int = 0
    tokens: int | None = None
    flops: float | None = None
    step_durations: StepHistogram | None = None
    failed_steps: tuple[tuple[FailedStepReason, int], ...] = ()


class Progress(NamedTuple):
    """How far a run has come, as the Trainer says. None where it has not said yet."""

    steps: int = 0
    """Optimizer steps done, those before a resume included, and those that a resume rolled back."""
    global_step: int = 0
    """Where training stands, as the Trainer counts: after a resume that of its checkpoint."""
    max_steps: int = 0
    epochs: int = 0
    samples: int = 0
    tokens: int | None = None
    tokens_by_now: float | None = None
    """Tokens carried on from the step at which they were last told to the last one, as energy goes on between logs."""
    flops: float | None = None
    flops_by_now: float | None = None
    """FLOPs likewise."""
    loss: float | None = None
    eval_loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    samples_per_second: float | None = None
    ratio: float | None = None
    """Optimizer steps done / to do, 0 to 1."""
    eta_seconds: float | None = None
    to_do_per_done: float | None = None
    """Steps still to do per step done in this process, the scale of every forecast; None below 2 % of the run."""
    step_durations: StepHistogram | None = None
    failed_steps: tuple[tuple[FailedStepReason, int], ...] = ()


class DeviceStatus(NamedTuple):
    """One device's share of the run, and what it does now."""

    device: Device
    joules: float
    observed_seconds: float
    methods: tuple[Method, ...]
    watts: float | None
    """Power now; None when the last pass did not get it."""
    telemetry: Telemetry | None
    baseline_watts: float | None


@dataclass(frozen=True)
class Rates:
    """Over the last measurement interval. Absent (None) when nothing was observed in it."""

    watts: float
    grams_per_hour: float
    cost_per_hour: float | None


@dataclass(frozen=True)
class Forecast:
    """The whole run, extrapolated from the training steps done so far."""

    joules: float
    grams: float
    cost: float | None


class BudgetStatus(NamedTuple):
    """A budget and what is used of it: kg CO₂e, kWh, or money in the tariff's currency."""

    kind: BudgetKind
    limit: float
    spent: float
    """By the run, or by all runs of its project, in the present period."""
    predicted: float | None = None
    """Spent when the run will have ended, by its forecast; None where there is none."""
    scope: BudgetScope = "run"
    period: BudgetPeriod = "none"

    @property
    def used_ratio(self) -> float:
        """Spent over limit."""
        return self.spent / self.limit


class TreeUsage(NamedTuple):
    """What the processes of a measured command use, all its descendants included.

    Peaks are of the looks taken, so what lived between two of them is in `cpu_seconds` only.
    """

    cpu_seconds: float
    """User and system time since the command began, of live processes and ended ones. Never falls."""
    processes: int
    """That live now; zombies are not among them."""
    rss_bytes: int
    """Resident memory of those. Pages that several share are counted in each."""
    peak_processes: int
    peak_rss_bytes: int


@dataclass(frozen=True)
class Snapshot:
    """Everything that outputs may know of a run at one instant. Published by one assignment, read without a lock."""

    identity: RunIdentity
    state: RunState
    updated_unix: float
    attempt: HostTotals
    """What this host has used since the run was begun, or begun again, here."""
    devices: tuple[DeviceStatus, ...]
    gpu_count: int
    cpu_watts: tuple[tuple[Basis, float], ...]
    """Mean CPU power over the last interval, one entry per basis."""
    rates: Rates | None
    progress: Progress
    forecast: Forecast | None
    factor: GridFactor
    tariff: Tariff
    pue: float
    efficiency_score: float | None
    observed_ratio: float | None
    errors: tuple[tuple[ErrorType, int], ...]
    tick_seconds: float
    """Duration of the tick before this one, driver calls included."""
    network_seconds: tuple[tuple[str, float], ...] = ()
    """Duration of the last call to each grid API or integration, by target."""
    inherited: tuple[HostTotals, ...] = ()
    """What the run had used before, one entry per host that measured it."""
    elsewhere: tuple[HostTotals, ...] = ()
    """What the other hosts of this run have used in this attempt, as last gathered. Only the leading process knows."""
    leads: bool = True
    """Whether this process is the global rank 0, which shows the figures of the whole run."""
    end_reason: EndReason = ""
    budgets: tuple[BudgetStatus, ...] = ()
    journal_bytes: int | None = None
    """Written to the journal by this process; None without a journal."""
    tree: TreeUsage | None = None
    """Only for a command that is measured."""

    @cached_property
    def here(self) -> HostTotals:
        """What this host has used for the run, earlier attempts included."""
        before = next((totals for totals in self.inherited if totals.host == self.identity.host), None)
        return self.attempt if before is None else before + self.attempt

    @cached_property
    def hosts(self) -> tuple[HostTotals, ...]:
        """The hosts whose totals this process shows: its own, and for the leading one those that take part no more.

        So every joule of a run is shown by one process, however often it has moved.
        """
        present = {self.identity.host, *(totals.host for totals in self.elsewhere)}
        departed = (totals for totals in self.inherited if totals.host not in present)
        return (self.here, *(departed if self.leads else ()))

    @cached_property
    def total(self) -> Footprint:
        """What the whole run has used, on all its hosts and in all its attempts, as far as this process knows."""
        return run_total(self.attempt, self.inherited, self.elsewhere, leads=self.leads)

    @cached_property
    def wasted(self) -> Footprint:
        """Of the total, what was used on steps that resumes rolled back."""
        wasted = Footprint()
        for totals in (*self.inherited, self.attempt):
            if self.leads or totals.host == self.identity.host:
                wasted += totals.wasted
        return wasted

    @property
    def joules_of_others(self) -> dict[str, float]:
        """What the run has used on its other hosts, by host; on those that have left, too. Only the leading process knows."""
        joules: dict[str, float] = {}
        for totals in (*self.inherited, *self.elsewhere) if self.leads else ():
            if totals.host != self.identity.host:
                joules[totals.host] = joules.get(totals.host, 0.0) + totals.total.joules
        return joules

    @property
    def seconds(self) -> float:
        """Wall seconds that the run has lived on this host."""
        return self.here.seconds

    @property
    def phases(self) -> tuple[tuple[Phase, Footprint], ...]:
        """What each phase has used on this host."""
        return self.here.phases

    @property
    def phase_seconds(self) -> tuple[tuple[Phase, float], ...]:
        """How long each phase has lasted on this host."""
        return self.here.phase_seconds

    @property
    def basis(self) -> str:
        """`measured`, `modelled` or `simulated` if all devices agree, `mixed` otherwise, `none` without a device."""
        kinds = {status.device.basis for status in self.devices}
        if "simulated" in kinds:
            return "simulated"
        return kinds.pop() if len(kinds) == 1 else ("mixed" if kinds else "none")


# The node


class NodeDevice(NamedTuple):
    """What a device of this machine has used since it was first measured by its daemon, and what it draws now."""

    device: Device
    joules: float
    unattributed_joules: float
    """Of these, what it used while no live run claimed it."""
    observed_seconds: float
    """Seconds for which its energy is known."""
    watts: float | None
    """Power now; None when the last pass did not get it."""


@dataclass(frozen=True)
class NodeSnapshot:
    """The machine at one instant, whoever uses it. Totals never fall, not even when the daemon is begun again."""

    host: str
    updated_unix: float
    devices: tuple[NodeDevice, ...]

    @property
    def gpu_count(self) -> int:
        """GPUs that are measured."""
        return sum(1 for one in self.devices if one.device.component == "gpu")
