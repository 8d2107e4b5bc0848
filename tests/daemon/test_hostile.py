"""A folder of journals that want to do harm, beside two that do not: nothing breaks, nothing is injected, each is named once."""

import html.parser
import json
import os
import re
import signal
import subprocess
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from hf_eco2ai.journal.format import to_bytes
from hf_eco2ai.outputs.labels import MOST_CHARACTERS
from tests.daemon.process import Daemon, daemon, series, until
from tests.daemon.prometheus import job, needed, prometheus
from tests.daemon.runs import begun, live, used
from tests.journal.make import put

FORGED = '\nhf_training_energy_kwh_total{run_id="forged"} 9e9\n# TYPE forged_total counter\nforged_total 1\n'
SCRIPT = "<script>alert('owned')</script>"
NAMES = {
    "long": "x" * 10_000,
    "lines": f"run{FORGED}",
    "quotes": 'run"} 9e9 \\" \\',
    "control": "run\x00\x07\x1b[31m\x7f\x9b",
    "direction": "run\u202e\u2066\u200f\ufeff",
    "separators": "run\u2028\u2029\x85",
    "html": f'run"><img src=x onerror=alert(1)>{SCRIPT}',
    "script": "javascript:alert('owned')//${7*7}{{7*7}}",
    "log": 'run\nts=2026-01-01T00:00:00Z level=error msg="the daemon is broken" secret="x',
    "path": "../../../etc/passwd",
    "private": "run\ue000\U000f0000\u0378",
    "empty": "",
    "percent": "%00%0a%2e%2e/%s%n{0}",
}
"""Each is the name of a run, a project, a model, an experiment and a host at the same time."""

FRAGMENTS = ("forged_total 1\n", SCRIPT, "<img", 'level=error msg="the daemon')

PLACEHOLDER = "here is the place"


def forged_line(line: bytes, put_in: bytes) -> bytes:
    """A line with something else for the placeholder, and a check that is right."""
    body = line.replace(PLACEHOLDER.encode(), put_in).rpartition(b',"crc32":')[0]
    return b'%s,"crc32":"%08x"}\n' % (body, zlib.crc32(body))


def flipped(line: bytes) -> bytes:
    """With one bit changed in the middle."""
    middle = len(line) // 2
    return line[:middle] + bytes([line[middle] ^ 1]) + line[middle + 1 :]


class Folder:
    """The folder, and which lines of which journals cannot be used (None: the file as a whole)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.bad: set[tuple[str, str | None]] = set()

    def file(self, name: str, content: bytes, *lines: int) -> None:
        """A file, of which these lines are bad."""
        path = self.path / name
        path.write_bytes(content)
        self.bad |= {(str(path), str(line)) for line in lines}

    def link(self, name: str, target: str | Path, *lines: int | None) -> None:
        path = self.path / name
        path.symlink_to(target)
        self.bad |= {(str(path), None if line is None else str(line)) for line in lines}

    def journal(self, run_id: str, *more: bytes) -> bytes:
        """A header, a line, and what comes then."""
        begin = begun(run_id)
        return to_bytes(begin) + to_bytes(used(begin, 10.0)) + b"".join(more)


def names(folder: Folder) -> None:
    for name, hostile in NAMES.items():
        fields: dict[str, Any] = {"project_name": hostile, "model_name": hostile, "experiment_name": hostile, "host": hostile}
        begin = begun(hostile, **fields)
        put(folder.path, [begin, used(begin, 10.0)], name=f"{name}.ndjson")


def damage(folder: Folder) -> None:
    line = to_bytes(used(begun("damaged"), 20.0))
    folder.file("flipped.ndjson", folder.journal("flipped", flipped(line)), 3)
    folder.file("torn.ndjson", folder.journal("torn", line[:100] + b"\n", line[50:]), 3, 4)
    folder.file("tearing.ndjson", folder.journal("tearing", line[:100]))  # As a crash leaves it; nothing is said of that.
    folder.file("long.last.ndjson", folder.journal("long.last", b"z" * 10_000_000), 3)
    folder.file("long.first.ndjson", b"{" * 10_000_000 + b"\n", 1)
    folder.file("nothing.ndjson", b"")
    folder.file("zeros.ndjson", bytes(5000) + b"\n", 1)


def forgery(folder: Folder) -> None:
    begin = begun(PLACEHOLDER)
    head = to_bytes(begin)
    folder.file("surrogate.ndjson", forged_line(head, rb"run\ud800\udc00\ud800"), 1)
    folder.file("bytes.ndjson", forged_line(head, b"run\xff\xfe\x80"), 1)
    folder.file("newer.ndjson", forged_line(head.replace(b'"format":1', b'"format":99'), b"newer"), 1)
    folder.file("headers.ndjson", to_bytes(begun("headers")) + to_bytes(begun("another")), 2)
    folder.file("exposition.ndjson", FORGED.strip().encode() + b"\n", 1)
    folder.file("page.ndjson", f"{SCRIPT}\n".encode(), 1)
    folder.file("log\nts=x level=error msg=forged\x1b[31m.ndjson", b"forged\n", 1)
    folder.file(os.fsdecode(b"no\xffutf8.ndjson"), b"forged\n", 1)


def figures(folder: Folder) -> None:
    line = to_bytes(used(begun("figures"), 10.0))
    joules = re.search(rb'"used":\{"joules":([^,]+),', line)
    assert joules is not None
    for name, figure in {"nan": b'"NaN"', "infinite": b'"Infinity"', "negative": b"-1.0", "huge": b"1e300"}.items():
        impossible = line[: joules.start(1)] + figure + line[joules.end(1) :]
        folder.file(f"{name}.ndjson", to_bytes(begun(name)) + forged_line(impossible, b""), 2)


def no_files(folder: Folder) -> None:
    os.mkfifo(folder.path / "pipe.ndjson")
    (folder.path / "folder.ndjson").mkdir()
    folder.bad |= {(str(folder.path / name), None) for name in ("pipe.ndjson", "folder.ndjson")}
    secret = folder.path.parent / "secret"
    secret.write_text("root:x:0:0:\n")
    folder.link("secret.ndjson", secret, 1)
    folder.link("loop.ndjson", "loop.ndjson", None)
    folder.link("dangling.ndjson", "nowhere.ndjson")
    folder.link("twin.ndjson", live(folder.path, "good1", seconds=3600.0))
    live(folder.path, "good2", seconds=7200.0)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "runs")
    parts: list[Callable[[Folder], None]] = [names, damage, forgery, figures, no_files]
    for part in parts:
        part(made)
    return made


def look_again(serving: Daemon, folder: Folder) -> None:
    """A few times, with a new run each time, so that the folder is listed anew."""
    for n in range(4):
        live(folder.path, f"late{n}")
        serving.process.send_signal(signal.SIGHUP)
        until(lambda n=n: f'run_id="late{n}"' in serving.get("/metrics").decode(), what=lambda: serving.text)  # type: ignore[misc]


class Tags(html.parser.HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: set[tuple[str, str]] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {(tag, "")} | {(tag, name) for name, _ in attrs}
        assert not any((value or "").startswith("javascript:") for _, value in attrs)


def unprintable(text: str) -> set[str]:
    """What moves a cursor, ends a line or turns the direction."""
    return {c for c in text if c != "\n" and unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn"}}


def runs(serving: Daemon) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(serving.get("/api/v1/runs?limit=1000"))["runs"]
    return found


def test_each_bad_line_is_named_once_however_often_the_folder_is_looked_at(folder: Folder) -> None:
    with daemon(folder.path) as serving:
        until(lambda: serving.said("left out of a journal"))
        with (folder.path / "flipped.ndjson").open("ab") as journal:
            begin = begun("flipped")
            journal.write(flipped(to_bytes(used(begin, 30.0))) + to_bytes(used(begin, 40.0)))
        folder.bad.add((str(folder.path / "flipped.ndjson"), "4"))
        look_again(serving, folder)
        said = serving.said("left out of a journal")
        counted = serving.series()
    named = [(line["path"], line.get("line")) for line in said]
    assert sorted(named, key=str) == sorted(folder.bad, key=str)
    refused = sum(number for name, number in counted.items() if name.startswith("hf_exporter_lines_refused_total"))
    assert refused == len(folder.bad)
    assert {line["level"] for line in serving.log()} == {"info", "warning"}
    assert unprintable(serving.text) == set()
    assert "root:" not in serving.text


def test_the_metrics_are_those_of_clean_names_and_nothing_is_injected(folder: Folder) -> None:
    with daemon(folder.path) as serving:
        look_again(serving, folder)
        text = serving.get("/metrics").decode()
        openmetrics = serving.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}).decode()
    shown = series(text)
    energy = {name: number for name, number in shown.items() if name.startswith("hf_training_energy_kwh_total")}
    assert [number for name, number in energy.items() if "run_id='good1'" in name] == [pytest.approx(0.312)]
    assert [number for name, number in energy.items() if "run_id='good2'" in name] == [pytest.approx(0.624)]
    assert all(number < 1 for number in energy.values())
    families = list(parse_openmetrics(openmetrics))  # type: ignore[no-untyped-call]
    assert all(family.name.startswith(("hf_training_", "hf_exporter_", "process_")) for family in families)
    values = {value for family in families for sample in family.samples for value in sample.labels.values()}
    assert max(map(len, values)) <= MOST_CHARACTERS
    assert unprintable(text) == unprintable(openmetrics) == set()
    said = subprocess.run(["promtool", "check", "metrics"], input=text.encode(), capture_output=True, check=False)
    assert [line.split()[0] for line in said.stderr.decode().splitlines()] == ["hf_training_gpu_count"]  # The guide's own name.


def test_the_page_and_the_api_answer_for_hostile_runs(folder: Folder, tmp_path: Path) -> None:
    clean = tmp_path / "clean"
    for n in range(2):
        live(clean, f"run{n}")
    with daemon(clean) as serving:
        tags = Tags(serving.get("/").decode()).found | Tags(serving.get("/?run=run1").decode()).found
    with daemon(folder.path) as serving:
        look_again(serving, folder)
        listed = runs(serving)
        pages = [serving.get("/").decode()]
        answers = [serving.get("/api/v1/runs?limit=1000").decode()]
        for run in listed:
            path = quote(run["run_id"], safe="")
            pages.append(serving.get(f"/?run={path}").decode())
            answers.append(serving.get(f"/api/v1/runs/{path}").decode())
            assert json.loads(answers[-1])["run_id"] == run["run_id"]
    assert {run["run_id"] for run in listed} >= {*NAMES.values(), "good1", "good2", "flipped", "torn", "tearing", "nan"}
    for page in pages:
        assert Tags(page).found - tags == set()
        assert unprintable(page) == set()
        assert not any(fragment in page for fragment in FRAGMENTS)
    for answer in answers:
        assert unprintable(answer) == set()


@needed
def test_prometheus_takes_what_is_served_beside_hostile_journals(folder: Folder) -> None:
    with daemon(folder.path) as serving, prometheus(folder.path.parent / "prometheus", [job("all", serving.port)]) as asked:
        until(lambda: asked.health("all") == "up", what=asked.targets)
        good = 'hf_training_energy_kwh_total{run_id="good1"}'
        until(lambda: asked.query(good))  # A target is up a moment before what it said can be asked for.
        assert asked.query(good) == {"all": pytest.approx(0.312)}
        assert asked.query("up") == {"all": 1.0}
        names = asked.ask("/api/v1/label/__name__/values")
    ours = ("hf_training_", "hf_exporter_", "process_")
    assert all(name.startswith((*ours, "scrape_")) or name == "up" for name in names)
