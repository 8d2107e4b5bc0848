"""What `hf-eco2ai runs` prints, follows and deletes."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from hf_eco2ai.errors import ConfigError
from hf_eco2ai.journal import format as lines
from hf_eco2ai.journal.folder import Run, RunsFolder, runs_folder
from hf_eco2ai.journal.format import Header, Totals
from hf_eco2ai.journal.read import Here, Refused, Tail
from hf_eco2ai.outputs import text
from hf_eco2ai.outputs.report import Report, live_line
from hf_eco2ai.outputs.shown import ShownRun, plain
from hf_eco2ai.outputs.shown import summary as figures

FOLLOW_SECONDS = 1.0
"""Time between two looks at a journal that is followed."""

MOST_NAMED = 5
"""So many runs are named that an id may have meant."""

COLUMNS = ("RUN", "PROJECT", "MODEL", "STATE", "BEGAN", "LASTED", "ENERGY", "CO₂e", "COST", "STEPS")
_CUT = (1, 2)
"""The columns of names, which give way first."""
WIDEST = 24
NARROWEST = 8
"""Columns of a name at most, and at least where the terminal is narrow."""


@dataclass(frozen=True)
class Folder:
    """The runs of a folder, and what of it could not be read."""

    path: Path
    runs: list[Run]
    refused: list[Refused]


def read_folder(setting: Path | None, host: str, project: str = "") -> Folder:
    """Raises OSError where the folder cannot be read."""
    refused: list[Refused] = []
    path = runs_folder(setting)
    runs = RunsFolder(path, Here.now(host), refused.append).runs()
    return Folder(path, [run for run in runs if not project or run.newest.header.run.project_name == project], refused)


def again(folder: Folder, host: str, run_id: str) -> Run | None:
    """A run as it stands now, without reading the others. None where it is gone.

    Raises:
        OSError: the folder cannot be read.

    """
    return RunsFolder(folder.path, Here.now(host)).run(run_id)


def find(runs: Sequence[Run], run_id: str) -> Run:
    """The run of that id, or the only one whose id begins so.

    Raises:
        ConfigError: there is none, or more than one.

    """
    exact = [run for run in runs if run.run_id == run_id]
    beginning = run_id.removesuffix("…")  # As the table shows long ones.
    found = exact or [run for run in runs if run.run_id.startswith(beginning)]
    if len(found) == 1:
        return found[0]
    asked = text.printable(run_id)
    if not found:
        raise ConfigError(f"{asked}: there is no such run here; `hf-eco2ai runs` lists them all")
    some = ", ".join(text.printable(run.run_id) for run in found[:MOST_NAMED])
    raise ConfigError(f"{asked}: {len(found)} runs begin so: {some}{', …' if len(found) > MOST_NAMED else ''}")


def table(runs: Sequence[Run], columns: int = 0) -> str:
    """One line per run, the newest last; names are cut further where the terminal has fewer `columns` (0: there is none)."""
    rows = [COLUMNS, *(_row(run) for run in runs)]
    widths = [max(text.width(row[column]) for row in rows) for column in range(len(COLUMNS))]
    over = sum(widths) + 2 * (len(widths) - 1) - columns if columns > 0 else 0
    while over > 0 and max(widths[name] for name in _CUT) > NARROWEST:
        widest = max(_CUT, key=widths.__getitem__)
        widths[widest], over = widths[widest] - 1, over - 1
    rows = [tuple(text.cut(cell, widths[n]) if n in _CUT else cell for n, cell in enumerate(row)) for row in rows]
    padded = ([text.padded(cell, width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def _row(run: Run) -> tuple[str, ...]:
    s = run.snapshot
    cost = "-" if s.total.cost is None else text.printable(text.money(s.total.cost, s.tariff))
    steps = f"{s.progress.steps:,}" if s.identity.trainer != "monitor" else "-"
    names = (text.begun(run.run_id, WIDEST), text.cut(s.identity.project_name, WIDEST), text.cut(s.identity.model_name, WIDEST))
    basis = "*" if s.basis == "simulated" else ""
    return (
        *names,
        s.state,
        _when(s.identity.started_unix),
        text.duration(s.seconds),
        text.energy(s.total.joules) + basis,
        text.mass(s.total.grams),
        cost,
        steps,
    )


def _when(unix: float) -> str:
    """In local time."""
    try:
        return datetime.fromtimestamp(unix).astimezone().strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):  # No clock has ever said so.
        return "-"


def summary(run: Run) -> dict[str, Any]:
    """A run for programs, short. JSON-ready: NaN and infinities are strings, as in the journal."""
    return {**figures(ShownRun((run.snapshot,))), "journals": [str(attempt.path) for attempt in run.attempts]}


def shown(run: Run, columns: int) -> str:
    """The report of a run, and the journals that it rests on."""
    journals = [
        (
            f"attempt {attempt.header.attempt} on {attempt.header.host}",
            f"{attempt.state}, {text.energy(attempt.used.total.joules)}, {attempt.path}",
        )
        for attempt in run.attempts
    ]
    parent = run.newest.header.run.parent
    return "\n".join(
        [
            Report(run.snapshot).text(columns),
            *([text.printable(f"  began from a checkpoint of run {parent}, which went on elsewhere")] if parent else []),
            "journals",
            *text.table(journals, columns),
        ]
    )


def report_json(run: Run) -> str:
    """Everything that is known of a run; NaN and infinities as strings."""
    newest = run.newest
    at = newest.header.monotonic if newest.line is None else newest.line.monotonic
    full = lines.totals_line(run.snapshot, newest.header, monotonic=at)
    everything = {**summary(run), "report": plain(full.model_dump(mode="json", exclude_none=True))}
    return json.dumps(everything, indent=2, ensure_ascii=False)


def follow(
    find_run: Callable[[], Run | None], wait: Callable[[float], None] = time.sleep, columns: Callable[[], int] = lambda: 0
) -> Iterator[str]:
    """A line of figures for every line that the run's newest journal gets, until the run is over; then the report.

    Raises:
        ConfigError: the run's journals have been deleted.

    """
    run = _there(find_run)
    tail, header, latest = Tail(run.newest.path), run.newest.header, ""
    if run.state == "running":
        _new_lines(tail)  # What has been before is summed up in one line.
        yield live_line(run.snapshot)
    while run.state == "running":
        wait(FOLLOW_SECONDS)
        run = _there(find_run)
        for line in _new_lines(tail):
            if isinstance(line, Header):
                header = line
                continue
            said = live_line(lines.snapshot(header, line))
            if said != latest and line.type != "end":  # The report tells that.
                yield said
            latest = said
        if run.newest.path != tail.path:
            tail, header = Tail(run.newest.path), run.newest.header
    yield Report(run.snapshot).text(columns())


def _there(find_run: Callable[[], Run | None]) -> Run:
    run = find_run()
    if run is None:
        raise ConfigError("the run can be followed no more: its journals have been deleted")
    return run


def _new_lines(tail: Tail) -> list[Header | Totals]:
    try:
        return list(tail.lines())
    except FileNotFoundError:  # Deleted since; whoever writes it makes it again.
        return []


def prunable(runs: Sequence[Run], *, older_than: float | None, keep: int | None, now_unix: float | None = None) -> list[Run]:
    """The runs that may be deleted: over, not among the newest `keep` of those, and last written more than `older_than` s ago."""
    now = time.time() if now_unix is None else now_unix
    over = [run for run in runs if all(attempt.state != "running" for attempt in run.attempts)]
    oldest_first = sorted(over, key=_last_written)
    candidates = oldest_first[: max(0, len(over) - (keep or 0))]
    return [run for run in candidates if older_than is None or now - _last_written(run) > older_than]


def _last_written(run: Run) -> float:
    return max(attempt.at_unix for attempt in run.attempts)


def prune(runs: Sequence[Run]) -> tuple[int, list[OSError]]:
    """Delete the journals of these runs. Returns the bytes that are free now, and why some could not be deleted."""
    freed, kept = 0, []
    for attempt in (attempt for run in runs for attempt in run.attempts):
        try:
            attempt.path.unlink(missing_ok=True)
            freed += attempt.size
        except OSError as error:
            kept.append(error)
    return freed, kept
