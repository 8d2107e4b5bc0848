"""Snapshots in the formats that Prometheus reads: text 0.0.4 and OpenMetrics 1.0.

A daemon serves up to a thousand runs with some 270 series each, of which only a part has changed since the last scrape. So the
lines of a run are made once for each of its snapshots, and a scrape puts them together family by family. A line is the same in
both formats; only the lines about families differ.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple

from prometheus_client.exposition import generate_latest as text_of
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_of
from prometheus_client.registry import CollectorRegistry
from prometheus_client.utils import floatToGoString

from hf_eco2ai.outputs.folding import Folded, Lines, OfThoseServed
from hf_eco2ai.outputs.labels import Cleaning, LabelRules
from hf_eco2ai.outputs.metrics import METRICS, SCOPE_LABELS, Metric, Values, exposed_name
from hf_eco2ai.records import Snapshot

ROUNDED = 1e-11
"""What a journal inherits is rounded to twelve digits, so that a total may come out lower by that much, and has not fallen."""

EOF = b"# EOF\n"

_number: Callable[[float], str] = floatToGoString

LEAST = -1e-3
"""A sum of parts of intervals that is only by rounding below zero lies above this, and is shown as zero."""

UNUSABLE = (ArithmeticError, ValueError, TypeError, LookupError)
"""What figures that nobody has measured, in a journal that somebody has forged, may do to our arithmetic."""


class _Rendered(NamedTuple):
    """A run as it was when its lines were made."""

    snapshots: tuple[Snapshot, ...]
    lead: Snapshot
    """The one that knows of the whole run; where it is not here, the first."""
    updated_unix: float
    project: str
    lines: tuple[Lines, ...]
    """One entry per row of `METRICS`: name and labels as they stand on a line, and the number. So no line appears twice."""
    joined: tuple[bytes, ...]
    """The same as bytes, empty for families that runs share."""
    read_unix: dict[str, float]
    """When what a line says of a device was read."""


class Exposition:
    """All `METRICS` of some runs, then the families of `registry`. A scrape takes the snapshots once, so it agrees with itself.

    `render` is called by one thread at a time. Snapshots of one run (its hosts) are told by their `run_id`; where two of them
    show the same figure, the first one's is taken, but the higher one of totals. A run whose figures cannot be shown goes to
    `unusable`, which may raise, and is left out. Until it `is_known` which runs there are, nothing is said of any: what those
    have counted that left before a restart would be a fall without those that are still there.
    """

    def __init__(
        self,
        snapshots: Callable[[], Sequence[Snapshot]],
        rules: LabelRules,
        registry: CollectorRegistry | None = None,
        *,
        folded: Folded | None = None,
        unusable: Callable[[Snapshot, Exception], None] | None = None,
        is_known: Callable[[], bool] = lambda: True,
    ) -> None:
        self._snapshots = snapshots
        self._rules = rules
        self._registry = registry
        self._is_known = is_known
        self._unusable = unusable if unusable is not None else _raise
        self._folded = folded if folded is not None else OfThoseServed()
        cleaning = Cleaning(rules)
        self._families = [_Family(metric, rules, cleaning) for metric in METRICS]
        self._projects: dict[str, str] = {}
        self._rendered: dict[str, _Rendered] = {}
        self.series = 0
        """Series of runs in the last exposition, whatever the registry adds."""

    def render(self, *, openmetrics: bool = False) -> bytes:
        """The exposition."""
        families = self._families if self._is_known() else []  # Asked before the snapshots are taken, which may be newer.
        runs = self._runs(tuple(self._snapshots()))
        parts: list[bytes] = []
        self.series = 0
        for number, family in enumerate(families):
            parts.append(family.about_in_openmetrics if openmetrics else family.about)
            if family.is_shared:
                lines = self._shared(family, number, runs)
                parts.append(_bytes(lines))
                self.series += len(lines)
            else:
                parts += (run.joined[number] for run in runs)
                self.series += sum(len(run.lines[number]) for run in runs)
        if families:
            self._folded.settle(self._rendered)
        parts.append(_of_registry(self._registry, openmetrics=openmetrics))
        return b"".join(parts)

    def _runs(self, snapshots: tuple[Snapshot, ...]) -> list[_Rendered]:
        """Every run with its lines, made anew where something has changed."""
        # The oldest first, so that the same projects are the first ones after a restart.
        oldest_first = sorted(snapshots, key=attrgetter("identity.started_unix"))
        self._projects = self._rules.projects((s.identity.project_name for s in oldest_first), self._projects)
        groups: dict[str, list[Snapshot]] = {}
        for snapshot in snapshots:
            groups.setdefault(snapshot.identity.run_id, []).append(snapshot)
        self._rendered = {run_id: self._run(run_id, tuple(group)) for run_id, group in groups.items()}
        return list(self._rendered.values())

    def _run(self, run_id: str, snapshots: tuple[Snapshot, ...]) -> _Rendered:
        known, project = self._rendered.get(run_id), self._projects[snapshots[0].identity.project_name]
        if known is not None and known.project == project and _same(known.snapshots, snapshots):
            return known
        read_unix: dict[str, float] = {}
        lines = self._lines(snapshots, project, read_unix)
        if known is not None:
            for family, now, before in zip(self._families, lines, known.lines, strict=True):
                if family.metric.keeps:
                    _hold(now, before)
        joined = (b"" if family.is_shared else _bytes(made) for family, made in zip(self._families, lines, strict=True))
        lead = next((snapshot for snapshot in snapshots if snapshot.leads), snapshots[0])
        updated_unix = max(snapshot.updated_unix for snapshot in snapshots)
        return _Rendered(snapshots, lead, updated_unix, project, tuple(lines), tuple(joined), read_unix)

    def _lines(self, snapshots: tuple[Snapshot, ...], project: str, read_unix: dict[str, float]) -> list[Lines]:
        made: list[Lines] = [{} for _ in self._families]
        for snapshot in snapshots:
            try:
                one = [family.lines(snapshot, project) for family in self._families]
            except UNUSABLE as error:
                self._unusable(snapshot, error)
                continue
            for family, lines, more in zip(self._families, made, one, strict=True):
                if family.is_of_now:
                    _take_newer(lines, read_unix, more, dict.fromkeys(more, snapshot.updated_unix))
                    continue
                for line, value in more.items():
                    family.put(lines, line, value)
        return made

    def _shared(self, family: "_Family", number: int, runs: list[_Rendered]) -> Lines:
        """One sample for all runs that show it: the newest reading of a device, or what runs have together."""
        showing = [run for run in runs if run.lines[number]]
        if family.is_of_now:
            lines: Lines = {}
            read_unix: dict[str, float] = {}
            for run in showing:
                _take_newer(lines, read_unix, run.lines[number], run.read_unix)
            return lines
        newest_first = sorted(showing, key=attrgetter("updated_unix"), reverse=True)
        return self._folded.lines(family.metric, ((run.lead, run.lines[number]) for run in newest_first))


def _take_newer(lines: Lines, read_unix: dict[str, float], more: Lines, more_read_unix: dict[str, float]) -> None:
    for line, value in more.items():
        if line not in lines or more_read_unix[line] > read_unix[line]:
            lines[line], read_unix[line] = value, more_read_unix[line]


def _hold(lines: Lines, before: Lines) -> None:
    """Counters where they stood, if it is by rounding that they are lower: else they would be taken for begun again."""
    for line, value in lines.items():
        stood = before.get(line, value)
        if stood * (1 - ROUNDED) <= value < stood:
            lines[line] = stood


class _Family:
    """A row of `METRICS`, prepared: what is said about it, and how its lines look; labels are sorted as in prometheus_client."""

    def __init__(self, metric: Metric, rules: LabelRules, cleaning: Cleaning) -> None:
        self.metric = metric
        scope = tuple(name for name in SCOPE_LABELS[metric.scope] if rules.run_label or name != "run_id")
        self.is_of_now = metric.scope in {"device", "exporter"}
        self.is_shared = self.is_of_now or not rules.run_label
        self._is_total = metric.scope == "totals"
        self._scope = scope
        labels = (*metric.labels, *scope)
        self._project = labels.index("project_name") if "project_name" in labels else None
        self._bound = labels.index("le") if metric.kind == "histogram" else None
        order = sorted(range(len(labels)), key=labels.__getitem__)
        self._parts = tuple((n, cleaning.of(labels[n])) for n in order)
        suffix = "_bucket" if self._bound is not None else ""
        self._line = f"{exposed_name(metric)}{suffix}{_template([labels[n] for n in order])}"
        self._without_bound = _template([labels[n] for n in order if n != self._bound])
        self.about, self.about_in_openmetrics = _about(metric)

    def lines(self, snapshot: Snapshot, project: str) -> Lines:
        """What a snapshot has to say."""
        if self.metric.scope == "run" and not snapshot.leads:
            return {}
        scope = tuple(getattr(snapshot.identity, name) for name in self._scope)
        lines: Lines = {}
        samples = [(values, float(number)) for values, number in self.metric.samples(snapshot)]
        for values, number in self._countable(samples):
            everything = [*values, *scope]
            if self._project is not None:
                everything[self._project] = project
            if self._bound is None:
                self.put(lines, self._line_of(everything), number)
                continue
            for line in self._of_histogram(everything, everything[self._bound]):
                self.put(lines, line, number)
        return lines

    def put(self, lines: Lines, line: str, number: float) -> None:
        """Where two figures have one name the first stays, but the higher one of totals."""
        if line not in lines or (self._is_total and number > lines[line]):
            lines[line] = number

    def _line_of(self, values: list[str]) -> str:
        return self._line % tuple([cleaned[values[n]] for n, cleaned in self._parts])

    def _countable(self, samples: list[tuple[Values, float]]) -> list[tuple[Values, float]]:
        """Without counts that are negative or no number, on which a parser gives up with everything else that it is told."""
        if self.metric.kind == "counter":
            return [(values, max(0.0, number)) for values, number in samples if number > LEAST]
        if self.metric.kind == "histogram":
            counts = [0.0, *(number for _, number in samples[:-1])]
            rises = all(a <= b for a, b in itertools.pairwise(counts))
            return samples if samples and rises and samples[-1][1] >= 0 else []
        return samples

    def _of_histogram(self, values: list[str], bound: str) -> Iterator[str]:
        name = self.metric.name
        others = self._without_bound % tuple([cleaned[values[n]] for n, cleaned in self._parts if n != self._bound])
        if bound == "sum":
            yield f"{name}_sum{others}"
            return
        yield self._line_of(values)
        if bound == "+Inf":
            yield f"{name}_count{others}"


def _template(labels: list[str]) -> str:
    return "{" + ",".join(f'{label}="%s"' for label in labels) + "}" if labels else ""


_TEXT_TYPES = {"info": "gauge", "untyped": "untyped"}
_OPENMETRICS_TYPES = {"untyped": "unknown"}


def _about(metric: Metric) -> tuple[bytes, bytes]:
    """HELP and TYPE as text 0.0.4 and as OpenMetrics, which names a family without the suffix of its samples."""
    text_name = metric.name + ("_info" if metric.kind == "info" else "")
    family = metric.name.removesuffix("_total") if metric.kind == "counter" else metric.name
    said = metric.help.replace("\\", r"\\").replace("\n", r"\n")
    text = f"# HELP {text_name} {said}\n# TYPE {text_name} {_TEXT_TYPES.get(metric.kind, metric.kind)}\n"
    quoted = said.replace('"', r"\"")
    openmetrics = f"# HELP {family} {quoted}\n# TYPE {family} {_OPENMETRICS_TYPES.get(metric.kind, metric.kind)}\n"
    return text.encode(), openmetrics.encode()


def _bytes(lines: Lines) -> bytes:
    return "".join([f"{line} {_number(number)}\n" for line, number in lines.items()]).encode()


def _of_registry(registry: CollectorRegistry | None, *, openmetrics: bool) -> bytes:
    if registry is None:
        return EOF if openmetrics else b""
    encode: Callable[[CollectorRegistry], bytes] = openmetrics_of if openmetrics else text_of
    return encode(registry)


def _same(a: tuple[Snapshot, ...], b: tuple[Snapshot, ...]) -> bool:
    return len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))


def _raise(_snapshot: Snapshot, error: Exception) -> None:
    raise error
