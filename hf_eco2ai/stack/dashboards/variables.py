"""Variables: the data source, and which projects, models, runs and hosts are shown.

Each is chosen among what goes with those before it, of all that was seen in the time range. `All` is `.*`, so queries join with
runs' names to leave out what another variable excludes.
"""

from hf_eco2ai.stack.dashboards.panels import DATASOURCE
from hf_eco2ai.stack.dashboards.style import Json

_OF_PROJECT = 'project_name=~"$project"'
_OF_MODEL = f'{_OF_PROJECT}, model_name=~"$model"'

RUNS = (
    f'group by (name, run_id) (label_join(last_over_time(hf_training_run_info{{run_id!="", {_OF_MODEL}}}[$__range]), '
    '"name", " ", "project_name", "experiment_name", "model_name", "run_id"))'
)
RUN_NAMES = '/name="(?<text>.*)",run_id="(?<value>[^"]*)"/'
"""What is read in the list is the run with its project, experiment and model; what is asked for is its run_id."""


def variables(*, one_run: bool) -> list[Json]:
    """In the order of the chain. `one_run`: the dashboard is of one, and begins with the first."""
    return [
        _datasource(),
        _query("project", "Project", "label_values(hf_training_run_info, project_name)"),
        _query("model", "Model", f"label_values(hf_training_run_info{{{_OF_PROJECT}}}, model_name)"),
        _query("run", "Run", f"query_result({RUNS})", RUN_NAMES, several=not one_run),
        _query("host", "Host", f'label_values(hf_training_run_info{{{_OF_MODEL}, run_id=~"$run"}}, host)'),
    ]


def _datasource() -> Json:
    return {
        "type": "datasource",
        "name": "datasource",
        "label": "Data source",
        "description": "The Prometheus that scrapes the runs",
        "query": "prometheus",
        "regex": "",
        "refresh": 1,
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "options": [],
        "skipUrlSync": False,
    }


def _query(name: str, label: str, query: str, regex: str = "", *, several: bool = True) -> Json:
    of_several = {"allValue": ".*", "current": {"selected": True, "text": ["All"], "value": ["$__all"]}}
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "regex": regex,
        "refresh": 2,  # when the time range changes
        "sort": 1,
        "hide": 0,
        "multi": several,
        "includeAll": several,
        **(of_several if several else {}),
        "options": [],
        "skipUrlSync": False,
    }
