"""3 account: joules become CO₂e and money. One file per grid provider, each one row in `GRIDS`."""

from typing import NamedTuple, Protocol

from hf_eco2ai.records import GridFactor


class Grid(Protocol):
    """Says how carbon-intensive electricity is."""

    def factor(self) -> GridFactor:
        """The factor in force now. Answers at once, from memory."""


class GridRow(NamedTuple):
    """One kind of grid provider. `opener` is `module:Class`."""

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
