"""Which phase was when: cuts an interval of energy at the exact instants at which the Trainer changed phase."""

from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from hf_eco2ai.records import Phase

MOST_MARKS = 4096
"""Far more than fall into the integrator's patience of 5 s. Older ones are merged, so that a year of marks stays small."""


class Mark(NamedTuple):
    """From `at` on, the run is in `phase`; None means that it has ended and nothing more belongs to it."""

    at: float
    phase: Phase | None


class Piece(NamedTuple):
    """A part of an interval that lies in one phase."""

    start: float
    end: float
    phase: Phase


class Timeline:
    """The marks of a run. Time before the first mark and after the end belongs to nobody and is dropped."""

    def __init__(self) -> None:
        self._starts: list[float] = []
        self._phases: list[Phase | None] = []

    def add(self, mark: Mark) -> None:
        """Remember a mark. One that is older than its predecessor is moved up to it: time does not run backwards."""
        self._starts.append(max(mark.at, self._starts[-1]) if self._starts else mark.at)
        self._phases.append(mark.phase)
        if len(self._starts) > MOST_MARKS:
            # The oldest kept mark takes over the run's beginning: a late interval may get the wrong phase, but is not lost.
            keep = MOST_MARKS // 2
            self._starts = [self._starts[0], *self._starts[-keep:][1:]]
            self._phases = self._phases[-keep:]

    def cut(self, start: float, end: float) -> Iterator[Piece]:
        """The pieces of [start, end], in order and without overlap. Pieces of no length are left out."""
        for index in range(max(0, bisect_right(self._starts, start) - 1), len(self._starts)):
            if self._starts[index] >= end:
                return
            following = self._starts[index + 1] if index + 1 < len(self._starts) else end
            piece_start, piece_end = max(start, self._starts[index]), min(end, following)
            phase = self._phases[index]
            if phase is not None and piece_end > piece_start:
                yield Piece(piece_start, piece_end, phase)
