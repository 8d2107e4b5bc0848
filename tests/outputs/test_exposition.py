"""What `/metrics` says, and that it is what was promised."""

import math
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics import exposition as as_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector

from hf_eco2ai.outputs.exposition import Exposition
from hf_eco2ai.outputs.labels import LabelRules
from hf_eco2ai.outputs.metrics import METRICS, SCOPE_LABELS, Metric, exposed_name
from hf_eco2ai.outputs.report import Report
from hf_eco2ai.records import (
    BudgetStatus,
    DeviceTotals,
    Footprint,
    GridFactor,
    HostTotals,
    Progress,
    RunState,
    Snapshot,
    StepHistogram,
    TreeUsage,
)
from tests.journal.make import any_run, host_totals, identity, snapshot
from tests.outputs.recorded import JOULES, recorded_run

CONTRACT = {
    "hf_training_co2_kg_total": {"project_name", "model_name"},
    "hf_training_co2_rate_kg_per_hour": {"project_name"},
    "hf_training_grid_carbon_intensity_g_per_kwh": {"country", "region"},
    "hf_training_carbon_budget_kg": {"project_name"},
    "hf_training_carbon_budget_remaining_kg": {"project_name"},
    "hf_training_energy_kwh_total": {"project_name", "model_name"},
    "hf_training_energy_rate_kwh_per_hour": {"project_name"},
    "hf_training_gpu_power_watts": {"gpu_id", "gpu_model"},
    "hf_training_cpu_power_watts": set(),
    "hf_training_samples_per_kwh": {"project_name"},
    "hf_training_loss": {"project_name", "model_name"},
    "hf_training_eval_loss": {"project_name", "model_name"},
    "hf_training_learning_rate": {"project_name"},
    "hf_training_step_count": {"project_name"},
    "hf_training_epoch_count": {"project_name"},
    "hf_training_samples_per_second": {"project_name"},
    "hf_training_efficiency_score": {"project_name"},
    "hf_training_gpu_temperature_celsius": {"gpu_id", "gpu_model"},
    "hf_training_gpu_memory_usage_bytes": {"gpu_id", "gpu_model"},
    "hf_training_gpu_memory_total_bytes": {"gpu_id", "gpu_model"},
    "hf_training_gpu_memory_usage_percent": {"gpu_id", "gpu_model"},
    "hf_training_gpu_utilization_percent": {"gpu_id", "gpu_model"},
    "hf_training_gpu_count": set(),
    "hf_training_estimated_cost_usd": {"project_name", "currency"},
    "hf_training_cost_rate_usd_per_hour": {"project_name"},
    "hf_training_energy_cost_usd": {"project_name"},
    "hf_training_compute_cost_usd": {"project_name"},
    "hf_training_last_update_timestamp": set(),
    "hf_training_plugin_version_info": {"version", "commit"},
    "hf_training_monitoring_errors_total": {"error_type"},
    "hf_training_network_latency_ms": {"target"},
}
"""The 31 families of the monitoring guide and the labels that it gives them (`instance` is Prometheus' own)."""

NETWORK_ONLY = "hf_training_network_latency_ms"


def text_of(*snapshots: Snapshot, openmetrics: bool = False, rules: LabelRules | None = None) -> str:
    return Exposition(lambda: snapshots, rules or LabelRules()).render(openmetrics=openmetrics).decode()


def samples(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in parse_text(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def value(text: str, name: str, **labels: str) -> float:
    matching = [number for given, number in samples(text)[name] if labels.items() <= given.items()]
    assert len(matching) == 1, matching
    return matching[0]


def test_the_exposition_of_a_recorded_run_is_the_golden_file(golden: Callable[[str, str], None]) -> None:
    golden("metrics.txt", text_of(recorded_run()))


def test_the_report_of_a_recorded_run_is_the_golden_file(golden: Callable[[str, str], None]) -> None:
    golden("report.txt", str(Report(recorded_run())) + "\n")


def test_every_family_of_the_guide_is_exposed_with_its_labels() -> None:
    found = samples(text_of(recorded_run()))
    for name, labels in CONTRACT.items():
        if name != NETWORK_ONLY:
            assert all(labels <= given.keys() for given, _ in found[name]), name
    assert len(CONTRACT) == 31
    assert CONTRACT.keys() <= {exposed_name(metric) for metric in METRICS}


def test_instance_is_left_to_prometheus() -> None:
    assert all("instance" not in labels for rows in samples(text_of(recorded_run())).values() for labels, _ in rows)


def test_the_figures_are_those_worked_out_by_hand() -> None:
    text = text_of(recorded_run())
    kwh = JOULES / 3.6e6
    assert value(text, "hf_training_energy_kwh_total") == pytest.approx(kwh)
    assert value(text, "hf_training_co2_kg_total", factor_type="lifecycle") == pytest.approx(kwh * 1.2 * 329.65 / 1000)
    assert value(text, "hf_training_energy_cost_usd", currency="EUR") == pytest.approx(kwh * 1.2 * 0.25)
    assert value(text, "hf_training_compute_cost_usd") == pytest.approx(2 * 2 / 3600 * 3.6)
    assert value(text, "hf_training_device_energy_joules_total", device="GPU-aaaa", basis="measured") == pytest.approx(1200)
    assert value(text, "hf_training_device_energy_joules_total", device="GPU-bbbb") == pytest.approx(800)
    assert value(text, "hf_training_device_energy_joules_total", basis="modelled") == pytest.approx(50.176)
    assert value(text, "hf_training_step_count") == 10
    assert value(text, "hf_training_samples_total") == 80
    assert value(text, "hf_training_joules_per_token") == pytest.approx(JOULES / 10240)
    assert value(text, "hf_training_carbon_budget_remaining_kg") == pytest.approx(5 - kwh * 1.2 * 329.65 / 1000)
    assert value(text, "hf_training_budget_used_ratio", budget="carbon", scope="run", period="none") == pytest.approx(
        kwh * 1.2 * 329.65 / 1000 / 5
    )
    assert value(text, "hf_training_wasted_energy_joules_total") == 0
    assert value(text, "hf_training_cpu_power_watts") == pytest.approx(100)
    assert value(text, "hf_training_energy_rate_kwh_per_hour") == pytest.approx((600 + 500 + 100 + 25.088) / 1000)
    assert value(text, "hf_training_grid_carbon_intensity_info", year="2025", assumed="false") == 1


def test_the_first_half_second_of_power_is_set_up_and_the_rest_is_training() -> None:
    text = text_of(recorded_run())
    # GPU-bbbb rises from 100 W to 500 W within the first second, so its first half second is (100+300)/2/2 = 100 J.
    set_up = 600 / 2 + 100 + 100 / 2 + 25.088 / 2
    assert value(text, "hf_training_phase_energy_joules_total", phase="setup") == pytest.approx(set_up)
    assert value(text, "hf_training_phase_energy_joules_total", phase="train") == pytest.approx(JOULES - set_up)


def test_openmetrics_parsers_accept_the_exposition_and_read_the_same_figures() -> None:
    text = text_of(recorded_run(), openmetrics=True)
    families = {family.name: family for family in parse_openmetrics(text)}  # type: ignore[no-untyped-call]
    assert families["hf_training_step_count"].type == "unknown"
    assert families["hf_training_energy_kwh"].samples[0].value == pytest.approx(JOULES / 3.6e6)
    assert not [sample for family in families.values() for sample in family.samples if sample.name.endswith("_created")]


def test_promtool_complains_only_of_names_that_the_guide_has_fixed() -> None:
    run = replace(recorded_run(), network_seconds=(("electricitymaps", 0.12),))
    said = subprocess.run(["promtool", "check", "metrics"], input=text_of(run).encode(), capture_output=True, check=False)
    complaints = set((said.stdout + said.stderr).decode().splitlines())
    accepted = {
        'hf_training_gpu_count non-histogram and non-summary metrics should not have "_count" suffix',
        'hf_training_network_latency_ms use base unit "seconds" instead of "milliseconds"',
        "hf_training_network_latency_ms metric names should not contain abbreviated units",
    }
    assert complaints <= accepted


def test_a_gauge_without_a_value_is_absent_and_a_counter_starts_at_zero() -> None:
    nothing_yet = replace(
        recorded_run(),
        attempt=HostTotals("node1", grams_by_factor_type=(("lifecycle", 0.0),)),
        devices=(),
        gpu_count=0,
        cpu_watts=(),
        rates=None,
        progress=Progress(),
        forecast=None,
        budgets=(),
        efficiency_score=None,
        observed_ratio=None,
    )
    found = samples(text_of(nothing_yet))
    assert found["hf_training_energy_kwh_total"][0][1] == 0
    assert found["hf_training_step_count"][0][1] == 0
    for name in (
        "loss",
        "carbon_budget_kg",
        "carbon_budget_remaining_kg",
        "budget_used_ratio",
        "estimated_cost_usd",
        "samples_per_kwh",
        "cpu_power_watts",
        "gpu_power_watts",
        "journal_bytes_total",
        "process_cpu_seconds_total",
        "processes",
    ):
        assert f"hf_training_{name}" not in found
    assert found["hf_training_gpu_count"][0][1] == 0


def test_a_loss_that_is_nan_stays_nan() -> None:
    run = recorded_run()
    text = text_of(replace(run, progress=run.progress._replace(loss=math.nan)))
    assert math.isnan(value(text, "hf_training_loss"))


def test_two_runs_on_one_host_show_a_device_once_and_their_energies_apart() -> None:
    first = recorded_run()
    second = replace(first, identity=replace(first.identity, run_id="ba9876543210"))
    found = samples(text_of(first, second))
    assert len(found["hf_training_gpu_power_watts"]) == 2
    assert len(found["hf_training_grid_carbon_intensity_g_per_kwh"]) == 1
    assert len(found["hf_training_energy_kwh_total"]) == 2


def test_projects_beyond_max_projects_are_called_other() -> None:
    first = recorded_run()
    runs = [replace(first, identity=replace(first.identity, run_id=f"run{i}", project_name=f"project{i}")) for i in range(4)]
    found = samples(text_of(*runs, rules=LabelRules(max_projects=2)))
    assert [labels["project_name"] for labels, _ in found["hf_training_step_count"]] == ["project0", "project1", "other", "other"]


def test_hostile_names_cannot_break_the_exposition() -> None:
    first = recorded_run()
    evil = 'a"b\\c\nhf_training_fake 1\u202e\x00' + "x" * 10_000
    run = replace(first, identity=replace(first.identity, project_name=evil, model_name=evil, experiment_name=evil))
    text = text_of(run)
    found = samples(text)
    assert "hf_training_fake" not in found
    label = found["hf_training_running"][0][0]["project_name"]
    assert len(label) <= 128
    assert "\n" not in label
    assert "\u202e" not in label


def test_the_factor_type_stands_on_every_carbon_family() -> None:
    run = replace(recorded_run(), factor=GridFactor(179.06, "direct", "US EPA eGRID2023 rev 2", "US", "CA", 2023))
    text = text_of(run)
    for name in ("co2_rate_kg_per_hour", "grid_carbon_intensity_g_per_kwh", "predicted_co2_kg"):
        assert value(text, f"hf_training_{name}", factor_type="direct") > 0


def before(host: str, joules: float, wasted: float = 0.0) -> HostTotals:
    """What a host had used before: on one GPU, at 0.50 a joule, in training."""
    total = Footprint(joules, 2 * joules, joules / 2)
    return HostTotals(
        host,
        total,
        Footprint(wasted),
        (("direct", 2 * joules),),
        (("train", total),),
        (("train", 10.0),),
        (DeviceTotals("GPU-aaaa" if host == "node1" else "GPU-zzzz", "gpu", "measured", joules, 10.0),),
    )


def by_host(text: str, name: str, **labels: str) -> dict[str, float]:
    matching = [(given["host"], number) for given, number in samples(text)[name] if labels.items() <= given.items()]
    assert len(dict(matching)) == len(matching), matching
    return dict(matching)


def test_a_run_that_goes_on_shows_the_totals_of_its_host_with_what_it_had_used_before_and_those_of_hosts_that_have_left() -> None:
    run = replace(recorded_run(), inherited=(before("node1", 1000.0, wasted=300.0), before("gone", 500.0, wasted=100.0)))
    text, recorded = text_of(run), text_of(recorded_run())

    assert by_host(text, "hf_training_energy_kwh_total") == pytest.approx({"node1": (JOULES + 1000) / 3.6e6, "gone": 500 / 3.6e6})
    assert by_host(text, "hf_training_co2_kg_total", factor_type="direct") == pytest.approx({"node1": 2.0, "gone": 1.0})
    assert by_host(text, "hf_training_co2_kg_total", factor_type="lifecycle") == pytest.approx(
        {"node1": JOULES / 3.6e6 * 1.2 * 329.65 / 1000}
    )
    energy_cost = JOULES / 3.6e6 * 1.2 * 0.25
    assert by_host(text, "hf_training_energy_cost_usd") == pytest.approx({"node1": energy_cost + 500, "gone": 250.0})
    assert by_host(text, "hf_training_estimated_cost_usd") == pytest.approx({"node1": energy_cost + 0.004 + 500, "gone": 250.0})
    assert by_host(text, "hf_training_device_energy_joules_total", device="GPU-aaaa") == pytest.approx({"node1": 1200.0 + 1000})
    assert by_host(text, "hf_training_device_energy_joules_total", device="GPU-zzzz") == pytest.approx({"gone": 500.0})
    assert by_host(text, "hf_training_wasted_energy_joules_total") == {"node1": 300.0, "gone": 100.0}
    trained = by_host(recorded, "hf_training_phase_energy_joules_total", phase="train")["node1"]
    assert by_host(text, "hf_training_phase_energy_joules_total", phase="train") == pytest.approx(
        {"node1": trained + 1000, "gone": 500.0}
    )
    # What is of the whole run counts all of it, and what happens now is as it was.
    assert value(text, "hf_training_joules_per_sample") == pytest.approx((JOULES + 1500) / 80)
    for name in ("energy_rate_kwh_per_hour", "gpu_count", "observed_ratio", "cpu_power_watts"):
        assert value(text, f"hf_training_{name}") == value(recorded, f"hf_training_{name}")


def test_a_host_of_the_run_that_measures_itself_is_not_shown_by_the_leading_process_but_counts_in_the_whole_run() -> None:
    run = replace(recorded_run(), inherited=(before("node2", 500.0),), elsewhere=(before("node2", 700.0),))
    text = text_of(run)

    assert by_host(text, "hf_training_energy_kwh_total") == pytest.approx({"node1": JOULES / 3.6e6})
    assert value(text, "hf_training_samples_per_kwh") == pytest.approx(80 / (JOULES + 1200) * 3.6e6)


def test_a_process_that_does_not_lead_shows_its_host_and_nothing_of_the_whole_run() -> None:
    text = text_of(replace(recorded_run(), leads=False, inherited=(before("node1", 1000.0), before("gone", 500.0))))
    found = samples(text)

    assert by_host(text, "hf_training_energy_kwh_total") == pytest.approx({"node1": (JOULES + 1000) / 3.6e6})
    assert found["hf_training_observed_ratio"]
    assert found["hf_training_gpu_power_watts"]
    of_the_run = {metric.name for metric in METRICS if metric.scope == "run"}
    assert {"hf_training_step_count", "hf_training_run_state", "hf_training_loss"} <= of_the_run
    assert not [name for name in found if name.removesuffix("_bucket").removesuffix("_sum") in of_the_run]


@pytest.mark.parametrize("state", ["running", "ended", "failed", "lost"])
def test_a_run_is_in_just_one_state(state: RunState) -> None:
    found = samples(text_of(replace(recorded_run(), state=state)))

    assert {labels["state"]: number for labels, number in found["hf_training_run_state"] if number} == {state: 1}
    assert found["hf_training_running"][0][1] == (state == "running")


def test_every_budget_has_its_share_and_only_the_carbon_budget_the_families_of_the_guide() -> None:
    budgets = (
        BudgetStatus("energy", 10.0, 2.5, scope="project", period="day"),
        BudgetStatus("carbon", 4.0, 5.0, scope="project", period="day"),
        BudgetStatus("cost", 100.0, 1.0, scope="project", period="day"),
    )
    text = text_of(replace(recorded_run(), budgets=budgets))
    found = samples(text)["hf_training_budget_used_ratio"]

    assert {labels["budget"]: number for labels, number in found} == {"energy": 0.25, "carbon": 1.25, "cost": 0.01}
    assert {(labels["scope"], labels["period"]) for labels, _ in found} == {("project", "day")}
    assert value(text, "hf_training_carbon_budget_kg") == 4.0
    assert value(text, "hf_training_carbon_budget_remaining_kg") == -1.0

    without_carbon = samples(text_of(replace(recorded_run(), budgets=budgets[:1])))
    assert "hf_training_carbon_budget_kg" not in without_carbon
    assert len(without_carbon["hf_training_budget_used_ratio"]) == 1


def test_what_only_some_runs_have_is_shown_where_it_is_there() -> None:
    usage = TreeUsage(cpu_seconds=12.5, processes=3, rss_bytes=10**6, peak_processes=5, peak_rss_bytes=2 * 10**6)
    text = text_of(replace(recorded_run(), journal_bytes=4096, tree=usage))

    assert value(text, "hf_training_journal_bytes_total") == 4096
    assert value(text, "hf_training_process_cpu_seconds_total") == 12.5
    assert value(text, "hf_training_processes") == 3


# As prometheus_client would say it


def openmetrics_of(registry: CollectorRegistry) -> bytes:
    encode: Callable[[CollectorRegistry], bytes] = as_openmetrics.generate_latest
    return encode(registry)


class Reference(Collector):
    """The same families made one sample at a time, as slowly as you like."""

    def __init__(self, snapshots: Sequence[Snapshot], rules: LabelRules) -> None:
        self.snapshots = snapshots
        self.rules = rules
        oldest_first = sorted(snapshots, key=lambda s: s.identity.started_unix)
        projects = rules.projects(s.identity.project_name for s in oldest_first)
        self.projects = {s.identity.run_id: projects[s.identity.project_name] for s in reversed(snapshots)}
        """By run: as its newest process says."""

    def describe(self) -> list[Family]:
        return []

    def collect(self) -> Iterator[Family]:
        for metric in METRICS:
            yield self.family(metric)

    def family(self, metric: Metric) -> Family:
        kind = "unknown" if metric.kind == "untyped" else metric.kind
        family = Family(metric.name.removesuffix("_total"), metric.help, kind)
        found: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[float, float]] = {}
        for s in self.snapshots:
            for name, labels, number in self.samples(metric, s):
                key, known = (name, labels), found.get((name, labels))
                newer = known is not None and metric.scope in {"device", "exporter"} and s.updated_unix > known[1]
                higher = known is not None and metric.scope == "totals" and number > known[0]
                if known is None or newer or higher:
                    found[key] = number, s.updated_unix
        for (name, labels), (number, _) in found.items():
            family.add_sample(name, dict(labels), number)
        return family

    def samples(self, metric: Metric, s: Snapshot) -> Iterator[tuple[str, tuple[tuple[str, str], ...], float]]:
        if metric.scope == "run" and not s.leads:
            return
        names = (*metric.labels, *SCOPE_LABELS[metric.scope])
        for values, number in metric.samples(s):
            if metric.kind == "counter" and not number >= 0:
                continue
            given = (*values, *(getattr(s.identity, name) for name in SCOPE_LABELS[metric.scope]))
            labels = {name: self.label(name, said, s) for name, said in zip(names, given, strict=True)}
            for name in self.sample_names(metric, labels.get("le", "")):
                kept = labels if name.endswith("_bucket") else {key: said for key, said in labels.items() if key != "le"}
                yield name, tuple(kept.items()), float(number)

    def sample_names(self, metric: Metric, bound: str) -> list[str]:
        if metric.kind != "histogram":
            return [exposed_name(metric)]
        if bound == "sum":
            return [f"{metric.name}_sum"]
        return [f"{metric.name}_bucket", *([f"{metric.name}_count"] if bound == "+Inf" else [])]

    def label(self, name: str, said: str, s: Snapshot) -> str:
        if name == "project_name":
            return self.projects[s.identity.run_id]
        clean = {"model_name": self.rules.model, "run_id": self.rules.identity}.get(name, self.rules.clean)
        return clean(said)


def usable(snapshots: Sequence[Snapshot], rules: LabelRules) -> list[Snapshot]:
    """Those that can be shown at all."""
    left_out: list[int] = []
    Exposition(lambda: snapshots, rules, unusable=lambda s, _error: left_out.append(id(s))).render()
    return [s for s in snapshots if id(s) not in left_out]


any_rules = st.builds(LabelRules, st.integers(1, 3), st.booleans(), st.just(True))
any_snapshots = st.lists(any_run().map(lambda made: made[1]), max_size=3)
slowly = settings(
    deadline=None,
    max_examples=30,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # To make such runs smaller takes minutes.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@slowly
@given(any_snapshots, any_rules)
def test_it_is_byte_by_byte_what_prometheus_client_makes_of_the_same_samples(runs: list[Snapshot], rules: LabelRules) -> None:
    groups: dict[str, list[Snapshot]] = {}
    for s in usable(runs, rules):
        groups.setdefault(s.identity.run_id, []).append(s)
    together = [s for group in groups.values() for s in group]
    reference = Reference(together, rules)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(reference)
    exposition = Exposition(lambda: together, rules)
    assert exposition.render().decode().split("\n") == generate_latest(registry).decode().split("\n")
    assert exposition.render(openmetrics=True) == openmetrics_of(registry)
    lines = [line for line in exposition.render().decode().split("\n") if line and not line.startswith("#")]
    assert exposition.series == len(lines)


def test_families_of_a_registry_come_after_all_others_and_the_end_is_the_end_just_once() -> None:
    registry = CollectorRegistry()
    Gauge("hf_exporter_up", "Said by the exporter.", registry=registry).set(1)
    Counter("hf_exporter_looks", "Counted by the exporter.", registry=registry).inc(3)
    exposition = Exposition(lambda: [recorded_run()], LabelRules(), registry)
    alone = Exposition(lambda: [recorded_run()], LabelRules())
    text, openmetrics = exposition.render(), exposition.render(openmetrics=True)
    assert text == alone.render() + generate_latest(registry)
    assert openmetrics == alone.render(openmetrics=True).removesuffix(b"# EOF\n") + openmetrics_of(registry)
    for whole in (openmetrics, alone.render(openmetrics=True)):
        assert whole.endswith(b"\n# EOF\n")
        assert whole.count(b"# EOF") == 1
    assert b"# EOF" not in text
    families = {family.name for family in parse_openmetrics(openmetrics.decode())}  # type: ignore[no-untyped-call]
    assert {"hf_exporter_up", "hf_exporter_looks", "hf_training_energy_kwh"} <= families
    assert exposition.series == alone.series


def test_nothing_to_show_is_an_exposition_too() -> None:
    text = text_of()
    assert not samples(text)
    assert text.count("# TYPE") == len(METRICS)
    assert text_of(openmetrics=True).endswith("# EOF\n")


# What it remembers


changes = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["new", "same", "go", "host"]), st.integers(0, 5)), max_size=12)


@settings(deadline=None, max_examples=60)
@given(changes, st.booleans())
def test_what_it_remembers_changes_nothing_of_what_it_says(done: list[tuple[int, str, int]], run_label: bool) -> None:
    rules = LabelRules(max_projects=9, run_label=run_label)
    served: dict[tuple[int, str], Snapshot] = {}
    exposition = Exposition(lambda: list(served.values()), rules)
    for number, (who, what, many) in enumerate(done):
        seconds = 10.0 + number
        if what == "go":
            served = {key: s for key, s in served.items() if key[0] != who}
        elif what in {"new", "host"}:
            host = "node2" if what == "host" else "node1"
            run = identity(f"r{who}", host, project_name=f"p{who % 3}")
            served[who, host] = snapshot(seconds, gpus=many, run=run, leads=host == "node1")
        fresh = Exposition(list(served.values()).copy, rules)
        assert exposition.render() == fresh.render()
        assert exposition.render(openmetrics=True) == fresh.render(openmetrics=True)
        assert exposition.series == fresh.series


def test_a_run_that_has_not_changed_is_not_put_into_words_again() -> None:
    """Were it, the figures that cannot be shown would be told of again."""
    bad = replace(recorded_run(), budgets=(BudgetStatus("carbon", 0.0, 1.0),))
    good = replace(bad, identity=replace(bad.identity, run_id="good"), budgets=())
    told: list[str] = []
    served = [bad, good]
    exposition = Exposition(
        lambda: served, LabelRules(), unusable=lambda s, error: told.append(f"{s.identity.run_id} {type(error).__name__}")
    )
    for _ in range(3):
        assert {labels["run_id"] for labels, _ in samples(exposition.render().decode())["hf_training_running"]} == {"good"}
    assert told == ["0123456789ab ZeroDivisionError"]
    served[0] = replace(bad, updated_unix=bad.updated_unix + 1)
    exposition.render()
    assert len(told) == 2
    with pytest.raises(ZeroDivisionError):
        text_of(bad)


# Whose figure it is


def test_runs_whose_ids_look_alike_once_they_are_cleaned_stay_apart() -> None:
    ids = ["a", "a\n", "a\u200b", " a", "", "\n", "x" * 200, "x" * 201]
    runs = [replace(recorded_run(), identity=replace(recorded_run().identity, run_id=run_id)) for run_id in ids]
    found = samples(text_of(*runs))["hf_training_step_count"]
    assert len({labels["run_id"] for labels, _ in found}) == len(found) == len(ids)


@slowly
@given(st.lists(any_run().map(lambda made: made[1]), min_size=2, max_size=3), st.booleans(), st.booleans())
def test_no_series_is_ever_there_twice(runs: list[Snapshot], run_label: bool, cleanup: bool) -> None:
    rules = LabelRules(max_projects=1, label_cleanup_enabled=cleanup, run_label=run_label)
    alike = [
        replace(s, identity=replace(s.identity, run_id=name)) for s, name in zip(runs, ("a", "a\n", "a\u200b"), strict=False)
    ]
    for served in (runs, [*runs, *alike]):
        text = Exposition(lambda served=served: served, rules, unusable=lambda _s, _error: None).render().decode()  # type: ignore[misc]
        series = [line.rpartition(" ")[0] for line in text.split("\n") if line and not line.startswith("#")]
        assert len(series) == len(set(series))


def with_watts(s: Snapshot, watts: float, at: float) -> Snapshot:
    return replace(s, updated_unix=at, devices=tuple(status._replace(watts=watts) for status in s.devices))


def test_of_a_device_that_runs_share_the_newest_reading_is_shown_on_whichever_host_it_is() -> None:
    """The first run was heard last on node1, but the second one on node2."""
    first1, first2 = (snapshot(10.0, run=identity("first", host), leads=host == "node1") for host in ("node1", "node2"))
    second = snapshot(10.0, run=identity("second", "node2"))
    runs = [with_watts(first1, 100.0, 30.0), with_watts(first2, 200.0, 10.0), with_watts(second, 300.0, 20.0)]
    for order in (runs, runs[::-1]):
        found = samples(text_of(*order))["hf_training_gpu_power_watts"]
        assert {labels["host"]: watts for labels, watts in found} == {"node1": 100.0, "node2": 300.0}


def test_projects_keep_their_names_as_runs_come_and_go_and_the_first_ones_come_first_after_a_restart() -> None:
    rules = LabelRules(max_projects=2)
    runs = [snapshot(10.0, run=identity(f"r{n}", project_name=f"p{n}", started_unix=100.0 + n)) for n in range(4)]
    served = runs[:3]
    exposition = Exposition(lambda: served, rules)

    def shown(text: bytes) -> dict[str, str]:
        return {labels["run_id"]: labels["project_name"] for labels, _ in samples(text.decode())["hf_training_step_count"]}

    assert shown(exposition.render()) == {"r0": "p0", "r1": "p1", "r2": "other"}
    served = runs[1:]
    assert shown(exposition.render()) == {"r1": "p1", "r2": "other", "r3": "p3"}
    served = runs[::-1]  # As a folder is followed: the newest first.
    assert shown(Exposition(lambda: served, rules).render()) == {"r0": "p0", "r1": "p1", "r2": "other", "r3": "other"}


# What a counter must not do


def used(joules: float, before: float = 0.0) -> Snapshot:
    inherited = (host_totals("node1", before),) if before else ()
    return replace(snapshot(10.0), attempt=host_totals("node1", joules), inherited=inherited)


def test_a_total_that_a_journal_has_rounded_down_is_no_counter_that_begins_again_but_a_real_fall_is() -> None:
    """Twelve digits are on disk; two of such numbers may add to one of more, which the next attempt then inherits rounded."""
    shown = 123456.789012 + 0.123456200001
    inherited = float(f"{shown:.12g}")
    assert inherited < shown
    served = [used(0.123456200001, 123456.789012)]
    exposition = Exposition(lambda: served, LabelRules())
    name = "hf_training_device_energy_joules_total"
    assert value(exposition.render().decode(), name) == shown
    served = [used(0.0, inherited)]
    assert value(exposition.render().decode(), name) == shown
    served = [used(1.0, inherited)]
    assert value(exposition.render().decode(), name) == 1.0 + inherited
    served = [used(100.0)]  # A run of the same id, but from the start.
    assert value(exposition.render().decode(), name) == 100.0


def refused_by_parsers(s: Snapshot, name: str) -> bool:
    """Whether a family is left out, and nothing else with it."""
    text, openmetrics = text_of(s), text_of(s, openmetrics=True)
    families = {family.name: family for family in parse_openmetrics(openmetrics)}  # type: ignore[no-untyped-call]
    assert len(samples(text)) > 50
    return not families[name].samples


@pytest.mark.parametrize("figure", [math.nan, -1.0, -math.inf])
def test_a_count_that_is_negative_or_no_number_is_left_out_since_parsers_would_leave_out_everything(figure: float) -> None:
    run = replace(recorded_run(), attempt=replace(recorded_run().attempt, wasted=Footprint(figure)))
    assert refused_by_parsers(run, "hf_training_wasted_energy_joules")


def test_a_total_that_rounding_has_put_below_zero_is_shown_as_zero() -> None:
    run = replace(recorded_run(), attempt=replace(recorded_run().attempt, wasted=Footprint(-1e-17)))
    assert value(text_of(run), "hf_training_wasted_energy_joules_total") == 0


def test_a_command_that_is_over_has_no_processes_to_show() -> None:
    usage = TreeUsage(cpu_seconds=12.5, processes=3, rss_bytes=10**6, peak_processes=5, peak_rss_bytes=2 * 10**6)
    found = samples(text_of(replace(recorded_run(), state="lost", tree=usage)))
    assert "hf_training_processes" not in found
    assert found["hf_training_process_cpu_seconds_total"][0][1] == 12.5


@pytest.mark.parametrize(
    ("counts", "seconds"), [((5, -1, *[0] * 14), 1.0), ((-1, 2, *[0] * 14), 1.0), ((1,) * 16, math.nan), ((1,) * 16, -1.0)]
)
def test_a_histogram_that_cannot_be_is_left_out(counts: tuple[int, ...], seconds: float) -> None:
    run = recorded_run()
    run = replace(run, progress=run.progress._replace(step_durations=StepHistogram(counts, seconds)))
    assert refused_by_parsers(run, "hf_training_step_duration_seconds")


@pytest.mark.parametrize(
    "more",
    [
        {"progress": Progress(steps=10**400)},
        {"progress": Progress(step_durations=StepHistogram((1, 2, 3), 1.0))},
        {"budgets": (BudgetStatus("carbon", 0.0, 1.0),)},
    ],
    ids=["overflow", "length", "division"],
)
def test_a_run_that_cannot_be_put_into_figures_is_left_out_and_told_and_the_others_are_there(more: dict[str, Any]) -> None:
    bad = replace(recorded_run(), identity=replace(recorded_run().identity, run_id="bad", host="node9"), **more)
    told: list[Snapshot] = []
    exposition = Exposition(lambda: [bad, recorded_run()], LabelRules(), unusable=lambda s, _error: told.append(s))
    assert exposition.render() == Exposition(lambda: [recorded_run()], LabelRules()).render()
    assert told == [bad]
