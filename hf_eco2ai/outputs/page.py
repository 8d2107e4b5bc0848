"""The page at `/`: what this is, what runs, and where to go.

It needs neither a network nor JavaScript. Everything from a run is cut, made printable and escaped on its way through `_safe`,
and no figure that a journal may hold breaks it.
"""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple
from urllib.parse import quote

from hf_eco2ai.outputs import text
from hf_eco2ai.outputs.page_style import STYLE
from hf_eco2ai.outputs.shown import ShownRun, shown_runs
from hf_eco2ai.records import DeviceStatus, Snapshot
from hf_eco2ai.version import __version__

REFRESH_SECONDS = 5

MOST_ROWS = 200
"""Runs in the table. A browser takes more, but nobody looks at them."""

MOST_CHARACTERS = 1000
"""Of a fact. A journal may hold a name of 100 kB, and the page is sent every five seconds."""

NAME_COLUMNS = 40
ID_COLUMNS = 20
LONGEST_NAME = 128
"""Columns of a name in the table, of an id there, and of a name elsewhere."""

LONGEST_LINK = 500
"""Characters of an id that is linked to; each may take twelve in a link, and no one would follow a longer one."""

NAMELESS = "(no name)"


class Page(NamedTuple):
    """HTML, and whether the run that was asked for is there."""

    html: str
    found: bool


def page(snapshots: Sequence[Snapshot], chosen: str | None = None) -> Page:
    """The run of the id `chosen`, or the only one there is, or a table of them all; refreshes itself every five seconds."""
    runs = shown_runs(snapshots)
    if chosen is not None:
        run = next((run for run in runs if run.run_id == chosen), None)
        if run is None:
            return Page(_whole(_absent(chosen)), found=False)
        return Page(_whole((_BACK if len(runs) > 1 else "") + _run(run)), found=True)
    if len(runs) > 1:
        return Page(_whole(_table(runs), kind="runs"), found=True)
    return Page(_whole(_run(runs[0]) if runs else _NOTHING), found=True)


_BACK = '<p><a href="/">All runs</a></p>'
_NOTHING = "<section><h2>No run has been read yet</h2><p>The first figures come within a second.</p></section>"


def _absent(run_id: str) -> str:
    return (
        f"<section><h2>There is no run {_name(run_id)} here</h2><p>It may have ended some time ago, or never have begun. "
        '<a href="/">These runs</a> are here.</p></section>'
    )


def _whole(content: str, kind: str = "run") -> str:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="{REFRESH_SECONDS}">
<title>hf_eco2ai</title>
<style>{STYLE}</style>
</head>
<body>
<main class="{kind}">
<h1>hf_eco2ai {escape(__version__)}</h1>
<p>Energy, CO₂e and cost of Hugging Face Trainer runs. Prometheus scrapes <a href="/metrics">/metrics</a>;
<a href="/api/v1/runs">/api/v1/runs</a> is for programs; <a href="/healthz">/healthz</a> and <a href="/readyz">/readyz</a>
answer probes.</p>
{content}
</main>
</body>
</html>
"""


def _safe(said: str) -> str:
    return escape(text.printable(said[:MOST_CHARACTERS]))


def _name(name: str, columns: int = LONGEST_NAME) -> str:
    return escape(text.cut(name, columns).strip() or NAMELESS)


# All runs


def _table(runs: Sequence[ShownRun]) -> str:
    live_first = sorted(runs, key=lambda run: run.state != "running")
    more = len(runs) - MOST_ROWS
    rest = f'<p>And {more:,} more, at <a href="/api/v1/runs">/api/v1/runs</a>.</p>' if more > 0 else ""
    heads = "".join(f'<th class="{kind}">{name}</th>' for name, kind in _COLUMNS)
    rows = "".join(map(_row, live_first[:MOST_ROWS]))
    return f"""<section>
<h2>Runs</h2>
<p>{len(runs):,} runs, {_live(runs)}.</p>
<table class="list"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>
{rest}
</section>"""


def _live(runs: Sequence[ShownRun]) -> str:
    live = [run for run in runs if run.state == "running"]
    if not live:
        return "none of them running"
    watts = sum(run.rates.watts for run in live if run.rates is not None)
    return f"{len(live):,} of them running" + (f" at {text.power(watts)}" if 0 < watts < math.inf else "")


_COLUMNS = (
    ("Project", "wide"),
    ("Run", "wide"),
    ("State", ""),
    ("Energy", "figure"),
    ("CO₂e", "figure"),
    ("Cost", "figure"),
    ("Now", "figure"),
    ("Progress", "progress"),
    ("Updated", "figure"),
)
"""Heading and class. Where the page is narrow, each figure has its heading above it."""


def _row(run: ShownRun) -> str:
    s = run.lead
    cells = (
        f"{_name(s.identity.project_name, NAME_COLUMNS)}<small>{_model(run)}</small>",
        f"{_link(run)}<small>{_hosts(run)}</small>",
        _state(run),
        escape(text.energy(run.total.joules)),
        escape(text.mass(run.total.grams)),
        "" if run.total.cost is None else _safe(text.money(run.total.cost, s.tariff)),
        "" if run.rates is None else escape(text.power(run.rates.watts)),
        "" if s.progress.ratio is None else f"{_bar(s.progress.ratio)}<small>{text.percent(s.progress.ratio)}</small>",
        _updated(run),
    )
    named = zip(cells, _COLUMNS, strict=True)
    return f"<tr>{''.join(_cell(cell, name, kind) for cell, (name, kind) in named)}</tr>"


def _cell(cell: str, name: str, kind: str) -> str:
    label = "" if kind == "wide" else f' data-name="{name}"'
    return f'<td class="{kind}"{label}>{cell}</td>'


def _model(run: ShownRun) -> str:
    names = (run.lead.identity.model_name, run.lead.identity.experiment_name)
    said = " · ".join(_name(name, NAME_COLUMNS) for name in names if name)
    return said + (' <span class="warn">simulated</span>' if run.basis == "simulated" else "")


def _link(run: ShownRun) -> str:
    shown = escape(text.begun(run.run_id, ID_COLUMNS).strip() or NAMELESS)
    link = quote(run.run_id[:LONGEST_LINK], safe="")
    return f'<a href="/?run={link}">{shown}</a>' if len(run.run_id) <= LONGEST_LINK else shown


def _hosts(run: ShownRun) -> str:
    others = len(run.hosts) - 1
    return _name(run.lead.identity.host, NAME_COLUMNS) + (f" and {others:,} more" if others else "")


def _state(run: ShownRun) -> str:
    kind = {"running": "live", "failed": "warn", "lost": "warn"}.get(run.state, "")
    reason = "" if run.lead.end_reason in {"", "completed"} else text.REASON_WORDS[run.lead.end_reason]
    return f'<span class="{kind}">{run.state}</span><small>{escape(reason or text.duration(run.lead.seconds))}</small>'


def _updated(run: ShownRun) -> str:
    date, _, time = text.instant(run.updated_unix).partition(" ")
    return f"{time} UTC<small>{date}</small>" if time else date


def _bar(ratio: float) -> str:
    return f'<progress max="1" value="{min(max(ratio, 0.0), 1.0):.4f}"></progress>' if math.isfinite(ratio) else ""


# One run


def _run(run: ShownRun) -> str:
    s = run.lead
    simulated = ' <span class="warn">simulated GPUs, not a measurement</span>' if run.basis == "simulated" else ""
    names = (s.identity.model_name, s.identity.experiment_name, f"run {run.run_id}", s.identity.host)
    reason = "" if s.end_reason in {"", "completed"} else f" ({text.REASON_WORDS[s.end_reason]})"
    rows = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in _rows(run))
    return f"""<section>
<h2>{_name(s.identity.project_name)}{simulated}</h2>
<p>{" · ".join(_name(name) for name in names if name)} · {s.state}{escape(reason)}, {escape(text.duration(s.seconds))}</p>
<dl class="figures">{"".join(_figure(*figure) for figure in _figures(run))}</dl>
{_progress(s)}
<table class="facts">{rows}</table>
</section>"""


def _figures(run: ShownRun) -> list[tuple[str, str, str]]:
    s, rates, total = run.lead, run.rates, run.total
    figures = [
        ("Energy", text.energy(total.joules), text.power(rates.watts) + " now" if rates else ""),
        ("CO₂e", text.mass(total.grams), text.mass(rates.grams_per_hour) + " per hour" if rates else ""),
    ]
    if total.cost is not None:
        per_hour = text.money(rates.cost_per_hour, s.tariff) + " per hour" if rates and rates.cost_per_hour is not None else ""
        figures.append(("Cost", text.money(total.cost, s.tariff), per_hour))
    figures.append(("Steps", text.count(s.progress.steps), f"{text.count(s.progress.samples)} samples"))
    return figures


def _figure(name: str, value: str, now: str) -> str:
    return f"<div><dt>{escape(name)}</dt><dd>{_safe(value)}<small>{_safe(now)}</small></dd></div>"


def _progress(s: Snapshot) -> str:
    ratio, eta = s.progress.ratio, s.progress.eta_seconds
    if ratio is None:
        return ""
    left = f", {text.duration(eta)} to go" if eta is not None and s.state == "running" else ""
    return f"{_bar(ratio)}<p>{escape(text.percent(ratio))} of the steps done{escape(left)}</p>"


def _rows(run: ShownRun) -> list[tuple[str, str]]:
    """Facts and what they are, escaped."""
    s = run.lead
    factor = _safe(text.factor(s.factor))
    rows = [("Grid factor", f'<span class="warn">{factor}</span>' if s.factor.assumed else factor)]
    said = [("PUE", f"{s.pue:g}" if math.isfinite(s.pue) else text.UNKNOWN)]
    said += [(f"{budget.kind.capitalize()} budget", text.budget(budget, s.tariff)) for budget in s.budgets]
    if run.wasted.joules > 0:
        said.append(("Wasted", text.wasted(run.wasted, like=run.total.joules)))
    for host, totals in run.hosts.items():
        if host != s.identity.host or len(run.snapshots) > 1:
            said.append((f"Host {host}", text.energy(totals.total.joules)))
    for each in run.snapshots:
        said += _of_host(each, f"{each.identity.host}: " if len(run.snapshots) > 1 else "")
    said.append(("Updated", f"{text.instant(run.updated_unix)} UTC"))
    return rows + [(_safe(name), _safe(value)) for name, value in said]


def _of_host(s: Snapshot, host: str) -> Iterable[tuple[str, str]]:
    yield from ((f"{host}{_device(status)}", _used(status)) for status in s.devices)
    if s.observed_ratio is not None:
        yield f"{host}Observed", f"{text.percent(s.observed_ratio)} of device time"
    problems = ", ".join(f"{text.count(count)} × {error_type}" for error_type, count in s.errors if count)
    if problems:
        yield f"{host}Problems", problems


def _device(status: DeviceStatus) -> str:
    device = status.device
    return " ".join(filter(None, (device.component.upper(), device.index if device.component == "gpu" else "", device.model)))


def _used(status: DeviceStatus) -> str:
    watts = f", {text.power(status.watts)} now" if status.watts is not None else ""
    note = f" ({status.device.note})" if status.device.note else ""
    return f"{text.energy(status.joules)}{watts}; {text.methods(status)}{note}"
