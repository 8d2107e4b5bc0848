"""The lines of a journal: what is in them, and how they become bytes and records again.

A journal is NDJSON: a header, then lines of cumulative totals, then an end line. docs/journal.md describes it, and
docs/journal.schema.json is made from the models below. What is on disk outlives the code that wrote it, so these models are
apart from the records: a change here that an old reader would misread needs a new `FORMAT`.
"""

import zlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from hf_eco2ai.records import (
    ERROR_TYPES,
    FAILED_STEP_REASONS,
    PHASES,
    Basis,
    BudgetKind,
    BudgetPeriod,
    BudgetScope,
    BudgetStatus,
    Component,
    Counts,
    Device,
    DeviceStatus,
    DeviceTotals,
    EndReason,
    FactorType,
    Footprint,
    Forecast,
    GridFactor,
    HostTotals,
    Method,
    Phase,
    Progress,
    Rates,
    RunIdentity,
    RunState,
    Snapshot,
    StepHistogram,
    Tariff,
    Telemetry,
    TreeUsage,
)

FORMAT = 1
"""Version of the format. A reader refuses a newer one by name and goes on with other files."""

_CHECK = b',"crc32":'
"""Starts the last field of every line: the CRC-32 of all bytes before it, so that a flipped bit is not taken for a figure."""


_DIGITS = 12
"""Significant digits of a figure on disk: a tenth of a joule in 100 GJ. More would be noise that makes lines longer."""


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _text(value: Any) -> Any:
    """A file name that is no UTF-8 (with lone surrogates, that is) must not cost the journal: it is written with escapes."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _free(value: Any) -> Any:
    if isinstance(value, dict):
        return {_free(key): _free(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_free(entry) for entry in value]
    return _text(value)


Figure = Annotated[float, AfterValidator(_rounded)]
UnixSeconds = Annotated[float, AfterValidator(lambda value: round(value, 3))]
Seconds = Annotated[float, AfterValidator(lambda value: round(value, 6))]
Text = Annotated[str, BeforeValidator(_text)]
Free = Annotated[dict[str, Any], BeforeValidator(_free)]


class Model(BaseModel):
    """A part of a line. NaN and infinities are strings, since JSON has none; unknown fields are ignored, for newer writers.

    A totals line leaves out what is at its default, so within a format no default ever changes. Fields without a default are in
    every line, for those who read it with jq.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="strings", protected_namespaces=())


class Used(Model):
    """A footprint. Device energy without PUE; CO₂e and costs with it."""

    joules: Figure = Field(description="Device energy, without PUE")
    grams: Figure = Field(description="gCO₂e")
    energy_cost: Figure | None = Field(default=None, description="In the header's `tariff.currency`, PUE included")
    compute_cost: Figure | None = Field(default=None, description="GPU hours at their price")


NOTHING = Used(joules=0.0, grams=0.0)


class PhaseUsed(Used):
    """What a phase has used."""

    seconds: Figure = Field(default=0.0, description="How long the run has been in it")


class DeviceUsed(Model):
    """What a device has used."""

    component: Component = Field(description="`gpu`, `cpu` or `dram`")
    basis: Basis = Field(description="`measured`, `modelled` or `simulated`")
    joules: Figure = Field(description="The run's share of what it drew")
    observed_seconds: Figure = Field(default=0.0, description="Time for which its energy is known")


class HostUsed(Used):
    """What a host has used."""

    host: Text = Field(description="Its name")
    wasted: Used = Field(default=NOTHING, description="Of it, on steps that a resume rolled back")
    grams_by_factor_type: dict[FactorType, Figure] = Field(default={}, description="gCO₂e; never to be added over the types")
    phases: dict[Phase, PhaseUsed] = Field(default={}, description="Those that the run has been in")
    devices: dict[Text, DeviceUsed] = Field(default={}, description="By UUID")


class Steps(Model):
    """Durations of optimizer steps: a count for each bucket, and their sum in seconds."""

    counts: list[int] = Field(description="Steps in each bucket of `hf_training_step_duration_seconds`")
    sum_seconds: Figure = Field(description="Of all of them")


class Done(Model):
    """What a run has done in all its attempts."""

    steps: int = Field(default=0, description="Optimizer steps, those that a resume rolled back included")
    samples: int = Field(default=0, description="Samples trained")
    tokens: int | None = Field(default=None, description="Tokens trained, where they are counted")
    flops: Figure | None = Field(default=None, description="Floating point operations, as the Trainer estimates them")
    step_durations: Steps | None = Field(default=None, description="How long steps took")
    failed_steps: dict[Text, int] = Field(default={}, description="Steps that were lost, by reason")


class Run(Model):
    """Which run it is."""

    run_id: Text = Field(description="Its identity")
    project_name: Text = Field(default="", description="As set")
    model_name: Text = Field(default="", description="As set, or the model's own")
    experiment_name: Text = Field(default="", description="As set")
    trainer: Text = Field(default="", description="`transformers`, `track` or `monitor`")
    started_unix: UnixSeconds = Field(default=0.0, description="When the run first began")
    parent: Text = Field(default="", description="Run from whose checkpoint this one began, without being that run")


class ProcessIdentity(Model):
    """Which process writes the journal. Tells another process of the host whether it still lives."""

    pid: int = Field(description="Its number")
    started: Figure = Field(default=0.0, description="When the process began, in seconds after boot (/proc/<pid>/stat)")
    boot_id: Text = Field(default="", description="/proc/sys/kernel/random/boot_id")
    pid_namespace: Text = Field(default="", description="/proc/self/ns/pid; a pid means something only within it")
    locks: bool = Field(default=False, description="Whether it holds a lock on the file (flock), which ends with it")

    def is_same(self, other: "ProcessIdentity") -> bool:
        """Whether both are one process, whatever it holds."""
        return self.model_copy(update={"locks": other.locks}) == other


class HeaderDevice(Model):
    """A device that the run measures."""

    uuid: Text = Field(description="Its identity")
    component: Component = Field(description="`gpu`, `cpu` or `dram`")
    basis: Basis = Field(description="`measured`, `modelled` or `simulated`")
    source: Text = Field(description="Who says what it draws")
    index: Text = Field(default="", description="The number by which people know it")
    model: Text = Field(default="", description="Its name")
    max_watts: Figure = Field(default=0.0, description="No plausible power lies above")
    note: Text = Field(default="", description="What a reader of the figures must know")
    idle_watts: Figure | None = Field(default=None, description="Draw at idle by a model's own coefficients")
    scope: Text = Field(default="", description="The part of the host's CPUs that is meant")


class Factor(Model):
    """The grid factor, with its provenance."""

    grams_per_kwh: Figure
    factor_type: FactorType
    source: Text
    country: Text = ""
    region: Text = ""
    year: int | None = None
    licence: Text = ""
    assumed: bool = False
    age_seconds: Figure | None = None


class Prices(Model):
    """Prices, absent where none is known."""

    per_kwh: Figure | None = None
    per_gpu_hour: Figure | None = None
    currency: Text = "USD"


class Header(Model):
    """The first line."""

    type: Literal["header"] = Field(default="header", description="The first line is the `header`")
    format: int = Field(default=FORMAT, description="Version of the format")
    at_unix: UnixSeconds = Field(description="When it was written, in Unix seconds")
    monotonic: Seconds = Field(description="The clock that all processes of a host share, in seconds")
    run: Run = Field(description="Which run it is")
    host: Text = Field(description="The host's name")
    attempt: int = Field(default=1, description="Which time it is that the run is begun; part of the file's name")
    launch: Text = Field(default="", description="The same on all hosts of one attempt")
    leads: bool = Field(default=True, description="Whether this process is the global rank 0")
    process: ProcessIdentity = Field(description="Who writes")
    ranks: Free = Field(default={}, description="Rank, world size and the like, as the launcher says")
    job: Text = Field(default="", description="Id of the scheduler's job, which stays the same when that is requeued")
    journal_interval: Figure = Field(default=5.0, description="Seconds between two lines")
    begun_monotonic: Seconds = Field(default=0.0, description="When the first reading of this attempt was taken")
    devices: list[HeaderDevice] = Field(default=[], description="What is measured")
    factor: Factor = Field(description="The grid factor, with its provenance")
    tariff: Prices = Field(default=Prices(), description="Prices and their currency")
    pue: Figure = Field(default=1.0, description="Facility energy / device energy")
    config: Free = Field(default={}, description="The settings that were not left at their defaults, without secrets")
    software: dict[Text, Text] = Field(default={}, description="Versions")
    inherited: list[HostUsed] = Field(default=[], description="What the run had used before this attempt, by host")
    done_before: Done = Field(default=Done(), description="What the run had done before this attempt")
    attempts_before: int = Field(default=0, description="Attempts that came before this one, one after the other, on any host")


class DeviceNow(Model):
    """What a device does now."""

    methods: list[Method] = Field(default=[], description="How its joules were obtained: `counter`, `trapezoid`")
    watts: Figure | None = Field(default=None, description="Power now")
    baseline_watts: Figure | None = Field(default=None, description="Power before training")
    utilization_percent: Figure | None = None
    memory_used_bytes: Figure | None = None
    memory_total_bytes: Figure | None = None
    temperature_celsius: Figure | None = None
    power_limit_watts: Figure | None = None


class RatesNow(Model):
    """Rates over the last measurement interval."""

    watts: Figure
    grams_per_hour: Figure
    cost_per_hour: Figure | None = None


class Predicted(Model):
    """The whole run, by its forecast."""

    joules: Figure
    grams: Figure
    cost: Figure | None = None


class Standing(Done):
    """How far training has come."""

    global_step: int = Field(default=0, description="Where training stands, as the Trainer counts")
    max_steps: int = Field(default=0, description="Steps that it will have")
    epochs: int = Field(default=0, description="Whole epochs done")
    tokens_by_now: Figure | None = Field(default=None, description="`tokens`, carried on to the last step")
    flops_by_now: Figure | None = Field(default=None, description="`flops`, carried on to the last step")
    loss: Figure | None = Field(default=None, description="As last logged, and so are the next three")
    eval_loss: Figure | None = None
    learning_rate: Figure | None = None
    grad_norm: Figure | None = None
    samples_per_second: Figure | None = Field(default=None, description="Between the last steps that ended")
    ratio: Figure | None = Field(default=None, description="Steps done / to do")
    eta_seconds: Figure | None = Field(default=None, description="Until training ends")
    to_do_per_done: Figure | None = Field(
        default=None, description="Steps to do / done in this process; the scale of the forecast"
    )


class BudgetLine(Model):
    """A budget and what is used of it."""

    kind: BudgetKind
    limit: Figure = Field(description="kg CO₂e, kWh or money")
    spent: Figure = Field(description="In the present period")
    predicted: Figure | None = Field(default=None, description="When the run will have ended")
    scope: BudgetScope = "run"
    period: BudgetPeriod = "none"


class Tree(Model):
    """The processes of a measured command."""

    cpu_seconds: Figure
    processes: int
    rss_bytes: int
    peak_processes: int
    peak_rss_bytes: int


class Totals(Model):
    """Every line after the header. Cumulative, so that any one of them tells the whole attempt."""

    type: Literal["totals", "end"] = Field(default="totals", description="The last line is an `end`")
    at_unix: UnixSeconds = Field(description="When it was true, in Unix seconds")
    monotonic: Seconds = Field(description="The same on the clock of the header's `monotonic`")
    run_id: Text = Field(description="As in the header, and so are the next four")
    project_name: Text = ""
    model_name: Text = ""
    host: Text
    attempt: int = 1
    state: RunState = Field(description="`running`, `ended` or `failed`")
    end_reason: EndReason = Field(default="", description="Why it no longer runs")
    mark: bool = Field(default=False, description="Whether a phase has just begun or ended")
    used: HostUsed = Field(description="By this host in this attempt")
    elsewhere: list[HostUsed] = Field(default=[], description="By the other hosts in it, as the global rank 0 last heard")
    inherited: list[HostUsed] | None = Field(default=None, description="Where it is not what the header says any more")
    progress: Standing = Field(default=Standing(), description="How far training has come")
    devices: dict[Text, DeviceNow] = Field(default={}, description="By UUID")
    cpu_watts: dict[Basis, Figure] = Field(default={}, description="Mean power of the CPUs, by basis")
    rates: RatesNow | None = Field(default=None, description="Over the last measurement interval")
    forecast: Predicted | None = Field(default=None, description="The whole run, extrapolated")
    budgets: list[BudgetLine] = Field(default=[], description="What is used of each")
    factor: Factor | None = Field(default=None, description="Where it is not the header's any more")
    efficiency_score: Figure | None = Field(default=None, description="As `hf_training_efficiency_score`")
    observed_ratio: Figure | None = Field(default=None, description="As `hf_training_observed_ratio`")
    errors: dict[Text, int] = Field(default={}, description="What went wrong in measuring, by type")
    tick_seconds: Figure = Field(default=0.0, description="Duration of the last measurement")
    journal_bytes: int | None = Field(default=None, description="Length of the journal before this line")
    tree: Tree | None = Field(default=None, description="Processes of a measured command")


Line = Annotated[Header | Totals, Field(discriminator="type")]


def to_bytes(line: Header | Totals) -> bytes:
    """One line of a journal, with its check and its newline.

    Raises:
        ValueError: something in `config` or `ranks` is nothing that JSON knows.

    """
    is_header = isinstance(line, Header)  # Written once, so in full.
    fields = line.model_dump_json(exclude={"type"}, exclude_none=True, exclude_defaults=not is_header)
    body = f'{{"type":"{line.type}",{fields[1:-1]}'.encode()
    return b'%s%s"%08x"}\n' % (body, _CHECK, zlib.crc32(body))


class _Schema(GenerateJsonSchema):
    """What is on disk: floats may be the strings that stand for NaN and infinities."""

    def float_schema(self, _schema: core_schema.FloatSchema) -> JsonSchemaValue:
        return {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]}


def json_schema() -> dict[str, Any]:
    """Of one line of a journal (JSON Schema, draft 2020-12), for docs/journal.schema.json."""
    schema = TypeAdapter[Header | Totals](Line).json_schema(schema_generator=_Schema)
    for name, always in (("Header", ["type", "format"]), ("Totals", ["type"])):
        line = schema["$defs"][name]
        line["properties"]["crc32"] = {
            "type": "string",
            "pattern": "^[0-9a-f]{8}$",
            "description": 'CRC-32 of all bytes of the line before `,"crc32":`',
        }
        line["required"] = [*always, *line["required"], "crc32"]
    schema["$defs"]["Header"]["properties"]["format"]["const"] = FORMAT
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of an hf_eco2ai journal",
        **schema,
    }


def markdown_table(model: type[Model], inherited: bool = True) -> str:
    """The fields of a part of a line, for docs/journal.md. Fields in bold are in every line."""
    own = {name: field for name, field in model.model_fields.items() if inherited or name in model.__annotations__}
    rows = [
        f"| {f'**`{name}`**' if field.is_required() or name in {'type', 'format'} else f'`{name}`'} | {field.description or ''} |"
        for name, field in own.items()
    ]
    return "\n".join(["| field | meaning |", "|---|---|", *rows])


def checked(line: bytes) -> bool:
    """Whether the check at the end of a line (without its newline) is right."""
    body, found, check = line.rpartition(_CHECK)
    return bool(found) and check == b'"%08x"}' % zlib.crc32(body)


# From records


def used(footprint: Footprint) -> Used:
    """As it is written."""
    return Used(
        joules=footprint.joules,
        grams=footprint.grams,
        energy_cost=footprint.energy_cost,
        compute_cost=footprint.compute_cost,
    )


def host_used(totals: HostTotals) -> HostUsed:
    """As it is written."""
    seconds = dict(totals.phase_seconds)
    return HostUsed(
        host=totals.host,
        **_fields(used(totals.total)),
        wasted=used(totals.wasted),
        grams_by_factor_type=dict(totals.grams_by_factor_type),
        phases={
            phase: PhaseUsed(**_fields(used(footprint)), seconds=seconds.get(phase, 0.0))
            for phase, footprint in totals.phases
            if footprint != Footprint() or seconds.get(phase)
        },
        devices={
            d.uuid: DeviceUsed(component=d.component, basis=d.basis, joules=d.joules, observed_seconds=d.observed_seconds)
            for d in totals.devices
        },
    )


def done(counts: Counts) -> Done:
    """As it is written."""
    return Done(
        steps=counts.steps,
        samples=counts.samples,
        tokens=counts.tokens,
        flops=counts.flops,
        step_durations=None if counts.step_durations is None else _steps(counts.step_durations),
        failed_steps=_seen(counts.failed_steps),
    )


def header_device(device: Device) -> HeaderDevice:
    """As it is written."""
    return HeaderDevice(
        uuid=device.uuid,
        component=device.component,
        basis=device.basis,
        source=device.source,
        index=device.index,
        model=device.model,
        max_watts=device.max_watts,
        note=device.note,
        idle_watts=device.idle_watts,
        scope=device.scope,
    )


def factor(grid: GridFactor) -> Factor:
    """As it is written."""
    return Factor(**_dataclass(grid))


def prices(tariff: Tariff) -> Prices:
    """As it is written."""
    return Prices(**_dataclass(tariff))


def run(identity: RunIdentity) -> Run:
    """As it is written."""
    return Run(**{name: value for name, value in _dataclass(identity).items() if name not in {"host", "attempt"}})


def totals_line(s: Snapshot, header: Header, *, monotonic: float, mark: bool = False, end: bool = False) -> Totals:
    """A snapshot as a line of the journal that `header` begins."""
    factor_now = factor(s.factor)
    inherited = [host_used(totals) for totals in s.inherited]
    return Totals(
        type="end" if end else "totals",
        at_unix=s.updated_unix,
        monotonic=monotonic,
        run_id=s.identity.run_id,
        project_name=s.identity.project_name,
        model_name=s.identity.model_name,
        host=s.identity.host,
        attempt=header.attempt,
        state=s.state,
        end_reason=s.end_reason,
        mark=mark,
        used=host_used(s.attempt),
        elsewhere=[host_used(totals) for totals in s.elsewhere],
        inherited=None if inherited == header.inherited else inherited,
        progress=_standing(s.progress),
        devices={status.device.uuid: _now(status) for status in s.devices},
        cpu_watts=dict(s.cpu_watts),
        rates=None if s.rates is None else RatesNow(**_dataclass(s.rates)),
        forecast=None if s.forecast is None else Predicted(**_dataclass(s.forecast)),
        budgets=[BudgetLine(**budget._asdict()) for budget in s.budgets],
        factor=None if factor_now == header.factor else factor_now,
        efficiency_score=s.efficiency_score,
        observed_ratio=s.observed_ratio,
        errors=_seen(s.errors),
        tick_seconds=s.tick_seconds,
        journal_bytes=s.journal_bytes,
        tree=None if s.tree is None else Tree(**s.tree._asdict()),
    )


def _standing(progress: Progress) -> Standing:
    fields = progress._asdict()
    durations = fields.pop("step_durations")
    return Standing(
        **{**fields, "failed_steps": _seen(progress.failed_steps)},
        step_durations=None if durations is None else _steps(durations),
    )


def _seen(numbers: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Zeros are left out and come back when the line is read: most of what can fail never does."""
    return {name: number for name, number in numbers if number}


def _steps(durations: StepHistogram) -> Steps:
    return Steps(counts=list(durations.counts), sum_seconds=durations.sum_seconds)


def _now(status: DeviceStatus) -> DeviceNow:
    telemetry = {} if status.telemetry is None else status.telemetry._asdict()
    telemetry.pop("device", None)
    telemetry.pop("at", None)
    return DeviceNow(methods=list(status.methods), watts=status.watts, baseline_watts=status.baseline_watts, **telemetry)


def _fields(model: Model) -> dict[str, Any]:
    return {name: getattr(model, name) for name in type(model).model_fields}


def _dataclass(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


# To records


def footprint(written: Used) -> Footprint:
    """As it was written."""
    return Footprint(written.joules, written.grams, written.energy_cost, written.compute_cost)


def host_totals(written: HostUsed) -> HostTotals:
    """As it was written."""
    return HostTotals(
        host=written.host,
        total=footprint(written),
        wasted=footprint(written.wasted),
        grams_by_factor_type=tuple(written.grams_by_factor_type.items()),
        phases=tuple((phase, footprint(written.phases.get(phase, NOTHING))) for phase in PHASES),
        phase_seconds=tuple((phase, written.phases[phase].seconds if phase in written.phases else 0.0) for phase in PHASES),
        devices=tuple(
            DeviceTotals(uuid, d.component, d.basis, d.joules, d.observed_seconds) for uuid, d in written.devices.items()
        ),
    )


def counts(written: Done) -> Counts:
    """As it was written."""
    return Counts(
        steps=written.steps,
        samples=written.samples,
        tokens=written.tokens,
        flops=written.flops,
        step_durations=_histogram(written.step_durations),
        failed_steps=_all(FAILED_STEP_REASONS, written.failed_steps),
    )


def identity(header: Header) -> RunIdentity:
    """Which run a journal is of."""
    return RunIdentity(**_fields(header.run), host=header.host, attempt=header.attempt)


def snapshot(header: Header, line: Totals) -> Snapshot:
    """The run as of a line, as the process that wrote it knew it."""
    return Snapshot(
        identity=identity(header),
        state=line.state,
        end_reason=line.end_reason,
        updated_unix=line.at_unix,
        attempt=host_totals(line.used),
        inherited=tuple(host_totals(one) for one in (header.inherited if line.inherited is None else line.inherited)),
        elsewhere=tuple(host_totals(one) for one in line.elsewhere),
        leads=header.leads,
        devices=tuple(_statuses(header, line)),
        gpu_count=sum(1 for device in header.devices if device.component == "gpu"),
        cpu_watts=tuple(line.cpu_watts.items()),
        rates=None if line.rates is None else Rates(**_fields(line.rates)),
        progress=_progress(line.progress),
        forecast=None if line.forecast is None else Forecast(**_fields(line.forecast)),
        factor=GridFactor(**_fields(line.factor or header.factor)),
        tariff=Tariff(**_fields(header.tariff)),
        pue=header.pue,
        efficiency_score=line.efficiency_score,
        observed_ratio=line.observed_ratio,
        errors=_all(ERROR_TYPES, line.errors),
        tick_seconds=line.tick_seconds,
        budgets=tuple(BudgetStatus(**_fields(budget)) for budget in line.budgets),
        journal_bytes=line.journal_bytes,
        tree=None if line.tree is None else TreeUsage(**_fields(line.tree)),
    )


def _progress(written: Standing) -> Progress:
    fields = _fields(written)
    fields["step_durations"] = _histogram(written.step_durations)
    fields["failed_steps"] = _all(FAILED_STEP_REASONS, written.failed_steps)
    return Progress(**fields)


def _all(known: Iterable[str], written: Mapping[str, int]) -> Any:
    """With the zeros that were left out, and with what only a newer writer knows."""
    return tuple({**dict.fromkeys(known, 0), **written}.items())


def _histogram(written: Steps | None) -> StepHistogram | None:
    return None if written is None else StepHistogram(tuple(written.counts), written.sum_seconds)


def _statuses(header: Header, line: Totals) -> list[DeviceStatus]:
    before = {
        uuid: device.joules
        for host in (header.inherited if line.inherited is None else line.inherited)
        if host.host == header.host
        for uuid, device in host.devices.items()
    }
    statuses = []
    for written in header.devices:
        device = Device(host=header.host, **_fields(written))
        now = line.devices.get(written.uuid, DeviceNow())
        mine = line.used.devices.get(written.uuid)
        fields = _fields(now)
        methods, watts, baseline = fields.pop("methods"), fields.pop("watts"), fields.pop("baseline_watts")
        said = any(value is not None for value in fields.values())
        statuses.append(
            DeviceStatus(
                device=device,
                joules=before.get(written.uuid, 0.0) + (mine.joules if mine else 0.0),
                observed_seconds=mine.observed_seconds if mine else 0.0,
                methods=tuple(methods),
                watts=watts,
                telemetry=Telemetry(device, line.monotonic, **fields) if said else None,
                baseline_watts=baseline,
            )
        )
    return statuses
