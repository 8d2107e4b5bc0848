"""How the processes of one training agree on which run they are and what of their host they use."""

import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from hf_eco2ai import wiring
from hf_eco2ai.config import CarbonConfig, Environment
from hf_eco2ai.exchange import STORE_ERRORS, Exchange, Store, in_thread
from hf_eco2ai.journal.format import HostUsed, host_totals, host_used
from hf_eco2ai.journal.resume import Beginning, Checkpoint, fresh
from hf_eco2ai.live import LiveRun, look_back
from hf_eco2ai.ranks import Ranks, gpus_in_use
from hf_eco2ai.records import EndReason, RunState

logger = logging.getLogger("hf_eco2ai")

STORE_SECONDS = 10.0
"""So long the store may take to answer."""


def default_store() -> Store | None:
    """The key-value store of torch.distributed, where that is set up; None without one. Loads nothing."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    try:
        # No public name for it yet; torch's own elastic training and accelerate use this one.
        store: Store = sys.modules["torch.distributed.distributed_c10d"]._get_default_store()  # noqa: SLF001
    except (KeyError, AttributeError, RuntimeError, ValueError):  # MPI has none.
        return None
    return store


def exchange_of(ranks: Ranks, store: Store | None, *, measures: bool, uses: str, fail: Callable[[str], None]) -> Exchange | None:
    """A way to the other processes of this training; None where there are none."""
    if ranks.world_size <= 1:
        return None
    if store is None:
        fail(
            "The processes of this training have no key-value store in common (torch.distributed is not set up, or by MPI "
            "alone): each host is a run of its own, and no budget stops them."
        )
        return None
    training = _training(store, ranks)
    if training is None:
        fail("The key-value store of torch.distributed does not answer: this host is a run of its own, and no budget stops it.")
        return None
    exchange = Exchange(
        store,
        rank=ranks.rank,
        world_size=ranks.world_size,
        host=wiring.hostname(),
        measures=measures,
        training=training,
        fail=fail,
    )
    exchange.join(uses)
    return exchange


def _training(store: Store, ranks: Ranks) -> str | None:
    """A name that this training's ranks have in common, and no other training has that used or uses the store.

    torchrun's agent keeps the store when it restarts its processes, so what they left is told apart by the restart, and by how
    often each rank has begun: all begin the same trainings, one after the other.
    """
    restart = Environment.read().restart
    key = f"hf_eco2ai/{restart}/{ranks.world_size}"
    try:
        return f"{restart}/{ranks.world_size}/{in_thread(lambda: store.add(f'{key}/begun/{ranks.rank}', 1), STORE_SECONDS)}"
    except STORE_ERRORS:
        return None


class Place(NamedTuple):
    """What a process knows of its part in a training, when it begins to measure."""

    beginning: Beginning
    host: str
    """Its host's name; with its rank, where another host has the same (containers)."""
    gpus: str | None = None
    """Those that the ranks of this host compute on, as CUDA_VISIBLE_DEVICES would name them; None: all that it names."""
    others: tuple[str, ...] = ()
    """The other hosts. Only rank 0 knows."""


def agree(exchange: Exchange | None, ranks: Ranks, config: CarbonConfig, checkpoint: Checkpoint | None) -> Place:
    """Which run begins, and with whom. Rank 0 decides which it is; what a host had used before it also looks up itself."""
    if exchange is None:
        return Place(look_back(config, checkpoint), wiring.hostname())
    if ranks.rank == 0:
        beginning = look_back(config, checkpoint)
        exchange.publish_run(_told(beginning))
        said = exchange.uses_of_this_host(None)
        host = exchange.name
    else:
        said = exchange.uses_of_this_host(None)
        host = exchange.name
        beginning = _follow(exchange.learn_run(), host, config, checkpoint)
    # Without all ranks of this host there may be GPUs that nobody named, so nothing is narrowed.
    uses = [(visible, tuple(indices)) for visible, indices in map(json.loads, said)]
    gpus = gpus_in_use(uses) if exchange.complete else None
    return Place(beginning, host, gpus, exchange.other_hosts() if ranks.rank == 0 else ())


def _told(beginning: Beginning) -> str:
    return json.dumps(
        {
            "run_id": beginning.run_id,
            "started_unix": beginning.started_unix,
            "launch": beginning.launch,
            "parent": beginning.parent,
            "attempts_before": beginning.attempts_before,
            "inherited": [host_used(totals).model_dump(mode="json", exclude_none=True) for totals in beginning.inherited],
        }
    )


def _follow(told: str | None, host: str, config: CarbonConfig, checkpoint: Checkpoint | None) -> Beginning:
    """What begins on a host other than rank 0's: the run that rank 0 says, with what this host had used for it.

    That is known from rank 0, and from this host's own journals, which may lie on another disk and tell more.
    """
    lead: dict[str, Any] | None = json.loads(told) if told else None
    if lead is None:
        return fresh(time.time())
    beginning = Beginning(
        lead["run_id"], lead["started_unix"], lead["launch"], lead["parent"], attempts_before=lead["attempts_before"]
    )
    if not lead["inherited"]:
        return beginning
    own = look_back(config.model_copy(update={"run_id": lead["run_id"]}), checkpoint, host, lead["launch"])
    known = [host_totals(HostUsed.model_validate(used)) for used in lead["inherited"]]
    mine = [totals for totals in (*known, *own.inherited) if totals.host == host]
    return replace(
        beginning,
        inherited=tuple(sorted(mine, key=lambda totals: totals.total.joules)[-1:]),
        counts=own.counts,
        attempt=own.attempt,
    )


def must_stop(exchange: Exchange | None, run: LiveRun | None, step: int) -> bool:
    """Whether training stops after this step, because the budget is spent: one process at once, several all at the same step.

    `run` is None on ranks that do not measure. Where it is time for that, hosts tell rank 0 what they have used.
    """
    spent = run is not None and run.budgets.exhausted
    if exchange is None:
        return spent
    if not exchange.due(step):
        return False
    if run is not None and run.leads:
        run.gather(exchange.told())
    elif run is not None:
        exchange.tell(run.told())
    return exchange.consult(step, wants_stop=spent)


def close(exchange: Exchange | None, run: LiveRun, state: RunState, reason: EndReason) -> None:
    """End the run here. If it ended as it should, hosts tell rank 0 their last figures, which waits for them a second."""
    together = exchange if state == "ended" else None
    run.close(state, reason, together.finals if together is not None and run.leads else None)
    if together is not None and not run.leads:
        together.tell_final(run.told())
