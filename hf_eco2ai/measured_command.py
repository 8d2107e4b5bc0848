"""`hf-eco2ai monitor -- command`: a run around any command, and its whole process tree."""

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hf_eco2ai import wiring
from hf_eco2ai.command import run_command
from hf_eco2ai.config import CarbonConfig, Environment
from hf_eco2ai.live import LiveRun, look_back
from hf_eco2ai.outputs import terminal
from hf_eco2ai.outputs.report import Report, opening_line
from hf_eco2ai.process_tree import ProcessTree
from hf_eco2ai.ranks import Ranks
from hf_eco2ai.records import EndReason, TreeUsage

INTERRUPTED, TERMINATED = 128 + 2, 128 + 15
"""Exit codes of a command that SIGINT or SIGTERM ended, as of POSIX shells."""


def measure_command(argv: Sequence[str], config: CarbonConfig) -> int:
    """Run a command and measure it. Returns the exit code to pass on.

    Of the tasks of one host (`srun`, `mpirun`) only the first measures; the others just run. With `budget_action="stop"` a spent
    budget sends the command and its process group a SIGTERM, once.

    Raises:
        ConfigError: a setting is wrong; then the command has not been started.

    """
    if Ranks.of(Environment.read().launcher).local_rank != 0:
        return run_command(argv, started=lambda _pid: None)
    context = wiring.reader_context(config, Environment.read())
    wiring.check(config, context)
    grid = wiring.grid(config)
    tree = ProcessTree()
    child: list[int] = []
    stopped: list[bool] = []

    def usage() -> TreeUsage:
        # The sampler asks once a tick, so a budget that is spent is seen here.
        if run.budgets.exhausted and child:
            stopped.append(True)
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pop(), signal.SIGTERM)  # The command leads a group: a script's programs end with it.
        return tree.usage()

    # Commands on several hosts do not know of each other, so each host's is a run of its own, and leads it.
    beginning, name = look_back(config, None), Path(argv[0]).name
    run = LiveRun(config, beginning, grid, context, model_name=name, trainer="monitor", tree=usage)

    def say(lines: str) -> None:
        if config.console_interval > 0:
            terminal.say(lines)

    code = 1
    try:
        run.start("train")
        say(opening_line(run.snapshot, run.metrics_url))
        code = run_command(argv, started=child.append)
        child.clear()
    except KeyboardInterrupt:  # Before the command has begun; from then on it is the command's.
        code = INTERRUPTED
    finally:
        with suppress(KeyboardInterrupt):  # The command's exit code is not lost to a second Ctrl-C.
            run.close("ended" if code == 0 or stopped else "failed", "budget" if stopped else _reason(code))
        if run.snapshot is not None:
            say(Report(run.snapshot).text(terminal.columns()))
    return code


def _reason(code: int) -> EndReason:
    reasons: dict[int, EndReason] = {0: "completed", INTERRUPTED: "interrupted", TERMINATED: "sigterm"}
    return reasons.get(code, "exit_code")
