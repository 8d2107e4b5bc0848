"""Yearly factors per country and US state, shipped with the package.

Countries: lifecycle gCO₂e/kWh, Ember via Our World in Data (CC-BY-4.0, credit both). US states: direct emissions, EPA eGRID2023
(public domain). Lifecycle and direct factors are not comparable, so `factor_type` goes wherever the number goes.
"""

import csv
from difflib import get_close_matches
from functools import cache
from importlib.resources import files

from hf_eco2ai.errors import ConfigError
from hf_eco2ai.footprint import GridContext
from hf_eco2ai.records import FactorType, GridFactor

WORLD = "WORLD"

RESERVED = {"UK": ["GB"], "EL": ["GR"]}
"""Codes that people use and ISO 3166-1 has reserved for it, with the country's own (ISO online browsing platform, 2024)."""

Key = tuple[str, str]


@cache
def rows() -> dict[Key, GridFactor]:
    """All factors of the data file by (country, region); region is empty for a whole country."""
    table = {}
    with (files("hf_eco2ai.footprint") / "data/grid_intensity.csv").open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            factor_type: FactorType = "direct" if row["factor_type"] == "direct" else "lifecycle"
            table[row["country"], row["region"]] = GridFactor(
                grams_per_kwh=float(row["gco2e_per_kwh"]),
                factor_type=factor_type,
                source=row["source"],
                country=row["country"],
                region=row["region"],
                year=int(row["year"]),
                licence=row["licence"],
            )
    return table


class Table:
    """The yearly factor of a place.

    Without a country it is the world average, flagged `assumed`: where a machine stands is never guessed from its address. A
    region that the table does not have, of a country without regional rows, gets its country's factor.
    """

    def __init__(self, country: str, region: str) -> None:
        """Raises ConfigError for a country, or a region of a country with regional rows, that the table lacks."""
        check_place(country, region)
        self.warnings: tuple[str, ...] = ()
        table = rows()
        if not country:
            world = table[WORLD, ""]
            self._factor = GridFactor(
                world.grams_per_kwh, world.factor_type, world.source, WORLD, "", world.year, world.licence, assumed=True
            )
            self.warnings = (
                (
                    f"No country is set, so CO₂e is computed with the world average ({world.grams_per_kwh:g} gCO₂e/kWh, "
                    f"{world.source}, "
                    f"{world.year}). Set country, e.g. CarbonConfig(country='DE') or HF_ECO2AI_COUNTRY=DE: "
                    "the true factor may be a tenth or double of that."
                ),
            )
        elif (country, region) in table:
            self._factor = table[country, region]
        else:
            national = table[country, ""]
            self._factor = GridFactor(
                national.grams_per_kwh,
                national.factor_type,
                national.source,
                country,
                region,
                national.year,
                national.licence,
            )
            self.warnings = (
                (
                    f"There is no factor for region {region!r} of {country}; its national factor is used "
                    f"({national.grams_per_kwh:g} gCO₂e/kWh, {national.source}, {national.year}). A better one can be given as "
                    "grid_carbon_intensity in gCO₂e/kWh."
                ),
            )

    @classmethod
    def open(cls, context: GridContext) -> "Table":
        """Always applies: a place that nobody named is the world."""
        return cls(context.country, context.region)

    def factor(self) -> GridFactor:
        """The row of the table, with its source and year."""
        return self._factor


def check_place(country: str, region: str) -> None:
    """Raise ConfigError, naming the nearest right code, where the table cannot know the place."""
    if not country:
        if region:
            raise ConfigError(f"region: {region!r} means nothing without a country; set country as well, e.g. country='US'.")
        return
    countries = sorted({key[0] for key in rows()} - {WORLD})
    if country not in countries:
        near = RESERVED.get(country) or get_close_matches(country, countries, n=3, cutoff=0.5)
        raise ConfigError(
            f"country: {country!r} is not in the table of grid factors. Give a two-letter code (ISO 3166-1)"
            f"{', nearest: ' + ', '.join(near) if near else ''}; or give grid_carbon_intensity in gCO₂e/kWh."
        )
    regions = sorted({key[1] for key in rows() if key[0] == country} - {""})
    if region and regions and region not in regions:
        near = get_close_matches(region, regions, n=3, cutoff=0.5)
        there = f"nearest: {', '.join(near)}" if near else f"it has {', '.join(regions)}"
        raise ConfigError(f"region: {region!r} is not a region of {country} in the table of grid factors; {there}.")
