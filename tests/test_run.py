"""How far a run has come."""

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_eco2ai.records import Counts, StepHistogram
from hf_eco2ai.run import STEP_BUCKETS, RunProgress


def begun(
    global_step: int = 0,
    max_steps: int = 100,
    batch_samples: int = 8,
    epoch_size: int | None = None,
    fraction_done: float = 0.0,
    tokens: int | None = None,
    flops: float | None = None,
    carried: Counts | None = None,
    logged_tokens: int = 0,
) -> RunProgress:
    run = RunProgress(carried, logged_tokens)
    run.begin(
        global_step=global_step,
        max_steps=max_steps,
        batch_samples=batch_samples,
        epoch_size=epoch_size,
        tokens=tokens,
        flops=flops,
    )
    run.epoch_begin(fraction_done)
    return run


def steps(run: RunProgress, count: int, *, at: float = 0.0, seconds: float = 1.0, global_step: int = 0) -> None:
    """So many steps, one after the other without a break, the first one beginning at `at`."""
    for i in range(count):
        run.step_begin(at + i * seconds)
        run.step_end(at + (i + 1) * seconds, global_step + i + 1)


def histogram(run: RunProgress) -> StepHistogram:
    durations = run.progress().step_durations
    assert durations is not None
    return durations


# Counting


def test_before_anything_is_said_nothing_is_known() -> None:
    said = RunProgress().progress()

    assert (said.steps, said.epochs, said.samples) == (0, 0, 0)
    assert (said.tokens, said.flops, said.loss, said.eval_loss, said.learning_rate, said.grad_norm) == (None,) * 6
    assert (said.samples_per_second, said.ratio, said.eta_seconds, said.to_do_per_done) == (None,) * 4


def test_an_epoch_of_203_samples_in_batches_of_8_is_26_steps_and_203_samples() -> None:
    run = begun(max_steps=26, epoch_size=203)
    steps(run, 26)
    run.epoch_end(1.0)

    said = run.progress()
    assert (said.steps, said.samples, said.epochs, said.ratio) == (26, 203, 1, 1.0)


def test_every_epoch_has_the_samples_of_the_data_set() -> None:
    run = RunProgress()
    run.begin(global_step=0, max_steps=78, batch_samples=8, epoch_size=203)
    for epoch in range(3):
        run.epoch_begin()
        steps(run, 26, at=26.0 * epoch, global_step=26 * epoch)
        run.epoch_end(epoch + 1.0)

    said = run.progress()
    assert (said.steps, said.samples, said.epochs) == (78, 609, 3)


def test_a_stream_has_whole_batches() -> None:
    run = begun(epoch_size=None)
    steps(run, 26)

    assert run.progress().samples == 26 * 8


@settings(deadline=None)
@given(size=st.integers(1, 2000), batch=st.integers(1, 300), epochs=st.integers(1, 3))
def test_samples_never_exceed_the_data_set_and_reach_it(size: int, batch: int, epochs: int) -> None:
    run = RunProgress()
    per_epoch = math.ceil(size / batch)
    run.begin(global_step=0, max_steps=per_epoch * epochs, batch_samples=batch, epoch_size=size)
    for epoch in range(epochs):
        run.epoch_begin()
        steps(run, per_epoch, at=float(per_epoch * epoch), global_step=per_epoch * epoch)
        assert run.progress().samples == size * (epoch + 1)


def test_a_resume_in_the_middle_of_an_epoch_trains_what_is_left_of_it() -> None:
    # 200 samples are 25 steps of 8. Resumed after 10 of them, 15 are left: 120 samples.
    run = begun(global_step=10, max_steps=25, epoch_size=200, fraction_done=10 / 25)
    steps(run, 15, global_step=10)

    said = run.progress()
    assert (said.steps, said.samples, said.ratio) == (25, 120, 1.0)


def test_a_resume_in_the_middle_of_an_epoch_with_a_short_last_batch_trains_what_is_left_of_it() -> None:
    # 203 samples are 26 steps of 8. After 13 of them 104 samples are done and 99 are left; the Trainer calls this epoch 0.5.
    run = begun(global_step=13, max_steps=26, epoch_size=203, fraction_done=0.5)
    steps(run, 13, global_step=13)

    assert run.progress().samples == 203 - 13 * 8


def test_steps_count_from_the_step_at_which_the_run_was_resumed() -> None:
    run = begun(global_step=50, max_steps=100)
    assert run.progress().steps == 50

    steps(run, 5, global_step=50)
    assert (run.progress().steps, run.progress().samples) == (55, 40)


def test_beginning_again_after_a_full_memory_keeps_the_counts_rising() -> None:
    run = begun(max_steps=100, batch_samples=16)
    steps(run, 3)
    run.begin(global_step=0, max_steps=200, batch_samples=8, epoch_size=None)
    run.epoch_begin()
    assert (run.progress().steps, run.progress().samples) == (3, 48)

    steps(run, 2, at=10.0)
    said = run.progress()
    assert (said.steps, said.samples) == (5, 48 + 16)
    assert said.ratio == pytest.approx(2 / 200)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 64)), min_size=1, max_size=6))
def test_steps_and_samples_never_fall_however_often_training_begins_again(attempts: list[tuple[int, int]]) -> None:
    run, seen, at = RunProgress(), [(0, 0)], 0.0
    for count, batch in attempts:
        run.begin(global_step=0, max_steps=100, batch_samples=batch, epoch_size=None)
        run.epoch_begin()
        seen.append((run.progress().steps, run.progress().samples))
        for i in range(count):
            steps(run, 1, at=at, global_step=i)
            at += 1.0
            seen.append((run.progress().steps, run.progress().samples))

    assert all(a <= c and b <= d for (a, b), (c, d) in pairwise(seen))
    assert seen[-1] == (sum(count for count, _ in attempts), sum(count * batch for count, batch in attempts))


# Throughput


def test_throughput_is_from_step_end_to_step_end() -> None:
    run = begun()
    steps(run, 1, at=0.0, seconds=2.0)
    run.progress()
    steps(run, 2, at=2.0, seconds=0.5, global_step=1)

    # Two steps of 8 samples between the ends at 2 s and 3 s.
    assert run.progress().samples_per_second == pytest.approx(16.0)


def test_a_step_longer_than_the_interval_keeps_its_true_rate_and_never_shows_zero() -> None:
    run = begun()
    steps(run, 1, at=0.0, seconds=4.0)

    # Looked at every second while the next step runs, and again after it.
    assert [run.progress().samples_per_second for _ in range(3)] == [2.0, 2.0, 2.0]
    steps(run, 1, at=4.0, seconds=4.0, global_step=1)
    assert [run.progress().samples_per_second for _ in range(3)] == [2.0, 2.0, 2.0]


def test_the_first_throughput_is_since_the_first_step_began() -> None:
    run = begun()
    steps(run, 4, at=100.0, seconds=0.5)

    assert run.progress().samples_per_second == pytest.approx(16.0)


def test_before_the_first_step_has_ended_there_is_no_throughput() -> None:
    run = begun()
    run.step_begin(5.0)

    assert run.progress().samples_per_second is None


def test_the_break_before_a_second_training_does_not_count_against_its_throughput() -> None:
    run = begun()
    steps(run, 4, at=0.0)
    assert run.progress().samples_per_second == pytest.approx(8.0)

    run.begin(global_step=0, max_steps=100, batch_samples=8, epoch_size=None)
    run.epoch_begin()
    steps(run, 4, at=3600.0)

    assert run.progress().samples_per_second == pytest.approx(8.0)


# Outlook


def test_below_two_percent_nothing_is_forecast() -> None:
    run = begun(max_steps=1000)
    steps(run, 19)
    said = run.progress()

    assert said.ratio == pytest.approx(0.019)
    assert (said.eta_seconds, said.to_do_per_done) == (None, None)


def test_from_two_percent_on_the_rest_is_forecast_from_the_steps_done() -> None:
    run = begun(max_steps=1000)
    steps(run, 20, seconds=0.5)
    said = run.progress()

    # 20 steps in 10 s; 980 are to do: 49 for each one done.
    assert said.ratio == pytest.approx(0.02)
    assert said.to_do_per_done == pytest.approx(49.0)
    assert said.eta_seconds == pytest.approx(490.0)


def test_after_a_resume_only_the_steps_of_this_process_are_the_yardstick() -> None:
    run = begun(global_step=50, max_steps=100)
    assert (run.progress().ratio, run.progress().eta_seconds) == (0.5, None)

    steps(run, 5, at=1000.0, seconds=2.0, global_step=50)
    said = run.progress()

    # 5 steps in 10 s; 45 are to do.
    assert (said.ratio, said.to_do_per_done, said.eta_seconds) == (0.55, 9.0, 90.0)


def test_at_the_end_nothing_is_left() -> None:
    run = begun(max_steps=10)
    steps(run, 10)

    assert (run.progress().ratio, run.progress().to_do_per_done, run.progress().eta_seconds) == (1.0, 0.0, 0.0)


def test_a_run_without_a_known_end_has_no_ratio() -> None:
    run = begun(max_steps=-1)
    steps(run, 10)

    assert (run.progress().ratio, run.progress().to_do_per_done, run.progress().eta_seconds) == (None, None, None)


# What the Trainer logs


def test_what_was_logged_last_is_kept() -> None:
    run = begun()
    run.log({"loss": 2.5, "learning_rate": 5e-5, "grad_norm": 1.25, "epoch": 0.1})
    run.log({"loss": 2.25, "learning_rate": 4e-5})
    run.log({"eval_loss": 2.75, "eval_runtime": 3.0})
    said = run.progress()

    assert (said.loss, said.eval_loss, said.learning_rate, said.grad_norm) == (2.25, 2.75, 4e-5, 1.25)


def test_what_is_no_number_is_not_kept() -> None:
    run = begun()
    run.log({"loss": "2.5", "eval_loss": None, "num_tokens": "many"})

    assert (run.progress().loss, run.progress().eval_loss, run.progress().tokens) == (None, None, None)


def test_a_loss_that_is_nan_or_infinite_is_counted_and_stays_what_it_is() -> None:
    run = begun()
    run.log({"loss": math.nan})
    run.log({"loss": math.inf})
    run.log({"loss": -math.inf, "grad_norm": math.nan})
    run.log({"loss": 1.0, "eval_loss": math.nan})
    run.log({"loss": math.nan})
    said = run.progress()

    failed = dict(said.failed_steps)
    assert (failed["nan_loss"], failed["infinite_loss"], failed["nonfinite_grad"]) == (2, 2, 1)
    assert (failed["out_of_memory"], failed["exception"]) == (0, 0)
    assert said.loss is not None
    assert math.isnan(said.loss)


def test_a_lost_step_is_counted_under_its_reason() -> None:
    run = begun()
    run.step_failed("out_of_memory")

    assert dict(run.progress().failed_steps)["out_of_memory"] == 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**12), st.floats(0.0, 1e25)), min_size=1, max_size=20))
def test_tokens_and_flops_never_fall(said: list[tuple[int, float]]) -> None:
    run = begun(tokens=0, flops=0.0)
    seen = [(0, 0.0)]
    for tokens, flops in said:
        run.tokens_seen(tokens)
        run.flops_done(flops)
        seen.append((run.progress().tokens or 0, run.progress().flops or 0.0))

    assert all(a <= c and b <= d for (a, b), (c, d) in pairwise(seen))
    assert seen[-1] == (max(tokens for tokens, _ in said), max(flops for _, flops in said))


def test_tokens_and_flops_start_at_zero_where_they_are_counted() -> None:
    said = begun(tokens=0, flops=0.0).progress()
    assert (said.tokens, said.flops) == (0, 0.0)


def test_tokens_and_flops_of_a_resumed_training_are_those_of_this_process() -> None:
    run = begun(global_step=50, tokens=1000, flops=2e9)
    steps(run, 10, global_step=50)
    run.tokens_seen(1200)
    run.flops_done(2.4e9)
    assert (run.progress().tokens, run.progress().flops) == (200, 4e8)


def test_beginning_again_adds_its_tokens_flops_and_epochs() -> None:
    run = begun(max_steps=26, tokens=0, flops=0.0)
    for _training in range(2):
        run.begin(global_step=0, max_steps=26, batch_samples=8, epoch_size=203, epochs=0, tokens=0, flops=0.0)
        run.epoch_begin()
        steps(run, 26)
        run.tokens_seen(3248)
        run.flops_done(6.5e7)
        run.epoch_end(1.0)
    said = run.progress()
    assert (said.steps, said.epochs, said.tokens, said.flops) == (52, 2, 6496, 1.3e8)


def test_between_two_logs_tokens_are_carried_on_by_steps_so_that_energy_per_token_does_not_saw() -> None:
    run = begun(tokens=0)
    steps(run, 10)
    run.log({"num_tokens": 1000})
    steps(run, 5, at=10.0, global_step=10)
    assert run.progress().tokens == 1000
    assert run.progress().tokens_by_now == 1500


@pytest.mark.parametrize(("epoch", "whole"), [(0.3, 0), (7 / 26, 0), (1.5, 1), (2 - 1e-9, 2), (70 / 26, 2), (80 / 26, 3)])
def test_only_whole_epochs_are_counted(epoch: float, whole: int) -> None:
    run = begun()
    run.epoch_end(epoch)
    assert run.progress().epochs == whole


def test_a_resumed_run_has_the_epochs_before_it() -> None:
    run = RunProgress()
    run.begin(global_step=70, max_steps=104, batch_samples=8, epoch_size=203, epochs=2)
    assert run.progress().epochs == 2
    run.epoch_end(3.0)
    assert run.progress().epochs == 3


def test_tokens_may_be_logged_instead_of_counted_by_the_trainer() -> None:
    run = begun()
    run.log({"num_tokens": 5000.0})
    assert (run.progress().tokens, run.progress().flops) == (5000, None)

    run.log({"num_tokens": 4000.0})
    run.log({"num_tokens": math.nan})
    assert run.progress().tokens == 5000


# Durations


def test_each_duration_falls_into_the_bucket_with_the_next_bound_and_the_sum_is_their_sum() -> None:
    run = begun()
    for duration in (0.004, 0.3, 0.4, 7.0, 1000.0):
        run.step_begin(100.0)
        run.step_end(100.0 + duration, 1)
    durations = histogram(run)

    counted = dict(zip((*STEP_BUCKETS, math.inf), durations.counts, strict=True))
    assert {bound: count for bound, count in counted.items() if count} == {0.005: 1, 0.5: 2, 10.0: 1, math.inf: 1}
    assert durations.sum_seconds == pytest.approx(1007.704)


def test_a_duration_that_is_exactly_a_bound_lies_within_it() -> None:
    # Prometheus: a bucket counts the observations less than or equal to its bound.
    run = begun()
    run.step_begin(0.0)
    run.step_end(0.25, 1)

    assert histogram(run).counts[STEP_BUCKETS.index(0.25)] == 1


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(0.0, 1000.0), max_size=10), max_size=10))
def test_the_histogram_counts_every_step_once_however_often_it_is_looked_at(looks: list[list[float]]) -> None:
    run, done = begun(), 0
    for durations in looks:
        for duration in durations:
            run.step_begin(0.0)
            run.step_end(duration, 1)
        done += len(durations)
        assert sum(histogram(run).counts) == done

    assert histogram(run).sum_seconds == pytest.approx(sum(sum(durations) for durations in looks))


# What earlier attempts have done


CARRIED = Counts(
    steps=50,
    samples=400,
    tokens=6400,
    flops=8e9,
    step_durations=StepHistogram((0, 0, 0, 0, 0, 30, 20, *[0] * 9), 15.0),
    failed_steps=(("nan_loss", 1), ("out_of_memory", 2)),
)


def test_before_anything_is_said_the_counts_are_those_of_earlier_attempts() -> None:
    run = RunProgress(CARRIED)
    said = run.progress()

    assert (said.steps, said.samples, said.tokens, said.flops) == (50, 400, 6400, 8e9)
    assert (said.tokens_by_now, said.flops_by_now) == (6400, 8e9)
    assert said.step_durations == CARRIED.step_durations
    failed = dict(said.failed_steps)
    assert (failed["nan_loss"], failed["out_of_memory"], failed["exception"]) == (1, 2, 0)
    assert (said.ratio, said.samples_per_second, said.loss) == (None, None, None)


def test_what_is_done_now_is_added_to_what_earlier_attempts_have_done() -> None:
    run = begun(global_step=50, max_steps=100, tokens=6400, flops=8e9, carried=CARRIED)
    steps(run, 10, at=1000.0, seconds=0.25, global_step=50)
    run.tokens_seen(6400 + 1280)
    run.flops_done(8e9 + 1.6e9)
    run.step_failed("out_of_memory")
    said = run.progress()

    assert (said.steps, said.samples, said.tokens, said.flops) == (60, 480, 7680, 9.6e9)
    assert (said.global_step, said.max_steps, said.ratio) == (60, 100, 0.6)
    assert dict(said.failed_steps)["out_of_memory"] == 3
    durations = histogram(run)
    assert durations.counts[STEP_BUCKETS.index(0.25)] == 30 + 10
    assert durations.sum_seconds == pytest.approx(15.0 + 2.5)


def test_steps_that_a_resume_rolled_back_count_again_when_they_are_done_again() -> None:
    # 50 steps were done, and the checkpoint is of the 30th.
    run = begun(global_step=30, max_steps=100, tokens=3840, flops=4.8e9, carried=CARRIED)
    assert (run.progress().steps, run.progress().global_step, run.progress().ratio) == (50, 30, 0.3)

    steps(run, 20, global_step=30)
    run.tokens_seen(6400)
    run.flops_done(8e9)
    said = run.progress()

    assert (said.steps, said.samples) == (70, 400 + 160)
    assert (said.tokens, said.flops) == (6400 + 2560, 8e9 + 3.2e9)
    assert (said.global_step, said.ratio) == (50, 0.5)


def test_the_end_is_forecast_from_the_steps_of_this_attempt_and_from_where_training_stands() -> None:
    run = begun(global_step=30, max_steps=100, carried=CARRIED)
    assert (run.progress().to_do_per_done, run.progress().eta_seconds) == (None, None)

    steps(run, 10, at=1000.0, seconds=2.0, global_step=30)

    # 10 steps in 20 s; 60 are to do, whatever else was done before and rolled back.
    assert (run.progress().to_do_per_done, run.progress().eta_seconds) == (6.0, 120.0)


def test_a_run_that_is_begun_anew_under_its_name_goes_on_with_the_counts_from_step_0() -> None:
    run = begun(global_step=0, max_steps=26, tokens=0, flops=0.0, carried=CARRIED)
    steps(run, 26)
    run.tokens_seen(3248)
    said = run.progress()

    assert (said.steps, said.samples, said.tokens) == (76, 400 + 208, 6400 + 3248)
    assert (said.global_step, said.ratio) == (26, 1.0)


def test_steps_that_nobody_has_counted_are_taken_from_where_the_training_stands() -> None:
    # The first 30 of 80 steps were trained without us.
    run = begun(global_step=80, max_steps=100, carried=CARRIED)
    assert run.progress().steps == 80


def test_throughput_is_that_of_this_attempt() -> None:
    run = begun(global_step=50, carried=CARRIED)
    assert run.progress().samples_per_second is None

    steps(run, 4, at=100.0, seconds=0.5, global_step=50)
    assert run.progress().samples_per_second == pytest.approx(16.0)


def test_between_two_logs_tokens_and_flops_are_carried_on_at_the_pace_of_this_attempt() -> None:
    # Before, 6400 tokens in 50 steps, 128 each; now 200 each.
    run = begun(global_step=50, tokens=6400, flops=8e9, carried=CARRIED)
    assert (run.progress().tokens_by_now, run.progress().flops_by_now) == (6400, 8e9)

    steps(run, 10, global_step=50)
    run.tokens_seen(6400 + 2000)
    run.flops_done(8e9 + 1e9)
    steps(run, 5, at=10.0, global_step=60)
    said = run.progress()

    assert (said.tokens, said.tokens_by_now) == (8400, 9400)
    assert said.flops_by_now == pytest.approx(8e9 + 1.5e9)


def test_trl_that_counts_from_zero_in_a_new_process_goes_on_with_the_tokens_of_the_run() -> None:
    run = begun(global_step=50, carried=CARRIED)
    assert run.progress().tokens == 6400

    run.log({"num_tokens": 700.0})
    assert (run.progress().tokens, run.logged_tokens) == (7100, 700)

    run.log({"num_tokens": 1500.0})
    assert (run.progress().tokens, run.logged_tokens) == (7900, 1500)


def test_trl_that_goes_on_counting_in_the_same_process_adds_only_what_is_new() -> None:
    # The same trainer's second train(): its count stood at 6400 and stands at 7000 now.
    run = begun(carried=CARRIED, logged_tokens=6400)
    run.log({"num_tokens": 7000.0})
    assert run.progress().tokens == 7000

    run.log({"num_tokens": 9000.0})
    assert run.progress().tokens == 9000


def test_another_trl_trainer_in_the_same_process_counts_from_zero_and_adds_all() -> None:
    run = begun(carried=CARRIED, logged_tokens=6400)
    run.log({"num_tokens": 500.0})
    assert run.progress().tokens == 6900

    run.log({"num_tokens": 7000.0})
    assert run.progress().tokens == 6400 + 7000


def test_trl_that_goes_on_counting_after_an_attempt_that_had_itself_gone_on_adds_only_what_is_new() -> None:
    # 6400 tokens in all, of which 2400 in this process, where TRL's count stands.
    run = begun(carried=CARRIED, logged_tokens=2400)
    run.log({"num_tokens": 3000.0})

    assert run.progress().tokens == 6400 + 600


def test_the_counts_of_an_attempt_are_what_the_next_one_begins_with() -> None:
    run = begun(global_step=50, tokens=6400, flops=8e9, carried=CARRIED)
    steps(run, 10, seconds=0.25, global_step=50)
    run.tokens_seen(7680)
    run.flops_done(9.6e9)
    run.step_failed("exception")
    said = run.progress()
    counts = run.counts()

    assert (counts.steps, counts.samples, counts.tokens, counts.flops) == (60, 480, 7680, 9.6e9)
    assert counts.step_durations == said.step_durations
    assert counts.failed_steps == said.failed_steps
    assert RunProgress(counts).progress()[:6] == (60, 0, 0, 0, 480, 7680)
    assert RunProgress(counts).counts() == counts


def test_what_was_never_counted_stays_unknown_in_the_next_attempt() -> None:
    first = begun()
    steps(first, 10)
    run = begun(global_step=10, carried=first.counts())
    steps(run, 10, global_step=10)

    assert (run.progress().tokens, run.progress().tokens_by_now, run.progress().flops, run.progress().flops_by_now) == (None,) * 4


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.integers(1, 64), st.integers(0, 10**6), st.floats(0.0, 1e15), st.booleans()),
        min_size=1,
        max_size=6,
    )
)
def test_no_count_falls_from_one_attempt_to_the_next_wherever_each_begins(
    attempts: list[tuple[int, int, int, float, bool]],
) -> None:
    carried: Counts | None = None
    seen, at, global_step, all_steps, all_samples, all_tokens = [(0, 0, 0, 0.0, 0)], 0.0, 0, 0, 0, 0
    for count, batch, tokens, flops, from_checkpoint in attempts:
        start = min(global_step, all_steps) // 2 if from_checkpoint else 0
        run = begun(global_step=start, max_steps=1000, batch_samples=batch, tokens=7, flops=9.0, carried=carried)
        for i in range(count):
            steps(run, 1, at=at, global_step=start + i)
            at += 1.0
        run.tokens_seen(7 + tokens)
        run.flops_done(9.0 + flops)
        global_step, all_steps, all_samples = start + count, all_steps + count, all_samples + count * batch
        all_tokens += tokens
        said = run.progress()
        seen.append((said.steps, said.samples, said.tokens or 0, said.flops or 0.0, sum(histogram(run).counts)))
        carried = run.counts()

    assert all(b >= a for before, after in pairwise(seen) for a, b in zip(before, after, strict=True))
    steps_seen, samples_seen, tokens_seen, _, durations_seen = seen[-1]
    assert (steps_seen, samples_seen, tokens_seen, durations_seen) == (all_steps, all_samples, all_tokens, all_steps)


# A loop of one's own


def test_a_loop_that_says_only_when_a_step_is_done_has_its_steps_samples_tokens_and_durations() -> None:
    run = RunProgress(CARRIED)
    run.begin(global_step=0, max_steps=4, batch_samples=1, epoch_size=None)
    run.loop_begins(100.0)
    run.step_done(100.25, 1, 8, 120)
    run.step_done(101.25, 2, 6, 80)
    run.step_done(101.5, 3, 8, None)
    said = run.progress()

    assert (said.steps, said.samples, said.tokens, said.ratio) == (53, 422, 6600, 0.75)
    assert said.samples_per_second == pytest.approx(22 / 1.5)
    assert said.eta_seconds == pytest.approx(0.5)
    durations = histogram(run)
    assert durations.counts[STEP_BUCKETS.index(0.25)] == 30 + 2
    assert durations.counts[STEP_BUCKETS.index(1.0)] == 1
    assert durations.sum_seconds == pytest.approx(15.0 + 1.5)
