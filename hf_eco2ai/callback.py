"""Eco2AICallback: the Trainer's events, passed on to a monitor. The only module that imports transformers.

Nothing here may raise into training, hold it up, or write over its progress bar. Per optimizer step it stores two instants and
a few counts.
"""

import atexit
import functools
import logging
import os
import shutil
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hf_eco2ai import wiring
from hf_eco2ai.config import CarbonConfig, Environment
from hf_eco2ai.ledger import Ledger
from hf_eco2ai.monitor import Monitor
from hf_eco2ai.outputs.labels import LabelRules
from hf_eco2ai.outputs.report import Report, live_line, opening_line
from hf_eco2ai.outputs.server import Endpoint
from hf_eco2ai.outputs.text import wrapped
from hf_eco2ai.presence import Presence
from hf_eco2ai.records import Failure, Phase, RunState, Snapshot
from hf_eco2ai.run import RunProgress

logger = logging.getLogger("hf_eco2ai")

Event = TypeVar("Event", bound=Callable[..., None])


def _never_raises(event: Event) -> Event:
    """A defect of ours costs a log line and a count, not the user's training."""

    @functools.wraps(event)
    def safe(self: "Eco2AICallback", args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        try:
            event(self, args, state, control, **kwargs)
        except Exception as error:  # noqa: BLE001 - the Trainer's own objects are foreign, and training must go on
            self._fail(error, event.__name__)

    return safe  # type: ignore[return-value]


class Eco2AICallback(TrainerCallback):  # type: ignore[misc]
    """Measures each `train()` of the Trainer that it is added to, and publishes it on `/metrics`.

    Without a config every setting has its default (see docs/configuration.md). Each `train()` is a run of its own, unless
    `run_id` is set: then they go on as one run. `evaluate()` and `predict()` outside training are runs too.

    Raises:
        ConfigError: a setting is unknown or wrong. Nothing is raised later.

    """

    def __init__(self, config: CarbonConfig | None = None) -> None:
        super().__init__()
        _log_above_progress_bars()
        if config is not None and not isinstance(config, CarbonConfig):
            raise TypeError(f"config must be a CarbonConfig, not {type(config).__name__}: Eco2AICallback(config=CarbonConfig(…))")
        self.config = config if config is not None else CarbonConfig()
        wiring.check(wiring.reader_context(self.config, Environment.read()))
        self._grid = wiring.grid(self.config)
        self._rules = LabelRules(
            self.config.max_projects, self.config.aggregate_similar_models, self.config.label_cleanup_enabled
        )
        # At most one, and taken out by whoever ends the run. Not a lock, so that a callback can be copied and pickled.
        self._live: deque[tuple[Monitor, Endpoint | None]] = deque()
        self._ledger: Ledger | None = None
        self._progress = RunProgress()
        self._snapshot: Snapshot | None = None
        self._trainer_state: TrainerState | None = None
        self._tried_state: TrainerState | None = None
        self._presence: Presence | None = None
        self._failure_noted = False
        self._phase: Phase | None = None
        self._resumed = False
        self._speaks = False
        self._spoke_at = 0.0
        self._at_exit: Callable[[], None] | None = None

    @property
    def snapshot(self) -> Snapshot | None:
        """Every figure of the running or last run; None before the first reading. May be read from any thread."""
        monitor = self._monitor
        return (monitor.snapshot if monitor is not None else None) or self._snapshot

    @property
    def report(self) -> Report | None:
        """The figures with their sources; `str()` of it is the summary. None before the first reading."""
        snapshot = self.snapshot
        return None if snapshot is None else Report(snapshot)

    @property
    def metrics_url(self) -> str | None:
        """Where `/metrics` is while the run lives; None without an endpoint."""
        try:
            _, endpoint = self._live[0]
        except IndexError:
            return None
        return None if endpoint is None or endpoint.url is None else f"{endpoint.url}/metrics"

    @property
    def _monitor(self) -> Monitor | None:
        try:
            return self._live[0][0]
        except IndexError:
            return None

    # The run's beginning and end

    @_never_raises
    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A run begins, or begins again after `auto_find_batch_size` met a full memory."""
        if state.is_local_process_zero:
            self._begin_training("setup", args, state, kwargs)

    @_never_raises
    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The run has ended as it should."""
        if self._owns(state):
            self._note_totals(state)
            self._close_run("ended")

    def _begin_training(self, phase: Phase, args: TrainingArguments, state: TrainerState, kwargs: dict[str, Any]) -> None:
        self._tried_state = state
        presence = Presence()
        again = self._presence is not None and self._presence.is_same_call(presence)
        if self._monitor is not None and not again and not self._make_room():
            return
        if again:
            self._progress.step_failed("out_of_memory")
            self._enter(phase)
        else:
            self._open_run(phase, args, state, presence, kwargs.get("model"))
        self._trainer_state = state
        self._resumed = state.global_step > 0
        self._progress.begin(
            global_step=state.global_step,
            max_steps=state.max_steps,
            batch_samples=_batch_samples(args, state),
            epoch_size=_epoch_samples(args, state, kwargs.get("train_dataloader")),
            epochs=int(state.epoch or 0.0),
            tokens=int(state.num_input_tokens_seen) if _counts_tokens(args) else None,
            flops=float(state.total_flos) if _counts_flops(kwargs.get("model")) else None,
        )
        if phase == "train":  # In the middle of an epoch, whose begin we have missed.
            self._progress.epoch_begin((state.epoch or 0.0) % 1)

    def _make_room(self) -> bool:
        """Whether a run that begins while one lives may have this callback. Ends the old one if its training is gone."""
        old = self._presence
        # Twice, because a look at another thread may miss it once.
        if old is not None and (old.is_here() or old.is_here()):
            logger.error(
                "This Eco2AICallback is measuring another Trainer's run, so this run is not measured. "
                "Give each Trainer its own Eco2AICallback()."
            )
            return False
        self._close_run("failed")
        return True

    def _open_run(self, phase: Phase, args: TrainingArguments, state: TrainerState, presence: Presence, model: Any) -> None:
        config = self.config
        run = wiring.identity(config, _model_name(model), time.time())
        if self._ledger is None or self._ledger.identity.run_id != run.run_id:
            self._ledger, self._progress = wiring.ledger(config, run), RunProgress()
        self._presence, self._failure_noted = presence, False
        self._trainer_state = state
        on_cpu = getattr(getattr(args, "device", None), "type", "") == "cpu"
        monitor = wiring.monitor(
            config,
            self._ledger,
            self._grid,
            wiring.reader_context(config, Environment.read(), on_cpu=on_cpu),
            self._progress.progress,
            missing_since=presence.missing_since,
            how_it_ended=self._how_it_ended,
            abandoned=functools.partial(self._close_run, "failed"),
        )
        endpoint = None
        if config.export_prometheus:
            endpoint = Endpoint(
                config.prometheus_host,
                config.prometheus_port,
                lambda: () if monitor.snapshot is None else (monitor.snapshot,),
                self._rules,
                compression=config.compression_enabled,
                fail=monitor.fail,
            )
        self._live.append((monitor, endpoint))
        self._phase = phase
        self._at_exit = _call_at_exit(self)
        monitor.start(phase)
        self._speaks = config.console_interval > 0 and state.is_world_process_zero
        self._spoke_at = time.monotonic()
        self._say(opening_line(monitor.snapshot, self.metrics_url))

    def _close_run(self, state: RunState) -> None:
        """End the run, whoever notices it first: the Trainer's event, the sampler, or the interpreter's exit."""
        try:
            monitor, endpoint = self._live.pop()  # Only one of them gets it.
        except IndexError:
            return
        if state == "failed":
            self._note_failure()
        try:
            monitor.stop(state)
        finally:  # Ctrl-C may come while the last reading is awaited, and must not leave the port open.
            self._snapshot = monitor.snapshot
            self._presence = self._trainer_state = self._phase = None
            if self._at_exit is not None:
                atexit.unregister(self._at_exit)
                self._at_exit = None
            if endpoint is not None:
                endpoint.stop()
        if self._snapshot is not None:
            self._say(Report(self._snapshot).text(_columns()))

    def _how_it_ended(self) -> RunState:
        """Training is no longer on the stack, and `on_train_end` has not come. Failed, unless its steps went on without us."""
        state = self._trainer_state
        if state is not None and state.global_step > self._progress.global_step:
            logger.warning("This Eco2AICallback was removed from its Trainer; what came after is missing from the run.")
            self._failure_noted = True
            return "ended"
        self._note_failure()
        return "failed"

    def _note_failure(self) -> None:
        """Count the step that was lost, once."""
        if not self._failure_noted:
            self._failure_noted = True
            self._progress.step_failed(self._presence.reason_for_leaving() if self._presence else "exception")

    # What the Trainer does in between

    @_never_raises
    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """An epoch begins; the first one after a resume may be under way."""
        if self._owns(state):
            self._progress.epoch_begin((state.epoch or 0.0) % 1 if self._resumed else 0.0)
            self._resumed = False

    @_never_raises
    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A step begins, its data being there. A callback that was added in the middle of training begins here."""
        if self._monitor is None and self._tried_state is not state and state.is_local_process_zero:
            self._begin_training("train", args, state, kwargs)
        if self._owns(state):
            if self._phase != "train":
                self._enter("train")
            self._progress.step_begin(time.monotonic())

    @_never_raises
    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """An optimizer step is done. Evaluation and saving, if any, come next."""
        if self._owns(state):
            self._progress.step_end(time.monotonic(), state.global_step)
            if state.num_input_tokens_seen:
                self._progress.tokens_seen(state.num_input_tokens_seen)
            if control.should_evaluate or control.should_save or control.should_training_stop:
                self._enter(_next_phase(control))

    @_never_raises
    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """An epoch is done. Evaluation and saving, if any, come next."""
        if self._owns(state):
            self._progress.epoch_end(state.epoch or 0.0)
            self._enter(_next_phase(control))

    @_never_raises
    def on_prediction_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A batch of an evaluation: of the run's, or of one outside training, which is then a run of its own."""
        if self._monitor is None and state.is_local_process_zero:
            presence = Presence()
            if presence.method == "train":
                return  # Added in the middle of training: the run begins with the next step.
            self._open_run("evaluate", args, state, presence, kwargs.get("model"))
        if self._phase != "evaluate" and self._owns(state):
            self._enter("evaluate")

    @_never_raises
    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """An evaluation is done."""
        if not self._owns(state):
            return
        if self._outside_training():
            self._close_run("ended")
        else:
            # `save_strategy="best"` decides on saving only after this event.
            may_save = str(getattr(args.save_strategy, "value", args.save_strategy)) == "best"
            self._enter("save" if may_save else _next_phase(control, evaluated=True))

    @_never_raises
    def on_predict(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A prediction is done."""
        if self._owns(state) and self._outside_training():
            self._close_run("ended")

    @_never_raises
    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A checkpoint is written."""
        if self._owns(state):
            self._note_totals(state)
            self._enter("idle" if control.should_training_stop else "train")

    @_never_raises
    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Loss and its like have been logged; now and then our own figures follow on the terminal."""
        if not self._owns(state):
            return
        self._progress.log(logs or {})
        self._note_totals(state)
        snapshot, now = self.snapshot, time.monotonic()
        if snapshot is not None and snapshot.rates is not None and now - self._spoke_at >= self.config.console_interval:
            self._spoke_at = now
            self._say(live_line(snapshot))

    def _owns(self, state: TrainerState) -> bool:
        """Whether this event is of the run that is measured, and not of another Trainer that shares the callback."""
        return self._monitor is not None and self._trainer_state is state

    def _outside_training(self) -> bool:
        return self._presence is not None and self._presence.method in {"evaluate", "predict"}

    def _enter(self, phase: Phase) -> None:
        if phase != self._phase and self._monitor is not None:
            self._phase = phase
            self._monitor.mark(phase)

    def _note_totals(self, state: TrainerState) -> None:
        self._progress.flops_done(float(state.total_flos))

    def _say(self, lines: str) -> None:
        """On the terminal, above the Trainer's progress bar."""
        if self._speaks:
            tqdm.write(wrapped(lines, _columns()))

    def _fail(self, error: Exception, where: str) -> None:
        failure = Failure(
            "callback_failed",
            f"{where} {type(error).__name__}",
            f"{where} failed ({error!r}); training goes on, some figures of this run may be missing.",
        )
        monitor = self._monitor
        if monitor is not None:
            monitor.fail(failure)
        else:
            logger.warning("%s", failure.message)


def _next_phase(control: TrainerControl, *, evaluated: bool = False) -> Phase:
    if control.should_evaluate and not evaluated:
        return "evaluate"
    if control.should_save:
        return "save"
    return "idle" if control.should_training_stop else "train"


def _columns() -> int:
    """Width of the terminal; 0 where there is none, whose lines may be as long as they are."""
    return shutil.get_terminal_size(fallback=(0, 0)).columns


def _unwrapped(model: Any) -> Any:
    """The model inside what DDP and its like wrap around it."""
    return getattr(model, "module", model)


def _counts_tokens(args: TrainingArguments) -> bool:
    """Whether the Trainer counts input tokens: a bool in transformers 4, `all`, `non_padding` or `no` in 5."""
    return getattr(args, "include_num_input_tokens_seen", False) not in {False, "no"}


def _counts_flops(model: Any) -> bool:
    """Whether the Trainer estimates the model's FLOPs: by its own method, or from its size as transformers 5 does."""
    inner = _unwrapped(model)
    return hasattr(inner, "floating_point_ops") or hasattr(inner, "num_parameters")


def _model_name(model: Any) -> str:
    """The hub name or path that a model was loaded from, or its class where it was built from a config."""
    inner = _unwrapped(model)
    name = getattr(getattr(inner, "config", None), "_name_or_path", "")
    return str(name) or type(inner).__name__


def _batch_samples(args: TrainingArguments, state: TrainerState) -> int:
    """Samples of one optimizer step, over all ranks."""
    per_rank = getattr(state, "train_batch_size", None) or args.train_batch_size
    return int(per_rank) * int(args.gradient_accumulation_steps) * int(args.world_size)


def _epoch_samples(args: TrainingArguments, state: TrainerState, loader: Any) -> int | None:
    """Samples of one epoch, over all ranks; None for a stream."""
    try:
        count = len(loader.dataset)
    except (AttributeError, TypeError):
        return None
    if args.dataloader_drop_last:
        batch = int(getattr(state, "train_batch_size", None) or args.train_batch_size) * int(args.world_size)
        count -= count % batch
    return count


def _call_at_exit(callback: Eco2AICallback) -> Callable[[], None]:
    """Close the run when the interpreter ends with training unfinished; in a forked child do nothing."""
    owner, reference = os.getpid(), weakref.ref(callback)

    def close() -> None:
        alive = reference()
        if alive is not None and os.getpid() == owner:
            alive._close_run("failed")  # noqa: SLF001 - a closure of this module

    atexit.register(close)
    return close


class _AboveProgressBars(logging.Handler):
    """Writes our warnings above the progress bars, as long as the application has set up no logging of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers:
            tqdm.write(wrapped(f"hf_eco2ai: {record.getMessage()}", _columns()), file=sys.stderr)


def _log_above_progress_bars() -> None:
    if not logger.handlers:
        logger.addHandler(_AboveProgressBars(logging.WARNING))
