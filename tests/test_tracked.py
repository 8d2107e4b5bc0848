"""`track()` around a loop of one's own: what it counts, how it ends, and that it never gets in the way."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hf_eco2ai
from hf_eco2ai import CarbonConfig
from hf_eco2ai.errors import ConfigError
from hf_eco2ai.journal import read
from hf_eco2ai.journal.format import Header, Totals
from hf_eco2ai.records import Snapshot
from hf_eco2ai.tracked import TrackedRun

DEADLINE_SECONDS = 20


def until(condition: Callable[[], object], *, of: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited {DEADLINE_SECONDS} s for {of}"
        time.sleep(0.005)


def track(**settings: Any) -> TrackedRun:
    """On made-up GPUs, without a port, reading often."""
    quick = {"simulated_gpus": 1, "export_prometheus": False, "measurement_interval": 0.1, "console_interval": 0, "country": "DE"}
    return hf_eco2ai.track(**{**quick, **settings})


def shown(run: TrackedRun) -> Snapshot:
    snapshot = run.snapshot
    assert snapshot is not None
    return snapshot


def journal(tmp_path: Path) -> list[Header | Totals]:
    (path,) = (tmp_path / "runs").iterdir()
    return list(read.read(path))


def end_line(tmp_path: Path) -> Totals:
    last = journal(tmp_path)[-1]
    assert isinstance(last, Totals)
    assert last.type == "end"
    return last


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("hf_eco2ai")}


def errors(run: TrackedRun) -> dict[str, int]:
    return {name: count for name, count in shown(run).errors if count}


# What it counts


def test_steps_samples_tokens_and_losses_are_those_that_were_told(tmp_path: Path) -> None:
    with track(project_name="mine", model_name="tiny", max_steps=20) as run:
        for n in range(10):
            run.step(samples=8, tokens=100, loss=2.5 - n / 10, learning_rate=1e-4, grad_norm=1.5)
        run.step(samples=4, eval_loss=1.75)
    progress = shown(run).progress
    assert (progress.steps, progress.global_step, progress.max_steps, progress.samples) == (11, 11, 20, 84)
    assert progress.tokens == 1000
    assert (progress.loss, progress.eval_loss, progress.learning_rate, progress.grad_norm) == (1.6, 1.75, 1e-4, 1.5)
    assert progress.ratio == pytest.approx(11 / 20)
    assert progress.step_durations is not None
    assert sum(progress.step_durations.counts) == 11
    assert errors(run) == {}
    written = end_line(tmp_path)
    assert (written.progress.steps, written.progress.samples, written.progress.tokens) == (11, 84, 1000)
    header = journal(tmp_path)[0]
    assert isinstance(header, Header)
    assert (header.run.project_name, header.run.model_name, header.run.trainer) == ("mine", "tiny", "track")


def test_a_step_that_tells_nothing_is_a_step(tmp_path: Path) -> None:
    with track() as run:
        run.step()
    progress = shown(run).progress
    assert (progress.steps, progress.samples, progress.tokens, progress.loss) == (1, 0, None, None)


def test_tensors_are_taken_as_numbers_also_those_with_a_gradient() -> None:
    torch = pytest.importorskip("torch")
    with track() as run:
        loss = torch.tensor(0.5, requires_grad=True) * 3
        run.step(samples=torch.tensor(8), tokens=torch.ones(4, 16).sum(), loss=loss, grad_norm=torch.tensor(2.0))
    progress = shown(run).progress
    assert (progress.samples, progress.tokens, progress.loss, progress.grad_norm) == (8, 64, 1.5, 2.0)
    assert type(progress.samples) is int
    assert errors(run) == {}


def test_losses_that_are_no_numbers_are_failed_steps() -> None:
    with track() as run:
        run.step(loss=float("nan"))
        run.step(loss=float("inf"), grad_norm=float("nan"))
    assert dict(shown(run).progress.failed_steps) == {
        "nan_loss": 1, "infinite_loss": 1, "nonfinite_grad": 1, "out_of_memory": 0, "exception": 0,
    }  # fmt: skip


class Unwilling:
    def __float__(self) -> float:
        raise RuntimeError("a Tensor with 2 elements cannot be converted to Scalar")


@pytest.mark.parametrize("wrong", ["a lot", [1.0, 2.0], {}, 1j, 10**400, Unwilling(), object()])
@pytest.mark.parametrize("name", ["loss", "eval_loss", "learning_rate", "grad_norm"])
def test_what_is_no_number_is_said_once_left_out_and_never_raised(
    name: str, wrong: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with track() as run:
        for _ in range(3):
            run.step(samples=1, **{name: wrong})
    assert [record.message.split(" needs a number")[0] for record in caplog.records] == [f"step({name}=…)"]
    progress = shown(run).progress
    assert getattr(progress, name) is None
    assert progress.samples == 3
    assert set(dict(progress.failed_steps).values()) == {0}
    assert errors(run) == {"callback_failed": 3}


@pytest.mark.parametrize("wrong", ["many", -5, float("nan"), float("inf"), [8], -0.5])
def test_counts_that_cannot_be_are_left_out_and_no_total_falls(wrong: Any) -> None:
    with track() as run:
        run.step(samples=8, tokens=80)
        run.step(samples=wrong, tokens=wrong)
        run.step(samples=8.0, tokens=True)  # type: ignore[arg-type]
    progress = shown(run).progress
    assert (progress.steps, progress.samples, progress.tokens) == (3, 16, 81)
    assert errors(run) == {"callback_failed": 2}


# Phases


def test_phases_get_the_time_and_energy_in_them_and_nest() -> None:
    with track() as run:
        begun = time.monotonic()
        with run.phase("evaluate"):
            entered = time.monotonic()
            until(lambda: shown(run).total.joules > 0, of="energy")
            with run.phase("save"):
                saving = shown(run).total.joules
                until(lambda: shown(run).total.joules > saving, of="more energy")
            evaluating = shown(run).total.joules
            until(lambda: shown(run).total.joules > evaluating, of="yet more energy")
            inside = time.monotonic() - entered
        outside = time.monotonic() - begun
    seconds, used = dict(shown(run).phase_seconds), dict(shown(run).phases)
    assert seconds["evaluate"] > 0
    assert seconds["save"] > 0
    assert seconds["setup"] == seconds["idle"] == 0
    assert inside - 1e-5 <= seconds["evaluate"] + seconds["save"] <= outside + 1e-5
    assert used["evaluate"].joules > 0
    assert sum(part.joules for part in used.values()) == pytest.approx(shown(run).total.joules)


def test_after_a_phase_is_what_was_before_also_after_an_exception(tmp_path: Path) -> None:
    with track() as run:
        with pytest.raises(ZeroDivisionError), run.phase("idle"), run.phase("save"):
            _ = 1 / 0
        assert run._phase == "train"
    assert end_line(tmp_path).state == "ended"


@pytest.mark.parametrize("wrong", ["evaluation", "", None, ["save"]])
def test_a_phase_that_does_not_exist_is_said_and_changes_nothing(wrong: Any, caplog: pytest.LogCaptureFixture) -> None:
    inside = []
    with track() as run, run.phase("save"), run.phase(wrong):
        inside.append(run._phase)
        run.step(samples=1)
    assert inside == ["save"]
    assert shown(run).progress.samples == 1
    assert "use one of setup, train, evaluate, save, idle" in caplog.text


# Forecast and budget


def test_with_max_steps_there_is_a_forecast_in_the_ratio_of_the_steps() -> None:
    with track(max_steps=10) as run:
        until(lambda: shown(run).total.joules > 0, of="energy")
        for _ in range(5):
            run.step()
        until(lambda: shown(run).forecast is not None, of="a forecast")
        snapshot = shown(run)
    assert snapshot.forecast is not None
    assert snapshot.forecast.joules == pytest.approx(2 * snapshot.total.joules, rel=1e-6)
    assert snapshot.progress.ratio == 0.5


def test_without_max_steps_there_is_no_forecast() -> None:
    with track() as run:
        run.step()
        until(lambda: shown(run).total.joules > 0, of="energy")
    assert shown(run).forecast is None
    assert shown(run).progress.ratio is None


def test_a_loop_is_told_to_stop_when_its_budget_is_spent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with track(energy_budget_kwh=1 / 3.6e6, budget_action="stop") as run:  # One joule.
        assert not run.should_stop

        def stepped() -> bool:
            run.step()
            return run.should_stop

        until(stepped, of="the budget to be spent")
    assert shown(run).total.joules >= 1.0
    assert (end_line(tmp_path).state, end_line(tmp_path).end_reason) == ("ended", "budget")
    assert "of the energy budget of this run is spent" in caplog.text
    assert "It is asked to stop." in caplog.text


def test_a_spent_budget_that_only_warns_stops_nothing(tmp_path: Path) -> None:
    with track(energy_budget_kwh=1e-12) as run:
        until(lambda: shown(run).budgets and shown(run).budgets[0].used_ratio > 1, of="the budget to be spent")
        run.step()
        assert not run.should_stop
    assert end_line(tmp_path).end_reason == "completed"


# The end


class CudaOutOfMemoryError(RuntimeError):
    """By name, as torch.OutOfMemoryError is told."""


@pytest.mark.parametrize(
    ("error", "state", "reason", "failed_steps"),
    [
        (ValueError("mine"), "failed", "exception", {"exception": 1}),
        (CudaOutOfMemoryError("mine"), "failed", "out_of_memory", {"out_of_memory": 1}),
        (KeyboardInterrupt(), "failed", "interrupted", {}),
        (SystemExit(3), "failed", "exit", {}),
        (SystemExit("a word"), "failed", "exit", {}),
        (SystemExit(["unhashable"]), "failed", "exit", {}),
        (SystemExit(0), "ended", "completed", {}),
        (SystemExit(), "ended", "completed", {}),
    ],
)
def test_whatever_ends_the_loop_passes_through_and_is_in_the_journal(
    tmp_path: Path, error: BaseException, state: str, reason: str, failed_steps: dict[str, int]
) -> None:
    def loop() -> None:
        with track() as run:
            run.step(samples=2)
            raise error

    with pytest.raises(type(error)) as raised:
        loop()
    assert raised.value is error
    assert error.__cause__ is None
    assert error.__context__ is None
    line = end_line(tmp_path)
    assert (line.state, line.end_reason, line.progress.failed_steps) == (state, reason, failed_steps)
    assert line.progress.samples == 2


def test_nothing_is_left_when_it_is_over(free_port: int) -> None:
    with track(export_prometheus=True, prometheus_port=free_port) as run:
        url = run.metrics_url
        assert url == f"http://127.0.0.1:{free_port}/metrics"

        def answer() -> str:
            try:
                return str(urllib.request.urlopen(url, timeout=5).read().decode())
            except urllib.error.URLError:  # The stack of HTTP is loaded in its own thread.
                return ""

        until(lambda: f'run_id="{run.run_id}"' in answer(), of="/metrics")
        assert {"hf_eco2ai-sampler", "hf_eco2ai-journal", "hf_eco2ai-endpoint"} <= threads()
    assert run.metrics_url is None
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=5)
    until(lambda: not threads(), of="our threads to end")
    assert run.report is not None
    assert "ended after" in str(run.report)


def test_after_the_end_steps_and_phases_are_nothing_and_raise_nothing() -> None:
    with track() as run:
        run.step(samples=1)
    with run.phase("save"):
        run.step(samples=1, loss="wrong")  # type: ignore[arg-type]
    assert shown(run).progress.samples == 1


def test_before_the_begin_there_are_no_figures() -> None:
    run = track()
    assert (run.snapshot, run.report, run.run_id, run.metrics_url, run.should_stop) == (None, None, "", None, False)
    assert run.state_dict()["hosts"] == []


def test_a_fork_that_leaves_the_loop_does_not_end_the_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = """
import os, hf_eco2ai
with hf_eco2ai.track(simulated_gpus=1, export_prometheus=False, country="DE") as run:
    if os.fork() == 0:
        raise SystemExit(0)
    os.wait()
    run.step(samples=5)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.count("ended after") == 1
    assert end_line(tmp_path).progress.samples == 5


def test_a_loop_that_is_never_left_is_ended_with_the_process(tmp_path: Path) -> None:
    code = """
import hf_eco2ai
run = hf_eco2ai.track(simulated_gpus=1, export_prometheus=False, country="DE").__enter__()
run.step(samples=5)
"""
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert (end_line(tmp_path).state, end_line(tmp_path).end_reason) == ("failed", "exit")
    assert end_line(tmp_path).progress.samples == 5


def test_sigterm_ends_the_run_with_its_reason_and_the_process_by_the_signal(tmp_path: Path) -> None:
    code = """
import os, signal, time, hf_eco2ai
with hf_eco2ai.track(simulated_gpus=1, export_prometheus=False, country="DE") as run:
    run.step(samples=5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == -15
    assert (end_line(tmp_path).state, end_line(tmp_path).end_reason) == ("failed", "sigterm")


# Resuming


def test_a_resumed_loop_is_the_same_run_and_goes_on_with_its_totals(tmp_path: Path) -> None:
    with track(max_steps=10) as first:
        until(lambda: shown(first).total.joules > 0, of="energy")
        for _ in range(4):
            first.step(samples=8, tokens=10)
        saved = json.loads(json.dumps(first.state_dict()))
    with track(max_steps=10, resume=saved) as second:
        assert second.run_id == first.run_id
        second.step(samples=8, tokens=10)
    progress = shown(second).progress
    assert (progress.steps, progress.global_step, progress.samples, progress.tokens) == (5, 5, 40, 50)
    assert shown(second).total.joules > shown(first).total.joules
    assert shown(second).identity.attempt == 2
    assert shown(second).wasted.joules == 0
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_what_was_done_after_the_checkpoint_is_wasted_and_steps_done_again_count_again() -> None:
    with track(max_steps=10) as first:
        first.step(samples=8)
        until(lambda: shown(first).total.joules > 0, of="energy")
        saved = first.state_dict()
        until(lambda: shown(first).total.joules > saved["hosts"][0]["joules"], of="more energy")
        first.step(samples=8)
        first.step(samples=8)
    with track(max_steps=10, resume=saved) as second:
        second.step(samples=8)
    assert (shown(second).progress.steps, shown(second).progress.global_step) == (4, 2)
    assert shown(second).wasted.joules == pytest.approx(shown(first).total.joules - saved["hosts"][0]["joules"])


def test_without_the_journals_the_checkpoint_alone_tells(tmp_path: Path) -> None:
    with track() as first:
        until(lambda: shown(first).total.joules > 0, of="energy")
        first.step(samples=8)
        saved = first.state_dict()
    for path in (tmp_path / "runs").iterdir():
        path.unlink()
    with track(resume=saved) as second:
        assert second.run_id == first.run_id
    assert shown(second).progress.samples == 8
    assert shown(second).total.joules >= saved["hosts"][0]["joules"] > 0


@pytest.mark.parametrize("saved", [{"format": 99, "run_id": "x"}, {"nothing": "of ours"}])
def test_a_checkpoint_that_is_none_of_ours_begins_at_zero_and_is_said(
    saved: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with track(resume=saved) as run:
        run.step(samples=1)
    assert shown(run).progress.samples == 1
    assert "The run begins at zero" in caplog.text


# Ranks


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"},
        {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "1"},
        {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_STEP_ID": "0"},
    ],
)
def test_ranks_other_than_the_first_of_their_host_measure_nothing_and_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with track() as run:
        with run.phase("save"):
            run.step(samples=8, loss="wrong")  # type: ignore[arg-type]
        assert threads() == set()
        assert (run.snapshot, run.report, run.run_id, run.metrics_url, run.should_stop) == (None, None, "", None, False)
        kept = run.state_dict()
        assert (kept["run_id"], kept["global_step"], kept["hosts"]) == ("", 1, [])
    assert not (tmp_path / "runs").exists()


def test_the_first_rank_of_a_host_measures(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with track() as run:
        run.step(samples=8)
    assert shown(run).progress.samples == 8
    assert "no key-value store in common" in caplog.text


# Settings, and what is printed


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"prometheus_prt": 1}, "did you mean prometheus_port"),
        ({"measurement_interval": 0}, "measurement_interval"),
        ({"country": "XX"}, "XX"),
        ({"cost_budget": 1.0}, "needs a price"),
        ({"replay": "/no/such/recording"}, "recording"),
        ({"max_steps": "1000"}, "max_steps"),
        ({"max_steps": -1}, "max_steps"),
        ({"max_steps": 0.5}, "max_steps"),
    ],
)
def test_a_wrong_setting_is_said_before_anything_begins(settings: dict[str, Any], word: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=word):
        track(**settings)
    assert threads() == set()
    assert not (tmp_path / "runs").exists()


def test_settings_come_on_top_of_a_config() -> None:
    config = hf_eco2ai.CarbonConfig(project_name="of the config", pue=1.5, country="DE")
    run = hf_eco2ai.track("of the call", config=config, simulated_gpus=1)
    assert (run.config.project_name, run.config.pue, run.config.simulated_gpus) == ("of the call", 1.5, 1)
    assert hf_eco2ai.track(config=config).config is config


def test_what_is_said_goes_to_stderr_and_stays_away_when_not_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    with track(console_interval=0.001, project_name="mine") as run:
        until(lambda: shown(run).rates is not None, of="rates")
        run.step(samples=1)
    said = capsys.readouterr()
    assert said.out == ""
    assert "measuring 1 × Simulated GPU (simulated)" in said.err
    assert "hf_eco2ai [simulated]: " in said.err
    assert f"mine · run {run.run_id} · SIMULATED GPUs, not a measurement · ended after" in " ".join(said.err.split())
    with track(console_interval=0):
        pass
    assert capsys.readouterr().err == ""


def test_a_closed_stderr_costs_words_and_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "closed").open("w") as closed:
        pass
    monkeypatch.setattr(sys, "stderr", closed)
    with track(console_interval=10.0) as run:
        run.step(samples=1)
    monkeypatch.setattr(sys, "stderr", None)
    with track(console_interval=10.0) as run:
        run.step(samples=1)
    assert shown(run).progress.samples == 1


def test_warnings_are_shown_without_logging_set_up_and_left_to_it_where_it_is() -> None:
    code = """
import logging, sys, hf_eco2ai
if sys.argv[1] == "set up":
    logging.basicConfig(format="MINE %(message)s")
with hf_eco2ai.track(simulated_gpus=1, export_prometheus=False, console_interval=0) as run:
    pass
"""
    environment = {**os.environ, "COLUMNS": "60"}
    said = [
        subprocess.run([sys.executable, "-c", code, how], capture_output=True, text=True, check=True, env=environment).stderr
        for how in ("not set up", "set up")
    ]
    assert said[0].startswith("hf_eco2ai: No country is set")
    assert max(map(len, said[0].splitlines())) <= 60
    assert said[1].startswith("MINE No country is set")
    assert said[1].count("No country is set") == 1


def test_track_loads_neither_torch_nor_transformers(tmp_path: Path) -> None:
    code = """
import sys, hf_eco2ai
with hf_eco2ai.track(simulated_gpus=1, export_prometheus=False) as run:
    run.step(samples=1, loss=0.5)
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"torch", "transformers", "pandas", "numpy"}.isdisjoint(done.stdout.split())
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, hf_eco2ai; hf_eco2ai.track; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert {"torch", "transformers", "pynvml", "pandas", "numpy", "uvicorn", "starlette"}.isdisjoint(loaded)


@pytest.fixture(autouse=True)
def our_logger(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "hf_eco2ai")


def test_without_a_home_directory_all_is_measured_and_one_line_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = CarbonConfig(prometheus_port=0, country="DE", simulated_gpus=1, console_interval=0)
    nowhere = config.model_copy(update={"runs_dir": Path("~no-such-user-anywhere/runs")})  # As platformdirs finds it then.
    with hf_eco2ai.track(config=nowhere) as run:
        run.step(samples=1)
    assert shown(run).progress.samples == 1
    assert dict(shown(run).errors)["journal_failed"] == 1
    assert [record.message for record in caplog.records] == [
        "This run is not kept on disk: there is no home directory; set HF_ECO2AI_RUNS_DIR to a folder that can be written."
    ]
