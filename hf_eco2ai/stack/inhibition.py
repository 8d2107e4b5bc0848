"""Which alert says the same as others, and more: while it fires, those are not told, nor that they are over."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Inhibition:
    """`source` silences `targets` that have the same values of the labels `equal`. A label that both lack is the same, too."""

    source: str
    targets: tuple[str, ...]
    equal: tuple[str, ...]


_RUN = ("project_name", "run_id")
_BUDGET = (*_RUN, "scope", "period")
"""A run's budget has a run_id, its project's has none. So one never silences what is said of the other."""
_DAEMON = ("job", "instance")
_GPU = ("host", "gpu_id")

INHIBITIONS = (
    Inhibition("CarbonBudgetExceeded", ("CarbonBudgetNearlySpent", "CarbonBudgetBurningFast"), _BUDGET),
    Inhibition("CarbonBudgetExceeded", ("CarbonForecastOverBudget",), _RUN),  # A forecast is of a run's own budget.
    Inhibition("EnergyBudgetExceeded", ("EnergyBudgetNearlySpent",), _BUDGET),
    Inhibition("CostBudgetExceeded", ("CostBudgetNearlySpent",), _BUDGET),
    Inhibition("LossNotFinite", ("HighLoss",), _RUN),
    Inhibition("RunLost", ("MetricsStale", "TrainingStalled"), _RUN),
    Inhibition("GpuTemperatureCritical", ("GpuTemperatureHigh",), _GPU),
    Inhibition("ExporterDown", ("MetricsStale", "MonitoringErrors", "HighCardinality"), _DAEMON),
)
