"""How panels look, in one place, so that one thing looks the same everywhere: units, colours, bounds, words for states.

Colours are names of Grafana's own palette, which it draws to suit the light and the dark theme.
"""

from typing import Any

from hf_eco2ai.records import PHASES

Json = dict[str, Any]

ENERGY = "kwatth"
MASS = "masskg"
POWER = "watt"
SHARE = "percentunit"
PERCENT = "percent"
SECONDS = "s"
DURATION = "dtdurations"
COUNT = "short"
TEXT = "string"
"""Of labels: with another unit Grafana shows a run_id that looks like a number as that number."""
NUMBER = "none"
SMALL = "sci"
CELSIUS = "celsius"
JOULES = "joule"
AGO = "dateTimeFromNow"
MONEY = NUMBER
"""The currency is a label of the figure and stands beside it, for it is whatever the user has set."""

NO_DATA = "no data"
NONE = "none"
"""Where nothing is good news."""

GOOD, WARNING, BAD, PLAIN = "green", "orange", "red", "blue"
PHASE_COLOURS = dict(zip(PHASES, ("purple", "green", "blue", "orange", "red"), strict=True))
BASES = {"measured": GOOD, "modelled": WARNING, "simulated": "purple"}
STATES = {1: ("running", "green"), 2: ("ended", "blue"), 3: ("failed", "red"), 4: ("lost", "dark-red")}
"""States of a run as numbers, since a panel can only draw these."""


def steps(*bounds: tuple[float, str], base: str = GOOD) -> Json:
    """Colours from bounds on: `base` below the first of them."""
    return {"mode": "absolute", "steps": [{"color": base, "value": None}, *({"color": c, "value": v} for v, c in bounds)]}


def high_is_bad(warning: float, critical: float | None = None) -> Json:
    """Green, orange from the first bound on, red from the second on."""
    return steps((warning, WARNING), *(() if critical is None else ((critical, BAD),)))


def low_is_bad(bound: float) -> Json:
    """Orange below the bound."""
    return steps((bound, GOOD), base=WARNING)


def line(*bounds: float) -> Json:
    """For dashed lines alone: the first is a warning, the next is worse."""
    return steps(*zip(bounds, (WARNING, BAD), strict=False), base="transparent")


def plain() -> Json:
    """One colour that says neither good nor bad."""
    return steps(base=PLAIN)


def words(said: dict[int, tuple[str, str]]) -> list[Json]:
    """Numbers shown as words in a colour."""
    return [
        {
            "type": "value",
            "options": {
                str(number): {"text": text, "color": colour, "index": index}
                for index, (number, (text, colour)) in enumerate(said.items())
            },
        }
    ]
