"""How much a process's own counter has grown in a window, to the unit."""

from hf_eco2ai.stack.promql import began, once
from hf_eco2ai.stack.recording import SEEN

_UNSEEN = "1h"
"""A counter that has been shown within so long before the window goes on from there."""

_KNOWN = "1d"
"""A run that was there within so long before the window has not begun in it, whenever it is served again."""


def grown(counter: str, window: str, *by: str) -> str:
    """What was counted in the window: now, less what it stood at when the window began.

    `increase()` leaves out what a counter began with, and guesses the rest. One that stood higher has begun again with another
    process, at 0, as has one that Prometheus saw begin. Of others nobody knows how old their count is: theirs is from the first
    value in the window. What is served no more counts as long as the window.
    """
    now = once(f"last_over_time({counter}[{window}])", *by)
    before = once(f"last_over_time({counter}[{_UNSEEN}] offset {window})", *by)
    first = once(f"min_over_time({counter}[{window}])", *by)
    new = began(counter, *by)
    if "run_id" in by:
        new = f"({new} unless on (run_id) last_over_time({SEEN}[{_KNOWN}] offset {window}))"
    return f"(({now} - ({before} <= {now})) or ({now} - ({first} unless {before} unless {new})) or {now})"
