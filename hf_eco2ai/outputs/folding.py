"""Runs without a label of their own (`run_label=False`): what several of them have together, those that have left included."""

import math
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from hf_eco2ai.outputs.metrics import Metric
from hf_eco2ai.records import RunState, Snapshot

REMEMBERED_RUNS = 250
"""So many runs that have left are known one by one, so that one of them that is resumed is not counted twice. Of older ones only
the sum is left. Each is some 7 kB in the file that is written anew with every run that comes or goes."""

SAVE_SECONDS = 60.0
"""Runs that live come back with their journals, so what they show is saved only this often; who comes, ends or goes, at once."""

MOST = 1e300
"""No figure of a run is larger, and so many as there may be runs add to one that is still a number."""

LIVE = "live"
"""Of what is saved, the runs that were not over yet: what they had counted since then, only their journals tell."""

Lines = dict[str, float]
Shown = Iterable[tuple[Snapshot, Lines]]
"""Runs, the newest first, and what each of them shows of a family."""


class Folded(Protocol):
    """Puts together what runs show of one family."""

    def lines(self, metric: Metric, shown: Shown) -> Lines:
        """One number for each line."""

    def settle(self, present: Iterable[str]) -> None:
        """All families of a scrape have been put together; these runs are served."""


class OfThoseServed:
    """For a process that shows its own run: nobody has left before it."""

    def lines(self, metric: Metric, shown: Shown) -> Lines:
        """Sums of what adds; of the rest what the newest run says."""
        lines: Lines = {}
        for snapshot, own in shown:
            adds = metric.adds(snapshot)
            for line, value in own.items():
                if adds and not math.isfinite(value):
                    continue  # It would make the sum say nothing of the others.
                if line not in lines:
                    lines[line] = value
                elif adds:
                    lines[line] += value
        return lines

    def settle(self, present: Iterable[str]) -> None:
        """There is nothing to keep."""


class OfAll(OfThoseServed):
    """For a daemon: counters go on with the share of runs that have left, also after a restart.

    `kept` is what `save` was given last, empty the first time. Runs that are new are saved before they are first shown. What
    `save` gets is not changed afterwards, so it may be written by another thread.

    Sums are exact before they are rounded (`fsum`). Were they added up in another order, which is the order in which runs were
    last heard, they might fall by the last digit, and a counter that falls is taken for one that began again.
    """

    def __init__(
        self, kept: dict[str, Any], save: Callable[[dict[str, Any]], object], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._save = save
        self._now = now
        self._runs: dict[str, dict[str, Lines]] = {run_id: dict(families) for run_id, families in kept.get("runs", {}).items()}
        """Of each run, those that are served included, what it shows or last showed, by family."""
        self._older: dict[str, dict[str, list[float]]] = dict(kept.get("older", {}))
        """By family and line, numbers whose exact sum is what has been counted by runs that are remembered no more."""
        self._states: dict[str, RunState] = {}
        self._present: dict[str, RunState | None] = {}
        self._saved = -math.inf
        self._is_due = False
        """Whether something has been counted of which no journal will tell again."""

    def lines(self, metric: Metric, shown: Shown) -> Lines:
        """The same, and of what counts also the share of runs that have left."""
        if not metric.keeps:
            return super().lines(metric, shown)
        for snapshot, own in shown:
            run_id = snapshot.identity.run_id
            self._states[run_id] = snapshot.state
            families = self._runs.setdefault(run_id, {})
            families[metric.name] = self._counted(metric, families.get(metric.name, {}), own)
        parts = {line: list(numbers) for line, numbers in self._older.get(metric.name, {}).items()}
        for families in self._runs.values():
            for line, value in families.get(metric.name, {}).items():
                parts.setdefault(line, []).append(value)
        return {line: math.fsum(numbers) for line, numbers in parts.items()}

    def _counted(self, metric: Metric, before: Lines, own: Lines) -> Lines:
        """What a run has counted. A line that it shows no more, as under a name that it had, has been counted all the same."""
        counted = dict(before)
        for line, value in own.items():
            if not 0 <= value <= MOST:
                continue
            known = before.get(line, 0.0)
            if value < known and metric.scope == "host":  # What a process counts begins again with the next one.
                self._leave(metric.name, {line: known})
                self._is_due = True
            counted[line] = value if metric.scope == "host" else max(known, value)  # Else less is known of the run than was.
        return counted

    def settle(self, present: Iterable[str]) -> None:
        """Forget those of the runs that left first, and save where it is time to."""
        now_present = {run_id: self._states.get(run_id) for run_id in present}
        for run_id in self._present:
            if run_id not in now_present and run_id in self._runs:
                self._runs[run_id] = self._runs.pop(run_id)  # In the order in which they leave.
        left = [run_id for run_id in self._runs if run_id not in now_present]
        for run_id in left[: max(0, len(left) - REMEMBERED_RUNS)]:
            for name, lines in self._runs.pop(run_id).items():
                self._leave(name, lines)
        if self._is_due or now_present != self._present or self._now() >= self._saved + SAVE_SECONDS:
            self._saved, self._is_due = self._now(), False
            self._save(
                {
                    "runs": {run_id: dict(families) for run_id, families in self._runs.items()},
                    "older": dict(self._older),
                    LIVE: [run_id for run_id, state in now_present.items() if state == "running"],
                }
            )
        self._states, self._present = {}, now_present

    def _leave(self, name: str, lines: Lines) -> None:
        older = self._older.get(name, {})
        self._older[name] = {**older, **{line: _exactly(older.get(line, []), value) for line, value in lines.items()}}


def _exactly(numbers: list[float], more: float) -> list[float]:
    """Few numbers with exactly the sum of these and one more (Shewchuk, 1997: what rounding takes from a sum is a double too)."""
    parts = []
    for number in numbers:
        large, small = (more, number) if abs(more) > abs(number) else (number, more)
        more = large + small
        rest = small - (more - large)
        if rest:
            parts.append(rest)
    return [*parts, more]
