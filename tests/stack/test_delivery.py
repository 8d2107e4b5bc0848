"""Alerts arrive: from real trainings, or from an exporter whose figures are known, to everyone who is told."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_eco2ai import Eco2AICallback, Report
from tests.daemon.process import daemon
from tests.daemon.prometheus import needed as needs_prometheus
from tests.stack.alertmanager import needed as needs_alertmanager
from tests.stack.committed import ROOT
from tests.stack.delivery import Exporter, Stack, stack
from tests.stack.native import free_ports
from tests.stack.receivers import ALL, part, written
from tests.trainer.tiny import config, trainer

pytestmark = [needs_prometheus, needs_alertmanager]

BUDGET_KG = 1e-9
"""A millionth of a gram: any training exceeds it."""

RUNS = {"alone": 1, "pair": 2}
"""Projects, and how many trainings of each exceed their budgets."""

DOCS = ROOT / "docs" / "alerting.md"
DASHBOARD = "http://localhost:3000/d/hf-carbon-tracking?"
RUNBOOK = "https://github.com/terragonlabs/hf-eco2ai-plugin/blob/main/docs/runbooks/CarbonBudgetExceeded.md"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("delivery")


@pytest.fixture(scope="module")
def reports(root: Path) -> dict[str, list[Report]]:
    """Of real trainings, by project. They are over before anyone looks, so that there is one figure of each."""
    made: dict[str, list[Report]] = {}
    for project, count in RUNS.items():
        for number in range(count):
            callback = Eco2AICallback(config(project_name=project, carbon_budget_kg=BUDGET_KG, runs_dir=root / "runs"))
            trainer(root / f"{project}{number}", callback, max_steps=5).train()
            assert callback.report is not None
            made.setdefault(project, []).append(callback.report)
    return made


@pytest.fixture(scope="module")
def exporter() -> Iterator[Exporter]:
    """Of a run whose figures are known."""
    made = Exporter()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def other() -> Iterator[Exporter]:
    """One that answers, but saw its runs last in 1970."""
    made = Exporter()
    made.text = "hf_exporter_last_look_timestamp_seconds 0\n"
    yield made
    made.stop()


@pytest.fixture(scope="module")
def delivering(root: Path, reports: dict[str, list[Report]], exporter: Exporter, other: Exporter) -> Iterator[Stack]:
    """Everything, with the daemon that serves the trainings."""
    assert reports
    (port,) = free_ports(1)
    with daemon(root / "runs", port=port), stack(root, [f"127.0.0.1:{port}", exporter.address, other.address]) as running:
        yield running


def forget(root: Path, report: Report) -> None:
    """Delete the journal of a run, which the daemon then serves no more."""
    for path in (root / "runs").glob(f"*{report.snapshot.identity.run_id}*"):
        path.unlink()


def spent(report: Report) -> str:
    """What the run itself says that it has emitted, as alerts write it."""
    return f"{report.snapshot.total.grams / 1000:.5g} kg CO₂e"


def test_a_training_over_its_budget_is_told_everyone_once_and_later_that_it_is_over(
    delivering: Stack, root: Path, reports: dict[str, list[Report]]
) -> None:
    (report,) = reports["alone"]
    run = report.snapshot.identity.run_id
    delivering.wait(1, run)
    forget(root, report)
    delivering.wait(2, run)
    for name in ALL:
        fired, over = delivering.receivers.got(name, run)
        for message in (written(fired), written(over)):
            for said in ("alone", spent(report), "1e-09 kg CO₂e", "hf-carbon-tracking", f"var-run={run}", RUNBOOK):
                assert said in message, f"{name} does not say {said}"
        assert "Stop the training now" in written(fired)
    subject = f"The carbon budget of run {run} (alone) is spent: "
    assert [mail["Subject"].partition(subject)[0] for mail in delivering.receivers.got("email", run)] == [
        "Critical: ",
        "Resolved: ",
    ]
    assert [event["event_action"] for event in delivering.receivers.got("pagerduty", run)] == ["trigger", "resolve"]
    assert [event["status"] for event in delivering.receivers.got("webhook", run)] == ["firing", "resolved"]


def test_two_trainings_over_budget_are_one_message(delivering: Stack, reports: dict[str, list[Report]]) -> None:
    first, second = (report.snapshot.identity.run_id for report in reports["pair"])
    delivering.wait(1, first)
    delivering.wait(1, second)
    for name in ALL:
        (message,) = delivering.receivers.got(name, "pair")
        for report in reports["pair"]:
            assert report.snapshot.identity.run_id in written(message)
            assert spent(report) in written(message)
    (attachment,) = delivering.receivers.got("slack", "pair")[0]["attachments"]
    assert attachment["title"] == "Critical: 2 × CarbonBudgetExceeded, pair"


def test_an_exporter_that_is_down_silences_that_its_figures_are_stale(delivering: Stack, other: Exporter) -> None:
    delivering.wait(1, "MetricsStale", ["webhook"])
    assert delivering.alertmanager.state("MetricsStale", instance=other.address) == "active"
    other.stop()
    delivering.wait(1, "ExporterDown", ["webhook"])
    assert delivering.alertmanager.state("MetricsStale", instance=other.address) == "suppressed"
    assert [message["status"] for message in delivering.receivers.got("webhook", "MetricsStale")] == ["firing"]


@pytest.fixture(scope="module")
def sent(delivering: Stack, exporter: Exporter) -> dict[str, list[Any]]:
    """Every message about a run that spends 80 %, then all of its budget, and is served no more."""
    project = "llama-finetune"
    exporter.shows(project, "0123456789ab", used_ratio=0.853, limit_kg=5)
    delivering.wait(1, "CarbonBudgetNearlySpent", ["webhook", "slack"])
    exporter.shows(project, "0123456789ab", used_ratio=1.042, limit_kg=5)
    delivering.wait(1, "llama-finetune) is spent: 104.2%")
    exporter.text = ""
    delivering.wait(2, "llama-finetune) is spent: 104.2%")
    delivering.wait(2, "CarbonBudgetNearlySpent", ["webhook"])
    return {name: delivering.receivers.got(name, project) for name in ALL}


def test_a_spent_budget_silences_that_most_of_it_is_spent(sent: dict[str, list[Any]]) -> None:
    """Which goes on, and is over when the budget is spent no more: not a moment before that is told."""
    told = [(message["alerts"][0]["labels"]["alertname"], message["status"]) for message in sent["webhook"]]
    assert told[:2] == [("CarbonBudgetNearlySpent", "firing"), ("CarbonBudgetExceeded", "firing")]
    assert sorted(told[2:]) == [("CarbonBudgetExceeded", "resolved"), ("CarbonBudgetNearlySpent", "resolved")]
    assert "85.3%" in written(sent["slack"][0])


@pytest.fixture
def documented(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with the one that stands in the docs behind `<!-- sent: name -->`."""

    def compare(name: str, text: str) -> None:
        page = DOCS.read_text(encoding="utf-8")
        block = re.compile(rf"(<!-- sent: {name} -->\n```\w+\n)(.*?)(\n```\n)", re.DOTALL)
        found = block.search(page)
        assert found is not None, f"{DOCS.name} does not show {name}"
        if request.config.getoption("--update-golden"):
            DOCS.write_text(block.sub(lambda old: old[1] + text + old[3], page), encoding="utf-8")
        else:
            assert text == found[2], f"{name} differs; if that is meant: pytest --update-golden, read the diff"

    return compare


def fixed(text: str) -> str:
    """With the times and the long address that differ each time as docs show them."""
    text = re.sub(r"since [\d-]{10} [\d:]{5} UTC", "since 2026-11-25 12:06 UTC", text)
    text = re.sub(r"[\d-]{10} [\d:]{5} to ([\d-]{10} )?[\d:]{5} UTC", "2026-11-25 12:06 to 12:20 UTC", text)
    text = re.sub(r'"startsAt": "2[^"]*"', '"startsAt": "2026-11-25T12:06:00Z"', text)
    text = re.sub(r'"endsAt": "2[^"]*"', '"endsAt": "2026-11-25T12:20:00Z"', text)
    text = re.sub(r'"routing_key": "[^"]*"', '"routing_key": "…"', text)
    return re.sub(r"/graph\?[^\"]*", "/graph?…", text)


def shown(name: str, message: Any) -> str:
    """A message as docs show it: what a person sees, or the JSON that a program gets."""
    if name == "slack":
        (attachment,) = message["attachments"]
        return fixed(f"{attachment['title']}\n\n{attachment['text']}")
    if name == "discord":
        (embed,) = message["embeds"]
        return fixed(f"{embed['title']}\n\n{embed['description']}")
    if name == "email":
        return fixed(f"Subject: {message['Subject']}\nTo: {message['To']}\n\n{part(message, 'plain').strip()}")
    return fixed(json.dumps(message, ensure_ascii=False, indent=2))


@pytest.mark.parametrize("name", ALL)
def test_messages_in_the_docs_are_those_that_are_sent(
    sent: dict[str, list[Any]], documented: Callable[[str, str], None], name: str
) -> None:
    fired, over = (message for message in sent[name] if "is spent: 104.2%" in written(message))
    documented(f"{name} firing", shown(name, fired))
    documented(f"{name} resolved", shown(name, over))


def test_the_mail_whose_picture_is_in_the_docs_is_the_one_that_is_sent(
    sent: dict[str, list[Any]], golden: Callable[[str, str], None]
) -> None:
    fired = next(mail for mail in sent["email"] if "is spent: 104.2%" in mail["Subject"])
    golden("alert-mail.html", fixed(part(fired, "html")))
