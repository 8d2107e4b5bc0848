"""The same in real time, as a user has it: a fresh process, the sampler's thread, and dlopen by way of LD_LIBRARY_PATH."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WATTS = 300.0


@pytest.mark.parametrize(("counter", "method"), [("1", "counter"), ("0", "trapezoid")])
def test_eight_gpus_in_real_time_used_watts_times_the_observed_seconds(library: Path, counter: str, method: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tests.nvml.live", "3"],
        cwd=ROOT,
        env={
            "LD_LIBRARY_PATH": str(library.parent),
            "STANDIN_GPUS": "8",
            "STANDIN_WATTS": f"constant:{WATTS}",
            "STANDIN_COUNTER": counter,
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    run = json.loads(result.stdout)
    assert run["state"] == "ended"
    assert run["methods"] == [method]
    assert set(run["errors"]) <= {"slow_read", "gap"}  # as a loaded machine may hold a read up; the joules must be right then too
    assert len(run["joules"]) == 8
    assert run["seconds"] >= 3.0
    for joules, seconds in zip(run["joules"], run["observed_seconds"], strict=True):
        assert joules == pytest.approx(WATTS * seconds, rel=0.005)
    # What is not there (the driver being opened) is said to be missing, to the joule.
    observed = run["seconds"] * run["observed_ratio"]
    assert 0 < run["observed_ratio"] <= 1
    assert sum(run["joules"]) == pytest.approx(8 * WATTS * observed, rel=0.005)
