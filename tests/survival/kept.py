"""What lies on the disk, read with nothing but json and zlib, so that the package's own reading is not judged by itself."""

import json
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hf_eco2ai.journal import read
from hf_eco2ai.journal.folder import Run, RunsFolder
from hf_eco2ai.journal.read import Here, Refused
from hf_eco2ai.wiring import hostname


@dataclass(frozen=True)
class Kept:
    """One journal."""

    path: Path
    header: dict[str, Any]
    lines: tuple[dict[str, Any], ...]

    @property
    def last(self) -> dict[str, Any] | None:
        return self.lines[-1] if self.lines else None

    def used(self, name: str) -> float:
        """By this attempt: `joules` or `grams`."""
        return 0.0 if self.last is None else float(self.last["used"][name])

    def inherited(self, name: str) -> float:
        """By the attempts before it, as far as it knows."""
        return sum(float(host[name]) for host in self.header["inherited"])

    @property
    def joules(self) -> float:
        """Used by this attempt on all devices."""
        return self.used("joules")

    @cached_property
    def gpu_joules(self) -> dict[str, float]:
        """Of them, on each GPU."""
        devices = {} if self.last is None else self.last["used"].get("devices", {})
        return {uuid: float(device["joules"]) for uuid, device in devices.items() if device["component"] == "gpu"}

    def done(self, name: str) -> int:
        """Steps or samples that the run has done by the end of this attempt."""
        said = self.header["done_before"] if self.last is None else self.last.get("progress", {})
        return int(said.get(name, 0))


def journals(folder: Path) -> list[Kept]:
    """All that are there, in the order in which they were begun. A line that a crash has torn may only be the last one."""
    found = []
    for path in folder.glob("*.ndjson"):
        content = path.read_bytes()
        whole, _, _torn = content.rpartition(b"\n")
        lines = [_line(line) for line in whole.split(b"\n") if line]
        if lines:
            found.append(Kept(path, lines[0], tuple(lines[1:])))
    return sorted(found, key=lambda kept: float(kept.header["at_unix"]))


def _line(line: bytes) -> dict[str, Any]:
    body, _, check = line.rpartition(b',"crc32":')
    assert json.loads(b'{"crc32":' + check)["crc32"] == f"{zlib.crc32(body):08x}"
    content: dict[str, Any] = json.loads(line)
    return content


def refused(folder: Path) -> list[Refused]:
    """What the package itself refuses of the journals of a folder."""
    found: list[Refused] = []
    for path in folder.glob("*.ndjson"):
        list(read.read(path, found.append))
    return found


def runs(folder: Path) -> list[Run]:
    """As `hf-eco2ai runs` sees them."""
    return RunsFolder(folder, Here.now(hostname())).runs()


def only(folder: Path) -> Run:
    (run,) = runs(folder)
    return run


def carried(checkpoint: Path, index: int = -1) -> dict[str, Any]:
    """What our callback left in a checkpoint of the Trainer's."""
    state = json.loads((checkpoint / "trainer_state.json").read_text())["stateful_callbacks"]["Eco2AICallback"]
    entry = state[index] if isinstance(state, list) else state
    found: dict[str, Any] = entry["attributes"]["carried"]
    return found


def whole_checkpoints(folder: Path) -> list[Path]:
    """Those that the Trainer has finished, the newest last."""
    found = []
    for path in folder.glob("checkpoint-*"):
        try:
            json.loads((path / "trainer_state.json").read_text())
        except (OSError, ValueError):
            continue
        found.append(path)
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))
