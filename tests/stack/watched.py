"""A real Trainer run that a real Prometheus scrapes twice, from its own endpoint and a daemon, for what is asked about it then.

The run has simulated GPUs, prices and budgets. Beside it are made-up runs, for what a run of seconds does not have: a live grid
factor, a place that nobody has named, errors, and steps that were lost. Prometheus evaluates the committed recording rules and
alerts, every second instead of every minute or four.
"""

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from transformers import TrainerCallback

from hf_eco2ai import Eco2AICallback, Snapshot
from hf_eco2ai.records import ERROR_TYPES, FAILED_STEP_REASONS, BudgetStatus, GridFactor
from tests.daemon.process import SECONDS, Daemon, daemon, until
from tests.daemon.prometheus import Prometheus, prometheus
from tests.daemon.runs import begun, used
from tests.journal.make import put, snapshot
from tests.stack.committed import ROOT
from tests.stack.dashboards import Asked, filled, panel, read
from tests.trainer.tiny import config, trainer

NODE_EXPORTER = "prometheus-node-exporter"
STEPS = 12
LOOKED_AT = 9
"""The step at which panels on what is now are asked: after an evaluation and a checkpoint."""

PARIS = GridFactor(52.0, "lifecycle", "a live provider", "FR", "", None, "made up", age_seconds=90.0)
NOWHERE = GridFactor(473.0, "lifecycle", "the world's average", "WORLD", "", 2024, "made up", assumed=True)


@dataclass(frozen=True)
class Watched:
    """What has happened, for tests to ask about."""

    prometheus: Prometheus
    report: Snapshot
    began: float
    live: float
    """When the run was on."""
    over: float
    """When the daemon has shown its end."""
    chosen: Mapping[str, str]
    """Values of variables, each of them ticked instead of All."""

    def ask(self, asked: Asked, chosen: Mapping[str, str]) -> list[Any]:
        """Series, whichever way a panel asks for them."""
        expr = filled(asked.expr, chosen)
        if asked.at_once:
            answer = self.prometheus.ask("/api/v1/query", query=expr, time=str(self.live))
        else:
            span = {"start": str(self.began), "end": str(self.over), "step": "1"}
            answer = self.prometheus.ask("/api/v1/query_range", query=expr, **span)
        found: list[Any] = answer["result"]
        return found

    def values(self, uid: str, title: str, chosen: Mapping[str, str], at: float) -> dict[tuple[str, ...], float]:
        """What a panel of one figure shows, by labels."""
        (target,) = panel(read(uid), title)["targets"]
        answer = self.prometheus.ask("/api/v1/query", query=filled(target["expr"], chosen), time=str(at))["result"]
        return {tuple(row["metric"].values()): float(row["value"][1]) for row in answer}


class Paced(TrainerCallback):  # type: ignore[misc]
    """Lets a step end only when Prometheus has seen it twice, so that a run of seconds has the history of a long one."""

    def __init__(self, watching: "Watching") -> None:
        self._watching = watching

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._watching.step(state.global_step)


class Watching:
    """A Prometheus, and a daemon that begins when the run has opened a port of its own."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self._root = root
        self._stack = stack
        self.runs = root / "runs"
        self.runs.mkdir()
        self._targets = root / "targets"
        self._targets.mkdir()
        self._daemon: Daemon | None = None
        self.began = time.time()
        self.live = 0.0
        jobs = [{"job_name": name, "file_sd_configs": [{"files": [str(self._targets / f"{name}.json")]}]} for name in JOBS]
        self.prometheus = stack.enter_context(prometheus(root / "prometheus", jobs, rules=[str(rules(root))]))
        self._point("node", stack.enter_context(node_exporter()))

    def begin(self, own: str) -> None:
        """Both exporters are scraped. The run's own has its port by now, or it would leave serving to the daemon."""
        made_up(self.runs)
        state = self._root / "state"
        state.mkdir()
        (state / f"{socket.gethostname()}.json").write_text("damaged, which the daemon counts as a failure")
        self._daemon = self._stack.enter_context(
            daemon(self.runs, "--all-hosts", "--node", "--state-dir", str(state), environ={"HF_ECO2AI_SIMULATED_GPUS": "1"})
        )
        self._point("hf-eco2ai-runs", int(re.findall(r":(\d+)/", own)[0]))
        self._point("hf-eco2ai", self._daemon.port)

    def _point(self, name: str, port: int) -> None:
        new = self._targets / f".{name}"
        new.write_text(json.dumps([{"targets": [f"127.0.0.1:{port}"]}]))
        new.replace(self._targets / f"{name}.json")

    def step(self, number: int) -> None:
        """Until both exporters have shown that it was done."""
        for name in ("hf-eco2ai-runs", "hf-eco2ai"):
            query = f'max(hf_training_step_count{{job="{name}", project_name="real"}}) >= {number}'
            until(partial(self._has, query), what=self.prometheus.log)
        if number == LOOKED_AT:
            until(lambda: not any(self.missing()), what=lambda: "\n".join(map(str, self.missing())))
            self.live = time.time()

    def missing(self) -> Iterator[str]:
        """What is not there yet, without which panels have nothing to show."""
        all_up = f"count(up == 1) == {len(JOBS)}"
        recorded = "model:hf_training_samples_per_kwh:ratio30d"
        for expr in (all_up, 'ALERTS{alertstate="firing"}', recorded, "rate(hf_node_energy_joules_total[4s])"):
            if not self._has(expr):
                yield expr

    def until_over(self, run_id: str) -> float:
        """The daemon has shown its end for long enough to be between two steps of a time axis."""
        query = f'hf_training_running{{job="hf-eco2ai", run_id="{run_id}"}} offset 2s == 0'
        until(partial(self._has, query), what=self.prometheus.log)
        return time.time()

    def _has(self, query: str) -> bool:
        return bool(self.prometheus.ask("/api/v1/query", query=query)["result"])


JOBS = ("hf-eco2ai", "hf-eco2ai-runs", "node")


def rules(root: Path) -> Path:
    """The committed ones, evaluated as often as the others."""
    made = root / "rules"
    made.mkdir()
    for folder in ("prometheus/rules", "alerting/rules"):
        for file in (ROOT / folder).glob("*.yml"):
            content = yaml.safe_load(file.read_text())
            for group in content["groups"]:
                group.pop("interval", None)
            (made / file.name).write_text(yaml.safe_dump(content))
    return made / "*.yml"


class node_exporter:  # noqa: N801 - used like a function
    """A real one; its port."""

    def __enter__(self) -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen([NODE_EXPORTER, f"--web.listen-address=127.0.0.1:{port}"], **quiet)  # type: ignore[call-overload]
        return port

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(SECONDS)


def made_up(runs: Path) -> None:
    """One with a live factor, errors, lost steps and a project's budget that is spent; one that does not know where it is."""
    spent = (BudgetStatus("carbon", limit=0.0001, spent=0.0003, scope="project"),)
    lost = snapshot(10.0).progress._replace(
        failed_steps=tuple((why, 2 if why == "nan_loss" else 0) for why in FAILED_STEP_REASONS)
    )
    errors = tuple((kind, 3 if kind == "slow_read" else 0) for kind in ERROR_TYPES)
    for run_id, project, factor in (("aaaaaaaaaaaa", "live factor", PARIS), ("bbbbbbbbbbbb", "nowhere", NOWHERE)):
        begin = begun(run_id, project_name=project)
        put(runs, [begin, used(begin, 10.0, factor=factor, budgets=spent, errors=errors, progress=lost)])


@contextmanager
def watched_run(root: Path) -> Iterator[Watched]:
    """It takes half a minute."""
    with ExitStack() as stack:
        watching = Watching(root, stack)
        callback = Eco2AICallback(
            config(
                project_name="real",
                model_name="tiny",
                experiment_name="twice",
                runs_dir=watching.runs,
                journal_interval=1,
                electricity_price_per_kwh=0.3,
                gpu_price_per_hour=2.5,
                currency="EUR",
                carbon_budget_kg=0.0001,
                energy_budget_kwh=1.0,
                cost_budget=1.0,
            )
        )
        run(root, watching, callback)
        report = callback.snapshot
        assert report is not None
        over = watching.until_over(report.identity.run_id)
        chosen = {
            "project": "real|live factor|nowhere",
            "model": r"tiny|meta-llama/Llama-3\\.1-8B",  # as Grafana escapes it
            "run": f"{report.identity.run_id}|aaaaaaaaaaaa|bbbbbbbbbbbb",
            "host": f"{report.identity.host}|node1",
        }
        yield Watched(watching.prometheus, report, watching.began, watching.live, over, chosen)


def run(root: Path, watching: Watching, callback: Eco2AICallback) -> None:
    """A real Trainer that evaluates and saves on its way."""

    class Begin(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            assert callback.metrics_url is not None
            watching.begin(callback.metrics_url)

    trainer(
        root / "output",
        callback,
        Begin(),
        Paced(watching),
        max_steps=STEPS,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=LOOKED_AT - 3,
        save_strategy="steps",
        save_steps=LOOKED_AT - 3,
        include_num_input_tokens_seen=True,
    ).train()
