"""Journals on real disks, and on disks that fail: full, read-only, stale, hanging, or with the file gone."""

import contextlib
import errno
import json
import os
import queue
import stat
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hf_eco2ai.journal import format as lines
from hf_eco2ai.journal.format import Header, Totals, to_bytes
from hf_eco2ai.journal.read import Refused, head, last, read
from hf_eco2ai.journal.write import PENDING_LINES, File, Journal
from hf_eco2ai.records import Failure, Snapshot
from tests.journal.make import header, identity, process, put, snapshot, used

DEADLINE_SECONDS = 30


class Disk:
    """The calls of `os`, with faults where a test wants them."""

    def __init__(self) -> None:
        self.failing: dict[str, int] = {}
        """Errno by call."""
        self.short: int | None = None
        """Bytes of each write that still get through before the disk is full."""
        self.calls: list[str] = []
        self.written: list[bytes] = []
        self.hangs_in = ""
        self.hanging = threading.Event()
        self.goes_on = threading.Event()
        self._synced = threading.Semaphore(0)

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name == self.hangs_in:
            self.hanging.set()
            assert self.goes_on.wait(DEADLINE_SECONDS)
            self.hanging.clear()
        if name in self.failing:
            raise OSError(self.failing[name], os.strerror(self.failing[name]))

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        self._call("open")
        return os.open(path, flags, mode)

    def write(self, fd: int, data: bytes, /) -> int:
        self._call("write")
        self.written.append(data)
        return os.write(fd, data if self.short is None else data[: self.short])

    def fdatasync(self, fd: int, /) -> None:
        self._call("fdatasync")
        os.fdatasync(fd)
        self._synced.release()

    def fstat(self, fd: int, /) -> os.stat_result:
        self._call("fstat")
        return os.fstat(fd)

    def fchmod(self, fd: int, mode: int, /) -> None:
        self._call("fchmod")
        os.fchmod(fd, mode)

    def close(self, fd: int, /) -> None:
        os.close(fd)  # The descriptor is given back even where close fails (Linux close(2)).
        self._call("close")

    def until_synced(self) -> None:
        """Waits for one more line to be on the disk."""
        assert self._synced.acquire(timeout=DEADLINE_SECONDS)


def open_files() -> set[str]:
    return {str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}


def told(path: Path) -> tuple[list[float], list[Refused]]:
    """The joules of each line that can be read, and what cannot."""
    refused: list[Refused] = []
    return [line.used.joules for line in read(path, refused.append) if isinstance(line, Totals)], refused


@pytest.fixture
def disk() -> Disk:
    return Disk()


def begun(folder: Path, disk: Disk) -> tuple[File, Header]:
    file = File(folder, disk)
    return file, file.begin(header())


def path_of(file: File | Journal) -> Path:
    assert file.path is not None
    return file.path


# One file


def test_a_line_is_one_call_to_write(tmp_path: Path, disk: Disk) -> None:
    file, begin = begun(tmp_path, disk)
    expected: list[Header | Totals] = [begin, *(used(n, at=n, header=begin) for n in range(3))]
    for n in range(3):
        file.append(used(n, at=n, header=begin))
    assert disk.written == [to_bytes(line) for line in expected]
    assert file.bytes_written == path_of(file).stat().st_size == sum(map(len, disk.written))
    assert disk.calls.count("fdatasync") == 3


def test_a_journal_is_named_after_its_run_its_host_and_its_attempt(tmp_path: Path, disk: Disk) -> None:
    assert path_of(begun(tmp_path, disk)[0]) == tmp_path / "0123456789ab.node1.1.ndjson"


def test_an_attempt_takes_the_first_number_that_is_free(tmp_path: Path, disk: Disk) -> None:
    put(tmp_path, [header()])
    put(tmp_path, [header(attempt=2)])
    file, begin = begun(tmp_path, disk)
    assert begin.attempt == 3
    assert head(path_of(file)) == begin
    assert path_of(file).name == "0123456789ab.node1.3.ndjson"


def test_journals_that_begin_at_once_get_files_of_their_own(tmp_path: Path) -> None:
    start = threading.Barrier(8)
    made: queue.Queue[int] = queue.Queue()

    def begin() -> None:
        start.wait(DEADLINE_SECONDS)
        file = File(tmp_path)
        file.append(used(1, at=1, header=file.begin(header())))
        assert file.header is not None
        made.put(file.header.attempt)

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    assert sorted(made.queue) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert all(told(path) == ([1.0], []) for path in tmp_path.iterdir())


@pytest.mark.parametrize("umask", [0o077, 0o022, 0o002])
@pytest.mark.parametrize(("folder_mode", "mode"), [(0o2770, 0o640), (0o700, 0o600), (0o777, 0o600)])
def test_who_may_read_a_journal_is_said_by_the_folder_and_not_by_the_umask(
    tmp_path: Path, umask: int, folder_mode: int, mode: int
) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    folder.chmod(folder_mode)
    before = os.umask(umask)
    try:
        file = File(folder)
        file.begin(header())
    finally:
        os.umask(before)
    assert stat.S_IMODE(path_of(file).stat().st_mode) == mode
    assert path_of(file).stat().st_gid == folder.stat().st_gid


@pytest.mark.parametrize("umask", [0o077, 0o022, 0])
def test_a_folder_that_we_make_is_its_users_alone(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        File(tmp_path / "a" / "runs").begin(header())
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a" / "runs").stat().st_mode) == 0o700


def test_a_file_system_without_modes_is_written_to_all_the_same(tmp_path: Path, disk: Disk) -> None:
    tmp_path.chmod(0o2770)
    disk.failing["fchmod"] = errno.EPERM
    file, begin = begun(tmp_path, disk)
    file.append(used(1, at=1, header=begin))
    assert [path.name for path in tmp_path.iterdir()] == ["0123456789ab.node1.1.ndjson"]


def test_a_file_system_that_cannot_sync_is_written_to_all_the_same(tmp_path: Path, disk: Disk) -> None:
    disk.failing["fdatasync"] = errno.EINVAL
    file, begin = begun(tmp_path, disk)
    file.append(used(1, at=1, header=begin))
    assert told(path_of(file)) == ([1.0], [])


@pytest.mark.parametrize("short", [0, 1, 200])
def test_a_header_that_does_not_fit_leaves_neither_a_file_nor_a_descriptor(tmp_path: Path, disk: Disk, short: int) -> None:
    file = File(tmp_path, disk)
    disk.short = short
    before = open_files()
    for _ in range(3):
        with pytest.raises(OSError, match="only a part"):
            file.begin(header())
    assert list(tmp_path.iterdir()) == []
    assert open_files() == before
    disk.short = None
    assert file.begin(header()).attempt == 1


@pytest.mark.parametrize("short", [0, 1, 300])
def test_a_line_that_was_torn_by_a_full_disk_is_ended_before_the_next(tmp_path: Path, disk: Disk, short: int) -> None:
    file, begin = begun(tmp_path, disk)
    file.append(used(1, at=1, header=begin))
    disk.short = short
    with pytest.raises(OSError, match="only a part") as failed:
        file.append(used(2, at=2, header=begin))
    assert failed.value.errno == errno.ENOSPC
    disk.short = None
    file.append(used(3, at=3, header=begin))
    joules, refused = told(path_of(file))
    assert joules == [1.0, 3.0]
    assert [(r.path, r.line) for r in refused] == ([(path_of(file), 3)] if short else [])


@pytest.mark.parametrize("call", ["write", "fdatasync"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.ESTALE, errno.EIO, errno.EDQUOT])
def test_after_a_failure_the_file_goes_on_with_a_fresh_handle(tmp_path: Path, disk: Disk, call: str, number: int) -> None:
    file, begin = begun(tmp_path, disk)
    disk.failing[call] = number
    with pytest.raises(OSError, match=os.strerror(number)):
        file.append(used(1, at=1, header=begin))
    disk.failing.clear()
    opened = disk.calls.count("open")
    file.append(used(2, at=2, header=begin))
    assert disk.calls.count("open") > opened
    assert told(path_of(file))[0][-1] == 2.0
    assert told(path_of(file))[1] == []
    assert head(path_of(file)) == begin


def test_a_handle_that_nfs_calls_stale_is_replaced_without_loss(tmp_path: Path, disk: Disk) -> None:
    file, begin = begun(tmp_path, disk)
    disk.failing["fstat"] = errno.ESTALE
    file.append(used(1, at=1, header=begin))
    disk.failing.clear()
    file.append(used(2, at=2, header=begin))
    assert told(path_of(file)) == ([1.0, 2.0], [])


def test_a_read_only_folder_is_an_error_that_leaves_nothing_behind(tmp_path: Path, disk: Disk) -> None:
    disk.failing["open"] = errno.EROFS
    with pytest.raises(OSError, match="Read-only"):
        begun(tmp_path, disk)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_deleted_is_made_again_with_its_header(tmp_path: Path, disk: Disk) -> None:
    file, begin = begun(tmp_path, disk)
    file.append(used(1, at=1, header=begin))
    path_of(file).unlink()
    file.append(used(2, at=2, header=begin))
    assert list(read(path_of(file))) == [begin, used(2, at=2, header=begin)]


def test_a_folder_that_was_deleted_is_made_again(tmp_path: Path, disk: Disk) -> None:
    file, begin = begun(tmp_path / "runs", disk)
    path_of(file).unlink()
    (tmp_path / "runs").rmdir()
    file.append(used(1, at=1, header=begin))
    assert list(read(path_of(file))) == [begin, used(1, at=1, header=begin)]
    assert stat.S_IMODE((tmp_path / "runs").stat().st_mode) == 0o700


def test_a_file_made_again_on_a_full_disk_never_begins_without_its_header(tmp_path: Path, disk: Disk) -> None:
    file, begin = begun(tmp_path, disk)
    path_of(file).unlink()
    disk.short = 100
    for _ in range(2):
        with pytest.raises(OSError, match="only a part"):
            file.append(used(1, at=1, header=begin))
    disk.short = None
    file.append(used(2, at=2, header=begin))
    assert list(read(path_of(file))) == [begin, used(2, at=2, header=begin)]


def test_a_name_that_another_journal_has_taken_meanwhile_is_left_to_it(tmp_path: Path, disk: Disk) -> None:
    file, begin = begun(tmp_path, disk)
    path_of(file).unlink()
    other = put(tmp_path, [header(launch="beef", process=process(pid=1))])
    content = other.read_bytes()
    file.append(used(1, at=1, header=begin))
    assert other.read_bytes() == content
    assert path_of(file).name == "0123456789ab.node1.2.ndjson"
    assert told(path_of(file)) == ([1.0], [])


def test_a_file_that_was_put_back_goes_on(tmp_path: Path, disk: Disk) -> None:
    """As `sed -i` or a restored backup do: another file with what was in the old one."""
    file, begin = begun(tmp_path, disk)
    file.append(used(1, at=1, header=begin))
    content = path_of(file).read_bytes()
    path_of(file).unlink()
    path_of(file).write_bytes(content)
    file.append(used(2, at=2, header=begin))
    assert told(path_of(file)) == ([1.0, 2.0], [])


def test_a_link_that_somebody_has_put_in_the_place_of_a_journal_is_not_followed(tmp_path: Path, disk: Disk) -> None:
    target = tmp_path / "precious"
    target.write_text("mine")
    file, begin = begun(tmp_path / "runs", disk)
    file.append(used(1, at=1, header=begin))
    path_of(file).unlink()
    (tmp_path / "runs" / "0123456789ab.node1.1.ndjson").symlink_to(target)
    file.append(used(2, at=2, header=begin))
    assert target.read_text() == "mine"
    assert path_of(file).name == "0123456789ab.node1.2.ndjson"


@contextlib.contextmanager
def tiny_disk(at: Path) -> Iterator[Path]:
    """A real file system of 64 kB."""
    at.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(at)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.fail(f"this test needs to mount a tmpfs (root, or CAP_SYS_ADMIN), and cannot: {done.stderr}")
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)


def test_a_disk_that_is_really_full_costs_no_figure_once_there_is_room_again(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk") as folder:
        ballast = folder / "ballast"
        ballast.write_bytes(bytes(32 * 1024))
        file = File(folder)
        begin = file.begin(header())
        failures = 0
        for n in range(200):
            try:
                file.append(used(n, at=n, header=begin))
            except OSError as error:
                failures += error.errno == errno.ENOSPC
        assert failures > 50
        newest = last(path_of(file))
        assert newest is not None
        assert newest.used.joules + failures == 199
        ballast.unlink()
        file.append(used(200, at=200, header=begin))
        joules, refused = told(path_of(file))
        file.close()
    assert joules == [*range(int(newest.used.joules) + 1), 200.0]
    assert all(r.path == path_of(file) and r.line == len(joules) + 1 for r in refused)
    assert len(refused) <= 1


# The thread


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


class Writing:
    """A journal with its thread, on a disk and a clock of the test's own."""

    def __init__(self, folder: Path, disk: Disk, interval: float = 5.0) -> None:
        self.clock, self.disk = Clock(), disk
        self.failures: queue.Queue[Failure] = queue.Queue()
        self.looks: queue.Queue[None] = queue.Queue()
        self.journal = Journal(
            folder,
            header,
            interval=interval,
            now=self.clock,
            fail=self.failures.put,
            look=lambda: self.looks.put(None),
            files=disk,
        )

    def note(self, seconds: float, *, mark: bool = False) -> Snapshot:
        self.clock.seconds = 100 + seconds
        noted = snapshot(seconds)
        self.journal.note(noted, mark)
        return noted

    def close(self, seconds: float) -> None:
        self.clock.seconds = 100 + seconds
        self.journal.close(snapshot(seconds, state="ended", end_reason="completed"), DEADLINE_SECONDS)
        assert self.journal._finished.is_set()

    def said(self) -> list[tuple[str, float, bool]]:
        _begin, *rest = read(path_of(self.journal))
        return [(line.type, line.monotonic - 100, line.mark) for line in rest if isinstance(line, Totals)]


def test_a_line_is_written_every_interval_and_at_every_mark_and_at_the_end(tmp_path: Path, disk: Disk) -> None:
    writing = Writing(tmp_path, disk)
    for seconds in range(12):
        writing.note(seconds, mark=seconds == 3)
    writing.close(12)
    expected = [("totals", 0, False), ("totals", 3, True), ("totals", 8, False), ("end", 12, False)]
    assert writing.said() == expected
    assert writing.failures.empty()
    assert writing.journal.bytes_written == path_of(writing.journal).stat().st_size


def test_nothing_is_on_disk_before_there_is_something_to_say(tmp_path: Path, disk: Disk) -> None:
    writing = Writing(tmp_path / "runs", disk)
    assert writing.journal.path is None
    writing.journal.close(None, DEADLINE_SECONDS)
    assert not (tmp_path / "runs").exists()


def test_the_folder_is_looked_at_in_the_journals_thread_at_the_begin_and_on_demand(tmp_path: Path, disk: Disk) -> None:
    writing = Writing(tmp_path, disk)
    writing.looks.get(timeout=DEADLINE_SECONDS)
    writing.journal.look(DEADLINE_SECONDS)
    writing.looks.get(timeout=DEADLINE_SECONDS)
    writing.close(1)


@pytest.mark.parametrize("call", ["open", "write", "fdatasync"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.ESTALE, errno.EIO])
def test_what_a_disk_refuses_is_counted_and_written_once_it_works_again(
    tmp_path: Path, disk: Disk, call: str, number: int
) -> None:
    disk.failing[call] = number
    writing = Writing(tmp_path, disk)
    writing.note(0)
    failure = writing.failures.get(timeout=DEADLINE_SECONDS)
    assert failure.error_type == "journal_failed"
    assert os.strerror(number) in failure.message
    assert str(tmp_path) in failure.message
    writing.note(5)
    writing.failures.get(timeout=DEADLINE_SECONDS)
    disk.failing.clear()
    writing.note(10)
    disk.until_synced()
    writing.close(11)
    assert writing.said()[-1] == ("end", 11, False)
    assert head(path_of(writing.journal)) is not None
    line = last(path_of(writing.journal))
    assert line is not None
    assert lines.host_totals(line.used).total.joules == pytest.approx((250.3 + 61.7) * 11)


def test_after_an_outage_the_newest_figures_are_written_and_not_a_backlog(tmp_path: Path, disk: Disk) -> None:
    writing = Writing(tmp_path, disk)
    writing.note(0)
    disk.until_synced()
    disk.failing["write"] = errno.ENOSPC
    for seconds in range(5, 100, 5):
        writing.note(seconds)
        writing.failures.get(timeout=DEADLINE_SECONDS)
    disk.failing.clear()
    writing.close(100)
    kept = [at for _kind, at, _mark in writing.said()]
    assert kept[0] == 0
    assert kept[-1] == 100
    assert len(kept) < 10, "of 19 lines that failed, those that waited when the disk came back"


def test_the_end_line_is_tried_even_if_an_earlier_line_cannot_be_made(tmp_path: Path, disk: Disk) -> None:
    """A defect that spoils one snapshot must not take the end of the run with it."""
    disk.hangs_in = "write"
    writing = Writing(tmp_path, disk)
    writing.note(0)
    assert disk.hanging.wait(DEADLINE_SECONDS)
    writing.clock.seconds = 105
    writing.journal.note(replace(snapshot(5), state="nonsense"), mark=True)  # type: ignore[arg-type]
    writing.journal.close(snapshot(6, state="ended"), 0)
    disk.goes_on.set()
    assert writing.journal._finished.wait(DEADLINE_SECONDS)
    assert [kind for kind, _at, _mark in writing.said()] == ["totals", "end"]
    assert writing.failures.get_nowait().error_type == "journal_failed"


@pytest.mark.parametrize("call", ["open", "write", "fdatasync"])
def test_a_disk_that_hangs_holds_up_neither_notes_nor_the_end(tmp_path: Path, disk: Disk, call: str) -> None:
    disk.hangs_in = call
    writing = Writing(tmp_path, disk)
    writing.note(0)
    assert disk.hanging.wait(DEADLINE_SECONDS)
    for n in range(1, 1000):
        writing.note(5 * n, mark=True)
    writing.journal.look(0)
    writing.journal.close(snapshot(5000, state="ended"), 0)
    # All of this has returned, and the disk still hangs.
    assert disk.hanging.is_set()
    assert not writing.journal._finished.is_set()
    assert len(writing.journal._pending) <= PENDING_LINES
    disk.goes_on.set()
    assert writing.journal._finished.wait(DEADLINE_SECONDS)
    said = writing.said()
    assert said[-1][0] == "end"
    assert len(said) <= PENDING_LINES + 1
    assert writing.failures.empty()


def test_a_folder_that_hangs_while_it_is_looked_at_does_not_hold_up_the_end(tmp_path: Path, disk: Disk) -> None:
    entered, goes_on = threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        assert goes_on.wait(DEADLINE_SECONDS)

    journal = Journal(tmp_path, header, interval=5, now=Clock(), fail=queue.Queue[Failure]().put, look=hang, files=disk)
    assert entered.wait(DEADLINE_SECONDS)
    journal.look(0)
    journal.note(snapshot(), mark=True)
    journal.close(snapshot(11, state="ended"), 0)
    assert not journal._finished.is_set()
    goes_on.set()
    assert journal._finished.wait(DEADLINE_SECONDS)
    newest = last(path_of(journal))
    assert newest is not None
    assert newest.type == "end"


def test_a_folder_that_cannot_be_looked_at_is_counted_and_the_journal_is_written(tmp_path: Path, disk: Disk) -> None:
    def fail() -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    failures: queue.Queue[Failure] = queue.Queue()
    journal = Journal(tmp_path, header, interval=5, now=Clock(), fail=failures.put, look=fail, files=disk)
    journal.note(snapshot(), mark=True)
    disk.until_synced()
    assert "looked at (Stale file handle)" in failures.get(timeout=DEADLINE_SECONDS).message
    journal.close(None, DEADLINE_SECONDS)
    assert len(list(read(path_of(journal)))) == 2


def test_lines_name_the_attempt_that_the_file_got(tmp_path: Path, disk: Disk) -> None:
    put(tmp_path, [header()])
    writing = Writing(tmp_path, disk)
    writing.note(0)
    writing.close(1)
    assert {json.loads(line)["attempt"] for line in path_of(writing.journal).read_text().splitlines()} == {2}


def test_several_journals_of_one_process_share_a_folder(tmp_path: Path) -> None:
    runs = [Writing(tmp_path, Disk()) for _ in range(3)]
    for n, writing in enumerate(runs):
        run = identity(run_id=f"run{n}")
        writing.journal.note(snapshot(1, run=run), mark=True)
    for n, writing in enumerate(runs):
        writing.journal.close(snapshot(2, run=identity(run_id=f"run{n}"), state="ended"), DEADLINE_SECONDS)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"run{n}.node1.1.ndjson" for n in range(3)]
    assert all(len(list(read(path))) == 3 for path in tmp_path.iterdir())
