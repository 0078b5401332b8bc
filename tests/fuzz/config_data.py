"""Configurations as data, packaged and drawn, with values in them that nobody expects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from copy import deepcopy
from functools import cache
from random import Random
from typing import TypeAlias, cast

import yaml

from dualpipe_sim.config.load import packaged_configs
from dualpipe_sim.config.presets import presets
from dualpipe_sim.config.yaml_text import Data, read_yaml
from dualpipe_sim.runtimes.registry import runtimes
from dualpipe_sim.schedules.registry import schedules
from tests.fuzz.damage import STRANGE

Path: TypeAlias = tuple[object, ...]

_NO_SEARCH = sorted(name for name, spec in schedules().items() if not spec.adapts_to_times)
_TIMES: tuple[object, ...] = (1, 1, 2.5, 2, "10 ms", "12 ms", "3 us", 0.5, 0, [1.0, 2.0, 1.5, 1.0])


@cache
def _packaged() -> list[Data]:
    return [read_yaml(path) for _, path in sorted(packaged_configs().items())]


def _schedule(chance: Random) -> object:
    name = chance.choice(_NO_SEARCH if chance.random() < 0.8 else sorted(schedules()))
    tries = schedules()[name].tries
    if not tries or chance.random() < 0.5:
        return name
    return {"name": name, **{option: chance.choice(list(values)) for option, values in tries.items()}}


def _uniform(chance: Random) -> Data:
    costs: Data = {"forward": chance.choice(_TIMES)}
    costs |= {key: chance.choice(_TIMES) for key in ("backward_input", "backward_weight")}
    for key in ("overlapped", "recompute", "vocab_s", "vocab_t", "offload", "all_reduce", "unshard", "reduce_grad"):
        if chance.random() < 0.1:
            costs[key] = chance.choice(_TIMES)
    costs["transfer"] = chance.choice((0, "1 ms", "33.6 MB", 0.5))
    return costs


def _profile(chance: Random) -> Data:
    layers = [{"forward": 1.0, "backward": 2.0, "count": chance.randint(8, 20)}, {"forward": "2 s", "backward": 4}]
    return {"kind": "profile", "layers": layers}


def _drawn(chance: Random) -> Data:
    """Return a configuration over all that there is to name."""
    data: Data = {
        "pipeline": {"ranks": chance.choice((1, 2, 4, 4, 8)), "micro_batches": chance.choice((1, 4, 8, 8, 16))},
        "schedule": _schedule(chance),
    }
    pipeline = cast("Data", data["pipeline"])
    if chance.random() < 0.2:
        pipeline["runtime"] = chance.choice(["ideal", *runtimes()])
    elif chance.random() < 0.1:
        pipeline["transfers"] = "rendezvous"
    if chance.random() < 0.2:
        data |= {
            "model": chance.choice(sorted(presets("model"))),
            "gpu": chance.choice(sorted(presets("gpu"))),
            "cluster": chance.choice(sorted(presets("cluster"))),
            "training": {"sequence_length": chance.choice((256, 512, 4096)), "micro_batch_size": chance.randint(1, 2)},
            "parallel": {key: chance.choice((1, 1, 1, 2)) for key in ("tensor", "context", "expert", "data")},
        }
        pipeline["layout"] = chance.choice(("even", "balanced"))
        if chance.random() < 0.3:
            data["overlap"] = {"communication_sms": 20, "sharing": chance.choice(("reserved", "on-demand", "none"))}
    else:
        data["costs"] = _profile(chance) if chance.random() < 0.2 else _uniform(chance)
    for key, section in _SECTIONS.items():
        if chance.random() < 0.15:
            data[key] = deepcopy(section)
    if chance.random() < 0.3:
        data["compare"] = [_schedule(chance) for _ in range(chance.randint(1, 3))]
    return data


_SECTIONS: Mapping[str, object] = {
    "cluster": {"gpus_per_node": 4, "nvlink": {"bandwidth": "160 GB/s", "latency": "3 us"}, "gpus_per_pod": 8},
    "noise": {"jitter": 0.1, "seed": 3, "runs": 3, "slow_ranks": {0: 1.5}},
    "scenarios": {"runs": 4, "seed": 1, "jitter": 0.1, "stragglers": 0.1, "slowdown": 0.3, "link_slowdown": 2},
    "contention": "fair",
    "engine": "simpy",
    "sweep": {"grid": {"pipeline.micro_batches": [8, 16], "pipeline.ranks": [2, 4]}},
    "search": {"stages_per_rank": 2, "rounds": 1, "moves": 20},
}


def _begun(chance: Random) -> Data:
    """Return a configuration that is right, or nearly; those of the package smaller than they come."""
    if chance.random() < 0.6:
        return deepcopy(_drawn(chance))
    data = deepcopy(chance.choice(_packaged()))
    if chance.random() < 0.95:
        cast("Data", data["pipeline"]).update(ranks=4, micro_batches=8)
        cast("Data", data.get("training", {})).pop("global_batch", None)
    return data


NUMBERS: tuple[object, ...] = (
    0, -1, 1, 2, 3, 7, 0.5, -0.0, 1e-9, 5e-324, 1e-300, 1e150, 1e308, 1.7e308, -1e308, float("nan"), float("inf"),
    float("-inf"), 10**5, 10**6, 10**9, 10**9 + 1, 10**18, 2**31, 2**53 + 1, 2**63, 2**64, 10**400,
    -(10**400), 10**4000,
)  # fmt: skip
_WITH_UNITS = (
    "5e-324 s", "1e308 h", "1e400 s", "nan s", "inf s", "-1 ms", "0 GB/s", "1e-300 B/s", "1e308 PB", "1e30 TFLOPS",
    "1 GB", "1 GB/s", "5 us", "5 parsec", "5", "5 5 s", "٣ ms", "1_0 s", "0x10 s", "", " ", "s", "1e3",
)  # fmt: skip
_WORDS: tuple[object, ...] = (
    None, True, False, [], {}, [[]], [[[1]]], {"name": {"name": "1f1b"}}, [1, "2 s", None], {"file": "a\0b"},
    {"file": "../../etc/passwd"}, {"preset": "h800"}, {"preset": "../h800"}, "all", "even", "t*9999999999|L",
    "t" * 5_000, "(t|" * 500, "a" * 3_000, "file.csv", "/dev/null", "0F0,0B0", "0F0,0F1,0B0,0B1\n1F0,1B0,1F1,1B1",
    {1: 2, "a": 3},
    {"kind": "uniform"}, {"kind": ["layers"]},
)  # fmt: skip


def _value(chance: Random) -> object:
    """Return a value that may stand anywhere."""
    kind = chance.random()
    if kind < 0.5:
        return chance.choice(NUMBERS)
    if kind < 0.65:
        return chance.choice(_WITH_UNITS)
    if kind < 0.75:
        return f"a{chance.choice(STRANGE)}b"
    if kind < 0.8:
        nested: object = 1
        for _ in range(chance.choice((3, 40, 90))):
            nested = [nested] if chance.random() < 0.5 else {"a": nested}
        return nested
    if kind < 0.85:
        return [chance.choice(NUMBERS) for _ in range(chance.randint(1, 5))]
    return deepcopy(chance.choice(_WORDS))


def _places(data: object, above: Path = ()) -> Iterator[Path]:
    """Yield the path of everything in it."""
    inner = data.items() if isinstance(data, Mapping) else enumerate(data) if isinstance(data, list) else ()
    for key, value in inner:
        yield (*above, key)
        yield from _places(value, (*above, key))


def _mutated(data: Data, chance: Random) -> None:
    """Break one thing of a configuration."""
    places = [*_places(data)] or [("schedule",)]
    path = max(chance.sample(places, min(2, len(places))), key=len)  # rather deep inside than a whole section
    inside: object = data
    for key in path[:-1]:
        inside = cast("MutableMapping[object, object]", inside)[key]
    holder, last = cast("MutableMapping[object, object]", inside), path[-1]
    how, old = chance.random(), holder[last]
    if how < 0.5 and isinstance(old, (int, float)) and abs(old) < 1e300:
        scaled = old * chance.choice((0, 0.1, 0.5, 2, 3, 10, 64, 1000, 1e5, 1e9, 1e-9, 1e30, 1e-30, 1e290, 1e-300))
        is_whole = isinstance(old, int) and abs(scaled) < 1e300 and float(scaled).is_integer()
        holder[last] = round(scaled) if is_whole else scaled
    elif how < 0.7:
        holder[last] = _value(chance)
    elif how < 0.78:
        del holder[last]
    elif how < 0.84 and isinstance(holder, dict):
        word = str(last)
        at = chance.randrange(len(word) or 1)
        holder[word[:at] + chance.choice(("", "x", *STRANGE)) + word[at + 1 :]] = holder.pop(last)
    elif how < 0.9:
        holder[last] = {"a": holder[last]} if isinstance(holder[last], list) else [holder[last], holder[last]]
    elif how < 0.96:  # by all keys that there are, most of which this one does not have
        _put(data, chance)
    else:
        holder[last] = str(holder[last])


_KEYS = (
    "noise.jitter", "noise.runs", "noise.seed", "noise.slow_ranks", "scenarios.runs", "scenarios.jitter",
    "scenarios.slowdown", "scenarios.routing_skew", "scenarios.seed", "cluster.gpus_per_node",
    "cluster.gpus_per_pod", "cluster.oversubscription", "cluster.mapping", "cluster.nvlink", "cluster.collectives",
    "parallel.gpus", "parallel.tensor", "parallel.context", "parallel.expert", "parallel.data", "parallel.fsdp",
    "parallel.zero", "parallel.gathers", "training.sequence_length", "training.micro_batch_size",
    "training.global_batch", "training.activation_group", "training.routing_skew", "training.recompute",
    "training.offload", "training.optimizer", "costs.transfer", "costs.micro_batch_weights", "costs.slices",
    "costs.unshard", "costs.all_reduce", "costs.kind", "costs.measured", "overlap.communication_sms",
    "overlap.chunk_tokens", "overlap.alltoall_beside", "overlap.ep_comm", "pipeline.layout", "pipeline.runtime",
    "pipeline.transfers", "search.seed", "search.moves", "search.activations", "plan.ranks", "plugins",
    "sweep.grid", "sweep.list", "sweep.zip", "measured.step_time", "measured.source", "stack", "engine",
    "contention", "model.hidden", "model.layers", "model.vocabulary", "model.attention", "model.experts",
    "model.ffn", "model.pattern", "model.kinds", "gpu.memory", "gpu.sms", "gpu.gemm", "gpu.host", "gpu.kernels",
    "compare", "schedule.name", "schedule.stages_per_rank", "schedule.waves", "schedule.slices", "schedule.limit",
    "schedule.ranks",
)  # fmt: skip


def _put(data: Data, chance: Random) -> None:
    first, _, rest = chance.choice(_KEYS).partition(".")
    section = data.get(first)
    if isinstance(section, str) and rest:
        section = {"name" if first == "schedule" else "preset": section}
    if not rest:
        data[first] = _value(chance)
        return
    data[first] = section if isinstance(section, dict) else {}
    cast("Data", data[first])[rest] = _value(chance)


def _written(data: Data, chance: Random) -> str:
    """Return it as YAML, now and then with what only a text can have."""
    if chance.random() < 0.05:  # the same thing in two places: an anchor and an alias
        paths = [path[0] for path in _places(data) if len(path) == 1]
        one, two = chance.choice(paths), chance.choice(paths)
        data[cast("str", one)] = data[cast("str", two)]
    text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=False)
    lines = text.splitlines(keepends=True)
    at = chance.randrange(len(lines) or 1)
    trick = chance.random()
    if trick < 0.02:
        lines.insert(at, lines[at])
    elif trick < 0.04:
        lines[at] = lines[at].replace(": ", f": {chance.choice(('!!python/object:os.system', '!a', '!!binary'))} ", 1)
    elif trick < 0.05:
        lines.insert(at, "<<: *x\n")
    elif trick < 0.06:
        lines.append("---\na: 1\n")
    return "".join(lines)


def configuration(chance: Random) -> bytes:
    """Return a configuration as YAML, whole or with up to three things in it broken."""
    data = _begun(chance)
    for _ in range(chance.choice((0, 1, 1, 1, 1, 2, 2, 3))):
        _mutated(data, chance)
    return _written(data, chance).encode()
