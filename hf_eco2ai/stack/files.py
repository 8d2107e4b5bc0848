"""Where the stack's files are: docker-compose.yml, prometheus/, alerting/, dashboards/ and secrets/, beside each other."""

from pathlib import Path

PARTS = ("docker-compose.yml", "Dockerfile", "prometheus", "alerting", "dashboards", "secrets")
"""What a stack folder holds."""

_CHECKOUT = Path(__file__).parents[2]
_PACKAGE = Path(__file__).parents[1]
_INSTALLED = Path(__file__).parent / "files"


def bundled() -> Path:
    """The files that come with hf_eco2ai: those of the checkout, or those that the wheel brings along."""
    return _CHECKOUT if is_stack(_CHECKOUT) else _INSTALLED


def is_installed(folder: Path) -> bool:
    """Whether it is within an installation, whose next update would take away what is changed there."""
    return folder.is_relative_to(_PACKAGE)


def is_stack(folder: Path) -> bool:
    """Whether it is a stack folder."""
    return (folder / "prometheus" / "prometheus.yml").is_file() and (folder / "alerting" / "thresholds.yml").is_file()


def stack_folder(named: Path | None) -> Path:
    """The folder to work on: the one that is named, else the current one if it is one, else the bundled files."""
    if named is not None:
        return named.absolute()
    here = Path.cwd()
    return here if is_stack(here) else bundled()
