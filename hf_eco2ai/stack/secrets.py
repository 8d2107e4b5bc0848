"""secrets/: one file per secret, for its owner's eyes only. None is in a repr, message, environment variable or argument."""

import os
import stat
from pathlib import Path

from hf_eco2ai.errors import ConfigError

NAMES = ("slack_url", "pagerduty_key", "smtp_password", "discord_url", "webhook_url", "grafana_admin_password")
"""The files, each with one line."""


class Secrets:
    """The secrets in a folder. What is not there, or empty, is not known."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """Where it is kept."""
        return self.folder / name

    def get(self, name: str) -> str | None:
        """The secret; None where there is none.

        Raises:
            ConfigError: the file is there and cannot be read, or has more than one line.

        """
        try:
            text = self.path(name).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not plain text"
            raise ConfigError(f"the secret {self.path(name)} cannot be read: {reason}") from None
        if len(text.splitlines()) > 1:
            raise ConfigError(f"the secret {self.path(name)} should be one line")
        return text or None

    def put(self, name: str, secret: str) -> Path:
        """Keep it, readable by its owner only (0600), also where a file of that name was readable by others."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.path(name)
        written = path.with_name(f".{name}.new")
        written.unlink(missing_ok=True)
        fd = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.write(fd, secret.encode() + b"\n")
        finally:
            os.close(fd)
        written.replace(path)
        return path

    def exposed(self) -> list[Path]:
        """Those that others than their owner may read or write."""
        return [path for path in map(self.path, NAMES) if path.is_file() and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)]
