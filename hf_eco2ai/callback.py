"""Eco2AICallback: the Trainer's events, passed on to a monitor. The only module that imports transformers.

Nothing here may raise into training, hold it up, or write over its progress bar. Per optimizer step it stores two instants and
a few counts.
"""

import atexit
import functools
import json
import logging
import os
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, NamedTuple, TypeVar

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from hf_eco2ai import launch, wiring
from hf_eco2ai.config import CarbonConfig, Environment
from hf_eco2ai.exchange import Exchange
from hf_eco2ai.journal.resume import Checkpoint
from hf_eco2ai.live import LiveRun
from hf_eco2ai.outputs import terminal
from hf_eco2ai.outputs.report import Report, live_line, opening_line
from hf_eco2ai.presence import Presence
from hf_eco2ai.ranks import Ranks
from hf_eco2ai.records import EndReason, Failure, Phase, RunState, Snapshot

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


class _Last(NamedTuple):
    """What is kept of a run that is over."""

    snapshot: Snapshot
    checkpoint: Checkpoint | None
    logged_tokens: int


class Eco2AICallback(TrainerCallback, ExportableState):  # type: ignore[misc]
    """Measures each `train()` of the Trainer that it is added to, and publishes it on `/metrics`.

    Without a config every setting has its default (see docs/configuration.md). Each `train()` is a run of its own, unless it
    resumes from a checkpoint, whose run then goes on, or `run_id` is set. `evaluate()` and `predict()` outside training are runs
    too. In distributed training add it on every rank: one process of each host measures.

    `restoring` is for the Trainer, when it makes its callbacks anew from a checkpoint.

    Raises:
        ConfigError: a setting is unknown or wrong. Nothing is raised later.

    """

    carried: Mapping[str, Any] | None = None
    """Set by a Trainer that restores callbacks itself. Read from its state instead, where it is in either case."""

    place: int = 0
    """Of several callbacks in one Trainer, which this is, in the order in which they begin; so each goes on with its own run."""

    def __init__(self, config: CarbonConfig | Mapping[str, Any] | None = None, *, restoring: bool = False) -> None:
        super().__init__()
        terminal.show_warnings(_warn_above_progress_bars)
        self._successor: Eco2AICallback | None = None
        self._live: deque[LiveRun] = deque()
        if isinstance(config, Mapping):
            config = self._restored(config) if restoring else CarbonConfig(**config)
        if config is not None and not isinstance(config, CarbonConfig):
            raise TypeError(f"config must be a CarbonConfig, not {type(config).__name__}: Eco2AICallback(config=CarbonConfig(…))")
        self.config = config if config is not None else CarbonConfig()
        wiring.check(self.config, wiring.reader_context(self.config, Environment.read()))
        self._grid = wiring.grid(self.config)
        self._last: _Last | None = None
        self._trainer_state: TrainerState | None = None
        self._tried_state: TrainerState | None = None
        self._presence: Presence | None = None
        self._exchange: Exchange | None = None
        self._failure_noted = False
        self._end_reason: EndReason = ""
        self._phase: Phase | None = None
        self._resumed = False
        self._speaks = False
        self._spoke_at = 0.0
        self._at_exit: Callable[[], None] | None = None
        self._kept: dict[str, Any] = {"args": {}, "attributes": {}}
        _callbacks.add(self)

    def _restored(self, kept: Mapping[str, Any]) -> CarbonConfig:
        """The config of the callback that this one replaces, which then shows this one's figures; else the one that was kept.

        With `restore_callback_states_from_checkpoint=True` the Trainer puts a new object in the place of the user's.
        """
        replaced = _replaced()
        others = [replaced] if replaced is not None else list(_callbacks)
        waiting = [other for other in others if type(other) is type(self) and other._waits()]  # noqa: SLF001 - of its own class
        if len(waiting) == 1:
            waiting[0]._successor = self  # noqa: SLF001
            return waiting[0].config
        return CarbonConfig(**kept)

    def __getstate__(self) -> dict[str, Any]:
        """What of it can be copied or pickled, also while it measures: a run stays with the callback that has it."""
        return {
            **self.__dict__,
            "_live": deque(),
            "_exchange": None,
            "_presence": None,
            "_trainer_state": None,
            "_tried_state": None,
            "_at_exit": None,
        }

    def _waits(self) -> bool:
        """Whether it measures nothing, and no other has taken its place."""
        return not self._live and self._successor is None

    @property
    def snapshot(self) -> Snapshot | None:
        """Every figure of the running or last run; None before the first reading. May be read from any thread."""
        if self._successor is not None:
            return self._successor.snapshot
        run = self._run
        return (None if run is None else run.snapshot) or (None if self._last is None else self._last.snapshot)

    @property
    def report(self) -> Report | None:
        """The figures with their sources; `str()` of it is the summary. None before the first reading."""
        snapshot = self.snapshot
        return None if snapshot is None else Report(snapshot)

    @property
    def metrics_url(self) -> str | None:
        """Where `/metrics` is while the run lives; None without an endpoint."""
        if self._successor is not None:
            return self._successor.metrics_url
        run = self._run
        return None if run is None else run.metrics_url

    @property
    def _run(self) -> LiveRun | None:
        try:
            return self._live[0]
        except IndexError:
            return None

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the run: its id, and what each host has used until now."""
        self._keep(None, None, None)
        return self._kept

    @_never_raises
    def _keep(self, args: Any, state: Any, control: Any) -> None:
        """Note what `state` returns; what goes wrong here must not keep a checkpoint from being written."""
        run, last = self._run, self._last
        if run is not None:
            checkpoint = run.checkpoint(self._trainer_state.global_step if self._trainer_state is not None else 0)
        else:
            checkpoint = None if last is None else last.checkpoint
        self._kept = {
            "args": {"config": self.config.model_dump(mode="json", exclude_unset=True), "restoring": True},
            "attributes": {"carried": None if checkpoint is None else checkpoint.as_json(), "place": self.place},
        }

    # The run's beginning and end

    @_never_raises
    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A run begins, or begins again after `auto_find_batch_size` met a full memory."""
        self._begin_training("setup", args, state, kwargs)

    @_never_raises
    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The run has ended as it should."""
        if self._owns(state):
            self._note_totals(state)
            self._close_run("ended", self._end_reason or "completed")
        self._exchange = None

    def _begin_training(self, phase: Phase, args: TrainingArguments, state: TrainerState, kwargs: dict[str, Any]) -> None:
        before = [other for other in _callbacks if type(other) is type(self) and other is not self]
        self.place = sum(1 for other in before if other._trainer_state is state)  # noqa: SLF001 - of its own class
        checkpoint = _checkpoint(state, type(self).__name__, self.place) if state.global_step > 0 else None
        # A checkpoint that was made without us has no place for our state, and saving would raise a KeyError.
        getattr(state, "stateful_callbacks", {}).setdefault(type(self).__name__, self.state())
        self._tried_state = state
        presence = Presence()
        again = self._presence is not None and self._presence.is_same_call(presence)
        if self._run is not None and not again and not self._make_room():
            return
        self._trainer_state = state
        if not again:
            self._end_reason = ""
            ranks = _ranks(args, state)
            measures = ranks.local_rank == 0 and state.is_local_process_zero
            uses = _uses(args, kwargs.get("model"))
            self._exchange = launch.exchange_of(
                ranks, launch.default_store(), measures=measures, uses=uses, fail=self._exchange_failed
            )
            if self._exchange is not None:
                self._exchange.begin(state.global_step)
            if measures:
                self._open_run(phase, args, state, presence, kwargs.get("model"), ranks, checkpoint)
        run = self._run
        if run is None:
            return
        if again:
            run.progress.step_failed("out_of_memory")
            self._enter(phase)
        self._resumed = state.global_step > 0
        run.progress.begin(
            global_step=state.global_step,
            max_steps=state.max_steps,
            batch_samples=_batch_samples(args, state),
            epoch_size=_epoch_samples(args, state, kwargs.get("train_dataloader")),
            epochs=int(state.epoch or 0.0),
            tokens=int(state.num_input_tokens_seen) if _counts_tokens(args) else None,
            tokens_before=int(state.num_input_tokens_seen or 0),
            flops=float(state.total_flos) if _counts_flops(kwargs.get("model")) else None,
        )
        if phase == "train":  # In the middle of an epoch, whose begin we have missed.
            run.progress.epoch_begin((state.epoch or 0.0) % 1)

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
        self._close_run("failed", "exception")
        return True

    def _open_run(
        self,
        phase: Phase,
        args: TrainingArguments,
        state: TrainerState,
        presence: Presence,
        model: Any,
        ranks: Ranks,
        checkpoint: Checkpoint | None,
    ) -> None:
        config = self.config
        on_cpu = getattr(getattr(args, "device", None), "type", "") == "cpu"
        place = launch.agree(self._exchange, ranks, config, checkpoint)
        context = wiring.reader_context(config, Environment.read(), on_cpu=on_cpu, in_use=place.gpus, host=place.host)
        self._presence, self._failure_noted = presence, False
        self._trainer_state = state
        run = LiveRun(
            config,
            place.beginning,
            self._grid,
            context,
            model_name=_model_name(model),
            trainer="transformers",
            # Where the hosts cannot hear each other, each leads a run of its own.
            ranks=ranks if self._exchange is not None else Ranks(),
            others=place.others,
            logged_tokens=self._logged_tokens(place.beginning.run_id),
            sigterm=self._on_sigterm,
            missing_since=presence.missing_since,
            how_it_ended=self._how_it_ended,
            abandoned=functools.partial(self._close_run, "failed", ""),
        )
        self._live.append(run)
        self._phase = phase
        self._at_exit = _call_at_exit(self)
        run.start(phase)
        self._speaks = config.console_interval > 0 and state.is_world_process_zero
        self._spoke_at = time.monotonic()
        self._say(opening_line(run.snapshot, run.metrics_url))

    def _logged_tokens(self, run_id: str) -> int:
        """Where TRL's own count stood, if this process goes on with its last run."""
        return self._last.logged_tokens if self._last is not None and self._last.snapshot.identity.run_id == run_id else 0

    def _close_run(self, state: RunState, reason: EndReason) -> None:
        """End the run, whoever notices it first: the Trainer's event, the sampler, a signal, or the interpreter's exit."""
        try:
            run = self._live.pop()  # Only one of them gets it.
        except IndexError:
            return
        if state == "failed":
            self._note_failure(run)
        try:
            launch.close(self._exchange, run, state, reason)
        finally:
            if run.snapshot is not None:
                self._last = _Last(run.snapshot, run.checkpoint(run.progress.global_step), run.progress.logged_tokens)
            self._presence = self._trainer_state = self._phase = None
            if self._at_exit is not None:
                atexit.unregister(self._at_exit)
                self._at_exit = None
        if run.snapshot is not None:
            self._say(Report(run.snapshot).text(terminal.columns()))

    def _on_sigterm(self, final: bool) -> None:
        """SIGTERM has come. If the process goes down, the run ends here; else whoever handles the signal decides."""
        self._end_reason = "sigterm"
        if final:
            self._failure_noted = True  # No step was lost to a fault.
            self._close_run("failed", "sigterm")

    def _how_it_ended(self) -> tuple[RunState, EndReason]:
        """Training is no longer on the stack, and `on_train_end` has not come. Failed, unless its steps went on without us."""
        state, run = self._trainer_state, self._run
        if state is not None and run is not None and state.global_step > run.progress.global_step:
            logger.warning("This Eco2AICallback was removed from its Trainer; what came after is missing from the run.")
            self._failure_noted = True
            return "ended", "removed"
        reason = self._end_reason or self._reason_for_leaving()
        if run is not None:
            self._note_failure(run)
        return "failed", reason

    def _reason_for_leaving(self) -> EndReason:
        return self._presence.reason_for_leaving() if self._presence is not None else "exception"

    def _exit_reason(self) -> EndReason:
        """Of a process that ends while its run lives: the exception that ended it, if there was one."""
        reason = self._reason_for_leaving()
        return reason if self._presence is not None and self._presence.left_by_exception() else "exit"

    def _note_failure(self, run: LiveRun) -> None:
        """Count the step that was lost, once."""
        if not self._failure_noted:
            self._failure_noted = True
            reason = self._reason_for_leaving()
            run.progress.step_failed("out_of_memory" if reason == "out_of_memory" else "exception")

    def _exchange_failed(self, message: str) -> None:
        run = self._run
        failure = Failure("exchange_failed", message, message)
        if run is not None:
            run.fail(failure)
        else:
            logger.warning("%s", message)

    # What the Trainer does in between

    @_never_raises
    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """An epoch begins; the first one after a resume may be under way."""
        run = self._owned(state)
        if run is not None:
            run.progress.epoch_begin((state.epoch or 0.0) % 1 if self._resumed else 0.0)
            self._resumed = False

    @_never_raises
    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A step begins, its data being there. A callback that was added in the middle of training begins here."""
        if self._run is None and self._tried_state is not state:
            self._begin_training("train", args, state, kwargs)
        run = self._owned(state)
        if run is not None:
            if self._phase != "train":
                self._enter("train")
            run.progress.step_begin(time.monotonic())

    @_never_raises
    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """An optimizer step is done. Evaluation and saving, if any, come next, or the end, if the budget is spent."""
        run = self._owned(state)
        if run is not None:
            run.progress.step_end(time.monotonic(), state.global_step)
            if state.num_input_tokens_seen:
                run.progress.tokens_seen(state.num_input_tokens_seen)
        if self._must_stop(state, run):
            self._end_reason = "budget"
            control.should_training_stop = control.should_save = True
        if run is not None and (control.should_evaluate or control.should_save or control.should_training_stop):
            self._enter(_next_phase(control))

    def _must_stop(self, state: TrainerState, run: LiveRun | None) -> bool:
        """Whether the budget is spent, and this event is of the training that it is for."""
        step = int(state.global_step)
        return state is self._trainer_state and launch.must_stop(self._exchange, run, step)

    @_never_raises
    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """An epoch is done. Evaluation and saving, if any, come next."""
        run = self._owned(state)
        if run is not None:
            run.progress.epoch_end(state.epoch or 0.0)
            self._enter(_next_phase(control))

    @_never_raises
    def on_prediction_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A batch of an evaluation: of the run's, or of one outside training, which is then a run of its own."""
        if self._run is None and self._trainer_state is not state and state.is_local_process_zero:
            presence = Presence()
            if presence.method == "train":
                return  # Added in the middle of training: the run begins with the next step.
            self._exchange, self._end_reason = None, ""
            self._open_run("evaluate", args, state, presence, kwargs.get("model"), Ranks(), None)
        if self._phase != "evaluate" and self._owns(state):
            self._enter("evaluate")

    @_never_raises
    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """An evaluation is done."""
        if not self._owns(state):
            return
        if self._outside_training():
            self._close_run("ended", "completed")
        else:
            # `save_strategy="best"` decides on saving only after this event.
            may_save = str(getattr(args.save_strategy, "value", args.save_strategy)) == "best"
            self._enter("save" if may_save else _next_phase(control, evaluated=True))

    @_never_raises
    def on_predict(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A prediction is done."""
        if self._owns(state) and self._outside_training():
            self._close_run("ended", "completed")

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
        run = self._owned(state)
        if run is None:
            return
        run.progress.log(logs or {})
        self._note_totals(state)
        snapshot, now = run.snapshot, time.monotonic()
        if snapshot is not None and snapshot.rates is not None and now - self._spoke_at >= self.config.console_interval:
            self._spoke_at = now
            self._say(live_line(snapshot))

    def _owns(self, state: TrainerState) -> bool:
        return self._owned(state) is not None

    def _owned(self, state: TrainerState) -> LiveRun | None:
        """The run that is measured, if this event is of it, and not of another Trainer that shares the callback."""
        return self._run if self._trainer_state is state else None

    def _outside_training(self) -> bool:
        return self._presence is not None and self._presence.method in {"evaluate", "predict"}

    def _enter(self, phase: Phase) -> None:
        run = self._run
        if phase != self._phase and run is not None:
            self._phase = phase
            run.mark(phase)

    def _note_totals(self, state: TrainerState) -> None:
        run = self._run
        if run is not None:
            run.progress.flops_done(float(state.total_flos))

    def _say(self, lines: str) -> None:
        """On the terminal, above the Trainer's progress bar."""
        if self._speaks:
            terminal.say(lines, tqdm.write)

    def _fail(self, error: Exception, where: str) -> None:
        failure = Failure(
            "callback_failed",
            f"{where} {type(error).__name__}",
            f"{where} failed ({error!r}); training goes on, some figures of this run may be missing.",
        )
        run = self._run
        if run is not None:
            run.fail(failure)
        else:
            logger.warning("%s", failure.message)


_callbacks: "weakref.WeakSet[Eco2AICallback]" = weakref.WeakSet()
"""All there are, so that one that the Trainer puts in the place of another finds that one's settings."""


def _replaced() -> "Eco2AICallback | None":
    """The callback in whose place the Trainer is putting a new one just now; None where it does not say."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - documented
    while frame is not None and frame.f_code.co_name != "_load_callback_state":
        frame = frame.f_back
    found = frame.f_locals.get("callback") if frame is not None else None
    return found if isinstance(found, Eco2AICallback) else None


def _checkpoint(state: TrainerState, name: str, place: int) -> Checkpoint | None:
    """What we left in the checkpoint that training goes on from."""
    saved = getattr(state, "stateful_callbacks", {}).get(name)
    # The Trainer keeps a list where several callbacks have one class, and lengthens it with each save.
    entries = saved if isinstance(saved, list) else [saved]
    kept = [entry["attributes"] for entry in entries if isinstance(entry, dict) and "attributes" in entry]
    carried = [attributes.get("carried") for attributes in kept if attributes.get("place", 0) == place]
    return next((checkpoint for one in reversed(carried) if (checkpoint := Checkpoint.read(one)) is not None), None)


def _ranks(args: TrainingArguments, state: TrainerState) -> Ranks:
    """As the Trainer says; which process is the first of its host, as the launcher says where that tells more."""
    if int(args.world_size) <= 1:
        return Ranks()
    said = Ranks.of(Environment.read().launcher)
    local = max(said.local_rank, 0 if state.is_local_process_zero else 1)
    return Ranks(int(args.process_index), int(args.world_size), local, said.launcher)


def _uses(args: TrainingArguments, model: Any) -> str:
    """The GPUs that this process computes on, for the one that measures."""
    device = getattr(args, "device", None)
    indices: list[int] = []
    if getattr(device, "type", "") == "cuda":
        placed = getattr(_unwrapped(model), "hf_device_map", None) or {"": getattr(device, "index", None) or 0}
        indices = sorted({index for index in placed.values() if isinstance(index, int)})
    return json.dumps([Environment.read().cuda_visible_devices, indices])


def _next_phase(control: TrainerControl, *, evaluated: bool = False) -> Phase:
    if control.should_evaluate and not evaluated:
        return "evaluate"
    if control.should_save:
        return "save"
    return "idle" if control.should_training_stop else "train"


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
            alive._close_run("failed", alive._end_reason or alive._exit_reason())  # noqa: SLF001 - a closure of this module

    atexit.register(close)
    return close


def _warn_above_progress_bars(lines: str) -> None:
    tqdm.write(lines, file=sys.stderr)
