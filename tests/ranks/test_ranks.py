"""Which process of a distributed training this is."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_eco2ai.ranks import Ranks, gpus_in_use

BATCH_STEP, INTERACTIVE_STEP, OLD_BATCH_STEP = "4294967291", "4294967290", "4294967294"
"""0xfffffffb, 0xfffffffa and, before Slurm 20.11, 0xfffffffe: slurm/slurm.h."""


def torchrun(rank: int, world: int, per_node: int) -> dict[str, str]:
    """What torch/distributed/elastic/agent/server/local_elastic_agent.py sets for a worker."""
    return {
        "LOCAL_RANK": str(rank % per_node),
        "RANK": str(rank),
        "GROUP_RANK": str(rank // per_node),
        "ROLE_RANK": str(rank),
        "ROLE_NAME": "default",
        "LOCAL_WORLD_SIZE": str(per_node),
        "WORLD_SIZE": str(world),
        "GROUP_WORLD_SIZE": str(world // per_node),
        "ROLE_WORLD_SIZE": str(world),
        "MASTER_ADDR": "node0",
        "MASTER_PORT": "29500",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_RUN_ID": "none",
        "OMP_NUM_THREADS": "1",
    }


def srun(rank: int, tasks: int, per_node: int, step: str = "0") -> dict[str, str]:
    return {
        "SLURM_JOB_ID": "200505",
        "SLURM_JOBID": "200505",
        "SLURM_STEP_ID": step,
        "SLURM_STEPID": step,
        "SLURM_STEP_NUM_TASKS": str(tasks),
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank % per_node),
        "SLURM_NODEID": str(rank // per_node),
        "SLURM_NTASKS": str(tasks),
        "SLURM_NPROCS": str(tasks),
        "SLURM_NNODES": str(tasks // per_node),
    }


def sbatch(tasks: int) -> dict[str, str]:
    """A batch script with --ntasks: no step, but PROCID, LOCALID and NTASKS are there (gist jerinphilip/212b3814, 2018)."""
    return {name: value for name, value in srun(0, tasks, tasks).items() if "STEP" not in name}


def open_mpi(rank: int, size: int, per_node: int) -> dict[str, str]:
    return {
        "OMPI_COMM_WORLD_RANK": str(rank),
        "OMPI_COMM_WORLD_SIZE": str(size),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(rank % per_node),
        "OMPI_COMM_WORLD_LOCAL_SIZE": str(per_node),
        "OMPI_COMM_WORLD_NODE_RANK": str(rank % per_node),
        "OMPI_UNIVERSE_SIZE": str(size),
        "PMIX_RANK": str(rank),
        "PMIX_NAMESPACE": "prterun-node0-1@1",
    }


def hydra(rank: int, size: int, per_node: int) -> dict[str, str]:
    return {
        "PMI_RANK": str(rank),
        "PMI_SIZE": str(size),
        "PMI_FD": "9",
        "MPI_LOCALRANKID": str(rank % per_node),
        "MPI_LOCALNRANKS": str(per_node),
    }


def mvapich(rank: int, size: int, per_node: int) -> dict[str, str]:
    return {
        "MV2_COMM_WORLD_RANK": str(rank),
        "MV2_COMM_WORLD_SIZE": str(size),
        "MV2_COMM_WORLD_LOCAL_RANK": str(rank % per_node),
        "MV2_COMM_WORLD_LOCAL_SIZE": str(per_node),
    }


ACCELERATE = {"ACCELERATE_USE_FSDP": "false", "ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_DYNAMO_BACKEND": "NO"}
DEEPSPEED = {
    "RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_SIZE": "4", "CROSS_RANK": "1", "CROSS_SIZE": "2",
    "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500", "CUDA_VISIBLE_DEVICES": "0,1,2,3",
}  # fmt: skip

CASES = {
    "nothing": ({}, Ranks()),
    "torchrun on one node": (torchrun(3, 4, 4), Ranks(3, 4, 3, "torch.distributed")),
    "torchrun on two nodes": (torchrun(13, 16, 8), Ranks(13, 16, 5, "torch.distributed")),
    "the first of torchrun's second node": (torchrun(8, 16, 8), Ranks(8, 16, 0, "torch.distributed")),
    "torchrun with one process": (torchrun(0, 1, 1), Ranks()),
    "accelerate launch": (ACCELERATE | torchrun(1, 2, 2), Ranks(1, 2, 1, "torch.distributed")),
    "accelerate launch with one process": (ACCELERATE, Ranks()),
    "deepspeed": (DEEPSPEED, Ranks(5, 8, 1, "torch.distributed")),
    "srun": (srun(11, 16, 8), Ranks(11, 16, 3, "SLURM")),
    "srun, its script sets LOCAL_RANK=0 everywhere": (
        srun(5, 8, 8) | {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "0"},
        Ranks(5, 8, 5, "torch.distributed"),
    ),
    "srun torchrun, one task a node": (srun(1, 2, 1) | torchrun(11, 16, 8), Ranks(11, 16, 3, "torch.distributed")),
    "srun torchrun, its first process": (srun(1, 2, 1) | torchrun(8, 16, 8), Ranks(8, 16, 0, "torch.distributed")),
    "a sweep under srun whose script says that each is alone": (srun(5, 8, 8) | {"RANK": "0", "WORLD_SIZE": "1"}, Ranks()),
    "srun of one task": (srun(0, 1, 1), Ranks()),
    "sbatch without srun": (sbatch(8), Ranks()),
    "sbatch without srun, the step has a number": (srun(0, 8, 8, BATCH_STEP), Ranks()),
    "sbatch without srun, an old Slurm": (srun(0, 8, 8, OLD_BATCH_STEP), Ranks()),
    "sbatch without srun, the step has a name": (srun(0, 8, 8, "batch"), Ranks()),
    "the interactive shell of salloc": (srun(0, 8, 8, INTERACTIVE_STEP), Ranks()),
    "torchrun in a batch script": (sbatch(8) | torchrun(2, 8, 8), Ranks(2, 8, 2, "torch.distributed")),
    "mpirun of Open MPI": (open_mpi(6, 8, 4), Ranks(6, 8, 2, "Open MPI")),
    "mpirun of Open MPI within a batch script": (sbatch(8) | open_mpi(6, 8, 4), Ranks(6, 8, 2, "Open MPI")),
    "mpirun of Intel MPI": (hydra(6, 8, 4), Ranks(6, 8, 2, "MPICH")),
    "mpirun of Intel MPI, started by way of srun": (srun(1, 2, 1) | hydra(6, 8, 4), Ranks(6, 8, 2, "MPICH")),
    "Intel MPI, mapped by accelerate": (
        hydra(6, 8, 4) | {"RANK": "6", "WORLD_SIZE": "8", "LOCAL_RANK": "2"},
        Ranks(6, 8, 2, "torch.distributed"),
    ),
    "MVAPICH": (mvapich(6, 8, 4), Ranks(6, 8, 2, "MVAPICH")),
    "PMIx alone, which has no size": ({"PMIX_RANK": "3"}, Ranks()),
    "a rank without a size": ({"RANK": "3"}, Ranks()),
    "empty": ({"RANK": "", "WORLD_SIZE": "", "LOCAL_RANK": ""}, Ranks()),
    "words": ({"RANK": "abc", "WORLD_SIZE": "8"}, Ranks()),
    "negative": ({"RANK": "-1", "WORLD_SIZE": "8"}, Ranks()),
    "a rank beyond the size": ({"RANK": "8", "WORLD_SIZE": "8"}, Ranks()),
    "a size of nothing": ({"RANK": "0", "WORLD_SIZE": "0"}, Ranks()),
    "malformed, but the next launcher is sound": (
        {"RANK": "9", "WORLD_SIZE": "8"} | open_mpi(6, 8, 4),
        Ranks(6, 8, 2, "Open MPI"),
    ),
    "a local rank of -1": (
        {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "-1"},
        Ranks(1, 2, 0, "torch.distributed"),
    ),
    "a local rank beyond the size": (
        {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "7"},
        Ranks(1, 2, 0, "torch.distributed"),
    ),
    "blanks around": ({"RANK": " 1 ", "WORLD_SIZE": "2"}, Ranks(1, 2, 0, "torch.distributed")),
}


@pytest.mark.parametrize(("environment", "ranks"), CASES.values(), ids=CASES.keys())
def test_the_environment_of_a_launcher_says_which_rank_this_is(environment: dict[str, str], ranks: Ranks) -> None:
    assert Ranks.of(environment) == ranks


@pytest.mark.parametrize(
    "of_rank",
    [
        lambda rank: torchrun(rank, 16, 8),
        lambda rank: srun(rank, 16, 8),
        lambda rank: srun(rank, 16, 8) | {"RANK": str(rank), "WORLD_SIZE": "16", "LOCAL_RANK": "0"},
        lambda rank: srun(rank // 8, 2, 1) | torchrun(rank, 16, 8),
        lambda rank: srun(rank // 4, 4, 2) | torchrun(rank, 16, 4),  # Two torchruns a node.
        lambda rank: open_mpi(rank, 16, 8),
        lambda rank: srun(rank // 8, 2, 1) | hydra(rank, 16, 8),
    ],
)
def test_exactly_one_process_of_each_host_has_local_rank_0(of_rank: Callable[[int], dict[str, str]]) -> None:
    firsts = [rank for rank in range(16) if Ranks.of(of_rank(rank)).local_rank == 0]

    assert firsts == [0, 8]


VARIABLES = sorted({name for environment, _ in CASES.values() for name in environment})


@given(st.dictionaries(st.sampled_from(VARIABLES), st.text() | st.sampled_from(["²", "٣", "0x1", "1e3", "-0", "9" * 5000])))
def test_whatever_the_variables_hold_nothing_is_raised_and_the_ranks_are_consistent(environment: dict[str, str]) -> None:
    ranks = Ranks.of(environment)

    assert 0 <= ranks.rank < ranks.world_size
    assert 0 <= ranks.local_rank < ranks.world_size
    assert ranks.world_size > 1 or ranks == Ranks()


# Which GPUs a host's ranks compute on


@pytest.mark.parametrize(
    ("uses", "visible"),
    [
        ([("0,1,2,3", (0,)), ("0,1,2,3", (1,))], "0,1"),  # Two processes on a node of four.
        ([("4,5,6,7", (0,)), ("4,5,6,7", (3,))], "4,7"),
        ([("2", (0,)), ("3", (0,))], "2,3"),  # srun --gpus-per-task=1: each rank sees its own.
        ([(None, (0,)), (None, (1,))], "0,1"),
        ([(None, (5,)), ("1", (0,))], "5,1"),
        ([("GPU-aa,GPU-bb", (1,))], "GPU-bb"),
        ([("MIG-cc", (0,)), ("MIG-dd", (0,))], "MIG-cc,MIG-dd"),
        ([("0,1", (0, 1)), ("0,1", (0, 1))], "0,1"),  # A model spread over both; no GPU twice.
        ([(" 3 , 1 ", (1, 0))], "1,3"),
    ],
)
def test_the_gpus_of_a_host_are_those_that_its_ranks_compute_on(
    uses: list[tuple[str | None, tuple[int, ...]]], visible: str
) -> None:
    assert gpus_in_use(uses) == visible


@pytest.mark.parametrize(
    "uses",
    [
        [],
        [("0,1", ())],
        [("0,1", (0,)), ("0,1", ())],  # One does not know: its GPU could be any.
        [("0,1", (2,))],
        [("0,1", (-1,))],
        [("", (0,))],
        [("0,-1,1", (1,))],  # CUDA stops at -1, so there is no second GPU.
    ],
)
def test_where_a_rank_does_not_know_nothing_is_left_out(uses: list[tuple[str | None, tuple[int, ...]]]) -> None:
    assert gpus_in_use(uses) is None
