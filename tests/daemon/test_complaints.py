"""What the daemon says of what it cannot use: once, in a line that nobody can forge, and counted every time."""

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_eco2ai.complaints import MOST_A_SECOND, MOST_LINES, Complaints
from hf_eco2ai.journal.read import Refused
from hf_eco2ai.outputs.logfmt import Logfmt, log, quoted
from hf_eco2ai.records import Failure


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [Logfmt().format(record).split(" ", 1)[1] for record in caplog.records]


def test_a_refused_line_is_named_once_and_counted_each_time(caplog: pytest.LogCaptureFixture) -> None:
    complaints = Complaints()
    for _ in range(3):
        complaints.line(Refused(Path("/runs/a.ndjson"), 7, "damaged or torn: its check is wrong or missing"))
    assert complaints.lines["damaged"] == 3
    (line,) = said(caplog)
    assert line.startswith('level=warning msg="left out of a journal" path=/runs/a.ndjson line=7 ')
    assert line.endswith(' reason="damaged or torn: its check is wrong or missing"')


def test_of_a_journal_full_of_damage_some_lines_are_named_and_the_rest_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    complaints = Complaints()
    for number in range(1000):
        complaints.line(Refused(Path("/runs/a.ndjson"), number, "not a line of a journal"))
    assert complaints.lines["foreign"] == 1000
    assert len(caplog.records) == MOST_LINES
    assert said(caplog)[-1].endswith('further="of this journal are only counted"')


def test_a_failure_is_said_once_for_each_cause_and_again_once_it_was_over(caplog: pytest.LogCaptureFixture) -> None:
    complaints = Complaints()
    failure = Failure("journal_refused", "folder", "The runs folder cannot be read.")
    complaints.failure(failure)
    complaints.failure(failure)
    complaints.is_over("folder")
    complaints.failure(failure)
    assert complaints.failures == {"journal_refused": 3}
    assert len(caplog.records) == 2


def test_a_failure_that_comes_back_after_months_is_said_again(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    complaints = Complaints(lambda: now[0])
    for now[0] in (0.0, 3000.0, 6000.0, 6000.0 + 3601.0):
        complaints.failure(Failure("journal_failed", "kept 28", "The disk is full."))
    assert len(caplog.records) == 2


def test_what_is_logged_of_a_refused_request_is_short(caplog: pytest.LogCaptureFixture) -> None:
    Complaints().request("malformed", {"detail": "x" * 300_000})
    assert len(said(caplog)[0]) < 300


def test_nobody_fills_the_disk_by_knocking(caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    complaints = Complaints(lambda: now[0])
    for _ in range(500):
        complaints.request("wrong credentials", {"client": "10.0.0.1"})
    assert len(caplog.records) == MOST_A_SECOND
    now[0] = 101.5
    complaints.request("wrong credentials", {"client": "10.0.0.1"})
    assert said(caplog)[MOST_A_SECOND:] == [
        f'level=warning msg="further requests refused" count={500 - MOST_A_SECOND}',
        'level=warning msg="request refused" reason="wrong credentials" client=10.0.0.1',
    ]


def test_a_line_of_the_log_has_its_instant_in_utc(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "hf_eco2ai"):
        log(logging.INFO, "ready", runs=3)
    caplog.records[0].created = 1_795_000_000.125
    assert Logfmt().format(caplog.records[0]) == "ts=2026-11-18T11:06:40.125Z level=info msg=ready runs=3"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain/path.ndjson", "plain/path.ndjson"),
        ("two words", '"two words"'),
        ('a"b\\c', '"a\\"b\\\\c"'),
        ("line\nlevel=error", '"line\\nlevel=error"'),
        ("\x1b[31m\u202e", '"\\u001b[31m\\u202e"'),
        ("", '""'),
        ("a=b", '"a=b"'),
        ("größe", '"größe"'),
    ],
)
def test_a_value_is_quoted_where_it_has_to_be(value: str, shown: str) -> None:
    assert quoted(value) == shown


@given(st.text(st.characters(exclude_categories=())))
def test_whatever_is_logged_is_one_line_that_can_be_printed_and_taken_apart(value: str) -> None:
    shown = quoted(value)
    assert shown.isprintable()
    inner = shown[1:-1].replace("\\\\", "").replace('\\"', "") if shown.startswith('"') else shown
    assert '"' not in inner
    assert shown.startswith('"') or not set(' ="\\') & set(shown)
