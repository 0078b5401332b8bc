"""The last few answers to questions that are asked again and again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Kept(Generic[Answer]):
    """Answers by question, of which the oldest goes where there are too many.

    (``functools.lru_cache`` takes its key for what it is to compute from; here a short key stands for much.)

    >>> squares = Kept[int](most=2)
    >>> [squares.of(key, lambda: key * key) for key in (3, 3, 4)]
    [9, 9, 16]

    Args:
        most: how many answers are kept.

    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._answers: OrderedDict[Hashable, Answer] = OrderedDict()
        self._lock = Lock()

    def of(self, question: Hashable, find: Callable[[], Answer]) -> Answer:
        """Return the answer that is kept, or find it."""
        with self._lock:
            if question in self._answers:
                self._answers.move_to_end(question)
                return self._answers[question]
        answer = find()  # (not under the lock, since it may take long, and fail)
        with self._lock:
            self._answers[question] = answer
            if len(self._answers) > self._most:
                self._answers.popitem(last=False)
        return answer
