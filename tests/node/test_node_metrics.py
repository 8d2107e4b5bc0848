"""The node's families as Prometheus reads them."""

import re

import pytest
from prometheus_client.exposition import generate_latest as text
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import CollectorRegistry

from hf_eco2ai.outputs.labels import LabelRules
from hf_eco2ai.outputs.metrics import METRICS, exposed_name
from hf_eco2ai.outputs.node_metrics import NODE_METRICS, NodeMetrics, markdown_table
from hf_eco2ai.records import NodeDevice, NodeSnapshot
from tests.node.machine import DRAM, GPU, PACKAGE, device

SNAPSHOT = NodeSnapshot(
    "h",
    0.0,
    (
        NodeDevice(GPU, 1234.5678901234, 200.25, 60.0, 75.5),
        NodeDevice(PACKAGE, 10.0, 0.0, 60.0, None),
        NodeDevice(DRAM, 0.0, 0.0, 0.0, 0.0),
    ),
)

EXPECTED = """\
# HELP hf_node_energy_joules_total …
# TYPE hf_node_energy_joules_total counter
hf_node_energy_joules_total{basis="measured",component="gpu",device="GPU-1",host="h"} 1234.5678901234
hf_node_energy_joules_total{basis="measured",component="cpu",device="package-0",host="h"} 10.0
hf_node_energy_joules_total{basis="measured",component="dram",device="dram-0",host="h"} 0.0
# HELP hf_node_power_watts …
# TYPE hf_node_power_watts gauge
hf_node_power_watts{basis="measured",component="gpu",device="GPU-1",gpu_model="A GPU",host="h"} 75.5
hf_node_power_watts{basis="measured",component="dram",device="dram-0",gpu_model="",host="h"} 0.0
# HELP hf_node_unattributed_energy_joules_total …
# TYPE hf_node_unattributed_energy_joules_total counter
hf_node_unattributed_energy_joules_total{basis="measured",component="gpu",device="GPU-1",host="h"} 200.25
hf_node_unattributed_energy_joules_total{basis="measured",component="cpu",device="package-0",host="h"} 0.0
hf_node_unattributed_energy_joules_total{basis="measured",component="dram",device="dram-0",host="h"} 0.0
# HELP hf_node_observed_seconds_total …
# TYPE hf_node_observed_seconds_total counter
hf_node_observed_seconds_total{basis="measured",component="gpu",device="GPU-1",host="h"} 60.0
hf_node_observed_seconds_total{basis="measured",component="cpu",device="package-0",host="h"} 60.0
hf_node_observed_seconds_total{basis="measured",component="dram",device="dram-0",host="h"} 0.0
# HELP hf_node_gpus …
# TYPE hf_node_gpus gauge
hf_node_gpus{host="h"} 1.0
"""


def registry(snapshot: NodeSnapshot | None) -> CollectorRegistry:
    made = CollectorRegistry()
    made.register(NodeMetrics(lambda: snapshot, LabelRules()))
    return made


def test_every_family_is_there_with_every_digit_and_what_has_no_value_is_absent() -> None:
    shown = text(registry(SNAPSHOT)).decode()
    assert re.sub(r"(# HELP \S+) .*", r"\1 …", shown) == EXPECTED


def test_openmetrics_says_the_same() -> None:
    def samples(families: object) -> set[tuple[str, frozenset[tuple[str, str]], float]]:
        assert hasattr(families, "__iter__")
        return {(s.name, frozenset(s.labels.items()), s.value) for family in families for s in family.samples}

    ours = registry(SNAPSHOT)
    said = samples(parse_openmetrics(openmetrics(ours).decode()))  # type: ignore[no-untyped-call]
    assert said == samples(parse_text(text(ours).decode()))
    assert len(said) == 12


def test_before_the_first_reading_families_have_no_samples() -> None:
    families = list(parse_text(text(registry(None)).decode()))
    assert len(families) == len(NODE_METRICS)
    assert all(family.samples == [] for family in families)


def test_hostile_names_come_out_clean() -> None:
    hostile = device('GPU\n"\u202e\\', model="\udcff" + "x" * 10_000, host="a\tb")
    shown = text(registry(NodeSnapshot("a\tb", 0.0, (NodeDevice(hostile, 1.0, 0.0, 1.0, 1.0),)))).decode()
    (energy,) = (sample for family in parse_text(shown) for sample in family.samples if "energy" in sample.name[:15])
    assert energy.labels["device"] == 'GPU"\\'
    assert energy.labels["host"] == "ab"
    assert max(len(line) for line in shown.splitlines()) < 400


def test_a_registry_refuses_them_twice() -> None:
    ours = registry(SNAPSHOT)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        ours.register(NodeMetrics(lambda: None, LabelRules()))


def test_names_are_prometheus_own_and_none_is_a_runs() -> None:
    assert not {metric.name for metric in NODE_METRICS} & {exposed_name(metric) for metric in METRICS}
    for metric in NODE_METRICS:
        assert metric.name.startswith("hf_node_")
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.help.endswith(".")


def test_the_table_has_a_row_per_family() -> None:
    lines = markdown_table().splitlines()
    assert len(lines) == 2 + len(NODE_METRICS)
    assert lines[2].startswith(
        "| `hf_node_energy_joules_total` | counter | `component`, `device`, `basis`, `host` | Energy of a device"
    )
