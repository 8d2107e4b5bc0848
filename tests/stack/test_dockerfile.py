"""The Dockerfile's install and start commands in a clean virtual environment: no engine is here that could build the image."""

import fnmatch
import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from hf_eco2ai.stack.initial import COPIED
from tests.daemon import runs as made
from tests.daemon.process import ROOT, SECONDS, Daemon, until
from tests.stack.compose import clone
from tests.stack.native import free_ports

BASE = "python:3.13-slim"


@dataclass(frozen=True)
class Instruction:
    stage: str
    name: str
    value: str


def instructions(text: str) -> list[Instruction]:
    """Whose stage is the last `AS`. Continued lines are none here."""
    stage, found = "", []
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == "FROM":
            stage = value.rpartition(" AS ")[2]
        if name and not name.startswith("#"):
            found.append(Instruction(stage, name, value.strip()))
    return found


DOCKERFILE = instructions((ROOT / "Dockerfile").read_text(encoding="utf-8"))


def of(stage: str, name: str) -> list[str]:
    return [one.value for one in DOCKERFILE if (one.stage, one.name) == (stage, name)]


def context(folder: Path, to: Path) -> Path:
    """What Docker would send to a builder: .dockerignore's last pattern that matches decides."""
    patterns = [line for line in (folder / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        parents = [name, *map(str, Path(name).parents)]
        sent = True
        for pattern in patterns:
            wanted = pattern.removeprefix("!").replace("**/", "*")
            if any(fnmatch.fnmatch(parent, wanted) for parent in parents if parent != "."):
                sent = pattern.startswith("!")
        if sent and path.is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            (to / name).write_bytes(path.read_bytes())
    return to


@dataclass(frozen=True)
class Image:
    """What its stages leave behind, in folders of this machine."""

    root: Path

    @property
    def source(self) -> Path:
        return self.root / "source"

    @property
    def bin(self) -> Path:
        return self.root / "opt" / "hf-eco2ai" / "bin"

    def here(self, command: str) -> str:
        return re.sub(
            r"/(opt|wheels)/", rf"{self.root}/\1/", command.replace("--wheel-dir /wheels", f"--wheel-dir {self.root}/wheels")
        )

    @property
    def environ(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name.startswith("PIP_") or name.endswith("_PROXY")}
        return {"PATH": f"{self.root}/python/bin:/usr/bin:/bin", "HOME": str(self.root), "LANG": "C.UTF-8", **kept}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Built as far as it can be: a Python of its own for the base image's, then every RUN of the stage that builds."""
    built = Image(tmp_path_factory.mktemp("image"))
    leak = built.root / "clone" / "secrets" / "slack_url"
    context(clone(built.root / "clone"), built.source)
    assert not leak.exists()
    subprocess.run([sys.executable, "-m", "venv", built.root / "python"], check=True)
    for command in of("build", "RUN"):
        done = subprocess.run(
            ["sh", "-c", built.here(command)], cwd=built.source, env=built.environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return built


def test_stages_are_based_on_one_pinned_python_and_run_as_an_ordinary_user() -> None:
    assert of("build", "FROM") == [f"{BASE} AS build"]
    assert of("base", "FROM") == [f"{BASE} AS base"]
    assert of("exporter", "FROM") == ["base AS exporter"]
    assert of("demo", "FROM") == ["base AS demo"]
    assert of("exporter", "USER") == of("demo", "USER") == ["1000:1000"]
    assert DOCKERFILE[-1].stage == "exporter", "what `docker build` makes without being told"


def test_neither_secrets_nor_runs_nor_environments_are_sent_to_a_builder(tmp_path: Path) -> None:
    folder = clone(tmp_path / "clone")
    for name in ("secrets/slack_url", ".env", "runs/a.ndjson", ".git/config", "hf_eco2ai/__pycache__/x.pyc", "tests/x.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("not for you")
    sent = {str(path.relative_to(tmp_path / "to")) for path in context(folder, tmp_path / "to").rglob("*") if path.is_file()}
    assert {name for name in sent if name.startswith("secrets/")} == {"secrets/.gitignore", "secrets/README.md"}
    assert {name.partition("/")[0] for name in sent} == {name.partition("/")[0] for name in COPIED} | {"hf_eco2ai"}
    assert not any("not for you" in (tmp_path / "to" / name).read_text(errors="ignore") for name in sent)


def test_the_wheel_brings_the_stacks_files_along_and_no_secret(image: Image) -> None:
    (wheel,) = (image.root / "wheels").glob("*.whl")
    names = [name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("hf_eco2ai/stack/files/")]
    brought = {name.removeprefix("hf_eco2ai/stack/files/") for name in names}
    assert {name for name in brought if name.startswith("secrets/")} == {"secrets/.gitignore", "secrets/README.md"}
    expected = {
        str(path.relative_to(image.source))
        for name in COPIED
        for path in ([image.source / name] if (image.source / name).is_file() else (image.source / name).rglob("*"))
        if path.is_file()
    }
    assert brought == expected


def test_the_command_of_the_image_serves_a_runs_folder_and_its_health_check_sees_that(image: Image, tmp_path: Path) -> None:
    runs, port = tmp_path / "runs", free_ports(1)[0]
    runs.mkdir()
    made.live(runs, "abcdef")
    (entry,), (command,) = of("exporter", "ENTRYPOINT"), of("exporter", "CMD")
    here = {"/runs": str(runs), "0.0.0.0": "127.0.0.1", "9091": str(port)}  # noqa: S104 - replaced
    argv = [here.get(argument, argument) for argument in [*json.loads(entry), *json.loads(command)]]
    exporter = Installed([str(image.bin / argv[0]), *argv[1:]], tmp_path)
    try:
        until(lambda: health(image, port) == 0 or exporter.process.poll() is not None, what=lambda: exporter.text)
        running = {name: value for name, value in exporter.ready().series().items() if name.startswith("hf_training_running{")}
        assert [(value, "abcdef" in name) for name, value in running.items()] == [(1.0, True)]
        assert exporter.stop() == 0
    finally:
        exporter.process.kill()
        exporter.process.wait(SECONDS)
    assert health(image, port) != 0


class Installed(Daemon):
    def __init__(self, argv: list[str], folder: Path) -> None:
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(argv, cwd="/", env={"HOME": str(folder)}, stdin=subprocess.DEVNULL, stderr=log)


def health(image: Image, port: int) -> int:
    (check,) = of("exporter", "HEALTHCHECK")
    argv = json.loads(check.partition("CMD ")[2].replace("9091", str(port)))
    return subprocess.run([str(image.bin / argv[0]), *argv[1:]], stderr=subprocess.DEVNULL, check=False).returncode


def test_what_is_installed_makes_a_stack_folder_that_is_well(image: Image, tmp_path: Path) -> None:
    """As for whoever has installed the wheel and has no checkout."""
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HF_ECO2AI_RUNS_DIR": str(tmp_path / "runs")}
    code = "from hf_eco2ai.stack.commands import stack; stack()"
    for arguments in (["init", "--dir", "made"], ["check", "--dir", "made"]):
        argv = [str(image.bin / "python"), "-c", code, *arguments]
        done = subprocess.run(argv, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    sent = {path.relative_to(image.source) for path in image.source.rglob("*") if path.is_file()}
    there = {path.relative_to(tmp_path / "made") for path in (tmp_path / "made").rglob("*") if path.is_file()}
    assert there == sent | {Path(".env")}, "its image is built of the same files"


def test_the_demo_installs_the_trainer_and_starts_the_example() -> None:
    (install,) = of("demo", "RUN")
    assert shlex.split(install) == ["/opt/hf-eco2ai/bin/pip", "install", "--no-cache-dir", "hf-eco2ai[trainer]"]
    (copied,) = of("demo", "COPY")
    assert copied.endswith("examples/train_tiny_gpt2.py /demo/")
    assert json.loads(of("demo", "CMD")[0])[1] == "/demo/train_tiny_gpt2.py"
