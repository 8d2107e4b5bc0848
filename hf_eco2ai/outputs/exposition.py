"""Snapshots in the formats that Prometheus reads: text 0.0.4 and OpenMetrics, by content negotiation."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector, CollectorRegistry

from hf_eco2ai.outputs.labels import LabelRules
from hf_eco2ai.outputs.metrics import METRICS, SCOPE_LABELS, Metric
from hf_eco2ai.records import Snapshot

CLEANED_VALUES = 8192


class Body(NamedTuple):
    """An exposition and its media type."""

    content: bytes
    content_type: str


class Exposition(Collector):
    """All `METRICS` of some runs. One `collect` takes the snapshots once, so a scrape agrees with itself."""

    def __init__(self, snapshots: Callable[[], Sequence[Snapshot]], rules: LabelRules) -> None:
        self._snapshots = snapshots
        self._rules = rules
        # Cleaning a name costs 20 µs and names repeat on every series of every scrape.
        self._clean = lru_cache(CLEANED_VALUES)(rules.clean)
        self._fold = lru_cache(CLEANED_VALUES)(rules.model)

    def body(self, accept: str) -> Body:
        """The exposition in the format that the `Accept` header asks for."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        encode, content_type = choose_encoder(accept)
        return Body(encode(registry), content_type)

    def describe(self) -> list[Family]:
        """Nothing, so that registering does not collect; there is no other collector to clash with."""
        return []

    def collect(self) -> Iterator[Family]:
        """One family per row of `METRICS`, also where it has no sample yet."""
        snapshots = tuple(self._snapshots())
        projects = self._rules.projects([snapshot.identity.project_name for snapshot in snapshots])
        for metric in METRICS:
            yield self._family(metric, snapshots, projects)

    def _family(self, metric: Metric, snapshots: Sequence[Snapshot], projects: dict[str, str]) -> Family:
        family = Family(metric.name.removesuffix("_total"), metric.help, _TYPES[metric.kind])
        seen: set[tuple[str, ...]] = set()
        for snapshot in snapshots:
            if metric.scope == "run" and not snapshot.leads:
                continue
            scope = [getattr(snapshot.identity, name) for name in SCOPE_LABELS[metric.scope]]
            for values, number in metric.samples(snapshot):
                key = (*values, *scope)
                if key in seen:  # Two runs on one GPU or in one country: a device's gauge appears once.
                    continue
                seen.add(key)
                _add(family, metric, self._labels(metric, key, projects), number)
        return family

    def _labels(self, metric: Metric, values: Sequence[str], projects: dict[str, str]) -> dict[str, str]:
        labels = {}
        for name, value in zip((*metric.labels, *SCOPE_LABELS[metric.scope]), values, strict=False):
            if name == "project_name":
                labels[name] = projects[value]
            else:
                labels[name] = self._fold(value) if name == "model_name" else self._clean(value)
        return labels


_TYPES = {"counter": "counter", "gauge": "gauge", "info": "info", "histogram": "histogram", "untyped": "unknown"}


def _add(family: Family, metric: Metric, labels: dict[str, str], number: float) -> None:
    if metric.kind == "info":
        family.add_sample(metric.name + "_info", labels, number)
    elif metric.kind == "histogram":
        _add_to_histogram(family, metric, labels, number)
    else:
        family.add_sample(metric.name, labels, number)


def _add_to_histogram(family: Family, metric: Metric, labels: dict[str, str], number: float) -> None:
    bound = labels.pop("le")
    if bound == "sum":
        family.add_sample(metric.name + "_sum", labels, number)
        return
    family.add_sample(metric.name + "_bucket", {**labels, "le": bound}, number)
    if bound == "+Inf":
        family.add_sample(metric.name + "_count", labels, number)
