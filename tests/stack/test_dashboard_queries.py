"""Every query of every dashboard, against a real Prometheus that has scraped a real run twice."""

import math
import re
import shutil
from collections.abc import Iterator

import pytest

from tests.stack.dashboards import Asked, annotations, asked_by, filled, targets, variables
from tests.stack.watched import NODE_EXPORTER, Watched, watched_run

pytestmark = [
    pytest.mark.trainer,
    pytest.mark.skipif(
        not all(map(shutil.which, ("prometheus", NODE_EXPORTER))),
        reason="apt-get install prometheus prometheus-node-exporter",
    ),
]

EXACT = 1e-11
"""A journal keeps twelve digits."""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with watched_run(tmp_path_factory.mktemp("dashboards")) as made:
        yield made


@pytest.mark.parametrize("asked", [*targets(), *annotations()], ids=str)
def test_every_query_of_every_panel_and_annotation_has_data(asked: Asked, watched: Watched) -> None:
    for chosen in ({}, watched.chosen):
        found = watched.ask(asked, chosen)
        numbers = [float(number) for row in found for _, number in row.get("values", [row.get("value")])]
        assert any(map(math.isfinite, numbers)), filled(asked.expr, chosen)


@pytest.mark.parametrize("name", variables())
def test_every_variable_has_choices(name: str, watched: Watched) -> None:
    expr, label = asked_by(variables()[name])
    for chosen in ({}, watched.chosen):
        series = watched.prometheus.ask("/api/v1/query", query=filled(expr, chosen), time=str(watched.live))["result"]
        assert series
        assert {row["metric"].get(label, "") for row in series} != {""} or not label


def test_runs_are_chosen_by_names_that_people_know(watched: Watched) -> None:
    expr, _ = asked_by(variables()["run"])
    series = watched.prometheus.ask("/api/v1/query", query=filled(expr, {"project": "real"}), time=str(watched.over))["result"]
    assert [row["metric"] for row in series] == [
        {"name": f"real twice tiny {watched.report.identity.run_id}", "run_id": watched.report.identity.run_id}
    ]
    regex = variables()["run"]["regex"].strip("/").replace("?<", "?P<")
    read_by_grafana = re.search(regex, f'{{name="real twice tiny {"f" * 12}",run_id="{"f" * 12}"}} 1 1795000000000')
    assert read_by_grafana is not None
    assert read_by_grafana.groupdict() == {"text": f"real twice tiny {'f' * 12}", "value": "f" * 12}


@pytest.mark.parametrize("uid", ["hf-carbon-tracking", "hf-executive-overview", "hf-run-detail"])
def test_energy_co2_and_cost_are_those_of_the_runs_own_report_though_it_is_scraped_twice(uid: str, watched: Watched) -> None:
    report = watched.report.total
    assert report.cost is not None
    run = f'run_id="{watched.report.identity.run_id}"'
    for job_of in ("hf-eco2ai", "hf-eco2ai-runs"):
        assert watched.prometheus.ask("/api/v1/query", query=f'max_over_time(up{{job="{job_of}"}}[10m])')["result"]
    count = f"count(last_over_time(hf_training_energy_kwh_total{{{run}}}[10m]))"
    ((_, twice),) = [row["value"] for row in watched.prometheus.ask("/api/v1/query", query=count)["result"]]
    assert float(twice) == 2
    for chosen in ({"run": watched.report.identity.run_id}, {"project": "real"}, {"model": "tiny"}):
        shown = {title: watched.values(uid, title, chosen, watched.over) for title in ("Total CO₂e emissions", "Energy", "Cost")}
        assert shown["Energy"] == {(): pytest.approx(report.kwh, rel=EXACT)}
        assert shown["Total CO₂e emissions"] == {("lifecycle",): pytest.approx(report.grams / 1000, rel=EXACT)}
        assert shown["Cost"] == {("EUR",): pytest.approx(report.cost, rel=EXACT)}


def test_all_runs_together_are_the_sum_of_each(watched: Watched) -> None:
    def energy(**chosen: str) -> float:
        return sum(watched.values("hf-carbon-tracking", "Energy", chosen, watched.over).values())

    each = [energy(run=run) for run in (watched.report.identity.run_id, "aaaaaaaaaaaa", "bbbbbbbbbbbb")]
    assert energy() == pytest.approx(sum(each), rel=EXACT)
    assert min(each) > 0
    assert each[1] == pytest.approx((250.3 + 61.7) * 10 / 3.6e6, rel=EXACT), "as the made-up run says"


def test_what_is_not_chosen_is_not_shown(watched: Watched) -> None:
    for chosen in ({"project": "none of that name"}, {"project": "real", "run": "aaaaaaaaaaaa"}, {"host": "nowhere"}):
        for title in ("Total CO₂e emissions", "Energy", "Cost"):
            assert watched.values("hf-carbon-tracking", title, chosen, watched.over) == {}, chosen
