"""What `stack up --native` takes over from the last time."""

from pathlib import Path

import pytest

from hf_eco2ai.errors import ConfigError
from hf_eco2ai.stack.chosen import Chosen
from hf_eco2ai.stack.files import bundled
from tests.stack.native import copied

LAST = Chosen(
    runs=Path("/runs"),
    ports={"node": 1, "grafana": 2},
    targets={"dcgm": ("node7:9400", "node8:9400")},
    scrape_interval="30s",
    retention_time="1y",
)


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    return copied(tmp_path / "a stack")


def test_what_is_not_said_is_as_the_last_time_and_what_is_said_holds(stack: Path, tmp_path: Path) -> None:
    last = LAST.model_copy(update={"stack": stack})
    assert Chosen().after(last, tmp_path) == last
    said = Chosen(ports={"node": 3}, targets={"node": ("node7:9100",)}, scrape_interval="15s", retention_size="1GB")
    assert said.after(last, tmp_path) == Chosen(
        stack=stack,
        runs=Path("/runs"),
        ports={"node": 3, "grafana": 2},
        targets={"node": ("node7:9100",)},
        scrape_interval="15s",
        retention_time="1y",
        retention_size="1GB",
    )


def test_what_is_taken_over_is_told_as_it_would_be_typed(stack: Path) -> None:
    last = LAST.model_copy(update={"stack": stack})
    assert last.of_last_time(Chosen(ports={"node": 3}, scrape_interval="15s")) == (
        f"--dir '{stack}' --runs-dir /runs --retention-time 1y --grafana-port 2 --target dcgm=node7:9400 --target dcgm=node8:9400"
    )
    assert last.of_last_time(last) == ""


def test_the_folder_in_which_the_first_up_was_said_is_that_of_the_next_wherever_it_is_said(stack: Path, tmp_path: Path) -> None:
    first = Chosen().after(Chosen(), stack)
    assert Chosen().after(first, tmp_path).folder() == stack
    assert Chosen().after(Chosen(), tmp_path).folder() == bundled()


def test_in_another_stacks_folder_one_has_to_say_which_is_meant(stack: Path, tmp_path: Path) -> None:
    last, other = Chosen(stack=stack), copied(tmp_path / "other")
    with pytest.raises(ConfigError, match="say which with --dir"):
        Chosen().after(last, other)
    assert Chosen(stack=other).after(last, other).folder() == other
    assert Chosen().after(last, stack).folder() == stack


def test_a_folder_that_is_gone_is_an_error_and_not_another_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gone has no stack in it"):
        Chosen().after(Chosen(stack=tmp_path / "gone"), tmp_path).folder()
