"""The alerts, one record each, by category. `hf-eco2ai stack rules` writes them to alerting/rules/."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from hf_eco2ai.stack.thresholds import Thresholds

Severity = Literal["critical", "warning", "info"]


@dataclass(frozen=True)
class Alert:
    """One alerting rule.

    Texts may hold Prometheus' templates (`{{ $labels.run_id }}`, `{{ $value }}`). `dashboard` is the uid of one that shows more.
    """

    name: str
    severity: Severity
    expr: str
    summary: str
    """One line, for a title: what is wrong with what."""
    description: str
    """The figures, and what they mean."""
    action: str
    """What to do now, one sentence."""
    value: str
    """The value with its unit, for messages: `{{ $value | printf "%.2f" }} kg`."""
    dashboard: str
    hold: str = "0s"
    """So long it has to hold before it fires: `for`."""
    keep: str = "0s"
    """So long it goes on firing when it holds no more: `keep_firing_for`."""
    limit: str = ""
    """The threshold or budget with its unit, for messages."""


Category = Callable[[Thresholds], tuple[Alert, ...]]


def categories() -> dict[str, Category]:
    """The table: category to what makes its alerts."""
    from hf_eco2ai.stack.alerts.carbon import alerts as carbon  # noqa: PLC0415 - they need Alert, all of them
    from hf_eco2ai.stack.alerts.cost import alerts as cost  # noqa: PLC0415
    from hf_eco2ai.stack.alerts.energy import alerts as energy  # noqa: PLC0415
    from hf_eco2ai.stack.alerts.gpu import alerts as gpu  # noqa: PLC0415
    from hf_eco2ai.stack.alerts.system import alerts as system  # noqa: PLC0415
    from hf_eco2ai.stack.alerts.training import alerts as training  # noqa: PLC0415

    return {"carbon": carbon, "energy": energy, "training": training, "gpu": gpu, "cost": cost, "system": system}
