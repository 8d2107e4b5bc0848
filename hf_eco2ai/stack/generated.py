"""What is made from alerting/thresholds.yml and channels.yml, and committed: rules and dashboards."""

import re
from collections.abc import Sequence
from pathlib import Path

from hf_eco2ai.errors import ConfigError
from hf_eco2ai.stack.channels import Channels
from hf_eco2ai.stack.dashboards import dashboards
from hf_eco2ai.stack.rules import alert_files, recording_files, write_rules
from hf_eco2ai.stack.thresholds import Thresholds


def made(folder: Path) -> dict[Path, str]:
    """Every file to its text, as the thresholds and channels of the folder have it.

    Raises:
        ConfigError: one of the two cannot be read, or a threshold is missing.

    """
    thresholds, links = Thresholds.read(_thresholds(folder)), Channels.read(_channels(folder)).links
    return {
        **{folder / "alerting" / "rules" / name: text for name, text in alert_files(thresholds, links).items()},
        **{folder / "prometheus" / "rules" / name: text for name, text in recording_files().items()},
        **{folder / "dashboards" / name: text for name, text in dashboards(thresholds).items()},
    }


def outdated(folder: Path) -> list[Path]:
    """The files that are not as they would be made now.

    Raises:
        ConfigError: as `made`.

    """
    return [path for path, text in made(folder).items() if _text(path) != text]


def regenerate(folder: Path, settings: Sequence[str]) -> list[Path]:
    """Put `name=value` into thresholds.yml, and make all anew. Returns the files that have changed.

    Raises:
        ConfigError: as `made`; there is no such threshold, the value is none, or a file cannot be written.

    """
    path = _thresholds(folder)
    thresholds = Thresholds.read(path).changed(settings)
    links = Channels.read(_channels(folder)).links
    if settings:
        names = {setting.partition("=")[0] for setting in settings}
        _write(path, _with((_text(path) or ""), {name: thresholds[name] for name in names}))
    changed = outdated(folder)
    write_rules(folder, thresholds, links)
    for name, text in dashboards(thresholds).items():
        _write(folder / "dashboards" / name, text)
    return changed


def _thresholds(folder: Path) -> Path:
    return folder / "alerting" / "thresholds.yml"


def _channels(folder: Path) -> Path:
    return folder / "alerting" / "channels.yml"


def _with(text: str, values: dict[str, str]) -> str:
    """With other values, and with the comments behind them where they were."""
    for name, value in values.items():
        line = re.compile(rf"^({re.escape(name)}:[ \t]*)(\S+)([ \t]*)", re.MULTILINE)
        found = line.search(text)
        if found is None:
            raise ConfigError(f"{name}: its line in thresholds.yml cannot be found; change it there, and leave out --set")
        gap = " " * max(1, len(found[2]) + len(found[3]) - len(value)) if found[3] else ""
        text = text[: found.start()] + found[1] + value + gap + text[found.end() :]
    return text


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
