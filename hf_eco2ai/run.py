"""How far a run has come: written by the Trainer's thread, a few assignments per step, and read by the sampler."""

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from hf_eco2ai.records import FAILED_STEP_REASONS, Counts, FailedStepReason, Progress, StepHistogram

STEP_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds in seconds: from a toy model on a GPU to a step of a large one with gradient accumulation."""

FORECAST_FROM_RATIO = 0.02
"""Below this part of the run its end is not forecast: the first steps (compilation, warm-up) are not like the rest."""

EPOCH_ROUNDING = 1e-6
"""The Trainer's epoch is a sum of fractions and may fall short of a whole number by so little."""

PENDING_STEPS = 100_000
"""Step durations that wait for the sampler at most; it takes them every second."""


class _Done(NamedTuple):
    """Figures that change together with a step. Replaced as a whole, so that a reader sees one step or the next."""

    steps: int
    samples: int
    global_step: int
    at: float


class RunProgress:
    """Counts steps, epochs and samples of one run, and keeps what the Trainer last logged.

    All counts go on from `carried`, what earlier attempts of the run have done. `samples` are those of whole batches, but
    never more in an epoch than the data set has. `logged_tokens` is where TRL's own count stood in an earlier attempt in this
    process, since that may go on.
    """

    def __init__(self, carried: Counts | None = None, logged_tokens: int = 0) -> None:
        self._carried = carried or Counts()
        self._done = _Done(self._carried.steps, self._carried.samples, 0, 0.0)
        self._step_started: float | None = None
        self._first_step_at: float | None = None
        self._first_global_step = 0
        self._steps_before = self._carried.steps
        self._max_steps = 0
        self._batch_samples = 0
        self._epoch_samples_left: float = math.inf
        self._epoch_size: int | None = None
        self._epochs = 0
        self._durations: deque[float] = deque(maxlen=PENDING_STEPS)
        durations = self._carried.step_durations or StepHistogram((0,) * (len(STEP_BUCKETS) + 1), 0.0)
        self._buckets = list(durations.counts)
        self._duration_sum = durations.sum_seconds
        self._rate_base: _Done | None = None
        self._samples_per_second: float | None = None
        self._samples_at_begin = 0
        self._failed: dict[FailedStepReason, int] = {**dict.fromkeys(FAILED_STEP_REASONS, 0), **dict(self._carried.failed_steps)}
        self._logged: dict[str, float] = {}
        self._tokens: int | None = self._carried.tokens
        self._tokens_offset = 0
        self._tokens_at_step = 0
        self._logged_tokens = logged_tokens
        self._logged_tokens_offset = (self._carried.tokens or 0) - logged_tokens
        self._first_log = True
        self._flops: float | None = self._carried.flops
        self._flops_offset = 0.0
        self._flops_at_step = 0
        self._epochs_offset = 0

    @property
    def global_step(self) -> int:
        """The Trainer's step count at the last step that we were told of."""
        return self._done.global_step

    @property
    def logged_tokens(self) -> int:
        """TRL's own count as last logged."""
        return self._logged_tokens

    def counts(self) -> Counts:
        """What the run has done so far, for the next attempt to go on from."""
        done, buckets, seconds = self._done, list(self._buckets), self._duration_sum
        try:
            pending = list(self._durations)
        except RuntimeError:  # The sampler has just taken one of them out.
            pending = []
        for duration in pending:
            buckets[bisect_left(STEP_BUCKETS, duration)] += 1
        return Counts(
            steps=done.steps,
            samples=done.samples,
            tokens=self._tokens,
            flops=self._flops,
            step_durations=StepHistogram(tuple(buckets), seconds + sum(pending)),
            failed_steps=tuple(self._failed.items()),
        )

    def _steps_here(self) -> int:
        """Steps done in this process, for which tokens and FLOPs are counted."""
        return self._done.steps - self._steps_before

    # Written by the Trainer's thread

    def begin(
        self,
        *,
        global_step: int,
        max_steps: int,
        batch_samples: int,
        epoch_size: int | None,
        epochs: int = 0,
        tokens: int | None = None,
        tokens_before: int = 0,
        flops: float | None = None,
    ) -> None:
        """Training begins, or begins again after `auto_find_batch_size` met a full memory.

        `global_step`, `epochs`, `tokens` and `flops` are what the Trainer's counts stand at now, in a resumed training those
        of its checkpoint; None for what it does not count. `tokens_before` is its token count even where it does not count
        itself, since some trainers restore it and go on logging it. Steps before us that nobody has counted for us are taken
        from `global_step`; samples, tokens and FLOPs are counted from here on, as energy is.
        """
        if self._max_steps == 0:
            self._steps_before = max(self._carried.steps, global_step)
            self._done = _Done(self._steps_before, self._done.samples, global_step, 0.0)
            self._epochs = epochs
        else:
            self._done = self._done._replace(global_step=global_step)
        self._first_global_step = global_step
        self._first_log = True
        if tokens_before and not self._logged_tokens:
            self._logged_tokens, self._logged_tokens_offset = tokens_before, (self._carried.tokens or 0) - tokens_before
        self._epochs_offset = self._epochs - epochs
        if tokens is not None:
            self._tokens = self._tokens or 0
            self._tokens_offset = self._tokens - tokens
        if flops is not None:
            self._flops = self._flops or 0.0
            self._flops_offset = self._flops - flops
        self._first_step_at = self._rate_base = self._samples_per_second = None
        self._samples_at_begin = self._done.samples
        self._max_steps = max_steps
        self._batch_samples = batch_samples
        self._epoch_size = epoch_size

    def epoch_begin(self, fraction_done: float = 0.0) -> None:
        """`fraction_done` of the epoch was trained before a resume."""
        if self._epoch_size is None:
            self._epoch_samples_left = math.inf
            return
        # The Trainer's fraction counts batches, the last of which may be short. Floor: with gradient accumulation a step's
        # fraction is a little more than that of whole steps, but never by a whole step.
        steps_done = math.floor(fraction_done * math.ceil(self._epoch_size / self._batch_samples) + 1e-6)
        self._epoch_samples_left = max(0, self._epoch_size - steps_done * self._batch_samples)

    def epoch_end(self, epoch: float) -> None:
        """The Trainer leaves an epoch, at `epoch` epochs; whether the last one is whole shows in its fraction."""
        self._epochs = max(self._epochs, int(epoch + EPOCH_ROUNDING) + self._epochs_offset)

    def step_begin(self, at: float) -> None:
        """The data of the step is there and its computation begins."""
        self._step_started = at
        if self._first_step_at is None:
            self._first_step_at = at

    def step_end(self, at: float, global_step: int) -> None:
        """An optimizer step is done."""
        if self._step_started is not None:
            self._durations.append(at - self._step_started)
        done = self._done
        left = self._epoch_samples_left
        samples = self._batch_samples if self._batch_samples < left else int(left)
        self._epoch_samples_left = left - samples
        self._done = _Done(done.steps + 1, done.samples + samples, global_step, at)

    def loop_begins(self, at: float) -> None:
        """A loop of one's own begins its first step, for those that say only when a step is done."""
        self._step_started = self._first_step_at = at

    def step_done(self, at: float, global_step: int, samples: int, tokens: int | None) -> None:
        """A step of such a loop is done, on so many samples and tokens; the next one begins."""
        self._batch_samples, self._epoch_samples_left = samples, math.inf
        self.step_end(at, global_step)
        self._step_started = at
        if tokens is not None:
            self._set_tokens((self._tokens or 0) + tokens)

    def log(self, logs: Mapping[str, Any]) -> None:
        """Keep what the Trainer (or TRL) logs, and count a step whose figures are no numbers."""
        for name in ("loss", "eval_loss", "learning_rate", "grad_norm"):
            value = logs.get(name)
            if isinstance(value, (int, float)):
                self._logged[name] = float(value)
                self._count_bad_value(name, float(value))
        tokens = logs.get("num_tokens")
        if isinstance(tokens, (int, float)) and math.isfinite(tokens):
            self._tokens_logged(int(tokens))

    def tokens_seen(self, tokens: int) -> None:
        """The Trainer's own count of input tokens. The total does not fall."""
        self._set_tokens(tokens + self._tokens_offset)

    def _tokens_logged(self, tokens: int) -> None:
        """TRL's cumulative count. In a second `train()` it goes on, or starts again at 0 where that is another trainer's."""
        if self._first_log and tokens < self._logged_tokens:
            self._logged_tokens_offset += self._logged_tokens
        self._first_log = False
        self._logged_tokens = tokens
        self._set_tokens(tokens + self._logged_tokens_offset)

    def _set_tokens(self, tokens: int) -> None:
        self._tokens = max(tokens, self._tokens or 0)
        self._tokens_at_step = self._steps_here()

    def flops_done(self, flops: float) -> None:
        """The Trainer's own count, which it brings up to date when it logs and saves. The total does not fall."""
        if self._flops is not None:
            self._flops = max(flops + self._flops_offset, self._flops)
            self._flops_at_step = self._steps_here()

    def step_failed(self, reason: FailedStepReason) -> None:
        """A step was lost to `reason`."""
        self._failed[reason] += 1

    def _count_bad_value(self, name: str, value: float) -> None:
        if math.isfinite(value):
            return
        if name == "loss":
            self.step_failed("nan_loss" if math.isnan(value) else "infinite_loss")
        elif name == "grad_norm":
            self.step_failed("nonfinite_grad")

    # Read by the sampler's thread

    def progress(self) -> Progress:
        """Everything as of the last finished step."""
        done = self._done
        logged = dict(self._logged)
        ratio, eta, to_do_per_done = self._outlook(done)
        return Progress(
            steps=done.steps,
            global_step=done.global_step,
            max_steps=self._max_steps,
            epochs=self._epochs,
            samples=done.samples,
            tokens=self._tokens,
            tokens_by_now=_by_now(self._tokens, self._carried.tokens, self._tokens_at_step, self._steps_here()),
            flops=self._flops,
            flops_by_now=_by_now(self._flops, self._carried.flops, self._flops_at_step, self._steps_here()),
            loss=logged.get("loss"),
            eval_loss=logged.get("eval_loss"),
            learning_rate=logged.get("learning_rate"),
            grad_norm=logged.get("grad_norm"),
            samples_per_second=self._throughput(done),
            ratio=ratio,
            eta_seconds=eta,
            to_do_per_done=to_do_per_done,
            step_durations=self._histogram(),
            failed_steps=tuple(self._failed.items()),
        )

    def _outlook(self, done: _Done) -> tuple[float | None, float | None, float | None]:
        """Progress ratio, seconds to go, and steps to do per step done by this process."""
        if self._max_steps <= 0:
            return None, None, None
        ratio = min(1.0, done.global_step / self._max_steps)
        steps_here = done.global_step - self._first_global_step
        if ratio < FORECAST_FROM_RATIO or steps_here <= 0 or self._first_step_at is None:
            return ratio, None, None
        to_do_per_done = max(0, self._max_steps - done.global_step) / steps_here
        return ratio, (done.at - self._first_step_at) * to_do_per_done, to_do_per_done

    def _throughput(self, done: _Done) -> float | None:
        """Samples per second between the last step seen now and the one seen at the previous call that saw a new one.

        Measured from step end to step end, so a step longer than the measurement interval gives its true rate, not 0 and peaks.
        """
        base = self._rate_base
        first = self._first_step_at
        if base is None:
            if first is not None and done.at > first:
                self._samples_per_second = (done.samples - self._samples_at_begin) / (done.at - first)
                self._rate_base = done
        elif done.steps > base.steps and done.at > base.at:
            self._samples_per_second = (done.samples - base.samples) / (done.at - base.at)
            self._rate_base = done
        return self._samples_per_second

    def _histogram(self) -> StepHistogram:
        while self._durations:
            seconds = self._durations.popleft()
            self._buckets[bisect_left(STEP_BUCKETS, seconds)] += 1
            self._duration_sum += seconds
        return StepHistogram(tuple(self._buckets), self._duration_sum)


def _by_now(total: float | None, before: float | None, at_step: int, steps: int) -> float | None:
    """A total that was last told at an earlier step, carried on to the present one at its mean per step since `before`.

    None where steps have been done since `before`, but nobody has said yet what they come to.
    """
    if total is None or at_step <= 0:
        return None if steps > 0 else before
    return (before or 0.0) + (total - (before or 0.0)) * steps / at_step
