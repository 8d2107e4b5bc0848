"""What one rank runs: several trainings one after another, as a plan says, each with a report of its own.

Arguments: the plan, a JSON file. Reports are written beside it, as `<training>.<rank>.json`.
"""

import faulthandler
import hashlib
import json
import logging
import os
import signal
import socket
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import TrainerCallback
from transformers.trainer_callback import CallbackHandler
from transformers.trainer_utils import get_last_checkpoint

from hf_eco2ai import Eco2AICallback, Snapshot
from hf_eco2ai.outputs.exposition import Exposition
from hf_eco2ai.outputs.labels import LabelRules
from hf_eco2ai.records import HostTotals
from tests.trainer.tiny import At, config, trainer

HANGS_AFTER_SECONDS = 45
"""A training that takes so long says where it is. Not the import of torch, which a loaded machine may hold up."""


class Heard(logging.Handler):
    """What hf_eco2ai has said in this process."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


class Around(TrainerCallback):  # type: ignore[misc]
    """Sees the Trainer's events before or after ours."""

    def __init__(self, ours: Eco2AICallback) -> None:
        self.ours = ours
        self.span = [0.0, 0.0]
        """Begin and end of training, on the monotonic clock."""
        self.listening: set[int] = set()
        """The ports that this process listens on when training begins."""
        self.checks: list[tuple[int, float]] = []
        """The steps that are check points of the common decision, and what of the budget was known to be spent there."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.span[0] = time.monotonic()
        self.listening = listening()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.span[1] = time.monotonic()


class Before(Around):
    """Notes which steps are check points, which ours no longer tells afterwards."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        exchange = self.ours._exchange
        if exchange is not None and exchange.due(state.global_step):
            self.checks.append((state.global_step, kwh(self.ours)))


class Killed(TrainerCallback):  # type: ignore[misc]
    """Kills this rank in the middle of training, just before its part of a common decision, so that the others wait for it."""

    def __init__(self, ours: Eco2AICallback) -> None:
        self.ours = ours

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        exchange = self.ours._exchange
        if state.global_step >= 20 and exchange is not None and exchange.due(state.global_step):
            os.kill(os.getpid(), signal.SIGKILL)


class OnCuda(TrainerCallback):  # type: ignore[misc]
    """Passes the Trainer's events on to ours as if this rank computed on a CUDA device."""

    def __init__(self, ours: Eco2AICallback, device: int) -> None:
        def passed_on(event: str) -> Callable[..., None]:
            def pass_on(args: Any, state: Any, control: Any, **more: Any) -> None:
                getattr(ours, event)(Pretended(args, torch.device("cuda", device)), state, control, **more)

            return pass_on

        for event in [name for name in dir(CallbackHandler) if name.startswith("on_") and hasattr(ours, name)]:
            setattr(self, event, passed_on(event))


class Pretended:
    """TrainingArguments with another device."""

    def __init__(self, args: Any, device: Any) -> None:
        self._args = args
        self.device = device

    def __getattr__(self, name: str) -> Any:
        return getattr(self._args, name)


class Paced(TrainerCallback):  # type: ignore[misc]
    """Steps that last at least so long."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        time.sleep(self.seconds)


def listening() -> set[int]:
    return {c.laddr.port for c in psutil.Process().net_connections("tcp") if c.status == psutil.CONN_LISTEN}


def kwh(callback: Eco2AICallback) -> float:
    snapshot = callback.snapshot
    return 0.0 if snapshot is None else snapshot.total.kwh


def scrape(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        text: str = answer.read().decode()
    return text


def exposed(snapshot: Snapshot) -> str:
    """What `/metrics` would say of it."""
    return Exposition(lambda: [snapshot], LabelRules()).render().decode()


def as_json(totals: HostTotals) -> dict[str, Any]:
    return {
        "host": totals.host,
        "joules": totals.total.joules,
        "devices": {d.uuid: [d.component, d.joules, d.observed_seconds] for d in totals.devices},
    }


def shown(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "run_id": snapshot.identity.run_id,
        "state": snapshot.state,
        "end_reason": snapshot.end_reason,
        "leads": snapshot.leads,
        "joules": snapshot.total.joules,
        "kwh": snapshot.total.kwh,
        "attempt": as_json(snapshot.attempt),
        "seconds": snapshot.attempt.seconds,
        "last_reading": max((status.telemetry.at for status in snapshot.devices if status.telemetry is not None), default=None),
        "inherited": [as_json(totals) for totals in snapshot.inherited],
        "elsewhere": [as_json(totals) for totals in snapshot.elsewhere],
        "gpu_count": snapshot.gpu_count,
        "steps": snapshot.progress.steps,
        "errors": {name: count for name, count in snapshot.errors if count},
        "exposed": exposed(snapshot),
    }


def checkpoint_of(plan: dict[str, Any]) -> str | None:
    """The last one of the output folder that the plan goes on from."""
    if "resume" not in plan:
        return None
    found: str | None = get_last_checkpoint(plan["resume"])
    assert found is not None
    return found


def train(plan: dict[str, Any], rank: int) -> None:
    """One training, and its report."""
    if "hostname" in plan:  # Only where this process has been given a name space of its own for it.
        socket.sethostname(plan["hostname"])
    for name in plan.get("without", []):
        os.environ.pop(name, None)
    callback = Eco2AICallback(config(**{"simulated_gpus": 0, "journal_interval": 1, **plan.get("settings", {})}))
    before, after = Before(callback), Around(callback)
    checkpoint = checkpoint_of(plan)
    began_at = 0 if checkpoint is None else int(checkpoint.rpartition("-")[2])
    said: dict[str, Any] = {"host": socket.gethostname(), "rank": rank, "pid": os.getpid(), "began_at": began_at}

    def look() -> None:
        said["opened"] = sorted(after.listening - before.listening)
        said["metrics_url"] = callback.metrics_url
        if callback.metrics_url is not None:
            said["scraped"] = scrape(callback.metrics_url)

    callbacks: list[TrainerCallback] = []
    if rank in plan.get("with_callback", [rank]):
        ours = OnCuda(callback, plan["cuda"][rank]) if "cuda" in plan else callback
        callbacks = [before, ours, after, At(began_at + plan.get("look_at", 20), look)]
    if plan.get("killed") == rank:
        callbacks.insert(0, Killed(callback))
    if "pace" in plan:
        callbacks.append(Paced(plan["pace"]))
    arguments = {"logging_steps": 100, **plan.get("arguments", {})}
    if "more_steps" in plan:
        arguments["max_steps"] = began_at + plan["more_steps"]
    heard = Heard()
    logger = logging.getLogger("hf_eco2ai")
    logger.addHandler(heard)
    run = trainer(Path(plan["output"]), *callbacks, **arguments)
    faulthandler.dump_traceback_later(HANGS_AFTER_SECONDS)
    try:
        run.train(resume_from_checkpoint=checkpoint)
    except Exception as error:
        said["error"] = f"{type(error).__name__}: {error}"
        raise
    finally:
        report(plan, {**said, **outcome(run, callback, before, after, heard)})
    faulthandler.cancel_dump_traceback_later()
    logger.removeHandler(heard)


def outcome(run: Any, callback: Eco2AICallback, before: Before, after: Around, heard: Heard) -> dict[str, Any]:
    """What there is to say of a training that has ended."""
    snapshot = callback.snapshot
    return {
        "step": run.state.global_step,
        "max_steps": run.state.max_steps,
        "outer": [before.span[0], after.span[1]],
        "inner": [after.span[0], before.span[1]],
        "checks": before.checks,
        "losses": [row["loss"] for row in run.state.log_history if "loss" in row],
        "weights": hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in run.model.parameters())).hexdigest(),
        "warnings": heard.messages,
        "snapshot": None if snapshot is None else shown(snapshot),
    }


def report(plan: dict[str, Any], said: dict[str, Any]) -> None:
    """Leave it for the test, whole or not at all."""
    file = Path(plan["reports"]) / f"{plan['name']}.{said['rank']}.json"
    file.with_suffix(".new").write_text(json.dumps(said))
    file.with_suffix(".new").rename(file)


def main(file: Path) -> None:
    faulthandler.enable()
    rank = int(os.environ.get("RANK", "0"))
    for plan in json.loads(file.read_text()):
        train({**plan, "reports": file.parent}, rank)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
