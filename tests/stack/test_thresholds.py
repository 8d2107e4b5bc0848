"""Thresholds in one place, changed by name."""

from pathlib import Path

import pytest

from hf_eco2ai.errors import ConfigError
from hf_eco2ai.stack.files import bundled
from hf_eco2ai.stack.thresholds import Thresholds

KG = {"high_emissions_kg": 20, "high_emissions_for": "2m"}
HAVE = Thresholds({**KG, "budget_nearly_spent_ratio": 0.8, "gpu_memory_percent": 95}, "thresholds.yml")


def test_the_guides_thresholds_are_shipped() -> None:
    shipped = Thresholds.read(bundled() / "alerting" / "thresholds.yml")
    guide = {"high_emissions_kg": "20", "high_emissions_for": "2m", "budget_nearly_spent_ratio": "0.8"}
    assert {name: shipped[name] for name in guide} == guide


def test_a_threshold_is_changed_by_name_and_the_others_stay() -> None:
    changed = HAVE.changed(["high_emissions_kg=50.5"])
    assert {name: changed[name] for name in KG} == {"high_emissions_kg": "50.5", "high_emissions_for": "2m"}
    assert HAVE.number("high_emissions_kg") == 20


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("high_emission_kg=1", "did you mean high_emissions_kg"),
        ("high_emissions_kg", "write NAME=VALUE"),
        ("high_emissions_kg=2m", "should be like 20, is 2m"),
        ("high_emissions_for=5", "should be like 2m, is 5"),
        ("high_emissions_kg=many", "should be a number or a duration such as 10m, is 'many'"),
        ("high_emissions_kg=nan", "should be more than 0, is nan"),
        ("high_emissions_kg=-1", "should be more than 0, is -1"),
        ("high_emissions_kg=inf", "should be more than 0, is inf"),
        ("high_emissions_for=0s", "should be longer than 0s"),
        ("budget_nearly_spent_ratio=80", "should be more than 0 and at most 1, is 80"),
        ("gpu_memory_percent=950", "should be more than 0 and at most 100, is 950"),
    ],
)
def test_a_wrong_setting_is_one_sentence_that_says_what_is_right(setting: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        HAVE.changed([setting])


def test_a_file_that_is_no_map_is_an_error_that_shows_a_line(tmp_path: Path) -> None:
    (tmp_path / "thresholds.yml").write_text("- 20\n")
    with pytest.raises(ConfigError, match="high_emissions_kg: 20"):
        Thresholds.read(tmp_path / "thresholds.yml")


def test_a_threshold_that_is_missing_is_an_error_not_a_rule_that_never_fires() -> None:
    with pytest.raises(ConfigError, match="has no such threshold"):
        _ = HAVE["high_carbon_rate_kg_per_hour"]
