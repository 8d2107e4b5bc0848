"""Running totals of one run, and the snapshot that outputs read. The only owner of what has been accounted.

A total never falls. A step, an epoch or a phase is the difference of two totals.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from hf_eco2ai.records import (
    ERROR_TYPES,
    PHASES,
    Basis,
    Device,
    DeviceStatus,
    Energy,
    ErrorType,
    FactorType,
    Footprint,
    Forecast,
    GridFactor,
    Method,
    Phase,
    PowerReading,
    Progress,
    Rates,
    RunIdentity,
    RunState,
    Sample,
    Snapshot,
    Tariff,
    Telemetry,
)


@dataclass
class _DeviceAccount:
    device: Device
    joules: float = 0.0
    observed_seconds: float = 0.0
    methods: set[Method] = field(default_factory=set)
    watts: float | None = None
    telemetry: Telemetry | None = None
    baseline_watts: float | None = None
    utilization_seconds: float = 0.0
    """Integral of utilisation (0 to 1) over the time for which it is known."""
    utilization_known_seconds: float = 0.0


@dataclass(frozen=True)
class _Window:
    """Totals as they stood at the last regular tick; rates are differences to it."""

    at: float
    total: Footprint
    device_joules: dict[str, float]
    observed_seconds: float


class Ledger:
    """Totals of energy, CO₂e, cost and errors of one run.

    `pue` and `tariff` are kept only to be shown: what is added has been accounted already.
    """

    def __init__(self, identity: RunIdentity, tariff: Tariff, pue: float, carbon_budget_kg: float | None) -> None:
        self.identity = identity
        self._tariff = tariff
        self._pue = pue
        self._budget_kg = carbon_budget_kg
        self._phases: dict[Phase, Footprint] = {phase: Footprint() for phase in PHASES}
        self._phase_seconds: dict[Phase, float] = dict.fromkeys(PHASES, 0.0)
        self._grams: dict[FactorType, float] = {}
        self._devices: dict[str, _DeviceAccount] = {}
        self._errors: dict[ErrorType, int] = dict.fromkeys(ERROR_TYPES, 0)
        self._window: _Window | None = None
        self._rates: Rates | None = None
        self._cpu_watts: tuple[tuple[Basis, float], ...] = ()

    @property
    def total(self) -> Footprint:
        """Energy, CO₂e and cost so far."""
        return sum(self._phases.values(), start=Footprint())

    def open(self, devices: Iterable[Device]) -> None:
        """Keep accounts for these devices, or go on with those that a former `train()` of this run has opened."""
        for device in devices:
            self._devices.setdefault(device.id, _DeviceAccount(device, baseline_watts=device.idle_watts))
        self._window = self._rates = None

    def gpus(self) -> int:
        """How many GPUs the run measures."""
        return sum(1 for account in self._devices.values() if account.device.component == "gpu")

    def add(self, phase: Phase, seconds: float, footprint: Footprint, factor_type: FactorType) -> None:
        """Wall seconds of a phase, and what was used in them."""
        self._phases[phase] += footprint
        self._phase_seconds[phase] += seconds
        self._grams[factor_type] = self._grams.get(factor_type, 0.0) + footprint.grams

    def add_energy(self, energy: Energy, joules: float, seconds: float) -> None:
        """The part of `energy` that belongs to the run: to its device's account."""
        account = self._devices[energy.device.id]
        account.joules += joules
        account.observed_seconds += seconds
        account.methods.add(energy.method)

    def see(self, sample: Sample) -> None:
        """What every device says now. One that says nothing shows nothing: no gauge is left standing."""
        watts = {reading.device.id: reading.watts for reading in sample.readings if isinstance(reading, PowerReading)}
        telemetry = {row.device.id: row for row in sample.telemetry}
        for key, account in self._devices.items():
            account.watts = watts.get(key)
            before, account.telemetry = account.telemetry, telemetry.get(key)
            if account.baseline_watts is None:
                account.baseline_watts = account.watts
            self._see_utilization(account, before)

    @staticmethod
    def _see_utilization(account: _DeviceAccount, before: Telemetry | None) -> None:
        now = account.telemetry
        if now is None or before is None or now.utilization_percent is None or now.at <= before.at:
            return
        account.utilization_seconds += now.utilization_percent / 100 * (now.at - before.at)
        account.utilization_known_seconds += now.at - before.at

    def count(self, error_type: ErrorType) -> None:
        """One more error of this type."""
        self._errors[error_type] += 1

    def regular(self, at: float) -> None:
        """A measurement interval is over: rates are the differences since the last one."""
        joules = {key: account.joules for key, account in self._devices.items()}
        observed = sum(account.observed_seconds for account in self._devices.values())
        before, self._window = self._window, _Window(at, self.total, joules, observed)
        if before is None or at <= before.at:
            return
        if observed <= before.observed_seconds:
            self._rates, self._cpu_watts = None, ()
            return
        seconds = at - before.at
        used = self._window.total - before.total
        per_hour = 3600 / seconds
        cost = None if used.cost is None else used.cost * per_hour
        self._rates = Rates(used.joules / seconds, used.grams * per_hour, cost)
        cpu: dict[Basis, float] = {}
        for key, account in self._devices.items():
            if account.device.component == "cpu" and key in before.device_joules:
                basis = account.device.basis
                cpu[basis] = cpu.get(basis, 0.0) + (joules[key] - before.device_joules[key]) / seconds
        self._cpu_watts = tuple(cpu.items())

    def snapshot(
        self, *, state: RunState, updated_unix: float, progress: Progress, factor: GridFactor, tick_seconds: float
    ) -> Snapshot:
        """The run as it stands."""
        total = self.total
        seconds = sum(self._phase_seconds.values())
        return Snapshot(
            identity=self.identity,
            state=state,
            updated_unix=updated_unix,
            seconds=seconds,
            total=total,
            grams_by_factor_type=tuple(self._grams.items()) or ((factor.factor_type, 0.0),),
            phases=tuple(self._phases.items()),
            phase_seconds=tuple(self._phase_seconds.items()),
            devices=tuple(_status(account) for account in self._devices.values()),
            gpu_count=self.gpus(),
            cpu_watts=self._cpu_watts if state == "running" else (),
            rates=self._rates if state == "running" else None,
            progress=progress,
            forecast=self._forecast(total, progress),
            factor=factor,
            tariff=self._tariff,
            pue=self._pue,
            carbon_budget_kg=self._budget_kg,
            efficiency_score=self._efficiency_score(total),
            observed_ratio=self._observed_ratio(seconds),
            errors=tuple(self._errors.items()),
            tick_seconds=tick_seconds,
        )

    def _forecast(self, total: Footprint, progress: Progress) -> Forecast | None:
        """The set-up is paid once; everything since grows with the steps."""
        scale = progress.to_do_per_done
        if scale is None:
            return None
        so_far = total - self._phases["setup"]
        cost = None if total.cost is None else total.cost + (so_far.cost or 0.0) * scale
        return Forecast(total.joules + so_far.joules * scale, total.grams + so_far.grams * scale, cost)

    def _efficiency_score(self, total: Footprint) -> float | None:
        """Share of the energy that went into training steps × mean utilisation of the GPUs (of the CPU where there is none)."""
        component = "gpu" if self.gpus() else "cpu"
        accounts = [account for account in self._devices.values() if account.device.component == component]
        known = sum(account.utilization_known_seconds for account in accounts)
        if known <= 0 or total.joules <= 0:
            return None
        utilization = sum(account.utilization_seconds for account in accounts) / known
        return self._phases["train"].joules / total.joules * utilization

    def _observed_ratio(self, seconds: float) -> float | None:
        if not self._devices or seconds <= 0:
            return None
        observed = sum(account.observed_seconds for account in self._devices.values())
        return min(1.0, observed / (seconds * len(self._devices)))


def _status(account: _DeviceAccount) -> DeviceStatus:
    return DeviceStatus(
        device=account.device,
        joules=account.joules,
        observed_seconds=account.observed_seconds,
        methods=tuple(sorted(account.methods)),
        watts=account.watts,
        telemetry=account.telemetry,
        baseline_watts=account.baseline_watts,
    )
