"""PromQL of the dashboards: what the variables choose, each run once, with names that people know.

A run may be scraped twice and be named differently then, so figures are taken by run_id, and project and model are joined to them
(see hf_eco2ai.stack.promql). Where runs are folded (`run_label=False`) they have no run_id, and what has a project is taken by
that. Panels on what is now ask for what is served now; those on what has come about so far ask for the last value in the time
range, so that runs which are served no more count as well.
"""

from hf_eco2ai.stack.promql import once

SEEN = "$__range"
"""Of queries of an instant, which is the end of the time range."""

NAMES = ("project_name", "model_name", "experiment_name")
LEGEND = "{{project_name}} {{experiment_name}} {{run_id}}"
CHOSEN_RUN = 'run_id=~"$run"'
CHOSEN_HOST = 'host=~"$host"'
CHOSEN = f'project_name=~"$project", model_name=~"$model", {CHOSEN_RUN}'


def _of(metric: str, matchers: str, window: str) -> str:
    name, _, own = metric.partition("{")
    selector = f"{name}{{{', '.join(filter(None, (own.rstrip('}'), matchers)))}}}"
    return f"last_over_time({selector}[{window}])" if window else selector


def names(window: str = "") -> str:
    """One line for each run that is chosen, with its names, worth 1. Of several projects one that is not `other` is taken."""

    def named(project: str) -> str:
        info = _of("hf_training_run_info", f'run_id!="", {CHOSEN}, {CHOSEN_HOST}, project_name{project}"other"', window)
        return f"group by (run_id, {', '.join(NAMES)}) ({info})"

    return f"topk by (run_id) (1, {named('!=')} or on (run_id) {named('=')})"


def with_names(expression: str, window: str = "") -> str:
    """Of the runs that are chosen, with their names."""
    return f"({expression}) * on (run_id) group_left ({', '.join(NAMES)}) {names(window)}"


def falling(expression: str) -> str:
    """The largest first, for bars."""
    return f"sort_desc({expression})"


def live(expression: str) -> str:
    """Of it, only what is of runs that live."""
    return f"({expression}) and on (run_id) (max by (run_id) (hf_training_running{{{CHOSEN_RUN}}}) == 1)"


def _chosen(expression: str, window: str) -> str:
    info = _of("hf_training_run_info", f'run_id!="", {CHOSEN}, {CHOSEN_HOST}', window)
    return f"({expression} and on (run_id) group by (run_id) ({info}))"


def run(metric: str, *by: str, window: str = "") -> str:
    """A figure of a whole run, once per run_id."""
    return once(_of(metric, f'run_id!="", {CHOSEN_RUN}', window), "run_id", *by)


def hosts(metric: str, *by: str, over: tuple[str, ...] = (), window: str = "", function: str = "sum") -> str:
    """What hosts measured for a run, put together: one figure per run_id. `over` are labels that are put together as well."""
    labels = ("run_id", *by)
    each = once(_of(metric, f'run_id!="", {CHOSEN_RUN}, {CHOSEN_HOST}', window), *labels, *over, "host")
    return f"{function} by ({', '.join(labels)}) ({each})"


def folded(metric: str, *by: str, window: str = "") -> str:
    """The same of runs without a run_id, by project and, where the metric has it, model and host."""
    matchers = f'run_id="", {CHOSEN}, {CHOSEN_HOST}'
    return once(_of(metric, matchers, window), "project_name", "model_name", "host", *by)


def total(metric: str, *by: str, window: str = "") -> str:
    """A figure of hosts, of all runs that are chosen together; `by` is what is never added up, such as the currency."""
    each = f"{_chosen(hosts(metric, *by, window=window), window)} or {folded(metric, *by, window=window)}"
    return f"{_sum(*by)} ({each})"


def _sum(*by: str, function: str = "sum") -> str:
    return f"{function} by ({', '.join(by)})" if by else function


def by_name(metric: str, name: str, *by: str, window: str = "") -> str:
    """A figure of hosts by one of the names: of each project, model or experiment."""
    each = f"{with_names(hosts(metric, *by, window=window), window)} or {folded(metric, *by, window=window)}"
    return f"sum by ({', '.join((name, *by))}) ({each})"


def by_label(metric: str, *by: str, over: tuple[str, ...] = (), window: str = "") -> str:
    """A figure of hosts by labels of its own, such as the phase, of all runs that are chosen."""
    return f"sum by ({', '.join(by)}) ({_chosen(hosts(metric, *by, over=over, window=window), window)})"


def of_runs(metric: str, *by: str, window: str = "") -> str:
    """A figure of whole runs, with their names."""
    return with_names(run(metric, *by, window=window), window)


def of_hosts(metric: str, *by: str, over: tuple[str, ...] = (), window: str = "", function: str = "sum") -> str:
    """A figure that hosts measure, of each run, with its names."""
    return with_names(hosts(metric, *by, over=over, window=window, function=function), window)


def chosen_runs(metric: str, *by: str, window: str = "", function: str = "sum") -> str:
    """A figure of whole runs, of all that are chosen together."""
    return f"{_sum(*by, function=function)} ({_chosen(run(metric, *by, window=window), window)})"


def devices(metric: str, *by: str) -> str:
    """Gauges of devices, which know their host and no run: those of hosts on which a run that is chosen was."""
    host = f"group by (host) (hf_training_run_info{{{CHOSEN}, {CHOSEN_HOST}}})"
    return f"{once(_of(metric, CHOSEN_HOST, ''), 'host', *by)} and on (host) {host}"


def growth(counter: str, *by: str, over: tuple[str, ...] = (), hosted: bool = True) -> str:
    """How fast a counter grows per second, of each run; the faster of what two exporters show of it."""
    matchers = f'run_id!="", {CHOSEN_RUN}' + (f", {CHOSEN_HOST}" if hosted else "")
    each = once(f"rate({_of(counter, matchers, '')}[$__rate_interval])", "run_id", *by, *over, *(("host",) if hosted else ()))
    return f"sum by ({', '.join(('run_id', *by))}) ({each})"


def growth_by_label(counter: str, *by: str, over: tuple[str, ...] = (), hosted: bool = True) -> str:
    """The same of all runs that are chosen together."""
    return f"sum by ({', '.join(by)}) ({_chosen(growth(counter, *by, over=over, hosted=hosted), '')})"


def quantile(share: float, histogram: str) -> str:
    """Of a run's histogram lately: below it are so many of 1."""
    return with_names(f"histogram_quantile({share}, {growth(f'{histogram}_bucket', 'le', hosted=False)})")


STATE = "min by (run_id) (" + " or ".join(
    f'hf_training_run_state{{run_id!="", {CHOSEN_RUN}, state="{state}"}} * {number} == {number}'
    for number, state in enumerate(("running", "ended", "failed", "lost"), start=1)
) + ")"  # fmt: skip
"""As a number of style.STATES. Of two exporters the one that says it lives knows better: it is on the run's own host."""

ALERTS = 'ALERTS{alertstate="firing", category!="", project_name=~"$project|", model_name=~"$model|", run_id=~"$run|"}'
"""Also those that are of no project, model or run."""
