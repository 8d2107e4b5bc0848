"""A dashboard: rows of panels, with the variables, annotations and links that all of them share."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from hf_eco2ai.stack.dashboards.annotations import annotations
from hf_eco2ai.stack.dashboards.kinds import Text
from hf_eco2ai.stack.dashboards.panels import Panel
from hf_eco2ai.stack.dashboards.style import Json
from hf_eco2ai.stack.dashboards.variables import variables

COLUMNS = 24
"""Of Grafana's grid."""

TAG = "hf-eco2ai"

SCHEMA_VERSION = 39
"""Grafana 10 to 13 load it, and bring it up to date themselves."""


@dataclass(frozen=True)
class Row:
    """Panels under one headline, put from left to right and then below."""

    title: str
    panels: tuple[Panel | Text, ...]


@dataclass(frozen=True)
class Dashboard:
    """One file. `uid` is its stem, and stands in links to it."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    begin: str = "now-24h"
    refresh: str = "30s"
    one_run: bool = False

    def text(self) -> str:
        """The file."""
        return json.dumps(self.json(), indent=1, ensure_ascii=False) + "\n"

    def json(self) -> Json:
        """As Grafana keeps it."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": [TAG],
            "schemaVersion": SCHEMA_VERSION,
            "version": 1,
            "editable": False,
            "graphTooltip": 1,
            "fiscalYearStartMonth": 0,
            "liveNow": False,
            "refresh": self.refresh,
            "time": {"from": self.begin, "to": "now"},
            "timepicker": {},
            "timezone": "browser",
            "weekStart": "",
            "templating": {"list": variables(one_run=self.one_run)},
            "annotations": {"list": annotations()},
            "links": [_others()],
            "panels": list(self._panels()),
        }

    def _panels(self) -> Iterator[Json]:
        top, number = 0, 1
        for row in self.rows:
            placed = list(_placed(row.panels, top + 1, number + 1))
            height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in placed) - top - 1
            yield {
                "type": "row",
                "id": number,
                "title": row.title,
                "collapsed": False,
                "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1},
                "panels": [],
            }
            yield from placed
            top += 1 + height
            number += 1 + len(placed)


def _placed(panels: tuple[Panel | Text, ...], top: int, number: int) -> Iterator[Json]:
    """From left to right. What does not fit beside the others begins below the highest of them."""
    x = height = 0
    for panel in panels:
        if x + panel.width > COLUMNS:
            top, x, height = top + height, 0, 0
        yield {"id": number, "gridPos": {"x": x, "y": top, "w": panel.width, "h": panel.height}, **panel.json()}
        x, height, number = x + panel.width, max(height, panel.height), number + 1


def _others() -> Json:
    """A menu of all dashboards, which keep the time range and the variables."""
    return {
        "type": "dashboards",
        "title": "HF Eco2AI",
        "tags": [TAG],
        "asDropdown": True,
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "icon": "external link",
        "tooltip": "The other dashboards, with the same time range and variables",
        "url": "",
    }
