"""The page: what it shows, that nothing of a journal gets through it, and that no figure breaks it."""

import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_eco2ai.outputs import text
from hf_eco2ai.outputs.page import MOST_ROWS, Page, page
from hf_eco2ai.records import BudgetStatus, Device, DeviceStatus, Footprint, HostTotals, Rates, Snapshot, Tariff, TreeUsage
from tests.journal import make
from tests.outputs.asked import app_of, ask
from tests.outputs.recorded import recorded_run


class Elements(HTMLParser):
    """Tags with their attributes, links, and the text of each table row."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.rows: list[str] = []
        self.bars: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name == "href"]
        self.bars += [value or "" for name, value in attrs if tag == "progress" and name == "value"]
        if tag == "tr":
            self.rows.append("")
        if tag not in {"meta", "link"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "tr" in self.open:
            self.rows[-1] += f"{data} "


def run(run_id: str, *, began: float = make.BEGAN, **more: Any) -> Snapshot:
    return make.snapshot(100.0, run=make.identity(run_id, started_unix=began), **more)


def shown(*snapshots: Snapshot, chosen: str | None = None) -> Elements:
    elements = Elements(page(snapshots, chosen).html)
    assert elements.open == []
    return elements


# One run


def test_one_run_is_shown_with_its_figures_and_where_they_come_from() -> None:
    html = page([recorded_run()]).html
    for said in (
        "<h2>llama-finetune</h2>",
        "meta-llama/Llama-3.1-8B · lora · run 0123456789ab · node1 · running, 2.0 s",
        "2,250 J<small>1.23 kW now</small>",
        "80 samples",
        "25.0 % of the steps done, 4.5 s to go",
        "329.65 gCO₂e/kWh lifecycle (DE: Ember via Our World in Data, 2026-06 edition, 2025)",
        "GPU 0 NVIDIA H100 80GB HBM3</th><td>1,200 J, 600 W now; measured: NVML energy counter",
        "2026-11-18 11:08:22 UTC",
    ):
        assert said in html


def test_a_run_that_failed_says_why() -> None:
    assert "failed (out of memory)" in page([run("a", state="failed", end_reason="out_of_memory")]).html


def test_problems_are_shown_where_there_are_any() -> None:
    assert "Problems" not in page([run("a")]).html
    assert "2 × slow_read" in page([run("a", errors=(("slow_read", 2), ("gap", 0)))]).html


def test_without_a_run_the_page_says_so() -> None:
    assert page([]) == Page(page([]).html, found=True)
    assert "No run has been read yet" in page([]).html


def test_a_run_on_two_hosts_is_one_whose_devices_are_told_with_their_host() -> None:
    leader = make.snapshot(100.0, run=make.identity("a", "node1"))
    follower = make.snapshot(50.0, run=make.identity("a", "node2"), leads=False)
    rows = shown(leader, follower).rows
    assert [row.split(":")[0] for row in rows if "NVIDIA" in row] == ["node1", "node2"]
    assert "Host node2 15.6 kJ" not in rows  # Energy is J or Wh.
    assert any(row.startswith("Host node2 4.33 Wh") for row in rows)  # 312 W for 50 s.


# Many runs


def test_many_runs_are_a_table_live_ones_first_then_the_newest() -> None:
    table = shown(
        run("old-live", began=1.0),
        run("old", began=2.0, state="ended"),
        run("new-live", began=3.0),
        run("new", began=4.0, state="lost"),
    )
    assert [re.findall(r"(?:old|new)(?:-live)?", row)[0] for row in table.rows[1:]] == ["new-live", "old-live", "new", "old"]


def test_a_row_has_the_figures_of_its_run() -> None:
    """312 W for 100 s: 8.67 Wh; 142 of 1,000 steps."""
    row = shown(run("a"), run("b", state="ended")).rows[1]
    for said in (
        "llama-finetune",
        "meta-llama/Llama-3.1-8B",
        "a ",
        "node1",
        "running",
        "8.67 Wh",
        "3.3 g",
        "EUR",
        "312 W",
        "14.2 %",
    ):
        assert said in row
    assert "2026-11-18" in row


def test_the_power_of_all_that_run_is_summed() -> None:
    assert "3 runs, 2 of them running at 624 W." in page([run("a"), run("b"), run("c", state="ended", rates=None)]).html
    assert "2 runs, none of them running." in page([run("a", state="ended"), run("b", state="ended")]).html


def test_no_more_than_200_runs_are_shown_and_where_the_others_are() -> None:
    table = page([run(f"r{n}") for n in range(1000)]).html
    assert table.count("<tr>") == MOST_ROWS + 1 == 201
    assert 'And 800 more, at <a href="/api/v1/runs">' in table


@pytest.mark.parametrize("run_id", ["a/b", "<script>", "a&run=b", '"', "%2F", " ", "#", "é", "\u202e", "\ud800", "\n", "+", ""])
def test_each_row_leads_to_its_run_whatever_its_id(run_id: str) -> None:
    app = app_of(run(run_id, began=5.0), run("other"))
    link = Elements(ask(app, "/").text).links[4]
    assert re.fullmatch(r"/\?run=[A-Za-z0-9%_.~-]*", link)
    response = ask(app, link)
    assert response.status_code == 200
    assert Elements(response.text).tags.count("section") == 1
    assert 'href="/">All runs' in response.text


def test_an_unknown_run_is_a_404_that_leads_back() -> None:
    response = ask(app_of(run("a")), "/?run=<script>alert(1)</script>")
    assert (response.status_code, response.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "There is no run &lt;script&gt;" in response.text
    assert '<a href="/">These runs</a>' in response.text


# What a browser may do with it


def test_it_refreshes_itself_and_loads_nothing() -> None:
    for elements in (shown(), shown(recorded_run()), shown(run("a"), run("b"))):
        assert elements.tags.count("meta") == 3
        assert not {"script", "img", "link", "iframe", "form", "object"} & set(elements.tags)
        assert not [name for name in elements.attributes if name.startswith("on") or name in {"src", "style"}]
        assert not [link for link in elements.links if not link.startswith("/") or link.startswith("//")]
    assert '<meta http-equiv="refresh" content="5">' in page([]).html


@pytest.mark.parametrize("path", ["/", "/?run=a", "/?run=unknown"])
def test_the_policy_lets_a_browser_use_the_pages_own_style_and_nothing_else(path: str) -> None:
    response = ask(app_of(run("a"), run("b")), path)
    found = re.search(r"<style>(.*?)</style>", response.text, re.DOTALL)
    assert found is not None
    digest = b64encode(sha256(found[1].encode()).digest()).decode()
    assert response.headers["content-security-policy"] == (
        f"default-src 'none'; style-src 'sha256-{digest}'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )


def test_it_has_colours_for_dark_and_a_layout_for_narrow_screens() -> None:
    html = page([]).html
    assert "prefers-color-scheme: dark" in html
    assert "@media (max-width:" in html
    assert 'name="viewport"' in html


# Forged journals

NAMES = (
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onload='x", "</td></tr></table>", "</style><style>*{}",
    "\u202egnihtemos\u2066", "\x1b[2J\x00\x07", "two\nlines\u2028", "\ud800", "é" * 10_000, "e" + "\u0301" * 5000, "", "   ",
    "&lt;b&gt;", "{0}", "%s%n", "]]>", "<!--",
)  # fmt: skip


def named(name: str) -> Snapshot:
    """Everything that is text, and that a journal may choose, is that name."""
    who = make.identity(name, name, project_name=name, model_name=name, experiment_name=name, parent=name)
    device = Device(host=name, uuid=name, component="gpu", basis="measured", source=name, index=name, model=name, note=name)
    return replace(
        run("x"),
        identity=who,
        devices=(DeviceStatus(device, 1.0, 1.0, ("counter",), 1.0, None, None),),
        factor=replace(make.GERMANY, source=name, country=name, region=name, licence=name),
        tariff=Tariff(0.25, 3.6, name),
        elsewhere=(HostTotals(name + "2", Footprint(1.0, 1.0)),),
        budgets=(BudgetStatus("cost", 1.0, 2.0),),
    )


def assert_harmless(elements: Elements, html: str) -> None:
    assert set(elements.tags) <= {
        "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "p", "a", "section", "dl", "div", "dt", "dd",
        "small", "table", "thead", "tbody", "tr", "th", "td", "span", "progress",
    }  # fmt: skip
    assert elements.attributes <= {
        "lang", "charset", "name", "content", "http-equiv", "class", "href", "max", "value", "data-name",
    }  # fmt: skip
    assert [c for c in html if not c.isprintable() and c != "\n"] == []
    html.encode()


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_no_name_gets_through_unescaped_or_moves_anything(name: str) -> None:
    plain, other = shown(named("plain")), shown(named("plain"), run("b"))
    for expected, snapshots in ((plain, [named(name)]), (other, [named(name), run("b")])):
        html = page(snapshots).html
        elements = Elements(html)
        assert_harmless(elements, html)
        assert elements.open == []
        assert elements.tags.count("td") == expected.tags.count("td")
        assert elements.tags.count("style") == 1
        assert len(html) < 30_000


@settings(deadline=None, max_examples=50)
@given(make.hostile_text)
def test_no_text_at_all_gets_through_unescaped(name: str) -> None:
    for snapshots in ([named(name)], [named(name), run("b")]):
        html = page(snapshots).html
        assert_harmless(Elements(html), html)


FIGURES = (float("nan"), float("inf"), float("-inf"), 1e308, -1e308, 5e-324, -5.0, 0.0)


@pytest.mark.parametrize("figure", FIGURES)
def test_no_figure_breaks_the_page(figure: float) -> None:
    base = run("a")
    total = Footprint(figure, figure, figure, figure)
    forged = replace(
        base,
        attempt=replace(base.attempt, total=total, wasted=total, phase_seconds=(("train", figure),)),
        updated_unix=figure,
        rates=Rates(figure, figure, figure),
        pue=figure,
        observed_ratio=figure,
        progress=base.progress._replace(ratio=figure, eta_seconds=figure, steps=10**400, samples=-(10**400)),
        factor=replace(base.factor, grams_per_kwh=figure),
        budgets=(BudgetStatus("carbon", figure, figure), BudgetStatus("energy", 0.0, figure), BudgetStatus("cost", 1.0, figure)),
        devices=tuple(status._replace(joules=figure, watts=figure) for status in base.devices),
    )
    for snapshots in ([forged], [forged, run("b")]):
        elements = shown(*snapshots)
        assert len(page(snapshots).html) < 20_000
        assert not [row for row in elements.rows if re.search(r"\b(nan|inf)\b", row)]
        assert all(0 <= float(value) <= 1 for value in elements.bars)


@settings(deadline=None)
@given(
    st.floats() | st.sampled_from(FIGURES),
    st.floats() | st.sampled_from(FIGURES),
    st.integers() | st.sampled_from([10**400, -(10**4300)]),
)
def test_every_figure_can_be_said(one: float, other: float, number: int) -> None:
    euro = Tariff(currency="EUR")
    said = [
        text.energy(one), text.energy(one, like=other), text.mass(one), text.power(one), text.duration(one), text.percent(one),
        text.money(one, euro), text.instant(one), text.count(number), text.footprint(Footprint(one, other, one, other), euro),
        text.budget(BudgetStatus("carbon", one, other), euro), text.factor(replace(make.GERMANY, grams_per_kwh=one)),
        text.tree(TreeUsage(one, 1, 1, abs(number), abs(number))), text.wasted(Footprint(one, other)),
    ]  # fmt: skip
    assert all(len(each) < 150 and not re.search(r"\b(nan|inf)\b", each) for each in said)


def test_what_is_no_number_is_a_dash() -> None:
    for figure in (float("nan"), float("inf")):
        assert {text.energy(figure), text.duration(figure), text.percent(figure), text.money(figure, Tariff())} == {"-"}
    assert text.energy(1e308) == "2.78e+298 MWh"
    assert text.instant(1e300) == "-"
    assert text.count(12_345) == "12,345"
