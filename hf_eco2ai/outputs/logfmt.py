"""Log lines as `key=value` (logfmt), as Prometheus' own exporters write them. One event, one line, whatever is in it."""

import logging
import re
from datetime import datetime, timezone
from typing import Any

_PLAIN = re.compile(r"[\w./:@%+~,;!?&*()\[\]<>|-]+")

FIELDS = "fields"
"""Key of `extra` under which a record carries what stands on its line beside the message."""


def log(level: int, message: str, **fields: object) -> None:
    """A line of our log, with fields."""
    logging.getLogger("hf_eco2ai").log(level, "%s", message, extra={FIELDS: fields})


class Logfmt(logging.Formatter):
    """`ts=… level=warning msg="…" path=/x line=3`. Control characters and quotes are escaped, so a name cannot forge a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline."""
        at = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        fields: dict[str, Any] = {"ts": at, "level": record.levelname.lower(), "msg": record.getMessage()}
        fields.update(getattr(record, FIELDS, {}))
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return " ".join(f"{name}={quoted(value)}" for name, value in fields.items())


def quoted(value: object) -> str:
    """A value as it stands after `=`: as it is where that is plain, else in quotes with escapes."""
    text = str(value)
    if _PLAIN.fullmatch(text) and text.isascii():
        return text
    return '"' + "".join(_escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    if character in {'"', "\\"}:
        return "\\" + character
    if character == "\n":
        return "\\n"
    return character if character.isprintable() else f"\\u{ord(character):04x}" if ord(character) < 0x10000 else "\ufffd"  # noqa: PLR2004


def log_to_stderr(level: int) -> None:
    """All that this process logs, in this format. Called once, by the daemon."""
    handler = logging.StreamHandler()
    handler.setFormatter(Logfmt())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("hf_eco2ai").setLevel(level)
