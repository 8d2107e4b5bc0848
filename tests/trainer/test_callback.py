"""Eco2AICallback on a real Trainer: what it counts, and what it never does to training."""

import copy
import logging
import math
import os
import pickle
import socket
import subprocess
import sys
import textwrap
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainerCallback

from hf_eco2ai import ConfigError, Eco2AICallback, Snapshot
from hf_eco2ai.monitor import Monitor
from hf_eco2ai.records import EndReason, RunState
from tests.trainer.tiny import BATCH, SAMPLES, STEPS_PER_EPOCH, At, Data, config, model, our_threads, trainer, wait_until_left

pytestmark = pytest.mark.trainer


def final(callback: Eco2AICallback) -> Snapshot:
    snapshot = callback.snapshot
    assert snapshot is not None
    return snapshot


def fail(error: BaseException) -> Any:
    def raise_it() -> None:
        raise error

    return raise_it


def errors(callback: Eco2AICallback) -> dict[str, int]:
    return {error_type: count for error_type, count in final(callback).errors if count}


def test_steps_samples_epochs_tokens_and_losses_are_the_trainers(tmp_path: Path) -> None:
    callback = Eco2AICallback(config())
    run = trainer(tmp_path, callback, num_train_epochs=3, eval_strategy="epoch", include_num_input_tokens_seen=True)
    run.train()
    progress = final(callback).progress
    assert progress.steps == run.state.global_step == 3 * STEPS_PER_EPOCH
    assert progress.samples == 3 * SAMPLES
    assert progress.epochs == 3
    assert progress.tokens == run.state.num_input_tokens_seen == 3 * SAMPLES * 16
    assert progress.flops == run.state.total_flos
    assert progress.loss == [row["loss"] for row in run.state.log_history if "loss" in row][-1]
    assert progress.eval_loss == [row["eval_loss"] for row in run.state.log_history if "eval_loss" in row][-1]
    assert progress.ratio == 1
    assert progress.step_durations is not None
    assert sum(progress.step_durations.counts) == 3 * STEPS_PER_EPOCH


def test_gradient_accumulation_counts_optimizer_steps_and_all_samples(tmp_path: Path) -> None:
    callback = Eco2AICallback(config())
    run = trainer(tmp_path, callback, gradient_accumulation_steps=4)
    run.train()
    assert final(callback).progress.steps == run.state.global_step
    assert final(callback).progress.samples == SAMPLES


def test_training_is_bit_identical_with_and_without_the_callback(tmp_path: Path) -> None:
    runs = []
    for callbacks in ([], [Eco2AICallback(config())]):
        run = trainer(tmp_path, *callbacks, num_train_epochs=2, logging_steps=1, eval_strategy="epoch")
        run.train()
        losses = [row.get("loss", row.get("eval_loss")) for row in run.state.log_history]
        runs.append((losses, [parameter.detach().clone() for parameter in run.model.parameters()]))
    (losses, weights), (losses_with_us, weights_with_us) = runs
    assert len(losses) > 2 * STEPS_PER_EPOCH
    assert losses == losses_with_us
    assert all(torch.equal(a, b) for a, b in zip(weights, weights_with_us, strict=True))


def test_the_phases_take_their_share_and_add_up_to_the_run(tmp_path: Path) -> None:
    callback = Eco2AICallback(config())
    trainer(tmp_path, callback, num_train_epochs=2, eval_strategy="epoch", save_strategy="epoch").train()
    snapshot = final(callback)
    joules = {phase: footprint.joules for phase, footprint in snapshot.phases}
    assert all(joules[phase] > 0 for phase in ("setup", "train", "evaluate", "save"))
    assert sum(joules.values()) == pytest.approx(snapshot.total.joules)
    assert sum(device.joules for device in snapshot.devices) == pytest.approx(snapshot.total.joules)
    assert snapshot.state == "ended"


def test_metrics_are_served_during_training_and_the_port_and_threads_are_gone_after_it(tmp_path: Path) -> None:
    callback = Eco2AICallback(config())
    seen: list[str] = []

    def look() -> None:
        assert callback.metrics_url is not None
        with urllib.request.urlopen(callback.metrics_url, timeout=10) as response:
            seen.append(response.read().decode())

    trainer(tmp_path, callback, At(10, look)).train()
    assert "hf_training_energy_kwh_total{" in seen[0]
    assert callback.metrics_url is None
    assert our_threads() == []


def test_two_trainings_are_two_runs(tmp_path: Path) -> None:
    callback = Eco2AICallback(config())
    run = trainer(tmp_path, callback)
    run.train()
    first = final(callback)
    run.train()
    second = final(callback)
    assert first.identity.run_id != second.identity.run_id
    assert first.state == second.state == "ended"
    assert second.progress.steps == STEPS_PER_EPOCH
    assert second.total.joules > 0


def test_two_trainings_with_one_run_id_go_on_as_one_run_whose_totals_never_fall(tmp_path: Path) -> None:
    callback = Eco2AICallback(config(run_id="mine"))
    run = trainer(tmp_path, callback)
    run.train()
    first = final(callback)
    run.train()
    second = final(callback)
    assert second.identity.run_id == "mine"
    assert second.total.joules > first.total.joules
    assert second.progress.steps == 2 * STEPS_PER_EPOCH
    assert second.progress.samples == 2 * SAMPLES


@pytest.mark.parametrize("error", [ValueError("the user's own"), KeyboardInterrupt()], ids=["exception", "ctrl-c"])
def test_an_error_in_training_reaches_the_user_unchanged_and_ends_the_run_as_failed(tmp_path: Path, error: BaseException) -> None:
    callback = Eco2AICallback(config())
    with pytest.raises(type(error)) as raised:
        trainer(tmp_path, callback, At(10, fail(error))).train()
    assert raised.value is error
    wait_until_left(callback)
    assert final(callback).state == "failed"
    assert final(callback).progress.steps == 10
    assert dict(final(callback).progress.failed_steps)["exception"] == 1
    assert final(callback).total.joules > 0


def test_a_training_right_after_a_failed_one_is_a_new_run(tmp_path: Path) -> None:
    callback = Eco2AICallback(config(measurement_interval=60))
    run = trainer(tmp_path, callback, At(10, fail(ValueError("once"))))
    with pytest.raises(ValueError, match="once"):
        run.train()
    first = final(callback)
    run.train()
    assert final(callback).identity.run_id != first.identity.run_id
    assert final(callback).state == "ended"
    assert final(callback).progress.steps == STEPS_PER_EPOCH
    assert our_threads() == []


class TooLarge(torch.nn.Module):  # type: ignore[misc]
    """A model that has no memory for batches above a size, as CUDA would say it."""

    def __init__(self, largest: int) -> None:
        super().__init__()
        self.inner = model()
        self.largest = largest
        self.config = self.inner.config

    def forward(self, input_ids: Any = None, labels: Any = None, **_: Any) -> Any:
        if len(input_ids) > self.largest:
            raise RuntimeError("CUDA out of memory.")
        return self.inner(input_ids=input_ids, labels=labels)


def test_auto_find_batch_size_goes_on_with_the_same_run(tmp_path: Path) -> None:
    callback = Eco2AICallback(config())
    starts = []

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 0:
                starts.append(final(callback).identity.run_id)

    run = trainer(
        tmp_path, callback, Watch(), network=TooLarge(4), auto_find_batch_size=True, per_device_train_batch_size=16, max_steps=20
    )
    run.train()
    assert len(starts) >= 2
    assert len(set(starts)) == 1
    assert final(callback).state == "ended"
    assert final(callback).progress.steps == 20
    assert dict(final(callback).progress.failed_steps)["out_of_memory"] == len(starts) - 1
    assert final(callback).progress.samples == 20 * run.state.train_batch_size


def test_a_callback_shared_by_two_trainers_at_once_measures_the_first_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = Eco2AICallback(config())
    other = trainer(tmp_path / "other", callback)

    def train_the_other() -> None:
        thread = threading.Thread(target=other.train)
        thread.start()
        thread.join()

    trainer(tmp_path / "one", callback, At(10, train_the_other)).train()
    assert final(callback).progress.steps == STEPS_PER_EPOCH
    assert final(callback).state == "ended"
    assert [record.message for record in caplog.records if "its own Eco2AICallback()" in record.message]


def test_an_evaluation_outside_training_is_a_run_of_its_own(tmp_path: Path) -> None:
    callback = Eco2AICallback(config())
    run = trainer(tmp_path, callback)
    run.evaluate()
    snapshot = final(callback)
    assert snapshot.state == "ended"
    joules = {phase: footprint.joules for phase, footprint in snapshot.phases}
    assert joules["evaluate"] == pytest.approx(snapshot.total.joules)
    assert snapshot.total.joules > 0
    run.predict(Data())
    assert final(callback).identity.run_id != snapshot.identity.run_id
    assert our_threads() == []


def test_a_taken_port_costs_a_log_line_and_a_count_and_training_goes_on(
    tmp_path: Path, free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", free_port))
        holder.listen()
        callback = Eco2AICallback(config(prometheus_port=free_port))
        trainer(tmp_path, callback).train()
    assert errors(callback)["port_taken"] == 1
    assert [record.message for record in caplog.records if f"port {free_port} is taken" in record.message.lower()]


def test_events_that_make_no_sense_are_logged_and_never_raised(caplog: pytest.LogCaptureFixture) -> None:
    callback = Eco2AICallback(config())
    for event in ("on_train_begin", "on_step_end", "on_log", "on_evaluate", "on_save", "on_epoch_begin", "on_train_end"):
        getattr(callback, event)(None, None, None)
    assert callback.snapshot is None
    assert [record for record in caplog.records if "training goes on" in record.message]


def test_ranks_other_than_the_hosts_first_measure_nothing(tmp_path: Path) -> None:
    callback = Eco2AICallback(config())
    run = trainer(tmp_path, callback)
    run.state.is_local_process_zero = False
    callback.on_train_begin(run.args, run.state, run.control)
    assert callback.snapshot is None
    assert our_threads() == []


class Witness(Data):
    """Notes what of ours lives in the process that loads the data."""

    def __init__(self, notes: Path) -> None:
        self.notes = notes

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        sockets = [link for link in Path("/proc/self/fd").iterdir() if os.path.lexists(link) and link.is_socket()]
        with self.notes.open("a") as notes:
            notes.write(f"{os.getpid()} {len(our_threads())} {len(sockets)}\n")
        return super().__getitem__(index)


def test_nothing_of_ours_runs_in_forked_dataloader_workers(tmp_path: Path) -> None:
    callback = Eco2AICallback(config())
    notes = tmp_path / "notes"
    trainer(tmp_path, callback, data=Witness(notes), dataloader_num_workers=2).train()
    rows = {tuple(map(int, line.split())) for line in notes.read_text().splitlines()}
    assert {pid for pid, _, _ in rows}.isdisjoint({os.getpid()})
    assert {threads for _, threads, _ in rows} == {0}
    assert final(callback).progress.samples == SAMPLES


def test_a_script_that_dies_of_an_exception_shows_its_own_traceback_and_our_summary(tmp_path: Path) -> None:
    script = textwrap.dedent(
        f"""
        from pathlib import Path
        from hf_eco2ai import Eco2AICallback
        from tests.trainer.tiny import At, config, fail_now, trainer
        callback = Eco2AICallback(config(console_interval=60, measurement_interval=60))
        trainer(Path({str(tmp_path)!r}), callback, At(10, fail_now)).train()
        """
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("ZeroDivisionError: division by zero")
    said = " ".join(done.stdout.split())  # It is broken to the terminal's width where a terminal is announced.
    assert "failed (exception) after" in said
    assert "SIMULATED GPUs, not a measurement" in said


def test_a_loss_that_is_no_number_is_counted_as_a_failed_step(tmp_path: Path) -> None:
    callback = Eco2AICallback(config())
    network = model()
    with torch.no_grad():
        next(network.parameters()).fill_(math.nan)
    trainer(tmp_path, callback, network=network, logging_nan_inf_filter=False).train()
    assert dict(final(callback).progress.failed_steps)["nan_loss"] > 0


def test_the_summary_names_method_source_and_year(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    callback = Eco2AICallback(config(console_interval=60, project_name="my project"))
    trainer(tmp_path, callback).train()
    said = " ".join(capsys.readouterr().out.split())
    for expected in ("metrics at http://127.0.0.1:", "my project", "SIMULATED", "CPU model", "329.65 gCO₂e/kWh", "Ember", "2025"):
        assert expected in said


def test_a_wrong_setting_raises_before_training_and_names_the_right_one() -> None:
    with pytest.raises(ConfigError, match="measurement_interval"):
        config(measurment_interval=5)
    with pytest.raises(ConfigError, match="replay"):
        Eco2AICallback(config(replay="no such file", simulated_gpus=0))
    with pytest.raises(TypeError, match="CarbonConfig"):
        Eco2AICallback("project_name=x")  # type: ignore[arg-type]


def test_a_machine_without_a_country_gets_the_world_average_one_warning_and_a_flag(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "hf_eco2ai")
    callback = Eco2AICallback(config(country=""))
    trainer(tmp_path, callback).train()
    assert len([record for record in caplog.records if "No country is set" in record.message]) == 1
    assert final(callback).factor.assumed
    assert final(callback).factor.grams_per_kwh == 473


def test_samples_of_a_step_are_the_batch(tmp_path: Path) -> None:
    callback = Eco2AICallback(config())
    trainer(tmp_path, callback, max_steps=3).train()
    assert final(callback).progress.samples == 3 * BATCH


def test_a_training_left_by_an_exception_ends_when_it_was_left_and_not_an_interval_later(tmp_path: Path) -> None:
    callback = Eco2AICallback(config(measurement_interval=60))
    with pytest.raises(ValueError, match="mine"):
        trainer(tmp_path, callback, At(5, fail(ValueError("mine")))).train()
    wait_until_left(callback)
    assert final(callback).state == "failed"
    # Looked at once a second: the end is that of the first look after it, far from the end of the interval.
    assert final(callback).seconds < 30


def test_tokens_rise_with_every_step_and_not_only_with_the_logs(tmp_path: Path) -> None:
    callback = Eco2AICallback(config())
    seen: list[int | None] = []

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            assert callback._run is not None
            seen.append(callback._run.progress.progress().tokens)

    trainer(tmp_path, callback, Watch(), max_steps=5, logging_strategy="no", include_num_input_tokens_seen=True).train()
    assert seen == [BATCH * 16 * (step + 1) for step in range(5)]


def test_a_trainer_nested_in_another_with_the_same_callback_is_not_measured_and_the_outer_one_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    callback = Eco2AICallback(config())
    inner = trainer(tmp_path / "inner", callback)
    trainer(tmp_path / "outer", callback, At(10, inner.train)).train()
    assert final(callback).state == "ended"
    assert final(callback).progress.steps == STEPS_PER_EPOCH
    assert [record.message for record in caplog.records if "its own Eco2AICallback()" in record.message]


def test_a_callback_added_in_the_middle_of_training_measures_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    callback = Eco2AICallback(config(console_interval=60))
    add = At(10, lambda: run.add_callback(callback))
    run: Any = trainer(tmp_path, add, eval_strategy="steps", eval_steps=5)
    run.train()
    assert capsys.readouterr().out.count("measuring") == 1  # and no run for each of its evaluations
    assert final(callback).state == "ended"
    assert final(callback).progress.steps == STEPS_PER_EPOCH
    assert final(callback).progress.samples == SAMPLES - 10 * BATCH


def test_a_callback_removed_in_the_middle_of_training_has_not_failed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    callback = Eco2AICallback(config())
    remove = At(10, lambda: run.remove_callback(callback))
    run: Any = trainer(tmp_path, callback, remove)
    run.train()
    wait_until_left(callback)
    assert final(callback).state == "ended"
    assert dict(final(callback).progress.failed_steps)["exception"] == 0
    assert [record.message for record in caplog.records if "was removed from its Trainer" in record.message]


class OwnLoop(Trainer):  # type: ignore[misc]
    """A Trainer with a loop of its own, as TRL's for PPO has."""

    def train(self) -> None:
        self.state.max_steps = 10
        self.callback_handler.on_train_begin(self.args, self.state, self.control)
        self.callback_handler.on_step_begin(self.args, self.state, self.control)
        raise ValueError("in a loop of one's own")


def test_a_trainer_with_a_loop_of_its_own_that_fails_is_noticed_too(tmp_path: Path) -> None:
    callback = Eco2AICallback(config())
    run = OwnLoop(model=model(), args=trainer(tmp_path).args, train_dataset=Data(), callbacks=[callback])
    with pytest.raises(ValueError, match="of one's own"):
        run.train()
    wait_until_left(callback)
    assert final(callback).state == "failed"


def test_a_callback_can_be_copied_and_pickled_before_and_after_training(tmp_path: Path) -> None:
    callback = Eco2AICallback(config(project_name="copied"))
    assert pickle.loads(pickle.dumps(callback)).config == callback.config  # noqa: S301 - our own
    trainer(tmp_path, callback, max_steps=3).train()
    again = copy.deepcopy(callback)
    assert again.snapshot is not None
    assert again.config.project_name == "copied"


def test_a_copy_made_while_it_measures_has_its_settings_and_no_part_in_the_run(tmp_path: Path) -> None:
    callback = Eco2AICallback(config(project_name="copied"))
    copies: list[Eco2AICallback] = []

    def copy_it() -> None:
        copies.append(copy.deepcopy(callback))
        copies.append(pickle.loads(pickle.dumps(callback)))  # noqa: S301 - our own

    trainer(tmp_path, callback, At(3, copy_it), max_steps=6).train()
    assert final(callback).progress.steps == 6
    assert [(one.config.project_name, one.snapshot, one.metrics_url) for one in copies] == [("copied", None, None)] * 2


def test_ctrl_c_while_the_last_reading_is_awaited_leaves_no_port_open(tmp_path: Path) -> None:
    callback = Eco2AICallback(config())

    class Interrupted(Monitor):
        def stop(self, state: RunState = "ended", reason: EndReason = "", wait: float = 0.5) -> None:
            super().stop(state, reason, wait)
            raise KeyboardInterrupt

    def interrupt() -> None:
        assert callback._run is not None
        callback._run._monitor.__class__ = Interrupted

    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, callback, At(5, interrupt)).train()
    wait_until_left(callback)


def test_a_resumed_training_goes_on_from_the_steps_and_epochs_of_its_checkpoint(tmp_path: Path) -> None:
    trainer(tmp_path, max_steps=40, save_strategy="steps", save_steps=30).train()
    callback = Eco2AICallback(config())
    trainer(tmp_path, callback, max_steps=60).train(resume_from_checkpoint=str(tmp_path / "checkpoint-30"))
    progress = final(callback).progress
    assert progress.steps == 60
    assert progress.epochs == 2
    # Steps 31 to 52 end the second epoch: 203 samples less 4 batches; then 8 steps of the third.
    assert progress.samples == (SAMPLES - 4 * BATCH) + 8 * BATCH
