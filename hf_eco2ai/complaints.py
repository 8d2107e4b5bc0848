"""What the daemon could not use, or did not let in: each is counted, and logged as often as helps."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from hf_eco2ai.journal.read import REFUSED_KINDS, Refused
from hf_eco2ai.outputs.logfmt import log
from hf_eco2ai.records import Failure

MOST_LINES = 20
"""So many lines of one journal are logged; how many more there are tells `hf_exporter_lines_refused_total`."""

MOST_REMEMBERED = 10_000
"""Journals, and causes of failures, of which it is known what has been logged. Beyond, those known longest are forgotten."""

MOST_CHARACTERS = 200
"""Of what is logged of a refused request."""

QUIET_SECONDS = 3600.0
"""A cause of failures that has been quiet for so long is said again when it comes back."""

MOST_A_SECOND = 20
"""So many refused requests are logged in a second, so that nobody fills a disk by knocking."""


class Complaints:
    """Called from several threads; a counter that two of them raise at once may miss one, which nobody will."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.lines: dict[str, int] = dict.fromkeys(REFUSED_KINDS, 0)
        """Refused lines of journals, and journals, by kind of reason."""
        self.failures: dict[str, int] = {}
        """What else went wrong, by type."""
        self._told: dict[Path, set[int | None]] = {}
        self._causes: dict[str, float] = {}
        """When each was last seen."""
        self._second = 0.0
        self._in_second = 0

    def line(self, refused: Refused) -> None:
        """A line of a journal, or a journal."""
        self.lines[refused.kind] += 1
        if refused.path not in self._told and len(self._told) >= MOST_REMEMBERED:
            del self._told[next(iter(self._told))]
        told = self._told.setdefault(refused.path, set())
        if refused.line in told or len(told) >= MOST_LINES:
            return
        told.add(refused.line)
        further = {"further": "of this journal are only counted"} if len(told) == MOST_LINES else {}
        line = {} if refused.line is None else {"line": refused.line}
        log(logging.WARNING, "left out of a journal", path=refused.path, **line, reason=refused.reason, **further)

    def failure(self, failure: Failure) -> None:
        """Something else: logged once per cause, and again where it comes back after a while."""
        self.failures[failure.error_type] = self.failures.get(failure.error_type, 0) + 1
        now, seen = self._now(), self._causes.pop(failure.cause, -math.inf)
        if len(self._causes) >= MOST_REMEMBERED:
            del self._causes[next(iter(self._causes))]
        self._causes[failure.cause] = now
        if now < seen + QUIET_SECONDS:
            return
        log(logging.WARNING, failure.message, type=failure.error_type)

    def is_over(self, cause: str) -> None:
        """If it comes again it is said again."""
        self._causes.pop(cause, None)

    def request(self, reason: str, fields: Mapping[str, object]) -> None:
        """A request or a connection that was sent away."""
        now = self._now()
        if now >= self._second + 1:
            if self._in_second > MOST_A_SECOND:
                log(logging.WARNING, "further requests refused", count=self._in_second - MOST_A_SECOND)
            self._second, self._in_second = now, 0
        self._in_second += 1
        if self._in_second <= MOST_A_SECOND:
            log(logging.WARNING, "request refused", reason=reason, **{k: str(v)[:MOST_CHARACTERS] for k, v in fields.items()})
