"""Which phase was when."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_eco2ai.energy.timeline import MOST_MARKS, Mark, Piece, Timeline
from hf_eco2ai.records import PHASES, Device, Energy, Phase

GPU = Device(host="h", uuid="GPU-1", component="gpu", basis="measured", source="NVML energy counter")


def timeline(*marks: tuple[float, Phase | None]) -> Timeline:
    made = Timeline()
    for at, phase in marks:
        made.add(Mark(at, phase))
    return made


def test_an_interval_is_cut_at_the_exact_instants_of_the_marks() -> None:
    phases = timeline((0.0, "setup"), (1.5, "train"), (4.0, "evaluate"))

    assert list(phases.cut(1.0, 5.0)) == [Piece(1.0, 1.5, "setup"), Piece(1.5, 4.0, "train"), Piece(4.0, 5.0, "evaluate")]


def test_an_interval_within_one_phase_stays_whole() -> None:
    assert list(timeline((0.0, "setup"), (1.0, "train")).cut(2.0, 3.0)) == [Piece(2.0, 3.0, "train")]


def test_an_interval_that_ends_at_a_mark_belongs_to_the_phase_before_it() -> None:
    assert list(timeline((0.0, "setup"), (1.0, "train")).cut(0.5, 1.0)) == [Piece(0.5, 1.0, "setup")]


def test_an_interval_that_starts_at_a_mark_belongs_to_the_phase_after_it() -> None:
    assert list(timeline((0.0, "setup"), (1.0, "train")).cut(1.0, 1.5)) == [Piece(1.0, 1.5, "train")]


def test_time_before_the_run_is_dropped() -> None:
    phases = timeline((10.0, "setup"))

    assert list(phases.cut(8.0, 11.0)) == [Piece(10.0, 11.0, "setup")]
    assert list(phases.cut(8.0, 10.0)) == []


def test_time_after_the_end_is_dropped() -> None:
    phases = timeline((0.0, "train"), (10.0, None))

    assert list(phases.cut(9.0, 12.0)) == [Piece(9.0, 10.0, "train")]
    assert list(phases.cut(10.0, 12.0)) == []


def test_without_a_mark_nothing_belongs_to_the_run() -> None:
    assert list(Timeline().cut(0.0, 1.0)) == []


def test_of_two_marks_at_one_instant_the_later_one_holds() -> None:
    phases = timeline((0.0, "train"), (1.0, "evaluate"), (1.0, "save"))

    assert list(phases.cut(0.0, 2.0)) == [Piece(0.0, 1.0, "train"), Piece(1.0, 2.0, "save")]


def test_a_mark_from_the_past_holds_from_its_predecessor_on() -> None:
    phases = timeline((0.0, "train"), (5.0, "evaluate"), (3.0, "save"))

    assert list(phases.cut(0.0, 6.0)) == [Piece(0.0, 5.0, "train"), Piece(5.0, 6.0, "save")]


marks = st.lists(st.tuples(st.floats(0.0, 100.0), st.sampled_from(PHASES)), min_size=1, max_size=30).map(
    lambda marks: sorted(marks, key=lambda mark: mark[0])
)


@settings(deadline=None)
@given(marks=marks, end_after=st.floats(0.0, 20.0), start=st.floats(-20.0, 140.0), seconds=st.floats(0.001, 150.0))
def test_pieces_cover_the_interval_within_the_run_in_order_and_without_overlap(
    marks: list[tuple[float, Phase]], end_after: float, start: float, seconds: float
) -> None:
    run_start, run_end = marks[0][0], marks[-1][0] + end_after

    pieces = list(timeline(*marks, (run_end, None)).cut(start, start + seconds))

    assert all(piece.start < piece.end for piece in pieces)
    assert all(before.end == after.start for before, after in pairwise(pieces))
    first, last = max(start, run_start), min(start + seconds, run_end)
    if first < last:
        assert (pieces[0].start, pieces[-1].end) == (first, last)
    else:
        assert pieces == []


@settings(deadline=None)
@given(marks=marks, start=st.floats(-20.0, 140.0), seconds=st.floats(0.001, 150.0))
def test_each_piece_lies_in_the_phase_of_the_last_mark_before_it(
    marks: list[tuple[float, Phase]], start: float, seconds: float
) -> None:
    for piece in timeline(*marks).cut(start, start + seconds):
        assert piece.phase == [phase for at, phase in marks if at <= piece.start][-1]


@pytest.mark.parametrize("count", [MOST_MARKS, MOST_MARKS + 1, 3 * MOST_MARKS])
def test_more_marks_than_are_remembered_lose_no_energy(count: int) -> None:
    phases = timeline(*((float(i), PHASES[i % 5]) for i in range(count)), (float(count), None))
    energy = Energy(GPU, 0.0, float(count), 300.0 * count, "counter")

    pieces = list(phases.cut(energy.start, energy.end))

    assert sum(energy.between(piece.start, piece.end) for piece in pieces) == pytest.approx(300.0 * count)
    assert (pieces[0].start, pieces[-1].end) == (0.0, float(count))
    assert all(before.end == after.start for before, after in pairwise(pieces))


def test_recent_marks_are_remembered_exactly() -> None:
    count = 3 * MOST_MARKS
    phases = timeline(*((float(i), PHASES[i % 5]) for i in range(count)))

    assert list(phases.cut(count - 3.0, count - 1.0)) == [
        Piece(count - 3.0, count - 2.0, PHASES[(count - 3) % 5]),
        Piece(count - 2.0, count - 1.0, PHASES[(count - 2) % 5]),
    ]


def test_a_run_may_be_marked_without_end_in_bounded_memory() -> None:
    phases = timeline(*((float(i), "train") for i in range(3 * MOST_MARKS)))

    assert sum(1 for _ in phases.cut(0.0, 1e9)) <= MOST_MARKS
