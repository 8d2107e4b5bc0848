"""NVIDIA GPUs through NVML: the energy counter where the device answers it, power, and what a GPU says about itself.

The only file that imports pynvml (distribution `nvidia-ml-py`, NVIDIA's own binding).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from hf_eco2ai.devices import ReaderContext
from hf_eco2ai.devices.visible import Chosen, Gpu, MigSlice, choose
from hf_eco2ai.errors import ConfigError, Unavailable
from hf_eco2ai.records import CounterReading, Device, Failure, PowerReading, Reading, Sample, Telemetry

SLOW_CALL_SECONDS = 0.5
"""A driver call is typically done in under 10 ms (Zeus docs, measure/index.md); far beyond that the driver hangs."""

COUNTER_FAILURES = 5
"""After so many failures in a row a counter is given up for the run, and the GPU's power is read closely instead."""

MAX_WATTS_OVER_LIMIT = 2.0
"""A GPU's mean power over an interval stays near its enforced limit; twice that is beyond doubt a wrong counter."""

MIG_WHOLE_NOTE = "MIG slice: NVML has no energy per slice, so the whole GPU is charged"
MIG_SHARE_NOTE = "MIG slice: charged with its share of the GPU's compute slices, {share:.3g}"


class Nvml:
    """The job's NVIDIA GPUs.

    `lib` is the module `pynvml` or anything with its functions. A GPU whose energy counter answers twice at opening is a
    counter device; the others are read for power every `power_interval`.
    """

    def __init__(self, lib: Any, context: ReaderContext) -> None:
        """Raises Unavailable without a driver or GPU, ConfigError for a `gpu_ids` that is not here."""
        self._lib = lib
        self._now = context.now
        try:
            lib.nvmlInit()
        except lib.NVMLError as error:
            raise Unavailable(f"no NVIDIA driver: {error}") from error
        try:
            handles, gpus = self._list_gpus()
            choice = choose(
                gpus,
                gpu_ids=context.gpu_ids,
                visible=context.cuda_visible_devices,
                order=context.cuda_device_order,
            )
            silent = [one.gpu.uuid for one in choice.gpus if one.gpu.uuid not in handles]
            self.warnings = (*choice.warnings, *(f"{gpu} does not answer and is not measured." for gpu in silent))
            self._gpus = [self._open(handles[one.gpu.uuid], one, context) for one in choice.gpus if one.gpu.uuid in handles]
        except ConfigError:
            self.close()
            raise
        except lib.NVMLError as error:
            self.close()
            raise Unavailable(f"the NVIDIA driver does not answer: {error}") from error
        self.devices = tuple(gpu.device for gpu in self._gpus)

    @classmethod
    def open(cls, context: ReaderContext) -> "Nvml":
        """Raises Unavailable where there is no NVIDIA driver or no GPU of the job's."""
        import pynvml  # noqa: PLC0415 - 25 ms that a machine without a GPU should not pay

        if not context.use_gpus:
            raise Unavailable("the Trainer runs on the CPU, so this machine's GPUs are not the job's; `gpu_ids` counts them")
        return cls(pynvml, context)

    @property
    def power_only(self) -> bool:
        """Whether the energy counter of any GPU does not answer."""
        return not all(gpu.has_counter for gpu in self._gpus)

    def read(self) -> Sample:
        """Energy, power and telemetry of every GPU."""
        readings: list[Reading] = []
        telemetry: list[Telemetry] = []
        failures: list[Failure] = []
        for gpu in self._gpus:
            try:
                gpu.read(self._now, readings, telemetry, failures)
            except self._lib.NVMLError as error:
                failures.append(self._failure(gpu, error))
        return Sample(tuple(readings), tuple(telemetry), tuple(failures))

    def read_power(self) -> Sample:
        """Power of those GPUs whose energy counter does not answer."""
        readings: list[Reading] = []
        failures: list[Failure] = []
        for gpu in self._gpus:
            if not gpu.has_counter:
                try:
                    gpu.read_power(self._now, readings, failures)
                except self._lib.NVMLError as error:
                    failures.append(self._failure(gpu, error))
        return Sample(tuple(readings), (), tuple(failures))

    def close(self) -> None:
        """NVML counts its users, so others in this process keep theirs."""
        try:
            self._lib.nvmlShutdown()
        except self._lib.NVMLError:
            return  # The driver is gone, and with it what there was to give back.

    def _list_gpus(self) -> tuple[dict[str, Any], list[Gpu]]:
        """All GPUs in NVML's order, which is PCI order. One that does not answer keeps its number but cannot be chosen."""
        lib = self._lib
        handles: dict[str, Any] = {}
        gpus: list[Gpu] = []
        for index in range(lib.nvmlDeviceGetCount()):
            try:
                handle = lib.nvmlDeviceGetHandleByIndex(index)
                uuid = _text(lib.nvmlDeviceGetUUID(handle))
            except lib.NVMLError:
                gpus.append(Gpu(index, f"unreadable GPU {index}"))
                continue
            handles[uuid] = handle
            gpus.append(Gpu(index, uuid, self._speed(handle), self._slices(handle)))
        return handles, gpus

    def _speed(self, handle: Any) -> float:
        lib = self._lib
        try:
            cores = lib.nvmlDeviceGetNumGpuCores(handle)
            return float(cores * lib.nvmlDeviceGetMaxClockInfo(handle, lib.NVML_CLOCK_SM))
        except lib.NVMLError:
            return 0.0

    def _slices(self, handle: Any) -> tuple[MigSlice, ...]:
        lib = self._lib
        try:
            if lib.nvmlDeviceGetMigMode(handle)[0] != lib.NVML_DEVICE_MIG_ENABLE:
                return ()
            most = lib.nvmlDeviceGetMaxMigDeviceCount(handle)
        except lib.NVMLError:
            return ()
        slices = []
        for number in range(most):
            try:
                mig = lib.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
                share = lib.nvmlDeviceGetAttributes_v2(mig).computeInstanceSliceCount / most
                path = f"{lib.nvmlDeviceGetGpuInstanceId(mig)}/{lib.nvmlDeviceGetComputeInstanceId(mig)}"
                slices.append(MigSlice(_text(lib.nvmlDeviceGetUUID(mig)), share, path))
            except lib.NVMLError:
                continue  # The numbers of a GPU's MIG devices have holes.
        return tuple(slices)

    def _open(self, handle: Any, chosen: Chosen, context: ReaderContext) -> "_OpenGpu":
        lib = self._lib
        share, note = 1.0, ""
        if chosen.is_slice:
            share = chosen.share if context.mig_attribution == "share" else 1.0
            note = MIG_SHARE_NOTE.format(share=share) if context.mig_attribution == "share" else MIG_WHOLE_NOTE
        limit = self._optional(lib.nvmlDeviceGetEnforcedPowerLimit, handle)
        has_counter = all(self._optional(lib.nvmlDeviceGetTotalEnergyConsumption, handle) is not None for _probe in range(2))
        device = Device(
            host=context.host,
            uuid=chosen.gpu.uuid,
            component="gpu",
            basis="measured",
            source="NVML energy counter" if has_counter else "NVML power, integrated",
            index=str(chosen.gpu.index),
            model=_text(self._optional(lib.nvmlDeviceGetName, handle) or "NVIDIA GPU"),
            note=note,
            **({"max_watts": limit / 1000 * MAX_WATTS_OVER_LIMIT} if limit else {}),
        )
        return _OpenGpu(lib, handle, device, has_counter, share, limit / 1000 if limit else None)

    def _optional(self, function: Callable[[Any], Any], handle: Any) -> Any:
        try:
            return function(handle)
        except self._lib.NVMLError:
            return None

    def _failure(self, gpu: "_OpenGpu", error: Any) -> Failure:
        return Failure(
            "device_lost" if error.value in _lost_codes(self._lib) else "driver_error",
            f"nvml {error.value} {gpu.device.id}",
            f"GPU {gpu.device.index} ({gpu.device.model}) does not answer: {error}. Its energy is missing from now on "
            f"until it answers again; hf_training_observed_ratio says how much is missing. Look at `nvidia-smi` and `dmesg`.",
        )


class _Feature(NamedTuple):
    """One optional value of a GPU: how to ask for it, and how it becomes fields of Telemetry."""

    ask: Callable[[Any], Any]
    fields: Callable[[Any], dict[str, float]]


class _OpenGpu:
    """One GPU, and which questions it answers. A question that it does not support is not asked again."""

    def __init__(self, lib: Any, handle: Any, device: Device, has_counter: bool, share: float, limit_watts: float | None) -> None:
        self._lib = lib
        self._handle = handle
        self.device = device
        self.has_counter = has_counter
        self._share = share
        self._limit_watts = limit_watts
        self._counter_failures = 0
        self._features = [
            _Feature(lib.nvmlDeviceGetUtilizationRates, lambda rates: {"utilization_percent": float(rates.gpu)}),
            _Feature(
                lib.nvmlDeviceGetMemoryInfo,
                lambda memory: {"memory_used_bytes": float(memory.used), "memory_total_bytes": float(memory.total)},
            ),
            _Feature(
                lambda gpu: lib.nvmlDeviceGetTemperature(gpu, lib.NVML_TEMPERATURE_GPU),
                lambda degrees: {"temperature_celsius": float(degrees)},
            ),
        ]

    def read(
        self,
        now: Callable[[], float],
        readings: list[Reading],
        telemetry: list[Telemetry],
        failures: list[Failure],
    ) -> None:
        """Energy and power first, as near to the asked-for instant as can be. Raises NVMLError when the GPU is gone."""
        if self.has_counter:
            self._read_counter(now, readings, failures)
        self.read_power(now, readings, failures)
        values: dict[str, float] = {}
        for feature in tuple(self._features):
            try:
                values.update(feature.fields(feature.ask(self._handle)))
            except self._lib.NVMLError as error:
                if error.value in _lost_codes(self._lib):
                    raise
                if error.value == self._lib.NVML_ERROR_NOT_SUPPORTED:
                    self._features.remove(feature)
                else:
                    what = f"GPU {self.device.index}: a sensor does not answer ({error}); energy is not touched by it."
                    failures.append(Failure("driver_error", f"nvml sensor {error.value} {self.device.id}", what))
        telemetry.append(Telemetry(self.device, now(), power_limit_watts=self._limit_watts, **values))

    def _read_counter(self, now: Callable[[], float], readings: list[Reading], failures: list[Failure]) -> None:
        """A counter that fails by itself must not take power with it: the integrator falls back on power."""
        try:
            millijoules, at = self._timed(self._lib.nvmlDeviceGetTotalEnergyConsumption, now, failures)
        except self._lib.NVMLError as error:
            if error.value in _lost_codes(self._lib):
                raise
            self._counter_failures += 1
            self.has_counter = self._counter_failures < COUNTER_FAILURES
            what = f"GPU {self.device.index}: the energy counter does not answer ({error}); its power readings are used instead."
            failures.append(Failure("driver_error", f"nvml counter {error.value} {self.device.id}", what))
            return
        self._counter_failures = 0
        readings.append(CounterReading(self.device, at, millijoules / 1000 * self._share))

    def read_power(self, now: Callable[[], float], readings: list[Reading], failures: list[Failure]) -> None:
        """Raises NVMLError when the GPU does not answer."""
        try:
            milliwatts, at = self._timed(self._lib.nvmlDeviceGetPowerUsage, now, failures)
        except self._lib.NVMLError as error:
            if self.has_counter and error.value == self._lib.NVML_ERROR_NOT_SUPPORTED:
                return  # A counter alone is enough.
            raise
        readings.append(PowerReading(self.device, at, milliwatts / 1000 * self._share))

    def _timed(self, ask: Callable[[Any], int], now: Callable[[], float], failures: list[Failure]) -> tuple[int, float]:
        """The answer and the middle of the call, which is off by half the call's duration at most."""
        before = now()
        answer = ask(self._handle)
        after = now()
        if after - before > SLOW_CALL_SECONDS:
            failures.append(
                Failure(
                    "slow_read",
                    f"nvml slow {self.device.id}",
                    f"GPU {self.device.index}: the driver took {after - before:.1f} s to answer. Training is not held up, but "
                    "figures come late; `nvidia-smi -pm 1` (persistence mode) often cures this.",
                )
            )
        return answer, (before + after) / 2


def _lost_codes(lib: Any) -> set[int]:
    return {lib.NVML_ERROR_GPU_IS_LOST, lib.NVML_ERROR_RESET_REQUIRED, lib.NVML_ERROR_UNINITIALIZED}


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
