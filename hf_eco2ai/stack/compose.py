"""docker-compose.yml and .env beside it, as far as `stack init` and `stack check` have to know them."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_eco2ai.errors import ConfigError
from hf_eco2ai.stack import documents

FILE = "docker-compose.yml"
ENVIRONMENT = ".env"

_VARIABLE = re.compile(r"\$\{(\w+):-([^${}]*)\}")
_LINE = re.compile(r"\s*(?:export\s+)?(\w+)\s*=(.*)")
_BARE = re.compile(r"[\w@%+=:,./~-]*")


@dataclass(frozen=True)
class Port:
    """One that Compose opens on the host."""

    service: str
    number: int
    variable: str
    """Which changes it in .env."""


def read_environment(folder: Path) -> dict[str, str]:
    """What .env says; nothing where there is none.

    Raises:
        ConfigError: it cannot be read.

    """
    found = (_LINE.fullmatch(line) for line in _lines(folder))
    return {line[1]: _value(line[2]) for line in found if line is not None}


def write_environment(folder: Path, values: Mapping[str, str]) -> None:
    """Put these into .env; all else in it stays as it is.

    Raises:
        ConfigError: it cannot be read or written, or a value holds what Compose could not take.

    """
    left = dict(values)
    lines = []
    for line in _lines(folder):
        found = _LINE.fullmatch(line)
        name = found[1] if found is not None else ""
        lines.append(f"{name}={_quoted(name, left.pop(name))}" if name in left else line)
    lines += [f"{name}={_quoted(name, value)}" for name, value in left.items()]
    path = folder / ENVIRONMENT
    try:
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error


def _lines(folder: Path) -> list[str]:
    path = folder / ENVIRONMENT
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read") from error


def _value(written: str) -> str:
    """Quotes taken off; behind a value without them a comment may stand."""
    written = written.strip()
    if written[:1] in {"'", '"'} and (end := written.find(written[0], 1)) > 0:
        return written[1:end]
    return re.split(r"\s#", written, maxsplit=1)[0].strip()


def _quoted(name: str, value: str) -> str:
    if _BARE.fullmatch(value):
        return value
    if "'" in value or "\n" in value:
        raise ConfigError(f"{name}: Compose cannot take a value with a quote or a line's end in it")
    return f"'{value}'"


def read(folder: Path) -> Mapping[str, Any]:
    """The services.

    Raises:
        ConfigError: there is no such file, or it is no YAML of services.

    """
    found = documents.read(folder / FILE)
    services = found.get("services") if isinstance(found, dict) else None
    if not isinstance(services, dict):
        raise ConfigError(f"{folder / FILE} has no services")
    return services


def mounted(services: Mapping[str, Any]) -> Iterator[str]:
    """Paths beside the file that containers see, as they are written: `./prometheus`."""
    written = (str(volume) for service in services.values() for volume in service.get("volumes", ()))
    return iter(dict.fromkeys(volume.partition(":")[0] for volume in written if volume.startswith("./")))


def ports(services: Mapping[str, Any], environment: Mapping[str, str]) -> Iterator[Port]:
    """Those of services that no profile switches on, and of those whose profile is on."""
    on = set(environment.get("COMPOSE_PROFILES", "").split(","))
    for name, service in services.items():
        if "profiles" in service and not on & set(service["profiles"]):
            continue
        for written in map(str, service.get("ports", ())):
            if (variable := _VARIABLE.search(written)) is not None:
                number = environment.get(variable[1]) or variable[2]
                if number.isdecimal():
                    yield Port(name, int(number), variable[1])
