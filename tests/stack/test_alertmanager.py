"""What people are sent: alerts posted to a real Alertmanager, and the messages as they arrive at the stand-ins."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from html.parser import HTMLParser
from typing import Any

import pytest

from hf_eco2ai.stack.inhibition import INHIBITIONS, Inhibition
from hf_eco2ai.stack.render import Place, render
from tests.daemon.process import until
from tests.stack.alertmanager import EXTERNAL_URL, TO, Alert, Alertmanager, alertmanager, needed, told
from tests.stack.committed import ROOT
from tests.stack.receivers import ALL, Receivers, part, receivers

pytestmark = needed

LONG_AGO = "2026-01-02T23:50:00Z"
RUNBOOK = "https://example.org/runbooks/CarbonBudgetExceeded.md"


@dataclass(frozen=True)
class Told:
    """An Alertmanager and whom it tells."""

    alertmanager: Alertmanager
    receivers: Receivers

    def sent(self, *alerts: Alert) -> dict[str, Any]:
        """The next message of each channel after these alerts."""
        self.receivers.clear()
        self.alertmanager.post(*alerts)
        until(lambda: all(self.receivers.got(name) for name in ALL), what=lambda: self.alertmanager.log)
        return {name: self.receivers.got(name)[0] for name in ALL}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    root = tmp_path_factory.mktemp("alertmanager")
    with receivers() as listening:
        out = root / "out"
        rendered = render(told(listening, root / "stack"), out, Place(targets={}, alertmanager_folder=f"{out}/alertmanager"))
        assert rendered.warnings == ()
        with alertmanager(out / "alertmanager") as running:
            yield Told(running, listening)


def alert(
    project: str | None,
    run: str | None = None,
    over: bool = False,
    since: str = LONG_AGO,
    name: str = "CarbonBudgetExceeded",
    **texts: str,
) -> Alert:
    """As the rule makes one. Texts are annotations; one that is empty is missing.

    Alertmanager does not wait for others of the group of one that has been there for long.
    """
    labels = {"alertname": name, "severity": "critical", "category": "carbon", "project_name": project, "run_id": run}
    whose = f"{project}: run {run}"
    annotations = {
        "summary": f"{whose} has spent its carbon budget",
        "description": f"{whose} emitted 5.2 kg of 5 kg CO₂e.",
        "action": "Stop it.",
        "value": "5.2 kg CO₂e",
        "limit": "5 kg CO₂e",
        "dashboard_url": "http://localhost:3000/d/hf-carbon-tracking?var-project=x&var-run=y",
        "runbook_url": RUNBOOK,
        **texts,
    }
    return {
        "labels": {label: value for label, value in labels.items() if value},
        "annotations": {label: text for label, text in annotations.items() if text},
        "startsAt": since,
        "endsAt": ("2026-01-03T00:10:00Z" if since == LONG_AGO else now()) if over else "2100-01-01T00:00:00Z",
    }


def now() -> str:
    return datetime.now(timezone.utc).isoformat()


class Tags(HTMLParser):
    """Those that are open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, _attributes: Any) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def text(message: dict[str, Any]) -> str:
    """Slack's."""
    return str(message["attachments"][0]["text"])


def test_markup_in_names_means_nothing_to_slack(stack: Told) -> None:
    sent = stack.sent(alert('<!channel> & *bold* _it_ `code` ~no~ "q" a_b', "r1"))["slack"]["attachments"][0]
    assert sent["title"] == 'Critical: &lt;!channel&gt; &amp; *bold* _it_ `code` ~no~ "q" a_b: run r1 has spent its carbon budget'
    assert sent["text"].split("\n")[0] == 'project `&lt;!channel&gt; &amp; *bold* _it_ ˋcodeˋ ~no~ "q" a_b` · run `r1`'
    assert sent["text"].split("\n")[2] == (
        '&lt;!channel&gt; &amp; ∗bold∗ ˍit_ ˋcodeˋ ∼no∼ "q" a_b: run r1 emitted 5.2 kg of 5 kg CO₂e.'
    )
    assert sent["mrkdwn_in"] == ["fallback", "pretext", "text"]


def test_markup_in_names_means_nothing_to_discord(stack: Told) -> None:
    (sent,) = stack.sent(alert("[x](http://y) *b* _i_ `c` ~~s~~ ||p|| <@1> \\", "r1"))["discord"]["embeds"]
    escaped = r"\[x\](http://y) \*b\* \_i\_ \`c\` \~\~s\~\~ \|\|p\|\| \<@1\> \\"
    assert sent["title"] == rf"Critical: {escaped}: run r1 has spent its carbon budget"
    assert sent["description"].split("\n")[0] == rf"project **{escaped}** · run **r1**"
    assert sent["description"].split("\n")[2] == rf"{escaped}: run r1 emitted 5.2 kg of 5 kg CO₂e."


def test_markup_in_names_means_nothing_to_mail(stack: Told) -> None:
    sent = stack.sent(alert("<script>alert('x')</script> & \"q\"", "r1"))["email"]
    subject = "Critical: <script>alert('x')</script> & \"q\": run r1 has spent its carbon budget"
    assert sent["Subject"] == subject
    assert "<script" not in part(sent, "html")
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &#34;q&#34;" in part(sent, "html")
    assert "\nproject: <script>alert('x')</script> & \"q\"\n" in part(sent, "plain")
    page = Tags()
    page.feed(part(sent, "html"))
    assert page.open == []


def test_a_mail_goes_to_all_recipients_at_once_as_html_and_text(stack: Told) -> None:
    sent = stack.sent(alert("mailed", "r1"))["email"]
    assert sent["To"] == sent["X-Recipients"] == ", ".join(TO)
    assert [one.get_content_type() for one in sent.iter_parts()] == ["text/plain", "text/html"]
    assert len(stack.receivers.got("email")) == 1


def test_pagerduty_gets_an_event_with_severity_details_and_links(stack: Told) -> None:
    event = stack.sent(alert("paged", "r1"))["pagerduty"]
    assert (event["event_action"], event["client"]) == ("trigger", "hf_eco2ai")
    payload = event["payload"]
    assert payload["summary"] == "Critical: paged: run r1 has spent its carbon budget"
    assert (payload["severity"], payload["class"], payload["component"], payload["group"]) == (
        "critical",
        "carbon",
        "CarbonBudgetExceeded",
        "paged",
    )
    assert [(link["text"], link["href"]) for link in event["links"]][:2] == [
        ("Dashboard", "http://localhost:3000/d/hf-carbon-tracking?var-project=x&var-run=y"),
        ("Runbook", RUNBOOK),
    ]
    assert payload["custom_details"] == {
        "firing": (
            "paged: run r1 has spent its carbon budget\nvalue: 5.2 kg CO₂e\nlimit: 5 kg CO₂e\nproject: paged\nrun: r1\n"
            "since 2026-01-02 23:50 UTC\npaged: run r1 emitted 5.2 kg of 5 kg CO₂e.\nWhat to do: Stop it.\n"
            f"Dashboard: http://localhost:3000/d/hf-carbon-tracking?var-project=x&var-run=y\nRunbook: {RUNBOOK}"
        ),
        "resolved": "none",
        "num_firing": "1",
        "num_resolved": "0",
    }


BARE = dict.fromkeys(("summary", "description", "action", "value", "limit", "dashboard_url", "runbook_url"), "")


def test_an_alert_with_nothing_but_a_name_leaves_no_gap(stack: Told) -> None:
    sent = stack.sent(alert(None, None, False, LONG_AGO, "OurOwn", **BARE))
    links = "http://localhost:9093/#/{}?filter=%7Balertname%3D%22OurOwn%22%7D"
    silence, page = links.format("silences/new"), links.format("alerts")
    assert text(sent["slack"]) == f"since 2026-01-02 23:50 UTC\n<{silence}|Silence> · <{page}|Alertmanager>"
    assert sent["discord"]["embeds"][0]["description"] == (
        f"since 2026-01-02 23:50 UTC\n[Silence]({silence}) · [Alertmanager]({page})"
    )
    assert part(sent["email"], "plain") == f"OurOwn\nsince 2026-01-02 23:50 UTC\n\nSilence: {silence}\nAlertmanager: {page}\n"
    assert [link["text"] for link in sent["pagerduty"]["links"]] == ["Silence"]
    assert sent["slack"]["attachments"][0]["title"] == "Critical: OurOwn"
    assert sent["slack"]["attachments"][0]["title_link"] == sent["pagerduty"]["client_url"] == page
    assert "no value" not in str(sent)
    assert not [line for line in part(sent["email"], "html").split("\n") if not line.strip()][1:]  # One, at the end.


def test_of_a_dozen_alerts_ten_are_shown_and_the_others_counted_and_discord_has_room_for_four(stack: Told) -> None:
    since = now()
    sent = stack.sent(*(alert("many", f"r{number:02}", since=since) for number in range(12)))
    assert sent["slack"]["attachments"][0]["title"] == "Critical: 12 × CarbonBudgetExceeded, many"
    discord = sent["discord"]["embeds"][0]["description"]
    for shown, said in (
        (10, text(sent["slack"])),
        (10, part(sent["email"], "plain")),
        (10, part(sent["email"], "html")),
        (10, sent["pagerduty"]["payload"]["custom_details"]["firing"]),
        (4, discord),
    ):
        assert said.count("emitted 5.2 kg") == shown
        assert f"and {12 - shown} more" in said
    assert len(sent["webhook"]["alerts"]) == 12
    assert discord.endswith(")")  # Alertmanager has not cut it at Discord's 4096 characters.


def test_what_is_over_is_told_apart_in_a_message_with_what_goes_on(stack: Told) -> None:
    since = now()
    stack.sent(alert("mixed", "r1", since=since), alert("mixed", "r2", since=since))
    sent = stack.sent(alert("mixed", "r1", over=True, since=since))
    assert sent["slack"]["attachments"][0]["title"] == "Critical: 2 × CarbonBudgetExceeded (1 firing, 1 resolved), mixed"
    lines = text(sent["slack"]).split("\n")
    assert "*mixed: run r2 has spent its carbon budget*" in lines
    assert "*Resolved: mixed: run r1 has spent its carbon budget*" in lines
    assert lines.count("→ Stop it.") == 1
    details = sent["pagerduty"]["payload"]["custom_details"]
    assert (details["num_firing"], details["num_resolved"]) == ("1", "1")
    assert details["resolved"].startswith("Resolved: mixed: run r1")


def test_when_all_is_over_it_is_said_in_green_and_the_incident_is_closed(stack: Told) -> None:
    opened = stack.sent(alert("over", "r1"))
    closed = stack.sent(alert("over", "r1", over=True))
    attachment = closed["slack"]["attachments"][0]
    assert attachment["title"] == "Resolved: over: run r1 has spent its carbon budget"
    assert (opened["slack"]["attachments"][0]["color"], attachment["color"]) == ("#d3302f", "#2e9e5b")
    assert "Silence" not in attachment["text"]
    assert "2026-01-02 23:50 to 2026-01-03 00:10 UTC" in attachment["text"]
    assert closed["email"]["Subject"] == attachment["title"]
    assert closed["pagerduty"]["event_action"] == "resolve"
    assert closed["pagerduty"]["dedup_key"] == opened["pagerduty"]["dedup_key"]
    assert closed["webhook"]["status"] == "resolved"


def test_who_answers_503_gets_it_on_retry_once(stack: Told) -> None:
    stack.receivers.refuse(1)
    stack.sent(alert("retried", "r1"))
    assert {name: stack.receivers.refused(name) for name in ALL} == dict.fromkeys(ALL, 1)
    assert {name: len(stack.receivers.got(name)) for name in ALL} == dict.fromkeys(ALL, 1)


def test_commands_of_the_docs_silence_an_alert_and_end_the_silence(stack: Told) -> None:
    stack.alertmanager.post(alert("llama-finetune", "r1"))
    page = (ROOT / "docs" / "alerting.md").read_text(encoding="utf-8")
    (commands,) = re.findall(r"<!-- run: silences -->\n```sh\n(.*?)```", page, re.DOTALL)
    assert EXTERNAL_URL in commands
    commands = commands.replace(EXTERNAL_URL, stack.alertmanager.url)
    silence, found, end = (commands.index(f"amtool silence {what}") for what in ("add", "query", "expire"))
    url = commands[: commands.index("\n") + 1]
    assert "llama-finetune" not in bash(url + commands[found:end])
    shown = bash(commands[:end])
    assert "CarbonBudgetExceeded" in shown[: shown.index("Comment")]  # Of `alert query`, before that of `silence query`.
    assert "A larger budget is asked for" in shown
    assert stack.alertmanager.state("CarbonBudgetExceeded", project_name="llama-finetune") == "suppressed"
    bash(url + commands[end:])
    assert stack.alertmanager.state("CarbonBudgetExceeded", project_name="llama-finetune") == "active"
    assert silence < found < end


def bash(script: str) -> str:
    done = subprocess.run(["bash", "-eu", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


PAIRS = [(rule, target) for rule in INHIBITIONS for target in rule.targets]


@pytest.mark.parametrize(("rule", "target"), PAIRS, ids=[f"{rule.source}-{target}" for rule, target in PAIRS])
def test_an_alert_that_says_more_silences_the_other_of_the_same_run_and_no_one_elses(
    stack: Told, rule: Inhibition, target: str
) -> None:
    same = {label: f"{target} {label}" for label in rule.equal}
    foreign = {**same, rule.equal[-1]: "another"}
    for name, labels in ((rule.source, same), (target, same), (target, foreign)):
        stack.alertmanager.post({"labels": {"alertname": name, **labels}, "endsAt": "2100-01-01T00:00:00Z"})
    assert stack.alertmanager.state(target, **same) == "suppressed"
    assert stack.alertmanager.state(target, **foreign) == "active"
    assert stack.alertmanager.state(rule.source, **same) == "active"
