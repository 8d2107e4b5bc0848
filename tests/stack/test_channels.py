"""alerting/channels.yml, and what Alertmanager is made to do by it."""

import re
from pathlib import Path
from typing import get_args

import pytest

import hf_eco2ai.stack
from hf_eco2ai.errors import ConfigError
from hf_eco2ai.stack import documents
from hf_eco2ai.stack.alertmanager import AlertmanagerConfig, alertmanager_config
from hf_eco2ai.stack.alerts import categories
from hf_eco2ai.stack.channels import SEVERITIES, Category, Channels
from hf_eco2ai.stack.inhibition import INHIBITIONS
from hf_eco2ai.stack.rules import all_alerts
from hf_eco2ai.stack.secrets import Secrets
from tests.stack.alertmanager import amtool, needed, settings
from tests.stack.committed import ROOT, THRESHOLDS

SECRETS = {
    "slack_url": "https://hooks.slack.example/services/T0/B0/slack-secret",
    "pagerduty_key": "pagerduty-secret",
    "smtp_password": "smtp-secret",
    "discord_url": "https://discord.example/api/webhooks/1/discord-secret",
    "webhook_url": "https://tickets.example/hook?token=webhook-secret",
}
MAIL = {"to": ["alice@example.org", "bob@example.org"], "smarthost": "mail.example.org:587", "username": "eco2ai"}
TITLES = {
    "slack_url": "Slack",
    "pagerduty_key": "PagerDuty",
    "smtp_password": "Email",
    "discord_url": "Discord",
    "webhook_url": "The webhook",
}


def kept(folder: Path, *left_out: str, **changes: str) -> Secrets:
    secrets = Secrets(folder)
    for name, secret in {**SECRETS, **changes}.items():
        if name not in left_out:
            secrets.put(name, secret)
    return secrets


@pytest.fixture
def made(tmp_path: Path) -> AlertmanagerConfig:
    """Every channel is on."""
    return alertmanager_config(settings(email=MAIL), kept(tmp_path / "secrets"), "/etc/alertmanager")


def receivers_of(config: AlertmanagerConfig, folder: Path) -> list[str]:
    """Its receivers; amtool accepts it."""
    file = folder / "alertmanager.yml"
    file.write_text(config.text, encoding="utf-8")
    done = amtool("check-config", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    return [receiver["name"] for receiver in documents.read(file)["receivers"]]


@needed
def test_amtool_accepts_the_configuration_with_every_channel(made: AlertmanagerConfig, tmp_path: Path) -> None:
    assert receivers_of(made, tmp_path) == ["nobody", "slack", "email", "pagerduty", "discord", "webhook"]
    assert made.warnings == ()
    assert set(made.secrets) == {"slack_url", "pagerduty_key", "smtp_password"}


@needed
@pytest.mark.parametrize("name", SECRETS)
def test_a_channel_without_its_secret_is_left_out_with_one_sentence_that_says_which(name: str, tmp_path: Path) -> None:
    secrets = kept(tmp_path / "secrets", name)
    config = alertmanager_config(settings(email=MAIL), secrets, "/etc/alertmanager")
    channel = "email" if name == "smtp_password" else name.partition("_")[0]
    assert channel not in receivers_of(config, tmp_path)
    (warning,) = config.warnings
    assert warning.startswith(f"{TITLES[name]} is left out: ")
    assert str(secrets.path(name)) in warning
    assert "hf-eco2ai stack init" in warning


@needed
def test_without_any_secret_alertmanager_starts_and_tells_nobody(tmp_path: Path) -> None:
    config = alertmanager_config(settings(), Secrets(tmp_path / "none"), "/etc/alertmanager")
    assert receivers_of(config, tmp_path) == ["nobody"]
    assert [warning.partition(" is ")[0] for warning in config.warnings] == [
        "Slack",
        "Email",
        "PagerDuty",
        "Discord",
        "The webhook",
        "No channel",
    ]


@needed
@pytest.mark.parametrize(
    "wrong", ["not a url", "hooks.slack.example/x", "https://", "https://[::1/x", "ftp://x/y", "https://x/\x01"]
)
@pytest.mark.parametrize("name", ["slack_url", "discord_url", "webhook_url"])
def test_a_secret_that_is_no_url_leaves_its_channel_out_and_is_not_repeated(name: str, wrong: str, tmp_path: Path) -> None:
    config = alertmanager_config(settings(email=MAIL), kept(tmp_path / "secrets", **{name: wrong}), "/etc/alertmanager")
    assert name.removesuffix("_url") not in receivers_of(config, tmp_path)
    (warning,) = config.warnings
    assert "is no URL" in warning
    assert wrong not in warning


def test_whoever_has_only_an_installation_is_told_to_make_a_folder_of_his_own_and_no_path_in_it() -> None:
    files = Path(hf_eco2ai.stack.__file__).parent / "files"
    (warning,) = alertmanager_config(settings(), Secrets(files / "secrets"), "/am").warnings
    assert "No channel is on" in warning
    assert "`hf-eco2ai stack init --dir FOLDER`, then say `hf-eco2ai stack up --native --dir FOLDER`" in warning
    assert str(files.parent) not in warning


def test_mail_without_a_login_needs_no_password(tmp_path: Path) -> None:
    config = alertmanager_config(settings(email={**MAIL, "username": ""}), kept(tmp_path, "smtp_password"), "/am")
    assert config.warnings == ()
    assert "smtp_password" not in (*config.secrets, config.text)


def test_no_secret_is_in_a_repr_or_a_warning_and_in_the_text_only_what_cannot_be_named_by_file(made: AlertmanagerConfig) -> None:
    for secret in SECRETS.values():
        assert secret not in repr(made)
    assert {name for name, secret in SECRETS.items() if secret in made.text} == {"discord_url", "webhook_url"}


def routed(config: AlertmanagerConfig, folder: Path, **labels: str) -> set[str]:
    """Who is told, as amtool finds."""
    file = folder / "alertmanager.yml"
    file.write_text(config.text, encoding="utf-8")
    said = amtool("config", "routes", "test", f"--config.file={file}", *(f"{name}={value}" for name, value in labels.items()))
    assert said.returncode == 0, said.stderr
    return set(said.stdout.strip().split(","))


@needed
@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({"severity": "critical", "category": "carbon"}, {"slack", "email", "pagerduty", "discord", "webhook"}),
        ({"severity": "warning", "category": "gpu"}, {"slack", "email", "discord", "webhook"}),
        ({"severity": "info", "category": "energy"}, {"slack", "webhook"}),
        ({"category": "carbon"}, {"slack", "email", "discord", "webhook"}),  # a rule whose author forgot the severity: a warning
        ({"severity": "page"}, {"slack", "email", "discord", "webhook"}),  # and one with a severity of its own
    ],
)
def test_severities_go_to_the_channels_that_want_them(
    made: AlertmanagerConfig, tmp_path: Path, labels: dict[str, str], told: set[str]
) -> None:
    assert routed(made, tmp_path, alertname="X", **labels) == told


@needed
def test_a_channel_may_want_some_categories_only(tmp_path: Path) -> None:
    channels = settings(slack={"categories": ["carbon", "cost"]}, webhook={"severities": ["critical"]})
    config = alertmanager_config(channels, kept(tmp_path / "secrets", "discord_url", "pagerduty_key"), "/am")
    assert routed(config, tmp_path, severity="info", category="cost") == {"slack"}
    assert routed(config, tmp_path, severity="info", category="gpu") == {"nobody"}
    assert routed(config, tmp_path, severity="critical", category="gpu") == {"webhook"}


def test_groups_wait_and_repeat_as_their_severity_says(made: AlertmanagerConfig, tmp_path: Path) -> None:
    (tmp_path / "made.yml").write_text(made.text, encoding="utf-8")
    route = documents.read(tmp_path / "made.yml")["route"]
    assert route["group_by"] == ["alertname", "project_name"]
    assert [(one["group_wait"], one["group_interval"], one["repeat_interval"]) for one in route["routes"]] == [
        ("10s", "1m", "1h"),
        ("30s", "5m", "4h"),
        ("5m", "30m", "24h"),
    ]


def test_every_channel_is_told_what_is_over(made: AlertmanagerConfig, tmp_path: Path) -> None:
    (tmp_path / "made.yml").write_text(made.text, encoding="utf-8")
    told = [receiver for receiver in documents.read(tmp_path / "made.yml")["receivers"] if receiver["name"] != "nobody"]
    assert [receiver[f"{receiver['name']}_configs"][0]["send_resolved"] for receiver in told] == [True] * 5


def test_every_alert_of_an_inhibition_exists_and_silences_no_graver_one() -> None:
    severities = {alert.name: ("critical", "warning", "info").index(alert.severity) for alert in all_alerts(THRESHOLDS)}
    for rule in INHIBITIONS:
        for target in rule.targets:
            assert severities[rule.source] < severities[target], f"{rule.source} silences {target}"


def test_labels_of_an_inhibition_are_those_that_rules_speak_of() -> None:
    texts = {alert.name: alert.expr for alert in all_alerts(THRESHOLDS)}
    for rule in INHIBITIONS:
        for label in set(rule.equal) - {"job", "instance"}:  # Which every scraped series has.
            assert label in texts[rule.source], f"{rule.source} has no {label}"


def test_categories_of_channels_are_those_of_the_rules() -> None:
    assert get_args(Category) == tuple(categories())


@pytest.mark.parametrize(
    ("line", "instead", "said"),
    [
        ("  to: []", "  to: [alice]", r"email\.to"),
        ('  smarthost: ""', "  smarthost: mail.example.org", r"email\.smarthost"),
        ("  grafana: http://localhost:3000", "  grafana: localhost:3000", r"links\.grafana"),
        ("  severities: [critical]", "  severities: [grave]", r"pagerduty\.severities\.0"),
        ("  info: {group_wait: 5m,", "  debug: {group_wait: 5m,", r"timing\.debug"),
        ("  info: {group_wait: 5m,", "  # info: {group_wait: 5m,", "how often info alerts are told"),
        ("  warning: {group_wait: 30s,", "  warning: {group_wait: 30,", r"timing\.warning\.group_wait"),
    ],
)
def test_a_wrong_line_is_an_error_that_names_it(tmp_path: Path, line: str, instead: str, said: str) -> None:
    text = (ROOT / "alerting" / "channels.yml").read_text(encoding="utf-8")
    assert line in text
    (tmp_path / "channels.yml").write_text(text.replace(line, instead, 1), encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        Channels.read(tmp_path / "channels.yml")


def test_a_slash_behind_grafanas_address_is_not_doubled_in_links_and_one_recipient_needs_no_list() -> None:
    channels = settings(links={"grafana": "https://grafana.example.org/"}, email={"to": "alice@example.org"})
    assert channels.links.grafana == "https://grafana.example.org"
    assert channels.email.to == ("alice@example.org",)


WORDS = {"project_name": "project", "run_id": "run", "gpu_id": "GPU"}


def test_the_docs_say_what_silences_what() -> None:
    page = (ROOT / "docs" / "alerting.md").read_text(encoding="utf-8")
    for rule in INHIBITIONS:
        equal = ", ".join(WORDS.get(label, label) for label in rule.equal)
        assert f"| {rule.source} | {', '.join(rule.targets)} | {equal} |" in page


def test_the_docs_say_who_is_told_by_the_shipped_file() -> None:
    page = (ROOT / "docs" / "alerting.md").read_text(encoding="utf-8")
    shipped = Channels.read(ROOT / "alerting" / "channels.yml")
    for severity in SEVERITIES:
        (row,) = re.findall(rf"^\| `{severity}` \|.*$", page, re.MULTILINE)
        cells = [cell.strip() for cell in row.split("|")[3:-1]]
        told = [
            severity in channel.severities
            for channel in (shipped.slack, shipped.email, shipped.pagerduty, shipped.discord, shipped.webhook)
        ]
        assert [cell == "x" for cell in cells[:5]] == told
        timing = shipped.timing[severity]
        spoken = [cell.replace(" min", "m").replace(" ", "") for cell in cells[5:]]
        assert spoken == [timing.group_wait, timing.group_interval, timing.repeat_interval]
