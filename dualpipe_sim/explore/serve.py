"""Starts the page: where it listens, under what name, behind which token."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import webbrowser
from collections.abc import Callable
from contextlib import closing
from threading import Timer

from dualpipe_sim.base.signals import ending_by
from dualpipe_sim.errors import UserError
from dualpipe_sim.explore.link import Start

_OPENS_AFTER_S = 0.5


def serve(start: Start, host: str, port: int, *, opens: bool, say: Callable[[str], object]) -> None:
    """Serve the page until told to end.

    Args:
        start: the configuration to begin with.
        host: an address of this machine, or a name of it.
        port: where to listen; 0 for any that is free.
        opens: whether to open a browser.
        say: is told the page's URL.

    Raises:
        UserError: starlette or uvicorn is not installed, or nobody can listen there.

    """
    try:
        import uvicorn

        from dualpipe_sim.explore.server import app
    except ImportError as error:
        raise UserError("explore needs starlette and uvicorn: pip install 'dualpipe-sim[explore]'") from error
    with closing(_bound(host, port)) as listening:
        address, port = listening.getsockname()[:2]
        local = ipaddress.ip_address(address).is_loopback
        token = "" if local else secrets.token_urlsafe(16)
        name = f"[{host}]" if ":" in host else host
        hosts = {f"{one}:{port}" for one in ("localhost", "127.0.0.1", "[::1]", name)} if local else set()
        url = f"http://{name}:{port}/{f'?token={token}' if token else ''}"
        say(url)
        if opens:
            timer = Timer(_OPENS_AFTER_S, webbrowser.open, [url])
            timer.daemon = True
            timer.start()
        server = uvicorn.Server(
            uvicorn.Config(
                app(start, frozenset(hosts), token),
                log_config=None,
                access_log=False,
                server_header=False,
                ws="none",
                timeout_graceful_shutdown=1,
            )
        )
        with ending_by(lambda: setattr(server, "should_exit", True)):  # (uvicorn knows no SIGHUP)
            server.run(sockets=[listening])


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket that listens there."""
    where = f"--host {host} --port {port}"
    if not 0 <= port < 2**16:
        raise UserError(f"--port {port}: must be 0 to 65535")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UserError(f"--host {host}: is no address of this machine") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()  # so that whoever reads the URL can ask for it at once
    except OSError as error:
        listening.close()
        why = (error.strerror or str(error)).lower()
        raise UserError(f"{where}: cannot listen there: {why}; --port 0 takes any that is free") from error
    return listening
