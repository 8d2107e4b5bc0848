"""The daemon watches itself: what it follows, reads, refuses and serves, and what it costs."""

import platform
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from hf_eco2ai.outputs.labels import LabelRules
from hf_eco2ai.outputs.metrics import Kind, as_table
from hf_eco2ai.version import __version__, commit

SCRAPE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class SelfMetric(NamedTuple):
    """One family."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str


SELF_METRICS: tuple[SelfMetric, ...] = (
    SelfMetric("hf_exporter_build_info", "info", ("version", "commit", "python"), "What runs here."),
    SelfMetric(
        "hf_exporter_scrape_duration_seconds",
        "histogram",
        ("outcome",),
        "From a scrape's request to its last byte; outcome says what became of it.",
    ),
    SelfMetric("hf_exporter_refused_requests_total", "counter", ("reason",), "Requests and connections that were sent away."),
    SelfMetric("hf_exporter_journals_followed", "gauge", (), "Journals that are read as they grow."),
    SelfMetric("hf_exporter_runs", "gauge", ("state",), "Runs that are served, by state."),
    SelfMetric("hf_exporter_runs_left_out_total", "counter", (), "Runs that were dropped before their retention was over."),
    SelfMetric("hf_exporter_series", "gauge", (), "Series of runs in the last exposition."),
    SelfMetric("hf_exporter_lines_read_total", "counter", (), "Lines of journals that were read."),
    SelfMetric("hf_exporter_lines_refused_total", "counter", ("reason",), "Lines or files that could not be used, by reason."),
    SelfMetric(
        "hf_exporter_last_read_timestamp_seconds", "gauge", ("host",), "When a journal of a host was last read, in Unix seconds."
    ),
    SelfMetric(
        "hf_exporter_last_look_timestamp_seconds",
        "gauge",
        (),
        "When the runs folder was last read in full, in Unix seconds.",
    ),
    SelfMetric("hf_exporter_look_duration_seconds", "gauge", (), "How long the last look at the runs folder took."),
    SelfMetric("hf_exporter_failures_total", "counter", ("error_type",), "What else went wrong, by type."),
)
"""Beside these, `process_*` of this process, as prometheus_client has them (Linux only). All begin at 0 with the process."""


def markdown_table() -> str:
    """The families as a table, for the docs."""
    return as_table(SELF_METRICS)


class Watched(NamedTuple):
    """What the rest of the daemon knows at the time of a scrape."""

    journals: int
    runs: Mapping[str, int]
    left_out: int
    series: int
    lines_read: int
    refused: Mapping[str, int]
    failures: Mapping[str, int]
    read_unix: Mapping[str, float]
    look_unix: float | None
    look_seconds: float


class SelfMetrics(Collector):
    """Owns the registry that is appended to the exposition of runs; `watched` is asked at each scrape."""

    def __init__(self, watched: Callable[[], Watched], rules: LabelRules) -> None:
        self._watched = watched
        self._rules = rules
        disable_created_metrics()  # type: ignore[no-untyped-call] # For the whole process, which is the daemon's.
        self._rows = {row.name: row for row in SELF_METRICS}
        self.registry = CollectorRegistry(auto_describe=False)
        self._scrapes = self._histogram("hf_exporter_scrape_duration_seconds")
        self._refused = self._counter("hf_exporter_refused_requests_total")
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def scraped(self, outcome: str, seconds: float) -> None:
        """A scrape is over."""
        self._scrapes.labels(outcome).observe(seconds)

    def refused(self, reason: str) -> None:
        """A request or a connection was sent away."""
        self._refused.labels(reason).inc()

    def describe(self) -> list[Family]:
        """Nothing, so that registering does not collect."""
        return []

    def collect(self) -> Iterator[Family]:
        """What `watched` says now."""
        w = self._watched()
        build = InfoMetricFamily("hf_exporter_build", self._rows["hf_exporter_build_info"].help)
        build.add_metric([], {"version": __version__, "commit": commit(), "python": platform.python_version()})
        yield build
        yield self._gauge("hf_exporter_journals_followed", {(): w.journals})
        yield self._gauge("hf_exporter_runs", {(state,): count for state, count in w.runs.items()})
        yield self._count("hf_exporter_runs_left_out_total", {(): w.left_out})
        yield self._gauge("hf_exporter_series", {(): w.series})
        yield self._count("hf_exporter_lines_read_total", {(): w.lines_read})
        yield self._count("hf_exporter_lines_refused_total", {(kind,): count for kind, count in w.refused.items()})
        hosts: dict[tuple[str, ...], float] = {(self._rules.clean(host),): at for host, at in w.read_unix.items()}
        yield self._gauge("hf_exporter_last_read_timestamp_seconds", hosts)
        if w.look_unix is not None:
            yield self._gauge("hf_exporter_last_look_timestamp_seconds", {(): w.look_unix})
            yield self._gauge("hf_exporter_look_duration_seconds", {(): w.look_seconds})
        yield self._count("hf_exporter_failures_total", {(kind,): count for kind, count in w.failures.items()})

    def _gauge(self, name: str, values: Mapping[tuple[str, ...], float]) -> Family:
        family = GaugeMetricFamily(name, self._rows[name].help, labels=self._rows[name].labels)
        for labels, value in values.items():
            family.add_metric(labels, value)
        return family

    def _count(self, name: str, values: Mapping[tuple[str, ...], float]) -> Family:
        family = CounterMetricFamily(name.removesuffix("_total"), self._rows[name].help, labels=self._rows[name].labels)
        for labels, value in values.items():
            family.add_metric(labels, value)
        return family

    def _histogram(self, name: str) -> Histogram:
        row = self._rows[name]
        return Histogram(row.name, row.help, row.labels, registry=self.registry, buckets=SCRAPE_BUCKETS)

    def _counter(self, name: str) -> Counter:
        row = self._rows[name]
        return Counter(row.name.removesuffix("_total"), row.help, row.labels, registry=self.registry)
