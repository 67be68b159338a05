"""Rollouts leave devices out that the broker does not let in."""

from pathlib import Path

import pytest

from fleetctl.errors import NotFound
from fleetctl.platforms.protocol import Targets
from fleetctl.platforms.updates import RolloutEntry, RolloutRef
from tests.integration.ota.stand import Stand


def test_a_rollout_skips_who_is_suspended_or_revoked_and_completes_without_them(stand: Stand, tmp_path: Path) -> None:
    names = stand.add(3)
    stand.start_agents(names[:1])
    fleet = stand.fleet
    fleet.devices.suspend(fleet.devices.resolve(Targets(("pump-2",))))
    fleet.certificates.revoke("pump-3", "keyCompromise")
    release = stand.release("2.0.0")

    plan = stand.plan(release)

    skipped = {each.id: each.skipped for each in plan.devices}
    assert skipped == {"pump-1": None, "pump-2": "out_of_service", "pump-3": "out_of_service"}
    *_, entry = fleet.updates.start(RolloutRef(plan.id), wait=True, timeout=60.0)
    assert isinstance(entry, RolloutEntry)
    assert (entry.state, entry.succeeded, entry.devices) == ("completed", 1, 1)

    fleet.devices.suspend(fleet.devices.resolve(Targets(("pump-1",))))
    with pytest.raises(NotFound, match="is skipped as out_of_service") as caught:
        stand.plan(stand.release("2.1.0"))
    assert str(caught.value.hint).startswith("see why: fleetctl provision status pump-")

    fleet.devices.resume(fleet.devices.resolve(Targets(("pump-2",))))
    fleet.certificates.issue("pump-3", tmp_path / "again")
    assert {each.id for each in stand.plan(release).devices if each.skipped is None} == {"pump-2", "pump-3"}
