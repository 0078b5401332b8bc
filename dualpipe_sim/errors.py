"""What can be wrong with what a user gave; each message is one sentence naming value, place and way out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from reprlib import Repr
from unicodedata import category

_LONGEST_QUOTE = 60
_LONGEST_MESSAGE = 1_500
_BEGINNING = 1_100
"""Letters of a long message that stay at its beginning, where the place is; the way out is at its end."""
_QUOTER = Repr()  # looks at a part of a value only: what YAML repeats by reference may be endless written out
_QUOTER.maxlevel = 4
_QUOTER.maxdict = _QUOTER.maxlist = _QUOTER.maxtuple = 12
_QUOTER.maxstring = _QUOTER.maxlong = _QUOTER.maxother = 4 * _LONGEST_QUOTE


class UserError(ValueError):
    """A mistake in what the user gave: one sentence that names value, place and way out.

    >>> from dualpipe_sim.sweeps import read_table
    >>> read_table("table.txt")
    Traceback (most recent call last):
        ...
    dualpipe_sim.errors.UserError: table.txt: is no table; its name must end in one of .csv, .jsonl, .parquet
    """

    def __str__(self) -> str:
        # whatever it quotes: a name that moves a terminal's cursor, or a file's whole content in one line
        text = visible(super().__str__())
        if len(text) <= _LONGEST_MESSAGE:
            return text
        return f"{text[:_BEGINNING]} … {text[_BEGINNING - _LONGEST_MESSAGE :]}"


class ConfigError(UserError):
    """A configuration that cannot be used; the message starts with the file and the key.

    >>> from dualpipe_sim import simulate
    >>> simulate("figure6")
    Traceback (most recent call last):
        ...
    dualpipe_sim.errors.ConfigError: figure6: no such file, and no packaged config of this name; did you mean 'figure5'?
    """


class ScheduleError(UserError):
    """A schedule that does not exist, refuses these sizes, or breaks a rule of pipeline training.

    >>> from dualpipe_sim import build
    >>> build("dualpip", ranks=4, micro_batches=8)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    dualpipe_sim.errors.ScheduleError: unknown schedule 'dualpip'; did you mean 'dualpipe'? ...
    """


class DeadlockError(ScheduleError):
    r"""An order in which ranks wait for each other in a circle; the message spells the circle out.

    >>> from dualpipe_sim import parse_order, simulate
    >>> simulate(schedule=parse_order("0F0,0B0\n1B0,1F0"))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    dualpipe_sim.errors.DeadlockError: config: schedule: file: the order deadlocks: rank 1 runs 1F0 after 1B0, ...
    """


class UnfitCostsError(UserError):
    """Costs that do not fit a schedule, such as a list of times for another number of stages."""


class TooLargeError(UserError):
    """More than this machine has memory for, or than is worked out; refused before anything of it is built."""


def visible(text: str) -> str:
    r"""Return a text in which what acts on a terminal or a page, and shows nothing itself, is written out.

    Such are control characters and escapes, marks that turn the direction of writing round, and halves of a surrogate,
    which no file can hold. Lines and tabs stay.

    >>> visible("a\x1b[31m\u202eb \N{GREEK SMALL LETTER MU}")
    'a\\x1b[31m\\u202eb μ'
    """
    if text.isprintable():
        return text
    lines = text.split("\n")  # most of which hold nothing of the kind
    return "\n".join(one if one.isprintable() else "".join(map(_seen, one)) for one in lines)


def unwritable(path: object, error: OSError) -> UserError:
    """Return the line that says why a file cannot be written."""
    return UserError(f"{path}: cannot be written: {error.strerror or error}")


def is_text(value: str) -> bool:
    r"""Return whether a text can be written to a file; one with half a surrogate pair cannot.

    >>> is_text("\N{OLD PERSIAN SIGN A}"), is_text("\ud800")
    (True, False)
    """
    return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)


def _seen(letter: str) -> str:
    is_seen = letter.isprintable() or letter == "\t" or category(letter) == "Zs"
    return letter if is_seen else repr(letter)[1:-1]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known word that this is a slip of, or an empty string.

    A slip is near in meaning, too: ``kv_heads`` is not ``v_head``, though the letters nearly are.

    >>> did_you_mean("micro_batchs", ["ranks", "micro_batches"]), did_you_mean("kv_heads", ["v_head", "heads"])
    ("; did you mean 'micro_batches'?", '')
    """
    from difflib import get_close_matches

    close = [one for one in get_close_matches(word, list(known), n=5) if _is_slip(word, one)]
    return f"; did you mean '{close[0]}'?" if close else ""


_SHORT_WORD = 3
_NEAR = 0.7
_VERY_NEAR = 0.85


def _is_slip(word: str, meant: str) -> bool:
    """Whether a word is another one with a slip: word for word, or, where a mark is amiss, altogether."""
    words, others = (re.split(r"[^a-z0-9]+", one.lower()) for one in (word, meant))
    if len(words) == len(others) > 1:
        return all(map(_is_slip_of_word, words, others))
    whole, other = "".join(words), "".join(others)
    near = _NEAR if len(words) == len(others) else _VERY_NEAR
    return other.startswith(whole) or (whole[:1] == other[:1] and _likeness(whole, other) >= near)


def _is_slip_of_word(word: str, meant: str) -> bool:
    """Whether one of several words is another one with a slip; a short one, ``v`` or ``qk``, says too much for that."""
    if min(len(word), len(meant)) <= _SHORT_WORD:
        return word == meant or sorted(word) == sorted(meant) or f"{word}s" == meant or word == f"{meant}s"
    return word[0] == meant[0] and _likeness(word, meant) >= _NEAR


def _likeness(one: str, other: str) -> float:
    from difflib import SequenceMatcher

    return SequenceMatcher(None, one, other).ratio()


def either(known: Sequence[str]) -> str:
    """Return names that something must be one of, in words.

    >>> either(["a", "b", "c"])
    "'a', 'b' or 'c'"
    """
    return f"{', '.join(map(repr, known[:-1]))} or {known[-1]!r}"


def quoted(value: object) -> str:
    """Return a value as Python writes it, on one line, cut short with "…" where that is long."""
    try:
        text = _QUOTER.repr(value)
    except ValueError:  # Python writes out no numbers of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}…"


def plain(key: object) -> str:
    """Return a key for a message as it is, or quoted where that would not read as one: long, or not to be printed."""
    return key if isinstance(key, str) and key.isprintable() and quoted(key) == repr(key) else quoted(key)
