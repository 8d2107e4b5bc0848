"""Binds the real pynvml to the stand-in driver, and takes it out of the process again."""

import _ctypes
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.nvml.standin import Standin


@pytest.fixture(scope="package")
def loaded(library: Path) -> Iterator[Standin]:
    """Gone after this folder: other tests must find this machine's own driver, or none."""

    def load_pynvml() -> Any:
        # A copy of our own: the module remembers its library for good, and other tests have theirs.
        found = importlib.util.find_spec("pynvml")
        assert found is not None
        spec = importlib.util.spec_from_file_location("pynvml_on_standin", found.origin)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    standin = Standin(library, load_pynvml)
    standin.configure()
    try:
        standin.pynvml.nvmlInit()
    except standin.pynvml.NVMLError_DriverNotLoaded:
        yield standin
    else:
        pytest.skip("this process has loaded the machine's own NVIDIA driver already; run tests/nvml by itself")
    for handle in (standin.pynvml.nvmlLib._handle, standin.handle):
        _ctypes.dlclose(handle)


@pytest.fixture
def standin(loaded: Standin) -> Iterator[Standin]:
    yield loaded
    loaded.clear()
