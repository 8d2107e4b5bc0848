"""Which GPUs are the job's: `CUDA_VISIBLE_DEVICES` read the way CUDA reads it."""

from collections.abc import Sequence
from dataclasses import dataclass

from hf_eco2ai.errors import ConfigError


@dataclass(frozen=True)
class MigSlice:
    """A MIG device. `share` is its part of the GPU's compute slices, 0 to 1."""

    uuid: str
    share: float
    path: str = ""
    """`<GPU instance ID>/<compute instance ID>`, by which `MIG-<GPU UUID>/<path>` names it too."""


@dataclass(frozen=True)
class Gpu:
    """A GPU as the driver lists it. `index` counts in PCI order, as NVML and nvidia-smi do."""

    index: int
    uuid: str
    speed: float = 0.0
    """Cores × MHz, to guess CUDA's order; 0 where the driver does not say."""
    slices: tuple[MigSlice, ...] = ()


@dataclass(frozen=True)
class Chosen:
    """A GPU that the job uses. `share` is below 1 only where the job has MIG slices and not the whole of it."""

    gpu: Gpu
    share: float = 1.0
    is_slice: bool = False


@dataclass(frozen=True)
class Choice:
    """The job's GPUs, and what the user should know about how they were found."""

    gpus: tuple[Chosen, ...]
    warnings: tuple[str, ...] = ()


def choose(
    gpus: Sequence[Gpu],
    *,
    gpu_ids: Sequence[int | str] | None = None,
    visible: str | None = None,
    order: str | None = None,
) -> Choice:
    """The job's GPUs: `gpu_ids` if given, else what CUDA makes of `CUDA_VISIBLE_DEVICES` and `CUDA_DEVICE_ORDER`, else all.

    CUDA reads the list up to the first entry that it does not know and ignores the rest; an empty list means no GPU. A UUID
    may be shortened as long as it stays unique.

    Raises:
        ConfigError: `gpu_ids` names a GPU that this machine does not have.

    """
    if gpu_ids is not None:
        return Choice(_merge([_by_setting(gpu_id, gpus) for gpu_id in gpu_ids]))
    if visible is None:
        return Choice(_merge([_as_cuda_sees(gpu) for gpu in gpus]))
    in_order = _cuda_order(gpus, order)
    chosen: list[Chosen] = []
    warnings: list[str] = []
    entries = [entry.strip() for entry in visible.split(",")] if visible.strip() else []
    for position, entry in enumerate(entries):
        found = _by_entry(entry, gpus, in_order)
        if found is None:
            rest = ",".join(entries[position:])
            warnings.append(f"CUDA_VISIBLE_DEVICES: CUDA ignores {rest!r}, because {entry!r} is no GPU here; so do we.")
            break
        chosen.append(found)
    some_by_number = len(chosen) < len(gpus) and any(entry.isdigit() for entry in entries)
    if some_by_number and in_order != list(gpus):
        warnings.append(_ORDER_WARNING)
    return Choice(_merge(chosen), tuple(warnings))


_ORDER_WARNING = (
    "These GPUs are not all alike and CUDA_DEVICE_ORDER is not set, so CUDA puts the fastest first; which one that is was "
    "guessed from cores and clock. Set CUDA_DEVICE_ORDER=PCI_BUS_ID to be sure."
)


def _cuda_order(gpus: Sequence[Gpu], order: str | None) -> list[Gpu]:
    """The GPUs in the order in which CUDA numbers them: PCI order, or (its default) the fastest first."""
    return list(gpus) if order == "PCI_BUS_ID" else sorted(gpus, key=lambda gpu: -gpu.speed)


def _by_entry(entry: str, gpus: Sequence[Gpu], in_order: Sequence[Gpu]) -> Chosen | None:
    if entry.isdigit():
        number = int(entry)
        return _as_cuda_sees(in_order[number]) if number < len(in_order) else None
    if entry.startswith("MIG-"):
        return _mig(entry, gpus)
    matches = [gpu for gpu in gpus if gpu.uuid.startswith(entry)] if entry.startswith("GPU-") else []
    return Chosen(matches[0]) if len(matches) == 1 else None


def _as_cuda_sees(gpu: Gpu) -> Chosen:
    """The GPU or, in MIG mode, its first slice: the one that a process gets which names none (NVIDIA MIG User Guide, 2024)."""
    return Chosen(gpu, gpu.slices[0].share, is_slice=True) if gpu.slices else Chosen(gpu)


def _mig(entry: str, gpus: Sequence[Gpu]) -> Chosen | None:
    """`MIG-<uuid>` (also shortened), or `MIG-GPU-<uuid>/<gi>/<ci>` as drivers before 470 wrote it."""
    matches = [
        (gpu, part)
        for gpu in gpus
        for part in gpu.slices
        if part.uuid.startswith(entry) or entry == f"MIG-{gpu.uuid}/{part.path}"
    ]
    if len(matches) == 1:
        gpu, part = matches[0]
        return Chosen(gpu, part.share, is_slice=True)
    return None


def _by_setting(gpu_id: int | str, gpus: Sequence[Gpu]) -> Chosen:
    found: Chosen | None
    if isinstance(gpu_id, int) or gpu_id.isdigit():
        index = int(gpu_id)
        found = Chosen(gpus[index]) if 0 <= index < len(gpus) else None
    else:
        found = _by_entry(gpu_id, gpus, gpus)
    if found is None:
        known = ", ".join(f"{gpu.index} ({gpu.uuid})" for gpu in gpus) or "none"
        raise ConfigError(
            f"gpu_ids: {gpu_id!r} is not a GPU of this machine. Give the numbers that nvidia-smi shows, or UUIDs; here: {known}."
        )
    return found


def _merge(chosen: Sequence[Chosen]) -> tuple[Chosen, ...]:
    """One entry per GPU: several slices of one GPU are read once, with their shares added."""
    merged: dict[str, Chosen] = {}
    for one in chosen:
        before = merged.get(one.gpu.uuid)
        if before is None:
            merged[one.gpu.uuid] = one
        elif before.is_slice and one.is_slice:
            merged[one.gpu.uuid] = Chosen(one.gpu, min(1.0, before.share + one.share), is_slice=True)
        else:
            merged[one.gpu.uuid] = Chosen(one.gpu)
    return tuple(sorted(merged.values(), key=lambda one: one.gpu.index))
