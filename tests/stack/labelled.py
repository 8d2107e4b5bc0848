"""Series of runs, for promtool's cases."""

import re
from collections.abc import Mapping


def series(metric: str, **labels: str) -> str:
    """As promtool names one."""
    return metric + "{" + ", ".join(f'{label}="{value}"' for label, value in labels.items()) + "}"


def run(
    run_id: str = "r1",
    project: str = "llama",
    model: str = "m1",
    host: str = "h1",
    running: str = "1x400",
    info: str = "1x400",
) -> dict[str, str]:
    """What says of a run what it is and that it lives."""
    own = {"project_name": project, "run_id": run_id}
    return {
        series("hf_training_run_info", model_name=model, host=host, **own): info,
        series("hf_training_running", **own): running,
    }


def served_twice(shown: Mapping[str, str]) -> dict[str, str]:
    """By the run's own endpoint and by a daemon, to which its project is one too many and so `other`."""
    own = {name.replace("{", '{job="hf-eco2ai-runs", instance="h1:9091", '): values for name, values in shown.items()}
    daemon = {name.replace("{", '{job="hf-eco2ai", instance="h1:9092", '): values for name, values in shown.items()}
    return own | {re.sub(r'project_name="[^"]*"', 'project_name="other"', name): values for name, values in daemon.items()}


def budget(ratio: str, run_id: str = "r1", *, kind: str = "carbon", scope: str = "run", period: str = "none") -> dict[str, str]:
    """The share of a budget that is used, as a run of the project llama tells of it."""
    labels = {"project_name": "llama", "run_id": run_id, "budget": kind, "scope": scope, "period": period}
    return {series("hf_training_budget_used_ratio", **labels): ratio}


def budget_kg(values: str, run_id: str = "r1") -> dict[str, str]:
    """The carbon budget itself."""
    return {series("hf_training_carbon_budget_kg", project_name="llama", run_id=run_id): values}


def measured(values: str, run_id: str = "r1") -> dict[str, str]:
    """When a run was last measured, in Unix seconds; promtool's time begins at 0."""
    return {series("hf_training_last_update_timestamp", run_id=run_id, host="h1"): values}
