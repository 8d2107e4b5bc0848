"""How much a process's own counter has grown in a window, to the unit."""

from hf_eco2ai.stack.promql import once

_UNSEEN = "1h"
"""A counter that nobody has shown for so long before the window began with it, at 0."""


def grown(counter: str, window: str, *by: str) -> str:
    """What was counted in the window: now, less what it stood at when the window began.

    `increase()` leaves out what a counter began with, and guesses the rest. One that stood higher has begun again with another
    process. What is served no more counts as long as the window.
    """
    now = once(f"last_over_time({counter}[{window}])", *by)
    before = once(f"last_over_time({counter}[{_UNSEEN}] offset {window})", *by)
    return f"(({now} - ({before} <= {now})) or {now})"
