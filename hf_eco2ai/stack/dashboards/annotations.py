"""Marks on time axes: a run begins, saves a checkpoint, ends; an alert fires.

An event is what holds at one step of the axis and not at the one before, so that it is marked once however long it holds.
"""

from hf_eco2ai.stack.dashboards import queries
from hf_eco2ai.stack.dashboards.panels import DATASOURCE
from hf_eco2ai.stack.dashboards.style import Json

_BEFORE = "offset $__interval"
_RUNNING = f'hf_training_running{{run_id!="", {queries.CHOSEN_RUN}}}'
_STATE = f'hf_training_run_state{{run_id!="", {queries.CHOSEN_RUN}, state=~"ended|failed|lost"}}'
_SAVED = f'hf_training_phase_energy_joules_total{{run_id!="", {queries.CHOSEN_RUN}, phase="save"}}'

BEGUN = queries.with_names(f"max by (run_id) ({_RUNNING}) == 1 unless on (run_id) max by (run_id) ({_RUNNING} {_BEFORE}) == 1")
SAVED = queries.with_names(f"max by (run_id) ({_SAVED}) > max by (run_id) ({_SAVED} {_BEFORE})")
ENDED = queries.with_names(f"max by (run_id, state) ({_STATE}) == 1 unless on (run_id) max by (run_id) ({_STATE} {_BEFORE}) == 1")


def annotations() -> list[Json]:
    """All of them, each of which can be turned off."""
    return [
        _of_grafana(),
        _events("Run begins", BEGUN, "green", "Begin", queries.LEGEND),
        _events("Checkpoint", SAVED, "blue", "Checkpoint", queries.LEGEND),
        _events("Run ends", ENDED, "purple", "{{state}}", queries.LEGEND),
        _events("Alerts", queries.ALERTS, "red", "{{alertname}}", "{{severity}} {{project_name}} {{run_id}} {{host}}"),
    ]


def _of_grafana() -> Json:
    """Notes that people make themselves."""
    return {
        "name": "Annotations & Alerts",
        "type": "dashboard",
        "builtIn": 1,
        "datasource": {"type": "grafana", "uid": "-- Grafana --"},
        "enable": True,
        "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)",
    }


def _events(name: str, expr: str, colour: str, title: str, text: str) -> Json:
    return {
        "name": name,
        "datasource": DATASOURCE,
        "enable": True,
        "hide": False,
        "iconColor": colour,
        "expr": expr,
        "step": "15s",
        "titleFormat": title,
        "textFormat": text,
        "tagKeys": "",
        "useValueForTime": False,
    }
