"""What `/metrics` says, and that it is what was promised."""

import math
import subprocess
from collections.abc import Callable
from dataclasses import replace

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from hf_eco2ai.outputs.exposition import Exposition
from hf_eco2ai.outputs.labels import LabelRules
from hf_eco2ai.outputs.metrics import METRICS, exposed_name
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
    TreeUsage,
)
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
