"""Orders as text, small enough to follow with a finger in the paper's figure or rule.

Torch's own orders are goldens of their own (``tests/schedules/goldens``); what torch has is here once, at one size.
"""

from typing import NamedTuple

import pytest

from dualpipe_sim import build, format_order, parse_order
from dualpipe_sim.order.ops import B, F, I, Pair, W


class Golden(NamedTuple):
    name: str
    ranks: int
    micro_batches: int
    text: str
    options: dict[str, object] = {}  # noqa: RUF012 - never changed


GOLDENS = [
    # GPipe, figure 2c: all forwards, all backwards
    Golden("gpipe", 2, 3, "0F0,0F1,0F2,0B0,0B1,0B2\n1F0,1F1,1F2,1B0,1B1,1B2\n"),
    # Narayanan et al., figure 4 (top): 4 devices, 8 micro-batches
    Golden(
        "1f1b",
        4,
        8,
        "0F0,0F1,0F2,0F3,0B0,0F4,0B1,0F5,0B2,0F6,0B3,0F7,0B4,0B5,0B6,0B7\n"
        "1F0,1F1,1F2,1B0,1F3,1B1,1F4,1B2,1F5,1B3,1F6,1B4,1F7,1B5,1B6,1B7\n"
        "2F0,2F1,2B0,2F2,2B1,2F3,2B2,2F4,2B3,2F5,2B4,2F6,2B5,2F7,2B6,2B7\n"
        "3F0,3B0,3F1,3B1,3F2,3B2,3F3,3B3,3F4,3B4,3F5,3B5,3F6,3B6,3F7,3B7\n",
    ),
    # MICLAB-BUPT/STP, steps 1 to 9 of rank 0 and of rank 1 (https://arxiv.org/abs/2510.27257)
    Golden(
        "stp",
        2,
        5,
        "0F0,0F1,0F2,3F0,0F3,(3F1;3I0)OVERLAP_F_I,(0F4;3W0)OVERLAP_F_W,(3F2;3B1)OVERLAP_F_B,0B0,(3F3;3I2)OVERLAP_F_I,"
        "0B1,(3F4;3I3)OVERLAP_F_I,0B2,3B4,0B3,3W2,3W3,0B4\n"
        "1F0,2F0,1F1,2F1,(1F2;1F3)OVERLAP_F_F,(2F2;2B0)OVERLAP_F_B,(1F4;1B0)OVERLAP_F_B,(2F3;2I1)OVERLAP_F_I,"
        "1B1,(2F4;2I2)OVERLAP_F_I,1B2,2B3,1B3,2B4,1B4,2W1,2W2\n",
    ),
    # Yeung et al. (https://arxiv.org/abs/2411.05288), algorithm 2: a forward, a backward and a step in turn
    Golden(
        "vocab-1f1b",
        2,
        3,
        "0F0,0F1,0S0,0F2,0T0,0S1,0B0,0T1,0S2,0B1,0B2,0T2\n1F0,1S0,1F1,1B0,1T0,1S1,1F2,1B1,1T1,1S2,1B2,1T2\n",
    ),
    # the same with algorithm 1: a step more before the first backward
    Golden(
        "vocab-1f1b",
        2,
        4,
        "0F0,0F1,0S0,0F2,0T0,0S1,0F3,0T1,0S2,0B0,0T2,0S3,0B1,0T3,0B2,0B3\n"
        "1F0,1S0,1F1,1T0,1S1,1F2,1B0,1T1,1S2,1F3,1B1,1T2,1S3,1B2,1T3,1B3\n",
        {"barriers": 2},
    ),
    # V-Half's slots at 2 ranks (F 0 4, I 8 13 and F 2 3, I 10 12), I a period later, a step behind slot 5
    Golden(
        "vocab-v-half",
        2,
        2,
        "0F0,3F0,0S0,0F1,3F1,0T0,0S1,3I0,3W0,0T1,0I0,3I1,3W1,0W0,0I1,0W1\n"
        "1F0,2F0,1S0,1F1,2F1,1T0,1S1,2I0,2W0,1T1,1I0,1W0,2I1,2W1,1I1,1W1\n",
    ),
    # the interlaced pipeline: 3 and 2 forwards, as many passes of both ranks as ranks from there on, then in turn
    Golden("interlaced", 2, 3, "0F0,0F1,0F2,0S0,0S1,0B0,0S2,0B1,0B2\n1F0,1F1,1S0,1B0,1S1,1B1,1F2,1S2,1B2\n"),
    # the same, bottom, on 2 devices: warm-up 2(P-r-1)+(v-1)P = 4 and 2
    Golden(
        "interleaved-1f1b",
        2,
        4,
        "0F0,0F1,2F0,2F1,0F2,2B0,0F3,2B1,2F2,0B0,2F3,0B1,2B2,2B3,0B2,0B3\n"
        "1F0,1F1,3F0,3B0,3F1,3B1,1F2,1B0,1F3,1B1,3F2,3B2,3F3,3B3,1B2,1B3\n",
    ),
    # Mario: 1F1B with R before B but on the last rank, and one forward more ahead, as 3 may be in flight on rank 0
    Golden(
        "mario",
        2,
        4,
        "0F0,0F1,0F2,0R0,0B0,0F3,0R1,0B1,0R2,0B2,0R3,0B3\n1F0,1B0,1F1,1B1,1F2,1B2,1F3,1B3\n",
        {"limit": 3},
    ),
    # Seq1F1B on two stages a rank: warm-up 2(P-r-1)+(v-1)P+k-1 = 5 and 3 slices
    Golden(
        "seq1f1b",
        2,
        2,
        "0F0.0,0F0.1,2F0.0,2F0.1,0F1.0,0F1.1,2B0.1,2F1.0,"
        "2B0.0,2F1.1,0B0.1,0B0.0,2B1.1,2B1.0,0B1.1,0B1.0\n"
        "1F0.0,1F0.1,3F0.0,3F0.1,3B0.1,1F1.0,3B0.0,1F1.1,"
        "1B0.1,3F1.0,1B0.0,3F1.1,3B1.1,3B1.0,1B1.1,1B1.0\n",
        {"slices": 2, "stages_per_rank": 2},
    ),
    # PipeOffload: warm-up d(v-1)+d-i = 4 and 3 forwards, of which the last before the first backward; W at once
    Golden(
        "gis",
        2,
        4,
        "0F0,0F1,2F0,2F1,2I0,2W0,0F2,2I1,2W1,0F3,0I0,0W0,2F2,0I1,0W1,2F3,2I2,2W2,2I3,2W3,0I2,0W2,0I3,0W3\n"
        "1F0,1F1,3F0,3I0,3W0,3F1,3I1,3W1,1F2,1I0,1W0,1F3,1I1,1W1,3F2,3I2,3W2,3F3,3I3,3W3,1I2,1W2,1I3,1W3\n",
    ),
    # the same in groups of half the ranks: g(v-1)+d-i = 3 and 2
    Golden(
        "gis-h",
        2,
        4,
        "0F0,2F0,0F1,2I0,2W0,2F1,0I0,0W0,0F2,2I1,2W1,2F2,0I1,0W1,0F3,2I2,2W2,2F3,0I2,0W2,2I3,2W3,0I3,0W3\n"
        "1F0,3F0,3I0,3W0,1F1,1I0,1W0,3F1,3I1,3W1,1F2,1I1,1W1,3F2,3I2,3W2,1F3,1I2,1W2,3F3,3I3,3W3,1I3,1W3\n",
    ),
    # PipeOffload, the same with copies to the host: out behind the forward, back in the turn before the backward
    Golden(
        "po-h",
        4,
        4,
        "0F0,0O0,0F1,0O1,4F0,4F1,0F2,0O2,0F3,0O3,4I0,4W0,4F2,0L0,4I1,4W1,"
        "4F3,0L1,0I0,0W0,0I1,0W1,4I2,4W2,0L2,4I3,4W3,0L3,0I2,0W2,0I3,0W3\n"
        "1F0,1O0,1F1,1O1,5F0,5F1,1F2,1O2,5I0,5W0,1F3,1O3,1L0,5I1,5W1,5F2,"
        "1L1,1I0,1W0,5F3,1I1,1W1,5I2,5W2,1L2,5I3,5W3,1L3,1I2,1W2,1I3,1W3\n"
        "2F0,2O0,2F1,2O1,6F0,6F1,6I0,6W0,2F2,2O2,2L0,6I1,6W1,2F3,2O3,2L1,"
        "2I0,2W0,6F2,2I1,2W1,6F3,6I2,6W2,2L2,6I3,6W3,2L3,2I2,2W2,2I3,2W3\n"
        "3F0,3O0,3F1,3O1,7F0,7I0,7W0,7F1,3L0,7I1,7W1,3F2,3O2,3L1,3I0,3W0,"
        "3F3,3O3,3I1,3W1,7F2,7I2,7W2,7F3,3L2,7I3,7W3,3L3,3I2,3W2,3I3,3W3\n",
    ),
    # all that lives longer than three turns: on one stage a rank, what ranks 0 and 1 hold
    Golden(
        "po-f",
        6,
        4,
        "0F0,0O0,0F1,0O1,0F2,0O2,0F3,0O3,0L0,0L1,0I0,0W0,0L2,0I1,0W1,0L3,0I2,0W2,0I3,0W3\n"
        "1F0,1O0,1F1,1O1,1F2,1O2,1F3,1O3,1L0,1L1,1I0,1W0,1L2,1I1,1W1,1L3,1I2,1W2,1I3,1W3\n"
        "2F0,2F1,2F2,2F3,2I0,2W0,2I1,2W1,2I2,2W2,2I3,2W3\n"
        "3F0,3F1,3F2,3I0,3W0,3F3,3I1,3W1,3I2,3W2,3I3,3W3\n"
        "4F0,4F1,4I0,4W0,4F2,4I1,4W1,4F3,4I2,4W2,4I3,4W3\n"
        "5F0,5I0,5W0,5F1,5I1,5W1,5F2,5I2,5W2,5F3,5I3,5W3\n",
        {"stages_per_rank": 1},
    ),
    # Looped BFS: every stage takes all micro-batches; backwards in reverse
    Golden("looped-bfs", 2, 2, "0F0,0F1,2F0,2F1,2B1,2B0,0B1,0B0\n1F0,1F1,3F0,3F1,3B1,3B0,1B1,1B0\n"),
    # Zero Bubble, figure 3: warm-up P-1-r, W from backward r on
    Golden(
        "zb-h1",
        3,
        4,
        "0F0,0F1,0F2,0I0,0W0,0F3,0I1,0W1,0I2,0W2,0I3,0W3\n"
        "1F0,1F1,1I0,1F2,1I1,1W0,1F3,1I2,1W1,1I3,1W2,1W3\n"
        "2F0,2I0,2F1,2I1,2F2,2I2,2W0,2F3,2I3,2W1,2W2,2W3\n",
    ),
    # twice the warm-up, twice as many W put off
    Golden(
        "zb-h2",
        2,
        4,
        "0F0,0F1,0F2,0I0,0W0,0F3,0I1,0W1,0I2,0W2,0I3,0W3\n1F0,1I0,1F1,1I1,1F2,1I2,1W0,1F3,1I3,1W1,1W2,1W3\n",
    ),
    # warm-up P-1-r+(v-1)P = 3 and 2; rank 1 puts off one W
    Golden(
        "interleaved-zb",
        2,
        2,
        "0F0,0F1,2F0,2F1,2I0,2W0,2I1,2W1,0I0,0W0,0I1,0W1\n1F0,1F1,3F0,3I0,3F1,3I1,3W0,1I0,3W1,1I1,1W0,1W1\n",
    ),
    # ZB-V, section 6, M = 2P: F a 2(P-r)-1 times, r times (F b, F a), P-r times (F I W of b), …
    Golden(
        "zb-v",
        2,
        4,
        "0F0,0F1,0F2,3F0,3I0,3W0,3F1,3I1,3W1,0F3,0I0,0W0,3F2,3I2,3W2,0I1,0W1,3F3,3I3,3W3,0I2,0W2,0I3,0W3\n"
        "1F0,2F0,1F1,2F1,2I0,2W0,1F2,1I0,1W0,2F2,2I1,2W1,1F3,1I1,1W1,2F3,2I2,2W2,1I2,2I3,1I3,1W2,2W3,1W3\n",
    ),
    # Chimera, figure 3: D = N = 4, micro-batches 0 and 1 of either direction
    Golden(
        "chimera",
        4,
        4,
        "0F0,0F1,7F0,7B0,7F1,7B1,0B0,0B1\n"
        "1F0,6F0,1F1,6F1,6B0,1B0,6B1,1B1\n"
        "5F0,2F0,5F1,2F1,2B0,5B0,2B1,5B1\n"
        "4F0,4F1,3F0,3B0,3F1,3B1,4B0,4B1\n",
    ),
    # figure 7, forward doubling, D = 2: two forwards to a slot, then the backwards one by one, in either direction
    Golden(
        "chimera",
        2,
        4,
        "0F0,0F1,3F0,3F1,3B0,0B0,3B1,0B1\n2F0,2F1,1F0,1F1,1B0,2B0,1B1,2B1\n",
        {"concatenation": "forward-doubling"},
    ),
    # four pipes on 4 ranks (figure 8's scheme): one micro-batch each; the second pair starts two ranks on
    Golden(
        "chimera",
        4,
        4,
        "0F0,13F0,10F0,7F0,7B0,10B0,13B0,0B0\n"
        "12F0,1F0,6F0,11F0,11B0,6B0,1B0,12B0\n"
        "8F0,5F0,2F0,15F0,15B0,2B0,5B0,8B0\n"
        "4F0,9F0,14F0,3F0,3B0,14B0,9B0,4B0\n",
        {"pairs": 2},
    ),
    # the eight steps by hand, P = 4, M = 8
    Golden(
        "dualpipe",
        4,
        8,
        "0F0,0F1,0F2,7F0,7I0,7W0,7F1,(0F3;7B1)OVERLAP_F_B,(7F2;0B0)OVERLAP_F_B,7B2,(7F3;0B1)OVERLAP_F_B,"
        "7B3,0I2,0W2,0I3,0W3\n"
        "1F0,6F0,1F1,6F1,1F2,6B0,(6F2;1B0)OVERLAP_F_B,(1F3;6B1)OVERLAP_F_B,(6F3;1B1)OVERLAP_F_B,"
        "6B2,1B2,6I3,1I3,6W3,1W3\n"
        "5F0,2F0,5F1,2F1,5F2,2B0,(2F2;5B0)OVERLAP_F_B,(5F3;2B1)OVERLAP_F_B,(2F3;5B1)OVERLAP_F_B,"
        "2B2,5B2,2I3,5I3,2W3,5W3\n"
        "4F0,4F1,4F2,3F0,3I0,3W0,3F1,(4F3;3B1)OVERLAP_F_B,(3F2;4B0)OVERLAP_F_B,3B2,(3F3;4B1)OVERLAP_F_B,"
        "3B3,4I2,4W2,4I3,4W3\n",
    ),
    # its first half, folded: pipe 1's stages come after pipe 0's
    Golden(
        "dualpipev",
        2,
        4,
        "0F0,0F1,0F2,3F0,3I0,3W0,3F1,(0F3;3B1)OVERLAP_F_B,(3F2;0B0)OVERLAP_F_B,3B2,(3F3;0B1)OVERLAP_F_B,"
        "3B3,0I2,0W2,0I3,0W3\n"
        "1F0,2F0,1F1,2F1,1F2,2B0,(2F2;1B0)OVERLAP_F_B,(1F3;2B1)OVERLAP_F_B,(2F3;1B1)OVERLAP_F_B,"
        "2B2,1B2,2I3,1I3,2W3,1W3\n",
    ),
    # greedy by hand, F one slot and B two: 0F0 at 0, 1F0 at 1, 2F0 at 2, 3F0 at 3, 3B0 at 4, …
    Golden(
        "hanayo",
        2,
        2,
        "0F0,0F1,3F0,3B0,3F1,3B1,0B0,0B1\n1F0,2F0,1F1,2F1,2B0,1B0,2B1,1B1\n",
        {"waves": 1},
    ),
    # 1F1B with warm-up 2(P-1-r)+1 = 3 and 1
    Golden(
        "1f1b-overlap",
        2,
        4,
        "0F0,0F1,0F2,(0F3;0B0)OVERLAP_F_B,0B1,0B2,0B3\n"
        "1F0,(1F1;1B0)OVERLAP_F_B,(1F2;1B1)OVERLAP_F_B,(1F3;1B2)OVERLAP_F_B,1B3\n",
    ),
    # interleaved 1F1B with one warm-up forward more: 5 and 3
    Golden(
        "interleaved-1f1b-overlap",
        2,
        4,
        "0F0,0F1,2F0,2F1,0F2,(0F3;2B0)OVERLAP_F_B,(2F2;2B1)OVERLAP_F_B,(2F3;0B0)OVERLAP_F_B,0B1,2B2,2B3,0B2,0B3\n"
        "1F0,1F1,3F0,(3F1;3B0)OVERLAP_F_B,(1F2;3B1)OVERLAP_F_B,(1F3;1B0)OVERLAP_F_B,(3F2;1B1)OVERLAP_F_B,"
        "(3F3;3B2)OVERLAP_F_B,3B3,1B2,1B3\n",
    ),
]


@pytest.mark.parametrize(
    "golden", GOLDENS, ids=lambda golden: "-".join(map(str, (*golden[:3], *golden.options.values())))
)
def test_order_as_text(golden: Golden) -> None:
    schedule = build(golden.name, golden.ranks, golden.micro_batches, **golden.options)
    assert format_order(schedule) == golden.text
    assert parse_order(golden.text, schedule.placement) == schedule


def test_backward_halving_is_the_order_of_forward_doubling() -> None:
    halving = build("chimera", 4, 8, concatenation="backward-halving")
    assert halving == build("chimera", 4, 16, concatenation="forward-doubling")
    assert (halving.micro_batches, halving.micro_batch_share) == (16, 0.5)
    assert halving.size == "4 ranks × 16 half micro-batches"


@pytest.mark.parametrize("ranks", [2, 4, 6, 8, 16])
@pytest.mark.parametrize("more", [0, 2, 10])
def test_dualpipe_has_as_many_ops_of_each_kind_as_the_released_code(ranks: int, more: int) -> None:
    # from the eight steps' counts, by rank
    M, h = 2 * ranks + more, ranks // 2
    schedule = build("dualpipe", ranks, M)
    for rank, row in enumerate(schedule.order):
        q = min(rank, ranks - 1 - rank)
        middle = int(q == h - 1)
        pairs = sum(isinstance(task, Pair) for task in row)
        alone = [task.kind for task in row if not isinstance(task, Pair)]
        assert alone.count(F) == 3 * h - q - 1 + middle
        assert pairs == M - (3 * h - q - 1) - middle
        assert alone.count(B) == h + middle
        assert alone.count(I) == alone.count(W) == 2 * h - q - 1
