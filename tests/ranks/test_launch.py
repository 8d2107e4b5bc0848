"""How the processes of a training find each other's keys, and not those of another."""

import pytest
import torch.distributed as dist

from hf_eco2ai import launch
from hf_eco2ai.exchange import Exchange
from hf_eco2ai.ranks import Ranks


@pytest.fixture
def store() -> dist.HashStore:
    """What the processes of a training have in common."""
    return dist.HashStore()


def begun(store: dist.HashStore, rank: int) -> Exchange:
    failures: list[str] = []
    exchange = launch.exchange_of(Ranks(rank, 2, rank), store, measures=rank == 0, uses="[]", fail=failures.append)
    assert exchange is not None
    assert failures == []
    return exchange


def test_what_the_processes_of_a_training_left_before_torchrun_restarted_them_is_not_taken_for_this_ones(
    store: dist.HashStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for restart in ("0", "1"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restart)
        first = begun(store, 0)
        alone = first.complete
        second = begun(store, 1)
        assert (alone, first.complete, second.complete) == (False, True, True)
        second.tell("figures")


def test_trainings_of_one_process_group_are_told_apart_by_how_many_each_rank_has_begun(store: dist.HashStore) -> None:
    for _ in range(3):
        first = begun(store, 0)
        alone = first.complete
        begun(store, 1)
        assert (alone, first.complete) == (False, True)


def test_a_restart_with_another_number_of_processes_begins_its_own_count(store: dist.HashStore) -> None:
    begun(store, 0)
    other = launch.exchange_of(Ranks(0, 3, 0), store, measures=True, uses="[]", fail=print)
    assert other is not None
    assert not other.complete
    again = begun(store, 0)
    begun(store, 1)
    begun(store, 1)
    assert again.complete


def test_without_a_store_each_host_is_told_to_be_a_run_of_its_own() -> None:
    said: list[str] = []
    assert launch.exchange_of(Ranks(1, 2, 1), None, measures=False, uses="[]", fail=said.append) is None
    assert len(said) == 1
    assert launch.exchange_of(Ranks(), None, measures=True, uses="[]", fail=said.append) is None
    assert len(said) == 1
