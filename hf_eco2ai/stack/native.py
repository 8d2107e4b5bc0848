"""The stack without containers: servers found on PATH, as processes of one's own, that stay until `stack down`."""

import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from hf_eco2ai.config import CarbonConfig
from hf_eco2ai.errors import ConfigError
from hf_eco2ai.journal.announce import daemon_of
from hf_eco2ai.journal.folder import runs_folder
from hf_eco2ai.journal.read import Here
from hf_eco2ai.journal.write import make_folder
from hf_eco2ai.stack import asked, ports, processes, servers
from hf_eco2ai.stack.chosen import Chosen
from hf_eco2ai.stack.processes import Interrupted
from hf_eco2ai.stack.render import JOBS, Place, Rendered, render
from hf_eco2ai.stack.servers import RETENTION_SIZE, RETENTION_TIME, USUAL_PORTS, Options, Server, public
from hf_eco2ai.stack.state import Data, Running, State

END_SECONDS = 30.0
"""Prometheus writes what it has in memory to disk before it ends; Compose and Kubernetes wait 10 and 30 s for such."""

LAST_LINES = 8
"""Of the log of a server that has died."""

_LOOK_SECONDS = 0.05

_JOB_OF = {"exporter": "hf-eco2ai", "prometheus": "prometheus", "alertmanager": "alertmanager", "node": "node"}
"""Servers to the scrape jobs that watch them. Grafana is watched by nobody: the stack has no job for it."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """What `stack up` is told. Ports that are not named are found."""

    data: Data
    chosen: Chosen = field(default_factory=Chosen)
    forget: bool = False
    """Nothing is taken over from the last time."""
    seconds: float = 60.0
    """So long may a server take until it is ready."""


@dataclass(frozen=True)
class Up:
    """What is running now."""

    state: State
    rendered: Rendered
    already: tuple[Running, ...]


def up(wanted: Wanted, say: Say) -> Up:
    """Start what does not run yet, wait until all is ready, and have what runs already read its files anew.

    Raises:
        ConfigError: a program is missing, a port is taken, a file is wrong, or a server does not get ready; then what was
            started is ended.

    """
    programs = servers.programs()
    wanted.data.make()
    with wanted.data.alone():
        before = wanted.data.read() or State(host=socket.gethostname())
        wanted = _as_last_time(wanted, before.chosen, say)
        already = before.living()
        _stop([server for server in before.servers if server not in already])
        plan = _plan(wanted, already, programs)
        rendered = _render(wanted, plan)
        state = State(host=before.host, servers=plan.running, chosen=wanted.chosen)
        for server in already:
            if server.process is not None and server.name in {"prometheus", "alertmanager"}:
                processes.reload(server.process)
        say("Starting " + ", ".join(server.name for server in plan.new) + " ..." if plan.new else "Everything runs already.")
        wanted.data.write(state)
        with Interrupted() as interrupted:
            state = _start_all(plan.new, state, wanted, interrupted)
    return Up(state, rendered, already)


def _as_last_time(wanted: Wanted, last: Chosen, say: Say) -> Wanted:
    """With what was said at an earlier time and not now, so that `up` alone changes nothing, and switches no channel off."""
    chosen = wanted.chosen.after(Chosen() if wanted.forget else last, Path.cwd())
    if not wanted.forget and (options := last.of_last_time(wanted.chosen)):
        say(f"As the last time: {options} (--forget leaves that out)")
    return replace(wanted, chosen=chosen)


@dataclass(frozen=True)
class _Plan:
    running: tuple[Running, ...]
    """What is there: ours, and a daemon that is somebody else's."""
    new: tuple[Server, ...]
    runs: Path


def _plan(wanted: Wanted, already: tuple[Running, ...], programs: Mapping[str, Path]) -> _Plan:
    there = {server.name: server for server in already}
    chosen, asked_for = wanted.chosen, wanted.chosen.ports
    runs = _runs_folder(chosen.runs)
    if "exporter" not in there and "exporter" not in asked_for and (daemon := _daemon(runs)):
        there["exporter"] = daemon
    _refuse_other_ports(asked_for, there)
    missing = [name for name in USUAL_PORTS if name not in there and (name == "exporter" or name in programs)]
    at = {name: server.port for name, server in there.items()}
    for name in missing:
        at[name] = ports.choose(name, _usual_port(name), asked_for.get(name), at.values())
    options = Options(wanted.data, runs, at, chosen.retention_time or RETENTION_TIME, chosen.retention_size or RETENTION_SIZE)
    return _Plan(tuple(there.values()), tuple(_server(name, programs, options) for name in missing), runs)


def _server(name: str, programs: Mapping[str, Path], options: Options) -> Server:
    if name == "exporter":
        return servers.exporter(options, open_web=_open_web(options.data))
    if name == "grafana":
        return servers.grafana(programs[name], options, f"http://{ports.LOOPBACK}:{options.ports['prometheus']}")
    make = {"prometheus": servers.prometheus, "alertmanager": servers.alertmanager, "node": servers.node}[name]
    return make(programs[name], options)


def _usual_port(name: str) -> int:
    return CarbonConfig().prometheus_port or USUAL_PORTS[name] if name == "exporter" else USUAL_PORTS[name]


def _refuse_other_ports(asked_for: Mapping[str, int], there: Mapping[str, Running]) -> None:
    for name, server in there.items():
        if asked_for.get(name, server.port) != server.port:
            raise ConfigError(
                f"{name} runs already, on port {server.port}: `hf-eco2ai stack down` first, or leave out --{name}-port"
            )


def _runs_folder(named: Path | None) -> Path:
    """It is made if need be: the first run finds the exporter by what that leaves in it."""
    try:
        folder = runs_folder(named or CarbonConfig().runs_dir)
        make_folder(folder)
    except OSError as error:
        raise ConfigError(f"The runs folder cannot be had ({error.strerror}): say which with --runs-dir") from error
    return folder


def _daemon(runs: Path) -> Running | None:
    """One that serves this folder already and lets Prometheus in. Beside one with TLS or a password ours does no harm."""
    url = daemon_of(runs, Here.now(socket.gethostname()))
    if url is None or urlsplit(url).scheme != "http" or not asked.answers(url.rstrip("/") + "/metrics"):
        return None
    return Running(name="exporter", url=url.rstrip("/"), ready="/readyz")


def _open_web(data: Data) -> Path | None:
    if CarbonConfig().prometheus_web_config is None:
        return None
    path = data.folder("exporter") / "web.yml"
    path.write_text("# No TLS and no password: it listens on 127.0.0.1, for the Prometheus beside it.\n", encoding="utf-8")
    return path


def _render(wanted: Wanted, plan: _Plan) -> Rendered:
    addresses = {server.name: server.address for server in plan.running}
    addresses |= {server.name: f"{ports.LOOPBACK}:{server.port}" for server in plan.new}
    targets = {job: [addresses[name]] for name, job in _JOB_OF.items() if name in addresses}
    for job, more in wanted.chosen.targets.items():
        targets[job] = [*targets.get(job, ()), *more]
    grafana = addresses.get("grafana")
    place = Place(
        targets=targets,
        alertmanager_folder=str(wanted.data.config / "alertmanager"),
        runs=plan.runs,
        grafana_url=f"http://localhost:{grafana.rpartition(':')[2]}" if grafana else None,
        scrape_interval=wanted.chosen.scrape_interval,
    )
    try:
        rendered = render(wanted.chosen.folder(), wanted.data.config, place)
    except OSError as error:
        raise ConfigError(f"the configuration cannot be written to {wanted.data.config}: {error.strerror}") from error
    if grafana is None and rendered.grafana_password:  # Nobody is told it now, so that a Grafana to come gets one that is told.
        (wanted.data.config / "grafana" / "secrets" / "admin_password").unlink()
    return rendered


def _start_all(new: Sequence[Server], state: State, wanted: Wanted, interrupted: Interrupted) -> State:
    started: list[tuple[Running, subprocess.Popen[bytes]]] = []
    well = False
    try:
        for server in new:
            interrupted.check()
            running, process = _start(server, wanted.data)
            started.append((running, process))
            state = state.model_copy(update={"servers": (*state.servers, running)})
            wanted.data.write(state)  # At once: `stack down` ends also what this process was killed over.
        end = time.monotonic() + wanted.seconds
        for running, process in started:
            _wait(running, process, end, wanted.seconds, interrupted)
        well = True
    finally:
        if not well:
            _give_up([running for running, _ in started], state, wanted.data)
        for _, process in started:
            process.poll()
    return state


def _start(server: Server, data: Data) -> tuple[Running, "subprocess.Popen[bytes]"]:
    log = data.log(server.name)
    try:
        process = processes.start(server.argv, log, server.folder)
    except OSError as error:
        raise ConfigError(f"{server.name} cannot be started: {server.argv[0]}: {error.strerror}") from error
    running = Running(name=server.name, url=server.url, ready=server.ready, process=processes.identity(process.pid), log=log)
    return running, process


def _wait(running: Running, process: "subprocess.Popen[bytes]", end: float, seconds: float, interrupted: Interrupted) -> None:
    while not running.is_ready():
        interrupted.check()
        code = process.poll()
        if code is not None:
            raise ConfigError(_died(running, f"has ended (exit code {code})"))
        if time.monotonic() > end:
            raise ConfigError(_died(running, f"is not ready after {seconds:g} s; --timeout gives it more"))
        time.sleep(_LOOK_SECONDS)
    if process.poll() is not None:  # Another server answers where ours was to be.
        raise ConfigError(_died(running, f"has ended (exit code {process.returncode})"))


def _died(running: Running, what: str) -> str:
    log = running.log
    text = log.read_text(encoding="utf-8", errors="replace") if log is not None else ""
    lines = "\n".join(f"  {line}" for line in text.splitlines()[-LAST_LINES:]) or "  (nothing)"
    return (
        f"{running.name} {what}. The other servers that were just started are ended again; what is stored stays. The last of its "
        f"log, {log}:\n{lines}\n{_advice(running.name, text)}"
    )


def _advice(name: str, text: str) -> str:
    if "address already in use" in text or "is taken" in text:
        return f"Choose another port: --{name}-port."
    if "DB directory" in text and "lock" in text:
        return "Another Prometheus uses that folder: end it, or choose another folder with --data."
    return "Mend what it says there, and say `hf-eco2ai stack up --native` again."


def _give_up(started: Sequence[Running], state: State, data: Data) -> None:
    _stop(started)
    left = tuple(server for server in state.servers if server not in started)
    data.write(state.model_copy(update={"servers": left if any(server.process for server in left) else ()}))


def _stop(running: Sequence[Running]) -> None:
    processes.stop([server.process for server in running if server.process is not None], END_SECONDS)


def down(data: Data) -> tuple[str, ...]:
    """End all that `up` has started; their names. Nothing where nothing runs.

    Raises:
        ConfigError: it runs on another host.

    """
    if not data.root.is_dir():
        return ()
    with data.alone():
        state = data.read()
        if state is None:
            return ()
        ours = _left(state.servers)
        _stop(ours)
        if left := _left(ours):
            raise ConfigError(f"{', '.join(server.name for server in left)} cannot be ended: the kernel does not let go of it")
        data.write(state.model_copy(update={"servers": ()}))
        return tuple(server.name for server in ours)


def _left(running: Sequence[Running]) -> list[Running]:
    return [server for server in running if server.process is not None and processes.members(server.process)]


def check_targets(targets: Mapping[str, Sequence[str]]) -> None:
    """Raises ConfigError for a job that prometheus.yml does not have."""
    for job in targets:
        if job not in JOBS:
            raise ConfigError(f"--target {job}=…: there is no such job; there are {', '.join(JOBS)}")


def addresses(state: State) -> list[tuple[str, str]]:
    """Servers and where they are looked at."""
    return [(server.name, public(server)) for server in state.servers]
