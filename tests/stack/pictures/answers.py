"""What a Prometheus answers to the queries of a dashboard, with its variables filled in as Grafana does it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.daemon.prometheus import Prometheus

Json = dict[str, Any]

POINTS = 300
"""Steps of a range: a panel of half the width has about as many pixels for them."""

SCRAPE_SECONDS = 15
"""Of prometheus/prometheus.yml."""

_VARIABLE = re.compile(r"\$\{(\w+)(?::\w+)?\}|\$(\w+)")
_LABEL_VALUES = re.compile(r"label_values\((?:(?P<selector>.*),\s*)?(?P<label>\w+)\)$", re.DOTALL)
_QUERY_RESULT = re.compile(r"query_result\((?P<expression>.*)\)$", re.DOTALL)
_TIMES = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Range:
    """Of time, in Unix seconds."""

    begin: float
    end: float

    @property
    def step(self) -> int:
        """Whole seconds between two values, no fewer than between two scrapes."""
        return max(SCRAPE_SECONDS, round((self.end - self.begin) / POINTS))


def seconds(duration: str) -> float:
    """Of `6h` or `now-6h`."""
    number, unit = re.fullmatch(r"(?:now-)?(\d+)([smhd])", duration, re.ASCII).groups()  # type: ignore[union-attr]
    return float(number) * _TIMES[unit]


class Asked:
    """A Prometheus, and the time range that is asked for."""

    def __init__(self, server: Prometheus, over: Range) -> None:
        self._server = server
        self.over = over

    def instant(self, expression: str) -> list[Json]:
        """At the end of the range."""
        result: list[Json] = self._server.ask("/api/v1/query", query=expression, time=f"{self.over.end:.3f}")["result"]
        return result

    def panel(self, panel: Json, variables: Mapping[str, str]) -> Iterator[Json]:
        """An answer for each of its queries."""
        for query in panel.get("targets", []):
            step = max(self.over.step, int(seconds(query.get("interval") or "0s")))
            expression = filled(query["expr"], {**self.builtin(step), **variables})
            if query.get("instant"):
                yield {"query": query, "result": self.instant(expression), "times": None}
                continue
            first = self.over.begin - self.over.begin % step
            times = [first + step * number for number in range(int((self.over.end - first) / step) + 1)]
            bounds = {"start": f"{first}", "end": f"{times[-1]}", "step": f"{step}"}
            found = self._server.ask("/api/v1/query_range", query=expression, **bounds)
            yield {"query": query, "result": found["result"], "times": times}

    def builtin(self, step: int) -> dict[str, str]:
        """Grafana's own variables; $__rate_interval as its Prometheus data source makes it."""
        whole = f"{round(self.over.end - self.over.begin)}"
        rate = f"{max(step + SCRAPE_SECONDS, 4 * SCRAPE_SECONDS)}s"
        names = {"__interval": f"{step}s", "__rate_interval": rate, "__range": f"{whole}s", "__range_s": whole}
        return {**names, "datasource": "prometheus"}

    def variables(self, dashboard: Json) -> dict[str, str]:
        """Of the dashboard: everything where that can be chosen, otherwise what its query finds first."""
        found: dict[str, str] = {}
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                choices = [] if variable.get("includeAll") else self._choices(variable, found)
                found[variable["name"]] = choices[0] if choices else variable.get("allValue") or ".*"
            elif variable["type"] in {"custom", "interval", "constant", "textbox"}:
                found[variable["name"]] = str(variable.get("current", {}).get("value") or variable["query"].split(",")[0])
        return found

    def _choices(self, variable: Json, found: Mapping[str, str]) -> list[str]:
        text = filled(variable["query"]["query"], {**self.builtin(self.over.step), **found})
        if values := _LABEL_VALUES.match(text):
            selector, label = values["selector"], values["label"]
            rows = self.instant(f"group by ({label}) (last_over_time({selector}[{round(self.over.end - self.over.begin)}s]))")
            return sorted(row["metric"].get(label, "") for row in rows)
        result = _QUERY_RESULT.match(text)
        if result is None:
            raise ValueError(f"{variable['name']}: no query of a variable that is known here: {text}")
        return sorted(choice for row in self.instant(result["expression"]) if (choice := chosen(variable["regex"], row)))


def chosen(regex: str, row: Json) -> str:
    """What a variable takes of a line of its query's result."""
    labels = ",".join(f'{name}="{value}"' for name, value in sorted(row["metric"].items()))
    pattern = re.sub(r"\(\?<(?=\w)", "(?P<", regex.strip("/"))
    match = re.search(pattern, f"{{{labels}}} {row['value'][1]}")
    if match is None:
        return ""
    groups = match.groupdict()
    return groups["value"] if "value" in groups else match[1] if match.groups() else match[0]


def filled(text: str, values: Mapping[str, str]) -> str:
    """A text with its variables' values."""
    return _VARIABLE.sub(lambda found: values.get(found[1] or found[2], found[0]), text)
