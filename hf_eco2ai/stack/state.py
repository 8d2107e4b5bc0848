"""What a stack without containers leaves in its data folder, so that later commands find it."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import BaseModel, ConfigDict, ValidationError

from hf_eco2ai.errors import ConfigError, TakenError
from hf_eco2ai.journal.format import ProcessIdentity
from hf_eco2ai.stack import asked, processes
from hf_eco2ai.stack.chosen import Chosen

fcntl: Any = import_module("fcntl") if os.name == "posix" else None


class Running(BaseModel):
    """A server."""

    model_config = ConfigDict(frozen=True)

    name: str
    url: str
    ready: str
    """Path that answers 200 once it can be used."""
    process: ProcessIdentity | None = None
    """None: it was there before, a daemon of somebody else's, and stays there."""
    log: Path | None = None

    @property
    def address(self) -> str:
        """host:port."""
        return self.url.partition("://")[2]

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.address.rpartition(":")[2])

    def is_alive(self) -> bool:
        """Whether its process runs, or for another's daemon, whether it answers."""
        return self.is_ready() if self.process is None else processes.is_alive(self.process)

    def is_ready(self) -> bool:
        """Whether it can be used."""
        return asked.answers(self.url + self.ready)


class State(BaseModel):
    """All servers of a stack."""

    model_config = ConfigDict(frozen=True)

    host: str
    servers: tuple[Running, ...] = ()
    chosen: Chosen = Chosen()
    """What the last `up` was told. It stays when the servers are ended."""

    def server(self, name: str) -> Running | None:
        """One of them."""
        return next((server for server in self.servers if server.name == name), None)

    def living(self) -> tuple[Running, ...]:
        """Those that run."""
        return tuple(server for server in self.servers if server.is_alive())


class Data:
    """The data folder: what servers keep, what is rendered for them, their logs, and which of them run.

    Raises:
        ConfigError: there is no home directory to have it in.

    """

    def __init__(self, named: Path | None) -> None:
        try:
            usual = Path(platformdirs.user_data_dir("hf-eco2ai", appauthor=False)) / "stack"
            self.root = (named or usual).expanduser().absolute()
        except RuntimeError as error:
            raise ConfigError("there is no home directory: say with --data where the stack may keep its data") from error

    @property
    def config(self) -> Path:
        """What is rendered."""
        return self.root / "config"

    def log(self, name: str) -> Path:
        """Of a server."""
        return self.root / "logs" / f"{name}.log"

    def folder(self, name: str) -> Path:
        """What a server keeps, made if need be."""
        path = self.root / name
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def make(self) -> None:
        """For its owner only, since logs and rendered files are in it.

        Raises:
            ConfigError: it cannot be made.

        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if (self.root / "state.json").exists() or not any(self.root.iterdir()):
                with suppress(
                    PermissionError
                ):  # Somebody else's, or one with something else in it: what we make in it is closed.
                    self.root.chmod(0o700)
            for name in ("config", "logs"):
                self.folder(name).chmod(0o700)
        except OSError as error:
            raise ConfigError(f"{self.root} cannot be made ({error.strerror}): say with --data where else") from error

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While one command starts or ends servers no other does."""
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise TakenError(f"Another `hf-eco2ai stack` is at work on {self.root}: wait until it is done.") from None
        finally:
            os.close(descriptor)

    def read(self) -> State | None:
        """What was started, as far as this machine can know; None where nothing ever was.

        Raises:
            ConfigError: it runs on another host that shares the folder, or the file is no state of ours.

        """
        path = self.root / "state.json"
        try:
            state = State.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise ConfigError(f"{path} cannot be read: end the servers by hand, and delete it") from error
        here = socket.gethostname()
        if not state.servers:
            return state.model_copy(update={"host": here})
        if state.host != here:
            raise ConfigError(
                f"the stack of {self.root} was started on {state.host}: say it there, or name a folder of this host with --data"
            )
        return state

    def write(self, state: State) -> None:
        """Whole or not at all."""
        new = self.root / ".state.json.new"
        new.touch(0o600)
        new.write_text(state.model_dump_json(indent=2) + "\n", encoding="utf-8")
        new.replace(self.root / "state.json")
