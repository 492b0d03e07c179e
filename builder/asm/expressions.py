"""Expressions in operands and directives: constants, labels and registers, reduced to one linear form.

    rdi + ControlPage.cpu_status + rcx*1    ->  registers rdi and rcx*1, constant 0x140
    text_end - text_start + 8               ->  labels +text_end and -text_start, constant 8
    ~(Cr0.PG | Cr0.PE)                      ->  constant -0x80000002

A name is a register, a constant of `names` (`A.b.c` is `names["A"].b.c`), or else a label. Python's own parser gives
the precedence; nothing is evaluated by Python itself.
"""

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from sidecar.builder.asm.errors import RefusalError
from sidecar.builder.asm.registers import REGISTERS, RESERVED

_TOKEN = re.compile(
    r"""\s*(?:(?P<number>\d[\w.]*)
          |(?P<character>'(?:[^'\\]|\\.)*')
          |(?P<name>\.?[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)
          |(?P<operator>//|<<|>>|[-+*&|~()]))""",
    re.VERBOSE | re.ASCII,
)
_NUMBER = re.compile(r"0|[1-9][0-9]*|0x[0-9a-fA-F]+|0b[01]+")
_LONGEST_NUMBER: Final = 70  # characters; 64 bits in binary fit, nothing larger is of use
_LARGEST_SHIFT: Final = 64
ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\\": "\\", "'": "'", '"': '"'}

Terms = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Linear:
    """constant + sum of coefficient * label + sum of coefficient * register.

    `registers` keeps the order and repetition of the text, for `[rax + rax]`. `complement` says that the constant came
    from `~`: such a number may be as low as -2**n for a field of n bits, which no ordinary number may.
    """

    constant: int = 0
    labels: Terms = ()
    registers: Terms = ()
    complement: bool = False

    @property
    def is_constant(self) -> bool:
        """True if neither a label nor a register takes part."""
        return not self.labels and not self.registers

    def __str__(self) -> str:
        if not self.labels:
            return number_text(self.constant)
        text = ""
        for name, factor in self.labels:
            sign = "-" if factor < 0 else "+"
            term = name if abs(factor) == 1 else f"{name}*{abs(factor)}"
            text += f" {sign} {term}" if text else sign.strip("+") + term
        return text + signed_text(self.constant)


def number_text(value: int) -> str:
    """A number as the canonical text writes it: small ones decimal, others hexadecimal."""
    return str(value) if -10 < value < 10 else hex(value)


def signed_text(value: int) -> str:
    """' + 0x10', ' - 8' or nothing, to follow another term."""
    return f" {'-' if value < 0 else '+'} {number_text(abs(value))}" if value else ""


@dataclass(frozen=True, slots=True)
class Scope:
    """What names mean in one routine."""

    names: Mapping[str, object]
    routine: str

    def qualify(self, label: str) -> str:
        """The key of a label among all labels: `.again` of `wait_here` is `wait_here.again`."""
        return self.routine + label if label.startswith(".") else label

    def resolve(self, name: str) -> Linear:
        """The register, constant or label that a name stands for."""
        if name in REGISTERS:
            return Linear(registers=((name, 1),))
        if name in RESERVED:
            raise RefusalError(f"'{name}' cannot stand in an expression")
        head, *attributes = name.split(".")
        if not head:
            if len(attributes) > 1:
                raise RefusalError(f"'{name}' is not a local label")
            return Linear(labels=((self.qualify(name), 1),))
        if head not in self.names:
            if attributes:
                raise RefusalError(f"unknown name '{head}' in '{name}'")
            return Linear(labels=((head, 1),))
        return Linear(constant=self._constant(name, head, attributes))

    def _constant(self, name: str, head: str, attributes: list[str]) -> int:
        value = self.names[head]
        for attribute in attributes:
            try:
                value = getattr(value, attribute)
            except (AttributeError, KeyError) as error:
                raise RefusalError(f"unknown name '{name}': {error}") from error
        if isinstance(value, bool) or not isinstance(value, int):
            raise RefusalError(f"'{name}' is not an integer but {type(value).__name__}")
        return int(value)


def parse_expression(text: str, scope: Scope) -> Linear:
    """The linear form of an expression; raises RefusalError for anything that is not one."""
    leaves: dict[str, Linear] = {}
    parts: list[str] = []
    position = 0
    stripped = text.rstrip()
    while position < len(stripped):
        match = _TOKEN.match(stripped, position)
        if match is None:
            raise RefusalError(f"cannot read '{stripped[position:].strip()}' in the expression '{stripped}'")
        position = match.end()
        if match["operator"]:
            parts.append(match["operator"])
            continue
        key = f"_{len(leaves)}"
        leaves[key] = _leaf(match, scope)
        parts.append(key)
    try:
        tree = ast.parse(" ".join(parts), mode="eval")
    except (SyntaxError, MemoryError, RecursionError) as error:
        raise RefusalError(f"'{stripped}' is not a well-formed expression") from error
    return _evaluate(tree.body, leaves)


def parse_constant(text: str, scope: Scope) -> int:
    """An expression that must be a plain number."""
    value = parse_expression(text, scope)
    if not value.is_constant:
        raise RefusalError(f"'{text}' must be a constant")
    return value.constant


def _leaf(match: re.Match[str], scope: Scope) -> Linear:
    if match["number"]:
        return Linear(constant=_number(match["number"]))
    if match["character"]:
        return Linear(constant=_character(match["character"]))
    return scope.resolve(match["name"])


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text) or len(text) > _LONGEST_NUMBER:
        raise RefusalError(f"'{text}' is not a number: write decimal without leading zeros, 0x or 0b")
    return int(text, 0)


def _character(text: str) -> int:
    body = text[1:-1]
    if len(body) == 2 and body[0] == "\\" and body[1] in ESCAPES:
        return ord(ESCAPES[body[1]])
    if len(body) != 1 or not body.isascii():
        raise RefusalError(f"{text} is not one ASCII character")
    return ord(body)


def _evaluate(node: ast.expr, leaves: Mapping[str, Linear]) -> Linear:
    match node:
        case ast.Name(id=key):
            return leaves[key]
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _evaluate(operand, leaves)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _scale(_evaluate(operand, leaves), -1)
        case ast.UnaryOp(op=ast.Invert(), operand=operand):
            return Linear(~_plain(_evaluate(operand, leaves), "~"), complement=True)
        case ast.BinOp(left=left, op=op, right=right):
            return _binary(_evaluate(left, leaves), op, _evaluate(right, leaves))
    raise RefusalError("only + - * // << >> & | ~ and parentheses are understood in expressions")


def _binary(left: Linear, op: ast.operator, right: Linear) -> Linear:
    match op:
        case ast.Add():
            return _add(left, right)
        case ast.Sub():
            return _add(left, _scale(right, -1))
        case ast.Mult():
            return _multiply(left, right)
        case ast.BitAnd() | ast.BitOr():
            symbol, function = _BITWISE[type(op)]
            complement = left.complement or right.complement
            return Linear(function(_plain(left, symbol), _plain(right, symbol)), complement=complement)
        case ast.LShift() | ast.RShift() | ast.FloorDiv():
            symbol, function = _ARITHMETIC[type(op)]
            return Linear(_checked(symbol, function, _plain(left, symbol), _plain(right, symbol)))
    raise RefusalError("only + - * // << >> & | ~ and parentheses are understood in expressions")


_BITWISE: Final[dict[type[ast.operator], tuple[str, Callable[[int, int], int]]]] = {
    ast.BitAnd: ("&", lambda left, right: left & right),
    ast.BitOr: ("|", lambda left, right: left | right),
}
_ARITHMETIC: Final[dict[type[ast.operator], tuple[str, Callable[[int, int], int]]]] = {
    ast.LShift: ("<<", lambda left, right: left << right),
    ast.RShift: (">>", lambda left, right: left >> right),
    ast.FloorDiv: ("//", lambda left, right: left // right),
}


def _checked(symbol: str, function: Callable[[int, int], int], left: int, right: int) -> int:
    if symbol == "//" and right == 0:
        raise RefusalError("division by zero in an expression")
    if symbol != "//" and not 0 <= right <= _LARGEST_SHIFT:
        raise RefusalError(f"a shift by {right} is out of range 0 to {_LARGEST_SHIFT}")
    return function(left, right)


def _plain(value: Linear, symbol: str) -> int:
    if not value.is_constant:
        kind = "label" if value.labels else "register"
        raise RefusalError(f"'{symbol}' cannot be applied to a {kind}")
    return value.constant


def _add(left: Linear, right: Linear) -> Linear:
    labels = dict(left.labels)
    for name, factor in right.labels:
        labels[name] = labels.get(name, 0) + factor
    return Linear(
        left.constant + right.constant,
        tuple((name, factor) for name, factor in labels.items() if factor),
        left.registers + right.registers,
    )


def _multiply(left: Linear, right: Linear) -> Linear:
    if left.is_constant:
        return _scale(right, left.constant)
    if right.is_constant:
        return _scale(left, right.constant)
    raise RefusalError("one side of '*' must be a constant")


def _scale(value: Linear, factor: int) -> Linear:
    if value.registers and factor < 1:
        raise RefusalError("a register can be added or scaled, not subtracted")
    return Linear(
        value.constant * factor,
        tuple((name, count * factor) for name, count in value.labels if factor),
        tuple((name, count * factor) for name, count in value.registers),
    )
