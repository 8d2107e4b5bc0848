"""The package as a whole: what importing costs, what is public, and that the promises in its files hold."""

import ast
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import hf_eco2ai
from hf_eco2ai.cli import cli, main
from hf_eco2ai.config import CarbonConfig
from hf_eco2ai.outputs.metrics import METRICS, exposed_name
from hf_eco2ai.outputs.node_metrics import NODE_METRICS
from hf_eco2ai.outputs.self_metrics import SELF_METRICS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hf_eco2ai"

GUIDE_SETTINGS = {
    "project_name", "country", "region", "export_prometheus", "prometheus_port", "measurement_interval", "export_batch_size",
    "compression_enabled", "max_projects", "aggregate_similar_models", "label_cleanup_enabled", "carbon_budget_kg",
}  # fmt: skip

FAMILIES: list[tuple[str, str, str]] = [
    *((exposed_name(metric), metric.kind, metric.help) for metric in METRICS),
    *((metric.name, metric.kind, metric.help) for metric in NODE_METRICS),
    *((metric.name, metric.kind, metric.help) for metric in SELF_METRICS),
]
"""Name, type and help of all that `/metrics` may serve."""


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize("statement", ["import hf_eco2ai", "from hf_eco2ai import CarbonConfig; CarbonConfig()"])
def test_importing_loads_nothing_heavy(statement: str) -> None:
    loaded = modules_after(statement)
    assert loaded.isdisjoint({"torch", "transformers", "pynvml", "pandas", "numpy", "uvicorn", "starlette", "prometheus_client"})


def test_every_public_name_can_be_had_and_no_other() -> None:
    for name in hf_eco2ai.__all__:
        assert getattr(hf_eco2ai, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = hf_eco2ai.nonsense


def test_the_callback_without_transformers_says_what_to_install() -> None:
    code = "import sys; sys.modules['transformers'] = None\nimport hf_eco2ai; hf_eco2ai.Eco2AICallback"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'hf-eco2ai[trainer]'" in done.stderr.splitlines()[-1]


def test_every_setting_of_the_guide_exists_with_its_default_port() -> None:
    assert CarbonConfig.model_fields.keys() >= GUIDE_SETTINGS
    assert CarbonConfig().prometheus_port == 9091
    assert CarbonConfig().prometheus_host == "127.0.0.1"
    assert CarbonConfig().export_prometheus


def test_budgets_only_warn_and_runs_are_kept_unless_told_otherwise() -> None:
    assert CarbonConfig().budget_action == "warn"
    assert CarbonConfig().journal_enabled


def test_every_setting_says_what_it_is() -> None:
    assert all(field.description for field in CarbonConfig.model_fields.values())


def test_the_command_line_help_is_the_golden_file(golden: Callable[[str, str], None]) -> None:
    runner = CliRunner()
    commands: list[list[str]] = [[]]
    for name, command in cli.commands.items():
        commands += [[name], *([name, below] for below in getattr(command, "commands", ()))]
    said = [runner.invoke(cli, [*command, "--help"], prog_name="hf-eco2ai", terminal_width=100).output for command in commands]
    golden("cli-help.txt", "\n".join(said))


def test_config_prints_values_and_where_they_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hf_eco2ai.toml").write_text('project_name = "from the file"\n')
    monkeypatch.setenv("HF_ECO2AI_PUE", "1.3")
    output = CliRunner().invoke(cli, ["config"]).output
    assert re.search(r"^project_name +from the file +hf_eco2ai\.toml$", output, re.MULTILINE)
    assert re.search(r"^pue +1\.3 +environment$", output, re.MULTILINE)
    assert re.search(r"^prometheus_port +9091 +default$", output, re.MULTILINE)


def test_a_wrong_setting_is_one_sentence_on_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ECO2AI_PROMETHEUS_PRT", "1")
    monkeypatch.setattr(sys, "argv", ["hf-eco2ai", "config"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert "did you mean prometheus_port" in said
    assert "Traceback" not in said


def test_names_of_metrics_are_unique_and_described() -> None:
    names = [name for name, _, _ in FAMILIES]
    assert len(names) == len(set(names))
    assert all(said.endswith(".") for _, _, said in FAMILIES)


def test_files_that_name_a_metric_name_one_that_exists() -> None:
    known = {name for name, _, _ in FAMILIES}
    known |= {name + suffix for name, kind, _ in FAMILIES if kind == "histogram" for suffix in ("_bucket", "_sum", "_count")}
    folders = ("README.md", "docs", "dashboards", "alerting", "prometheus", "examples")
    files = [file for name in folders for file in [ROOT / name, *(ROOT / name).rglob("*")] if file.is_file()]
    assert files
    for file in files:
        if file.suffix in {".md", ".json", ".yml", ".yaml", ".py"}:
            text = file.read_text(encoding="utf-8")
            named = set(re.findall(r"\bhf_(?:training|node|exporter)_[a-z0-9_]*[a-z0-9]\b(?!\*|_)", text))
            assert named <= known, f"{file.relative_to(ROOT)} names {sorted(named - known)}"


def test_there_are_at_most_three_broad_excepts() -> None:
    broad = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or {"Exception", "BaseException"} & {getattr(part, "id", "") for part in ast.walk(node.type)})
    ]
    assert len(broad) <= 3, broad
