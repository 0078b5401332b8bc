"""Arguments as ``--flag value`` in a text, and what is asked of them."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeAlias

from dualpipe_sim.errors import UserError, quoted

Flags: TypeAlias = Mapping[str, Any]
"""Values by flag, without the hyphens before it: a text, True for a bare flag, or a list of several."""


def flags_of(text: str, source: str) -> dict[str, Any]:
    """Return the flags of a text with their values.

    >>> flags_of('''TP=2  # ranks
    ... ARGS=(
    ...   --tensor-model-parallel-size ${TP}
    ...   --recompute-modules core_attn moe_act --bf16
    ... )''', "x.sh")
    {'tensor-model-parallel-size': '2', 'recompute-modules': ['core_attn', 'moe_act'], 'bf16': True}

    Raises:
        UserError: quotes that do not close, or a variable that the text does not say.

    """
    variables: dict[str, str] = {}
    flags: dict[str, Any] = {}
    for line in text.replace("\\\n", " ").splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise UserError(f"{source}: cannot be read as words: {error}, in {quoted(line.strip())}") from error
        flag: str | None = None
        for word in words:
            assigned = re.fullmatch(r"(?:export\s+)?([A-Za-z_]\w*)=(.*)", word)
            if assigned and flag is None and not assigned[2].startswith("("):
                variables[assigned[1]] = _filled(assigned[2], variables, source)
                for inner in shlex.split(variables[assigned[1]]) if "--" in assigned[2] else ():
                    flag = _next(flags, flag, inner)
                flag = None
            else:
                flag = _next(flags, flag, _without_parentheses(word), variables, source)
    return flags


def _next(
    flags: dict[str, Any], flag: str | None, word: str, variables: Mapping[str, str] | None = None, source: str = ""
) -> str | None:
    """Take one more word in, and return the flag that the next one may be a value of."""
    if re.match(r"--[A-Za-z]", word):
        name, equals, value = word.removeprefix("--").replace("_", "-", word.count("_")).partition("=")
        flags[name] = value if equals else True
        return name
    if (
        flag is None
        or not word
        or (re.fullmatch(r"\$\{?\w+(\[@\])?\}?", word) and word.strip("${}") not in (variables or {}))
    ):
        if flag is not None and word and "[@]" not in word:
            raise UserError(f"{source}: --{flag}: {word} is not said in the file; write its value there")
        return None if not word else flag
    value = _filled(word, variables or {}, source)
    so_far = flags[flag]
    flags[flag] = value if so_far is True else [*(so_far if isinstance(so_far, list) else [so_far]), value]
    return flag


def _without_parentheses(word: str) -> str:
    """Return a word without what begins or ends an array."""
    return word.removeprefix("(").removesuffix(")") if word.count("(") != word.count(")") else word


def _filled(word: str, variables: Mapping[str, str], source: str) -> str:
    """Return a word with variables and their defaults in it filled in, and sums worked out."""

    def of(match: re.Match[str]) -> str:
        name, default = match["name"] or match["bare"], match["default"]
        return variables.get(name, default if default is not None else match[0])

    filled = re.sub(r"\$\{(?P<name>\w+)(?::?-(?P<default>[^}]*))?\}|\$(?P<bare>[A-Za-z_]\w*)", of, word)
    sums = re.fullmatch(r"\$\(\((?P<sum>[\d\s+*/()-]+)\)\)", filled)
    return (
        str(worked_out(ast.parse(sums["sum"].replace("/", "//").strip(), mode="eval").body, source)) if sums else filled
    )


_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: lambda a, b: a // b,
}
_MOST_LAYERS = 10_000


def worked_out(node: ast.expr, source: str) -> Any:  # noqa: ANN401 - a number or a list of them
    """Return what an expression of numbers and lists comes to.

    Raises:
        UserError: anything else in it, or too long a list.

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
        if isinstance(node.op, ast.FloorDiv) and right == 0:
            raise UserError(f"{source}: divides by zero")
        return _OPERATORS[type(node.op)](left, right)
    raise UserError(f"{source}: must be whole numbers, lists, + and *")


def value_of(value: Any) -> Any:  # noqa: ANN401 - whatever YAML has there
    """Return what a flag's value in YAML is as a text, or as a list of words."""
    if isinstance(value, bool) or value is None:
        return value is None or value
    return [str(one) for one in value] if isinstance(value, (list, tuple)) else str(value)


class Arguments:
    """Arguments that are asked for, in Megatron's defaults and types; what nobody asks for stays to be named."""

    def __init__(self, flags: Flags, source: str) -> None:
        self.flags, self.source = flags, source
        self._asked: set[str] = set()
        self.notes: list[str] = []

    def given(self, flag: str) -> bool:
        """Return whether a flag is there, and not said to be false."""
        self._asked.add(flag)
        return self.flags.get(flag) not in (None, False, "False", "false")

    def text(self, flag: str, default: str | None = None) -> str | None:
        """Return a value as text."""
        self._asked.add(flag)
        value = self.flags.get(flag, default)
        if value is True:
            raise self.wrong(flag, "needs a value")
        return " ".join(value) if isinstance(value, list) else None if value is None else str(value)

    def words(self, flag: str) -> list[str]:
        """Return a value as words."""
        return (self.text(flag) or "").replace(",", " ").split()

    def whole(self, flag: str, default: int | None = None) -> int:
        """Return a whole number.

        Raises:
            UserError: it is none, or missing without a default.

        """
        value = self.text(flag)
        if value is None:
            if default is None:
                raise self.wrong(flag, "is missing")
            return default
        if not re.fullmatch(r"\d{1,12}", value):
            raise self.wrong(flag, f"must be a whole number, got {quoted(value)}")
        return int(value)

    def fraction(self, flag: str, default: float) -> float:
        """Return a number."""
        try:
            return float(self.text(flag) or default)
        except ValueError as error:
            raise self.wrong(flag, f"must be a number, got {quoted(self.text(flag))}") from error

    def wrong(self, flag: str, what: str) -> UserError:
        """Return the error of a flag."""
        return UserError(f"{self.source}: --{flag}: {what}")

    def note(self, flag: str, what: str) -> None:
        """Name a flag that is not modelled as it is meant."""
        self.notes.append(f"--{flag}: {what}")

    def left(self, not_modelled: Mapping[str, str], neither: tuple[str, ...], told: Collection[str]) -> Iterable[str]:
        """Yield a line for each flag that nobody asked for and that may change time or memory.

        Args:
            not_modelled: flags that are not modelled, with what happens instead.
            neither: how flags begin that change neither.
            told: flags that say more of one that is named already.

        """
        for flag in self.flags:
            if flag in not_modelled and self.given(flag):
                yield f"--{flag}: is not modelled; {not_modelled[flag]}"
            elif flag not in self._asked and flag not in told and not flag.startswith(neither):
                yield f"--{flag}: is not known here, and left out"
