"""Dataclasses read from mappings: keys, units, types, and what every mistake says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytest
import yaml

from dualpipe_sim import UserError
from dualpipe_sim.base.arrays import FloatArray
from dualpipe_sim.config import load_experiment
from dualpipe_sim.config.docstrings import attributes, summary
from dualpipe_sim.config.presets import presets, read_preset
from dualpipe_sim.config.records import read
from dualpipe_sim.hardware.collectives import AllToAllKernel
from dualpipe_sim.hardware.gpu import Gpu
from dualpipe_sim.model.architecture import Model
from dualpipe_sim.model.recipe import Recipe


@dataclass(frozen=True)
class Wheel:
    """A part of
    something.

    Attributes:
        radius: how far it goes.

    """

    radius: float


@dataclass(frozen=True)
class Cart:
    """Fields of every type that a configuration can hold.

    Some text between.

    Attributes:
        pace_s: a time, which is
            told on two lines; here ``5 us`` would do.
        load_bytes (float): a size.

    Raises:
        UserError: never.

    """

    pace_s: float
    load_bytes: float = 1e3
    wheels: tuple[Wheel, ...] = ()
    spare: Wheel | None = None
    turns_s: Wheel | None = None
    delay_s: float | tuple[float, ...] = 0.0
    pair: tuple[int, str] = (1, "a")
    names: list[str] = field(default_factory=list)
    rates_bytes_per_s: Mapping[str, float] = field(default_factory=dict)
    mode: Literal["slow", "fast"] = "slow"
    copy: bool = False
    anything: Any = None


@dataclass(frozen=True)
class Table:
    """A field that YAML cannot hold."""

    values: FloatArray


@dataclass(frozen=True)
class Undecided:
    """A field that may be two things which look alike."""

    value: int | str


def cart(**given: object) -> Cart:
    return read(Cart, {"pace": 1, **given}, "cart")


def test_a_key_is_a_field_without_its_unit() -> None:
    assert cart(pace="2 ms", load="3 kB") == Cart(pace_s=2e-3, load_bytes=3e3)


def test_fields_hold_other_dataclasses_and_lists_of_them() -> None:
    full = cart(wheels=[{"radius": 1}, {"radius": 2.5}], spare={"radius": 3}, pair=[2, "b"], names=["x", "y"])
    assert full.wheels == (Wheel(1.0), Wheel(2.5))
    assert (full.spare, full.pair, full.names) == (Wheel(3.0), (2, "b"), ["x", "y"])
    assert cart(spare=None).spare is None


def test_a_unit_of_a_field_is_that_of_the_numbers_inside() -> None:
    full = cart(turns={"radius": "5 s"}, rates={"out": "2 GB/s"}, delay=["1 ms", 2])
    assert (full.turns_s, full.rates_bytes_per_s, full.delay_s) == (Wheel(5.0), {"out": 2e9}, (1e-3, 2.0))
    assert cart(delay="1 ms").delay_s == 1e-3


def test_a_field_may_have_any_name() -> None:
    assert cart(copy=True).copy


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"pase": 1}, "cart.pase: unknown key; did you mean 'pace'?"),
        ({"pace_s": 1}, "cart.pace_s: unknown key; did you mean 'pace'?"),
        ({"pace": "1 GB"}, "cart.pace: must be a time like 5 us, got '1 GB'"),
        ({"pace": True}, "cart.pace: must be a time like 5 us, got True"),
        ({"load": -1}, "cart.load: must be a size like 80 GiB, finite and not negative, got -1"),
        ({"wheels": [{"radius": 1}, {"radius": "far"}]}, "cart.wheels[1].radius: must be a number, not 'far'"),
        ({"wheels": {"radius": 1}}, "cart.wheels: must be a list, got {'radius': 1}"),
        ({"spare": 3}, "cart.spare: needs a mapping of keys to values, not 3"),
        ({"spare": {}}, "cart.spare: the key 'radius' is missing"),
        ({"spare": {"radius": float("inf")}}, "cart.spare.radius: must be a number, not inf"),
        ({"spare": {"radius": 10**400}}, f"cart.spare.radius: must be a number, not 1{'0' * 59}…"),
        ({"delay": ["1 ms", "never"]}, "cart.delay[1]: must be a time like 5 us, got 'never'"),
        ({"delay": "never"}, "cart.delay: must be a time like 5 us, got 'never'"),
        ({"pair": [True, "a"]}, "cart.pair[0]: must be a whole number, not True"),
        ({"names": "x"}, "cart.names: must be a list, got 'x'"),
        ({"names": [1]}, "cart.names[0]: must be text, not 1"),
        ({"rates": {"out": "2 s"}}, "cart.rates.out: must be a bandwidth like 160 GB/s, got '2 s'"),
        ({"rates": 3}, "cart.rates: must be a mapping of keys, got 3"),
        ({"mode": "reverse"}, "cart.mode: must be one of 'slow', 'fast', not 'reverse'"),
        ({"copy": 1}, "cart.copy: must be true or false, not 1"),
    ],
)
def test_a_mistake_names_its_place(given: dict[str, object], said: str) -> None:
    with pytest.raises(UserError) as caught:
        cart(**given)
    assert str(caught.value) == said


def test_what_is_no_mapping_is_refused_as_a_whole() -> None:
    with pytest.raises(UserError, match=r"^cart: needs a mapping of keys to values, not 'fast'$"):
        read(Cart, "fast", "cart")


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        (Table, r"^Table.values: a configuration cannot hold a (NDArray|numpy.ndarray)\["),
        (Undecided, r"^Undecided.value: a configuration cannot tell <class 'int'> from <class 'str'>$"),
    ],
)
def test_a_type_that_cannot_be_written_is_named(cls: type[Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        read(cls, {"values": np.zeros(2), "value": 1}, "it")


def test_defaults_are_the_papers_recipe() -> None:
    assert read(Recipe, {}, "training") == Recipe()
    assert read(Recipe, {"recompute": {"norms": False}}, "training").recompute.names == ("up_projections", "activation")


@pytest.mark.parametrize(("section", "cls"), [("model", Model), ("gpu", Gpu)])
def test_every_preset_reads_as_it_is_written(section: str, cls: type[Any]) -> None:
    for name, path in presets(section).items():
        written = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert read(cls, read_preset(section, name, "here"), section) == read(cls, written, section)
        assert written["name"] == name


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model.experts.active", 0, "model.experts.active: must be more than 0, not 0"),
        ("model.experts.groups", 7, "model.experts.groups: 7 groups do not divide 256 routed experts"),
        ("model.attention.heads", None, "model.attention.heads: must be a whole number, not None"),
        ("gpu.gemm.bf16.dense", 0, "gpu.gemm.bf16.dense: must be more than 0, not 0.0"),
        ("gpu.gemm.bf16.dense", "989 GB/s", "gpu.gemm.bf16.dense: must be a rate like 989 TFLOPS, got '989 GB/s'"),
        ("gpu.gemm.bf16.dens", 1, "gpu.gemm.bf16.dens: unknown key; did you mean 'dense'?"),
        ("gpu.memory", "80 s", "gpu.memory: must be a size like 80 GiB, got '80 s'"),
        ("gpu.sms", 10**10, "gpu.sms: must be a whole number up to 1000000000, got 10000000000"),
        ("cluster.alltoall.launch", "soon", "cluster.alltoall.launch: must be a time like 5 us, got 'soon'"),
        ("cluster.alltoall", 3, "cluster.alltoall: needs a mapping of keys to values, not 3"),
        (
            "cluster.alltoall.overlapped.wait.dispatch_forward",
            "1 GB",
            "cluster.alltoall.overlapped.wait.dispatch_forward: must be a time like 5 us, got '1 GB'",
        ),
        (
            "cluster.alltoall.overlapped.slowdown.combine_forward",
            -1,
            "cluster.alltoall.overlapped.slowdown.combine_forward: must be 0 or more, not -1.0",
        ),
    ],
)
def test_a_mistake_in_a_configuration_has_its_whole_path(key: str, value: object, said: str) -> None:
    with pytest.raises(UserError) as caught:
        load_experiment("deepseek_v3", {key: value})
    assert str(caught.value).endswith(f"deepseek_v3.yaml: {said}")


def test_times_of_all_to_alls_are_read_with_units() -> None:
    alltoall = dict(read_preset("cluster", "h800-ib", "here"))["alltoall"]
    assert isinstance(alltoall, dict)
    wait = dict.fromkeys(("dispatch_forward", "combine_forward", "combine_gradient", "dispatch_gradient"), "2 ms")
    slower = {**alltoall, "overlapped": {**alltoall["overlapped"], "wait": wait}}
    kernel = read(AllToAllKernel, slower, "cluster.alltoall")
    assert kernel.overlapped is not None
    assert kernel.overlapped.wait_s.combine_forward == 2e-3


def test_a_docstring_says_what_fields_are() -> None:
    assert summary(Wheel) == "A part of something."
    assert attributes(Cart) == {
        "pace_s": "a time, which is told on two lines; here `5 us` would do",
        "load_bytes": "a size",
    }


def test_a_class_without_docstring_says_nothing() -> None:
    @dataclass
    class Silent:
        x: int

    assert (summary(Silent), attributes(Silent)) == ("", {})
