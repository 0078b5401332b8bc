"""A worker process: takes an evaluation and then points from stdin, gives a row for each to stdout.

It ends as soon as its stdin does, also in the middle of a point: its parent has no more use for it, or is gone.
"""

from __future__ import annotations

import os
import pickle
import sys
from queue import SimpleQueue
from threading import Thread
from typing import Any

from dualpipe_sim.batch.points import attempt

LENGTH_BYTES = 8
"""Of the number before each message, its length: what its sender died of in the middle is none."""


def main() -> None:
    """Serve the parent, and end at once: a thread waits for stdin, which Python's own end would wait for."""
    try:
        _serve()
    except OSError:
        os._exit(0)  # nobody reads its answers any more
    except BaseException:  # noqa: BLE001 - whatever it is, the program ends with it
        sys.excepthook(*sys.exc_info())
        os._exit(1)


def _serve() -> None:
    received: SimpleQueue[Any] = SimpleQueue()
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)  # what an evaluation prints is no row
        Thread(target=_receive, args=(received,), daemon=True).start()
        evaluate = received.get()
        pickle.dump(None, answers)
        answers.flush()
        while True:
            pickle.dump(attempt(evaluate, received.get()), answers)
            answers.flush()


def _receive(received: SimpleQueue[Any]) -> None:
    try:
        while True:
            received.put(pickle.loads(_whole(int.from_bytes(_whole(LENGTH_BYTES), "big"))))  # noqa: S301 - our parent's
    except Exception:  # noqa: BLE001 - whatever it is, the program ends with it
        sys.excepthook(*sys.exc_info())
        os._exit(1)


def _whole(length: int) -> bytes:
    """Return the next bytes that the parent sends; where it sends no more, this process ends."""
    content = sys.stdin.buffer.read(length)
    if len(content) < length:
        os._exit(0)
    return content
