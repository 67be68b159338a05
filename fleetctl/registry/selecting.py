"""Selectors in SQL: what a registry can decide by its indexes, and whether that is all that the selector asks.

A condition never leaves out a device that the selector matches. Where it is not exact (globs, versions, numbers in labels,
what is reported) it may let more through, and whoever reads the rows asks `Selector.matches` of each.
"""

from collections.abc import Mapping
from typing import NamedTuple

from fleetctl.model.criteria import Criterion, Operand
from fleetctl.model.presence import PATIENCE, View
from fleetctl.model.selector import All, Node, Not, Selector
from fleetctl.registry.database import marks

_COLUMNS = {"id": "d.id", "type": "d.type", "location": "d.location"}
_WILD = "*?["
_BEYOND = "\U0010ffff"
_SEEN = "p.received_at IS NOT NULL"
_HAVING = "SELECT device_id FROM labels WHERE key = ?"


class Condition(NamedTuple):
    """An SQL condition over `devices d` and `presence p`; `exact` if it holds for nothing that the selector does not match."""

    sql: str
    parameters: tuple[str | float, ...] = ()
    exact: bool = True


ANYTHING = Condition("1 = 1", (), exact=False)


def compiled(selector: Selector, now: float) -> Condition:
    """The condition for a moment (seconds since 1970), on which presence and idle time depend."""
    return _node(selector.root, now)


def label_of(selector: Selector) -> tuple[str, str] | None:
    """The label that every device of the selector has with exactly this value, if it names one: the index to begin with."""
    found = _driving(selector.root)
    return None if found is None else (found.field.removeprefix("label."), found.operands[0].text)


def _driving(root: Node) -> Criterion | None:
    parts = root.parts if isinstance(root, All) else (root,)
    return next((part for part in parts if isinstance(part, Criterion) and _is_one_label(part)), None)


def _is_one_label(asked: Criterion) -> bool:
    is_equal = asked.field.startswith("label.") and asked.operator in ("=", "in") and len(asked.operands) == 1
    return is_equal and not _is_glob(asked.operands[0])


def _node(node: Node, now: float) -> Condition:
    if isinstance(node, Criterion):
        return _criterion(node, now)
    if isinstance(node, Not):
        inner = _node(node.part, now)
        return Condition(f"({inner.sql}) IS NOT TRUE", inner.parameters) if inner.exact else ANYTHING
    parts = [_node(part, now) for part in node.parts]
    joined = (" AND " if isinstance(node, All) else " OR ").join(f"({part.sql})" for part in parts)
    return Condition(joined, tuple(each for part in parts for each in part.parameters), all(part.exact for part in parts))


def _criterion(asked: Criterion, now: float) -> Condition:
    if asked.field in _COLUMNS:
        return _text(_COLUMNS[asked.field], asked, never_null=True)
    if asked.field == "firmware":
        return _firmware(asked)
    if asked.field == "status":
        return _status(asked, now)
    if asked.field == "idle":
        return _idle(asked, now)
    return _label(asked) if asked.field.startswith("label.") else ANYTHING


def _text(column: str, asked: Criterion, *, never_null: bool = False) -> Condition:
    """`=`, `in` and their opposites on one column; a glob narrows by what stands before its first wildcard."""
    globs = [operand for operand in asked.operands if _is_glob(operand)]
    exact = [operand.text for operand in asked.operands if not _is_glob(operand)]
    if asked.operator in ("!=", "notin"):
        # a glob that matched more than its beginning says must not take away what only begins like it
        kept = f"{column} NOT IN ({marks(exact)})" if exact else "1 = 1"
        return Condition(kept if never_null else f"({column} IS NULL OR {kept})", tuple(exact), exact=not globs)
    either = [f"{column} IN ({marks(exact)})"] if exact else []
    parameters: list[str] = list(exact)
    for glob in globs:
        beginning = _beginning(glob.text)
        either.append(f"({column} >= ? AND {column} <= ?)" if beginning else f"{column} IS NOT NULL")
        parameters += [beginning, beginning + _BEYOND * 4] if beginning else []
    return Condition(" OR ".join(either), tuple(parameters), exact=not globs)


def _firmware(asked: Criterion) -> Condition:
    known = "(p.firmware IS NOT NULL AND p.firmware <> '')"
    match asked.operator:
        case "exists":
            return Condition(known)
        case "absent":
            return Condition(f"NOT {known}")
        case "=" | "in" | "!=" | "notin":
            inner = _text("p.firmware", asked)
            if asked.operator in ("!=", "notin"):
                return Condition(f"(NOT {known} OR {inner.sql})", inner.parameters, inner.exact)
            return Condition(f"({known} AND ({inner.sql}))", inner.parameters, inner.exact)
    return Condition(known, (), exact=False)


def _status(asked: Criterion, now: float) -> Condition:
    late = f"(? - p.received_at > {PATIENCE} * p.heartbeat)"
    said: Mapping[View, tuple[str, int]] = {
        View.UNKNOWN: ("p.received_at IS NULL", 0),
        View.OFFLINE: (f"({_SEEN} AND p.status <> 'online')", 0),
        View.ONLINE: (f"({_SEEN} AND p.status = 'online' AND NOT {late})", 1),
        View.STALE: (f"({_SEEN} AND p.status = 'online' AND {late})", 1),
    }
    wanted = [view for view in View if any(operand.equals(view.value) for operand in asked.operands)]
    if asked.operator in ("!=", "notin"):
        wanted = [view for view in View if view not in wanted]
    if not wanted:
        return Condition("1 = 0")
    sql = " OR ".join(said[view][0] for view in wanted)
    return Condition(sql, tuple(now for view in wanted for _ in range(said[view][1])))


def _idle(asked: Criterion, now: float) -> Condition:
    match asked.operator:
        case "exists":
            return Condition(_SEEN)
        case "absent":
            return Condition("p.received_at IS NULL")
    idle = "(CASE WHEN ? > p.received_at THEN ? - p.received_at ELSE 0.0 END)"
    return Condition(f"({_SEEN} AND {idle} {asked.operator} ?)", (now, now, float(asked.operands[0].order)))


def _label(asked: Criterion) -> Condition:
    key = asked.field.removeprefix("label.")
    match asked.operator:
        case "absent":
            return Condition(f"d.id NOT IN ({_HAVING})", (key,))
        case "=" | "in":
            inner = _text("value", asked, never_null=True)
            return Condition(f"d.id IN ({_HAVING} AND ({inner.sql}))", (key, *inner.parameters), inner.exact)
        case "!=" | "notin":
            if any(_is_glob(operand) for operand in asked.operands):
                return ANYTHING
            values = [operand.text for operand in asked.operands]
            return Condition(f"d.id NOT IN ({_HAVING} AND value IN ({marks(values)}))", (key, *values))
    return Condition(f"d.id IN ({_HAVING})", (key,), exact=asked.operator == "exists")


def _is_glob(operand: Operand) -> bool:
    return not operand.is_literal and bool(set(operand.text) & set(_WILD))


def _beginning(pattern: str) -> str:
    return pattern[: min(pattern.index(letter) for letter in _WILD if letter in pattern)]


def question(asked: Selector, now: float) -> tuple[str, Condition]:
    """The tables to ask, and the condition; a label that all of them have is where to begin."""
    begin = _driving(asked.root)
    condition = _rest(asked, begin, now)
    heard = " LEFT JOIN presence p ON p.device_id = d.id" if "p." in condition.sql else ""
    if begin is None:
        return f"devices d{heard}", condition
    label = begin.field.removeprefix("label."), begin.operands[0].text
    # CROSS, because SQLite then begins with the label, whatever it believes of the other indexes
    source = f"labels k CROSS JOIN devices d{heard}"
    where = f"d.id = k.device_id AND k.key = ? AND k.value = ? AND ({condition.sql})"
    return source, Condition(where, (*label, *condition.parameters), condition.exact)


def _rest(asked: Selector, begin: Criterion | None, now: float) -> Condition:
    """What is asked beyond the label that it begins with."""
    if asked.root is begin:
        return Condition("1 = 1")
    if begin is None or not isinstance(asked.root, All):
        return compiled(asked, now)
    return _node(All(tuple(part for part in asked.root.parts if part is not begin)), now)
