"""Who changed what, when and why: one row for every change, written together with it."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from fleetctl.registry.database import PAGE, Database


class AuditRow(NamedTuple):
    """One change: `at` is RFC 3339 UTC, `subject` what it was done to, `device_id` the device if it was one."""

    id: int
    at: str
    actor: str | None
    action: str
    subject: str
    device_id: str | None
    reason: str | None
    detail: Mapping[str, Any] | None


class AuditFilter(NamedTuple):
    """What a reader of the trail asks for; None asks for all."""

    device_id: str | None = None
    actor: str | None = None
    action: str | None = None
    since: str | None = None


class Audit(Database):
    def record(
        self,
        action: str,
        subject: str,
        *,
        at: str,
        actor: str | None,
        reason: str | None = None,
        device_id: str | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        text = None if detail is None else json.dumps(detail, sort_keys=True)
        self.write(
            "INSERT INTO audit (at, actor, action, subject, device_id, reason, detail) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (at, actor, action, subject, device_id, reason, text),
        )

    def audit(self, asked: AuditFilter) -> Iterator[AuditRow]:
        """Oldest first, in bounded memory."""
        where, parameters = _where(asked)
        statement = f"""SELECT id, at, actor, action, subject, device_id, reason, detail FROM audit
            WHERE {where} id > ? ORDER BY id LIMIT {PAGE}"""  # noqa: S608
        after = 0
        while rows := self.read(statement, (*parameters, after)):
            for row in rows:
                yield AuditRow(
                    row[0], row[1], row[2], row[3], row[4], row[5], row[6], None if row[7] is None else self.parse(row[7])
                )
            after = rows[-1][0]


def _where(asked: AuditFilter) -> tuple[str, list[str | int]]:
    """Conditions with `AND` after each; an action stands for those that begin with it and a dot, too."""
    asks: list[tuple[str, list[str | int]]] = [
        (words, [value])
        for words, value in (("device_id = ?", asked.device_id), ("actor = ?", asked.actor), ("at >= ?", asked.since))
        if value is not None
    ]
    if asked.action is not None:
        asks.append(("(action = ? OR substr(action, 1, ?) = ?)", [asked.action, len(asked.action) + 1, f"{asked.action}."]))
    return "".join(f"{words} AND " for words, _ in asks), [value for _, values in asks for value in values]
