"""Settings: where they come from, and a clear word for each mistake."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_eco2ai.config import CarbonConfig, Environment
from hf_eco2ai.errors import ConfigError, Eco2AIError

SetEnvironment = Callable[[str, str], None]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and no setting of ours in the environment."""
    for name in os.environ:
        if name.upper().startswith("HF_ECO2AI_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> SetEnvironment:
    return monkeypatch.setenv


def toml(folder: Path, text: str) -> None:
    (folder / "hf_eco2ai.toml").write_text(text)


def pyproject(folder: Path, text: str) -> None:
    (folder / "pyproject.toml").write_text(f"[project]\nname = 'x'\n\n[tool.hf_eco2ai]\n{text}")


def refusal(**settings_: Any) -> str:
    """What is said to wrong settings: one plain line, never pydantic's own report."""
    with pytest.raises(ConfigError) as caught:
        CarbonConfig(**settings_)
    message = str(caught.value)
    for pydantic_says in ("\n", "validation error", "pydantic", "input_value", "input_type", "[type=", "errors.pydantic.dev"):
        assert pydantic_says not in message
    return message


# Where settings come from


@pytest.mark.usefixtures("folder")
def test_without_any_setting_nothing_is_assumed_and_nothing_is_opened() -> None:
    config = CarbonConfig()

    assert (config.country, config.region, config.grid_carbon_intensity) == ("", "", None)
    assert config.pue == 1.0
    assert (config.electricity_price_per_kwh, config.gpu_price_per_hour) == (None, None)
    assert (config.carbon_budget_kg, config.energy_budget_kwh, config.cost_budget) == (None, None, None)
    assert (config.budget_action, config.budget_scope, config.budget_period) == ("warn", "run", "none")
    assert (config.journal_enabled, config.journal_interval, config.runs_dir) == (True, 5.0, None)
    assert config.prometheus_host == "127.0.0.1"
    assert config.gpu_ids is None
    assert (config.simulated_gpus, config.replay) == (0, None)
    assert set(CarbonConfig.origins().values()) == {"default"}


def test_each_source_gives_a_setting(folder: Path, environment: SetEnvironment) -> None:
    pyproject(folder, "pue = 1.4\n")
    toml(folder, "max_projects = 7\n")
    environment("HF_ECO2AI_COUNTRY", "DE")
    config = CarbonConfig(project_name="mine")

    assert (config.pue, config.max_projects, config.country, config.project_name) == (1.4, 7, "DE", "mine")


def test_the_stronger_source_wins(folder: Path, environment: SetEnvironment) -> None:
    pyproject(folder, "pue = 1.1\n")
    assert CarbonConfig().pue == 1.1
    toml(folder, "pue = 1.2\n")
    assert CarbonConfig().pue == 1.2
    environment("HF_ECO2AI_PUE", "1.3")
    assert CarbonConfig().pue == 1.3
    assert CarbonConfig(pue=1.4).pue == 1.4


def test_origins_name_the_source_of_each_setting(folder: Path, environment: SetEnvironment) -> None:
    pyproject(folder, "pue = 1.1\nmax_projects = 5\ncurrency = 'EUR'\n")
    toml(folder, "pue = 1.2\nmax_projects = 6\n")
    environment("HF_ECO2AI_PUE", "1.3")
    environment("hf_eco2ai_country", "DE")
    origins = CarbonConfig.origins()

    assert origins["currency"] == "pyproject.toml"
    assert origins["max_projects"] == "hf_eco2ai.toml"
    assert origins["pue"] == "environment"
    assert origins["country"] == "environment"
    assert origins["region"] == "default"
    assert set(origins) == set(CarbonConfig.model_fields)


def test_an_empty_environment_variable_is_no_setting(folder: Path, environment: SetEnvironment) -> None:
    toml(folder, "pue = 1.2\n")
    environment("HF_ECO2AI_PUE", "")

    assert CarbonConfig().pue == 1.2
    assert CarbonConfig.origins()["pue"] == "hf_eco2ai.toml"


def test_a_pyproject_without_our_table_says_nothing(folder: Path) -> None:
    (folder / "pyproject.toml").write_text("[project]\nname = 'x'\n")

    assert CarbonConfig().pue == 1.0


@pytest.mark.usefixtures("folder")
def test_a_config_is_frozen() -> None:
    config = CarbonConfig(pue=1.2)

    with pytest.raises(ValueError, match="does not change"):
        config.pue = 1.3
    assert config.pue == 1.2


# Mistakes in names


@pytest.mark.usefixtures("folder")
def test_an_unknown_argument_names_the_nearest_setting_and_its_unit() -> None:
    message = refusal(carbon_budget=5)

    assert message.startswith("carbon_budget: there is no such setting")
    assert "carbon_budget_kg" in message
    assert "kg CO₂e" in message


@pytest.mark.usefixtures("folder")
def test_every_unknown_argument_is_named_at_once() -> None:
    message = refusal(measurment_interval=1, electricity_price=0.3)

    assert "measurement_interval" in message
    assert "(s)" in message
    assert "electricity_price_per_kwh" in message
    assert "`currency` per kWh" in message


def test_an_unknown_environment_variable_names_the_nearest_setting_and_its_unit(environment: SetEnvironment) -> None:
    environment("HF_ECO2AI_POWER_INTERVALL", "1")
    message = refusal()

    assert message.startswith("HF_ECO2AI_POWER_INTERVALL: there is no such setting")
    assert "power_interval (" in message
    assert "(s)" in message


@pytest.mark.usefixtures("folder")
def test_environment_variables_of_others_do_not_matter(environment: SetEnvironment) -> None:
    environment("HF_ECO2", "1")
    environment("ECO2AI_PUE", "2")

    assert CarbonConfig().pue == 1.0


def test_an_unknown_key_of_hf_eco2ai_toml_names_the_nearest_setting_and_its_unit(folder: Path) -> None:
    toml(folder, "gpu_price_per_hours = 2.0\n")
    message = refusal()

    assert message.startswith("gpu_price_per_hours: there is no such setting")
    assert "gpu_price_per_hour (" in message
    assert "`currency` per hour" in message


def test_an_unknown_key_of_pyproject_toml_names_the_nearest_setting(folder: Path) -> None:
    pyproject(folder, "contry = 'DE'\n")

    assert "did you mean country (" in refusal()


@pytest.mark.usefixtures("folder")
def test_a_name_like_no_other_says_where_the_names_are() -> None:
    assert refusal(zzzzzzzz=1) == "zzzzzzzz: there is no such setting; `hf-eco2ai config` lists them all"


# Mistakes in values


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("pue", 0.9, "greater than or equal to 1"),
        ("pue", 12, "less than or equal to 5"),
        ("pue", "high", "number"),
        ("grid_carbon_intensity", -1, "greater than or equal to 0"),
        ("grid_carbon_intensity", 3001, "less than or equal to 3000"),
        ("electricity_price_per_kwh", -0.1, "greater than or equal to 0"),
        ("gpu_price_per_hour", -1, "greater than or equal to 0"),
        ("carbon_budget_kg", 0, "greater than 0"),
        ("energy_budget_kwh", -1, "greater than 0"),
        ("cost_budget", 0, "greater than 0"),
        ("budget_action", "abort", "'warn' or 'stop'"),
        ("budget_scope", "host", "'run' or 'project'"),
        ("budget_period", "year", "'none', 'day' or 'month'"),
        ("journal_enabled", "maybe", "boolean"),
        ("journal_interval", 0.5, "greater than or equal to 1"),
        ("journal_interval", 3601, "less than or equal to 3600"),
        ("runs_dir", 7, "path"),
        ("measurement_interval", 0.01, "greater than or equal to 0.1"),
        ("power_interval", 0, "greater than or equal to 0.02"),
        ("prometheus_port", 65536, "less than or equal to 65535"),
        ("prometheus_port", -1, "greater than or equal to 0"),
        ("max_projects", 0, "greater than or equal to 1"),
        ("simulated_gpus", -1, "greater than or equal to 0"),
        ("project_name", "", "can be printed"),
        ("run_id", None, "string"),
        ("export_prometheus", "maybe", "boolean"),
        ("grid_factor_type", "green", "'lifecycle', 'direct' or 'marginal'"),
        ("mig_attribution", "half", "'whole' or 'share'"),
    ],
)
def test_a_value_out_of_range_names_the_setting_its_bound_and_what_it_is(name: str, value: object, says: str) -> None:
    message = refusal(**{name: value})

    assert message.startswith(f"{name}: ")
    assert says in message
    assert (CarbonConfig.model_fields[name].description or "?") in message


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "name",
    [
        "pue",
        "grid_carbon_intensity",
        "electricity_price_per_kwh",
        "gpu_price_per_hour",
        "carbon_budget_kg",
        "energy_budget_kwh",
        "cost_budget",
        "measurement_interval",
        "power_interval",
        "journal_interval",
    ],
)
def test_a_value_that_is_no_finite_number_is_refused(name: str, value: float) -> None:
    assert refusal(**{name: value}).startswith(f"{name}: ")


def test_a_wrong_value_in_the_environment_is_explained_like_an_argument(environment: SetEnvironment) -> None:
    environment("HF_ECO2AI_PUE", "0.5")

    assert refusal().startswith("pue: should be greater than or equal to 1")


def test_a_wrong_value_in_a_file_is_explained_like_an_argument(folder: Path) -> None:
    toml(folder, "prometheus_port = 70000\n")

    assert refusal().startswith("prometheus_port: should be less than or equal to 65535")


@pytest.mark.usefixtures("folder")
def test_a_secret_in_a_wrong_value_is_not_repeated() -> None:
    assert "hunter2" not in refusal(pue="hunter2")


def test_a_file_that_is_no_toml_is_named(folder: Path) -> None:
    toml(folder, "pue = = 1\n")

    assert "hf_eco2ai.toml" in refusal()


def test_a_pyproject_that_is_no_toml_is_named(folder: Path) -> None:
    (folder / "pyproject.toml").write_text("[tool.hf_eco2ai\npue = 1\n")

    assert "pyproject.toml" in refusal()


@pytest.mark.usefixtures("folder")
def test_a_config_error_is_ours_and_a_value_error() -> None:
    with pytest.raises(Eco2AIError):
        CarbonConfig(pue=0)
    with pytest.raises(ValueError, match="pue"):
        CarbonConfig(pue=0)


names = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=30).filter(lambda name: name not in CarbonConfig.model_fields)
values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.lists(st.integers(), max_size=3)


@pytest.mark.usefixtures("folder")
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(sorted(CarbonConfig.model_fields)) | names, values, min_size=1, max_size=4))
def test_whatever_is_given_it_is_taken_or_plainly_refused(given_: dict[str, object]) -> None:
    try:
        CarbonConfig(**given_)
        message = ""
    except ConfigError as error:
        message = str(error)

    assert "validation error" not in message
    assert "pydantic" not in message


# Budgets and journals


@pytest.mark.usefixtures("folder")
def test_a_cost_budget_without_a_price_is_refused_and_says_which_settings_there_are() -> None:
    message = refusal(cost_budget=10.0)

    assert message.startswith("cost_budget: ")
    assert "electricity_price_per_kwh" in message
    assert "gpu_price_per_hour" in message


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("price", ["electricity_price_per_kwh", "gpu_price_per_hour"])
def test_either_price_is_enough_for_a_cost_budget(price: str) -> None:
    settings_: dict[str, Any] = {"cost_budget": 10.0, price: 0.3}

    assert CarbonConfig(**settings_).cost_budget == 10.0


def test_the_runs_folder_may_be_given_as_text(environment: SetEnvironment) -> None:
    environment("HF_ECO2AI_RUNS_DIR", "/somewhere/else")

    assert CarbonConfig().runs_dir == Path("/somewhere/else")
    assert CarbonConfig(runs_dir="here").runs_dir == Path.cwd() / "here"


# Places


@pytest.mark.usefixtures("folder")
def test_codes_may_be_written_small() -> None:
    config = CarbonConfig(country="us", region=" ca ", currency="eur")

    assert (config.country, config.region, config.currency) == ("US", "CA", "EUR")


@pytest.mark.usefixtures("folder")
def test_a_country_that_the_table_lacks_is_refused_at_once_with_the_nearest() -> None:
    message = refusal(country="DEU")

    assert message.startswith("country: 'DEU'")
    assert "DE" in message.split("nearest: ")[1]


@pytest.mark.usefixtures("folder")
def test_a_region_without_a_country_is_refused() -> None:
    assert "country" in refusal(region="CA")


@pytest.mark.usefixtures("folder")
def test_with_a_number_of_ones_own_any_place_will_do() -> None:
    config = CarbonConfig(country="ZZ", region="MOON", grid_carbon_intensity=0)

    assert (config.country, config.region, config.grid_carbon_intensity) == ("ZZ", "MOON", 0.0)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("wrong", ["EURO", "€", "", "US1"])
def test_a_currency_is_three_letters(wrong: str) -> None:
    assert refusal(currency=wrong).startswith("currency: ")


# GPUs


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("0,2", (0, 2)),
        (" 0 , 2 ", (0, 2)),
        ("[0, 2]", (0, 2)),
        ('["GPU-1a", "GPU-2b"]', ("GPU-1a", "GPU-2b")),
        ("3", (3,)),
        ("GPU-1a,GPU-2b", ("GPU-1a", "GPU-2b")),
        ("0,GPU-2b", (0, "GPU-2b")),
        ("[]", ()),
        (",", ()),
    ],
)
def test_gpu_ids_from_the_environment(environment: SetEnvironment, said: str, meant: tuple[int | str, ...]) -> None:
    environment("HF_ECO2AI_GPU_IDS", said)

    assert CarbonConfig().gpu_ids == meant


def test_empty_gpu_ids_in_the_environment_are_no_setting(environment: SetEnvironment) -> None:
    environment("HF_ECO2AI_GPU_IDS", "")

    assert CarbonConfig().gpu_ids is None
    assert CarbonConfig.origins()["gpu_ids"] == "default"


@pytest.mark.usefixtures("folder")
def test_gpu_ids_as_arguments() -> None:
    assert CarbonConfig(gpu_ids=[0, 2]).gpu_ids == (0, 2)
    assert CarbonConfig(gpu_ids=("GPU-1a", 1)).gpu_ids == ("GPU-1a", 1)
    assert CarbonConfig(gpu_ids="0,2").gpu_ids == (0, 2)
    assert CarbonConfig(gpu_ids=[]).gpu_ids == ()


def test_gpu_ids_from_a_file(folder: Path) -> None:
    toml(folder, "gpu_ids = [0, 'GPU-2b']\n")

    assert CarbonConfig().gpu_ids == (0, "GPU-2b")


@pytest.mark.usefixtures("folder")
def test_gpu_ids_that_are_no_list_are_refused() -> None:
    assert refusal(gpu_ids=1.5).startswith("gpu_ids: ")


LAUNCHERS = ("SLURM_", "OMPI_", "PMI_", "PMIX_", "MPI_", "MV2_")
RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "PBS_JOBID", "LSB_JOBID")


@pytest.fixture
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where nobody has launched anything, whoever runs these tests."""
    for name in list(os.environ):
        if name.startswith(LAUNCHERS) or name in RANKS:
            monkeypatch.delenv(name)


@pytest.mark.usefixtures("no_launcher")
def test_what_the_launcher_says_is_read_when_asked(environment: SetEnvironment) -> None:
    environment("CUDA_VISIBLE_DEVICES", "1,0")
    environment("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert Environment.read() == Environment("1,0", "PCI_BUS_ID")

    for name, value in (
        ("RANK", "3"),
        ("WORLD_SIZE", "8"),
        ("OMPI_COMM_WORLD_RANK", "3"),
        ("RANKS", "no"),
        ("MY_SLURM_ID", "no"),
    ):
        environment(name, value)
    assert Environment.read().launcher == {"RANK": "3", "WORLD_SIZE": "8", "OMPI_COMM_WORLD_RANK": "3"}
    assert Environment.read().job == ""


@pytest.mark.usefixtures("no_launcher")
@pytest.mark.parametrize("name", ["SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID"])
def test_the_schedulers_job_has_its_id(environment: SetEnvironment, name: str) -> None:
    assert Environment.read().job == ""
    environment(name, "4711")
    assert Environment.read().job == "4711"


def test_an_empty_list_of_visible_gpus_is_not_the_same_as_none(
    environment: SetEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment("CUDA_VISIBLE_DEVICES", "")
    assert Environment.read().cuda_visible_devices == ""

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert Environment.read().cuda_visible_devices is None


def test_one_gpu_may_be_given_as_a_number() -> None:
    assert CarbonConfig(gpu_ids=0).gpu_ids == (0,)


def test_a_part_of_a_settings_name_finds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ECO2AI_PORT", "1")
    with pytest.raises(ConfigError, match="did you mean prometheus_port"):
        CarbonConfig()


@pytest.mark.parametrize("name", ["", "   ", "\u202e\u200b"])
def test_a_project_name_that_nobody_could_read_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="project_name"):
        CarbonConfig(project_name=name)


def test_a_changed_setting_says_how_to_get_a_new_config() -> None:
    with pytest.raises(ConfigError, match="model_copy"):
        CarbonConfig().pue = 2.0


@pytest.mark.parametrize("text", ["[tool]\nhf_eco2ai = 3\n", "[tool.hf-eco2ai]\npue = 1.2\n"])
def test_a_table_that_cannot_be_meant_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"pyproject\.toml"):
        CarbonConfig()


@pytest.mark.parametrize(("wrong", "right"), [({"country": "UK"}, "GB"), ({"country": "US", "region": "ZZ"}, "nearest: AZ")])
def test_a_wrong_place_names_the_nearest(wrong: dict[str, str], right: str) -> None:
    with pytest.raises(ConfigError, match=right):
        CarbonConfig(**wrong)


def test_an_address_may_be_written_in_brackets() -> None:
    assert CarbonConfig(prometheus_host=" [::1] ").prometheus_host == "::1"


def test_a_runs_dir_stays_the_same_when_the_program_changes_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = CarbonConfig(runs_dir="runs")
    monkeypatch.chdir("/")
    assert config.runs_dir == tmp_path / "runs"


def test_a_runs_dir_of_a_user_who_does_not_exist_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigError, match="runs_dir"):
        CarbonConfig(runs_dir="~no-such-user-anywhere/runs")
