"""Counters that go on across a restart of the daemon, be it after SIGKILL or a power cut.

One small JSON file, whose last field is the CRC-32 of all bytes before it. It is never changed: each time a whole new one is
written beside it, brought to the disk, and put in its place, so that at any moment one of the two is there in full.
"""

import errno
import json
import os
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from hf_eco2ai.errors import ConfigError, TakenError
from hf_eco2ai.records import Failure

fcntl: Any = import_module("fcntl") if os.name == "posix" else None

FORMAT = 1
"""Version of the file. A newer one is refused."""

_CHECK = b',"crc32":'
_NO_SYNC = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}
"""What a file system says that cannot bring a folder to the disk."""


class Files(Protocol):
    """The calls of `os` that the file is written with."""

    def open(self, path: str, flags: int, mode: int = ...) -> int: ...  # noqa: D102 - as os documents them
    def write(self, fd: int, data: bytes, /) -> int: ...  # noqa: D102
    def fsync(self, fd: int, /) -> None: ...  # noqa: D102
    def close(self, fd: int, /) -> None: ...  # noqa: D102
    def replace(self, src: str, dst: str) -> None: ...  # noqa: D102


class Kept:
    """Sections by name, each a JSON object that one part of the daemon keeps. May be used from any thread.

    What the disk refuses goes to `fail`, and the next `save` tries again.
    """

    def __init__(self, path: Path, fail: Callable[[Failure], None], files: Files = os) -> None:
        """Read what is kept. A damaged file is moved aside to `<name>.damaged`, which is said, and nothing is kept then.

        Raises:
            TakenError: another daemon keeps its counters in this folder.
            ConfigError: the file may not be read.

        """
        self._path = path
        self._fail = fail
        self._files = files
        self._lock = threading.Lock()
        self._held = _hold(path.parent)
        self._sections = self._read()
        self._is_saved = True

    def load(self, section: str) -> dict[str, Any]:
        """What was saved last under this name; empty if nothing was."""
        with self._lock:
            kept: dict[str, Any] = json.loads(self._sections.get(section, "{}"))
        return kept

    def save(self, section: str, content: dict[str, Any]) -> bool:
        """Keep this instead, and return once it is on the disk; False if the disk refuses. Figures keep all their digits."""
        text = json.dumps(content, allow_nan=False, separators=(",", ":"))
        with self._lock:
            if text != self._sections.get(section):
                self._sections[section] = text
                self._is_saved = False
            if not self._is_saved:
                self._is_saved = self._write()
            return self._is_saved

    def close(self) -> None:
        """Leave the folder to another daemon."""
        held, self._held = self._held, None
        if held is not None:
            os.close(held)

    def _read(self) -> dict[str, str]:
        try:
            data = self._path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise ConfigError(
                f"The kept counters in {self._path} cannot be read ({error.strerror}). Let this user read and write them, "
                "or name another folder with --state-dir."
            ) from error
        try:
            return _sections(data)
        except ValueError as problem:
            self._set_aside(str(problem))
            return {}

    def _set_aside(self, problem: str) -> None:
        aside = self._path.with_name(f"{self._path.name}.damaged")
        try:
            self._files.replace(str(self._path), str(aside))
            said = f"The file is now {aside.name}"
        except OSError as error:
            said = f"The file cannot be moved aside ({error.strerror}) and will be replaced"
        self._fail(
            Failure(
                "journal_refused",
                "kept refused",
                f"The kept counters in {self._path} are not used: {problem}. {said}; the counters begin again at 0.",
            )
        )

    def _write(self) -> bool:
        new = self._path.with_name(f"{self._path.name}.new")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write_all(new, _to_bytes(self._sections))
            self._files.replace(str(new), str(self._path))
            self._sync_folder()
        except OSError as error:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            self._fail(
                Failure(
                    "journal_failed",
                    f"kept {error.errno}",
                    f"The counters cannot be kept in {self._path} ({error.strerror}). They go on and it is tried again; until "
                    "then a restart would lose what has been counted. Make room or give write access there, or name another "
                    "folder with --state-dir.",
                )
            )
            return False
        return True

    def _write_all(self, path: Path, data: bytes) -> None:
        # O_NOFOLLOW: whoever may write to the folder must not lead us to another file of ours.
        fd = self._files.open(str(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            while data:
                data = data[self._files.write(fd, data) :]
            self._files.fsync(fd)
        finally:
            self._files.close(fd)

    def _sync_folder(self) -> None:
        """Until the folder is on the disk, a power cut may bring back the file that was replaced."""
        fd = self._files.open(str(self._path.parent), os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._files.fsync(fd)
        except OSError as error:
            if error.errno not in _NO_SYNC:
                raise
        finally:
            self._files.close(fd)


def _to_bytes(sections: dict[str, str]) -> bytes:
    entries = ",".join(f"{json.dumps(name)}:{text}" for name, text in sections.items())
    body = f'{{"format":{FORMAT},"sections":{{{entries}}}'.encode()
    return b'%s%s"%08x"}\n' % (body, _CHECK, zlib.crc32(body))


def _sections(data: bytes) -> dict[str, str]:
    """The sections of a file, each as its JSON. Raises ValueError with what is wrong."""
    body, found, check = data.rpartition(_CHECK)
    if not found or check != b'"%08x"}\n' % zlib.crc32(body):
        raise ValueError("they are damaged, or not of hf-eco2ai")
    content = json.loads(body + b"}")
    version, sections = content.get("format"), content.get("sections")
    if not isinstance(version, int) or not isinstance(sections, dict):
        raise ValueError("they are not in a format of hf-eco2ai")  # noqa: TRY004 - a file's content, not an argument's type
    if version > FORMAT:
        raise ValueError(f"a newer version of hf-eco2ai wrote them (format {version}; this one reads up to {FORMAT})")
    return {name: json.dumps(section, separators=(",", ":")) for name, section in sections.items() if isinstance(section, dict)}


def _hold(folder: Path) -> int | None:
    """Hold the folder as long as the process lives: two daemons with one file would make each other's counters fall."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None  # `save` says what to do about it.
    try:
        if fcntl is not None:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(fd)
        raise TakenError(
            f"Another daemon keeps its counters in {folder}: stop that one, or name another folder with --state-dir."
        ) from error
    except OSError:
        pass  # A file system without locks.
    return fd
