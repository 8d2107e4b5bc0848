"""Runbooks: one per alert, and what they tell to ask, to change and to run is there."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest
import yaml

from hf_eco2ai import CarbonConfig
from hf_eco2ai.cli import cli
from hf_eco2ai.outputs.metrics import METRICS, SCOPE_LABELS
from hf_eco2ai.outputs.node_metrics import NODE_METRICS
from hf_eco2ai.outputs.self_metrics import SELF_METRICS
from hf_eco2ai.records import ERROR_TYPES
from hf_eco2ai.stack.alerts import Alert, categories
from hf_eco2ai.stack.rules import category_file, recording_files
from tests.stack.committed import LINKS, ROOT, THRESHOLDS
from tests.stack.promtool import seconds

FOLDER = ROOT / "docs" / "runbooks"
PAGES = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")
SECTIONS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]

ALERTS = [(category, alert) for category, made in categories().items() for alert in made(THRESHOLDS)]

TARGET = {"job", "instance"}
OTHERS = {"up": TARGET, "scrape_samples_post_metric_relabeling": TARGET}
"""What Prometheus itself says of a target."""

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


class Query(NamedTuple):
    """One of a page; blank lines stand between those of a block."""

    page: str
    text: str


def queries() -> Iterator[Query]:
    for page in PAGES:
        for block in re.findall(r"```promql\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            yield from (Query(page.stem, text) for text in block.strip().split("\n\n"))


def known() -> dict[str, set[str]]:
    """Every metric that there may be, with its labels but those of the target. `instance` and `job` may be asked for anywhere."""
    metrics = dict(OTHERS)
    for row in METRICS:
        labels = {*row.labels, *SCOPE_LABELS[row.scope]}
        names = {"info": ("_info",), "histogram": ("_bucket", "_sum", "_count")}.get(row.kind, ("",))
        metrics |= {row.name + suffix: labels for suffix in names}
    metrics |= {row.name: {*row.labels} for row in NODE_METRICS} | {row.name: {*row.labels} for row in SELF_METRICS}
    for text in recording_files().values():
        for group in yaml.safe_load(text)["groups"]:
            metrics |= {rule["record"]: {"project_name", "run_id", "budget", "scope", "period"} for rule in group["rules"]}
    return metrics


KNOWN = known()


@pytest.mark.parametrize(("category", "alert"), ALERTS, ids=lambda value: getattr(value, "name", value))
def test_every_alert_links_to_its_runbook(category: str, alert: Alert) -> None:
    (rule,) = yaml.safe_load(category_file(category, [alert], LINKS))["groups"][0]["rules"]
    assert rule["annotations"]["runbook_url"] == f"{LINKS.runbooks}/{alert.name}.md"
    assert (FOLDER / f"{alert.name}.md").is_file()


def test_links_of_alerts_lead_to_the_folder_of_runbooks() -> None:
    assert LINKS.runbooks.endswith("/docs/runbooks")


def test_every_runbook_is_of_an_alert() -> None:
    assert {page.stem for page in PAGES} == {alert.name for _, alert in ALERTS}


def test_the_index_lists_all_alerts_with_their_severity_and_category() -> None:
    rows = re.findall(r"^\| \[(\w+)\]\((\w+)\.md\) \| (\w+) \| (\w+) \| \S", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert rows == [(alert.name, alert.name, alert.severity, category) for category, alert in ALERTS]


@each_page
def test_a_runbook_has_its_four_sections_and_none_is_empty(page: Path) -> None:
    title, *sections = re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert title == f"# {page.stem}\n\n"
    assert [section.partition("\n")[0] for section in sections] == SECTIONS
    assert all(section.partition("\n")[2].strip() for section in sections)


@each_page
def test_links_of_a_runbook_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_promtool_can_parse_every_query(tmp_path: Path) -> None:
    asked = list(queries())
    assert len(asked) > len(PAGES)
    file = tmp_path / "queries.yml"
    rules = [{"alert": query.page, "expr": query.text, "labels": {"query": str(n)}} for n, query in enumerate(asked)]
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("query", [*queries()], ids=lambda query: query.page)
def test_every_metric_and_label_of_a_query_exists(query: Query) -> None:
    selectors = re.findall(
        r"(?<![\w:\"])((?:\w+:)*(?:hf_|up\b|scrape_)[\w:]*)(?:\{([^}]*)\})?", re.sub(r'"[^"]*"', '""', query.text)
    )
    for metric, matchers in selectors:
        assert metric in KNOWN, metric
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))
        assert labels <= KNOWN[metric] | TARGET, f"{metric} has no {labels - KNOWN[metric]}"


@each_page
def test_every_metric_that_a_runbook_names_exists(page: Path) -> None:
    for metric in re.findall(r"\bhf_(?:training|node|exporter)_\w+", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
        assert metric in KNOWN or f"{metric}_bucket" in KNOWN, metric


@each_page
def test_every_threshold_that_a_runbook_names_exists_and_is_what_it_says(page: Path) -> None:
    text = " ".join(page.read_text(encoding="utf-8").split())
    named = re.findall(r"stack rules --set (\w+)=(\S+?)`", text)
    assert THRESHOLDS.changed(f"{name}={value}" for name, value in named)
    for name, value in re.findall(r"`(\w+)` \((\S+?)\)", text):
        if name in set(THRESHOLDS):
            assert THRESHOLDS[name] == value, name
    told = re.findall(r"`(\w+)` \(\S+?\)", text.partition("## Impact")[0])
    assert set(told) & set(THRESHOLDS) or page.stem == "LossNotFinite"


@each_page
def test_every_setting_that_a_runbook_tells_to_change_is_one(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for written in re.findall(r"CarbonConfig\((.+?)\)`", text):
        if "…" not in written:
            assert eval(f"CarbonConfig({written})", {"CarbonConfig": CarbonConfig})  # noqa: S307 - our own page
        for name in re.findall(r"(\w+)=", written):
            assert name in CarbonConfig.model_fields, name
    for name in re.findall(r"HF_ECO2AI_(\w+)=", text):
        assert name.lower() in CarbonConfig.model_fields, name


def said(page: Path) -> list[str]:
    """Commands of ours that a page tells to run."""
    return re.findall(r"`(hf-eco2ai [^`]+)`", page.read_text(encoding="utf-8"))


@each_page
def test_every_command_that_a_runbook_tells_to_run_is_one(page: Path) -> None:
    for line in said(page):
        command: click.Command = cli
        context = click.Context(cli)
        words = line.split()[1:]
        while words and isinstance(command, click.Group) and (found := command.get_command(context, words[0])) is not None:
            command = found
            words = words[1:]
        assert command is not cli, line
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options, line


def test_the_runbook_of_monitoring_errors_explains_all_of_them() -> None:
    table = re.findall(r"^\| (`.+`) \|", (FOLDER / "MonitoringErrors.md").read_text(), re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(table))) - {"error_type"} == set(ERROR_TYPES)


def test_a_metrics_alert_is_kept_until_its_exporter_is_said_to_be_down() -> None:
    assert seconds(THRESHOLDS["stale_kept_for"]) > seconds(THRESHOLDS["exporter_down_for"])
