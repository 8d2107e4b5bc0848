"""What of a device's energy is a run's own, where several runs of one host use the device at once.

Each of n runs gets 1/n, so that the runs of a host never add to more than the host. Who uses what, and since when, is known from
the journals, a few seconds late; what has been accounted meanwhile is made up for, without a total ever falling.
"""

import itertools
import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hf_eco2ai.records import Device, Energy

HISTORY_SECONDS = 120.0
"""A claim that becomes known later than this is made up for only in part. Journals are looked at every few seconds."""

REMEMBERED_SECONDS = 600.0
"""So long a claim that is over counts, whether or not it is still told: an energy may reach back by the patience with a silent
counter (150 s at most) and a reading (60 s) further than `HISTORY_SECONDS`, and must be shared as it was the first time."""


class Claim(NamedTuple):
    """Another run uses a device (`Device.claim`), from `start` to `end` on the monotonic clock that a host's processes share."""

    device: str
    start: float
    end: float
    """Infinite while it still does."""


def cut(energy: Energy, claims: Iterable[Claim]) -> list[Energy]:
    """The energy in parts, between the instants at which these claims begin and end."""
    edges = {at for claim in claims for at in (claim.start, claim.end)}
    cuts = [energy.start, *sorted(at for at in edges if energy.start < at < energy.end), energy.end]
    return [
        # Where power comes from 0, rounding may go below.
        energy._replace(start=start, end=end, joules=max(0.0, energy.between(start, end)))
        for start, end in itertools.pairwise(cuts)
    ]


def on(device: Device, claims: Iterable[Claim]) -> list[Claim]:
    """Those of the claims by which a run uses some of a device of the node.

    A run on four of the CPUs claims `cpu:cpus-0,1,2,3`, and there is no telling what of a package's energy is theirs, so that
    the CPU is in use. A run on a slice of a GPU (MIG) claims the GPU anyway.
    """
    if device.component == "gpu":
        return [claim for claim in claims if claim.device == device.claim]
    return [claim for claim in claims if claim.device.partition(":")[0] == device.component]


def unclaimed(energy: Energy, claims: Sequence[Claim]) -> float:
    """Joules of the time in which none of these claims, which are `on` the device, held."""
    if not claims:
        return energy.joules
    return math.fsum(
        part.joules
        for part in cut(energy, claims)
        if not any(claim.start <= part.start and part.end <= claim.end for claim in claims)
    )


class Shares:
    """Cuts energy at the instants at which other runs came and went, and takes a run's share of each part.

    `claims` is replaced by one assignment, from the thread that reads the journals.
    """

    def __init__(self) -> None:
        self.claims: tuple[Claim, ...] = ()
        self._told: tuple[Claim, ...] = ()
        """What `claims` was when it was last looked at."""
        self._known: tuple[Claim, ...] = ()
        """That, and what is remembered beside it."""
        self._history: deque[Energy] = deque()
        """Whole energies of the recent past."""
        self._owed: dict[str, float] = {}
        """Joules by device id that late knowledge has added to what was accounted, or taken from it."""

    def own(self, energies: Sequence[Energy]) -> list[Energy]:
        """The run's share of these energies, which a total can take as they come: none is negative."""
        claims = self.claims  # Once, since another thread may replace it.
        if claims is not self._told:
            self._learn(claims)
        for energy in energies:
            self._history.append(energy)
        while self._history and energies and self._history[0].end < energies[-1].end - HISTORY_SECONDS:
            self._history.popleft()
        if not self._known and not self._owed:
            return list(energies)
        return [self._settled(part) for energy in energies for part in _parts(energy, self._known)]

    def of_now(self, device: Device, now: float) -> float:
        """The run's share of a device at present, 0 to 1."""
        claims = self.claims
        return 1 / (1 + _others(device, now, claims)) if claims else 1.0

    def _learn(self, told: tuple[Claim, ...]) -> None:
        claims = (*told, *self._forgotten(told))
        changed = set(claims).symmetric_difference(self._known)
        for energy in self._history:
            if not any(claim.start < energy.end and energy.start < claim.end for claim in changed):
                continue
            difference = _joules(energy, claims) - _joules(energy, self._known)
            if difference:
                self._owed[energy.device.id] = self._owed.get(energy.device.id, 0.0) + difference
        self._told, self._known = told, claims

    def _forgotten(self, told: tuple[Claim, ...]) -> list[Claim]:
        """Claims that are over and told no more. That nobody speaks of them does not make them untrue."""
        newest = self._history[-1].end if self._history else -math.inf
        still = {(claim.device, claim.start) for claim in told}
        return [
            claim
            for claim in self._known
            if newest - REMEMBERED_SECONDS < claim.end < math.inf and (claim.device, claim.start) not in still
        ]

    def _settled(self, part: Energy) -> Energy:
        """Pay what is owed with this part: all of it where the run gains, as much as there is where it loses."""
        owed = self._owed.pop(part.device.id, 0.0)
        if not owed:
            return part
        joules = max(0.0, part.joules + owed)
        rest = part.joules + owed - joules
        if rest:
            self._owed[part.device.id] = rest
        return part._replace(joules=joules, slope=0.0)


def _joules(energy: Energy, claims: tuple[Claim, ...]) -> float:
    return sum(part.joules for part in _parts(energy, claims))


def _parts(energy: Energy, claims: tuple[Claim, ...]) -> list[Energy]:
    parts = []
    for part in cut(energy, (claim for claim in claims if claim.device == energy.device.claim)):
        runs = 1 + _others(part.device, (part.start + part.end) / 2, claims)
        parts.append(part._replace(joules=part.joules / runs, slope=part.slope / runs))
    return parts


def _others(device: Device, at: float, claims: tuple[Claim, ...]) -> int:
    return sum(1 for claim in claims if claim.device == device.claim and claim.start <= at < claim.end)
