"""The last few answers to questions that are asked again and again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Kept(Generic[Answer]):
    """Answers by question, of which those go that were not asked for longest, where there is too much of them.

    (``functools.lru_cache`` takes its key for what it is to compute from, and counts answers; here a short key stands
    for much, and an answer for its size.)

    >>> squares = Kept[int](most=20, size=abs)
    >>> [squares.of(key, lambda: key * key) for key in (3, 4, 3, 9)]
    [9, 16, 9, 81]
    >>> squares.of(3, lambda: 0), squares.of(4, lambda: 0)
    (9, 0)

    Args:
        most: how much is kept, in what ``size`` counts; an answer of more is not.
        size: how large an answer is.

    """

    def __init__(self, most: float, size: Callable[[Answer], float]) -> None:
        self._most, self._size = most, size
        self._total = 0.0
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
            if self._size(answer) <= self._most and question not in self._answers:
                self._answers[question] = answer
                self._total += self._size(answer)
            while self._total > self._most:
                _, oldest = self._answers.popitem(last=False)
                self._total -= self._size(oldest)
        return answer
