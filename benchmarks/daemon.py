"""What `hf-eco2ai serve` costs a node: start-up, scrapes as Prometheus makes them, memory, CPU time.

The daemon is a process of its own, and so are whoever writes the journals and whoever scrapes.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.journals import write_ended
from benchmarks.training import ROOT, Row

LIVE, MANY, ENDED, GPUS = 100, 1000, 10_000, 8
APPEND_EVERY = 5.0
SCRAPE_EVERY = 15.0
"""Seconds; the latter is how most set up their Prometheus."""

IDLE_SECONDS = 45.0

SCRAPER = """
import http.client, json, sys, time, urllib.parse
url, count, every = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
address = urllib.parse.urlsplit(url)
connection = http.client.HTTPConnection(address.hostname, address.port)
headers = {
    "Accept": "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
    "Accept-Encoding": "gzip",
    "X-Prometheus-Scrape-Timeout-Seconds": "10",
}
latencies = []
began = time.monotonic()
for number in range(count):
    time.sleep(max(0.0, began + number * every - time.monotonic()))
    before = time.perf_counter()
    connection.request("GET", "/metrics", headers=headers)
    response = connection.getresponse()
    content = response.read()
    latencies.append(time.perf_counter() - before)
    assert response.status == 200 and response.headers["Content-Encoding"] == "gzip", response.status
time.sleep(max(0.0, began + count * every - time.monotonic()))
import gzip
lines = gzip.decompress(content).splitlines()
print(json.dumps([sorted(latencies), sum(not line.startswith(b"#") for line in lines)]))
"""


class Scraped(NamedTuple):
    """What a Prometheus has seen."""

    latencies: list[float]
    """In ms, the shortest first."""
    series: int

    @property
    def p99(self) -> float:
        """No more than one in a hundred takes longer."""
        return self.latencies[int(len(self.latencies) * 0.99)]


class Served(NamedTuple):
    """A daemon that is ready."""

    process: subprocess.Popen[str]
    url: str
    seconds: float
    """From its start until it was ready."""

    def scrape(self, count: int, every: float) -> Scraped:
        """So many times, from a process of its own over one connection. Returns `every` seconds after the last one began."""
        command = [sys.executable, "-c", SCRAPER, self.url, str(count), str(every)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        latencies, series = json.loads(done.stdout)
        return Scraped([1e3 * latency for latency in latencies], series)

    @property
    def cpu_seconds(self) -> float:
        """Used so far, by all its threads, in user and system mode."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_bytes().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def most_megabytes(self) -> float:
        """Resident at its peak."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


@contextmanager
def serve(folder: Path) -> Iterator[Served]:
    """A daemon over a folder, until the block ends."""
    program = Path(sys.executable).with_name("hf-eco2ai")
    began = time.monotonic()
    command = [str(program), "serve", "--runs-dir", str(folder), "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = []
        try:
            for line in process.stderr:
                said.append(line)
                if " msg=ready " in line:
                    break
            else:
                raise RuntimeError("".join(said))
            seconds = time.monotonic() - began
            url = next(word.removeprefix("url=") for word in line.split() if word.startswith("url="))
            threading.Thread(target=process.stderr.read, daemon=True).start()  # So that it never waits for us.
            yield Served(process, url, seconds)
        finally:
            process.terminate()
            process.wait()


@contextmanager
def live(folder: Path, count: int) -> Iterator[None]:
    """Runs that append, from a process of its own, until the block ends."""
    command = [sys.executable, "-m", "benchmarks.journals", str(folder)]
    options = ["--live", str(count), "--gpus", str(GPUS), "--append-every", str(APPEND_EVERY), "--seconds", "3600"]
    with subprocess.Popen([*command, *options], cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        try:
            assert writer.stdout.readline() == "live\n"
            yield
        finally:
            writer.kill()


@contextmanager
def runs_that_are_over() -> Iterator[Path]:
    """A folder of them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "runs"
        write_ended(folder, ENDED, GPUS)
        yield folder


def daemon_of_a_node() -> Iterator[Row]:
    """With 100 live runs of 8 GPUs that append every 5 s."""
    of = f"{LIVE} live runs of {GPUS} GPUs"
    with runs_that_are_over() as folder, live(folder, LIVE), serve(folder) as served:
        yield f"daemon, {of}, {ENDED:,} ended, from start to ready", served.seconds, "s", 5.0
        often = served.scrape(200, 0.3)
        yield f"daemon, {of}, scrape of {often.series:,} series, p99 of 200, 0.3 s apart", often.p99, "ms", 300.0
        before, began = served.cpu_seconds, time.monotonic()
        rarely = served.scrape(5, SCRAPE_EVERY)
        share = 100 * (served.cpu_seconds - before) / (time.monotonic() - began)
        yield f"daemon, {of}, scrape after all have changed, longest of 5, 15 s apart", rarely.latencies[-1], "ms", 300.0
        yield f"daemon, {of}, share of one core, scraped every 15 s", share, "%", 10.0
        yield f"daemon, {of}, {ENDED:,} ended, peak resident memory", served.most_megabytes, "MB", 300.0


def daemon_of_a_large_node() -> Iterator[Row]:
    """With 1,000 live runs of 8 GPUs that append every 5 s; all have changed at each scrape."""
    of = f"{MANY:,} live runs of {GPUS} GPUs"
    with runs_that_are_over() as folder, live(folder, MANY), serve(folder) as served:
        yield f"daemon, {of}, {ENDED:,} ended, from start to ready", served.seconds, "s", 5.0
        before, began = served.cpu_seconds, time.monotonic()
        scraped = served.scrape(20, APPEND_EVERY)
        share = 100 * (served.cpu_seconds - before) / (time.monotonic() - began)
        yield f"daemon, {of}, scrape of {scraped.series:,} series, longest of 20, 5 s apart", scraped.latencies[-1], "ms", 2000.0
        yield f"daemon, {of}, share of one core, scraped every 5 s", share, "%", 60.0
        yield f"daemon, {of}, peak resident memory", served.most_megabytes, "MB", 500.0


def daemon_of_an_idle_node() -> Iterator[Row]:
    """With nothing but runs that are over, whose files have just been copied."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "runs"
        write_ended(folder, ENDED, GPUS, fresh=True)
        with serve(folder) as served:
            yield f"daemon, {ENDED:,} ended runs that have just been copied, from start to ready", served.seconds, "s", 5.0
            before, began = served.cpu_seconds, time.monotonic()
            served.scrape(int(IDLE_SECONDS / SCRAPE_EVERY), SCRAPE_EVERY)
            share = 100 * (served.cpu_seconds - before) / (time.monotonic() - began)
            yield "daemon, no live run, share of one core, scraped every 15 s", share, "%", 0.5
            yield "daemon, no live run, peak resident memory", served.most_megabytes, "MB", 100.0
