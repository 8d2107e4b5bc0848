"""A factor that the user states."""

from hf_eco2ai.records import FactorType, GridFactor


class Fixed:
    """The user's own number, for a site with its own power contract or a factor from a report."""

    def __init__(self, grams_per_kwh: float, factor_type: FactorType, country: str, region: str) -> None:
        self._factor = GridFactor(
            grams_per_kwh=grams_per_kwh,
            factor_type=factor_type,
            source="set by the user (grid_carbon_intensity)",
            country=country,
            region=region,
        )

    def factor(self) -> GridFactor:
        """The number as given, in gCO₂e/kWh."""
        return self._factor
