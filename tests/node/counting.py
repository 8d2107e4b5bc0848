"""A process that measures two made-up GPUs, of which a run claims one, and prints its counters whenever it shows new ones.

It keeps them every 2 ms, so that a SIGKILL finds it in the middle of that.
"""

import json
import math
import sys
import time
from pathlib import Path

from hf_eco2ai.devices import ReaderContext
from hf_eco2ai.devices.simulated import Simulated
from hf_eco2ai.energy.share import Claim
from hf_eco2ai.kept import Kept
from hf_eco2ai.node import Node
from hf_eco2ai.records import Failure


def main(path: Path) -> None:
    def fail(failure: Failure) -> None:
        raise SystemExit(failure.message)

    node = Node(
        open_readers=lambda: [Simulated(2, ReaderContext("h", time.monotonic))],
        claims=lambda: [Claim("SIMULATED-0", -math.inf, math.inf)],
        kept=Kept(path, fail),
        host="h",
        interval=0.002,
        settle=0.01,
        publish_interval=0.002,
        fail=fail,
    )
    node.open()
    while True:
        assert node.snapshot is not None
        figures = {
            f"{one.device.uuid} {name}": getattr(one, name)
            for one in node.snapshot.devices
            for name in ("joules", "unattributed_joules", "observed_seconds")
        }
        print(json.dumps(figures), flush=True)
        time.sleep(max(0.0, node.next_due() - time.monotonic()))
        node.step()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
