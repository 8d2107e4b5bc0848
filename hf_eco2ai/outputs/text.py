"""Figures as people read them: three significant digits and the unit that fits."""

import textwrap
from collections.abc import Sequence

from hf_eco2ai.records import DeviceStatus, Footprint, GridFactor, Method, Tariff

NARROWEST = 20
"""Columns below which broken lines read worse than long ones."""

_ENERGY = ((3.6e9, "MWh"), (3.6e6, "kWh"), (3.6e3, "Wh"), (1.0, "J"))
_MASS = ((1e6, "t"), (1e3, "kg"), (1.0, "g"), (1e-3, "mg"))
_POWER = ((1e6, "MW"), (1e3, "kW"), (1.0, "W"))

METHOD_WORDS: dict[Method, str] = {"counter": "counter difference", "trapezoid": "trapezoid over power readings"}


def energy(joules: float, like: float | None = None) -> str:
    """`1.92 kWh`, `860 J`; in the unit that `like` joules would have, so that parts add up before the reader's eyes."""
    return _scaled(joules, _ENERGY, joules if like is None else like)


def mass(grams: float) -> str:
    """CO₂e: `412 g`, `1.3 kg`."""
    return _scaled(grams, _MASS)


def power(watts: float) -> str:
    """`312 W`, `4.8 kW`."""
    return _scaled(watts, _POWER)


def money(amount: float, tariff: Tariff) -> str:
    """`0.0123 USD`, `12.30 USD`."""
    return f"{amount:.2f} {tariff.currency}" if amount >= 1 else f"{amount:.3g} {tariff.currency}"


def duration(seconds: float) -> str:
    """`2 d 03 h`, `1 h 05 min`, `3 min 20 s`, `12.3 s`."""
    if round(seconds, 1) < 60:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours:02d} h"
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def percent(ratio: float) -> str:
    """`99.7 %`; never rounded up to 100 %."""
    return "100 %" if ratio >= 1 else f"{min(ratio * 100, 99.9):.1f} %"


def footprint(total: Footprint, tariff: Tariff) -> str:
    """Energy, CO₂e and, where a price is known, cost."""
    parts = [energy(total.joules), f"{mass(total.grams)} CO₂e"]
    if total.cost is not None:
        parts.append(money(total.cost, tariff))
    return " · ".join(parts)


def budget(total: Footprint, budget_kg: float) -> str:
    """`12.3 % of 5 kg used`; also beyond 100 %."""
    return f"{100 * total.kg / budget_kg:.3g} % of {mass(budget_kg * 1000)} CO₂e used"


def factor(grid: GridFactor) -> str:
    """The grid factor with its source and year."""
    place = "-".join(part for part in (grid.country, grid.region) if part)
    year = f", {grid.year}" if grid.year else ""
    said = f"{grid.grams_per_kwh:g} gCO₂e/kWh {grid.factor_type} ({f'{place}: ' if place else ''}{grid.source}{year})"
    return f"{said}, ASSUMED: no country is set" if grid.assumed else said


def methods(status: DeviceStatus) -> str:
    """How a device's joules came about: `measured by NVML energy counter`."""
    device = status.device
    said = f"{device.basis}: {device.source}"
    if "trapezoid" not in status.methods or "counter" not in device.source:
        return said
    how = METHOD_WORDS["trapezoid"]
    return f"{said} (in part {how})" if "counter" in status.methods else f"{said}, which did not answer ({how})"


def table(rows: Sequence[tuple[str, str]], columns: int = 0) -> list[str]:
    """Names and values side by side; values that do not fit into `columns` go on below themselves."""
    names = max((len(name) for name, _ in rows), default=0)
    room = columns - names - 4
    lines = []
    for name, value in rows:
        first, *rest = textwrap.wrap(value, room) if room >= NARROWEST and len(value) > room else [value]
        lines += [f"  {name:<{names}}  {first}", *(f"  {'':<{names}}  {line}" for line in rest)]
    return lines


def wrapped(lines: str, columns: int) -> str:
    """Lines broken between words to `columns`, and indented where they go on; 0 leaves them as they are."""
    if columns < NARROWEST:
        return lines
    return "\n".join(textwrap.fill(line, columns, subsequent_indent="  ") for line in lines.split("\n"))


def _scaled(value: float, units: Sequence[tuple[float, str]], like: float | None = None) -> str:
    scale = abs(value if like is None else like)
    size, unit = next(((s, u) for s, u in units if scale >= s), units[-1])
    scaled = value / size
    if abs(scaled) >= 100:  # noqa: PLR2004
        return f"{scaled:,.0f} {unit}"
    return f"{scaled:.3g} {unit}"
