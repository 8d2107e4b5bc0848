"""One running stack for the tests that only look at it."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from hf_eco2ai.journal.format import Header
from hf_eco2ai.records import BudgetStatus
from tests.daemon.runs import begun, over, used
from tests.journal.make import put
from tests.stack.native import Hook, Native, native, webhook


@dataclass(frozen=True)
class Running:
    """A stack that is up, with a run that is over and one that lives and has spent its budget."""

    native: Native
    hook: Hook
    said: str
    """By `up`."""


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The tests change nothing about it."""
    with native(tmp_path_factory.mktemp("native")) as made, webhook(made.folder / "secrets") as hook:
        timing = made.folder / "alerting" / "channels.yml"
        timing.write_text(timing.read_text().replace("group_wait: 10s", "group_wait: 1s"))
        over(made.runs, "aaaaaaaaaaaa", project_name="finished")
        begin: Header = begun("bbbbbbbbbbbb", project_name="spent")
        put(made.runs, [begin, used(begin, 10.0, budgets=(BudgetStatus("carbon", limit=0.0001, spent=0.0003),))])
        done = made.up()
        assert done.returncode == 0, done.stderr
        yield Running(made, hook, done.stdout)
        assert made.say("down").returncode == 0
        assert made.processes() == []
