"""A machine whose power is known at every instant, and a node that measures it in virtual time."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hf_eco2ai.devices import Reader
from hf_eco2ai.energy.share import Claim
from hf_eco2ai.kept import Files, Kept
from hf_eco2ai.node import Node
from hf_eco2ai.records import Component, CounterReading, Device, Failure, NodeDevice, NodeSnapshot, PowerReading, Reading, Sample

SETTLE, PUBLISH = 10.0, 5.0


def device(uuid: str, component: Component = "gpu", **more: Any) -> Device:
    return Device(**{"host": "h", "uuid": uuid, "component": component, "basis": "measured", "source": "a test", **more})


GPU, OTHER_GPU = device("GPU-1", model="A GPU"), device("GPU-2", model="A GPU")
PACKAGE, DRAM = device("package-0", "cpu"), device("dram-0", "dram")


class Clock:
    """An instant that the test sets. Readings begin at 1000."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Counters:
    """Devices with an energy counter, of this constant power each."""

    power_only = False

    def __init__(self, now: Callable[[], float], watts: dict[Device, float], *, tells_power: bool = False) -> None:
        self.now = now
        self.watts = watts
        self.tells_power = tells_power
        self.silent: set[Device] = set()
        self.silent_counters: set[Device] = set()
        self.failures: tuple[Failure, ...] = ()
        self.devices = tuple(watts)
        self.closed = False

    def read(self) -> Sample:
        readings: list[Reading] = []
        for one, watts in self.watts.items():
            if one not in self.silent | self.silent_counters:
                readings.append(CounterReading(one, self.now(), watts * self.now()))
            if one not in self.silent and self.tells_power:
                readings.append(PowerReading(one, self.now(), watts))
        return Sample(tuple(readings), (), self.failures)

    def read_power(self) -> Sample:
        return Sample()

    def close(self) -> None:
        self.closed = True


class Powers:
    """One device without a counter, whose power is this at an instant."""

    power_only = True

    def __init__(self, now: Callable[[], float], one: Device, watts: Callable[[float], float]) -> None:
        self.now = now
        self.devices = (one,)
        self.watts = watts

    def read(self) -> Sample:
        return Sample((PowerReading(self.devices[0], self.now(), self.watts(self.now())),))

    def read_power(self) -> Sample:
        return self.read()

    def close(self) -> None:
        return


class Machine:
    """What a node needs, with claims that the test sets, and a state file that outlives the node."""

    def __init__(self, folder: Path, files: Files | None = None) -> None:
        self.clock = Clock()
        self.claims: tuple[Claim, ...] = ()
        self.failures: list[Failure] = []
        self.path = folder / "state.json"
        self._files: tuple[Files, ...] = () if files is None else (files,)
        self.history: list[NodeSnapshot] = []

    def node(self, *readers: Reader, **more: Any) -> Node:
        """Ready to open, or to start."""
        self.kept = Kept(self.path, self.failures.append, *self._files)
        return Node(
            **{
                "open_readers": lambda: readers,
                "claims": lambda: self.claims,
                "kept": self.kept,
                "host": "h",
                "settle": SETTLE,
                "publish_interval": PUBLISH,
                "fail": self.failures.append,
                "now": self.clock,
                "wall": self.clock,
                **more,
            }
        )

    def opened(self, *readers: Reader, **more: Any) -> Node:
        """After its first reading."""
        node = self.node(*readers, **more)
        node.open()
        self._look(node)
        return node

    def run(self, node: Node, until: float) -> None:
        """Let it do what falls due up to this instant."""
        while node.next_due() <= until:
            self.clock.seconds = max(node.next_due(), self.clock.seconds)
            node.step()
            self._look(node)
        self.clock.seconds = until

    def end(self, node: Node) -> None:
        """As `stop` does."""
        node.close()
        self._look(node)
        self.kept.close()

    def kill(self) -> None:
        """Nobody says goodbye."""
        self.kept.close()

    def _look(self, node: Node) -> None:
        assert node.snapshot is not None
        self.history.append(node.snapshot)


def shown(node: Node, one: Device) -> NodeDevice:
    assert node.snapshot is not None
    return next(shown for shown in node.snapshot.devices if shown.device is one)


def joules(node: Node, devices: Sequence[Device]) -> list[tuple[float, float]]:
    """Of each device: all, and what of it nobody claimed."""
    return [(shown(node, one).joules, shown(node, one).unattributed_joules) for one in devices]
