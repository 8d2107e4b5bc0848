"""The generated parts of the docs are what the source says, and links lead somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from hf_eco2ai import CarbonConfig

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]


def test_the_generated_parts_are_up_to_date() -> None:
    pages = [str(page) for page in PAGES if "[[[cog" in page.read_text(encoding="utf-8")]
    assert pages
    done = subprocess.run(
        [sys.executable, "-m", "cogapp", "--check", *pages], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"run `make docs`: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_make_target_in_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z]+)", (ROOT / "README.md").read_text(encoding="utf-8")):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_map_of_the_design_names_every_module() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    modules = [file for file in (ROOT / "hf_eco2ai").rglob("*.py") if file.name != "__init__.py"]
    assert len(modules) > 30
    missing = [str(file.relative_to(ROOT)) for file in modules if not re.search(rf"\b{file.stem}\b", text)]
    assert missing == []


def test_the_layers_of_the_design_are_those_that_are_kept() -> None:
    kept = re.search(r"^layers = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert kept is not None
    layers = re.findall(r'"(.+)"', kept[1].replace("hf_eco2ai.", ""))
    assert "\n".join(layers) in (ROOT / "docs" / "design.md").read_text(encoding="utf-8")


def _python(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)


def test_the_budgets_of_the_docs_are_right_settings() -> None:
    (budgets,) = [block for block in _python("runs.md") if block.startswith("CarbonConfig")]
    exec(budgets, {"CarbonConfig": CarbonConfig})  # noqa: S102 - our own page


def test_the_loop_of_the_docs_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ECO2AI_PROMETHEUS_PORT", "0")
    monkeypatch.setenv("HF_ECO2AI_CONSOLE_INTERVAL", "0")
    (loop,) = [block for block in _python("runs.md") if "hf_eco2ai.track" in block]
    evaluated: list[bool] = []
    names = {
        "data": [range(3), range(2)],
        "step": sum,
        "evaluate": lambda: evaluated.append(True),
        "checkpoint": {},
    }
    exec(loop.replace("batch.numel()", "5"), names)  # noqa: S102 - our own page
    assert evaluated == [True]
    kept = names["checkpoint"]
    assert isinstance(kept, dict)
    assert (kept["hf_eco2ai"]["done"]["steps"], kept["hf_eco2ai"]["done"]["samples"]) == (2, 5)
    assert kept["hf_eco2ai"]["done"]["tokens"] == 10
