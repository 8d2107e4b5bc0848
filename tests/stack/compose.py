"""Compose's real program, and what a clean clone of this repository holds."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.daemon.process import ROOT

PROFILES = ("gpu", "longterm", "demo")

COMPOSE = Path(sys.executable).with_name("docker-compose")


def compose(folder: Path, *arguments: str, **environ: str) -> "subprocess.CompletedProcess[str]":
    """As in a shell in that folder that says nothing else of Compose."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder), **environ}
    return subprocess.run([COMPOSE, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False)


def config(folder: Path, profiles: tuple[str, ...] = PROFILES, **environ: str) -> dict[str, Any]:
    """What Compose makes of docker-compose.yml."""
    done = compose(folder, "config", "--format", "json", COMPOSE_PROFILES=",".join(profiles), **environ)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def clone(folder: Path) -> Path:
    """All files that git has, or will have, and none that it ignores."""
    listed = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("no clone of git's, so it is not known which files belong to it")
    for name in filter(None, done.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder
