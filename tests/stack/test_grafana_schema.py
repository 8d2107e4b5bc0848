"""dashboards/*.json are what Grafana's own types say a dashboard is: TypeScript reads each as a literal, under --strict."""

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hf_eco2ai.stack.files import bundled

PROJECT = Path(__file__).parent / "grafana"
MODULES = PROJECT / "node_modules"
INSTALLED = MODULES / ".package-lock.json"
"""npm writes it last."""

DASHBOARDS = sorted((bundled() / "dashboards").glob("*.json"))

_ERROR = re.compile(r"^(?P<file>[\w-]+)\.ts\((?P<line>\d+),\d+\): error (?P<error>.*(?:\n  .*)*)", re.MULTILINE)

SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def stat(**changes: Any) -> dict[str, Any]:
    """A panel that is as it should be."""
    target = {"refId": "A", "expr": "hf_training_co2_kg_total", "datasource": SOURCE, "instant": True}
    options = {"colorMode": "value", "reduceOptions": {"calcs": ["lastNotNull"]}}
    steps = [{"color": "green", "value": None}, {"color": "red", "value": 25}]
    defaults = {"unit": "massg", "color": {"mode": "thresholds"}, "thresholds": {"mode": "absolute", "steps": steps}}
    override = {"matcher": {"id": "byName", "options": "A"}, "properties": [{"id": "unit", "value": "watt"}]}
    panel = {
        "type": "stat",
        "id": 1,
        "title": "CO₂e",
        "gridPos": {"h": 8, "w": 12, "x": 0, "y": 0},
        "datasource": SOURCE,
        "targets": [target],
        "options": options,
        "fieldConfig": {"defaults": defaults, "overrides": [override]},
    }
    return panel | changes


def curve(custom: Mapping[str, Any], *properties: Mapping[str, Any]) -> dict[str, Any]:
    """A panel of curves, which are drawn so."""
    overrides = [{"matcher": {"id": "byName", "options": "A"}, "properties": list(properties)}]
    options = {"legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True}}
    return stat(type="timeseries", options=options, fieldConfig={"defaults": {"custom": custom}, "overrides": overrides})


def dashboard(*panels: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """One of these panels."""
    return {"uid": "sound", "title": "Sound", "schemaVersion": 39, "panels": panels, "templating": {"list": []}} | changes


SOUND = {
    "a stat": dashboard(stat()),
    "curves": dashboard(curve({"lineWidth": 2}, {"id": "custom.lineStyle", "value": {"fill": "dash"}})),
    "a row": dashboard({"type": "row", "id": 2, "title": "GPUs", "collapsed": True, "panels": [stat()]}),
}

REFUSED = {
    "a misspelt key of the dashboard": (dashboard(schemaVersions=39), "schemaVersions"),
    "a misspelt key of a panel": (dashboard(stat(tittle="CO₂e")), "tittle"),
    "a misspelt option": (dashboard(stat(options={"colourMode": "value"})), "colourMode"),
    "a misspelt setting of a field": (dashboard(curve({"lineWidht": 2})), "lineWidht"),
    "a misspelt property of an override": (dashboard(curve({}, {"id": "custom.lineWidht", "value": 2})), "custom.lineWidht"),
    "a misspelt key of a query": (dashboard(stat(targets=[{"refId": "A", "exprs": "up"}])), "exprs"),
    "a bad enum among options": (dashboard(stat(options={"colorMode": "valeu"})), "valeu"),
    "a bad enum of a field": (dashboard(curve({"drawStyle": "curve"})), "curve"),
    "a bad enum in a panel of a row": (
        dashboard({"type": "row", "id": 2, "collapsed": True, "panels": [stat(options={"graphMode": "bars"})]}),
        "bars",
    ),
    "a number out of a numeric enum": (dashboard(graphTooltip=7), "7"),
    "an unknown type of panel": (dashboard(stat(type="stats")), "stats"),
    "an Angular panel": (dashboard(stat(type="singlestat")), "singlestat"),
    "an option of another kind of panel": (dashboard(stat(options={"cellHeight": "sm"})), "cellHeight"),
    "a text where a number belongs": (dashboard(stat(gridPos={"h": "8", "w": 12, "x": 0, "y": 0})), "string"),
    "a data source without a uid": (dashboard(stat(datasource={"type": "prometheus"})), "uid"),
}


def installed() -> None:
    """See to it that @grafana/schema and typescript are there."""
    missing = [tool for tool in ("node", "npm") if shutil.which(tool) is None]
    assert not missing, f"{' and '.join(missing)}: not installed; `apt-get install nodejs npm`, or `make system`"
    if INSTALLED.exists() and INSTALLED.stat().st_mtime >= (PROJECT / "package-lock.json").stat().st_mtime:
        return
    done = subprocess.run(["npm", "ci", "--ignore-scripts"], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"npm ci in {PROJECT} failed:\n{done.stderr}"


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What TypeScript says of each dashboard that it does not like, in one run over them all."""
    installed()
    folder = tmp_path_factory.mktemp("dashboards")
    for name, text in literals().items():
        kind = json.dumps(str(PROJECT / "dashboard"))
        literal = f"import type {{ Dashboard }} from {kind};\nexport const dashboard: Dashboard = {text};\n"
        (folder / f"{name}.ts").write_text(literal, encoding="utf-8")
    config = {"extends": str(PROJECT / "tsconfig.json"), "include": ["*.ts"]}
    (folder / "tsconfig.json").write_text(json.dumps(config))
    compiler = ["node", str(MODULES / "typescript" / "bin" / "tsc"), "--pretty", "false", "--project", "."]
    done = subprocess.run(compiler, cwd=folder, capture_output=True, text=True, check=False)
    found: dict[str, str] = {}
    for error in _ERROR.finditer(done.stdout):
        line = int(error["line"]) - 1  # The JSON begins on the second line.
        found[error["file"]] = found.get(error["file"], "") + f"line {line}: {error['error']}\n"
    assert done.returncode == (2 if found else 0), done.stdout + done.stderr
    return found


def literals() -> dict[str, str]:
    """JSON by the name of the file that it is checked in."""
    texts = {path.stem: path.read_text(encoding="utf-8") for path in DASHBOARDS}
    made = SOUND | {name: wrong for name, (wrong, _) in REFUSED.items()}
    return texts | {file_name(name): json.dumps(content) for name, content in made.items()}


def file_name(name: str) -> str:
    return "made-" + name.replace(" ", "-")


def test_there_are_dashboards() -> None:
    assert DASHBOARDS


@pytest.mark.parametrize("name", [path.stem for path in DASHBOARDS])
def test_a_dashboard_has_grafanas_types(name: str, errors: Mapping[str, str]) -> None:
    assert name not in errors, errors[name]


@pytest.mark.parametrize("name", SOUND)
def test_what_is_sound_is_taken(name: str, errors: Mapping[str, str]) -> None:
    assert file_name(name) not in errors, errors[file_name(name)]


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_refused_by_its_name(name: str, errors: Mapping[str, str]) -> None:
    assert REFUSED[name][1] in errors.get(file_name(name), "no error")


def test_the_lock_file_names_no_registry() -> None:
    assert "http" not in (PROJECT / "package-lock.json").read_text(encoding="utf-8")
