"""What Compose's init service does beside rendering: parts that profiles switch on, and a runs folder that Docker has made."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hf_eco2ai.errors import ConfigError
from hf_eco2ai.stack import documents
from hf_eco2ai.stack.render import Place, Rendered, render

GPU, LONG_TERM, DEMO = "gpu", "longterm", "demo"
"""Names of profiles in docker-compose.yml, and of the files that their services leave in the folder of parts."""

STORAGE = "http://victoriametrics:8428"

_TARGETS = {GPU: ("dcgm", "dcgm-exporter:9400"), DEMO: ("hf-eco2ai", "demo-exporter:9091")}
"""Profiles to a job, and what is scraped for it beside the rest."""

_LONG_TERM_SOURCE = Path("grafana") / "provisioning" / "datasources" / "hf-eco2ai-longterm.yml"


def render_parts(folder: Path, out: Path, place: Place, parts: Path | None) -> Rendered:
    """Render for the parts that are on. They are off again afterwards, as whoever switches one on says so at every start.

    Raises:
        ConfigError, OSError: as `render`.

    """
    said = [path for path in parts.iterdir() if path.name in {GPU, LONG_TERM, DEMO}] if parts is not None else []
    on = {path.name for path in said}
    place = replace(place, targets=_targets(place.targets, on))
    if LONG_TERM in on and place.long_term is None:
        place = replace(place, long_term=f"{STORAGE}/api/v1/write")
    rendered = render(folder, out, place)
    _long_term_source(out / _LONG_TERM_SOURCE, on=LONG_TERM in on)
    for path in said:
        path.unlink()
    return rendered


def _targets(known: Mapping[str, Sequence[str]], on: Collection[str]) -> dict[str, Sequence[str]]:
    targets = dict(known)
    for profile, (job, address) in _TARGETS.items():
        if profile in on:
            targets[job] = [*targets.get(job, ()), address]
    return targets


def _long_term_source(path: Path, *, on: bool) -> None:
    """Dashboards have a variable for where their data come from; this is one more to choose."""
    if not on:
        path.unlink(missing_ok=True)
        return
    source = {"name": "HF Eco2AI long term", "uid": "hf-eco2ai-longterm", "type": "prometheus", "access": "proxy", "url": STORAGE}
    more = {"isDefault": False, "editable": False, "jsonData": {"timeInterval": "15s", "httpMethod": "POST"}}
    path.write_text(documents.written({"apiVersion": 1, "datasources": [{**source, **more}]}), encoding="utf-8")
    path.chmod(0o644)


def give_new_folder(path: Path, owner: str) -> bool:
    """Give a folder to `uid:gid` if Docker has made it just now: it is empty and root's. Whether it was.

    Otherwise nobody but root could write a journal there. A folder that somebody else has made stays as it is.

    Raises:
        ConfigError: the owner is none.
        OSError: it cannot be given away.

    """
    uid, found, gid = owner.partition(":")
    if not found or not uid.isdecimal() or not gid.isdecimal():
        raise ConfigError(f"--runs-owner {owner}: write UID:GID, such as 1000:1000")
    if path.stat().st_uid != 0 or any(path.iterdir()) or int(uid) == 0:
        return False
    path.chmod(0o700)
    os.chown(path, int(uid), int(gid))
    return True
