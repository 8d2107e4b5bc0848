"""How each server of the stack is started without a container: its program, arguments, port and what says that it is ready."""

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hf_eco2ai.errors import ConfigError
from hf_eco2ai.stack.ports import LOOPBACK
from hf_eco2ai.stack.state import Data, Running

USUAL_PORTS = {"exporter": 9091, "prometheus": 9090, "alertmanager": 9093, "grafana": 3000, "node": 9100}
"""Each project's own default; the exporter's is that of the setting `prometheus_port`."""

RETENTION_TIME, RETENTION_SIZE = "90d", "50GB"
"""As in docker-compose.yml."""

_PROGRAMS = {
    "prometheus": ("prometheus",),
    "alertmanager": ("prometheus-alertmanager", "alertmanager"),  # Debian's name, and the project's
    "grafana": ("grafana-server", "grafana"),  # until 12, and since 9.3
    "node": ("prometheus-node-exporter", "node_exporter"),
}
_NEEDED = ("prometheus", "alertmanager")

_GRAFANA_HOME = Path("/usr/share/grafana")
"""Of Grafana's own packages for Debian and Fedora."""


@dataclass(frozen=True)
class Options:
    """What is the same for all servers' arguments."""

    data: Data
    runs: Path
    ports: Mapping[str, int]
    retention_time: str
    retention_size: str


@dataclass(frozen=True)
class Server:
    """One that is to be started."""

    name: str
    argv: tuple[str, ...]
    port: int
    ready: str
    folder: Path
    """Where it runs."""

    @property
    def url(self) -> str:
        """Where it is asked."""
        return f"http://{LOOPBACK}:{self.port}"


def programs() -> dict[str, Path]:
    """Servers to their programs, as far as they are on PATH.

    Raises:
        ConfigError: one is missing that has to be there.

    """
    found = {}
    for name, names in _PROGRAMS.items():
        path = next(filter(None, map(shutil.which, names)), None)
        if path is not None:
            found[name] = Path(path)
        elif name in _NEEDED:
            raise ConfigError(
                f"{' or '.join(names)} is not on PATH. Debian and Ubuntu: apt-get install prometheus prometheus-alertmanager. "
                "Elsewhere unpack both from https://prometheus.io/download and put their folders on PATH; that needs no root"
            )
    return found


def public(running: Running) -> str:
    """What a person types. With `ssh -L` it is the same on the machine that he sits at."""
    return f"http://localhost:{running.port}" if running.url.startswith(f"http://{LOOPBACK}:") else running.url


def exporter(options: Options, *, open_web: Path | None) -> Server:
    """`hf-eco2ai serve` for the runs folder, also of other hosts that share it. It runs where we do, where its settings are.

    `open_web` is a web config without TLS and passwords, against one in the settings: Prometheus on the same machine needs none.
    """
    script = Path(sys.executable).with_name("hf-eco2ai")
    ours = (str(script),) if script.exists() else (sys.executable, "-c", "from hf_eco2ai.cli import main; main()")
    port = options.ports["exporter"]
    argv = (*ours, "serve", "--host", LOOPBACK, "--port", str(port), "--runs-dir", str(options.runs), "--wait", "--all-hosts")
    argv += ("--state-dir", str(options.data.folder("exporter")))
    return Server("exporter", argv + (("--web.config.file", str(open_web)) if open_web else ()), port, "/readyz", Path.cwd())


def prometheus(program: Path, options: Options) -> Server:
    """Keeps what it has scraped, and sends alerts."""
    port, folder = options.ports["prometheus"], options.data.folder("prometheus")
    argv = (
        str(program),
        f"--config.file={options.data.config}/prometheus/prometheus.yml",
        f"--storage.tsdb.path={folder}",
        f"--storage.tsdb.retention.time={options.retention_time}",
        f"--storage.tsdb.retention.size={options.retention_size}",
        f"--web.listen-address={LOOPBACK}:{port}",
        f"--web.external-url=http://localhost:{port}",  # In alerts' links, which would name this machine as only it knows itself.
    )
    return Server("prometheus", argv, port, "/-/ready", folder)


def alertmanager(program: Path, options: Options) -> Server:
    """Delivers alerts. Without cluster address, as it would open a second port, on all interfaces."""
    port, folder = options.ports["alertmanager"], options.data.folder("alertmanager")
    argv = (
        str(program),
        f"--config.file={options.data.config}/alertmanager/alertmanager.yml",
        f"--storage.path={folder}",
        f"--web.listen-address={LOOPBACK}:{port}",
        f"--web.external-url=http://localhost:{port}",
        "--cluster.listen-address=",
    )
    return Server("alertmanager", argv, port, "/-/ready", folder)


def node(program: Path, options: Options) -> Server:
    """The machine's CPU, memory, disks and network."""
    port = options.ports["node"]
    return Server("node", (str(program), f"--web.listen-address={LOOPBACK}:{port}"), port, "/metrics", options.data.root)


def grafana(program: Path, options: Options, prometheus_url: str) -> Server:
    """Dashboards. Set up by variables alone, with `env`, as its configuration file is the system's; the password is in a file."""
    port, folder, config = options.ports["grafana"], options.data.folder("grafana"), options.data.config / "grafana"
    settings = {
        "GF_PATHS_DATA": folder,
        "GF_PATHS_LOGS": folder / "log",
        "GF_PATHS_PLUGINS": folder / "plugins",
        "GF_PATHS_PROVISIONING": config / "provisioning",
        "GF_SERVER_HTTP_ADDR": LOOPBACK,
        "GF_SERVER_HTTP_PORT": port,
        "GF_SERVER_ROOT_URL": f"http://localhost:{port}",
        # Read by Grafana itself when its database is made. `…__FILE` is known to the start script of its image alone.
        "GF_SECURITY_ADMIN_PASSWORD": f"$__file{{{config / 'secrets' / 'admin_password'}}}",
        "GF_AUTH_ANONYMOUS_ENABLED": "false",
        "GF_USERS_ALLOW_SIGN_UP": "false",
        "GF_SECURITY_DISABLE_GRAVATAR": "true",
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
        "GF_PLUGINS_PREINSTALL_DISABLED": "true",  # else it loads some from the internet at its start
        "HF_PROMETHEUS_URL": prometheus_url,
        "HF_DASHBOARDS": config / "dashboards",
    }
    command = (str(program), "server") if program.name == "grafana" else (str(program),)
    home = _grafana_home(program)
    argv = (
        "env",
        *(f"{name}={value}" for name, value in settings.items()),
        *command,
        *(("--homepath", str(home)) if home else ()),
    )
    return Server("grafana", argv, port, "/api/health", folder)


def _grafana_home(program: Path) -> Path | None:
    """Where Grafana has its defaults and pages: beside bin/ as it is unpacked, or where packages put them."""
    for home in (program.resolve().parent.parent, _GRAFANA_HOME):
        if (home / "conf" / "defaults.ini").is_file():
            return home
    return None
