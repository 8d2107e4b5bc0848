"""Running totals of one run, and the snapshot that outputs read. The only owner of what has been accounted.

A total never falls. A step, an epoch or a phase is the difference of two totals.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from hf_eco2ai.records import (
    ERROR_TYPES,
    PHASES,
    Basis,
    BudgetStatus,
    Device,
    DeviceStatus,
    DeviceTotals,
    EndReason,
    Energy,
    ErrorType,
    FactorType,
    Footprint,
    Forecast,
    GridFactor,
    HostTotals,
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
    run_total,
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
    devices: dict[str, tuple[float, float]]
    """Joules and observed seconds of each device."""


class Ledger:
    """Totals of energy, CO₂e, cost and errors of one attempt of a run, on this host.

    `pue` and `tariff` are kept only to be shown: what is added has been accounted already. `inherited` is what the run had used
    before, by host; `leads` is whether this process shows the figures of the whole run.
    """

    def __init__(
        self,
        identity: RunIdentity,
        tariff: Tariff,
        pue: float,
        inherited: tuple[HostTotals, ...] = (),
        *,
        leads: bool = True,
    ) -> None:
        self.identity = identity
        self._tariff = tariff
        self._pue = pue
        self.inherited = inherited
        """What the run had used before, by host. Replaced by one assignment when the journals tell more than a checkpoint did."""
        self._before = {
            device.uuid: device.joules for totals in inherited if totals.host == identity.host for device in totals.devices
        }
        self.elsewhere: tuple[HostTotals, ...] = ()
        """The other hosts of this attempt; replaced by one assignment, by the thread that gathers them."""
        self._leads = leads
        self.total = Footprint()
        """Energy, CO₂e and cost so far in this attempt."""
        self._phases: dict[Phase, Footprint] = {phase: Footprint() for phase in PHASES}
        self._phase_seconds: dict[Phase, float] = dict.fromkeys(PHASES, 0.0)
        self._grams: dict[FactorType, float] = {}
        self._devices: dict[str, _DeviceAccount] = {}
        self._errors: dict[ErrorType, int] = dict.fromkeys(ERROR_TYPES, 0)
        self._window: _Window | None = None
        self._rates: Rates | None = None
        self._cpu_watts: tuple[tuple[Basis, float], ...] = ()

    def open(self, devices: Iterable[Device]) -> None:
        """Keep accounts for these devices."""
        for device in devices:
            self._devices[device.id] = _DeviceAccount(device, baseline_watts=device.idle_watts)

    def gpus(self) -> list[Device]:
        """The GPUs that the run measures."""
        return [account.device for account in self._devices.values() if account.device.component == "gpu"]

    def add(self, phase: Phase, seconds: float, footprint: Footprint, factor_type: FactorType) -> None:
        """Wall seconds of a phase, and what was used in them."""
        self.total += footprint
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
        """A measurement interval is over: rates are the differences since the last one.

        A device's power is its joules over the seconds for which they are known, which may be more than the interval where a
        late reading brought them. Without any, nothing is known of the present, and the rates are absent.
        """
        devices = {key: (account.joules, account.observed_seconds) for key, account in self._devices.items()}
        before, self._window = self._window, _Window(at, self.total, devices)
        if before is None or at <= before.at:
            return
        watts = {
            key: (joules - before.devices[key][0]) / (seconds - before.devices[key][1])
            for key, (joules, seconds) in devices.items()
            if key in before.devices and seconds > before.devices[key][1]
        }
        self._rates = self._rates_of(sum(watts.values()), self._window, before) if watts else None
        cpu: dict[Basis, float] = {}
        for key, power in watts.items():
            device = self._devices[key].device
            if device.component == "cpu":
                cpu[device.basis] = cpu.get(device.basis, 0.0) + power
        self._cpu_watts = tuple(cpu.items())

    @staticmethod
    def _rates_of(watts: float, now: _Window, before: _Window) -> Rates:
        used, hours = now.total - before.total, (now.at - before.at) / 3600
        per_joule_used = watts * 3600 / used.joules if used.joules > 0 else 0.0
        energy_cost = None if used.energy_cost is None else used.energy_cost * per_joule_used
        compute_cost = None if used.compute_cost is None else used.compute_cost / hours
        known = [cost for cost in (energy_cost, compute_cost) if cost is not None]
        return Rates(watts, used.grams * per_joule_used, sum(known) if known else None)

    def attempt(self, factor: GridFactor) -> HostTotals:
        """What has been used in this attempt, on this host."""
        return HostTotals(
            host=self.identity.host,
            total=self.total,
            grams_by_factor_type=tuple(self._grams.items()) or ((factor.factor_type, 0.0),),
            phases=tuple(self._phases.items()),
            phase_seconds=tuple(self._phase_seconds.items()),
            devices=tuple(
                DeviceTotals(a.device.uuid, a.device.component, a.device.basis, a.joules, a.observed_seconds)
                for a in self._devices.values()
            ),
        )

    def snapshot(
        self,
        *,
        state: RunState,
        end_reason: EndReason = "",
        updated_unix: float,
        progress: Progress,
        factor: GridFactor,
        tick_seconds: float,
        budgets: Callable[[Footprint, Forecast | None], tuple[BudgetStatus, ...]] = lambda _total, _forecast: (),
        **more: Any,
    ) -> Snapshot:
        """The run as it stands. `budgets` says what is spent, given the run's total; `more` goes into the snapshot as it is."""
        attempt, elsewhere = self.attempt(factor), self.elsewhere
        total = run_total(attempt, self.inherited, elsewhere, leads=self._leads)
        forecast = _forecast(total, (attempt, *elsewhere), progress) if self._leads else None
        return Snapshot(
            identity=self.identity,
            state=state,
            end_reason=end_reason,
            updated_unix=updated_unix,
            attempt=attempt,
            inherited=self.inherited,
            elsewhere=elsewhere,
            leads=self._leads,
            devices=tuple(_status(account, self._before.get(account.device.uuid, 0.0)) for account in self._devices.values()),
            gpu_count=len(self.gpus()),
            cpu_watts=self._cpu_watts if state == "running" else (),
            rates=self._rates if state == "running" else None,
            progress=progress,
            forecast=forecast,
            budgets=budgets(total, forecast),
            factor=factor,
            tariff=self._tariff,
            pue=self._pue,
            efficiency_score=self._efficiency_score(attempt.total),
            observed_ratio=self._observed_ratio(attempt.seconds),
            errors=tuple(self._errors.items()),
            tick_seconds=tick_seconds,
            **more,
        )

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


def _forecast(total: Footprint, attempt: tuple[HostTotals, ...], progress: Progress) -> Forecast | None:
    """The set-up is paid once; everything since, on all hosts, grows with the steps of this attempt."""
    scale = progress.to_do_per_done
    if scale is None:
        return None
    so_far = Footprint()
    for totals in attempt:
        so_far += totals.total - dict(totals.phases).get("setup", Footprint())
    cost = None if total.cost is None else total.cost + (so_far.cost or 0.0) * scale
    return Forecast(total.joules + so_far.joules * scale, total.grams + so_far.grams * scale, cost)


def _status(account: _DeviceAccount, joules_before: float) -> DeviceStatus:
    return DeviceStatus(
        device=account.device,
        joules=joules_before + account.joules,
        observed_seconds=account.observed_seconds,
        methods=tuple(sorted(account.methods)),
        watts=account.watts,
        telemetry=account.telemetry,
        baseline_watts=account.baseline_watts,
    )
