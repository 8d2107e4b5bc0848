"""Trainings that go on from a checkpoint, with whatever has become of the checkpoint, the journals and the callback meanwhile."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hf_eco2ai import CarbonConfig, Eco2AICallback, Snapshot
from tests.survival.kept import carried, journals, only, runs
from tests.survival.processes import ENDLESS, Server, gpus
from tests.survival.test_shared import stop
from tests.trainer.tiny import BATCH, config, trainer

pytestmark = pytest.mark.trainer


SAVES: dict[str, Any] = {"save_strategy": "steps", "save_steps": 10}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads that compute a tiny model wait for each other most of the time, on a machine that has other things to do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def settings(tmp_path: Path, **more: Any) -> CarbonConfig:
    return config(runs_dir=tmp_path / "runs", journal_interval=1, **more)


def final(callback: Eco2AICallback) -> Snapshot:
    snapshot = callback.snapshot
    assert snapshot is not None
    return snapshot


def train(folder: Path, *callbacks: Eco2AICallback, steps: int, resume: Path | None = None, **arguments: Any) -> Any:
    run = trainer(folder / "out", *callbacks, max_steps=steps, **{**SAVES, **arguments})
    run.train(resume_from_checkpoint=None if resume is None else str(resume))
    return run


def checkpoint(folder: Path, step: int) -> Path:
    return folder / "out" / f"checkpoint-{step}"


@pytest.mark.parametrize("restore", [False, True], ids=["callbacks are the user's", "callbacks are restored"])
def test_a_resumed_run_goes_on_under_the_users_variable_and_with_its_settings_of_now(tmp_path: Path, restore: bool) -> None:
    first = Eco2AICallback(settings(tmp_path, project_name="first"))
    train(tmp_path, first, steps=30, restore_callback_states_from_checkpoint=restore)
    before = final(first)
    saved = carried(checkpoint(tmp_path, 20))
    now = Eco2AICallback(settings(tmp_path, project_name="now"))
    train(tmp_path, now, steps=30, resume=checkpoint(tmp_path, 20), restore_callback_states_from_checkpoint=restore)
    after = final(now)
    assert final(first).progress == before.progress  # It shows its own training, as ever.
    assert after.identity.run_id == before.identity.run_id == saved["run_id"]
    assert after.identity.project_name == "now"
    assert after.identity.parent == ""
    assert after.state == "ended"
    assert after.progress.steps == 30 + 10
    assert after.progress.global_step == 30
    assert after.wasted.joules == pytest.approx(before.total.joules - saved["hosts"][0]["joules"])
    assert after.total.joules == pytest.approx(before.total.joules + after.attempt.total.joules)
    assert only(tmp_path / "runs").snapshot.total.joules == pytest.approx(after.total.joules)


def test_a_checkpoint_that_was_made_without_us_begins_a_run_of_its_own(tmp_path: Path) -> None:
    train(tmp_path, steps=20)
    callback = Eco2AICallback(settings(tmp_path))
    train(tmp_path, callback, steps=40, resume=checkpoint(tmp_path, 20))
    snapshot = final(callback)
    assert snapshot.inherited == ()
    assert snapshot.identity.parent == ""
    assert snapshot.progress.steps == 40  # Where the Trainer stands; its first 20 steps cost joules that nobody has measured.
    assert snapshot.progress.samples <= 20 * BATCH
    again = Eco2AICallback(settings(tmp_path))
    train(tmp_path, again, steps=50, resume=checkpoint(tmp_path, 40))
    assert final(again).identity.run_id == snapshot.identity.run_id


def test_a_checkpoint_that_travels_without_its_journals_brings_its_own_totals(tmp_path: Path) -> None:
    first = Eco2AICallback(settings(tmp_path))
    train(tmp_path, first, steps=30)
    saved = carried(checkpoint(tmp_path, 20))
    shutil.rmtree(tmp_path / "runs")
    callback = Eco2AICallback(settings(tmp_path))
    train(tmp_path, callback, steps=30, resume=checkpoint(tmp_path, 20))
    snapshot = final(callback)
    (host,) = saved["hosts"]
    assert snapshot.identity.run_id == saved["run_id"]
    assert snapshot.total.joules - snapshot.attempt.total.joules == pytest.approx(host["joules"])
    assert snapshot.total.grams - snapshot.attempt.total.grams == pytest.approx(host["grams"])
    assert snapshot.wasted.joules == 0  # What came after the checkpoint is known to nobody here.
    assert snapshot.progress.steps == 30


def test_two_resumes_of_one_checkpoint_add_up_what_they_wasted(tmp_path: Path) -> None:
    train(tmp_path, Eco2AICallback(settings(tmp_path)), steps=30)
    saved = carried(checkpoint(tmp_path, 10))["hosts"][0]["joules"]
    wasted: list[float] = []
    for attempt in (2, 3):
        used = sum(kept.joules for kept in journals(tmp_path / "runs"))
        callback = Eco2AICallback(settings(tmp_path))
        kept = tmp_path / "kept"
        shutil.copytree(checkpoint(tmp_path, 10), kept, dirs_exist_ok=True)
        train(tmp_path, callback, steps=30, resume=kept)
        assert final(callback).identity.attempt == attempt
        assert final(callback).wasted.joules == pytest.approx(used - saved)
        assert final(callback).progress.steps == 30 + 20 * (attempt - 1)
        wasted.append(final(callback).wasted.joules)
    assert wasted[1] > wasted[0] > 0


@pytest.mark.parametrize("restore", [False, True], ids=["callbacks are the user's", "callbacks are restored"])
def test_two_callbacks_in_one_trainer_are_two_runs_and_each_goes_on_with_its_own(tmp_path: Path, restore: bool) -> None:
    first = [Eco2AICallback(settings(tmp_path, project_name=name)) for name in ("a", "b")]
    train(tmp_path, *first, steps=20, restore_callback_states_from_checkpoint=restore)
    before = [final(callback) for callback in first]
    assert before[0].identity.run_id != before[1].identity.run_id
    again = [Eco2AICallback(settings(tmp_path, project_name=name)) for name in ("a", "b")]
    train(tmp_path, *again, steps=30, resume=checkpoint(tmp_path, 20), restore_callback_states_from_checkpoint=restore)
    after = [final(callback) for callback in again]
    assert [s.identity.project_name for s in after] == ["a", "b"]
    assert [s.identity.run_id for s in after] == [s.identity.run_id for s in before]
    for old, new in zip(before, after, strict=True):
        assert new.total.joules == pytest.approx(old.total.joules + new.attempt.total.joules)
        assert new.progress.steps == 30
    assert len(runs(tmp_path / "runs")) == 2


def test_trainings_that_are_begun_anew_in_one_process_are_runs_of_their_own(tmp_path: Path) -> None:
    """As a search for hyperparameters has them: one callback, and `train()` again and again."""
    callback = Eco2AICallback(settings(tmp_path))
    search = trainer(tmp_path / "out", callback, max_steps=10, **SAVES)
    trials: list[Snapshot] = []
    for _ in range(3):
        search.train()
        trials.append(final(callback))
    train(tmp_path, callback, steps=10)
    trials.append(final(callback))
    assert len({trial.identity.run_id for trial in trials}) == 4
    for trial in trials:
        assert trial.inherited == ()
        assert trial.identity.parent == ""
        assert trial.progress.steps == 10
    assert {run.state for run in runs(tmp_path / "runs")} == {"ended"}


def test_a_second_resume_while_the_first_lives_is_a_new_run_that_names_it(server: Server, tmp_path: Path) -> None:
    arguments = {"max_steps": 20, "save_strategy": "steps", "save_steps": 20}
    origin = server.start("plain", tmp_path, environ=gpus(), arguments=arguments)
    run_id = origin.hear("begun")["run_id"]
    assert origin.ended() == 0
    made = checkpoint(tmp_path, 20)
    endless = {"max_steps": ENDLESS}
    one = server.start("until_told", tmp_path, environ=gpus(), resume=str(made), arguments=endless)
    first = one.hear("begun")
    other = server.start("until_told", tmp_path, environ=gpus(), resume=str(made), arguments=endless)
    second = other.hear("begun")
    assert (first["run_id"], first["parent"]) == (run_id, "")
    assert first["inherited"] > 0
    assert second["run_id"] != run_id
    assert second["parent"] == run_id
    assert second["inherited"] == second["wasted"] == 0
    stop(one)
    stop(other)
    assert {run.run_id for run in runs(tmp_path / "runs")} == {run_id, second["run_id"]}
