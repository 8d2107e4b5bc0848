"""Grams per kWh: from the table that is shipped, or from the user."""

import csv
from pathlib import Path

import pytest

import hf_eco2ai.footprint
from hf_eco2ai.errors import ConfigError
from hf_eco2ai.footprint.fixed import Fixed
from hf_eco2ai.footprint.table import Table, check_place, rows

DATA = Path(hf_eco2ai.footprint.__file__).with_name("data") / "grid_intensity.csv"

US_STATES_AND_DC = 51


def test_every_row_has_a_source_a_year_a_type_and_a_licence() -> None:
    for place, factor in rows().items():
        assert factor.source, place
        assert factor.year is not None, place
        assert 2000 <= factor.year <= 2026, place
        assert factor.factor_type in {"lifecycle", "direct"}, place
        assert factor.licence in {"CC-BY-4.0", "public domain"}, place
        assert 0 < factor.grams_per_kwh < 1500, place  # lignite alone is about 1,100 (IPCC AR5 WG3, annex III)
        assert not factor.assumed, place


def test_no_row_of_the_file_is_lost_or_read_twice() -> None:
    with DATA.open(encoding="utf-8") as lines:
        written = [(row["country"], row["region"]) for row in csv.DictReader(lines)]

    assert sorted(rows()) == sorted(written)


def test_every_type_of_the_file_is_one_that_we_know() -> None:
    with DATA.open(encoding="utf-8") as lines:
        assert {row["factor_type"] for row in csv.DictReader(lines)} == {"lifecycle", "direct"}


def test_the_table_has_every_us_state_and_washington_dc() -> None:
    assert len([region for country, region in rows() if country == "US" and region]) == US_STATES_AND_DC


def test_germany_has_embers_lifecycle_figure_of_2025() -> None:
    factor = Table("DE", "").factor()

    assert (factor.grams_per_kwh, factor.year, factor.factor_type) == (329.65, 2025, "lifecycle")
    assert "Ember" in factor.source
    assert "Our World in Data" in factor.source  # CC-BY-4.0: credit both
    assert factor.licence == "CC-BY-4.0"
    assert (factor.country, factor.region) == ("DE", "")


def test_california_has_the_epas_direct_figure_of_2023() -> None:
    factor = Table("US", "CA").factor()

    assert (factor.grams_per_kwh, factor.year, factor.factor_type) == (179.06, 2023, "direct")
    assert "EPA eGRID" in factor.source
    assert factor.licence == "public domain"
    assert (factor.country, factor.region) == ("US", "CA")


def test_delaware_is_not_germany() -> None:
    assert Table("US", "DE").factor().grams_per_kwh == 319.41


def test_a_country_with_regions_has_a_figure_of_its_own() -> None:
    table = Table("US", "")

    assert (table.factor().grams_per_kwh, table.factor().factor_type) == (384.4, "lifecycle")
    assert table.warnings == ()


def test_a_place_that_is_in_the_table_needs_no_warning() -> None:
    assert Table("DE", "").warnings == ()
    assert Table("US", "CA").warnings == ()
    assert not Table("DE", "").factor().assumed


def test_no_country_is_the_world_average_flagged_assumed_with_one_warning() -> None:
    table = Table("", "")
    factor = table.factor()

    assert (factor.grams_per_kwh, factor.year, factor.factor_type) == (473.0, 2024, "lifecycle")
    assert factor.country == "WORLD"
    assert factor.assumed
    assert len(table.warnings) == 1
    assert "473" in table.warnings[0]
    assert "country" in table.warnings[0]


def test_the_world_is_not_a_country_that_one_can_set() -> None:
    with pytest.raises(ConfigError):
        Table("WORLD", "")


def test_a_region_of_a_country_without_regional_rows_gets_the_countrys_figure_with_one_warning() -> None:
    table = Table("DE", "BY")
    factor = table.factor()

    assert (factor.grams_per_kwh, factor.country, factor.region) == (329.65, "DE", "BY")
    assert not factor.assumed
    assert len(table.warnings) == 1
    assert "BY" in table.warnings[0]
    assert "329.65" in table.warnings[0]


@pytest.mark.parametrize(("wrong", "right"), [("DEU", "DE"), ("USA", "US"), ("FRA", "FR")])
def test_an_unknown_country_raises_and_names_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Table(wrong, "")

    message = str(caught.value)
    assert message.startswith(f"country: {wrong!r}")
    assert right in message.partition("nearest: ")[2].partition(";")[0].split(", ")
    assert "gCO₂e/kWh" in message  # the way out: a number of one's own, with its unit


def test_a_country_with_nothing_near_it_still_says_what_is_wanted() -> None:
    with pytest.raises(ConfigError, match="two-letter code"):
        Table("!!", "")


def test_a_region_without_a_country_raises() -> None:
    with pytest.raises(ConfigError, match="region: 'CA' means nothing without a country"):
        Table("", "CA")


def test_a_wrong_us_state_raises_and_names_those_that_are_there() -> None:
    with pytest.raises(ConfigError) as caught:
        Table("US", "CAL")

    assert str(caught.value).startswith("region: 'CAL'")
    assert "CA" in str(caught.value)


@pytest.mark.parametrize("place", [("DE", ""), ("US", "CA"), ("DE", "BY"), ("", "")])
def test_a_place_that_the_table_takes_passes_the_check(place: tuple[str, str]) -> None:
    check_place(*place)
    assert Table(*place).factor().grams_per_kwh > 0


def test_the_users_own_number_is_used_as_it_is_and_says_whose_it_is() -> None:
    factor = Fixed(42.5, "marginal", "DE", "BY").factor()

    assert (factor.grams_per_kwh, factor.factor_type) == (42.5, "marginal")
    assert (factor.country, factor.region) == ("DE", "BY")
    assert "user" in factor.source
    assert factor.year is None
    assert not factor.assumed


def test_the_users_own_number_may_be_zero() -> None:
    assert Fixed(0.0, "direct", "", "").factor().grams_per_kwh == 0.0
