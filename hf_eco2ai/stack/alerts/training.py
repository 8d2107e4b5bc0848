"""Alerts on how training goes. All of them are of runs that live: what an ended run was like is history."""

from hf_eco2ai.stack.alerts import Alert
from hf_eco2ai.stack.alerts.texts import OF_WHAT, PERCENT, number
from hf_eco2ai.stack.promql import averaged, once, while_running, with_model
from hf_eco2ai.stack.thresholds import Thresholds

DASHBOARD = "hf-run-detail"

STANDS = "1m"
"""A step count that is what it was so long ago stands still: four scrapes. It does so within a longer step too, hence `for`."""

NOT_FINITE_WINDOW = "10m"
"""So long it is told that a loss was not finite, when the next one is: longer than it takes an alert to arrive."""


def alerts(t: Thresholds) -> tuple[Alert, ...]:
    """Those of the category training."""
    return (_stalled(t), _not_finite(t), _high_loss(t), _throughput(t))


def _stalled(t: Thresholds) -> Alert:
    """`for` counts from the run's begin, its resume or its last step. A comparison with the count of `stalled_for` ago would lie.

    A measured command has no steps, nor has a loop of one's own that tells of none. A Trainer that has done none yet should have.
    """
    steps, hold = once("hf_training_step_count", "run_id"), t["stalled_for"]
    stands = f"{steps} == {once(f'hf_training_step_count offset {STANDS}', 'run_id')}"
    untold = f'{steps} == 0 unless on (run_id) hf_training_run_info{{trainer="transformers"}}'
    return Alert(
        name="TrainingStalled",
        severity="warning",
        expr=with_model(while_running(f"({stands}) unless on (run_id) ({untold})")),
        hold=hold,
        summary=f"{OF_WHAT} does no steps",
        description=f"The run lives, but has done no optimizer step for {hold}; it stands at step {number('.0f')}.",
        action="See which phase uses the energy: a long evaluation or save is none, a hang is; stop a hung run and resume it.",
        value=f"step {number('.0f')}",
        limit=f"a step in {hold}",
        dashboard=DASHBOARD,
    )


def _not_finite(t: Thresholds) -> Alert:
    """The loss as last logged, and what the run has counted between two logs. That count goes on at a resume, so growth is told.

    Each scraped series is looked at before they are put together, since `max` takes a number where there is one.
    """
    loss = "hf_training_loss != hf_training_loss or abs(hf_training_loss) == Inf"

    def counted(reason: str, value: str) -> str:
        steps = f'hf_training_failed_steps_total{{reason="{reason}"}}'
        now, least = once(steps, "run_id"), once(f"min_over_time({steps}[{NOT_FINITE_WINDOW}])", "run_id", pick="min")
        return f"({now} > {least}) * {value}"

    any_of = f"{once(loss, 'run_id')} or {counted('nan_loss', 'NaN')} or {counted('infinite_loss', 'Inf')}"
    return Alert(
        name="LossNotFinite",
        severity="critical",
        expr=with_model(while_running(any_of)),
        keep=t["critical_kept_for"],
        summary=f"{OF_WHAT} has a loss that is no number",
        description=(
            f"The training loss is {{{{ $value }}}}, or was in the last {NOT_FINITE_WINDOW}. "
            "Steps with such a loss train nothing, and use as much energy."
        ),
        action="Stop the run; resume a checkpoint from before with a lower learning rate, gradient clipping, or bf16 for fp16.",
        value="loss {{ $value }}",
        limit="a finite loss",
        dashboard=DASHBOARD,
    )


def _high_loss(t: Thresholds) -> Alert:
    """An infinite one is LossNotFinite's."""
    limit, hold = t["high_loss"], t["high_loss_for"]
    return Alert(
        name="HighLoss",
        severity="warning",
        expr=with_model(while_running(f"{once('hf_training_loss', 'run_id')} > {limit} < Inf")),
        hold=hold,
        summary=f"{OF_WHAT} has a training loss of {number('.3g')}",
        description=f"For {hold} its training loss was above {limit}; it is {number('.3g')}.",
        action="Compare it with its begin: if it has risen, resume an earlier checkpoint with a lower learning rate.",
        value=f"loss {number('.3g')}",
        limit=f"loss {limit}",
        dashboard=DASHBOARD,
    )


def _throughput(t: Thresholds) -> Alert:
    """The gauge is taken from step to step and stays while a run evaluates, so that only steps are compared with steps."""
    limit, window, hold = t["throughput_drop_ratio"], t["throughput_window"], t["throughput_drop_for"]
    lately = averaged("hf_training_samples_per_second", window, "run_id")
    before = once(f"avg_over_time(hf_training_samples_per_second[1h] offset {window})", "run_id")
    return Alert(
        name="ThroughputDrop",
        severity="warning",
        expr=with_model(while_running(f"{lately} / {before} < {limit}")),
        hold=hold,
        summary=f"{OF_WHAT} trains at {PERCENT} of its speed",
        description=(
            f"In the last {window} it trained {PERCENT} of the samples per second of the hour before, less than {limit} of them."
        ),
        action="Look for a GPU that is hot or shared, a data loader that waits for its disk, a slow link between hosts.",
        value=f"{PERCENT} of the hour before",
        limit=f"{limit} of the hour before",
        dashboard=DASHBOARD,
    )
