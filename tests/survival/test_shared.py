"""Several trainings at once on the same two GPUs, each of which draws 300 W: together they have used what the GPUs have drawn."""

import signal
import time
from pathlib import Path

from tests.survival.kept import Kept, journals, refused, runs
from tests.survival.processes import ENDLESS, PATIENCE_SECONDS, WATTS, Child, Server, gpus

GPUS = 2


class Together:
    """The trainings of a test, and what is known of when they lived."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self.runs = folder / "runs"

    def start(self, name: str) -> Child:
        """Returns once it measures."""
        child = self._server.start(
            "until_told",
            self._folder / name,
            environ=gpus(GPUS),
            settings={"runs_dir": str(self.runs), "measurement_interval": 0.25},
            arguments={"max_steps": ENDLESS},
        )
        child.hear("begun")
        return child

    def journal(self, child: Child) -> Kept:
        (found,) = (kept for kept in journals(self.runs) if kept.header["process"]["pid"] == child.pid)
        return found

    def writes(self, child: Child, count: int) -> bool:
        """Whether its journal gets so many more lines."""
        path = self.journal(child).path
        had, patience = path.read_bytes().count(b"\n"), time.monotonic() + PATIENCE_SECONDS
        while path.read_bytes().count(b"\n") < had + count and time.monotonic() < patience:
            assert child.lives(0.05)
        return time.monotonic() < patience


def stop(child: Child) -> None:
    child.signal(signal.SIGUSR1)
    assert child.ended() == 0


def bounds(first: Child, last: Child) -> tuple[float, float]:
    """The least and the most time from the first reading of one to the last reading of another, as far as they tell."""
    begin, begun = first.all_heard("begin")[0]["at"], first.all_heard("begun")[0]["at"]
    end, ended = last.all_heard("end")[0]["at"], last.all_heard("ended")[0]["at"]
    return end - begun, ended - begin


def assert_sum(together: Together, least: float, most: float) -> None:
    """Of each GPU, to 1 % beyond what is not known of the instants."""
    assert refused(together.runs) == []
    found = journals(together.runs)
    uuids = {uuid for kept in found for uuid in kept.gpu_joules}
    assert len(uuids) == GPUS
    for uuid in uuids:
        joules = sum(kept.gpu_joules[uuid] for kept in found)
        assert WATTS * least * 0.99 <= joules <= WATTS * most * 1.01


def test_two_that_overlap_add_up_to_what_the_gpus_have_drawn(server: Server, tmp_path: Path) -> None:
    together = Together(server, tmp_path)
    a = together.start("a")
    assert a.lives(1.5)
    b = together.start("b")
    assert b.lives(2.5)
    stop(a)
    assert b.lives(1.5)
    stop(b)
    assert {run.state for run in runs(together.runs)} == {"ended"}
    assert_sum(together, *bounds(a, b))
    # And each has its own part of it: alone for 1.5 s, half for 2.5 s.
    alone, both = bounds(a, a), (together.journal(a), together.journal(b))
    assert max(both[0].gpu_joules.values()) < WATTS * alone[1] * 0.9


def test_three_that_overlap_add_up_to_what_the_gpus_have_drawn(server: Server, tmp_path: Path) -> None:
    together = Together(server, tmp_path)
    a = together.start("a")
    assert a.lives(1.0)
    b, c = together.start("b"), together.start("c")
    assert c.lives(2.0)
    stop(b)
    assert a.lives(1.0)
    stop(a)
    assert c.lives(1.0)
    stop(c)
    assert len(journals(together.runs)) == 3
    assert_sum(together, *bounds(a, c))


def test_one_that_is_killed_leaves_nothing_uncounted_from_its_last_line_on(server: Server, tmp_path: Path) -> None:
    """The other takes all that the GPUs drew since that line, so nothing is missing and nothing is there twice."""
    together = Together(server, tmp_path)
    a = together.start("a")
    assert a.lives(1.2)
    b = together.start("b")
    # The first line may be of before the other was known of, and the one after that of before that was made up for.
    assert together.writes(a, 4)
    a.kill()
    assert b.lives(2.5)
    stop(b)
    assert sorted(run.state for run in runs(together.runs)) == ["ended", "lost"]
    assert_sum(together, *bounds(a, b))


def test_one_that_is_killed_while_it_is_alone_loses_one_journal_interval_at_most(server: Server, tmp_path: Path) -> None:
    """Nobody else was there to count what it had not written yet: a journal interval, and a measurement until the next line."""
    together = Together(server, tmp_path)
    a = together.start("a")
    assert a.lives(1.7)
    killed = a.kill()
    b = together.start("b")
    assert b.lives(1.5)
    stop(b)
    begin, begun = a.all_heard("begin")[0]["at"], a.all_heard("begun")[0]["at"]
    own = bounds(b, b)
    assert_sum(together, max(0.0, killed[0] - begun - 1.25) + own[0], killed[1] - begin + own[1])


def test_of_two_that_live_together_each_has_half(server: Server, tmp_path: Path) -> None:
    together = Together(server, tmp_path)
    a, b = together.start("a"), together.start("b")
    assert b.lives(2.5)
    stop(a)
    stop(b)
    halves = [sum(together.journal(child).gpu_joules.values()) for child in (a, b)]
    longest = [GPUS * WATTS * bounds(child, child)[1] for child in (a, b)]
    together_for = bounds(b, a)[0]
    for half, most in zip(halves, longest, strict=True):
        assert half <= (most - GPUS * WATTS * together_for / 2) * 1.01
