"""Energy, CO₂e and cost of a Hugging Face Trainer run, measured and published on `/metrics`.

Importing this package imports nothing heavy: each name below is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hf_eco2ai.version import __version__

if TYPE_CHECKING:
    from hf_eco2ai.callback import Eco2AICallback
    from hf_eco2ai.config import CarbonConfig
    from hf_eco2ai.errors import ConfigError, Eco2AIError
    from hf_eco2ai.outputs.report import Report
    from hf_eco2ai.records import Snapshot
    from hf_eco2ai.tracked import TrackedRun, track

_HOME = {
    "CarbonConfig": "hf_eco2ai.config",
    "ConfigError": "hf_eco2ai.errors",
    "Eco2AICallback": "hf_eco2ai.callback",
    "Eco2AIError": "hf_eco2ai.errors",
    "Report": "hf_eco2ai.outputs.report",
    "Snapshot": "hf_eco2ai.records",
    "TrackedRun": "hf_eco2ai.tracked",
    "track": "hf_eco2ai.tracked",
}

__all__ = [
    "CarbonConfig",
    "ConfigError",
    "Eco2AICallback",
    "Eco2AIError",
    "Report",
    "Snapshot",
    "TrackedRun",
    "__version__",
    "track",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'hf_eco2ai' has no attribute {name!r}")
    try:
        return getattr(import_module(_HOME[name]), name)
    except ModuleNotFoundError as error:
        if error.name in {"transformers", "torch", "tqdm"}:
            raise ModuleNotFoundError(
                f"{name} needs transformers, which is not installed here: pip install 'hf-eco2ai[trainer]'", name=error.name
            ) from error
        raise


def __dir__() -> list[str]:
    return __all__
