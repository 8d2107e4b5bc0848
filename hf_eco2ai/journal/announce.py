"""What serving processes leave in the runs folder for others to find: a daemon its address, an endpoint its target.

Both go with their process. Where that was killed they stay behind, and whoever comes next clears them away.
"""

import errno
import json
import math
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, ValidationError

from hf_eco2ai.journal import read
from hf_eco2ai.journal.format import ProcessIdentity
from hf_eco2ai.journal.read import Here
from hf_eco2ai.journal.write import LONGEST_NAME, name_prefix, shared
from hf_eco2ai.records import Failure

fcntl: Any = import_module("fcntl") if os.name == "posix" else None

DAEMON_SUFFIX = ".daemon.json"
TARGET_SUFFIX = ".target.json"
"""Prometheus finds endpoints by `file_sd_configs: [{files: [<runs folder>/*.target.json]}]`."""

ANNOUNCE_SECONDS = 10.0
CLEAR_SECONDS = 300.0
"""How often to see whether the folder still says who serves it, and what dead processes have left in it."""

MOST_BYTES = 1 << 16
META = "__meta_hf_eco2ai_"
"""Labels that begin so are for relabelling only: Prometheus does not put them on series."""


class DaemonAddress(BaseModel):
    """Where a daemon is that serves the runs of this folder."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    url: str
    host: str
    boot_id: str
    all_hosts: bool

    def serves(self, here: Here) -> bool:
        """Whether it serves runs of this machine."""
        return self.all_hosts or self.host == here.host or bool(here.boot_id and self.boot_id == here.boot_id)


class DaemonFile:
    """A daemon's address, locked for as long as it lives, so that nobody takes the word of one that is gone.

    Raises:
        OSError: the folder cannot be written, as where it is mounted read-only.

    """

    def __init__(self, folder: Path, address: DaemonAddress) -> None:
        # Not by the number of the process: in a container that is 1, and a host's name may be another's too.
        self._path = folder / f"{quote(address.host, safe='')[:LONGEST_NAME]}.{secrets.token_hex(4)}{DAEMON_SUFFIX}"
        if fcntl is None:
            raise OSError(errno.ENOSYS, "no file locks here")
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._fd, 0)
            os.write(self._fd, address.model_dump_json().encode())
            if shared(folder):
                os.fchmod(self._fd, 0o640)
        except OSError:
            self.close()
            raise

    def is_there(self) -> bool:
        """Whether it still lies in the folder, which may have been deleted and made again."""
        with suppress(OSError):
            mine, there = os.fstat(self._fd), self._path.stat()
            return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)
        return False

    def close(self) -> None:
        """Take it away."""
        if self._fd >= 0:
            if self.is_there():
                _unlink(self._path)
            os.close(self._fd)
            self._fd = -1


class Announcement:
    """Keeps a daemon's address in the folder, also where that is deleted and made again, and clears away what dead ones left."""

    def __init__(self, folder: Path, address: DaemonAddress, here: Here, fail: Callable[[Failure], None]) -> None:
        self._folder = folder
        self._address = address
        self._here = here
        self._fail = fail
        self._file: DaemonFile | None = None
        self._refused: int | None = None
        self._next_look = self._next_clearing = -math.inf

    def keep(self, now: float) -> None:
        """See to it, `now` and then, on a monotonic clock."""
        if now < self._next_look or not self._folder.is_dir():
            return
        self._next_look = now + ANNOUNCE_SECONDS
        if now >= self._next_clearing:
            self._next_clearing = now + CLEAR_SECONDS
            clear(self._folder, self._here)
        if self._file is not None:
            if self._file.is_there():
                return
            self._file.close()
            self._file = None
        try:
            self._file = DaemonFile(self._folder, self._address)
        except OSError as error:
            if error.errno == self._refused:
                return  # A folder that is mounted read-only stays so: that is one failure, and not one more every 10 s.
            self._refused = error.errno
            what = (
                f"The runs folder {self._folder} cannot be written ({error.strerror}), so trainings do not know that they are "
                "served and open ports of their own. Let the daemon write to it, or set HF_ECO2AI_EXPORT_PROMETHEUS=false there."
            )
            self._fail(Failure("journal_failed", "announcement", what))
        else:
            self._refused = None

    def close(self) -> None:
        """The daemon ends."""
        if self._file is not None:
            self._file.close()


def daemon_of(folder: Path, here: Here) -> str | None:
    """The url of a living daemon that serves this folder's runs of this machine; None where there is none, or nobody knows."""
    for path in _files(folder, DAEMON_SUFFIX):
        if read.is_locked(path) is not True:
            continue
        with suppress(OSError, ValidationError):
            address = DaemonAddress.model_validate_json(read.ending(path, path.stat().st_size, MOST_BYTES))
            if address.serves(here):
                return address.url
    return None


class TargetFile:
    """An entry of Prometheus' file-based discovery for the endpoint of one run.

    Raises:
        OSError: the folder cannot be written.

    """

    def __init__(self, folder: Path, url: str, run_id: str, host: str, process: ProcessIdentity) -> None:
        self.path = folder / f"{name_prefix(run_id)}{quote(host, safe='')[:LONGEST_NAME]}.{process.pid}{TARGET_SUFFIX}"
        scheme, _, address = url.partition("://")
        labels = {
            "__scheme__": scheme,
            f"{META}run_id": run_id,
            f"{META}host": host,
            **{META + name: str(value) for name, value in process.model_dump(exclude={"locks"}).items()},
        }
        written = self.path.with_suffix(".tmp")
        fd = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(fd, json.dumps([{"targets": [address], "labels": labels}]).encode())
            if shared(folder):
                os.fchmod(fd, 0o640)
        finally:
            os.close(fd)
        written.replace(self.path)  # At once, since Prometheus reads it as soon as it is there.

    def remove(self) -> None:
        """The endpoint is no more."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


def clear(folder: Path, here: Here) -> None:
    """Take away what processes of this machine have left behind that are gone."""
    for path in _files(folder, DAEMON_SUFFIX):
        if read.is_locked(path) is False:
            _unlink(path)
    for path in _files(folder, TARGET_SUFFIX):
        with suppress(OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
            labels = json.loads(read.ending(path, path.stat().st_size, MOST_BYTES))[0]["labels"]
            if _is_gone(ProcessIdentity(**{name: labels[META + name] for name in _IDENTITY}), labels[f"{META}host"], here):
                _unlink(path)


_IDENTITY = tuple(name for name in ProcessIdentity.model_fields if name != "locks")


def _is_gone(process: ProcessIdentity, host: str, here: Here) -> bool:
    if process.boot_id != here.boot_id:
        return host == here.host  # The machine has been booted since.
    if process.pid_namespace != here.pid_namespace:
        return False  # Another container; nothing can be known.
    started = here.started(process.pid)
    return started is None or abs(started - process.started) >= 1


def _files(folder: Path, suffix: str) -> Iterator[Path]:
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - as in RunsFolder.paths
    except OSError:
        return
    for name in names:
        if name.endswith(suffix):
            yield folder / name


def _unlink(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
