"""How `hf-eco2ai serve` begins and ends: what is wrong is said in one sentence, and nobody needs to be root."""

import os
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.daemon.process import (
    NOBODY,
    OURSELVES,
    SECONDS,
    SERVE,
    Account,
    Daemon,
    daemon,
    fields,
    ordinary_user,
    start,
    until,
)
from tests.daemon.runs import live
from tests.outputs.certificates import Authority

SECRET = "hunter2-is-not-a-hash"  # noqa: S105
HASH = "$2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze"
STOP_SECONDS = 8.0
"""Five are for scrapes under way; the rest is for a slow machine."""


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture
def common() -> Iterator[Path]:
    """A folder that every user may reach."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def serve(*options: str, account: Account = OURSELVES, cwd: Path | None = None) -> tuple[int, str]:
    """Its exit code and what it says, of one that ends by itself."""
    process = start(
        account, [*SERVE, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, cwd=cwd
    )
    said, complained = process.communicate(timeout=SECONDS)
    assert said == b""
    return process.returncode, complained.decode()


def sentence(code: int, said: str) -> str:
    """The one that it ends with where it cannot begin."""
    assert code == 2, said
    assert "Traceback" not in said
    assert said.startswith("hf-eco2ai: "), said
    assert said.count("\n") == 1, said
    return said.removeprefix("hf-eco2ai: ").removesuffix("\n")


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def tls_files(folder: Path) -> None:
    authority = Authority()
    authority.server().write(folder, "server")
    (folder / "other.key").write_bytes(authority.server().key)
    (folder / "other.key").chmod(0o600)


WEB_CONFIGS = {
    "": "is empty; write {} into it",
    "tls_server_confg: {}": "there is no such key; did you mean tls_server_config?",
    f"basic_auth_users: {{prometheus: {SECRET}}}": "should be a bcrypt hash",
    "tls_server_config: {cert_file: server.crt, key_file: other.key}": "the key does not belong to the certificate",
    "tls_server_config: {cert_file: server.crt, key_file: server.key, client_auth_type: RequireAnyClientCert}": "would let in",
}


@pytest.mark.parametrize(("text", "expected"), WEB_CONFIGS.items())
def test_a_wrong_web_config_is_said_in_one_sentence(tmp_path: Path, runs: Path, text: str, expected: str) -> None:
    tls_files(tmp_path)
    config = write(tmp_path / "web.yml", text)
    said = sentence(*serve("--runs-dir", str(runs), "--port", "0", "--web.config.file", str(config), "--check"))
    assert said.startswith(f"{config}")
    assert expected in said
    assert SECRET not in said


def missing_folder(folder: Path) -> tuple[list[str], str]:
    return [
        "--runs-dir",
        str(folder / "misspelt"),
    ], f"The runs folder {folder}/misspelt does not exist. Name another with --runs-dir"


def no_folder(folder: Path) -> tuple[list[str], str]:
    write(folder / "file", "")
    return ["--runs-dir", str(folder / "file")], "cannot be read (Not a directory). Name the folder that journals are in"


def missing_web_config(folder: Path) -> tuple[list[str], str]:
    return ["--web.config.file", str(folder / "web.yml")], "web.yml cannot be read (No such file or directory)"


def missing_token(folder: Path) -> tuple[list[str], str]:
    return ["--token-file", str(folder / "token")], "token cannot be read: No such file or directory. Make one: openssl rand"


def short_token(folder: Path) -> tuple[list[str], str]:
    return ["--token-file", str(write(folder / "token", "hunter2"))], "has less than 16 characters"


def open_token(folder: Path) -> tuple[list[str], str]:
    return ["--token-file", str(write(folder / "token", SECRET, 0o644))], "may be read or written by others: chmod 600"


def no_state_folder(folder: Path) -> tuple[list[str], str]:
    write(folder / "file", "")
    return ["--node", "--state-dir", str(folder / "file" / "state")], "Name another with --state-dir"


def foreign_address(folder: Path) -> tuple[list[str], str]:
    return ["--host", "192.0.2.1"], "'192.0.2.1' is not an address of this machine"


def unknown_setting(folder: Path) -> tuple[list[str], str]:
    return ["--set", "contry=DE"], "contry: there is no such setting"


MISTAKES: tuple[Callable[[Path], tuple[list[str], str]], ...] = (
    missing_folder,
    no_folder,
    missing_web_config,
    missing_token,
    short_token,
    open_token,
    no_state_folder,
    foreign_address,
    unknown_setting,
)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_wrong_is_said_in_one_sentence_with_check_and_without(
    tmp_path: Path, runs: Path, mistake: Callable[[Path], tuple[list[str], str]]
) -> None:
    options, expected = mistake(tmp_path)
    said = sentence(*serve("--runs-dir", str(runs), "--port", "0", *options, "--check"))
    assert said == sentence(*serve("--runs-dir", str(runs), "--port", "0", *options))
    assert expected in said
    assert SECRET not in said
    assert "hunter2" not in said


@pytest.mark.parametrize("option", [["--retention", "1x"], ["--retention", "-1h"], ["--port", "65536"], ["--max-runs", "0"]])
def test_an_option_that_cannot_be_is_said_with_its_name(runs: Path, option: list[str]) -> None:
    code, said = serve("--runs-dir", str(runs), *option, "--check")
    assert code == 2
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("Error: ")
    assert option[0] in said.splitlines()[-1]


def test_a_taken_port_is_said_with_who_has_it(runs: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = sentence(*serve("--runs-dir", str(runs), "--port", str(port)))
        code, checked = serve("--runs-dir", str(runs), "--port", str(port), "--check")
    assert said.startswith(f"Port {port} is taken by ")
    assert f"(pid {os.getpid()})" in said
    assert said.endswith("or choose another with --port.")
    assert code == 0  # It may be the daemon that this one will replace.
    warning, well = map(fields, checked.splitlines())
    assert f"(pid {os.getpid()})" in warning["msg"]
    assert well["msg"] == "all is well"


@pytest.mark.parametrize("check", [[], ["--check"]])
def test_a_folder_that_this_user_may_not_read_is_said_with_what_to_do(common: Path, check: list[str]) -> None:
    runs, account = common / "runs", ordinary_user()
    runs.mkdir(mode=0o700)
    if account is OURSELVES:
        runs.chmod(0)
    said = sentence(*serve("--runs-dir", str(runs), "--port", "0", *check, account=account, cwd=common))
    assert said.startswith(f"The runs folder {runs} cannot be read (Permission denied). Let this user read it (chmod g+rx")


@pytest.mark.parametrize("check", [[], ["--check"]])
def test_a_state_folder_that_this_user_may_not_write_is_said(common: Path, check: list[str]) -> None:
    runs, state, account = common / "runs", common / "state", ordinary_user()
    runs.mkdir(mode=0o755)
    state.mkdir()
    state.chmod(0o555)
    options = ["--runs-dir", str(runs), "--port", "0", "--node", "--state-dir", str(state)]
    said = sentence(*serve(*options, *check, account=account, cwd=common))
    assert said.startswith(f"The state folder {state} may not be written.")


def everything(folder: Path) -> list[str]:
    """All that can be said on the command line, and is right."""
    tls_files(folder)
    web = "tls_server_config: {cert_file: server.crt, key_file: server.key}\n" + f"basic_auth_users: {{alice: {HASH}}}\n"
    return [
        *("--web.config.file", str(write(folder / "web.yml", web))),
        *("--token-file", str(write(folder / "token", "0123456789abcdef"))),
        *("--node", "--state-dir", str(folder / "state")),
        *("--retention", "2h", "--max-runs", "10", "--max-requests", "3", "--all-hosts", "--set", "simulated_gpus=2"),
    ]


def test_check_says_that_all_is_well_and_leaves_nothing_behind(tmp_path: Path, runs: Path) -> None:
    code, said = serve("--runs-dir", str(runs), "--port", "0", *everything(tmp_path), "--check")
    assert code == 0, said
    (line,) = map(fields, said.splitlines())
    assert (line["level"], line["msg"], line["folder"]) == ("info", "all is well", str(runs))
    assert list(runs.iterdir()) == []


def test_two_daemons_cannot_keep_their_counters_in_one_folder_but_check_may_be_run_beside_one(tmp_path: Path, runs: Path) -> None:
    options = everything(tmp_path)
    with daemon(runs, *options) as serving:
        said = sentence(*serve("--runs-dir", str(runs), "--port", "0", *options))
        code, checked = serve("--runs-dir", str(runs), "--port", str(serving.port), *options, "--check")
        assert f"Another daemon keeps its counters in {tmp_path}/state: stop that one" in said
        assert code == 0, checked
        state, port, well = map(fields, checked.splitlines())
        assert state["msg"].startswith(f"Another daemon keeps its counters in {tmp_path}/state: ")
        assert port["msg"].startswith(f"Port {serving.port} is taken by ")
        assert all(line["msg"].endswith(" Fine if that is the daemon that this one will replace.") for line in (state, port))
        assert well["msg"] == "all is well"
        assert serving.process.poll() is None


def ask_and_wait(client: socket.socket, port: int) -> None:
    """Ask for more than the kernel keeps, and read the beginning."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(SECONDS)
    client.connect(("127.0.0.1", port))
    client.sendall(b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n")
    assert client.recv(100).startswith(b"HTTP/1.1 200 ")


@contextmanager
def supervising() -> Iterator[tuple[socket.socket, str]]:
    """A socket as systemd has one, and its name."""
    name = f"hf-eco2ai-{os.getpid()}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0{name}")
        systemd.settimeout(SECONDS)
        yield systemd, f"@{name}"


def test_sigterm_ends_it_while_a_client_does_not_take_its_answer(runs: Path) -> None:
    for n in range(200):
        live(runs, f"run{n:03}")
    serving = Daemon(runs).ready()
    with socket.socket() as client:
        ask_and_wait(client, serving.port)
        serving.process.terminate()
        assert serving.process.wait(STOP_SECONDS) == 0
    assert serving.said("ended", reason="told to")
    assert not [line for line in serving.log() if line["level"] == "error"]
    assert not list(runs.glob("*.daemon.json"))


def test_a_folder_that_appears_later_is_served_from_then_on(tmp_path: Path) -> None:
    runs = tmp_path / "not" / "yet"
    runs.parent.mkdir()
    with daemon(runs, "--wait") as serving:
        assert serving.get("/readyz") == b"ok\n"
        assert not any(name.startswith("hf_training_energy") for name in serving.series())
        live(runs, "run1")
        until(lambda: any("run_id='run1'" in name for name in serving.series()))
        until(lambda: list(runs.glob("*.daemon.json")))
        for path in runs.iterdir():
            path.unlink()
        runs.rmdir()
        until(lambda: not any("run_id='run1'" in name for name in serving.series()))
    assert {line["level"] for line in serving.log()} == {"info"}, serving.text


def test_systemd_hears_that_it_is_ready_that_it_lives_and_that_it_ends(runs: Path) -> None:
    with supervising() as (systemd, name):
        with daemon(runs, environ={"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "300000"}) as serving:
            ready = systemd.recv(1000).decode().splitlines()
            assert ready == ["READY=1", f"STATUS={serving.url}, 0 runs in {runs}"]
            assert [systemd.recv(1000) for _ in range(2)] == [b"WATCHDOG=1"] * 2
        until(lambda: systemd.recv(1000) == b"STOPPING=1")


def test_nobody_needs_to_be_root(common: Path) -> None:
    account, runs = ordinary_user(), common / "runs"
    live(runs, "run1")
    options = everything(common)[2:]  # Without a web config, so that we need not log in here.
    if account is not OURSELVES:
        for path in (common, runs, *runs.iterdir(), common / "token"):
            os.chown(path, NOBODY, NOBODY)
    with daemon(runs, *options, account=account) as serving:
        status = Path(f"/proc/{serving.process.pid}/status").read_text()
        assert f"\nUid:\t{os.geteuid() or NOBODY}\t" in status
        until(lambda: any(name.startswith("hf_node_energy_joules_total") for name in serving.series()))
        assert any("run_id='run1'" in name for name in serving.series())
        until(lambda: list(runs.glob("*.daemon.json")))
    assert {line["level"] for line in serving.log()} == {"info"}, serving.text
    (kept,) = (common / "state").iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_a_folder_that_may_not_be_read_any_more_is_told_once_and_is_followed_again_when_it_may(common: Path) -> None:
    account, runs = ordinary_user(), common / "runs"
    live(runs, "run1")
    if account is not OURSELVES:
        for path in (common, runs, *runs.iterdir()):
            os.chown(path, NOBODY, NOBODY)
    with daemon(runs, account=account) as serving:
        until(lambda: list(runs.glob("*.daemon.json")))
        runs.chmod(0)
        until(lambda: "cannot be read (Permission denied)" in serving.text, what=lambda: serving.text)
        shown = serving.series()
        assert any("run_id='run1'" in name for name in shown)  # What is known is served.
        looked = shown["hf_exporter_last_look_timestamp_seconds{}"]
        until(lambda: serving.series()["hf_exporter_failures_total{error_type='journal_refused'}"] >= 2)
        assert serving.series()["hf_exporter_last_look_timestamp_seconds{}"] == looked
        assert serving.text.count("cannot be read") == 1
        runs.chmod(0o700)
        until(lambda: serving.series()["hf_exporter_last_look_timestamp_seconds{}"] > looked)
    (warned,) = [line["msg"] for line in serving.log() if line["level"] != "info"]
    assert warned.startswith(f"The runs folder {runs} cannot be read (Permission denied). Let this user read it")


FAILS_WHEN_TOLD = """
import sys, threading
from hf_eco2ai.cli import main

def fail():
    sys.stdin.readline()
    raise RuntimeError("a defect")

threading.Thread(target=fail, name="a-thread", daemon=True).start()
main()
"""


def test_a_defect_in_one_of_its_threads_ends_it_so_that_it_is_started_anew(tmp_path: Path, runs: Path) -> None:
    log = tmp_path / "log"
    arguments = ["-c", FAILS_WHEN_TOLD, "serve", "--runs-dir", str(runs), "--port", "0"]
    with log.open("wb") as stderr, start(OURSELVES, arguments, stdin=subprocess.PIPE, stderr=stderr) as process:
        until(lambda: "msg=ready" in log.read_text())
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.wait(SECONDS) == 1
    _, defect, ended = map(fields, log.read_text().splitlines())
    assert (defect["level"], defect["msg"]) == ("critical", "a defect of hf-eco2ai, please report it")
    assert defect["thread"] == "a-thread"
    assert "RuntimeError: a defect" in defect["error"]
    assert (ended["level"], ended["reason"]) == ("error", "a-thread failed")


def test_whoever_presses_ctrl_c_twice_does_not_wait_for_scrapes_and_a_supervisor_may_tell_twice(runs: Path) -> None:
    for n in range(200):
        live(runs, f"run{n:03}")
    with supervising() as (systemd, name), socket.socket() as client:
        serving = Daemon(runs, environ={"NOTIFY_SOCKET": name}).ready()
        ask_and_wait(client, serving.port)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
            serving.process.send_signal(number)
        until(lambda: systemd.recv(1000) == b"STOPPING=1")
        serving.process.send_signal(signal.SIGTERM)
        serving.process.send_signal(signal.SIGINT)
        assert serving.process.wait(SECONDS) == -signal.SIGINT
