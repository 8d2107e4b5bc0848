"""`hf-eco2ai stack up`, `status` and `down`: the stack without containers."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hf_eco2ai.stack.native import Up, Wanted

_PATH = click.Path(readable=False, path_type=Path)
_PORT = click.IntRange(1, 65535)


def _like(pattern: str, example: str) -> Any:
    def checked(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(pattern, value):
            raise click.BadParameter(f"{value}: write it as Prometheus does, such as {example}")
        return value

    return checked


_DURATION = _like(r"(\d+(ms|s|m|h|d|w|y))+", "15s")

LONGEST_INTERVAL = "2m"
"""A series is gone for Prometheus five minutes after its last sample (its `--query.lookback-delta`). Two intervals have to be
shorter, or every scrape that fails is a gap."""


def _interval(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    from hf_eco2ai.stack.promql import seconds  # noqa: PLC0415 - `--help` need not wait for it

    checked: str | None = _DURATION(context, option, value)
    if checked is not None and not 0 < seconds(checked) <= seconds(LONGEST_INTERVAL):
        raise click.BadParameter(f"{checked}: say seconds or minutes, from 1s to {LONGEST_INTERVAL}, or series would have gaps")
    return checked


_SIZE = _like(r"\d+(B|KB|MB|GB|TB|PB|EB)", "50GB")
_DATA = click.option("--data", type=_PATH, help="Folder of what the servers keep, if not the user's own data folder.")


@click.command()
@click.option("--native", is_flag=True, help="Without containers, by the programs on PATH.")
@click.option("--dir", "folder", type=_PATH, help="The stack's files, if not those here or those that come with hf-eco2ai.")
@_DATA
@click.option("--runs-dir", type=_PATH, help="The folder of journals, if not the one that the settings say.")
@click.option("--exporter-port", type=_PORT, help="Of hf-eco2ai serve: prometheus_port (9091), or the next free one.")
@click.option("--prometheus-port", type=_PORT, help="9090, or the next free one.")
@click.option("--alertmanager-port", type=_PORT, help="9093, or the next free one.")
@click.option("--grafana-port", type=_PORT, help="3000, or the next free one.")
@click.option("--node-port", type=_PORT, help="Of the node exporter: 9100, or the next free one.")
@click.option(
    "--target", "targets", multiple=True, metavar="JOB=HOST:PORT", help="Scrape this too, such as hf-eco2ai=node7:9091."
)
@click.option(
    "--scrape-interval", metavar="DURATION", callback=_interval, help="Of all jobs and rules, if not prometheus.yml's 15s."
)
@click.option("--retention-time", callback=_DURATION, help="So long Prometheus keeps samples, if not 90d.")
@click.option("--retention-size", callback=_SIZE, help="And so many at most, if not 50GB.")
@click.option("--timeout", default=60.0, show_default=True, type=click.FloatRange(min=0), help="Seconds to wait for each server.")
@click.option("--forget", is_flag=True, help="Take no options over from the last `up`.")
def up(*, native: bool, targets: tuple[str, ...], **chosen: Any) -> None:
    """Start Prometheus, Alertmanager and the exporter, with Grafana and the node exporter where they are installed.

    They stay when the shell is left, until `hf-eco2ai stack down`. Said again, it starts what is missing, and has the others
    read their files anew. Options of the last time hold until others are said.
    """
    if not native:
        raise click.UsageError("`docker compose up -d` starts the stack in containers; say --native to start it without them")
    from hf_eco2ai.stack import native as stack  # noqa: PLC0415 - `--help` need not wait for it

    made = stack.up(_wanted(targets, chosen), click.echo)
    for warning in made.rendered.warnings:
        click.echo(f"hf-eco2ai: {warning}", err=True)
    for line in _where(made):
        click.echo(line)


def _wanted(targets: tuple[str, ...], chosen: dict[str, Any]) -> "Wanted":
    from hf_eco2ai.stack.chosen import Chosen  # noqa: PLC0415 - as above
    from hf_eco2ai.stack.native import Wanted, check_targets  # noqa: PLC0415
    from hf_eco2ai.stack.servers import USUAL_PORTS  # noqa: PLC0415
    from hf_eco2ai.stack.state import Data  # noqa: PLC0415

    more: dict[str, list[str]] = {}
    for target in targets:
        job, found, address = target.partition("=")
        if not found or not address:
            raise click.UsageError(f"--target {target}: write JOB=HOST:PORT, such as hf-eco2ai=node7:9091")
        more.setdefault(job, []).append(address)
    check_targets(more)
    said = Chosen(
        stack=chosen["folder"] and chosen["folder"].absolute(),
        runs=chosen["runs_dir"] and chosen["runs_dir"].expanduser().absolute(),
        ports={name: port for name in USUAL_PORTS if (port := chosen[f"{name}_port"]) is not None},
        targets={job: tuple(addresses) for job, addresses in more.items()},
        scrape_interval=chosen["scrape_interval"],
        retention_time=chosen["retention_time"],
        retention_size=chosen["retention_size"],
    )
    return Wanted(Data(chosen["data"]), said, forget=chosen["forget"], seconds=chosen["timeout"])


_PAGES = {
    "grafana": "dashboards",
    "prometheus": "targets: /targets, alerts: /alerts",
    "alertmanager": "who is told what",
    "exporter": "the runs",
}


def _where(made: "Up") -> list[str]:
    from hf_eco2ai.stack.native import addresses  # noqa: PLC0415 - as above

    lines = [f"{name:<12}  {url}" + (f"  {_PAGES[name]}" if name in _PAGES else "") for name, url in addresses(made.state)]
    if made.state.server("grafana") is None:
        lines.append("grafana       not installed: dashboards/*.json of the stack can be imported into any Grafana")
    elif made.rendered.grafana_password:
        lines.append(f"Grafana's user is admin, its password {made.rendered.grafana_password} (it is not said again)")
    return [*lines, "They stay until `hf-eco2ai stack down`; `hf-eco2ai stack status` says how they are."]


@click.command()
@_DATA
def status(*, data: Path | None) -> None:
    """Say how the servers, their targets, rules and alerts are. Exit code 1 where something is down."""
    from hf_eco2ai.stack.state import Data  # noqa: PLC0415 - as above
    from hf_eco2ai.stack.status import status as look  # noqa: PLC0415

    state = Data(data).read()
    if state is None or not state.servers:
        click.echo(
            f"{'No stack has been started here' if state is None else 'Nothing runs'}. `hf-eco2ai stack up --native` starts it."
        )
        sys.exit(1)
    found = look(state)
    click.echo("\n".join(found.lines))
    sys.exit(0 if found.well else 1)


@click.command()
@_DATA
def down(*, data: Path | None) -> None:
    """End all that `stack up --native` has started. What has been stored stays."""
    from hf_eco2ai.stack.native import down as end  # noqa: PLC0415 - as above
    from hf_eco2ai.stack.state import Data  # noqa: PLC0415

    ended = end(Data(data))
    click.echo(f"Ended: {', '.join(ended)}." if ended else "Nothing runs.")
