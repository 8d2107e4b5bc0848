"""A run that this process measures: monitor, journal and endpoint, opened together and closed together."""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hf_eco2ai import wiring
from hf_eco2ai.config import CarbonConfig, Environment
from hf_eco2ai.devices import ReaderContext
from hf_eco2ai.energy.share import Shares
from hf_eco2ai.footprint import Grid
from hf_eco2ai.footprint.budget import Budgets, period_start
from hf_eco2ai.journal import format as lines
from hf_eco2ai.journal.folder import Attempt, Neighbours, Run, RunsFolder, runs_folder
from hf_eco2ai.journal.format import Header, HostUsed
from hf_eco2ai.journal.read import Here, Refused
from hf_eco2ai.journal.resume import Beginning, Checkpoint, begin
from hf_eco2ai.journal.spending import Spending
from hf_eco2ai.journal.write import Journal
from hf_eco2ai.own_endpoint import OwnEndpoint
from hf_eco2ai.ranks import Ranks
from hf_eco2ai.records import EndReason, Failure, Footprint, HostTotals, Phase, RunState, Snapshot, TreeUsage
from hf_eco2ai.run import RunProgress
from hf_eco2ai.signals import termination

logger = logging.getLogger("hf_eco2ai")

LOOK_BACK_SECONDS = 1.0
"""So long the begin of a run waits for the journals of the run that it goes on with; then it goes on without them."""

LAST_LOOK_SECONDS = 0.2
LAST_LINE_SECONDS = 0.5
"""So long the end of a run waits for its neighbours' journals, and for its own end line."""

SPENDING_SECONDS = 30.0
"""Time between two looks at what the other runs of a project have used."""


def look_back(config: CarbonConfig, checkpoint: Checkpoint | None, host: str = "", launch: str = "") -> Beginning:
    """Which run begins now. Reads the journals of the run that it goes on with, if there is one, for a second at most.

    `host` is this one's name, if it is not the machine's. `launch` is what this host follows, if another one leads: then what
    that has begun already is not gone on with.
    """
    run_id = config.run_id or (checkpoint.run_id if checkpoint is not None else "")
    here, job = Here.now(host or wiring.hostname()), Environment.read().job
    own = wiring.own_process(here)
    found: list[Run] = []

    def look() -> None:
        with suppress(OSError):
            run = RunsFolder(runs_folder(config.runs_dir), here, _refuse).run(run_id)
            attempts = tuple(a for a in run.attempts if a.header.launch != launch) if run is not None else ()
            if attempts:
                found.append(Run(attempts))

    def is_rival(attempt: Attempt) -> bool:
        header = attempt.header
        if attempt.state != "running" or launch or not header.leads or header.process.is_same(own):
            return False
        # Of another host only silence tells, and that takes a while. But one job does not run twice at a time.
        return not (job and header.job == job and header.host != here.host)

    if run_id and config.journal_enabled:
        thread = threading.Thread(target=look, name="hf_eco2ai-look-back", daemon=True)
        thread.start()
        thread.join(LOOK_BACK_SECONDS)
    beginning = begin(
        time.time(),
        run_id=config.run_id,
        checkpoint=checkpoint,
        found=found[0] if found else None,
        is_rival=is_rival,
    )
    if beginning.parent and not beginning.resumes:
        logger.warning(
            "Run %s, whose checkpoint this is, still goes on in another process as far as its journal tells, or is not the one "
            "that run_id asks for: this is the new run %s, which names it as its parent and begins at zero. If that process is "
            "dead, begin again when `hf-eco2ai runs` says `lost`.",
            beginning.parent,
            beginning.run_id,
        )
    return beginning


class LiveRun:
    """One attempt of a run, from `start` to `close`. `snapshot` may be read from any thread."""

    def __init__(
        self,
        config: CarbonConfig,
        beginning: Beginning,
        grid: Grid,
        context: ReaderContext,
        *,
        model_name: str,
        trainer: str,
        ranks: Ranks | None = None,
        others: Sequence[str] = (),
        logged_tokens: int = 0,
        tree: Callable[[], TreeUsage] | None = None,
        sigterm: Callable[[bool], None] | None = None,
        **presence: Any,
    ) -> None:
        self._config = config
        self._ranks = ranks or Ranks()
        self._context = context
        self._here = Here.now(context.host)
        self._tree = tree
        self._sigterm = sigterm
        self.beginning = beginning
        self.identity = wiring.identity(config, beginning, context.host, model_name, trainer)
        self.progress = RunProgress(beginning.counts, logged_tokens)
        self._shares = Shares()
        self._ledger = wiring.ledger(config, self.identity, beginning, leads=self.leads)
        # Known from the beginning, so that nobody shows what they have inherited but they.
        self._ledger.elsewhere = tuple(HostTotals(host) for host in others)
        self._inherited = _sum(beginning.inherited)
        self._pid = os.getpid()
        # One process judges, since only one knows what all hosts have used.
        self.budgets: Budgets = wiring.budgets(config, self._inherited, self._say if self.leads else None)
        self._folder, no_folder = _folder_of(config)
        self._spending = self._make_spending()
        self._next_spending = 0.0
        self._journal: Journal | None = None
        self._endpoint: OwnEndpoint | None = None
        self._begun_monotonic: float | None = None
        self._monitor = wiring.monitor(
            config,
            self._ledger,
            grid,
            context,
            self.progress.progress,
            shares=self._shares,
            budgets=self.budgets.judge,
            details=self._details,
            published=self._published,
            **presence,
        )
        self.mark = self._monitor.mark
        self.fail = self._monitor.fail
        self._last: Snapshot | None = None
        if no_folder:
            self.fail(Failure("journal_failed", "no runs folder", f"This run is not kept on disk: {no_folder}."))

    @property
    def leads(self) -> bool:
        """Whether this process shows the figures of the whole run."""
        return self._ranks.rank == 0

    @property
    def snapshot(self) -> Snapshot | None:
        """The run as of the last tick, and after `close` as it ended."""
        return self._last or self._monitor.snapshot

    @property
    def metrics_url(self) -> str | None:
        """Where `/metrics` is while the run lives; None without an endpoint."""
        endpoint = self._endpoint
        return None if endpoint is None or endpoint.url is None else f"{endpoint.url}/metrics"

    def start(self, phase: Phase) -> None:
        """Open the journal and the port, and take the first reading."""
        config = self._config
        if self._folder is not None:
            folder = self._folder
            own = wiring.own_process(self._here)
            self._neighbours = Neighbours(folder, self._here, own, self.beginning.launch, self._context.now, self._refuse)
            self._journal = Journal(
                folder,
                self._header,
                interval=config.journal_interval,
                now=self._context.now,
                fail=self._monitor.fail,
                look=self._look,
                leave=self._withdraw,
            )
        if config.export_prometheus:
            self._endpoint = OwnEndpoint(
                config, self._folder, self._here, self.identity, lambda: self._monitor.snapshot, self._monitor.fail
            )
        if self._sigterm is not None:
            termination.listen(self._sigterm)
        self._monitor.start(phase)

    def close(self, state: RunState, reason: EndReason = "", finals: Callable[[], dict[str, str]] | None = None) -> None:
        """The run ends now. `finals` gathers what the other hosts have used, once this one has taken its last reading."""
        if os.getpid() != self._pid:
            return  # A fork of the process that measures. Its threads are not here, and the files are not ours to end.
        if self._journal is not None:
            self._journal.look(LAST_LOOK_SECONDS)
        try:
            self._monitor.stop(state, reason)
            self._last = self._monitor.snapshot
            if finals is not None and self._last is not None:
                self.gather(finals())
                self._last = replace(self._last, inherited=self._ledger.inherited, elsewhere=self._ledger.elsewhere)
        finally:  # Ctrl-C may come while the last reading is awaited, and must leave neither the port nor the journal open.
            self._last = self._last or self._monitor.snapshot
            if self._sigterm is not None:
                termination.forget(self._sigterm)
            if self._journal is not None:
                self._journal.close(self._last, LAST_LINE_SECONDS)
            if self._endpoint is not None:
                self._endpoint.close()

    # What hosts tell each other

    def told(self) -> str:
        """What this host has used, for the leading process."""
        snapshot = self.snapshot
        if snapshot is None:
            return ""
        before = [lines.host_used(totals) for totals in snapshot.inherited if totals.host == snapshot.identity.host]
        said = [lines.host_used(snapshot.attempt), *before]
        return json.dumps([used.model_dump(mode="json", exclude_none=True) for used in said])

    def gather(self, told: dict[str, str]) -> None:
        """Take what other hosts have told into the figures of the whole run."""
        inherited = {totals.host: totals for totals in self._ledger.inherited}
        elsewhere = {totals.host: totals for totals in self._ledger.elsewhere}
        for host, text in told.items():
            try:
                attempt, *before = [lines.host_totals(used) for used in _TOLD.validate_json(text)]
            except (ValidationError, ValueError):
                continue  # Nothing has been said yet, or by another version of us.
            elsewhere[host] = replace(attempt, host=host)
            if before:
                inherited[host] = replace(before[0], host=host)
        self._ledger.inherited = tuple(inherited.values())
        self._ledger.elsewhere = tuple(elsewhere.values())

    def checkpoint(self, global_step: int) -> Checkpoint | None:
        """What of the run goes into a checkpoint that is written now; None before the first reading."""
        snapshot = self.snapshot
        if snapshot is None:
            return None
        hosts: dict[str, HostTotals] = {}
        for totals in (*snapshot.inherited, snapshot.attempt, *snapshot.elsewhere):
            hosts[totals.host] = hosts[totals.host] + totals if totals.host in hosts else totals
        return Checkpoint.of(
            tuple(hosts.values()),
            self.progress.counts(),
            run_id=self.identity.run_id,
            started_unix=self.identity.started_unix,
            global_step=global_step,
            attempts_before=self.beginning.attempts_before,
        )

    # The sampler's and the journal's threads

    def _details(self) -> dict[str, Any]:
        journal, tree = self._journal, self._tree
        return {
            "journal_bytes": None if journal is None else journal.bytes_written,
            "tree": None if tree is None else tree(),
        }

    def _published(self, snapshot: Snapshot, marked: bool) -> None:
        termination.poll()
        if self._begun_monotonic is None:  # What the neighbours leave to us from then on is ours only if we have begun to read.
            read_at = [status.telemetry.at for status in snapshot.devices if status.telemetry is not None]
            self._begun_monotonic = min(read_at, default=self._context.now())
        if self._journal is not None and snapshot.state == "running":
            self._journal.note(snapshot, marked)

    def _withdraw(self) -> None:
        if self._endpoint is not None:
            self._endpoint.withdraw()

    def _look(self) -> None:
        if self._endpoint is not None:
            self._endpoint.keep()
        self._shares.claims = self._neighbours.look()
        now = self._context.now()
        if self._spending is not None and now >= self._next_spending:
            self._next_spending = now + SPENDING_SECONDS
            start = period_start(time.time(), self._config.budget_period)
            self.budgets.spent = self._spending.since(start, self._inherited)

    def _make_spending(self) -> Spending | None:
        config = self._config
        needed = config.budget_scope == "project" or config.budget_period != "none"
        has_budget = config.carbon_budget_kg or config.energy_budget_kwh or config.cost_budget
        if not (needed and has_budget and self.leads) or self._folder is None:
            return None
        folder = RunsFolder(self._folder, self._here, self._refuse)
        return Spending(folder, config.project_name, self.identity.run_id, config.currency, launch=self.beginning.launch)

    def _header(self, first: Snapshot) -> Header:
        return Header(
            at_unix=first.updated_unix,
            monotonic=self._context.now(),
            run=lines.run(self.identity),
            host=self.identity.host,
            attempt=self.identity.attempt,
            launch=self.beginning.launch,
            leads=self.leads,
            process=wiring.own_process(self._here),
            ranks=vars(self._ranks),
            job=Environment.read().job,
            journal_interval=self._config.journal_interval,
            begun_monotonic=self._begun_monotonic or 0.0,
            devices=[lines.header_device(status.device) for status in first.devices],
            factor=lines.factor(first.factor),
            tariff=lines.prices(first.tariff),
            pue=first.pue,
            config=wiring.settings(self._config),
            software=wiring.software(),
            inherited=[lines.host_used(totals) for totals in first.inherited],
            attempts_before=self.beginning.attempts_before,
            done_before=lines.done(self.beginning.counts) if self.beginning.counts is not None else lines.Done(),
        )

    def _refuse(self, refused: Refused) -> None:
        self.fail(Failure("journal_refused", f"refused {refused.path}", _left_out(refused)))

    def _say(self, message: str) -> None:
        logger.warning("%s", message)


_TOLD: TypeAdapter[list[HostUsed]] = TypeAdapter(list[HostUsed])


def _sum(hosts: tuple[HostTotals, ...]) -> Footprint:
    total = Footprint()
    for totals in hosts:
        total += totals.total
    return total


def _folder_of(config: CarbonConfig) -> tuple[Path | None, str]:
    """Where the run is kept; else None, and why it is not if it should be."""
    if not config.journal_enabled:
        return None, ""
    try:
        return runs_folder(config.runs_dir), ""
    except OSError as error:
        return None, str(error.strerror)


def _refuse(refused: Refused) -> None:
    logger.warning("%s", _left_out(refused))


def _left_out(refused: Refused) -> str:
    return f"A journal cannot be read in full: {refused}. That is left out."
