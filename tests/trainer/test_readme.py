"""The README's code does what it says."""

import re
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainingArguments

from tests.trainer.tiny import Data, model, our_threads

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.trainer


def test_the_first_example_of_the_readme_trains_and_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ECO2AI_PROMETHEUS_PORT", "0")
    example = re.findall(r"```python\n(from transformers.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[0]
    arguments = TrainingArguments(
        str(tmp_path), max_steps=5, use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True
    )
    names: dict[str, Any] = {"model": model(), "args": arguments, "data": Data()}
    exec(example, names)  # noqa: S102 - that is the point
    callback = next(c for c in names["trainer"].callback_handler.callbacks if type(c).__name__ == "Eco2AICallback")
    assert callback.report.energy_kwh > 0
    assert callback.report.snapshot.identity.project_name == "llama-finetune"
    assert callback.report.snapshot.factor.source.startswith("US EPA eGRID2023")
    assert our_threads() == []
