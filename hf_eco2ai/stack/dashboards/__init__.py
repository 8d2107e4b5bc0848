"""Grafana's dashboards, described in Python and made into dashboards/*.json by `hf-eco2ai stack rules`."""

from hf_eco2ai.stack.dashboards import carbon, executive, operations, quality, realtime, run_detail
from hf_eco2ai.stack.dashboards.dashboard import Dashboard
from hf_eco2ai.stack.thresholds import Thresholds

_MADE = (
    carbon.dashboard,
    executive.dashboard,
    operations.dashboard,
    run_detail.dashboard,
    realtime.dashboard,
    quality.dashboard,
)


def all_dashboards(thresholds: Thresholds) -> tuple[Dashboard, ...]:
    """With lines and colours at the thresholds."""
    return tuple(made(thresholds) for made in _MADE)


def dashboards(thresholds: Thresholds) -> dict[str, str]:
    """File names in dashboards/ to their text."""
    return {f"{made.uid}.json": made.text() for made in all_dashboards(thresholds)}
