"""A daemon in a process of its own, `hf-eco2ai serve` as people start it: what it logs, what it serves, and how it ends."""

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[2]

SECONDS = 60.0
"""Nothing here takes so long, unless it hangs."""

NOBODY = 65534

SERVE = ["-c", "from hf_eco2ai.cli import main; main()", "serve"]

_FIELD = re.compile(r'([\w.]+)=("(?:[^"\\]|\\.)*"|[^ "]*)(?: |$)')


class Account(NamedTuple):
    """Whom a process runs as, and the Python that this user may run."""

    python: str
    popen: Mapping[str, object]
    environ: Mapping[str, str]


OURSELVES = Account(sys.executable, {}, {"PYTHONPATH": str(ROOT)})


@lru_cache(1)
def ordinary_user() -> Account:
    """One that is not root: ourselves, or nobody. The test is skipped where nobody may not run Python here."""
    if os.geteuid() != 0:
        return OURSELVES
    packages = [str(ROOT), *(path for path in sys.path if "site-packages" in path)]
    popen = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    environ = {"PYTHONPATH": os.pathsep.join(packages), "HOME": "/nonexistent"}
    for python in (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"):
        nobody = Account(python, popen, environ)
        try:
            done = start(nobody, ["-c", "import hf_eco2ai.serve, uvicorn"], stderr=subprocess.DEVNULL, cwd="/")
        except OSError:
            continue
        if done.wait(SECONDS) == 0:
            return nobody
    pytest.skip("no Python here that a user without rights may run")


def start(account: Account, arguments: Sequence[str], **more: object) -> "subprocess.Popen[bytes]":
    """A Python of that account."""
    environ = {**os.environ, **account.environ, **more.pop("environ", {})}  # type: ignore[dict-item]
    return subprocess.Popen([account.python, *arguments], env=environ, **account.popen, **more)  # type: ignore[call-overload,no-any-return]


def until(holds: Callable[[], object], seconds: float = SECONDS, what: Callable[[], object] = lambda: "it never did") -> None:
    """Wait until it does; `what` is said where it does not."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, what()
        time.sleep(0.02)


def fields(line: str) -> dict[str, str]:
    """A line of a log in logfmt, taken apart. There is nothing in it beside fields."""
    found, at = {}, 0
    while at < len(line):
        field = _FIELD.match(line, at)
        assert field is not None, f"no logfmt: {line!r}"
        name, value = field[1], field[2]
        found[name] = json.loads(value) if value.startswith('"') else value
        at = field.end()
    return found


class Daemon:
    """One that has been started. `url` is known once it is ready."""

    def __init__(
        self,
        runs: Path,
        *options: str,
        port: int = 0,
        account: Account = OURSELVES,
        environ: Mapping[str, str] | None = None,
        log: Path | None = None,
    ) -> None:
        self._log = log or runs.parent / f"daemon.{time.monotonic_ns()}.log"
        arguments = [*SERVE, "--runs-dir", str(runs), "--port", str(port), *options]
        with self._log.open("ab") as stderr:
            self.process = start(
                account, arguments, stderr=stderr, stdin=subprocess.DEVNULL, cwd=runs.parent, environ=environ or {}
            )

    @property
    def text(self) -> str:
        """All that it has logged."""
        return self._log.read_text(encoding="utf-8")

    def log(self) -> list[dict[str, str]]:
        """Its whole lines."""
        return [fields(line) for line in self.text.split("\n")[:-1]]

    def said(self, message: str, **more: str) -> list[dict[str, str]]:
        """Its lines of that message, and of these fields."""
        wanted = {"msg": message, **more}
        return [line for line in self.log() if wanted.items() <= line.items()]

    def ready(self) -> "Daemon":
        """Itself, once it is."""
        until(lambda: self.said("ready") or self.process.poll() is not None, what=lambda: self.text)
        assert self.said("ready"), self.text
        return self

    @property
    def url(self) -> str:
        return self.said("ready")[-1]["url"]

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port is not None
        return port

    def get(self, path: str, *, headers: Mapping[str, str] | None = None, context: ssl.SSLContext | None = None) -> bytes:
        """What it answers."""
        request = urllib.request.Request(self.url + path, headers=dict(headers or {}))
        with urllib.request.urlopen(request, timeout=SECONDS, context=context) as response:
            content: bytes = response.read()
        return content

    def series(self) -> dict[str, float]:
        """What it shows on `/metrics`."""
        return series(self.get("/metrics").decode())

    def stop(self) -> int:
        """SIGTERM. Its exit code."""
        self.process.terminate()
        return self.process.wait(SECONDS)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        assert self.process.wait(SECONDS) == -signal.SIGKILL


@contextmanager
def daemon(runs: Path, *options: str, **more: object) -> Iterator[Daemon]:
    """A daemon that is ready, and that ends as it should."""
    serving = Daemon(runs, *options, **more)  # type: ignore[arg-type]
    try:
        yield serving.ready()
        assert serving.stop() == 0, serving.text
        assert "Traceback" not in serving.text
    finally:
        if serving.process.poll() is None:
            serving.kill()


def series(text: str) -> dict[str, float]:
    """The samples of an exposition, by name and labels."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value!r}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found
