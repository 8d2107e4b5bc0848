"""The lines of a journal: what goes in comes out, whatever it is, and the schema in docs/ is that of what is written."""

import json
import math
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped] # has no types of its own
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_eco2ai.journal import format as lines
from hf_eco2ai.journal.format import Header, Totals, to_bytes
from hf_eco2ai.journal.read import parse
from hf_eco2ai.journal.write import SUFFIX, file_name, name_prefix
from hf_eco2ai.records import Footprint, HostTotals, Snapshot
from tests.journal.make import (
    GERMANY,
    any_counts,
    any_figure,
    any_host_totals,
    any_run,
    as_bytes,
    header,
    hostile_text,
    journal,
    plain,
    snapshot,
)

SCHEMA = Path(__file__).parents[2] / "docs" / "journal.schema.json"


def line_of(snapshot: Snapshot, begin: Header, at: float = 105.0) -> Totals:
    return lines.totals_line(snapshot, begin, monotonic=at)


def again(line: Header | Totals) -> Any:
    """To bytes and back."""
    return parse(to_bytes(line).removesuffix(b"\n"))


@settings(deadline=None, max_examples=50)
@given(any_run())
def test_a_snapshot_comes_back_from_disk_as_it_was(made: tuple[Header, Snapshot, float]) -> None:
    begin, run, at = made
    assert again(begin) == begin
    assert plain(lines.snapshot(again(begin), again(line_of(run, begin, at)))) == plain(run)


@settings(deadline=None)
@given(any_host_totals("node1"))
def test_what_a_host_has_used_comes_back_as_it_was(totals: HostTotals) -> None:
    written = lines.host_used(totals)
    assert lines.host_totals(lines.HostUsed.model_validate_json(written.model_dump_json(exclude_defaults=True))) == totals


@settings(deadline=None)
@given(any_counts())
def test_what_a_run_has_done_comes_back_as_it_was(done: Any) -> None:
    written = lines.done(done).model_dump_json(exclude_defaults=True)
    assert repr(lines.counts(lines.Done.model_validate_json(written))) == repr(done)


@given(any_figure)
def test_json_has_no_nan_so_a_loss_that_is_none_is_a_string(loss: float) -> None:
    run = snapshot()
    line = line_of(replace(run, progress=run.progress._replace(loss=loss)), header())
    written = json.loads(to_bytes(line), parse_constant=pytest.fail)["progress"]["loss"]
    words = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
    assert written == (loss if math.isfinite(loss) else words[repr(loss)])


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_figure_keeps_twelve_digits(value: float) -> None:
    written = lines.Used(joules=value, grams=0.0).joules
    assert math.isclose(written, value, rel_tol=5e-12)
    assert lines.Used(joules=written, grams=0.0).joules == written


@given(hostile_text)
def test_no_text_breaks_a_line_or_keeps_it_from_being_written(text: str) -> None:
    begin = header(host=text, config={text: [text, {text: text}]}, software={text: text})
    line = line_of(replace(snapshot(), identity=replace(snapshot().identity, model_name=text)), begin)
    for written in (begin, line):
        data = to_bytes(written)
        assert data.count(b"\n") == 1
        assert again(written) == written
        json.loads(data)
    if not any("\ud800" <= letter <= "\udfff" for letter in text):
        assert again(line).model_name == text


def test_a_file_name_that_is_no_utf8_is_written_with_escapes() -> None:
    assert again(header(config={"runs_dir": "/data/\udcff"})).config == {"runs_dir": "/data/\\udcff"}


@given(hostile_text, hostile_text, st.integers(1, 99_999))
def test_a_file_name_is_one_that_every_file_system_takes(run_id: str, host: str, attempt: int) -> None:
    begin = header(host=host, run=lines.Run(run_id=run_id))  # As cleaned by the header.
    name = file_name(begin.run.run_id, begin.host, attempt)
    assert name.isascii()
    assert name.isprintable()
    assert "/" not in name
    assert len(name) < 255
    assert name.startswith(name_prefix(begin.run.run_id))
    assert name.endswith(SUFFIX)


def test_the_check_is_the_crc32_of_all_that_stands_before_it() -> None:
    for line in as_bytes(journal()).splitlines():
        body, check = line[: -len(',"crc32":"00000000"}')], json.loads(line)["crc32"]
        assert check == f"{zlib.crc32(body):08x}"
        assert list(json.loads(line))[-1] == "crc32"


@pytest.mark.parametrize("gpus", [0, 64])
def test_a_host_without_gpus_and_one_with_64_are_written_alike(gpus: int) -> None:
    begin, *_, end = (again(line) for line in journal(gpus=gpus))
    assert lines.snapshot(begin, end).gpu_count == gpus
    assert plain(lines.snapshot(begin, end).attempt) == plain(
        lines.host_totals(lines.host_used(snapshot(21.0, gpus=gpus).attempt))
    )
    assert lines.snapshot(begin, end).attempt.total.joules == pytest.approx((250.3 * gpus + 61.7) * 21)


def test_a_line_says_nothing_that_says_nothing() -> None:
    """Five phases of which two have been, 14 kinds of errors and 5 of failed steps that did not happen."""
    written = json.loads(to_bytes(line_of(snapshot(), header())))
    assert set(written["used"]["phases"]) == {"setup", "train"}
    assert {"errors", "budgets", "elsewhere", "tree", "mark", "end_reason"}.isdisjoint(written)
    assert "failed_steps" not in written["progress"]
    assert "wasted" not in written["used"]


def test_what_is_always_there_for_jq_is_there_even_at_zero() -> None:
    nothing = snapshot(attempt=HostTotals("node1"))
    written = json.loads(to_bytes(line_of(nothing, header())))
    assert (written["type"], written["state"], written["used"]["joules"], written["used"]["grams"]) == (
        "totals",
        "running",
        0.0,
        0.0,
    )


def test_zeros_that_were_left_out_are_zeros_when_read() -> None:
    back = lines.snapshot(header(), again(line_of(snapshot(), header())))
    assert dict(back.errors)["gap"] == 0
    assert dict(back.progress.failed_steps) == {
        "nan_loss": 0, "infinite_loss": 0, "nonfinite_grad": 0, "out_of_memory": 0, "exception": 0
    }  # fmt: skip
    assert dict(back.phases)["evaluate"] == Footprint()
    assert dict(back.phase_seconds)["evaluate"] == 0.0


@pytest.mark.parametrize(("gpus", "most"), [(0, 1600), (8, 4800)])
def test_a_line_is_small(gpus: int, most: int) -> None:
    assert len(to_bytes(line_of(snapshot(54_321.0, gpus=gpus), header(snapshot(0.0, gpus=gpus))))) < most


def test_a_factor_that_is_the_headers_is_not_written_again() -> None:
    begin = header()
    changed = replace(GERMANY, grams_per_kwh=200.0, age_seconds=30.0)
    assert "factor" not in json.loads(to_bytes(line_of(snapshot(), begin)))
    assert lines.snapshot(begin, again(line_of(snapshot(), begin))).factor == GERMANY
    assert lines.snapshot(begin, again(line_of(snapshot(factor=changed), begin))).factor == changed


def test_a_line_names_the_attempt_that_its_file_has() -> None:
    assert line_of(snapshot(), header(attempt=3)).attempt == 3


def test_fields_of_a_newer_writer_are_passed_over() -> None:
    data = to_bytes(line_of(snapshot(), header()))
    body = data[: data.rindex(b',"crc32"')] + b',"new_field":{"deep":[1,2]}'
    line = body + b',"crc32":"%08x"}' % zlib.crc32(body)
    assert parse(line) == line_of(snapshot(), header())


# The schema


def schema() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(SCHEMA.read_text(encoding="utf-8"))
    return read


def test_the_schema_is_made_from_the_models(request: pytest.FixtureRequest) -> None:
    made = json.dumps(lines.json_schema(), indent=2, ensure_ascii=False) + "\n"
    if request.config.getoption("--update-golden"):
        SCHEMA.write_text(made, encoding="utf-8")
    assert made == SCHEMA.read_text(encoding="utf-8"), (
        "docs/journal.schema.json differs; if that is meant: pytest --update-golden"
    )


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("gpus", [0, 1, 64])
def test_a_journal_is_as_the_schema_says(gpus: int) -> None:
    validator = jsonschema.Draft202012Validator(schema())
    for line in as_bytes(journal(gpus=gpus)).splitlines():
        validator.validate(json.loads(line))


@settings(deadline=None, max_examples=20)
@given(any_run())
def test_any_run_is_as_the_schema_says(made: tuple[Header, Snapshot, float]) -> None:
    begin, run, at = made
    validator = jsonschema.Draft202012Validator(schema())
    for line in (begin, line_of(run, begin, at)):
        validator.validate(json.loads(to_bytes(line), parse_constant=pytest.fail))


@pytest.mark.parametrize("field", ["type", "format", "run", "process", "factor", "crc32", "host", "at_unix"])
def test_the_schema_wants_what_every_header_has(field: str) -> None:
    line = json.loads(to_bytes(header()))
    del line[field]
    assert not jsonschema.Draft202012Validator(schema()).is_valid(line)


@pytest.mark.parametrize("field", ["type", "run_id", "state", "used", "crc32", "monotonic"])
def test_the_schema_wants_what_every_line_has(field: str) -> None:
    line = json.loads(to_bytes(line_of(snapshot(), header())))
    del line[field]
    assert not jsonschema.Draft202012Validator(schema()).is_valid(line)


def test_every_description_in_the_documentation_comes_from_a_model() -> None:
    page = SCHEMA.with_name("journal.md").read_text(encoding="utf-8")
    for model in (Header, Totals, lines.HostUsed):
        for name in model.model_fields:
            assert f"`{name}`" in page, name
