"""Devices that are not there: made up and labelled so, or played back from a recording."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_eco2ai.devices import ReaderContext
from hf_eco2ai.devices.replay import Replay
from hf_eco2ai.devices.simulated import Simulated
from hf_eco2ai.energy.integrator import Integrator
from hf_eco2ai.errors import ConfigError, Unavailable
from hf_eco2ai.records import CounterReading, Energy, PowerReading, Sample


class Clock:
    """An instant that the test sets."""

    def __init__(self, at: float = 50.0) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


# Simulated


def simulated(count: int, clock: Clock) -> Simulated:
    return Simulated.open(ReaderContext(host="h", now=clock, simulated_gpus=count))


def counters(sample: Sample) -> list[float]:
    return [reading.joules for reading in sample.readings if isinstance(reading, CounterReading)]


def powers(sample: Sample) -> list[float]:
    return [reading.watts for reading in sample.readings if isinstance(reading, PowerReading)]


@settings(deadline=None, max_examples=20)
@given(seconds=st.floats(0.5, 90.0))
def test_the_counter_of_a_simulated_gpu_is_the_integral_of_its_power(seconds: float) -> None:
    clock = Clock(0.0)
    gpus = simulated(3, clock)
    steps = 2000
    samples = []
    for i in range(steps + 1):
        clock.at = seconds * i / steps
        samples.append(gpus.read())

    for gpu in range(3):
        curve = [powers(sample)[gpu] for sample in samples]
        integral = sum((before + after) / 2 * seconds / steps for before, after in pairwise(curve))
        used = counters(samples[-1])[gpu] - counters(samples[0])[gpu]
        assert used == pytest.approx(integral, rel=1e-4)


def test_a_simulation_is_the_same_every_time() -> None:
    clock = Clock(7.0)
    one, other = simulated(2, clock), simulated(2, clock)
    clock.at += 12.5

    first, second = one.read(), other.read()
    assert (counters(first), powers(first)) == (counters(second), powers(second))
    assert [row[1:] for row in first.telemetry] == [row[1:] for row in second.telemetry]


def test_a_simulated_gpu_is_labelled_simulated() -> None:
    devices = simulated(4, Clock()).devices

    assert len({device.id for device in devices}) == 4
    for device in devices:
        assert device.basis == "simulated"
        assert "not a measurement" in device.source
        assert "Simulated" in device.model
        assert device.component == "gpu"


def test_a_simulated_gpu_stays_within_the_power_of_an_h100() -> None:
    clock = Clock()
    gpus = simulated(2, clock)
    seen = []
    for _ in range(500):
        clock.at += 0.25
        sample = gpus.read()
        seen += powers(sample)
        assert all(0 <= (row.utilization_percent or 0) <= 100 for row in sample.telemetry)

    assert min(seen) >= 0
    assert max(seen) <= 700.0  # NVIDIA H100 SXM datasheet


def test_nobody_is_given_a_simulated_gpu_unasked() -> None:
    with pytest.raises(Unavailable):
        simulated(0, Clock())


# Replay

GPU = {"uuid": "GPU-1", "component": "gpu", "basis": "measured", "source": "NVML energy counter", "index": "0"}
CPU = {"uuid": "package-0", "component": "cpu", "basis": "measured", "source": "RAPL package counter"}

Pass = tuple[float, dict[str, dict[str, Any]]]


def recording(folder: Path, passes: list[Pass], devices: tuple[dict[str, Any], ...] = (GPU, CPU)) -> Path:
    file = folder / "recording.jsonl"
    lines = [{"devices": list(devices)}, *({"at": at, "read": read} for at, read in passes)]
    file.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    return file


def replay(file: Path, clock: Clock) -> Replay:
    return Replay.open(ReaderContext(host="h", now=clock, replay=file))


def played(player: Replay, clock: Clock, instants: list[float]) -> list[Energy]:
    integrator, energies, origin = Integrator(5.0), list[Energy](), clock.at
    for instant in instants:
        clock.at = origin + instant
        energies += integrator.add(player.read().readings)[0]
    return energies + integrator.add([], last=True)[0]


RECORDED: list[Pass] = [
    (0.0, {"GPU-1": {"joules": 1000.0, "watts": 100.0}, "package-0": {"watts": 40.0}}),
    (1.0, {"GPU-1": {"joules": 1210.0, "watts": 300.0}, "package-0": {"watts": 60.0}}),
    (2.0, {"GPU-1": {"joules": 1515.0, "watts": 310.0}, "package-0": {"watts": 60.0}}),
    (4.0, {"GPU-1": {"joules": 2100.0, "watts": 290.0}, "package-0": {"watts": 20.0}}),
]


@pytest.mark.parametrize("instants", [[0.0, 1.0, 2.0, 4.0], [4.0], [0.3, 0.6, 1.7, 3.9, 100.0], [0.0, 4.0]])
def test_a_recordings_energy_is_the_same_however_often_it_is_read(tmp_path: Path, instants: list[float]) -> None:
    clock = Clock()
    # Until the first reading nothing is known, so a first read sees the first pass at least.
    energies = played(replay(recording(tmp_path, RECORDED), clock), clock, [0.0, *instants])

    used = {uuid: sum(energy.joules for energy in energies if energy.device.uuid == uuid) for uuid in ("GPU-1", "package-0")}
    # The counter's 2100 - 1000 J; and 50 + 60 + 2 × 40 J under the line through the power readings.
    assert used == pytest.approx({"GPU-1": 1100.0, "package-0": 190.0})


def test_readings_carry_the_recorded_instants(tmp_path: Path) -> None:
    clock = Clock(50.0)
    player = replay(recording(tmp_path, RECORDED), clock)
    clock.at = 52.5

    assert {reading.at for reading in player.read().readings} == {50.0, 51.0, 52.0}
    assert player.read().readings == ()
    clock.at = 60.0
    assert {reading.at for reading in player.read().readings} == {54.0}


def test_a_replay_keeps_the_recorded_basis_and_telemetry(tmp_path: Path) -> None:
    clock = Clock()
    player = replay(recording(tmp_path, [(0.0, {"GPU-1": {"watts": 90.0, "temperature_celsius": 61.0}})]), clock)
    sample = player.read()

    assert [(device.uuid, device.basis, device.host) for device in player.devices] == [
        ("GPU-1", "measured", "h"),
        ("package-0", "measured", "h"),
    ]
    assert sample.telemetry[0].temperature_celsius == 61.0
    assert sample.telemetry[0].utilization_percent is None
    assert player.read_power().readings == ()


def test_nothing_is_replayed_unasked() -> None:
    with pytest.raises(Unavailable):
        Replay.open(ReaderContext(host="h", now=Clock()))


HEADER = json.dumps({"devices": [GPU]})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[]",
        "{}",
        '{"devices": [{"component": "gpu"}]}',
        '{"devices": [{"uuid": "GPU-1", "component": "gpu", "basis": "measured", "source": "x", "colour": "green"}]}',
        '{"devices": "GPU-1"}',
        HEADER + "\n{",
        HEADER + "\n[]",
        HEADER + '\n{"read": {}}',
        HEADER + '\n{"at": "noon", "read": {}}',
        HEADER + '\n{"at": 0.0, "read": 5}',
        HEADER + '\n{"at": 0.0, "read": {"GPU-9": {"watts": 1.0}}}',
        HEADER + '\n{"at": 0.0, "read": {"GPU-1": {"watts": "many"}}}',
        HEADER + '\n{"at": 0.0, "read": {"GPU-1": {"volts": 12.0}}}',
        HEADER + '\n{"at": 0.0, "read": {"GPU-1": 300.0}}',
        '{"devices": [{"uuid": "X", "component": "tpu", "basis": "measured", "source": "x"}]}',
        '{"devices": [{"uuid": "X", "component": "gpu", "basis": "guessed", "source": "x"}]}',
    ],
)
def test_a_file_that_is_no_recording_is_refused_before_training(tmp_path: Path, text: str) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_text(text)

    with pytest.raises(ConfigError) as caught:
        replay(file, Clock())
    assert str(caught.value).startswith(f"replay: {file}")


def test_a_recording_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="replay"):
        replay(tmp_path / "nothing", Clock())
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="replay"):
        replay(tmp_path / "binary", Clock())
