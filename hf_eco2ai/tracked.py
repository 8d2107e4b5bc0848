"""`track()`: measure a training loop of one's own, without a Trainer."""

import atexit
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any, SupportsFloat

from hf_eco2ai import launch, wiring
from hf_eco2ai.config import CarbonConfig, Environment
from hf_eco2ai.errors import ConfigError
from hf_eco2ai.exchange import Exchange
from hf_eco2ai.journal.resume import Checkpoint
from hf_eco2ai.live import LiveRun
from hf_eco2ai.outputs import terminal
from hf_eco2ai.outputs.report import Report, live_line, opening_line
from hf_eco2ai.ranks import Ranks
from hf_eco2ai.records import PHASES, EndReason, Failure, Phase, RunState, Snapshot

logger = logging.getLogger("hf_eco2ai")


def track(
    project_name: str | None = None,
    *,
    config: CarbonConfig | None = None,
    model_name: str = "",
    max_steps: int | None = None,
    resume: Mapping[str, Any] | None = None,
    **settings: Any,
) -> "TrackedRun":
    """Measure a loop of one's own, and publish it on `/metrics`.

    Put the loop into `with hf_eco2ai.track(…) as run:`. `settings` are those of CarbonConfig. `max_steps` makes forecasts and
    progress possible. `resume` is what `run.state_dict()` gave when the checkpoint was saved that the loop goes on from. In
    distributed training every rank does the same; one process of each host measures.

    Raises:
        ConfigError: a setting is unknown or wrong. Nothing is raised later.

    """
    if project_name is not None:
        settings["project_name"] = project_name
    if max_steps is not None and (isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 0):
        raise ConfigError(f"max_steps: should be a whole number of optimizer steps, not {max_steps!r}")
    if config is None:
        config = CarbonConfig(**settings)
    elif settings:
        config = CarbonConfig(**{**config.model_dump(exclude_unset=True), **settings})
    return TrackedRun(config, model_name, max_steps, resume)


class TrackedRun(AbstractContextManager["TrackedRun"]):
    """A loop that is measured. Use it once, as a context manager."""

    def __init__(self, config: CarbonConfig, model_name: str, max_steps: int | None, resume: Mapping[str, Any] | None) -> None:
        terminal.show_warnings()
        self.config = config
        wiring.check(config, wiring.reader_context(config, Environment.read()))
        self._grid = wiring.grid(config)
        self._model_name = str(model_name or "")
        self._max_steps = max_steps or 0
        self._checkpoint = None if resume is None else Checkpoint.read(resume)
        if resume is not None and self._checkpoint is None:
            logger.warning(
                "resume: this is not what state_dict() of a measuring run gives, or a newer hf_eco2ai wrote it. "
                "The run begins at zero."
            )
        self._live: LiveRun | None = None
        self._ended: LiveRun | None = None
        self._exchange: Exchange | None = None
        self._global_step = 0 if self._checkpoint is None else self._checkpoint.global_step
        self._phase: Phase = "train"
        self._must_stop = False
        self._reason: EndReason = ""
        self._spoke_at = 0.0
        self._at_exit: Callable[[], None] | None = None
        self._owner = os.getpid()

    # Figures

    @property
    def snapshot(self) -> Snapshot | None:
        """Every figure; None before the first reading, and on ranks that do not measure. May be read from any thread."""
        run = self._live or self._ended
        return None if run is None else run.snapshot

    @property
    def report(self) -> Report | None:
        """The figures with their sources; `str()` of it is the summary."""
        snapshot = self.snapshot
        return None if snapshot is None else Report(snapshot)

    @property
    def run_id(self) -> str:
        """Identity of the run; empty before it begins, and on ranks that do not measure."""
        run = self._live or self._ended
        return "" if run is None else run.identity.run_id

    @property
    def metrics_url(self) -> str | None:
        """Where `/metrics` is while the run lives; None without an endpoint."""
        return None if self._live is None else self._live.metrics_url

    @property
    def should_stop(self) -> bool:
        """Whether the budget is spent and `budget_action` is `stop`. On all ranks after the same step."""
        return self._must_stop

    def state_dict(self) -> dict[str, Any]:
        """What to save with a checkpoint, so that `track(resume=…)` goes on with this run. JSON-ready.

        Save that of rank 0, as it is done with the weights; a rank that does not measure knows only the step.
        """
        run = self._live or self._ended
        checkpoint = None if run is None else run.checkpoint(self._global_step)
        return (checkpoint or Checkpoint(run_id="", global_step=self._global_step)).as_json()

    # The loop

    def __enter__(self) -> "TrackedRun":
        ranks = Ranks.of(Environment.read().launcher)
        self._exchange = launch.exchange_of(
            ranks, launch.default_store(), measures=ranks.local_rank == 0, uses=_uses(), fail=self._exchange_failed
        )
        if self._exchange is not None:
            self._exchange.begin(self._global_step)
        if ranks.local_rank == 0:
            self._open(ranks)
        return self

    def _open(self, ranks: Ranks) -> None:
        place = launch.agree(self._exchange, ranks, self.config, self._checkpoint)
        run = LiveRun(
            self.config,
            place.beginning,
            self._grid,
            wiring.reader_context(self.config, Environment.read(), in_use=place.gpus, host=place.host),
            model_name=self._model_name,
            trainer="track",
            # Where the hosts cannot hear each other, each leads a run of its own.
            ranks=ranks if self._exchange is not None else Ranks(),
            others=place.others,
            sigterm=self._on_sigterm,
        )
        run.progress.begin(
            global_step=self._global_step, max_steps=self._max_steps, batch_samples=0, epoch_size=None, tokens=None, flops=None
        )
        self._live, self._owner = run, os.getpid()

        def close() -> None:
            self._close("failed", self._reason or "exit")

        self._at_exit = atexit.register(close)
        run.start("train")
        run.progress.loop_begins(time.monotonic())
        self._spoke_at = time.monotonic()
        self._say(opening_line(run.snapshot, run.metrics_url))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        clean = error is None or (isinstance(error, SystemExit) and (error.code is None or error.code == 0))
        if clean:
            self._close("ended", "budget" if self._must_stop else "completed")
        else:
            reason = self._reason or _reason_of(error)
            if self._live is not None and reason not in {"interrupted", "exit", "sigterm"}:
                self._live.progress.step_failed("out_of_memory" if reason == "out_of_memory" else "exception")
            self._close("failed", reason)

    def step(
        self,
        *,
        samples: int = 0,
        tokens: int | None = None,
        loss: SupportsFloat | None = None,
        eval_loss: SupportsFloat | None = None,
        learning_rate: SupportsFloat | None = None,
        grad_norm: SupportsFloat | None = None,
    ) -> None:
        """An optimizer step is done, on so many samples and tokens, over all ranks. Losses are kept as last given.

        A loss that still lies on a GPU makes the CPU wait for it, as any reading of it does: give it as seldom as you log it.
        """
        self._global_step += 1
        run = self._live
        if run is not None:
            counted = None if tokens is None else _count(run, "tokens", tokens)
            run.progress.step_done(time.monotonic(), self._global_step, _count(run, "samples", samples) or 0, counted)
            said = {"loss": loss, "eval_loss": eval_loss, "learning_rate": learning_rate, "grad_norm": grad_norm}
            numbers = {name: _number(run, name, value) for name, value in said.items() if value is not None}
            run.progress.log({name: number for name, number in numbers.items() if number is not None})
            self._speak(run)
        # With several processes the vote to stop is taken once; alone, a budget of a new day lets the loop go on.
        stop = launch.must_stop(self._exchange, run, self._global_step)
        self._must_stop = stop or (self._exchange is not None and self._must_stop)

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """What happens inside is `setup`, `train`, `evaluate`, `save` or `idle`; around it is what was before."""
        before = self._phase
        self._enter(name)
        try:
            yield
        finally:
            self._enter(before)

    def _enter(self, phase: Phase) -> None:
        run = self._live
        if run is not None and phase not in PHASES:
            what = f"phase {phase!r}: there is no such phase; use one of {', '.join(PHASES)}."
            run.fail(Failure("callback_failed", f"phase {phase}", what))
        elif phase != self._phase:
            self._phase = phase
            if run is not None:
                run.mark(phase)

    # The end

    def _close(self, state: RunState, reason: EndReason) -> None:
        if os.getpid() != self._owner:
            return  # A fork of the process that measures has left the loop; the run is not its own.
        run, self._live = self._live, None
        exchange, self._exchange = self._exchange, None
        if self._at_exit is not None:
            atexit.unregister(self._at_exit)
        if run is None:
            return
        self._ended = run
        launch.close(exchange, run, state, reason)
        if run.snapshot is not None:
            self._say(Report(run.snapshot).text(terminal.columns()))

    def _on_sigterm(self, final: bool) -> None:
        self._reason = "sigterm"
        if final:
            self._close("failed", "sigterm")

    def _exchange_failed(self, message: str) -> None:
        if self._live is not None:
            self._live.fail(Failure("exchange_failed", message, message))
        else:
            logger.warning("%s", message)

    def _speak(self, run: LiveRun) -> None:
        now, interval, snapshot = time.monotonic(), self.config.console_interval, run.snapshot
        if interval > 0 and now - self._spoke_at >= interval and snapshot is not None and snapshot.rates is not None:
            self._spoke_at = now
            self._say(live_line(snapshot))

    def _say(self, lines: str) -> None:
        """On stderr: stdout is the loop's own."""
        run = self._live or self._ended
        if self.config.console_interval > 0 and run is not None and run.leads:
            terminal.say(lines)


def _reason_of(error: BaseException | None) -> EndReason:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, SystemExit):
        return "exit"
    return "out_of_memory" if "OutOfMemory" in type(error).__name__ else "exception"


def _number(run: LiveRun, name: str, value: SupportsFloat) -> float | None:
    """What was given as one; None for what is none, which is said."""
    try:
        return float(getattr(value, "detach", lambda: value)())
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:  # RuntimeError: torch's, of a tensor with many.
        run.fail(Failure("callback_failed", f"step {name}", f"step({name}=…) needs a number: {error}. It is left out."))
        return None


def _count(run: LiveRun, name: str, value: SupportsFloat) -> int | None:
    """A number of things; None for what is none."""
    number = value if isinstance(value, int) else _number(run, name, value)
    if number is None:
        return None
    if not 0 <= number < math.inf:
        what = f"step({name}={number}) needs a number of them, 0 or more. It is left out."
        run.fail(Failure("callback_failed", f"step {name} {number < 0}", what))
        return None
    return int(number)


def _uses() -> str:
    """The GPU that this process computes on, as far as torch has been told."""
    torch = sys.modules.get("torch")
    indices = [torch.cuda.current_device()] if torch is not None and torch.cuda.is_initialized() else []
    return json.dumps([Environment.read().cuda_visible_devices, indices])
