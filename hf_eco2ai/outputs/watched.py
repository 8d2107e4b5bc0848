"""Files that are read into memory, and whether they have changed since."""

import hashlib
import os
import stat
from pathlib import Path

from hf_eco2ai.errors import ConfigError

MOST_BYTES = 1_048_576
"""Configurations, keys and bundles of certificates are smaller; /dev/zero is not."""

Stamp = tuple[int, int, int]
"""mtime (ns), size, inode. A secret of Kubernetes is a symbolic link that is bent, which the inode tells."""


class WatchedFiles:
    """Reads files, and tells later whether they are still the same."""

    def __init__(self) -> None:
        self._stamps: dict[Path, Stamp | None] = {}
        self._exposed: set[Path] = set()
        self._content = hashlib.sha256()

    def read(self, path: Path) -> bytes:
        """Its content.

        Raises:
            ConfigError: it cannot be read; the message says why, and leaves it to the caller to name the file.

        """
        self._stamps[path] = None  # Stands for what cannot be read: once it can be, it has changed.
        if "\0" in str(path):
            raise ConfigError("cannot be read (not a path)")
        try:
            status = path.stat()
            content = self._content_of(path, status)
        except OSError as error:
            raise ConfigError(f"cannot be read ({error.strerror})") from None
        self._stamps[path] = _stamp(status)
        if _is_exposed(status):
            self._exposed.add(path)
        self._content.update(b"%d:" % len(content) + content)
        return content

    @property
    def content(self) -> bytes:
        """A digest of all that was read."""
        return self._content.digest()

    def is_exposed(self, path: Path) -> bool:
        """Whether a file that was read may be read by users whom it does not concern."""
        return path in self._exposed

    def have_changed(self) -> bool:
        """Whether one of them is not what was read."""
        return any(_current_stamp(path) != stamp for path, stamp in self._stamps.items())

    @staticmethod
    def _content_of(path: Path, status: os.stat_result) -> bytes:
        if not stat.S_ISREG(status.st_mode):  # Opening a named pipe would wait for whoever writes into it.
            raise ConfigError("is not a file")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ConfigError(f"is larger than {MOST_BYTES} bytes")
        return content


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_mtime_ns, status.st_size, status.st_ino


def _current_stamp(path: Path) -> Stamp | None:
    try:
        return _stamp(path.stat())
    except (OSError, ValueError):
        return None


def _is_exposed(status: os.stat_result) -> bool:
    """A file of root's that our group may read is how a daemon without root gets its key; our own need not be."""
    ours = status.st_uid == os.geteuid()
    return bool(status.st_mode & (stat.S_IROTH | (stat.S_IRGRP if ours else 0)))
