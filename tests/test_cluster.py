"""What docs/cluster.md and its examples say is so: the unit, the DaemonSet, SLURM's scripts, and each snippet."""

import json
import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import bcrypt
import click
import pytest
import yaml

from hf_eco2ai.cli import cli
from hf_eco2ai.config import CarbonConfig
from hf_eco2ai.journal.announce import TargetFile
from hf_eco2ai.journal.format import ProcessIdentity
from hf_eco2ai.outputs import web_config, web_settings
from hf_eco2ai.outputs.api_models import RunList
from hf_eco2ai.outputs.limits import Limits
from hf_eco2ai.serve import systemd_unit
from hf_eco2ai.serve_options import read_token

ROOT = Path(__file__).parents[1]
DOC = (ROOT / "docs/cluster.md").read_text(encoding="utf-8")
DAEMONSET = ROOT / "examples/kubernetes/daemonset.yaml"
SLURM = ROOT / "examples/slurm"

SERVE = cli.commands["serve"]
OPTIONS = {name for parameter in SERVE.params for name in parameter.opts}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", DOC, re.DOTALL | re.MULTILINE)


def block(language: str, with_text: str) -> str:
    (found,) = [text for text in blocks(language) if with_text in text]
    return found


def run(*command: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **more)


def parse_serve(arguments: list[str]) -> None:
    """Raises click.UsageError for what `serve` does not know."""
    # Below its group, as on the command line: click keeps a command's `--help` as it was first made.
    with SERVE.make_context("serve", list(arguments), parent=click.Context(cli, info_name="hf-eco2ai", **cli.context_settings)):
        pass


# systemd


def complaints_about(unit: str, folder: Path) -> str:
    path = folder / "hf-eco2ai.service"
    path.write_text(unit, encoding="utf-8")
    said = run("systemd-analyze", "verify", "--man=no", path)
    return "\n".join(line for line in (said.stdout + said.stderr).splitlines() if "hf-eco2ai" in line)


def test_systemd_has_nothing_to_say_against_the_unit(tmp_path: Path) -> None:
    unit = systemd_unit(["hf-eco2ai", "serve", "--systemd-unit"])
    assert complaints_about(unit, tmp_path) == ""
    assert "ProtectSytem" in complaints_about(unit.replace("ProtectSystem", "ProtectSytem"), tmp_path)


def test_the_drop_in_of_the_docs_is_one(tmp_path: Path) -> None:
    (drop_in,) = blocks("ini")
    assert complaints_about(systemd_unit(["hf-eco2ai", "serve"]) + drop_in, tmp_path) == ""


def test_the_unit_is_exposed_by_less_than_two_of_ten(tmp_path: Path) -> None:
    path = tmp_path / "hf-eco2ai.service"
    path.write_text(systemd_unit(["hf-eco2ai", "serve"]), encoding="utf-8")
    said = run("systemd-analyze", "security", "--no-pager", "--offline=yes", path).stdout
    (exposure,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert float(exposure) < 2.0


def test_the_unit_runs_the_command_that_has_printed_it() -> None:
    argv = ["hf-eco2ai", "serve", "--node", "--systemd-unit", "--runs-dir", "/srv/our runs", "--set", "country=DE"]
    unit = systemd_unit(argv)
    program = str(Path(sys.executable).with_name("hf-eco2ai"))
    expected = [program, "serve", "--node", "--runs-dir", "/srv/our runs", "--set", "country=DE"]
    commands = dict(re.findall(r"^(ExecStart|ExecStartPre)=(.*)$", unit, re.MULTILINE))
    assert shlex.split(commands["ExecStart"]) == expected
    assert shlex.split(commands["ExecStartPre"]) == [*expected, "--check"]
    assert Path(program).is_file()
    assert 'ReadWritePaths=/var/lib/hf-eco2ai -"/srv/our runs"' in unit.splitlines()


def test_without_a_named_folder_the_unit_waits_for_that_of_the_host() -> None:
    unit = systemd_unit(["hf-eco2ai", "serve"])
    (command,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    assert command.endswith(" serve --runs-dir /var/lib/hf-eco2ai/runs --wait")
    assert "ReadWritePaths=/var/lib/hf-eco2ai" in unit.splitlines()


def test_paths_in_the_unit_do_not_hang_on_the_folder_that_it_was_printed_in() -> None:
    argv = ["hf-eco2ai", "serve", "--runs-dir=runs", "--state-dir", "state", "--web.config.file", "web.yml"]
    (command,) = re.findall(r"^ExecStart=(.*)$", systemd_unit(argv), re.MULTILINE)
    here = Path.cwd()
    assert shlex.split(command)[2:] == [f"--runs-dir={here}/runs", "--state-dir", f"{here}/state", *argv[5:6], f"{here}/web.yml"]


def test_what_systemd_would_expand_is_escaped_in_the_unit(tmp_path: Path) -> None:
    """Specifiers (`%h`), variables (`$HOME`, `${HOME}`) and backslashes: systemd.service(5), systemd.syntax(7)."""
    argv = ["hf-eco2ai", "serve", "--runs-dir", "/r", "--set", 'project_name=%h $HOME ${HOME} a\\b "c"']
    unit = systemd_unit(argv)
    (command,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    assert command.endswith(' --set "project_name=%%h $$HOME $${HOME} a\\\\b \\"c\\""')
    assert complaints_about(unit, tmp_path) == ""


# Kubernetes


def pod(manifest: Mapping[str, Any]) -> Any:
    return manifest["spec"] if manifest["kind"] == "Pod" else manifest["spec"]["template"]["spec"]


def daemonset() -> Any:
    return yaml.safe_load(DAEMONSET.read_text(encoding="utf-8"))


def training_pod() -> Any:
    return yaml.safe_load(block("yaml", "kind: Pod"))


@pytest.mark.parametrize("manifest", [daemonset(), training_pod()], ids=["daemonset", "training"])
def test_manifests_are_right_by_kubernetes_own_schema(manifest: Any, tmp_path: Path) -> None:
    path = tmp_path / "manifest.yaml"
    path.write_text(yaml.safe_dump(manifest), encoding="utf-8")
    done = run(sys.executable, "-m", "kubernetes_validate", "--strict", path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("manifest", [daemonset(), training_pod()], ids=["daemonset", "training"])
def test_what_a_manifest_mounts_is_there(manifest: Any) -> None:
    spec = pod(manifest)
    volumes = {volume["name"] for volume in spec["volumes"]}
    for container in (*spec["containers"], *spec.get("initContainers", ())):
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_the_daemonset_gives_options_that_serve_has() -> None:
    (container,) = pod(daemonset())["containers"]
    assert container["command"] == ["hf-eco2ai", "serve"]
    parse_serve([argument.replace("$(NODE_IP)", "192.0.2.1") for argument in container["args"]])
    with pytest.raises(click.UsageError):
        parse_serve(["--runs-directory=/tmp"])


def test_the_training_pod_is_in_the_group_of_the_folder_that_it_mounts() -> None:
    served, training = pod(daemonset()), pod(training_pod())
    assert training["securityContext"]["supplementalGroups"] == [served["securityContext"]["runAsGroup"]]
    (data, _), (runs,) = served["volumes"], training["volumes"]
    assert runs["hostPath"]["path"] == f"{data['hostPath']['path']}/runs"
    assert f"--runs-dir={runs['hostPath']['path']}" in served["containers"][0]["args"]


def test_the_init_container_makes_the_folders_without_any_capability(tmp_path: Path) -> None:
    (folder,) = pod(daemonset())["initContainers"]
    shell, flag, script = folder["command"]
    group = os.getgid()
    command = [shell, flag, script.replace("/var/lib/hf-eco2ai", shlex.quote(str(tmp_path)))]
    if os.getuid() == 0:
        group = pod(daemonset())["securityContext"]["runAsGroup"]
        powerless = ["setpriv", f"--regid={group}", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]
        command = [*powerless, *command]
    for _ in ("the first pod", "the next one"):
        done = run(*command)
        assert (done.returncode, done.stderr) == (0, "")
        made = {entry.name: entry.stat() for entry in tmp_path.iterdir()}
        assert {name: (stat.S_IMODE(status.st_mode), status.st_gid) for name, status in made.items()} == {
            "runs": (0o2770, group),
            "state": (0o770, group),
        }


# SLURM


class Site:
    """A node of a cluster whose scripts read their settings from a file of ours."""

    def __init__(self, folder: Path) -> None:
        self.runs = folder / "lib" / "runs"
        self.targets = folder / "shared"
        self.targets.mkdir()
        self._settings = folder / "settings"
        self._scripts = folder
        for name in ("prolog.sh", "epilog.sh"):
            script = (SLURM / name).read_text(encoding="utf-8")
            assert "SITE=/etc/default/hf-eco2ai\n" in script
            (folder / name).write_text(script.replace("SITE=/etc/default/hf-eco2ai", f"SITE={self._settings}"), encoding="utf-8")
        self.set()

    def set(self, **settings: object) -> None:
        owner = run("id", "-un").stdout.strip(), run("id", "-gn").stdout.strip()
        known: dict[str, object] = {"RUNS_DIR": self.runs, "OWNER": owner[0], "GROUP": owner[1], **settings}
        self._settings.write_text("".join(f"{name}={value}\n" for name, value in known.items()), encoding="utf-8")

    def call(self, script: str, context: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """As SLURM does: without a PATH, and with a job's variables."""
        job = {"SLURM_JOB_ID": "123456", "SLURM_JOB_USER": "alice", "SLURM_JOB_PARTITION": "gpu", "SLURMD_NODENAME": "node-7"}
        done = run("/bin/sh", self._scripts / script, env={"SLURM_SCRIPT_CONTEXT": context, **job, **environment})
        assert done.returncode == 0, "SLURM would drain the node"
        return done


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_the_scripts_for_slurm_pass_shellcheck() -> None:
    done = run("shellcheck", "--shell=sh", SLURM / "prolog.sh", SLURM / "epilog.sh")
    assert (done.returncode, done.stdout) == (0, "")


def test_the_prolog_makes_the_runs_folder_for_its_group(site: Site) -> None:
    assert site.call("prolog.sh", "prolog_slurmd").stderr == ""
    assert stat.S_IMODE(site.runs.stat().st_mode) == 0o2770
    assert list(site.targets.iterdir()) == []
    site.runs.chmod(0o3770)
    site.call("prolog.sh", "prolog_slurmd")
    assert stat.S_IMODE(site.runs.stat().st_mode) == 0o3770, "one that is there is the site's own affair"


def test_tasks_are_told_the_folder_unless_their_user_has_named_one(site: Site) -> None:
    assert site.call("prolog.sh", "prolog_task").stdout == "", "a folder that cannot be written is of no use to them"
    site.call("prolog.sh", "prolog_slurmd")
    assert site.call("prolog.sh", "prolog_task").stdout == f"export HF_ECO2AI_RUNS_DIR={site.runs}\n"
    assert site.call("prolog.sh", "prolog_task", HF_ECO2AI_RUNS_DIR="/home/alice/runs").stdout == ""


def test_without_a_daemon_prometheus_finds_a_job_where_its_tasks_are_told_to_be(site: Site, tmp_path: Path) -> None:
    site.set(TARGETS_DIR=site.targets, WEB_CONFIG="/etc/hf-eco2ai/web.yml")
    site.call("prolog.sh", "prolog_slurmd")
    config = block("yaml", "hf_eco2ai_jobs").replace("/shared/prometheus", str(site.targets))
    ((target, labels),) = discovered(config, "hf_eco2ai_jobs", tmp_path)
    assert target == "node-7:23456"
    assert (labels["slurm_job_id"], labels["slurm_user"], labels["slurm_partition"]) == ("123456", "alice", "gpu")
    said = site.call("prolog.sh", "prolog_task", HF_ECO2AI_RUNS_DIR="/home/alice/runs").stdout
    told = dict(line.removeprefix("export ").split("=") for line in said.splitlines())
    assert told == {
        "HF_ECO2AI_PROMETHEUS_HOST": "0.0.0.0",  # noqa: S104 - what is printed, not what we bind
        "HF_ECO2AI_PROMETHEUS_PORT": "23456",
        "HF_ECO2AI_PROMETHEUS_WEB_CONFIG": "/etc/hf-eco2ai/web.yml",
    }
    site.call("epilog.sh", "epilog_slurmd")
    assert list(site.targets.iterdir()) == []


def test_names_with_quotes_do_not_break_what_prometheus_reads(site: Site) -> None:
    site.set(TARGETS_DIR=site.targets)
    site.call("prolog.sh", "prolog_slurmd", SLURM_JOB_USER='al"ice\n', SLURMD_NODENAME="../node 7")
    (file,) = site.targets.iterdir()
    assert json.loads(file.read_text())[0]["labels"]["slurm_user"] == "alice"
    site.call("epilog.sh", "epilog_slurmd", SLURMD_NODENAME="../node 7")
    assert not file.exists()


def test_what_fails_in_a_prolog_is_said_and_drains_no_node(site: Site, tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    site.set(TARGETS_DIR=tmp_path / "nowhere", RUNS_DIR=shlex.quote(str(tmp_path / "a file" / "runs")))
    said = site.call("prolog.sh", "prolog_slurmd").stderr
    assert "runs cannot be made" in said
    assert "node-7.json cannot be written" in said
    assert "not called by SLURM" in site.call("prolog.sh", "").stderr
    assert site.call("epilog.sh", "epilog_slurmd").stderr == ""


def test_the_settings_file_of_the_docs_has_names_that_the_scripts_know() -> None:
    script = (SLURM / "prolog.sh").read_text(encoding="utf-8")
    for name in re.findall(r"^([A-Z_]+)=", block("sh", "TARGETS_DIR="), re.MULTILINE):
        assert re.search(rf"^{name}=", script, re.MULTILINE), name


# Prometheus


def promtool_config(text: str, folder: Path) -> Path:
    """With the files that it names. Debian's Prometheus is built without Kubernetes, so targets stand in for its discovery."""
    content = yaml.safe_load(text.replace("/etc/prometheus/hf-eco2ai", str(folder)))
    for scrape in content["scrape_configs"]:
        for discovery in scrape.pop("kubernetes_sd_configs", ()):
            assert (discovery["role"], discovery.keys()) == ("pod", {"role", "selectors"})
            scrape["static_configs"] = [{"targets": ["192.0.2.1:9091"]}]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    for name in ("ca.crt", "client.crt", "client.key", "password"):
        (folder / name).touch()
    return path


def discovered(config: str, job: str, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Targets that are left after relabelling, and their labels."""
    done = run("promtool", "check", "service-discovery", "--timeout=3s", promtool_config(config, folder), job)
    found = [entry["labels"] for entry in json.loads(done.stdout[done.stdout.index("[") :])]
    return ((labels["__address__"], labels) for labels in found if labels)


@pytest.mark.parametrize("config", [text for text in blocks("yaml") if "scrape_configs" in text])
def test_prometheus_takes_the_scrape_configs_of_the_docs(config: str, tmp_path: Path) -> None:
    done = run("promtool", "check", "config", promtool_config(config, tmp_path))
    assert done.returncode == 0, done.stderr


def test_prometheus_selects_the_pods_of_the_daemonset() -> None:
    (scrape,) = yaml.safe_load(block("yaml", "kubernetes_sd_configs"))["scrape_configs"]
    ((selector,),) = (discovery["selectors"] for discovery in scrape["kubernetes_sd_configs"])
    name, _, value = selector["label"].partition("=")
    assert daemonset()["spec"]["template"]["metadata"]["labels"] == {name: value}
    (container,) = pod(daemonset())["containers"]
    assert [port["name"] for port in container["ports"]] == [scrape["relabel_configs"][0]["regex"]]


def test_of_endpoints_in_a_shared_folder_a_prometheus_keeps_those_that_it_can_reach(tmp_path: Path) -> None:
    process = ProcessIdentity(pid=1, started=0.0, boot_id="", pid_namespace="")
    urls = {
        "node-1": ["http://127.0.0.1:9091", "http://node-1:9092", "http://[::1]:9093"],
        "node-2": ["http://127.0.0.1:9094", "https://node-2:9095", "http://localhost:9096"],
    }
    for host, addresses in urls.items():
        for number, url in enumerate(addresses):
            TargetFile(tmp_path, url, f"run{number}", host, process)
    config = block("yaml", "*.target.json").replace("/var/lib/hf-eco2ai/runs", str(tmp_path))
    kept = dict(discovered(config, "hf_eco2ai", tmp_path))
    assert kept.keys() == {"127.0.0.1:9091", "node-1:9092", "[::1]:9093", "node-2:9095"}
    assert kept["node-2:9095"]["__scheme__"] == "https"


def test_prometheus_takes_the_expressions_of_the_docs(tmp_path: Path) -> None:
    section = DOC.partition("## What to watch")[2]
    expressions = re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
    assert len(expressions) > 3
    rules = [{"record": f"watched:{number}", "expr": expression} for number, expression in enumerate(expressions)]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "docs", "rules": rules}]}), encoding="utf-8")
    done = run("promtool", "check", "rules", path)
    assert done.returncode == 0, done.stderr


# Opening it up


def test_the_web_config_of_the_docs_works_with_the_certificates_of_the_docs(tmp_path: Path) -> None:
    made = run("sh", "-ec", block("sh", "-CAkey"), cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert run("openssl", "verify", "-CAfile", "ca.crt", "server.crt", "client.crt", cwd=tmp_path).returncode == 0
    path = tmp_path / "web.yml"
    path.write_text(block("yaml", "tls_server_config"), encoding="utf-8")
    path.chmod(0o600)
    (tmp_path / "server.key").chmod(0o600)
    config = web_config.load(path)
    assert config.tls is not None
    assert config.warnings == ()
    assert bcrypt.checkpw(b"change me", config.users["prometheus"].encode())
    assert config.rate_limit == web_config.RateLimit(interval=1.0, burst=20)


def test_the_one_line_that_hashes_a_password_makes_what_a_web_config_takes() -> None:
    line = block("sh", "gensalt").replace("python ", f"{sys.executable} ", 1)
    hashed = run("sh", "-c", line, input="change me\n", start_new_session=True).stdout.strip().splitlines()[-1]
    settings = web_settings.parse(yaml.safe_dump({"basic_auth_users": {"prometheus": hashed}}).encode())
    assert bcrypt.checkpw(b"change me", settings.basic_auth_users["prometheus"].encode())


def test_the_token_of_the_docs_is_one(tmp_path: Path) -> None:
    first = block("sh", "openssl rand").splitlines()[0]
    assert run("sh", "-c", first.replace("/etc/hf-eco2ai", str(tmp_path))).returncode == 0
    assert len(read_token(tmp_path / "token")) == 64


# The words


def test_every_command_of_the_docs_is_one_that_serve_takes() -> None:
    text = "\n".join([*blocks("sh"), *blocks("console")])
    commands = re.findall(r"\bhf-eco2ai serve( .*)?$", text, re.MULTILINE)
    assert len(commands) > 3
    for command in commands:
        parse_serve(shlex.split(command.partition(">")[0], comments=True))


def test_every_shell_snippet_of_the_docs_is_well_formed() -> None:
    for snippet in blocks("sh"):
        done = run("sh", "-n", input=snippet)
        assert done.returncode == 0, done.stderr


def test_every_option_and_setting_of_the_docs_exists() -> None:
    named = set(re.findall(r"`(--[a-z][a-z.-]*)", DOC))
    assert len(named) > 8
    assert named <= OPTIONS
    settings = {name.lower() for name in re.findall(r"\bHF_ECO2AI_([A-Z_]*[A-Z])\b", DOC)}
    settings |= set(re.findall(r"^\| `([a-z_]+)` \((?:\d+|true)\) \|", DOC, re.MULTILINE))
    assert len(settings) > 6
    assert settings <= CarbonConfig.model_fields.keys()


def test_the_limits_of_the_docs_are_those_of_the_server() -> None:
    limits = Limits()
    rows = dict(re.findall(r"^\| ([^|`]+) \| ([^|]+) \|", DOC.partition("| limit |")[2], re.MULTILINE))
    assert rows["scrapes answered at once"].startswith(f"{limits.requests} ")
    assert rows["connections"] == str(limits.connections)
    assert rows["headers of a request"] == f"{limits.header_bytes // 1024} KiB"
    assert rows["body of a request"] == f"{limits.body_bytes // 1024} KiB"
    assert rows["a whole request, a TLS handshake"] == f"{limits.header_seconds:g} s"
    assert rows["taking an answer"].startswith(f"{limits.send_seconds:g} s; {limits.stall_seconds:g} s ")
    assert rows["between two requests"] == f"{limits.keep_alive_seconds:g} s"


def test_the_answer_in_the_docs_is_one_of_the_api() -> None:
    (said,) = blocks("console")
    answer = said.partition("\n")[2].replace("\n", "")
    runs = RunList.model_validate_json(answer)
    assert json.loads(answer) == runs.model_dump(mode="json")
