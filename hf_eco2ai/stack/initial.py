"""`hf-eco2ai stack init`: a stack folder that is ready for `docker compose up`, or for `stack up --native`."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from hf_eco2ai.config import CarbonConfig
from hf_eco2ai.errors import ConfigError
from hf_eco2ai.journal.folder import runs_folder
from hf_eco2ai.journal.write import make_folder
from hf_eco2ai.stack import compose, shapes
from hf_eco2ai.stack.files import bundled, is_installed, is_stack
from hf_eco2ai.stack.secrets import Secrets

COPIED = (
    ".dockerignore",
    ".gitignore",
    "Dockerfile",
    "LICENSE",
    "README.md",
    "alerting",
    "dashboards",
    "docker-compose.yml",
    "examples/train_tiny_gpt2.py",
    "prometheus",
    "pyproject.toml",
    "secrets/.gitignore",
    "secrets/README.md",
)
"""What the wheel brings along, so that a stack folder can be made of it. With the package itself the image can be built there."""

_PACKAGE = Path(__file__).parents[1]

TITLES = {
    "slack_url": "URL of Slack's incoming webhook",
    "pagerduty_key": "key of PagerDuty's integration (Events API v2)",
    "smtp_password": "password of the mail server",
    "discord_url": "URL of Discord's webhook",
    "webhook_url": "URL that takes Alertmanager's JSON",
    "grafana_admin_password": "password of Grafana's admin",
}
"""Secrets in words, in the order in which they are asked."""


@dataclass(frozen=True)
class Readers:
    """Who may read the runs folder: its owner and its group."""

    runs: Path
    uid: int
    gid: int


def new_folder(folder: Path) -> list[Path]:
    """Copy the stack's files to where they are not yet. Returns the files that were made; what was there is as it was.

    Raises:
        ConfigError: they cannot be written.

    """
    made: list[Path] = []
    try:
        for name in COPIED:
            _copy(bundled() / name, folder / name, made)
        _copy(_PACKAGE, folder / "hf_eco2ai", made)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}") from error
    return made


def _copy(source: Path, target: Path, made: list[Path]) -> None:
    if source.name == "__pycache__" or source == _PACKAGE / "stack" / "files":
        return
    if source.is_dir():
        for child in sorted(source.iterdir()):
            _copy(child, target / child.name, made)
    elif not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        made.append(target)


def writable(folder: Path) -> Path:
    """A stack folder that is not the one within an installation.

    Raises:
        ConfigError: it is that one, or none at all.

    """
    if not is_stack(folder):
        raise ConfigError(f"{folder} has no stack in it: `hf-eco2ai stack init --dir FOLDER` makes one")
    if is_installed(folder):
        raise ConfigError("say where with --dir FOLDER: the files that came with hf-eco2ai are replaced by the next update")
    return folder


def read_secret(name: str, source: str, stdin: TextIO) -> str:
    """From a file, or from stdin where that is `-`.

    Raises:
        ConfigError: it cannot be read.

    """
    try:
        text = stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not plain text"
        raise ConfigError(f"the {TITLES[name]} cannot be read from {source}: {reason}") from None
    return text.strip()


def take(secrets: Secrets, name: str, secret: str, *, replace: bool) -> bool:
    """Keep a secret. Whether it was not known before.

    Raises:
        ConfigError: it is none, or there is another one that is not to be replaced.

    """
    if (wrong := shapes.problem(name, secret)) is not None:
        raise ConfigError(f"the {TITLES[name]} {wrong}")
    there = secrets.get(name)
    if there == secret:
        return False
    if there is not None and not replace:
        raise ConfigError(f"{secrets.path(name)} is there already, and another one: say --replace to put this in its place")
    try:
        secrets.put(name, secret)
    except OSError as error:
        raise ConfigError(f"{secrets.path(name)} cannot be written: {error.strerror}") from error
    return True


def readers(folder: Path, named: Path | None) -> Readers:
    """The runs folder as named, else as .env has it, else where journals of this user go; it is made where it is missing.

    Raises:
        ConfigError: it cannot be made, or Compose could not mount it.

    """
    said = compose.read_environment(folder).get("HF_ECO2AI_RUNS_DIR", "")
    try:
        runs = runs_folder(named or (Path(said) if "/" in said else CarbonConfig().runs_dir)).absolute()
        make_folder(runs)
        status = runs.stat()
    except OSError as error:
        raise ConfigError(f"the runs folder cannot be had ({error.strerror}): say which with --runs-dir") from error
    if ":" in str(runs):
        raise ConfigError(f"Compose cannot mount {runs}, since it has a colon in it: choose another with --runs-dir")
    return Readers(runs, status.st_uid, status.st_gid)


def remember(folder: Path, chosen: Readers, profiles: Sequence[str]) -> None:
    """Put it into .env. Profiles only where some are said: those that are there stay otherwise.

    Raises:
        ConfigError: it cannot be written.

    """
    values = {"HF_ECO2AI_RUNS_DIR": str(chosen.runs), "STACK_UID": str(chosen.uid), "STACK_GID": str(chosen.gid)}
    compose.write_environment(folder, values | ({"COMPOSE_PROFILES": ",".join(profiles)} if profiles else {}))
