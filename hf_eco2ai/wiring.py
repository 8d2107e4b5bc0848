"""From a CarbonConfig to a Monitor: the only place that names concrete classes, by way of the tables."""

import logging
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from hf_eco2ai.config import CarbonConfig, Environment
from hf_eco2ai.devices import READERS, Reader, ReaderContext, ReaderRow
from hf_eco2ai.errors import ConfigError, Unavailable
from hf_eco2ai.footprint import GRIDS, Grid, GridContext
from hf_eco2ai.ledger import Ledger
from hf_eco2ai.monitor import Monitor
from hf_eco2ai.records import Progress, RunIdentity, RunState, Tariff

logger = logging.getLogger("hf_eco2ai")


def identity(config: CarbonConfig, model_name: str, started_unix: float) -> RunIdentity:
    """Who this run is. Without a `run_id` it gets a random one of 12 hexadecimal digits (48 bits)."""
    return RunIdentity(
        run_id=config.run_id or uuid.uuid4().hex[:12],
        project_name=config.project_name,
        model_name=config.model_name or model_name,
        host=socket.gethostname(),
        experiment_name=config.experiment_name,
        started_unix=started_unix,
    )


def grid(config: CarbonConfig) -> Grid:
    """The first grid provider of the table that applies. Says once what had to be assumed.

    Raises:
        ConfigError: none knows the place.

    """
    context = GridContext(config.country, config.region, config.grid_carbon_intensity, config.grid_factor_type)
    for row in GRIDS:
        try:
            provider: Grid = load(row.opener).open(context)
        except Unavailable as reason:
            logger.debug("grid %s is not used: %s", row.name, reason.reason)
            continue
        for warning in getattr(provider, "warnings", ()):
            logger.warning("%s", warning)
        return provider
    raise ConfigError("no grid provider applies: set country, or grid_carbon_intensity in gCO₂e/kWh")


def tariff(config: CarbonConfig) -> Tariff:
    """Prices as set; None where none is."""
    return Tariff(config.electricity_price_per_kwh, config.gpu_price_per_hour, config.currency)


def reader_context(
    config: CarbonConfig,
    environment: Environment,
    *,
    on_cpu: bool = False,
    now: Callable[[], float] = time.monotonic,
    root: Path = Path("/"),
) -> ReaderContext:
    """What readers need to know. `on_cpu`: the Trainer computes on the CPU, so GPUs count only if someone named them."""
    named = config.gpu_ids is not None or environment.cuda_visible_devices is not None
    return ReaderContext(
        host=socket.gethostname(),
        now=now,
        root=root,
        gpu_ids=config.gpu_ids,
        cuda_visible_devices=environment.cuda_visible_devices,
        cuda_device_order=environment.cuda_device_order,
        mig_attribution=config.mig_attribution,
        use_gpus=named or not on_cpu,
        simulated_gpus=config.simulated_gpus,
        replay=config.replay,
    )


def load(path: str) -> Any:
    """The object that a table's `module:name` stands for."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def open_readers(context: ReaderContext, rows: Sequence[ReaderRow] = READERS) -> list[Reader]:
    """For each component the first reader that opens.

    One that cannot be used says why: as a warning where the user can do something about it, else at level info.
    """
    readers: list[Reader] = []
    covered: set[str] = set()
    for row in rows:
        if covered.issuperset(row.components):
            continue
        try:
            reader: Reader = load(row.opener).open(context)
        except Unavailable as reason:
            if reason.remedy:
                logger.warning("%s is not used: %s. %s", row.name, reason.reason, reason.remedy)
            else:
                logger.info("%s is not used: %s", row.name, reason.reason)
            continue
        for warning in getattr(reader, "warnings", ()):
            logger.warning("%s", warning)
        readers.append(reader)
        covered.update(row.components if row.name == "replay" else {device.component for device in reader.devices})
        if row.name == "simulated":
            covered.add("gpu")
    return readers


def check(context: ReaderContext) -> None:
    """Try now what a setting asks for, so that a mistake raises ConfigError before training and not in the middle of it.

    That is a recording to replay, or `gpu_ids`. Without a driver there is nothing to check `gpu_ids` against, which is said.
    """
    if context.replay is not None:
        _row("replay").open(context).close()
    elif context.gpu_ids is not None and not context.simulated_gpus:
        try:
            _row("nvml").open(context).close()
        except Unavailable as reason:
            logger.warning("gpu_ids is set, but GPUs cannot be read here: %s", reason.reason)


def _row(name: str) -> Any:
    return load(next(row.opener for row in READERS if row.name == name))


def ledger(config: CarbonConfig, run: RunIdentity) -> Ledger:
    """Empty accounts for a new run."""
    return Ledger(run, tariff(config), config.pue, config.carbon_budget_kg)


def monitor(
    config: CarbonConfig,
    run_ledger: Ledger,
    run_grid: Grid,
    context: ReaderContext,
    progress: Callable[[], Progress],
    *,
    missing_since: Callable[[float], float | None] = lambda _now: None,
    how_it_ended: Callable[[], RunState] = lambda: "failed",
    abandoned: Callable[[], None] = lambda: None,
) -> Monitor:
    """The pipeline that fills one run's ledger, ready to start."""
    return Monitor(
        open_readers=lambda: open_readers(context),
        ledger=run_ledger,
        grid=run_grid,
        tariff=tariff(config),
        pue=config.pue,
        progress=progress,
        measurement_interval=config.measurement_interval,
        power_interval=config.power_interval,
        now=context.now,
        missing_since=missing_since,
        how_it_ended=how_it_ended,
        abandoned=abandoned,
    )
