"""Journals as a run would leave them, with figures that can be worked out by hand, and hypothesis strategies for hostile ones."""

import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

from hypothesis import strategies as st

from hf_eco2ai.journal import format as lines
from hf_eco2ai.journal.format import Header, ProcessIdentity, Totals
from hf_eco2ai.journal.read import Here, boot_id, pid_namespace, process_started
from hf_eco2ai.journal.write import file_name
from hf_eco2ai.records import (
    ERROR_TYPES,
    FAILED_STEP_REASONS,
    PHASES,
    Basis,
    BudgetStatus,
    Counts,
    Device,
    DeviceStatus,
    DeviceTotals,
    FactorType,
    Footprint,
    Forecast,
    GridFactor,
    HostTotals,
    Phase,
    Progress,
    Rates,
    RunIdentity,
    Snapshot,
    StepHistogram,
    Tariff,
    Telemetry,
    TreeUsage,
)

BEGAN = 1_795_000_000.0
BOOT = "11111111-2222-3333-4444-555555555555"
NAMESPACE = "pid:[4026531836]"
GERMANY = GridFactor(381.0, "lifecycle", "Ember 2024", "DE", "", 2024, "CC-BY-4.0")
EUROS = Tariff(per_kwh=0.25, per_gpu_hour=3.6, currency="EUR")


def here(host: str = "node1", alive: dict[int, float] | None = None, boot: str = BOOT, namespace: str = NAMESPACE) -> Here:
    """A host on which the processes `alive` run, by pid, with the instants at which they began."""
    return Here(host, boot, namespace, (alive or {}).get)


def this_process() -> ProcessIdentity:
    """The test's own, as the kernel tells it."""
    pid = os.getpid()
    return ProcessIdentity(pid=pid, started=process_started(pid) or 0.0, boot_id=boot_id(), pid_namespace=pid_namespace())


def process(pid: int = 4711, started: float = 1000.0, boot: str = BOOT, namespace: str = NAMESPACE) -> ProcessIdentity:
    """One of the host that `here` makes."""
    return ProcessIdentity(pid=pid, started=started, boot_id=boot, pid_namespace=namespace)


def footprint(joules: float, *, grams_per_joule: float = 0.1, cost_per_joule: float | None = None) -> Footprint:
    """With a factor that makes grams easy to tell: a tenth of the joules."""
    return Footprint(joules, joules * grams_per_joule, None if cost_per_joule is None else joules * cost_per_joule)


def host_totals(
    host: str = "node1", joules: float = 0.0, *, wasted: float = 0.0, cost_per_joule: float | None = None
) -> HostTotals:
    """All of it used in training, by one GPU, at 100 W."""
    total = footprint(joules, cost_per_joule=cost_per_joule)
    return HostTotals(
        host=host,
        total=total,
        wasted=footprint(wasted, cost_per_joule=cost_per_joule),
        grams_by_factor_type=(("lifecycle", total.grams),),
        phases=tuple((phase, total if phase == "train" else Footprint()) for phase in PHASES),
        phase_seconds=tuple((phase, joules / 100 if phase == "train" else 0.0) for phase in PHASES),
        devices=(DeviceTotals("GPU-aaaa", "gpu", "measured", joules, joules / 100),),
    )


def gpu(number: int = 0, host: str = "node1") -> Device:
    """An A100."""
    return Device(
        host=host,
        uuid=f"GPU-{number:08x}-1111-2222-3333-444444444444",
        component="gpu",
        basis="measured",
        source="NVML energy counter",
        index=str(number),
        model="NVIDIA A100-SXM4-80GB",
        max_watts=800.0,
    )


def cpu(host: str = "node1", scope: str = "") -> Device:
    """A modelled one."""
    return Device(
        host=host,
        uuid="cpu",
        component="cpu",
        basis="modelled",
        source="CPU model (AMD EPYC 3rd Gen)",
        idle_watts=61.5,
        scope=scope,
    )


def identity(run_id: str = "0123456789ab", host: str = "node1", **more: Any) -> RunIdentity:
    """The run of these tests."""
    fields: dict[str, Any] = {"project_name": "llama-finetune", "model_name": "meta-llama/Llama-3.1-8B", "started_unix": BEGAN}
    return RunIdentity(run_id=run_id, host=host, **{**fields, **more})


def snapshot(seconds: float = 10.0, *, gpus: int = 1, run: RunIdentity | None = None, **more: Any) -> Snapshot:
    """A run after so many seconds: each GPU at 250.3 W, the CPU at 61.7 W, the first tenth of the time in the set-up."""
    run = run or identity()
    devices = [*(gpu(n, run.host) for n in range(gpus)), cpu(run.host)]
    watts = [250.3] * gpus + [61.7]
    joules = sum(watts) * seconds
    shares: dict[Phase, float] = {"setup": 0.1, "train": 0.9}
    total = Footprint(joules, joules / 3.6e6 * 381, joules / 3.6e6 * 0.25, seconds * gpus / 1000)
    parts = {
        phase: Footprint(
            total.joules * part, total.grams * part, total.joules / 3.6e6 * 0.25 * part, seconds * gpus / 1000 * part
        )
        for phase, part in shares.items()
    }
    attempt = HostTotals(
        host=run.host,
        total=total,
        grams_by_factor_type=(("lifecycle", total.grams),),
        phases=tuple((phase, parts.get(phase, Footprint())) for phase in PHASES),
        phase_seconds=tuple((phase, seconds * shares.get(phase, 0.0)) for phase in PHASES),
        devices=tuple(
            DeviceTotals(d.uuid, d.component, d.basis, w * seconds, seconds) for d, w in zip(devices, watts, strict=True)
        ),
    )
    steps = int(seconds / 0.7)
    fields: dict[str, Any] = {
        "identity": run,
        "state": "running",
        "updated_unix": BEGAN + seconds,
        "attempt": attempt,
        "devices": tuple(
            DeviceStatus(
                d,
                w * seconds,
                seconds,
                ("counter",) if d.component == "gpu" else ("trapezoid",),
                w,
                Telemetry(d, 100 + seconds, 97.0, 7.1e10, 8.5e10, 61.0, 400.0) if d.component == "gpu" else None,
                58.125,
            )
            for d, w in zip(devices, watts, strict=True)
        ),
        "gpu_count": gpus,
        "cpu_watts": (("modelled", 61.7),),
        "rates": Rates(sum(watts), sum(watts) / 1000 * 381, 0.3),
        "progress": Progress(
            steps=steps,
            global_step=steps,
            max_steps=1000,
            samples=8 * steps,
            tokens=8192 * steps,
            tokens_by_now=8192.0 * steps,
            flops=1.5e14 * steps,
            flops_by_now=1.5e14 * steps,
            loss=2.345678901234,
            learning_rate=9.87e-5,
            grad_norm=1.2345678901234,
            samples_per_second=8 / 0.7,
            ratio=steps / 1000,
            eta_seconds=(1000 - steps) * 0.7,
            to_do_per_done=(1000 - steps) / steps if steps else None,
            step_durations=StepHistogram((0,) * 7 + (steps,) + (0,) * 8, steps * 0.7),
            failed_steps=tuple((reason, 0) for reason in FAILED_STEP_REASONS),
        ),
        "forecast": Forecast(joules * 70, total.grams * 70, 12.5),
        "factor": GERMANY,
        "tariff": EUROS,
        "pue": 1.2,
        "efficiency_score": 0.873,
        "observed_ratio": 1.0,
        "errors": tuple((error_type, 0) for error_type in ERROR_TYPES),
        "tick_seconds": 0.00123456789,
        "journal_bytes": int(300 * seconds),
    }
    return Snapshot(**{**fields, **more})


def header(first: Snapshot | None = None, **more: Any) -> Header:
    """As `LiveRun` makes it."""
    s = first or snapshot(0.0)
    fields: dict[str, Any] = {
        "at_unix": s.updated_unix,
        "monotonic": 100.0,
        "run": lines.run(s.identity),
        "host": s.identity.host,
        "attempt": s.identity.attempt,
        "launch": "f00d",
        "process": process(),
        "begun_monotonic": 99.5,
        "devices": [lines.header_device(status.device) for status in s.devices],
        "factor": lines.factor(s.factor),
        "tariff": lines.prices(s.tariff),
        "pue": s.pue,
        "config": {"country": "DE", "gpu_ids": ["0", "2"], "runs_dir": "/data/runs"},
        "software": {"hf_eco2ai": "0.1.0", "python": "3.11.7"},
        "inherited": [lines.host_used(totals) for totals in s.inherited],
    }
    return Header(**{**fields, **more})


def used(joules: float, *, at: float, header: Header, end: bool = False, steps: int = 0, **more: Any) -> Totals:
    """A line that says only what was used, at `at` seconds after the begin."""
    fields: dict[str, Any] = {
        "type": "end" if end else "totals",
        "at_unix": BEGAN + at,
        "monotonic": 100 + at,
        "run_id": header.run.run_id,
        "project_name": header.run.project_name,
        "host": header.host,
        "attempt": header.attempt,
        "state": "ended" if end else "running",
        "used": lines.host_used(host_totals(header.host, joules)),
        "progress": lines.Standing(steps=steps, global_step=steps),
    }
    return Totals(**{**fields, **more})


def journal(count: int = 4, *, gpus: int = 1, end: bool = True) -> list[Header | Totals]:
    """A header, lines every five seconds of which the first is a mark, and an end line."""
    begin = header(snapshot(0.0, gpus=gpus))
    totals = [
        lines.totals_line(snapshot(5.0 * n, gpus=gpus), begin, monotonic=100 + 5.0 * n, mark=n == 1) for n in range(1, count + 1)
    ]
    last = lines.totals_line(
        snapshot(5.0 * count + 1, gpus=gpus, state="ended", end_reason="completed"), begin, monotonic=101 + 5.0 * count, end=True
    )
    return [begin, *totals, *([last] if end else [])]


def as_bytes(written: Iterable[Header | Totals]) -> bytes:
    """The file."""
    return b"".join(map(lines.to_bytes, written))


def put(folder: Path, written: Sequence[Header | Totals], *, changed: float | None = None, name: str | None = None) -> Path:
    """A journal in a folder, under its own name; `changed` is when it was written last."""
    begin = written[0]
    assert isinstance(begin, Header)
    folder.mkdir(exist_ok=True)
    path = folder / (name or file_name(begin.run.run_id, begin.host, begin.attempt))
    path.write_bytes(as_bytes(written))
    if changed is not None:
        os.utime(path, (changed, changed))
    return path


def plain(record: Any) -> Any:
    """A record as something that can be compared: NaN equals NaN, and devices are what is in them."""
    return repr(dataclasses.asdict(record))


# Strategies

hostile_text = st.one_of(
    st.text(
        alphabet=st.characters(), max_size=30
    ),  # Lone surrogates included, as os.fsdecode makes them of bytes that are no UTF-8.
    st.sampled_from(
        [
            '"}',
            '","crc32":"00000000"}',
            "\n",
            "\r\n",
            "\x00",
            "\u2028",
            "\ud800",
            "../../etc/passwd",
            "NaN",
            "𝕏" * 10,
            "\\",
            "%2E",
            "",
        ]
    ),
)
clean_text = hostile_text.map(lambda text: text.encode("utf-8", "backslashreplace").decode())
"""What such text is on disk."""

_digits = st.floats(min_value=0, max_value=1e15).map(lambda value: float(f"{value:.12g}"))
figures = st.one_of(st.just(0.0), _digits)
"""Totals as they are on disk: twelve digits."""
any_figure = st.one_of(figures, st.sampled_from([float("nan"), float("inf"), float("-inf"), -1.5, 5e-324, 1.7976931348e308]))
counts = st.integers(min_value=0, max_value=10**15)
footprints = st.builds(Footprint, figures, figures, st.none() | figures, st.none() | figures)


_by_factor_type: st.SearchStrategy[tuple[tuple[FactorType, float], ...]] = st.dictionaries(
    st.sampled_from(get_args(FactorType)), figures
).map(lambda grams: tuple(grams.items()))
_by_basis: st.SearchStrategy[tuple[tuple[Basis, float], ...]] = st.dictionaries(st.sampled_from(get_args(Basis)), figures).map(
    lambda watts: tuple(watts.items())
)


def _maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def devices(host: str) -> st.SearchStrategy[list[Device]]:
    """None to 64, with UUIDs of their own."""
    one = st.builds(
        Device,
        host=st.just(host),
        uuid=clean_text,
        component=st.sampled_from(["gpu", "cpu", "dram"]),
        basis=st.sampled_from(["measured", "modelled", "simulated"]),
        source=clean_text,
        index=clean_text,
        model=clean_text,
        max_watts=figures,
        note=clean_text,
        idle_watts=_maybe(figures),
        scope=clean_text,
    )
    few = st.lists(one, max_size=3, unique_by=lambda device: device.uuid)
    return few | st.just([gpu(n, host) for n in range(64)])


@st.composite
def any_host_totals(draw: st.DrawFn, host: str, on: Sequence[Device] = ()) -> HostTotals:
    """As the ledger makes them: all phases, in their order."""
    return HostTotals(
        host=host,
        total=draw(footprints),
        wasted=draw(footprints),
        grams_by_factor_type=draw(_by_factor_type),
        phases=tuple((phase, draw(st.just(Footprint()) | footprints)) for phase in PHASES),
        phase_seconds=tuple((phase, draw(figures)) for phase in PHASES),
        devices=tuple(DeviceTotals(d.uuid, d.component, d.basis, draw(figures), draw(figures)) for d in on),
    )


@st.composite
def any_counts(draw: st.DrawFn) -> Counts:
    """With every reason for a failed step."""
    return Counts(draw(counts), draw(counts), draw(_maybe(counts)), draw(_maybe(any_figure)), draw(_histograms), draw(_failed))


_histograms = _maybe(st.builds(StepHistogram, st.tuples(*[counts] * 16), figures))
_failed = st.tuples(*[st.tuples(st.just(reason), counts) for reason in FAILED_STEP_REASONS])
_factors = st.builds(
    GridFactor,
    figures,
    st.sampled_from(["lifecycle", "direct", "marginal"]),
    clean_text,
    clean_text,
    clean_text,
    _maybe(st.integers(1990, 2100)),
    clean_text,
    st.booleans(),
    _maybe(figures),
)


@st.composite
def any_progress(draw: st.DrawFn) -> Progress:
    """Logged figures may be anything that a training logs."""
    counted = {name: draw(counts) for name in ("steps", "global_step", "max_steps", "epochs", "samples")}
    names = set(Progress._fields) - counted.keys() - {"tokens", "step_durations", "failed_steps"}
    said = {name: draw(_maybe(any_figure)) for name in sorted(names)}
    return Progress(**counted, **said, tokens=draw(_maybe(counts)), step_durations=draw(_histograms), failed_steps=draw(_failed))


@st.composite
def any_run(draw: st.DrawFn) -> tuple[Header, Snapshot, float]:
    """A header, a snapshot of its run, and the instant of that on the monotonic clock."""
    text = {name: draw(clean_text) for name in ("run_id", "project_name", "model_name", "host", "experiment_name", "parent")}
    who = RunIdentity(**text, trainer="track", started_unix=BEGAN, attempt=draw(st.integers(1, 1000)))
    at = round(draw(st.floats(0, 1e7)), 6)
    measured = draw(devices(who.host))
    inherited = tuple(draw(any_host_totals(host, measured)) for host in draw(st.lists(clean_text, max_size=2, unique=True)))
    before = {d.uuid: d.joules for totals in inherited if totals.host == who.host for d in totals.devices}
    attempt = draw(any_host_totals(who.host, measured))
    telemetry = st.tuples(*[_maybe(any_figure)] * 5).filter(lambda said: any(value is not None for value in said))
    said = [draw(_maybe(telemetry)) for _ in measured[:3]] + [None] * len(measured[3:])
    run = Snapshot(
        identity=who,
        state=draw(st.sampled_from(["running", "ended", "failed"])),
        end_reason=draw(st.sampled_from(["", "completed", "budget", "out_of_memory"])),
        updated_unix=round(BEGAN + at, 3),
        attempt=attempt,
        inherited=inherited,
        elsewhere=tuple(draw(any_host_totals(host)) for host in draw(st.lists(clean_text, max_size=2))),
        leads=draw(st.booleans()),
        devices=tuple(
            DeviceStatus(
                device=device,
                joules=before.get(device.uuid, 0.0) + totals.joules,
                observed_seconds=totals.observed_seconds,
                methods=draw(st.sampled_from([(), ("counter",), ("counter", "trapezoid")])),
                watts=draw(_maybe(any_figure)),
                telemetry=None if values is None else Telemetry(device, at, *values),
                baseline_watts=draw(_maybe(figures)),
            )
            for device, totals, values in zip(measured, attempt.devices, said, strict=True)
        ),
        gpu_count=sum(device.component == "gpu" for device in measured),
        cpu_watts=draw(_by_basis),
        rates=draw(_maybe(st.builds(Rates, figures, figures, _maybe(figures)))),
        progress=draw(any_progress()),
        forecast=draw(_maybe(st.builds(Forecast, any_figure, figures, _maybe(figures)))),
        factor=draw(_factors),
        tariff=draw(st.builds(Tariff, _maybe(figures), _maybe(figures), st.sampled_from(["USD", "EUR"]))),
        pue=draw(figures),
        efficiency_score=draw(_maybe(figures)),
        observed_ratio=draw(_maybe(figures)),
        errors=tuple((error_type, draw(st.integers(0, 3))) for error_type in ERROR_TYPES),
        tick_seconds=draw(figures),
        budgets=tuple(draw(st.lists(st.builds(BudgetStatus, st.just("carbon"), figures, figures, _maybe(figures)), max_size=2))),
        journal_bytes=draw(_maybe(counts)),
        tree=draw(_maybe(st.builds(TreeUsage, figures, counts, counts, counts, counts))),
    )
    # A factor or inheritance that has changed since the header was written is written again.
    begin = dataclasses.replace(
        run, factor=draw(st.sampled_from([run.factor, GERMANY])), inherited=draw(st.sampled_from([inherited, ()]))
    )
    return header(begin, leads=run.leads, config={draw(clean_text): draw(clean_text)}, software={}), run, at
