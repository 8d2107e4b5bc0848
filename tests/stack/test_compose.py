"""docker-compose.yml, as far as it can be known without an engine: Compose takes it, services get what they need and no more."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from click.testing import CliRunner, Result

from hf_eco2ai.cli import cli
from hf_eco2ai.config import CarbonConfig
from hf_eco2ai.stack.files import PARTS
from hf_eco2ai.stack.secrets import Secrets
from hf_eco2ai.version import __version__
from tests.daemon.process import NOBODY, ROOT, Daemon, ordinary_user, start, until
from tests.stack.compose import PROFILES, clone, compose, config
from tests.stack.native import free_ports

HOOK = "https://hooks.slack.example/services/T000/B000/a-secret"

SERVICES = {"init", "exporter", "prometheus", "alertmanager", "grafana", "node-exporter"}
OF_PROFILE = {
    "gpu": {"part-gpu", "dcgm-exporter"},
    "longterm": {"part-longterm", "victoriametrics"},
    "demo": {"part-demo", "demo", "demo-exporter"},
}
ONE_SHOT = {"init", "part-gpu", "part-longterm", "part-demo", "demo"}

CAPABILITIES = {"init": ["CHOWN", "DAC_OVERRIDE"]}
"""It reads what only its owner may read, and gives it to who needs it."""

ROOT_USERS = {"init", "part-gpu", "part-longterm", "part-demo", "victoriametrics"}
"""Volumes are root's when they are new. The others' images name a user, but NVIDIA's."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users, and mounts")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone(tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="module")
def services(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = config(folder)["services"]
    return found


@pytest.mark.parametrize("profiles", [(), *((profile,) for profile in PROFILES), PROFILES], ids=lambda on: "+".join(on) or "none")
def test_compose_takes_the_file_with_any_profile_and_starts_what_belongs_to_it(folder: Path, profiles: tuple[str, ...]) -> None:
    found = config(folder, profiles)["services"]
    assert set(found) == SERVICES.union(*(OF_PROFILE[profile] for profile in profiles))


def test_the_file_keeps_to_the_compose_specification(folder: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stack_folder_holds_all_that_is_said_of_it(folder: Path) -> None:
    assert [name for name in PARTS if not (folder / name).exists()] == []


def mounts(services: dict[str, Any], kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, service in services.items():
        yield from ((name, volume) for volume in service.get("volumes", ()) if volume["type"] == kind)


def test_every_path_that_is_mounted_is_in_a_clean_clone_or_the_kernels(folder: Path, services: dict[str, Any]) -> None:
    sources = {volume["source"] for _, volume in mounts(services, "bind")}
    assert sources == {*(str(folder / part) for part in ("prometheus", "alerting", "dashboards", "secrets")), "/proc", "/sys"}
    assert all(map(os.path.isdir, sources))


def test_only_init_sees_the_secrets_and_nobody_may_write_to_the_hosts_files(services: dict[str, Any], folder: Path) -> None:
    for name, volume in mounts(services, "bind"):
        assert volume["read_only"], volume
        assert volume["source"] != str(folder / "secrets") or name == "init"
    seen = {service["build"]["context"] for service in services.values() if "build" in service}
    assert seen == {str(folder)}


def test_all_ports_are_on_the_loopback_address_only(services: dict[str, Any]) -> None:
    ports = {port["published"]: port["host_ip"] for service in services.values() for port in service.get("ports", ())}
    assert ports == dict.fromkeys(("9191", "9090", "9093", "3000", "8428"), "127.0.0.1")


def test_all_images_are_pinned_by_version_and_ours_are_of_this_one(services: dict[str, Any]) -> None:
    for name, service in services.items():
        image, _, tag = service["image"].partition(":")
        assert re.match(r"v?\d+\.\d+\.\d+", tag), name
        assert ("build" in service) == image.startswith("hf-eco2ai") == (tag == __version__), name


def test_no_service_has_more_rights_than_it_needs(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service.get("cap_add", []) == CAPABILITIES.get(name, []), name
        assert service.get("read_only", False) == (name != "dcgm-exporter"), name
        assert service.get("user", "").startswith("0:") == (name in ROOT_USERS), name
        assert not {"privileged", "pid", "ipc", "devices"} & service.keys(), name
        assert service.get("network_mode") == ("none" if name in ONE_SHOT else None), name
    assert services["exporter"]["user"] == services["demo"]["user"] == "1000:1000"


def test_servers_come_back_are_watched_and_their_logs_do_not_grow_for_ever(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped"), name
        watched = "test" in service.get("healthcheck", {}) or "exporter" in service.get("build", {}).get("target", "")
        assert (watched and name not in ONE_SHOT) == (name not in ONE_SHOT | {"dcgm-exporter"}), name
        assert service["logging"] == {"driver": "json-file", "options": {"max-size": "10m", "max-file": "5"}}, name


def test_servers_wait_until_init_has_rendered_and_init_for_the_parts_that_are_on(services: dict[str, Any]) -> None:
    waits = {name: service.get("depends_on", {}) for name, service in services.items()}
    for name in set(services) - ONE_SHOT:
        assert waits[name]["init"] == {"condition": "service_completed_successfully", "required": True}, name
    maybe = {"condition": "service_completed_successfully", "required": False}
    assert waits["init"] == {"part-gpu": maybe, "part-longterm": maybe, "part-demo": maybe}
    assert waits["demo"]["demo-exporter"]["condition"] == "service_healthy"


def test_prometheus_keeps_90_days_and_50_gb(services: dict[str, Any]) -> None:
    command = services["prometheus"]["command"]
    assert {"--storage.tsdb.retention.time=90d", "--storage.tsdb.retention.size=50GB"} <= set(command)
    assert "--web.enable-lifecycle" not in command


def test_grafana_has_no_default_password_no_guests_and_no_sign_up(services: dict[str, Any]) -> None:
    environment = services["grafana"]["environment"]
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == environment["GF_USERS_ALLOW_SIGN_UP"] == "false"
    at = "/etc/hf-eco2ai/secrets/admin_password"
    assert environment["GF_SECURITY_ADMIN_PASSWORD"] == f"$$__file{{{at}}}"  # Compose escapes `$` here too.


def test_no_secret_gets_into_an_environment_not_even_by_the_start_script_of_grafanas_image(services: dict[str, Any]) -> None:
    """It exports what the files of variables `…__FILE` hold."""
    for name, service in services.items():
        assert not [variable for variable in service.get("environment", {}) if variable.endswith("__FILE")], name


def test_ports_addresses_and_the_runs_folder_can_be_chosen(folder: Path) -> None:
    chosen = {
        "PROMETHEUS_PORT": "19090",
        "GRAFANA_PORT": "13000",
        "HF_ECO2AI_RUNS_DIR": "/srv/runs",
        "STACK_UID": "7",
        "STACK_GID": "8",
    }
    found = config(folder, PROFILES, **chosen)["services"]
    assert "--web.external-url=http://localhost:19090" in found["prometheus"]["command"]
    assert "--grafana-url=http://localhost:13000" in found["init"]["command"]
    assert found["grafana"]["environment"]["GF_SERVER_ROOT_URL"] == "http://localhost:13000"
    assert found["exporter"]["user"] == "7:8"
    runs = {name: volume for name, volume in mounts(found, "bind") if volume["target"] == "/runs"}
    assert {name: (volume["source"], volume.get("read_only", False)) for name, volume in runs.items()} == {
        "init": ("/srv/runs", False),
        "exporter": ("/srv/runs", True),
    }
    behind = config(folder, (), GRAFANA_URL="https://grafana.example.com")["services"]
    assert "--grafana-url=https://grafana.example.com" in behind["init"]["command"]


def test_without_a_folder_of_the_hosts_runs_are_in_a_volume_and_simulated_ones_always_in_another(
    services: dict[str, Any],
) -> None:
    runs = {name: volume["source"] for name, volume in mounts(services, "volume") if volume["target"] == "/runs"}
    assert runs == {"init": "runs", "exporter": "runs", "demo": "demo-runs", "demo-exporter": "demo-runs"}


def test_what_is_in_the_environment_of_a_shell_is_no_setting_that_hf_eco2ai_refuses(folder: Path) -> None:
    """A shell may have read .env. HF_ECO2AI_RUNS_DIR is a setting, and no other variable looks like one."""
    variables = set(re.findall(r"\$\{(\w+)", (folder / "docker-compose.yml").read_text()))
    ours = {name.removeprefix("HF_ECO2AI_").lower() for name in variables if name.startswith("HF_ECO2AI_")}
    assert ours <= CarbonConfig.model_fields.keys()


# What init renders


class Init:
    """The init service's own command, with folders of this machine for those of its container."""

    def __init__(self, services: dict[str, Any], folder: Path, root: Path) -> None:
        self.out, self.parts, self.runs = root / "out", root / "parts", root / "runs"
        places = {"/stack": folder, "/out": self.out, "/parts": self.parts, "/runs": self.runs, "/demo-runs": root / "demo-runs"}
        for place in places.values():
            place.mkdir(exist_ok=True)
        arguments = [str(argument) for argument in services["init"]["command"]]
        self.command = [re.sub("=(/.*)", lambda found: f"={places[found[1]]}", argument) for argument in arguments[1:]]
        assert arguments[0] == "stack"

    def run(self) -> Result:
        done = CliRunner().invoke(cli, ["stack", *self.command])
        assert done.exit_code == 0, (done.output, done.exception)
        return done

    def text(self, path: str) -> str:
        return (self.out / path).read_text(encoding="utf-8")


@pytest.fixture
def init(services: dict[str, Any], folder: Path, tmp_path: Path) -> Init:
    if os.geteuid() != 0:
        pytest.skip("gives files to other users")
    return Init(services, folder, tmp_path)


def test_init_renders_into_the_volumes_what_each_server_is_told_to_read(init: Init, services: dict[str, Any]) -> None:
    init.run()
    at = {
        (name, volume["target"]): init.out / volume["source"].removesuffix("-config")
        for name, volume in mounts(services, "volume")
        if volume["source"].endswith("-config") and name != "init"
    }
    rendered = {str(volume["target"]) for name, volume in mounts(services, "volume") if name == "init"}
    assert {f"/out/{path.name}" for path in at.values()} <= rendered
    grafana = services["grafana"]["environment"]
    read = [
        *(
            ("prometheus", services["prometheus"]["command"][0].partition("=")[2]),
            ("alertmanager", services["alertmanager"]["command"][0].partition("=")[2]),
        ),
        ("grafana", grafana["GF_SECURITY_ADMIN_PASSWORD"].removeprefix("$$__file{").removesuffix("}")),
        *(("grafana", grafana[name]) for name in ("GF_PATHS_PROVISIONING", "HF_DASHBOARDS")),
    ]
    for server, path in read:
        ((target, volume),) = ((target, volume) for (name, target), volume in at.items() if name == server)
        assert (volume / Path(path).relative_to(target)).exists(), path


def test_what_init_renders_passes_promtool_and_amtool(init: Init) -> None:
    init.run()
    for command in (
        ["promtool", "check", "config", f"{init.out}/prometheus/prometheus.yml"],
        ["amtool", "check-config", f"{init.out}/alertmanager/alertmanager.yml"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        # Alertmanager's templates are named by where its container sees them.
        assert done.returncode == 0 or "/etc/alertmanager/templates" in done.stderr, done.stdout + done.stderr


def test_targets_are_the_services_that_are_there_by_name_and_port(init: Init, services: dict[str, Any]) -> None:
    for profile in PROFILES:
        (init.parts / profile).touch()
    init.run()
    targets = [json.loads(path.read_text()) for path in (init.out / "prometheus" / "targets").glob("*.json")]
    addresses = {address for groups in targets for group in groups for address in group["targets"]}
    assert addresses == {"exporter:9091", "node-exporter:9100", "prometheus:9090", "alertmanager:9093"} | {
        "dcgm-exporter:9400",
        "demo-exporter:9091",
    }
    assert {address.partition(":")[0] for address in addresses} <= set(services)


def test_a_password_for_grafana_is_said_once_and_kept(init: Init) -> None:
    first, second = init.run(), init.run()
    password = init.text("grafana/secrets/admin_password")
    assert password in first.output
    assert password not in second.output
    assert init.text("grafana/secrets/admin_password") == password


def test_parts_are_on_as_long_as_their_profile_is(init: Init, services: dict[str, Any]) -> None:
    for profile in PROFILES:
        (touched,) = services[f"part-{profile}"]["command"]
        assert services[f"part-{profile}"]["entrypoint"] == ["touch"]
        (init.parts / Path(touched).relative_to("/parts")).touch()
    init.run()
    source = yaml.safe_load(init.text("grafana/provisioning/datasources/hf-eco2ai-longterm.yml"))["datasources"][0]
    assert source["url"] == "http://victoriametrics:8428"
    written = yaml.safe_load(init.text("prometheus/prometheus.yml"))["remote_write"]
    assert written == [{"url": "http://victoriametrics:8428/api/v1/write"}]
    assert list(init.parts.iterdir()) == []
    init.run()  # At the next start without them.
    assert "remote_write" not in yaml.safe_load(init.text("prometheus/prometheus.yml"))
    assert json.loads(init.text("prometheus/targets/dcgm.json")) == []
    assert json.loads(init.text("prometheus/targets/hf-eco2ai.json")) == [{"targets": ["exporter:9091"]}]
    assert not (init.out / "grafana/provisioning/datasources/hf-eco2ai-longterm.yml").exists()


def test_a_runs_folder_that_docker_has_just_made_is_given_to_who_trains_and_no_other_is(init: Init) -> None:
    init.run()
    status = init.runs.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (1000, 1000, 0o700)
    os.chown(init.runs, 0, 0)
    (init.runs / "a.ndjson").touch()
    init.run()
    assert init.runs.stat().st_uid == 0


@as_root
def test_the_capabilities_of_init_are_enough_for_secrets_of_another_user(init: Init, folder: Path, tmp_path: Path) -> None:
    """Root without them could neither read what only its owner may, nor give it to Alertmanager."""
    secrets = Secrets(folder / "secrets")
    path = secrets.put("slack_url", HOOK)
    try:
        os.chown(path, 1000, 1000)
        rights = ",".join(["-all", *(f"+{name.lower()}" for name in CAPABILITIES["init"])])
        confined = ["setpriv", f"--bounding-set={rights}", "--inh-caps=-all", "--no-new-privs"]
        code = "from hf_eco2ai.stack.commands import stack; stack()"
        command = [*confined, sys.executable, "-c", code, *init.command]
        for _ in range(2):  # The second time over what has been given away.
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            assert HOOK not in done.stdout + done.stderr
    finally:
        path.unlink()
    kept = init.out / "alertmanager" / "secrets" / "slack_url"
    assert (kept.read_text(), kept.stat().st_uid, kept.stat().st_mode & 0o777) == (HOOK, NOBODY, 0o400)
    others = [path for part in ("prometheus", "grafana") for path in (init.out / part).rglob("*") if path.is_file()]
    assert not any(HOOK.encode() in path.read_bytes() for path in others)


# What the exporter does


@contextmanager
def measured(runs: Path) -> Iterator[None]:
    """A run of a real command by an ordinary user, who has the runs folder for himself."""
    command = ["monitor", "--quiet", "--project", "compose", "--set", "simulated_gpus=1", "--", "sleep", "600"]
    environ = {"HF_ECO2AI_RUNS_DIR": str(runs), "HF_ECO2AI_EXPORT_PROMETHEUS": "false"}
    code = "from hf_eco2ai.cli import main; main()"
    running = start(ordinary_user(), ["-c", code, *command], cwd=runs, environ=environ, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        for process in [*psutil.Process(running.pid).children(recursive=True), psutil.Process(running.pid)]:
            process.kill()
        running.wait()


class Contained(Daemon):
    """As in its container: the folder mounted read-only, process 1 of a namespace, an ordinary user without a capability."""

    def __init__(self, runs: Path, options: list[str]) -> None:
        account = ordinary_user()
        confined = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs"
        program = shlex.join([account.python, "-c", "from hf_eco2ai.cli import main; main()"])
        script = f'mount --bind {runs} {runs} && mount -o remount,bind,ro {runs} && exec {confined} {program} "$@"'
        self._log = runs.parent / "exporter.log"
        namespaces = ["--mount", "--pid", "--fork", "sh", "-c", script, "sh"]
        with self._log.open("wb") as log:
            unshare = account._replace(python="unshare", popen={})
            self.process = start(unshare, [*namespaces, *options], stderr=log, stdin=subprocess.DEVNULL, cwd="/")

    def stop(self) -> int:
        """As Docker does: SIGTERM to its process 1."""
        (first,) = psutil.Process(self.process.pid).children()
        first.terminate()
        return self.process.wait(60)

    def values(self, family: str) -> list[float]:
        return [value for name, value in self.series().items() if name.startswith(family + "{")]


@contextmanager
def contained(runs: Path, options: list[str]) -> Iterator[Contained]:
    exporter = Contained(runs, options)
    try:
        exporter.ready()
        yield exporter
        assert exporter.stop() == 0, exporter.text
    finally:
        if exporter.process.poll() is None:
            for child in psutil.Process(exporter.process.pid).children(recursive=True):
                child.kill()
            exporter.process.wait()


def folder_of_nobody(runs: Path) -> Path:
    """Which that user can reach: pytest's own folders are root's only."""
    runs.mkdir(mode=0o700)
    os.chown(runs, NOBODY, NOBODY)
    for parent in takewhile(lambda parent: parent != Path(tempfile.gettempdir()), runs.parents):
        parent.chmod(0o755)
    return runs


@as_root
def test_the_exporter_serves_a_folder_that_it_may_only_read_from_a_container(services: dict[str, Any], tmp_path: Path) -> None:
    runs = folder_of_nobody(tmp_path / "runs")
    places = {"/runs": str(runs), "0.0.0.0": "127.0.0.1", "9091": str(free_ports(1)[0])}  # noqa: S104 - replaced
    options = [places.get(argument, argument) for argument in services["exporter"]["command"]]
    with ExitStack() as at_end:
        run = at_end.enter_context(ExitStack())
        run.enter_context(measured(runs))
        until(lambda: list(runs.glob("*.ndjson")))
        exporter = at_end.enter_context(contained(runs, options))
        until(lambda: exporter.values("hf_training_running") == [1.0])
        assert exporter.values("hf_training_energy_kwh_total")
        assert "cannot be written (Read-only file system)" in exporter.text
        assert exporter.values("hf_exporter_failures_total") == [1.0]
        run.close()  # Killed: only the lock on its journal tells that to another namespace.
        until(lambda: exporter.values("hf_training_running") == [0.0])
        assert exporter.values("hf_exporter_failures_total") == [1.0]


def test_the_demos_command_is_one_that_the_example_takes(services: dict[str, Any], folder: Path) -> None:
    program, script, *arguments = services["demo"]["command"]
    assert (program, script) == ("python", "/demo/train_tiny_gpt2.py")
    source = ast.parse((folder / "examples" / "train_tiny_gpt2.py").read_text())
    (parse,) = [node for node in source.body if isinstance(node, ast.FunctionDef) and node.name == "parse_arguments"]
    code = f"import argparse\nfrom pathlib import Path\n{ast.unparse(parse)}\nprint(parse_arguments())"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert "simulated_gpus=8" in done.stdout, done.stderr


def test_an_undefined_volume_would_be_found(folder: Path, tmp_path: Path) -> None:
    """The test's own test: Compose does look."""
    text = (folder / "docker-compose.yml").read_text().replace("\n  prometheus-data:\n", "\n")
    (tmp_path / "docker-compose.yml").write_text(text)
    assert "prometheus-data" in compose(tmp_path, "config", "--quiet").stderr
