"""Figures as people read them: three significant digits and the unit that fits. Whatever a journal says, nothing here raises."""

import math
import textwrap
import unicodedata
from collections.abc import Sequence
from datetime import datetime, timezone

from hf_eco2ai.records import BudgetStatus, DeviceStatus, EndReason, Footprint, GridFactor, Method, Tariff, TreeUsage

NARROWEST = 20
"""Columns below which broken lines read worse than long ones."""

MOST_CHARACTERS = 200
"""Of a name that is cut; more than the columns it is cut to, and few enough to look at one by one."""

UNKNOWN = "-"
"""In place of what is no number: NaN, an infinity."""

MOST_IN_FULL = 1e15
"""A figure above is written with an exponent: nobody reads 300 digits."""

_ENERGY = ((3.6e9, "MWh"), (3.6e6, "kWh"), (3.6e3, "Wh"), (1.0, "J"))
_MASS = ((1e6, "t"), (1e3, "kg"), (1.0, "g"), (1e-3, "mg"))
_POWER = ((1e6, "MW"), (1e3, "kW"), (1.0, "W"))

REASON_WORDS: dict[EndReason, str] = {
    "completed": "completed",
    "budget": "stopped at the budget",
    "exception": "exception",
    "out_of_memory": "out of memory",
    "interrupted": "Ctrl-C",
    "sigterm": "SIGTERM",
    "exit": "the process ended",
    "exit_code": "exit code not 0",
    "removed": "the callback was removed",
}

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
    """`0.0123 USD`, `12.30 USD`; small change in full, since nobody counts money in powers of ten."""
    if not math.isfinite(amount):
        return UNKNOWN
    if abs(amount) >= MOST_IN_FULL:
        return f"{amount:.3g} {tariff.currency}"
    said = f"{amount:.2f}" if abs(amount) >= 1 else f"{amount:.3g}"
    return f"{amount:.7f} {tariff.currency}" if "e" in said else f"{said} {tariff.currency}"


def duration(seconds: float) -> str:
    """`2 d 03 h`, `1 h 05 min`, `3 min 20 s`, `12.3 s`."""
    if not math.isfinite(seconds):
        return UNKNOWN
    if abs(seconds) >= MOST_IN_FULL:
        return f"{seconds:.3g} s"
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
    if not 0 <= ratio < math.inf:
        return UNKNOWN
    return "100 %" if ratio >= 1 else f"{min(ratio * 100, 99.9):.1f} %"


def count(number: int) -> str:
    """`12,345`."""
    if abs(number) < MOST_IN_FULL:
        return f"{number:,}"
    try:
        return f"{float(number):.3g}"
    except OverflowError:  # JSON has integers that no float can hold.
        return UNKNOWN


def instant(unix: float) -> str:
    """`2026-11-18 11:06:40`, in UTC."""
    try:
        return datetime.fromtimestamp(unix, tz=timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):  # No clock has ever said so.
        return UNKNOWN


def footprint(total: Footprint, tariff: Tariff) -> str:
    """Energy, CO₂e and, where a price is known, cost."""
    parts = [energy(total.joules), f"{mass(total.grams)} CO₂e"]
    if total.cost is not None:
        parts.append(money(total.cost, tariff))
    return " · ".join(parts)


def budget(status: BudgetStatus, tariff: Tariff) -> str:
    """`12.3 % of 5 kg CO₂e used`; also beyond 100 %."""
    limit = {
        "carbon": lambda: f"{mass(status.limit * 1000)} CO₂e",
        "energy": lambda: energy(status.limit * 3.6e6),
        "cost": lambda: money(status.limit, tariff),
    }[status.kind]()
    whose = " by the project" if status.scope == "project" else ""
    when = {"none": "", "day": " today (UTC)", "month": " this month (UTC)"}[status.period]
    return f"{_used(status)} of {limit} used{whose}{when}"


def _used(status: BudgetStatus) -> str:
    try:
        used = 100 * status.used_ratio
    except ZeroDivisionError:  # No setting allows a budget of nothing, but a journal may say so.
        return UNKNOWN
    return f"{used:.3g} %" if math.isfinite(used) else UNKNOWN


def tree(usage: TreeUsage) -> str:
    """What the processes of a measured command have used."""
    if usage.peak_processes == 0:  # It was over before anyone looked; how many there were nobody knows.
        return f"{duration(usage.cpu_seconds)} of CPU time"
    most = "1 process" if usage.peak_processes == 1 else f"{count(usage.peak_processes)} processes"
    megabytes = count((usage.peak_rss_bytes + 500_000) // 10**6)
    return f"{duration(usage.cpu_seconds)} of CPU time, at most {most} and {megabytes} MB at once"


def wasted(total: Footprint, like: float | None = None) -> str:
    """What went into steps that a resume rolled back; the energy in the unit that `like` joules would have."""
    return f"{energy(total.joules, like)}, {mass(total.grams)} CO₂e of it on steps that a resume rolled back"


def factor(grid: GridFactor) -> str:
    """The grid factor with its source and year."""
    place = "-".join(part for part in (grid.country, grid.region) if part)
    year = f", {grid.year}" if grid.year else ""
    grams = f"{grid.grams_per_kwh:g}" if math.isfinite(grid.grams_per_kwh) else UNKNOWN
    said = f"{grams} gCO₂e/kWh {grid.factor_type} ({f'{place}: ' if place else ''}{grid.source}{year})"
    return f"{said}, ASSUMED: no country is set" if grid.assumed else said


def methods(status: DeviceStatus) -> str:
    """How a device's joules came about: `measured by NVML energy counter`."""
    device = status.device
    said = f"{device.basis}: {device.source}"
    if "trapezoid" not in status.methods or "counter" not in device.source:
        return said
    how = METHOD_WORDS["trapezoid"]
    return f"{said} (in part {how})" if "counter" in status.methods else f"{said}, which did not answer ({how})"


def width(shown: str) -> int:
    """Columns that a text takes on a terminal: wide characters two, marks on the one before none."""
    return sum(map(_columns, shown))


def _columns(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def printable(shown: str) -> str:
    """In one line, and without what would move the cursor or turn the direction of writing."""
    return "".join(c if c.isprintable() else " " for c in shown)


def encodable(name: str) -> str:
    """A file name that is no UTF-8 (with lone surrogates, that is) with escapes, as it stands in a journal."""
    return name.encode("utf-8", "backslashreplace").decode()


def padded(shown: str, columns: int) -> str:
    """Filled up with spaces."""
    return shown + " " * max(0, columns - width(shown))


def cut(name: str, columns: int) -> str:
    """Printable, in one line, and no wider than so; the end is what tells models apart."""
    return _cut(name, columns, from_end=True)


def begun(name: str, columns: int) -> str:
    """The same, but of an id the beginning, by which it can be asked for."""
    return _cut(name, columns, from_end=False)


def _cut(name: str, columns: int, *, from_end: bool) -> str:
    # A character of the longest is enough: whatever has no width (a thousand accents on one letter) is cut by number.
    some = name[-MOST_CHARACTERS:] if from_end else name[:MOST_CHARACTERS]
    clean = printable(some)
    if len(some) == len(name) and width(clean) <= columns:
        return clean
    kept, room = 0, columns - 1
    for character in reversed(clean) if from_end else clean:
        room -= _columns(character)
        if room < 0:
            break
        kept += 1
    return "…" + clean[len(clean) - kept :] if from_end else clean[:kept] + "…"


def table(rows: Sequence[tuple[str, str]], columns: int = 0) -> list[str]:
    """Names and values side by side; values that do not fit into `columns` go on below themselves."""
    rows = [(printable(name), printable(value)) for name, value in rows]
    names = max((width(name) for name, _ in rows), default=0)
    room = columns - names - 4
    lines = []
    for name, value in rows:
        first, *rest = textwrap.wrap(value, room) if room >= NARROWEST and len(value) > room else [value]
        lines += [f"  {padded(name, names)}  {first}", *(f"  {'':<{names}}  {line}" for line in rest)]
    return lines


def wrapped(lines: str, columns: int) -> str:
    """Lines broken between words to `columns`, and indented where they go on; 0 leaves them as they are."""
    if columns < NARROWEST:
        return lines
    return "\n".join(textwrap.fill(line, columns, subsequent_indent="  ") for line in lines.split("\n"))


def _scaled(value: float, units: Sequence[tuple[float, str]], like: float | None = None) -> str:
    if not math.isfinite(value):
        return UNKNOWN
    scale = abs(value if like is None else like)
    size, unit = next(((s, u) for s, u in units if scale >= s), units[-1])
    scaled = value / size
    if 100 <= abs(scaled) < MOST_IN_FULL:  # noqa: PLR2004
        return f"{scaled:,.0f} {unit}"
    return f"{scaled:.3g} {unit}"
