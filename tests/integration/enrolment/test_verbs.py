"""The verbs of enrolment as they are typed; their keys written out once more: changing them must hurt."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fleetctl.errors import Denied, Unavailable
from fleetctl.model.profile import Approval, ProvisioningProfile
from tests.integration.enrolment.stand import Applicant, Serving, Stand
from tests.integration.local.test_revocation import wait_until_closed


def typed(stand: Stand, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "fleetctl", "provision", *words, "-o", "json"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **stand.environ})


def said(stand: Stand, *words: str) -> Any:
    done = typed(stand, *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_claim_is_made_listed_and_revoked(stand: Stand, service: Serving, tmp_path: Path) -> None:
    stand.batch("verbs", 1)
    folder = tmp_path / "claim"
    made = said(stand, "claim", "create", "typed", "--batch", "verbs", "--quota", "3", "--for", "12h", "--bundle", str(folder))
    assert set(made) == {"name", "batch", "quota", "notAfter", "serial", "bundle"}
    assert (folder / "claim.key").stat().st_mode & 0o777 == 0o600

    (listed,) = said(stand, "claim", "list", "--batch", "verbs")
    assert set(listed) == {"name", "batch", "state", "used", "quota", "notAfter", "serial", "createdAt"}
    assert (listed["state"], listed["used"], listed["quota"]) == ("active", 0, 3)

    revoked = said(stand, "claim", "revoke", "typed")
    assert set(revoked) == {"name", "outcome", "serial", "crlNumber", "brokerRunning", "brokerReloaded"}
    assert (revoked["outcome"], revoked["brokerReloaded"]) == ("revoked", True)


def test_a_claim_that_is_revoked_opens_nothing_any_more_and_others_do(stand: Stand, service: Serving) -> None:
    stand.batch("leaked", 3)
    leaked, sound = (stand.claim(name, "leaked") for name in ("leaked", "sound"))
    assert Applicant(leaked, "leaked-0").provision().status == "accepted"
    with Applicant(leaked, "leaked-1").session() as live:
        assert said(stand, "claim", "revoke", "leaked")["brokerReloaded"]
        wait_until_closed(live)
    with pytest.raises((Denied, Unavailable)), Applicant(leaked, "leaked-1").session():
        pass
    assert Applicant(sound, "leaked-2").provision().status == "accepted"


def test_pending_devices_are_approved_rejected_and_reset(stand: Stand, service: Serving) -> None:
    stand.batch("typing", 2, ProvisioningProfile("typed-by-hand", approval=Approval.MANUAL))
    folder = stand.claim("typing", "typing")
    for serial in ("typing-0", "typing-1"):
        assert Applicant(folder, serial).provision().status == "pending"

    waiting = [each for each in said(stand, "pending") if each["claim"] == "typing"]
    assert set(waiting[0]) == {"id", "serial", "deviceId", "method", "claim", "key", "requestedAt"}
    both = typed(stand, "approve", "typing-*")
    assert both.returncode == 2, "two devices need --yes where nobody can be asked"
    (approved,) = said(stand, "approve", "typing-0")
    assert approved == {"id": waiting[0]["id"], "serial": "typing-0", "deviceId": "dev-typing-0", "outcome": "approved"}
    (rejected,) = said(stand, "reject", waiting[1]["id"], "--reason", "not ours")
    assert rejected["outcome"] == "rejected"
    (reset,) = said(stand, "reset", "dev-typing-1", "--reason", "it is")
    assert set(reset) == {"id", "serial", "outcome", "state", "revoked", "sessionsCut"}


@pytest.mark.parametrize("words", [("claim", "revoke", "none"), ("approve", "none"), ("reset", "none", "--reason", "x")])
def test_what_is_not_there_is_not_found(stand: Stand, words: tuple[str, ...]) -> None:
    assert typed(stand, *words).returncode == 3
