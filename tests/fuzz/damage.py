"""Damage that befalls any text or bytes: cut off, doubled, swapped, filled with what no writer wrote."""

from __future__ import annotations

from random import Random

STRANGE = (
    "\x00", "\x1b]0;t\x07", "\u202e", "\ufeff", "\ud800", "é", "🜁", "\r", "=1+1", "<script>",
    "$x^$", "[/b]", "%s", "{0}",
)  # fmt: skip
"""Letters and words that files, terminals, pages and pictures take for something else."""

NUMBERS = (
    "0", "-1", "-0.0", "1e-320", "5e-324", "1e308", "-1e308", "1e400", "nan", "inf", "-inf", ".nan", ".inf", "0.5",
    "2147483648", "9223372036854775808", "1" + "0" * 400, "9" * 5_000, "1_000", "0x10", "1e3", "٣", "true", "null",
)  # fmt: skip
"""Numbers, or nearly, where others were expected."""


def damaged(content: bytes, chance: Random) -> bytes:
    """Return bytes with one to three damages."""
    for _ in range(chance.randint(1, 3)):
        content = chance.choice(_DAMAGES)(content, chance)
    return content


def _place(content: bytes, chance: Random) -> int:
    return chance.randint(0, len(content))


def _cut(content: bytes, chance: Random) -> bytes:
    return content[: _place(content, chance)]


def _without(content: bytes, chance: Random) -> bytes:
    one, two = sorted((_place(content, chance), _place(content, chance)))
    return content[:one] + content[two:]


def _twice(content: bytes, chance: Random) -> bytes:
    one, two = sorted((_place(content, chance), _place(content, chance)))
    return content[:two] + content[one:two] + content[two:]


def _byte(content: bytes, chance: Random) -> bytes:
    at = _place(content, chance)
    return content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :]


def _strange(content: bytes, chance: Random) -> bytes:
    at = _place(content, chance)
    return content[:at] + chance.choice(STRANGE).encode("utf-8", "surrogatepass") + content[at:]


def _number(content: bytes, chance: Random) -> bytes:
    """Put another number where one stands, if one does."""
    digits = [at for at, byte in enumerate(content) if byte in b"0123456789"]
    at = chance.choice(digits) if digits else 0
    return content[:at] + chance.choice(NUMBERS).encode() + content[at + 1 :]


def _lines_swapped(content: bytes, chance: Random) -> bytes:
    lines = content.splitlines(keepends=True)
    if len(lines) > 1:
        one, two = chance.randrange(len(lines)), chance.randrange(len(lines))
        lines[one], lines[two] = lines[two], lines[one]
    return b"".join(lines)


def _encoded(content: bytes, chance: Random) -> bytes:
    text = content.decode("utf-8", "replace")
    return text.encode(chance.choice(("utf-16", "utf-8-sig", "latin-1", "utf-32")), "replace")


_DAMAGES = (
    _cut,
    _without,
    _twice,
    _byte,
    _byte,
    _strange,
    _strange,
    _number,
    _number,
    _number,
    _lines_swapped,
    _encoded,
)
