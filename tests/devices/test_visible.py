"""Which GPUs are the job's: the cases of the CUDA C++ Programming Guide (environment variables) and of NVIDIA's MIG guide."""

import pytest

from hf_eco2ai.devices.visible import Chosen, Gpu, MigSlice, choose
from hf_eco2ai.errors import ConfigError

ALIKE = tuple(Gpu(i, f"GPU-{i}{i}aa-bb", speed=100.0) for i in range(4))
MIXED = (Gpu(0, "GPU-slow", speed=10.0), Gpu(1, "GPU-fast", speed=90.0), Gpu(2, "GPU-middle", speed=50.0))
SLICED = (
    Gpu(0, "GPU-00aa", slices=(MigSlice("MIG-1111", 3 / 7), MigSlice("MIG-2222", 2 / 7), MigSlice("MIG-2233", 2 / 7))),
    Gpu(1, "GPU-11aa"),
)


def numbers(chosen: tuple[Chosen, ...]) -> list[int]:
    return [one.gpu.index for one in chosen]


@pytest.mark.parametrize(
    ("visible", "job"),
    [
        (None, [0, 1, 2, 3]),
        ("", []),
        ("  ", []),
        ("0,2", [0, 2]),
        ("2,0", [0, 2]),
        (" 1 , 3 ", [1, 3]),
        ("3", [3]),
        ("GPU-11aa-bb", [1]),
        ("GPU-11", [1]),
        ("GPU-11,GPU-33", [1, 3]),
        ("1,1", [1]),
    ],
)
def test_the_jobs_gpus_are_those_that_cuda_sees(visible: str | None, job: list[int]) -> None:
    choice = choose(ALIKE, visible=visible)

    assert numbers(choice.gpus) == job
    assert choice.warnings == ()


@pytest.mark.parametrize(
    ("visible", "job", "ignored"),
    [("0,7,2", [0], "7,2"), ("-1", [], "-1"), ("0,-1,1", [0], "-1,1"), ("GPU-ff,0", [], "GPU-ff,0"), ("GPU-", [], "GPU-")],
)
def test_cuda_stops_at_the_first_entry_that_it_does_not_know(visible: str, job: list[int], ignored: str) -> None:
    choice = choose(ALIKE, visible=visible)

    assert numbers(choice.gpus) == job
    assert len(choice.warnings) == 1
    assert ignored in choice.warnings[0]


def test_by_pci_order_numbers_are_those_of_nvidia_smi() -> None:
    choice = choose(MIXED, visible="0", order="PCI_BUS_ID")

    assert [one.gpu.uuid for one in choice.gpus] == ["GPU-slow"]
    assert choice.warnings == ()


@pytest.mark.parametrize("order", [None, "FASTEST_FIRST"])
def test_without_pci_order_number_0_is_the_fastest_and_it_is_said_that_this_is_a_guess(order: str | None) -> None:
    choice = choose(MIXED, visible="0", order=order)

    assert [one.gpu.uuid for one in choice.gpus] == ["GPU-fast"]
    assert len(choice.warnings) == 1
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in choice.warnings[0]


def test_where_all_gpus_or_uuids_are_named_the_order_does_not_matter() -> None:
    assert choose(MIXED, visible="0,1,2").warnings == ()
    assert choose(MIXED, visible="GPU-fast").warnings == ()


def test_a_slice_is_its_gpu_with_a_share() -> None:
    (one,) = choose(SLICED, visible="MIG-1111").gpus

    assert (one.gpu.index, one.share, one.is_slice) == (0, 3 / 7, True)


def test_slices_of_one_gpu_are_one_gpu_with_their_shares_added() -> None:
    (one,) = choose(SLICED, visible="MIG-1111,MIG-2222").gpus

    assert (one.gpu.index, one.is_slice) == (0, True)
    assert one.share == pytest.approx(5 / 7)


def test_a_slice_beside_its_whole_gpu_adds_nothing() -> None:
    (one,) = choose(SLICED, gpu_ids=["MIG-1111", 0]).gpus

    assert (one.gpu.index, one.share, one.is_slice) == (0, 1.0, False)


def test_a_shortened_slice_must_be_unique() -> None:
    assert numbers(choose(SLICED, visible="MIG-11").gpus) == [0]
    assert choose(SLICED, visible="MIG-22").gpus == ()


def test_gpu_ids_are_stronger_than_the_environment_and_count_as_nvidia_smi_does() -> None:
    choice = choose(MIXED, gpu_ids=(0, "GPU-mid"), visible="1", order=None)

    assert [one.gpu.uuid for one in choice.gpus] == ["GPU-slow", "GPU-middle"]
    assert choice.warnings == ()


def test_an_empty_gpu_ids_is_no_gpu() -> None:
    assert choose(ALIKE, gpu_ids=()).gpus == ()


@pytest.mark.parametrize("wrong", [4, -1, "4", "GPU-ff", "MIG-ff", "nonsense"])
def test_a_gpu_id_that_is_not_here_is_refused_with_those_that_are(wrong: int | str) -> None:
    with pytest.raises(ConfigError) as caught:
        choose(ALIKE, gpu_ids=[wrong])

    message = str(caught.value)
    assert message.startswith(f"gpu_ids: {wrong!r}")
    assert all(gpu.uuid in message for gpu in ALIKE)
