"""3 account: joules become CO₂e and money. One file per grid provider, each one row in `GRIDS`."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from hf_eco2ai.records import FactorType, GridFactor


class Grid(Protocol):
    """Says how carbon-intensive electricity is."""

    def factor(self) -> GridFactor:
        """The factor in force now. Answers at once, from memory."""


@dataclass(frozen=True)
class GridContext:
    """What a grid provider may need to know to open itself. Each takes what it needs."""

    country: str = ""
    region: str = ""
    grams_per_kwh: float | None = None
    factor_type: FactorType = "lifecycle"


class GridRow(NamedTuple):
    """One kind of grid provider. `opener` is `module:Class`; its `open(context)` raises Unavailable where it does not apply."""

    name: str
    opener: str
    what: str


GRIDS: tuple[GridRow, ...] = (
    GridRow("fixed", "hf_eco2ai.footprint.fixed:Fixed", "a number of your own (setting `grid_carbon_intensity`)"),
    GridRow(
        "table",
        "hf_eco2ai.footprint.table:Table",
        "the yearly factor of the country or US state, shipped with the package",
    ),
)
"""In order of preference: the first that opens is used."""
