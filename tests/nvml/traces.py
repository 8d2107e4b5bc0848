"""Power over time, known exactly. Written without a look at standin.c, which has its own closed forms."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar


@dataclass(frozen=True)
class Trace:
    """Power that is a straight line between its `breaks`. `kind` and the fields, in order, are what standin.c takes."""

    kind: ClassVar[int]

    def watts(self, t: float) -> float:
        raise NotImplementedError

    def breaks(self, start: float, end: float) -> list[float]:
        """The instants in (start, end) at which power jumps or changes its slope."""
        raise NotImplementedError

    def moved(self, part: float) -> "Trace":
        """The same, shifted by a part (0 to 1) of its period."""
        raise NotImplementedError

    def integral(self, start: float, end: float) -> float:
        """Joules: the midpoint rule, which is exact on every straight piece."""
        return math.fsum(self.watts((a + b) / 2) * (b - a) for a, b in self._pieces(start, end))

    def power_steps(self, start: float, end: float) -> float:
        """Total variation of power in watts: all jumps, and how far the slopes go up and down."""
        steps, before = 0.0, None
        for a, b in self._pieces(start, end):
            middle, half_rise = self.watts((a + b) / 2), self.watts(b - (b - a) / 4) - self.watts(a + (b - a) / 4)
            steps += 2 * abs(half_rise) + (0.0 if before is None else abs(middle - half_rise - before))
            before = middle + half_rise
        return steps

    def peak(self, start: float, end: float) -> float:
        return max(self.watts(t) for a, b in self._pieces(start, end) for t in (a, (a + b) / 2, b))

    def _pieces(self, start: float, end: float) -> Iterator[tuple[float, float]]:
        return pairwise([start, *self.breaks(start, end), end])


@dataclass(frozen=True)
class Constant(Trace):
    power: float
    kind: ClassVar[int] = 0

    def watts(self, t: float) -> float:
        return self.power

    def breaks(self, start: float, end: float) -> list[float]:
        return []

    def moved(self, part: float) -> "Constant":
        return self


@dataclass(frozen=True)
class Square(Trace):
    """High in the first half of each period."""

    low: float
    high: float
    period: float
    phase: float = 0.0
    kind: ClassVar[int] = 1

    def watts(self, t: float) -> float:
        return self.high if math.floor(2 * (t + self.phase) / self.period) % 2 == 0 else self.low

    def breaks(self, start: float, end: float) -> list[float]:
        half = self.period / 2
        first, last = math.floor((start + self.phase) / half), math.ceil((end + self.phase) / half)
        return [t for t in (n * half - self.phase for n in range(first, last + 1)) if start < t < end]

    def moved(self, part: float) -> "Square":
        return replace(self, phase=part * self.period)


@dataclass(frozen=True)
class Ramp(Trace):
    """From one power to another between two instants, level before and after."""

    first: float
    last: float
    begin: float
    end: float
    kind: ClassVar[int] = 2

    def watts(self, t: float) -> float:
        if t <= self.begin:
            return self.first
        if t >= self.end:
            return self.last
        return self.first + (self.last - self.first) * (t - self.begin) / (self.end - self.begin)

    def breaks(self, start: float, end: float) -> list[float]:
        return [t for t in (self.begin, self.end) if start < t < end]

    def moved(self, part: float) -> "Ramp":
        return replace(self, begin=self.begin - part, end=self.end - part)


@dataclass(frozen=True)
class Burst(Trace):
    base: float
    top: float
    begin: float
    end: float
    kind: ClassVar[int] = 3

    def watts(self, t: float) -> float:
        return self.top if self.begin <= t < self.end else self.base

    def breaks(self, start: float, end: float) -> list[float]:
        return [t for t in (self.begin, self.end) if start < t < end]

    def moved(self, part: float) -> "Burst":
        return replace(self, begin=self.begin - part / 2)


TRACES: dict[str, Trace] = {
    "constant": Constant(250.0),
    "square of 2 s": Square(100.0, 500.0, 2.0, phase=0.37),
    "square of 0.4 s": Square(100.0, 500.0, 0.4, phase=0.05),
    "ramp": Ramp(50.0, 650.0, 0.0, 10.0),
    "burst in the last second": Burst(100.0, 600.0, 9.0, math.inf),
}
