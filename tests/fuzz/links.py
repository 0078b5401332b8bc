"""Requests to the live page: any path, query, host, token and header, of a page on this machine or on a network."""

from __future__ import annotations

import ast
import atexit
import json
import zlib
from base64 import urlsafe_b64encode
from functools import cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import dualpipe_sim
from dualpipe_sim.config.load import packaged_configs
from dualpipe_sim.errors import UserError, visible
from tests.fuzz.damage import NUMBERS, STRANGE, damaged
from tests.fuzz.hostile import NAMES
from tests.fuzz.kind import Kind

if TYPE_CHECKING:
    from starlette.testclient import TestClient

_HOST, _TOKEN = "localhost:8765", "a-token-nobody-guesses"
_PATHS = (
    "/", "/answer", "/answer", "/answer", "/explore.js", "/explore.css", "/files/experiment.yaml",
    "/files/experiment.py", "/files/numbers.json", "/files/order.csv", "/files/trace.json", "/files/chart.svg",
)  # fmt: skip
_VALUES = (
    "[]", "{}", "null", "-1", "*a", "&a [*a]", "!!python/object:os.system", "all", "{name: 1f1b}", "[[[", "0F0,0B0",
    "/etc/passwd", "../../etc/passwd", "{file: /etc/passwd}", "[/etc/passwd]", "/proc/self/environ", "4", "8", "16",
    "1f1b", "zb-h1", "dualpipe", "h100", "1 ms",
)  # fmt: skip
_HEADERS = ("host", "origin", "referer", "x-page", "sec-fetch-site", "cookie", "range", "accept", "transfer-encoding")
_LONGEST = 60_000
"""Of an address, for the client that asks; pages take less."""
_METHODS = ("GET", "GET", "GET", "GET", "GET", "GET", "HEAD", "POST", "OPTIONS", "TRACE", "PUT")


def _make(chance: Random) -> bytes:
    path = chance.choice(_PATHS)
    if chance.random() < 0.1:
        path = chance.choice(("/files/", "/", "/answer/", "//", "/files/..%2f")) + _word(chance)
    query = urlencode([_pair(chance) for _ in range(chance.randint(0, 3))], errors="surrogatepass")
    if chance.random() < 0.2:
        query = damaged(query.encode(), chance).decode("latin-1")
    token = chance.choice(("", "", _TOKEN, _TOKEN[:-1], _word(chance)))
    query += f"&compare=[]&token={quote(token, errors='surrogatepass')}" if chance.random() < 0.9 else ""
    names = [chance.choice(_HEADERS) for _ in range(chance.choice((0, 0, 0, 1, 2)))]
    headers = {name: chance.choice((_word(chance), "cross-site", "evil.example", _HOST)) for name in names}
    case = {"method": chance.choice(_METHODS), "path": path, "query": query, "headers": headers}
    return json.dumps({**case, "network": chance.random() < 0.2}).encode()


def _word(chance: Random) -> str:
    return chance.choice(chance.choice((NAMES, STRANGE, NUMBERS, _VALUES)))


def _pair(chance: Random) -> tuple[str, str]:
    """Return a key and its value: of the page, of a configuration, or anything."""
    which = chance.random()
    if which < 0.2:
        return "config", chance.choice((*packaged_configs(), _word(chance)))
    if which < 0.35:
        text = chance.choice(sorted(packaged_configs().items()))[1].read_bytes()
        packed = zlib.compress(damaged(text, chance) if chance.random() < 0.7 else text)
        return "yaml", urlsafe_b64encode(packed).decode().rstrip("=")
    if which < 0.4:
        return chance.choice(("yaml", "view.side", "view.", "token")), _word(chance)
    if which < 0.55:
        return "cluster.name", json.dumps(_word(chance))
    key = _word(chance) if which < 0.6 else chance.choice(_keys())
    return key, _word(chance)


@cache
def _keys() -> list[str]:
    from dualpipe_sim.explore.controls import words

    return words()["keys"]


def _attempt(path: Path) -> None:
    """Ask, and look at what is answered."""
    case = json.loads(path.read_bytes())
    url = f"http://{_HOST}{_as_sent(case['path'])}?{_as_sent(case['query'])}"[:_LONGEST]
    headers = {name: _as_sent(text) for name, text in case["headers"].items()}
    answer = _page(network=case["network"]).request(case["method"], url, headers=headers)
    text = answer.text
    assert answer.status_code == 200 or 400 <= answer.status_code < 500 or answer.status_code == 503, answer.status_code
    assert "Traceback" not in text
    assert "fault of the program" not in text, text
    assert "root:x" not in text
    assert str(Path(dualpipe_sim.__file__).parent.parent) not in text
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; ")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert visible(text) == text, "what acts on a terminal"
    if answer.status_code != 200:
        assert len(text.splitlines()) <= 1, text
        raise UserError(text.strip() or f"{answer.status_code}")
    if case["path"] == "/answer" and case["method"] == "GET":
        *_, last = (json.loads(line, parse_constant=_no_number) for line in text.splitlines())
        if "error" in last:
            raise UserError(last["error"])
        assert "table" in last
    if case["path"] == "/files/experiment.py" and case["method"] == "GET":
        written = [type(statement).__name__ for statement in ast.parse(text).body]
        assert written == ["Expr", "ImportFrom", "Assign", "Assign", "Expr", "Expr"], "code of a name's own"
        assert not [one for one in ast.walk(ast.parse(text).body[2]) if isinstance(one, ast.Call)]


def _as_sent(text: str) -> str:
    """Return a text as a client can send it: an URL and headers are ASCII, and on one line."""
    return "".join(one if "!" <= one <= "~" and one != "#" else quote(one, errors="surrogatepass") for one in text)


def _no_number(word: str) -> None:
    raise AssertionError(f"{word} is no JSON")


@cache
def _page(*, network: bool) -> TestClient:
    """Return what asks a page that is served on this machine, or with a token on a network."""
    from starlette.testclient import TestClient

    from dualpipe_sim.explore.link import Start
    from dualpipe_sim.explore.server import app

    served = app(Start.of("figure5"), *((frozenset[str](), _TOKEN) if network else (frozenset({_HOST}), "")))
    client = TestClient(served, base_url=f"http://{_HOST}")
    client.__enter__()
    atexit.register(client.__exit__, None, None, None)
    return client


KIND = Kind("links", ".json", _make, _attempt, in_tests=40, in_long=5_000)
