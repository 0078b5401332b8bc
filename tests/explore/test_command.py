"""The command explore: where it listens, what it says, how it ends."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import urlopen

import psutil
import pytest

if TYPE_CHECKING:
    from tests.conftest import CommandLine

Serve = Callable[..., "tuple[subprocess.Popen[str], str]"]


def heed_sigint() -> None:
    """Let a child be interrupted even where this process was started in the background, which ignores SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def serve(program: list[str]) -> Iterator[Serve]:
    """Return a function that starts the command, and gives its process and what it prints first."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> tuple[subprocess.Popen[str], str]:
        command = [*program, "explore", "--no-open", "--port", "0", *arguments]
        started.append(
            subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                preexec_fn=heed_sigint,  # noqa: PLW1509 - there are no threads yet
            )
        )
        assert started[-1].stdout is not None
        return started[-1], started[-1].stdout.readline().strip()

    yield start
    for one in started:
        one.kill()
        one.communicate()


def answered(url: str) -> tuple[int, str]:
    try:
        with urlopen(url, timeout=60) as answer:  # noqa: S310 - our own
            return answer.status, answer.read().decode()
    except HTTPError as refusal:
        return refusal.code, refusal.read().decode()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "said"), [(signal.SIGINT, "interrupted"), (signal.SIGHUP, "ended by SIGHUP")])
def test_it_ends_at_a_signal_with_a_line_and_leaves_no_process(serve: Serve, number: signal.Signals, said: str) -> None:
    process, url = serve("figure5")
    assert answered(f"{url}answer?compare=[]")[0] == 200
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) == 2
    process.send_signal(number)
    assert process.communicate(timeout=60)[1] == f"dualpipe-sim: {said}\n"
    assert process.returncode == 128 + number
    assert psutil.wait_procs(workers, timeout=60)[1] == []


def test_for_this_machine_alone_it_asks_for_no_token(serve: Serve) -> None:
    process, url = serve()
    assert url.startswith("http://127.0.0.1:")
    assert url.endswith("/")
    assert answered(url)[0] == 200
    assert answered(url.replace("127.0.0.1", "localhost"))[0] == 200
    listens = [one.laddr.ip for one in psutil.Process(process.pid).net_connections() if one.status == "LISTEN"]
    assert listens == ["127.0.0.1"]


def test_for_a_network_a_token_is_in_the_link_and_without_it_nothing_is_answered(serve: Serve) -> None:
    _, url = serve("--host", "0.0.0.0")  # noqa: S104 - what is tested
    where, token = url.split("?token=")
    here = where.replace("0.0.0.0", "127.0.0.1")  # noqa: S104
    assert len(token) >= 20
    assert answered(here)[0] == 403
    assert answered(f"{here}answer?compare=[]")[0] == 403
    assert answered(f"{here}?token={token}")[0] == 200
    assert answered(f"{here}answer?compare=[]&token={token}")[0] == 200


def test_a_port_in_use_is_a_line(command_line: CommandLine) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = command_line("explore", "--no-open", "--port", port)
    assert done.returncode == 2
    assert done.stderr == (
        f"dualpipe-sim: --host 127.0.0.1 --port {port}: cannot listen there: address already in use; "
        "--port 0 takes any that is free\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "65536"], "--port 65536: must be 0 to 65535"),
        (["--host", "nobody.invalid"], "--host nobody.invalid: is no address of this machine"),
        (["--host", "a" * 300], f"--host {'a' * 300}: is no address of this machine"),
        (["figure6"], "figure6: no such file, and no packaged config of this name; did you mean 'figure5'?"),
    ],
)
def test_what_cannot_be_served_is_a_line(command_line: CommandLine, arguments: list[str], said: str) -> None:
    done = command_line("explore", "--no-open", *arguments)
    assert (done.returncode, done.stderr) == (2, f"dualpipe-sim: {said}\n")
