"""Which reader measures what: for each component the first that opens."""

import logging
from pathlib import Path

import pytest

from hf_eco2ai.devices import READERS, Reader, ReaderContext, ReaderRow
from hf_eco2ai.errors import ConfigError, Unavailable
from hf_eco2ai.records import Component, Device, Sample
from hf_eco2ai.wiring import load, open_readers


class Fake:
    """A reader with one device per component it has."""

    components: tuple[Component, ...] = ()
    power_only = False
    warnings: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.devices = tuple(Device("h", f"{type(self).__name__}-{one}", one, "measured", "a test") for one in self.components)

    @classmethod
    def open(cls, _context: ReaderContext) -> "Fake":
        return cls()

    def read(self) -> Sample:
        return Sample()

    def read_power(self) -> Sample:
        return Sample()

    def close(self) -> None:
        return


class Gpus(Fake):
    components = ("gpu",)


class OtherGpus(Fake):
    components = ("gpu",)


class CpuAndDram(Fake):
    components = ("cpu", "dram")


class CpuOnly(Fake):
    components = ("cpu",)


class DramOnly(Fake):
    components = ("dram",)
    warnings = ("The memory was guessed.",)


class Locked(Fake):
    components = ("cpu", "dram")

    @classmethod
    def open(cls, _context: ReaderContext) -> Fake:
        raise Unavailable("the counters are kept to root", "Ask root for chmod.")


class Missing(Fake):
    components = ("gpu",)

    @classmethod
    def open(cls, _context: ReaderContext) -> Fake:
        raise Unavailable("there is no such hardware")


class Wrong(Fake):
    @classmethod
    def open(cls, _context: ReaderContext) -> Fake:
        raise ConfigError("gpu_ids: 9 is not a GPU of this machine")


def row(kind: type[Fake], components: tuple[Component, ...] | None = None) -> ReaderRow:
    return ReaderRow(kind.__name__, components or kind.components, "measured", f"{__name__}:{kind.__name__}", "a test")


def context(root: Path = Path("/nothing")) -> ReaderContext:
    return ReaderContext(host="h", now=lambda: 0.0, root=root, use_gpus=False)


def opened(*rows: ReaderRow) -> list[str]:
    return [type(reader).__name__ for reader in open_readers(context(), rows)]


def test_for_each_component_the_first_reader_that_opens_is_used_and_no_other() -> None:
    assert opened(row(Gpus), row(OtherGpus), row(CpuAndDram), row(CpuOnly), row(DramOnly)) == ["Gpus", "CpuAndDram"]


def test_the_next_reader_takes_the_place_of_one_that_cannot_be_used() -> None:
    assert opened(row(Missing), row(Gpus), row(Locked), row(CpuOnly), row(DramOnly)) == ["Gpus", "CpuOnly", "DramOnly"]


def test_a_reader_that_finds_only_a_part_leaves_the_rest_to_the_next() -> None:
    assert opened(row(CpuOnly, ("cpu", "dram")), row(DramOnly)) == ["CpuOnly", "DramOnly"]


def test_where_nothing_can_be_used_nothing_is_measured() -> None:
    assert opened(row(Missing), row(Locked)) == []


def test_a_remedy_is_a_warning_and_a_mere_lack_is_not(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="hf_eco2ai"):
        opened(row(Missing), row(Locked), row(DramOnly))

    said = {record.getMessage(): record.levelno for record in caplog.records}
    assert said == {
        "Missing is not used: there is no such hardware": logging.INFO,
        "Locked is not used: the counters are kept to root. Ask root for chmod.": logging.WARNING,
        "The memory was guessed.": logging.WARNING,
    }


def test_a_wrong_setting_is_not_taken_for_missing_hardware() -> None:
    with pytest.raises(ConfigError, match="gpu_ids"):
        opened(row(Wrong, ("gpu",)))


def test_each_row_of_the_table_names_a_reader_that_can_be_opened() -> None:
    assert len({one.name for one in READERS}) == len(READERS)
    for one in READERS:
        assert callable(load(one.opener).open), one.name
        assert one.what


def write(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def package(root: Path, folder: str, name: str) -> None:
    for file, text in (("name", name), ("energy_uj", "1000000"), ("max_energy_range_uj", "262143328850")):
        write(root, f"sys/class/powercap/{folder}/{file}", f"{text}\n")


def components(readers: list[Reader]) -> dict[str, list[str]]:
    return {type(reader).__name__: [device.component for device in reader.devices] for reader in readers}


def test_a_machine_with_rapl_for_both_needs_no_model(tmp_path: Path) -> None:
    package(tmp_path, "intel-rapl:0", "package-0")
    package(tmp_path, "intel-rapl:0:0", "dram")

    assert components(open_readers(context(tmp_path))) == {"Rapl": ["cpu", "dram"]}


def test_a_machine_whose_rapl_has_no_dram_gets_its_model(tmp_path: Path) -> None:
    package(tmp_path, "intel-rapl:0", "package-0")

    assert components(open_readers(context(tmp_path))) == {"Rapl": ["cpu"], "DramModel": ["dram"]}


def test_a_machine_without_rapl_is_modelled_and_says_so(tmp_path: Path) -> None:
    readers = open_readers(context(tmp_path))

    assert components(readers) == {"CpuModel": ["cpu"], "DramModel": ["dram"]}
    assert {device.basis for reader in readers for device in reader.devices} == {"modelled"}


def test_simulated_gpus_take_the_place_of_real_ones(tmp_path: Path) -> None:
    asked = ReaderContext(host="h", now=lambda: 0.0, root=tmp_path, simulated_gpus=2)

    assert components(open_readers(asked)) == {"Simulated": ["gpu", "gpu"], "CpuModel": ["cpu"], "DramModel": ["dram"]}


def test_a_recording_takes_the_place_of_everything(tmp_path: Path) -> None:
    write(tmp_path, "r", '{"devices": [{"uuid": "GPU-1", "component": "gpu", "basis": "measured", "source": "x"}]}\n')
    asked = ReaderContext(host="h", now=lambda: 0.0, root=tmp_path, replay=tmp_path / "r")

    assert components(open_readers(asked)) == {"Replay": ["gpu"]}
