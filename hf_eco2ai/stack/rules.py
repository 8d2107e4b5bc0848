"""Alerts and recording rules as files that Prometheus loads."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hf_eco2ai.errors import ConfigError
from hf_eco2ai.stack import documents, recording
from hf_eco2ai.stack.alerts import Alert, categories
from hf_eco2ai.stack.channels import Links
from hf_eco2ai.stack.thresholds import Thresholds

MADE = "# Made by `hf-eco2ai stack rules` from hf_eco2ai/stack/ and alerting/. Put rules of your own into another file.\n"

_VARIABLES = {"project_name": "project", "model_name": "model", "run_id": "run", "host": "host"}
"""Labels to the variables of the dashboards."""


def alert_files(thresholds: Thresholds, links: Links) -> dict[str, str]:
    """File names in alerting/rules/ to their text, one per category."""
    return {f"{category}.yml": category_file(category, made(thresholds), links) for category, made in categories().items()}


def category_file(category: str, alerts: Iterable[Alert], links: Links) -> str:
    """The file of one category."""
    return _file(f"hf-eco2ai-{category}", [_rule(alert, category, links) for alert in alerts])


def recording_files() -> dict[str, str]:
    """File names in prometheus/rules/ to their text."""
    return {
        name: MADE + documents.written({"groups": [_group(group) for group in groups]})
        for name, groups in recording.files().items()
    }


def write_rules(folder: Path, thresholds: Thresholds, links: Links) -> None:
    """Write alerting/rules/ and prometheus/rules/ of a stack folder anew. Files of other names stay.

    Raises:
        ConfigError: a threshold is missing, or a file cannot be written.

    """
    made = {"alerting": alert_files(thresholds, links), "prometheus": recording_files()}
    for part, files in made.items():
        for name, text in files.items():
            path = folder / part / "rules" / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            except OSError as error:
                raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def all_alerts(thresholds: Thresholds) -> Iterator[Alert]:
    """Every alert."""
    for made in categories().values():
        yield from made(thresholds)


def _file(name: str, rules: list[dict[str, Any]]) -> str:
    return MADE + documents.written({"groups": [{"name": name, "rules": rules}]})


def _group(group: recording.Group) -> dict[str, Any]:
    interval = {"interval": group.interval} if group.interval else {}
    return {"name": group.name, **interval, "rules": [{"record": record.name, "expr": record.expr} for record in group.records]}


def _rule(alert: Alert, category: str, links: Links) -> dict[str, Any]:
    rule: dict[str, Any] = {"alert": alert.name, "expr": alert.expr}
    if alert.hold != "0s":
        rule["for"] = alert.hold
    if alert.keep != "0s":
        rule["keep_firing_for"] = alert.keep
    rule["labels"] = {"severity": alert.severity, "category": category}
    annotations = {
        "summary": alert.summary,
        "description": alert.description,
        "action": alert.action,
        "value": alert.value,
        "limit": alert.limit,
        "dashboard_url": f"{links.grafana}/d/{alert.dashboard}{_query(alert.expr)}",
        "runbook_url": f"{links.runbooks}/{alert.name}.md",
    }
    rule["annotations"] = {name: text for name, text in annotations.items() if text}
    return rule


def _query(expr: str) -> str:
    """The alert's own project, run and host as the dashboard's variables, as far as it has them."""
    named = [label for label in _VARIABLES if re.search(rf"\b{label}\b", expr)]
    given = (
        f"{{{{ if $labels.{label} }}}}&var-{_VARIABLES[label]}={{{{ $labels.{label} | urlquery }}}}{{{{ end }}}}"
        for label in named
    )
    return "?" + "".join(given) if named else ""
