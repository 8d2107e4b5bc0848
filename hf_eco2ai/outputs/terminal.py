"""What a person at the terminal sees while something is measured."""

import logging
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress

from hf_eco2ai.outputs.text import wrapped

logger = logging.getLogger("hf_eco2ai")


def columns() -> int:
    """Width of the terminal, by COLUMNS, stdout or stderr; 0 where there is none, whose lines may be as long as they are."""
    known = shutil.get_terminal_size(fallback=(0, 0)).columns
    if not known:
        with suppress(OSError, ValueError, AttributeError):  # It is none, is closed, or is not there at all.
            known = os.get_terminal_size(sys.__stderr__.fileno()).columns if sys.__stderr__ is not None else 0
    return known


def to_stderr(lines: str) -> None:
    """For those whose stdout is their own. Where nobody can read it (a closed pipe, a full disk), it goes unsaid."""
    with suppress(OSError, ValueError):
        if sys.stderr is not None:
            sys.stderr.write(lines + "\n")
            sys.stderr.flush()


def say(lines: str, write: Callable[[str], None] = to_stderr) -> None:
    """Broken to the width of the terminal."""
    write(wrapped(lines, columns()))


class _Warnings(logging.Handler):
    """Says our warnings, as long as the application has set up no logging of its own."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers:
            say(f"hf_eco2ai: {record.getMessage()}", self._write)


def show_warnings(write: Callable[[str], None] = to_stderr) -> None:
    """From now on; once for the process."""
    if not logger.handlers:
        logger.addHandler(_Warnings(write))
