"""What panels of all kinds have, as records. A panel knows what it asks and how it looks, not where it stands."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from hf_eco2ai.stack.dashboards.style import COUNT, NO_DATA, Json, plain

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Query:
    """One target. `instant` asks for the end of the time range, `table` too, with a column per label."""

    expr: str
    legend: str = ""
    kind: Literal["range", "instant", "table", "heatmap"] = "range"
    interval: str = ""
    """The smallest step between two values, where the usual one makes no sense."""

    def json(self, number: int) -> Json:
        """As Grafana keeps it."""
        at_once = self.kind in {"instant", "table"}
        return {
            "refId": ref_id(number),
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": self.expr,
            "legendFormat": self.legend or "__auto",
            "format": {"table": "table", "heatmap": "heatmap"}.get(self.kind, "time_series"),
            "instant": at_once,
            "range": not at_once,
            **({"interval": self.interval} if self.interval else {}),
        }


def ref_id(number: int) -> str:
    """As Grafana numbers targets: A, B, C."""
    return chr(ord("A") + number)


@dataclass(frozen=True)
class Override:
    """Another look for a field, by its name or, where `by` says so, by a pattern of it or the query that it is of."""

    field: str
    properties: Json
    by: Literal["byName", "byRegexp", "byFrameRefID"] = "byName"

    def json(self) -> Json:
        """As Grafana keeps it."""
        return {
            "matcher": {"id": self.by, "options": self.field},
            "properties": [{"id": name, "value": value} for name, value in self.properties.items()],
        }


@dataclass(frozen=True, kw_only=True)
class Panel:
    """What all kinds have. Widths are of 24 columns, heights of some 30 pixels each."""

    type: ClassVar[str]

    title: str
    description: str
    queries: tuple[Query, ...]
    unit: str = COUNT
    width: int = 12
    height: int = 8
    thresholds: Json = field(default_factory=plain)
    colour: str = "palette-classic"
    minimum: float | None = None
    maximum: float | None = None
    decimals: int | None = None
    mappings: tuple[Json, ...] = ()
    overrides: tuple[Override, ...] = ()
    nothing: str = NO_DATA
    """What is shown where there is nothing."""

    def options(self) -> Json:
        """Of the kind."""
        return {}

    def custom(self) -> Json:
        """How the kind draws fields."""
        return {}

    def transformations(self) -> list[Json]:
        """What becomes of the answers before they are drawn."""
        return []

    def json(self) -> Json:
        """As Grafana keeps it, without place and number."""
        made: Json = {
            "type": self.type,
            "title": self.title,
            "description": self.description,
            "datasource": DATASOURCE,
            "targets": [query.json(number) for number, query in enumerate(self.queries)],
            "fieldConfig": {"defaults": self._defaults(), "overrides": [override.json() for override in self.overrides]},
            "options": self.options(),
        }
        if self.transformations():
            made["transformations"] = self.transformations()
        return made

    def _defaults(self) -> Json:
        limits = {"min": self.minimum, "max": self.maximum, "decimals": self.decimals}
        return {
            "unit": self.unit,
            "noValue": self.nothing,
            "color": {"mode": self.colour},
            "thresholds": self.thresholds,
            "mappings": list(self.mappings),
            "custom": self.custom(),
            **{name: value for name, value in limits.items() if value is not None},
        }
