"""What systemd hears."""

import socket
from pathlib import Path

import pytest

from hf_eco2ai.supervisor import Supervisor


@pytest.mark.parametrize("is_abstract", [False, True])
def test_states_go_to_the_socket_that_systemd_names(tmp_path: Path, is_abstract: bool) -> None:
    name = f"@hf-eco2ai-test-{tmp_path.name}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + name[1:] if is_abstract else name)
        systemd.settimeout(5)
        supervisor = Supervisor(name, watchdog_seconds=30.0)
        supervisor.ready("2 runs\nin a folder")
        for now in (100.0, 105.0, 109.9, 110.0):
            supervisor.alive(now)
        supervisor.stopping()
        heard = [systemd.recv(1000).decode() for _ in range(4)]
    assert heard == ["READY=1\nSTATUS=2 runs in a folder", "WATCHDOG=1", "WATCHDOG=1", "STOPPING=1"]


@pytest.mark.parametrize("name", ["", "/there/is/no/such/socket"])
def test_without_systemd_nothing_is_said_and_nothing_breaks(name: str) -> None:
    Supervisor(name, watchdog_seconds=30.0).ready("")
    Supervisor(name).alive(100.0)
