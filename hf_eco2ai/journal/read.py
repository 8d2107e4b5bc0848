"""Read journals whatever has happened to them: torn, damaged, interleaved, huge, or from the future. Memory stays bounded."""

import errno
import itertools
import math
import os
import stat
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from hf_eco2ai.journal.format import FORMAT, Done, Header, HostUsed, Line, Totals, checked
from hf_eco2ai.records import RunState

fcntl: Any = import_module("fcntl") if os.name == "posix" else None


LONGEST_LINE = 4 << 20
"""Bytes. A line of 64 GPUs is some 30 kB, and so is one of 15 hosts with 8 each; what is longer than this is none of ours."""

BLOCK = 1 << 16
TAIL = 8 << 20
"""So many bytes at the end of a file are searched for its last line; only then the whole file is read."""

_TOO_LONG = f"longer than {LONGEST_LINE} bytes"
_DAMAGED = "damaged or torn: its check is wrong or missing"
_FOREIGN = "not a line of a journal"
_NO_HEADER = "the header is missing"
IMPOSSIBLE = "impossible: "
"""Begins what is wrong with a line that is whole, and tells what cannot be."""
_SECOND_HEADER = f"{IMPOSSIBLE}a second header"

RefusedKind = Literal[
    "damaged", "foreign", "impossible", "newer_format", "no_header", "not_of_the_schema", "too_long", "unreadable"
]
_KINDS: dict[str, RefusedKind] = {
    _TOO_LONG: "too_long",
    _DAMAGED: "damaged",
    _FOREIGN: "foreign",
    _NO_HEADER: "no_header",
    IMPOSSIBLE: "impossible",
    "format ": "newer_format",
}
REFUSED_KINDS: tuple[RefusedKind, ...] = get_args(RefusedKind)

_KNOWN_BY = 24
"""So many bytes at the end of a line tell it from others: its check is in them."""

MOST_REFUSED = 100
"""So many damaged lines at the end of a file are told of at most."""

SILENT_INTERVALS = 4
SILENT_SECONDS = 20.0
"""A run on another host is lost after so many journal intervals without a line, and not before so many seconds."""

LONGEST_INTERVAL = 3600.0
"""Seconds. `journal_interval` is no longer, whatever a header says."""

MOST_USED = 1e18
"""Joules, grams, money or seconds: no run has used so much. Beyond, sums with others' figures would say nothing of those."""

LEAST_USED = -1e-3
"""The same. A total is a sum of parts of intervals, and rounding may put one below zero, by a billionth of it at most; that must
cost nobody his journal."""

MOST_DEVICES = 1024
"""Of one host. Each costs two series, and a line of the greatest length has room for twenty thousand."""

MOST_DONE = 1 << 63
"""Steps, samples, tokens or bytes; a double, which every figure becomes in the end, cannot hold an integer of any size."""

_LINE: TypeAdapter[Header | Totals] = TypeAdapter(Line)


class Refused(NamedTuple):
    """A line, or a file, that could not be used."""

    path: Path
    line: int | None
    """Counted from 1; None for the file as a whole, or where reading began in its middle."""
    reason: str

    @property
    def kind(self) -> RefusedKind:
        """What sort of reason it is, for a label."""
        known = next((kind for begin, kind in _KINDS.items() if self.reason.startswith(begin)), None)
        return known or ("unreadable" if self.line is None else "not_of_the_schema")

    def __str__(self) -> str:
        return f"{self.path}{'' if self.line is None else f', line {self.line}'}: {self.reason}"


Refuse = Callable[[Refused], None]


def ignore(_refused: Refused) -> None:
    """For readers that only want what can be read."""


class NewerFormatError(ValueError):
    """A header of a format that this version does not know."""

    def __init__(self, version: int) -> None:
        super().__init__(f"format {version}, written by a newer hf_eco2ai; this one reads {FORMAT}: upgrade it")


class _AnyHeader(BaseModel):
    """What the header of every format has, so that a newer one is known for what it is."""

    type: Literal["header"]
    format: int


def parse(line: bytes) -> Header | Totals:
    """One line, without its newline.

    Raises:
        NewerFormatError: it is the header of a newer format.
        ValueError: it is no line of a journal of this format; says why, in words without the line's content.

    """
    if not line.startswith(b"{"):
        raise ValueError(_FOREIGN)
    if not checked(line):
        raise ValueError(_DAMAGED)
    try:
        parsed = _LINE.validate_json(line)
    except ValidationError as error:
        _refuse_newer(line)
        first = error.errors(include_input=False, include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if isinstance(parsed, Header):
        _refuse_newer(line)
    wrong = _impossible(parsed)
    if wrong:
        raise ValueError(IMPOSSIBLE + wrong)
    return parsed


def _impossible(line: Header | Totals) -> str:
    """What cannot be in a line, however well it is formed; empty where nothing is. It would spoil the sums of other runs."""
    if isinstance(line, Header):
        done, accounts = line.done_before, line.inherited
        instants, counts = [line.begun_monotonic, line.run.started_unix], _counts(done)
    else:
        done, accounts = line.progress, [line.used, *line.elsewhere, *(line.inherited or [])]
        instants, counts = [], itertools.chain(_counts(done), _other_counts(line))
    if not all(map(math.isfinite, [line.at_unix, line.monotonic, *instants])):
        return "an instant that is no number"
    figures = itertools.chain(_seconds(done), *map(_figures, accounts))
    if not all(LEAST_USED <= figure <= MOST_USED for figure in figures):
        return "a total that is negative, no number, or more than there can be"
    if not all(0 <= count < MOST_DONE for count in counts):
        return "a count that is negative, or more than there can be"
    if max(len(line.devices), *(len(used.devices) for used in accounts), 0) > MOST_DEVICES:
        return f"more than {MOST_DEVICES} devices of one host"
    return ""


def _figures(used: HostUsed) -> Iterator[float]:
    for part in (used, used.wasted, *used.phases.values()):
        yield from (figure for figure in (part.joules, part.grams, part.energy_cost, part.compute_cost) if figure is not None)
    yield from used.grams_by_factor_type.values()
    yield from (phase.seconds for phase in used.phases.values())
    for device in used.devices.values():
        yield from (device.joules, device.observed_seconds)


def _seconds(done: Done) -> tuple[float, ...]:
    return () if done.step_durations is None else (done.step_durations.sum_seconds,)


def _counts(done: Done) -> Iterator[int]:
    yield from (done.steps, done.samples, done.tokens or 0, *done.failed_steps.values())
    if done.step_durations is not None:
        yield from done.step_durations.counts


def _other_counts(line: Totals) -> Iterator[int]:
    yield from (line.progress.global_step, line.progress.max_steps, line.progress.epochs, *line.errors.values())
    yield line.journal_bytes or 0
    if line.tree is not None:
        yield from (line.tree.processes, line.tree.rss_bytes, line.tree.peak_processes, line.tree.peak_rss_bytes)


def _refuse_newer(line: bytes) -> None:
    try:
        version = _AnyHeader.model_validate_json(line).format
    except ValidationError:
        return
    if version > FORMAT:
        raise NewerFormatError(version)


def _open(path: Path) -> BinaryIO:
    """For reading. Nothing but a plain file, since a pipe in a folder that others may write to would wait for ever."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a plain file", str(path))
    return os.fdopen(fd, "rb")


def ending(path: Path, size: int, count: int) -> bytes:
    """The last `count` bytes of a file of this size.

    Raises:
        OSError: the file cannot be opened or read.

    """
    with _open(path) as file:
        file.seek(max(0, size - count))
        return file.read(count)


def raw_lines(file: BinaryIO) -> Iterator[tuple[int, bytes | None, bool]]:
    """Number, content without newline, and whether a newline ended it; None for a line that is too long to be one."""
    number, pending, too_long = 1, bytearray(), False
    while block := file.read(BLOCK):
        *ended, rest = block.split(b"\n")
        for part in ended:
            too_long = too_long or len(pending) + len(part) > LONGEST_LINE
            yield number, None if too_long else bytes(pending + part), True
            number, too_long = number + 1, False
            pending.clear()
        too_long = too_long or len(pending) + len(rest) > LONGEST_LINE
        if too_long:
            pending.clear()
        else:
            pending += rest
    if pending or too_long:
        yield number, None if too_long else bytes(pending), False


def read(path: Path, refuse: Refuse = ignore) -> Iterator[Header | Totals]:
    """All lines of a journal that can be read, in order; the others go to `refuse`.

    Stops at a header of a newer format. A torn last line is what a crash leaves, and not reported.

    Raises:
        OSError: the file cannot be opened or read.

    """
    with _open(path) as file:
        for number, line, whole in raw_lines(file):
            if line is None:
                refuse(Refused(path, number, _TOO_LONG))
                continue
            try:
                yield parse(line)
            except NewerFormatError as error:
                refuse(Refused(path, number, str(error)))
                return
            except ValueError as error:
                if whole and line:
                    refuse(Refused(path, number, str(error)))


def head(path: Path, refuse: Refuse = ignore) -> Header | None:
    """The header of a journal: its first line. None where it cannot be read.

    Raises:
        OSError: the file cannot be opened or read.

    """
    with _open(path) as file:
        line = file.readline(LONGEST_LINE)
    if not line.endswith(b"\n"):
        if len(line) >= LONGEST_LINE:
            refuse(Refused(path, 1, _TOO_LONG))
        return None  # Being written just now, or torn by a crash in its first moment.
    try:
        parsed = parse(line[:-1])
    except ValueError as error:
        refuse(Refused(path, 1, str(error)))
        return None
    if not isinstance(parsed, Header):
        refuse(Refused(path, 1, _NO_HEADER))
        return None
    return parsed


def last(path: Path, refuse: Refuse = ignore) -> Totals | None:
    """The last line of totals that can be read, found from the end; None where there is none. For a file whose `head` was read.

    Damaged lines after it go to `refuse`; what a crash has torn does not.

    Raises:
        OSError: the file cannot be opened or read.

    """
    with _open(path) as file:
        end = file.seek(0, os.SEEK_END)
        found, refused = _last_in_tail(file, end)
        if found is not None or end <= TAIL:
            if refuse is not ignore:
                _refuse_all(file, path, refused, refuse)
            return found
    newest: Totals | None = None
    for line in read(path, refuse):
        newest = line if isinstance(line, Totals) else newest
    return newest


def _last_in_tail(file: BinaryIO, end: int) -> tuple[Totals | None, list[tuple[int, str]]]:
    """Also where the damaged lines after it begin, and what is wrong with them."""
    refused: list[tuple[int, str]] = []
    for offset, line in _backwards(file, end):
        if line is None:
            refused.append((offset, _TOO_LONG))
            continue
        try:
            parsed = parse(line)
        except ValueError as error:
            is_torn = offset + len(line) == end
            if line and not is_torn and len(refused) < MOST_REFUSED:
                refused.append((offset, str(error)))
            continue
        if isinstance(parsed, Totals):
            return parsed, refused
    return None, refused


def _backwards(file: BinaryIO, end: int) -> Iterator[tuple[int, bytes | None]]:
    """Where each line begins and what is in it, None for one that is too long, from the end, as far back as `TAIL`.

    Block by block, so that a long journal costs no more than a short one.
    """
    rest, too_long, position = b"", False, end
    while position > 0 and end - position < TAIL:
        size = min(BLOCK, position)
        position -= size
        file.seek(position)
        first, *others = file.read(size).split(b"\n")
        starts = list(itertools.accumulate((len(part) + 1 for part in others), initial=position + len(first) + 1))
        for start, part in zip(reversed(starts[:-1]), reversed(others), strict=True):
            too_long = too_long or len(part) + len(rest) > LONGEST_LINE
            yield start, None if too_long else part + rest
            rest, too_long = b"", False
        rest = first + rest
        if too_long or len(rest) > LONGEST_LINE:
            rest, too_long = b"", True
    if position == 0:
        yield 0, None if too_long else rest


def _refuse_all(file: BinaryIO, path: Path, found: list[tuple[int, str]], refuse: Refuse) -> None:
    """In the order of the file, with the numbers of the lines that begin at these offsets. Reads all before them, but once."""
    position, number = 0, 1
    for offset, reason in sorted(found):
        number += _newlines(file, position, offset)
        position = offset
        refuse(Refused(path, number, reason))


def _newlines(file: BinaryIO, begin: int, end: int) -> int:
    file.seek(begin)
    count, left = 0, end - begin
    while left > 0 and (block := file.read(min(BLOCK, left))):
        left -= len(block)
        count += block.count(b"\n")
    return count


def _whole(file: BinaryIO, end: int) -> int:
    """Where the line begins that is not all there yet: after the last newline before `end`."""
    position = end
    while position > 0:
        begin = max(0, position - BLOCK)
        file.seek(begin)
        newline = file.read(position - begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        position = begin
    return 0


def _totals(line: bytes) -> Totals | None:
    try:
        parsed = parse(line)
    except ValueError:
        return None
    return parsed if isinstance(parsed, Totals) else None


def before(path: Path, at_unix: float) -> Totals | None:
    """The last line of totals that was written at or before an instant; None where there is none.

    Found by bisection, since a journal of a month is a gigabyte.

    Raises:
        OSError: the file cannot be opened or read.

    """
    with _open(path) as file:
        low, high = 0, file.seek(0, os.SEEK_END)
        found: Totals | None = None
        while low < high:
            middle = (low + high) // 2
            line, following = _first_from(file, middle, high)
            if line is None or line.at_unix > at_unix:
                high = middle
            else:
                found, low = line, following
        return found


def _first_from(file: BinaryIO, position: int, end: int) -> tuple[Totals | None, int]:
    """The first readable line of totals that begins at or after `position` and before `end`, and where the next one begins."""
    file.seek(max(0, position - 1))
    if position > 0:
        _skip_line(file, end)  # The rest of a line that begins before.
    while file.tell() < end:
        line = file.readline(LONGEST_LINE)
        if not line:
            break
        if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
            _skip_line(file, end)
            continue
        totals = _totals(line.rstrip(b"\n"))
        if totals is not None:
            return totals, file.tell()
    return None, end


def _skip_line(file: BinaryIO, end: int) -> None:
    while (part := file.readline(BLOCK)) and not part.endswith(b"\n") and file.tell() < end:
        pass


class Tail:
    """Follows one journal as it grows: each `lines` yields what has been appended whole since the last."""

    def __init__(self, path: Path, refuse: Refuse = ignore) -> None:
        self.path = path
        self._refuse = refuse
        self._file: tuple[int, int] | None = None
        self.is_replaced = False
        """Whether another file has taken the name, where `lines` was not to start again."""
        self._begin()

    def _begin(self) -> None:
        self._offset = 0
        self._before = b""
        self._number: int | None = 0
        self._skipping = False
        self._newer = False
        self._has_header = False

    @property
    def number(self) -> int | None:
        """Of the last line that was read, counted from 1; None where reading began in the middle."""
        return self._number

    def to_end(self) -> Totals | None:
        """The newest line of totals that is there now; `lines` goes on after it. None where there is none yet.

        Found from the end: a journal of a month is a gigabyte. For a file whose `head` was read.

        Raises:
            OSError: the file cannot be opened or read.

        """
        with _open(self.path) as file:
            status = os.fstat(file.fileno())
            found, refused = _last_in_tail(file, status.st_size)
            if found is not None:
                self._file = (status.st_dev, status.st_ino)
                self._offset, self._number, self._has_header = _whole(file, status.st_size), None, True
                file.seek(max(0, self._offset - _KNOWN_BY))
                self._before = file.read(min(self._offset, _KNOWN_BY))
                # A line that is not all there is told of by `lines`, once it is too long to be one.
                told = [(offset, reason) for offset, reason in refused if offset < self._offset]
                _refuse_all(file, self.path, told, self._refuse)
                return found
        newest: Totals | None = None
        for line in self.lines():
            newest = line if isinstance(line, Totals) else newest
        return newest

    def lines(self, *, again: bool = True) -> Iterator[Header | Totals]:
        """New lines. Where another file has taken the name it starts `again` at the beginning, or says that it `is_replaced`.

        Raises:
            OSError: the file cannot be opened or read.

        """
        with _open(self.path) as file:
            status = os.fstat(file.fileno())
            if not self._is_known(file, status):
                if not again:
                    self.is_replaced = True
                    return
                self._begin()
            self._file = (status.st_dev, status.st_ino)
            file.seek(self._offset)
            while not self._newer and (line := file.readline(LONGEST_LINE)):
                if not line.endswith(b"\n"):
                    if len(line) < LONGEST_LINE:
                        return  # It is not all there yet.
                    if not self._skipping:
                        self._tell(file, self._offset, _TOO_LONG, whole=False)
                    self._offset, self._before, self._skipping = file.tell(), line[-_KNOWN_BY:], True
                    continue
                began, self._offset, self._before = self._offset, file.tell(), line[-_KNOWN_BY:]
                self._number = None if self._number is None else self._number + 1
                if self._skipping:
                    self._skipping = False
                    continue
                yield from self._parsed(file, began, line[:-1])

    def _is_known(self, file: BinaryIO, status: os.stat_result) -> bool:
        """By what stands before the place where it was left, too: a file that is made anew may get the number of the old one."""
        if self._file is None:
            return True
        if self._file != (status.st_dev, status.st_ino) or status.st_size < self._offset:
            return False
        file.seek(self._offset - len(self._before))
        return file.read(len(self._before)) == self._before

    def _parsed(self, file: BinaryIO, began: int, line: bytes) -> Iterator[Header | Totals]:
        try:
            parsed = parse(line)
        except ValueError as error:
            self._newer = isinstance(error, NewerFormatError)
            if line:
                self._tell(file, began, str(error), whole=True)
            return
        if isinstance(parsed, Header):
            if self._has_header:
                self._tell(file, began, _SECOND_HEADER, whole=True)
                return
            self._has_header = True
        yield parsed

    def _tell(self, file: BinaryIO, began: int, reason: str, *, whole: bool) -> None:
        """Refuse the line that begins there; one that is not whole has not been counted yet."""
        if self._number is None:  # Reading began in the middle, so this once the lines before are counted.
            after = file.tell()
            self._number = _newlines(file, 0, began) + (1 if whole else 0)
            file.seek(after)
        self._refuse(Refused(self.path, self._number + (0 if whole else 1), reason))


# Whether the run still lives


class Here(NamedTuple):
    """What this process knows of its host, to tell whether the writer of a journal lives."""

    host: str
    boot_id: str
    pid_namespace: str
    started: Callable[[int], float | None]
    """When a process of this pid began, in seconds after boot; None where there is none that runs, NaN where that is hidden."""

    @classmethod
    def now(cls, host: str, root: Path = Path("/")) -> "Here":
        """Read off the kernel; empty strings where it does not say."""
        return cls(host, boot_id(root), pid_namespace(root), lambda pid: process_started(pid, root))


def boot_id(root: Path = Path("/")) -> str:
    """Changes with every boot of the machine; the same in all its containers."""
    try:
        return (root / "proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def pid_namespace(root: Path = Path("/")) -> str:
    """Process numbers mean something only within it."""
    try:
        return str((root / "proc/self/ns/pid").readlink())
    except OSError:
        return ""


def process_started(pid: int, root: Path = Path("/")) -> float | None:
    """When a process began, in seconds after boot; None where there is none, or only a zombie.

    NaN for another user's where /proc does not show those (mounted with hidepid).
    """
    try:
        # proc(5): the name in field 2 may hold anything, so what follows its closing bracket is counted: 3 state, 22 starttime.
        fields = (root / f"proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        state, ticks = fields[0], int(fields[19])
    except (OSError, ValueError, IndexError):
        return math.nan if _is_hidden(pid) else None
    return None if state in {b"Z", b"X", b"x"} else ticks / os.sysconf("SC_CLK_TCK")


def _is_hidden(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return False  # It began just now.


def is_locked(path: Path) -> bool | None:
    """Whether a living process holds the lock of a journal; None where that cannot be told.

    The kernel ends the lock with the process, in whatever container that was. It does not reach other machines.
    """
    if fcntl is None:
        return None
    try:
        with _open(path) as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


def state(
    header: Header,
    line: Totals | None,
    here: Here,
    changed_unix: float,
    locked: Callable[[], bool | None] = lambda: None,
    now_unix: float | None = None,
) -> RunState:
    """What has become of the run of a journal, whose file last changed at `changed_unix`.

    On the same boot of the same machine the process tells: if it is gone without an end line, the run is lost. In another
    container of that machine its lock on the file does (`locked`). Elsewhere silence does.
    """
    if line is not None and line.type == "end":
        return line.state
    writer = header.process
    if writer.boot_id and writer.boot_id == here.boot_id:
        if writer.pid_namespace == here.pid_namespace:
            started = here.started(writer.pid)
            if started is None:
                return "lost"
            if not math.isnan(started):
                return "running" if abs(started - writer.started) < 1 else "lost"
        held = locked() if writer.locks else None
        if held is not None:
            return "running" if held else "lost"
    elif writer.boot_id and here.boot_id and header.host == here.host:
        return "lost"  # The machine has been booted since.
    now = time.time() if now_unix is None else now_unix
    said = header.at_unix if line is None else line.at_unix
    last_sign = max(changed_unix, said) if said <= now else changed_unix  # The writer's clock may be far ahead of ours.
    return "lost" if now - last_sign > patience(header) else "running"


def patience(header: Header) -> float:
    """Seconds of silence after which nothing is known of the present of a run any more."""
    return max(SILENT_SECONDS, SILENT_INTERVALS * min(LONGEST_INTERVAL, header.journal_interval))
