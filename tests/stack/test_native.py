"""`hf-eco2ai stack up --native`, on the real servers: what runs, what is delivered, what goes wrong, and that nothing is left."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner

from hf_eco2ai.cli import cli
from hf_eco2ai.journal.announce import TargetFile
from hf_eco2ai.journal.read import process_started
from hf_eco2ai.stack import processes
from hf_eco2ai.stack.documents import read
from hf_eco2ai.stack.ports import choose
from hf_eco2ai.stack.secrets import Secrets
from hf_eco2ai.stack.servers import Options, grafana
from hf_eco2ai.stack.state import Data
from tests.daemon.process import ROOT, SECONDS, daemon, until
from tests.daemon.prometheus import Prometheus
from tests.journal.make import this_process
from tests.stack.conftest import Running
from tests.stack.native import HF_ECO2AI, SERVERS, Native, copied, free_ports, installed, native

pytestmark = installed

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Native]:
    """A stack that is not up yet."""
    with native(tmp_path / "native") as made:
        yield made


def program(folder: Path, name: str, text: str) -> Path:
    """One on PATH that is not the real one."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def loaded(asked: Prometheus) -> list[dict[str, Any]]:
    """Groups of rules."""
    groups: list[dict[str, Any]] = asked.ask("/api/v1/rules")["groups"]
    return groups


def ended(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


def test_every_target_is_up_and_both_runs_are_seen(running: Running) -> None:
    asked = running.native.prometheus()
    until(lambda: {target["health"] for target in asked.targets().values()} == {"up"}, what=asked.targets)
    assert asked.targets().keys() == {"hf-eco2ai", "node", "prometheus", "alertmanager"}
    query = 'hf_training_running{project_name="%s"}'
    until(lambda: asked.query(query % "finished") == {"hf-eco2ai": 0.0}, what=asked.log)
    assert asked.query(query % "spent") == {"hf-eco2ai": 1.0}


def test_a_run_with_a_port_of_its_own_is_found_by_its_file_in_the_runs_folder_for_as_long_as_it_lives(running: Running) -> None:
    asked, exporter = running.native.prometheus(), f"http://127.0.0.1:{running.native.ports['exporter']}"
    own = TargetFile(running.native.runs, exporter, "bbbbbbbbbbbb", "node1", this_process())
    try:
        until(lambda: asked.health("hf-eco2ai-runs") == "up", what=asked.log)
        assert asked.targets()["hf-eco2ai-runs"]["scrapeUrl"] == f"{exporter}/metrics"
    finally:
        own.remove()
    until(lambda: asked.health("hf-eco2ai-runs") == "", what=asked.log)


def test_every_rule_of_the_stack_is_loaded_and_none_fails(running: Running) -> None:
    asked, folder = running.native.prometheus(), running.native.folder
    files = [*(folder / "alerting" / "rules").glob("*.yml"), *(folder / "prometheus" / "rules").glob("*.yml")]
    groups = {group["name"]: len(group["rules"]) for path in files for group in read(path)["groups"]}
    assert len(groups) > 6
    until(lambda: all(group["lastEvaluation"] > "0002" for group in loaded(asked) if group["interval"] <= 1), what=asked.log)
    assert {group["name"]: len(group["rules"]) for group in loaded(asked)} == groups
    for rule in (rule for group in loaded(asked) for rule in group["rules"]):
        assert rule["health"] in {"ok", "unknown"}, rule.get("lastError")  # unknown: of a group whose turn comes in minutes.
        asked.ask("/api/v1/query", query=rule["query"])


def test_an_alert_is_delivered_to_the_webhook_with_its_project_and_links(running: Running) -> None:
    until(lambda: running.hook.alerts("CarbonBudgetExceeded"), what=running.native.prometheus().log)
    alert = running.hook.alerts("CarbonBudgetExceeded")[0]
    assert alert["status"] == "firing"
    assert alert["labels"]["project_name"] == "spent"
    assert alert["generatorURL"].startswith(f"http://localhost:{running.native.ports['prometheus']}/")
    assert running.hook.messages[0]["externalURL"] == f"http://localhost:{running.native.ports['alertmanager']}"


def test_status_says_what_runs_where_and_which_alerts_stand(running: Running) -> None:
    until(lambda: running.native.say("status").returncode == 0, what=lambda: running.native.say("status").stdout)
    until(lambda: "CarbonBudgetExceeded" in running.native.say("status").stdout)
    lines = running.native.say("status").stdout.splitlines()
    for name, server in running.native.state().items():
        (line,) = [line.split() for line in lines if line.startswith(f"{name} ")]
        assert line == [name, "up", f"http://localhost:{running.native.ports[name]}", str(server["process"]["pid"])]
    assert "targets: 4 of 4 up" in lines
    (alert,) = [line for line in lines if line.startswith("CarbonBudgetExceeded")]
    assert alert.split()[:3] == ["CarbonBudgetExceeded", "critical", "firing"]
    assert "project_name=spent run_id=bbbbbbbbbbbb" in alert


def test_servers_listen_on_loopback_only_and_belong_to_no_shell(running: Running) -> None:
    for server in running.native.state().values():
        process = psutil.Process(server["process"]["pid"])
        listening = {c.laddr for c in process.net_connections(kind="inet") if c.status == psutil.CONN_LISTEN}
        assert listening == {("127.0.0.1", running.native.ports[server["name"]])}
        assert os.getsid(process.pid) == process.pid
        assert process.terminal() is None
    assert stat.S_IMODE(running.native.data.stat().st_mode) == 0o700


def test_up_says_where_to_look_and_how_to_end_it(running: Running) -> None:
    for name in SERVERS:
        assert f"http://localhost:{running.native.ports[name]}" in running.said
    assert "hf-eco2ai stack down" in running.said


def test_a_second_up_starts_nothing_and_has_the_servers_read_their_files_anew(running: Running) -> None:
    before, asked = running.native.state(), running.native.prometheus()
    own = running.native.folder / "alerting" / "rules" / "ours.yml"
    own.write_text(json.dumps({"groups": [{"name": "ours", "rules": [{"record": "ours", "expr": "vector(1)"}]}]}))
    try:
        done = running.native.up()
        assert done.returncode == 0
        assert "Everything runs already." in done.stdout
        assert running.native.state() == before
        until(lambda: "ours" in {group["name"] for group in loaded(asked)}, what=asked.log)
        other = running.native.say("up", "--native", "--dir", str(running.native.folder), "--node-port", "1")
        assert other.returncode == 2
        assert f"node runs already, on port {running.native.ports['node']}" in other.stderr
    finally:
        own.unlink()
        running.native.up()
    until(lambda: "ours" not in {group["name"] for group in loaded(asked)}, what=asked.log)


def test_down_leaves_no_process_and_may_be_said_again(made: Native) -> None:
    assert made.up().returncode == 0
    there = made.processes()
    assert len(there) >= len(SERVERS)
    done = made.say("down")
    assert (done.returncode, done.stdout) == (0, "Ended: exporter, prometheus, alertmanager, node.\n")
    assert made.processes() == []
    assert not [process for process in there if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    again = made.say("down")
    assert (again.returncode, again.stdout) == (0, "Nothing runs.\n")
    status = made.say("status")
    assert (status.returncode, status.stdout) == (1, "Nothing runs. `hf-eco2ai stack up --native` starts it.\n")


def targets_of(stack: Native, job: str) -> set[str]:
    groups = json.loads((stack.data / "config" / "prometheus" / "targets" / f"{job}.json").read_text())
    return {target for group in groups for target in group["targets"]}


def test_up_said_again_without_options_keeps_channels_targets_and_ports_also_after_down(made: Native) -> None:
    assert made.say("status").stdout.startswith("No stack has been started here.")
    Secrets(made.folder / "secrets").put("webhook_url", "http://127.0.0.1:9/hook")
    assert made.up("--target", "dcgm=node7:9400").returncode == 0
    at = {name: server["url"] for name, server in made.state().items()}
    for commands in ((), ("down",)):
        assert all(made.say(command).returncode == 0 for command in commands)
        again = made.say("up", "--native")
        assert again.returncode == 0, again.stderr
        assert f"As the last time: --dir {made.folder} --runs-dir {made.runs} --scrape-interval 1s" in again.stdout
        receivers = read(made.data / "config" / "alertmanager" / "alertmanager.yml")["receivers"]
        assert [receiver["name"] for receiver in receivers] == ["nobody", "webhook"]
        assert targets_of(made, "dcgm") == {"node7:9400"}
        assert (made.data / "config" / "prometheus" / "targets" / "runs").resolve() == made.runs.resolve()
        assert read(made.data / "config" / "prometheus" / "prometheus.yml")["global"]["scrape_interval"] == "1s"
        assert {name: server["url"] for name, server in made.state().items()} == at
    other = made.say("up", "--native", here=copied(made.root / "other"))
    assert other.returncode == 2
    assert f"in {made.folder}: say which with --dir" in other.stderr
    assert made.say("up", "--native", "--forget", "--dir", str(made.folder)).returncode == 0
    assert targets_of(made, "dcgm") == set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_up_that_is_interrupted_ends_what_it_has_started(made: Native, number: signal.Signals) -> None:
    program(made.root / "bin", "prometheus-alertmanager", "#!/bin/sh\nexec sleep 600\n")
    stack = Native(made.root, path=str(made.root / "bin"), ports=made.ports)
    command = [sys.executable, *HF_ECO2AI, "stack", *stack.command()]
    with subprocess.Popen(command, cwd=made.root, env=stack.environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as up:
        until(lambda: (made.data / "state.json").exists() and made.state().keys() == set(SERVERS))
        assert len(made.processes()) >= len(SERVERS)
        up.send_signal(number)
        assert up.wait(SECONDS) == 128 + number  # as of a shell
    assert made.processes() == []
    assert made.say("down").stdout == "Nothing runs.\n"


def test_a_data_folder_that_was_there_is_closed_and_one_with_something_else_in_it_has_closed_folders(tmp_path: Path) -> None:
    empty, used = tmp_path / "empty", tmp_path / "used"
    for folder in (empty, used):
        folder.mkdir()
        folder.chmod(0o755)
    (used / "thesis").touch()
    for folder in (empty, used):
        Data(folder).make()
        assert [stat.S_IMODE((folder / name).stat().st_mode) for name in ("config", "logs")] == [0o700, 0o700]
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in (empty, used)] == [0o700, 0o755]


@pytest.mark.parametrize("interval", ["0s", "500ms", "2m1s", "1h"])
def test_a_scrape_interval_that_would_leave_gaps_is_refused(interval: str) -> None:
    done = CliRunner().invoke(cli, ["stack", "up", "--native", "--scrape-interval", interval])
    assert done.exit_code == 2
    assert f"{interval}: say seconds or minutes, from 1s to 2m" in done.output


def test_what_has_died_is_said_by_status_and_started_by_the_next_up(made: Native) -> None:
    assert made.up().returncode == 0
    before = made.state()
    psutil.Process(before["alertmanager"]["process"]["pid"]).kill()
    until(lambda: made.say("status").returncode == 1)
    done = made.say("status")
    assert "alertmanager  down" in done.stdout
    assert str(made.data / "logs" / "alertmanager.log") in done.stdout
    again = made.up()
    assert "Starting alertmanager ..." in again.stdout
    after = made.state()
    assert [name for name in SERVERS if after[name]["process"] != before[name]["process"]] == ["alertmanager"]


def test_a_server_that_dies_at_its_start_is_said_with_its_last_words_and_takes_the_others_along(made: Native) -> None:
    program(made.root / "bin", "prometheus-alertmanager", "#!/bin/sh\necho 'the yeast is off' >&2\nexit 3\n")
    done = Native(made.root, path=str(made.root / "bin"), ports=made.ports).up()
    assert done.returncode == 2
    assert "alertmanager has ended (exit code 3)" in done.stderr
    assert "  the yeast is off\n" in done.stderr
    assert made.processes() == []
    assert made.say("down").stdout == "Nothing runs.\n"


def test_a_server_that_is_never_ready_is_ended_with_all_that_it_has_started(made: Native) -> None:
    program(made.root / "bin", "prometheus-alertmanager", "#!/bin/sh\nsleep 600 &\necho $! >child\nsleep 600\n")
    done = Native(made.root, path=str(made.root / "bin"), ports=made.ports).up("--timeout", "1")
    assert done.returncode == 2
    assert "alertmanager is not ready after 1 s" in done.stderr
    assert process_started(int((made.data / "alertmanager" / "child").read_text())) is None
    assert made.processes() == []


def test_a_port_that_is_asked_for_and_taken_is_an_error(made: Native) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = made.up("--prometheus-port", str(port))
    assert done.returncode == 2
    assert f"Port {port} is taken: choose another with --prometheus-port" in done.stderr
    assert made.processes() == []


def test_without_being_asked_the_next_free_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert port < choose("prometheus", port, None, {port + 1}) < port + 50
        assert choose("prometheus", port, None, {port + 1}) != port + 1


def test_a_program_that_is_missing_is_said_with_where_to_get_it(made: Native) -> None:
    done = Native(made.root, path=f"{made.root}:", ports=made.ports).up()
    assert done.returncode == 2
    assert "prometheus is not on PATH. Debian and Ubuntu: apt-get install prometheus prometheus-alertmanager" in done.stderr


def test_containers_are_the_other_way(made: Native) -> None:
    done = made.say("up")
    assert done.returncode == 2
    assert "docker compose up -d" in done.stderr


def test_a_daemon_that_serves_the_runs_already_is_scraped_and_left_alone(made: Native) -> None:
    with daemon(made.runs) as serving:
        until(lambda: list(made.runs.glob("*.daemon.json")))
        ports = {name: port for name, port in made.ports.items() if name != "exporter"}
        stack = Native(made.root, ports=ports)
        assert stack.up().returncode == 0
        (target,) = json.loads((made.data / "config" / "prometheus" / "targets" / "hf-eco2ai.json").read_text())
        assert target["targets"] == [f"127.0.0.1:{serving.port}"]
        assert stack.state()["exporter"]["process"] is None
        assert "not ours" in stack.say("status").stdout
        assert stack.say("down").stdout == "Ended: prometheus, alertmanager, node.\n"
        assert serving.series()
        assert serving.process.poll() is None


GRAFANA = f"""#!{sys.executable}
import http.server, json, os, pathlib, sys
pathlib.Path("said.json").write_text(json.dumps({{"env": dict(os.environ), "argv": sys.argv}}))
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/api/health" else 404)
        self.end_headers()
http.server.HTTPServer((os.environ["GF_SERVER_HTTP_ADDR"], int(os.environ["GF_SERVER_HTTP_PORT"])), Health).serve_forever()
"""


def test_grafana_gets_its_settings_and_a_password_that_is_told_once(made: Native) -> None:
    """A stand-in takes its place, as the real one cannot be had here; its variables are those of Grafana's manual."""
    program(made.root / "bin", "grafana-server", GRAFANA)
    (port,) = free_ports(1)
    stack = Native(made.root, path=str(made.root / "bin"), ports={**made.ports, "grafana": port})
    done = stack.up()
    assert done.returncode == 0, done.stderr
    said = json.loads((made.data / "grafana" / "said.json").read_text())
    config = made.data / "config" / "grafana"
    assert said["env"]["GF_PATHS_PROVISIONING"] == str(config / "provisioning")
    assert said["env"]["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert said["env"]["GF_SERVER_HTTP_PORT"] == str(port)
    kept = config / "secrets" / "admin_password"
    assert said["env"]["GF_SECURITY_ADMIN_PASSWORD"] == f"$__file{{{kept}}}"
    assert not [name for name in said["env"] if name.endswith("__FILE")]  # Grafana's image knows them, and no grafana-server.
    password = kept.read_text().strip()
    assert len(password) >= 16
    assert not kept.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    assert f"its password {password} (it is not said again)" in done.stdout
    assert password not in json.dumps(said)
    again = stack.up()
    assert "Everything runs already." in again.stdout
    assert password not in again.stdout + again.stderr
    rules = "".join(path.read_text() for path in (made.data / "config" / "prometheus" / "alerts").iterdir())
    assert f"http://localhost:{port}/d/" in rules


def test_grafana_asks_nobody_on_the_internet_as_little_as_in_a_container(tmp_path: Path) -> None:
    options = Options(Data(tmp_path), tmp_path, {"grafana": 3000}, "90d", "50GB")
    words = grafana(Path("grafana-server"), options, "http://127.0.0.1:9090").argv
    quiet = ("GF_ANALYTICS_", "GF_PLUGINS_", "GF_SECURITY_DISABLE_", "GF_AUTH_", "GF_USERS_")
    native = {name: value for name, _, value in (word.partition("=") for word in words) if name.startswith(quiet)}
    contained = read(ROOT / "docker-compose.yml")["services"]["grafana"]["environment"]
    assert len(native) >= 7
    assert native == {name: value for name, value in contained.items() if name.startswith(quiet)}


def test_a_password_that_nobody_was_told_is_made_anew_for_the_grafana_that_comes_later(made: Native) -> None:
    assert made.up().returncode == 0
    assert not (made.data / "config" / "grafana" / "secrets" / "admin_password").exists()


def test_a_stack_that_another_host_has_started_is_not_touched(made: Native) -> None:
    assert made.up().returncode == 0
    file = made.data / "state.json"
    state = file.read_text()
    file.write_text(json.dumps({**json.loads(state), "host": "login2"}))
    for command in (made.say("down"), made.say("status"), made.up()):
        assert command.returncode == 2
        assert "was started on login2" in command.stderr
    file.write_text(state)
    assert made.say("down").returncode == 0


def test_a_process_that_has_got_the_number_of_a_server_is_not_ended(made: Native, tmp_path: Path) -> None:
    assert made.up().returncode == 0
    other = processes.start(SLEEP, tmp_path / "log", tmp_path)
    try:
        real = made.state()["node"]["process"]
        state = json.loads((made.data / "state.json").read_text())
        for server in state["servers"]:
            if server["name"] == "node":
                server["process"]["pid"] = other.pid
        (made.data / "state.json").write_text(json.dumps(state))
        assert "node          down" in made.say("status").stdout
        assert made.say("down").stdout == "Ended: exporter, prometheus, alertmanager.\n"
        assert other.poll() is None
        psutil.Process(real["pid"]).kill()
    finally:
        ended(other)


def test_what_a_server_has_started_is_ended_also_when_the_server_died_before(tmp_path: Path) -> None:
    shell = processes.start(["sh", "-c", "sleep 600 & echo $!"], tmp_path / "log", tmp_path)
    leader = processes.identity(shell.pid)
    shell.wait()
    assert not processes.is_alive(leader)
    (child,) = processes.members(leader)
    assert child.pid == int((tmp_path / "log").read_text())
    processes.stop([leader], 10)
    assert processes.members(leader) == []


def test_what_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    ignoring = [
        sys.executable,
        "-c",
        "import signal,time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(600)",
    ]
    process = processes.start(ignoring, tmp_path / "log", tmp_path)
    leader = processes.identity(process.pid)
    until((tmp_path / "log").read_text)
    processes.stop([leader], 0.2)
    assert process.wait() == -signal.SIGKILL
