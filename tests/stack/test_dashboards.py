"""The dashboards as files: what is committed is what Python makes, and it follows the rules of grafana/dashboard-linter.

Of its rules four are left out. template-job, template-instance: what people choose are projects, models, runs and hosts; job and
instance say who has scraped a run, and that may be two at once. target-job, target-instance: so a query that names them would
show such a run in part, or twice.
"""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from hf_eco2ai.outputs.metrics import METRICS, exposed_name
from hf_eco2ai.outputs.node_metrics import NODE_METRICS
from hf_eco2ai.outputs.self_metrics import SELF_METRICS
from hf_eco2ai.stack.dashboards import dashboards
from hf_eco2ai.stack.dashboards.dashboard import COLUMNS
from tests.stack.committed import ROOT, THRESHOLDS
from tests.stack.dashboards import FILES, FOLDER, annotations, asked_by, filled, panels, read, targets, variables

EACH = pytest.mark.parametrize("stem", [file.stem for file in FILES])

UNITS = {
    "none", "short", "string", "percent", "percentunit", "sci", "bytes", "watt", "kwatth", "joule", "masskg", "celsius", "s",
    "dtdurations", "dateTimeFromNow",
}  # fmt: skip
"""Of the linter's list of Grafana's own units, those that are used."""

OTHERS = {
    "ALERTS", "up", "scrape_duration_seconds", "scrape_samples_post_metric_relabeling",  # of Prometheus itself
    "node_cpu_seconds_total", "node_memory_MemAvailable_bytes", "node_memory_MemTotal_bytes", "node_uname_info",
}  # fmt: skip
"""Families that are not ours. Those of the node exporter are asked for in test_dashboard_queries.py, where it runs."""

QUERIES = [*targets(), *annotations()]


def drawn(stem: str) -> list[Any]:
    """Panels that show something: no rows, no texts."""
    return [one for one in panels(read(stem)) if one["type"] not in {"row", "text"}]


def test_committed_dashboards_are_what_hf_eco2ai_stack_rules_writes() -> None:
    assert {file.name: file.read_text(encoding="utf-8") for file in FILES} == dashboards(THRESHOLDS), (
        "run `hf-eco2ai stack rules`"
    )


def test_a_changed_threshold_is_a_changed_line_in_a_dashboard() -> None:
    made = json.loads(dashboards(THRESHOLDS.changed(["gpu_hot_celsius=71"]))["hf-operations.json"])
    (heat,) = [one for one in panels(made) if one["title"] == "GPU temperature"]
    assert heat["fieldConfig"]["defaults"]["thresholds"]["steps"][1]["value"] == 71


def test_the_guides_dashboard_and_its_panels_are_there() -> None:
    guide = read("hf-carbon-tracking")
    assert guide["title"] == "HF Eco2AI Carbon Tracking"
    titles = {one["title"]: one["type"] for one in panels(guide)}
    assert titles["Total CO₂e emissions"] == "stat"
    assert titles["Energy consumption over time"] == "timeseries"
    assert titles["Training efficiency by hour"] == "heatmap"
    live = read("hf-realtime")
    assert live["refresh"] == "5s"
    assert {one["title"]: one["type"] for one in panels(live)}["Live CO₂ rate"] == "gauge"


@EACH
def test_uneditable_dashboard_and_a_name_that_links_can_keep(stem: str) -> None:
    made = read(stem)
    assert made["editable"] is False
    assert made["uid"] == stem
    assert 39 <= made["schemaVersion"] <= 41
    assert made["title"].startswith("HF Eco2AI")
    assert made["description"]


@EACH
def test_template_datasource(stem: str) -> None:
    (source,) = [one for one in read(stem)["templating"]["list"] if one["type"] == "datasource"]
    assert (source["name"], source["label"], source["query"]) == ("datasource", "Data source", "prometheus")


@EACH
def test_template_on_time_change_reload_and_all_that_variables_need(stem: str) -> None:
    asking = {one["name"]: one for one in read(stem)["templating"]["list"] if one["type"] == "query"}
    assert list(asking) == ["project", "model", "run", "host"]
    for one in asking.values():
        several = (stem, one["name"]) != ("hf-run-detail", "run")  # Which is of one run.
        assert one["refresh"] == 2, one["name"]
        assert one["label"]
        assert (one["multi"], one["includeAll"], one.get("allValue")) == (several, several, ".*" if several else None)
        assert one["datasource"]["uid"] == "${datasource}"


@EACH
def test_panel_datasource(stem: str) -> None:
    for one in drawn(stem):
        assert one["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, one["title"]
        assert all(target["datasource"]["uid"] == "${datasource}" for target in one["targets"]), one["title"]


@EACH
def test_panel_title_description(stem: str) -> None:
    for one in panels(read(stem)):
        assert one["title"]
        assert one["type"] == "row" or one["description"].endswith("."), one["title"]


@EACH
def test_panel_units(stem: str) -> None:
    for one in drawn(stem):
        assert one["fieldConfig"]["defaults"]["unit"] in UNITS, one["title"]
        for override in one["fieldConfig"]["overrides"]:
            said = {property_["id"]: property_["value"] for property_ in override["properties"]}
            assert said.get("unit", "none") in UNITS, one["title"]


@EACH
def test_every_column_of_figures_has_a_unit_or_words_and_every_label_is_a_text(stem: str) -> None:
    for one in drawn(stem):
        for override in one["fieldConfig"]["overrides"] if one["type"] == "table" else ():
            said = {property_["id"]: property_["value"] for property_ in override["properties"]}
            if override["matcher"]["options"].startswith("Value"):
                assert said.keys() & {"unit", "mappings"}, (one["title"], override)
            else:
                assert said["unit"] == "string", "or Grafana shows the run 000000000001 as 1"


@EACH
def test_panel_no_targets_and_no_data_is_shown_as_such(stem: str) -> None:
    for one in drawn(stem):
        assert one["targets"], one["title"]
        assert one["fieldConfig"]["defaults"]["noValue"] in {"no data", "none", "no live factor"}, one["title"]


@EACH
def test_no_angular_panels_and_no_colours_of_ones_own(stem: str) -> None:
    kinds = {one["type"] for one in panels(read(stem))}
    assert kinds <= {"row", "text", "stat", "gauge", "bargauge", "timeseries", "table", "heatmap", "state-timeline"}
    colours = re.findall(r'"(#[0-9a-fA-F]{3,8}|rgba?\([^"]*\))"', (FOLDER / f"{stem}.json").read_text(encoding="utf-8"))
    assert set(colours) <= {"rgba(0, 211, 255, 1)"}, "but for Grafana's own of people's notes"


@EACH
def test_panels_stand_in_the_grid_and_on_no_other(stem: str) -> None:
    taken: set[tuple[int, int]] = set()
    for one in read(stem)["panels"]:
        place = one["gridPos"]
        assert 0 <= place["x"] <= COLUMNS - place["w"], one["title"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, one["title"]
        taken |= cells
    numbers = [one["id"] for one in panels(read(stem))]
    assert len(numbers) == len(set(numbers))


@EACH
def test_links_lead_to_dashboards_that_there_are_and_keep_time_and_variables(stem: str) -> None:
    (menu,) = read(stem)["links"]
    assert (menu["keepTime"], menu["includeVars"], menu["tags"]) == (True, True, ["hf-eco2ai"])
    assert all("hf-eco2ai" in read(file.stem)["tags"] for file in FILES)
    text = (FOLDER / f"{stem}.json").read_text(encoding="utf-8")
    for uid, query in re.findall(r"/d/([\w-]+)\?([^\")]+)", text):
        assert (FOLDER / f"{uid}.json").exists(), uid
        assert "${__url_time_range}" in query
        assert "${datasource:queryparam}" in query or "${__all_variables}" in query


def test_dashboards_that_alerts_link_to_are_there() -> None:
    for file in (ROOT / "alerting" / "rules").glob("*.yml"):
        for rule in (rule for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]):
            uid = re.search(r"/d/([\w-]+)", rule["annotations"]["dashboard_url"])
            assert uid is not None
            assert (FOLDER / f"{uid[1]}.json").exists(), rule["alert"]


@pytest.mark.parametrize("asked", QUERIES, ids=str)
def test_target_rate_interval_and_target_counter_agg(asked: Any) -> None:
    for function, window in re.findall(r"\b(rate|irate|increase)\([^\[]*\[([^\]]+)\]", asked.expr):
        assert function == "rate", "increase() guesses at both ends of a window"
        assert window == "$__rate_interval"
    bare = re.sub(r"by \([^)]*\)|\{[^}]*\}", "{}", asked.expr)
    assert re.findall(r"[\w:]+_total\b(?![\w:{])", bare) == [], "the linter wants rate() around a counter without matchers"
    assert "vector(0)" not in asked.expr


@pytest.mark.parametrize("asked", QUERIES, ids=str)
def test_metrics_that_are_asked_for_exist(asked: Any) -> None:
    names = {exposed_name(metric) for metric in METRICS} | {metric.name for metric in NODE_METRICS} | OTHERS
    names |= {metric.name for metric in SELF_METRICS} | {"hf_training_step_duration_seconds_bucket"}
    for file in (ROOT / "prometheus" / "rules").glob("*.yml"):
        names |= {rule["record"] for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]}
    found = set(re.findall(r"([a-zA-Z_:][\w:]*)\{", asked.expr)) | set(re.findall(r"\b(?:hf|node)_\w+(?=[\s\[)])", asked.expr))
    assert found
    assert found <= names


def test_provisioning_names_nothing_but_what_grafana_is_told_by_its_environment() -> None:
    files = {file.parent.name: file.read_text() for file in (FOLDER / "provisioning").glob("*/*.yml")}
    (source,) = yaml.safe_load(files["datasources"])["datasources"]
    assert (source["type"], source["url"], source["editable"]) == ("prometheus", "$HF_PROMETHEUS_URL", False)
    scraped = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scraped, "or rates are taken over too few scrapes"
    (provider,) = yaml.safe_load(files["dashboards"])["providers"]
    assert provider["options"]["path"] == "$HF_DASHBOARDS"
    assert provider["folder"] == "HF Eco2AI"


def test_target_promql_and_template_label_promql(tmp_path: Path) -> None:
    """Prometheus' own parser reads them, as rules."""
    asking = [asked_by(variable)[0] for variable in variables().values()]
    every = [*(asked.expr for asked in QUERIES), *asking]
    rules = [{"record": f"asked:{number}", "expr": filled(expr, {})} for number, expr in enumerate(every)]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "dashboards", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", str(tmp_path / "rules.yml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
