"""`hf-eco2ai`: what a person at a terminal asks."""

import json
import logging
import math
import signal
import sys
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from hf_eco2ai.errors import ConfigError, Eco2AIError
from hf_eco2ai.stack.commands import stack
from hf_eco2ai.version import __version__

if TYPE_CHECKING:
    from hf_eco2ai.runs import Folder


_PATH = click.Path(readable=False, path_type=Path)
"""Whether it may be read, and what to do where not, says whoever reads it."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="hf-eco2ai")
def cli() -> None:
    """Energy, CO₂e and cost of Hugging Face Trainer runs."""


cli.add_command(stack)


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


@cli.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.option("--project", default="", help="Only runs of this project.")
@click.option("--runs-dir", type=click.Path(path_type=Path), help="The folder of journals, if not the one that the settings say.")
@click.pass_context
def runs(context: click.Context, *, as_json: bool, project: str, runs_dir: Path | None) -> None:
    """List the runs on this host, or show, follow or delete them."""
    from hf_eco2ai.outputs import terminal  # noqa: PLC0415 - as above
    from hf_eco2ai.runs import summary, table  # noqa: PLC0415

    context.obj = _Where(runs_dir, project, as_json)
    if context.invoked_subcommand is not None:
        return
    folder = _read(context)
    if as_json:
        click.echo(json.dumps([summary(run) for run in folder.runs], indent=2, ensure_ascii=False))
    elif folder.runs:
        click.echo(table(folder.runs, terminal.columns()))
        if any(run.snapshot.basis == "simulated" for run in folder.runs):
            click.echo("* simulated GPUs, not a measurement")
    else:
        whose = f"of project {project} " if project else ""
        click.echo(f"No runs {whose}in {folder.path}. A run appears here as soon as it begins.")


@runs.command()
@click.argument("run_id")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.pass_context
def show(context: click.Context, *, run_id: str, as_json: bool) -> None:
    """Show one run: its figures with their sources, and its journals. The beginning of the id will do."""
    from hf_eco2ai.outputs import terminal  # noqa: PLC0415 - as above
    from hf_eco2ai.runs import find, report_json, shown  # noqa: PLC0415 - as above

    run = find(_read(context).runs, run_id)
    click.echo(report_json(run) if as_json or context.obj.as_json else shown(run, terminal.columns()))


@runs.command()
@click.argument("run_id")
@click.pass_context
def tail(context: click.Context, *, run_id: str) -> None:
    """Follow one run, a line for each that its journal gets, until it is over. The beginning of the id will do."""
    from hf_eco2ai import wiring  # noqa: PLC0415 - as above
    from hf_eco2ai.outputs import terminal  # noqa: PLC0415
    from hf_eco2ai.runs import again, find, follow  # noqa: PLC0415

    folder = _read(context)
    host, known = wiring.hostname(), find(folder.runs, run_id).run_id
    try:
        with suppress(KeyboardInterrupt):
            for line in follow(lambda: again(folder, host, known), columns=terminal.columns):
                click.echo(line)
    except OSError as error:
        raise ConfigError(f"the run can be followed no more: {error}") from error


@runs.command()
@click.option("--older-than", metavar="AGE", help="Only runs last written longer ago: 12h, 30d, 8w.")
@click.option("--keep", type=click.IntRange(min=0), help="Keep so many of the newest.")
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def prune(context: click.Context, *, older_than: str | None, keep: int | None, dry_run: bool, yes: bool) -> None:
    """Delete journals of runs that are over. Runs that go on are never touched.

    A project's budget counts only what its journals still say, and a checkpoint that is resumed later no longer knows what was
    used after it.
    """
    from hf_eco2ai import runs as all_runs  # noqa: PLC0415 - as above
    from hf_eco2ai.outputs import terminal  # noqa: PLC0415

    if older_than is None and keep is None:
        raise click.UsageError("say which: --older-than 30d, or --keep 100, or both")
    age = None if older_than is None else _seconds("--older-than", older_than)
    chosen = all_runs.prunable(_read(context).runs, older_than=age, keep=keep)
    if not chosen:
        click.echo("Nothing to delete.")
        return
    click.echo(all_runs.table(chosen, terminal.columns()))
    count = sum(len(run.attempts) for run in chosen)
    journals = "1 journal" if count == 1 else f"{count} journals"
    if dry_run:
        click.echo(f"{journals} would be deleted.")
        return
    if not yes:
        click.confirm(f"Delete {journals}?", abort=True)
    freed, kept = all_runs.prune(chosen)
    if kept:
        raise ConfigError(f"{len(kept)} of {journals} cannot be deleted: {kept[0]}")
    click.echo(f"Deleted {journals}, {freed / 1e6:.1f} MB.")


@cli.command(context_settings={"allow_interspersed_args": False})
@click.option("--project", default="", help="Project name of the run.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting, as in `hf-eco2ai config`.")
@click.option("--quiet", is_flag=True, help="Print nothing of our own.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def monitor(*, project: str, settings: tuple[str, ...], quiet: bool, command: tuple[str, ...]) -> None:
    """Measure any command and its whole process tree.

    hf-eco2ai monitor -- python train.py

    What its machine uses is measured while it runs. Its signals, its terminal and its exit code pass through; what we say goes
    to stderr.
    """
    from hf_eco2ai.config import CarbonConfig  # noqa: PLC0415 - as above
    from hf_eco2ai.measured_command import INTERRUPTED, measure_command  # noqa: PLC0415
    from hf_eco2ai.outputs import terminal  # noqa: PLC0415

    chosen: dict[str, Any] = dict(_setting(text) for text in settings)
    if project:
        chosen["project_name"] = project
    if quiet:
        chosen["console_interval"] = 0
        logging.getLogger("hf_eco2ai").setLevel(logging.ERROR)
    terminal.show_warnings()
    code = measure_command(command, CarbonConfig(**chosen))
    if code == INTERRUPTED:  # A shell breaks its loop only if we die of Ctrl-C as the command has.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)
    sys.exit(code)


@cli.command()
@click.option("--runs-dir", type=_PATH, help="The folder of journals, if not the one that the settings say.")
@click.option("--wait", is_flag=True, help="Wait for a named folder that is not there yet.")
@click.option("--all-hosts", is_flag=True, help="Serve the runs of all hosts that write to the folder, not only of this one.")
@click.option("--retention", default="1h", show_default=True, metavar="AGE", help="So long a run that is over is served.")
@click.option(
    "--max-runs", default=2000, show_default=True, type=click.IntRange(min=1), help="Serve so many at most, live ones first."
)
@click.option("--node", is_flag=True, help="Measure the machine itself too: hf_node_*.")
@click.option("--state-dir", type=_PATH, help="Where counters are kept across restarts (--node, run_label=false).")
@click.option("--host", help="Address to listen on, if not prometheus_host (127.0.0.1). 0.0.0.0 opens it to the network.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on, if not prometheus_port (9091). 0: any free one.")
@click.option(
    "--web.config.file",
    "web_config_file",
    type=_PATH,
    help="TLS, client certificates, passwords: a file as Prometheus' exporters have it.",
)
@click.option("--token-file", type=_PATH, help="Token for what changes something (DELETE in the API).")
@click.option("--max-requests", default=40, show_default=True, type=click.IntRange(1, 10_000), help="Scrapes answered at once.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A setting, as in `hf-eco2ai config`.")
@click.option("--log-level", default="info", show_default=True, type=click.Choice(["debug", "info", "warning", "error"]))
@click.option("--check", is_flag=True, help="Only check all this, and exit.")
@click.option("--systemd-unit", is_flag=True, help="Print a unit for systemd that runs this command, and exit.")
def serve(*, settings: tuple[str, ...], log_level: str, check: bool, systemd_unit: bool, **chosen: Any) -> None:
    """Serve all runs of this host on one port: the exporter to install once per node.

    Follows the folder of journals, and serves each run while it lives and for a while after. Trainings that find a daemon open
    no port of their own. Logs to stderr; ends on SIGTERM; SIGHUP looks at folder and web config at once.
    """
    from hf_eco2ai import serve as service  # noqa: PLC0415 - as above

    if systemd_unit:
        click.echo(service.systemd_unit(sys.argv), nl=False)
        return
    config = dict(_setting(text) for text in settings)
    retention = _seconds("--retention", chosen.pop("retention"))
    sys.exit(service.serve(config, chosen, retention=retention, log_level=log_level, only_check=check))


class _Where(NamedTuple):
    runs_dir: Path | None
    project: str
    as_json: bool


def _read(context: click.Context) -> "Folder":
    """The folder as it is now. What cannot be read in it is said on stderr, file and line."""
    from hf_eco2ai import wiring  # noqa: PLC0415 - as above
    from hf_eco2ai.config import CarbonConfig  # noqa: PLC0415
    from hf_eco2ai.outputs.text import printable  # noqa: PLC0415
    from hf_eco2ai.runs import read_folder  # noqa: PLC0415

    where: _Where = context.obj
    try:
        folder = read_folder(where.runs_dir or CarbonConfig().runs_dir, wiring.hostname(), where.project)
    except OSError as error:
        raise ConfigError(f"the runs folder cannot be read: {error}. Choose another with --runs-dir or runs_dir") from error
    for refused in folder.refused:
        click.echo(f"hf-eco2ai: {printable(str(refused))}", err=True)
    return folder


_AGES = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def _seconds(option: str, age: str) -> float:
    number, unit = age[:-1], age[-1:]
    try:
        seconds = float(number) * _AGES[unit]
    except (ValueError, KeyError):
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise click.UsageError(f"{option} {age}: say a number and s, m, h, d or w, such as 30d")
    return seconds


def _setting(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found:
        raise click.UsageError(f"--set {text}: write NAME=VALUE, such as country=DE")
    return name.strip(), value


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "-"
    return json.dumps(value) if isinstance(value, (bool, list)) else str(value)


def main() -> None:
    """Entry point: one clear sentence and exit code 2 for what the user got wrong, no traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # A name may hold what the terminal's encoding has no letter for.
            stream.reconfigure(errors="backslashreplace")
    try:
        cli()
    except Eco2AIError as error:
        click.echo(f"hf-eco2ai: {error}", err=True)
        sys.exit(2)
