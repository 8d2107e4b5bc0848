"""Who serves a run: a daemon that serves its folder, else the run's own process, which Prometheus then finds by a file."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hf_eco2ai.config import CarbonConfig
from hf_eco2ai.journal.announce import DaemonAddress, DaemonFile
from hf_eco2ai.own_endpoint import OwnEndpoint
from hf_eco2ai.records import Failure
from tests.journal.make import here, identity, snapshot

DAEMON = "http://127.0.0.1:1"


@contextmanager
def endpoint(folder: Path | None, **settings: Any) -> Iterator[OwnEndpoint]:
    failures: list[Failure] = []
    config = CarbonConfig(prometheus_port=0, **settings)
    own = OwnEndpoint(config, folder, here(), identity("run1"), lambda: snapshot(run=identity("run1")), failures.append)
    try:
        yield own
    finally:
        own.withdraw()
        own.close()
    assert failures == []


@contextmanager
def daemon_of_another_host(folder: Path, *, all_hosts: bool) -> Iterator[None]:
    file = DaemonFile(folder, DaemonAddress(url=DAEMON, host="node2", boot_id="another", all_hosts=all_hosts))
    try:
        yield
    finally:
        file.close()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_where_a_daemon_serves_the_folder_no_port_is_opened(tmp_path: Path) -> None:
    with daemon_of_another_host(tmp_path, all_hosts=True):
        before = names(tmp_path)
        with endpoint(tmp_path) as own:
            own.keep()
            assert own.url == DAEMON
            assert names(tmp_path) == before


@pytest.mark.parametrize("kept_on_disk", [True, False])
def test_where_a_daemon_serves_other_hosts_only_or_cannot_know_of_the_run_it_is_served_here(
    tmp_path: Path, kept_on_disk: bool
) -> None:
    with (
        daemon_of_another_host(tmp_path, all_hosts=not kept_on_disk),
        endpoint(tmp_path if kept_on_disk else None) as own,
        urllib.request.urlopen(f"{own.url}/metrics", timeout=10) as response,
    ):
        assert b'run_id="run1"' in response.read()


def test_an_endpoint_is_a_target_in_the_folder_until_it_closes(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    with endpoint(folder) as own:
        own.keep()  # The journal has not made the folder yet.
        folder.mkdir()
        own.keep()
        own.keep()
        (name,) = names(folder)
        (entry,) = json.loads((folder / name).read_text())
        assert f"http://{entry['targets'][0]}" == own.url
        assert entry["labels"]["__meta_hf_eco2ai_run_id"] == "run1"
    assert names(folder) == []


def test_without_a_run_label_the_endpoint_shows_none(tmp_path: Path) -> None:
    with endpoint(tmp_path, run_label=False) as own, urllib.request.urlopen(f"{own.url}/metrics", timeout=10) as response:
        text = response.read()
    assert b"hf_training_energy_kwh_total{" in text
    assert b'run_id="' not in text


def test_a_web_config_closes_the_endpoint_of_a_training_too(tmp_path: Path) -> None:
    bcrypt = pytest.importorskip("bcrypt")
    file = tmp_path / "web.yml"
    file.write_text(f"basic_auth_users: {{prom: '{bcrypt.hashpw(b'right', bcrypt.gensalt(10)).decode()}'}}\n")
    with endpoint(tmp_path, prometheus_web_config=file) as own:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{own.url}/metrics", timeout=10)
        with refused.value:
            assert refused.value.code == 401
        with urllib.request.urlopen(f"{own.url}/healthz", timeout=10) as response:
            assert response.read() == b"ok\n"
