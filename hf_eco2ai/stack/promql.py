"""Pieces of PromQL that alerts, recording rules and dashboards have in common.

A run may be seen twice, by its own endpoint and by a daemon, and its labels may then differ (`max_projects` makes `other` of a
project). So a figure is first taken once per run and host, by `run_id` and never by project, and its project and model are joined
to it at the end. Runs that no `run_id` tells apart (`run_label=False`) are no runs to these: nothing can be said of one of them.
"""

import re

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}
RESTART = "5m"
"""Longer than an exporter is away when it is restarted; and as long as a query finds a value that nobody has withdrawn."""

LOOKED = "1h"
"""So far back it is counted how often Prometheus has looked. All its jobs are scraped equally often."""

_DURATION = re.compile(r"(\d+)([smhdwy])(?!s)")


def once(metric: str, *by: str, pick: str = "max") -> str:
    """A metric, taken once for each combination of these labels: `max by (run_id, host) (metric)`."""
    return f"{pick} by ({', '.join(by)}) ({metric})"


def of_run(metric: str, *more: str, function: str = "sum") -> str:
    """What hosts measured for a run, added up: one value per run_id (and `more`), however often the run is scraped."""
    labels = ("run_id", *more)
    return f"{function} by ({', '.join(labels)}) ({once(metric, *labels, 'host')})"


RUNNING = 'max by (run_id) (hf_training_running{run_id!=""}) == 1'
"""Right side of `and on (run_id) (…)`: runs that live."""


def while_running(expression: str) -> str:
    """Only of runs that live: what ended runs still show is history."""
    return f"({expression}) and on (run_id) ({RUNNING})"


def averaged(metric: str, window: str, *by: str) -> str:
    """The mean of a gauge over a window, of what was there when the window began: a run's first minute is no mean of ten.

    What was there shortly before will do, or an exporter's restart would be felt a second time, a window later.
    """
    there = f"last_over_time({metric}[{RESTART}] offset {window})"
    return f"({once(f'avg_over_time({metric}[{window}])', *by)} and {once(there, *by)})"


def began(metric: str, *by: str) -> str:
    """Of a counter, what has begun while Prometheus was looking: that counts from 0, and all else from its first value.

    Nothing that is served says when a run began. So it is what its target did not show, in two answers or more of the last hour;
    or, where its target is its own endpoint, what came with a target that is three scrapes or more younger than the oldest, since
    targets are not scraped at the same moment.
    A Prometheus that starts knows of no beginnings, nor does one that meets a daemon for the first time.
    """
    scrapes = f"sum by ({', '.join((*by, 'job', 'instance'))}) (count_over_time({metric}[{LOOKED}]))"
    answers = once(f"sum_over_time(up[{LOOKED}])", "job", "instance")
    own = once(f'count_over_time(up{{job="hf-eco2ai-runs"}}[{LOOKED}])', "job", "instance")
    longest = f'scalar(max(count_over_time(up{{job=~"hf-eco2ai|hf-eco2ai-runs|prometheus"}}[{LOOKED}])))'
    later = f"{scrapes} < on (job, instance) group_left () ({answers} - 1)"
    return once(f"{later} or {scrapes} and on (job, instance) ({own} < {longest} - 2)", *by, pick="group")


def who(window: str = "") -> str:
    """One line per run_id with project_name and model_name, worth 1; with a window also of runs that were served in it.

    Of several names that a run is given, one that is not `other` is taken.
    """
    names = "group by (run_id, project_name, model_name)"

    def named(project: str) -> str:
        info = f'hf_training_run_info{{run_id!="", project_name{project}"other"}}'
        return f"{names} ({f'last_over_time({info}[{window}])' if window else info})"

    return f"topk by (run_id) (1, {named('!=')} or on (run_id) {named('=')})"


def with_model(expression: str, window: str = "") -> str:
    """Values that have a run_id, whatever else, with the run's project and model as labels for people to read.

    `window` is for what is still said of runs that are served no more.
    """
    return f"({expression})\n* on (run_id) group_left (project_name, model_name)\n{who(window)}"


def seconds(duration: str) -> int:
    """Of a duration such as 1h30m, for use as a number."""
    return sum(int(number) * _SECONDS[unit] for number, unit in _DURATION.findall(duration))
