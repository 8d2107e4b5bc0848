"""From a stack folder to what each server reads. Compose's init service and `stack up` both call it."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

from hf_eco2ai.stack import documents
from hf_eco2ai.stack.alertmanager import alertmanager_config
from hf_eco2ai.stack.channels import Channels
from hf_eco2ai.stack.secrets import Secrets

READABLE, PRIVATE = 0o644, 0o400
_PASSWORD_BYTES = 24
"""Of a random password: 192 bits."""

JOBS = ("hf-eco2ai", "node", "dcgm", "prometheus", "alertmanager")
"""Scrape jobs of prometheus.yml whose addresses are in targets/<job>.json."""


@dataclass(frozen=True)
class Place:
    """What differs between containers and processes of one's own."""

    targets: Mapping[str, Sequence[str]]
    """Job to `host:port`. A job without any has no target."""
    alertmanager_folder: str
    """Where Alertmanager sees what is rendered for it."""
    runs: Path | None = None
    """Runs whose own endpoints Prometheus finds by the target files beside their journals."""
    grafana_url: str | None = None
    """Where Grafana is, if not where channels.yml says."""
    scrape_interval: str | None = None
    """For scrapes and for rules, if not prometheus.yml's."""
    long_term: str | None = None
    """Where Prometheus sends all samples as well: a remote_write URL."""
    owners: Mapping[str, int] = field(default_factory=dict)
    """Server to the uid that it runs as, where that is another than ours."""


CONTAINERS = Place(
    targets={
        "hf-eco2ai": ["exporter:9091"],
        "node": ["node-exporter:9100"],
        "prometheus": ["prometheus:9090"],
        "alertmanager": ["alertmanager:9093"],
    },
    alertmanager_folder="/etc/alertmanager",
    owners={"alertmanager": 65534, "grafana": 472},  # as their images' Dockerfiles say
)


@dataclass(frozen=True)
class Rendered:
    """What the person should be told."""

    warnings: tuple[str, ...]
    grafana_password: str | None = field(repr=False)
    """One that was made just now, since there was none."""


def render(folder: Path, out: Path, place: Place) -> Rendered:
    """Write what the servers read.

    Raises:
        ConfigError: a file of the stack is wrong or a secret cannot be read.
        OSError: the folder cannot be written.

    """
    channels = Channels.read(folder / "alerting" / "channels.yml")
    secrets = Secrets(folder / "secrets")
    _prometheus(folder, out / "prometheus", place, channels)
    warnings = _alertmanager(folder, out / "alertmanager", place, channels, secrets)
    password = _grafana(folder, out / "grafana", place, secrets)
    return Rendered(tuple(warnings), password)


def _prometheus(folder: Path, out: Path, place: Place, channels: Channels) -> None:
    out.mkdir(parents=True, exist_ok=True)
    source = folder / "prometheus" / "prometheus.yml"
    config = documents.read(source)
    changed = _with_place(config, place)
    text = documents.written(config) if changed else source.read_text(encoding="utf-8")
    _put(out / "prometheus.yml", text)
    _copy(folder / "prometheus" / "rules", out / "rules", "*.yml")
    _copy(folder / "alerting" / "rules", out / "alerts", "*.yml", (channels.links.grafana, place.grafana_url))
    _targets(out / "targets", place)


def _with_place(config: Any, place: Place) -> bool:
    if place.scrape_interval:
        config["global"] |= dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), place.scrape_interval)
    if place.long_term:
        config["remote_write"] = [{"url": place.long_term}]
    return bool(place.scrape_interval or place.long_term)


def _targets(out: Path, place: Place) -> None:
    out.mkdir(exist_ok=True)
    for job in JOBS:
        addresses = list(place.targets.get(job, ()))
        _put(out / f"{job}.json", json.dumps([{"targets": addresses}] if addresses else []) + "\n")
    runs = out / "runs"
    runs.unlink(missing_ok=True)
    if place.runs is not None:
        runs.symlink_to(place.runs.absolute())


def _alertmanager(folder: Path, out: Path, place: Place, channels: Channels, secrets: Secrets) -> Sequence[str]:
    made = alertmanager_config(channels, secrets, place.alertmanager_folder)
    owner = place.owners.get("alertmanager")
    _copy(folder / "alerting" / "templates", out / "templates", "*.tmpl")
    _put(out / "alertmanager.yml", made.text, PRIVATE, owner)
    _private_folder(out / "secrets", owner)
    for old in (out / "secrets").iterdir():
        old.unlink()
    for name in made.secrets:
        _put(out / "secrets" / name, secrets.get(name) or "", PRIVATE, owner)
    return made.warnings


def _grafana(folder: Path, out: Path, place: Place, secrets: Secrets) -> str | None:
    owner = place.owners.get("grafana")
    for kind in ("datasources", "dashboards"):
        _copy(folder / "dashboards" / "provisioning" / kind, out / "provisioning" / kind, "*.yml")
    _copy(folder / "dashboards", out / "dashboards", "*.json")
    _private_folder(out / "secrets", owner)
    kept = out / "secrets" / "admin_password"
    given = secrets.get("grafana_admin_password")
    made = None if given or kept.exists() else token_urlsafe(_PASSWORD_BYTES)
    if given or made:
        _put(kept, given or made or "", PRIVATE, owner)
    return made


def _private_folder(path: Path, owner: int | None) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if owner is not None:
        os.chown(path, owner, -1)


def _copy(source: Path, out: Path, names: str, replaced: tuple[str, str | None] | None = None) -> None:
    """Files of a folder, and none that it has no more."""
    out.mkdir(parents=True, exist_ok=True)
    files = sorted(source.glob(names))
    for old in {path.name for path in out.glob(names)} - {path.name for path in files}:
        (out / old).unlink()
    for path in files:
        text = path.read_text(encoding="utf-8")
        before, after = replaced or ("", None)
        _put(out / path.name, text.replace(before, after) if after is not None else text)


def _put(path: Path, text: str, mode: int = READABLE, owner: int | None = None) -> None:
    """Whole or not at all, so that a server that looks meanwhile sees no half of it."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        os.fchmod(descriptor, mode)  # whatever the umask
        if owner is not None:
            os.fchown(descriptor, owner, -1)
    new.replace(path)
