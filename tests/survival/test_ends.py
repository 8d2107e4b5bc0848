"""How a training process may end, and what its journal says then."""

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.survival.kept import journals, only, refused, runs, whole_checkpoints
from tests.survival.processes import ENDLESS, Server, gpus

FOR_EVER = {"max_steps": ENDLESS}


def outcome(folder: Path) -> tuple[str, str]:
    """State and reason of the one run that was kept, by its own last line; `lost` is known only from the process."""
    run = only(folder / "runs")
    assert refused(folder / "runs") == []
    (journal,) = journals(folder / "runs")
    assert journal.last is not None
    return run.state, journal.last.get("end_reason", "")


def test_a_training_that_ends_as_it_should_is_ended_and_completed(server: Server, tmp_path: Path) -> None:
    child = server.start("plain", tmp_path, environ=gpus())
    result = child.hear("result")
    assert child.ended() == 0
    assert outcome(tmp_path) == ("ended", "completed")
    assert result["handler"] == str(signal.SIG_DFL)
    (journal,) = journals(tmp_path / "runs")
    assert journal.joules == pytest.approx(result["joules"])


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [("value", 1, "exception"), ("memory", 1, "out_of_memory"), ("exit", 3, "exit")],
    ids=["an exception", "a full GPU", "sys.exit"],
)
def test_what_ends_the_process_by_python_is_written_as_the_reason(
    server: Server, tmp_path: Path, error: str, code: int, reason: str
) -> None:
    child = server.start("raises", tmp_path, error=error)
    assert child.ended() == code
    assert outcome(tmp_path) == ("failed", reason)


def test_ctrl_c_is_a_failed_run_that_was_interrupted(server: Server, tmp_path: Path) -> None:
    child = server.start("plain", tmp_path, arguments=FOR_EVER)
    child.hear("here")
    child.signal(signal.SIGINT)
    assert child.ended() == -signal.SIGINT
    assert outcome(tmp_path) == ("failed", "interrupted")


def test_a_process_that_is_gone_without_a_word_is_lost_at_once(server: Server, tmp_path: Path) -> None:
    child = server.start("leaves", tmp_path)
    assert child.ended() == 0
    assert outcome(tmp_path) == ("lost", "")


def test_sigterm_kills_as_ever_and_the_journal_says_so(server: Server, tmp_path: Path) -> None:
    child = server.start("plain", tmp_path, arguments=FOR_EVER)
    child.hear("here")
    child.signal(signal.SIGTERM)
    assert child.ended() == -signal.SIGTERM
    assert outcome(tmp_path) == ("failed", "sigterm")


@pytest.mark.parametrize(
    ("does", "code", "end"),
    [("stop", 0, ("ended", "sigterm")), ("exit", 143, ("failed", "sigterm"))],
    ids=["training is stopped", "sys.exit"],
)
def test_a_handler_of_the_users_own_is_called_once_and_decides(
    server: Server, tmp_path: Path, does: str, code: int, end: tuple[str, str]
) -> None:
    child = server.start("handled_before", tmp_path, arguments=FOR_EVER, does=does)
    child.hear("here")
    child.signal(signal.SIGTERM)
    assert child.ended() == code
    assert [said["number"] for said in child.all_heard("mine")] == [signal.SIGTERM]
    assert [said["is_mine"] for said in child.all_heard("after")] == ([True] if does == "stop" else [])
    assert outcome(tmp_path) == end


def test_a_handler_that_lets_training_go_on_to_its_end_has_a_run_that_ends(server: Server, tmp_path: Path) -> None:
    child = server.start("handled_before", tmp_path, arguments={"max_steps": 200}, does="nothing")
    child.hear("here")
    child.signal(signal.SIGTERM)
    assert child.ended() == 0
    assert len(child.all_heard("mine")) == 1
    assert [said["is_mine"] for said in child.all_heard("after")] == [True]
    run = only(tmp_path / "runs")
    assert run.state == "ended"
    assert run.counts.steps == 200


def test_a_handler_set_in_the_middle_that_calls_the_former_one_kills_where_that_would(server: Server, tmp_path: Path) -> None:
    child = server.start("handled_from_the_middle", tmp_path, arguments=FOR_EVER)
    child.hear("here")
    child.signal(signal.SIGTERM)
    assert child.ended() == -signal.SIGTERM
    assert len(child.all_heard("mine")) == 1
    assert outcome(tmp_path) == ("failed", "sigterm")


def test_a_handler_set_in_the_middle_and_the_one_before_us_are_both_called_once(server: Server, tmp_path: Path) -> None:
    child = server.start("handled_from_the_middle", tmp_path, arguments=FOR_EVER, before=True)
    child.hear("here")
    child.signal(signal.SIGTERM)
    assert child.ended() == 0
    assert len(child.all_heard("mine")) == len(child.all_heard("first")) == 1
    assert [said["is_mine"] for said in child.all_heard("after")] == [True]
    assert outcome(tmp_path) == ("ended", "sigterm")


def test_a_handler_set_in_the_middle_that_calls_nobody_else_decides_alone(server: Server, tmp_path: Path) -> None:
    child = server.start("handled_from_the_middle", tmp_path, arguments=FOR_EVER, chains=False)
    child.hear("here")
    child.signal(signal.SIGTERM)
    assert child.ended() == 0
    assert len(child.all_heard("mine")) == 1
    assert outcome(tmp_path) == ("ended", "completed")  # Nobody told us of the signal, and training ended as it should.


@pytest.mark.parametrize("before", [False, True], ids=["nobody before", "a handler before"])
def test_a_handler_chained_in_one_training_is_called_once_in_the_next(server: Server, tmp_path: Path, before: bool) -> None:
    child = server.start("handled_from_the_middle", tmp_path, arguments=FOR_EVER, before=before, again=True)
    child.hear("again")
    child.signal(signal.SIGTERM)
    assert child.ended() == (0 if before else -signal.SIGTERM)
    assert len(child.all_heard("mine")) == 1
    assert len(child.all_heard("first")) == before
    first, second = runs(tmp_path / "runs")
    assert (first.state, first.snapshot.end_reason) == ("ended", "completed")
    assert (second.state, second.snapshot.end_reason) == ("ended" if before else "failed", "sigterm")


def test_a_signal_that_is_ignored_stays_ignored(server: Server, tmp_path: Path) -> None:
    child = server.start("ignored", tmp_path, arguments=FOR_EVER)
    assert child.ended() == 0
    assert [said["is_ignored"] for said in child.all_heard("after")] == [True]
    assert outcome(tmp_path) == ("ended", "completed")


def test_the_trainers_own_checkpoint_at_sigterm_is_written_and_resumed(server: Server, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {**FOR_EVER, "enable_jit_checkpoint": True}
    child = server.start("plain", tmp_path, arguments=arguments)
    child.hear("here")
    child.signal(signal.SIGTERM)
    assert child.ended() == 0
    assert outcome(tmp_path) == ("ended", "sigterm")
    (checkpoint,) = whole_checkpoints(tmp_path / "out")
    run_id = only(tmp_path / "runs").run_id
    saved_at, done = int(checkpoint.name.rpartition("-")[2]), only(tmp_path / "runs").counts.steps
    assert saved_at <= done
    again = server.start("plain", tmp_path, arguments={"max_steps": saved_at + 5}, resume=str(checkpoint))
    assert again.hear("begun")["run_id"] == run_id
    assert again.ended() == 0
    assert only(tmp_path / "runs").counts.steps == done + 5
