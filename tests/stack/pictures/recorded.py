"""What the recording rules would have made of a history, and the alerts that stand at its end."""

import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.daemon.process import until
from tests.daemon.prometheus import Prometheus, prometheus
from tests.stack.pictures.history import DAYS

ROOT = Path(__file__).parents[3]

GRID = "5m"
"""Between two values of what is recorded: a query finds no older one."""

_NAME = re.compile(r"\b\w+:\w+:\w+\b")


def record(folder: Path, end: float, wanted: str) -> None:
    """The history of the recorded series whose names are in a text, and of those that they are made of.

    promtool evaluates no rule on what another one of the same call has made, and a Prometheus sees new blocks when it starts.
    """
    for rules in steps(expressions(), set(_NAME.findall(wanted))):
        group = {"name": "history", "interval": GRID, "rules": [{"record": name, "expr": expr} for name, expr in rules.items()]}
        file = folder / "history.yml"
        file.write_text(yaml.safe_dump({"groups": [group]}))
        with prometheus(folder, []) as asked:
            url, data = f"--url={asked._url}", f"--output-dir={folder}/data"
            times = [f"--start={int(end) - DAYS * 86400}", f"--end={int(end)}"]
            blocks = ["promtool", "tsdb", "create-blocks-from", f"--max-block-duration={DAYS * 24}h", "rules"]
            subprocess.run(
                [*blocks, url, *times, data, str(file)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )


def expressions() -> dict[str, str]:
    """Of all recording rules, by name."""
    groups = (group for file in _files("prometheus") for group in file["groups"])
    return {rule["record"]: rule["expr"] for group in groups for rule in group["rules"]}


def _files(folder: str) -> Iterator[dict[str, Any]]:
    return (yaml.safe_load(file.read_text()) for file in sorted((ROOT / folder / "rules").glob("*.yml")))


def steps(all_rules: Mapping[str, str], wanted: set[str]) -> Iterator[dict[str, str]]:
    """Rules in an order in which each step is made of what those before it have made."""
    needed: set[str] = set()
    rest = wanted & set(all_rules)
    while rest:
        needed |= rest
        rest = {name for rule in rest for name in _NAME.findall(all_rules[rule])} & set(all_rules) - needed
    done: set[str] = set()
    while done < needed:
        ready = {name for name in needed - done if set(_NAME.findall(all_rules[name])) & set(all_rules) <= done}
        yield {name: all_rules[name] for name in sorted(ready)}
        done |= ready


def live(folder: Path) -> list[str]:
    """The rules and alerts of this repository without intervals of their own. Their files."""
    made = folder / "rules"
    made.mkdir()
    for number, content in enumerate((*_files("prometheus"), *_files("alerting"))):
        for group in content["groups"]:
            group.pop("interval", None)
        (made / f"{number}.yml").write_text(yaml.safe_dump(content))
    return [f"{made}/*.yml"]


def wait(asked: Prometheus, end: float) -> float:
    """Until the history has come to its end, and the rules have been evaluated on it. The time, in Unix seconds."""
    time.sleep(max(0.0, end - time.time()))
    until(lambda: asked.ask("/api/v1/query", query="ALERTS")["result"], what=asked.log)
    until(lambda: asked.ask("/api/v1/query", query=f"timestamp(ALERTS) > {end + 5}")["result"], what=asked.log)
    return time.time()
