"""The figures of a run with the source of each: as text for people, as a dictionary for programs."""

from collections import Counter
from dataclasses import dataclass, fields, is_dataclass
from itertools import groupby
from typing import Any

from hf_eco2ai.outputs import text
from hf_eco2ai.records import Component, DeviceStatus, Snapshot

COMPUTED = ("total", "wasted", "seconds", "phases", "phase_seconds", "basis")
"""What a snapshot works out from its fields; programs get it with them."""

LONGEST_NAME = 128
"""Columns. A journal may hold any text for a name, and whoever wrote it need not be whoever looks at it."""

COMPONENT_WORDS: dict[Component, str] = {"gpu": "GPU", "cpu": "CPU", "dram": "DRAM"}


@dataclass(frozen=True)
class Report:
    """What a run has used. `str(report)` is the summary that ends a training run."""

    snapshot: Snapshot

    @property
    def energy_kwh(self) -> float:
        """Device energy in kWh, PUE not included."""
        return self.snapshot.total.kwh

    @property
    def co2_kg(self) -> float:
        """CO₂e in kg, PUE included."""
        return self.snapshot.total.kg

    @property
    def cost(self) -> float | None:
        """Energy and compute cost in the tariff's currency; None without a price."""
        return self.snapshot.total.cost

    def as_dict(self) -> dict[str, Any]:
        """Everything, JSON-ready but for NaN and infinite losses. Joules, grams, seconds and Unix seconds, as in `Snapshot`."""
        return {**_plain(self.snapshot), **{name: _plain(getattr(self.snapshot, name)) for name in COMPUTED}}

    def __str__(self) -> str:
        return self.text()

    def text(self, width: int = 0) -> str:
        """The summary, broken to `width` columns; 0 leaves the lines as long as they are."""
        s = self.snapshot
        names = ("hf_eco2ai", s.identity.project_name, s.identity.model_name, f"run {s.identity.run_id}", _state(s))
        head = " · ".join(text.cut(name, LONGEST_NAME) for name in names if name)
        return "\n".join([head, *text.table([*_energy(s), *_totals(s), *_phases(s), *_grounds(s)], width)])


def _plain(value: Any) -> Any:
    """Records as dictionaries, tuples of anything else as lists."""
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if hasattr(value, "_asdict"):
        return {name: _plain(part) for name, part in value._asdict().items()}
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


def opening_line(s: Snapshot | None, url: str | None) -> str:
    """What is measured and how, and where it can be seen."""
    if s is None:
        measured = "no reading yet (a driver is slow to answer); training does not wait for it"
    elif not s.devices:
        measured = "no device can be measured here"
    else:
        kinds = Counter((d.device.component, d.device.model, d.device.basis) for d in s.devices)
        measured = "measuring " + ", ".join(f"{_named(c, m, n)} ({basis})" for (c, m, basis), n in kinds.items())
    return f"hf_eco2ai: {measured}" + (f"\nhf_eco2ai: metrics at {url}" if url else "")


def _named(component: Component, model: str, count: int) -> str:
    if model:
        return f"{count} × {model}"
    return COMPONENT_WORDS[component] if count == 1 else f"{count} × {COMPONENT_WORDS[component]}"


def live_line(s: Snapshot) -> str:
    """One line of figures for a terminal: totals, rates, and where the run is going."""
    parts = [text.footprint(s.total, s.tariff)]
    if s.rates is not None:
        parts.append(f"now {text.power(s.rates.watts)}, {text.mass(s.rates.grams_per_hour)} CO₂e/h")
        if s.rates.cost_per_hour is not None:
            parts[-1] += f", {text.money(s.rates.cost_per_hour, s.tariff)}/h"
    if s.forecast is not None:
        parts.append(f"whole run about {text.energy(s.forecast.joules)}, {text.mass(s.forecast.grams)} CO₂e")
    basis = "" if s.basis == "measured" else f" [{s.basis}]"
    return f"hf_eco2ai{basis}: " + " · ".join(parts)


def _state(s: Snapshot) -> str:
    simulated = "SIMULATED GPUs, not a measurement · " if s.basis == "simulated" else ""
    why = "" if s.end_reason in {"", "completed"} else f" ({text.REASON_WORDS[s.end_reason]})"
    return f"{simulated}{s.state}{why} after {text.duration(s.seconds)}"


def _energy(s: Snapshot) -> list[tuple[str, str]]:
    """The total, then one row per kind of device and method: eight GPUs are one line."""
    kinds = []
    ordered = sorted(s.devices, key=lambda d: (d.device.component != "gpu", *_kind(d)))
    for (component, how, note), group in groupby(ordered, key=_kind):
        members = list(group)
        name = f"  {_named(component, members[0].device.model, len(members))}"
        joules = text.energy(sum(d.joules for d in members), like=s.total.joules)
        kinds.append((name, joules, f"{how} ({note})" if note else how))
    width = max((len(joules) for _, joules, _ in kinds), default=0)
    others = [(f"  host {host}", text.energy(joules, like=s.total.joules)) for host, joules in s.joules_of_others.items()]
    rows = [
        ("energy", text.energy(s.total.joules)),
        *((name, f"{joules:<{width}}  {how}") for name, joules, how in kinds),
        *_no_more(s),
        *others,
    ]
    if s.wasted.joules > 0:
        rows.append(("  wasted", text.wasted(s.wasted, like=s.total.joules)))
    return rows


def _no_more(s: Snapshot) -> list[tuple[str, str]]:
    """Devices that earlier attempts used on this host, and this one does not."""
    present = {status.device.uuid for status in s.devices}
    joules = sum(device.joules for device in s.here.devices if device.uuid not in present)
    return [("  devices no more in use", text.energy(joules, like=s.total.joules))] if joules > 0 else []


def _kind(status: DeviceStatus) -> tuple[Component, str, str]:
    return status.device.component, text.methods(status), status.device.note


def _totals(s: Snapshot) -> list[tuple[str, str]]:
    rows = [("CO₂e", text.mass(s.total.grams))]
    if s.total.cost is not None:
        parts = [("energy", s.total.energy_cost), ("compute", s.total.compute_cost)]
        said = " + ".join(f"{name} {text.money(cost, s.tariff)}" for name, cost in parts if cost is not None)
        rows.append(("cost", f"{text.money(s.total.cost, s.tariff)} ({said})"))
    if s.tree is not None:
        rows.append(("processes", text.tree(s.tree)))
    if s.progress.samples and s.total.joules > 0:
        per_sample = s.total.joules / s.progress.samples
        rows.append(("efficiency", f"{s.progress.samples / s.total.kwh:,.0f} samples/kWh ({text.energy(per_sample)}/sample)"))
    return rows


def _phases(s: Snapshot) -> list[tuple[str, str]]:
    seconds = dict(s.phase_seconds)
    used = [(phase, total) for phase, total in s.phases if seconds.get(phase, 0.0) > 0 or total.joules > 0]
    said = ", ".join(
        f"{phase} {text.energy(total.joules, like=s.total.joules)} in {text.duration(seconds[phase])}" for phase, total in used
    )
    return [("phases", said)] if used else []


def _grounds(s: Snapshot) -> list[tuple[str, str]]:
    rows = [("grid factor", text.factor(s.factor)), ("PUE", f"{s.pue:g}")]
    rows += [(f"{budget.kind} budget", text.budget(budget, s.tariff)) for budget in s.budgets]
    if s.observed_ratio is not None:
        rows.append(("observed", f"{text.percent(s.observed_ratio)} of device time"))
    problems = [f"{count} × {error_type}" for error_type, count in s.errors if count]
    if problems:
        rows.append(("problems", ", ".join(problems) + " (each was said once above, or in the log)"))
    return rows
