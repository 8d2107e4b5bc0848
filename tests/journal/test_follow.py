"""A folder of journals is followed: what is shown is what stands on disk, whatever happens to it, for as long as it should be."""

import errno
import math
import os
import shutil
import unicodedata
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path, PosixPath
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from hf_eco2ai.energy.share import Claim
from hf_eco2ai.journal import format as lines
from hf_eco2ai.journal.folder import RunsFolder
from hf_eco2ai.journal.follow import OVER_SECONDS, STATE_SECONDS, SWEEP_SECONDS, Follower
from hf_eco2ai.journal.format import Header, Totals
from hf_eco2ai.journal.read import Here, Refused
from hf_eco2ai.outputs.exposition import Exposition
from hf_eco2ai.outputs.labels import LabelRules
from hf_eco2ai.records import Snapshot
from tests.journal.make import (
    BEGAN,
    BOOT,
    NAMESPACE,
    any_run,
    as_bytes,
    gpu,
    header,
    host_totals,
    identity,
    journal,
    process,
    put,
    snapshot,
    used,
)

HOUR = 3600.0
PID, STARTED = 4711, 1000.0
A_WHILE = STATE_SECONDS + 1


class World:
    """A machine with a clock of its own, on which a process writes journals. `used(…, at=n)` is written at second n."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds = 0.0
        self.alive = {PID: STARTED}
        self.asked = 0
        self.refused: list[Refused] = []

    def wall(self) -> float:
        return BEGAN + self.seconds

    def now(self) -> float:
        return 100 + self.seconds

    def started(self, pid: int) -> float | None:
        self.asked += 1
        return self.alive.get(pid)

    def here(self, host: str = "node1", boot: str = BOOT) -> Here:
        return Here(host, boot, NAMESPACE, self.started)

    def follower(self, *, here: Here | None = None, folder: Path | None = None, **more: Any) -> Follower:
        return Follower(
            folder or self.folder, here or self.here(), refuse=self.refused.append, wall=self.wall, now=self.now, **more
        )

    def put(self, *written: Header | Totals, name: str | None = None) -> Path:
        """A journal that is written now."""
        return put(self.folder, written, changed=self.wall(), name=name)

    def append(self, path: Path, *written: Header | Totals | bytes) -> None:
        with path.open("ab") as file:
            for line in written:
                file.write(line if isinstance(line, bytes) else lines.to_bytes(line))
        self.touch(path)

    def touch(self, path: Path) -> None:
        os.utime(path, (self.wall(), self.wall()))

    def look(self, follower: Follower, after: float = 1.0) -> tuple[Snapshot, ...]:
        self.seconds += after
        follower.look()
        return follower.snapshots


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "runs")


def signed(body: bytes) -> bytes:
    """A line with the right check, whatever is in it; `body` is a JSON object without its closing bracket."""
    return body + b',"crc32":"%08x"}\n' % zlib.crc32(body)


def run_header(run_id: str = "0123456789ab", host: str = "node1", **more: Any) -> Header:
    return header(snapshot(0.0, run=identity(run_id, host)), **more)


def joules(snapshots: Sequence[Snapshot]) -> dict[tuple[str, str], float]:
    """What each host of each run has used."""
    return {(s.identity.run_id, totals.host): totals.total.joules for s in snapshots for totals in s.hosts}


def states(snapshots: Sequence[Snapshot]) -> dict[str, str]:
    return {s.identity.run_id: s.state for s in snapshots}


RUN = ("0123456789ab", "node1")


# What comes and goes


def test_a_folder_that_appears_later_is_followed_and_one_that_is_gone_has_no_runs(world: World) -> None:
    follower = world.follower()
    assert world.look(follower) == ()

    begin = run_header()
    world.put(begin, used(1, at=1, header=begin))
    assert joules(world.look(follower)) == {RUN: 1}

    shutil.rmtree(world.folder)
    assert world.look(follower) == ()
    assert (follower.journals, follower.claims, follower.read_unix) == (0, (), {})

    world.put(begin, used(3, at=3, header=begin))
    assert joules(world.look(follower)) == {RUN: 3}
    assert world.refused == []


def test_new_journals_and_new_lines_are_shown_at_the_next_look_and_a_torn_line_once_it_is_whole(world: World) -> None:
    follower, begin = world.follower(), run_header()
    path = world.put(begin)
    assert joules(world.look(follower)) == {RUN: 0}
    assert [s.state for s in follower.snapshots] == ["running"]

    world.append(path, used(5, at=2, header=begin))
    assert joules(world.look(follower)) == {RUN: 5}

    line = lines.to_bytes(used(9, at=3, header=begin))
    world.append(path, line[:-1])
    assert joules(world.look(follower)) == {RUN: 5}
    world.append(path, line[-1:])
    assert joules(world.look(follower)) == {RUN: 9}

    other = run_header("second")
    world.put(other, used(7, at=4, header=other))
    assert joules(world.look(follower)) == {RUN: 9, ("second", "node1"): 7}
    assert world.refused == []
    assert follower.lines_read == 5
    assert follower.read_unix == {"node1": world.wall()}


def test_a_journal_whose_header_is_only_being_written_is_followed_as_soon_as_that_is_there(world: World) -> None:
    world.folder.mkdir()
    path = world.folder / "new.ndjson"
    path.touch()
    follower, begin = world.follower(folder=Counted(world.folder)), run_header()
    line = lines.to_bytes(begin)
    for begun in (b"", line[:50], line[50:-1]):
        world.append(path, begun)
        for _ in range(3):
            assert world.look(follower) == ()
    listed = Counted.listings(world.folder)
    world.append(path, line[-1:], used(2, at=2, header=begin))
    assert joules(world.look(follower)) == {RUN: 2}
    assert Counted.listings(world.folder) == listed  # Nobody had to list the folder for that.
    assert world.refused == []


@pytest.mark.parametrize("ended", [False, True], ids=["live", "ended"])
def test_a_journal_that_is_deleted_is_shown_no_more(world: World, ended: bool) -> None:
    follower, begin, kept = world.follower(), run_header(), run_header("kept")
    path = world.put(begin, used(1, at=1, header=begin, end=ended))
    world.put(kept, used(2, at=1, header=kept))
    assert len(world.look(follower)) == 2
    path.unlink()
    assert joules(world.look(follower, OVER_SECONDS)) == {("kept", "node1"): 2}
    assert follower.journals == 1
    assert world.refused == []


def test_a_run_that_is_over_is_shown_no_more_once_it_is_forgotten_and_one_that_lives_cannot_be(world: World) -> None:
    follower, over, live = world.follower(), run_header("over"), run_header("live")
    world.put(over, used(1, at=1, header=over, end=True))
    world.put(live, used(2, at=1, header=live))
    world.look(follower)
    assert not follower.forget("live")
    assert not follower.forget("nobody")
    assert follower.forget("over")
    assert joules(follower.snapshots) == {("live", "node1"): 2}
    assert joules(world.look(follower, SWEEP_SECONDS)) == {("live", "node1"): 2}


@pytest.mark.parametrize("longer", [False, True])
def test_a_journal_that_is_made_anew_under_the_same_name_is_read_anew(world: World, longer: bool) -> None:
    """Were only what follows the known length read, the old run's identity would get the new one's figures."""
    follower, old, new = world.follower(), run_header("old"), run_header("new")
    path = world.put(old, *(used(n, at=1, header=old) for n in range(1, 5)))
    assert joules(world.look(follower)) == {("old", "node1"): 4}
    other = world.put(new, *[used(100 + n, at=2, header=new) for n in range(8 if longer else 2)], name="other")
    other.rename(path)
    assert joules(world.look(follower)) == {("new", "node1"): 107 if longer else 101}
    assert follower.journals == 1
    assert world.refused == []


def test_a_journal_that_has_become_shorter_is_read_anew(world: World) -> None:
    follower, begin = world.follower(), run_header()
    path = world.put(begin, *(used(n, at=1, header=begin, end=n == 4) for n in range(1, 5)))
    assert states(world.look(follower)) == {"0123456789ab": "ended"}
    path.write_bytes(as_bytes([begin, used(2, at=2, header=begin)]))
    world.touch(path)
    assert joules(world.look(follower, OVER_SECONDS)) == {RUN: 2}
    assert states(follower.snapshots) == {"0123456789ab": "running"}
    assert world.refused == []


def test_a_journal_that_is_made_anew_in_the_same_file_with_as_many_bytes_is_read_anew(world: World) -> None:
    follower, old, new = world.follower(), run_header("old"), run_header("new")
    path = world.put(old, used(1, at=1, header=old))
    assert joules(world.look(follower)) == {("old", "node1"): 1}
    size = path.stat().st_size
    assert world.put(new, used(2, at=2, header=new), name=path.name).stat().st_size == size
    assert joules(world.look(follower)) == {("new", "node1"): 2}


def test_a_journal_whose_place_is_taken_by_something_else_gets_none_of_its_figures(world: World) -> None:
    follower, begin = world.follower(), run_header()
    path = world.put(begin, used(1, at=1, header=begin))
    world.look(follower)
    (world.folder / "other").write_bytes(b"garbage\n" + lines.to_bytes(used(999, at=1, header=begin)))
    (world.folder / "other").rename(path)
    assert world.look(follower) == ()
    assert [str(refused) for refused in world.refused] == [f"{path}, line 1: not a line of a journal"]


def test_a_journal_that_is_replaced_between_being_seen_and_being_read_is_read_anew(world: World) -> None:
    new = run_header("new", process=process(pid=1))
    world.alive[1] = STARTED
    path = world.folder / "a.ndjson"
    (world.folder.parent / "other").write_bytes(as_bytes([new, used(7, at=1, header=new)]))

    class Swaps(World):
        def started(self, pid: int) -> float | None:
            if pid == PID and self.seconds > A_WHILE:
                (world.folder.parent / "other").replace(path)
                return None
            return super().started(pid)

    swapping = Swaps(world.folder)
    swapping.alive = world.alive
    begin = run_header("old")
    swapping.put(begin, used(1, at=1, header=begin), name="a.ndjson")
    follower = swapping.follower()
    swapping.look(follower)
    swapping.look(follower, A_WHILE)  # It is found to be gone, and read once more.
    assert joules(swapping.look(follower, OVER_SECONDS)) == {("new", "node1"): 7}
    assert states(follower.snapshots) == {"new": "running"}


def test_what_lies_about_in_the_folder_is_no_journal(world: World) -> None:
    world.folder.mkdir()
    for name in ("notes.txt", "node1.4711.daemon.json", "run.target.json", ".ndjson.swp", "a.ndjson.tmp"):
        (world.folder / name).write_bytes(b"garbage\n")
    follower = world.follower()
    assert world.look(follower) == ()
    assert world.refused == []


# Whose they are


@pytest.mark.parametrize(
    ("host", "boot", "own"),
    [
        ("node1", BOOT, True),
        ("node1", "an earlier boot", True),
        ("a-container", BOOT, True),
        ("node2", "another machine", False),
        ("node2", "", False),
    ],
)
def test_runs_of_this_machine_are_followed_by_its_boot_or_its_name_and_those_of_others_only_if_wanted(
    world: World, host: str, boot: str, own: bool
) -> None:
    begin = run_header(host=host, process=process(boot=boot))
    world.put(begin, used(1, at=1, header=begin, end=True))
    own_only, all_hosts = world.follower(), world.follower(all_hosts=True)
    assert bool(world.look(own_only)) is own
    assert joules(world.look(all_hosts)) == {("0123456789ab", host): 1}


def test_on_a_machine_that_does_not_say_its_boot_a_name_is_all_there_is(world: World) -> None:
    for host in ("node1", "node2"):
        begin = run_header(host, host, process=process(boot=""))
        world.put(begin, used(1, at=1, header=begin, end=True))
    follower = world.follower(here=world.here(boot=""))
    assert joules(world.look(follower)) == {("node1", "node1"): 1}
    assert {claim.device for claim in follower.claims} == {gpu().uuid, "cpu"}


# How long they are shown


def test_a_run_is_shown_for_as_long_after_its_end_as_is_wanted_to_the_second(world: World) -> None:
    begin = run_header()
    follower = world.follower(retention=HOUR)
    world.put(begin, used(1, at=1, header=begin, end=True))
    assert len(world.look(follower)) == 1
    assert len(world.look(follower, HOUR - 1)) == 1
    assert follower.journals == 1
    assert world.look(follower, 2) == ()
    assert follower.journals == 0
    assert follower.left_out == 0
    assert world.look(follower, SWEEP_SECONDS) == ()


def test_a_daemon_that_is_started_later_shows_it_just_as_long(world: World) -> None:
    for run_id, end in (("ended", True), ("lost", False)):
        begin = run_header(run_id)
        world.put(begin, used(1, at=0, header=begin, end=end))
    world.alive.clear()
    world.seconds = HOUR - 1
    assert states(world.look(world.follower(), 0)) == {"ended": "ended", "lost": "lost"}
    assert world.look(world.follower(), 2) == ()


@pytest.mark.parametrize("off", [HOUR * 24, 90.0, -90.0, -HOUR * 24])
def test_the_clock_of_its_writer_does_not_change_how_long_a_run_is_shown(world: World, off: float) -> None:
    begin = run_header(host="node2", process=process(boot="another"), at_unix=BEGAN + off)
    follower = world.follower(all_hosts=True)
    path = world.put(begin)
    world.look(follower, 0)
    for second in range(1, 60):
        world.append(path, used(second, at=second + off, header=begin))
        assert states(world.look(follower)) == {"0123456789ab": "running"}
        assert follower.snapshots[0].devices == () or follower.snapshots[0].rates is None
    world.append(path, used(60, at=60 + off, header=begin, end=True))
    assert states(world.look(follower)) == {"0123456789ab": "ended"}
    assert len(world.look(follower, HOUR - 2)) == 1
    assert world.look(follower, 5) == ()


def test_a_run_whose_clock_was_ahead_is_over_for_a_new_daemon_since_its_file_was_last_changed(world: World) -> None:
    begin = run_header()
    world.put(begin, used(1, at=24 * HOUR, header=begin, end=True))
    assert len(world.look(world.follower(), HOUR - 1)) == 1
    assert world.look(world.follower(), 2) == ()


def test_a_short_retention_shows_a_run_no_longer_and_follows_it_on_for_its_claims(world: World) -> None:
    begin = run_header()
    follower = world.follower(retention=10)
    world.put(begin, used(1, at=1, header=begin, end=True))
    assert len(world.look(follower, 5)) == 1
    assert world.look(follower, 10) == ()
    assert follower.claims != ()
    world.look(follower, 120)
    assert follower.claims == ()
    assert not follower.journals


def test_runs_that_ended_while_nobody_looked_are_shown_as_if_they_ended_now(world: World) -> None:
    """A daemon that was down for longer than the retention knows which runs lived when it last looked."""
    for run_id, end in (("lived", True), ("was killed", False), ("unknown", True)):
        begin = run_header(run_id)
        world.put(begin, used(5, at=10, header=begin, end=end))
    world.alive.clear()
    world.seconds = 5 * HOUR
    follower = world.follower(missed=["lived", "was killed"])
    assert states(world.look(follower)) == {"lived": "ended", "was killed": "lost"}
    assert set(states(world.look(follower, HOUR - 10))) == {"lived", "was killed"}
    assert world.look(follower, 20) == ()


def test_copies_of_journals_that_are_long_over_are_over_though_their_files_are_new_and_are_not_even_parsed(world: World) -> None:
    """Were they parsed, their first lines would be refused."""
    begin = run_header()
    end = lines.to_bytes(used(1, at=0, header=begin, end=True))
    world.seconds = HOUR + 1
    world.folder.mkdir()
    for number in range(20):
        path = world.folder / f"{number}.ndjson"
        path.write_bytes(b"garbage\n" * 5000 + end)
        world.touch(path)
    follower = world.follower()
    assert world.look(follower) == ()
    assert world.refused == []
    assert follower.lines_read == 0
    world.put(begin, used(1, at=world.seconds - HOUR + 10, header=begin, end=True))
    assert len(world.look(follower)) == 1


def test_an_end_that_is_damaged_ends_nothing(world: World) -> None:
    begin = run_header()
    path = world.put(begin, used(1, at=0, header=begin), used(2, at=0, header=begin, end=True))
    path.write_bytes(path.read_bytes().replace(b'"joules":2.0', b'"joules":9.0'))
    world.seconds = HOUR + 1
    world.touch(path)
    follower = world.follower(retention=2 * HOUR)
    assert joules(world.look(follower)) == {RUN: 1}
    assert [refused.line for refused in world.refused] == [3]


def test_journals_that_nobody_has_written_to_for_long_are_not_opened(world: World) -> None:
    world.folder.mkdir()
    for number in range(20):
        path = world.folder / f"{number}.ndjson"
        path.write_bytes(b"garbage\n")
        world.touch(path)
    world.seconds = 3 * HOUR
    follower = world.follower()
    assert world.look(follower) == ()
    assert world.look(follower, SWEEP_SECONDS) == ()
    assert world.refused == []


# Whether they live


def test_a_run_whose_process_is_gone_is_lost_a_few_seconds_later(world: World) -> None:
    follower, begin = world.follower(), run_header()
    world.put(begin, used(1, at=1, header=begin))
    assert states(world.look(follower)) == {"0123456789ab": "running"}
    world.alive.clear()
    assert states(world.look(follower, STATE_SECONDS)) == {"0123456789ab": "lost"}
    assert joules(follower.snapshots) == {RUN: 1}
    assert len(world.look(follower, HOUR - STATE_SECONDS - 1)) == 1
    assert world.look(follower, STATE_SECONDS) == ()


def test_the_process_of_a_silent_run_is_asked_after_every_few_seconds_only(world: World) -> None:
    follower, begin = world.follower(), run_header()
    world.put(begin, used(1, at=1, header=begin))
    world.look(follower)
    world.asked = 0
    for _ in range(60):
        world.look(follower)
    assert world.asked <= 60 / STATE_SECONDS


def test_a_run_that_writes_its_last_line_between_being_read_and_being_found_dead_has_ended(world: World) -> None:
    begin = run_header()

    class Dies(World):
        def started(self, pid: int) -> float | None:
            if self.seconds > A_WHILE and not self.asked:
                self.append(path, used(7, at=7, header=begin, end=True))
                self.asked += 1
            return None if self.asked else STARTED

    dying = Dies(world.folder)
    path = dying.put(begin, used(1, at=1, header=begin))
    follower = dying.follower()
    assert states(dying.look(follower)) == {"0123456789ab": "running"}
    assert states(dying.look(follower, A_WHILE)) == {"0123456789ab": "ended"}
    assert joules(follower.snapshots) == {RUN: 7}


def test_silence_on_another_host_is_loss_and_a_line_brings_the_run_back(world: World) -> None:
    begin = run_header(host="node2", process=process(boot="another"))
    follower = world.follower(all_hosts=True)
    path = world.put(begin, used(1, at=0, header=begin))
    assert states(world.look(follower, 20)) == {"0123456789ab": "running"}
    assert states(world.look(follower, STATE_SECONDS)) == {"0123456789ab": "lost"}
    world.append(path, used(2, at=25, header=begin))
    assert states(world.look(follower, OVER_SECONDS)) == {"0123456789ab": "running"}
    assert joules(follower.snapshots) == {("0123456789ab", "node2"): 2}
    assert states(world.look(follower, 25)) == {"0123456789ab": "lost"}
    assert len(world.look(follower, HOUR - 40)) == 1  # Its retention has begun again.


def test_a_run_of_a_machine_that_was_suspended_is_found_again_though_it_was_left(world: World) -> None:
    begin = run_header(host="node2", process=process(boot="another"))
    follower = world.follower(all_hosts=True)
    path = world.put(begin, used(1, at=0, header=begin))
    world.look(follower, 100)
    assert world.look(follower, HOUR) == ()
    assert follower.journals == 0
    world.append(path, used(2, at=HOUR + 100, header=begin))
    assert states(world.look(follower, SWEEP_SECONDS)) == {"0123456789ab": "lost"}
    world.append(path, used(3, at=HOUR + 500, header=begin))
    assert states(world.look(follower, OVER_SECONDS)) == {"0123456789ab": "running"}


def test_a_live_run_that_is_silent_tells_nothing_of_the_present_but_all_that_it_has_used(world: World) -> None:
    first, later = snapshot(0.0), snapshot(5.0, journal_bytes=1000)
    begin = header(first)
    path = world.put(begin, lines.totals_line(later, begin, monotonic=105))
    follower = world.follower()
    (live,) = world.look(follower, 20)
    assert live.rates is not None
    assert live.devices[0].watts == 250.3
    (silent,) = world.look(follower, 6)
    assert silent.state == "running"
    assert (silent.rates, silent.cpu_watts, silent.progress.eta_seconds) == (None, (), None)
    assert {(status.watts, status.telemetry) for status in silent.devices} == {(None, None)}
    assert silent.attempt == live.attempt
    assert silent.forecast == live.forecast
    world.append(path, lines.totals_line(later, begin, monotonic=105))
    assert world.look(follower, 1)[0].rates == live.rates


def test_a_header_cannot_keep_a_run_on_another_host_alive_for_ever(world: World) -> None:
    """By an interval, or an instant, that no run has."""
    for number, more in enumerate(({"journal_interval": 1e300}, {"journal_interval": math.nan}, {"at_unix": BEGAN + 1e9})):
        begin = run_header(f"run{number}", host="node2", process=process(boot="another"), **more)
        world.put(begin)
    follower = world.follower(all_hosts=True)
    assert len(world.look(follower)) == 3
    world.look(follower, 4 * HOUR + 1)
    assert set(states(world.look(follower, OVER_SECONDS)).values()) <= {"lost"}
    assert world.look(follower, HOUR + 60) == ()


# Runs of several attempts, and of several hosts


PROCESS_COUNTERS = {
    "hf_training_monitoring_errors_total",
    "hf_training_journal_bytes_total",
    "hf_training_process_cpu_seconds_total",
}
"""Of a process, so that they begin again with the next."""


def counters(exposition: Exposition) -> dict[str, float]:
    """Every series of a counter or histogram."""
    found: dict[str, float] = {}
    for family in parse_text(exposition.render().decode()):
        for sample in family.samples:
            counts = family.type in {"counter", "histogram"} or sample.name == "hf_training_step_count"
            if counts and sample.name not in PROCESS_COUNTERS:
                found[f"{sample.name}{sorted(sample.labels.items())}"] = sample.value
    return found


def again(before: Header, found: Sequence[Snapshot], **more: Any) -> Header:
    """The header of the next attempt, which inherits what the run's snapshots tell."""
    hosts = {totals.host: totals for s in reversed(found) for totals in s.hosts}
    lead = next(s for s in found if s.leads)
    fields: dict[str, Any] = {
        "attempt": before.attempt + 1,
        "attempts_before": before.attempts_before + 1,
        "launch": f"{before.launch}+",
        "inherited": [lines.host_used(totals) for totals in hosts.values()],
        "done_before": lines.Done(**{name: getattr(lead.progress, name) for name in ("steps", "samples", "tokens")}),
        "process": process(pid=before.process.pid + 1),
    }
    return before.model_copy(update={**fields, **more})


def test_a_run_that_is_resumed_is_shown_once_and_its_counters_never_fall(world: World) -> None:
    """Through SIGKILL, the header of the next attempt, and its first line; many times over."""
    follower = world.follower()
    exposition = Exposition(lambda: follower.snapshots, LabelRules())
    begin = run_header()
    shown: dict[str, float] = {}

    def see(after: float = 1.0) -> tuple[Snapshot, ...]:
        found = world.look(follower, after)
        now = counters(exposition)
        assert not {name: (before, now.get(name)) for name, before in shown.items() if now.get(name, -1) < before}
        shown.update(now)
        assert [s.identity.attempt for s in found] == [begin.attempt]
        return found

    total = 0.0
    for attempt in range(1, 12):
        path = world.put(begin)
        see()
        own = attempt * 123.456789012345
        for share in (0.3, 1.0):
            line = used(own * share, at=world.seconds, header=begin)
            world.append(path, line.model_copy(update={"progress": lines.Standing(steps=10 * attempt, samples=80 * attempt)}))
            see()
        total += own
        world.alive.clear()
        found = see(STATE_SECONDS)
        assert states(found) == {"0123456789ab": "lost"}
        assert joules(found) == pytest.approx({RUN: total}, rel=1e-10)
        begin = again(begin, found, at_unix=world.wall())
        world.alive[begin.process.pid] = STARTED


def on(host: str, **more: Any) -> dict[str, Any]:
    return {"host": host, "process": process(pid=len(host) + len(more), boot=f"boot of {host}"), **more}


def test_a_run_that_moved_shows_each_hosts_total_once_and_the_whole_runs_figures_by_its_newest_attempt(world: World) -> None:
    """node1, then node2, then node1 again; each of them inherits what was before."""
    follower = world.follower(all_hosts=True)
    begin = run_header()
    world.put(begin, used(100, at=1, header=begin, steps=10))
    there = again(begin, world.look(follower), attempt=1, at_unix=BEGAN - 50, **on("node2"))  # Whose clock is behind.
    world.put(there, used(30, at=2 - 50, header=there, steps=15))
    found = world.look(follower)
    assert joules(found) == {RUN: 100, ("0123456789ab", "node2"): 30}
    assert [(s.identity.host, s.leads, s.total.joules) for s in found] == [("node2", True, 130), ("node1", False, 100)]

    back = again(there, found, attempt=2, at_unix=BEGAN + 3, host="node1", process=process(pid=99))
    world.put(back, used(7, at=4, header=back, steps=21))
    world.alive[99] = STARTED
    found = world.look(follower)
    assert joules(found) == {RUN: 107, ("0123456789ab", "node2"): 30}
    assert [(s.identity.host, s.leads, s.total.joules) for s in found] == [("node1", True, 137), ("node2", False, 30)]

    text = Exposition(lambda: found, LabelRules()).render().decode()
    families = {family.name: family.samples for family in parse_text(text)}
    energy = {sample.labels["host"]: sample.value * 3.6e6 for sample in families["hf_training_energy_kwh"]}
    assert energy == pytest.approx({"node1": 107, "node2": 30})
    assert [sample.value for sample in families["hf_training_step_count"]] == [21]


def test_two_hosts_of_one_launch_are_shown_each_by_its_own_journal(world: World) -> None:
    follower = world.follower(all_hosts=True)
    lead, other = run_header(), run_header(host="node2", leads=False, process=process(boot="another"))
    heard = [lines.host_used(host_totals("node2", 25.0))]
    world.put(lead, used(40, at=1, header=lead, elsewhere=heard, steps=3))
    world.put(other, used(30, at=1, header=other))
    found = world.look(follower)
    assert joules(found) == {RUN: 40, ("0123456789ab", "node2"): 30}
    assert [s.leads for s in sorted(found, key=lambda s: s.identity.host)] == [True, False]
    assert next(s for s in found if s.leads).total.joules == 65  # As the leading process last heard.


def test_a_copy_beside_its_original_is_shown_once_and_claims_nothing(world: World) -> None:
    """However they are named, and whichever is read first."""
    follower, begin = world.follower(), run_header()
    written: list[Header | Totals] = [begin, used(1, at=1, header=begin), used(2, at=2, header=begin, end=True)]
    for name, count in (("a.ndjson", 2), ("original.ndjson", 3), ("z.ndjson", 2)):
        world.put(*written[:count], name=name)
    world.alive.clear()
    found = world.look(follower)
    assert [(s.state, s.attempt.total.joules) for s in found] == [("ended", 2)]
    assert follower.claims == (Claim(gpu().uuid, 99.5, 102.0), Claim("cpu", 99.5, 102.0))


# So many


def test_no_more_runs_are_shown_or_followed_than_the_limit_and_those_that_live_come_first(world: World) -> None:
    most = 0

    class Watches(World):
        def wall(self) -> float:
            nonlocal most
            most = max(most, follower.journals)
            return super().wall()

    watching = Watches(world.folder)
    follower = World.follower(world, most_runs=50)
    follower = watching.follower(most_runs=50)
    for number in range(400):
        begin = run_header(f"over{number:03}")
        put(world.folder, (begin, used(1, at=number, header=begin, end=True)), changed=BEGAN + 400)
    for number in range(5):
        begin = run_header(f"live{number}")
        put(world.folder, (begin, used(1, at=number, header=begin)), changed=BEGAN + 400)
    watching.seconds = 400.0
    shown = states(watching.look(follower))
    assert len(shown) == follower.journals == 50
    assert most <= 50 + 100
    assert {run_id for run_id, state in shown.items() if state == "running"} == {f"live{n}" for n in range(5)}
    assert {run_id for run_id, state in shown.items() if state == "ended"} == {f"over{n}" for n in range(355, 400)}
    assert [s.state for s in follower.snapshots[:5]] == ["running"] * 5
    assert follower.left_out == 355
    assert len(watching.look(follower, SWEEP_SECONDS)) == 50
    assert follower.left_out == 355


# Who uses the devices


def test_the_claims_of_live_runs_are_open_and_those_of_ended_ones_close_with_their_last_line(world: World) -> None:
    live, ended = run_header("live"), run_header("ended", process=process(pid=1), begun_monotonic=50.0)
    other_boot = run_header("before", process=process(boot="an earlier boot"))
    elsewhere = run_header("elsewhere", host="node2", process=process(boot="another"))
    world.put(live, used(1, at=1, header=live))
    world.put(ended, used(1, at=30, header=ended, end=True))
    for begin in (other_boot, elsewhere):
        world.put(begin, used(1, at=1, header=begin, end=True))
    follower = world.follower(all_hosts=True)
    assert len(world.look(follower, 60)) == 4
    assert set(follower.claims) == {
        Claim(gpu().uuid, 99.5, math.inf),
        Claim("cpu", 99.5, math.inf),
        Claim(gpu().uuid, 50.0, 130.0),
        Claim("cpu", 50.0, 130.0),
    }
    assert list(follower.claims) == sorted(follower.claims)
    world.look(follower)
    world.alive.clear()
    world.look(follower, STATE_SECONDS)
    assert Claim("cpu", 99.5, 101.0) in follower.claims
    world.look(follower, 15 * 60)
    assert follower.claims == ()  # Nobody accounts for what was so long ago.


# What is not looked at


class Counted(PosixPath):
    """A folder that counts how often the kernel is asked for what is in it, and whose files can be made to fail."""

    asked: ClassVar[list[str]] = []
    fails: ClassVar[set[str]] = set()

    def __fspath__(self) -> str:
        self.asked.append(str(self))
        if self.name in self.fails:
            raise OSError(errno.EIO, "Input/output error")
        return str(self)

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        return os.stat(str(self), follow_symlinks=follow_symlinks)  # noqa: PTH116

    @classmethod
    def listings(cls, folder: Path) -> int:
        return cls.asked.count(str(folder))


@pytest.fixture(autouse=True)
def _nobody_has_asked() -> None:
    Counted.asked.clear()
    Counted.fails.clear()


def test_the_folder_is_not_listed_again_while_nothing_comes_or_goes_nor_is_a_silent_journal_opened(world: World) -> None:
    begin, over = run_header(), run_header("over")
    path = world.put(begin, used(1, at=1, header=begin))
    world.put(over, used(1, at=1, header=over, end=True))
    follower = world.follower(folder=Counted(world.folder))
    for _ in range(3):
        world.look(follower)
    Counted.asked.clear()
    for _ in range(100):
        world.look(follower)
    assert Counted.asked == []
    world.append(path, used(2, at=100, header=begin))
    world.look(follower)
    assert Counted.asked == [str(path)]
    Counted.asked.clear()
    world.put(run_header("new"))
    for _ in range(10):
        world.look(follower)
    assert 1 <= Counted.listings(world.folder) <= 2
    world.look(follower, SWEEP_SECONDS)
    assert Counted.listings(world.folder) <= 3


def test_a_journal_is_found_that_came_within_the_same_tick_of_a_file_systems_clock(world: World) -> None:
    world.put(run_header("first"))
    os.utime(world.folder, (BEGAN, BEGAN))
    follower = world.follower()
    assert states(world.look(follower, 0.5)) == {"first": "running"}
    world.put(run_header("second"))
    os.utime(world.folder, (BEGAN, BEGAN))
    assert set(states(world.look(follower, 1.0))) == {"first", "second"}


def test_a_journal_is_found_by_the_sweep_where_a_file_system_does_not_tell_of_changes(world: World) -> None:
    world.put(run_header("first"))
    os.utime(world.folder, (BEGAN, BEGAN))
    follower = world.follower()
    for _ in range(5):
        world.look(follower)
    world.put(run_header("second"))
    os.utime(world.folder, (BEGAN, BEGAN))
    assert set(states(world.look(follower, SWEEP_SECONDS))) == {"first", "second"}


def test_what_is_shown_is_the_same_object_for_as_long_as_nothing_has_changed(world: World) -> None:
    follower, begin, other = world.follower(), run_header(), run_header("other")
    path = world.put(begin, used(1, at=1, header=begin))
    world.put(other, used(1, at=1, header=other, end=True))
    shown = world.look(follower)
    for _ in range(10):
        assert world.look(follower) is shown
    world.append(path, used(2, at=11, header=begin))
    now = world.look(follower)
    same = {s.identity.run_id: any(s is before for before in shown) for s in now}
    assert same == {"0123456789ab": False, "other": True}


def test_where_a_snapshot_comes_from_can_be_told(world: World) -> None:
    follower, begin = world.follower(), run_header()
    path = world.put(begin, used(1, at=1, header=begin))
    (shown,) = world.look(follower)
    assert follower.where(shown) == (path, None)
    assert follower.where(snapshot(1.0)) is None


# What cannot be read


def unreadable(folder: Path) -> list[str]:
    """Things that are named as journals are; a read of some of them would wait for ever, or never end."""
    folder.mkdir()
    (folder / "folder.ndjson").mkdir()
    os.mkfifo(folder / "pipe.ndjson")
    (folder / "loop.ndjson").symlink_to("loop.ndjson")
    (folder / "memory.ndjson").symlink_to("/proc/self/mem")
    (folder / "zero.ndjson").symlink_to("/dev/zero")
    return sorted(path.name for path in folder.iterdir())


def test_what_cannot_be_read_is_told_once_and_stops_nothing(world: World) -> None:
    names = unreadable(world.folder)
    begin = run_header()
    world.put(begin, used(1, at=1, header=begin))
    follower = world.follower()
    for _ in range(5):
        assert joules(world.look(follower, SWEEP_SECONDS)) == {RUN: 1}
    assert sorted(refused.path.name for refused in world.refused) == names
    assert {(refused.line, refused.kind) for refused in world.refused} == {(None, "unreadable")}
    (world.folder / "loop.ndjson").unlink()
    begin = run_header("mended")
    world.put(begin, used(2, at=1, header=begin), name="loop.ndjson")
    assert set(states(world.look(follower, SWEEP_SECONDS))) == {"0123456789ab", "mended"}


def test_a_name_that_is_no_utf_8_is_a_name(world: World) -> None:
    begin = run_header()
    world.put(begin, used(1, at=1, header=begin), name=os.fsdecode(b"\xff\xfe.ndjson"))
    assert joules(world.look(world.follower())) == {RUN: 1}


def test_a_journal_that_cannot_be_read_for_a_while_loses_no_line_and_is_told_once(world: World) -> None:
    begin = run_header()
    path = world.put(begin, used(1, at=1, header=begin))
    follower = world.follower(folder=Counted(world.folder))
    world.look(follower)
    Counted.fails.add(path.name)
    world.append(path, used(2, at=2, header=begin, end=True))
    for _ in range(3):
        assert joules(world.look(follower)) == {RUN: 1}
    assert [str(refused) for refused in world.refused] == [f"{path}: Input/output error"]
    Counted.fails.clear()
    assert joules(world.look(follower)) == {RUN: 2}
    assert states(follower.snapshots) == {"0123456789ab": "ended"}


def test_a_run_whose_journal_cannot_be_read_any_more_is_lost_when_its_process_is_gone(world: World) -> None:
    begin = run_header()
    path = world.put(begin, used(1, at=1, header=begin))
    follower = world.follower(folder=Counted(world.folder))
    world.look(follower)
    Counted.fails.add(path.name)
    world.alive.clear()
    assert states(world.look(follower, STATE_SECONDS)) == {"0123456789ab": "lost"}
    assert world.look(follower, HOUR) == ()
    assert len(world.refused) == 1


def test_a_folder_that_cannot_be_read_is_an_error_and_what_was_shown_is_shown_without_its_present(world: World) -> None:
    begin = header(snapshot(0.0))
    path = world.put(begin, lines.totals_line(snapshot(5.0), begin, monotonic=105))
    follower = world.follower()
    (live,) = world.look(follower)
    world.folder.rename(world.folder.with_name("away"))
    world.folder.touch()  # Named as the folder was, but none.
    with pytest.raises(NotADirectoryError):
        world.look(follower)
    assert follower.snapshots == (live,)
    with pytest.raises(NotADirectoryError):
        world.look(follower, 30)
    (silent,) = follower.snapshots
    assert silent.attempt == live.attempt
    assert silent.rates is None
    world.folder.unlink()
    world.folder.with_name("away").rename(world.folder)
    world.append(path, lines.totals_line(snapshot(40.0), begin, monotonic=140))
    assert world.look(follower)[0].rates is not None
    assert world.refused == []


def test_a_folder_that_can_be_reached_but_not_listed_costs_nothing_of_what_is_known(world: World) -> None:
    bad = world.folder / "bad.ndjson"
    begin = run_header()
    world.put(begin, used(1, at=1, header=begin))
    bad.write_bytes(b"garbage\n")
    world.touch(bad)
    follower = world.follower(folder=Counted(world.folder))
    for _ in range(3):
        world.look(follower)
    Counted.fails.add(world.folder.name)
    with pytest.raises(OSError, match="Input/output error"):
        world.look(follower, SWEEP_SECONDS)
    assert len(follower.snapshots) == 1
    Counted.fails.clear()
    assert len(world.look(follower, SWEEP_SECONDS)) == 1
    assert [refused.path.name for refused in world.refused] == ["bad.ndjson"]


# What is damaged or forged


def test_a_journal_of_something_else_that_grows_is_told_once(world: World) -> None:
    world.folder.mkdir()
    path = world.folder / "log.ndjson"
    follower = world.follower()
    for _ in range(5):
        world.append(path, b'{"log":"of another program"}\n')
        assert world.look(follower, SWEEP_SECONDS) == ()
    assert [(refused.line, refused.kind) for refused in world.refused] == [(1, "damaged")]


bad_rows = st.sampled_from(
    [
        b"garbage\n",
        b"{torn\n",
        b"\xff\xfe\x00\n",
        b"x" * 10_000 + b"\n",
        signed(b'{"type":"nonsense"'),
        signed(b'{"type":"totals","used":{"joules":"a lot"}'),
        lines.to_bytes(run_header("another")),
        lines.to_bytes(used(-1, at=1, header=run_header())),
        lines.to_bytes(used(math.nan, at=1, header=run_header())),
        lines.to_bytes(used(1e300, at=1, header=run_header())),
        lines.to_bytes(used(1, at=math.inf, header=run_header())),
        lines.to_bytes(used(1, at=1, header=run_header(), steps=10**400)),
        lines.to_bytes(used(1, at=1, header=run_header(), steps=-1)),
    ]
)
good_row = lines.to_bytes(used(1, at=1, header=run_header()))


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.just(good_row), st.just(b"\n"), bad_rows), max_size=12), st.data())
def test_each_bad_line_is_told_once_with_its_number_wherever_following_began(
    tmp_path: Path, rows: list[bytes], data: st.DataObject
) -> None:
    split = data.draw(st.integers(0, len(rows)))
    folder = tmp_path / "runs"
    shutil.rmtree(folder, ignore_errors=True)
    world = World(folder)
    path = world.put(run_header())
    world.append(path, *rows[:split])
    follower = world.follower()
    world.look(follower)
    for row in rows[split:]:
        world.append(path, row[:5])
        world.look(follower)
        world.append(path, row[5:])
        world.look(follower)
    known = max((n for n, row in enumerate(rows[:split]) if row == good_row), default=-1)
    expected = [n + 2 for n, row in enumerate(rows) if row not in {good_row, b"\n"} and n > known]
    # To be read from its end, a second header is only passed over.
    headers = [n + 2 for n, row in enumerate(rows[:split]) if row.startswith(b'{"type":"header"')] if known >= 0 else []
    assert [refused.line for refused in world.refused] == [n for n in expected if n not in headers]
    assert joules(follower.snapshots) == {RUN: 1 if good_row in rows else 0}


def is_clean(label: str) -> bool:
    categories = {unicodedata.category(character) for character in label}
    return len(label) <= 128 and not {category for category in categories if category[0] == "C" or category in {"Zl", "Zp"}}


HOSTILE = '"}\nhf_training_fake 1\u202e\ud800' + "x" * 10_000


def test_figures_beyond_reason_cost_only_the_line_or_the_run_that_they_are_in(world: World) -> None:
    good = run_header("good")
    world.put(good, used(1, at=1, header=good))
    three = lines.Steps(counts=[1, 2, 3], sum_seconds=1.0)
    forged: dict[str, dict[str, Any]] = {
        "steps": {"progress": lines.Standing(steps=10**400)},
        "tokens": {"progress": lines.Standing(tokens=-5)},
        "histogram": {"progress": lines.Standing(step_durations=three)},
        "watts": {"rates": lines.RatesNow(watts=math.nan, grams_per_hour=math.inf)},
        "flops": {"progress": lines.Standing(flops=math.nan)},
        "budget": {"budgets": [lines.BudgetLine(kind="carbon", limit=0.0, spent=1e308)]},
        "errors": {"errors": {HOSTILE: 5, "gap": -3}},
    }
    for run_id, more in forged.items():
        begin = run_header(run_id)
        world.put(begin, used(1, at=1, header=begin, **more))
    for run_id, joules_used in (("nan", math.nan), ("negative", -1.0), ("huge", 1e308)):
        begin = run_header(run_id, inherited=[lines.host_used(host_totals("node1", joules_used))])
        world.put(begin, used(1, at=1, header=begin))
    follower = world.follower()
    world.look(follower)
    assert {refused.kind for refused in world.refused} == {"impossible"}
    assert len(world.refused) == 6
    unusable: list[str] = []
    exposition = Exposition(
        lambda: follower.snapshots, LabelRules(), unusable=lambda s, _error: unusable.append(s.identity.run_id)
    )
    text = exposition.render().decode()
    exposition.render(openmetrics=True)
    assert sorted(unusable) == ["budget", "histogram"]  # Once, until something changes.
    assert "hf_training_fake" not in {family.name for family in parse_text(text)}
    shown = {s.labels["run_id"]: s.value for f in parse_text(text) if f.name == "hf_training_energy_kwh" for s in f.samples}
    assert shown["good"] == pytest.approx(1 / 3.6e6)
    assert {"nan", "negative", "huge", "budget", "histogram"}.isdisjoint(shown)


# Whatever happens


Row = tuple[str, int]
operations = st.lists(
    st.tuples(st.sampled_from(["line", "tear", "mend", "look", "die", "resume", "garbage", "end", "delete"]), st.integers(0, 1)),
    max_size=25,
)


class Writer:
    """One run on this machine, that can be interrupted anywhere."""

    def __init__(self, world: World, run_id: str, pid: int) -> None:
        self.world, self.begin = world, run_header(run_id, process=process(pid=pid))
        self.joules = 0.0
        self.torn = b""
        self.path: Path | None = None

    def do(self, what: str) -> None:
        if self.path is None:
            if what == "resume":
                self.resume()
            return
        if what in {"line", "end"}:
            self.joules += 1.1
            rest, self.torn = (b"\n" if self.torn else b""), b""
            self.world.append(self.path, rest, self.line(end=what == "end"))
            if what == "end":
                self.leave()
        elif what == "tear" and not self.torn:
            self.joules += 1.1
            line = lines.to_bytes(self.line())
            self.torn = line[len(line) // 2 :]
            self.world.append(self.path, line[: len(line) // 2])
        elif what == "mend":
            self.world.append(self.path, self.torn)
            self.torn = b""
        elif what == "garbage":
            self.world.append(self.path, b"\n" if self.torn else b"", b"garbage\n")
            self.torn = b""
        elif what == "die":
            self.leave()
        elif what == "delete":
            self.path.unlink()
            self.leave()

    def line(self, *, end: bool = False) -> Totals:
        return used(self.joules, at=self.world.seconds, header=self.begin, end=end, steps=int(self.joules))

    def leave(self) -> None:
        self.world.alive.pop(self.begin.process.pid, None)
        self.path = None

    def resume(self) -> None:
        folder = RunsFolder(self.world.folder, self.world.here())
        found = folder.run(self.begin.run.run_id)
        if found is not None:
            attempt = max(attempt.header.attempt for attempt in found.attempts) + 1
            self.begin = self.begin.model_copy(
                update={
                    "attempt": attempt,
                    "attempts_before": attempt - 1,
                    "launch": f"launch {attempt}",
                    "at_unix": self.world.wall(),
                    "inherited": [lines.host_used(totals) for totals in found.hosts],
                    "done_before": lines.done(found.counts),
                    "process": process(pid=self.begin.process.pid + 2),
                }
            )
        self.joules, self.torn = 0.0, b""
        self.world.alive[self.begin.process.pid] = STARTED
        self.path = self.world.put(self.begin)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations)
def test_whatever_happens_in_whatever_order_the_follower_shows_what_stands_on_disk(tmp_path: Path, done: list[Row]) -> None:
    folder = tmp_path / "runs"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    world = World(folder)
    writers = [Writer(world, "first", 100), Writer(world, "second", 101)]
    for writer in writers:
        writer.resume()
    follower = world.follower()
    for what, who in done:
        if what == "look":
            world.look(follower)
        else:
            writers[who].do(what)
    world.look(follower, OVER_SECONDS)
    shown = {s.identity.run_id: s for s in follower.snapshots}
    for writer in writers:
        run_id = writer.begin.run.run_id
        run = RunsFolder(folder, world.here()).run(run_id)
        if run is None:
            assert run_id not in shown
            continue
        expected, s = run.snapshot, shown[run_id]
        assert (s.state, s.leads, s.identity) == (expected.state, True, expected.identity)
        assert (s.updated_unix, s.progress.steps) == (expected.updated_unix, expected.progress.steps)
        assert s.total.joules == pytest.approx(expected.total.joules, rel=1e-9)
        assert s.here.phases == expected.here.phases or s.total.joules == pytest.approx(expected.here.total.joules)
    assert len(follower.snapshots) == len(shown)


@st.composite
def hostile_folders(draw: st.DrawFn) -> list[bytes]:
    """Journals with anything in them, some of which somebody has changed with the right check."""
    files = []
    for _ in range(draw(st.integers(1, 3))):
        begin, run, at = draw(any_run())
        begin = begin.model_copy(update={"host": draw(st.sampled_from(["node1", begin.host])), "process": process()})
        rows = [lines.to_bytes(begin), lines.to_bytes(lines.totals_line(run, begin, monotonic=at))]
        forge = draw(st.sampled_from(FORGERIES))
        rows[1] = forge(rows[1])
        rows += draw(st.lists(st.binary(max_size=50).map(lambda row: row + b"\n") | bad_rows, max_size=2))
        data = b"".join(rows)
        cut = draw(st.integers(0, len(data)) | st.just(len(data)))
        flip = draw(st.none() | st.integers(0, len(data) - 1))
        if flip is not None:
            data = data[:flip] + bytes([data[flip] ^ draw(st.integers(1, 255))]) + data[flip + 1 :]
        files.append(data[:cut])
    return files


def forged(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def forge(line: bytes) -> bytes:
        body = line.rpartition(b',"crc32":')[0]
        return signed(body.replace(old, new))

    return forge


FORGERIES: list[Callable[[bytes], bytes]] = [
    bytes,
    forged(b'"steps":', b'"steps":' + b"9" * 400 + b',"ignored":'),
    forged(b'"joules":', b'"joules":-'),
    forged(b'"joules":', b'"joules":1e308,"ignored":'),
    forged(b'"joules":', b'"joules":"NaN","ignored":'),
    forged(b'"grams":', b'"grams":' + b"9" * 400 + b',"ignored":'),
    forged(b'"counts":[', b'"counts":[1,-7,'),
    forged(b'"counts":[', b'"counts":[1,'),
    forged(b'"flops":', b'"flops":1e308,"ignored":'),
    forged(b'"at_unix":', b'"at_unix":"Infinity","ignored":'),
    forged(b'"monotonic":', b'"monotonic":"NaN","ignored":'),
    forged(b'"tick_seconds":', b'"tick_seconds":"-Infinity","ignored":'),
    forged(b'"kind":"carbon"', b'"kind":"carbon","limit":0'),
    forged(b'"errors":{', b'"errors":{"\\"}\\nhf_training_fake 1":1,'),
    forged(b'"cpu_seconds":', b'"cpu_seconds":"NaN","ignored":'),
    forged(b'"host":', b'"host":"\\"}\\nhf_training_fake 1","ignored":'),
]


@settings(
    deadline=None,
    max_examples=40,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # To make such journals smaller takes minutes.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(hostile_folders(), st.booleans())
def test_whatever_journals_hold_looking_goes_well_and_parsers_accept_what_is_shown(
    tmp_path: Path, files: list[bytes], run_label: bool
) -> None:
    folder = tmp_path / "runs"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    world = World(folder)
    world.seconds = 1e7
    for number, data in enumerate(files):
        (folder / f"{number}.ndjson").write_bytes(data)
        world.touch(folder / f"{number}.ndjson")
    follower = world.follower(all_hosts=True, retention=1e8)
    world.look(follower)
    for number in range(len(files)):
        world.append(folder / f"{number}.ndjson", b"\n", *journal(1)[1:2])
    world.look(follower)
    exposition = Exposition(lambda: follower.snapshots, LabelRules(run_label=run_label), unusable=lambda _snapshot, _error: None)
    text, openmetrics = exposition.render().decode(), exposition.render(openmetrics=True).decode()
    series = [line.rpartition(" ")[0] for line in text.split("\n") if line and not line.startswith("#")]
    assert len(series) == len(set(series))
    assert not [line for line in series if line.startswith("hf_training_fake")]
    for parsed in (parse_text(text), parse_openmetrics(openmetrics)):  # type: ignore[no-untyped-call]
        for family in parsed:
            for sample in family.samples:
                assert all(map(is_clean, sample.labels.values()))
