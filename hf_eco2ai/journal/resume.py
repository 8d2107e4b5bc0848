"""With what a run begins: nothing, or the totals of the run that it goes on with.

Two sources tell, and the one that tells more is believed: the checkpoint, which travels with the weights, and the journals, which
also know what was used after the checkpoint was written.
"""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pydantic import Field, ValidationError

from hf_eco2ai.journal import format as lines
from hf_eco2ai.journal.folder import Attempt, Run
from hf_eco2ai.journal.format import Done, HostUsed, Model
from hf_eco2ai.records import Counts, Footprint, HostTotals


class Checkpoint(Model):
    """What a run leaves in a checkpoint: all that was known of all its hosts when it was written."""

    format: int = lines.FORMAT
    run_id: str
    started_unix: float = 0.0
    global_step: int = 0
    attempts_before: int = 0
    hosts: list[HostUsed] = Field(default=[])
    done: Done = Done()

    def as_json(self) -> dict[str, Any]:
        """For the Trainer's state."""
        return self.model_dump(mode="json", exclude_none=True)

    @classmethod
    def of(
        cls,
        hosts: tuple[HostTotals, ...],
        counts: Counts,
        *,
        run_id: str,
        started_unix: float,
        global_step: int,
        attempts_before: int = 0,
    ) -> "Checkpoint":
        """From records."""
        return cls(
            run_id=run_id,
            started_unix=started_unix,
            global_step=global_step,
            attempts_before=attempts_before,
            hosts=[lines.host_used(totals) for totals in hosts],
            done=lines.done(counts),
        )

    @classmethod
    def read(cls, saved: Any) -> "Checkpoint | None":
        """As the Trainer gives it back; None for one of a newer format, or of something else."""
        try:
            checkpoint = cls.model_validate(saved)
        except ValidationError:
            return None
        return checkpoint if checkpoint.format <= lines.FORMAT else None


@dataclass(frozen=True)
class Beginning:
    """Which run it is that begins now, and what it has behind it."""

    run_id: str
    started_unix: float
    launch: str
    """The same on all hosts of this attempt."""
    parent: str = ""
    inherited: tuple[HostTotals, ...] = ()
    counts: Counts | None = None
    attempt: int = 1
    attempts_before: int = 0
    """One after the other, on any host. Orders attempts, as clocks of different hosts do not."""

    @property
    def resumes(self) -> bool:
        """Whether it goes on with what another attempt began."""
        return bool(self.inherited)


def fresh(now_unix: float, run_id: str = "", parent: str = "") -> Beginning:
    """A run of its own. Without an id it gets a random one of 12 hexadecimal digits (48 bits)."""
    return Beginning(run_id or uuid.uuid4().hex[:12], now_unix, uuid.uuid4().hex, parent)


def begin(
    now_unix: float,
    *,
    run_id: str,
    checkpoint: Checkpoint | None,
    found: Run | None,
    is_rival: Callable[[Attempt], bool],
) -> Beginning:
    """What begins, given the setting `run_id`, the checkpoint that training goes on from, and the journals of that run.

    A run that still goes on elsewhere (`is_rival`) is not touched: then this is a new one, and names it as its parent.
    """
    goes_on_with = run_id or (checkpoint.run_id if checkpoint is not None else "")
    if not goes_on_with:
        return fresh(now_unix)
    parent = ""
    if checkpoint is not None and checkpoint.run_id != goes_on_with:
        parent, checkpoint = checkpoint.run_id, None  # The weights are another run's, and what they cost is in its own figures.
    if found is not None and any(is_rival(attempt) for attempt in found.attempts):
        return fresh(now_unix, parent=goes_on_with)
    if found is None and checkpoint is None:
        return fresh(now_unix, goes_on_with, parent)
    return Beginning(
        goes_on_with,
        _started(now_unix, checkpoint, found),
        uuid.uuid4().hex,
        parent=(found.newest.header.run.parent if found is not None else "") or parent,
        inherited=_inherited(checkpoint, found),
        counts=_counts(checkpoint, found),
        attempt=1 + max((a.header.attempt for a in found.attempts), default=0) if found is not None else 1,
        attempts_before=_attempts_before(checkpoint, found),
    )


def _attempts_before(checkpoint: Checkpoint | None, found: Run | None) -> int:
    known = [checkpoint.attempts_before] if checkpoint is not None else []
    known += [attempt.header.attempts_before for attempt in found.attempts] if found is not None else []
    return 1 + max(known)


def _started(now_unix: float, checkpoint: Checkpoint | None, found: Run | None) -> float:
    known = [checkpoint.started_unix] if checkpoint is not None else []
    known += [attempt.header.run.started_unix for attempt in found.attempts] if found is not None else []
    return min((at for at in known if at > 0), default=now_unix)


def _counts(checkpoint: Checkpoint | None, found: Run | None) -> Counts:
    seen = [lines.counts(checkpoint.done)] if checkpoint is not None else []
    seen += [found.counts] if found is not None else []
    return max(seen, key=lambda counts: (counts.steps, counts.samples))


def _inherited(checkpoint: Checkpoint | None, found: Run | None) -> tuple[HostTotals, ...]:
    saved = {written.host: lines.host_totals(written) for written in checkpoint.hosts} if checkpoint is not None else {}
    totals = dict(saved)
    for known in found.hosts if found is not None else ():
        if known.host not in totals or known.total.joules > totals[known.host].total.joules:
            totals[known.host] = known
    if checkpoint is not None and found is not None and _rolls_back(checkpoint, found):
        return tuple(_rolled_back(now, saved.get(now.host, HostTotals(now.host))) for now in totals.values())
    return tuple(totals.values())


def _rolls_back(checkpoint: Checkpoint, found: Run) -> bool:
    """Whether steps were done after the checkpoint. Their count never falls, so steps done in any attempt show in it."""
    return found.counts.steps > checkpoint.done.steps


def _rolled_back(now: HostTotals, saved: HostTotals) -> HostTotals:
    """All that was used since the checkpoint went into steps that are done again, or into nothing at all."""
    since: Footprint = now.total - saved.total
    return replace(now, wasted=saved.wasted + _not_negative(since))


def _not_negative(used: Footprint) -> Footprint:
    """Journal and checkpoint are rounded each on its own."""
    costs = (None if cost is None else max(0.0, cost) for cost in (used.energy_cost, used.compute_cost))
    return Footprint(max(0.0, used.joules), max(0.0, used.grams), *costs)
