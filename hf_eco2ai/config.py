"""CarbonConfig: every setting with its unit, where it came from, and a clear word for each mistake.

The only module that reads the environment.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    PyprojectTomlConfigSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from hf_eco2ai.errors import ConfigError

ENV_PREFIX = "HF_ECO2AI_"
CONFIG_FILE = "hf_eco2ai.toml"

Origin = Literal["argument", "environment", "hf_eco2ai.toml", "pyproject.toml", "default"]


def _split_ids(value: Any) -> Any:
    """`0,2` or `GPU-1a2b,GPU-3c4d` as the environment has it; JSON lists too, from files and arguments as they are."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    if isinstance(value, str):
        return tuple(part.strip().strip("\"'") for part in value.strip("[]()").split(",") if part.strip())
    return value


def _number_ids(value: tuple[int | str, ...] | None) -> tuple[int | str, ...] | None:
    return None if value is None else tuple(int(v) if isinstance(v, str) and v.isdigit() else v for v in value)


def _code(value: str) -> str:
    return value.strip().upper()


def _name(value: str) -> str:
    if not any(character.isprintable() and not character.isspace() for character in value):
        raise ValueError("should have a character that can be printed")
    return value.strip()


def _folder(value: Path) -> Path:
    """Absolute, so that it stays the same when the program changes its directory."""
    try:
        return value.expanduser().absolute()
    except RuntimeError:
        raise ValueError("should be a path of a user that exists") from None


def _address(value: str) -> str:
    return value.strip().removeprefix("[").removesuffix("]")


Code = Annotated[str, AfterValidator(_code)]
GpuIds = Annotated[tuple[int | str, ...] | None, NoDecode, BeforeValidator(_split_ids), AfterValidator(_number_ids)]


class CarbonConfig(BaseSettings):
    """All settings. Frozen; an unknown or wrong one raises ConfigError at once.

    Strongest first: arguments, `HF_ECO2AI_<NAME>`, `hf_eco2ai.toml`, `[tool.hf_eco2ai]` in pyproject.toml, defaults. Files are
    looked for in the working directory.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        frozen=True,
        extra="forbid",
        toml_file=CONFIG_FILE,
        pyproject_toml_table_header=("tool", "hf_eco2ai"),
        hide_input_in_errors=True,
        env_ignore_empty=True,
        allow_inf_nan=False,
        defer_build=True,  # 20 ms of every import, paid when a CarbonConfig is made
        protected_namespaces=(),
    )

    project_name: Annotated[str, AfterValidator(_name)] = Field(
        "default", description="What the run belongs to; the label of most metrics"
    )
    experiment_name: str = Field("", description="A name within the project, shown on `hf_training_run_info`")
    run_id: str = Field("", description="Identity of the run; empty: a new one for each `train()`")
    model_name: str = Field("", description="Label of the model; empty: the model's own name")
    country: Code = Field("", description="ISO 3166-1 two-letter code of where the machine stands; empty: world average, flagged")
    region: Code = Field("", description="Region of the country, e.g. a US state: `CA`")
    grid_carbon_intensity: float | None = Field(
        None, ge=0, le=3000, description="Your own carbon intensity (gCO₂e/kWh), instead of the table's"
    )
    grid_factor_type: Literal["lifecycle", "direct", "marginal"] = Field(
        "lifecycle", description="What kind of factor `grid_carbon_intensity` is"
    )
    pue: float = Field(1.0, ge=1, le=5, description="Power usage effectiveness of the site (facility / device energy)")
    electricity_price_per_kwh: float | None = Field(None, ge=0, description="Price of electricity (`currency` per kWh)")
    gpu_price_per_hour: float | None = Field(None, ge=0, description="Price of one GPU (`currency` per hour)")
    currency: Annotated[str, AfterValidator(_code)] = Field(
        "USD", pattern=r"^[A-Za-z]{3}$", description="ISO 4217 code of the prices"
    )
    carbon_budget_kg: float | None = Field(None, gt=0, description="Carbon budget (kg CO₂e)")
    energy_budget_kwh: float | None = Field(None, gt=0, description="Budget of device energy (kWh, PUE not included)")
    cost_budget: float | None = Field(None, gt=0, description="Budget of money (`currency`); needs a price")
    budget_action: Literal["warn", "stop"] = Field(
        "warn", description="At a spent budget only say so, or stop training after the step, with a checkpoint"
    )
    budget_scope: Literal["run", "project"] = Field(
        "run", description="What budgets limit: the run, or all runs of the project whose journals are in the runs folder"
    )
    budget_period: Literal["none", "day", "month"] = Field(
        "none", description="Budgets count from the begin of the day or month (UTC), or all there is"
    )
    measurement_interval: float = Field(
        # An AMD package counter of 65 kJ could wrap unseen in little more than a minute (devices/rapl.py).
        1.0,
        ge=0.1,
        le=60,
        description="Time between two measurements (s)",
    )
    power_interval: float = Field(
        0.1, ge=0.02, le=60, description="Time between two power readings of a device without an energy counter (s)"
    )
    gpu_ids: GpuIds = Field(None, description="GPUs to measure, by nvidia-smi number or UUID; unset: those the job can see")
    mig_attribution: Literal["whole", "share"] = Field(
        "whole", description="Charge a MIG slice with its whole GPU, or with its share of the compute slices"
    )
    journal_enabled: bool = Field(True, description="Keep the run on disk, through crashes and resumes")
    journal_interval: float = Field(
        5.0, ge=1, le=3600, description="Time between two lines of the journal (s); a crash loses at most so much"
    )
    runs_dir: Annotated[Path, AfterValidator(_folder)] | None = Field(
        None,
        description="Folder of the journals; unset: `/var/lib/hf-eco2ai/runs` if it may be written, else the user's data folder",
    )
    export_prometheus: bool = Field(True, description="Serve `/metrics` while the run lives")
    prometheus_host: Annotated[str, AfterValidator(_address)] = Field(
        "127.0.0.1", min_length=1, description="Address to listen on; 0.0.0.0 opens it to the network"
    )
    prometheus_port: int = Field(9091, ge=0, le=65535, description="Port to listen on; 0: any free one")
    prometheus_web_config: Annotated[Path, AfterValidator(_folder)] | None = Field(
        None,
        description="File in the format of Prometheus' exporters (`--web.config.file`): TLS, client certificates, passwords",
    )
    compression_enabled: bool = Field(
        True, description="Gzip the endpoint for clients that ask for it, and what integrations send"
    )
    export_batch_size: int = Field(100, ge=1, le=100_000, description="Records that an integration sends at once")
    max_projects: int = Field(100, ge=1, description="Different project names on one endpoint; the rest are called `other`")
    aggregate_similar_models: bool = Field(
        True, description="Fold local paths and checkpoint suffixes of a model into its base name"
    )
    label_cleanup_enabled: bool = Field(
        True, description="Cut label values to 128 characters and take control characters out of them"
    )
    run_label: bool = Field(
        True, description="Tell runs apart by the label `run_id`; false folds them together, where series are scarce"
    )
    console_interval: float = Field(
        10.0,
        ge=0,
        description="Least time between two lines of figures, which come with the Trainer's logs (s); 0: no lines and no summary",
    )
    simulated_gpus: int = Field(0, ge=0, le=1024, description="Made-up GPUs instead of real ones, for demonstrations")
    replay: Path | None = Field(None, description="Recording to play instead of measuring, for demonstrations and tests")

    def __init__(self, **settings: Any) -> None:
        """Raises ConfigError, with the nearest right setting in the message."""
        unknown = [name for name in settings if name not in type(self).model_fields]
        if unknown:
            raise ConfigError("; ".join(_unknown(name, name) for name in unknown))
        _refuse_unknown_environment(os.environ, type(self).model_fields)
        _refuse_misspelt_table(Path("pyproject.toml"))
        try:
            super().__init__(**settings)
        except ValidationError as error:
            raise ConfigError("; ".join(_explain(dict(problem)) for problem in error.errors(include_input=False))) from None
        except (OSError, ValueError, AttributeError, TypeError) as error:  # A file that is no TOML, or a table that is none.
            raise ConfigError(f"{CONFIG_FILE} or [tool.hf_eco2ai] in pyproject.toml cannot be read: {error}") from error
        if self.cost_budget is not None and self.electricity_price_per_kwh is None and self.gpu_price_per_hour is None:
            raise ConfigError("cost_budget: needs a price; set electricity_price_per_kwh or gpu_price_per_hour")
        if self.grid_carbon_intensity is None and (self.country or self.region):
            from hf_eco2ai.footprint.table import check_place  # noqa: PLC0415 - the table costs 15 ms that most imports do not need

            check_place(self.country, self.region)

    def __setattr__(self, name: str, value: Any) -> None:
        """Raises ConfigError for a setting: a CarbonConfig does not change once it is made."""
        if name in type(self).model_fields:
            raise ConfigError(
                f"{name}: a CarbonConfig does not change; make a new one: config.model_copy(update={{{name!r}: …}})"
            )
        super().__setattr__(name, value)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic-settings'
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The order of precedence."""
        return (
            init_settings,
            env_settings,
            TomlConfigSettingsSource(settings_cls),
            PyprojectTomlConfigSettingsSource(settings_cls),
        )

    @classmethod
    def origins(cls) -> dict[str, Origin]:
        """Where each setting of a `CarbonConfig()` made now would come from."""
        found: dict[str, Origin] = dict.fromkeys(cls.model_fields, "default")
        for name in PyprojectTomlConfigSettingsSource(cls)():
            found[name] = "pyproject.toml"
        for name in TomlConfigSettingsSource(cls)():
            found[name] = "hf_eco2ai.toml"
        for name in cls.model_fields:
            if any(key.upper() == ENV_PREFIX + name.upper() and value for key, value in os.environ.items()):
                found[name] = "environment"
        return found


@dataclass(frozen=True)
class Environment:
    """What the launcher says through environment variables that are not ours."""

    cuda_visible_devices: str | None = None
    cuda_device_order: str | None = None
    launcher: Mapping[str, str] = field(default_factory=dict)
    """Variables that torchrun, MPI and SLURM set, for `Ranks.of`."""
    restart: str = ""
    """Which restart of torchrun's processes it is."""
    job: str = ""
    """The scheduler's job, which keeps its id when it is requeued; empty without a scheduler."""
    notify_socket: str = ""
    """Where systemd wants to be told how a service is; empty without it."""
    watchdog_seconds: float | None = None
    """How often systemd wants to hear that a service is alive; None where it does not."""

    @classmethod
    def read(cls) -> "Environment":
        """As of now."""
        launcher = {name: value for name, value in os.environ.items() if name.startswith(_LAUNCHERS) or name in _RANKS}
        job = os.environ.get("SLURM_JOB_ID") or os.environ.get("PBS_JOBID") or os.environ.get("LSB_JOBID") or ""
        watchdog = os.environ.get("WATCHDOG_USEC", "")
        return cls(
            cuda_visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
            cuda_device_order=os.environ.get("CUDA_DEVICE_ORDER"),
            launcher=launcher,
            restart=os.environ.get("TORCHELASTIC_RESTART_COUNT", ""),
            job=job,
            notify_socket=os.environ.get("NOTIFY_SOCKET", ""),
            watchdog_seconds=int(watchdog) / 1e6 if watchdog.isdecimal() else None,
        )


_RANKS = frozenset({"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"})
_LAUNCHERS = ("SLURM_", "OMPI_", "PMI_", "PMIX_", "MPI_", "MV2_")


def _refuse_unknown_environment(environ: Mapping[str, str], known: Mapping[str, Any]) -> None:
    for variable in environ:
        if variable.upper().startswith(ENV_PREFIX):
            name = variable[len(ENV_PREFIX) :].lower()
            if name not in known:
                raise ConfigError(_unknown(name, variable))


def _refuse_misspelt_table(file: Path) -> None:
    """The distribution is called hf-eco2ai and the table hf_eco2ai, so the one is written for the other."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    if re.search(r"^\s*\[tool\.\"?hf-eco2ai", text, re.MULTILINE):
        raise ConfigError("pyproject.toml: the table [tool.hf-eco2ai] is not read; write [tool.hf_eco2ai]")


def _unknown(name: str, shown: str) -> str:
    known = list(CarbonConfig.model_fields)
    near = [field for field in known if name.lower() in field.split("_")] or get_close_matches(
        name.lower(), known, n=1, cutoff=0.5
    )
    if not near:
        return f"{shown}: there is no such setting; `hf-eco2ai config` lists them all"
    return f"{shown}: there is no such setting; did you mean {near[0]} ({_description(near[0])})?"


def _explain(problem: Mapping[str, Any]) -> str:
    name = str(problem["loc"][0]) if problem["loc"] else "settings"
    if problem["type"] == "extra_forbidden":
        return _unknown(name, name)
    message = re.sub(r"^(Input|Value error,) should", "should", str(problem["msg"]))
    return f"{name}: {message}. It is: {_description(name)}"


def _description(name: str) -> str:
    field = CarbonConfig.model_fields.get(name)
    return (field.description or "") if field else ""
