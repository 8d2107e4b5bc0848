"""`hf-eco2ai stack check`: what would go wrong at `up` is said before, in words."""

import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from hf_eco2ai.cli import cli
from hf_eco2ai.stack.checks import Finding, check
from hf_eco2ai.stack.compose import write_environment
from hf_eco2ai.stack.secrets import Secrets
from tests.stack.compose import COMPOSE
from tests.stack.native import free_ports

HOOK = "https://discord.com/api/webhooks/123456789/a-secret_token"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "stack"
    command = ["init", "--dir", str(folder), "--runs-dir", str(folder.parent / "runs")]
    assert CliRunner().invoke(cli, ["stack", *command]).exit_code == 0
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A stack folder of which all is well, with ports that are free."""
    without = shutil.ignore_patterns("hf_eco2ai", "tests")
    copied = shutil.copytree(made, tmp_path / "stack", ignore=without)
    names = ("EXPORTER_PORT", "PROMETHEUS_PORT", "ALERTMANAGER_PORT", "GRAFANA_PORT")
    write_environment(copied, {name: str(port) for name, port in zip(names, free_ports(4), strict=True)})
    return copied


def which(*names: str) -> Callable[[str], str | None]:
    """Programs that are installed, and Compose's, which is beside Python."""
    at = {"docker-compose": str(COMPOSE), **{name: shutil.which(name) for name in ("promtool", "amtool")}}
    return lambda name: at[name] if name in names else None


TOOLS = which("promtool", "amtool", "docker-compose")


def said(folder: Path, level: str, tools: Callable[[str], str | None] = TOOLS) -> list[str]:
    return [finding.text for finding in check(folder, tools) if finding.level == level]


def test_a_new_folder_has_no_problem_and_the_tools_were_asked(folder: Path) -> None:
    assert said(folder, "problem") == []
    well = said(folder, "ok")
    assert {"prometheus/prometheus.yml and rules, says promtool", "Alertmanager's configuration, says amtool"} <= set(well)
    assert "docker-compose.yml, says Docker Compose" in well


def test_without_the_tools_that_is_said_and_no_problem(folder: Path) -> None:
    assert said(folder, "problem", which()) == []
    assert "docker-compose.yml (not looked at by Docker Compose, which is not on PATH)" in said(folder, "ok", which())


def test_a_channel_without_its_secret_is_a_warning_that_says_where_to_put_it(folder: Path) -> None:
    path = folder / "secrets" / "slack_url"
    (warning,) = [text for text in said(folder, "warning") if text.startswith("Slack")]
    assert warning == f"Slack is left out: put the URL of its incoming webhook into {path}, or run `hf-eco2ai stack init`."
    Secrets(folder / "secrets").put("slack_url", "https://hooks.slack.com/services/T/B/x")
    assert not [text for text in said(folder, "warning") if text.startswith("Slack")]
    assert "secrets: slack_url" in said(folder, "ok")


def test_the_exit_code_is_1_for_a_problem_and_with_strict_for_a_warning(folder: Path) -> None:
    def code(*options: str) -> int:
        return CliRunner().invoke(cli, ["stack", "check", "--dir", str(folder), *options]).exit_code

    assert (code(), code("--strict")) == (0, 1)
    (folder / "alerting" / "thresholds.yml").write_text("high_emissions_kg: twenty\n")
    assert code() == 1


def test_rules_that_are_older_than_thresholds_are_named_and_stack_rules_mends_it(folder: Path) -> None:
    thresholds = folder / "alerting" / "thresholds.yml"
    thresholds.write_text(thresholds.read_text().replace("high_emissions_kg: 20 ", "high_emissions_kg: 21 "))
    (problem,) = said(folder, "problem", which())
    assert problem.startswith("alerting/rules/carbon.yml")
    assert "run `hf-eco2ai stack rules`" in problem
    done = CliRunner().invoke(cli, ["stack", "rules", "--dir", str(folder)])
    assert "changed  alerting/rules/carbon.yml" in done.output
    assert said(folder, "problem", which()) == []


def test_stack_rules_with_set_keeps_the_value_and_its_comment(folder: Path) -> None:
    thresholds = folder / "alerting" / "thresholds.yml"
    before = thresholds.read_text().splitlines()
    done = CliRunner().invoke(
        cli, ["stack", "rules", "--dir", str(folder), "--set", "high_emissions_kg=1234", "--set", "stalled_for=1h"]
    )
    assert done.exit_code == 0, done.exception
    changed = [(old, new) for old, new in zip(before, thresholds.read_text().splitlines(), strict=True) if old != new]
    assert changed == [
        (
            "high_emissions_kg: 20              # kg CO2e of one run; guide",
            "high_emissions_kg: 1234            # kg CO2e of one run; guide",
        ),
        (
            next(line for line in before if line.startswith("stalled_for:")),
            next(line for line in before if line.startswith("stalled_for:")).replace("15m ", "1h  ", 1),
        ),
    ]
    assert "> 1234" in (folder / "alerting" / "rules" / "carbon.yml").read_text()
    assert "Nothing to change." in CliRunner().invoke(cli, ["stack", "rules", "--dir", str(folder)]).output


def test_a_threshold_that_is_none_changes_nothing(folder: Path) -> None:
    before = (folder / "alerting" / "thresholds.yml").read_text()
    done = CliRunner().invoke(cli, ["stack", "rules", "--dir", str(folder), "--set", "high_emission_kg=1"])
    assert "did you mean high_emissions_kg?" in str(done.exception)
    assert (folder / "alerting" / "thresholds.yml").read_text() == before


def test_secrets_that_others_may_read_and_those_that_are_none_are_problems(folder: Path) -> None:
    secrets = Secrets(folder / "secrets")
    opened = secrets.put("webhook_url", "http://127.0.0.1:5001/")
    opened.chmod(0o644)
    secrets.put("pagerduty_key", "too-short")
    problems = said(folder, "problem", which())
    assert f"{opened} may be read by others than its owner: chmod 600 {opened}" in problems
    assert any(text.startswith(f"{secrets.path('pagerduty_key')} should be the 32 letters and digits") for text in problems)
    assert not any("too-short" in text for text in problems)


def test_no_finding_repeats_a_secret_not_even_where_a_tool_is_asked_about_a_file_that_has_it(folder: Path) -> None:
    Secrets(folder / "secrets").put("discord_url", HOOK)
    channels = folder / "alerting" / "channels.yml"
    channels.write_text(channels.read_text().replace("group_wait: 10s", "group_wait: 0ms"))
    (folder / "alerting" / "templates" / "ours.tmpl").write_text('{{ define "broken" }}{{ end')
    findings = check(folder, TOOLS)
    assert any(finding.level == "problem" and "amtool says" in finding.text for finding in findings)
    assert not any("a-secret_token" in finding.text for finding in findings)


def test_what_prometheus_would_refuse_is_said_in_promtools_words(folder: Path) -> None:
    config = folder / "prometheus" / "prometheus.yml"
    config.write_text(config.read_text().replace("scrape_timeout: 10s", "scrape_timeout: 10x"))
    assert [text for text in said(folder, "problem") if "promtool says" in text and "10x" in text]
    (folder / "alerting" / "rules" / "ours.yml").write_text("groups: [{name: ours, rules: [{alert: A, expr: 'up ='}]}]\n")
    assert [text for text in said(folder, "problem") if "promtool says" in text]


def test_a_setting_of_channels_yml_that_there_is_none_of_is_named(folder: Path) -> None:
    with (folder / "alerting" / "channels.yml").open("a") as file:
        file.write("teams: {}\n")
    assert [text for text in said(folder, "problem", which()) if "channels.yml: teams" in text]


def test_what_compose_would_refuse_is_said_in_its_words(folder: Path) -> None:
    file = folder / "docker-compose.yml"
    file.write_text(file.read_text().replace("\n  grafana-data:\n", "\n"))
    assert [text for text in said(folder, "problem") if "Docker Compose says" in text and "grafana-data" in text]


def test_an_older_compose_is_told_which_it_has_to_be(folder: Path, tmp_path: Path) -> None:
    old = tmp_path / "docker"
    old.write_text(f'#!{sys.executable}\nimport sys\nprint("2.17.3" if "version" in sys.argv else "")\n')
    old.chmod(0o755)
    problems = said(folder, "problem", lambda name: str(old) if name == "docker" else None)
    assert problems == ["Docker Compose is 2.17, and docker-compose.yml needs 2.20 or newer"]


def test_files_that_are_missing_are_named(folder: Path) -> None:
    shutil.rmtree(folder / "dashboards")
    (folder / "docker-compose.yml").unlink()
    (problem,) = said(folder, "problem")
    assert problem.startswith(f"{folder} lacks docker-compose.yml, dashboards: ")


def test_a_path_that_compose_mounts_has_to_be_there(folder: Path) -> None:
    file = folder / "docker-compose.yml"
    file.write_text(file.read_text().replace("./alerting:/stack", "./alarming:/stack"))
    assert f"{folder / './alarming'} is not there, and docker-compose.yml mounts it" in said(folder, "problem", which())


def test_a_port_that_is_taken_is_a_warning_with_the_variable_that_changes_it(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        write_environment(folder, {"GRAFANA_PORT": str(port)})
        expected = f"port {port} of grafana is taken; unless that is this stack, put GRAFANA_PORT=… into .env"
        assert expected in said(folder, "warning", which())


@pytest.mark.parametrize(("values", "level", "words"), [
    ({"HF_ECO2AI_RUNS_DIR": "runs"}, "warning", "containers keep runs in a volume of their own"),
    ({"HF_ECO2AI_RUNS_DIR": "/nowhere/runs"}, "problem", "the runs folder /nowhere/runs is not there"),
    ({"STACK_UID": "4711"}, "problem", "the exporter may not read the journals"),
])  # fmt: skip
def test_a_runs_folder_that_the_exporter_could_not_read_is_said(
    folder: Path, values: dict[str, str], level: str, words: str
) -> None:
    write_environment(folder, values)
    assert [text for text in said(folder, level, which()) if words in text]


def test_a_folder_for_a_group_is_read_by_its_group(folder: Path, tmp_path: Path) -> None:
    runs = tmp_path / "shared"
    runs.mkdir()
    runs.chmod(0o2770)
    mine = {"HF_ECO2AI_RUNS_DIR": str(runs), "STACK_UID": "4711", "STACK_GID": str(runs.stat().st_gid)}
    write_environment(folder, mine)
    assert Finding("ok", f"runs in {runs}") in check(folder, which())
    write_environment(folder, {"STACK_GID": "4711"})
    assert [text for text in said(folder, "problem", which()) if f"put STACK_GID={runs.stat().st_gid} into .env" in text]
