"""Draws dashboards of some hours of a small cluster, for people to look at: `make pictures`.

python -m tests.stack.pictures [--out FOLDER] [--theme dark] [--keep] [--open-rows] [hf-carbon-tracking ...]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.daemon.prometheus import prometheus
from tests.stack.pictures import drawing, recorded
from tests.stack.pictures.answers import Asked, Range, seconds
from tests.stack.pictures.history import DAYS, HOURS, backfill

ROOT = Path(__file__).parents[3]

KEPT_LIGHT = ("hf-carbon-tracking",)

AHEAD = 60.0
"""Seconds in which the history is made, so that it ends when it is looked at."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dashboards", nargs="*", help="uids (default: all)")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "pictures", help="folder (default: build/pictures)")
    parser.add_argument("--theme", choices=("dark", "light", "both"), default="both")
    parser.add_argument(
        "--keep", action="store_true", help="put them into docs/images, small: all dark, and carbon tracking light too"
    )
    parser.add_argument("--open-rows", action="store_true", help="draw the panels of rows that are closed as well")
    return parser.parse_args()


def keep(picture: Path, uid: str, theme: str) -> None:
    """In docs/images, where it is one of those that the docs show."""
    if theme == "dark" or uid in KEPT_LIGHT:
        name = uid.replace("hf-", "dashboard-", 1) + ("-light" if theme == "light" else "")
        drawing.shrunk(picture, ROOT / "docs" / "images" / f"{name}.png")


def opened(dashboard: dict[str, Any]) -> dict[str, Any]:
    """With the panels of closed rows below them, and all others moved down to make room."""
    panels, lower = [], 0
    for panel in dashboard["panels"]:
        inner = panel.get("panels", [])
        panels.append(moved(panel, lower) | ({"collapsed": False, "panels": []} if inner else {}))
        if inner:
            top = min(one["gridPos"]["y"] for one in inner)
            lower += panel["gridPos"]["y"] + 1 - top
            panels += [moved(one, lower) for one in inner]
            lower += max(one["gridPos"]["y"] + one["gridPos"]["h"] for one in inner) - (panel["gridPos"]["y"] + 1)
    return dashboard | {"panels": panels}


def moved(panel: dict[str, Any], lower: int) -> dict[str, Any]:
    return panel | {"gridPos": panel["gridPos"] | {"y": panel["gridPos"]["y"] + lower}}


def pictured(dashboard: dict[str, Any], asked: Asked) -> dict[str, Any]:
    """What page.jsx draws, but for the theme."""
    variables = asked.variables(dashboard)
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    answers = {panel["id"]: list(asked.panel(panel, variables)) for panel in panels}
    empty = [panel["title"] for panel in panels if panel.get("targets") and not any(a["result"] for a in answers[panel["id"]])]
    print(f"{dashboard['uid']}: {len(panels)} panels" + (f", no data: {', '.join(empty)}" if empty else ""), flush=True)
    shown = {name: "All" if value == ".*" else value for name, value in variables.items()}
    over = {"from": asked.over.begin, "to": asked.over.end}
    return {"dashboard": dashboard, "answers": answers, "range": over, "variables": shown}


def over(dashboard: dict[str, Any], now: float) -> Range:
    """Its own time range, as far as there is a history: of some hours in full, of days only what adds up."""
    own = seconds(dashboard["time"]["from"])
    return Range(now - min(own, HOURS * 3600 if own <= 86400 else DAYS * 86400), now)


def main() -> None:
    options = arguments()
    drawing.installed()
    options.out.mkdir(parents=True, exist_ok=True)
    files = sorted((ROOT / "dashboards").glob("*.json"))
    dashboards = [json.loads(file.read_text()) for file in files if not options.dashboards or file.stem in options.dashboards]
    with tempfile.TemporaryDirectory() as made, drawing.studio() as studio:
        folder, end = Path(made), time.time() + AHEAD
        backfill(folder / "data", end)
        recorded.record(folder, end, json.dumps(dashboards))
        with prometheus(folder, [], rules=recorded.live(folder)) as server:
            now = recorded.wait(server, end)
            for dashboard in dashboards:
                drawn = pictured(opened(dashboard) if options.open_rows else dashboard, Asked(server, over(dashboard, now)))
                for theme in ("dark", "light") if options.theme == "both" else (options.theme,):
                    picture = options.out / f"{dashboard['uid']}-{theme}.png"
                    studio.draw({**drawn, "theme": theme}, picture)
                    if options.keep:
                        keep(picture, dashboard["uid"], theme)


if __name__ == "__main__":
    main()
