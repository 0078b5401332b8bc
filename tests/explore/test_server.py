"""Who may ask the page for what, and that no URL is answered by anything but an answer or one line."""

from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from dualpipe_sim.explore import server
from dualpipe_sim.explore.link import Start
from dualpipe_sim.serving.workers import Lost, TooLong, Workers
from tests.explore.work import do

if TYPE_CHECKING:
    from starlette.testclient import TestClient

SMALL = "pipeline.ranks=4&pipeline.micro_batches=8&compare=[1f1b, gpipe]&schedule=1f1b"
PATHS = ("/", "/answer", "/files/experiment.yaml", "/files/numbers.json", "/explore.js", "/explore.css")


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_an_answer_is_the_controls_then_each_run_then_the_table(client: TestClient) -> None:
    answer = client.get(f"/answer?{SMALL}")
    assert answer.status_code == 200
    head, *runs, table = lines(answer.text)
    assert [one["label"] for one in head["schedules"]] == ["1f1b", "gpipe"]
    assert [run["place"] for run in runs] == [0, 1]
    assert [run["page"]["runs"][0]["makespan_s"] for run in runs] == [33.0, 33.0]
    assert [row[:2] for row in table["table"]["rows"]] == [["1f1b", "4 × 8"], ["gpipe", "4 × 8"]]


def test_a_link_without_a_beginning_is_told_that_of_the_start(client: TestClient) -> None:
    assert lines(client.get("/answer?compare=[]").text)[0]["link"] == "config=figure5"
    assert lines(client.get("/answer?config=small&compare=[]").text)[0]["link"] == ""


def test_the_whole_page_is_small_and_asks_for_nothing_from_elsewhere(client: TestClient) -> None:
    texts = [client.get(path).text for path in ("/", "/explore.js", "/explore.css")]
    assert sum(len(text.encode()) for text in texts) < 250_000
    named = {url for text in texts for url in re.findall(r"(?:https?:)?//[a-z][\w.-]*\.[\w./-]+", text)}
    assert named <= {"http://www.w3.org/2000/svg"}  # the name of what SVG is, which nobody asks


@pytest.mark.parametrize("path", [*PATHS, "/nothing", "/files/nothing"])
def test_every_answer_says_what_its_page_may_do(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "server" not in headers


@pytest.mark.parametrize("host", ["evil.example", "localhost", "localhost:80", "", "127.0.0.1.evil.example:8765"])
def test_a_name_that_was_made_to_lead_here_is_refused(client: TestClient, host: str) -> None:
    for path in PATHS:
        answer = client.get(path, headers={"host": host})
        assert (answer.status_code, answer.text) == (421, "this server has another name\n")


def test_pages_of_other_sites_may_lead_here_and_ask_nothing(client: TestClient) -> None:
    elsewhere = {"sec-fetch-site": "cross-site"}
    assert client.get("/?config=small", headers=elsewhere).status_code == 200
    assert client.get("/answer?config=small", headers=elsewhere).status_code == 403
    assert client.get("/files/numbers.json", headers=elsewhere).status_code == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_nothing_but_asking_is_allowed(client: TestClient, method: str) -> None:
    assert client.request(method, "/answer").status_code == 405


def test_a_token_is_asked_for_wherever_numbers_are(start: Start) -> None:
    from starlette.testclient import TestClient

    token = "a-token-nobody-guesses"  # noqa: S105 - of a test
    with TestClient(server.app(start, token=token)) as client:
        for path in PATHS:
            static = path in ("/explore.js", "/explore.css")
            for query in ("", "?token=", "?token=a", f"?token={token}x", f"?token={quote('ö')}"):
                answer = client.get(path + query)
                assert answer.status_code == (200 if static else 403)
                assert static or token not in answer.text
            assert client.get(f"{path}?token={token}&{SMALL}").status_code == 200


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/answer?pipeline.ranks=0", 200, "pipeline.ranks: must be a whole number, 1 or more, got 0"),
        ("/files/chart.png?schedule=dualpip", 422, "schedule: unknown schedule 'dualpip'; did you mean 'dualpipe'?"),
        ("/files/order.csv?pipeline.ranks=7", 422, "dualpipe needs an even number of ranks"),
        ("/files/../../etc/passwd", 404, "Not Found"),
        ("/files/%2e%2e%2fexplore.js", 404, "Not Found"),
        ("/files/passwd", 404, "there is no such file; there are experiment.yaml,"),
        ("/explore.html", 404, "Not Found"),
        ("/answer?" + "&".join(["a=1"] * 300), 200, "the link cannot be read: Max number of fields exceeded"),
        ("/files/experiment.yaml?config=%ff", 422, "the link cannot be read: 'utf-8' codec can't decode"),
    ],
)
def test_what_is_wrong_is_one_line(client: TestClient, path: str, status: int, said: str) -> None:
    answer = client.get(path)
    text = lines(answer.text)[0]["error"] if path.startswith("/answer") else answer.text.rstrip("\n")
    assert answer.status_code == status
    assert text.startswith(said)
    assert "\n" not in text


def test_an_answer_that_takes_too_long_is_ended_and_the_next_one_is_there(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "SECONDS_OF_A_FILE", 0.2)
    slow = "schedule={name: searched}&pipeline.ranks=16&pipeline.micro_batches=60&compare=[]"
    answer = client.get(f"/files/numbers.json?{slow}")
    assert (answer.status_code, answer.text) == (
        422, "this takes more than 0 s; take a smaller size or a schedule that is no search\n",
    )  # fmt: skip
    assert client.get(f"/answer?{SMALL}").status_code == 200


def _with_workers(work: Any) -> None:  # noqa: ANN401 - a coroutine function
    async def inside() -> None:
        workers = Workers(do, 1)
        try:
            await work(workers)
        finally:
            await workers.close()

    asyncio.run(inside())


def test_a_worker_that_hangs_or_dies_is_replaced() -> None:
    async def work(workers: Workers) -> None:
        async with workers.one() as asked:
            with pytest.raises(TooLong):
                await asked({"does": "sleep"}, 0.05)
            with pytest.raises(Lost):
                await asked({"does": "die"}, 60)
            assert await asked({"does": "answer"}, 60) == {"does": "answer"}

    _with_workers(work)


def test_whoever_goes_leaves_a_worker_to_the_next() -> None:
    async def work(workers: Workers) -> None:
        async def goes() -> None:
            async with workers.one() as asked:
                await asked({"does": "sleep"}, 3600)

        first = asyncio.ensure_future(goes())
        await asyncio.sleep(0.05)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        async with workers.one() as asked:
            assert await asked({"does": "answer"}, 60) == {"does": "answer"}

    _with_workers(work)


def test_a_page_that_asks_anew_waits_for_no_old_answer(start: Start) -> None:
    """The second of two answers to one page comes, and the first is cut off before its table."""

    async def work() -> None:
        from httpx import ASGITransport, AsyncClient

        running = server.app(start)
        async with _alive(running), AsyncClient(transport=ASGITransport(running), base_url="http://a") as client:
            page = {"x-page": "one"}
            slow = "schedule={name: searched}&pipeline.ranks=16&pipeline.micro_batches=60&compare=[]"
            old = asyncio.ensure_future(client.get(f"/answer?{slow}", headers=page))
            await asyncio.sleep(0.1)
            new = await client.get(f"/answer?{SMALL}", headers=page)
            assert lines(new.text)[-1]["table"]
            assert lines((await old).text)[-1] == {"error": "something else was asked for meanwhile"}

    asyncio.run(work())


class _alive:  # noqa: N801 - reads as what it is
    """An application between its start and its end, as servers run it."""

    def __init__(self, app: Any) -> None:  # noqa: ANN401
        self._app, self._in, self._out = app, asyncio.Queue[dict[str, str]](), asyncio.Queue[dict[str, str]]()

    async def __aenter__(self) -> None:
        self._task = asyncio.ensure_future(
            self._app({"type": "lifespan", "asgi": {"version": "3.0"}}, self._in.get, self._out.put)
        )
        await self._in.put({"type": "lifespan.startup"})
        assert (await self._out.get())["type"] == "lifespan.startup.complete"

    async def __aexit__(self, *_: object) -> None:
        await self._in.put({"type": "lifespan.shutdown"})
        await self._task


def test_what_is_no_number_is_a_line_too(client: TestClient) -> None:
    rows = client.get("/answer?costs.forward=1e308&compare=[]").text.splitlines()
    assert all(isinstance(json.loads(row, parse_constant=pytest.fail), dict) for row in rows)
    assert "error" in json.loads(rows[-1]) or "table" in json.loads(rows[-1])
