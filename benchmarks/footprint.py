"""What hf_eco2ai costs before anything runs: import time and install size."""

import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

from benchmarks.training import ROOT, Row

RUNS = 15


def _milliseconds(statement: str) -> float:
    code = f"import time; t = time.perf_counter(); {statement}; print((time.perf_counter() - t) * 1e3)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def imports() -> Iterator[Row]:
    """Import times in fresh interpreters, bytecode already compiled."""
    for statement, target in (("import hf_eco2ai", 60.0), ("from hf_eco2ai import CarbonConfig", 180.0)):
        yield f"`{statement}`, median", statistics.median(_milliseconds(statement) for _ in range(RUNS)), "ms", target


def install_size() -> Iterator[Row]:
    """Everything that `pip install hf-eco2ai` puts into an empty virtual environment, compiled bytecode included."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        site = next(Path(folder).glob("lib/python*/site-packages"))
        before = _megabytes(site)
        subprocess.run([f"{folder}/bin/python", "-m", "pip", "install", "--quiet", str(ROOT)], check=True, capture_output=True)
        yield "core install, without torch and transformers", _megabytes(site) - before, "MB", 40.0


def _megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
