"""What the processes of a distributed training say to each other: figures for rank 0, and one decision for all.

They talk through the key-value store that `torch.distributed` has anyway, not by a collective: that would cost a CUDA
synchronisation, and hang with a dead rank. Every wait here has an end, and after a first failure of the store this process
asks it no more. A failure costs figures, or the stop at the budget; never the training.

Keys, all under `hf_eco2ai/<training>/`::

    present                number of ranks that joined
    on/<host>, on/<host>/3 number of ranks of a host, and what the third of them said of its GPUs
    measures, measures/2   number of processes that measure, and rank and host of the second
    run                    what rank 0 says of the run
    totals/8, final/8      the newest and the last figures of rank 8
    ready/500              number of ranks that know step 500 as their next check point, and whose store works
    vote/500               the decision that is taken after step 500, and acted on at the check point after it
"""

import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

T = TypeVar("T")

STORE_ERRORS = (RuntimeError, OSError, ValueError, TypeError)
"""What a store raises. torch's DistStoreError and DistNetworkError are RuntimeErrors (tried with torch 2.13); ValueError and
TypeError are of the binding; TimeoutError, an OSError, is ours."""

NEVER = sys.maxsize
"""The check point of a rank that takes no further part in votes."""

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.002, 0.1
"""Between two looks for a key. Twice as long each time: what is late by little is had soon, and a thousand ranks that wait for
long do not flood the store."""

MOST_STEPS_BETWEEN_VOTES = 1000
"""Which step has the next vote is said while steps are fast. Should they become slow, it must not be a day away."""

KEPT_VOTES = 3
"""Older ones nobody reads: when rank 0 is at a check point, all have passed the one before, so have read the vote before that."""


class Store(Protocol):
    """The part of `torch.distributed.Store` that is used. Its `wait` is not.

    While TCPStore waits it holds a lock, for which other threads of the training would wait too; and it logs if it waits in vain.
    """

    def set(self, key: str, value: str | bytes, /) -> None: ...  # noqa: D102 - torch's own, and so are the others
    def get(self, key: str, /) -> bytes: ...  # noqa: D102
    def check(self, keys: list[str], /) -> bool: ...  # noqa: D102
    def add(self, key: str, amount: int, /) -> int: ...  # noqa: D102
    def delete_key(self, key: str, /) -> bool: ...  # noqa: D102
    def compare_set(self, key: str, expected: str, desired: str, /) -> bytes: ...  # noqa: D102


class InTime(Protocol):
    """Runs a job that may block."""

    def __call__(self, job: Callable[[], T], seconds: float, /) -> T:
        """What the job returns or raises. TimeoutError if it has done neither after so many seconds."""


def in_thread(job: Callable[[], T], seconds: float, /) -> T:
    """Run the job in a thread of its own, and leave it behind when it takes too long.

    Needed because even a TCPStore's `check` waits without end, whatever its timeout, for a server that neither answers nor
    closes the connection (tried with torch 2.13 and a stopped process; a host that lost its power looks the same).
    """
    results: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(job())
        except STORE_ERRORS as error:
            errors.append(error)

    # Daemon, so that a thread that is stuck does not keep the interpreter from ending.
    thread = threading.Thread(target=run, name="hf_eco2ai-store", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {seconds:g} s")
    return results[0]


@dataclass(frozen=True)
class Vote:
    """What rank 0 decided at a check point. All act on it at the next one, which is after step `at`."""

    at: int
    stop: bool
    next: int
    """The check point after `at`; if it is not above `at` there is none, and votes end with this one."""

    def text(self) -> str:
        """As it stands in the store."""
        return json.dumps({"at": self.at, "stop": self.stop, "next": self.next})

    @classmethod
    def parse(cls, text: bytes) -> "Vote | None":
        """What stands in the store; None if it is no vote."""
        try:
            fields = json.loads(text)
            return cls(int(fields["at"]), fields["stop"] is True, int(fields["next"]))
        except (ValueError, TypeError, KeyError):
            return None


class Exchange:
    """One process's side of it, for one training.

    `training` is a name that its ranks have in common, and that no other training has which uses the same store. Every rank calls
    `join` and `begin` once, when training begins, and after every step `due` and, where that is true, `consult`. No method
    raises. `fail` is told once per cause what is lost and what the user can do. `wait_seconds` is how long a vote is waited for,
    and any one answer of the store.

    How a vote goes. At a check point rank 0 writes whether to stop, and which step will be the check point after the next. At
    the next check point every rank reads that and acts on it. So all stop after the same step, and all know the coming check
    point, though only rank 0 knows how long a step takes. Nobody waits, because training synchronises the ranks in between:
    who ends a step has needed every rank's gradients for it, so rank 0 had begun it, so it had left the last check point, so
    its vote is there. (Where nothing makes the CPU wait for the GPU, a rank may be some steps ahead of rank 0, and then waits
    for it here.)

    Ranks that disagree make the training hang. What could part them is met thus:

    - A vote cannot be taken by some and missed by others that still see the store. It is written by compare-and-set, whose
      answer tells rank 0 what stands there; and a rank that waited in vain does not just leave, but writes the end of all
      votes in its place, by compare-and-set too. Whichever came first holds for all.
    - A rank whose store fails can neither read nor say so. So every rank counts itself in (`ready`) for the next check point,
      and there rank 0 votes to stop only if all did. A rank that has no callback, was killed, is out of step or has gone
      silent is missing in that count; then nobody stops.
    - What remains is a rank whose connection breaks within the two check points before a stop, some seconds of the whole
      training. It cannot know, and goes on, since of all votes at most one is to stop. Rank 0 does the same if the store
      fails while it writes that vote: mostly the store itself is gone then, and nobody has read it. Should the others have
      stopped after all, the rank that went on fails by their leaving, or by the timeout of its process group.
    """

    def __init__(
        self,
        store: Store,
        *,
        rank: int,
        world_size: int,
        host: str,
        measures: bool,
        training: str,
        fail: Callable[[str], None],
        now: Callable[[], float] = time.monotonic,
        pause: Callable[[float], object] = time.sleep,
        in_time: InTime = in_thread,
        wait_seconds: float = 10.0,
        period_seconds: float = 3.0,
    ) -> None:
        self._store = store
        self._rank = rank
        self._world_size = world_size
        self._host = host
        self._measures = measures
        self._prefix = f"hf_eco2ai/{training}"
        self._fail = fail
        self._now = now
        self._pause = pause
        self._in_time = in_time
        self._wait_seconds = wait_seconds
        self._period_seconds = period_seconds
        self._said: set[str] = set()
        self._broken = False
        self._complete = False
        self._others: dict[int, str] = {}
        self._knows_all_others = False
        self._own_name = host
        # Of the votes. Only the training's thread writes these.
        self._due_at = NEVER
        self._previous: int | None = None
        self._vote: Vote | None = None
        self._timed_from = (0, 0.0)
        self._stride = 1
        self._passed: deque[int] = deque()
        self._wanted_since: float | None = None

    # Who is there

    def join(self, uses: str) -> None:
        """Be known to the others, with what this process says of the GPUs it computes on."""
        host = self._key("on", self._host)

        def register() -> None:
            self._store.set(f"{host}/{self._store.add(host, 1)}", _encoded(uses))
            if self._measures:
                place = self._store.add(self._key("measures"), 1)
                self._store.set(self._key("measures", place), json.dumps([self._rank, self._host]))
            self._store.add(self._key("present"), 1)  # Last, because who sees all present relies on the rest.

        self._ask(register, None)

    @property
    def complete(self) -> bool:
        """Whether all ranks have joined. Does not wait."""
        if not self._complete:
            self._complete = self._ask(self._all_present, otherwise=False)
        return self._complete

    def uses_of_this_host(self, expected: int | None, wait: float = 2.0) -> list[str]:
        """What the ranks of this host said when they joined, once all ranks of the training have.

        Sooner, if `expected` ranks of this host have (None: not known how many there are). After `wait` seconds it is whatever
        is there: if not `complete`, and not as many as expected, ranks may be missing from it, and so would their GPUs.
        """

        def all_here() -> bool:
            return self._all_present() or (expected is not None and len(self._said_here()) >= expected)

        self._wait_until(all_here, wait)
        return self._ask(self._said_here, [])

    def _said_here(self) -> list[str]:
        host = self._key("on", self._host)
        return self._present_of([f"{host}/{i + 1}" for i in range(self._store.add(host, 0))])

    def _all_present(self) -> bool:
        return self._store.add(self._key("present"), 0) >= self._world_size

    # Figures for rank 0

    def publish_run(self, text: str) -> None:
        """Rank 0 says what all must know of the run, such as its ID."""
        self._ask(lambda: self._store.set(self._key("run"), _encoded(text)), None)

    def learn_run(self, wait: float = 30.0) -> str | None:
        """What rank 0 says of the run; None if that has not come within `wait` seconds."""
        key = self._key("run")
        if self._wait_until(lambda: self._store.check([key]), wait):
            return self._ask(lambda: _decoded(self._store.get(key)), None)
        if not self._broken:
            self._say(
                "run",
                f"Rank 0 has not said within {wait:g} s which run this is, so the figures of host {self._host} are kept as a run "
                "of their own. Is Eco2AICallback on rank 0 too? Add it on every rank.",
            )
        return None

    def tell(self, totals: str) -> None:
        """Leave the newest figures of this process for rank 0."""
        self._ask(lambda: self._store.set(self._key("totals", self._rank), _encoded(totals)), None)

    def told(self) -> dict[str, str]:
        """The newest figures of each other process that measures, by its host. Does not wait."""
        return self._ask(lambda: self._newest("totals"), {})

    def tell_final(self, totals: str) -> None:
        """Leave the last figures of this process for rank 0. Nothing follows."""
        self._ask(lambda: self._store.set(self._key("final", self._rank), _encoded(totals)), None)

    def finals(self, wait: float = 1.0) -> dict[str, str]:
        """The last figures of the other processes that measure, by host; after `wait` seconds the newest of who is missing."""

        def all_final() -> bool:
            return self._store.check([self._key("final", rank) for rank in self._find_others()])

        if not self._wait_until(all_final, wait) and not self._broken:
            self._say(
                "final",
                f"Not every host's last figures came within {wait:g} s of the end; of those hosts the report has the newest that "
                "came before, if any. Were their processes killed? Their own logs say so.",
            )
        return self._ask(lambda: self._newest("final", "totals"), {})

    def _newest(self, *kinds: str) -> dict[str, str]:
        """By host, the first kind of figures that is there."""
        found = {name: self._present_of([self._key(kind, rank) for kind in kinds]) for rank, name in self._find_others().items()}
        return {name: texts[0] for name, texts in found.items() if texts}

    @property
    def name(self) -> str:
        """What the others call the host of this process. Sure once all have joined."""
        self.other_hosts()
        return self._own_name

    def other_hosts(self) -> tuple[str, ...]:
        """The hosts of the other processes that measure, as far as they have joined. Does not wait."""
        nobody: dict[int, str] = {}
        return tuple(self._ask(self._find_others, nobody).values())

    def _find_others(self) -> dict[int, str]:
        """The other processes that measure, by rank, as far as they have joined. Each has a name of its own."""
        if self._knows_all_others:
            return self._others
        all_present = self._all_present()  # Before the look: who is present then has registered.
        places = range(self._store.add(self._key("measures"), 0))
        members = sorted(json.loads(text) for text in self._present_of([self._key("measures", i + 1) for i in places]))
        names: dict[int, str] = {}
        for rank, host in members:
            # Hosts may have the same name, as containers do; their figures must not replace each other.
            names[rank] = f"{host} (rank {rank})" if host in names.values() else host
        self._own_name = names.pop(self._rank, self._host)
        self._others, self._knows_all_others = names, all_present
        return names

    # One decision for all

    def begin(self, global_step: int) -> None:
        """Training begins after that step; the next is the first check point. Only once: who begins again makes a new one."""
        self._timed_from = (global_step, self._now())
        self._count_in(global_step + 1)

    def due(self, global_step: int) -> bool:
        """Whether `consult` is to be called after this step."""
        return global_step >= self._due_at

    def consult(self, global_step: int, *, wants_stop: Callable[[], bool] | bool) -> bool:
        """Whether all ranks stop now, after this step. Only rank 0 is asked what it wants, and must not raise then.

        It takes effect at the next check point. In a sound training nobody waits here; else `wait_seconds`, and once more if the
        store itself does not answer, and then never again.
        """
        last = self._last_vote(global_step)
        if self._previous is not None and (last is None or last.at != global_step or last.stop or last.next <= last.at):
            return self._end_votes(last, global_step)
        following = global_step + 1 if last is None else last.next
        if self._rank == 0:
            wish = wants_stop if isinstance(wants_stop, bool) else wants_stop()
            self._write_vote(global_step, following, wants_stop=wish)
        self._previous = global_step
        self._count_in(following)
        return False

    def _count_in(self, following: int) -> None:
        """Say that this rank will be at that check point. If the store fails it goes there too: rank 0 may know of a stop."""
        self._ask(lambda: self._store.add(self._key("ready", following), 1), 0)
        self._due_at = following

    def _last_vote(self, global_step: int) -> Vote | None:
        """The vote of the last check point. Who waits for it in vain ends the votes for all."""
        if self._rank == 0 or self._previous is None:
            return self._vote
        key = self._key("vote", self._previous)
        if self._wait_until(lambda: self._store.check([key]), self._wait_seconds):
            return self._ask(lambda: Vote.parse(self._store.get(key)), None)
        # The answer is what stands there: this, or rank 0's if that has come after all.
        end = Vote(global_step, stop=False, next=global_step)
        return self._ask(lambda: Vote.parse(self._store.compare_set(key, "", end.text())), None)

    def _end_votes(self, last: Vote | None, global_step: int) -> bool:
        self._due_at = NEVER
        if last is not None and last.at == global_step and last.stop:
            return True
        if not self._broken:  # Else that has been said.
            self._say(
                "vote",
                f"Rank {self._rank} gives up the common decision at step {global_step}: rank 0's part of it did not come within "
                f"{self._wait_seconds:g} s, or another rank has given up. So this training is not stopped at the budget; its "
                "figures go on. Is Eco2AICallback on every rank, and there before training begins? If so, one rank was far "
                "behind the others; watch the budget yourself.",
            )
        return False

    def _write_vote(self, global_step: int, following: int, *, wants_stop: bool) -> None:
        self._stride = self._next_stride(global_step)
        stop = wants_stop and self._all_ready(global_step)
        text = Vote(following, stop, following + self._stride).text()
        # What stands there may be another's. None if the store failed: then rank 0 goes on without votes.
        self._vote = self._ask(lambda: Vote.parse(self._store.compare_set(self._key("vote", global_step), "", text)), None)
        self._passed.append(global_step)
        if len(self._passed) > KEPT_VOTES:
            self._ask(lambda: self._delete(self._passed.popleft()), None)

    def _next_stride(self, global_step: int) -> int:
        """Steps from the next check point to the one after: about `period_seconds`.

        At most twice the last number: the first steps may be far faster than the rest, as the CPU only queues them for the GPU.
        """
        (step, at), now = self._timed_from, self._now()
        self._timed_from = (global_step, now)
        seconds_per_step = (now - at) / max(1, global_step - step)
        longest = min(2 * self._stride, MOST_STEPS_BETWEEN_VOTES)
        if seconds_per_step * longest <= self._period_seconds:
            return longest
        return max(1, int(self._period_seconds / seconds_per_step + 0.5))

    def _all_ready(self, global_step: int) -> bool:
        """Whether every rank is at this check point, or about to be, and had a store that worked at the last one."""
        if self._ask(lambda: self._store.add(self._key("ready", global_step), 0) >= self._world_size, otherwise=False):
            return True
        now = self._now()
        self._wanted_since = now if self._wanted_since is None else self._wanted_since
        if now - self._wanted_since >= self._wait_seconds and not self._broken:  # Who is only late has come by then.
            self._say(
                "ready",
                "The budget is used up, but training is not stopped: not every rank takes part in the decision, and if some "
                "stopped the others would hang. Add Eco2AICallback on every rank, and look for the warnings of the others. Stop "
                "this training yourself.",
            )
        return False

    def _delete(self, step: int) -> None:
        self._store.delete_key(self._key("vote", step))
        self._store.delete_key(self._key("ready", step))

    # The store

    def _key(self, *parts: object) -> str:
        return "/".join([self._prefix, *(ascii(part)[1:-1] if isinstance(part, str) else str(part) for part in parts)])

    def _present_of(self, keys: list[str]) -> list[str]:
        """The values of those keys that are there. Asks first, because `get` would wait for the others."""
        return [_decoded(self._store.get(key)) for key in keys if self._store.check([key])]

    def _wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Look until the condition holds, at most so long. False if it does not, or if the store fails."""
        deadline, pause = self._now() + seconds, FIRST_PAUSE_SECONDS
        while not self._ask(condition, otherwise=False):
            left = deadline - self._now()
            if self._broken or left <= 0:
                return False
            self._pause(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        return True

    def _ask(self, job: Callable[[], T], otherwise: T) -> T:
        """What the job returns, or `otherwise` if the store fails. Then it is never asked again: each time might wait as long."""
        if self._broken:
            return otherwise
        try:
            return self._in_time(job, self._wait_seconds)
        except STORE_ERRORS as error:
            self._broken = True
            self._say(
                "store",
                f"Rank {self._rank} cannot reach the store of torch.distributed any more ({error!r}). From here on figures of "
                "other hosts may be missing, and training is not stopped at the budget. Is the process of rank 0, or torchrun on "
                "the first node, still alive?",
            )
            return otherwise

    def _say(self, cause: str, message: str) -> None:
        if cause not in self._said:
            self._said.add(cause)
            self._fail(message)


def _encoded(text: str) -> bytes:
    """Any text, even with characters that UTF-8 has not, as file names may have."""
    return text.encode("utf-8", "backslashreplace")


def _decoded(value: bytes) -> str:
    return value.decode("utf-8", "replace")
