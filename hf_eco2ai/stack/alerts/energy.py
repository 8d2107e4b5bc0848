"""Alerts on power, on what is got for it, and on energy budgets."""

from hf_eco2ai.stack.alerts import Alert
from hf_eco2ai.stack.alerts.shares import Kind
from hf_eco2ai.stack.alerts.texts import OF_WHAT, PERCENT, label, number
from hf_eco2ai.stack.promql import RUNNING, averaged, once, while_running, with_model
from hf_eco2ai.stack.thresholds import Thresholds


def alerts(t: Thresholds) -> tuple[Alert, ...]:
    """Those of the category energy."""
    return (_power(t), _idle(t), _regression(t), _low_efficiency(t), *_budget(t).alerts(t))


def _power(t: Thresholds) -> Alert:
    limit, window = t["high_power_watts"], t["high_power_for"]
    watts = averaged("hf_training_energy_rate_kwh_per_hour", window, "run_id", "host")
    return Alert(
        name="HighPowerDraw",
        severity="warning",
        expr=with_model(while_running(f"1000 * {watts} > {limit}")),
        summary=f"{OF_WHAT} draws {number('.0f')} W on {label('host')}",
        description=(
            f"Over the last {window} the devices of the run on {label('host')} drew {number('.0f')} W, more than {limit} W."
        ),
        action="Make sure that the circuit and the cooling bear it; a power limit (nvidia-smi -pl) costs little speed.",
        value=f"{number('.0f')} W",
        limit=f"{limit} W",
        dashboard="hf-operations",
    )


def _idle(t: Thresholds) -> Alert:
    """Of a GPU only its host is known. Where one run lives there it is the run's, else it is said without a run."""
    limit, window = t["gpu_idle_percent"], t["gpu_idle_for"]
    idle = f"{averaged('hf_training_gpu_utilization_percent', window, 'host', 'gpu_id')} < {limit}"
    here = f"({once('hf_training_gpu_count', 'host', 'run_id', pick='group')} and on (run_id) {RUNNING})"
    gpu = f"GPU {label('gpu_id')} of {label('host')}"
    alone = f"({here} and on (host) count by (host) {here} == 1)"
    return Alert(
        name="GpuIdleWhileRunning",
        severity="warning",
        expr=(
            f"{with_model(f'({idle}) * on (host) group_left (run_id) {alone}')}"
            f" or on (host, gpu_id) (({idle}) and on (host) {here})"
        ),
        summary=f"{gpu} idles while {{{{ if $labels.run_id }}}}run {label('run_id')}{{{{ else }}}}a run{{{{ end }}}} is on",
        description=(
            f"Over the last {window} {gpu} was busy {number('.0f')} % of the time, less than {limit} %, "
            "but it draws power and is paid for."
        ),
        action="Give the run only the GPUs that it uses (CUDA_VISIBLE_DEVICES), or see what it waits for: data, or other ranks.",
        value=f"{number('.0f')} % busy",
        limit=f"{limit} % busy",
        dashboard="hf-operations",
    )


def _regression(t: Thresholds) -> Alert:
    """Of the energy of training steps alone, or a long evaluation would look like one.

    Hosts are compared with themselves: one that is seen for the first time shows all that it has used so far, and so does a
    resumed run.
    """
    limit, window = t["efficiency_drop_ratio"], t["efficiency_window"]
    energy, samples = 'hf_training_phase_energy_joules_total{phase="train"}', "hf_training_samples_total"
    before = {
        "energy": once(f"{energy} offset {window}", "run_id", "host"),
        "samples": once(f"{samples} offset {window}", "run_id"),
    }
    lately = (
        f"({once(samples, 'run_id')} - {before['samples']})"
        f" / on (run_id) sum by (run_id) ({once(energy, 'run_id', 'host')} - {before['energy']})"
    )
    past = f"({before['samples']} / on (run_id) sum by (run_id) ({before['energy']}))"
    return Alert(
        name="EnergyEfficiencyRegression",
        severity="warning",
        expr=with_model(while_running(f"{lately} / on (run_id) {past} < {limit}")),
        summary=f"{OF_WHAT} trains {PERCENT} of the samples per kWh that it did",
        description=(
            f"In the last {window} its training steps got {PERCENT} of the samples from a kWh that they got before, "
            f"less than {limit} of it."
        ),
        action="Look for what changed: a hot GPU, a data loader that lags, longer sequences, a neighbour on the machine.",
        value=f"{PERCENT} of its own past",
        limit=f"{limit} of its own past",
        dashboard="hf-run-detail",
    )


def _low_efficiency(t: Thresholds) -> Alert:
    limit, hold = t["low_efficiency_score"], t["low_efficiency_for"]
    return Alert(
        name="LowEfficiency",
        severity="info",
        expr=with_model(while_running(f"{once('hf_training_efficiency_score', 'run_id')} < {limit}")),
        hold=hold,
        summary=f"{OF_WHAT} has an efficiency score of {number('.2f')}",
        description=(
            f"For {hold} its efficiency score, the share of its energy that training steps used times the mean use of its GPUs, "
            f"was below {limit}; it is {number('.2f')}."
        ),
        action="See which phase uses the energy and how busy the GPUs are; a larger batch or more loader workers often help.",
        value=f"score {number('.2f')}",
        limit=f"score {limit}",
        dashboard="hf-run-detail",
    )


def _budget(t: Thresholds) -> Kind:
    """Energy budgets are of device energy, without PUE, as `energy_kwh` is."""
    energy = f"last_over_time(hf_training_energy_kwh_total{{run_id=%q}}[{t['budget_kept_for']}])"
    return Kind(
        budget="energy",
        query=f"sum({once(energy, 'host')})",
        each='{{ . | value | printf "%.5g" }} kWh',
        dashboard="hf-executive-overview",
    )
