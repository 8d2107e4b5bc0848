"""Cases for promtool that prove nothing are refused, and failures are told of by the case's name."""

from pathlib import Path

import pytest

from tests.stack.promtool import Alerts, Case, Gives, failures, uncovered

RULES = """
groups:
- name: one
  rules:
  - {alert: High, expr: a > 1, labels: {severity: warning}, annotations: {summary: "{{ $value }} is high"}}
"""
SERIES = {'a{run_id="r1"}': "2x20"}


def test_a_case_with_an_alert_that_no_rule_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no rule is named Hihg"):
        failures([Case("misspelt", SERIES, (Alerts("1m", "Hihg"),))], [RULES], tmp_path)


def test_a_time_between_two_evaluations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="between two evaluations"):
        failures([Case("early", SERIES, (Alerts("1m10s", "High"),))], [RULES], tmp_path)


def test_two_cases_of_one_name_are_refused(tmp_path: Path) -> None:
    case = Case("twice", SERIES, (Alerts("1m", "High", ({"run_id": "r1"},)),))
    with pytest.raises(ValueError, match="same name"):
        failures([case, case], [RULES], tmp_path)


def test_of_several_cases_those_that_fail_are_named(tmp_path: Path) -> None:
    r1 = ({"run_id": "r1"},)
    cases = (
        Case("right", SERIES, (Alerts("1m", "High", r1, ({"summary": "2 is high"},)), Gives("1m", "a", {'a{run_id="r1"}': 2}))),
        Case("wrong silence", SERIES, (Alerts("1m", "High"),)),
        Case("wrong text", SERIES, (Alerts("1m", "High", r1, ({"summary": "2 is low"},)),)),
        Case("wrong value", SERIES, (Gives("1m", "a", {'a{run_id="r1"}': 3}),)),
        Case("wrong series", {"a{": "2x20"}, (Alerts("1m", "High"),)),
    )
    assert failures(cases, [RULES], tmp_path).keys() == {"wrong silence", "wrong text", "wrong value", "wrong series"}


def test_an_alert_that_is_never_seen_firing_is_uncovered() -> None:
    cases = [Case("silent", SERIES, (Alerts("1m", "High"),))]
    assert uncovered(cases, ["High"]) == ["High: never firing", "High: never with its texts"]
