"""What a disk may do to a training: nothing. Losses and weights are, bit for bit, those of the same training without us."""

import itertools
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.survival.kept import journals, only, refused
from tests.survival.processes import Server

ARGUMENTS = {"max_steps": 60, "logging_steps": 1}


@pytest.fixture(scope="module")
def reference(server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The training without us."""
    child = server.start("plain", tmp_path_factory.mktemp("reference"), ours=False, arguments=ARGUMENTS)
    result = child.hear("result")
    assert child.ended() == 0
    assert len(result["losses"]) == 60
    return result


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """A file system of its own; the tests run as root in their container, as they do for Debian's packages."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def trains_as_ever(
    server: Server, folder: Path, reference: dict[str, Any], scene: str = "plain", **options: Any
) -> dict[str, Any]:
    """Train with us under this fault, to the end of the process. What the process said of its run."""
    child = server.start(scene, folder, arguments=ARGUMENTS, **options)
    result = child.hear("result")
    assert child.ended() == 0
    assert result["state"] == "ended"
    assert result["joules"] > 0
    assert result["losses"] == reference["losses"]
    assert result["weights"] == reference["weights"]
    assert "Traceback" not in child.output()
    return result


def fill(folder: Path) -> None:
    with (folder / "filling").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        file.writelines(itertools.repeat(b"x" * 512))


def test_a_full_disk_costs_the_journal_and_nothing_else(server: Server, tmp_path: Path, reference: dict[str, Any]) -> None:
    with mounted(tmp_path / "full", "size=64k"):
        fill(tmp_path / "full")
        result = trains_as_ever(server, tmp_path, reference, settings={"runs_dir": str(tmp_path / "full")})
        assert result["errors"]["journal_failed"] > 0
        assert journals(tmp_path / "full") == []


def test_a_disk_that_fills_up_in_the_middle_keeps_what_was_written_whole(
    server: Server, tmp_path: Path, reference: dict[str, Any]
) -> None:
    with mounted(tmp_path / "small", "size=64k"):
        (tmp_path / "small" / "ballast").write_bytes(b"x" * 54 * 1024)
        result = trains_as_ever(server, tmp_path, reference, "marks_often", settings={"runs_dir": str(tmp_path / "small")})
        assert result["errors"]["journal_failed"] > 0
        assert refused(tmp_path / "small") == []
        assert journals(tmp_path / "small")[0].joules > 0


def test_a_disk_that_may_not_be_written_costs_the_journal_and_nothing_else(
    server: Server, tmp_path: Path, reference: dict[str, Any]
) -> None:
    with mounted(tmp_path / "fixed", "ro"):
        result = trains_as_ever(server, tmp_path, reference, settings={"runs_dir": str(tmp_path / "fixed" / "runs")})
    assert result["errors"]["journal_failed"] > 0


def test_a_folder_below_a_file_costs_the_journal_and_nothing_else(
    server: Server, tmp_path: Path, reference: dict[str, Any]
) -> None:
    (tmp_path / "file").write_text("no folder")
    result = trains_as_ever(server, tmp_path, reference, settings={"runs_dir": str(tmp_path / "file" / "runs")})
    assert result["errors"]["journal_failed"] > 0


def test_a_folder_that_is_deleted_in_the_middle_is_made_again_with_all_that_was_in_it(
    server: Server, tmp_path: Path, reference: dict[str, Any]
) -> None:
    result = trains_as_ever(server, tmp_path, reference, "deletes_the_runs")
    assert only(tmp_path / "runs").state == "ended"
    (journal,) = journals(tmp_path / "runs")
    assert journal.joules == pytest.approx(result["joules"])
    assert journal.done("steps") == 60


def test_a_port_that_is_taken_changes_nothing(server: Server, tmp_path: Path, reference: dict[str, Any], free_port: int) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", free_port))
        holder.listen()
        result = trains_as_ever(server, tmp_path, reference, settings={"prometheus_port": free_port})
    assert result["errors"] == {"port_taken": 1}


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Path]:
    """A folder that stops answering, to anyone and for ever, once someone looks for `freeze` in it."""
    folder = tmp_path / "hanging"
    folder.mkdir()
    script = Path(__file__).with_name("hanging_folder.py")
    with subprocess.Popen([sys.executable, str(script), str(folder)], stdout=subprocess.PIPE, text=True) as file_system:
        try:
            assert file_system.stdout is not None
            assert file_system.stdout.readline() == "mounted\n"
            yield folder
        finally:
            file_system.kill()
            file_system.wait()
            subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_folder_that_stops_answering_in_the_middle_holds_up_neither_training_nor_the_end_of_the_process(
    server: Server, tmp_path: Path, reference: dict[str, Any], hanging: Path
) -> None:
    trains_as_ever(
        server, tmp_path, reference, "freezes", settings={"runs_dir": str(hanging / "runs")}, freeze=str(hanging / "freeze")
    )


def test_a_folder_that_never_answers_holds_up_neither_training_nor_the_end_of_the_process(
    server: Server, tmp_path: Path, reference: dict[str, Any], hanging: Path
) -> None:
    assert not (hanging / "freeze").exists()
    trains_as_ever(server, tmp_path, reference, settings={"runs_dir": str(hanging / "runs"), "run_id": "looked-back-for"})
