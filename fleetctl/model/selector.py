"""The one selector language: `type=sensor,location in (oslo,bergen),firmware<2.1.0 or group=canary`.

    either      = all { "or" all }                      the comma is `and` and binds like it, `or` is weaker
    all         = part { ("," | "and") part }
    part        = "(" either ")" | "!" field | field [ operator value | ("in" | "notin") "(" value { "," value } ")" ]
    field       = id | type | location | status | firmware | idle | twin.PATH | label.KEY | KEY (a label)

`!=` and `notin` are the opposites of `=` and `in`, so they also match a device that has no such value; an order (`<`, `>=`, …)
never matches an absent value. A bare field asks whether there is one. Values may be globs, unless they are quoted.
`group=NAME` stands for the selector that is saved under the name; where none is, and as `label.group`, it is a label.
"""

import heapq
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TypeVar

from fleetctl.errors import UsageError
from fleetctl.model.criteria import Criterion, DeviceView, criterion
from fleetctl.model.device import printable, rank

DEPTH_LIMIT = 50
LENGTH_LIMIT = 20_000
GROUPS_LIMIT = 200
GROUP = "group"
_TOKEN = re.compile(
    r"""\s*(?:(?P<punctuation>[(),])|(?P<operator><=|>=|!=|==|=|<|>|!)|(?P<quoted>"(?:[^"\\]|\\["\\])*")|(?P<word>[^\s(),=<>!"]+))"""
)
_KEYWORDS = ("and", "or", "in", "notin")
_ORDERS = ("=", "==", "!=", "<", "<=", ">", ">=")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds."""

    parts: "tuple[Node, ...]"

    def holds(self, view: DeviceView) -> bool:
        return all(part.holds(view) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Either:
    """At least one part holds."""

    parts: "tuple[Node, ...]"

    def holds(self, view: DeviceView) -> bool:
        return any(part.holds(view) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not hold."""

    part: "Node"

    def holds(self, view: DeviceView) -> bool:
        return not self.part.holds(view)


Node = All | Either | Not | Criterion


@dataclass(frozen=True, slots=True)
class Selector:
    """A parsed selector: `root` is the tree, for whoever compiles it to something else."""

    text: str
    root: Node

    def matches(self, view: DeviceView) -> bool:
        return self.root.holds(view)

    @property
    def fields(self) -> frozenset[str]:
        """The fields that it asks for (`type`, `twin.interval`, `label.site`)."""
        return frozenset(_fields(self.root))

    @property
    def is_live(self) -> bool:
        """Whether it asks for what devices report, which grows old in a registry."""
        return any(_is_live(field) for field in self.fields)

    @property
    def lasting(self) -> "Selector | None":
        """What it asks of what does not grow old: all that it may match whatever devices report; None for every device."""
        root = _lasting(self.root)
        return None if root is None else Selector(self.text, root)


def parse(text: str, groups: Mapping[str, str] | None = None) -> Selector:
    """Raises `UsageError` that says what is wrong and where (columns count from 1); an empty selector is never everything.

    `groups` are selectors by the names that they are saved under.
    """
    return Selector(text, _parsed(text, _Saved(groups or {})))


def groups_of(text: str) -> set[str]:
    """The names after `group=`, whether or not something is saved under them."""
    tokens = _tokens(text)
    names: set[str] = set()
    for index, token in enumerate(tokens):
        if token.kind == "word" and token.text == GROUP:
            rest = tokens[index + 2 : index + 3] if tokens[index + 1].kind == "operator" else _listed(tokens[index + 2 :])
            names.update(each.text.strip('"') for each in rest)
    return names


def _listed(tokens: "Sequence[_Token]") -> "Iterable[_Token]":
    return takewhile(lambda token: token.text != ")", (token for token in tokens if token.text not in ("(", ",")))


@dataclass(frozen=True, slots=True)
class Share:
    """`10%` or `25` devices."""

    count: int | None = None
    percent: float = 0.0

    @classmethod
    def parse(cls, size: str) -> "Share":
        """Raises `UsageError`."""
        found = re.fullmatch(r"(\d{1,12})|(\d{1,3}(?:\.\d{1,9})?)%", size)
        if found is None or (found[2] and not 0 < float(found[2]) <= 100) or found[1] == "0":
            raise UsageError(f"{printable(size)} is not a limit", "write a number of devices (25) or a share of them (10%)")
        return cls(int(found[1])) if found[1] else cls(None, float(found[2]))

    def of(self, total: int) -> int:
        """How many of so many that is; a share is rounded up."""
        return self.count if self.count is not None else -int(-total * self.percent // 100)


def first(ids: Iterable[str], count: int) -> set[str]:
    """So many of the ids, chosen by hash, so that fewer of a set are always a part of more of it."""
    return {name for _, name in heapq.nsmallest(count, ((rank(name), name) for name in ids))}


def limit(ids: Sequence[str], size: str) -> list[str]:
    """`10%` or `25` of the ids, in their order."""
    chosen = first(ids, Share.parse(size).of(len(ids)))
    return [name for name in ids if name in chosen]


@dataclass(frozen=True, slots=True)
class _Saved:
    """Saved selectors; `inside` are the names of those that are being read, `read` of all that were."""

    groups: Mapping[str, str]
    inside: tuple[str, ...] = ()
    read: list[str] = field(default_factory=list)

    def parsed(self, name: str) -> "Node":
        if name in self.inside:
            raise UsageError(
                f"group `{self.inside[0]}` is made of itself: {' > '.join((*self.inside, name))}",
                f"fleetctl groups delete {self.inside[-1]}",
            )
        self.read.append(name)
        if len(self.read) > GROUPS_LIMIT:
            raise UsageError(f"the selector stands for more than {GROUPS_LIMIT} groups", "see fleetctl groups list")
        try:
            return _parsed(self.groups[name], _Saved(self.groups, (*self.inside, name), self.read))
        except UsageError as error:
            if self.inside or error.message.startswith("group "):
                raise
            raise UsageError(f"group `{name}` cannot be read: {error.message}", f"see fleetctl groups show {name}") from error


def _parsed(text: str, saved: _Saved) -> "Node":
    if not text.strip():
        raise UsageError("an empty selector selects nothing", "-l 'type=*' selects every device")
    if len(text) > LENGTH_LIMIT:
        raise UsageError(f"the selector is longer than {LENGTH_LIMIT} characters", "put the ids in a file and name it: @FILE")
    parser = _Parser(_tokens(text), saved)
    root = parser.either(0)
    parser.finish()
    return root


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


def _tokens(text: str) -> list[_Token]:
    tokens, position, end = [], 0, len(text.rstrip())
    while position < end:
        found = _TOKEN.match(text, position)
        if found is None:
            at = position + len(text[position:]) - len(text[position:].lstrip())
            what = "a quotation mark that is never closed" if text[at] == '"' else f"unexpected {text[at]!r}"
            raise UsageError(
                f"{what} at {at + 1}",
                'a selector is made of FIELD=VALUE, commas, `or` and parentheses; quote other values: site="north 7"',
            )
        kind = found.lastgroup or ""
        tokens.append(_Token(kind, found[kind], found.start(kind) + 1))
        position = found.end()
    return [*tokens, _Token("end", "", end + 1)]


class _Parser:
    """Recursive descent over the tokens of one selector; the grammar is at the top of this file."""

    def __init__(self, tokens: list[_Token], saved: _Saved) -> None:
        self._tokens = tokens
        self._saved = saved
        self._next = 0

    def either(self, depth: int) -> Node:
        parts = self._separated(lambda: self._all(depth), "or")
        return parts[0] if len(parts) == 1 else Either(parts)

    def finish(self) -> None:
        if self._peek.kind != "end":
            raise self._unexpected()

    def _all(self, depth: int) -> Node:
        found = self._separated(lambda: self._part(depth), ",", "and")
        parts = tuple(each for part in found for each in (part.parts if isinstance(part, All) else (part,)))
        return parts[0] if len(parts) == 1 else All(parts)

    def _part(self, depth: int) -> Node:
        opening = self._peek
        if self._accept("("):
            if depth >= DEPTH_LIMIT:
                raise UsageError(f"parentheses nest deeper than {DEPTH_LIMIT} at {opening.at}", "write it flatter")
            inside = self.either(depth + 1)
            self._expect(")")
            return inside
        absent = self._accept("!")
        field = self._peek
        if field.kind != "word" or field.text in _KEYWORDS:
            raise self._unexpected("a field, such as type or site")
        self._next += 1
        if absent:
            return criterion(field.text, "absent", [], field.at)
        return self._comparison(field)

    def _comparison(self, field: _Token) -> Node:
        asked = self._criterion(field)
        if field.text != GROUP or asked.operator not in ("=", "in", "!=", "notin"):
            return asked
        names = [operand.text for operand in asked.operands if operand.text in self._saved.groups]
        if not names:
            return asked
        rest = tuple(operand for operand in asked.operands if operand.text not in self._saved.groups)
        parts = [self._saved.parsed(name) for name in names] + ([Criterion(asked.field, "in", rest)] if rest else [])
        either = parts[0] if len(parts) == 1 else Either(tuple(parts))
        return either if asked.operator in ("=", "in") else Not(either)

    def _criterion(self, field: _Token) -> Criterion:
        operator = self._peek
        if operator.kind == "word" and operator.text in ("in", "notin"):
            self._next += 1
            self._expect("(")
            values = self._separated(self._value, ",")
            self._expect(")")
            return criterion(field.text, operator.text, values, field.at)
        if operator.kind == "operator" and operator.text in _ORDERS:
            self._next += 1
            return criterion(field.text, operator.text.replace("==", "="), [self._value()], field.at)
        return criterion(field.text, "exists", [], field.at)

    def _value(self) -> tuple[str, bool]:
        """The text of a value, and whether it was quoted."""
        token = self._peek
        if token.kind not in ("word", "quoted"):
            raise self._unexpected("a value")
        self._next += 1
        if token.kind == "quoted":
            return re.sub(r"\\(.)", r"\1", token.text[1:-1]), True
        return token.text, False

    def _separated(self, read: Callable[[], _T], *separators: str) -> tuple[_T, ...]:
        parts = [read()]
        while any(self._accept(separator) for separator in separators):
            parts.append(read())
        return tuple(parts)

    @property
    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _accept(self, text: str) -> bool:
        if self._peek.kind == "quoted" or self._peek.text != text:
            return False
        self._next += 1
        return True

    def _expect(self, text: str) -> None:
        if not self._accept(text):
            raise self._unexpected(f"`{text}`")

    def _unexpected(self, wanted: str = "`,`, `and` or `or`") -> UsageError:
        token = self._peek
        shown = "end" if token.kind == "end" else repr(token.text)
        return UsageError(f"unexpected {shown} at {token.at}", f"the selector needs {wanted} there")


def _is_live(field: str) -> bool:
    return field in ("status", "firmware", "idle") or field.startswith("twin.")


def _lasting(node: Node) -> Node | None:
    if isinstance(node, Criterion | Not):
        return None if any(_is_live(each) for each in _fields(node)) else node
    found = [_lasting(part) for part in node.parts]
    parts = tuple(part for part in found if part is not None)
    if isinstance(node, All):
        return All(parts) if len(parts) > 1 else next(iter(parts), None)
    return Either(parts) if len(parts) == len(found) else None


def _fields(node: Node) -> Iterable[str]:
    if isinstance(node, Criterion):
        yield node.field
        return
    for part in (node.part,) if isinstance(node, Not) else node.parts:
        yield from _fields(part)
