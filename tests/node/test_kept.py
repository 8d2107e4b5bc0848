"""Counters on disk: whatever ends the daemon, and at whatever moment, they are those before or those after, and never others."""

import errno
import json
import os
import re
import subprocess
import tempfile
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_eco2ai.errors import ConfigError, TakenError
from hf_eco2ai.kept import Kept
from hf_eco2ai.records import Failure

BEFORE, AFTER = {"joules": 1.0}, {"joules": 2.0}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "counters.json"


@pytest.fixture
def failures() -> list[Failure]:
    return []


@contextmanager
def opened(path: Path, failures: list[Failure]) -> Iterator[Kept]:
    kept = Kept(path, failures.append)
    try:
        yield kept
    finally:
        kept.close()


def saved(path: Path, content: dict[str, float], section: str = "node") -> None:
    failures: list[Failure] = []
    with opened(path, failures) as kept:
        assert kept.save(section, content)
    assert failures == []


class Disk:
    """Notes what is asked of it, and fails from the call `dies_at` on, as everything does after a power cut."""

    def __init__(self, dies_at: int = 10**9, most_bytes: int = 10**9) -> None:
        self.calls: list[str] = []
        self.dies_at = dies_at
        self.most_bytes = most_bytes
        self._names: dict[int, str] = {}

    def _call(self, said: str) -> None:
        self.calls.append(said)
        if len(self.calls) > self.dies_at:
            raise OSError(errno.EIO, "Input/output error")

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        self._call(f"open {Path(path).name}")
        fd = os.open(path, flags, mode)
        self._names[fd] = Path(path).name
        return fd

    def write(self, fd: int, data: bytes, /) -> int:
        self._call(f"write {self._names[fd]}")
        return os.write(fd, data[: self.most_bytes])

    def fsync(self, fd: int, /) -> None:
        self._call(f"fsync {self._names[fd]}")

    def close(self, fd: int, /) -> None:
        os.close(fd)
        self._call(f"close {self._names[fd]}")

    def replace(self, src: str, dst: str) -> None:
        self._call(f"replace {Path(src).name} {Path(dst).name}")
        Path(src).replace(dst)


# What is kept


def test_where_nothing_was_kept_nothing_is_there(path: Path, failures: list[Failure]) -> None:
    with opened(path, failures) as kept:
        assert kept.load("node") == {}
    assert failures == []


@given(st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.text()))
def test_every_digit_and_every_name_comes_back(content: dict[str, float]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "counters.json"
        saved(path, content)
        with opened(path, []) as kept:
            assert kept.load("node") == content


def test_each_part_of_the_daemon_has_a_section_of_its_own(path: Path, failures: list[Failure]) -> None:
    with opened(path, failures) as kept:
        kept.save("node", BEFORE)
        kept.save('fol"ded\n', AFTER)
        kept.save("node", {"joules": 3.0})
    with opened(path, failures) as kept:
        assert (kept.load("node"), kept.load('fol"ded\n')) == ({"joules": 3.0}, AFTER)


def test_what_was_loaded_or_saved_may_be_changed_without_changing_what_is_kept(path: Path, failures: list[Failure]) -> None:
    content = dict(BEFORE)
    with opened(path, failures) as kept:
        kept.save("node", content)
        content["joules"] = 9.0
        kept.load("node")["joules"] = 9.0
        assert kept.load("node") == BEFORE


def test_parts_may_save_at_the_same_time(path: Path, failures: list[Failure]) -> None:
    with opened(path, failures) as kept:

        def count(name: str) -> None:
            for number in range(50):
                assert kept.save(name, {"number": number})

        threads = [threading.Thread(target=count, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with opened(path, failures) as kept:
        assert [kept.load(name) for name in "abcd"] == [{"number": 49}] * 4
    assert failures == []


def test_only_its_user_may_read_it(path: Path) -> None:
    saved(path, BEFORE)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


# Power cuts


def test_a_new_file_is_on_the_disk_before_it_takes_the_place_of_the_old_one(path: Path, failures: list[Failure]) -> None:
    disk = Disk()
    kept = Kept(path, failures.append, disk)
    assert kept.save("node", BEFORE)
    new = f"{path.name}.new"
    assert disk.calls == [
        f"open {new}",
        f"write {new}",
        f"fsync {new}",
        f"close {new}",
        f"replace {new} {path.name}",
        "open state",
        "fsync state",
        "close state",
    ]
    kept.close()


@pytest.mark.parametrize("calls", range(8))
def test_a_disk_that_fails_at_any_moment_leaves_the_counters_before_or_after(
    path: Path, failures: list[Failure], calls: int
) -> None:
    saved(path, BEFORE)
    disk = Disk(dies_at=calls)
    kept = Kept(path, failures.append, disk)
    assert not kept.save("node", AFTER)
    assert [failure.error_type for failure in failures] == ["journal_failed"]
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    kept.close()
    with opened(path, failures) as again:
        assert again.load("node") == (BEFORE if calls < 5 else AFTER)
    assert len(failures) == 1


def test_what_the_disk_refused_is_tried_again_even_if_it_has_not_changed(path: Path, failures: list[Failure]) -> None:
    disk = Disk(dies_at=0)
    kept = Kept(path, failures.append, disk)
    assert not kept.save("node", BEFORE)
    disk.dies_at = 10**9
    assert kept.save("node", BEFORE)
    kept.close()
    assert json.loads(path.read_bytes())["sections"] == {"node": BEFORE}


def test_what_has_not_changed_is_not_written_again(path: Path, failures: list[Failure]) -> None:
    disk = Disk()
    kept = Kept(path, failures.append, disk)
    kept.save("node", BEFORE)
    calls = len(disk.calls)
    assert kept.save("node", BEFORE)
    assert len(disk.calls) == calls
    kept.close()


def test_a_disk_that_takes_a_byte_at_a_time_gets_them_all(path: Path, failures: list[Failure]) -> None:
    kept = Kept(path, failures.append, Disk(most_bytes=1))
    assert kept.save("node", BEFORE)
    kept.close()
    with opened(path, failures) as again:
        assert again.load("node") == BEFORE


def test_what_a_killed_daemon_left_half_written_is_no_hindrance(path: Path) -> None:
    saved(path, BEFORE)
    path.with_name(f"{path.name}.new").write_bytes(b'{"format":1,"sec')
    saved(path, AFTER)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_link_in_the_way_does_not_lead_to_another_file(path: Path, failures: list[Failure], tmp_path: Path) -> None:
    saved(path, BEFORE)
    (tmp_path / "precious").write_text("precious")
    path.with_name(f"{path.name}.new").symlink_to(tmp_path / "precious")
    with opened(path, failures) as kept:
        assert not kept.save("node", AFTER)
        assert kept.save("node", AFTER)  # The link has gone with the failure.
    assert (tmp_path / "precious").read_text() == "precious"


# Damaged files


def refused(path: Path) -> str:
    """That nothing is used of the file, that it has been moved aside as it was; and what is said about it."""
    failures: list[Failure] = []
    data = path.read_bytes()
    with opened(path, failures) as kept:
        assert kept.load("node") == {}
        assert path.with_name(f"{path.name}.damaged").read_bytes() == data
        assert not path.exists()
        assert kept.save("node", AFTER)
    (failure,) = failures
    assert failure.error_type == "journal_refused"
    assert str(path) in failure.message
    with opened(path, failures) as kept:
        assert kept.load("node") == AFTER
    assert len(failures) == 1
    return failure.message


def test_a_file_that_is_torn_anywhere_is_refused(path: Path) -> None:
    saved(path, BEFORE)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        assert "damaged" in refused(path)


def test_a_file_with_a_flipped_bit_anywhere_is_refused(path: Path) -> None:
    saved(path, BEFORE)
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        assert "damaged" in refused(path)


def checked(body: bytes) -> bytes:
    return b'%s,"crc32":"%08x"}\n' % (body, zlib.crc32(body))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "damaged"),
        (b"\x00" * 4096, "damaged"),
        (b"root:x:0:0:root:/root:/bin/bash\n", "damaged"),
        (b'{"format":1,"sections":{}}', "damaged"),
        (checked(b'{"sections":{}'), "not in a format"),
        (checked(b'{"format":"1","sections":{}'), "not in a format"),
        (checked(b'{"format":1,"sections":[]'), "not in a format"),
        (checked(b'{"format":2,"sections":{}'), "a newer version of hf-eco2ai wrote them (format 2; this one reads up to 1)"),
    ],
)
def test_a_foreign_or_newer_file_is_refused_with_what_it_is(path: Path, data: bytes, said: str) -> None:
    path.parent.mkdir()
    path.write_bytes(data)
    assert said in refused(path)


def test_a_damaged_file_that_cannot_be_moved_is_said_to_be_replaced(path: Path, failures: list[Failure]) -> None:
    path.parent.mkdir()
    path.write_bytes(b"torn")
    Kept(path, failures.append, Disk(dies_at=0)).close()
    assert "cannot be moved aside (Input/output error) and will be replaced" in failures[0].message


def test_a_file_that_may_not_be_read_is_not_overwritten_but_said(path: Path, failures: list[Failure]) -> None:
    path.mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"cannot be read .*--state-dir"):
        Kept(path, failures.append)


# Folders and disks


def test_two_daemons_do_not_share_a_folder_but_one_follows_the_other(path: Path, failures: list[Failure]) -> None:
    kept = Kept(path, failures.append)
    with pytest.raises(TakenError, match=rf"Another daemon keeps its counters in {re.escape(str(path.parent))}: .*--state-dir"):
        Kept(path, failures.append)
    kept.close()
    Kept(path, failures.append).close()


def test_a_folder_that_is_deleted_is_made_again_with_all_that_was_kept(path: Path, failures: list[Failure]) -> None:
    with opened(path, failures) as kept:
        kept.save("folded", BEFORE)
        path.unlink()
        path.parent.rmdir()
        assert kept.save("node", AFTER)
    with opened(path, failures) as kept:
        assert (kept.load("folded"), kept.load("node")) == (BEFORE, AFTER)


def test_a_folder_below_a_file_is_said_once_it_is_needed(tmp_path: Path, failures: list[Failure]) -> None:
    (tmp_path / "file").write_text("no folder")
    with opened(tmp_path / "file" / "counters.json", failures) as kept:
        assert kept.load("node") == {}
        assert not kept.save("node", BEFORE)
        assert kept.load("node") == BEFORE
    assert "--state-dir" in failures[0].message


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A file system of its own; the tests run as root in their container, as they do for Debian's packages."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_said_and_leaves_what_was_kept(path: Path, failures: list[Failure]) -> None:
    path.parent.mkdir()
    with mounted(path.parent, "size=16k"):
        saved(path, BEFORE)
        with opened(path, failures) as kept:
            assert not kept.save("node", {"text": "x" * 20_000})
            assert "(No space left on device)" in failures[0].message
            assert [file.name for file in path.parent.iterdir()] == [path.name]
        with opened(path, failures) as kept:
            assert kept.load("node") == BEFORE
            assert kept.save("node", AFTER)


def test_a_disk_that_may_not_be_written_is_said(path: Path, failures: list[Failure]) -> None:
    path.parent.mkdir()
    with mounted(path.parent, "ro"), opened(path, failures) as kept:
        assert not kept.save("node", BEFORE)
    assert "(Read-only file system)" in failures[0].message
