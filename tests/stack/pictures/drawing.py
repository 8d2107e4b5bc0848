"""A dashboard as a picture: Grafana's own components, bundled by esbuild, drawn by Chromium, and made small."""

import functools
import http.server
import json
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"

WIDTH = 1400
HEAD, CELL, MARGIN = 76, 38, 16
"""As page.jsx has them, in pixels; a cell with the gap below it."""

_CHROMIUM = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")


class DrawingError(RuntimeError):
    """Nothing was drawn, or not all of it; says why."""


def installed() -> None:
    """See to it that Grafana's packages are there: a minute, once."""
    for tool, package in (("npm", "nodejs npm"), ("chromium", "chromium"), ("promtool", "prometheus")):
        if shutil.which(tool) is None:
            raise DrawingError(f"{tool}: not installed; `apt-get install {package}`")
    stamp = MODULES / ".package-lock.json"
    if not stamp.exists() or stamp.stat().st_mtime < (HERE / "package-lock.json").stat().st_mtime:
        print("Installing Grafana's components (once; a minute) ...", flush=True)
        subprocess.run(["npm", "ci", "--ignore-scripts"], cwd=HERE, check=True)


@contextmanager
def studio() -> Iterator["Studio"]:
    """Where dashboards are drawn: the bundle, and a server on loopback, since Chromium reads no icons from files."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        bundle(folder)
        handler = functools.partial(Quiet, directory=made)
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield Studio(folder, server.server_port)
            finally:
                server.shutdown()
                thread.join()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Says nothing of what it serves."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the standard library
        """Nothing."""


def bundle(folder: Path) -> None:
    """page.js and page.css of page.jsx, with Grafana's icons beside them."""
    esbuild = MODULES / ".bin" / "esbuild"
    options = ["--bundle", "--minify", "--jsx=automatic", "--loader:.ttf=empty", "--log-level=error"]
    production = '--define:process.env.NODE_ENV="production"'
    command = [str(esbuild), "page.jsx", *options, production, f"--outfile={folder}/page.js"]
    subprocess.run(command, cwd=HERE, check=True)
    icons = folder / "public" / "build" / "img"
    icons.mkdir(parents=True)
    (icons / "icons").symlink_to(MODULES / "@grafana" / "ui" / "dist" / "public" / "img" / "icons")


class Studio:
    """Draws."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._port = port

    def draw(self, pictured: dict[str, Any], picture: Path) -> None:
        """Raises DrawingError with what the page has complained of."""
        name = f"{picture.stem}.html"
        content = json.dumps({**pictured, "width": WIDTH}).replace("<", "\\u003c")
        page = (
            '<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="page.css"><div id="page"></div>'
            f'<script>window.__grafana_public_path__ = "/public/"; window.pictured = {content};</script>'
            '<script src="page.js"></script>'
        )
        (self._folder / name).write_text(page, encoding="utf-8")
        size = f"--window-size={WIDTH},{height(pictured['dashboard'])}"
        with tempfile.TemporaryDirectory() as profile:
            command = ["chromium", *_CHROMIUM, size, f"--user-data-dir={profile}", "--enable-logging=stderr"]
            command += ["--virtual-time-budget=10000", f"--screenshot={picture}", f"http://127.0.0.1:{self._port}/{name}"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        wrong = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        if wrong or not picture.exists():
            raise DrawingError("\n".join(wrong or done.stderr.splitlines()[-20:]))


def height(dashboard: dict[str, Any]) -> int:
    """Pixels that its panels take."""
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    rows: int = max(place["y"] + place["h"] for place in places)
    return HEAD + CELL * rows + MARGIN


def shrunk(picture: Path, kept: Path) -> None:
    """The picture with 256 colours. An octree keeps those of thin curves, which a median cut would mix."""
    with Image.open(picture) as image:
        image.convert("RGB").quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(kept, optimize=True)
