"""`/metrics` of one run: from its own process, unless a daemon serves the folder that its journal is in."""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_eco2ai import wiring
from hf_eco2ai.config import CarbonConfig
from hf_eco2ai.journal.announce import TargetFile, clear, daemon_of
from hf_eco2ai.journal.read import Here
from hf_eco2ai.outputs.server import Endpoint, bind_near
from hf_eco2ai.records import Failure, RunIdentity, Snapshot

if TYPE_CHECKING:
    from hf_eco2ai.outputs.web_config import WebConfigFile

logger = logging.getLogger("hf_eco2ai")

LOOK_SECONDS = 0.3
"""So long the begin of a run waits for a folder to say whether a daemon serves it; then it opens a port of its own."""


class OwnEndpoint:
    """Opened when the run begins; `keep` and `withdraw` are called by the thread that may wait for the folder.

    `folder` is None where there is no journal, so that no daemon can know of the run.
    """

    def __init__(
        self,
        config: CarbonConfig,
        folder: Path | None,
        here: Here,
        identity: RunIdentity,
        snapshot: Callable[[], Snapshot | None],
        fail: Callable[[Failure], None],
    ) -> None:
        self._config = config
        self._folder = folder
        self._here = here
        self._identity = identity
        self._snapshot = snapshot
        self._fail = fail
        self._endpoint: Endpoint | None = None
        self._target: TargetFile | None = None
        self._is_advertised = False
        self._web: WebConfigFile | None = None
        self.url = None if folder is None else _daemon_of(folder, here)
        """Where the run is served; None where it is not."""
        if self.url is None:
            self.url = self._open()
        else:
            logger.info("A daemon at %s serves this run.", self.url)

    def _open(self) -> str | None:
        config = self._config
        if config.prometheus_web_config is not None:
            from hf_eco2ai.outputs.web_config import WebConfigFile  # noqa: PLC0415 - TLS and YAML, only where they are asked for

            self._web = WebConfigFile(config.prometheus_web_config, say=partial(logger.warning, "%s"))
        web = self._web
        listener = bind_near(config.prometheus_host, config.prometheus_port, self._fail)
        tls = (lambda: None) if web is None else (lambda: web.current.tls)
        self._endpoint = Endpoint(listener, self._app, fail=self._fail, tls=tls)
        return self._endpoint.url

    def _app(self) -> Any:
        # In the endpoint's own thread, so that training does not wait for the HTTP stack.
        from hf_eco2ai.outputs.app import build_app  # noqa: PLC0415
        from hf_eco2ai.outputs.doors import Doors  # noqa: PLC0415
        from hf_eco2ai.outputs.exposition import Exposition  # noqa: PLC0415
        from hf_eco2ai.outputs.web_config import WebConfig  # noqa: PLC0415

        exposition = Exposition(self._snapshots, wiring.label_rules(self._config))
        app = build_app(self._snapshots, exposition, compression=self._config.compression_enabled)
        web = self._web
        return Doors(app, WebConfig if web is None else (lambda: web.current), refused=lambda _: None)

    def _snapshots(self) -> tuple[Snapshot, ...]:
        snapshot = self._snapshot()
        return () if snapshot is None else (snapshot,)

    def keep(self) -> None:
        """Tell a Prometheus that looks for targets in the folder, and read the web config again where it has changed."""
        if self._web is not None:
            self._web.reread()
        if self._is_advertised or self._folder is None or self._endpoint is None or self._endpoint.url is None:
            return
        if not self._folder.is_dir():
            return  # The journal makes it; then it is time.
        self._is_advertised = True  # Once: a folder that takes no journal is told of that already.
        clear(self._folder, self._here)
        with suppress(OSError):
            process = wiring.own_process(self._here)
            self._target = TargetFile(self._folder, self._endpoint.url, self._identity.run_id, self._identity.host, process)

    def withdraw(self) -> None:
        """The target goes before the port does."""
        if self._target is not None:
            self._target.remove()

    def close(self) -> None:
        """Give the port back."""
        if self._endpoint is not None:
            self._endpoint.stop()


def _daemon_of(folder: Path, here: Here) -> str | None:
    found: list[str] = []

    def look() -> None:
        url = daemon_of(folder, here)
        if url is not None:
            found.append(url)

    thread = threading.Thread(target=look, name="hf_eco2ai-daemon-look", daemon=True)
    thread.start()
    thread.join(LOOK_SECONDS)
    return found[0] if found else None
