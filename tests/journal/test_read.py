"""Journals to which everything has happened: what can be read is read, what is damaged is never taken for a figure."""

import math
import os
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_eco2ai.journal import format as lines
from hf_eco2ai.journal import read as journals
from hf_eco2ai.journal.format import FORMAT, Header, Totals, to_bytes
from hf_eco2ai.journal.read import (
    LONGEST_LINE,
    MOST_DEVICES,
    MOST_DONE,
    MOST_USED,
    REFUSED_KINDS,
    TAIL,
    Here,
    NewerFormatError,
    Refused,
    Tail,
    before,
    ending,
    head,
    last,
    parse,
    process_started,
    read,
    state,
)
from tests.journal.make import BEGAN, as_bytes, header, here, host_totals, journal, process, put, this_process, used

Parsed = list[Header | Totals]
MB = 1 << 20
MOST_BYTES = 60 * MB
DEADLINE_SECONDS = 30


def small(count: int = 3) -> Parsed:
    """A journal of short lines: header, `count` lines with 1, 2, … joules at 1, 2, … seconds, and an end line."""
    begin = header()
    return [
        begin,
        *(used(n, at=n, header=begin) for n in range(1, count + 1)),
        used(count + 1, at=count + 1, header=begin, end=True),
    ]


def reading(path: Path) -> tuple[Parsed, list[Refused]]:
    refused: list[Refused] = []
    return list(read(path, refused.append)), refused


def signed(body: bytes) -> bytes:
    """A line with the right check, whatever is in it; `body` is a JSON object without its closing bracket."""
    return body + b',"crc32":"%08x"}\n' % zlib.crc32(body)


def following(path: Path) -> tuple[Parsed, list[Refused]]:
    refused: list[Refused] = []
    return list(Tail(path, refused.append).lines()), refused


# What is whole


def test_a_journal_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = journal(20)
    path = put(tmp_path, written)
    assert reading(path) == (written, [])
    assert following(path) == (written, [])
    assert head(path) == written[0]
    assert last(path) == written[-1]


def test_the_last_line_before_an_instant_is_found_wherever_it_is(tmp_path: Path) -> None:
    begin = header()
    totals = [used(n, at=n * n, header=begin) for n in range(1, 40)]
    path = put(tmp_path, [begin, *totals])
    for at in range(-1, 1600):
        expected = [line for line in totals if line.at_unix <= BEGAN + at]
        assert before(path, BEGAN + at) == (expected[-1] if expected else None)


def test_a_long_journal_is_read_from_its_end(tmp_path: Path) -> None:
    """Were it read from its begin, the damaged lines there would be refused."""
    written = small(3)
    damaged = b"{damaged}\n" * 100_000
    path = tmp_path / "a.ndjson"
    path.write_bytes(as_bytes(written[:1]) + damaged + as_bytes(written[1:]))
    refused: list[Refused] = []
    assert last(path, refused.append) == written[-1]
    assert refused == []


def test_an_empty_file_says_nothing_and_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.touch()
    assert (reading(path), head(path), last(path), before(path, math.inf), following(path)) == (
        ([], []),
        None,
        None,
        None,
        ([], []),
    )


@pytest.mark.parametrize("function", [head, last, lambda path: list(read(path)), lambda path: before(path, 0.0)])
def test_a_pipe_in_the_folder_is_refused_and_not_waited_for(tmp_path: Path, function: Callable[[Path], object]) -> None:
    os.mkfifo(tmp_path / "a.ndjson")
    with pytest.raises(OSError, match="not a plain file"):
        function(tmp_path / "a.ndjson")


# What is torn


def test_a_journal_torn_at_any_byte_gives_its_whole_lines_and_no_complaint(tmp_path: Path) -> None:
    written = small(2)
    data = as_bytes(written)
    ends = [len(as_bytes(written[: n + 1])) for n in range(len(written))]
    path = tmp_path / "a.ndjson"
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        whole = sum(end <= size for end in ends)
        complete = sum(end - 1 <= size for end in ends)  # All but the newline is there.
        assert reading(path) == (written[:complete], []), size
        assert following(path) == (written[:whole], []), size
        assert head(path) == (written[0] if whole else None), size
        refused: list[Refused] = []
        assert last(path, refused.append) == (written[complete - 1] if complete > 1 else None), size
        assert refused == [], size
        assert before(path, math.inf) == (written[complete - 1] if complete > 1 else None), size


def test_a_line_that_was_torn_is_told_by_its_number_once_others_follow(tmp_path: Path) -> None:
    written = small(2)
    path = tmp_path / "a.ndjson"
    path.write_bytes(as_bytes(written[:2]) + to_bytes(written[2])[:100] + b"\n" + as_bytes(written[3:]))
    lines, refused = reading(path)
    assert lines == [*written[:2], *written[3:]]
    assert [str(reason) for reason in refused] == [f"{path}, line 3: damaged or torn: its check is wrong or missing"]


# What is damaged


def damaged(path: Path, data: bytes, written: Parsed) -> list[Refused]:
    """Read damaged bytes by all ways; nothing may come out that was not written. What is refused, by `read`."""
    path.write_bytes(data)
    lines, refused = reading(path)
    assert all(line in written for line in lines)
    assert all(reason.path == path and reason.line is not None for reason in refused)
    for found in (head(path), last(path), before(path, math.inf)):
        assert found is None or found in written
    tail, tail_refused = following(path)
    assert tail == [line for line in lines if line in tail]
    if data.endswith(b"\n"):
        assert (tail, tail_refused) == (lines, refused)
    return refused


def test_a_bit_that_flips_in_a_line_costs_that_line_and_no_other(tmp_path: Path) -> None:
    written = small(2)
    data = as_bytes(written)
    start, end = (len(as_bytes(written[:n])) for n in (2, 3))
    path = tmp_path / "a.ndjson"
    for bit in range(8 * (end - start - 1)):
        flipped = bytearray(data)
        flipped[start + bit // 8] ^= 1 << bit % 8
        refused = damaged(path, bytes(flipped), written)
        assert list(read(path)) == [*written[:2], *written[3:]]
        assert refused[0].line == 3


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_bits_that_flip_anywhere_never_change_a_figure(tmp_path: Path, data: st.DataObject) -> None:
    written = small(3)
    whole = bytearray(as_bytes(written))
    for bit in data.draw(st.lists(st.integers(0, 8 * (len(whole) - 1) - 1), min_size=1, max_size=20, unique=True)):
        whole[bit // 8] ^= 1 << bit % 8
    assert damaged(tmp_path / "a.ndjson", bytes(whole), written)


garbage = st.one_of(
    st.binary(max_size=200),
    st.sampled_from(
        [
            b"\x00" * 5000,
            b"\xff\xfe{}",
            b"{}",
            b"[]",
            b"null",
            b'"',
            b'{"type":"totals"}',
            b'{"log":"valid JSON of another program","joules":1e999}',
            b"{" * 100_000,
            b"[" * 100_000,
            b'{"a":' * 50_000,
            signed(b'{"a":' + b"[" * 100_000 + b"]" * 100_000),
            signed(b'{"type":"totals"'),
            signed(b'{"type":"totals","used":{"joules":"a lot"}'),
            signed(b'{"type":"nonsense"'),
            signed(b'{"type":"totals","at_unix":' + b"9" * 5000),
            signed(b'{"format":99'),
            signed(b'{"type":"totals","run_id":"\xff\xfe"'),
            signed(b"{"),
            b',"crc32":"00000000"}',
            b"\r\n\r\n",
        ]
    ),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(garbage, min_size=5, max_size=5))
def test_garbage_between_lines_costs_no_line(tmp_path: Path, between: list[bytes]) -> None:
    written = small(3)
    data = b"".join(to_bytes(line) + rubbish + b"\n" for line, rubbish in zip(written, between, strict=True))
    path = tmp_path / "a.ndjson"
    refused = damaged(path, data, written)
    assert reading(path)[0] == written
    assert head(path) == written[0]
    assert last(path) == before(path, math.inf) == written[-1]
    rows = data.split(b"\n")
    assert [reason.line for reason in refused] == [
        number for number, row in enumerate(rows, 1) if row and row + b"\n" not in map(to_bytes, written)
    ]


def test_damage_after_the_last_line_that_can_be_read_is_told_with_its_line(tmp_path: Path) -> None:
    written = small(2)
    path = put(tmp_path, written[:3])
    path.write_bytes(path.read_bytes() + b"garbage\n\n{more}\n{torn")
    refused: list[Refused] = []
    assert last(path, refused.append) == written[2]
    assert [(reason.path, reason.line) for reason in refused] == [(path, 4), (path, 6)]


def test_what_is_refused_is_told_without_what_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(to_bytes(header()) + signed(b'{"type":"totals","used":{"joules":"my password"}'))
    _lines, refused = reading(path)
    assert "password" not in str(refused[0])
    assert refused[0].line == 2


# What is huge


def bounded(read_it: Callable[[], object]) -> object:
    """What it gives, having taken no more than 60 MB for it."""
    tracemalloc.start()
    try:
        result = read_it()
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MOST_BYTES, f"{peak / MB:.0f} MB"
    return result


def with_a_gigabyte(path: Path, written: Parsed, after: int, *, ended: bool = True) -> None:
    """A line of 1 GB (a hole of zeros, which takes no room on the disk) after so many lines."""
    with path.open("wb") as file:
        file.write(as_bytes(written[:after]))
        file.seek(1 << 30, os.SEEK_CUR)
        file.write(b"x\n" if ended else b"x")
        file.write(as_bytes(written[after:]))


@pytest.mark.parametrize("after", [0, 3, 5])
def test_a_line_of_a_gigabyte_is_passed_over_in_bounded_memory(tmp_path: Path, after: int) -> None:
    written = small(3)
    path = tmp_path / "a.ndjson"
    with_a_gigabyte(path, written, after)
    too_long = [Refused(path, after + 1, f"longer than {LONGEST_LINE} bytes")]
    assert bounded(lambda: reading(path)) == (written, too_long)
    assert bounded(lambda: following(path)) == (written, too_long)
    refused: list[Refused] = []
    assert bounded(lambda: head(path, refused.append)) == (written[0] if after else None)
    assert refused == ([] if after else too_long)
    refused.clear()
    assert bounded(lambda: last(path, refused.append)) == written[-1]
    assert refused == (too_long if after == len(written) else [])
    assert bounded(lambda: before(path, BEGAN + 2.5)) == written[2]
    assert bounded(lambda: before(path, math.inf)) == written[-1]


def test_a_gigabyte_that_never_ends_is_passed_over_in_bounded_memory(tmp_path: Path) -> None:
    written = small(3)
    path = tmp_path / "a.ndjson"
    with_a_gigabyte(path, written, len(written), ended=False)
    assert bounded(lambda: last(path)) == written[-1]
    assert bounded(lambda: before(path, math.inf)) == written[-1]
    assert bounded(lambda: following(path)) == (written, [Refused(path, 6, f"longer than {LONGEST_LINE} bytes")])


def test_a_line_as_long_as_a_line_may_be_is_read(tmp_path: Path) -> None:
    begin = header(config={"x": "y" * (LONGEST_LINE - 3000)})
    path = put(tmp_path, [begin, used(1, at=1, header=header())])
    assert bounded(lambda: head(path)) == begin
    assert len(reading(path)[0]) == 2
    assert last(path) == used(1, at=1, header=header())


def test_a_whole_journal_is_searched_where_its_end_tells_nothing(tmp_path: Path) -> None:
    written = small(3)
    path = put(tmp_path, written)
    path.write_bytes(path.read_bytes() + (b"x" * 999 + b"\n") * (TAIL // 1000 + 1000))
    assert bounded(lambda: last(path)) == written[-1]


def test_a_file_of_newlines_is_no_journal_and_no_trouble(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(b"\n" * MB)
    assert (reading(path), head(path), last(path)) == (([], []), None, None)


# What is from the future


@pytest.mark.parametrize(
    "line",
    [
        signed(to_bytes(header())[: -len(',"crc32":"00000000"}\n')].replace(b'"format":1', b'"format":2')),
        signed(b'{"type":"header","format":2,"all":{"is":["different"]}'),
    ],
    ids=["alike", "different"],
)
def test_a_newer_format_is_named_and_nothing_in_its_file_is_believed(tmp_path: Path, line: bytes) -> None:
    written = small(3)
    path = tmp_path / "a.ndjson"
    path.write_bytes(line + as_bytes(written[1:]))
    expected = Refused(path, 1, f"format 2, written by a newer hf_eco2ai; this one reads {FORMAT}: upgrade it")
    assert reading(path) == ([], [expected])
    assert following(path) == ([], [expected])
    refused: list[Refused] = []
    assert head(path, refused.append) is None
    assert refused == [expected]
    with pytest.raises(NewerFormatError, match="upgrade"):
        parse(line.removesuffix(b"\n"))


def test_a_follower_told_of_a_newer_format_tells_it_once(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(signed(b'{"type":"header","format":2'))
    refused: list[Refused] = []
    tail = Tail(path, refused.append)
    for _ in range(3):
        assert list(tail.lines()) == []
    assert len(refused) == 1


def test_a_first_line_that_is_no_header_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(as_bytes(small(1)[1:]))
    refused: list[Refused] = []
    assert head(path, refused.append) is None
    assert refused == [Refused(path, 1, "the header is missing")]


# A journal that grows


def test_a_follower_gets_each_line_once_however_it_arrives(tmp_path: Path) -> None:
    written = small(3)
    path = tmp_path / "a.ndjson"
    path.touch()
    tail, got = Tail(path), []
    with path.open("ab", buffering=0) as file:
        for byte in as_bytes(written):
            file.write(bytes([byte]))
            got += list(tail.lines())
    assert got == written
    assert list(tail.lines()) == []


@pytest.mark.parametrize("count", [1, 3, 30])
def test_a_follower_begins_again_where_another_file_has_taken_the_name(tmp_path: Path, count: int) -> None:
    path = put(tmp_path, small(3))
    tail = Tail(path)
    assert len(list(tail.lines())) == 5
    other = put(tmp_path, small(count), name="other")
    other.rename(path)
    assert list(tail.lines()) == small(count)


def test_a_follower_begins_again_where_a_file_has_become_shorter(tmp_path: Path) -> None:
    path = put(tmp_path, small(3))
    tail = Tail(path)
    assert len(list(tail.lines())) == 5
    path.write_bytes(as_bytes(small(1)))
    assert list(tail.lines()) == small(1)


@pytest.mark.parametrize("from_end", [False, True])
@pytest.mark.parametrize("count", [3, 9])
def test_a_follower_begins_again_where_a_file_has_the_number_of_the_old_one_and_is_no_shorter(
    tmp_path: Path, from_end: bool, count: int
) -> None:
    """As one that was deleted and made again at once may have."""
    path = put(tmp_path, small(3))
    tail, strict = Tail(path), Tail(path)
    for one in (tail, strict):
        assert one.to_end() if from_end else list(one.lines())
    begin = header(host="other")
    new: Parsed = [begin, *(used(n, at=n, header=begin) for n in range(1, count + 2))]
    path.write_bytes(as_bytes(new))
    assert list(strict.lines(again=False)) == []
    assert strict.is_replaced
    assert list(tail.lines()) == new
    assert not tail.is_replaced


def test_a_follower_counts_lines_on_for_what_it_refuses(tmp_path: Path) -> None:
    path = put(tmp_path, small(3))
    refused: list[Refused] = []
    tail = Tail(path, refused.append)
    list(tail.lines())
    with path.open("ab") as file:
        file.write(b"garbage\n")
    list(tail.lines())
    assert [reason.line for reason in refused] == [6]


def test_a_second_header_is_no_header_also_where_following_began_in_the_middle(tmp_path: Path) -> None:
    written = small(2)
    path = put(tmp_path, written[:2])
    from_begin: list[Refused] = []
    from_end: list[Refused] = []
    first, second = Tail(path, from_begin.append), Tail(path, from_end.append)
    assert (list(first.lines()), second.to_end()) == (written[:2], written[1])
    with path.open("ab") as file:
        file.write(to_bytes(header(host="another")) + to_bytes(written[2]))
    assert list(first.lines()) == list(second.lines()) == written[2:3]
    assert from_begin == from_end == [Refused(path, 3, "impossible: a second header")]


# A journal that is followed from its end


def following_from_end(path: Path) -> tuple[Tail, Totals | None, list[Refused]]:
    refused: list[Refused] = []
    tail = Tail(path, refused.append)
    return tail, tail.to_end(), refused


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_tail_that_begins_at_the_end_gives_the_newest_line_and_then_what_comes(tmp_path: Path, count: int) -> None:
    written = small(5)
    path = put(tmp_path, written[: count + 1])
    tail, newest, refused = following_from_end(path)
    assert newest == (written[count] if count else None)
    assert list(tail.lines()) == []
    with path.open("ab") as file:
        file.write(as_bytes(written[count + 1 :]))
    assert list(tail.lines()) == written[count + 1 :]
    assert refused == []


def test_a_tail_that_begins_in_the_middle_of_a_line_gives_that_once_it_is_whole(tmp_path: Path) -> None:
    written = small(2)
    line = to_bytes(written[2])
    for size in range(len(line)):
        path = put(tmp_path, written[:2])
        with path.open("ab") as file:
            file.write(line[:size])
        tail, newest, refused = following_from_end(path)
        complete = size == len(line) - 1  # All but the newline is there.
        assert newest == written[2 if complete else 1]
        assert list(tail.lines()) == []
        with path.open("ab") as file:
            file.write(line[size:] + to_bytes(written[3]))
        assert list(tail.lines()) == written[2:4]
        assert refused == []


def test_bad_lines_at_the_end_and_after_it_are_told_once_with_their_numbers(tmp_path: Path) -> None:
    written = small(2)
    path = put(tmp_path, written[:3])
    with path.open("ab") as file:
        file.write(b"one\n\n{two\nthree")
    tail, newest, refused = following_from_end(path)
    assert newest == written[2]
    assert [reason.line for reason in refused] == [4, 6]
    assert tail.number is None
    with path.open("ab") as file:
        file.write(b"\n" + to_bytes(written[3]) + b"four\n")
    assert list(tail.lines()) == written[3:4]
    assert [reason.line for reason in refused] == [4, 6, 7, 9]
    assert tail.number == 9


def test_a_line_without_end_at_the_end_is_told_once(tmp_path: Path) -> None:
    written = small(3)
    path = put(tmp_path, written)
    with path.open("ab") as file:
        file.write(b"x" * (LONGEST_LINE + 1))
    tail, newest, refused = following_from_end(path)
    assert newest == written[-1]
    assert list(tail.lines()) == []
    assert refused == [Refused(path, 6, f"longer than {LONGEST_LINE} bytes")]
    with path.open("ab") as file:
        file.write(b"\n" + to_bytes(written[1]) + b"bad\n")
    assert list(tail.lines()) == written[1:2]
    assert [reason.line for reason in refused] == [6, 8]


def test_a_tail_that_began_at_the_end_begins_again_where_a_file_has_become_shorter(tmp_path: Path) -> None:
    path = put(tmp_path, small(3))
    tail, _, refused = following_from_end(path)
    path.write_bytes(as_bytes(small(1)))
    assert list(tail.lines()) == small(1)
    assert tail.number == 3
    assert refused == []


def test_the_last_bytes_of_a_file_are_all_of_a_short_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    assert [ending(path, 10, count) for count in (0, 3, 10, 99)] == [b"", b"789", b"0123456789", b"0123456789"]
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a plain file"):
        ending(tmp_path / "pipe", 0, 5)


# What cannot be


def unreasonable() -> list[Header | Totals]:
    """Lines with the right check and the right form, by somebody who wants figures to be wrong."""
    begin = header()
    three = lines.Steps(counts=[1, -1], sum_seconds=1.0)
    accounts = [lines.host_used(host_totals("node1", figure)) for figure in (-1.0, math.nan, math.inf, 2 * MOST_USED)]
    tree = lines.Tree(cpu_seconds=1.0, processes=-1, rss_bytes=0, peak_processes=0, peak_rss_bytes=0)
    wasted = accounts[0].model_copy(update={"joules": 1.0, "grams": 1.0})
    return [
        *(header(inherited=[account]) for account in accounts),
        *(used(1, at=1, header=begin, used=account) for account in (*accounts, wasted)),
        *(used(1, at=1, header=begin, elsewhere=[account]) for account in accounts),
        *(used(1, at=1, header=begin, inherited=[account]) for account in accounts),
        *(used(1, at=1, header=begin, steps=steps) for steps in (-1, MOST_DONE, 10**400)),
        header(done_before=lines.Done(tokens=-1)),
        header(done_before=lines.Done(failed_steps={"nan_loss": -1})),
        used(1, at=1, header=begin, progress=lines.Standing(step_durations=three)),
        used(1, at=1, header=begin, progress=lines.Standing(step_durations=lines.Steps(counts=[1], sum_seconds=math.nan))),
        used(1, at=1, header=begin, errors={"gap": -1}),
        used(1, at=1, header=begin, journal_bytes=-1),
        used(1, at=1, header=begin, tree=tree),
        *(used(1, at=at, header=begin) for at in (math.inf, -math.inf, math.nan)),
        used(1, at=1, header=begin, monotonic=math.nan),
        header(begun_monotonic=math.inf),
        header(at_unix=math.nan),
    ]


@pytest.mark.parametrize("number", range(len(unreasonable())))
def test_a_line_that_says_what_cannot_be_is_refused_by_all_who_read(tmp_path: Path, number: int) -> None:
    forged, written = unreasonable()[number], small(2)
    with pytest.raises(ValueError, match=r"^impossible: "):
        parse(to_bytes(forged)[:-1])
    path = put(tmp_path, written[:3])
    with path.open("ab") as file:
        file.write(to_bytes(forged))
    lines_read, refused = reading(path)
    assert lines_read == written[:3]
    assert [(reason.line, reason.kind) for reason in refused] == [(4, "impossible")]
    assert last(path) == before(path, math.inf) == written[2]
    assert following_from_end(path)[1:] == (written[2], refused)


def test_figures_as_large_as_can_be_are_read(tmp_path: Path) -> None:
    begin = header()
    line = used(1e17, at=1, header=begin, steps=MOST_DONE - 1)
    assert reading(put(tmp_path, [begin, line])) == ([begin, line], [])


def test_each_reason_to_refuse_is_of_one_kind(tmp_path: Path) -> None:
    kinds = {
        "damaged": b'{"type":"totals"}\n',
        "foreign": b"garbage\n",
        "impossible": to_bytes(used(-1, at=1, header=header())),
        "newer_format": signed(b'{"type":"header","format":2'),
        "not_of_the_schema": signed(b'{"type":"totals"'),
        "too_long": b"x" * (LONGEST_LINE + 1) + b"\n",
    }
    path = tmp_path / "a.ndjson"
    for kind, line in kinds.items():
        path.write_bytes(to_bytes(header()) + line)
        assert [reason.kind for reason in reading(path)[1]] == [kind]
    path.write_bytes(to_bytes(used(1, at=1, header=header())))
    refused: list[Refused] = []
    head(path, refused.append)
    assert [reason.kind for reason in refused] == ["no_header"]
    assert Refused(path, None, "Input/output error").kind == "unreadable"
    assert {*kinds, "no_header", "unreadable"} == set(REFUSED_KINDS)


# Whether the run still lives

NOW = BEGAN + 1000


def state_of(seen_from: Here, *, silent: float = 1000.0, interval: float = 5.0, **writer: object) -> str:
    begin = header(process=process(**writer), journal_interval=interval)  # type: ignore[arg-type]
    return state(begin, used(1, at=0, header=begin), seen_from, changed_unix=NOW - silent, now_unix=NOW)


def test_a_run_whose_process_lives_is_running_however_silent() -> None:
    assert state_of(here(alive={4711: 1000.0})) == "running"


def test_a_run_whose_process_is_gone_is_lost_at_once() -> None:
    assert state_of(here(), silent=0.0) == "lost"


def test_a_run_whose_pid_is_another_process_now_is_lost() -> None:
    assert state_of(here(alive={4711: 1001.5}), silent=0.0) == "lost"


def test_a_run_before_the_last_boot_of_this_host_is_lost() -> None:
    assert state_of(here(alive={4711: 1000.0}, boot="another"), silent=0.0) == "lost"


def test_a_process_that_the_kernel_hides_is_lost_by_silence() -> None:
    hidden = here(alive={4711: math.nan})
    assert state_of(hidden, silent=19.0) == "running"
    assert state_of(hidden, silent=21.0) == "lost"


@pytest.mark.parametrize(
    "elsewhere",
    [
        here(namespace="pid:[1]"),
        here(host="node2", boot="another"),
        here(host="node2", boot=""),
        here(host="node1", boot=""),
    ],
    ids=["another container", "another host", "another host that does not say", "this host that does not say"],
)
@pytest.mark.parametrize(("interval", "patience"), [(1.0, 20.0), (5.0, 20.0), (60.0, 240.0)])
def test_what_cannot_be_looked_at_is_lost_by_silence(elsewhere: Here, interval: float, patience: float) -> None:
    assert state_of(elsewhere, silent=patience - 1, interval=interval) == "running"
    assert state_of(elsewhere, silent=patience + 1, interval=interval) == "lost"


def test_a_clock_that_is_ahead_of_ours_keeps_no_run_alive() -> None:
    begin = header(process=process(boot="another"), at_unix=NOW + 500)
    elsewhere = here(host="node2", boot="yet another")
    for line in (None, used(1, at=1500, header=begin)):
        assert state(begin, line, elsewhere, changed_unix=NOW - 19, now_unix=NOW) == "running"
        assert state(begin, line, elsewhere, changed_unix=NOW - 21, now_unix=NOW) == "lost"


@pytest.mark.parametrize(
    ("interval", "patience"), [(1e300, 4 * 3600.0), (math.inf, 4 * 3600.0), (math.nan, 4 * 3600.0), (-5.0, 20.0)]
)
def test_an_interval_that_no_journal_has_keeps_no_run_alive(interval: float, patience: float) -> None:
    begin = header(process=process(boot="another"), journal_interval=interval)
    for silent, expected in ((patience - 1, "running"), (patience + 1, "lost")):
        assert state(begin, None, here("node2"), changed_unix=BEGAN, now_unix=BEGAN + silent) == expected


def test_a_run_that_has_ended_is_what_it_ended_as() -> None:
    begin = header()
    for ended in ("ended", "failed"):
        line = used(1, at=1, header=begin, end=True, state=ended)
        assert state(begin, line, here(alive={4711: 1000.0}), 0.0) == ended


def test_a_run_that_has_only_a_header_is_told_in_the_same_way() -> None:
    begin = header()
    assert state(begin, None, here(alive={4711: 1000.0}), 0.0) == "running"
    assert state(begin, None, here(), BEGAN) == "lost"


def test_this_process_lives() -> None:
    begin = header(process=this_process())
    assert state(begin, None, Here.now("node1"), 0.0) == "running"


def test_a_real_process_is_running_then_a_zombie_then_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        began = process_started(child.pid)
        own = process_started(os.getpid())
        assert began is not None
        assert own is not None
        assert began >= own
        assert child.stdin is not None
        child.stdin.close()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # It has ended, and nobody has asked how.
        assert process_started(child.pid) is None
    assert process_started(child.pid) is None


HIDDEN = """
import math, os, sys
from hf_eco2ai.journal.read import process_started
assert math.isfinite(process_started(int(sys.argv[1])))
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
assert math.isnan(process_started(int(sys.argv[1])))
assert process_started(2**22 + 1) is None
assert math.isfinite(process_started(os.getpid()))
print("hidden")
"""


def test_a_process_that_proc_really_hides_is_not_taken_for_dead() -> None:
    mount = 'mount -t proc -o hidepid=2 proc /proc && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", sys.executable, "-c", HIDDEN, str(os.getpid())],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_SECONDS,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.fail(f"this test needs to mount /proc anew (root, or CAP_SYS_ADMIN), and cannot: {done.stderr}")
    assert done.stdout == "hidden\n", done.stderr


def test_what_the_kernel_does_not_say_is_empty(tmp_path: Path) -> None:
    nowhere = Here.now("node1", tmp_path)
    assert (nowhere.boot_id, nowhere.pid_namespace) == ("", "")


HOLD = """
import sys, time
from pathlib import Path
from hf_eco2ai.journal.write import File
from tests.journal import make
file = File(Path(sys.argv[1]))
print(file.begin(make.header()).process.locks, flush=True)
time.sleep(600)
"""


def test_in_another_container_the_lock_of_its_writer_tells_whether_a_run_lives(tmp_path: Path) -> None:
    """The process number means nothing there, and the file is old, but only the end of the process ends its lock."""
    root = Path(__file__).parents[2]
    writer = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], cwd=root, stdout=subprocess.PIPE, text=True)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "True\n"
        (path,) = tmp_path.iterdir()
        written = journals.head(path)
        assert written is not None
        beside = journals.Here("node1", written.process.boot_id, "pid:[another]", lambda _pid: None)

        def state() -> str:
            return journals.state(written, None, beside, 0.0, lambda: journals.is_locked(path))

        assert state() == "running"
        writer.kill()
        writer.wait()
        assert state() == "lost"
    finally:
        writer.kill()
        writer.wait()
        if writer.stdout is not None:
            writer.stdout.close()


def test_a_file_that_cannot_be_opened_tells_nothing_of_its_lock(tmp_path: Path) -> None:
    assert journals.is_locked(tmp_path / "gone.ndjson") is None


def test_a_total_that_rounding_has_put_below_zero_costs_nobody_his_journal() -> None:
    begin = header()
    line = used(0, at=5, header=begin).model_copy(update={"used": lines.HostUsed(host="node1", joules=-1e-15, grams=-1e-16)})
    assert parse(lines.to_bytes(line)[:-1]) == line
    with pytest.raises(ValueError, match="negative"):
        parse(lines.to_bytes(line.model_copy(update={"used": lines.HostUsed(host="node1", joules=-0.01, grams=0)}))[:-1])


def test_a_host_of_more_devices_than_any_has_is_refused() -> None:
    def line_of(count: int) -> bytes:
        devices = {f"GPU-{n}": lines.DeviceUsed(component="gpu", basis="measured", joules=1) for n in range(count)}
        many = lines.HostUsed(host="node1", joules=1, grams=1, devices=devices)
        return lines.to_bytes(used(0, at=5, header=header()).model_copy(update={"used": many}))[:-1]

    assert parse(line_of(MOST_DEVICES))
    with pytest.raises(ValueError, match="devices of one host"):
        parse(line_of(MOST_DEVICES + 1))
