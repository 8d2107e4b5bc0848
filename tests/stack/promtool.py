"""Cases for `promtool test rules`, described in Python and run in one call of promtool.

A module has a tuple of cases, a module fixture that runs them all with `failures(…)`, and a test with one parameter per case:

    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_rules(case: Case, failed: Mapping[str, str]) -> None:
        assert failed.get(case.name) is None, failed[case.name]

promtool passes a misspelt alert that is expected to be silent, and compares annotations exactly. So an unknown alert is an
error here, and texts are compared only where a case gives them.
"""

import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Labels = Mapping[str, str]

_DURATION = re.compile(r"(\d+)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Alerts:
    """Which alerts of one name stand at a time, each by its labels without alertname, severity and category. None: it is silent.

    `texts` are the annotations that each of them must have, word by word; where it is empty they may be anything.
    """

    at: str
    name: str
    standing: tuple[Labels, ...] = ()
    texts: tuple[Labels, ...] = ()


@dataclass(frozen=True)
class Gives:
    """What an expression gives at a time: series, as PromQL writes them, to their values."""

    at: str
    expr: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Case:
    """Series as promtool writes them (`0+1x10`, `_` for nothing, `stale`), one value every `step`, and what must hold."""

    name: str
    series: Mapping[str, str]
    holds: tuple[Alerts | Gives, ...]
    step: str = "15s"
    evaluated: str = ""
    """How often rules are evaluated, whatever their groups say; empty: every step."""

    def __str__(self) -> str:
        return self.name


def failures(cases: Sequence[Case], rules: Iterable[str], folder: Path) -> dict[str, str]:
    """Names of the cases that fail, to what promtool says of them.

    `rules` are the texts of rule files. What records comes before what asks for it, for they are evaluated in this order.

    Raises:
        ValueError: two cases have one name, or a case names an alert that the rules do not have.

    """
    loaded = [yaml.safe_load(text) for text in rules]
    known = {rule["alert"]: rule for rule in _rules(loaded) if "alert" in rule}
    for case in cases:
        _check(case, known)
    if len({case.name for case in cases}) != len(cases):
        raise ValueError("two cases have the same name")
    for kind, files in (("full", loaded), ("plain", [_without_texts(file) for file in loaded])):
        for number, file in enumerate(files):
            (folder / f"{kind}-{number}.yml").write_text(yaml.safe_dump(file), encoding="utf-8")
    order = [group["name"] for file in loaded for group in file["groups"]]
    names = {}
    for number, case in enumerate(cases):
        for kind in ("plain", "full"):
            if test := _test(case, kind, known):
                file = f"case-{number}-{kind}.yml"
                names[file] = case.name
                head = {
                    "rule_files": [f"{kind}-*.yml"],
                    "evaluation_interval": case.evaluated or case.step,
                    "group_eval_order": order,
                }
                (folder / file).write_text(yaml.safe_dump({**head, "tests": [test]}), encoding="utf-8")
    return _run(names, folder)


def _run(names: Mapping[str, str], folder: Path) -> dict[str, str]:
    """promtool says "Unit Testing: FILE" before what it finds in it, and SUCCESS where that is nothing."""
    done = subprocess.run(
        ["promtool", "test", "rules", *names],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    parts = re.split(r"^Unit Testing:  (\S+)\n", done.stdout, flags=re.MULTILINE)
    said = dict(zip(parts[1::2], parts[2::2], strict=True))
    found: dict[str, str] = {}
    for file, name in names.items():
        if said.get(file, "promtool did not get there: " + done.stdout).strip() != "SUCCESS":
            found[name] = found.get(name, "") + said.get(file, done.stdout)
    return found


def _rules(files: Iterable[Any]) -> list[dict[str, Any]]:
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def _without_texts(file: Any) -> Any:
    plain = deepcopy(file)
    for rule in _rules([plain]):
        rule.pop("annotations", None)
    return plain


def _check(case: Case, known: Mapping[str, Any]) -> None:
    if not case.holds:
        raise ValueError(f"{case.name}: nothing is asked")
    for asked in case.holds:
        if isinstance(asked, Alerts):
            if asked.name not in known:
                raise ValueError(f"{case.name}: no rule is named {asked.name}")
            if asked.texts and len(asked.texts) != len(asked.standing):
                raise ValueError(f"{case.name}: give the texts of all alerts that stand, or of none")
        every = case.evaluated or case.step
        if seconds(asked.at) % seconds(every):
            raise ValueError(f"{case.name}: {asked.at} is between two evaluations, which are every {every}")


def nan(count: int) -> str:
    """Values that are no number; promtool knows no `NaNx40`."""
    return " ".join(["NaN"] * count)


def seconds(duration: str) -> int:
    """Of a duration such as 1h30m."""
    return sum(int(number) * _SECONDS[unit] for number, unit in _DURATION.findall(duration))


def _test(case: Case, kind: str, known: Mapping[str, Any]) -> dict[str, Any] | None:
    """One file's test: `full` asks for what has texts, `plain` for the rest."""
    asked = [hold for hold in case.holds if (kind == "full") == bool(isinstance(hold, Alerts) and hold.texts)]
    if not asked:
        return None
    return {
        "name": case.name,
        "interval": case.step,
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
        "alert_rule_test": [_alerts(hold, known[hold.name]) for hold in asked if isinstance(hold, Alerts)],
        "promql_expr_test": [_expression(hold) for hold in asked if isinstance(hold, Gives)],
    }


def _alerts(asked: Alerts, rule: Mapping[str, Any]) -> dict[str, Any]:
    own = rule.get("labels", {})
    texts = asked.texts or ({},) * len(asked.standing)
    expected = [
        {"exp_labels": {**own, **labels}, "exp_annotations": dict(text)}
        for labels, text in zip(asked.standing, texts, strict=True)
    ]
    return {"eval_time": asked.at, "alertname": asked.name, "exp_alerts": expected}


def _expression(asked: Gives) -> dict[str, Any]:
    samples = [{"labels": name, "value": value} for name, value in asked.values.items()]
    return {"eval_time": asked.at, "expr": asked.expr, "exp_samples": samples}


def uncovered(cases: Iterable[Case], names: Iterable[str]) -> list[str]:
    """Alerts that no case sees fire, or no case sees silent."""
    asked = [hold for case in cases for hold in case.holds if isinstance(hold, Alerts)]
    firing = {hold.name for hold in asked if hold.standing}
    silent = {hold.name for hold in asked if not hold.standing}
    spoken = {hold.name for hold in asked if hold.texts}
    missing = (("firing", firing), ("silent", silent), ("with its texts", spoken))
    return [f"{name}: never {what}" for name in names for what, seen in missing if name not in seen]
