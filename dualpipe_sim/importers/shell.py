"""Flags in a launch script: its words, variables, arrays and sums as the shell has them.

Statements are not run: what stands in either branch of an ``if`` counts, and a value that the script gets from outside
(``$1``, an environment's variable) stays as it is written, to be refused by whoever needs it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any

from dualpipe_sim.errors import UserError, quoted

_INSIDE = r"\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)"  # parentheses, as deep as scripts have them
_WHOLE = rf"\$\{{(?:[^{{}}]|\{{[^{{}}]*\}})*\}} | `[^`]*` | \${_INSIDE}"  # ${..}, `..`, $(..), $((..))
_PIECE = re.compile(
    rf"""
    '(?P<single>[^']*)'
    | "(?P<double>(?:\\. | {_WHOLE} | [^"\\])*)"
    | \\(?P<escaped>.)
    | (?P<whole>{_WHOLE})
    | (?P<plain>[^\s'"])
    """,
    re.VERBOSE | re.DOTALL,
)
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::?[-=](?P<default>[^}]*))?\}|\$(?P<bare>\w+)")
_LONE = re.compile(r"\$\{?(\w+)(\[[@*]\])?\}?")
_MORE = re.compile(r"(?i)args|arguments|flags|opts|options|params|extra|more|common|additional")
"""In names of variables that hold flags, and no value of one."""
_OTHERS = frozenset(
    ["srun", "sbatch", "salloc", "mpirun", "docker", "podman", "enroot", "echo", "printf", "pip", "git", "rsync", "rm"]
)
"""Commands whose flags are none of the training's."""
_SUM = re.compile(r"\$\(\((.*?)\)\)", re.DOTALL)
_OPENING = re.compile(r"(\w+)\+?=\(")
_SEMICOLON = re.compile(r";+(?=\s|$)")
_FLAG = re.compile(r"--([A-Za-z][\w.-]*)(?:=(.*))?", re.DOTALL)
_SEVERAL = re.compile(r"(?s)^--[A-Za-z][\w-]*\s|\s--[A-Za-z]")
_RUN = re.compile(r".*\.py|python3?|torchrun|-[A-Za-z]+")
"""What a launcher runs, or an option of one letter: no value of a flag."""
_ENDS = frozenset({"|", "||", "|&", "&&", "&"})
_REDIRECTION = re.compile(r"\d?&?[<>].*")


class _Mark(Enum):
    """What parts words."""

    END = "the end of a statement"
    OPEN = "the beginning of an array"
    CLOSE = "its end"


def flags_of(text: str, source: str, settings: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the flags of a text with their values; the last one where a flag comes again.

    A variable of flags that the text does not say is there as ``$NAME``.

    >>> flags_of('''TP=2  # ranks
    ... ARGS=(
    ...   --tensor-model-parallel-size ${TP}
    ...   --recompute-modules core_attn moe_act --bf16
    ... )''', "x.sh")
    {'tensor-model-parallel-size': '2', 'recompute-modules': ['core_attn', 'moe_act'], 'bf16': True}

    Args:
        text: the script, or flags alone.
        source: what to call it in errors.
        settings: what it gets from outside: variables in capitals, flags otherwise.

    Raises:
        UserError: quotes that do not close, or a sum that is none.

    """
    script = _Script(source)
    given = dict(settings or {})
    script.variables |= {name: value for name, value in given.items() if name == name.upper()}
    script.take(text)
    flags = {name.lstrip("-").replace("_", "-"): value for name, value in given.items() if name != name.upper()}
    return script.flags | flags


class _Script:
    """What a script said so far.

    Attributes:
        flags: values by flag.
        variables: values by name; of arrays none, as their flags are taken where they stand.

    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.flags: dict[str, Any] = {}
        self.variables: dict[str, str] = {}
        self._flag: str | None = None  # which the next word may be a value of
        self._others = False  # whether the statement's flags are those of another command

    def take(self, text: str) -> None:
        """Take in a text, by itself: no flag of it has a value behind it, or before."""
        self._flag, others = None, self._others
        self._others = False
        for word in self._words(text.replace("\r\n", "\n").replace("\\\n", " ")):
            if isinstance(word, _Mark) or word in _ENDS or _REDIRECTION.fullmatch(word):
                self._flag, self._others = None, False
            elif word.strip():
                self._word(word)
        self._flag, self._others = None, others

    def _words(self, text: str) -> Iterator[str | _Mark]:
        """Yield words without their quotes, and what parts them."""
        at, in_array = 0, False
        while at < len(text):
            if text[at].isspace():
                if text[at] == "\n" and not in_array:
                    yield _Mark.END
                at += 1
            elif text[at] == "#":
                at += len(text[at:].partition("\n")[0])
            elif found := _OPENING.match(text, at):
                self.variables[found[1]] = ""
                at, in_array = found.end(), True
                yield _Mark.OPEN
            elif text[at] == ")" and in_array:
                at, in_array = at + 1, False
                yield _Mark.CLOSE
            elif found := _SEMICOLON.match(text, at):
                at = found.end()
                yield _Mark.END
            else:
                word, at = self._next_word(text, at, in_array=in_array)
                yield word

    def _next_word(self, text: str, at: int, *, in_array: bool) -> tuple[str, int]:
        """Return the word that begins somewhere, and where it ends."""
        pieces: list[str] = []
        begin, depth = at, 0
        while at < len(text) and not text[at].isspace() and not _SEMICOLON.match(text, at):
            if in_array and text[at] == ")" and not depth:
                break
            found = _PIECE.match(text, at)
            if found is None:
                line = text[begin:].partition("\n")[0]
                raise UserError(f"{self.source}: cannot be read as words: No closing quotation, in {quoted(line)}")
            if found["double"] is not None:
                pieces.append(re.sub(r'\\([$`"\\])', r"\1", found["double"]))
            else:
                pieces.append(next(one for one in found.groups() if one is not None))
            depth += (found["plain"] == "(") - (found["plain"] == ")")
            at = found.end()
        return "".join(pieces), at

    def _word(self, word: str) -> None:
        filled, lone = self._filled(word), _LONE.fullmatch(word)
        assigned = re.fullmatch(r"([A-Za-z_]\w*)(\+?)=(.*)", filled, re.DOTALL)
        flag = _FLAG.fullmatch(filled)
        if assigned and self._flag is None:
            self._assign(assigned[1], (self.variables.get(assigned[1], "") if assigned[2] else "") + assigned[3])
        elif lone and self.variables.get(lone[1]) == "":  # an array, whose flags are taken where it is, or nothing
            self._flag = None if lone[2] else self._flag
        elif flag and not self._others:
            self._flag = flag[1].replace("_", "-")
            self.flags[self._flag] = True if flag[2] is None else flag[2]
        elif self._holds_flags(filled):  # an array's element, or a command in quotes
            self.take(filled)
        elif lone and (lone[2] or _MORE.search(lone[1])):
            self.flags[f"${lone[1]}"], self._flag = True, None
        elif self._flag is None or filled.startswith("--") or _RUN.fullmatch(filled):
            self._others = filled in _OTHERS or (self._others and not _RUN.fullmatch(filled))
            self._flag = None
        elif filled not in ("$@", "$*"):
            self._value(self._flag, filled, lone=lone is not None and filled == word)

    def _holds_flags(self, word: str) -> bool:
        """Return whether a word is a text of several words, with flags of the training."""
        ours = not self._others or re.search(r"\.py\b|torchrun", word) is not None
        return ours and _SEVERAL.search(word) is not None and next(self._words(word), None) != word

    def _assign(self, name: str, value: str) -> None:
        value = re.sub(rf"\$\{{{name}\}}|\${name}\b", "", value)  # itself, which was not there yet
        self.variables[name] = value
        if _SEVERAL.search(f" {value}"):
            self.take(value)

    def _value(self, flag: str, value: str, *, lone: bool) -> None:
        so_far = self.flags[flag]
        if so_far is True:
            self.flags[flag] = value
        elif lone:  # more flags, rather
            self.flags[f"${value.strip('${}')}"] = True
        else:
            self.flags[flag] = [*(so_far if isinstance(so_far, list) else [so_far]), value]

    def _filled(self, word: str) -> str:
        """Return a word with variables and their defaults in it filled in, and sums worked out."""

        def of(match: re.Match[str]) -> str:
            value, default = self.variables.get(match["name"] or match["bare"]), match["default"]
            if value is None or (not value and default is not None):
                return match[0] if default is None else self._filled(re.sub("[\"']", "", default))
            return value

        def total(match: re.Match[str]) -> str:
            names = re.sub(r"\$?\b([A-Za-z_]\w*)", lambda name: self.variables.get(name[1]) or name[0], match[1])
            if re.search(r"[A-Za-z_$]", names):
                return match[0]
            try:
                return str(worked_out(ast.parse(names.replace("/", "//").strip(), mode="eval").body, self.source))
            except UserError:
                raise
            except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
                raise UserError(f"{self.source}: {quoted(match[0])} is no sum") from error

        return _SUM.sub(total, _VARIABLE.sub(of, word))


_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Mod: lambda a, b: a % b,
}
_MOST_LAYERS = 10_000
_MOST = 10**12


def worked_out(node: ast.expr, source: str) -> Any:  # noqa: ANN401 - a number or a list of them
    """Return what an expression of numbers and lists comes to.

    Raises:
        UserError: anything else in it, too large a number or too long a list.

    """
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.List):
        return [worked_out(one, source) for one in node.elts]
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = worked_out(node.left, source), worked_out(node.right, source)
        sizes = [len(one) if isinstance(one, list) else abs(one) for one in (left, right)]
        both_lists = isinstance(left, list) and isinstance(right, list)
        if (isinstance(left, list) or isinstance(right, list)) and (
            (sizes[0] * sizes[1] > _MOST_LAYERS and not both_lists) or both_lists != isinstance(node.op, ast.Add)
        ):
            raise UserError(f"{source}: cannot be worked out: a list of too many, or not of numbers and lists")
        if max(sizes) > _MOST:
            raise UserError(f"{source}: cannot be worked out: too large a number")
        if isinstance(node.op, (ast.FloorDiv, ast.Mod)) and right == 0:
            raise UserError(f"{source}: divides by zero")
        return _OPERATORS[type(node.op)](left, right)
    raise UserError(f"{source}: must be whole numbers, lists, + and *")
