"""Joules, a grid factor and a tariff become a Footprint. The arithmetic of the whole product, in one function."""

from hf_eco2ai.records import Footprint, GridFactor, Tariff

JOULES_PER_KWH = 3.6e6
SECONDS_PER_HOUR = 3600.0


def account(joules: float, factor: GridFactor, tariff: Tariff, pue: float, gpu_seconds: float = 0.0) -> Footprint:
    """What `joules` of device energy cost the climate and the purse.

    CO₂e (g) = kWh × PUE × intensity; energy cost = kWh × PUE × price; compute cost = GPU hours × price. PUE (power usage
    effectiveness, ISO/IEC 30134-2) is facility energy over device energy, so it multiplies here and nowhere else: the joules of
    a Footprint are those of the devices. A cost without a price is None, not 0.
    """
    facility_kwh = joules / JOULES_PER_KWH * pue
    return Footprint(
        joules=joules,
        grams=facility_kwh * factor.grams_per_kwh,
        energy_cost=None if tariff.per_kwh is None else facility_kwh * tariff.per_kwh,
        compute_cost=None if tariff.per_gpu_hour is None else gpu_seconds / SECONDS_PER_HOUR * tariff.per_gpu_hour,
    )
