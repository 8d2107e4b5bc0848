"""A run as the page and the API show it: the snapshots of its hosts put together."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hf_eco2ai.outputs.text import encodable
from hf_eco2ai.records import Footprint, HostTotals, Rates, RunState, Snapshot


@dataclass(frozen=True)
class ShownRun:
    """One run, by the snapshots of all its processes that measure here."""

    snapshots: tuple[Snapshot, ...]

    @cached_property
    def lead(self) -> Snapshot:
        """The one that knows most: of the process that leads; where none is here, the first."""
        return next((s for s in self.snapshots if s.leads), self.snapshots[0])

    @cached_property
    def run_id(self) -> str:
        """Its identity, as links and the API have it."""
        return encodable(self.lead.identity.run_id)

    @property
    def state(self) -> RunState:
        """As the lead says."""
        return self.lead.state

    @property
    def is_over(self) -> bool:
        """Whether no process of it runs any more."""
        return all(s.state != "running" for s in self.snapshots)

    @cached_property
    def updated_unix(self) -> float:
        """When one of them was last heard."""
        return max(s.updated_unix for s in self.snapshots)

    @cached_property
    def hosts(self) -> dict[str, HostTotals]:
        """What each host has used: by its own process where that is here, else as the leading process last heard."""
        own = {s.identity.host: s.here for s in reversed((self.lead, *self.snapshots))}
        others: dict[str, HostTotals] = {}
        for totals in (*self.lead.inherited, *self.lead.elsewhere) if self.lead.leads else ():
            if totals.host not in own:
                others[totals.host] = others[totals.host] + totals if totals.host in others else totals
        return {**own, **others}

    @cached_property
    def total(self) -> Footprint:
        """What the run has used on all these hosts."""
        if len(self.snapshots) == 1:
            return self.lead.total
        return sum((totals.total for totals in self.hosts.values()), Footprint())

    @cached_property
    def wasted(self) -> Footprint:
        """Of the total, what was used on steps that resumes rolled back."""
        if len(self.snapshots) == 1:
            return self.lead.wasted
        return sum((totals.wasted for totals in self.hosts.values()), Footprint())

    @cached_property
    def rates(self) -> Rates | None:
        """Of the hosts that run, together; None where nothing was observed."""
        known = [s.rates for s in self.snapshots if s.rates is not None and s.state == "running"]
        if not known:
            return None
        costs = [rates.cost_per_hour for rates in known if rates.cost_per_hour is not None]
        return Rates(sum(r.watts for r in known), sum(r.grams_per_hour for r in known), sum(costs) if costs else None)

    @cached_property
    def basis(self) -> str:
        """As `Snapshot.basis`, over all hosts."""
        kinds = {s.basis for s in self.snapshots} - {"none"}
        if "simulated" in kinds:
            return "simulated"
        return kinds.pop() if len(kinds) == 1 else ("mixed" if kinds else "none")


def shown_runs(snapshots: Iterable[Snapshot]) -> list[ShownRun]:
    """The runs that these snapshots are of, the newest first."""
    groups: dict[str, list[Snapshot]] = {}
    for snapshot in snapshots:
        groups.setdefault(snapshot.identity.run_id, []).append(snapshot)
    return sorted((ShownRun(tuple(group)) for group in groups.values()), key=_began, reverse=True)


def _began(run: ShownRun) -> float:
    began = run.lead.identity.started_unix
    return -math.inf if math.isnan(began) else began


def summary(run: ShownRun) -> dict[str, Any]:
    """A run in short. NaN and infinities are strings, as in the journal, since JSON has none."""
    s = run.lead
    said: dict[str, Any] = plain(
        {
            "run_id": run.run_id,
            "project_name": s.identity.project_name,
            "model_name": s.identity.model_name,
            "experiment_name": s.identity.experiment_name,
            "trainer": s.identity.trainer,
            "state": run.state,
            "end_reason": s.end_reason,
            "parent": s.identity.parent,
            "started_unix": s.identity.started_unix,
            "updated_unix": run.updated_unix,
            "seconds": s.seconds,
            "energy_kwh": run.total.kwh,
            "co2_kg": run.total.kg,
            "cost": run.total.cost,
            "currency": s.tariff.currency,
            "wasted_kwh": run.wasted.kwh,
            "basis": run.basis,
            "steps": s.progress.steps,
            "hosts": sorted(run.hosts),
        }
    )
    return said


def plain(value: Any) -> Any:
    """JSON-ready: what JSON has no number for is a string, and so is what is no UTF-8, with escapes."""
    if isinstance(value, dict):
        return {plain(name): plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return encodable(value) if isinstance(value, str) else value
