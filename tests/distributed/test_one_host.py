"""torchrun on one host: it is measured once, whatever the number of its processes, and they stop together."""

import json
import socket
from typing import Any

import pytest

from tests.distributed.conftest import Group
from tests.distributed.harness import WATTS, gpu_uuids, gpus, journals


@pytest.fixture(params=["two_ranks", "four_ranks"])
def group(request: pytest.FixtureRequest) -> Group:
    found: Group = request.getfixturevalue(request.param)
    return found


def assert_true(report: dict[str, Any], uuids: set[str]) -> None:
    """These GPUs were measured, as long as training lasted, at the stand-in's watts."""
    snapshot = report["snapshot"]
    measured = gpus(snapshot["attempt"])
    assert set(measured) == uuids
    for joules, seconds in measured.values():
        assert joules == pytest.approx(WATTS * seconds, rel=0.005)
    (after_begin, before_end), (before_begin, after_end) = report["inner"], report["outer"]
    assert before_end - after_begin <= snapshot["seconds"] <= after_end - before_begin
    assert sum(seconds for _, seconds in measured.values()) <= len(uuids) * snapshot["seconds"]
    every_device = sum(joules for _, joules, _ in snapshot["attempt"]["devices"].values())
    assert snapshot["attempt"]["joules"] == pytest.approx(every_device, rel=1e-6)


def test_one_process_of_a_host_opens_one_port_and_the_others_none(group: Group) -> None:
    for training in ("stopped", "resumed"):
        first, *others = group.reports[training].values()
        assert len(first["opened"]) == 1
        assert first["metrics_url"] == f"http://127.0.0.1:{first['opened'][0]}/metrics"
        assert [other["opened"] for other in others] == [[]] * len(others)
        assert [other["metrics_url"] for other in others] == [None] * len(others)
        assert [other["snapshot"] for other in others] == [None] * len(others)


def test_a_host_has_one_journal_for_each_training_and_it_says_what_the_measuring_process_said(group: Group) -> None:
    kept = {(one.header.run.run_id, one.header.attempt): one for one in journals(group.runs())}
    measured = [reports[0] for reports in group.reports.values() if reports[0]["snapshot"] is not None]
    assert len(kept) == len(measured) == len(list(group.runs().iterdir()))
    for report in measured:
        attempt = 2 if report["began_at"] else 1
        one = kept[report["snapshot"]["run_id"], attempt]
        assert one.header.process.pid == report["pid"]
        assert one.line.used.joules == pytest.approx(report["snapshot"]["attempt"]["joules"], rel=1e-9)


def test_the_energy_of_a_host_is_counted_once_whatever_the_number_of_its_ranks(group: Group) -> None:
    report = group.reports["stopped"][0]
    assert_true(report, gpu_uuids(0, 1))
    assert report["snapshot"]["joules"] == report["snapshot"]["attempt"]["joules"]
    assert report["snapshot"]["elsewhere"] == []


def test_of_eight_gpus_those_are_measured_that_the_ranks_compute_on(four_ranks: Group) -> None:
    assert_true(four_ranks.reports["cuda"][0], gpu_uuids(1, 2, 3, 5))


def test_all_ranks_stop_at_the_budget_after_the_same_step(group: Group) -> None:
    reports = group.reports["stopped"]
    assert {report["step"] for report in reports.values()} == {reports[0]["step"]}
    assert reports[0]["step"] < reports[0]["max_steps"]
    assert reports[0]["snapshot"]["end_reason"] == "budget"
    # They had the same check points, and the stop was at the first one after that at which the budget was found to be spent.
    assert {tuple(step for step, _ in report["checks"]) for report in reports.values()} == {
        tuple(step for step, _ in reports[0]["checks"])
    }
    *_, (_, spent_before), _, (last, _) = reports[0]["checks"]
    assert last == reports[0]["step"]
    assert spent_before < 0.0003 <= reports[0]["snapshot"]["kwh"]


def test_the_stop_leaves_a_checkpoint_of_its_step_from_which_all_ranks_go_on(group: Group) -> None:
    stopped, resumed = group.reports["stopped"], group.reports["resumed"]
    step = stopped[0]["step"]
    assert [folder.name for folder in group.output("stopped").glob("checkpoint-*")] == [f"checkpoint-{step}"]
    for report in resumed.values():
        assert report["began_at"] == step
        assert report["step"] == report["max_steps"] == step + 30
    snapshot = resumed[0]["snapshot"]
    assert snapshot["end_reason"] == "completed"
    assert snapshot["run_id"] == stopped[0]["snapshot"]["run_id"]
    # All that the run had used before is there, once, although checkpoint and journal both tell of it.
    [before] = snapshot["inherited"]
    assert before["host"] == socket.gethostname()
    assert before["joules"] == pytest.approx(stopped[0]["snapshot"]["joules"], rel=1e-9)
    assert snapshot["joules"] == pytest.approx(before["joules"] + snapshot["attempt"]["joules"], rel=1e-9)


def test_distributed_training_is_bit_identical_with_and_without_the_callback(two_ranks: Group) -> None:
    without, with_us = two_ranks.reports["without"], two_ranks.reports["with"]
    assert len(without[0]["losses"]) == 40
    for rank in (0, 1):
        assert with_us[rank]["losses"] == without[rank]["losses"]
        assert with_us[rank]["weights"] == without[rank]["weights"]


def test_a_sound_training_says_nothing_but_its_budget(group: Group) -> None:
    for training, reports in group.reports.items():
        for rank, report in reports.items():
            others = [message for message in report["warnings"] if "% of the energy budget of this run is spent" not in message]
            assert others == [], (training, rank)
    assert json.dumps(group.reports["stopped"][0]["warnings"]).count("It is asked to stop.") == 1
