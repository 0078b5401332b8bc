"""The routes of the live page, and who may ask for them.

Everything but the page's two static files answers the query of a link: ``/`` is the page, ``/answer`` what it shows, a
JSON object a line, ``/files/<name>`` what its buttons give. So a link's query is the whole state, and the server has
none.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from string import Template

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dualpipe_sim.base.files import read_text
from dualpipe_sim.base.show import all_on_one_line, in_html
from dualpipe_sim.batch.points import Row
from dualpipe_sim.errors import UserError
from dualpipe_sim.explore.answer import Answers
from dualpipe_sim.explore.controls import words
from dualpipe_sim.explore.downloads import DOWNLOADS
from dualpipe_sim.explore.link import Link, Start
from dualpipe_sim.pictures.report.page import page_style, viewer_script
from dualpipe_sim.serving.workers import Asked, Lost, TooLong, Workers

_HERE = Path(__file__).parent
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_STATIC = ("/explore.js", "/explore.css")
_LINES = [(b"content-type", b"application/x-ndjson; charset=utf-8")]
SECONDS = 10.0
"""How long one schedule's answer may take."""
SECONDS_OF_A_FILE = 60.0
"""How long what is downloaded may take: charts are drawn anew."""
_REFUSED = b'{"error"'
_MOST_WAITING = 32
_LONGEST_NAME = 40
_LOST = "this took more memory than a page has; `dualpipe-sim compare` takes more"


def app(start: Start, hosts: frozenset[str] = frozenset(), token: str = "") -> ASGIApp:
    """Return the page as an ASGI application.

    Args:
        start: the configuration to begin with.
        hosts: what requests may call this server, port and all; any name if empty. A page of another site whose name
            was made to lead here calls it by that name.
        token: what a link must have as ``token``; empty for none.

    """
    workers: list[Workers] = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        workers.append(Workers(Answers(start)))
        warming = asyncio.ensure_future(_warm(workers[0], start))
        try:
            yield
        finally:
            warming.cancel()
            await workers.pop().close()

    page = _page()

    async def static(request: Request) -> Response:
        script = request.url.path.endswith(".js")
        own = read_text(_HERE / request.url.path[1:])
        text = f"{viewer_script()}\n{own}" if script else f"{page_style()}\n{own}"
        return Response(text, media_type="text/javascript" if script else "text/css")

    async def file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in DOWNLOADS:
            return _refusal(404, f"there is no such file; there are {', '.join(DOWNLOADS)}")
        async with workers[0].one() as asked:
            row = await _row(asked, name, request.url.query, 0, SECONDS_OF_A_FILE)
        if "error" in row:
            return _refusal(422, str(row["error"]))
        content = row["content"]
        assert isinstance(content, bytes)  # noqa: S101 - what downloads make
        attached = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(content, media_type=DOWNLOADS[name].media_type, headers=attached)

    routes = [
        Route("/", lambda _: Response(page, media_type="text/html")),
        *(Route(path, static) for path in _STATIC),
        Route("/answer", _Answering(lambda: workers[0])),
        Route("/files/{name}", file),
    ]
    return _Guard(Starlette(routes=routes, lifespan=lifespan), hosts, token)


async def _warm(workers: Workers, start: Start) -> None:
    """Let every worker import what it needs, before anybody waits for it."""

    async def one() -> None:
        with suppress(TooLong, Lost):
            async with workers.one() as asked:
                await asked({"part": "run", "query": start.link, "place": 0}, SECONDS_OF_A_FILE)

    await asyncio.gather(*(one() for _ in range(workers.count)))


class _Answering:
    """The endpoint of answers. It speaks ASGI itself, since it hears when nobody listens any more.

    An answer is worked at until it is whole, or nobody listens any more, or the same page asks anew.
    """

    def __init__(self, workers: Callable[[], Workers]) -> None:
        self._workers = workers
        self._under_way: dict[str, asyncio.Task[None]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        page = request.headers.get("x-page", "")[:_LONGEST_NAME] or f"{id(request)}"
        if page in self._under_way:
            self._under_way[page].cancel()
        elif len(self._under_way) >= _MOST_WAITING:
            await _refusal(503, "too many answers are under way; try again in a moment")(scope, receive, send)
            return
        work = asyncio.ensure_future(self._answer(request.url.query, send))
        gone = asyncio.ensure_future(_gone(receive))
        self._under_way[page] = work
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            work.cancel()
            gone.cancel()
            if self._under_way.get(page) is work:
                del self._under_way[page]
        with suppress(asyncio.CancelledError):
            await work

    async def _answer(self, query: str, send: Send) -> None:
        """Send all parts of an answer, a line each, as they come; what is refused is an answer, too."""
        await send({"type": "http.response.start", "status": 200, "headers": _LINES})
        try:
            async with self._workers().one() as asked:
                head = await _row(asked, "head", query)
                await send(_line(head))
                schedules = head.get("schedules", [])
                assert isinstance(schedules, list)  # noqa: S101 - what heads have
                parts = [("run", place) for place in range(len(schedules))]
                for part, place in [*parts, ("table", 0)] if parts else []:
                    line = _line(await _row(asked, part, query, place))
                    await send(line)
                    if line["body"].startswith(_REFUSED):
                        break
        except asyncio.CancelledError:
            await send(_line({"error": "something else was asked for meanwhile"}))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    """Wait until whoever asked is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _row(asked: Asked, part: str, query: str, place: int = 0, limit_s: float = SECONDS) -> Row:
    """Return a part of an answer, or the line that says why there is none."""
    try:
        Link.parse(query)  # here, since a worker is not to unpack what is too long
        return await asked({"part": part, "query": query, "place": place}, limit_s)
    except UserError as error:
        return {"error": str(error)}
    except Lost:
        return {"error": _LOST}
    except TooLong:
        return {"error": f"this takes more than {limit_s:.0f} s; take a smaller size or a schedule that is no search"}


def _line(row: Row) -> Message:
    words = {key: one if key == "page" else all_on_one_line(one) for key, one in row.items()}  # (a page's are already)
    try:
        text = json.dumps(words, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps({"error": "some numbers are larger than a page can show; take smaller times"})
    return {"type": "http.response.body", "body": f"{text}\n".encode(), "more_body": True}


def _refusal(status: int, words: str) -> Response:
    return PlainTextResponse(f"{words}\n", status)


def _page() -> str:
    buttons = "".join(
        f'<a class="button" download="{name}" data-file="{name}">{in_html(one.words)}</a>'
        for name, one in DOWNLOADS.items()
    )
    text = read_text(_HERE / "explore.html")
    return Template(text).substitute(words=json.dumps(words()).replace("<", "\\u003c"), buttons=buttons)


class _Guard:
    """Refuses who may not ask, before anything is read, and says in every answer what its page may do."""

    def __init__(self, inner: ASGIApp, hosts: frozenset[str], token: str) -> None:
        self._inner, self._hosts, self._token = inner, hosts, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [(key.lower().encode(), value.encode()) for key, value in _HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *more]}
            await send(message)

        refusal = self._refusal(Request(scope))
        await (self._inner if refusal is None else refusal)(scope, receive, with_headers)

    def _refusal(self, request: Request) -> Response | None:
        if request.method not in ("GET", "HEAD"):
            return _refusal(405, "the page is only asked")
        if self._hosts and request.headers.get("host", "") not in self._hosts:
            return _refusal(421, "this server has another name")
        static = request.url.path in _STATIC
        if request.url.path != "/" and request.headers.get("sec-fetch-site", "same-origin") in (
            "cross-site",
            "same-site",
        ):
            return _refusal(403, "only the page itself may ask for this")
        given = request.query_params.get("token", "")
        if self._token and not static and not hmac.compare_digest(given.encode(), self._token.encode()):
            return _refusal(403, "the link needs the token that was printed when the page was started")
        return None
