"""YAML of the stack, read and written."""

from importlib import import_module
from pathlib import Path
from typing import Any

from hf_eco2ai.errors import ConfigError


def _yaml() -> Any:
    try:
        return import_module("yaml")
    except ImportError:
        raise ConfigError("the stack's files are YAML, which needs PyYAML: pip install 'hf-eco2ai[stack]'") from None


def read(path: Path) -> Any:
    """What a YAML file says.

    Raises:
        ConfigError: it cannot be read, or is no YAML.

    """
    yaml = _yaml()
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}") from error


def written(value: Any) -> str:
    """As YAML that a person can read: keys in the order they come, texts of several lines as blocks."""
    yaml = _yaml()

    class Dumper(yaml.SafeDumper):  # type: ignore[misc, name-defined]
        pass

    def text(dumper: Any, data: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", data, style="|" if "\n" in data else None)

    Dumper.add_representer(str, text)
    made: str = yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=130)
    return made
