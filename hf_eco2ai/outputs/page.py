"""The page at `/`: what this is, what runs, and where to go. Everything from a run is escaped."""

from collections.abc import Sequence
from html import escape

from hf_eco2ai.outputs import text
from hf_eco2ai.records import Snapshot
from hf_eco2ai.version import __version__

REFRESH_SECONDS = 5

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2a24; --quiet: #5c6b63; --line: #d9e2dc;
  --ground: #f7faf8; --card: #fff; --green: #1c7c4a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6efe9; --quiet: #9db0a5; --line: #2c3a33; --ground: #111814; --card: #18211c; --green: #5ccb8f; }
}
* { box-sizing: border-box; }
body { margin: 0; padding: 2rem 1rem; background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: auto; }
h1 { font-size: 1.4rem; margin: 0; }
h2 { font-size: 1.05rem; margin: 0; overflow-wrap: anywhere; }
p { color: var(--quiet); margin: .25rem 0 1.5rem; }
a { color: var(--green); }
section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1.25rem; margin-bottom: 1rem; }
section > p { margin: .1rem 0 1rem; font-size: .9rem; overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 1rem; margin: 0 0 1rem; }
.figures div { border-left: 3px solid var(--green); padding-left: .7rem; }
.figures dt { color: var(--quiet); font-size: .85rem; }
.figures dd { margin: 0; font-size: 1.3rem; font-variant-numeric: tabular-nums; }
.figures dd small { display: block; font-size: .8rem; color: var(--quiet); }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-top: 1px solid var(--line); vertical-align: top; }
th { color: var(--quiet); font-weight: normal; white-space: nowrap; }
progress { width: 100%; accent-color: var(--green); height: .6rem; }
.warn { color: #b3541e; font-weight: 600; }
@media (prefers-color-scheme: dark) { .warn { color: #f0a35e; } }
"""


def page(snapshots: Sequence[Snapshot]) -> str:
    """HTML of the page; refreshes itself every five seconds."""
    runs = (
        "".join(map(_run, snapshots))
        or "<section><h2>No run has been read yet</h2><p>The first figures come within a second.</p></section>"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="{REFRESH_SECONDS}">
<title>hf_eco2ai</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>hf_eco2ai {escape(__version__)}</h1>
<p>Energy, CO₂e and cost of Hugging Face Trainer runs. Prometheus scrapes <a href="/metrics">/metrics</a>;
<a href="/healthz">/healthz</a> and <a href="/readyz">/readyz</a> answer probes.</p>
{runs}
</main>
</body>
</html>
"""


def _run(s: Snapshot) -> str:
    simulated = ' <span class="warn">simulated GPUs, not a measurement</span>' if s.basis == "simulated" else ""
    names = " · ".join(
        filter(None, (s.identity.model_name, s.identity.experiment_name, f"run {s.identity.run_id}", s.identity.host))
    )
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{value}</td></tr>" for name, value in _rows(s))
    return f"""<section>
<h2>{escape(s.identity.project_name)}{simulated}</h2>
<p>{escape(names)} · {escape(s.state)}, {escape(text.duration(s.seconds))}</p>
<dl class="figures">{"".join(_figure(*figure) for figure in _figures(s))}</dl>
{_progress(s)}
<table>{rows}</table>
</section>"""


def _figures(s: Snapshot) -> list[tuple[str, str, str]]:
    rates = s.rates
    figures = [
        ("Energy", text.energy(s.total.joules), text.power(rates.watts) + " now" if rates else ""),
        ("CO₂e", text.mass(s.total.grams), text.mass(rates.grams_per_hour) + " per hour" if rates else ""),
    ]
    if s.total.cost is not None:
        per_hour = text.money(rates.cost_per_hour, s.tariff) + " per hour" if rates and rates.cost_per_hour is not None else ""
        figures.append(("Cost", text.money(s.total.cost, s.tariff), per_hour))
    figures.append(("Steps", f"{s.progress.steps:,}", f"{s.progress.samples:,} samples"))
    return figures


def _figure(name: str, value: str, now: str) -> str:
    return f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(now)}</small></dd></div>"


def _progress(s: Snapshot) -> str:
    if s.progress.ratio is None:
        return ""
    left = (
        f", {text.duration(s.progress.eta_seconds)} to go" if s.progress.eta_seconds is not None and s.state == "running" else ""
    )
    ratio = s.progress.ratio
    return f'<progress max="1" value="{ratio:.4f}"></progress><p>{text.percent(ratio)} of the steps done{escape(left)}</p>'


def _rows(s: Snapshot) -> list[tuple[str, str]]:
    rows = [
        (
            "Grid factor",
            f'<span class="warn">{escape(text.factor(s.factor))}</span>' if s.factor.assumed else escape(text.factor(s.factor)),
        )
    ]
    rows.append(("PUE", f"{s.pue:g}"))
    rows += [(f"{budget.kind.capitalize()} budget", escape(text.budget(budget, s.tariff))) for budget in s.budgets]
    if s.wasted.joules > 0:
        rows.append(("Wasted", escape(text.wasted(s.wasted, like=s.total.joules))))
    rows += [(f"Host {host}", escape(text.energy(joules))) for host, joules in s.joules_of_others.items()]
    for status in s.devices:
        device = status.device
        name = " ".join(filter(None, (device.component.upper(), device.index if device.component == "gpu" else "", device.model)))
        watts = f", {text.power(status.watts)} now" if status.watts is not None else ""
        note = f" ({device.note})" if device.note else ""
        rows.append((name, escape(f"{text.energy(status.joules)}{watts}; {text.methods(status)}{note}")))
    if s.observed_ratio is not None:
        rows.append(("Observed", escape(f"{text.percent(s.observed_ratio)} of device time")))
    return rows
