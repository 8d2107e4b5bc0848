"""`hf-eco2ai serve`: every run of a node on one port, for as long as the node lives."""

import gc
import logging
import signal
import socket
import threading
import time
from collections import Counter, deque
from functools import partial
from types import FrameType
from typing import Any

from hf_eco2ai import wiring
from hf_eco2ai.complaints import Complaints
from hf_eco2ai.config import CarbonConfig, Environment
from hf_eco2ai.journal.announce import Announcement, DaemonAddress
from hf_eco2ai.journal.follow import Follower
from hf_eco2ai.journal.read import IMPOSSIBLE, Here, Refused
from hf_eco2ai.kept import Kept
from hf_eco2ai.node import Node
from hf_eco2ai.outputs.app import build_app
from hf_eco2ai.outputs.doors import Doors
from hf_eco2ai.outputs.exposition import Exposition
from hf_eco2ai.outputs.folding import LIVE, OfAll
from hf_eco2ai.outputs.limits import Refusal
from hf_eco2ai.outputs.logfmt import FIELDS, log
from hf_eco2ai.outputs.node_metrics import NodeMetrics
from hf_eco2ai.outputs.self_metrics import SelfMetrics, Watched
from hf_eco2ai.outputs.server import Endpoint, bind
from hf_eco2ai.outputs.web_config import WebConfig, WebConfigFile
from hf_eco2ai.records import RUN_STATES, Failure, Snapshot
from hf_eco2ai.serve_options import Options, folder_of, read_token, state_file_of, unreadable
from hf_eco2ai.supervisor import Supervisor

logger = logging.getLogger("hf_eco2ai")

LOOK_SECONDS = 1.0
"""Time between two looks at the runs folder. A line of a journal is on `/metrics` a second later at most."""

GRACE_SECONDS = 5.0
"""Scrapes under way have so long to end when the daemon is told to."""

FEWER_COLLECTIONS = (10_000, 20, 100)
"""Snapshots are many, and trees: by Python's own thresholds a third of the follower's time goes into looking for cycles."""

FOLDED = "folded"
"""The section of what is kept that counters of folded runs have."""


class Daemon:
    """Checks everything when it is made, and serves from `run` on until it is told to stop.

    Raises:
        ConfigError: something is not as it has to be; says in one sentence what, and what to do.

    """

    def __init__(self, options: Options, config: CarbonConfig, environment: Environment, host: str) -> None:
        self._options = options
        self._config = config
        self._here = Here.now(host)
        self._rules = wiring.label_rules(config)
        self._complaints = Complaints()
        self._folder = folder_of(options)
        self._web = self._read_web_config()
        if options.token_file is not None:
            read_token(options.token_file)
        self._supervisor = Supervisor(environment.notify_socket, environment.watchdog_seconds)
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._failed = ""
        self._to_forget: deque[str] = deque()
        self._look_unix: float | None = None
        self._look_seconds = 0.0
        self._exposition: Exposition | None = None
        self._url = ""
        needs_state = options.node or not config.run_label
        self._kept = Kept(state_file_of(options, host), self._complaints.failure) if needs_state else None
        self._follower = Follower(
            self._folder,
            self._here,
            all_hosts=options.all_hosts,
            retention=options.retention,
            most_runs=options.most_runs,
            missed=() if self._kept is None else self._kept.load(FOLDED).get(LIVE, ()),
            refuse=self._complaints.line,
        )
        self._self_metrics = SelfMetrics(self._watched, self._rules)
        self._node = self._make_node(host)

    def _read_web_config(self) -> WebConfigFile | None:
        if self._options.web_config_file is None:
            return None
        return WebConfigFile(self._options.web_config_file, say=partial(log, logging.WARNING))

    def _make_node(self, host: str) -> Node | None:
        if self._kept is None or not self._options.node:
            return None
        context = wiring.node_context(host, simulated_gpus=self._config.simulated_gpus)
        return Node(
            open_readers=lambda: wiring.open_readers(context),
            claims=lambda: self._follower.claims,
            kept=self._kept,
            host=host,
            interval=self._config.measurement_interval,
            power_interval=self._config.power_interval,
            fail=self._complaints.failure,
            died=partial(self._end, "the node's measurement failed"),
        )

    # The main thread

    def run(self) -> int:
        """Serve until SIGTERM or Ctrl-C. Returns the exit code: 1 where a part of the daemon has failed.

        Raises:
            ConfigError: the port cannot be had.

        """
        listener = bind(self._options.host, self._options.port)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._told_to_stop)
        signal.signal(signal.SIGHUP, lambda _number, _frame: self._wake.set())
        threading.excepthook = self._thread_failed
        gc.set_threshold(*FEWER_COLLECTIONS)
        endpoint = self._serve(listener)
        self._url = endpoint.url or ""
        if self._node is not None:
            self._node.start()
        follower = threading.Thread(target=self._follow, name="hf_eco2ai-follower", daemon=True)
        follower.start()
        # The kernel may give a signal to another thread, and Python acts on it only when this one wakes.
        while not self._stop.wait(LOOK_SECONDS):
            pass
        self._supervisor.stopping()
        self._wake.set()
        endpoint.stop(GRACE_SECONDS)
        if self._node is not None:
            self._node.stop()
        follower.join(GRACE_SECONDS)
        self.close()
        log(logging.ERROR if self._failed else logging.INFO, "ended", reason=self._failed or "told to")
        return 1 if self._failed else 0

    def close(self) -> None:
        """Leave the state to another daemon. Only for one that does not run."""
        if self._kept is not None:
            self._kept.close()

    def _told_to_stop(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:  # Who presses Ctrl-C twice does not want to wait. Supervisors may tell twice, and do wait.
            signal.signal(number, signal.SIG_DFL)
        self._stop.set()

    def _end(self, reason: str) -> None:
        self._failed = self._failed or reason
        self._stop.set()

    def _thread_failed(self, failed: threading.ExceptHookArgs) -> None:
        """A defect of ours. Better to be started anew by whoever supervises us than to serve a half of what we should."""
        name = "" if failed.thread is None else failed.thread.name
        error = failed.exc_value
        logger.critical("a defect of hf-eco2ai, please report it", exc_info=error, extra={FIELDS: {"thread": name}})
        self._end(f"{name} failed")

    # The follower's thread

    def _follow(self) -> None:
        here = self._here
        address = DaemonAddress(url=self._url, host=here.host, boot_id=here.boot_id, all_hosts=self._options.all_hosts)
        announcement = Announcement(self._folder, address, here, self._complaints.failure)
        while not self._stop.is_set():
            self._look(announcement)
            self._wake.wait(LOOK_SECONDS)
            self._wake.clear()
        announcement.close()

    def _look(self, announcement: Announcement) -> None:
        began = time.monotonic()
        if self._web is not None and self._web.reread():
            log(logging.INFO, "the web config has been read again", file=self._options.web_config_file)
        while self._to_forget:
            self._follower.forget(self._to_forget[0])
            self._to_forget.popleft()
        cause = "the runs folder"
        try:
            self._follower.look()
        except OSError as error:
            self._complaints.failure(Failure("journal_refused", cause, unreadable(self._folder, error)))
        else:
            self._complaints.is_over(cause)
            first = self._look_unix is None
            self._look_unix, self._look_seconds = time.time(), time.monotonic() - began
            announcement.keep(began)
            if first:
                self._say_ready()
        self._supervisor.alive(began)

    def _say_ready(self) -> None:
        runs = len({snapshot.identity.run_id for snapshot in self._follower.snapshots})
        log(logging.INFO, "ready", url=self._url, folder=self._folder, runs=runs, look_seconds=f"{self._look_seconds:.3f}")
        self._supervisor.ready(f"{self._url}, {'1 run' if runs == 1 else f'{runs} runs'} in {self._folder}")

    # The endpoint's thread

    def _serve(self, listener: socket.socket) -> Endpoint:
        web = self._web
        return Endpoint(
            listener,
            self._app,
            fail=self._endpoint_failed,
            limits=self._options.limits,
            tls=(lambda: None) if web is None else (lambda: web.current.tls),
            refused=self._client_refused,
        )

    def _app(self) -> Any:
        node, kept, token_file, web = self._node, self._kept, self._options.token_file, self._web
        if node is not None:
            self._self_metrics.registry.register(NodeMetrics(lambda: node.snapshot, self._rules))
        folded = None
        if kept is not None and not self._config.run_label:
            folded = OfAll(kept.load(FOLDED), partial(kept.save, FOLDED))
        exposition = self._exposition = Exposition(
            self._snapshots,
            self._rules,
            self._self_metrics.registry,
            folded=folded,
            unusable=self._unusable,
            is_known=self._has_looked,
        )
        app = build_app(
            self._snapshots,
            exposition,
            compression=self._config.compression_enabled,
            limits=self._options.limits,
            in_thread=True,
            version=lambda: (self._snapshots(), int(time.monotonic())),
            ready=self._has_looked,
            forget=self._forget,
            write_token=None if token_file is None else partial(read_token, token_file),
            observe=self._self_metrics.scraped,
            refused=lambda path, client: self._refused("token", client=client, path=path),
        )
        return Doors(
            app,
            WebConfig if web is None else (lambda: web.current),
            refused=lambda refusal: self._refused(
                refusal.reason, client=refusal.client, path=refusal.path, status=refusal.status
            ),
        )

    def _snapshots(self) -> tuple[Snapshot, ...]:
        snapshots, forgotten = self._follower.snapshots, tuple(self._to_forget)
        if not forgotten:
            return snapshots
        return tuple(snapshot for snapshot in snapshots if snapshot.identity.run_id not in forgotten)

    def _has_looked(self) -> bool:
        return self._look_unix is not None

    def _forget(self, run_id: str) -> bool:
        """Of a run that is over: it is not shown from now on, and the follower's thread leaves its journals."""
        self._to_forget.append(run_id)
        self._wake.set()
        return True

    def _unusable(self, snapshot: Snapshot, error: Exception) -> None:
        where = self._follower.where(snapshot)
        if where is not None:
            path, line = where
            self._complaints.line(Refused(path, line, f"{IMPOSSIBLE}figures that cannot be shown ({type(error).__name__})"))

    def _refused(self, reason: str, **fields: object) -> None:
        self._self_metrics.refused(reason)
        self._complaints.request(reason, fields)

    def _client_refused(self, refusal: Refusal) -> None:
        self._refused(refusal.reason, client=refusal.client, detail=refusal.detail)

    def _endpoint_failed(self, failure: Failure) -> None:
        self._complaints.failure(failure)
        self._end("the endpoint failed")

    def _watched(self) -> Watched:
        follower = self._follower
        states = Counter(snapshot.state for snapshot in follower.snapshots if snapshot.leads)
        return Watched(
            journals=follower.journals,
            runs={state: states[state] for state in RUN_STATES},
            left_out=follower.left_out,
            series=0 if self._exposition is None else self._exposition.series,
            lines_read=follower.lines_read,
            refused=dict(self._complaints.lines),
            failures=dict(self._complaints.failures),
            read_unix=follower.read_unix,
            look_unix=self._look_unix,
            look_seconds=self._look_seconds,
        )
