"""What serving processes leave in the runs folder: found while they live, cleared away once they do not."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hf_eco2ai.journal.announce import (
    CLEAR_SECONDS,
    DAEMON_SUFFIX,
    TARGET_SUFFIX,
    Announcement,
    DaemonAddress,
    DaemonFile,
    TargetFile,
    clear,
    daemon_of,
)
from hf_eco2ai.journal.folder import RunsFolder
from hf_eco2ai.records import Failure
from tests.journal.make import BOOT, here, process

URL = "http://127.0.0.1:9091"


def address(host: str = "node1", boot: str = BOOT, *, all_hosts: bool = False) -> DaemonAddress:
    return DaemonAddress(url=URL, host=host, boot_id=boot, all_hosts=all_hosts)


def test_a_daemon_is_found_while_it_lives(tmp_path: Path) -> None:
    assert daemon_of(tmp_path, here()) is None
    file = DaemonFile(tmp_path, address())
    assert daemon_of(tmp_path, here()) == URL
    file.close()
    assert daemon_of(tmp_path, here()) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("daemon", "is_served"),
    [
        (address(), True),
        (address(host="pod-of-the-same-machine"), True),  # By the boot.
        (address(host="node2", boot="another"), False),
        (address(host="node2", boot="another", all_hosts=True), True),
        (address(boot="before the last boot"), True),  # A host name is enough.
    ],
)
def test_a_daemon_serves_its_own_machine_or_all(tmp_path: Path, daemon: DaemonAddress, is_served: bool) -> None:
    file = DaemonFile(tmp_path, daemon)
    assert (daemon_of(tmp_path, here()) == URL) == is_served
    file.close()


def test_a_daemon_that_was_killed_is_not_believed_and_cleared_away(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from hf_eco2ai.journal.announce import *; "
        f"address = DaemonAddress(url={URL!r}, host='node1', boot_id={BOOT!r}, all_hosts=False); "
        "file = DaemonFile(Path(sys.argv[1]), address); "
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert [path.name.endswith(DAEMON_SUFFIX) for path in tmp_path.iterdir()] == [True]
    assert daemon_of(tmp_path, here()) is None
    clear(tmp_path, here())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{", b'{"url":1}', b"\xff" * 100, b"[" * 10_000])
def test_an_address_that_says_nothing_is_nobodys(tmp_path: Path, content: bytes) -> None:
    file = DaemonFile(tmp_path, address())
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    assert daemon_of(tmp_path, here()) is None
    file.close()


def test_a_folder_of_a_group_lets_the_group_read_and_another_one_nobody(tmp_path: Path) -> None:
    for name, mode, expected in (("shared", 0o2770, 0o640), ("own", 0o700, 0o600)):
        folder = tmp_path / name
        folder.mkdir()
        folder.chmod(mode)
        file = DaemonFile(folder, address())
        target = TargetFile(folder, URL, "run1", "node1", process())
        assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [expected, expected]
        target.remove()
        file.close()


def test_a_target_is_what_prometheus_reads_and_is_no_journal(tmp_path: Path) -> None:
    target = TargetFile(tmp_path, "https://127.0.0.1:9092", "run/1", "node1", process())
    assert target.path.name == "run%2F1.node1.4711.target.json"
    assert [path.name for path in tmp_path.iterdir()] == [target.path.name]
    (entry,) = json.loads(target.path.read_text())
    assert entry["targets"] == ["127.0.0.1:9092"]
    assert entry["labels"]["__scheme__"] == "https"
    assert entry["labels"]["__meta_hf_eco2ai_run_id"] == "run/1"
    assert all(label.startswith("__") and isinstance(value, str) for label, value in entry["labels"].items())
    assert RunsFolder(tmp_path, here()).runs() == []
    target.remove()
    assert list(tmp_path.iterdir()) == []


def test_targets_of_processes_that_are_gone_are_cleared_away_and_others_are_not(tmp_path: Path) -> None:
    alive = TargetFile(tmp_path, URL, "alive", "node1", process(pid=1, started=10.0))
    gone = TargetFile(tmp_path, URL, "gone", "node1", process(pid=2))
    reused = TargetFile(tmp_path, URL, "reused", "node1", process(pid=3, started=10.0))
    before_boot = TargetFile(tmp_path, URL, "before", "node1", process(pid=1, boot="the boot before"))
    elsewhere = TargetFile(tmp_path, URL, "elsewhere", "node2", process(pid=1, boot="another machine"))
    container = TargetFile(tmp_path, URL, "container", "pod", process(pid=77, namespace="pid:[1]"))
    (tmp_path / f"foreign{TARGET_SUFFIX}").write_text("[]")
    clear(tmp_path, here(alive={1: 10.0, 3: 99.0}))
    assert [target.path.exists() for target in (alive, gone, reused, before_boot, elsewhere, container)] == [
        True,
        False,
        False,
        False,
        True,
        True,
    ]


def test_an_announcement_stays_also_where_the_folder_is_made_anew(tmp_path: Path) -> None:
    folder, failures = tmp_path / "runs", list[Failure]()
    announcement = Announcement(folder, address(), here(), failures.append)
    announcement.keep(0.0)  # It is not there yet.
    folder.mkdir()
    announcement.keep(1.0)
    (path,) = folder.iterdir()
    path.unlink()
    folder.rmdir()
    folder.mkdir()
    announcement.keep(1.0 + CLEAR_SECONDS)
    assert daemon_of(folder, here()) == URL
    announcement.close()
    assert (list(folder.iterdir()), failures) == ([], [])


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_two_daemons_announce_themselves_side_by_side_and_hold_one_file_each(tmp_path: Path) -> None:
    """Also where both are process 1 of a container on a host of one name, and however often the folder is made anew."""
    folder, failures, before = tmp_path / "runs", list[Failure](), open_files()
    announcements = [Announcement(folder, address(), here(), failures.append) for _ in range(2)]
    for number in range(5):
        folder.mkdir()
        for announcement in announcements:
            announcement.keep(number * CLEAR_SECONDS)
        assert len(list(folder.iterdir())) == 2
        assert open_files() == before + 2
        shutil.rmtree(folder)
    folder.mkdir()
    for announcement in announcements:
        announcement.close()
    assert (open_files(), failures) == (before, [])


def test_a_folder_that_takes_no_announcement_is_told_with_what_to_do() -> None:
    failures: list[Failure] = []
    Announcement(Path("/proc/self"), address(), here(), failures.append).keep(0.0)  # Nobody may write there, root neither.
    assert [failure.error_type for failure in failures] == ["journal_failed"]
    assert "HF_ECO2AI_EXPORT_PROMETHEUS=false" in failures[0].message


def test_a_folder_that_goes_on_taking_none_is_one_failure() -> None:
    """So that a daemon that only reads does not look as if something failed every 10 s."""
    failures: list[Failure] = []
    announcement = Announcement(Path("/proc/self"), address(), here(), failures.append)
    for look in range(5):
        announcement.keep(look * CLEAR_SECONDS)
    assert len(failures) == 1
