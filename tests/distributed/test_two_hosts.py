"""Two hosts with a name and a network each, and a run that moves to a third."""

import json
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.distributed.conftest import Group
from tests.distributed.harness import WATTS, gpu_uuids, gpus, journals

JOULES_PER_KWH = 3.6e6


@pytest.fixture(params=["apart", "together"])
def training(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def kept(two_hosts: Group, training: str) -> list[Any]:
    if training == "together":
        return journals(two_hosts.runs("-shared"))
    return [*journals(two_hosts.runs("-node-a")), *journals(two_hosts.runs("-node-b"))]


def energies(text: str) -> dict[tuple[str, str], float]:
    """Joules on `/metrics` by run and host, from the counter of the whole and from those of the devices, which must agree."""
    whole: dict[tuple[str, str], float] = {}
    devices: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.labels.get("run_id", ""), sample.labels.get("host", ""))
            if sample.name == "hf_training_energy_kwh_total":
                whole[key] = whole.get(key, 0.0) + sample.value * JOULES_PER_KWH
            elif sample.name == "hf_training_device_energy_joules_total":
                devices[key] = devices.get(key, 0.0) + sample.value
    assert devices == pytest.approx(whole, rel=1e-6)
    return whole


def test_both_hosts_have_one_run_and_each_has_one_journal_and_one_port(two_hosts: Group, training: str) -> None:
    reports = two_hosts.reports[training]
    assert [reports[rank]["host"] for rank in range(4)] == ["node-a", "node-a", "node-b", "node-b"]
    assert [len(reports[rank]["opened"]) for rank in range(4)] == [1, 0, 1, 0]
    found = kept(two_hosts, training)
    assert [(one.header.host, one.header.leads, one.header.ranks["rank"]) for one in found] == [
        ("node-a", True, 0),
        ("node-b", False, 2),
    ]
    assert len({one.header.run.run_id for one in found}) == 1
    assert len({one.header.launch for one in found}) == 1
    assert {reports[rank]["snapshot"]["run_id"] for rank in (0, 2)} == {found[0].header.run.run_id}


def test_the_leading_process_has_the_sum_of_both_journals(two_hosts: Group, training: str) -> None:
    leading = two_hosts.reports[training][0]["snapshot"]
    here, there = kept(two_hosts, training)
    assert leading["joules"] == pytest.approx(here.line.used.joules + there.line.used.joules, rel=1e-9)
    assert [(host["host"], host["joules"]) for host in leading["elsewhere"]] == [
        ("node-b", pytest.approx(there.line.used.joules, rel=1e-9))
    ]


def test_hosts_with_disks_of_their_own_use_twice_the_energy_of_one(two_hosts: Group) -> None:
    leading = two_hosts.reports["apart"][0]["snapshot"]
    for totals in (leading["attempt"], *leading["elsewhere"]):
        measured = gpus(totals)
        assert set(measured) == gpu_uuids(0, 1)
        for joules, seconds in measured.values():
            assert joules == pytest.approx(WATTS * seconds, rel=0.005)
    for rank in (0, 2):
        report = two_hosts.reports["apart"][rank]
        assert report["inner"][1] - report["inner"][0] <= report["snapshot"]["seconds"] <= report["outer"][1] - report["outer"][0]


def test_processes_of_one_machine_that_share_a_folder_use_the_energy_of_one(two_hosts: Group) -> None:
    """Both hosts are this machine: by the folder they know that they measure the same GPUs, and each takes half."""
    here, there = (two_hosts.reports["together"][rank]["snapshot"] for rank in (0, 2))
    for uuid in gpu_uuids(0, 1):
        joules, spans = 0.0, []
        for snapshot in (here, there):
            used, seconds = gpus(snapshot["attempt"])[uuid]
            joules += used
            spans.append((snapshot["last_reading"] - seconds, snapshot["last_reading"]))
        together = max(end for _, end in spans) - min(begin for begin, _ in spans)
        assert joules == pytest.approx(WATTS * together, rel=0.005)


def test_ranks_on_two_hosts_stop_at_the_budget_after_the_same_step(two_hosts: Group, training: str) -> None:
    reports = two_hosts.reports[training]
    assert len({report["step"] for report in reports.values()}) == 1
    assert reports[0]["step"] < reports[0]["max_steps"]
    assert [reports[rank]["snapshot"]["end_reason"] for rank in (0, 2)] == ["budget", "budget"]
    assert [folder.name for folder in two_hosts.output(training).glob("checkpoint-*")] == [f"checkpoint-{reports[0]['step']}"]
    assert reports[0]["snapshot"]["kwh"] >= 0.0004


def test_only_the_leading_host_judges_the_budget_of_the_run(two_hosts: Group, training: str) -> None:
    reports = two_hosts.reports[training]
    assert [any("budget" in message for message in reports[rank]["warnings"]) for rank in range(4)] == [True, False, False, False]
    assert [message for rank in range(4) for message in reports[rank]["warnings"] if "budget" not in message] == []


def test_each_host_shows_its_own_energy_and_no_other(two_hosts: Group, training: str) -> None:
    run_id = two_hosts.reports[training][0]["snapshot"]["run_id"]
    for rank, host in ((0, "node-a"), (2, "node-b")):
        report = two_hosts.reports[training][rank]
        assert set(energies(report["scraped"])) == {(run_id, host)}
        assert energies(report["snapshot"]["exposed"]) == {
            (run_id, host): pytest.approx(report["snapshot"]["attempt"]["joules"], rel=1e-6)
        }


def test_two_hosts_of_one_name_are_told_apart_by_their_ranks(two_hosts: Group) -> None:
    """As containers may be that were made from one image."""
    reports = two_hosts.reports["namesakes"]
    assert {report["host"] for report in reports.values()} == {"node"}
    leading, other = reports[0]["snapshot"], reports[2]["snapshot"]
    assert [len(reports[rank]["opened"]) for rank in range(4)] == [1, 0, 1, 0]
    assert leading["run_id"] == other["run_id"]
    assert leading["attempt"]["host"] == "node"
    assert other["attempt"]["host"] == "node (rank 2)"
    assert [(host["host"], host["joules"]) for host in leading["elsewhere"]] == [
        ("node (rank 2)", pytest.approx(other["attempt"]["joules"], rel=1e-9))
    ]
    assert leading["joules"] == pytest.approx(leading["attempt"]["joules"] + other["attempt"]["joules"], rel=1e-9)
    assert {one.header.host: one.line.used.joules for one in journals(two_hosts.runs("-namesakes"))} == {
        "node": pytest.approx(leading["attempt"]["joules"], rel=1e-9),
        "node (rank 2)": pytest.approx(other["attempt"]["joules"], rel=1e-9),
    }


def carried(group: Group, training: str) -> dict[str, float]:
    """Joules by host that the checkpoint carries."""
    [checkpoint] = group.output(training).glob("checkpoint-*")
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    saved = state["stateful_callbacks"]["Eco2AICallback"]["attributes"]["carried"]
    return {host["host"]: host["joules"] for host in saved["hosts"]}


def assert_shown_once(report: dict[str, Any], run_id: str, before: dict[str, float]) -> None:
    """While it goes on and at the end, `/metrics` has what each host used before, and what node-c has used since."""
    snapshot = report["snapshot"]
    assert report["host"] == "node-c"
    assert snapshot["run_id"] == run_id
    for text in (report["scraped"], snapshot["exposed"]):
        shown = energies(text)
        assert set(shown) == {*((run_id, host) for host in before), (run_id, "node-c")}
        for host, joules in before.items():
            assert shown[run_id, host] == pytest.approx(joules, rel=1e-6)
    assert 0 < energies(report["scraped"])[run_id, "node-c"] <= snapshot["attempt"]["joules"]
    total = sum(energies(snapshot["exposed"]).values())
    assert total == pytest.approx(sum(before.values()) + snapshot["attempt"]["joules"], rel=1e-6)
    assert total == pytest.approx(snapshot["joules"], rel=1e-6)
    for joules, seconds in gpus(snapshot["attempt"]).values():
        assert joules == pytest.approx(WATTS * seconds, rel=0.005)


def test_a_run_resumed_on_another_host_shows_every_joule_once(two_ranks: Group, third_host: Group) -> None:
    before = carried(two_ranks, "stopped")
    first = two_ranks.reports["stopped"][0]
    assert set(before) == {first["host"]}
    assert 0.0003 * JOULES_PER_KWH <= before[first["host"]] <= first["snapshot"]["joules"]
    assert_shown_once(third_host.reports["from-one"][0], first["snapshot"]["run_id"], before)


def test_a_run_of_two_hosts_resumed_on_a_third_shows_every_joule_once(two_hosts: Group, third_host: Group) -> None:
    before = carried(two_hosts, "apart")
    assert set(before) == {"node-a", "node-b"}
    assert_shown_once(third_host.reports["from-two"][0], two_hosts.reports["apart"][0]["snapshot"]["run_id"], before)


def test_a_run_of_two_hosts_resumed_on_one_of_them_shows_every_joule_once(two_hosts: Group, third_host: Group) -> None:
    before = carried(two_hosts, "apart")
    report = third_host.reports["back"][0]
    snapshot = report["snapshot"]
    run_id = two_hosts.reports["apart"][0]["snapshot"]["run_id"]
    assert (snapshot["run_id"], snapshot["attempt"]["host"]) == (run_id, "node-a")
    assert energies(snapshot["exposed"]) == {
        (run_id, "node-a"): pytest.approx(before["node-a"] + snapshot["attempt"]["joules"], rel=1e-6),
        (run_id, "node-b"): pytest.approx(before["node-b"], rel=1e-6),
    }
    assert set(energies(report["scraped"])) == {(run_id, "node-a"), (run_id, "node-b")}
    assert energies(report["scraped"])[run_id, "node-b"] == pytest.approx(before["node-b"], rel=1e-6)


def test_with_the_journals_of_the_former_hosts_it_shows_what_they_say_and_nothing_twice(
    two_hosts: Group, third_host: Group
) -> None:
    before = {one.header.host: one.line.used.joules for one in kept(two_hosts, "apart")}
    assert set(before) == {"node-a", "node-b"}
    assert sum(before.values()) >= sum(carried(two_hosts, "apart").values())
    assert_shown_once(third_host.reports["with-journals"][0], two_hosts.reports["apart"][0]["snapshot"]["run_id"], before)
