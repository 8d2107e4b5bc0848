"""A factor that the user states."""

from hf_eco2ai.errors import Unavailable
from hf_eco2ai.footprint import GridContext
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

    @classmethod
    def open(cls, context: GridContext) -> "Fixed":
        """Raises Unavailable unless the user has stated a number."""
        if context.grams_per_kwh is None:
            raise Unavailable("no carbon intensity was stated")
        return cls(context.grams_per_kwh, context.factor_type, context.country, context.region)

    def factor(self) -> GridFactor:
        """The number as given, in gCO₂e/kWh."""
        return self._factor
