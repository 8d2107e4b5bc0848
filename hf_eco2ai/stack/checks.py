"""`hf-eco2ai stack check`: all that can be known before `up`."""

import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from hf_eco2ai.errors import ConfigError
from hf_eco2ai.stack import compose, generated, shapes
from hf_eco2ai.stack.alertmanager import alertmanager_config
from hf_eco2ai.stack.channels import Channels
from hf_eco2ai.stack.files import PARTS
from hf_eco2ai.stack.ports import is_free
from hf_eco2ai.stack.render import CONTAINERS, render
from hf_eco2ai.stack.secrets import NAMES, Secrets

Level = Literal["ok", "warning", "problem"]
Which = Callable[[str], str | None]

OLDEST_COMPOSE = (2, 20)
"""Has `required` in depends_on (2.20.0, as Compose's documentation says)."""

TOOL_SECONDS = 60.0
"""So long may a program take that checks a file; each takes less than one."""

_URLS = {"slack_url", "discord_url", "webhook_url"}

ENV, INIT = compose.ENVIRONMENT, "`hf-eco2ai stack init`"


@dataclass(frozen=True)
class Finding:
    """One sentence, and how bad it is. With a problem `up` would fail, or not do what the files say."""

    level: Level
    text: str


def check(folder: Path, which: Which = shutil.which) -> list[Finding]:
    """Look at everything. What cannot be read is a finding, not an error."""
    missing = [name for name in PARTS if not (folder / name).exists()]
    if missing:
        return [Finding("problem", f"{folder} lacks {', '.join(missing)}: `hf-eco2ai stack init --dir {folder}` puts them there")]
    found: list[Finding] = []
    for part in (
        partial(_secrets, folder),
        partial(_channels, folder),
        partial(_generated, folder),
        partial(_servers_files, folder, which),
        partial(_mounts, folder),
        partial(_compose, folder, which),
        partial(_runs, folder),
        partial(_ports, folder),
    ):
        try:
            found += part()
        except ConfigError as error:
            found.append(Finding("problem", str(error)))
    return list(dict.fromkeys(found))


def _secrets(folder: Path) -> Iterator[Finding]:
    secrets = Secrets(folder / "secrets")
    for path in secrets.exposed():
        yield Finding("problem", f"{path} may be read by others than its owner: chmod 600 {path}")
    there = {name: secret for name in NAMES if (secret := secrets.get(name)) is not None}
    for name, secret in there.items():
        if (wrong := shapes.problem(name, secret)) is not None:
            yield Finding("problem", f"{secrets.path(name)} {wrong}")
    yield Finding("ok", f"secrets: {', '.join(there) or 'none'}")


def _channels(folder: Path) -> Iterator[Finding]:
    channels = Channels.read(folder / "alerting" / "channels.yml")
    for warning in alertmanager_config(channels, Secrets(folder / "secrets"), "").warnings:
        yield Finding("warning", warning)
    yield Finding("ok", "alerting/channels.yml")


def _generated(folder: Path) -> Iterator[Finding]:
    old = [str(path.relative_to(folder)) for path in generated.outdated(folder)]
    if old:
        yield Finding("problem", f"{', '.join(old)}: not what thresholds and channels say; run `hf-eco2ai stack rules`")
    else:
        yield Finding("ok", "alerting/thresholds.yml, rules and dashboards")


def _servers_files(folder: Path, which: Which) -> Iterator[Finding]:
    """As they would be rendered, with stand-ins for secrets, so that none leaves its folder."""
    with TemporaryDirectory(prefix="hf-eco2ai-") as made:
        out = Path(made) / "out"
        stack = _with_stand_ins(folder, Path(made) / "stack")
        try:
            render(stack, out, replace(CONTAINERS, owners={}, alertmanager_folder=str(out / "alertmanager")))
        except OSError as error:
            raise ConfigError(f"{folder} cannot be rendered: {error}") from error
        prometheus, alertmanager = out / "prometheus" / "prometheus.yml", out / "alertmanager" / "alertmanager.yml"
        yield from _tool(which, "promtool", "check", "config", str(prometheus), named="prometheus/prometheus.yml and rules")
        yield from _tool(which, "amtool", "check-config", str(alertmanager), named="Alertmanager's configuration")


def _with_stand_ins(folder: Path, stack: Path) -> Path:
    secrets = Secrets(stack / "secrets")
    for part in ("prometheus", "alerting", "dashboards"):
        stack.mkdir(exist_ok=True)
        (stack / part).symlink_to(folder.absolute() / part)
    for name in NAMES:
        if Secrets(folder / "secrets").get(name) is not None:
            secrets.put(name, "https://example.com/api/webhooks/0/a" if name in _URLS else "0" * 32)
    return stack


def _tool(which: Which, name: str, *arguments: str, named: str) -> Iterator[Finding]:
    program = which(name)
    if program is None:
        yield Finding("ok", f"{named} (not looked at by {name}, which is not on PATH)")
    else:
        yield _said(_run(program, *arguments), named, name)


def _said(complaint: str | None, named: str, by: str) -> Finding:
    return Finding("ok", f"{named}, says {by}") if complaint is None else Finding("problem", f"{named}: {by} says: {complaint}")


def _run(*argv: str) -> str | None:
    """What it complains of, in one line; None where it does not."""
    done = _done(argv)
    if done is None:
        return "it cannot be run"
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in (done.stderr + "\n" + done.stdout).splitlines()]
    return " ".join([line for line in lines if re.search("error|FAILED|invalid|undefined", line)] or filter(None, lines))


def _done(argv: Sequence[str]) -> "subprocess.CompletedProcess[str] | None":
    try:
        return subprocess.run(  # noqa: S603 - programs that were found on PATH
            argv, capture_output=True, text=True, check=False, timeout=TOOL_SECONDS, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def _mounts(folder: Path) -> Iterator[Finding]:
    mounted = list(compose.mounted(compose.read(folder)))
    for path in mounted:
        if not (folder / path).exists():
            yield Finding("problem", f"{folder / path} is not there, and {compose.FILE} mounts it")
    yield Finding("ok", f"{compose.FILE} and what it mounts")


def _compose(folder: Path, which: Which) -> Iterator[Finding]:
    found = _compose_command(which)
    if found is None:
        yield Finding("ok", f"{compose.FILE} (not looked at by Docker Compose, which is not on PATH)")
        return
    command, version = found
    if version < OLDEST_COMPOSE:
        has, needs = (".".join(map(str, numbers)) for numbers in (version, OLDEST_COMPOSE))
        yield Finding("problem", f"Docker Compose is {has}, and {compose.FILE} needs {needs} or newer")
    where = ("--project-directory", str(folder), "--file", str(folder / compose.FILE))
    yield _said(_run(*command, *where, "config", "--quiet"), compose.FILE, "Docker Compose")


def _compose_command(which: Which) -> tuple[tuple[str, ...], tuple[int, int]] | None:
    """It and its version: Docker's plugin, or the program that stands alone."""
    for name, *more in (("docker", "compose"), ("docker-compose",)):
        program = which(name)
        done = None if program is None else _done([program, *more, "version", "--short"])
        if program is not None and done is not None and (found := re.match(r"v?(\d+)\.(\d+)", done.stdout)):
            return (program, *more), (int(found[1]), int(found[2]))
    return None


def _runs(folder: Path) -> Iterator[Finding]:
    environment = compose.read_environment(folder)
    named = environment.get("HF_ECO2AI_RUNS_DIR", "")
    path = folder / named
    if "/" not in named:
        yield Finding("warning", f"containers keep runs in a volume of their own: {INIT} puts the host's folder into {ENV}")
    elif not path.is_dir():
        yield Finding("problem", f"the runs folder {path} is not there: {INIT} makes it, or puts another into {ENV}")
    else:
        yield _readable(path, environment)


def _readable(path: Path, environment: Mapping[str, str]) -> Finding:
    """By the exporter. Journals are for their owner's eyes, and for those of the group where the folder is set up for one."""
    status = path.stat()
    uid, gid = environment.get("STACK_UID", "1000"), environment.get("STACK_GID", "1000")
    shared = bool(status.st_mode & stat.S_ISGID)
    if (gid == str(status.st_gid)) if shared else (uid == str(status.st_uid)):
        return Finding("ok", f"runs in {path}")
    whose = f"STACK_GID={status.st_gid}" if shared else f"STACK_UID={status.st_uid}"
    return Finding("problem", f"the exporter may not read the journals in {path}: put {whose} into {ENV}, or run {INIT}")


def _ports(folder: Path) -> Iterator[Finding]:
    ports = list(compose.ports(compose.read(folder), compose.read_environment(folder)))
    taken = [port for port in ports if not is_free(port.number)]
    for port in taken:
        yield Finding(
            "warning",
            f"port {port.number} of {port.service} is taken; unless that is this stack, put {port.variable}=… into {ENV}",
        )
    if not taken:
        yield Finding("ok", f"ports {', '.join(str(port.number) for port in ports)} are free")
