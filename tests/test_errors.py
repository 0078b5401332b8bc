"""Hints: near in letters and in meaning, or none."""

from __future__ import annotations

import re

import pytest

from dualpipe_sim import ScheduleError, build
from dualpipe_sim.errors import did_you_mean

ATTENTION = ["heads", "qk_head", "v_head", "rope_head", "q_lora", "kv_lora", "stored_scores"]


@pytest.mark.parametrize(
    ("word", "known", "meant"),
    [
        ("micro_batchs", ["ranks", "micro_batches"], "micro_batches"),
        ("microbatches", ["ranks", "micro_batches"], "micro_batches"),
        ("zbh1", ["zb-h1", "zb-h2"], "zb-h1"),
        ("1fb1", ["1f1b", "gpipe"], "1f1b"),
        ("interleaved", ["1f1b", "interleaved-1f1b"], "interleaved-1f1b"),
        ("DualPipe", ["dualpipe", "dualpipev"], "dualpipe"),
        ("tim", ["time", "launch"], "time"),
        ("v_heads", ATTENTION, "v_head"),
        ("stored_score", ATTENTION, "stored_scores"),
    ],
)
def test_a_slip_is_taken_for_what_was_meant(word: str, known: list[str], meant: str) -> None:
    assert did_you_mean(word, known) == f"; did you mean '{meant}'?"


@pytest.mark.parametrize("word", ["kv_heads", "kv_head", "k_head", "q_head", "num_kv_heads", "o_lora", "qk_norm"])
def test_another_thing_with_nearly_the_same_letters_is_no_slip(word: str) -> None:
    # Obeying "kv_heads: did you mean 'v_head'?" gave another model, of 79.9 billion parameters instead of 70.6.
    assert not did_you_mean(word, ATTENTION)


def test_forward_is_not_backward() -> None:
    assert not did_you_mean("forwards_weight", ["backward_weight"])


# After NVIDIA/Megatron-LM#1829 (may a group be smaller than the ranks?) and NVIDIA-NeMo/Speech#14288


CIRCLE = "group 2 is less than 4 ranks, which would wait for each other in a circle"
RAGGED = "group 5 leaves a last group of 2, less than 4 ranks"


@pytest.mark.parametrize(
    ("ranks", "micro_batches", "group", "message"),
    [
        (4, 8, 2, f"{CIRCLE}; the nearest that work: group 4 or no group"),
        (6, 3, 6, "group 6 is more than 3 micro-batches; leave it out"),
        (4, 12, 5, f"{RAGGED}; the nearest that work: group 4 or group 6 or no group"),
    ],
)
@pytest.mark.parametrize("name", ["interleaved-1f1b", "interleaved-1f1b-overlap", "interleaved-zb"])
def test_an_option_that_is_wrong_is_named(name: str, ranks: int, micro_batches: int, group: int, message: str) -> None:
    with pytest.raises(ScheduleError, match=f"^{re.escape(f'{name}: {message}')}$"):
        build(name, ranks, micro_batches, group=group)
