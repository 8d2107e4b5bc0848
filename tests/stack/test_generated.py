"""The committed rule files are what Python makes of the committed thresholds and channels, and Prometheus takes them."""

import subprocess
from pathlib import Path

import pytest
import yaml

from hf_eco2ai.errors import ConfigError
from hf_eco2ai.stack.rules import alert_files, all_alerts, recording_files, write_rules
from tests.stack.committed import LINKS, ROOT, THRESHOLDS

ALERTS = ROOT / "alerting" / "rules"
RECORDINGS = ROOT / "prometheus" / "rules"

SEVERITIES = {
    "critical": {
        "CarbonBudgetExceeded", "CostBudgetExceeded", "EnergyBudgetExceeded", "ExporterDown", "GpuLost", "GpuTemperatureCritical",
        "LossNotFinite", "RunLost",
    },
    "info": {"LowEfficiency", "GpuUneven", "GridFactorAssumed"},
}  # fmt: skip
"""The other alerts are warnings."""


def test_committed_rules_are_what_hf_eco2ai_stack_rules_writes() -> None:
    for folder, made in ((ALERTS, alert_files(THRESHOLDS, LINKS)), (RECORDINGS, recording_files())):
        assert {file.name: file.read_text(encoding="utf-8") for file in folder.glob("*.yml")} == made, (
            "run `hf-eco2ai stack rules`"
        )


def test_promtool_takes_all_rules() -> None:
    files = [*ALERTS.glob("*.yml"), *RECORDINGS.glob("*.yml")]
    done = subprocess.run(
        ["promtool", "check", "rules", "--lint-fatal", *map(str, files)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_are_written_beside_those_of_the_user(tmp_path: Path) -> None:
    mine = tmp_path / "alerting" / "rules" / "mine.yml"
    mine.parent.mkdir(parents=True)
    mine.write_text("groups: []\n")
    write_rules(tmp_path, THRESHOLDS.changed(["high_emissions_kg=77"]), LINKS)
    assert mine.read_text() == "groups: []\n"
    assert "> 77)" in (tmp_path / "alerting" / "rules" / "carbon.yml").read_text()
    assert (tmp_path / "prometheus" / "rules" / "hf-eco2ai.yml").read_text() == recording_files()["hf-eco2ai.yml"]


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "alerting").write_text("no folder")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_rules(tmp_path, THRESHOLDS, LINKS)


def test_alerts_have_their_severities_and_all_texts() -> None:
    found = [
        rule
        for text in alert_files(THRESHOLDS, LINKS).values()
        for group in yaml.safe_load(text)["groups"]
        for rule in group["rules"]
    ]
    names = [rule["alert"] for rule in found]
    assert len(names) == len(set(names))
    for rule in found:
        name, texts = rule["alert"], rule["annotations"]
        expected = next((severity for severity, of_it in SEVERITIES.items() if name in of_it), "warning")
        assert rule["labels"]["severity"] == expected, name
        assert texts.keys() >= {"summary", "description", "action", "value", "dashboard_url", "runbook_url"}, name


def test_every_threshold_is_used_by_a_rule() -> None:
    for name, value in THRESHOLDS.items():
        other = "59m59s" if not value.replace(".", "").isdigit() else "0.123456"
        assert list(all_alerts(THRESHOLDS.changed([f"{name}={other}"]))) != list(all_alerts(THRESHOLDS)), name
