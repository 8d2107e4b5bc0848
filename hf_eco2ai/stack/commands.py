"""`hf-eco2ai stack`: what sets the monitoring stack up, checks it, and renders it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hf_eco2ai.errors import ConfigError
from hf_eco2ai.stack.native_commands import down, status, up

if TYPE_CHECKING:
    from hf_eco2ai.stack.initial import Readers
    from hf_eco2ai.stack.secrets import Secrets

_PATH = click.Path(readable=False, path_type=Path)
_DIR = click.option("--dir", "folder", type=_PATH, help="The stack's files, if not those here or those that come with hf-eco2ai.")

_FLAGS = {
    "slack_url": "--slack-url-file",
    "pagerduty_key": "--pagerduty-key-file",
    "smtp_password": "--smtp-password-file",
    "discord_url": "--discord-url-file",
    "webhook_url": "--webhook-url-file",
    "grafana_admin_password": "--grafana-password-file",
}

IN_CONTAINERS = "docker compose up -d && docker compose kill -s SIGHUP prometheus alertmanager"
"""Brings a change into force, also where servers run already: `up` alone leaves them with the files that they have read."""


@click.group()
def stack() -> None:
    """Prometheus, Alertmanager and Grafana around the exporter: in containers, or without."""


@stack.command()
@click.option("--dir", "folder", type=_PATH, help="Make the stack's folder there, or go on with the one that is there.")
@click.option(_FLAGS["slack_url"], "slack_url", metavar="FILE", help="URL of Slack's incoming webhook; -: from stdin.")
@click.option(_FLAGS["pagerduty_key"], "pagerduty_key", metavar="FILE", help="Key of PagerDuty's integration; -: from stdin.")
@click.option(_FLAGS["smtp_password"], "smtp_password", metavar="FILE", help="Password of the mail server; -: from stdin.")
@click.option(_FLAGS["discord_url"], "discord_url", metavar="FILE", help="URL of Discord's webhook; -: from stdin.")
@click.option(_FLAGS["webhook_url"], "webhook_url", metavar="FILE", help="URL that takes Alertmanager's JSON; -: from stdin.")
@click.option(
    _FLAGS["grafana_admin_password"],
    "grafana_admin_password",
    metavar="FILE",
    help="Password of Grafana's admin, if it is not to be made at the first start; -: from stdin.",
)
@click.option("--replace", is_flag=True, help="Put them in place of others that are there.")
@click.option("--runs-dir", type=_PATH, help="The folder of journals, if not the one that the settings say.")
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    type=click.Choice(["gpu", "longterm", "demo"]),
    help="Of docker-compose.yml, to be on always.",
)
@click.option("--yes", is_flag=True, help="Ask nothing. Nothing is asked without a terminal either.")
def init(
    *, folder: Path | None, replace: bool, runs_dir: Path | None, profiles: tuple[str, ...], yes: bool, **sources: str | None
) -> None:
    """Set up the stack's folder: secrets for the channels that alerts go to, and whose runs are shown.

    What is not given is asked; Enter leaves it out. Secrets go to files in secrets/ that only you may read, never into git.
    """
    from hf_eco2ai.stack import initial  # noqa: PLC0415 - `--help` need not wait for it
    from hf_eco2ai.stack.secrets import Secrets  # noqa: PLC0415

    if list(sources.values()).count("-") > 1:
        raise click.UsageError("only one secret can come from stdin")
    place = _made(folder)
    secrets = Secrets(place / "secrets")
    for name, source in sources.items():
        if source is not None:
            given = initial.read_secret(name, source, sys.stdin)
            _say(secrets, name, new=initial.take(secrets, name, given, replace=replace))
    if sys.stdin.isatty() and not yes:
        for name in (name for name, source in sources.items() if source is None and secrets.get(name) is None):
            _ask(secrets, name)
    readers = initial.readers(place, runs_dir)
    initial.remember(place, readers, profiles)
    _say_next(place, readers)


def _made(folder: Path | None) -> Path:
    from hf_eco2ai.stack.files import stack_folder  # noqa: PLC0415 - as above
    from hf_eco2ai.stack.initial import new_folder, writable  # noqa: PLC0415

    place = stack_folder(folder)
    if folder is not None and (made := new_folder(place)):
        click.echo(f"{len(made)} files of the stack in {place}; those that were there are as they were.")
    return writable(place)


def _ask(secrets: "Secrets", name: str) -> None:
    from hf_eco2ai.stack.initial import TITLES, take  # noqa: PLC0415 - as above

    without = "one is made at the first start" if name == "grafana_admin_password" else "none"
    while given := click.prompt(
        f"The {TITLES[name]} (not shown; Enter: {without})", default="", show_default=False, hide_input=True
    ):
        try:
            _say(secrets, name, new=take(secrets, name, given.strip(), replace=False))
        except ConfigError as error:
            click.echo(f"hf-eco2ai: {error}", err=True)
        else:
            return


def _say(secrets: "Secrets", name: str, *, new: bool) -> None:
    from hf_eco2ai.stack.initial import TITLES  # noqa: PLC0415 - as above

    click.echo(f"The {TITLES[name]} {'is now' if new else 'was already'} in {secrets.path(name)}.")


def _say_next(place: Path, readers: "Readers") -> None:
    click.echo(f"{place / '.env'}: runs in {readers.runs}, read as user {readers.uid} and group {readers.gid}.")
    if readers.uid == 0:
        click.echo("They are root's, so the exporter is root in its container too, without any capability.")
    where = "" if place == Path.cwd() else f"cd {place} && "
    click.echo(f"Next: {where}hf-eco2ai stack check, then `{IN_CONTAINERS}`; without containers `hf-eco2ai stack up --native`.")


@stack.command()
@_DIR
@click.option("--strict", is_flag=True, help="Exit code 1 for warnings too, as for a channel without its secret.")
def check(*, folder: Path | None, strict: bool) -> None:
    """Check all that can be checked before `up`. Exit code 1 where something would fail."""
    from hf_eco2ai.stack.checks import check as look  # noqa: PLC0415 - as above
    from hf_eco2ai.stack.files import stack_folder  # noqa: PLC0415

    findings = look(stack_folder(folder))
    for finding in findings:
        click.echo(f"{finding.level:<8} {finding.text}")
    levels = {finding.level for finding in findings}
    sys.exit(1 if "problem" in levels or (strict and "warning" in levels) else 0)


@stack.command()
@_DIR
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Another threshold: it is put into thresholds.yml.")
def rules(*, folder: Path | None, settings: tuple[str, ...]) -> None:
    """Make rules and dashboards anew, with the thresholds and links that alerting/ has now."""
    from hf_eco2ai.stack.files import stack_folder  # noqa: PLC0415 - as above
    from hf_eco2ai.stack.generated import regenerate  # noqa: PLC0415
    from hf_eco2ai.stack.initial import writable  # noqa: PLC0415

    place = writable(stack_folder(folder))
    changed = regenerate(place, settings)
    for path in changed:
        click.echo(f"changed  {path.relative_to(place)}")
    if changed:
        click.echo(f"In force with `{IN_CONTAINERS}`,")
        click.echo("or, without containers, with `hf-eco2ai stack up --native`.")
    else:
        click.echo("Nothing to change.")


@stack.command()
@_DIR
@click.option("--out", required=True, type=_PATH, help="Folder for what the servers read.")
@click.option("--long-term", metavar="URL", help="Prometheus sends all samples there too (remote_write).")
@click.option("--grafana-url", default="", metavar="URL", help="Where links in alerts lead, if not where channels.yml says.")
@click.option("--parts", type=_PATH, help="Folder in which services of profiles say that they are on.")
@click.option(
    "--runs-dir", "runs_dirs", multiple=True, type=_PATH, help="A folder of journals, to be given to --runs-owner if it is new."
)
@click.option("--runs-owner", metavar="UID:GID", help="User and group who write journals.")
def render(
    *,
    folder: Path | None,
    out: Path,
    long_term: str | None,
    grafana_url: str,
    parts: Path | None,
    runs_dirs: tuple[Path, ...],
    runs_owner: str | None,
) -> None:
    """Write what the servers in containers read. Compose's init service runs it at every start."""
    from dataclasses import replace  # noqa: PLC0415 - as above

    from hf_eco2ai.stack.containers import give_new_folder, render_parts  # noqa: PLC0415
    from hf_eco2ai.stack.files import stack_folder  # noqa: PLC0415
    from hf_eco2ai.stack.render import CONTAINERS  # noqa: PLC0415

    place = replace(CONTAINERS, grafana_url=grafana_url.rstrip("/") or None, long_term=long_term)
    try:
        for runs in runs_dirs:
            give_new_folder(runs, runs_owner or "")
        rendered = render_parts(stack_folder(folder), out, place, parts)
    except OSError as error:
        raise ConfigError(f"{error.filename or out} cannot be written: {error.strerror}") from error
    for warning in rendered.warnings:
        click.echo(f"hf-eco2ai: {warning}", err=True)
    if rendered.grafana_password is not None:
        click.echo(f"Grafana's user is admin, its password {rendered.grafana_password} (it is not said again)")


for _command in (up, status, down):
    stack.add_command(_command)
