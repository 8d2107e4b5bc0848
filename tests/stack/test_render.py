"""What is rendered for the servers: the committed files as they are, and around them what only this machine knows."""

import json
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from hf_eco2ai.errors import ConfigError
from hf_eco2ai.stack import documents
from hf_eco2ai.stack.channels import Channels
from hf_eco2ai.stack.files import bundled
from hf_eco2ai.stack.render import CONTAINERS, Place, render
from hf_eco2ai.stack.secrets import Secrets

HOOK = "https://hooks.slack.example/services/T000/B000/a-secret"
HERE = Place(targets={"hf-eco2ai": ["127.0.0.1:9091"]}, alertmanager_folder="/etc/alertmanager")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    stack = tmp_path / "stack"
    for part in ("prometheus", "alerting", "dashboards"):
        shutil.copytree(bundled() / part, stack / part)
    return stack


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_prometheus_reads_the_committed_configuration_and_rules_byte_for_byte(folder: Path, tmp_path: Path) -> None:
    render(folder, tmp_path / "out", HERE)
    out = tmp_path / "out" / "prometheus"
    assert (out / "prometheus.yml").read_bytes() == (folder / "prometheus" / "prometheus.yml").read_bytes()
    for source, made in ((folder / "alerting" / "rules", out / "alerts"), (folder / "prometheus" / "rules", out / "rules")):
        assert {path.name: path.read_bytes() for path in source.glob("*.yml")} == {
            path.name: path.read_bytes() for path in made.iterdir()
        }


def test_a_teams_own_rules_come_along_and_leave_when_deleted(folder: Path, tmp_path: Path) -> None:
    own = folder / "alerting" / "rules" / "ours.yml"
    own.write_text("groups: []\n")
    render(folder, tmp_path / "out", HERE)
    assert (tmp_path / "out" / "prometheus" / "alerts" / "ours.yml").read_text() == "groups: []\n"
    own.unlink()
    render(folder, tmp_path / "out", HERE)
    assert not (tmp_path / "out" / "prometheus" / "alerts" / "ours.yml").exists()


def test_only_jobs_with_an_address_have_a_target(folder: Path, tmp_path: Path) -> None:
    render(folder, tmp_path / "out", HERE)
    targets = tmp_path / "out" / "prometheus" / "targets"
    assert json.loads((targets / "hf-eco2ai.json").read_text()) == [{"targets": ["127.0.0.1:9091"]}]
    assert json.loads((targets / "dcgm.json").read_text()) == []


def test_runs_of_this_machine_are_found_through_a_link(folder: Path, tmp_path: Path) -> None:
    render(folder, tmp_path / "out", replace(HERE, runs=tmp_path / "runs"))
    assert (tmp_path / "out" / "prometheus" / "targets" / "runs").readlink() == tmp_path / "runs"


def test_an_interval_of_ones_own_and_long_term_storage_change_the_configuration(folder: Path, tmp_path: Path) -> None:
    place = replace(HERE, scrape_interval="1s", long_term="http://victoriametrics:8428/api/v1/write")
    render(folder, tmp_path / "out", place)
    config = documents.read(tmp_path / "out" / "prometheus" / "prometheus.yml")
    assert config["global"]["scrape_interval"] == config["global"]["evaluation_interval"] == "1s"
    assert config["remote_write"] == [{"url": "http://victoriametrics:8428/api/v1/write"}]


def test_links_of_alerts_lead_to_the_grafana_that_there_is(folder: Path, tmp_path: Path) -> None:
    usual = Channels.read(folder / "alerting" / "channels.yml").links.grafana
    render(folder, tmp_path / "out", replace(HERE, grafana_url="http://localhost:3001"))
    rules = (tmp_path / "out" / "prometheus" / "alerts" / "carbon.yml").read_text()
    assert "http://localhost:3001/d/hf-" in rules
    assert f"{usual}/" not in rules


def test_secrets_go_to_the_server_that_needs_them_for_its_eyes_only(folder: Path, tmp_path: Path) -> None:
    Secrets(folder / "secrets").put("slack_url", HOOK)
    rendered = render(folder, tmp_path / "out", replace(CONTAINERS, owners={"alertmanager": 65534}))
    kept = tmp_path / "out" / "alertmanager" / "secrets" / "slack_url"
    assert kept.read_text() == HOOK
    assert (mode(kept), kept.stat().st_uid) == (0o400, 65534)
    assert mode(tmp_path / "out" / "alertmanager" / "alertmanager.yml") == 0o400
    assert HOOK not in repr(rendered)
    for path in (tmp_path / "out" / "prometheus").rglob("*"):
        assert not path.is_file() or HOOK not in path.read_text()


def test_a_secret_that_is_withdrawn_is_taken_from_the_server(folder: Path, tmp_path: Path) -> None:
    path = Secrets(folder / "secrets").put("slack_url", HOOK)
    render(folder, tmp_path / "out", HERE)
    path.unlink()
    rendered = render(folder, tmp_path / "out", HERE)
    assert not list((tmp_path / "out" / "alertmanager" / "secrets").iterdir())
    assert any("Slack" in warning for warning in rendered.warnings)


def test_a_random_password_for_grafana_is_made_and_told_once(folder: Path, tmp_path: Path) -> None:
    first, second = (render(folder, tmp_path / "out", HERE) for _ in range(2))
    kept = tmp_path / "out" / "grafana" / "secrets" / "admin_password"
    assert first.grafana_password == kept.read_text()
    assert len(kept.read_text()) == 32  # 24 bytes in base64
    assert second.grafana_password is None
    assert kept.read_text() not in repr(first)


def test_grafanas_password_of_ones_own_is_taken_and_not_told(folder: Path, tmp_path: Path) -> None:
    Secrets(folder / "secrets").put("grafana_admin_password", "of our own")
    assert render(folder, tmp_path / "out", HERE).grafana_password is None
    assert (tmp_path / "out" / "grafana" / "secrets" / "admin_password").read_text() == "of our own"


def test_a_key_that_channels_yml_does_not_know_is_an_error_that_names_it(folder: Path, tmp_path: Path) -> None:
    with (folder / "alerting" / "channels.yml").open("a") as file:
        file.write("teams: {}\n")
    with pytest.raises(ConfigError, match=r"channels\.yml: teams"):
        render(folder, tmp_path / "out", HERE)
