"""From the command line of `hf-eco2ai serve` to a daemon that runs."""

import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from hf_eco2ai import wiring
from hf_eco2ai.config import CarbonConfig, Environment
from hf_eco2ai.daemon import Daemon
from hf_eco2ai.outputs.limits import Limits
from hf_eco2ai.outputs.logfmt import log, log_to_stderr
from hf_eco2ai.outputs.server import holder_of
from hf_eco2ai.serve_options import Options


def serve(settings: Mapping[str, Any], chosen: Mapping[str, Any], *, retention: float, log_level: str, only_check: bool) -> int:
    """Returns the exit code.

    Raises:
        ConfigError: something is not as it has to be.

    """
    config = CarbonConfig(**settings)
    options = _options(config, chosen, retention)
    log_to_stderr(getattr(logging, log_level.upper()))
    daemon = Daemon(options, config, Environment.read(), wiring.hostname())
    if not only_check:
        return daemon.run()
    daemon.close()
    holder = holder_of(options.port)
    if holder:
        log(logging.WARNING, f"port {options.port} is taken by {holder}; fine if that is the daemon that this one will replace")
    log(logging.INFO, "all is well", folder=daemon.folder)
    return 0


def _options(config: CarbonConfig, chosen: Mapping[str, Any], retention: float) -> Options:
    return Options(
        host=chosen["host"] or config.prometheus_host,
        port=config.prometheus_port if chosen["port"] is None else chosen["port"],
        runs_dir=chosen["runs_dir"] or config.runs_dir,
        wait=chosen["wait"],
        all_hosts=chosen["all_hosts"],
        retention=retention,
        most_runs=chosen["max_runs"],
        node=chosen["node"],
        state_dir=chosen["state_dir"],
        web_config_file=chosen["web_config_file"] or config.prometheus_web_config,
        token_file=chosen["token_file"],
        limits=Limits(requests=chosen["max_requests"]),
    )


def systemd_unit(argv: Sequence[str]) -> str:
    """The unit that comes with the package, for this installation and these options."""
    program = Path(sys.executable).with_name("hf-eco2ai")
    arguments = [argument for argument in argv[1:] if argument not in {"--systemd-unit", "--check"}]
    template = (files("hf_eco2ai") / "data" / "hf-eco2ai.service").read_text(encoding="utf-8")
    return template.replace("@COMMAND@", shlex.join([str(program), *arguments]))
