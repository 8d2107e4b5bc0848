"""What the runs of a project have used in a period, by their journals."""

from pathlib import Path
from typing import NamedTuple

from hf_eco2ai.footprint.budget import Spent
from hf_eco2ai.journal import format as lines
from hf_eco2ai.journal import read
from hf_eco2ai.journal.folder import Attempt, RunsFolder, distinct
from hf_eco2ai.journal.format import Totals
from hf_eco2ai.records import Footprint


class _Known(NamedTuple):
    changed: int
    size: int
    attempt: Attempt | None
    before: Totals | None
    """The last line before the period."""


class Spending:
    """Adds up a project's journals, and reads again only what has changed since. Used from one thread.

    `run_id` and `launch` are our own run and attempt. Without a launch, an attempt that is still under way is taken for ours.
    """

    def __init__(self, folder: RunsFolder, project_name: str, run_id: str, currency: str, launch: str = "") -> None:
        self._folder = folder
        self._project = project_name
        self._run_id = run_id
        self._currency = currency
        self._launch = launch
        self._since = -1.0
        self._known: dict[Path, _Known] = {}

    def since(self, since_unix: float, inherited: Footprint) -> Spent:
        """What others have used since an instant, and what of `inherited` (what our run had used before) was used before it.

        Raises:
            OSError: the folder cannot be read.

        """
        if since_unix != self._since:
            self._since, self._known = since_unix, {}
        self._known = {path: known for path in self._folder.paths() if (known := self._read(path)) is not None}
        before = {k.attempt.path: k.before for k in self._known.values() if k.attempt is not None}
        found = distinct(k.attempt for k in self._known.values() if k.attempt is not None)
        mine = [attempt for attempt in found if attempt.header.run.project_name == self._project]
        journals = {(attempt.header.launch, attempt.header.host) for attempt in mine}
        others, own = Footprint(), Footprint()
        for attempt in mine:
            header, used = attempt.header, _used(attempt, before[attempt.path], journals)
            if header.run.run_id == self._run_id:
                own += Footprint() if self._is_present(attempt) else used
            elif header.tariff.currency == self._currency:
                others += used
            else:
                others += Footprint(used.joules, used.grams)  # Money of another currency does not add up.
        return Spent(since_unix, others, inherited - own if since_unix > 0 else Footprint())

    def _is_present(self, attempt: Attempt) -> bool:
        """Whether it is what our run uses now, on this or another host, and nothing that it has inherited."""
        return attempt.header.launch == self._launch if self._launch else attempt.state == "running"

    def _read(self, path: Path) -> _Known | None:
        known = self._known.get(path)
        try:
            status = path.stat()
            if known is not None and (known.changed, known.size) == (status.st_mtime_ns, status.st_size):
                return known
            if status.st_mtime < self._since:
                return _Known(status.st_mtime_ns, status.st_size, None, None)
            attempt = self._folder.attempt(path)
            before = read.before(path, self._since) if attempt is not None and self._since > 0 else None
        except FileNotFoundError:
            return None
        except OSError:
            return known  # What was known stays so until the disk answers again.
        return _Known(status.st_mtime_ns, status.st_size, attempt, before)


def _used(attempt: Attempt, before: Totals | None, journals: set[tuple[str, str]]) -> Footprint:
    """Since `before`, by the journal's own host and by those whose own journal is not in this folder."""
    now, then = _by_host(attempt.line), _by_host(before)
    total = Footprint()
    for host, footprint in now.items():
        if host == attempt.header.host or (attempt.header.launch, host) not in journals:
            total += footprint - then.get(host, Footprint())
    return total


def _by_host(line: Totals | None) -> dict[str, Footprint]:
    return {} if line is None else {used.host: lines.footprint(used) for used in (line.used, *line.elsewhere)}
