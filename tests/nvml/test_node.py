"""A node's GPUs by the real binding: all of them, and a run on a slice of one claims that one."""

import math
from pathlib import Path

from hf_eco2ai.devices.nvml import Nvml
from hf_eco2ai.energy.share import Claim
from hf_eco2ai.kept import Kept
from hf_eco2ai.node import Node
from hf_eco2ai.records import Failure
from hf_eco2ai.wiring import node_context
from tests.nvml.standin import Gpu, Slice, Standin, context
from tests.nvml.traces import Constant

SECONDS = 20.0


def test_a_run_on_a_mig_slice_claims_the_whole_gpu_and_its_neighbour_stays_unattributed(standin: Standin, tmp_path: Path) -> None:
    slices = (Slice("MIG-aaaaaaaa-1", 3, 1), Slice("MIG-bbbbbbbb-2", 2, 2))
    standin.configure(Gpu(Constant(700.0), slices=slices), Gpu(Constant(75.0)), call_seconds=0.0)
    run = Nvml(standin.pynvml, context(standin, cuda_visible_devices="MIG-bbbbbbbb-2", mig_attribution="share"))
    failures: list[Failure] = []
    kept = Kept(tmp_path / "state.json", failures.append)
    node = Node(
        open_readers=lambda: [Nvml(standin.pynvml, node_context("h", now=standin.now))],
        claims=lambda: [Claim(device.claim, 0.0, math.inf) for device in run.devices],
        kept=kept,
        host="h",
        fail=failures.append,
        now=standin.now,
    )
    node.open()
    while node.next_due() <= SECONDS:
        standin.advance_to(node.next_due())
        node.step()
    node.close()
    run.close()
    kept.close()
    assert failures == []
    assert node.snapshot is not None
    assert node.snapshot.gpu_count == 2
    figures = [(round(one.joules, 3), round(one.unattributed_joules, 3), one.watts) for one in node.snapshot.devices]
    assert figures == [(14000.0, 0.0, 700.0), (1500.0, 1500.0, 75.0)]
