"""What the processes of a distributed training say to each other.

Most of it with a store in memory and a clock that only the test moves. The races are played by a scheduler that lets one rank at
a time take one look at the store, in an order drawn by hypothesis. Then the same with real processes and torch's TCPStore: this
file, run as a script, is such a training.
"""

import functools
import json
import mmap
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_eco2ai.exchange import KEPT_VOTES, Exchange, Store, in_thread

T = TypeVar("T")


class MemoryStore:
    """What torch's stores do (tried with the TCPStore, HashStore and FileStore of torch 2.13), in memory."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.calls = 0
        self.broken = False

    def set(self, key: str, value: str | bytes, /) -> None:
        self._called()
        self.values[key] = value if isinstance(value, bytes) else value.encode()

    def get(self, key: str, /) -> bytes:
        self._called()
        assert key in self.values, f"get({key!r}) would wait for minutes"
        return self.values[key]

    def check(self, keys: list[str], /) -> bool:
        self._called()
        return all(key in self.values for key in keys)

    def add(self, key: str, amount: int, /) -> int:
        self._called()
        self.values[key] = str(int(self.values.get(key, b"0")) + amount).encode()
        return int(self.values[key])

    def delete_key(self, key: str, /) -> bool:
        self._called()
        return self.values.pop(key, None) is not None

    def compare_set(self, key: str, expected: str, desired: str, /) -> bytes:
        self._called()
        if self.values.get(key, b"") == expected.encode():
            self.values[key] = desired.encode()
        return self.values[key]

    def _called(self) -> None:
        self.calls += 1
        if self.broken:
            raise RuntimeError("Connection reset by peer")


class Link:
    """One rank's connection to the store. It breaks at its `breaks_at`th call, before the call has arrived or after."""

    def __init__(self, store: MemoryStore, *, breaks_at: int | None = None, arrives: bool = False) -> None:
        self.store = store
        self.breaks_at = breaks_at
        self.arrives = arrives
        self.calls = 0
        self.around: Callable[[], object] = lambda: None
        self.on_break: Callable[[], object] = lambda: None

    def _call(self, call: Callable[[], T]) -> T:
        self.around()
        self.calls += 1
        if self.breaks_at is not None and self.calls >= self.breaks_at:
            self.on_break()
            if self.arrives and self.calls == self.breaks_at:
                call()
            raise RuntimeError("Broken pipe")
        return call()

    def set(self, key: str, value: str | bytes, /) -> None:
        self._call(lambda: self.store.set(key, value))

    def get(self, key: str, /) -> bytes:
        return self._call(lambda: self.store.get(key))

    def check(self, keys: list[str], /) -> bool:
        return self._call(lambda: self.store.check(keys))

    def add(self, key: str, amount: int, /) -> int:
        return self._call(lambda: self.store.add(key, amount))

    def delete_key(self, key: str, /) -> bool:
        return self._call(lambda: self.store.delete_key(key))

    def compare_set(self, key: str, expected: str, desired: str, /) -> bytes:
        return self._call(lambda: self.store.compare_set(key, expected, desired))


def at_once(job: Callable[[], T], seconds: float, /) -> T:
    return job()


class World:
    """Some ranks, one store, one clock."""

    def __init__(self, size: int, hosts: list[str] | None = None, *, wait_seconds: float = 10.0) -> None:
        self.time = 0.0
        self.store = MemoryStore()
        self.links = [Link(self.store) for _ in range(size)]
        self.failures: list[list[str]] = [[] for _ in range(size)]
        self.pauses = 0
        self.while_waiting: Callable[[], object] = lambda: None
        self.hosts = hosts or ["node0"] * size
        self.ranks = [self.exchange(rank, wait_seconds=wait_seconds) for rank in range(size)]

    def exchange(self, rank: int, *, nth: int = 0, wait_seconds: float = 10.0) -> Exchange:
        return Exchange(
            self.links[rank],
            rank=rank,
            world_size=len(self.links),
            host=self.hosts[rank],
            measures=self.hosts.index(self.hosts[rank]) == rank,
            training=str(nth),
            fail=self.failures[rank].append,
            now=lambda: self.time,
            pause=self._pause,
            in_time=at_once,
            wait_seconds=wait_seconds,
        )

    def _pause(self, seconds: float) -> None:
        self.pauses += 1
        self.time += seconds
        self.while_waiting()

    def join(self, ranks: list[int] | None = None) -> None:
        for rank in range(len(self.ranks)) if ranks is None else ranks:
            self.ranks[rank].join(f"uses of {rank}")

    def begin(self, ranks: list[int] | None = None, *, global_step: int = 0) -> None:
        self.join(ranks)
        for rank in range(len(self.ranks)) if ranks is None else ranks:
            self.ranks[rank].begin(global_step)

    def step(self, step: int, *, wants_stop: bool = False, seconds: float = 1.0, ranks: list[int] | None = None) -> list[int]:
        """All ranks do a step, rank 0 last; which of them stop after it."""
        self.time += seconds
        order = sorted(range(len(self.ranks)) if ranks is None else ranks, reverse=True)
        return sorted(
            rank for rank in order if self.ranks[rank].due(step) and self.ranks[rank].consult(step, wants_stop=wants_stop)
        )


# Who is there


def test_nobody_is_complete_before_all_ranks_have_joined() -> None:
    world = World(3)
    world.join([0, 1])
    assert not world.ranks[0].complete

    world.join([2])
    assert all(rank.complete for rank in world.ranks)
    assert world.pauses == 0


def test_the_uses_of_a_host_are_those_of_its_own_ranks() -> None:
    world = World(4, ["a", "a", "b", "b"])
    world.join()

    assert world.ranks[0].uses_of_this_host(None) == ["uses of 0", "uses of 1"]
    assert world.ranks[2].uses_of_this_host(2) == ["uses of 2", "uses of 3"]
    assert world.pauses == 0


def test_the_uses_of_a_host_are_waited_for_until_all_ranks_of_the_world_have_joined() -> None:
    world = World(4, ["a", "b", "b", "a"])
    world.join([0])
    to_come = iter([1, 2, 3])
    world.while_waiting = lambda: world.join([next(to_come)])

    assert world.ranks[0].uses_of_this_host(None) == ["uses of 0", "uses of 3"]
    assert world.pauses == 3


def test_the_uses_of_a_host_are_had_as_soon_as_the_expected_number_is_there() -> None:
    world = World(4, ["a", "a", "b", "b"])
    world.join([0, 1])

    assert world.ranks[0].uses_of_this_host(2) == ["uses of 0", "uses of 1"]
    assert world.pauses == 0


def test_of_ranks_that_never_join_the_others_are_not_waited_for_longer_than_said() -> None:
    world = World(2)
    world.join([0])

    assert world.ranks[0].uses_of_this_host(2, wait=2.0) == ["uses of 0"]
    assert world.time == pytest.approx(2.0)
    assert not world.ranks[0].complete


def test_what_a_rank_says_may_hold_any_character() -> None:
    world = World(1, ["höst/\udcff"])
    world.ranks[0].join("\udcff ü")

    assert world.ranks[0].uses_of_this_host(None) == ["\\udcff ü"]
    assert world.failures == [[]]


# Figures for rank 0


def test_what_rank_0_says_of_the_run_reaches_the_others() -> None:
    world = World(2)
    world.ranks[0].publish_run('{"run_id": "d120"}')

    assert world.ranks[1].learn_run() == '{"run_id": "d120"}'
    assert world.pauses == 0


def test_a_rank_whose_run_rank_0_never_tells_goes_on_alone_and_says_so_once() -> None:
    world = World(2)

    assert world.ranks[1].learn_run(30.0) is None
    assert world.time == pytest.approx(30.0)
    assert world.ranks[1].learn_run(30.0) is None
    assert len(world.failures[1]) == 1
    assert "Add it on every rank" in world.failures[1][0]


def test_rank_0_reads_the_newest_figures_of_each_other_host_that_measures() -> None:
    world = World(6, ["a", "a", "b", "b", "c", "c"])
    world.join()
    assert world.ranks[0].told() == {}

    world.ranks[0].tell("own")
    world.ranks[2].tell("b 1")
    world.ranks[2].tell("b 2")
    assert world.ranks[0].told() == {"b": "b 2"}

    world.ranks[4].tell("c 1")
    assert world.ranks[0].told() == {"b": "b 2", "c": "c 1"}
    assert world.pauses == 0


def test_a_host_that_joins_late_is_found_although_others_were_asked_for_before() -> None:
    world = World(3, ["a", "b", "c"])
    world.join([0, 1])
    world.ranks[1].tell("b")
    assert world.ranks[0].told() == {"b": "b"}

    world.join([2])
    assert world.ranks[0].complete
    world.ranks[2].tell("c")
    assert world.ranks[0].told() == {"b": "b", "c": "c"}


def test_hosts_of_the_same_name_do_not_replace_each_others_figures() -> None:
    world = World(3, ["a", "b", "c"])
    for rank in (1, 2):
        world.hosts[rank] = "pod"
        exchange = Exchange(
            world.links[rank], rank=rank, world_size=3, host="pod", measures=True, training="0", fail=print, in_time=at_once
        )
        exchange.join("")
        exchange.tell(f"of {rank}")
    world.join([0])

    assert world.ranks[0].told() == {"pod": "of 1", "pod (rank 2)": "of 2"}


def test_the_end_takes_the_last_figures_and_waits_for_those_that_are_still_to_come() -> None:
    world = World(3, ["a", "b", "c"])
    world.join()
    for rank in (1, 2):
        world.ranks[rank].tell(f"newest of {rank}")
    world.ranks[1].tell_final("last of 1")
    world.while_waiting = lambda: world.ranks[2].tell_final("last of 2")

    assert world.ranks[0].finals() == {"b": "last of 1", "c": "last of 2"}
    assert world.failures == [[], [], []]


def test_of_a_host_whose_last_figures_do_not_come_the_newest_are_taken() -> None:
    world = World(4, ["a", "b", "c", "d"])
    world.join()
    world.ranks[1].tell_final("last of 1")
    world.ranks[2].tell("newest of 2")

    assert world.ranks[0].finals(1.0) == {"b": "last of 1", "c": "newest of 2"}
    assert world.time == pytest.approx(1.0)
    assert len(world.failures[0]) == 1


def test_a_training_does_not_see_what_was_said_in_the_one_before() -> None:
    world = World(2, ["a", "b"])
    world.begin()
    world.ranks[0].publish_run("first")
    world.ranks[1].tell("first")
    second = [world.exchange(rank, nth=1) for rank in range(2)]

    assert not second[0].complete
    assert second[1].learn_run(1.0) is None
    assert second[0].told() == {}


# One decision for all


def test_nothing_is_due_before_training_begins() -> None:
    world = World(1)

    assert not world.ranks[0].due(1_000_000)


def test_the_first_check_point_is_the_first_step_after_the_begin() -> None:
    world = World(2)
    world.begin(global_step=500)

    assert [rank.due(500) for rank in world.ranks] == [False, False]
    assert [rank.due(501) for rank in world.ranks] == [True, True]


def test_all_ranks_stop_at_the_check_point_after_the_one_where_rank_0_wanted_it() -> None:
    world = World(4)
    world.begin()

    assert world.step(1) == []
    assert world.step(2, wants_stop=True) == []
    stops = {step: world.step(step, wants_stop=True) for step in range(3, 8)}
    first = next(step for step, stopped in stops.items() if stopped)
    assert stops[first] == [0, 1, 2, 3]
    assert world.pauses == 0
    assert world.failures == [[], [], [], []]


def test_a_wish_at_the_first_check_point_stops_all_at_the_second_step() -> None:
    world = World(2)
    world.begin()

    assert [world.step(step, wants_stop=True) for step in (1, 2)] == [[], [0, 1]]
    assert not any(rank.due(3) for rank in world.ranks)


def test_a_training_of_one_process_stops_too() -> None:
    world = World(1)
    world.begin()

    assert [world.step(step, wants_stop=True) for step in (1, 2)] == [[], [0]]


def test_only_rank_0_is_asked_what_it_wants() -> None:
    world = World(2)
    world.begin()
    asked: list[int] = []

    def wish(rank: int) -> bool:
        asked.append(rank)
        return False

    for step in range(1, 20):
        for rank in (0, 1):
            if world.ranks[rank].due(step):
                world.ranks[rank].consult(step, wants_stop=functools.partial(wish, rank))
    assert set(asked) == {0}


def check_points(world: World, last_step: int, seconds: Callable[[int], float]) -> list[int]:
    found = []
    for step in range(1, last_step + 1):
        if world.ranks[0].due(step):
            assert all(rank.due(step) for rank in world.ranks)
            found.append(step)
        else:
            assert not any(rank.due(step) for rank in world.ranks)
        world.step(step, seconds=seconds(step))
    return found


def test_check_points_come_to_be_three_seconds_apart() -> None:
    # 0.1 s a step: 30 steps. Their number doubles until then.
    assert check_points(World(2), 5, lambda _: 0.1) == []
    world = World(2)
    world.begin()

    assert check_points(world, 130, lambda _: 0.1) == [1, 2, 4, 8, 16, 32, 62, 92, 122]


def test_steps_longer_than_the_period_are_all_check_points() -> None:
    world = World(2)
    world.begin()

    assert check_points(world, 6, lambda _: 60.0) == [1, 2, 3, 4, 5, 6]


def test_steps_that_take_no_time_have_a_check_point_every_thousand() -> None:
    world = World(2)
    world.begin()
    found = check_points(world, 5000, lambda _: 0.0)

    assert found[-3:] == [found[-3], found[-3] + 1000, found[-3] + 2000]


def test_old_votes_are_deleted() -> None:
    world = World(2)
    world.begin()
    assert len(check_points(world, 1000, lambda _: 3.0)) == 1000

    left = [key for key in world.store.values if "/vote/" in key or "/ready/" in key]
    assert len(left) <= 2 * (KEPT_VOTES + 2)


def test_no_step_but_a_check_point_looks_at_the_store() -> None:
    world = World(2)
    world.begin()
    check_points(world, 62, lambda _: 0.1)
    before = world.store.calls

    for step in range(63, 92):
        assert world.step(step, wants_stop=True, seconds=0.1) == []
    assert world.store.calls == before


# One decision for all, where something is wrong


def test_while_a_rank_has_no_callback_nobody_stops_and_rank_0_says_why_once() -> None:
    world = World(3)
    world.begin([0, 1])

    assert [world.step(step, wants_stop=True, ranks=[0, 1]) for step in range(1, 40)] == [[]] * 39
    assert len(world.failures[0]) == 1
    assert "on every rank" in world.failures[0][0]


def test_a_callback_on_rank_0_alone_stops_nothing() -> None:
    world = World(2)
    world.begin([0])

    assert [world.step(step, wants_stop=True, ranks=[0]) for step in range(1, 40)] == [[]] * 39
    assert world.pauses == 0


def test_a_rank_that_rank_0_leaves_waiting_waits_once_and_never_again() -> None:
    world = World(3)
    world.begin([1, 2])

    for step in range(1, 20):
        assert world.step(step, wants_stop=True, seconds=0.0, ranks=[1, 2]) == []
    assert world.time == pytest.approx(10.0)  # The one that waits ends the votes for the other too.
    assert [len(failures) for failures in world.failures] == [0, 1, 1]


def test_when_one_rank_has_waited_in_vain_votes_end_for_all_and_nobody_stops() -> None:
    world = World(3)
    world.begin()
    world.step(1)
    # Rank 1 is a check point ahead of rank 0, and rank 0 comes when it has given up.
    for step in (2, 3):
        world.ranks[1].consult(step, wants_stop=False)
    for step in (2, 3):
        for rank in (2, 0):
            if world.ranks[rank].due(step):
                assert not world.ranks[rank].consult(step, wants_stop=True)
    later = [world.step(step, wants_stop=True) for step in range(4, 40)]

    assert later == [[]] * 36
    assert not any(rank.due(1_000_000) for rank in world.ranks)


def test_a_vote_that_comes_just_when_a_rank_gives_up_counts() -> None:
    world = World(2)
    world.begin()
    world.step(1)
    assert not world.ranks[1].consult(2, wants_stop=False)
    # The last look has not found the vote; before rank 1 has said that votes end, rank 0 writes it.
    real = world.links[1].store.compare_set

    def late(key: str, expected: str, desired: str, /) -> bytes:
        world.store.compare_set = real  # type: ignore[method-assign]
        assert not world.ranks[0].consult(2, wants_stop=True)
        return real(key, expected, desired)

    world.store.compare_set = late  # type: ignore[method-assign]
    due = next(step for step in range(3, 10) if world.ranks[1].due(step))
    assert world.ranks[1].consult(due, wants_stop=False)
    assert world.ranks[0].due(due)
    assert world.ranks[0].consult(due, wants_stop=True)


def test_a_rank_whose_store_has_failed_keeps_all_from_stopping() -> None:
    world = World(3)
    world.begin()
    for step in range(1, 10):
        world.step(step)
    world.links[2].breaks_at = 0
    for step in range(10, 20):
        world.step(step)

    assert [world.step(step, wants_stop=True) for step in range(20, 60)] == [[]] * 40
    assert len(world.failures[2]) == 1
    assert "on every rank" in world.failures[0][0]
    assert world.failures[1] == []


@pytest.mark.parametrize("arrives", [True, False])
def test_rank_0_does_not_stop_alone_when_it_cannot_write_the_vote(arrives: bool) -> None:
    world = World(2)
    world.begin()
    world.links[0].arrives = arrives
    world.step(1)
    link = world.links[0]
    link.breaks_at = link.calls + 2  # Asks whether all are ready, and writes.
    outcomes = [world.step(step, wants_stop=True) for step in range(2, 20)]

    assert all(0 not in stopped for stopped in outcomes)
    # If the write did arrive, rank 1 stops without rank 0: the case of which the docstring says that it remains.
    assert [stopped for stopped in outcomes if stopped] == ([[1]] if arrives else [])


def test_a_stop_that_is_decided_holds_on_rank_0_though_its_store_fails_before() -> None:
    world = World(2)
    world.begin()
    world.step(1)
    assert world.step(2, wants_stop=True) == []
    world.links[0].breaks_at = 0
    world.ranks[0].tell("figures")  # From the sampler's thread, which finds the store broken.

    assert [stopped for step in range(3, 10) if (stopped := world.step(step))] == [[0, 1]]


def test_a_stop_that_stands_in_the_store_holds_on_rank_0_though_its_store_fails_right_after() -> None:
    world = World(2)
    world.begin()
    world.step(1)
    link = world.links[0]
    link.breaks_at = link.calls + 3  # Asks whether all are ready, writes the vote; then it can no longer count itself in.

    assert [stopped for step in range(2, 10) if (stopped := world.step(step, wants_stop=True))] == [[0, 1]]


def test_a_rank_that_missed_its_check_point_does_not_stop_at_another_step() -> None:
    world = World(2)
    world.begin()
    world.step(1)

    assert world.ranks[1].due(3)
    assert not world.ranks[1].consult(3, wants_stop=False)
    assert not world.ranks[1].due(1_000_000)
    assert len(world.failures[1]) == 1


def test_a_store_that_has_failed_is_not_asked_again_and_it_is_said_once() -> None:
    world = World(2, ["a", "b"])
    world.store.broken = True
    world.begin()
    calls = world.store.calls
    for step in range(1, 10):
        assert world.step(step, wants_stop=True) == []
    rank = world.ranks[0]
    rank.tell("")
    rank.tell_final("")
    rank.publish_run("")

    assert (rank.complete, rank.told(), rank.finals(), rank.learn_run(), rank.uses_of_this_host(4)) == (False, {}, {}, None, [])
    assert world.store.calls == calls
    assert world.pauses == 0
    assert [len(failures) for failures in world.failures] == [1, 1]
    assert "still alive?" in world.failures[0][0]


def test_a_rank_that_cannot_read_the_vote_keeps_all_from_stopping() -> None:
    world = World(2)
    world.begin()
    world.step(1)
    for key in list(world.store.values):
        if "/vote/" in key:
            world.store.values[key] = b"[]"

    assert world.step(2) == []
    assert not world.ranks[1].due(1_000_000)
    assert [world.step(step, wants_stop=True) for step in range(3, 40)] == [[]] * 37


# All at the same step, or none: whatever the order


class _TestIsOver(BaseException):
    """Ends the thread of a rank that hangs."""


class Scheduler:
    """Lets one thread at a time go on, in an order of its own; a rank with little `weight` is slow."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.time = 0.0
        self.over = False
        self._back = threading.Semaphore(0)
        self._tasks: list[_Task] = []

    def spawn(self, weight: float, body: Callable[["_Task"], None]) -> None:
        self._tasks.append(_Task(self, weight, body))

    def run(self) -> None:
        """Until all have ended, or those that have not wait for what never comes: they hang."""
        for task in self._tasks:
            task.thread.start()
        while ready := [task for task in self._tasks if task.thread.is_alive() and not task.ended and task.until()]:
            [task] = self.random.choices(ready, [task.weight for task in ready])
            self.time = max(self.time, task.wake)
            self._hand_over(task)
        self.over = True
        for task in self._tasks:
            if not task.ended:
                self._hand_over(task)
            task.thread.join()

    def _hand_over(self, task: "_Task") -> None:
        task.go.release()
        self._back.acquire()

    def give_back(self) -> None:
        self._back.release()


class _Task:
    def __init__(self, scheduler: Scheduler, weight: float, body: Callable[["_Task"], None]) -> None:
        self.scheduler = scheduler
        self.weight = weight
        self.go = threading.Semaphore(0)
        self.wake = 0.0
        self.until: Callable[[], bool] = lambda: True
        self.ended = False
        self.thread = threading.Thread(target=self._run, args=(body,), daemon=True)

    def _run(self, body: Callable[["_Task"], None]) -> None:
        self.go.acquire()
        try:
            if not self.scheduler.over:
                body(self)
        except _TestIsOver:
            pass
        finally:
            self.ended = True
            self.scheduler.give_back()

    def let_others_go_on(self, seconds: float = 0.0, until: Callable[[], bool] = lambda: True) -> None:
        self.wake, self.until = self.scheduler.time + seconds, until
        self.scheduler.give_back()
        self.go.acquire()
        if self.scheduler.over:
            raise _TestIsOver


class Training:
    """A training in which a rank ends a step only when all have left the one `lead` + 1 before. 0: each step synchronises."""

    STEPS = 40

    def __init__(self, size: int, seed: int, *, lead: int, wanted_at: int, link: Callable[[int, MemoryStore], Link]) -> None:
        self.scheduler = Scheduler(seed)
        self.store = MemoryStore()
        self.store.delete_key = lambda _key, /: True  # type: ignore[method-assign] # So that the votes can be read afterwards.
        self.size, self.lead, self.wanted_at, self.link = size, lead, wanted_at, link
        self.done = [-1] * size
        self.stops: dict[int, int] = {}
        self.broke: dict[int, int] = {}
        self.failures: list[str] = []
        self.pauses = 0
        for rank in range(size):
            weight = 10.0 ** self.scheduler.random.uniform(-2, 0)
            self.scheduler.spawn(weight, lambda task, rank=rank: self._rank(task, rank))  # type: ignore[misc]
        self.scheduler.run()

    def _rank(self, task: _Task, rank: int) -> None:
        def pause(seconds: float) -> None:
            self.pauses += 1
            task.let_others_go_on(seconds)

        link = self.link(rank, self.store)
        link.around = task.let_others_go_on
        link.on_break = lambda: self.broke.setdefault(rank, self.done[rank] + 1)
        exchange = Exchange(
            link,
            rank=rank,
            world_size=self.size,
            host="node0",
            measures=rank == 0,
            training="0",
            fail=self.failures.append,
            now=lambda: self.scheduler.time,
            pause=pause,
            in_time=at_once,
            wait_seconds=0.2,
            period_seconds=1.0,
        )
        exchange.join("")
        exchange.begin(0)
        self.done[rank] = 0
        for step in range(1, self.STEPS + 1):
            seconds = self.scheduler.random.uniform(0.0, 0.5)
            task.let_others_go_on(seconds, lambda step=step: min(self.done) >= step - 1 - self.lead)  # type: ignore[misc]
            if exchange.due(step) and exchange.consult(step, wants_stop=step >= self.wanted_at):
                self.stops[rank] = step
                return
            self.done[rank] = step

    @property
    def is_agreed(self) -> bool:
        """All have stopped after the same step, or none has."""
        return not self.stops or (len(self.stops) == self.size and len(set(self.stops.values())) == 1)

    def step_before_the_vote_to_stop(self) -> int:
        """The check point before the one where rank 0 wrote that all stop."""
        votes = {int(key.rpartition("/")[2]): json.loads(text) for key, text in self.store.values.items() if "/vote/" in key}
        steps = sorted(votes)
        place = next(place for place, step in enumerate(steps) if votes[step]["stop"])
        return steps[place - 1] if place else 0


def sound_link(rank: int, store: MemoryStore) -> Link:
    return Link(store)


@settings(deadline=None, max_examples=60)
@given(size=st.integers(2, 5), seed=st.integers(0, 2**32), wanted_at=st.integers(1, 20))
def test_in_a_synchronous_training_all_ranks_stop_at_the_same_step_and_nobody_ever_waits(
    size: int, seed: int, wanted_at: int
) -> None:
    training = Training(size, seed, lead=0, wanted_at=wanted_at, link=sound_link)

    assert len(training.stops) == size
    assert len(set(training.stops.values())) == 1
    assert training.stops[0] > wanted_at
    assert training.pauses == 0
    assert training.failures == []


@settings(deadline=None, max_examples=100)
@given(size=st.integers(2, 4), seed=st.integers(0, 2**32), wanted_at=st.integers(1, 20), lead=st.integers(1, 8))
def test_however_far_ranks_run_ahead_of_each_other_they_all_stop_at_the_same_step_or_none_does(
    size: int, seed: int, wanted_at: int, lead: int
) -> None:
    training = Training(size, seed, lead=lead, wanted_at=wanted_at, link=sound_link)

    assert training.is_agreed, training.stops
    assert training.stops or training.failures


@settings(deadline=None, max_examples=150)
@given(
    size=st.integers(2, 4),
    seed=st.integers(0, 2**32),
    wanted_at=st.integers(1, 20),
    lead=st.integers(0, 4),
    broken=st.integers(0, 3),
    breaks_at=st.integers(1, 60),
    arrives=st.booleans(),
)
def test_a_rank_that_loses_the_store_parts_the_ranks_only_if_that_is_within_two_check_points_of_the_stop(
    size: int, seed: int, wanted_at: int, lead: int, broken: int, breaks_at: int, arrives: bool
) -> None:
    def link(rank: int, store: MemoryStore) -> Link:
        return Link(store, breaks_at=breaks_at, arrives=arrives) if rank == broken % size else Link(store)

    training = Training(size, seed, lead=lead, wanted_at=wanted_at, link=link)

    if not training.is_agreed:
        [at_step] = training.broke.values()
        assert at_step >= training.step_before_the_vote_to_stop()


# A store that blocks


def test_a_job_gives_what_it_returns_or_raises() -> None:
    assert in_thread(lambda: 7, 60.0) == 7
    assert in_thread(lambda: None, 60.0) is None
    with pytest.raises(ConnectionError, match="gone"):
        in_thread(lambda: _raise(ConnectionError("gone")), 60.0)


def _raise(error: Exception) -> None:
    raise error


def test_a_store_that_never_answers_is_left_behind() -> None:
    never = threading.Event()

    class Stuck(MemoryStore):
        def _called(self) -> None:
            never.wait()

    said: list[str] = []
    store: Store = Stuck()
    exchange = Exchange(store, rank=1, world_size=2, host="a", measures=True, training="0", fail=said.append, wait_seconds=0.05)
    exchange.join("")
    exchange.begin(0)
    outcomes = [exchange.consult(step, wants_stop=False) for step in range(1, 5) if exchange.due(step)]
    never.set()

    assert outcomes == [False, False]
    assert len(said) == 1
    assert "no answer within 0.05 s" in said[0]


# Real processes and torch's store


def play(name: str, world_size: int, tmp_path: Path) -> dict[int, dict[str, Any]]:
    """Run this file as a training of so many processes; what each of them has to say, by rank, as far as it lived."""
    command = [sys.executable, __file__, name, str(world_size), str(tmp_path)]
    parent = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path, start_new_session=True)
    try:
        _, errors = parent.communicate(timeout=100)
    except subprocess.TimeoutExpired:
        os.killpg(parent.pid, signal.SIGKILL)  # The ranks too.
        raise
    assert parent.returncode == 0, errors
    assert "Traceback" not in errors, errors
    return {int(file.stem): json.loads(file.read_text()) for file in tmp_path.glob("*.json")}


@pytest.mark.parametrize("world_size", [2, 4])
def test_real_processes_exchange_figures_and_stop_at_the_same_step(world_size: int, tmp_path: Path) -> None:
    said = play("sound", world_size, tmp_path)

    assert said.keys() == set(range(world_size))
    stops = {one["stopped"] for one in said.values()}
    assert len(stops) == 1
    assert min(stops) > 30
    assert said[0]["complete"]
    assert sorted(said[0]["uses"]) == [f"uses of {rank}" for rank in range(0, world_size, 2)]
    assert {one["run"] for one in said.values()} == {"the run"}
    assert said[0]["finals"] == {"host1": "final of 1"}
    assert all(one["failures"] == [] for one in said.values())


def test_when_rank_0_is_killed_the_others_go_on(tmp_path: Path) -> None:
    said = play("rank_0_killed", 3, tmp_path)

    assert said.keys() == {1, 2}
    for one in said.values():
        assert one["stopped"] is None
        assert one["steps"] == 200
        assert len(one["failures"]) == 1


def test_when_rank_0_is_killed_but_not_the_store_the_others_wait_once_and_go_on(tmp_path: Path) -> None:
    said = play("only_rank_0_killed", 4, tmp_path)

    assert said.keys() == {1, 2}
    for one in said.values():
        assert one["stopped"] is None
        assert one["steps"] == 200
        assert len(one["failures"]) == 1
        assert "gives up the common decision" in one["failures"][0]


def test_when_the_process_with_the_store_is_killed_the_others_go_on(tmp_path: Path) -> None:
    said = play("server_killed", 4, tmp_path)

    assert said.keys() == {0, 1, 2}
    for one in said.values():
        assert one["stopped"] is None
        assert one["steps"] == 200
        assert len(one["failures"]) == 1
        assert "cannot reach the store" in one["failures"][0]


def test_when_the_process_with_the_store_hangs_the_others_go_on(tmp_path: Path) -> None:
    said = play("server_frozen", 3, tmp_path)

    for rank in (1, 2):
        assert said[rank]["stopped"] is None
        assert said[rank]["steps"] == 200
        assert len(said[rank]["failures"]) == 1
        assert "no answer within" in said[rank]["failures"][0]


def test_a_rank_that_never_joins_keeps_the_others_from_stopping(tmp_path: Path) -> None:
    said = play("one_never_joins", 4, tmp_path)

    assert said.keys() == {0, 1, 2, 3}
    assert {one["stopped"] for one in said.values()} == {None}
    assert {one["steps"] for one in said.values()} == {200}
    assert not said[0]["complete"]


# What runs in those processes


STEPS = 200
WANTED_AT = 30

SERVER_ALONE = frozenset({"only_rank_0_killed", "server_killed"})
"""Where the first process has the store and does not train, as torchrun. Else rank 0 has the store."""

VICTIMS = {"rank_0_killed": 0, "only_rank_0_killed": 1, "server_killed": 0, "server_frozen": 0}
"""Which process is killed or stopped in the middle of the training."""


class Process:
    """One rank of a real training; -1 has the store only. `shared`: the steps that the ranks are at, then whether one is lost."""

    def __init__(self, rank: int, world_size: int, port: int, folder: Path, shared: "memoryview[int]", *, serves: bool) -> None:
        from torch.distributed import PrefixStore, TCPStore  # noqa: PLC0415 - the tests themselves need no torch

        self.rank, self.world_size, self.folder, self.shared = rank, world_size, folder, shared
        store = TCPStore("127.0.0.1", port, None, serves, timeout=timedelta(seconds=60), wait_for_workers=False)
        self.failures: list[str] = []
        self.exchange = Exchange(
            PrefixStore("default_pg", store),
            rank=rank,
            world_size=world_size,
            host=f"host{rank % 2}",
            measures=rank < 2,
            training="0",
            fail=self.failures.append,
            wait_seconds=1.0,
            period_seconds=0.05,
        )

    def synchronise(self, step: int) -> None:
        """What the gradients do in a training: no rank ends the step before all have begun it."""
        self.shared[self.rank] = step
        while min(self.shared[: self.world_size]) < step:
            os.sched_yield()

    def synchronise_until_the_victim(self, step: int) -> None:
        """As long as all live; then, the parent having seen the end of one, each for itself."""
        if step <= 10:
            self.synchronise(step)
        while step == 11 and not self.shared[self.world_size]:
            os.sched_yield()

    def train(self, synchronise: Callable[[int], None]) -> dict[str, Any]:
        self.exchange.begin(0)
        for step in range(1, STEPS + 1):
            synchronise(step)
            if self.exchange.due(step) and self.exchange.consult(step, wants_stop=step > WANTED_AT):
                return {"stopped": step, "steps": step}
        return {"stopped": None, "steps": STEPS}

    def leave(self, said: dict[str, Any]) -> None:
        (self.folder / f"{self.rank}.json").write_text(json.dumps(said | {"failures": self.failures}))


def sound(process: Process) -> None:
    exchange, rank = process.exchange, process.rank
    exchange.join(f"uses of {rank}")
    if rank == 0:
        exchange.publish_run("the run")
    said: dict[str, Any] = {"uses": exchange.uses_of_this_host(None, wait=60.0), "run": exchange.learn_run(60.0)}
    exchange.tell(f"totals of {rank}")
    said |= process.train(process.synchronise)
    exchange.tell_final(f"final of {rank}")
    said |= {"complete": exchange.complete}
    if rank == 0:
        said["finals"] = exchange.finals(wait=60.0)
    process.synchronise(STEPS + 1)  # Rank 0 has the store, so it must not leave before the others.
    process.leave(said)


def one_never_joins(process: Process) -> None:
    if process.rank == process.world_size - 1:
        for step in range(1, STEPS + 2):
            process.synchronise(step)
        process.leave({"stopped": None, "steps": STEPS})
        return
    process.exchange.join("")
    said = process.train(process.synchronise) | {"complete": process.exchange.complete}
    process.synchronise(STEPS + 1)
    process.leave(said)


def one_is_lost(process: Process, sent: signal.Signals) -> None:
    process.exchange.join("")

    def synchronise(step: int) -> None:
        if step == 11 and process.rank == 0:
            os.kill(os.getpid(), sent)
        process.synchronise_until_the_victim(step)

    process.leave(process.train(synchronise))


def rank_0_killed(process: Process) -> None:
    one_is_lost(process, signal.SIGKILL)


def server_frozen(process: Process) -> None:
    one_is_lost(process, signal.SIGSTOP)


def only_rank_0_killed(process: Process) -> None:
    if process.rank < 0:
        signal.pause()  # Until the parent ends it.
    one_is_lost(process, signal.SIGKILL)


def server_killed(process: Process) -> None:
    if process.rank < 0:
        while min(process.shared[: process.world_size]) < 10:
            os.sched_yield()
        os.kill(os.getpid(), signal.SIGKILL)
    process.exchange.join("")
    process.leave(process.train(process.synchronise_until_the_victim))


SCENARIOS = {
    one.__name__: one for one in (sound, rank_0_killed, only_rank_0_killed, server_killed, server_frozen, one_never_joins)
}


def main(name: str, count: int, folder: Path) -> None:
    """Fork so many processes, which saves each the seconds that importing torch takes, and see them end."""
    import torch.distributed  # noqa: F401, PLC0415 - see above

    alone = name in SERVER_ALONE
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    shared = memoryview(mmap.mmap(-1, 8 * (count + 1))).cast("q")
    children = []
    for place in range(count):
        child = os.fork()
        if child == 0:
            try:
                SCENARIOS[name](Process(place - alone, count - alone, port, folder, shared, serves=place == 0))
            finally:
                if sys.exc_info()[0] is not None:
                    traceback.print_exc()
                os._exit(0)
        children.append(child)
    lost = children[VICTIMS[name]] if name in VICTIMS else None
    if lost is not None:
        os.waitpid(lost, os.WUNTRACED)
        shared[count - alone] = 1
    for child in reversed(children):
        if child == children[0] and name in {"only_rank_0_killed", "server_frozen"}:
            os.kill(child, signal.SIGKILL)
        if child != lost or name == "server_frozen":
            os.waitpid(child, 0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
