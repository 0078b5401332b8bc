"""Tables of kernels as aiconfigurator keeps them, taken over by ``import``."""

from __future__ import annotations

from pathlib import Path

import pytest

from dualpipe_sim.errors import UserError
from dualpipe_sim.hardware.kernels import Kernels, read_collectives
from dualpipe_sim.importers.kernel_tables import is_kernel_table, read_kernel_table
from tests.conftest import CommandLine

GEMM = """\
framework,version,device,op_name,kernel_source,gemm_dtype,m,n,k,latency
TRTLLM,1.2,NVIDIA B200,gemm,torch_flow,bfloat16,4096,4096,8192,0.2
TRTLLM,1.2,NVIDIA B200,gemm,torch_flow,fp8,4096,4096,8192,0.1
TRTLLM,1.2,NVIDIA B200,gemm,torch_flow,int4_wo,4096,4096,8192,0.1
"""
NCCL = """\
framework,version,device,op_name,kernel_source,nccl_dtype,num_gpus,message_size,latency
TRTLLM,1.2,NVIDIA B200,all_gather,NCCL,half,2,1048576,0.03
TRTLLM,1.2,NVIDIA B200,all_reduce,NCCL,half,2,1048576,0.04
TRTLLM,1.2,NVIDIA B200,all_gather,NCCL,int8,2,1048576,0.02
"""


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_latencies_become_rates_of_what_training_uses(command_line: CommandLine, tmp_path: Path) -> None:
    """2 x 4096 x 4096 x 8192 FLOPs in 0.2 ms are 1374 TFLOP/s; weights in four bits are of inference alone."""
    done = command_line("import", written(tmp_path, "gemm_perf.txt", GEMM), "-o", tmp_path / "own.csv")
    assert "2 shapes of GEMMs in bf16, fp8" in done.stdout
    kernels = Kernels(gemm=str(tmp_path / "own.csv"), gemm_pace=0.5)
    assert kernels.gemm_flops_per_s("bf16", "F", 4096, 4096, 8192) == pytest.approx(0.5 * 1.37e15)
    # its one layout stands for the others: a gradient of the weight has tokens inside
    assert kernels.gemm_flops_per_s("fp8", "W", 8192, 4096, 4096) == pytest.approx(0.5 * 2.75e15)


def test_collectives_are_of_two_bytes_an_element(tmp_path: Path) -> None:
    own = written(tmp_path, "own.csv", read_kernel_table(written(tmp_path, "nccl_perf.txt", NCCL)))
    assert read_collectives(str(own)).at((2, 2 * 2**20)) == pytest.approx(30)


@pytest.mark.parametrize(
    ("text", "said"),
    [(GEMM.replace(",0.2", ",quick"), "a row has no numbers"), (GEMM.replace(",0.2", ",0"), "a row has no numbers"),
     ("a,b\n1,2\n", "must have the columns")],
)  # fmt: skip
def test_what_is_no_such_table_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, "gemm_perf.txt", text)
    assert is_kernel_table(text) == text.startswith("framework")
    with pytest.raises(UserError, match=said):
        read_kernel_table(path)
