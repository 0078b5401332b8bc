"""Play random flows over shared links with SimGrid, and keep when each ended.

    apt-get install python3-simgrid
    /usr/bin/python3 validation/run_simgrid.py

SimGrid (https://simgrid.org, 3.32 here) is a simulator of distributed systems whose fluid network models were compared
with packets (Velho et al. 2013, https://doi.org/10.1145/2517448). Each set of flows is played by its CM02 model without
what it has for TCP (factors on bandwidth and latency, acknowledgements, windows), and by its default, LV08, with all of
it. What comes out is ``flows_simgrid.json`` beside this file; tests read that, and need no SimGrid.

A third of the sets has no latencies, a third routes that all have the same latency, a third routes of their own ones:
then both models give a flow a share that goes with the reciprocal of its latency, as TCP does.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

SETS = 200
SEED = 20261128
MODELS = {
    "CM02": [
        "network/model:CM02", "network/bandwidth-factor:1", "network/latency-factor:1", "network/weight-S:0",
        "network/TCP-gamma:0", "network/crosstraffic:0", "maxmin/precision:1e-9", "surf/precision:1e-9",
    ],
    "LV08": ["network/model:LV08"],
}  # fmt: skip
WIDE_BYTES_PER_S = 1e15


def drawn(number: int) -> dict[str, Any]:
    """Draw a set: bandwidth and latency of links; of flows their start, links, bytes, most a second, more latency."""
    chance = random.Random(f"{SEED} {number}")  # noqa: S311 - to be the same again
    latencies = ("none", "alike", "own")[number % 3]
    links = [
        [10 ** chance.uniform(9, 11), 0.0 if latencies == "none" else chance.uniform(1e-3, 2e-2)]
        for _ in range(chance.randint(1, 5))
    ]
    flows = []
    for _ in range(chance.randint(2, 10)):
        passed = chance.sample(range(len(links)), chance.randint(1, min(3, len(links))))
        narrowest = min(links[link][0] for link in passed)
        cap = narrowest * chance.uniform(0.05, 0.9) if chance.random() < 0.25 else None
        flows.append([chance.uniform(0, 1), passed, narrowest * chance.uniform(0.1, 1.0), cap, 0.0])
    if latencies == "alike":
        of_route = [sum(links[link][1] for link in flow[1]) for flow in flows]
        for flow, latency in zip(flows, of_route):  # noqa: B905 - Debian's Python may have no strict
            flow[4] = max(of_route) - latency
    return {"latencies": latencies, "links": links, "flows": flows}


def played(told: dict[str, Any], settings: list[str]) -> list[float]:
    """Return when each flow of a set ends; a process can do so once."""
    import simgrid

    engine = simgrid.Engine(["flows", "--log=root.thresh:error", *(f"--cfg={one}" for one in settings)])
    zone = simgrid.NetZone.create_full_zone("all")
    links = [
        zone.create_link(f"link{place}", bandwidth).set_latency(latency).seal()
        for place, (bandwidth, latency) in enumerate(told["links"])
    ]
    ends = [0.0] * len(told["flows"])

    def send(place: int, source: Any, target: Any) -> None:
        start, _, size, _, _ = told["flows"][place]
        simgrid.this_actor.sleep_until(start)
        simgrid.Comm.sendto_init(source, target).set_payload_size(round(size)).wait()
        ends[place] = simgrid.Engine.clock

    hosts = []
    for place, (_, passed, _, cap, more) in enumerate(told["flows"]):
        source, target = (zone.create_host(f"{side}{place}", 1e9).seal() for side in ("from", "to"))
        own = zone.create_link(f"own{place}", cap or WIDE_BYTES_PER_S).set_latency(more).seal()
        route = [simgrid.LinkInRoute(one) for one in (own, *(links[link] for link in passed))]
        zone.add_route(source.netpoint, target.netpoint, None, None, route, False)
        hosts.append((source, target))
    zone.seal()
    for place, (source, target) in enumerate(hosts):
        simgrid.Actor.create(f"flow{place}", source, send, place, source, target)
    engine.run()
    return ends


def main() -> None:
    """Play all sets by both models, each in a process of its own; or the one named, and print it."""
    if sys.argv[1:]:
        model, number = sys.argv[1:]
        print(json.dumps(played(drawn(int(number)), MODELS[model])))
        return
    sets = [drawn(number) for number in range(SETS)]
    for number, one in enumerate(sets):
        for model in MODELS:
            told = subprocess.run(  # noqa: S603
                [sys.executable, __file__, model, str(number)], capture_output=True, check=True, text=True
            )
            one[model] = json.loads(told.stdout)
    lines = ",\n".join(json.dumps(one) for one in sets)
    Path(__file__).with_name("flows_simgrid.json").write_text(
        f'{{"settings": {json.dumps(MODELS)},\n"sets": [\n{lines}\n]}}\n', encoding="utf-8"
    )


if __name__ == "__main__":
    main()
