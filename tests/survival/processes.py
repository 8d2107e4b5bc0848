"""Starts trainings as processes of their own, hears what they say, and sees how they end. The other end of `train.py`."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

PATIENCE_SECONDS = 120.0
"""Nothing here takes so long, unless it hangs."""

WATTS = 300.0

ENDLESS = 100_000
"""Steps: some ten minutes, so that nothing trains for ever where even these tests were killed."""


def gpus(count: int = 1) -> dict[str, str]:
    """The environment of a process that sees so many GPUs, each of which draws 300 W for ever."""
    return {
        "STANDIN_GPUS": str(count),
        "STANDIN_WATTS": f"constant:{WATTS}",
        "STANDIN_COUNTER": "1",
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(count))),
    }


class Server:
    """A process that has imported torch and transformers, and forks itself for each training."""

    def __init__(self, library: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_ECO2AI_", "CUDA_", "STANDIN_"))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.survival.train"],
            cwd=ROOT,
            env={**kept, "LD_LIBRARY_PATH": str(library.parent), "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._children: list[Child] = []

    def start(self, scene: str, folder: Path, *, environ: dict[str, str] | None = None, **options: Any) -> "Child":
        folder.mkdir(parents=True, exist_ok=True)
        pipe = folder / f"pipe.{time.monotonic_ns()}"
        os.mkfifo(pipe)
        said = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        request = {"scene": scene, "folder": str(folder), "pipe": str(pipe), "options": options, "environ": environ or {}}
        pid: int = self.ask(request)["pid"]
        self._children.append(Child(self, pid, os.pidfd_open(pid), said, folder))
        return self._children[-1]

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(request, default=str).encode() + b"\n")
        stdin.flush()
        answer: dict[str, Any] = json.loads(stdout.readline())
        return answer

    def end_children(self) -> None:
        """None outlives its test, however that has ended."""
        for child in self._children:
            if child.status is None:
                child.signal(signal.SIGKILL)
                child.ended()
            os.close(child.pidfd)
            os.close(child.said)
        self._children.clear()

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.wait(PATIENCE_SECONDS)


class SilentError(AssertionError):
    """A training ended, or went on for ever, without saying what was waited for."""


@dataclass
class Child:
    """A training."""

    server: Server
    pid: int
    pidfd: int
    said: int
    folder: Path
    pending: bytes = b""

    def __post_init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.status: int | None = None

    def hear(self, what: str) -> dict[str, Any]:
        """Wait until it says this."""
        for said in self.heard:
            if said["what"] == what and not said.get("taken"):
                said["taken"] = True
                return said
        while (new := self._next(PATIENCE_SECONDS)) is not None:
            self.heard.append(new)
            if new["what"] == what:
                new["taken"] = True
                return new
        raise SilentError(f"{what} was never said, but {self.heard}; it printed:\n{self.output()}")

    def all_heard(self, what: str) -> list[dict[str, Any]]:
        """Everything of this that it has said until now; after `ended` all there is."""
        while (new := self._next(0.0)) is not None:
            self.heard.append(new)
        return [said for said in self.heard if said["what"] == what]

    def _next(self, timeout: float) -> dict[str, Any] | None:
        deadline = time.monotonic() + timeout
        while b"\n" not in self.pending:
            # The end of the process counts too, as a pipe that nobody has opened yet has no end.
            ready, _, _ = select.select([self.said, self.pidfd], [], [], max(0.0, deadline - time.monotonic()))
            block = os.read(self.said, 1 << 16) if self.said in ready else b""
            if not block and (not ready or self.pidfd in ready):
                return None
            self.pending += block
        line, _, self.pending = self.pending.partition(b"\n")
        said: dict[str, Any] = json.loads(line)
        return said

    def lives(self, seconds: float) -> bool:
        """Whether it goes on for so long."""
        return not select.select([self.pidfd], [], [], seconds)[0]

    def signal(self, number: signal.Signals) -> None:
        signal.pidfd_send_signal(self.pidfd, number)

    def ended(self, patience: float = PATIENCE_SECONDS) -> int:
        """How it ended: its exit code, or minus the signal that it died of."""
        if self.status is None:
            if self.lives(patience):
                self.signal(signal.SIGKILL)
                self.status = self.server.ask({"wait": self.pid})["status"]
                raise SilentError(f"still there after {patience} s; it printed:\n{self.output()}")
            self.status = int(self.server.ask({"wait": self.pid})["status"])
        return self.status

    def kill(self) -> tuple[float, float]:
        """SIGKILL. The instants between which it died."""
        before = time.monotonic()
        self.signal(signal.SIGKILL)
        assert not self.lives(PATIENCE_SECONDS)
        after = time.monotonic()
        assert self.ended() == -signal.SIGKILL
        return before, after

    def output(self) -> str:
        path = self.folder / f"output.{self.pid}"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
