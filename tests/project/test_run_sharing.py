"""The script that measures how all-to-alls and compute share GPUs runs to its end, here on gloo.

Only where torch is installed; `make test-all` installs it into an environment of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch.distributed", reason="torch is not installed; make test-all runs this")

SCRIPT = Path(__file__).parents[2] / "validation" / "run_sharing.py"

pytestmark = pytest.mark.slow


def test_every_phase_of_a_pair_runs_behind_what_it_needs(tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", SCRIPT]
    done = subprocess.run(
        [*map(str, launch), "-o", str(tmp_path), "--repeats", "2"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "sharing.json").read_text())
    assert [len(one["s"]) for one in found["alltoall"]] == [2, 2]
    assert {"gemm_alone_s", "gemm_beside", "alltoall_alone_s", "alltoall_beside"} <= set(found["beside"][0])
    for phases in found["pairs"][0]["phases"]:
        start = {name: start_s for name, start_s, _ in phases}
        end = {name: end_s for name, _, end_s in phases}
        assert len(phases) == len(end) == 10
        needs = {"dispatch F": "attn F", "mlp F": "dispatch F", "mlp I": "combine I", "attn I": "dispatch I"}
        assert all(start[name] >= end[needed] for name, needed in needs.items())
