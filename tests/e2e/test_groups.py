"""Groups, the trail, and what TAB says of them."""

import json
from pathlib import Path

import pytest

from tests.conftest import Fleetctl

DEVICES = "id,type,location,site,group\n" + "".join(
    f"p-{n},{'pump' if n % 2 else 'valve'},oslo,s{n % 3},{'canary' if n == 9 else ''}\n" for n in range(10)
)


@pytest.fixture
def fleet(fleetctl: Fleetctl, tmp_path: Path) -> Fleetctl:
    (tmp_path / "devices.csv").write_text(DEVICES)
    assert fleetctl("init", "--tenant", "acme").status == 0
    assert fleetctl("provision", "import", str(tmp_path / "devices.csv")).status == 0
    return fleetctl


def test_a_group_is_saved_used_and_forgotten(fleet: Fleetctl) -> None:
    made = fleet("groups", "create", "pumps", "-l", "type=pump", "-o", "json").json()
    assert made == {"name": "pumps", "outcome": "created", "selector": "type=pump", "devices": 5}
    assert fleet("groups", "create", "pumps", "-l", "type=pump", "-o", "json").json()["outcome"] == "unchanged"
    assert fleet("groups", "create", "pumps", "-l", "type=valve", "-o", "json").error()["code"] == "conflict"
    assert fleet("groups", "create", "few", "-l", "group=pumps,site=s0").status == 0
    assert set(fleet("groups", "show", "few", "-o", "json").json()) == {"name", "selector", "devices", "createdAt"}
    assert [each["name"] for each in fleet("groups", "list", "-o", "json").json()] == ["few", "pumps"]
    assert fleet("provision", "list", "-l", "group=few", "-o", "name").out.split() == ["p-3", "p-9"]
    assert "is a part of group `few`" in fleet("groups", "delete", "pumps").err
    assert fleet("groups", "create", "loop", "-l", "group=loop").status == 2
    assert fleet("groups", "delete", "few", "-o", "json").json() == {"name": "few", "outcome": "deleted"}

    changes = [json.loads(line) for line in fleet("audit", "-o", "jsonl").out.splitlines()]
    assert set(changes[0]) == {"id", "at", "actor", "action", "subject", "deviceId", "reason", "detail"}
    assert [each["action"] for each in changes] == ["imported", "group.created", "group.created", "group.deleted"]
    assert changes[0]["detail"] == {"count": 10, "first": "p-0", "last": "p-9"}
    assert [each["subject"] for each in fleet("audit", "--action", "group", "--since", "1h", "-o", "json").json()][-1] == "few"
    assert fleet("audit", "--actor", "nobody", "-o", "json").json() == []
    assert fleet("audit", "nobody", "-o", "json").error()["code"] == "notFound"


def completed(fleet: Fleetctl, *words: str) -> list[str]:
    said = fleet(_FLEETCTL_COMPLETE="complete_bash", COMP_WORDS="\n".join(("fleetctl", *words)), COMP_CWORD=str(len(words)))
    return said.out.split()


def test_tab_completes_devices_selectors_and_groups(fleet: Fleetctl) -> None:
    fleet("groups", "create", "northern", "-l", "site=s1")
    listing = ("provision", "list", "-l")
    assert completed(fleet, "provision", "show", "p-") == [f"p-{n}" for n in range(10)]
    assert completed(fleet, *listing, "si") == ["site=", "site!="]
    assert completed(fleet, *listing, "site", "=", "s") == ["s0", "s1", "s2"]
    assert completed(fleet, *listing, "'site=s1,ty") == ["site=s1,type=", "site=s1,type!="]
    assert completed(fleet, *listing, "type", "=", "v") == ["valve"]
    assert completed(fleet, *listing, "group", "=") == ["northern", "canary"]
    assert completed(fleet, *listing, "status", "=", "on") == ["online"]
    assert completed(fleet, "groups", "show", "n") == ["northern"]
