"""From the records to what the API answers with. Imported with the models, when the API is first asked for."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from hf_eco2ai.outputs.api_models import (
    Budget,
    DeviceTelemetry,
    DeviceUsed,
    Grid,
    HostUsed,
    PhaseUsed,
    Predicted,
    Present,
    PresentWithCost,
    Prices,
    Processes,
    RunDetail,
    RunList,
    RunSummary,
    Standing,
    StepDurations,
    Used,
)
from hf_eco2ai.outputs.shown import ShownRun, summary
from hf_eco2ai.records import BudgetStatus, DeviceStatus, DeviceTotals, Footprint, HostTotals, Progress, Rates, Snapshot


def run_list(runs: Iterable[ShownRun], total: int) -> RunList:
    """A page of runs, of so many in `total`."""
    return RunList(runs=[_summary(run) for run in runs], total=total)


def _summary(run: ShownRun) -> RunSummary:
    present = None if run.rates is None else Present.model_validate(run.rates)
    return RunSummary(**summary(run), present=present, progress_ratio=run.lead.progress.ratio)


def run_detail(run: ShownRun) -> RunDetail:
    """Everything that is known of a run."""
    s = run.lead
    reporting = {each.identity.host: each for each in reversed((s, *run.snapshots))}
    observed = [each.observed_ratio for each in run.snapshots if each.observed_ratio is not None]
    return RunDetail(
        **{
            **summary(run),
            "attempt": s.identity.attempt,
            "total": _used(run.total),
            "wasted": _used(run.wasted),
            "hosts": [_host(totals, reporting.get(host)) for host, totals in run.hosts.items()],
            "present": _present(run.rates),
            "progress": _standing(s.progress),
            "forecast": None if s.forecast is None else Predicted.model_validate(s.forecast),
            "budgets": [_budget(status) for status in s.budgets],
            "grid_factor": Grid.model_validate(s.factor),
            "tariff": Prices.model_validate(s.tariff),
            "pue": s.pue,
            "observed_ratio": min(observed, default=None),
            "efficiency_score": s.efficiency_score,
            "errors": _errors(run.snapshots),
            "processes": None if s.tree is None else Processes.model_validate(s.tree),
        }
    )


def _used(footprint: Footprint) -> Used:
    return Used.model_validate(footprint)


def _present(rates: Rates | None) -> PresentWithCost | None:
    return None if rates is None else PresentWithCost.model_validate(rates)


def _host(totals: HostTotals, s: Snapshot | None) -> HostUsed:
    seconds = dict(totals.phase_seconds)
    running = s is not None and s.state == "running"
    return HostUsed(
        host=totals.host,
        reporting=s is not None,
        seconds=totals.seconds,
        total=_used(totals.total),
        wasted=_used(totals.wasted),
        grams_by_factor_type=dict(totals.grams_by_factor_type),
        phases={
            phase: PhaseUsed(**_used(used).model_dump(), seconds=seconds.get(phase, 0.0))
            for phase, used in totals.phases
            if used.joules or seconds.get(phase)
        },
        devices=_devices(totals, () if s is None else s.devices),
        present=_present(s.rates) if s is not None and running else None,
        observed_ratio=None if s is None else s.observed_ratio,
        errors=_errors([] if s is None else [s]),
    )


def _devices(totals: HostTotals, now: Iterable[DeviceStatus]) -> list[DeviceUsed]:
    """Those in use with all that is known of them; of those no more in use, only the totals are."""
    known = {status.device.uuid: status for status in now}
    used = {device.uuid: device for device in totals.devices}
    for status in known.values():
        device = status.device
        used.setdefault(
            device.uuid, DeviceTotals(device.uuid, device.component, device.basis, status.joules, status.observed_seconds)
        )
    return [DeviceUsed(**device._asdict(), **_now(known.get(device.uuid))) for device in used.values()]


def _now(status: DeviceStatus | None) -> dict[str, Any]:
    if status is None:
        return {}
    return {
        "source": status.device.source,
        "index": status.device.index,
        "model": status.device.model,
        "note": status.device.note,
        "methods": list(status.methods),
        "watts": status.watts,
        "baseline_watts": status.baseline_watts,
        "telemetry": None if status.telemetry is None else DeviceTelemetry.model_validate(status.telemetry._asdict()),
    }


def _standing(progress: Progress) -> Standing:
    said = progress._asdict()
    durations = progress.step_durations
    said["step_durations"] = None if durations is None else StepDurations.model_validate(durations._asdict())
    said["failed_steps"] = {reason: count for reason, count in progress.failed_steps if count}
    return Standing.model_validate(said)


def _budget(status: BudgetStatus) -> Budget:
    return Budget(**status._asdict(), used_ratio=status.used_ratio if status.limit else None)


def _errors(snapshots: Iterable[Snapshot]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for s in snapshots:
        counts.update(dict(s.errors))
    return {error_type: count for error_type, count in counts.items() if count}
