"""`hf-eco2ai stack init`: secrets that nobody else sees, .env, and a stack folder for whoever has no checkout."""

import os
import pty
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hf_eco2ai.cli import cli
from hf_eco2ai.errors import ConfigError
from hf_eco2ai.stack.commands import IN_CONTAINERS
from hf_eco2ai.stack.compose import read_environment
from hf_eco2ai.stack.files import is_stack
from hf_eco2ai.stack.initial import COPIED, writable
from hf_eco2ai.stack.secrets import NAMES
from hf_eco2ai.stack.shapes import problem
from tests.daemon.process import ROOT
from tests.stack.compose import compose, config

GOOD = {
    "slack_url": "https://hooks.slack.com/services/T000/B000/XXXXsecretXXXX",
    "pagerduty_key": "0123456789abcdefSECRET0123456789",
    "smtp_password": "s3cret with spaces",
    "discord_url": "https://discord.com/api/webhooks/123456789/a-secret_token",
    "webhook_url": "http://127.0.0.1:5001/hook?token=secret",
    "grafana_admin_password": "long-enough-secret",
}
FLAGS = {
    "slack_url": "--slack-url-file",
    "pagerduty_key": "--pagerduty-key-file",
    "smtp_password": "--smtp-password-file",
    "discord_url": "--discord-url-file",
    "webhook_url": "--webhook-url-file",
    "grafana_admin_password": "--grafana-password-file",
}
WRONG = {
    "slack_url": [
        "",
        "hooks.slack.com/services/x",
        "http://hooks.slack.com/services/x",
        "https://hooks.slack.com",
        "https://h/a b",
    ],
    "pagerduty_key": ["", "R0UTINGKEY", "0123456789abcdefSECRET01234567890", "0123456789abcdef-SECRET-12345678"],
    "smtp_password": ["", "two\nlines"],
    "discord_url": ["", "https://discord.com/channels/1/2", "http://discord.com/api/webhooks/1/a"],
    "webhook_url": ["", "example.com/hook", "ftp://example.com", "http://:0/"],
    "grafana_admin_password": ["", "adm1n", "7 chars"],
}


def run(folder: Path, *arguments: str, stdin: str = "") -> Result:
    """As without a terminal, and never into the runs folder of who tests."""
    command = ["init", "--dir", str(folder), "--runs-dir", str(folder.parent / "runs"), *arguments]
    return CliRunner().invoke(cli, ["stack", *command], input=stdin)


def well(result: Result) -> str:
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def refused(result: Result) -> str:
    assert isinstance(result.exception, ConfigError), result.output
    return result.output + str(result.exception)


def written(tmp_path: Path, secret: str) -> str:
    path = tmp_path / "given"
    path.write_text(f"{secret}\n")
    return str(path)


@pytest.mark.parametrize("name", NAMES)
def test_a_secret_from_a_file_goes_to_a_file_that_only_its_owner_may_read_and_nowhere_else(name: str, tmp_path: Path) -> None:
    output = well(run(tmp_path / "stack", FLAGS[name], written(tmp_path, GOOD[name])))
    path = tmp_path / "stack" / "secrets" / name
    assert path.read_text() == f"{GOOD[name]}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert GOOD[name] not in output
    others = [other for other in (tmp_path / "stack").rglob("*") if other.is_file() and other != path]
    assert not any(GOOD[name].encode() in other.read_bytes() for other in others)


def test_a_secret_may_come_from_stdin_but_only_one(tmp_path: Path) -> None:
    well(run(tmp_path / "stack", "--slack-url-file", "-", stdin=GOOD["slack_url"] + "\n"))
    assert (tmp_path / "stack" / "secrets" / "slack_url").read_text() == GOOD["slack_url"] + "\n"
    both = run(tmp_path / "stack", "--slack-url-file", "-", "--webhook-url-file", "-", stdin="x")
    assert (both.exit_code, "only one secret can come from stdin" in both.output) == (2, True)


@pytest.mark.parametrize(("name", "secret"), [(name, secret) for name, secrets in WRONG.items() for secret in secrets])
def test_what_is_no_such_secret_is_refused_without_being_repeated(name: str, secret: str, tmp_path: Path) -> None:
    said = refused(run(tmp_path / "stack", FLAGS[name], written(tmp_path, secret)))
    assert not secret or secret not in said.replace("https://hooks.slack.com/services/…", "")
    assert not (tmp_path / "stack" / "secrets" / name).exists()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_such_a_secret_is_taken(name: str) -> None:
    assert problem(name, GOOD[name]) is None


def test_another_secret_is_replaced_only_by_who_says_so(tmp_path: Path) -> None:
    first, second = GOOD["slack_url"], GOOD["slack_url"] + "2"
    kept = tmp_path / "stack" / "secrets" / "slack_url"
    well(run(tmp_path / "stack", "--slack-url-file", written(tmp_path, first)))
    assert "was already" in well(run(tmp_path / "stack", "--slack-url-file", written(tmp_path, first)))
    said = refused(run(tmp_path / "stack", "--slack-url-file", written(tmp_path, second)))
    assert "--replace" in said
    assert first not in said
    assert second not in said
    assert kept.read_text().strip() == first
    well(run(tmp_path / "stack", "--replace", "--slack-url-file", written(tmp_path, second)))
    assert kept.read_text().strip() == second


def test_a_file_that_is_not_there_is_said_by_its_name(tmp_path: Path) -> None:
    said = refused(run(tmp_path / "stack", "--smtp-password-file", str(tmp_path / "nothing")))
    assert f"the password of the mail server cannot be read from {tmp_path / 'nothing'}: No such file or directory" in said


def test_a_folder_is_made_that_compose_takes_with_who_may_read_the_runs(tmp_path: Path) -> None:
    folder, runs = tmp_path / "my stack", tmp_path / "my $runs"
    well(CliRunner().invoke(cli, ["stack", "init", "--dir", str(folder), "--runs-dir", str(runs), "--profile", "gpu"]))
    assert is_stack(folder)
    status = runs.stat()
    assert read_environment(folder) == {
        "HF_ECO2AI_RUNS_DIR": str(runs),
        "STACK_UID": str(status.st_uid),
        "STACK_GID": str(status.st_gid),
        "COMPOSE_PROFILES": "gpu",
    }
    done = compose(folder, "config", "--format", "json")
    assert done.returncode == 0, done.stderr
    services = config(folder, ("gpu",))["services"]
    assert services["exporter"]["user"] == f"{status.st_uid}:{status.st_gid}"
    assert [volume["source"].replace("$$", "$") for volume in services["exporter"]["volumes"]] == [str(runs)]
    assert "dcgm-exporter" in done.stdout


def test_the_group_of_a_folder_that_is_set_up_for_one_may_read_it(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    if os.geteuid() == 0:
        os.chown(runs, 4321, 1234)
    runs.chmod(0o2770)
    well(run(tmp_path / "stack"))
    found = read_environment(tmp_path / "stack")
    assert (found["STACK_UID"], found["STACK_GID"]) == (str(runs.stat().st_uid), str(runs.stat().st_gid))


def test_a_second_init_leaves_edits_and_other_lines_of_env_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "stack"
    well(run(folder))
    (folder / "alerting" / "channels.yml").write_text("mine")
    environment = folder / ".env"
    environment.write_text("# mine\nGRAFANA_PORT=3001\nexport STACK_UID=77 # mine too\nCOMPOSE_PROFILES='longterm'\n")
    well(run(folder))
    assert (folder / "alerting" / "channels.yml").read_text() == "mine"
    status = (tmp_path / "runs").stat()
    assert environment.read_text().splitlines() == [
        "# mine",
        "GRAFANA_PORT=3001",
        f"STACK_UID={status.st_uid}",
        "COMPOSE_PROFILES='longterm'",
        f"HF_ECO2AI_RUNS_DIR={tmp_path / 'runs'}",
        f"STACK_GID={status.st_gid}",
    ]


def test_a_runs_folder_that_compose_could_not_mount_is_refused(tmp_path: Path) -> None:
    command = ["init", "--dir", str(tmp_path / "stack"), "--runs-dir", str(tmp_path / "a:b")]
    assert "has a colon in it" in refused(CliRunner().invoke(cli, ["stack", *command]))


def test_only_a_stack_folder_is_written_to(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no stack in it: `hf-eco2ai stack init --dir FOLDER` makes one"):
        writable(tmp_path)


def test_what_is_copied_is_what_the_wheel_brings_along() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (section,) = re.findall(r"\[tool\.hatch\.build\.targets\.wheel\.force-include\]\n(.*?)\n\n", text, re.DOTALL)
    assert dict(re.findall(r'"(.+)" = "(.+)"', section)) == {name: f"hf_eco2ai/stack/files/{name}" for name in COPIED}


def test_git_ignores_secrets_and_env_in_a_folder_that_init_has_made_and_nothing_that_is_to_be_committed(tmp_path: Path) -> None:
    folder = tmp_path / "stack"
    well(run(folder))
    subprocess.run(["git", "init", "-q", folder], check=True)
    local = [*(f"secrets/{name}" for name in NAMES), "secrets/.slack_url.new", ".env"]
    asked = [*local, "alerting/thresholds.yml", "alerting/channels.yml", "docker-compose.yml", "secrets/README.md"]
    done = subprocess.run(["git", "-C", folder, "check-ignore", *asked], capture_output=True, text=True, check=False)
    assert done.stdout.split() == local


def test_what_init_says_next_also_reaches_servers_that_run_already(tmp_path: Path) -> None:
    assert "`docker compose up -d && docker compose kill -s SIGHUP prometheus alertmanager`" in well(run(tmp_path / "stack"))


@pytest.mark.parametrize("page", ["README.md", "docs/stack.md", "docs/alerting.md", "docs/runbooks/README.md"])
def test_the_docs_name_one_way_to_bring_a_change_into_force(page: str) -> None:
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    assert IN_CONTAINERS in text
    assert "--force-recreate" not in text


def test_on_a_terminal_it_asks_for_each_secret_and_shows_none(tmp_path: Path) -> None:
    """A wrong one is said and asked for again; Enter leaves one out."""
    typed = ["not a URL", GOOD["slack_url"], "", "", "", "", GOOD["grafana_admin_password"]]
    command = ["init", "--dir", str(tmp_path / "stack"), "--runs-dir", str(tmp_path / "runs")]
    shown = terminal([*command], typed)
    secrets = tmp_path / "stack" / "secrets"
    assert {path.name for path in secrets.iterdir()} - {"README.md", ".gitignore"} == {"slack_url", "grafana_admin_password"}
    assert (secrets / "slack_url").read_text().strip() == GOOD["slack_url"]
    assert "should be the URL of an incoming webhook" in shown
    assert "incoming webhook (not shown; Enter: none): " in shown
    assert not any(secret in shown for secret in typed if secret)


def terminal(arguments: list[str], typed: list[str]) -> str:
    """What a terminal shows, on which one answer is typed for each question."""
    ours, theirs = pty.openpty()
    code = "from hf_eco2ai.stack.commands import stack; stack()"
    command = ["setsid", "--ctty", "--wait", sys.executable, "-c", code, *arguments]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT) as process:
        os.close(theirs)
        shown, answers = "", list(typed)
        while part := _read(ours):
            shown += part
            if shown.endswith("): ") and answers:
                os.write(ours, f"{answers.pop(0)}\n".encode())
        process.wait(60)
    os.close(ours)
    assert (process.returncode, answers) == (0, []), shown
    return shown


def _read(descriptor: int) -> str:
    try:
        return os.read(descriptor, 1 << 16).decode()
    except OSError:  # EIO: all who had the terminal have ended.
        return ""
