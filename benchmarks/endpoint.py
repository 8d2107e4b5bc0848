"""Latency of a scrape, as Prometheus sees it: over one kept-alive connection, from another process."""

import json
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.training import PREPARE, ROOT, Row

SCRAPES = 300

SCRAPER = f"""
import http.client, json, sys, time, urllib.parse
url = urllib.parse.urlsplit(sys.argv[1])
connection = http.client.HTTPConnection(url.hostname, url.port)
latencies = []
began = time.monotonic()
for number in range({SCRAPES}):
    time.sleep(max(0.0, began + number / 10 - time.monotonic()))
    before = time.perf_counter()
    connection.request("GET", "/metrics", headers={{"Accept": "text/plain;version=0.0.4", "Accept-Encoding": "gzip"}})
    connection.getresponse().read()
    latencies.append(time.perf_counter() - before)
latencies.sort()
print(json.dumps([latencies[len(latencies) // 2], latencies[int(len(latencies) * 0.99)]]))
"""

IDLE = """
from hf_eco2ai import CarbonConfig, Eco2AICallback
import subprocess, threading
from transformers import TrainerCallback
done = threading.Event()
def scrape(url):
    print(subprocess.run([sys.executable, "-c", SCRAPER, url], capture_output=True, text=True, check=True).stdout)
    done.set()
callback = Eco2AICallback(CarbonConfig(**SETTINGS))
class Scraped(TrainerCallback):
    def on_step_begin(self, args, state, control, **_):
        if state.global_step == 5:
            self.thread = threading.Thread(target=scrape, args=(callback.metrics_url,))
            self.thread.start()
            if WAIT:
                done.wait()
    def on_step_end(self, args, state, control, **_):
        if done.is_set():
            control.should_training_stop = True
make_trainer(callback, Scraped(), num_train_epochs=100000).train()
"""


def _scrapes(*, wait: bool) -> tuple[float, float]:
    code = f"{PREPARE}\nSCRAPER = {SCRAPER!r}\nWAIT = {wait}\n{IDLE}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    median, p99 = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("[")))
    return median * 1e3, p99 * 1e3


def scrapes_idle() -> Iterator[Row]:
    """Ten scrapes a second of a run with 8 GPUs whose main thread waits."""
    _, p99 = _scrapes(wait=True)
    yield "scrape at 10 a second, 8 GPUs, idle, p99", p99, "ms", 5.0


def scrapes_while_training() -> Iterator[Row]:
    """The same while the main thread trains as fast as it can."""
    _, p99 = _scrapes(wait=False)
    yield "scrape at 10 a second, 8 GPUs, while the main thread trains, p99", p99, "ms", 25.0
