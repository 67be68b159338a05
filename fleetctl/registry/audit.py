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
        named = {"device_id = ?": asked.device_id, "actor = ?": asked.actor, "at >= ?": asked.since}
        given = {words: value for words, value in named.items() if value is not None}
        if asked.action is not None:
            given["(action = ? OR substr(action, 1, ?) = ?)"] = asked.action
        where = " AND ".join(["id > ?", *given])
        after = 0
        while True:
            parameters: list[object] = [after, *(value for words, value in given.items() if not words.startswith("("))]
            if asked.action is not None:
                parameters += [asked.action, len(asked.action) + 1, f"{asked.action}."]
            rows = self.read(
                f"""SELECT id, at, actor, action, subject, device_id, reason, detail FROM audit
                WHERE {where} ORDER BY id LIMIT {PAGE}""",  # noqa: S608
                parameters,
            )
            for row in rows:
                yield AuditRow(*row[:7], None if row[7] is None else self.parse(row[7]))
            if len(rows) < PAGE:
                return
            after = rows[-1][0]
