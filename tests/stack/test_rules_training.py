"""Alerts on training: when they stand, when they do not, and what they say."""

from collections.abc import Mapping

import pytest

from hf_eco2ai.stack.alerts.training import alerts
from tests.stack.committed import alert_names, file_of
from tests.stack.labelled import run, series, served_twice
from tests.stack.promtool import Alerts, Case, failures, nan, uncovered

R1 = {"project_name": "llama", "model_name": "m1", "run_id": "r1"}
R2 = {**R1, "run_id": "r2"}
LINK = "http://localhost:3000/d/hf-run-detail?&var-project=llama&var-model=m1&var-run=r1"
BOOK = "https://github.com/terragonlabs/hf-eco2ai-plugin/blob/main/docs/runbooks/"


def whole(metric: str, values: str, run_id: str = "r1", **more: str) -> dict[str, str]:
    """A figure of the whole run."""
    return {series(metric, project_name="llama", run_id=run_id, **more): values}


def steps(values: str, run_id: str = "r1") -> dict[str, str]:
    return whole("hf_training_step_count", values, run_id)


def loss(values: str, run_id: str = "r1") -> dict[str, str]:
    return whole("hf_training_loss", values, run_id, model_name="m1")


def failed_steps(values: str, reason: str) -> dict[str, str]:
    return whole("hf_training_failed_steps_total", values, reason=reason)


def speed(values: str, run_id: str = "r1") -> dict[str, str]:
    return whole("hf_training_samples_per_second", values, run_id)


def begun_by(trainer: str) -> dict[str, str]:
    return whole("hf_training_run_info", "1x400", model_name="m1", host="h1", trainer=trainer)


STALLED = (
    Case(
        "a run that stands at step 120 for a quarter of an hour has stalled, until it does a step again",
        run() | steps("0+10x12 120x80 121+1x40"),
        (
            Alerts("18m45s", "TrainingStalled"),
            Alerts(
                "19m15s",
                "TrainingStalled",
                (R1,),
                (
                    {
                        "summary": "llama: run r1 does no steps",
                        "description": "The run lives, but has done no optimizer step for 15m; it stands at step 120.",
                        "action": "See which phase uses the energy: a long evaluation or save is none, a hang is; "
                        "stop a hung run and resume it.",
                        "value": "step 120",
                        "limit": "a step in 15m",
                        "dashboard_url": LINK,
                        "runbook_url": BOOK + "TrainingStalled.md",
                    },
                ),
            ),
            Alerts("23m30s", "TrainingStalled"),
        ),
    ),
    Case(
        "steps of five minutes are slow, and no stall",
        run() | steps("1x19 2x19 3x19 4x19 5x19 6x19"),
        (Alerts("20m", "TrainingStalled"), Alerts("29m45s", "TrainingStalled")),
    ),
    Case(
        "an evaluation of ten minutes is no stall",
        run() | steps("0+1x20 20x40 21+1x80"),
        (Alerts("14m45s", "TrainingStalled"), Alerts("30m", "TrainingStalled")),
    ),
    Case(
        "a run that has begun a quarter of an hour ago may still compile its first step",
        run() | begun_by("transformers") | steps("0x100"),
        (Alerts("15m45s", "TrainingStalled"),),
    ),
    Case(
        "a Trainer that never comes to its first step has stalled",
        run() | begun_by("transformers") | steps("0x100"),
        (Alerts("16m15s", "TrainingStalled", (R1,)),),
    ),
    Case(
        "a measured command has no steps that it could do",
        run() | begun_by("monitor") | steps("0x400"),
        (Alerts("1h", "TrainingStalled"),),
    ),
    Case(
        "a run that has ended does no more steps, and has not stalled",
        run(running="1x20 0x200") | steps("0+1x20 20x200"),
        (Alerts("25m", "TrainingStalled"), Alerts("50m", "TrainingStalled")),
    ),
    Case(
        "a run that is resumed where it ended is waited for anew",
        run(running="1x20 0x60 1x100") | steps("0+1x20 20x160"),
        (Alerts("30m", "TrainingStalled"), Alerts("36m", "TrainingStalled", (R1,))),
    ),
    Case(
        "of two runs of one project the one that stands still has stalled",
        run() | run("r2") | steps("0+1x100") | steps("7x100", "r2"),
        (Alerts("20m", "TrainingStalled", (R2,)),),
    ),
    Case(
        "a run that is served twice has stalled once",
        served_twice(run() | steps("7x100")),
        (Alerts("20m", "TrainingStalled", (R1,)),),
    ),
    Case("a step count that is no number is none", run() | steps(nan(100)), (Alerts("20m", "TrainingStalled"),)),
)

NOT_FINITE = (
    Case(
        "a loss that is no number is told at once, and until the run has logged numbers again for five minutes",
        run() | loss("2.5x8 " + nan(8) + " 2.5x40"),
        (
            Alerts("2m", "LossNotFinite"),
            Alerts(
                "2m15s",
                "LossNotFinite",
                (R1,),
                (
                    {
                        "summary": "llama: run r1 has a loss that is no number",
                        "description": "The training loss is NaN, or was in the last 10m. "
                        "Steps with such a loss train nothing, and use as much energy.",
                        "action": "Stop the run; resume a checkpoint from before with a lower learning rate, gradient clipping, "
                        "or bf16 for fp16.",
                        "value": "loss NaN",
                        "limit": "a finite loss",
                        "dashboard_url": LINK,
                        "runbook_url": BOOK + "LossNotFinite.md",
                    },
                ),
            ),
            Alerts("8m", "LossNotFinite", (R1,)),
            Alerts("9m30s", "LossNotFinite"),
        ),
    ),
    Case(
        "a daemon that is restarted does not end it",
        run(running="1x20 stale _x3 1x20", info="1x20 stale _x3 1x20") | loss(nan(21) + " stale _x3 " + nan(20)),
        (Alerts("5m", "LossNotFinite", (R1,)), Alerts("5m30s", "LossNotFinite", (R1,)), Alerts("7m", "LossNotFinite", (R1,))),
    ),
    Case(
        "an infinite loss is none either, and not high",
        run() | loss("2.5x4 Inf Inf" + " Inf" * 60),
        (Alerts("2m", "LossNotFinite", (R1,)), Alerts("15m", "HighLoss")),
    ),
    Case(
        "a loss that was no number between two scrapes is told for ten minutes, and five more",
        run() | loss("2.5x80") | failed_steps("0x8 1x80", "nan_loss"),
        (
            Alerts("2m", "LossNotFinite"),
            Alerts("2m15s", "LossNotFinite", (R1,)),
            Alerts("17m", "LossNotFinite", (R1,)),
            Alerts("17m30s", "LossNotFinite"),
        ),
    ),
    Case(
        "so is one that was infinite",
        run() | loss("2.5x80") | failed_steps("0x8 1x80", "infinite_loss"),
        (Alerts("3m", "LossNotFinite", (R1,)),),
    ),
    Case(
        "an overflow of gradients is what the scaler of fp16 is for",
        run() | loss("2.5x80") | failed_steps("0+1x80", "nonfinite_grad"),
        (Alerts("3m", "LossNotFinite"),),
    ),
    Case(
        "a resumed run that once had a loss that was no number is not told of again",
        run(running="1x8 _x80 1x40", info="1x8 _x80 1x40")
        | loss("2.5x8 _x80 2.5x40")
        | failed_steps("3x8 _x80 3x40", "nan_loss"),
        (Alerts("1m", "LossNotFinite"), Alerts("25m", "LossNotFinite")),
    ),
    Case(
        "a run that has ended with such a loss is history",
        run(running="1x8 0x40") | loss(nan(48)),
        (Alerts("2m", "LossNotFinite", (R1,)), Alerts("8m", "LossNotFinite")),
    ),
    Case(
        "of two runs of one project the one without a number is told",
        run() | run("r2") | loss("2.5x40") | loss(nan(40), "r2"),
        (Alerts("5m", "LossNotFinite", (R2,)),),
    ),
    Case(
        "a run that is served twice is told once, also while only one has heard",
        served_twice(run())
        | {
            'hf_training_loss{job="hf-eco2ai-runs", project_name="llama", model_name="m1", run_id="r1"}': nan(40),
            'hf_training_loss{job="hf-eco2ai", project_name="other", model_name="m1", run_id="r1"}': "2.5x40",
        },
        (Alerts("5m", "LossNotFinite", (R1,)),),
    ),
)

HIGH = (
    Case(
        "a loss above 10 for ten minutes is high",
        run() | loss("11.5x80"),
        (
            Alerts("9m45s", "HighLoss"),
            Alerts(
                "10m",
                "HighLoss",
                (R1,),
                (
                    {
                        "summary": "llama: run r1 has a training loss of 11.5",
                        "description": "For 10m its training loss was above 10; it is 11.5.",
                        "action": "Compare it with its begin: if it has risen, resume an earlier checkpoint "
                        "with a lower learning rate.",
                        "value": "loss 11.5",
                        "limit": "loss 10",
                        "dashboard_url": LINK,
                        "runbook_url": BOOK + "HighLoss.md",
                    },
                ),
            ),
        ),
    ),
    Case(
        "a language model that begins at ln 128,256 and learns is not told of",
        run() | loss("11.76-0.1x80"),
        (Alerts("15m", "HighLoss"),),
    ),
    Case("a loss that is no number is not high", run() | loss(nan(80)), (Alerts("15m", "HighLoss"),)),
    Case(
        "a run that has ended has no high loss any more",
        run(running="1x50 0x50") | loss("11.5x100"),
        (Alerts("12m", "HighLoss", (R1,)), Alerts("13m", "HighLoss")),
    ),
    Case(
        "a resumed run has ten minutes anew",
        run(running="1x50 0x20 1x100") | loss("11.5x170"),
        (Alerts("20m", "HighLoss"), Alerts("28m", "HighLoss", (R1,))),
    ),
    Case(
        "of two runs of one project the one with a high loss is told",
        run() | run("r2") | loss("2.5x80") | loss("12x80", "r2"),
        (Alerts("15m", "HighLoss", (R2,)),),
    ),
    Case("a run that is served twice has one loss", served_twice(run() | loss("12x80")), (Alerts("15m", "HighLoss", (R1,)),)),
)

THROUGHPUT = (
    Case(
        "a run that trains 40 of the 100 samples per second of the hour before has dropped",
        # (200 × 100 + 40 × 40) / 240 = 90, of which 40 are 44.44 %. Nothing is at the hour's edge, which Prometheus 3 leaves out.
        run() | speed("100x79 _ 100x199 40x160"),
        (
            Alerts("1h15m", "ThroughputDrop"),
            Alerts(
                "1h30m",
                "ThroughputDrop",
                (R1,),
                (
                    {
                        "summary": "llama: run r1 trains at 44.44% of its speed",
                        "description": "In the last 10m it trained 44.44% of the samples per second of the hour before, "
                        "less than 0.5 of them.",
                        "action": "Look for a GPU that is hot or shared, a data loader that waits for its disk, "
                        "a slow link between hosts.",
                        "value": "44.44% of the hour before",
                        "limit": "0.5 of the hour before",
                        "dashboard_url": LINK,
                        "runbook_url": BOOK + "ThroughputDrop.md",
                    },
                ),
            ),
        ),
    ),
    Case("60 of 100 are no drop", run() | speed("100x280 60x160"), (Alerts("1h35m", "ThroughputDrop"),)),
    Case(
        "a drop of five minutes is none",
        run() | speed("100x280 10x20 100x100"),
        (Alerts("1h16m", "ThroughputDrop"), Alerts("1h25m", "ThroughputDrop")),
    ),
    Case(
        "a run that is younger than twenty minutes has no past to be compared with",
        run() | speed("100x20 10x100"),
        (Alerts("15m", "ThroughputDrop"), Alerts("19m45s", "ThroughputDrop")),
    ),
    Case(
        "a run that has ended is no slow one any more",
        run(running="1x360 0x40") | speed("100x280 10x120"),
        (Alerts("1h29m", "ThroughputDrop", (R1,)), Alerts("1h31m", "ThroughputDrop")),
    ),
    Case(
        "a resumed run whose first steps are slow has not dropped",
        run(running="1x200 0x60 1x200") | speed("100x200 _x60 5x8 100x190"),
        (Alerts("1h6m", "ThroughputDrop"), Alerts("1h20m", "ThroughputDrop")),
    ),
    Case(
        "a resumed run that stays slow has, by its own past",
        run(running="1x200 0x20 1x200") | speed("100x200 _x20 20x200"),
        (Alerts("1h20m", "ThroughputDrop", (R1,)),),
    ),
    Case(
        "of two runs of one project the one that has slowed down is told",
        run() | run("r2") | speed("100x440") | speed("100x280 20x160", "r2"),
        (Alerts("1h30m", "ThroughputDrop", (R2,)),),
    ),
    Case(
        "a run that is served twice has dropped once",
        served_twice(run() | speed("100x280 20x160")),
        (Alerts("1h30m", "ThroughputDrop", (R1,)),),
    ),
    Case(
        "a daemon that is restarted does not hide it again ten minutes later",
        run(running="1x600", info="1x600") | speed("100x280 20x160 stale _x3 20x60"),
        (Alerts("1h50m", "ThroughputDrop", (R1,)), Alerts("2h0m30s", "ThroughputDrop", (R1,))),
    ),
    Case("a rate that is no number is no drop", run() | speed("100x280 " + nan(160)), (Alerts("1h35m", "ThroughputDrop"),)),
)

CASES = (*STALLED, *NOT_FINITE, *HIGH, *THROUGHPUT)


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    return failures(CASES, [file_of("training", alerts)], tmp_path_factory.mktemp("promtool"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_alerts_on_training(case: Case, failed: Mapping[str, str]) -> None:
    assert case.name not in failed, failed[case.name]


def test_every_alert_on_training_is_seen_firing_and_silent() -> None:
    assert uncovered(CASES, alert_names(alerts)) == []
