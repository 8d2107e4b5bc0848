"""What the API answers with. The OpenAPI description is made from these models, so they say what every field means.

Imported when the API is first asked for: making so many models takes longer than a scrape.
"""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from typing_extensions import TypeAliasType

from hf_eco2ai.outputs.text import encodable
from hf_eco2ai.records import (
    Basis,
    BudgetKind,
    BudgetPeriod,
    BudgetScope,
    Component,
    EndReason,
    FactorType,
    Method,
    Phase,
    RunState,
)

_FIGURE: dict[str, Any] = {
    "description": "A number. NaN and infinities are strings, since JSON has none",
    "anyOf": [{"type": "number"}, {"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]}],
}
Figure = TypeAliasType("Figure", Annotated[float, WithJsonSchema(_FIGURE)])
Text = Annotated[str, BeforeValidator(encodable)]


class Model(BaseModel):
    """A part of an answer. Where a figure is not known, it is null."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings", protected_namespaces=(), from_attributes=True)


class Used(Model):
    """A footprint: device energy without PUE, CO₂e and costs with it."""

    joules: Figure = Field(description="Device energy")
    grams: Figure = Field(description="gCO₂e")
    energy_cost: Figure | None = Field(description="In the tariff's currency")
    compute_cost: Figure | None = Field(description="GPU hours at their price, in the tariff's currency")


class PhaseUsed(Used):
    """What a phase has used."""

    seconds: Figure = Field(description="How long the run has been in it")


class DeviceTelemetry(Model):
    """What a device says about itself beside energy."""

    utilization_percent: Figure | None
    memory_used_bytes: Figure | None
    memory_total_bytes: Figure | None
    temperature_celsius: Figure | None
    power_limit_watts: Figure | None


class DeviceUsed(Model):
    """A device, what it has used for the run, how that is known, and what it does now."""

    uuid: Text
    component: Component
    basis: Basis = Field(description="A sensor, a model of the hardware, or a made-up trace")
    joules: Figure = Field(description="The run's share of what it drew")
    observed_seconds: Figure = Field(description="Time for which its energy is known")
    source: Text | None = Field(default=None, description="Who says so; null where only its totals are known")
    index: Text | None = Field(default=None, description="The number by which people know it")
    model: Text | None = Field(default=None, description="Its name")
    note: Text | None = Field(default=None, description="What a reader of the figures must know")
    methods: list[Method] = Field(default=[], description="How its joules were obtained")
    watts: Figure | None = Field(default=None, description="Power now")
    baseline_watts: Figure | None = Field(default=None, description="Power before training")
    telemetry: DeviceTelemetry | None = Field(default=None, description="As it said last")


class Present(Model):
    """Rates over the last measurement interval."""

    watts: Figure = Field(description="Power of the devices, the run's share")
    grams_per_hour: Figure = Field(description="gCO₂e/h")


class PresentWithCost(Present):
    """Rates over the last measurement interval, with what they cost."""

    cost_per_hour: Figure | None = Field(description="In the tariff's currency")


class HostUsed(Model):
    """What a host has used for the run."""

    host: Text = Field(description="Its name")
    reporting: bool = Field(description="Whether its own process is served here; else this is what the leading one knows of it")
    seconds: Figure = Field(description="Wall seconds that the run has lived on it")
    total: Used
    wasted: Used = Field(description="Of the total, on steps that a resume rolled back")
    grams_by_factor_type: dict[FactorType, Figure] = Field(description="gCO₂e; never to be added over the types")
    phases: dict[Phase, PhaseUsed]
    devices: list[DeviceUsed]
    present: PresentWithCost | None = Field(description="Null where nothing runs")
    observed_ratio: Figure | None = Field(description="Part of its devices' time for which their energy is known")
    errors: dict[Text, int] = Field(description="What has gone wrong, by type; only what has happened")


class StepDurations(Model):
    """Durations of optimizer steps, in the buckets of `hf_training_step_duration_seconds`."""

    counts: list[int] = Field(description="Steps in each bucket, not cumulative")
    sum_seconds: Figure


class Standing(Model):
    """How far the run has come, as the Trainer says."""

    steps: int = Field(description="Optimizer steps done, those that a resume rolled back included")
    global_step: int = Field(description="Where training stands, as the Trainer counts")
    max_steps: int = Field(description="Steps that it will have; 0 where nobody has said")
    epochs: int = Field(description="Whole epochs done")
    samples: int
    tokens: int | None
    flops: Figure | None = Field(description="As the Trainer estimates them")
    loss: Figure | None = Field(description="As last logged, and so are the next three")
    eval_loss: Figure | None
    learning_rate: Figure | None
    grad_norm: Figure | None
    samples_per_second: Figure | None = Field(description="Between the last steps that ended")
    ratio: Figure | None = Field(description="Optimizer steps done / to do")
    eta_seconds: Figure | None = Field(description="Until training ends")
    step_durations: StepDurations | None
    failed_steps: dict[Text, int] = Field(description="Steps that were lost, by reason")


class Predicted(Model):
    """The whole run, extrapolated from the steps done so far."""

    joules: Figure
    grams: Figure
    cost: Figure | None


class Budget(Model):
    """A budget and what is used of it."""

    kind: BudgetKind
    limit: Figure = Field(description="kg CO₂e, kWh, or money in the tariff's currency")
    spent: Figure = Field(description="In the present period")
    used_ratio: Figure | None = Field(description="Spent over limit; null for a limit of 0")
    predicted: Figure | None = Field(description="When the run will have ended")
    scope: BudgetScope
    period: BudgetPeriod


class Grid(Model):
    """Carbon intensity of electricity, with its provenance."""

    grams_per_kwh: Figure = Field(description="gCO₂e/kWh")
    factor_type: FactorType
    source: Text
    country: Text
    region: Text
    year: int | None = Field(description="That it is of; null for a live one")
    licence: Text
    assumed: bool = Field(description="Whether nobody said where the machine is, and the world average stands in")
    age_seconds: Figure | None = Field(description="How old a live factor is")


class Prices(Model):
    """Prices; null where none is known."""

    per_kwh: Figure | None
    per_gpu_hour: Figure | None
    currency: Text


class Processes(Model):
    """The processes of a measured command."""

    cpu_seconds: Figure
    processes: int
    rss_bytes: int
    peak_processes: int
    peak_rss_bytes: int


class Run(Model):
    """What a list says of a run, and its details begin with."""

    run_id: Text
    project_name: Text
    model_name: Text
    experiment_name: Text
    trainer: Text = Field(description="`transformers`, `track` (a loop of one's own) or `monitor` (a command)")
    state: RunState = Field(description="`lost`: its process is gone without a word")
    end_reason: EndReason = Field(description="Empty while it runs, and where nobody knows")
    parent: Text = Field(description="Run from whose checkpoint this one began, without being that run; else empty")
    started_unix: Figure = Field(description="When it first began, in Unix seconds")
    updated_unix: Figure = Field(description="When it was last heard, in Unix seconds")
    seconds: Figure = Field(description="Wall seconds that it has lived on its leading host")
    energy_kwh: Figure = Field(description="Device energy, without PUE")
    co2_kg: Figure = Field(description="kg CO₂e, with PUE")
    cost: Figure | None = Field(description="Energy and compute together; null without a price")
    currency: Text = Field(description="Of all costs and prices")
    wasted_kwh: Figure = Field(description="Of the energy, on steps that a resume rolled back")
    basis: Text = Field(description="`measured`, `modelled`, `simulated`, `mixed`, or `none` without a device")
    steps: int = Field(description="Optimizer steps done, those that a resume rolled back included")


class RunSummary(Run):
    """A run in short."""

    hosts: list[Text] = Field(description="Names of the hosts that it has used")
    present: Present | None = Field(description="Null where nothing runs")
    progress_ratio: Figure | None = Field(description="Optimizer steps done / to do; null where nobody has said")


class RunList(Model):
    """A page of runs, the newest first."""

    runs: list[RunSummary]
    total: int = Field(description="Runs that fit the query, on all pages together")


class RunDetail(Run):
    """Everything that is known of a run, with its provenance."""

    attempt: int = Field(description="Which time it is that the run is begun on its leading host")
    total: Used = Field(description="On all hosts together")
    wasted: Used = Field(description="Of the total, on steps that a resume rolled back")
    hosts: list[HostUsed]
    present: PresentWithCost | None = Field(description="Of all hosts together; null where nothing runs")
    progress: Standing
    forecast: Predicted | None
    budgets: list[Budget]
    grid_factor: Grid
    tariff: Prices
    pue: Figure = Field(description="Facility energy / device energy")
    observed_ratio: Figure | None = Field(description="The lowest of its hosts'")
    efficiency_score: Figure | None = Field(
        description="0 to 1: share of this attempt's energy that training steps used, times mean utilisation of GPU (or CPU)"
    )
    errors: dict[Text, int] = Field(description="What has gone wrong on all hosts, by type; only what has happened")
    processes: Processes | None = Field(description="Only of a measured command")


class Problem(Model):
    """What is wrong (RFC 9457)."""

    type: str = Field(default="about:blank", description="Always `about:blank`: the status says it all")
    title: str = Field(description="The status, in words")
    status: int
    detail: str = Field(description="What is wrong, and what to do")
    parameter: str | None = Field(default=None, description="The query parameter that is meant, if one is")
