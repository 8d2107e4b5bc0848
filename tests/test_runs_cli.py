"""`hf-eco2ai runs …` over folders of journals whose figures can be worked out by hand."""

import json
import os
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_eco2ai import runs
from hf_eco2ai.cli import cli, main
from hf_eco2ai.errors import ConfigError
from hf_eco2ai.journal import format as lines
from hf_eco2ai.journal.folder import Run, RunsFolder
from hf_eco2ai.journal.format import Header, Totals
from hf_eco2ai.journal.read import Here
from hf_eco2ai.outputs import text
from tests.journal import make

DEADLINE_SECONDS = 20
DAY = 86_400.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "runs"
    path.mkdir()
    return path


def said(*arguments: str, typed: str = "") -> Result:
    return CliRunner().invoke(cli, ["runs", *arguments], input=typed, catch_exceptions=False)


def in_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str]:
    """Exit code and stderr of what a person sees when it goes wrong."""
    monkeypatch.setattr(sys, "argv", ["hf-eco2ai", "runs", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code, capsys.readouterr().err


def put(
    folder: Path,
    run_id: str = "0123456789ab",
    joules: float = 3.6e6,
    *,
    began: float = make.BEGAN,
    ended: float | None = 100.0,
    process: Any = None,
    run: dict[str, Any] | None = None,
    header: dict[str, Any] | None = None,
    line: dict[str, Any] | None = None,
) -> Path:
    """A journal of one line. `ended` seconds after its begin; None: it goes on, or is lost if its process is gone."""
    identity = make.identity(run_id, **{"started_unix": began, **(run or {})})
    begin = make.header(make.snapshot(0.0, run=identity), process=process or make.process(), at_unix=began, **(header or {}))
    more = {"at_unix": began + (ended or 100.0), "state": "running" if ended is None else "ended", **(line or {})}
    last = make.used(joules, at=0.0, header=begin, end=ended is not None, steps=120, **more)
    return make.put(folder, [begin, last])


def ids(result: Result) -> list[str]:
    return [run["run_id"] for run in json.loads(result.stdout)]


# Listing


def test_a_run_is_one_line_with_its_figures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """3.6 MJ at 100 W: 1 kWh in 10 hours. A tenth of a gram per joule: 360 kg."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    put(folder, line={"end_reason": "completed"})
    heading, row = said().stdout.splitlines()
    assert heading.split() == ["RUN", "PROJECT", "MODEL", "STATE", "BEGAN", "LASTED", "ENERGY", "CO₂e", "COST", "STEPS"]
    assert [cell.strip() for cell in row.split("  ") if cell] == [
        "0123456789ab", "llama-finetune", "meta-llama/Llama-3.1-8B", "ended", "2026-11-18 11:06", "10 h 00 min", "1 kWh",
        "360 kg", "-", "120",
    ]  # fmt: skip
    assert row.index("1 kWh") == heading.index("ENERGY")
    monkeypatch.undo()
    time.tzset()


def test_the_newest_run_is_the_last_line(folder: Path) -> None:
    for n, name in enumerate(["second", "first", "third"]):
        put(folder, name, began=make.BEGAN + [200, 100, 300][n])
    assert [row.split()[0] for row in said().stdout.splitlines()[1:]] == ["first", "second", "third"]
    assert ids(said("--json")) == ["first", "second", "third"]


def test_json_has_the_figures_in_their_units(folder: Path) -> None:
    path = put(
        folder,
        line={
            "end_reason": "completed",
            "used": lines.host_used(make.host_totals("node1", 7.2e6, wasted=1.8e6, cost_per_joule=1e-6)),
        },
    )
    (run,) = json.loads(said("--json").stdout)
    assert run == {
        "run_id": "0123456789ab",
        "project_name": "llama-finetune",
        "model_name": "meta-llama/Llama-3.1-8B",
        "experiment_name": "",
        "trainer": "transformers",
        "state": "ended",
        "end_reason": "completed",
        "parent": "",
        "started_unix": make.BEGAN,
        "updated_unix": make.BEGAN + 100,
        "seconds": 72_000.0,
        "energy_kwh": 2.0,
        "co2_kg": 720.0,
        "cost": pytest.approx(7.2),
        "currency": "EUR",
        "wasted_kwh": 0.5,
        "basis": "mixed",
        "steps": 120,
        "hosts": ["node1"],
        "journals": [str(path)],
    }


def test_only_the_runs_of_a_project_are_listed(folder: Path) -> None:
    put(folder, "a", run={"project_name": "llama"})
    put(folder, "b", run={"project_name": "bert"})
    assert ids(said("--project", "bert", "--json")) == ["b"]
    assert said("--project", "none").stdout == f"No runs of project none in {folder}. A run appears here as soon as it begins.\n"


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_without_runs_says_so_and_is_an_empty_list(tmp_path: Path, exists: bool) -> None:
    path = tmp_path / "elsewhere"
    if exists:
        path.mkdir()
    assert said("--runs-dir", str(path)).stdout == f"No runs in {path}. A run appears here as soon as it begins.\n"
    assert json.loads(said("--runs-dir", str(path), "--json").stdout) == []


def test_a_folder_that_cannot_be_read_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.touch()
    code, error = in_words(monkeypatch, capsys, "--runs-dir", str(file))
    assert code == 2
    assert error.startswith("hf-eco2ai: the runs folder cannot be read: ")
    assert "--runs-dir" in error
    assert error.count("\n") == 1


def test_a_damaged_journal_is_named_with_its_line_and_the_others_are_listed(folder: Path) -> None:
    put(folder, "good")
    damaged = put(folder, "damaged")
    damaged.write_bytes(damaged.read_bytes().replace(b'"joules":', b'"joules":1', 1).replace(b'"format":1', b'"format":1', 1))
    torn = folder / "torn.node1.1.ndjson"
    torn.write_bytes(b"no json\n")
    result = said("--json")
    assert ids(result) == ["good", "damaged"] or ids(result) == ["damaged", "good"]
    assert f"hf-eco2ai: {torn}, line 1: " in result.stderr
    assert f"hf-eco2ai: {damaged}, line 2: " in result.stderr
    assert result.exit_code == 0


def test_a_run_whose_process_lives_is_running_and_one_whose_process_is_gone_is_lost(folder: Path) -> None:
    put(folder, "lives", ended=None, process=make.this_process())
    gone = make.this_process().model_copy(update={"started": 1e9})
    put(folder, "gone", ended=None, process=gone)
    assert {run["run_id"]: run["state"] for run in json.loads(said("--json").stdout)} == {"lives": "running", "gone": "lost"}


def test_simulated_runs_are_marked(folder: Path) -> None:
    snapshot = make.snapshot(0.0)
    devices = [lines.header_device(status.device).model_copy(update={"basis": "simulated"}) for status in snapshot.devices]
    put(folder, header={"devices": devices})
    assert "1 kWh*" in said().stdout
    assert said().stdout.endswith("* simulated GPUs, not a measurement\n")


def test_a_command_has_no_steps_to_show(folder: Path) -> None:
    put(folder, run={"trainer": "monitor"})
    assert said().stdout.splitlines()[1].split()[-1] == "-"


# Names

HOSTILE = (
    "two\nlines", "\x1b[2J\x1b[31mred", "\u202egnihtemos", "\u2066isolate", "\x07\x08\x7f\x9b1m",
    "模型训练" * 10, "e\u0301" * 30, "Z" + "\u0301" * 5000,
    "👩‍👩‍👧‍👦" * 10, "\u0e01\u0e31" * 30, "a" * 100_000, "\u2028\u2029", "\t" * 30, "", "\ufeff",
)  # fmt: skip


def assert_clean(shown: str) -> None:
    for character in shown.replace("\n", ""):
        assert unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}, repr(character)


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_name_is_one_aligned_line_without_control_characters(folder: Path, name: str) -> None:
    put(folder, "good")
    put(folder, f"id{name}"[:150], run={"project_name": name, "model_name": name}, began=make.BEGAN + 1)
    shown = said().stdout
    assert_clean(shown)
    heading, *rows = shown.splitlines()
    assert len(rows) == 2
    state = text.width(heading[: heading.index("STATE")])
    for row in rows:
        assert text.width(row[: row.rindex("ended")]) == state
        assert text.width(row) < 150
    assert len(shown) < 3000


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_name_is_shown_without_control_characters(folder: Path, name: str) -> None:
    put(
        folder, "abc", ended=None,
        run={"project_name": name, "model_name": name, "parent": name},
        header={"factor": lines.Factor(grams_per_kwh=381.0, factor_type="lifecycle", source=name, country=name)},
    )  # fmt: skip
    assert_clean(said("show", "abc").stdout)
    (run,) = json.loads(said("--json").stdout)
    assert run["project_name"] == name


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60), st.integers(2, 40), st.booleans())
def test_a_cut_name_is_never_wider_than_it_may_be(name: str, columns: int, of_id: bool) -> None:
    cut = text.begun(name, columns) if of_id else text.cut(name, columns)
    assert text.width(cut) <= columns
    assert_clean(cut)
    if name.isprintable() and text.width(name) <= columns:
        assert cut == name


def test_the_beginning_of_a_long_id_is_shown_since_runs_are_asked_for_by_it(folder: Path) -> None:
    put(folder, "a-very-long-id-that-somebody-has-chosen")
    shown = said().stdout.splitlines()[1].split()[0]
    assert shown == "a-very-long-id-that-som…"
    assert said("show", shown).exit_code == 0


@pytest.mark.parametrize("columns", [100, 120])
def test_names_give_way_where_the_terminal_is_narrow(folder: Path, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    put(folder, run={"project_name": "p" * 50, "model_name": "m" * 50})
    monkeypatch.setenv("COLUMNS", str(columns))
    assert max(text.width(line) for line in said().stdout.splitlines()) <= columns
    monkeypatch.delenv("COLUMNS")
    assert "m" * 23 in said().stdout


def test_an_instant_that_no_clock_has_shown_is_a_dash(folder: Path) -> None:
    put(folder, began=1e300)
    assert " -  " in said().stdout.splitlines()[1]


def test_figures_that_are_no_numbers_are_strings_in_json(folder: Path) -> None:
    put(folder, line={"progress": lines.Standing(loss=float("nan"), grad_norm=float("inf"))})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    output = said("show", "--json", "0123456789ab").stdout
    assert '"loss": "NaN"' in output
    assert '"grad_norm": "Infinity"' in output
    json.loads(output, parse_constant=refuse)


# Showing


def test_a_run_is_found_by_the_beginning_of_its_id(folder: Path) -> None:
    put(folder, "abc111")
    put(folder, "abd222")
    for asked in ("abc", "abc111"):
        assert "run abc111 · ended after 10 h 00 min" in said("show", asked).stdout


def test_a_whole_id_is_found_also_where_others_begin_so(folder: Path) -> None:
    put(folder, "abc")
    put(folder, "abcd")
    assert "run abc · " in said("show", "abc").stdout


@pytest.mark.parametrize("command", ["show", "tail"])
def test_an_id_that_is_unknown_or_means_several_is_one_sentence(
    folder: Path, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(7):
        put(folder, f"abc{n}", began=make.BEGAN + n)
    assert in_words(monkeypatch, capsys, command, "xyz") == (
        2, "hf-eco2ai: xyz: there is no such run here; `hf-eco2ai runs` lists them all\n",
    )  # fmt: skip
    assert in_words(monkeypatch, capsys, command, "abc") == (
        2,
        "hf-eco2ai: abc: 7 runs begin so: abc0, abc1, abc2, abc3, abc4, …\n",
    )


def test_show_has_every_host_attempt_waste_and_parent(folder: Path) -> None:
    """2 kWh on node1 in two attempts, of which 0.5 kWh were wasted, and 1 kWh on node2."""
    put(folder, joules=3.6e6, run={"attempt": 1, "parent": "fedcba"}, header={"launch": "one"})
    put(
        folder, joules=3.6e6, began=make.BEGAN + 50,
        run={"attempt": 2, "parent": "fedcba", "started_unix": make.BEGAN},
        header={"launch": "two", "inherited": [lines.host_used(make.host_totals("node1", 3.6e6, wasted=1.8e6))]},
        line={"elsewhere": [lines.host_used(make.host_totals("node2", 3.6e6))]},
    )  # fmt: skip
    shown = said("show", "0123").stdout
    assert "energy" in shown
    assert "3 kWh" in shown
    assert "host node2" in shown
    assert "0.5 kWh, 180 kg CO₂e of it on steps that a resume rolled back" in shown
    assert "began from a checkpoint of run fedcba" in shown
    assert f"attempt 1 on node1  ended, 1 kWh, {folder}/0123456789ab.node1.1.ndjson" in shown
    assert f"attempt 2 on node1  ended, 1 kWh, {folder}/0123456789ab.node1.2.ndjson" in shown
    (run,) = json.loads(said("--json").stdout)
    assert (run["energy_kwh"], run["wasted_kwh"], run["parent"], run["hosts"]) == (3.0, 0.5, "fedcba", ["node1", "node2"])
    assert len(run["journals"]) == 2


@pytest.mark.parametrize("arguments", [["show", "--json", "0123456789ab"], ["--json", "show", "0123456789ab"]])
def test_show_gives_everything_to_programs(folder: Path, arguments: Sequence[str]) -> None:
    make.put(folder, make.journal(4))
    shown = json.loads(said(*arguments).stdout)
    written = make.journal(4)[-1]
    assert isinstance(written, Totals)
    assert shown["energy_kwh"] == pytest.approx((250.3 + 61.7) * 21 / 3.6e6)
    assert shown["report"]["used"]["joules"] == pytest.approx((250.3 + 61.7) * 21)
    assert shown["report"]["progress"]["loss"] == pytest.approx(2.345678901234)
    assert shown["report"]["monotonic"] == written.monotonic


# Following


class Writer:
    """A live run of this process, written line by line; `step` is called while somebody follows it."""

    def __init__(self, folder: Path, *steps: Callable[["Writer"], None], run_id: str = "0123456789ab") -> None:
        self.folder = folder
        self.header = make.header(make.snapshot(0.0, run=make.identity(run_id)), process=make.this_process())
        self.path = make.put(folder, [self.header, self.line(3.6e6)])
        self._steps = iter(steps)

    def line(self, joules: float, **more: Any) -> Totals:
        return make.used(joules, at=joules / 3.6e6, header=self.header, **more)

    def write(self, *written: Header | Totals) -> None:
        with self.path.open("ab") as file:
            file.write(make.as_bytes(written))

    def wait(self, seconds: float) -> None:
        assert seconds == runs.FOLLOW_SECONDS
        next(self._steps)(self)

    def followed(self) -> list[str]:
        def find() -> Run | None:
            return RunsFolder(self.folder, Here.now("node1")).run(self.header.run.run_id)

        return list(runs.follow(find, self.wait))


def adds(*kwh: float, **more: Any) -> Callable[[Writer], None]:
    return lambda writer: writer.write(*(writer.line(3.6e6 * amount, **more) for amount in kwh))


def ends(kwh: float) -> Callable[[Writer], None]:
    return adds(kwh, end=True)


def figures(shown: Sequence[str]) -> list[str]:
    return [line.split(": ")[1].split(" · ")[0] for line in shown if line.startswith("hf_eco2ai [")]


def test_a_line_is_shown_for_each_that_is_written_and_the_report_at_the_end(folder: Path) -> None:
    shown = Writer(folder, adds(2), adds(), adds(3, 4), ends(5)).followed()
    assert figures(shown) == ["1 kWh", "2 kWh", "3 kWh", "4 kWh"]
    assert len(shown) == 5
    assert "run 0123456789ab · ended after" in shown[-1]
    assert "5 kWh" in shown[-1]


def test_lines_that_tell_nothing_new_are_not_repeated(folder: Path) -> None:
    assert figures(Writer(folder, adds(2), adds(2, 2), ends(2)).followed()) == ["1 kWh", "2 kWh"]


def test_a_run_that_is_over_is_shown_as_it_ended(folder: Path) -> None:
    put(folder, "abc")
    result = said("tail", "abc")
    assert result.stdout.startswith("hf_eco2ai · llama-finetune · ")
    assert result.stdout.count("\nhf_eco2ai") == 0


def test_a_run_whose_process_is_gone_is_followed_no_longer(folder: Path) -> None:
    gone = make.this_process().model_copy(update={"started": 1e9})
    put(folder, "abc", ended=None, process=gone)
    assert " lost after " in said("tail", "abc").stdout


def test_a_torn_line_is_shown_once_it_is_whole(folder: Path) -> None:
    def part(writer: Writer, of: slice) -> None:
        with writer.path.open("ab") as file:
            file.write(make.as_bytes([writer.line(7.2e6)])[of])

    shown = Writer(folder, lambda w: part(w, slice(0, 50)), lambda w: part(w, slice(50, None)), ends(3)).followed()
    assert figures(shown) == ["1 kWh", "2 kWh"]


def test_a_damaged_line_is_left_out(folder: Path) -> None:
    def damage(writer: Writer) -> None:
        with writer.path.open("ab") as file:
            file.write(make.as_bytes([writer.line(7.2e6)]).replace(b"joules", b"jewels", 1))

    assert figures(Writer(folder, damage, adds(3), ends(3)).followed()) == ["1 kWh", "3 kWh"]


def test_a_run_that_is_begun_again_is_followed_into_its_next_attempt(folder: Path) -> None:
    def again(writer: Writer) -> None:
        before = [lines.host_used(make.host_totals("node1", 3.6e6))]
        writer.header = writer.header.model_copy(
            update={"attempt": 2, "launch": "again", "at_unix": make.BEGAN + 1000, "inherited": before}
        )
        writer.path = make.put(folder, [writer.header, writer.line(0.9 * 3.6e6)])

    shown = Writer(folder, again, adds(2), ends(3)).followed()
    assert figures(shown) == ["1 kWh", "1.9 kWh", "3 kWh"]
    assert "4 kWh" in shown[-1]


def test_journals_that_are_deleted_end_the_following_with_a_word(folder: Path) -> None:
    with pytest.raises(ConfigError, match="have been deleted"):
        Writer(folder, lambda writer: writer.path.unlink()).followed()


def test_tail_of_a_live_run_ends_when_the_run_ends(folder: Path) -> None:
    """As a program, which waits for nothing but the journal. Another run that begins alike does not confuse it."""
    writer = Writer(folder, run_id="abc1")
    code = "from hf_eco2ai.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "runs", "tail", "abc"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "100"},
    ) as process:
        assert process.stdout is not None
        assert "1 kWh" in process.stdout.readline()
        put(folder, "abc2")
        adds(2)(writer)
        assert "2 kWh" in process.stdout.readline()
        ends(3)(writer)
        rest = process.stdout.read()
        assert process.wait(DEADLINE_SECONDS) == 0
    assert "run abc1 · ended after" in rest
    assert max(map(text.width, rest.splitlines())) <= 100


# Deleting


def left(folder: Path) -> set[str]:
    return {path.name.partition(".")[0] for path in folder.iterdir()}


def aged(folder: Path, **ages: float) -> None:
    """Runs that were last written so many seconds ago."""
    for name, age in ages.items():
        put(folder, name, began=time.time() - age - 100, ended=100.0)


def test_prune_needs_to_know_which(folder: Path) -> None:
    put(folder)
    result = said("prune", "--yes")
    assert result.exit_code == 2
    assert "--older-than 30d, or --keep 100" in result.stderr
    assert left(folder) == {"0123456789ab"}


@pytest.mark.parametrize(
    ("age", "stays"),
    [
        ("30m", {"new"}),
        ("12h", {"new", "hour"}),
        ("30d", {"new", "hour", "week"}),
        ("8w", {"new", "hour", "week", "month"}),
        ("0h", set()),
    ],
)
def test_runs_that_are_old_enough_are_deleted(folder: Path, age: str, stays: set[str]) -> None:
    aged(folder, new=60, hour=3600, week=7 * DAY, month=31 * DAY, year=365 * DAY)
    assert said("prune", "--older-than", age, "--yes").exit_code == 0
    assert left(folder) == stays


@pytest.mark.parametrize("age", ["", "d", "30", "30x", "-30d", "nand", "infd", "1e400d", "thirty days", "30 days", "30D"])
def test_an_age_that_is_none_deletes_nothing(folder: Path, age: str) -> None:
    aged(folder, year=365 * DAY)
    result = said("prune", "--older-than", age, "--yes")
    assert result.exit_code == 2
    assert "say a number and s, m, h, d or w, such as 30d" in result.stderr
    assert left(folder) == {"year"}


ALL = {"new", "hour", "year"}


@pytest.mark.parametrize(("keep", "stays"), [(0, set()), (1, {"new"}), (2, {"new", "hour"}), (3, ALL), (4, ALL), (99, ALL)])
def test_so_many_of_the_newest_stay(folder: Path, keep: int, stays: set[str]) -> None:
    aged(folder, year=365 * DAY, new=60, hour=3600)
    said("prune", "--keep", str(keep), "--yes")
    assert left(folder) == stays


def test_both_limits_must_be_passed(folder: Path) -> None:
    aged(folder, a=1 * DAY, b=40 * DAY, c=50 * DAY, d=60 * DAY)
    said("prune", "--older-than", "30d", "--keep", "2", "--yes")
    assert left(folder) == {"a", "b"}
    said("prune", "--older-than", "30d", "--keep", "1", "--yes")
    assert left(folder) == {"a"}


@pytest.mark.parametrize("keep", [-1, "x"])
def test_a_number_that_is_none_is_refused(folder: Path, keep: object) -> None:
    aged(folder, a=DAY)
    assert said("prune", "--keep", str(keep), "--yes").exit_code == 2
    assert left(folder) == {"a"}


def test_a_dry_run_only_says_what_it_would_do(folder: Path) -> None:
    aged(folder, a=DAY, b=DAY)
    result = said("prune", "--keep", "0", "--dry-run")
    assert result.stdout.splitlines()[-1] == "2 journals would be deleted."
    assert left(folder) == {"a", "b"}


@pytest.mark.parametrize(("typed", "stays"), [("y\n", set()), ("n\n", {"a"}), ("", {"a"}), ("\n", {"a"})])
def test_it_asks_first(folder: Path, typed: str, stays: set[str]) -> None:
    aged(folder, a=DAY)
    result = said("prune", "--keep", "0", typed=typed)
    assert "Delete 1 journal? [y/N]" in result.stdout
    assert result.exit_code == (0 if typed == "y\n" else 1)
    assert left(folder) == stays


def test_all_journals_of_a_run_go_and_their_size_is_said(folder: Path) -> None:
    for attempt in (1, 2):
        put(folder, run={"attempt": attempt}, header={"launch": str(attempt)}, line={"model_name": "x" * 300_000})
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert said("prune", "--keep", "0", "--yes").stdout.splitlines()[-1] == f"Deleted 2 journals, {size / 1e6:.1f} MB."
    assert left(folder) == set()


def test_runs_that_go_on_are_never_touched(folder: Path) -> None:
    old = time.time() - 365 * DAY
    put(folder, "lives", ended=None, process=make.this_process(), began=old)
    put(folder, "again", began=old, header={"launch": "1"})
    put(folder, "again", ended=None, process=make.this_process(), began=old, run={"attempt": 2}, header={"launch": "2"})
    put(folder, "over", began=old)
    said("prune", "--keep", "0", "--older-than", "0h", "--yes")
    assert sorted(path.name for path in folder.iterdir()) == [
        "again.node1.1.ndjson", "again.node1.2.ndjson", "lives.node1.1.ndjson",
    ]  # fmt: skip
    assert said("prune", "--keep", "0", "--yes").stdout == "Nothing to delete.\n"


def test_only_the_runs_of_a_project_are_deleted(folder: Path) -> None:
    put(folder, "a", run={"project_name": "llama"})
    put(folder, "b", run={"project_name": "bert"})
    said("--project", "bert", "prune", "--keep", "0", "--yes")
    assert left(folder) == {"a"}


def test_what_cannot_be_read_is_not_deleted(folder: Path) -> None:
    (folder / "newer.node1.1.ndjson").write_bytes(b'{"type":"header","format":99}\n')
    put(folder, "a")
    said("prune", "--keep", "0", "--yes")
    assert left(folder) == {"newer"}


def test_a_journal_that_cannot_be_deleted_is_named_and_the_others_go(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder in a file's place can be unlinked by nobody, root included."""
    put(folder, "a")
    stuck = put(folder, "b")
    put(folder, "c")
    found = runs.read_folder(folder, "node1").runs
    stuck.unlink()
    stuck.mkdir()
    freed, kept = runs.prune(found)
    assert left(folder) == {"b"}
    assert freed > 0
    assert [error.filename for error in kept] == [str(stuck)]
