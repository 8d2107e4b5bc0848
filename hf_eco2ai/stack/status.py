"""How a stack without containers is: its servers, what Prometheus scrapes, its rules, and the alerts that stand."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_eco2ai.stack import asked
from hf_eco2ai.stack.servers import public
from hf_eco2ai.stack.state import Running, State

_RUNS_JOB = "hf-eco2ai-runs"
"""Targets of it come and go with runs: one that has just gone is no failure of the stack."""

_SHOWN_LABELS = ("project_name", "run_id", "model_name", "host", "gpu_id", "job", "instance")

_SERVER_COLUMNS = ("server", "", "address", "pid")
_ALERT_COLUMNS = ("alert", "severity", "state", "of", "value")


@dataclass(frozen=True)
class Status:
    """For a person."""

    lines: tuple[str, ...]
    well: bool
    """Whether every server is ready, every target of the stack's own jobs up, and every rule without an error."""


def status(state: State) -> Status:
    """As it is now."""
    ready = {server.name: server.is_alive() and server.is_ready() for server in state.servers}
    lines = [*_servers(state.servers, ready), ""]
    well = all(ready.values())
    prometheus = state.server("prometheus")
    if prometheus is None or not ready["prometheus"]:
        lines.append("Prometheus does not answer, so nothing is known of targets, rules and alerts.")
        return Status(tuple(lines), well=False)
    for part in (_targets, _rules, _alerts):
        said, fine = part(prometheus.url)
        lines += said
        well = well and fine
    return Status(tuple(lines), well)


def _servers(running: Sequence[Running], ready: Mapping[str, bool]) -> Iterator[str]:
    rows = [(server.name, _word(server, ready[server.name]), public(server), _pid(server)) for server in running]
    yield from _table(_SERVER_COLUMNS, rows)
    yield from (f"What {server.name} has said: {server.log}" for server in running if not ready[server.name] and server.log)


def _word(server: Running, ready: bool) -> str:
    if ready:
        return "up"
    return "not ready" if server.is_alive() else "down"


def _pid(server: Running) -> str:
    return "not ours" if server.process is None else str(server.process.pid)


def _targets(url: str) -> tuple[list[str], bool]:
    targets = (asked.ask(f"{url}/api/v1/targets?state=active") or {}).get("activeTargets", [])
    down = [target for target in targets if target["health"] == "down"]
    waiting = sum(target["health"] == "unknown" for target in targets)
    lines = [
        f"targets: {len(targets) - len(down) - waiting} of {len(targets)} up" + (f", {waiting} not asked yet" if waiting else "")
    ]
    lines += [
        f"  down: {target['labels']['job']} {target['labels']['instance']}: {_clean(target['lastError'])}" for target in down
    ]
    return lines, bool(targets) and all(target["labels"]["job"] == _RUNS_JOB for target in down)


def _rules(url: str) -> tuple[list[str], bool]:
    groups = (asked.ask(f"{url}/api/v1/rules") or {}).get("groups", [])
    rules = [rule for group in groups for rule in group["rules"]]
    wrong = [rule for rule in rules if rule["health"] == "err"]
    lines = [f"rules: {len(rules)} in {len(groups)} groups, " + (f"{len(wrong)} fail" if wrong else "none fails")]
    lines += [f"  fails: {rule['name']}: {_clean(rule.get('lastError', ''))}" for rule in wrong]
    return lines, bool(rules) and not wrong


def _alerts(url: str) -> tuple[list[str], bool]:
    alerts = (asked.ask(f"{url}/api/v1/alerts") or {}).get("alerts", [])
    firing = sum(alert["state"] == "firing" for alert in alerts)
    lines = [f"alerts: {firing} firing, {len(alerts) - firing} pending"]
    order = sorted(alerts, key=lambda alert: (alert["state"], alert["labels"].get("severity", ""), alert["labels"]["alertname"]))
    lines += _table(_ALERT_COLUMNS, [_alert(alert) for alert in order]) if order else []
    return lines, True


def _alert(alert: Mapping[str, Any]) -> tuple[str, ...]:
    labels = alert["labels"]
    of = " ".join(f"{name}={labels[name]}" for name in _SHOWN_LABELS if labels.get(name))
    value = alert.get("annotations", {}).get("value") or f"{float(alert['value']):.6g}"
    return tuple(map(_clean, (labels["alertname"], labels.get("severity", "-"), alert["state"], of or "-", value)))


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in (columns, *rows)]


def _clean(text: str) -> str:
    """A label may hold what moves a terminal's cursor."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)
