"""Make a folder of journals as many runs on one node would leave it.

`python -m benchmarks.journals FOLDER --live 100 --ended 10000 --gpus 8 --append-every 5 --seconds 60`

What a run has used and done follows from its number and its age alone (benchmarks/synthetic.py): two calls make the same figures,
which agree with each other, and every total rises from line to line. No two live runs have a GPU in common, nor have two ended
ones; CPU and DRAM are the node's.

- Ended runs have a header, a line from their middle and an end line. They ended between three hours and a month ago, one after
  the other; so were their files last written, unless `--fresh`: then those are of now, as after a copy of the folder.
- Live runs are this process's, so whoever reads the folder on this machine sees them running. Every `--append-every` seconds each
  of them gets a line; the lines are spread evenly over that time, as those of trainings are that know nothing of each other.
  After `--seconds` each gets its end line; if this process is killed before, they are lost.

Lines are written as a Journal writes them, each in one call, but not brought to the disk: what is measured is who reads them. A
line costs some 0.3 ms, so a thousand runs that append every 5 s some 6 % of a core, in a process of its own. Says `live` once the
folder is ready, and in the end how late a line has been at most.
"""

import argparse
import os
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.synthetic import SyntheticRun, this_process
from hf_eco2ai.records import EndReason, RunState

EARLIER_BOOT = "00000000-0000-4000-8000-000000000000"
"""Ended runs were there before the node was booted last."""

NEWEST_END, OLDEST_END = 3 * 3600.0, 30 * 86_400.0
"""Seconds ago. So all are past the default retention of an hour."""

LONGEST_AGE = 86_400.0
LIVE_FROM = 1_000_000
"""Numbers of live runs begin here, so that none is an ended one's."""


def ended(count: int, gpus: int, now_unix: float) -> Iterator[tuple[SyntheticRun, float]]:
    """Runs that are over, the newest first, and how long each has lasted: between ten minutes and two hours."""
    process = this_process().model_copy(update={"boot_id": EARLIER_BOOT})
    for number in range(count):
        seconds = 600.0 + number * 37 % 6600
        end = now_unix - NEWEST_END - (OLDEST_END - NEWEST_END) * number / count
        yield SyntheticRun(number, end - seconds, 1000.0, process, gpus=gpus, slot=number), seconds


def write_ended(folder: Path, count: int, gpus: int = 8, *, fresh: bool = False) -> None:
    """Their journals. One in ten has failed. With `fresh` the files are of now."""
    folder.mkdir(parents=True, exist_ok=True)
    for run, seconds in ended(count, gpus, time.time()):
        state, reason = _end_of(run.number)
        run.begin(folder, seconds / 2)
        run.append(folder, seconds, state, reason)
        if not fresh:
            end = run.began_unix + seconds
            os.utime(run.path(folder), (end, end))


def _end_of(number: int) -> tuple[RunState, EndReason]:
    return ("failed", "out_of_memory") if number % 10 == 7 else ("ended", "completed")


class Writer:
    """Live runs of this process, begun at some time of the last day, and their lines."""

    def __init__(self, folder: Path, count: int, gpus: int, every: float) -> None:
        chance, unix, monotonic = random.Random(count), time.time(), time.monotonic()
        self._folder = folder
        self._every = every
        self._runs: list[SyntheticRun] = []
        for slot in range(count):
            age = chance.uniform(60, min(LONGEST_AGE, monotonic))
            began = unix - age, monotonic - age
            self._runs.append(SyntheticRun(LIVE_FROM + slot, *began, this_process(), gpus=gpus, slot=slot, interval=every))
        self.latest = 0.0
        """Seconds that a line has come too late, at most: whether this process keeps up."""

    def begin(self) -> None:
        """Make the journals."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for run in self._runs:
            run.begin(self._folder, time.monotonic() - run.began_monotonic)

    def append(self, seconds: float) -> None:
        """Go on for so long."""
        began = time.monotonic()
        for due, run in self._due(began, began + seconds):
            time.sleep(max(0.0, due - time.monotonic()))
            run.append(self._folder, time.monotonic() - run.began_monotonic)
            self.latest = max(self.latest, time.monotonic() - due)
        time.sleep(max(0.0, began + seconds - time.monotonic()))

    def _due(self, begin: float, end: float) -> Iterator[tuple[float, SyntheticRun]]:
        apart = self._every / max(1, len(self._runs))
        number = 0
        while self._runs and begin + number * apart < end:
            yield begin + number * apart, self._runs[number % len(self._runs)]
            number += 1

    def end(self) -> None:
        """All of them are done."""
        for run in self._runs:
            run.append(self._folder, time.monotonic() - run.began_monotonic, "ended", "completed")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.journals", description="Make a folder of synthetic journals.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--live", type=int, default=0, help="runs that live as long as this process writes")
    parser.add_argument("--ended", type=int, default=0, help="runs that are over, past their retention")
    parser.add_argument("--fresh", action="store_true", help="files of ended runs are of now, as after a copy")
    parser.add_argument("--gpus", type=int, default=8, help="of each run (default: 8)")
    parser.add_argument("--append-every", type=float, default=5.0, metavar="SECONDS", help="between two lines of a live run")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to go on")
    chosen = parser.parse_args(argv)
    write_ended(chosen.folder, chosen.ended, chosen.gpus, fresh=chosen.fresh)
    if not chosen.live:
        return
    writer = Writer(chosen.folder, chosen.live, chosen.gpus, chosen.append_every)
    writer.begin()
    print("live", flush=True)
    writer.append(chosen.seconds)
    writer.end()
    print(f"lines were {writer.latest:.3f} s late at most; {time.process_time():.1f} s of CPU time were used", flush=True)


if __name__ == "__main__":
    main()
