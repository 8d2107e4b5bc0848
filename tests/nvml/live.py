"""A run in real time in a process of its own: real thread, real clock, and the driver that LD_LIBRARY_PATH offers.

Prints what the pipeline said, as JSON. Arguments: seconds.
"""

import json
import sys
import time

from hf_eco2ai.devices import ReaderContext
from hf_eco2ai.devices.nvml import Nvml
from hf_eco2ai.footprint.fixed import Fixed
from hf_eco2ai.ledger import Ledger
from hf_eco2ai.monitor import Monitor
from hf_eco2ai.records import Progress, RunIdentity, Tariff


def main(seconds: float) -> None:
    monitor = Monitor(
        open_readers=lambda: [Nvml.open(ReaderContext("h", time.monotonic))],
        ledger=Ledger(RunIdentity("r", "p", "m", "h"), Tariff(), 1.0),
        grid=Fixed(400.0, "lifecycle", "", ""),
        tariff=Tariff(),
        pue=1.0,
        progress=Progress,
        measurement_interval=1.0,
        power_interval=0.1,
    )
    monitor.start("train", wait=60)
    time.sleep(seconds)
    monitor.stop(wait=60)
    snapshot = monitor.snapshot
    assert snapshot is not None
    said = {
        "state": snapshot.state,
        "seconds": snapshot.seconds,
        "joules": [status.joules for status in snapshot.devices],
        "observed_seconds": [status.observed_seconds for status in snapshot.devices],
        "methods": sorted({method for status in snapshot.devices for method in status.methods}),
        "observed_ratio": snapshot.observed_ratio,
        "errors": {name: count for name, count in snapshot.errors if count},
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main(float(sys.argv[1]))
