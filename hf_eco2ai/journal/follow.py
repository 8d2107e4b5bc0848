"""Follow a folder of journals: every run that lives or has ended of late, as it stands on disk.

What is looked at, and how often: the folder's own time of change once a look, its list only when that has changed, and of each
journal that is followed its size and time of change. So ten thousand journals of runs that are over cost nothing, and a run that
lives costs one call of the kernel between two of its lines.
"""

import errno
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hf_eco2ai.energy.share import HISTORY_SECONDS, REMEMBERED_SECONDS, Claim
from hf_eco2ai.journal import format as lines
from hf_eco2ai.journal import read
from hf_eco2ai.journal.folder import RECENT_SECONDS, claims_of, nothing_yet
from hf_eco2ai.journal.format import Header, Totals
from hf_eco2ai.journal.read import Here, Refuse, Refused, Tail, ignore
from hf_eco2ai.journal.write import SUFFIX, name_prefix
from hf_eco2ai.records import RunState, Snapshot

SWEEP_SECONDS = 300.0
"""How often all journals are looked at, those that are over too: one of a machine that was suspended may go on, and file systems
are in use that tell of no change in a folder."""

STATE_SECONDS = 5.0
"""How often to look whether the process of a run still lives while its journal is silent."""

OVER_SECONDS = 10.0
"""How often to look at the journal of a run that is over: it may have been deleted, or have been only silent."""

SETTLED_SECONDS = 1.0
"""Changes within one tick of a file system's clock look like one, so a folder that has changed is listed again so much later."""

MOST_RUNS = 2000
"""Journals that are served at most: those of runs that live first, then those that have ended last."""

_AT_ONCE = 100
"""So many journals are met, while a folder is listed, before the oldest of too many are left."""

_UNREADABLE = (0, 0, 0)
"""Stands for what a journal was that could not be read: whatever it is at the next sweep, it is tried again."""

_END = re.compile(rb'\{"type":"end","at_unix":(\d{1,12}(?:\.\d{1,6})?),')
_LAST_BYTES = 1 << 14


@dataclass
class _Followed:
    """A journal, as far as it has been read."""

    path: Path
    tail: Tail
    header: Header
    line: Totals | None
    signature: tuple[int, int, int]
    """Inode, size and time of change when it was last read."""
    heard_at: float
    """When it was last seen to change, on our monotonic clock, since those of other hosts may be wrong."""
    state: RunState = "running"
    state_known_at: float = -math.inf
    alive_unix: float = -math.inf
    """When its run was last seen to live."""
    over_unix: float = math.inf
    """When its run ended; infinite while it lives."""
    snapshot: Snapshot | None = None
    snapshot_of: tuple[object, ...] = ()

    @property
    def run_id(self) -> str:
        return self.header.run.run_id

    @property
    def at_unix(self) -> float:
        """When it was last written, by its writer's clock."""
        return self.header.at_unix if self.line is None else self.line.at_unix

    @property
    def order(self) -> tuple[int, float, int]:
        """Of the attempts of a run, the newest last. Clocks may differ; of one that goes on with another its header says so."""
        return self.header.attempts_before, self.header.at_unix, self.header.attempt


class Follower:
    """The runs of a folder. `look` is called about once a second, by one thread; what it finds is published by assignments.

    Runs of this machine are followed, or with `all_hosts` those of every host that writes to the folder; each until `retention`
    seconds after its end. Those that were `missed`, since they ended while nobody looked, are shown as if they ended now.
    """

    def __init__(
        self,
        folder: Path,
        here: Here,
        *,
        all_hosts: bool = False,
        retention: float = 3600.0,
        most_runs: int = MOST_RUNS,
        missed: Iterable[str] = (),
        refuse: Refuse = ignore,
        wall: Callable[[], float] = time.time,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._here = here
        self._all_hosts = all_hosts
        self._retention = retention
        self._most_runs = most_runs
        self._missed = tuple(map(name_prefix, missed))
        self._refuse = refuse
        self._wall = wall
        self._now = now
        self._followed: dict[str, _Followed] = {}
        self._over: dict[str, tuple[int, int, int] | None] = {}
        """Names of journals that are not followed, with what they were when that was decided; None for one that is old."""
        self._begun: set[str] = set()
        """Names of journals whose header is not all there yet."""
        self._told: dict[str, Refused] = {}
        """By name, why a journal cannot be read, so that it is told once."""
        self._changed: int | None = None
        """The folder's own time of change, when that was first seen, and whether it has been listed since."""
        self._changed_at = -math.inf
        self._is_listed = False
        self._swept_at = -math.inf
        self.snapshots: tuple[Snapshot, ...] = ()
        """What to show, one for each host that a run has or had here; of one run the newest first."""
        self.lines_read = 0
        self.left_out = 0
        """Journals of runs that were left before their retention was over, since there were more than `most_runs`."""
        self.read_unix: dict[str, float] = {}
        """By host, when a line of a journal of its was last read."""
        self._read_unix: dict[str, float] = {}

    @property
    def journals(self) -> int:
        """How many are followed."""
        return len(self._followed)

    @property
    def claims(self) -> tuple[Claim, ...]:
        """Who uses the devices of this machine, or has used them of late, on its monotonic clock. May be asked by any thread."""
        return tuple(sorted(self._claims()))

    def look(self) -> None:
        """See what has changed.

        Raises:
            OSError: the folder cannot be read. A folder that is not there is one without runs.

        """
        try:
            for name in list(self._begun):
                self._meet(name)
            self._list()
            for name, followed in list(self._followed.items()):
                self._read(name, followed)
            self._drop()
        finally:  # Of a folder that does not answer nothing of the present is shown, after a while.
            self._publish()

    def where(self, snapshot: Snapshot) -> tuple[Path, int | None] | None:
        """The journal that a snapshot is of, and the number of its line, where that is known."""
        return next(((f.path, f.tail.number) for f in list(self._followed.values()) if f.snapshot is snapshot), None)

    def forget(self, run_id: str) -> bool:
        """Show a run that is over no more. False where it is not shown, or still lives. Called by the thread that looks."""
        own = [(name, f) for name, f in self._followed.items() if f.run_id == run_id]
        if not own or any(f.state == "running" for _, f in own):
            return False
        for name, followed in own:
            self._leave(name, followed.signature)
        self._publish()
        return True

    # Which journals there are

    def _list(self) -> None:
        try:
            changed = self._folder.stat().st_mtime_ns
        except FileNotFoundError:
            self._forget_all()
            return
        if not os.access(str(self._folder), os.R_OK | os.X_OK):  # Its journals alone would each tell of it, and the folder never.
            with os.scandir(self._folder):  # Says what is wrong, where it is not only that it may not be entered.
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self._folder))
        now = self._now()
        if changed != self._changed:
            self._changed, self._changed_at, self._is_listed = changed, now, False
        sweep = now >= self._swept_at + SWEEP_SECONDS
        if self._is_listed and not sweep:
            return
        self._scan(sweep)
        self._is_listed = now - self._changed_at >= SETTLED_SECONDS
        if sweep:
            self._swept_at = now

    def _forget_all(self) -> None:
        for names in (self._followed, self._over, self._begun, self._told):
            names.clear()
        self._changed = None

    def _scan(self, sweep: bool) -> None:
        there, met = set(), 0
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if not entry.name.endswith(SUFFIX):
                    continue
                there.add(entry.name)
                if entry.name in self._followed or entry.name in self._begun:
                    continue
                if entry.name not in self._over or (sweep and self._has_changed(entry, self._over[entry.name])):
                    self._meet(entry.name)
                    met += 1
                    if met % _AT_ONCE == 0:
                        self._drop()
        self._over = {name: known for name, known in self._over.items() if name in there}
        self._told = {name: told for name, told in self._told.items() if name in there}
        self._begun &= there
        self._missed = ()

    def _has_changed(self, entry: "os.DirEntry[str]", known: tuple[int, int, int] | None) -> bool:
        try:
            status = entry.stat()
        except OSError:
            return False
        return status.st_mtime >= self._oldest() if known is None else _signature(status) != known

    def _oldest(self) -> float:
        """A journal that was last written before then is of a run whose retention is over."""
        return self._wall() - max(self._retention, RECENT_SECONDS)

    def _meet(self, name: str) -> None:
        """Follow a journal or leave it, whichever is right."""
        self._over.pop(name, None)
        self._begun.discard(name)
        path = self._folder / name
        try:
            followed = self._open(path)
        except FileNotFoundError:
            return
        except OSError as error:
            self._tell(Refused(path, None, error.strerror or str(error)))
            self._over[name] = _UNREADABLE
            return
        if followed is not None:
            self._followed[name] = followed
            self._told.pop(name, None)

    def _open(self, path: Path) -> _Followed | None:
        status = path.stat()
        is_missed = path.name.startswith(self._missed)
        if status.st_mtime < self._oldest() and not is_missed:
            self._over[path.name] = None
            return None
        if not is_missed and self._ended_long_ago(path, status.st_size):
            self._over[path.name] = _signature(status)
            return None
        header = self._header(path, status)
        if header is None:
            return None
        tail = Tail(path, self._refuse)
        followed = _Followed(path, tail, header, tail.to_end(), _signature(status), 0.0)
        wall = self._wall()
        heard_unix = max(status.st_mtime, followed.at_unix if followed.at_unix <= wall else -math.inf)
        followed.heard_at = self._now() - max(0.0, wall - heard_unix)
        self._count(followed, 1 if followed.line is None else 2)
        self._see_state(followed)
        if is_missed and followed.state != "running":
            followed.over_unix = wall
        return followed

    def _header(self, path: Path, status: os.stat_result) -> Header | None:
        """Of a journal that is to be followed; None where it is not, or not yet."""
        refused: list[Refused] = []
        header = read.head(path, refused.append)
        for reason in refused:
            self._tell(reason)
        if header is None and not refused:
            self._begun.add(path.name)
            return None
        if header is None or not (self._all_hosts or self._is_of_this_machine(header)):
            self._over[path.name] = _signature(status)
            return None
        return header

    def _tell(self, refused: Refused) -> None:
        """Of a journal that cannot be read, which is tried again and again."""
        if self._told.get(refused.path.name) != refused:
            self._told[refused.path.name] = refused
            self._refuse(refused)

    def _ended_long_ago(self, path: Path, size: int) -> bool:
        """By the last line alone, since a folder of ten thousand that has been copied is ten thousand files of today."""
        line = read.ending(path, size, _LAST_BYTES).removesuffix(b"\n").rpartition(b"\n")[2]
        end = _END.match(line)
        return end is not None and lines.checked(line) and self._wall() - float(end[1]) > max(self._retention, HISTORY_SECONDS)

    def _is_of_this_machine(self, header: Header) -> bool:
        """By the boot, which containers of one machine have in common; a journal of an earlier boot by the host's name."""
        return header.host == self._here.host or bool(self._here.boot_id and header.process.boot_id == self._here.boot_id)

    # What they say

    def _read(self, name: str, followed: _Followed) -> None:
        if followed.state != "running" and self._now() < followed.state_known_at + OVER_SECONDS:
            return
        try:
            signature = _signature(followed.path.stat())
            if signature != followed.signature:
                self._accept(followed)
                followed.signature, followed.heard_at = signature, self._now()
            elif self._now() < followed.state_known_at + STATE_SECONDS:
                return
            self._see_state(followed)
            self._told.pop(name, None)
            if followed.tail.is_replaced:
                del self._followed[name]
                self._meet(name)
        except FileNotFoundError:
            del self._followed[name]
        except OSError as error:
            self._tell(Refused(followed.path, None, error.strerror or str(error)))
            self._set_state(followed, self._state_of(followed))

    def _accept(self, followed: _Followed) -> None:
        """What has been appended."""
        for line in followed.tail.lines(again=False):
            if isinstance(line, Totals):
                followed.line = line
                self._count(followed, 1)

    def _count(self, followed: _Followed, read_lines: int) -> None:
        self.lines_read += read_lines
        self._read_unix[followed.header.host] = self._wall()

    def _see_state(self, followed: _Followed) -> None:
        state = self._state_of(followed)
        if state == "lost" and followed.state == "running":  # It may have written one more line before it died.
            self._accept(followed)
            state = self._state_of(followed)
        self._set_state(followed, state)

    def _state_of(self, followed: _Followed) -> RunState:
        wall = self._wall()
        changed_unix = wall - (self._now() - followed.heard_at)
        return read.state(
            followed.header, followed.line, self._here, changed_unix, lambda: read.is_locked(followed.path), now_unix=wall
        )

    def _set_state(self, followed: _Followed, state: RunState) -> None:
        wall = self._wall()
        followed.state, followed.state_known_at = state, self._now()
        if state == "running":
            followed.alive_unix, followed.over_unix = wall, math.inf
        elif math.isinf(followed.over_unix):
            # What its writer's clock says, unless we know better: it may be ahead of ours, or behind.
            heard_unix = wall - (self._now() - followed.heard_at)
            said = followed.at_unix if followed.at_unix <= wall else heard_unix
            followed.over_unix = min(max(said, followed.alive_unix), wall)

    def _drop(self) -> None:
        """Leave those whose retention is over, and the oldest of too many.

        Those of short retention are followed a little longer, since whoever settles accounts late asks for their claims.
        """
        wall = self._wall()
        over = sorted((f.over_unix, name) for name, f in self._followed.items() if f.state != "running")
        too_many = min(len(self._followed) - self._most_runs, len(over))
        for number, (over_unix, name) in enumerate(over):
            if number < too_many or wall - over_unix > max(self._retention, HISTORY_SECONDS):
                self.left_out += wall - over_unix <= self._retention
                self._leave(name, self._followed[name].signature)

    def _leave(self, name: str, signature: tuple[int, int, int]) -> None:
        del self._followed[name]
        self._over[name] = signature

    # What is shown

    def _publish(self) -> None:
        chosen = self._chosen()
        snapshots = tuple(self._shown(chosen))
        if len(snapshots) != len(self.snapshots) or any(a is not b for a, b in zip(snapshots, self.snapshots, strict=True)):
            self.snapshots = snapshots
        hosts = {followed.header.host for followed in self._followed.values()}
        self._read_unix = {host: at for host, at in self._read_unix.items() if host in hosts}
        self.read_unix = dict(self._read_unix)

    def _chosen(self) -> list[_Followed]:
        wall = self._wall()
        shown = [f for f in self._followed.values() if wall - f.over_unix <= self._retention]
        return sorted(shown, key=lambda f: (f.over_unix, f.header.at_unix), reverse=True)[: self._most_runs]

    def _shown(self, chosen: list[_Followed]) -> Iterator[Snapshot]:
        groups: dict[str, list[_Followed]] = {}
        for followed in chosen:
            groups.setdefault(followed.run_id, []).append(followed)
        for group in groups.values():
            yield from self._of_one_run(sorted(group, key=lambda f: (f.order, f.at_unix), reverse=True))

    def _of_one_run(self, newest_first: list[_Followed]) -> Iterator[Snapshot]:
        """One for each host: its newest attempt. Figures of the whole run come from the newest process that leads."""
        hosts: set[str] = set()
        led = False
        for followed in newest_first:
            if followed.header.host in hosts:
                continue  # An earlier attempt, which the newer one has inherited, or a copy.
            hosts.add(followed.header.host)
            leads = followed.header.leads and not led
            led |= leads
            yield self._snapshot(followed, leads)

    def _snapshot(self, followed: _Followed, leads: bool) -> Snapshot:
        """Made anew only where something has changed, so that whoever renders it can tell by its identity."""
        silent = self._now() - followed.heard_at > read.patience(followed.header)
        of = (followed.line, followed.header, followed.state, silent, leads)
        if followed.snapshot is None or not _same(of, followed.snapshot_of):
            followed.snapshot, followed.snapshot_of = _snapshot(followed, leads, silent), of
        return followed.snapshot

    def _claims(self) -> Iterator[Claim]:
        boot, too_old = self._here.boot_id, self._now() - REMEMBERED_SECONDS
        newest: dict[tuple[object, ...], tuple[float, _Followed]] = {}
        for followed in list(self._followed.values()):
            header, line = followed.header, followed.line
            if header.process.boot_id != boot if boot else header.host != self._here.host:
                continue
            # A copy claims nothing, however old it is.
            who = (followed.run_id, header.launch, header.process.pid, header.process.started)
            at = header.monotonic if line is None else line.monotonic
            if who not in newest or at > newest[who][0]:
                newest[who] = at, followed
        for at, followed in newest.values():
            if followed.state == "running" or at > too_old:
                yield from claims_of(followed.header, math.inf if followed.state == "running" else at)


def _signature(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _same(a: tuple[object, ...], b: tuple[object, ...]) -> bool:
    return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))


def _snapshot(followed: _Followed, leads: bool, silent: bool) -> Snapshot:
    header = followed.header
    snapshot = lines.snapshot(header, followed.line or nothing_yet(header))
    snapshot = replace(snapshot, state=followed.state, leads=leads)
    if followed.state == "running" and not silent:
        return snapshot
    # Nothing is known of the present any more, so nothing is said of it.
    devices = tuple(status._replace(watts=None, telemetry=None) for status in snapshot.devices)
    progress = snapshot.progress._replace(samples_per_second=None, eta_seconds=None)
    forecast = snapshot.forecast if followed.state == "running" else None
    return replace(snapshot, devices=devices, progress=progress, rates=None, cpu_watts=(), forecast=forecast)
