"""The machine itself, with or without any run: what all its GPUs, CPUs and memory use, and what of it no run claims."""

import math
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from hf_eco2ai.devices import Reader
from hf_eco2ai.energy.integrator import Integrator
from hf_eco2ai.energy.share import Claim, on, unclaimed
from hf_eco2ai.kept import Kept
from hf_eco2ai.records import Device, Energy, Failure, NodeDevice, NodeSnapshot, PowerReading, Reading

SECTION = "node"
"""Of what is kept on disk."""

STOP_SECONDS = 5.0
"""How long `stop` waits for the last reading; a driver that hangs longer does not hold up the end of the daemon."""


class _Totals(NamedTuple):
    """What is kept of one device."""

    joules: float = 0.0
    unattributed_joules: float = 0.0
    observed_seconds: float = 0.0

    def used(self, energy: Energy) -> "_Totals":
        return self._replace(
            joules=self.joules + energy.joules, observed_seconds=self.observed_seconds + energy.end - energy.start
        )


class Node:
    """Measures a machine from `start` to `stop`.

    `open_readers` is called in the node's own thread, since opening a driver may take seconds. `claims` are those of the runs
    of this machine, past ones of the last minutes included. Since a new run is known some seconds late, an energy waits
    `settle` s before it is looked at who claimed the device meanwhile; for its total it counts at once.

    `snapshot` is replaced by one assignment and may be read from any thread without a lock. Its totals stand on the disk
    already, where the disk lets us, so that a restart never takes any back; power is newer. What the machine used while no
    daemon ran is not counted.

    What readers report goes to `fail`. Anything else that goes wrong is a defect: it ends the thread, `died` is called, and the
    daemon is to end with it, so that whoever supervises it begins it anew.
    """

    def __init__(
        self,
        *,
        open_readers: Callable[[], Sequence[Reader]],
        claims: Callable[[], Sequence[Claim]],
        kept: Kept,
        host: str,
        interval: float = 1.0,
        power_interval: float = 0.1,
        settle: float = 10.0,
        publish_interval: float = 5.0,
        fail: Callable[[Failure], None],
        died: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._open_readers = open_readers
        self._readers: Sequence[Reader] = ()
        self._devices: tuple[Device, ...] = ()
        self._claims = claims
        self._kept = kept
        self._host = host
        self._interval = interval
        self._power_interval = power_interval
        self._settle = settle
        self._publish_interval = publish_interval
        self._fail = fail
        self._died = died
        self._now = now
        self._wall = wall
        self._integrator = Integrator.of_interval(interval)
        self._totals = _as_kept(kept.load(SECTION))
        self._published = dict(self._totals)
        self._unsettled: list[Energy] = []
        self._watts: dict[str, float] = {}
        self._next_tick = 0.0
        self._next_power = 0.0
        self._next_publish = 0.0
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="hf_eco2ai-node", daemon=True)
        self.snapshot: NodeSnapshot | None = None
        """The machine as of the last tick; None before the first."""
        self.failed = False
        """Whether the thread has ended by a defect."""

    def start(self) -> None:
        """Begin to measure."""
        self._thread.start()

    def stop(self, wait: float = STOP_SECONDS) -> None:
        """Take a last reading and keep the totals. Waits `wait` s at most."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(wait)

    # The node's thread

    def _run(self) -> None:
        over = False
        try:
            self.open()
            while not self._stopping:
                self._wake.wait(max(0.0, self.next_due() - self._now()))
                self.step()
            self.close()
            over = True
        finally:
            if not over:
                self.failed = True
                self._died()

    def open(self) -> None:
        """Open the readers and take the first reading."""
        self._readers = self._open_readers()
        self._devices = tuple(device for reader in self._readers for device in reader.devices)
        for device in self._devices:
            self._published.setdefault(_key(device), _Totals())
        self._next_tick = self._next_power = self._now()
        self._next_publish = self._next_tick + self._publish_interval
        self.step()

    def next_due(self) -> float:
        """The instant at which `step` has something to do."""
        return min(self._next_tick, self._next_power) if self._power_only() else self._next_tick

    def step(self) -> None:
        """Do what is due: a tick, with the totals published now and then, or only power readings."""
        now = self._now()
        if now >= self._next_tick:
            self._tick()
            self._next_tick = _after(self._next_tick, self._interval, now)
            if now >= self._next_publish:
                self._publish(now - self._settle)
                self._next_publish = _after(self._next_publish, self._publish_interval, now)
            self._show()
        elif self._power_only() and now >= self._next_power:
            self._tick(power_only=True)
        if now >= self._next_power:
            self._next_power = _after(self._next_power, self._power_interval, now)

    def close(self) -> None:
        """The last reading, attributed as far as claims are known now, and the drivers given back."""
        self._tick(last=True)
        self._publish(math.inf)
        self._show()
        for reader in self._readers:
            reader.close()

    def _power_only(self) -> bool:
        return any(reader.power_only for reader in self._readers)

    def _tick(self, *, power_only: bool = False, last: bool = False) -> None:
        samples = [reader.read_power() if power_only else reader.read() for reader in self._readers]
        readings = [reading for sample in samples for reading in sample.readings]
        energies, failures = self._integrator.add(readings, last=last)
        for energy in energies:
            key = _key(energy.device)
            self._totals[key] = self._totals.get(key, _Totals()).used(energy)
        self._unsettled += energies
        if not power_only:
            self._watts = _watts(readings, energies)
        for failure in (*(failure for sample in samples for failure in sample.failures), *failures):
            self._fail(failure)

    def _attribute(self, until: float) -> None:
        """Add what nobody claims of the energies up to `until`, interval by interval."""
        settled = [energy for energy in self._unsettled if energy.end <= until]
        if not settled:
            return
        self._unsettled = [energy for energy in self._unsettled if energy.end > until]
        claims = self._claims()
        claims_on = {device: on(device, claims) for device in {energy.device for energy in settled}}
        for energy in settled:
            totals = self._totals[_key(energy.device)]
            unattributed = totals.unattributed_joules + unclaimed(energy, claims_on[energy.device])
            # Rounding may put the sum of the parts above the whole.
            self._totals[_key(energy.device)] = totals._replace(unattributed_joules=min(unattributed, totals.joules))

    def _publish(self, settled_until: float) -> None:
        """Bring the totals to the disk, and only then show them. Where the disk refuses, a figure is better than none."""
        self._attribute(settled_until)
        self._kept.save(SECTION, {"devices": {key: totals._asdict() for key, totals in self._totals.items()}})
        self._published.update(self._totals)

    def _show(self) -> None:
        self.snapshot = NodeSnapshot(
            host=self._host,
            updated_unix=self._wall(),
            devices=tuple(
                NodeDevice(device, *self._published[_key(device)], self._watts.get(device.id)) for device in self._devices
            ),
        )


def _key(device: Device) -> str:
    """What a counter is kept under: a device that is measured from now on, and was modelled, is counted anew."""
    return f"{device.component} {device.uuid} {device.basis}"


def _as_kept(section: dict[str, Any]) -> dict[str, _Totals]:
    return {
        key: _Totals(*(float(row.get(name, 0.0)) for name in _Totals._fields)) for key, row in section.get("devices", {}).items()
    }


def _watts(readings: Iterable[Reading], energies: Iterable[Energy]) -> dict[str, float]:
    """Power by device id: as read, else the mean over what its counter has just completed."""
    joules: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for energy in energies:
        joules[energy.device.id] = joules.get(energy.device.id, 0.0) + energy.joules
        seconds[energy.device.id] = seconds.get(energy.device.id, 0.0) + energy.end - energy.start
    means = {key: joules[key] / seconds[key] for key in joules}
    return {**means, **{reading.device.id: reading.watts for reading in readings if isinstance(reading, PowerReading)}}


def _after(due: float, interval: float, now: float) -> float:
    """The next instant of the schedule; what was missed is not made up for."""
    return due + interval if due + interval > now else now + interval
