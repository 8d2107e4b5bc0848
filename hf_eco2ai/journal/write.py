"""Write a journal from a thread of its own, so that neither training nor measuring ever waits for a disk."""

import errno
import os
import stat
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from hf_eco2ai.journal.format import Header, Totals, to_bytes, totals_line
from hf_eco2ai.journal.read import head
from hf_eco2ai.records import Failure, Snapshot

fcntl: Any = import_module("fcntl") if os.name == "posix" else None


SUFFIX = ".ndjson"
MOST_ATTEMPTS = 100_000
LONGEST_NAME = 100

PENDING_LINES = 100
"""Marks that wait for a slow disk; beyond, the oldest goes, which loses nothing since lines are cumulative."""


def file_name(run_id: str, host: str, attempt: int) -> str:
    """`<run>.<host>.<attempt>.ndjson`, with whatever a file system might not like in percent signs."""
    return f"{name_prefix(run_id)}{quote(host, safe='')[:LONGEST_NAME]}.{attempt}{SUFFIX}"


def name_prefix(run_id: str) -> str:
    """What the names of all journals of a run begin with."""
    return quote(run_id, safe="").replace(".", "%2E")[:LONGEST_NAME] + "."


class Files(Protocol):
    """The calls of `os` that a journal is written with."""

    def open(self, path: str, flags: int, mode: int = ...) -> int: ...  # noqa: D102 - as os documents them
    def write(self, fd: int, data: bytes, /) -> int: ...  # noqa: D102
    def fdatasync(self, fd: int, /) -> None: ...  # noqa: D102
    def fstat(self, fd: int, /) -> os.stat_result: ...  # noqa: D102
    def fchmod(self, fd: int, mode: int, /) -> None: ...  # noqa: D102
    def close(self, fd: int, /) -> None: ...  # noqa: D102


class File:
    """One journal file: made once, appended to line by line. Every method raises OSError when the disk does.

    After a failure the next line begins anew: a line that was torn is ended first, a file that was deleted is made again with
    its header.
    """

    def __init__(self, folder: Path, files: Files = os) -> None:
        self._folder = folder
        self._files = files
        self._fd: int | None = None
        self._torn = False
        """Whether the file may end in the middle of a line."""
        self.header: Header | None = None
        """As written; None before."""
        self.path: Path | None = None
        self.bytes_written = 0

    def begin(self, header: Header) -> Header:
        """Make the file, with the first attempt number that is free, and write the header. Returns it as written."""
        make_folder(self._folder)
        for attempt in range(header.attempt, header.attempt + MOST_ATTEMPTS):
            path = self._folder / file_name(header.run.run_id, header.host, attempt)
            try:
                self._make(path, header.model_copy(update={"attempt": attempt}))
            except FileExistsError:
                continue
            return header if self.header is None else self.header
        raise OSError(errno.EEXIST, f"{MOST_ATTEMPTS} attempts of one run", str(self._folder))

    def append(self, line: Totals) -> None:
        """Write a line in one call, and have it on the disk."""
        if not self._is_there():
            self._again()
        self._write(to_bytes(line))
        if self._fd is not None:
            self._sync(self._fd)

    def _make(self, path: Path, header: Header) -> None:
        """A new file with its header, or none at all: without a header it would be of no use to anyone."""
        self._open(path, os.O_CREAT | os.O_EXCL)
        self._torn = False
        header = header.model_copy(update={"process": header.process.model_copy(update={"locks": self._lock()})})
        try:
            self._write(to_bytes(header))
        except (OSError, ValueError):
            self.close()
            path.unlink(missing_ok=True)
            raise
        self.header, self.path = header, path

    def _again(self) -> None:
        """Open the file again after a failure, or make it again where it has been deleted."""
        self.close()
        if self.header is None or self.path is None:
            raise OSError(errno.EBADF, "the journal has not begun")
        make_folder(self._folder)
        try:
            self._make(self.path, self.header)
        except FileExistsError:
            written = head(self.path)
            if written is None or written.launch != self.header.launch or written.process.pid != self.header.process.pid:
                self.begin(self.header)  # Another journal has taken the name meanwhile.
            else:
                self._open(self.path, 0)
                self._lock()

    def _is_there(self) -> bool:
        if self._fd is None:
            return False
        try:
            return self._files.fstat(self._fd).st_nlink > 0
        except OSError:  # ESTALE: a handle of NFS that has become worthless.
            return False

    def _open(self, path: Path, flags: int) -> None:
        is_shared = shared(self._folder)
        # O_NOFOLLOW: whoever may write to a shared folder must not lead us to another file of ours.
        flags |= os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = self._files.open(str(path), flags, 0o640 if is_shared else 0o600)
        if is_shared:
            with suppress(OSError):  # A file system without modes.
                self._files.fchmod(self._fd, 0o640)  # Whatever the umask says: the daemon of the group must be able to read it.

    def _lock(self) -> bool:
        """Hold the file as long as the process lives, which other containers of the machine cannot see otherwise."""
        if fcntl is None or self._fd is None:
            return False
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # A file system without locks.
            return False
        return True

    def _write(self, line: bytes) -> None:
        if self._fd is None:
            raise OSError(errno.EBADF, "the journal is closed")
        data = b"\n" + line if self._torn else line
        self._torn = True  # Until it is known how much has been written.
        try:
            written = self._files.write(self._fd, data)
        except OSError:
            self.close()  # The next line begins with a fresh handle, since a stale one of NFS does not recover.
            raise
        self.bytes_written += written
        self._torn = written < len(data)
        if self._torn:
            raise OSError(errno.ENOSPC, "only a part of a line could be written", str(self.path))

    def _sync(self, fd: int) -> None:
        try:
            self._files.fdatasync(fd)
        except OSError as error:
            if error.errno not in {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}:  # A file system that has no such thing.
                self.close()
                raise

    def close(self) -> None:
        """Give the file back."""
        fd, self._fd = self._fd, None
        if fd is not None:
            with suppress(OSError):  # NFS tells of a failed write when closing; what was lost comes with the next line.
                self._files.close(fd)


def make_folder(folder: Path) -> None:
    """Make the folder for its user alone, where there is none."""
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def shared(folder: Path) -> bool:
    """Whether a folder is set up for a group, as /var/lib/hf-eco2ai/runs is (2770): its journals may be read by that group."""
    return bool(folder.stat().st_mode & stat.S_ISGID)


class _Note(NamedTuple):
    snapshot: Snapshot
    at: float
    mark: bool = False
    end: bool = False


class Journal:
    """Takes snapshots from the sampler and writes them every `interval` s, at marks, and at the end.

    `header` makes the header from the first snapshot. `look` is called in the same thread, once at the beginning and then at
    each interval, for what else has to do with the folder, and `leave` at the end. Failures go to `fail`, and what failed is
    tried again.
    """

    def __init__(
        self,
        folder: Path,
        header: Callable[[Snapshot], Header],
        *,
        interval: float,
        now: Callable[[], float],
        fail: Callable[[Failure], None],
        look: Callable[[], None] = lambda: None,
        leave: Callable[[], None] = lambda: None,
        files: Files = os,
    ) -> None:
        self._file = File(folder, files)
        self._folder = folder
        self._make_header = header
        self._interval = interval
        self._now = now
        self._fail = fail
        self._look = look
        self._leave = leave
        self._pending: deque[_Note] = deque(maxlen=PENDING_LINES)
        self._last_note = float("-inf")
        self._wake = threading.Event()
        self._looked = threading.Event()
        self._finished = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="hf_eco2ai-journal", daemon=True)
        self._thread.start()

    @property
    def path(self) -> Path | None:
        """The file; None before it is made."""
        return self._file.path

    @property
    def bytes_written(self) -> int:
        """By this process."""
        return self._file.bytes_written

    def note(self, snapshot: Snapshot, mark: bool) -> None:
        """The sampler has a new snapshot: it is written if it is time, or if a phase has just changed. Does not wait."""
        now = self._now()
        if mark or now >= self._last_note + self._interval:
            self._last_note = now
            self._pending.append(_Note(snapshot, now, mark=mark))
            self._wake.set()

    def look(self, wait: float) -> None:
        """Look at the folder now, and wait for that `wait` s at most."""
        self._looked.clear()
        self._wake.set()
        self._looked.wait(wait)

    def close(self, snapshot: Snapshot | None, wait: float) -> None:
        """Write the end line, and wait for that `wait` s at most. A disk that hangs longer does not hold up the end of a run."""
        if snapshot is not None:
            self._pending.append(_Note(snapshot, self._now(), end=True))
        self._closing = True
        self._wake.set()
        self._finished.wait(wait)

    def _run(self) -> None:
        try:
            while not self._closing:
                self._attempt(self._look, "look")
                self._looked.set()
                self._write_pending()
                self._wake.wait()
                self._wake.clear()
            self._write_pending()
            self._attempt(self._leave, "look")
            self._attempt(self._file.close, "close")
        finally:
            self._looked.set()
            self._finished.set()

    def _write_pending(self) -> None:
        while self._pending:
            note = self._pending[0]
            if self._attempt(partial(self._write, note), "write"):
                if self._pending and self._pending[0] is note:
                    self._pending.popleft()
            elif len(self._pending) == 1:
                return  # It waits for the next occasion.
            else:
                while len(self._pending) > 1:  # The newest tells all that the others would, so only that is tried again.
                    self._pending.popleft()

    def _write(self, note: "_Note") -> None:
        header = self._file.header or self._file.begin(self._make_header(note.snapshot))
        self._file.append(totals_line(note.snapshot, header, monotonic=note.at, mark=note.mark, end=note.end))

    def _attempt(self, action: Callable[[], None], what: str) -> bool:
        try:
            action()
        except (OSError, ValueError) as error:
            reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
            self._fail(
                Failure(
                    "journal_failed",
                    f"journal {what} {type(error).__name__} {getattr(error, 'errno', '')}",
                    f"The journal in {self._folder} cannot be {_PAST[what]} ({reason}). Training goes on and it is tried again; "
                    "until then a crash would lose these figures. Set runs_dir to a folder that can be written.",
                )
            )
            return False
        return True


_PAST = {"look": "looked at", "write": "written", "close": "closed"}
