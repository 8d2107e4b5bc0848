"""The committed dashboards, as files, and what is asked in them."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.stack.committed import ROOT

FOLDER = ROOT / "dashboards"
FILES = sorted(FOLDER.glob("*.json"))

INTERVALS = {"$__rate_interval": "4s", "$__interval": "1s", "$__range": "10m"}
"""What Grafana fills in by itself, for scrapes every second: its rate interval is four of them."""


@dataclass(frozen=True)
class Asked:
    """One expression, and where it stands."""

    where: str
    expr: str
    at_once: bool

    def __str__(self) -> str:
        return self.where


def read(stem: str) -> Any:
    """A dashboard by its uid."""
    return json.loads((FOLDER / f"{stem}.json").read_text(encoding="utf-8"))


def panels(dashboard: Any) -> Iterator[Any]:
    """All of them, and the rows that they stand under."""
    yield from dashboard["panels"]


def panel(dashboard: Any, title: str) -> Any:
    """The one of that title."""
    (found,) = [one for one in panels(dashboard) if one["title"] == title]
    return found


def targets() -> Iterator[Asked]:
    """Of every panel of every dashboard."""
    for file in FILES:
        for one in panels(read(file.stem)):
            for target in one.get("targets", ()):
                yield Asked(f"{file.stem}: {one['title']} {target['refId']}", target["expr"], target["instant"])


def annotations() -> Iterator[Asked]:
    """That ask Prometheus. Every dashboard has the same."""
    for annotation in read(FILES[0].stem)["annotations"]["list"]:
        if "expr" in annotation:
            yield Asked(f"annotation {annotation['name']}", annotation["expr"], at_once=False)


def variables() -> dict[str, Any]:
    """Variables that ask Prometheus, by name. Every dashboard has the same."""
    return {one["name"]: one for one in read(FILES[0].stem)["templating"]["list"] if one["type"] == "query"}


def asked_by(variable: Any) -> tuple[str, str]:
    """The expression, and the label whose values are the choice; empty where it is a query's answer."""
    query = variable["query"]["query"]
    values = re.fullmatch(r"label_values\((.+), (\w+)\)", query)
    if values:
        return values[1], values[2]
    answer = re.fullmatch(r"query_result\((.+)\)", query, re.DOTALL)
    assert answer is not None, query
    return answer[1], ""


def filled(expr: str, chosen: Mapping[str, str]) -> str:
    """As Grafana asks it: with what is chosen, or All."""
    for name, value in INTERVALS.items():
        expr = expr.replace(name, value)
    for name in ("project", "model", "run", "host"):
        expr = expr.replace(f"${name}", chosen.get(name, ".*"))
    assert "$" not in expr, expr
    return expr
