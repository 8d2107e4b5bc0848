"""What `stack up --native` was told. It is kept, so that whoever says it again need not remember it."""

import shlex
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from hf_eco2ai.errors import ConfigError
from hf_eco2ai.stack.files import bundled, is_stack


class Chosen(BaseModel):
    """Options by which a stack differs from any other. None, or empty: not said."""

    model_config = ConfigDict(frozen=True)

    stack: Path | None = None
    runs: Path | None = None
    ports: dict[str, int] = {}
    targets: dict[str, tuple[str, ...]] = {}
    """More of them, by job: the daemons of other nodes."""
    scrape_interval: str | None = None
    retention_time: str | None = None
    retention_size: str | None = None

    def after(self, last: "Chosen", here: Path) -> "Chosen":
        """What is said now, else what was said the last time. Files that nobody spoke of are those that are `here`, if there are.

        Raises:
            ConfigError: one stands in another stack's folder than was said the last time, and does not say which is meant.

        """
        stands = here if is_stack(here) else None
        if self.stack is None and last.stack is not None and stands is not None and here.resolve() != last.stack.resolve():
            raise ConfigError(
                f"the files here are not those that the stack had the last time, in {last.stack}: say which with --dir"
            )
        said = {name: value for name in Chosen.model_fields if (value := getattr(self, name))}
        stack = self.stack or last.stack or stands
        return last.model_copy(update={**said, "stack": stack, "ports": {**last.ports, **self.ports}})

    def folder(self) -> Path:
        """The stack's files; without a word those that come with hf_eco2ai.

        Raises:
            ConfigError: where they were said to be are none.

        """
        if self.stack is not None and not is_stack(self.stack):
            raise ConfigError(f"{self.stack} has no stack in it: say with --dir where its files are")
        return self.stack or bundled()

    def of_last_time(self, said: "Chosen") -> str:
        """Options that `said` has not, as one would type them."""
        words: list[str] = []
        for option, name in _OPTIONS.items():
            if (value := getattr(self, name)) and not getattr(said, name):
                words += [option, str(value)]
        for name, port in self.ports.items():
            words += [] if name in said.ports else [f"--{name}-port", str(port)]
        for job, addresses in () if said.targets else self.targets.items():
            words += [word for address in addresses for word in ("--target", f"{job}={address}")]
        return shlex.join(words)


_OPTIONS = {
    "--dir": "stack",
    "--runs-dir": "runs",
    "--scrape-interval": "scrape_interval",
    "--retention-time": "retention_time",
    "--retention-size": "retention_size",
}
