"""From the command line of `hf-eco2ai serve` to a daemon that runs."""

import itertools
import logging
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from hf_eco2ai import wiring
from hf_eco2ai.config import CarbonConfig, Environment
from hf_eco2ai.daemon import Daemon
from hf_eco2ai.errors import TakenError
from hf_eco2ai.journal.folder import SYSTEM_FOLDER
from hf_eco2ai.outputs.limits import Limits
from hf_eco2ai.outputs.logfmt import log, log_to_stderr
from hf_eco2ai.outputs.server import bind
from hf_eco2ai.serve_options import Options, folder_of


def serve(settings: Mapping[str, Any], chosen: Mapping[str, Any], *, retention: float, log_level: str, only_check: bool) -> int:
    """Returns the exit code.

    Raises:
        ConfigError: something is not as it has to be.

    """
    config = CarbonConfig(**settings)
    options = _options(config, chosen, retention)
    log_to_stderr(getattr(logging, log_level.upper()))
    make = partial(Daemon, options, config, Environment.read(), wiring.hostname())
    if not only_check:
        return make().run()
    _check(lambda: make().close())
    _check(lambda: bind(options.host, options.port).close())
    log(logging.INFO, "all is well", folder=folder_of(options))
    return 0


def _check(begin: Callable[[], None]) -> None:
    try:
        begin()
    except TakenError as error:
        log(logging.WARNING, f"{error} Fine if that is the daemon that this one will replace.")


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
    """The unit that comes with the package, for this installation and these options.

    A service has no folder to be in and no home, so paths are absolute, and its runs folder is the host's where none is named.
    """
    arguments = _absolute([argument for argument in argv[1:] if argument not in {"--systemd-unit", "--check"}])
    if not any(argument.split("=")[0] in {"--runs-dir", "runs_dir"} for argument in arguments):
        arguments += ["--runs-dir", str(SYSTEM_FOLDER), "--wait"]
    command = " ".join(_quoted(word).replace("$", "$$") for word in [_program(), *arguments])
    written = (_value(arguments, option) for option in ("--runs-dir", "--state-dir"))
    outside = [path for path in written if path and not Path(path).is_relative_to(SYSTEM_FOLDER.parent)]
    writable = " ".join([str(SYSTEM_FOLDER.parent), *(f"-{_quoted(path)}" for path in outside)])  # -: it may not be there yet.
    template = (files("hf_eco2ai") / "data" / "hf-eco2ai.service").read_text(encoding="utf-8")
    return template.replace("@COMMAND@", command).replace("@WRITABLE@", writable)


_PATHS = ("--runs-dir", "--state-dir", "--web.config.file", "--token-file")


def _program() -> str:
    return str(Path(sys.executable).with_name("hf-eco2ai"))


def _absolute(arguments: Sequence[str]) -> list[str]:
    made: list[str] = []
    for argument in arguments:
        option, found, value = argument.partition("=")
        if found and option in _PATHS:
            made.append(f"{option}={Path(value).absolute()}")
        else:
            made.append(str(Path(argument).absolute()) if made and made[-1] in _PATHS else argument)
    return made


def _value(arguments: Sequence[str], option: str) -> str:
    """What is said for an option, the last time that it is."""
    values = [""]
    for before, argument in itertools.pairwise(["", *arguments]):
        if before == option:
            values.append(argument)
        elif argument.startswith(f"{option}="):
            values.append(argument.partition("=")[2])
    return values[-1]


def _quoted(word: str) -> str:
    """As systemd reads it: `%` begins a specifier, also in quotes (systemd.syntax(7), systemd.service(5))."""
    word = word.replace("%", "%%")
    if re.fullmatch(r"[\w@%+=:,./$-]+", word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
