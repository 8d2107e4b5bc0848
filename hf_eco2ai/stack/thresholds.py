"""alerting/thresholds.yml: what is high, low or too long, in one place. Rules and dashboards are made with it."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path

from hf_eco2ai.errors import ConfigError
from hf_eco2ai.stack import documents

_MOST = {"_ratio": 1.0, "_score": 1.0, "_percent": 100.0}
"""Endings of names to the most that such a thing can be."""

_DURATION = re.compile(r"(?:\d+(?:ms|s|m|h|d|w|y))+")


class Thresholds(Mapping[str, str]):
    """Names to values as PromQL writes them: numbers, and durations such as `10m`."""

    def __init__(self, values: Mapping[str, object], source: str) -> None:
        """Raises ConfigError for a value that is neither a number nor a duration."""
        self._source = source
        self._values = {name: _checked(name, value, source) for name, value in values.items()}

    @classmethod
    def read(cls, path: Path) -> "Thresholds":
        """Raises ConfigError: it cannot be read, or is no map of names to numbers and durations."""
        found = documents.read(path)
        if not isinstance(found, dict):
            raise ConfigError(f"{path} should be lines of `name: value`, such as `high_emissions_kg: 20`")
        return cls(found, str(path))

    def changed(self, settings: Iterable[str]) -> "Thresholds":
        """With `name=value` instead of what stands there.

        Raises:
            ConfigError: there is no such threshold, or the value is none.

        """
        values: dict[str, object] = dict(self._values)
        for setting in settings:
            name, found, value = setting.partition("=")
            if not found:
                raise ConfigError(f"--set {setting}: write NAME=VALUE, such as high_emissions_kg=50")
            if name not in values:
                raise ConfigError(self._unknown(name))
            if bool(_DURATION.fullmatch(value)) != bool(_DURATION.fullmatch(self._values[name])):
                raise ConfigError(f"{name}: should be like {self._values[name]}, is {value}")
            values[name] = value
        return Thresholds(values, self._source)

    def number(self, name: str) -> float:
        """For a dashboard's threshold line."""
        return float(self[name])

    def __getitem__(self, name: str) -> str:
        """Raises ConfigError where the file has no such line, since a rule without it could not fire."""
        try:
            return self._values[name]
        except KeyError:
            raise ConfigError(self._unknown(name)) from None

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        """Names, in the order of the file."""
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def _unknown(self, name: str) -> str:
        near = get_close_matches(name, self._values, n=1)
        return f"{name}: {self._source} has no such threshold" + (f"; did you mean {near[0]}?" if near else "")


def _checked(name: str, value: object, source: str) -> str:
    if isinstance(value, str) and _DURATION.fullmatch(value):
        if not re.search("[1-9]", value):
            raise ConfigError(f"{source}: {name} should be longer than {value}; 1s is next to nothing")
        return value
    try:
        number = float(str(value))
    except ValueError:
        raise ConfigError(f"{source}: {name} should be a number or a duration such as 10m, is {value!r}") from None
    return _in_range(name, number, source)


def _in_range(name: str, number: float, source: str) -> str:
    """Beyond it the alert could never fire, or fired always. A comparison with NaN never holds."""
    most = next((most for ending, most in _MOST.items() if name.endswith(ending)), math.inf)
    if not 0 < number <= most or math.isinf(number):
        span = f"more than 0 and at most {most:g}" if most < math.inf else "more than 0"
        raise ConfigError(f"{source}: {name} should be {span}, is {number:g}")
    return f"{number:.12g}"
