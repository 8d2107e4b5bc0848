"""Folders of journals: which one, which runs are in it, what their hosts have used, and who else is measuring here."""

import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

import platformdirs
import pytest

from hf_eco2ai.energy.share import HISTORY_SECONDS, Claim
from hf_eco2ai.journal import format as lines
from hf_eco2ai.journal.folder import RECENT_SECONDS, Neighbours, RunsFolder, runs_folder
from hf_eco2ai.journal.read import Refused
from hf_eco2ai.journal.write import file_name
from hf_eco2ai.records import HostTotals
from tests.journal.make import BEGAN, as_bytes, cpu, header, here, host_totals, identity, process, put, snapshot, used

# Where journals go


def test_a_folder_that_was_set_is_the_one(tmp_path: Path) -> None:
    (tmp_path / "system").mkdir()
    assert runs_folder(tmp_path / "mine", tmp_path / "system") == tmp_path / "mine"


def test_a_folder_may_be_set_from_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert runs_folder(Path("~/runs")) == Path("/home/ada/runs")


def test_the_hosts_folder_is_used_where_it_may_be_written(tmp_path: Path) -> None:
    assert runs_folder(None, tmp_path) == tmp_path


def test_without_it_journals_go_to_the_users_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert runs_folder(None, tmp_path / "missing") == tmp_path / "data" / "hf-eco2ai" / "runs"
    assert platformdirs.user_data_dir("hf-eco2ai", appauthor=False) == str(tmp_path / "data" / "hf-eco2ai")


# Which runs are in it


def folder_of(path: Path, **seen_from: Any) -> RunsFolder:
    return RunsFolder(path, here(**seen_from))


def attempt(
    folder: Path,
    joules: float,
    *,
    number: int = 1,
    host: str = "node1",
    inherited: tuple[HostTotals, ...] = (),
    elsewhere: tuple[HostTotals, ...] = (),
    end: bool = True,
    steps: int = 0,
    at: float | None = None,
    **more: Any,
) -> Path:
    """A journal of one attempt: its header, 100 s after the one before it, and a line 10 s later."""
    begun = 100.0 * number if at is None else at
    begin = header(
        host=host,
        attempt=number,
        at_unix=BEGAN + begun,
        inherited=[lines.host_used(totals) for totals in inherited],
        **{"launch": f"launch{number}", **more},
    )
    line = used(joules, at=begun + 10, header=begin, end=end, steps=steps, elsewhere=[lines.host_used(o) for o in elsewhere])
    return put(folder, [begin, line])


def joules_by_host(hosts: tuple[HostTotals, ...]) -> dict[str, float]:
    return {totals.host: totals.total.joules for totals in hosts}


def test_a_folder_that_is_not_there_has_no_runs(tmp_path: Path) -> None:
    assert folder_of(tmp_path / "missing").runs() == []
    assert folder_of(tmp_path / "missing").run("a") is None


def test_journals_are_grouped_by_run_and_runs_are_in_the_order_in_which_they_began(tmp_path: Path) -> None:
    for run_id, started in (("b", 2.0), ("a", 3.0), ("c", 1.0)):
        for number in (2, 1):
            attempt(tmp_path, 1, number=number, run=lines.Run(run_id=run_id, started_unix=started), launch=f"{run_id}{number}")
    (tmp_path / "notes.txt").write_text("not a journal")
    runs = folder_of(tmp_path).runs()
    assert [run.run_id for run in runs] == ["c", "b", "a"]
    assert [[a.header.attempt for a in run.attempts] for run in runs] == [[1, 2]] * 3


def test_one_run_is_found_by_its_id_and_not_by_one_that_begins_alike(tmp_path: Path) -> None:
    for run_id in ("lora", "lora.2", "lora-2", "../lora"):
        attempt(tmp_path, len(run_id), run=lines.Run(run_id=run_id))
    for run_id in ("lora", "lora.2", "lora-2", "../lora"):
        run = folder_of(tmp_path).run(run_id)
        assert run is not None
        assert run.run_id == run_id
        assert joules_by_host(run.hosts) == {"node1": len(run_id)}


def test_a_journal_that_cannot_be_read_is_told_and_the_others_are_shown(tmp_path: Path) -> None:
    attempt(tmp_path, 1)
    (tmp_path / "damaged.ndjson").write_bytes(b"{}\n")
    (tmp_path / "folder.ndjson").mkdir()
    os.mkfifo(tmp_path / "pipe.ndjson")
    (tmp_path / "dangling.ndjson").symlink_to(tmp_path / "nothing")
    refused: list[Refused] = []
    runs = RunsFolder(tmp_path, here(), refused.append).runs()
    assert [run.run_id for run in runs] == ["0123456789ab"]
    assert {reason.path.name: reason.reason for reason in refused} == {
        "damaged.ndjson": "damaged or torn: its check is wrong or missing",
        "folder.ndjson": "not a plain file",
        "pipe.ndjson": "not a plain file",
    }


def test_what_hosts_have_used_in_all_attempts_adds_up(tmp_path: Path) -> None:
    attempt(tmp_path, 100)
    attempt(tmp_path, 20, host="node2", leads=False)
    attempt(tmp_path, 3, number=2, inherited=(host_totals("node1", 100), host_totals("node2", 20)))
    attempt(tmp_path, 4, number=2, host="node2", leads=False, inherited=(host_totals("node2", 20),))
    run = folder_of(tmp_path).run("0123456789ab")
    assert run is not None
    assert joules_by_host(run.hosts) == {"node1": 103, "node2": 24}


def test_a_journal_that_is_missing_is_made_up_for_by_what_later_ones_inherited(tmp_path: Path) -> None:
    attempt(tmp_path, 100).unlink()
    attempt(tmp_path, 3, number=2, inherited=(host_totals("node1", 100), host_totals("node2", 20)))
    run = folder_of(tmp_path).run("0123456789ab")
    assert run is not None
    assert joules_by_host(run.hosts) == {"node1": 103, "node2": 20}


def test_a_host_whose_journals_lie_elsewhere_counts_as_the_leading_process_last_heard(tmp_path: Path) -> None:
    attempt(tmp_path, 100, elsewhere=(host_totals("node2", 50),))
    attempt(
        tmp_path,
        7,
        number=2,
        inherited=(host_totals("node1", 100), host_totals("node2", 50)),
        elsewhere=(host_totals("node2", 5),),
    )
    run = folder_of(tmp_path).run("0123456789ab")
    assert run is not None
    assert joules_by_host(run.hosts) == {"node1": 107, "node2": 55}


def test_a_host_with_a_journal_of_its_own_is_not_counted_by_hearsay_too(tmp_path: Path) -> None:
    attempt(tmp_path, 100, elsewhere=(host_totals("node2", 49),))
    attempt(tmp_path, 50, host="node2", leads=False)
    run = folder_of(tmp_path).run("0123456789ab")
    assert run is not None
    assert joules_by_host(run.hosts) == {"node1": 100, "node2": 50}


def test_a_copy_of_a_journal_counts_no_joule_twice(tmp_path: Path) -> None:
    path = attempt(tmp_path, 100)
    shutil.copy(path, tmp_path / "0123456789ab.backup.ndjson")
    run = folder_of(tmp_path).run("0123456789ab")
    assert run is not None
    assert joules_by_host(run.hosts) == {"node1": 100}


def test_what_was_rolled_back_is_known_to_the_attempt_that_resumed(tmp_path: Path) -> None:
    attempt(tmp_path, 100)
    attempt(tmp_path, 7, number=2, inherited=(host_totals("node1", 100, wasted=40),))
    run = folder_of(tmp_path).run("0123456789ab")
    assert run is not None
    assert joules_by_host(run.hosts) == {"node1": 107}
    assert [totals.wasted.joules for totals in run.hosts] == [40]
    assert run.snapshot.wasted.joules == 40


def test_the_snapshot_of_a_run_is_of_all_its_attempts_and_hosts(tmp_path: Path) -> None:
    attempt(tmp_path, 100, elsewhere=(host_totals("node2", 50),))
    attempt(
        tmp_path,
        7,
        number=2,
        inherited=(host_totals("node1", 100), host_totals("node2", 50)),
        elsewhere=(host_totals("node2", 5),),
    )
    run = folder_of(tmp_path).run("0123456789ab")
    assert run is not None
    assert run.snapshot.total.joules == 162
    assert run.snapshot.here.total.joules == 107
    assert run.snapshot.here.seconds == pytest.approx(1.07)
    assert joules_by_host(run.snapshot.hosts) == {"node1": 107, "node2": 55}
    assert run.snapshot.state == "ended"


def test_a_lost_run_shows_no_power(tmp_path: Path) -> None:
    begin = header()
    put(tmp_path, [begin, lines.totals_line(snapshot(10), begin, monotonic=110)])
    lost, running = (folder_of(tmp_path, alive=alive).runs()[0] for alive in ({}, {4711: 1000.0}))
    assert (lost.state, lost.snapshot.state, lost.snapshot.rates, lost.snapshot.cpu_watts) == ("lost", "lost", None, ())
    assert running.state == "running"
    assert running.snapshot.rates is not None
    assert running.snapshot.rates.watts == pytest.approx(312.0)
    assert lost.snapshot.total == running.snapshot.total


def test_a_run_of_which_there_is_only_a_header_has_used_what_it_inherited(tmp_path: Path) -> None:
    put(tmp_path, [header(inherited=[lines.host_used(host_totals("node1", 9))], done_before=lines.Done(steps=5))])
    run = folder_of(tmp_path).runs()[0]
    assert run.snapshot.total.joules == 9
    assert run.counts.steps == 5


def test_the_state_of_a_run_is_that_of_the_process_that_leads(tmp_path: Path) -> None:
    attempt(tmp_path, 1, end=True)
    attempt(tmp_path, 1, host="node2", leads=False, at=105, end=False, process=process(boot="another"))
    assert folder_of(tmp_path).runs()[0].state == "ended"


def test_what_a_run_has_done_is_told_by_the_journal_that_saw_most(tmp_path: Path) -> None:
    attempt(tmp_path, 1, steps=90)
    attempt(tmp_path, 1, number=2, steps=30)
    assert folder_of(tmp_path).runs()[0].counts.steps == 90


# Who else is here

OWN = process(pid=1)
GPU = "GPU-00000000-1111-2222-3333-444444444444"


class Watching:
    """Neighbours, as this process sees them, with a clock of its own and processes that live as long as the test says."""

    def __init__(self, folder: Path, **seen_from: Any) -> None:
        self.alive = {4711: 1000.0, 4712: 2000.0}
        self.now = 1000.0
        self.refused: list[Refused] = []
        self.neighbours = Neighbours(
            folder, here(alive=self.alive, **seen_from), OWN, "own", lambda: self.now, self.refused.append
        )

    def look(self) -> list[tuple[str, float, float]]:
        return [(claim.device, claim.start, claim.end) for claim in self.neighbours.look()]


def neighbour(folder: Path, *, pid: int = 4711, end: bool = False, name: str | None = None, **more: Any) -> Path:
    """One that has measured a GPU since 99.5 and has written a line at 110."""
    begin = header(
        **{
            "run": lines.run(identity(run_id=f"run{pid}")),
            "process": process(pid=pid, started={4711: 1000.0, 4712: 2000.0}.get(pid, 3000.0)),
            "devices": [lines.header_device(status.device) for status in snapshot().devices[:1]],
            **more,
        }
    )
    return put(folder, [begin, used(1, at=10, header=begin, end=end)], changed=time.time(), name=name)


def test_a_neighbour_claims_its_devices_from_its_begin_until_its_end(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    assert watching.look() == []
    path = neighbour(tmp_path)
    assert watching.look() == [(GPU, 99.5, math.inf)]
    assert watching.neighbours.look() is watching.neighbours.look()
    begin = header()
    with path.open("ab") as file:
        file.write(lines.to_bytes(used(2, at=400, header=begin, end=True)))
    watching.now = 501.0
    assert watching.look() == [(GPU, 99.5, 500.0)]
    watching.now = 500.0 + HISTORY_SECONDS + 1
    assert watching.look() == []


def test_a_neighbour_that_was_killed_claims_until_its_last_line(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    neighbour(tmp_path)
    watching.look()
    del watching.alive[4711]
    watching.now = 111.0
    assert watching.look() == [(GPU, 99.5, 110.0)]


def test_a_line_that_is_written_while_its_writer_is_looked_for_is_not_overlooked(tmp_path: Path) -> None:
    """Read, then seen to be dead: in between it may have written its last line, and what that tells must not be counted twice."""
    path = neighbour(tmp_path)

    def dies_after_one_more_line(_pid: int) -> None:
        if path.read_bytes().count(b"\n") == 2:
            with path.open("ab") as file:
                file.write(lines.to_bytes(used(9, at=12, header=header())))

    seen = here()._replace(started=dies_after_one_more_line)
    neighbours = Neighbours(tmp_path, seen, OWN, "own", lambda: 113.0)
    assert [claim.end for claim in neighbours.look()] == [112.0]
    path.unlink()
    path = neighbour(tmp_path)
    (run,) = RunsFolder(tmp_path, seen).runs()
    assert (run.state, run.snapshot.total.joules) == ("lost", 9)


def test_several_neighbours_claim_each_for_itself(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    neighbour(tmp_path)
    neighbour(tmp_path, pid=4712, begun_monotonic=105.0)
    assert watching.look() == [(GPU, 99.5, math.inf), (GPU, 105.0, math.inf)]


def test_a_copy_of_a_neighbours_journal_claims_nothing(tmp_path: Path) -> None:
    neighbour(tmp_path)
    neighbour(tmp_path, name="copy.ndjson")
    assert Watching(tmp_path).look() == [(GPU, 99.5, math.inf)]


def test_our_own_journal_is_no_neighbours(tmp_path: Path) -> None:
    neighbour(tmp_path, process=OWN, launch="own")
    assert Watching(tmp_path).look() == []


def test_another_run_of_this_process_is_a_neighbour(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    watching.alive[1] = 1000.0
    neighbour(tmp_path, process=OWN, launch="another")
    assert watching.look() == [(GPU, 99.5, math.inf)]


@pytest.mark.parametrize("seen_from", [{"boot": "another"}, {"boot": "another", "host": "node2"}, {"boot": "", "host": "node2"}])
def test_journals_of_other_machines_and_other_boots_claim_nothing_here(tmp_path: Path, seen_from: dict[str, str]) -> None:
    neighbour(tmp_path)
    assert Watching(tmp_path, **seen_from).look() == []


def test_a_container_of_the_same_machine_is_a_neighbour(tmp_path: Path) -> None:
    neighbour(tmp_path)
    assert Watching(tmp_path, host="container", namespace="pid:[2]").look() == [(GPU, 99.5, math.inf)]


def test_the_cpus_that_a_part_of_the_host_is_bound_to_are_claimed_by_their_name(tmp_path: Path) -> None:
    neighbour(tmp_path, devices=[lines.header_device(cpu()), lines.header_device(cpu(scope="0-3"))])
    assert Watching(tmp_path).look() == [("cpu", 99.5, math.inf), ("cpu0-3", 99.5, math.inf)]
    assert {"cpu", "cpu0-3"} == {cpu().claim, cpu(scope="0-3").claim}


def test_a_journal_that_is_deleted_claims_no_more_and_one_made_again_claims_as_before(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    path = neighbour(tmp_path)
    watching.look()
    content = path.read_bytes()
    path.unlink()
    assert watching.look() == [(GPU, 99.5, 1000.0)]
    path.write_bytes(content)
    assert watching.look() == [(GPU, 99.5, math.inf)]


def test_a_file_system_that_hiccups_ends_no_neighbour(tmp_path: Path) -> None:
    """A folder in its place is an error of another kind than a file that is missing."""
    watching = Watching(tmp_path)
    path = neighbour(tmp_path)
    watching.look()
    content = path.read_bytes()
    path.unlink()
    path.mkdir()
    assert watching.look() == [(GPU, 99.5, math.inf)]
    path.rmdir()
    path.write_bytes(content)
    assert watching.look() == [(GPU, 99.5, math.inf)]


def test_a_journal_whose_header_is_still_being_written_is_looked_at_again(tmp_path: Path) -> None:
    """Its folder does not change when it gets its header, so that cannot be waited for."""
    watching = Watching(tmp_path)
    path = neighbour(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[:100])
    long_ago = time.time() - 100
    os.utime(tmp_path, (long_ago, long_ago))
    assert watching.look() == []
    path.write_bytes(content)
    os.utime(tmp_path, (long_ago, long_ago))
    assert watching.look() == [(GPU, 99.5, math.inf)]
    assert watching.refused == []


def test_a_folder_that_has_not_changed_is_not_listed_again(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    long_ago = time.time() - 100
    os.utime(tmp_path, (long_ago, long_ago))
    watching.look()
    neighbour(tmp_path)
    os.utime(tmp_path, (long_ago, long_ago))  # As if it had not: so what has come is not seen,
    assert watching.look() == []
    os.utime(tmp_path, (long_ago + 1, long_ago + 1))  # until it has.
    assert len(watching.look()) == 1


def test_a_folder_that_is_not_there_yet_has_no_neighbours(tmp_path: Path) -> None:
    watching = Watching(tmp_path / "runs")
    assert watching.look() == []
    neighbour(tmp_path / "runs")
    assert len(watching.look()) == 1


def test_a_damaged_journal_is_told_once(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    (tmp_path / "damaged.ndjson").write_bytes(b"{}\n")
    for _ in range(3):
        (tmp_path / "touched").touch()
        watching.look()
    assert [reason.path.name for reason in watching.refused] == ["damaged.ndjson"]


def fill(folder: Path, count: int, content: bytes, changed: float) -> list[Path]:
    paths = [folder / file_name(f"old{n}", "node1", 1) for n in range(count)]
    for path in paths:
        path.write_bytes(content)
        os.utime(path, (changed, changed))
    return paths


def test_a_thousand_old_journals_are_never_opened(tmp_path: Path) -> None:
    """Were one of them read, it would be refused."""
    fill(tmp_path, 1000, b"{damaged}\n", time.time() - RECENT_SECONDS - 60)
    watching = Watching(tmp_path)
    neighbour(tmp_path)
    for _ in range(3):
        (tmp_path / "touched").touch()
        assert len(watching.look()) == 1
    assert watching.refused == []


def test_a_thousand_runs_that_have_ended_just_now_are_read_once(tmp_path: Path) -> None:
    begin = header()
    ended = as_bytes([begin, used(1, at=1, header=begin, end=True)])
    paths = fill(tmp_path, 1000, ended, time.time())
    watching = Watching(tmp_path)
    watching.look()
    for path in paths:
        path.write_bytes(b"{damaged}\n")  # Were one of them read again, it would be refused.
    (tmp_path / "touched").touch()
    watching.look()
    assert watching.refused == []


def test_a_claim_is_what_a_share_is_made_of(tmp_path: Path) -> None:
    neighbour(tmp_path)
    (claim,) = Watching(tmp_path).neighbours.look()
    assert claim == Claim(snapshot().devices[0].device.claim, 99.5, math.inf)


def test_a_user_without_a_home_is_told_what_to_set() -> None:
    with pytest.raises(OSError, match="HF_ECO2AI_RUNS_DIR"):
        runs_folder(Path("~no-such-user-anywhere/runs"))
