"""`hf-eco2ai`: what a person at a terminal asks."""

import json
import sys
from typing import Any

import click

from hf_eco2ai.errors import Eco2AIError
from hf_eco2ai.version import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="hf-eco2ai")
def cli() -> None:
    """Energy, CO₂e and cost of Hugging Face Trainer runs."""


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def config(*, as_json: bool) -> None:
    """Print every setting, its value here and now, and where that came from.

    Strongest first: arguments of CarbonConfig (not seen from here), HF_ECO2AI_<NAME>, hf_eco2ai.toml, [tool.hf_eco2ai] in
    pyproject.toml, defaults. Files are looked for in the working directory.
    """
    from hf_eco2ai.config import CarbonConfig  # noqa: PLC0415 - `--help` need not wait for pydantic

    values = CarbonConfig().model_dump(mode="json")
    origins = CarbonConfig.origins()
    if as_json:
        click.echo(json.dumps({name: {"value": values[name], "from": origins[name]} for name in values}, indent=2))
        return
    width = max(map(len, values))
    shown = {name: _shown(value) for name, value in values.items()}
    value_width = max(map(len, shown.values()))
    for name, value in shown.items():
        click.echo(f"{name:<{width}}  {value:<{value_width}}  {origins[name]}")


@cli.command()
def metrics() -> None:
    """Print the table of metrics that `/metrics` serves."""
    from hf_eco2ai.outputs.metrics import markdown_table  # noqa: PLC0415 - as above

    click.echo(markdown_table())


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "-"
    return json.dumps(value) if isinstance(value, (bool, list)) else str(value)


def main() -> None:
    """Entry point: one clear sentence and exit code 2 for what the user got wrong, no traceback."""
    try:
        cli()
    except Eco2AIError as error:
        click.echo(f"hf-eco2ai: {error}", err=True)
        sys.exit(2)
