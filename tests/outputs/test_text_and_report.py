"""Figures as people read them, and the report that ends a run."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_eco2ai.outputs import text
from hf_eco2ai.outputs.page import page
from hf_eco2ai.outputs.report import Report, live_line
from hf_eco2ai.records import (
    ERROR_TYPES,
    PHASES,
    Basis,
    BudgetStatus,
    Component,
    Device,
    DeviceStatus,
    EndReason,
    ErrorType,
    Footprint,
    Forecast,
    GridFactor,
    HostTotals,
    Method,
    Progress,
    Rates,
    RunIdentity,
    RunState,
    Snapshot,
    Tariff,
    TreeUsage,
)

GERMANY = GridFactor(329.65, "lifecycle", "Ember via Our World in Data, 2026-06 edition", "DE", "", 2025, "CC-BY-4.0")
EURO = Tariff(per_kwh=0.3, per_gpu_hour=2.0, currency="EUR")


def status(
    uuid: str = "GPU-1",
    component: Component = "gpu",
    basis: Basis = "measured",
    source: str = "NVML energy counter",
    methods: tuple[Method, ...] = ("counter",),
    joules: float = 3.6e6,
    model: str = "NVIDIA H200",
    note: str = "",
) -> DeviceStatus:
    device = Device("node-1", uuid, component, basis, source, "0", model, note=note)
    return DeviceStatus(device, joules, 3600.0, methods, 300.0, None, None)


def snapshot(*devices: DeviceStatus) -> Snapshot:
    """One hour, 3 kWh, of which 2.5 in training steps."""
    return Snapshot(
        identity=RunIdentity("abc123", "my-project", "meta-llama/Llama-3.1-8B", "node-1"),
        state="ended",
        updated_unix=1.8e9,
        attempt=HostTotals(
            host="node-1",
            total=Footprint(1.08e7, 988.95, 0.9, 2.0),
            grams_by_factor_type=(("lifecycle", 988.95),),
            phases=tuple((phase, Footprint({"setup": 1.8e6, "train": 9.0e6}.get(phase, 0.0))) for phase in PHASES),
            phase_seconds=tuple((phase, {"setup": 600.0, "train": 3000.0}.get(phase, 0.0)) for phase in PHASES),
        ),
        devices=devices or (status(),),
        gpu_count=1,
        cpu_watts=(),
        rates=None,
        progress=Progress(steps=100, samples=6000),
        forecast=None,
        factor=GERMANY,
        tariff=EURO,
        pue=1.2,
        efficiency_score=None,
        observed_ratio=0.998,
        errors=tuple((error_type, 0) for error_type in ERROR_TYPES),
        tick_seconds=0.01,
    )


def using(total: Footprint) -> Snapshot:
    """The same, but for what was used."""
    shown = snapshot()
    return replace(shown, attempt=replace(shown.attempt, total=total))


# Units


@pytest.mark.parametrize(
    ("joules", "said"),
    [
        (0.5, "0.5 J"),
        (860, "860 J"),
        (3600, "1 Wh"),
        (1800 * 3.6, "1.8 Wh"),
        (3.6e6, "1 kWh"),
        (1.92 * 3.6e6, "1.92 kWh"),
        (312 * 3.6e6, "312 kWh"),
        (3.6e9, "1 MWh"),
        (12345 * 3.6e9, "12,345 MWh"),
    ],
)
def test_energy_has_the_unit_that_fits(joules: float, said: str) -> None:
    assert text.energy(joules) == said


@pytest.mark.parametrize(
    ("grams", "said"), [(0.0125, "12.5 mg"), (1, "1 g"), (412, "412 g"), (1300, "1.3 kg"), (2.5e6, "2.5 t"), (0.5, "500 mg")]
)
def test_mass_has_the_unit_that_fits(grams: float, said: str) -> None:
    assert text.mass(grams) == said


@pytest.mark.parametrize(("watts", "said"), [(0.5, "0.5 W"), (312, "312 W"), (4800, "4.8 kW"), (1.5e6, "1.5 MW")])
def test_power_has_the_unit_that_fits(watts: float, said: str) -> None:
    assert text.power(watts) == said


@settings(deadline=None)
@given(st.floats(1e-3, 1e15))
def test_a_figure_is_right_to_three_digits(joules: float) -> None:
    number, unit = text.energy(joules).split(" ")
    size = {"J": 1.0, "Wh": 3.6e3, "kWh": 3.6e6, "MWh": 3.6e9}[unit]

    assert float(number.replace(",", "")) * size == pytest.approx(joules, rel=0.00501)


@pytest.mark.parametrize(
    ("amount", "said"), [(0.0123, "0.0123 EUR"), (12.3, "12.30 EUR"), (1, "1.00 EUR"), (0, "0 EUR"), (1234.5, "1234.50 EUR")]
)
def test_money_has_its_currency(amount: float, said: str) -> None:
    assert text.money(amount, EURO) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0.0 s"),
        (12.34, "12.3 s"),
        (60, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.6, "1 h 00 min"),
        (3900, "1 h 05 min"),
        (86400 * 2 + 3600 * 3 + 59, "2 d 03 h"),
    ],
)
def test_durations(seconds: float, said: str) -> None:
    assert text.duration(seconds) == said


def test_sixty_seconds_are_a_minute_also_when_they_come_from_rounding() -> None:
    assert text.duration(59.96) == "1 min 00 s"


@pytest.mark.parametrize(
    ("ratio", "said"),
    [(0, "0.0 %"), (0.997, "99.7 %"), (0.99999, "99.9 %"), (1 - 1e-15, "99.9 %"), (1, "100 %"), (1.01, "100 %")],
)
def test_percent_never_rounds_up_to_100(ratio: float, said: str) -> None:
    assert text.percent(ratio) == said


def test_the_grid_factor_has_its_source_and_year() -> None:
    assert text.factor(GERMANY) == ("329.65 gCO₂e/kWh lifecycle (DE: Ember via Our World in Data, 2026-06 edition, 2025)")
    assert "(US-CA: " in text.factor(replace(GERMANY, country="US", region="CA"))
    assert "ASSUMED" not in text.factor(GERMANY)
    assert "ASSUMED" in text.factor(replace(GERMANY, country="WORLD", assumed=True))


def test_a_cost_that_is_not_known_is_not_mentioned() -> None:
    assert text.footprint(Footprint(3.6e6, 412.0), EURO) == "1 kWh · 412 g CO₂e"
    assert text.footprint(Footprint(3.6e6, 412.0, 0.3, 2.0), EURO) == "1 kWh · 412 g CO₂e · 2.30 EUR"


# How it was obtained


def test_a_device_says_how_its_joules_came_about() -> None:
    assert text.methods(status()) == "measured: NVML energy counter"
    assert text.methods(status(basis="modelled", source="CPU model: Skylake")) == "modelled: CPU model: Skylake"


def test_a_counter_that_power_stood_in_for_says_so() -> None:
    assert "trapezoid" in text.methods(status(methods=("counter", "trapezoid")))


def test_a_counter_that_never_counted_does_not_get_the_credit() -> None:
    assert "trapezoid" in text.methods(status(methods=("trapezoid",)))


# The report


def test_the_summary_names_the_run_its_figures_and_the_source_of_each() -> None:
    said = str(Report(snapshot()))

    for figure in (
        "my-project",
        "meta-llama/Llama-3.1-8B",
        "abc123",
        "ended after 1 h 00 min",
        "3 kWh",
        "989 g",
        "2.90 EUR (energy 0.9 EUR + compute 2.00 EUR)",
        "2,000 samples/kWh",
        "1,800 J/sample",
        "NVIDIA H200",
        "measured: NVML energy counter",
        "setup 0.5 kWh in 10 min 00 s",
        "train 2.5 kWh in 50 min 00 s",
        "329.65 gCO₂e/kWh lifecycle (DE: Ember via Our World in Data, 2026-06 edition, 2025)",
        "PUE",
        "1.2",
        "99.8 % of device time",
    ):
        assert figure in said, figure
    assert "SIMULATED" not in said
    assert "problems" not in said


def test_the_summary_leaves_out_what_is_not_known() -> None:
    unpriced = replace(using(Footprint(1.08e7, 988.95)), tariff=Tariff(), observed_ratio=None, progress=Progress())
    said = str(Report(unpriced))

    for word in ("cost", "observed", "efficiency", "None", "nan"):
        assert word not in said


def test_eight_gpus_of_one_kind_are_one_line_with_their_sum() -> None:
    said = str(Report(snapshot(*(status(f"GPU-{i}") for i in range(8)))))

    assert said.count("NVIDIA H200") == 1
    assert "8 × NVIDIA H200" in said
    assert "8 kWh" in said


def test_devices_obtained_in_different_ways_are_different_lines() -> None:
    said = str(
        Report(
            snapshot(
                status("GPU-1"),
                status("GPU-2", source="NVML power, integrated", methods=("trapezoid",)),
                status("cpu", "cpu", "modelled", "CPU model: Skylake", model=""),
                status("GPU-3", note="MIG slice: charged with its share"),
            )
        )
    )

    assert said.count("1 × NVIDIA H200") == 3
    assert "modelled: CPU model: Skylake" in said
    assert "(MIG slice: charged with its share)" in said


def test_a_simulated_run_says_so_everywhere() -> None:
    simulated = snapshot(status(basis="simulated", source="simulated, not a measurement"), status("package-0", "cpu"))

    assert "SIMULATED" in str(Report(simulated)).splitlines()[0]
    assert "[simulated]" in live_line(simulated)


def test_problems_are_counted_in_the_summary() -> None:
    counts: dict[ErrorType, int] = {"gap": 3, "device_lost": 1}
    said = str(Report(replace(snapshot(), errors=tuple((kind, counts.get(kind, 0)) for kind in ERROR_TYPES))))

    assert "3 × gap" in said
    assert "1 × device_lost" in said
    assert "tick_failed" not in said


def test_the_report_gives_its_figures_to_programs() -> None:
    report = Report(snapshot())

    assert report.energy_kwh == pytest.approx(3.0)
    assert report.co2_kg == pytest.approx(0.98895)
    assert report.cost == pytest.approx(2.9)
    said = json.loads(json.dumps(report.as_dict()))
    assert said["basis"] == "measured"
    assert said["total"]["joules"] == 1.08e7
    assert said["wasted"]["joules"] == 0.0
    assert said["seconds"] == 3600.0
    assert dict(said["phase_seconds"])["train"] == 3000.0
    assert {phase: used["joules"] for phase, used in said["phases"]}["train"] == 9.0e6
    assert said["factor"]["year"] == 2025
    assert said["identity"]["run_id"] == "abc123"


def test_a_report_without_a_price_has_no_cost() -> None:
    assert Report(using(Footprint(1.0, 1.0))).cost is None


# The line on the terminal


def test_the_line_has_totals_rates_and_the_forecast() -> None:
    running = replace(snapshot(), state="running", rates=Rates(4800.0, 1582.0, 3.44), forecast=Forecast(7.2e6 * 5, 3300.0, None))

    assert live_line(running) == (
        "hf_eco2ai: 3 kWh · 989 g CO₂e · 2.90 EUR · now 4.8 kW, 1.58 kg CO₂e/h, 3.44 EUR/h · whole run about 10 kWh, 3.3 kg CO₂e"
    )


def test_the_line_leaves_out_what_is_not_known() -> None:
    said = live_line(using(Footprint(0.0, 0.0)))

    assert "now" not in said
    assert "whole run" not in said
    assert "None" not in said


def test_the_line_says_when_not_everything_was_measured() -> None:
    modelled = status("cpu", "cpu", "modelled", "CPU model: Skylake", model="")

    assert live_line(snapshot(modelled)).startswith("hf_eco2ai [modelled]: ")
    assert live_line(snapshot(status(), modelled)).startswith("hf_eco2ai [mixed]: ")


def test_a_loss_that_is_no_number_does_not_spoil_the_summary() -> None:
    assert "3 kWh" in str(Report(replace(snapshot(), progress=Progress(loss=math.nan))))


def test_lines_are_broken_between_words_where_there_is_a_terminal() -> None:
    assert text.wrapped("hf_eco2ai: a line that is too long for this\n  second", 24) == (
        "hf_eco2ai: a line that\n  is too long for this\n  second"
    )
    assert text.wrapped("a line that is too long for nothing", 0) == "a line that is too long for nothing"


def test_the_values_of_a_table_go_on_below_themselves() -> None:
    assert text.table([("name", "one two three four five six"), ("n", "x")], columns=32) == [
        "  name  one two three four five",
        "        six",
        "  n     x",
    ]


def test_parts_have_the_unit_of_their_sum() -> None:
    assert text.energy(1800.0, like=7200.0) == "0.5 Wh"
    assert text.energy(1800.0) == "1,800 J"


# Hosts, attempts, budgets, commands


def test_the_summary_has_the_whole_runs_energy_and_that_of_each_other_host() -> None:
    of_two_hosts = replace(
        snapshot(),
        inherited=(
            HostTotals("node-1", Footprint(3.6e6)),
            HostTotals("gone", Footprint(7.2e6)),
            HostTotals("node-2", Footprint(3.6e6)),
        ),
        elsewhere=(HostTotals("node-2", Footprint(3.6e6)),),
    )
    said = [line.split() for line in str(Report(of_two_hosts)).splitlines()]

    assert ["energy", "8", "kWh"] in said
    assert ["host", "gone", "2", "kWh"] in said
    assert ["host", "node-2", "2", "kWh"] in said
    assert not [words for words in said if words[:2] == ["host", "node-1"]]
    assert Report(of_two_hosts).energy_kwh == pytest.approx(8.0)
    assert live_line(of_two_hosts).startswith("hf_eco2ai: 8 kWh")


def test_the_summary_says_what_went_into_steps_that_a_resume_rolled_back() -> None:
    wasted = HostTotals("node-1", Footprint(3.6e6, 412.0), wasted=Footprint(1.8e6, 206.0))
    said = str(Report(replace(snapshot(), inherited=(wasted,))))

    assert "0.5 kWh, 206 g CO₂e of it on steps that a resume rolled back" in said
    assert "wasted" not in str(Report(snapshot()))


@pytest.mark.parametrize(
    ("state", "reason", "said"),
    [
        ("ended", "completed", "ended after 1 h 00 min"),
        ("ended", "", "ended after 1 h 00 min"),
        ("ended", "budget", "ended (stopped at the budget) after"),
        ("ended", "removed", "ended (the callback was removed) after"),
        ("failed", "exception", "failed (exception) after"),
        ("failed", "out_of_memory", "failed (out of memory) after"),
        ("failed", "interrupted", "failed (Ctrl-C) after"),
        ("failed", "sigterm", "failed (SIGTERM) after"),
        ("lost", "", "lost after"),
    ],
)
def test_the_summary_says_how_the_run_ended(state: RunState, reason: EndReason, said: str) -> None:
    assert said in str(Report(replace(snapshot(), state=state, end_reason=reason))).splitlines()[0]


@pytest.mark.parametrize(
    ("status_", "said"),
    [
        (BudgetStatus("carbon", 5.0, 0.5), "10 % of 5 kg CO₂e used"),
        (BudgetStatus("carbon", 5.0, 6.25), "125 % of 5 kg CO₂e used"),
        (BudgetStatus("energy", 2.0, 0.5), "25 % of 2 kWh used"),
        (BudgetStatus("cost", 40.0, 10.0, None, "project"), "25 % of 40.00 EUR used by the project"),
        (BudgetStatus("energy", 2.0, 0.5, None, "project", "month"), "25 % of 2 kWh used by the project this month (UTC)"),
        (BudgetStatus("carbon", 0.4, 0.1, None, "run", "day"), "25 % of 400 g CO₂e used today (UTC)"),
    ],
)
def test_a_budget_says_how_much_of_it_is_used_by_whom_and_since_when(status_: BudgetStatus, said: str) -> None:
    assert text.budget(status_, EURO) == said
    assert f"{status_.kind} budget" in str(Report(replace(snapshot(), budgets=(status_,))))
    assert said in str(Report(replace(snapshot(), budgets=(status_,))))


def test_the_summary_of_a_command_has_its_processes() -> None:
    usage = TreeUsage(cpu_seconds=200.0, processes=0, rss_bytes=0, peak_processes=5, peak_rss_bytes=1_234_000_000)
    said = str(Report(replace(snapshot(), tree=usage)))

    assert "3 min 20 s of CPU time, at most 5 processes and 1,234 MB at once" in said
    assert "at most 1 process and" in text.tree(usage._replace(peak_processes=1))
    assert text.tree(usage._replace(peak_processes=0, peak_rss_bytes=0)) == "3 min 20 s of CPU time"
    assert "processes" not in str(Report(snapshot()))


def test_the_page_has_budgets_other_hosts_and_what_was_wasted() -> None:
    shown = replace(
        snapshot(),
        inherited=(HostTotals("<gone>", Footprint(7.2e6), wasted=Footprint(1.8e6, 206.0)),),
        budgets=(BudgetStatus("energy", 20.0, 5.0),),
    )
    said = page([shown]).html

    for expected in ("Host &lt;gone&gt;", "2 kWh", "5 kWh", "Energy budget", "25 % of 20 kWh used", "0.5 kWh, 206 g CO₂e of it"):
        assert expected in said
    assert "<gone>" not in said
