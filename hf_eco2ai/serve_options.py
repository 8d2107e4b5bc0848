"""What `hf-eco2ai serve` is told, and what of it can be checked before it serves."""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import platformdirs

from hf_eco2ai.errors import ConfigError
from hf_eco2ai.journal.folder import SYSTEM_FOLDER, runs_folder
from hf_eco2ai.journal.follow import MOST_RUNS
from hf_eco2ai.outputs.limits import Limits

SHORTEST_TOKEN = 16
"""Characters. A token is made by a program: `openssl rand -hex 32`."""


@dataclass(frozen=True)
class Options:
    """What is said on the command line, beside the settings."""

    host: str
    port: int
    runs_dir: Path | None
    """As set, here or in the settings; None: the host's own folder, or the user's."""
    wait: bool = False
    """Wait for a folder that is not there also where it has been named."""
    all_hosts: bool = False
    retention: float = 3600.0
    most_runs: int = MOST_RUNS
    node: bool = False
    state_dir: Path | None = None
    web_config_file: Path | None = None
    token_file: Path | None = None
    limits: Limits = field(default_factory=Limits)


def folder_of(options: Options) -> Path:
    """The runs folder.

    One that has been named has to be there, since a name may be misspelt. The default one is made by the first run.

    Raises:
        ConfigError: it is not there, is no folder, or may not be read.

    """
    try:
        folder = runs_folder(options.runs_dir)
    except OSError as error:
        raise ConfigError(f"The runs folder is not known: {error.strerror}.") from error
    try:
        with os.scandir(folder) as entries:
            next(entries, None)
    except FileNotFoundError:
        if options.runs_dir is not None and not options.wait:
            raise ConfigError(
                f"The runs folder {folder} does not exist. Name another with --runs-dir, or wait until it is there with --wait."
            ) from None
    except OSError as error:
        raise ConfigError(unreadable(folder, error)) from error
    return folder


def unreadable(folder: Path, error: OSError) -> str:
    """In words, with what to do."""
    if isinstance(error, PermissionError):
        what = "Let this user read it (chmod g+rx, or add the user to its group), or name another with --runs-dir."
    elif isinstance(error, NotADirectoryError):
        what = "Name the folder that journals are in with --runs-dir."
    else:
        what = "What is known of its runs is served meanwhile."
    return f"The runs folder {folder} cannot be read ({error.strerror or error}). {what}"


def state_file_of(options: Options, host: str, system: Path = SYSTEM_FOLDER.parent) -> Path:
    """Where counters are kept that go on across a restart: as named, else beside the host's runs, else in the user's data folder.

    Raises:
        ConfigError: it cannot be written.

    """
    folder = options.state_dir
    if folder is None and os.access(system, os.W_OK | os.X_OK):
        folder = system / "state"
    try:
        if folder is None:
            folder = Path(platformdirs.user_data_dir("hf-eco2ai", appauthor=False)) / "state"
        folder = folder.expanduser().absolute()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        usable = os.access(folder, os.W_OK | os.X_OK)
    except (OSError, RuntimeError) as error:
        raise ConfigError(f"The state folder cannot be made ({error}). Name another with --state-dir.") from error
    if not usable:
        raise ConfigError(
            f"The state folder {folder} may not be written. Let this user write to it, or name another with --state-dir."
        )
    return folder / f"{quote(host, safe='')}.json"


def read_token(path: Path) -> str:
    """The token that has to come with whatever writes. Read anew each time, so that it can be replaced.

    Raises:
        ConfigError: it cannot be read, is too short to be one, or is there for everybody to read.

    """
    try:
        token = path.read_text(encoding="ascii").strip()
        mode = path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not plain text"
        raise ConfigError(f"The token file {path} cannot be read: {reason}. Make one: openssl rand -hex 32 > FILE") from None
    if len(token) < SHORTEST_TOKEN:
        raise ConfigError(f"The token in {path} has less than {SHORTEST_TOKEN} characters. Make one: openssl rand -hex 32 > FILE")
    if mode & (stat.S_IROTH | stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(f"The token file {path} may be read or written by others: chmod 600 {path}")
    return token
