"""From a CarbonConfig to a Monitor: the only place that names concrete classes, by way of the tables."""

import logging
import os
import platform
import socket
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from hf_eco2ai.config import CarbonConfig, Environment
from hf_eco2ai.devices import READERS, Reader, ReaderContext, ReaderRow
from hf_eco2ai.errors import ConfigError, Unavailable
from hf_eco2ai.footprint import GRIDS, Grid, GridContext
from hf_eco2ai.footprint.budget import Budget, Budgets
from hf_eco2ai.journal.format import ProcessIdentity
from hf_eco2ai.journal.read import Here
from hf_eco2ai.journal.resume import Beginning
from hf_eco2ai.ledger import Ledger
from hf_eco2ai.monitor import Monitor
from hf_eco2ai.outputs.labels import LabelRules
from hf_eco2ai.records import BudgetKind, Footprint, Progress, RunIdentity, Tariff
from hf_eco2ai.version import __version__

logger = logging.getLogger("hf_eco2ai")


def hostname() -> str:
    """The name by which this host is known in labels and journals."""
    return socket.gethostname()


def identity(config: CarbonConfig, beginning: Beginning, host: str, model_name: str, trainer: str) -> RunIdentity:
    """Who this run is."""
    return RunIdentity(
        run_id=beginning.run_id,
        project_name=config.project_name,
        model_name=config.model_name or model_name,
        host=host,
        experiment_name=config.experiment_name,
        trainer=trainer,
        started_unix=beginning.started_unix,
        parent=beginning.parent,
        attempt=beginning.attempt,
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
    in_use: str | None = None,
    host: str = "",
    now: Callable[[], float] = time.monotonic,
    root: Path = Path("/"),
) -> ReaderContext:
    """What readers need to know.

    `on_cpu`: training computes on the CPU, so GPUs count only if someone named them. `in_use`: the GPUs that the ranks of this
    host compute on, as CUDA_VISIBLE_DEVICES would name them, where that is less than what they can see. `host`: its name, if it
    is not the machine's.
    """
    named = config.gpu_ids is not None or environment.cuda_visible_devices is not None
    return ReaderContext(
        host=host or hostname(),
        now=now,
        root=root,
        gpu_ids=config.gpu_ids,
        cuda_visible_devices=environment.cuda_visible_devices if in_use is None else in_use,
        cuda_device_order=environment.cuda_device_order,
        mig_attribution=config.mig_attribution,
        use_gpus=named or not on_cpu,
        simulated_gpus=config.simulated_gpus,
        replay=config.replay,
    )


def node_context(
    host: str, *, simulated_gpus: int = 0, now: Callable[[], float] = time.monotonic, root: Path = Path("/")
) -> ReaderContext:
    """What readers need to know to measure the machine, whoever uses it and whatever this process may see of it."""
    return ReaderContext(host=host, now=now, root=root, simulated_gpus=simulated_gpus, whole_machine=True)


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


def check(config: CarbonConfig, context: ReaderContext) -> None:
    """Try now what a setting asks for, so that a mistake raises ConfigError before training and not in the middle of it.

    That is a recording to replay, `gpu_ids`, or a web config. Without a driver there is nothing to check `gpu_ids` against,
    which is said.
    """
    if config.export_prometheus and config.prometheus_web_config is not None:
        load("hf_eco2ai.outputs.web_config:load")(config.prometheus_web_config)
    if context.replay is not None:
        _row("replay").open(context).close()
    elif context.gpu_ids is not None and not context.simulated_gpus:
        try:
            _row("nvml").open(context).close()
        except Unavailable as reason:
            logger.warning("gpu_ids is set, but GPUs cannot be read here: %s", reason.reason)


def _row(name: str) -> Any:
    return load(next(row.opener for row in READERS if row.name == name))


def label_rules(config: CarbonConfig) -> LabelRules:
    """How label values are kept in bounds."""
    return LabelRules(config.max_projects, config.aggregate_similar_models, config.label_cleanup_enabled, config.run_label)


def ledger(config: CarbonConfig, run: RunIdentity, beginning: Beginning, *, leads: bool) -> Ledger:
    """Empty accounts for a new attempt, beside what the run had used before."""
    return Ledger(run, tariff(config), config.pue, beginning.inherited, leads=leads)


def budgets(config: CarbonConfig, inherited: Footprint, say: Callable[[str], None] | None) -> Budgets:
    """The budgets that are set; none for a process that has nobody to say them to."""
    limits: dict[BudgetKind, float | None] = {
        "carbon": config.carbon_budget_kg,
        "energy": config.energy_budget_kwh,
        "cost": config.cost_budget,
    }
    chosen = [
        Budget(kind, limit, config.budget_scope, config.budget_period)
        for kind, limit in limits.items()
        if limit is not None and say is not None
    ]
    return Budgets(
        chosen,
        say if say is not None else _nobody,
        inherited=inherited,
        stops=config.budget_action == "stop",
        currency=config.currency,
    )


def _nobody(_message: str) -> None:
    pass


def own_process(here: Here) -> ProcessIdentity:
    """How a journal names this process."""
    pid = os.getpid()
    return ProcessIdentity(pid=pid, started=here.started(pid) or 0.0, boot_id=here.boot_id, pid_namespace=here.pid_namespace)


def software() -> dict[str, str]:
    """Versions of what is loaded and matters to the figures, without loading anything."""
    versions = {"hf_eco2ai": __version__, "python": platform.python_version()}
    for name in ("torch", "transformers", "accelerate"):
        version = getattr(sys.modules.get(name), "__version__", None)
        if version is not None:
            versions[name] = str(version)
    return versions


def settings(config: CarbonConfig) -> dict[str, Any]:
    """The settings that are not at their defaults, for the journal. None is a secret yet; one that is must be a SecretStr."""
    return config.model_dump(mode="json", exclude_defaults=True)


def monitor(
    config: CarbonConfig,
    run_ledger: Ledger,
    run_grid: Grid,
    context: ReaderContext,
    progress: Callable[[], Progress],
    **more: Any,
) -> Monitor:
    """The pipeline that fills one run's ledger, ready to start. `more` goes to the Monitor as it is."""
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
        **more,
    )
