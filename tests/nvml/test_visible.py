"""Which GPUs' joules are counted. Every GPU draws its own power, so the sum tells which."""

from typing import Any

import pytest

from hf_eco2ai.devices.nvml import Nvml
from hf_eco2ai.errors import ConfigError
from tests.nvml.standin import Gpu, Measured, Slice, Standin, context, measure, uuid
from tests.nvml.traces import Constant

WATTS = (10.0, 20.0, 40.0, 80.0)
UUIDS = ("GPU-11111111-a", "GPU-11222222-b", "GPU-33333333-c", "GPU-44444444-d")
SPEEDS = (1000, 4000, 2000, 3000)
"""The default order of CUDA, fastest first, is thus 1, 3, 2, 0."""


def counted(standin: Standin, **choice: Any) -> list[int]:
    """NVML indices of the GPUs whose joules were counted, each of them once."""
    gpus = (Gpu(Constant(w), uuid=u, cores=c) for w, u, c in zip(WATTS, UUIDS, SPEEDS, strict=True))
    standin.configure(*gpus, call_seconds=0.0)
    return which(measure(standin, 2.0, **choice))


def which(measured: Measured) -> list[int]:
    watts = measured.snapshot.total.joules / 2.0
    assert watts == pytest.approx(round(watts), abs=0.01)
    return [index for index, bit in enumerate((1, 2, 4, 8)) if round(watts / 10) & bit]


FULL = ",".join(UUIDS[i] for i in (2, 0))


@pytest.mark.parametrize(
    ("visible", "order", "expected"),
    [
        (None, None, [0, 1, 2, 3]),
        ("", None, []),
        ("  ", None, []),
        ("0,1,2,3", None, [0, 1, 2, 3]),
        ("3,2,1,0", None, [0, 1, 2, 3]),
        ("0", "PCI_BUS_ID", [0]),
        ("1,2", "PCI_BUS_ID", [1, 2]),
        ("2,0", "PCI_BUS_ID", [0, 2]),
        (" 2 , 0 ", "PCI_BUS_ID", [0, 2]),
        ("0", None, [1]),
        ("0", "FASTEST_FIRST", [1]),
        ("1,2", None, [2, 3]),
        ("3", None, [0]),
        (UUIDS[2], None, [2]),
        (FULL, None, [0, 2]),
        ("GPU-3", None, [2]),
        ("GPU-112,GPU-4", None, [1, 3]),
        ("GPU-11", None, []),
        ("GPU-4,GPU-11,GPU-3", None, [3]),
        ("0,7,1", "PCI_BUS_ID", [0]),
        ("0,GPU-9,1", "PCI_BUS_ID", [0]),
        ("-1", None, []),
        ("2,-1,0", "PCI_BUS_ID", [2]),
        ("NoDevFiles", None, []),
        ("none", None, []),
    ],
)
def test_cuda_visible_devices_decides_whose_joules_are_counted(
    standin: Standin, visible: str | None, order: str | None, expected: list[int]
) -> None:
    assert counted(standin, cuda_visible_devices=visible, cuda_device_order=order) == expected


@pytest.mark.parametrize(
    ("gpu_ids", "expected"), [((0,), [0]), ((3, 1), [1, 3]), (("2",), [2]), ((UUIDS[1], 0), [0, 1]), ((), [])]
)
def test_gpu_ids_are_the_numbers_of_nvidia_smi_and_override_cuda_visible_devices(
    standin: Standin, gpu_ids: tuple[int | str, ...], expected: list[int]
) -> None:
    assert counted(standin, gpu_ids=gpu_ids, cuda_visible_devices="3") == expected


@pytest.mark.parametrize("gpu_id", [4, -1, "7", "GPU-11", "GPU-9", "A100"])
def test_a_wrong_gpu_id_is_refused_by_name(standin: Standin, gpu_id: int | str) -> None:
    standin.configure(*(Gpu(Constant(w), uuid=u) for w, u in zip(WATTS, UUIDS, strict=True)))
    with pytest.raises(ConfigError, match=f"{gpu_id!r} is not a GPU of this machine"):
        Nvml(standin.pynvml, context(standin, gpu_ids=(0, gpu_id)))


def test_a_refused_gpu_id_gives_the_driver_back(standin: Standin) -> None:
    standin.configure(Gpu(Constant(10.0)))
    with pytest.raises(ConfigError):
        Nvml(standin.pynvml, context(standin, gpu_ids=(1,)))
    assert standin.inits == 0


def test_a_run_without_a_gpu_has_no_joules_and_says_that_nothing_was_observed(standin: Standin) -> None:
    standin.configure(Gpu(Constant(10.0)))
    snapshot = measure(standin, 2.0, cuda_visible_devices="").snapshot
    assert snapshot.devices == ()
    assert snapshot.total.joules == 0
    assert snapshot.observed_ratio is None
    assert standin.inits == 0


def test_a_gpu_that_does_not_answer_keeps_its_number_so_that_the_others_keep_theirs(standin: Standin) -> None:
    gpus = [Gpu(Constant(w), uuid=u, lost_at=0.0 if i == 1 else 1e9) for i, (w, u) in enumerate(zip(WATTS, UUIDS, strict=True))]
    standin.configure(*gpus, call_seconds=0.0)
    assert which(measure(standin, 2.0, cuda_visible_devices="2,1,3", cuda_device_order="PCI_BUS_ID")) == [2, 3]


# GPU 0 is not split, GPU 1 has slices of 3/7 and 2/7 with a hole between them, GPU 2 one of 1/7.
MIG = ("MIG-aaaaaaaa-1", "MIG-aabbbbbb-2", "MIG-cccccccc-3")
OLD_MIG = (f"MIG-{uuid(1)}/1/0", f"MIG-{uuid(1)}/11/0", f"MIG-{uuid(2)}/1/0")


@pytest.mark.parametrize("slices", [MIG, OLD_MIG], ids=["uuid", "as before driver 470"])
@pytest.mark.parametrize(
    ("entries", "whole", "shared"),
    [
        ((0,), 700.0, 300.0),
        ((1,), 700.0, 200.0),
        ((0, 1), 700.0, 500.0),
        ((2,), 1400.0, 200.0),
        ((1, 2), 2100.0, 400.0),
    ],
)
@pytest.mark.parametrize("has_counter", [True, False])
def test_a_mig_slice_is_charged_with_its_whole_gpu_once_or_with_its_share(
    standin: Standin, slices: tuple[str, str, str], entries: tuple[int, ...], whole: float, shared: float, has_counter: bool
) -> None:
    visible = ",".join(slices[i] for i in entries)
    for attribution, watts in (("whole", whole), ("share", shared)):
        _configure_mig(standin, slices, has_counter)
        measured = measure(standin, 2.0, cuda_visible_devices=visible, mig_attribution=attribution)
        assert measured.snapshot.total.joules == pytest.approx(2 * watts, rel=1e-6, abs=0.01)
        assert all("MIG" in status.device.note for status in measured.snapshot.devices)


@pytest.mark.parametrize(
    ("visible", "watts"),
    [
        ("MIG-aaa", 300.0),
        ("MIG-aa", 0.0),
        ("MIG-c", 200.0),
        ("MIG-d", 0.0),
        ("MIG-c,MIG-d,MIG-aaa", 200.0),
        ("GPU-00000000", 50.0),
    ],
)
def test_a_mig_uuid_may_be_shortened_as_long_as_it_stays_unique(standin: Standin, visible: str, watts: float) -> None:
    _configure_mig(standin, MIG, has_counter=True)
    measured = measure(standin, 2.0, cuda_visible_devices=visible, mig_attribution="share")
    assert measured.snapshot.total.joules == pytest.approx(2 * watts, rel=1e-6, abs=0.01)


@pytest.mark.parametrize(("entries", "watts"), [((0,), 300.0), ((1,), 200.0), ((0, 1), 500.0), ((2,), 200.0)])
def test_the_name_of_a_slice_by_its_instances_is_understood_also_where_slices_have_a_uuid(
    standin: Standin, entries: tuple[int, ...], watts: float
) -> None:
    # CUDA Programming Guide, environment variables: MIG-<GPU-UUID>/<GPU instance ID>/<compute instance ID>.
    _configure_mig(standin, MIG, has_counter=True)
    visible = ",".join(OLD_MIG[i] for i in entries)
    measured = measure(standin, 2.0, cuda_visible_devices=visible, mig_attribution="share")
    assert measured.snapshot.total.joules == pytest.approx(2 * watts, rel=1e-6, abs=0.01)


def test_three_jobs_that_share_one_gpu_instance_are_together_charged_with_it_once(standin: Standin) -> None:
    slices = tuple(Slice(f"MIG-{name}", 3, instance=1, compute=number, compute_size=1) for number, name in enumerate("abc"))
    joules = 0.0
    for job in slices:
        standin.configure(Gpu(Constant(700.0), slices=slices), call_seconds=0.0)
        joules += measure(standin, 2.0, cuda_visible_devices=job.uuid, mig_attribution="share").snapshot.total.joules
    assert joules == pytest.approx(2 * 700.0 * 3 / 7, abs=0.01)


def _configure_mig(standin: Standin, slices: tuple[str, str, str], has_counter: bool) -> None:
    standin.configure(
        Gpu(Constant(50.0), has_counter=has_counter),
        Gpu(Constant(700.0), has_counter=has_counter, slices=(Slice(slices[0], 3, 1), None, Slice(slices[1], 2, 11))),
        Gpu(Constant(1400.0), has_counter=has_counter, slices=(Slice(slices[2], 1, 1),), limit_watts=1500.0),
        call_seconds=0.0,
    )
