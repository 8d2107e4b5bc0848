"""What the machine itself uses, as families of their own, so that nothing is summed with the runs' by mistake.

To add a metric: add a row, as in metrics.py.
"""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hf_eco2ai.outputs.labels import LabelRules
from hf_eco2ai.outputs.metrics import Labelled, Values, as_table
from hf_eco2ai.records import NodeDevice, NodeSnapshot

DEVICE: Values = ("component", "device", "basis")
HOST: Values = ("host",)


class NodeMetric(NamedTuple):
    """One family. `labels` are in the order in which `samples` yields their values."""

    name: str
    kind: Literal["counter", "gauge"]
    labels: Values
    help: str
    samples: Callable[[NodeSnapshot], Labelled]


def _by_device(value: Callable[[NodeDevice], float]) -> Callable[[NodeSnapshot], Labelled]:
    return lambda s: ((_labels(one), value(one)) for one in s.devices)


def _labels(one: NodeDevice) -> Values:
    return one.device.component, one.device.uuid, one.device.basis, one.device.host


NODE_METRICS: tuple[NodeMetric, ...] = (
    NodeMetric(
        "hf_node_energy_joules_total",
        "counter",
        (*DEVICE, *HOST),
        "Energy of a device of this machine, with or without any run; goes on across restarts of the daemon.",
        _by_device(lambda one: one.joules),
    ),
    NodeMetric(
        "hf_node_power_watts",
        "gauge",
        (*DEVICE, *HOST, "gpu_model"),
        "Power of a device now; the mean since the last reading where only its energy is known; absent when it did not answer.",
        lambda s: (((*_labels(one), one.device.model), one.watts) for one in s.devices if one.watts is not None),
    ),
    NodeMetric(
        "hf_node_unattributed_energy_joules_total",
        "counter",
        (*DEVICE, *HOST),
        "Of a device's energy, what it used while no live run claimed it. Some seconds late, since runs become known late.",
        _by_device(lambda one: one.unattributed_joules),
    ),
    NodeMetric(
        "hf_node_observed_seconds_total",
        "counter",
        (*DEVICE, *HOST),
        "Time for which a device's energy is known; its rate is the observed share of the time, 0 to 1.",
        _by_device(lambda one: one.observed_seconds),
    ),
    NodeMetric(
        "hf_node_gpus",
        "gauge",
        HOST,
        "GPUs of this machine that are measured.",
        lambda s: [((s.host,), s.gpu_count)],
    ),
)


class NodeMetrics(Collector):
    """`NODE_METRICS` for a registry. Without a snapshot yet, families without samples."""

    def __init__(self, snapshot: Callable[[], NodeSnapshot | None], rules: LabelRules) -> None:
        self._snapshot = snapshot
        self._rules = rules

    def describe(self) -> Iterator[Metric]:
        """The families, so that a registry sees two of one name."""
        return (_family(metric) for metric in NODE_METRICS)

    def collect(self) -> Iterator[Metric]:
        """The families with what the snapshot says, which is taken once."""
        snapshot = self._snapshot()
        for metric in NODE_METRICS:
            family = _family(metric)
            for values, number in () if snapshot is None else metric.samples(snapshot):
                family.add_metric([self._rules.clean(value) for value in values], number)
            yield family


def markdown_table() -> str:
    """The families as a table, for the docs."""
    return as_table((metric.name, metric.kind, metric.labels, metric.help) for metric in NODE_METRICS)


def _family(metric: NodeMetric) -> CounterMetricFamily | GaugeMetricFamily:
    family = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    return family(metric.name, metric.help, labels=metric.labels)
