"""Which process of a distributed training this is, as its launcher says in the environment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_LAUNCHERS = (
    # torchrun and `accelerate launch` on GPUs set these (torch.distributed's env:// initialisation reads them), and DeepSpeed's
    # launcher does too. First, because a script that maps another launcher's variables maps them to these.
    ("torch.distributed", "RANK", "WORLD_SIZE"),
    # https://docs.open-mpi.org/en/v5.0.x/tuning-apps/environment-var.html
    ("Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    # Hydra, the launcher of MPICH and Intel MPI. accelerate 1.x reads this row and the two around it as well
    # (accelerate/utils/environment.py, get_cpu_distributed_information).
    ("MPICH", "PMI_RANK", "PMI_SIZE"),
    ("MVAPICH", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    # PMIx has a rank (PMIX_RANK) but no variable for the size, so it alone says too little and has no row here.
)
"""Name, variable of the rank, variable of the number of ranks. The first that says both wins."""

_SLURM = ("SLURM", "SLURM_PROCID", "SLURM_NTASKS")
"""https://slurm.schedmd.com/srun.html#SECTION_OUTPUT-ENVIRONMENT-VARIABLES. Only inside a step of srun: a batch script has
these variables too, but is one process."""

_LOCAL_RANKS = ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_LOCAL_RANK")
_SLURM_LOCAL_RANK = "SLURM_LOCALID"

_FIRST_SPECIAL_STEP = 0xFFFFFFF0
"""SLURM_MAX_NORMAL_STEP_ID in slurm/slurm.h: above are the pseudo steps, such as that of a batch script and of an interactive
shell of `salloc`. They have the SLURM_PROCID and SLURM_NTASKS of the job, but are one process."""


@dataclass(frozen=True)
class Ranks:
    """Where a process stands among those of its training. The default is a training of one process.

    It is what the environment says, no more: that several processes were started together does not mean that they train
    together (`srun -n 8` may be a sweep of eight trainings). How many ranks there really are, the Trainer knows.
    """

    rank: int = 0
    """Among all processes, 0 to `world_size` - 1."""
    world_size: int = 1
    local_rank: int = 0
    """Among the processes of this host; exactly one of them has 0."""
    launcher: str = ""
    """Whose variables said so; empty for one process."""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Ranks":
        """What the variables of this process say. Malformed ones are as good as not set."""
        rows = (*_LAUNCHERS, _SLURM) if _in_srun_step(environment) else _LAUNCHERS
        for launcher, rank_name, size_name in rows:
            rank, size = _number(environment, rank_name), _number(environment, size_name)
            if rank is not None and size is not None and rank < size:
                if size == 1:  # Started by srun or mpirun beside others, it still is a training of its own.
                    return cls()
                return cls(rank, size, _local_rank(environment, size), launcher)
        return cls()


def _local_rank(environment: Mapping[str, str], world_size: int) -> int:
    """The largest that any launcher says.

    Launchers nest, and the one that started one process per host says 0 in all of them: under `srun torchrun` that is srun, and
    where a script under `srun --gpus-per-task=1` sets LOCAL_RANK=0 for its only visible GPU, it is LOCAL_RANK. The other
    one tells the truth, and where all say 0 it is 0.
    """
    names = (*_LOCAL_RANKS, _SLURM_LOCAL_RANK) if _in_srun_step(environment) else _LOCAL_RANKS
    known = [_number(environment, name) for name in names]
    return max((rank for rank in known if rank is not None and rank < world_size), default=0)


def _in_srun_step(environment: Mapping[str, str]) -> bool:
    step = _number(environment, "SLURM_STEP_ID")
    return step is not None and step < _FIRST_SPECIAL_STEP


def _number(environment: Mapping[str, str], name: str) -> int | None:
    """A whole number from 0; None for anything else."""
    text = environment.get(name, "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS else None


_MOST_DIGITS = 18
"""More than any count has. Python refuses to convert thousands of digits, and a variable may hold anything."""


def gpus_in_use(uses: Sequence[tuple[str | None, tuple[int, ...]]]) -> str | None:
    """The `CUDA_VISIBLE_DEVICES` that stands for the GPUs which the ranks of one host really compute on.

    Each rank says its own `CUDA_VISIBLE_DEVICES` (None: not set) and the indices of the CUDA devices that it computes on (empty:
    it does not know). An index counts in the rank's own list, as CUDA's does. None where one of them does not know or says
    what cannot be: then nothing may be left out. Give it all ranks of the host; of a rank that is missing, so are its GPUs.
    """
    found: dict[str, None] = {}  # A set that keeps its order.
    for visible, indices in uses:
        entries = None if visible is None else _entries(visible)
        for index in indices:
            if index < 0 or (entries is not None and index >= len(entries)):
                return None
            found[str(index) if entries is None else entries[index]] = None
        if not indices:
            return None
    return ",".join(found) or None


def _entries(visible: str) -> list[str]:
    """The entries that CUDA may count. It ignores the list from the first invalid one on, and -1 or nothing is always that."""
    entries: list[str] = []
    for entry in (part.strip() for part in visible.split(",")):
        if not entry or entry.startswith("-"):
            break
        entries.append(entry)
    return entries
