"""The folder of journals: where it is, which runs are in it, and who else uses this host's devices."""

import errno
import itertools
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import platformdirs

from hf_eco2ai.energy.share import HISTORY_SECONDS, Claim
from hf_eco2ai.journal import format as lines
from hf_eco2ai.journal import read
from hf_eco2ai.journal.format import Header, HostUsed, ProcessIdentity, Totals
from hf_eco2ai.journal.read import Here, Refuse, Refused, ignore
from hf_eco2ai.journal.write import SUFFIX, name_prefix
from hf_eco2ai.records import Counts, Footprint, HostTotals, RunState, Snapshot

SYSTEM_FOLDER = Path("/var/lib/hf-eco2ai/runs")
"""Made by whoever installs the exporter on a node (2770, with a group of its own): then a daemon may serve every user's runs."""

RECENT_SECONDS = 7200.0
"""A journal untouched for so long is not of a run that uses a device now: `journal_interval` is an hour at most."""


def runs_folder(setting: Path | None, system: Path = SYSTEM_FOLDER) -> Path:
    """Where journals go: as set, else the host's own folder where that may be written, else the user's.

    Raises:
        OSError: the user has no home directory, as in some containers.

    """
    if setting is None and os.access(system, os.W_OK | os.X_OK):
        return system
    try:
        if setting is not None:
            return setting.expanduser().absolute()
        return Path(platformdirs.user_data_dir("hf-eco2ai", appauthor=False)) / "runs"
    except RuntimeError as error:
        raise OSError(
            errno.ENOENT, "there is no home directory; set HF_ECO2AI_RUNS_DIR to a folder that can be written"
        ) from error


@dataclass(frozen=True)
class Attempt:
    """One journal: what its header and its last line say, and what has become of its process."""

    path: Path
    header: Header
    line: Totals | None
    state: RunState
    size: int

    @property
    def used(self) -> HostTotals:
        """By its host in this attempt."""
        return HostTotals(self.header.host) if self.line is None else lines.host_totals(self.line.used)

    @property
    def inherited(self) -> tuple[HostUsed, ...]:
        """What the run had used before, as this journal says."""
        said = self.line.inherited if self.line is not None and self.line.inherited is not None else self.header.inherited
        return tuple(said)

    @property
    def at_unix(self) -> float:
        """When it was last written."""
        return self.header.at_unix if self.line is None else self.line.at_unix


@dataclass(frozen=True)
class Run:
    """All journals of one run, in the order in which they were begun."""

    attempts: tuple[Attempt, ...]

    @property
    def run_id(self) -> str:
        """Its identity."""
        return self.newest.header.run.run_id

    @cached_property
    def newest(self) -> Attempt:
        """The attempt that tells most: the last one of the process that leads."""
        leading = [attempt for attempt in self.attempts if attempt.header.leads] or self.attempts
        return leading[-1]

    @property
    def state(self) -> RunState:
        """Of the newest attempt."""
        return self.newest.state

    @cached_property
    def hosts(self) -> tuple[HostTotals, ...]:
        """What each host has used in all attempts. A journal that is missing is made up for by what later ones inherited."""
        totals: dict[str, HostTotals] = {}
        for attempt in self.attempts:
            for before in attempt.inherited:
                _raise_to(totals, lines.host_totals(before))
            used = attempt.used
            totals[used.host] = totals[used.host] + used if used.host in totals else used
        newest = self.newest
        own = {attempt.header.host for attempt in self.attempts if attempt.header.launch == newest.header.launch}
        for written in newest.line.elsewhere if newest.line is not None else ():
            if written.host not in own:  # A host whose journal lies on another disk, as the leading process last heard of it.
                other = lines.host_totals(written)
                totals[other.host] = totals[other.host] + other if other.host in totals else other
        return tuple(totals.values())

    @cached_property
    def counts(self) -> Counts:
        """What the run has done, by the journal that saw most."""
        seen = [
            lines.counts(attempt.line.progress) if attempt.line is not None else lines.counts(attempt.header.done_before)
            for attempt in self.attempts
        ]
        return max(seen, key=lambda counts: (counts.steps, counts.samples))

    @cached_property
    def snapshot(self) -> Snapshot:
        """The whole run as it stands on disk, all attempts and hosts together."""
        newest = self.newest
        line = newest.line or nothing_yet(newest.header)
        snapshot = lines.snapshot(newest.header, line)
        mine = snapshot.attempt
        before = [_less(totals, mine) if totals.host == mine.host else totals for totals in self.hosts]
        running = newest.state == "running"
        return replace(
            snapshot,
            state=newest.state,
            leads=True,
            inherited=tuple(before),
            elsewhere=(),
            rates=snapshot.rates if running else None,
            cpu_watts=snapshot.cpu_watts if running else (),
        )


def _raise_to(totals: dict[str, HostTotals], other: HostTotals) -> None:
    """The one of two accounts that knows more; what was wasted is known to whoever resumed, and not to who was rolled back."""
    known = totals.get(other.host)
    if known is None:
        totals[other.host] = other
        return
    more = other if other.total.joules > known.total.joules else known
    totals[other.host] = replace(more, wasted=max(known.wasted, other.wasted, key=lambda footprint: footprint.joules))


def _less(totals: HostTotals, part: HostTotals) -> HostTotals:
    """What was there before `part` was added, so that adding it gives `totals` again."""
    devices = {device.uuid: device for device in part.devices}
    grams, seconds = dict(part.grams_by_factor_type), dict(part.phase_seconds)
    phases = dict(part.phases)
    return HostTotals(
        host=totals.host,
        total=totals.total - part.total,
        wasted=totals.wasted - part.wasted,
        grams_by_factor_type=tuple((kind, g - grams.get(kind, 0.0)) for kind, g in totals.grams_by_factor_type),
        phases=tuple((phase, f - phases.get(phase, Footprint())) for phase, f in totals.phases),
        phase_seconds=tuple((phase, s - seconds.get(phase, 0.0)) for phase, s in totals.phase_seconds),
        devices=tuple(
            d._replace(
                joules=d.joules - devices[d.uuid].joules, observed_seconds=d.observed_seconds - devices[d.uuid].observed_seconds
            )
            if d.uuid in devices
            else d
            for d in totals.devices
        ),
    )


def nothing_yet(header: Header) -> Totals:
    """What a journal tells of which only the header has been written."""
    return Totals(
        at_unix=header.at_unix,
        monotonic=header.monotonic,
        run_id=header.run.run_id,
        host=header.host,
        state="running",
        used=lines.host_used(HostTotals(header.host)),
        progress=lines.Standing(**{name: getattr(header.done_before, name) for name in lines.Done.model_fields}),
    )


class RunsFolder:
    """What a folder of journals tells. Reads only; every method takes as long as its disk does, so not in a training thread."""

    def __init__(self, path: Path, here: Here, refuse: Refuse = ignore) -> None:
        self.path = path
        self._here = here
        self._refuse = refuse

    def paths(self, prefix: str = "") -> list[Path]:
        """The journals in the folder whose names begin so; none where there is no folder.

        Raises:
            OSError: the folder cannot be read.

        """
        try:
            names = os.listdir(self.path)  # noqa: PTH208 - a Path for each of 10,000 names would take longer than the disk
        except FileNotFoundError:
            return []
        return [self.path / name for name in names if name.startswith(prefix) and name.endswith(SUFFIX)]

    def attempts(self, prefix: str = "") -> Iterator[Attempt]:
        """What each of them says; those that cannot be read are refused and left out."""
        for path in self.paths(prefix):
            try:
                attempt = self.attempt(path)
            except FileNotFoundError:
                continue  # Deleted meanwhile.
            if attempt is not None:
                yield attempt

    def attempt(self, path: Path) -> Attempt | None:
        """What one journal says; None where it cannot be read, which is told to `refuse`.

        Raises:
            FileNotFoundError: it has been deleted.

        """
        try:
            header = read.head(path, self._refuse)
            if header is None:
                return None
            line, status = read.last(path, self._refuse), path.stat()
            state = read.state(header, line, self._here, status.st_mtime, lambda: read.is_locked(path))
            if state == "lost":  # It may have written one more line between our reading and its death.
                line, status = read.last(path), path.stat()
        except FileNotFoundError:
            raise
        except OSError as error:
            self._refuse(Refused(path, None, error.strerror or str(error)))
            return None
        return Attempt(path, header, line, line.state if line is not None and line.type == "end" else state, status.st_size)

    def runs(self) -> list[Run]:
        """All runs, the newest last."""
        return _grouped(self.attempts())

    def run(self, run_id: str) -> Run | None:
        """One run; None where it has no journal here."""
        found = [a for a in self.attempts(name_prefix(run_id)) if a.header.run.run_id == run_id]
        return _grouped(found)[0] if found else None


def _grouped(attempts: Iterable[Attempt]) -> list[Run]:
    groups: dict[str, list[Attempt]] = {}
    for attempt in distinct(attempts):
        groups.setdefault(attempt.header.run.run_id, []).append(attempt)
    runs = [Run(tuple(sorted(group, key=_order))) for group in groups.values()]
    # Clocks may differ, and be set back: where one attempt goes on with another, its header says so.
    return sorted(runs, key=lambda run: run.attempts[0].header.run.started_unix or run.attempts[0].header.at_unix)


def distinct(attempts: Iterable[Attempt]) -> list[Attempt]:
    """One journal for each attempt of a run on a host, the newest, so that a copy beside its original counts no joule twice."""
    found: dict[tuple[str, ...], Attempt] = {}
    for attempt in attempts:
        header = attempt.header
        key = (header.run.run_id, header.host, header.launch) if header.launch else (str(attempt.path),)
        if key not in found or attempt.at_unix > found[key].at_unix:
            found[key] = attempt
    return list(found.values())


class _Met(NamedTuple):
    """A neighbour's journal, and when it was last seen to change."""

    header: Header
    changed_unix: float


def _order(attempt: Attempt) -> tuple[int, float, int]:
    return attempt.header.attempts_before, attempt.header.at_unix, attempt.header.attempt


class Neighbours:
    """Who else measures this host's devices: the claims of the live journals of the folder, but our own.

    `look` is called every few seconds. It lists the folder only when that has changed, and opens no journal that has not been
    written to for long.
    """

    def __init__(
        self, folder: Path, here: Here, own: ProcessIdentity, launch: str, now: Callable[[], float], refuse: Refuse = ignore
    ) -> None:
        self._folder = folder
        self._here = here
        self._own = own
        self._launch = launch
        self._now = now
        self._refuse = refuse
        self._listed_at: int | None = None
        self._known: set[str] = set()
        self._live: dict[Path, _Met] = {}
        self._over: dict[Path, tuple[Claim, ...]] = {}
        self.claims: tuple[Claim, ...] = ()

    def look(self) -> tuple[Claim, ...]:
        """Everybody's claims, past ones of this session included; the same object as long as nothing has changed.

        Raises:
            OSError: the folder cannot be read.

        """
        self._list()
        for path in list(self._live):
            over = self._ended(path)
            if over is not None:
                self._over[path] = claims_of(self._live.pop(path).header, over)
        too_old = self._now() - HISTORY_SECONDS
        self._over = {path: over for path, over in self._over.items() if any(claim.end > too_old for claim in over)}
        live = {(met.header.process, met.header.launch): met.header for met in self._live.values()}  # A copy claims nothing.
        ongoing = [claim for header in live.values() for claim in claims_of(header, math.inf)]
        claims = tuple(sorted([*ongoing, *itertools.chain.from_iterable(self._over.values())]))
        if claims != self.claims:
            self.claims = claims
        return self.claims

    def _list(self) -> None:
        try:
            changed = self._folder.stat().st_mtime_ns
        except FileNotFoundError:
            return
        if changed == self._listed_at and time.time() - changed / 1e9 > 1:
            return
        unfinished = False
        recent = time.time() - RECENT_SECONDS
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX) and entry.name not in self._known:
                    with suppress(OSError):  # Deleted again, or of another user who does not share.
                        if entry.stat().st_mtime > recent:
                            unfinished |= not self._meet(Path(entry.path))
        self._listed_at = None if unfinished else changed

    def _meet(self, path: Path) -> bool:
        """Whether it is known now what this journal is."""
        refused: list[Refused] = []
        header = read.head(path, refused.append)
        for reason in refused:
            self._refuse(reason)
        if header is None and not refused:
            return False  # It is being written just now.
        self._known.add(path.name)
        if header is not None and not self._is_own(header) and self._is_of_this_machine(header):
            self._over.pop(path, None)  # Deleted and made again: the run has been there all the time.
            self._live[path] = _Met(header, header.at_unix)
        return True

    def _is_own(self, header: Header) -> bool:
        return header.launch == self._launch and header.process.is_same(self._own)

    def _is_of_this_machine(self, header: Header) -> bool:
        """By the boot, which containers of one machine have in common."""
        return header.process.boot_id == self._here.boot_id if self._here.boot_id else header.host == self._here.host

    def _ended(self, path: Path) -> float | None:
        """When the run of a live journal ended, on the monotonic clock; None while it lives."""
        header, changed = self._live[path]
        try:
            changed, line = path.stat().st_mtime, read.last(path)
        except FileNotFoundError:
            self._known.discard(path.name)  # It may be made again by a run that still lives.
            return self._now()
        except OSError:
            line = None  # A hiccup of the file system is not the end of a run: without a line the process tells.
        self._live[path] = _Met(header, changed)
        state = read.state(header, line, self._here, changed, lambda: read.is_locked(path))
        if state == "running":
            return None
        if state == "lost":  # It may have written one more line between our reading and its death.
            with suppress(OSError):
                line = read.last(path)
        return self._now() if line is None else line.monotonic


def claims_of(header: Header, end: float) -> tuple[Claim, ...]:
    """What the run of a journal uses of its host, until `end` on the monotonic clock."""
    names = (device.uuid if device.component == "gpu" else f"{device.component}{device.scope}" for device in header.devices)
    return tuple(Claim(name, header.begun_monotonic, end) for name in names)
