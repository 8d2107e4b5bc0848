"""The kinds of panels that there are. None of them is Angular's, which Grafana 12 draws no more."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from hf_eco2ai.stack.dashboards.panels import Override, Panel
from hf_eco2ai.stack.dashboards.style import COUNT, TEXT, Json

_LAST = {"calcs": ["lastNotNull"], "fields": "", "values": False}


@dataclass(frozen=True, kw_only=True)
class Stat(Panel):
    """A figure, or some, in large."""

    type: ClassVar[str] = "stat"
    colour: str = "thresholds"
    width: int = 4
    height: int = 4
    named: bool = False
    """Show what the figure is of, such as its currency, beside it."""

    def options(self) -> Json:
        """Without a line behind it: most figures are of one instant."""
        return {
            "reduceOptions": _LAST,
            "colorMode": "value",
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "textMode": "value_and_name" if self.named else "value",
            "wideLayout": True,
        }


@dataclass(frozen=True, kw_only=True)
class Gauge(Panel):
    """A figure on a dial."""

    type: ClassVar[str] = "gauge"
    colour: str = "thresholds"
    width: int = 6
    height: int = 6

    def options(self) -> Json:
        """With the bounds marked."""
        return {
            "reduceOptions": _LAST,
            "orientation": "auto",
            "showThresholdLabels": False,
            "showThresholdMarkers": True,
            "minVizHeight": 75,
            "minVizWidth": 75,
            "sizing": "auto",
        }


@dataclass(frozen=True, kw_only=True)
class Bars(Panel):
    """Figures beside each other, as lying bars."""

    type: ClassVar[str] = "bargauge"
    colour: str = "thresholds"
    minimum: float | None = 0

    def options(self) -> Json:
        """Names above the bars, where there is room for them."""
        return {
            "reduceOptions": _LAST,
            "orientation": "horizontal",
            "displayMode": "basic",
            "valueMode": "color",
            "namePlacement": "top",
            "showUnfilled": True,
            "sizing": "auto",
            "minVizHeight": 16,
            "minVizWidth": 8,
            "maxVizHeight": 300,
            "legend": {"showLegend": False, "displayMode": "list", "placement": "bottom", "calcs": []},
        }


@dataclass(frozen=True, kw_only=True)
class Timeseries(Panel):
    """Lines, or with `bars` columns. `limits` shows the thresholds as dashed lines."""

    type: ClassVar[str] = "timeseries"
    minimum: float | None = 0
    limits: bool = False
    bars: bool = False
    stacked: bool = False
    axis: str = ""

    def options(self) -> Json:
        """Names in as few lines as they need; all values in the tooltip, the largest first."""
        return {
            "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }

    def custom(self) -> Json:
        """Gaps stay gaps: no figure is not the one before."""
        return {
            "drawStyle": "bars" if self.bars else "line",
            "lineInterpolation": "linear",
            "lineWidth": 1,
            "fillOpacity": 60 if self.bars else 30 if self.stacked else 0,  # Of lines on each other it would be mud.
            "gradientMode": "none",
            "showPoints": "auto",
            "pointSize": 3,
            "spanNulls": False,
            "stacking": {"mode": "normal" if self.stacked else "none", "group": "A"},
            "axisPlacement": "auto",
            "axisLabel": self.axis,
            "axisColorMode": "text",
            **({"axisSoftMax": 1} if self.unit == COUNT else {}),  # Or where nothing is counted it would go to 100.
            "scaleDistribution": {"type": "linear"},
            "hideFrom": {"legend": False, "tooltip": False, "viz": False},
            "thresholdsStyle": {"mode": "dashed" if self.limits else "off"},
        }


@dataclass(frozen=True)
class Column:
    """A column of a table, of the label or the query (`A`, `B` …) that it shows."""

    of: str
    title: str
    properties: Json = field(default_factory=dict)


def _text(column: Column) -> Json:
    return {"unit": TEXT} if len(column.of) > 1 else {}


@dataclass(frozen=True, kw_only=True)
class Table(Panel):
    """One row for each combination of labels, a column for each query."""

    type: ClassVar[str] = "table"
    width: int = 24
    colour: str = "thresholds"
    columns: tuple[Column, ...]
    sort: str
    """Title of the column by which rows stand."""
    descending: bool = True

    def json(self) -> Json:
        """With a look for each column."""
        made = super().json()
        made["fieldConfig"]["overrides"] = [
            Override(self._field(column), {"displayName": column.title, **_text(column), **column.properties}).json()
            for column in self.columns
        ] + made["fieldConfig"]["overrides"]
        return made

    def options(self) -> Json:
        """No footer: sums over currencies or kinds of factors mean nothing."""
        return {
            "showHeader": True,
            "cellHeight": "sm",
            "sortBy": [{"displayName": self.sort, "desc": self.descending}],
        }

    def custom(self) -> Json:
        """Plain cells, in columns that may be narrow: there are many."""
        return {"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False, "minWidth": 70}

    def transformations(self) -> list[Json]:
        """Answers put side by side by their labels; only the columns, in their order."""
        order = {self._field(column): number for number, column in enumerate(self.columns)}
        names: Json = {"include": {"names": list(order)}}
        return [
            {"id": "merge", "options": {}},
            {"id": "filterFieldsByName", "options": names},
            {"id": "organize", "options": {"excludeByName": {}, "includeByName": {}, "indexByName": order, "renameByName": {}}},
        ]

    def _field(self, column: Column) -> str:
        """The name that Grafana gives it."""
        if len(column.of) > 1:
            return column.of
        return "Value" if len(self.queries) == 1 else f"Value #{column.of}"


@dataclass(frozen=True, kw_only=True)
class Heatmap(Panel):
    """How values are spread, over time. `bucket`: made of lines here, in columns so wide; otherwise of a histogram's buckets."""

    type: ClassVar[str] = "heatmap"
    bucket: str = ""
    axis: str = ""

    def options(self) -> Json:
        """Cells in the colours of one scheme, which tells more from less in both themes."""
        return {
            "calculate": bool(self.bucket),
            **({"calculation": {"xBuckets": {"mode": "size", "value": self.bucket}}} if self.bucket else {}),
            "cellGap": 1,
            "color": {
                "mode": "scheme",
                "scheme": "Viridis",
                "fill": "green",
                "scale": "exponential",
                "exponent": 0.5,
                "steps": 64,
                "reverse": False,
            },
            "exemplars": {"color": "blue"},
            "filterValues": {"le": 1e-9},
            "legend": {"show": True},
            "rowsFrame": {"layout": "auto"},
            "showValue": "never",
            "tooltip": {"mode": "single", "showColorScale": False, "yHistogram": True},
            "yAxis": {"axisPlacement": "left", "reverse": False, "unit": self.unit, "axisLabel": self.axis},
        }

    def custom(self) -> Json:
        """An even scale."""
        return {"scaleDistribution": {"type": "linear"}, "hideFrom": {"legend": False, "tooltip": False, "viz": False}}


@dataclass(frozen=True, kw_only=True)
class Timeline(Panel):
    """A band for each series, in the colour of the state that it is in."""

    type: ClassVar[str] = "state-timeline"
    width: int = 24

    def options(self) -> Json:
        """Equal states in a row are one."""
        return {
            "mergeValues": True,
            "showValue": "auto",
            "alignValue": "left",
            "rowHeight": 0.8,
            "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []},
            "tooltip": {"mode": "single", "sort": "none"},
        }

    def custom(self) -> Json:
        """Without lines around bands."""
        return {
            "fillOpacity": 70,
            "lineWidth": 0,
            "hideFrom": {"legend": False, "tooltip": False, "viz": False},
        }


@dataclass(frozen=True)
class Text:
    """Words, in Markdown."""

    title: str
    text: str
    description: str
    width: int = 24
    height: int = 3

    def json(self) -> Json:
        """As Grafana keeps it."""
        options: dict[str, Any] = {
            "mode": "markdown",
            "content": self.text,
            "code": {"language": "plaintext", "showLineNumbers": False, "showMiniMap": False},
        }
        return {"type": "text", "title": self.title, "description": self.description, "options": options}
