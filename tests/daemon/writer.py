"""Writes journals until it is killed: runs that last, one that ends and is resumed again and again, and short ones that pass.

python -m tests.daemon.writer FOLDER
"""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from hf_eco2ai.journal import format as lines
from hf_eco2ai.journal.format import Done, Header, Totals
from hf_eco2ai.journal.write import file_name
from hf_eco2ai.records import HostTotals, Snapshot
from tests.journal.make import header, identity, snapshot, this_process

PACE_SECONDS = 0.05
ATTEMPT_SECONDS = 1.3
SHORT_SECONDS = 0.7


class Run:
    """One that this process writes the journal of."""

    def __init__(self, folder: Path, run_id: str, *, gpu: str = "") -> None:
        self._folder = folder
        self._run_id = run_id
        self._gpu = gpu
        self._attempt = 0
        self._done = 0.0
        self._inherited: tuple[HostTotals, ...] = ()
        self._done_before = Done()
        self._begin()

    def _begin(self) -> None:
        self._attempt += 1
        self.began = time.monotonic()
        self._header = header(
            self._snapshot(0.0),
            process=this_process(),
            monotonic=self.began,
            begun_monotonic=self.began,
            attempts_before=self._attempt - 1,
            done_before=self._done_before,
            launch=f"launch{self._attempt}",
        )
        self._path = self._folder / file_name(self._run_id, "node1", self._attempt)
        self._append(self._header)

    def _snapshot(self, seconds: float) -> Snapshot:
        run = identity(self._run_id, attempt=self._attempt, started_unix=time.time())
        whole, part = snapshot(self._done + seconds, run=run), snapshot(seconds, run=run)
        made = replace(part, progress=whole.progress, inherited=self._inherited, updated_unix=time.time())
        return _on(made, self._gpu) if self._gpu else made

    def _append(self, line: Header | Totals) -> None:
        """In two halves, so that whoever reads meanwhile finds a line that is not all there."""
        data = lines.to_bytes(line)
        with self._path.open("ab", buffering=0) as file:
            file.write(data[: len(data) // 2])
            file.write(data[len(data) // 2 :])

    def go_on(self) -> None:
        """A line."""
        self._append(lines.totals_line(self._snapshot(time.monotonic() - self.began), self._header, monotonic=time.monotonic()))

    def end(self) -> None:
        """The last line."""
        seconds = time.monotonic() - self.began
        last = replace(self._snapshot(seconds), state="ended", end_reason="completed")
        line = lines.totals_line(last, self._header, monotonic=time.monotonic(), end=True)
        self._append(line)
        self._done += seconds
        self._done_before = Done(**{name: getattr(line.progress, name) for name in Done.model_fields})
        self._inherited = (last.here,)

    def resume(self) -> None:
        """Another attempt."""
        self._begin()


def _on(made: Snapshot, gpu: str) -> Snapshot:
    """The same run on a GPU of that UUID."""
    attempt = replace(
        made.attempt, devices=tuple(d._replace(uuid=gpu) if d.component == "gpu" else d for d in made.attempt.devices)
    )
    devices = tuple(
        status._replace(device=replace(status.device, uuid=gpu)) if status.device.component == "gpu" else status
        for status in made.devices
    )
    return replace(made, attempt=attempt, devices=devices)


def write(folder: Path) -> None:
    lasting = [Run(folder, "lasting1"), Run(folder, "lasting2", gpu="SIMULATED-0")]
    resumed, short, number = Run(folder, "resumed", gpu="SIMULATED-1"), Run(folder, "short0"), 0
    os.write(1, b"all have begun\n")
    while True:
        for run in (*lasting, resumed, short):
            run.go_on()
        now = time.monotonic()
        if now - resumed.began > ATTEMPT_SECONDS:
            resumed.end()
            resumed.resume()
        if now - short.began > SHORT_SECONDS:
            short.end()
            number += 1
            short = Run(folder, f"short{number}")
        time.sleep(PACE_SECONDS)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
