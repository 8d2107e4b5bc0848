"""The version, in a module of its own so that the build, the CLI and `/metrics` read the same line."""

from functools import cache

__version__ = "0.1.0"


@cache
def commit() -> str:
    """Commit that was installed, where pip knows it (PEP 610: an install from git); `unknown` otherwise."""
    import json  # noqa: PLC0415 - only `/metrics` asks
    from importlib.metadata import PackageNotFoundError, distribution  # noqa: PLC0415

    try:
        origin = json.loads(distribution("hf-eco2ai").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return "unknown"
    return str(origin.get("vcs_info", {}).get("commit_id", "unknown"))
