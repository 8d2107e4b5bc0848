"""Measures every figure and prints it beside its target: `python -m benchmarks [part of a name ...]`."""

import os
import platform
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

from benchmarks import daemon, endpoint, footprint, sampler, training


class Figure(NamedTuple):
    """One measured number."""

    name: str
    value: float
    unit: str
    target: float


Source = Callable[[], Iterator[tuple[str, float, str, float]]]

SOURCES: tuple[Source, ...] = (
    training.step_cost,
    training.start_and_stop,
    sampler.tick,
    sampler.share_of_a_core,
    sampler.growth,
    endpoint.scrapes_idle,
    endpoint.scrapes_while_training,
    daemon.daemon_of_a_node,
    daemon.daemon_of_a_large_node,
    daemon.daemon_of_an_idle_node,
    footprint.imports,
    footprint.install_size,
    training.memory,
)


def main() -> None:
    wanted = sys.argv[1:]
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}\n")
    print(f"{'figure':<72} {'measured':>12} {'target':>12}")
    missed = 0
    for source in SOURCES:
        if wanted and not any(word in source.__name__ for word in wanted):
            continue
        for figure in map(Figure._make, source()):
            met = figure.value <= figure.target
            missed += not met
            verdict = "" if met else "  MISSED"
            print(
                f"{figure.name:<72} {figure.value:>8.4g} {figure.unit:<3} {'≤':>2} {figure.target:>6g} {figure.unit}{verdict}",
                flush=True,
            )
    print(f"\n{missed} missed" if missed else "\nall met")


if __name__ == "__main__":
    main()
