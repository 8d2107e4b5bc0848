"""docs/troubleshooting.md: every command in it is run against a stack that is up, and says what stands there."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.daemon.process import ROOT, SECONDS, until
from tests.stack.conftest import Running
from tests.stack.native import HF_ECO2AI, SERVERS, Native, installed

pytestmark = installed

PORTS = {"exporter": 9091, "prometheus": 9090, "alertmanager": 9093, "node": 9100}
"""As the page has them."""

WAIT = (
    "up",
    "count(hf_training_co2_kg_total)",
    "rate(process_cpu_seconds_total[5m])",
    'ALERTS{alertname="CarbonBudgetExceeded"}',
)
"""What a stack that has run for a while has something of."""


class Block(NamedTuple):
    """One of the page, and the line that it begins at."""

    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.language}-{self.line}"


def blocks() -> list[Block]:
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(text[: match.start()].count("\n") + 1, match[1], match[2]) for match in found]


BLOCKS = blocks()
SETUP = next(block.text for block in BLOCKS if block.text.startswith("config="))


@pytest.fixture(scope="module")
def filled(running: Running) -> Running:
    """The stack, once it has scraped and judged."""
    asked = running.native.prometheus()
    until(lambda: all(asked.ask("/api/v1/query", query=query)["result"] for query in WAIT), what=asked.log)
    until(lambda: running.native.say("status").returncode == 0)
    return running


def with_ports(text: str, stack: Native) -> str:
    for name in SERVERS:
        text = re.sub(rf"\b(localhost|127\.0\.0\.1):{PORTS[name]}\b", rf"\1:{stack.ports[name]}", text)
    return text


def bash(text: str, stack: Native) -> "subprocess.CompletedProcess[str]":
    """In the stack's folder, as somebody does who has installed us."""
    programs = stack.root / "installed"
    programs.mkdir(exist_ok=True)
    program = programs / "hf-eco2ai"
    program.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, *HF_ECO2AI])} "$@"\n')
    program.chmod(0o755)
    environ = stack.environ()
    environ |= {"PATH": f"{programs}:{environ['PATH']}", "HF_ECO2AI_RUNS_DIR": str(stack.runs)}
    script = f"set -euo pipefail\n{SETUP}\n{with_ports(text, stack)}"
    return subprocess.run(
        ["bash", "-c", script], cwd=stack.folder, env=environ, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def steps(text: str) -> Iterator[tuple[str, str]]:
    """Commands and what they say."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


def pattern(output: str) -> str:
    """`…` is anything within a line; alone in a line it is any lines."""
    lines = [
        r"(?:.*\n)*" if line == "…" else r"[ \t]*" + re.sub("…", ".*", _escaped(line)) + r"[ \t]*\n"
        for line in output.splitlines()
    ]
    return "".join(lines)


def _escaped(line: str) -> str:
    words = (re.escape(word).replace("…", "…") for word in line.split())
    return r"[ \t]+".join(words)


def test_the_chapters_of_the_guide_are_there() -> None:
    languages = {block.language for block in BLOCKS}
    assert languages == {"sh", "console", "promql", "python", "yaml"}
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    for chapter in (
        "Metrics do not appear",
        "High cardinality",
        "Alerts are missing",
        "What monitoring costs",
        "Prometheus is too large",
    ):
        assert f"\n## {chapter}" in text


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "sh"], ids=str)
def test_every_command_succeeds(block: Block, filled: Running) -> None:
    done = bash(block.text, filled.native)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "console"], ids=str)
def test_every_command_says_what_the_page_shows(block: Block, filled: Running) -> None:
    for command, output in steps(block.text):
        done = bash(command, filled.native)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        shown = pattern(with_ports(output, filled.native))
        assert re.fullmatch(shown.strip("\n"), done.stdout.rstrip("\n") + "\n"), f"{command}:\n{done.stdout}\nis not\n{output}"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "promql"], ids=str)
def test_every_expression_finds_something(block: Block, filled: Running) -> None:
    for line in block.text.splitlines():
        if line and not line.startswith("#"):
            assert filled.native.prometheus().ask("/api/v1/query", query=line)["result"], line


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "python"], ids=str)
def test_every_snippet_of_python_runs(block: Block, filled: Running) -> None:
    ran = [sys.executable, "-c", block.text]
    environ = filled.native.environ()
    done = subprocess.run(ran, cwd=filled.native.root, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=str)
def test_every_configuration_is_one(block: Block, tmp_path: Path) -> None:
    (tmp_path / "prometheus.yml").write_text(block.text)
    checked = ["promtool", "check", "config", "prometheus.yml"]
    done = subprocess.run(checked, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
