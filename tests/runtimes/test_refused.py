"""Orders with what no runtime's program has a text for: each refuses them, and so does a program of torch's order."""

import pytest

from dualpipe_sim import simulate
from dualpipe_sim.errors import ScheduleError

NO_TEXT = {
    "seq1f1b": "no text for slices",
    "interlaced": r"no text for barriers \(of S and T\)",
    "po-f": "no text for copies to the host",
}


@pytest.mark.parametrize("name", NO_TEXT)
@pytest.mark.parametrize("runtime", ["torch", "megatron", "deepseek"])
def test_no_runtimes_program_has_it(name: str, runtime: str) -> None:
    config: dict[str, object] = {"schedule": name, "costs": {"forward": 1, "backward": 2}}
    with pytest.raises(ScheduleError, match=f"runtime {runtime} has no schedule {name}"):
        simulate({**config, "pipeline": {"ranks": 4, "micro_batches": 4, "runtime": runtime}})
    with pytest.raises(ScheduleError, match=NO_TEXT[name]):
        simulate({**config, "pipeline": {"ranks": 4, "micro_batches": 4, "transfers": "rendezvous"}})
