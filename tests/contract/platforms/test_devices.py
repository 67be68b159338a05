"""`Devices`, on every platform."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fleetctl.errors import Conflict, FleetError, NotFound, Partial, UsageError
from fleetctl.model.device import LifeCycle
from fleetctl.platforms.protocol import Missing, Targets

if TYPE_CHECKING:
    from tests.contract.platforms.conftest import Fleet, Side


def status(session: str = "1-1", status: str = "online", **more: object) -> bytes:
    document = {
        "status": status,
        "session": session,
        "firmwareVersion": "2.0.0",
        "digest": "sha256:" + "0" * 64,
        "clock": "none",
        "heartbeat": 30,
        **more,
    }
    return json.dumps(document).encode()


def add(fleet: "Fleet", name: str, location: str = "oslo", **labels: str) -> str:
    return fleet.devices.add(name, device_type="pump", location=location, labels=labels).outcome


class TestDevices:
    def test_adding_is_idempotent_and_conflicts_when_it_differs(self, fleet: "Fleet") -> None:
        assert add(fleet, "p1", site="north") == "added"
        assert add(fleet, "p1", site="north") == "unchanged"
        with pytest.raises(Conflict, match="exists already and differs"):
            add(fleet, "p1", site="south")
        with pytest.raises(Conflict):
            add(fleet, "p1", "bergen", site="north")

    @pytest.mark.parametrize("name", ["a/b", "a+", "#", "a\0b", "_fleet", "", "x" * 65, "é"])
    def test_a_name_that_is_no_level_is_refused(self, fleet: "Fleet", name: str) -> None:
        with pytest.raises(UsageError, match="device id"):
            add(fleet, name)
        assert list(fleet.devices.list(Targets())) == []

    def test_a_platform_without_identities_adds_nothing_with_a_bundle(self, fleet: "Fleet", tmp_path: Path) -> None:
        with pytest.raises(Missing):
            fleet.devices.add("p1", device_type="pump", location="oslo", labels={}, bundle=tmp_path / "p1")
        assert list(fleet.devices.list(Targets())) == []

    def test_devices_are_listed_by_id_glob_selector_and_share(self, fleet: "Fleet") -> None:
        for number in (3, 1, 2):
            add(fleet, f"p{number}", site=f"s{number}")
        add(fleet, "q1")

        def ids(*words: str, selector: str | None = None, limit: str | None = None) -> list[str]:
            return [entry.id for entry in fleet.devices.list(Targets(words, selector, limit))]

        assert ids() == ["p1", "p2", "p3", "q1"]
        assert ids("p2", "p1") == ["p2", "p1"]
        assert ids("p*") == ["p1", "p2", "p3"]
        assert ids("p*", "q1", selector="site!=s2") == ["p1", "p3", "q1"]
        assert ids(selector="site in (s1,s2),status=unknown") == ["p1", "p2"]
        assert ids(selector="site=nowhere") == []
        assert len(ids(limit="50%")) == 2
        with pytest.raises(NotFound, match="no device named `p9`"):
            ids("p1", "p9")
        with pytest.raises(NotFound):
            ids("p*", "p9")
        with pytest.raises(UsageError, match="an empty selector"):
            ids(selector="")

    def test_a_write_needs_a_device(self, fleet: "Fleet") -> None:
        add(fleet, "p1")

        assert [device.id for device in fleet.devices.resolve(Targets(("p1",)))] == ["p1"]
        with pytest.raises(UsageError, match="no device is named"):
            fleet.devices.resolve(Targets())
        with pytest.raises(NotFound, match="no device matches `type=sensor`"):
            fleet.devices.resolve(Targets(selector="type=sensor"))
        with pytest.raises(NotFound):
            fleet.devices.resolve(Targets(("x*",)))

    def test_removing_keeps_the_record_and_clears_what_is_retained(self, side: "Side", fleet: "Fleet") -> None:
        add(fleet, "p1")
        side.say("acme/oslo/pump/p1/status", status(), retain=True)
        devices = fleet.devices.resolve(Targets(("p1",)))
        fleet.twins.set(devices, {"a": 1})

        (removed,) = fleet.devices.remove(devices)

        assert (removed.id, removed.outcome, removed.cleared) == ("p1", "removed", True)
        assert side.retained("acme/oslo/pump/p1/status") is None
        assert side.retained("acme/oslo/pump/p1/twin/desired") is None
        assert list(fleet.devices.list(Targets())) == []
        assert fleet.devices.show("p1").state == "retired"
        assert [entry.id for entry in fleet.devices.list(Targets(), retired=True)] == ["p1"]
        assert fleet.devices.remove(devices)[0].outcome == "unchanged"
        with pytest.raises(NotFound, match="was removed"):
            fleet.devices.resolve(Targets(("p1",)))
        with pytest.raises(Conflict, match="is retired"):
            add(fleet, "p1")

    def test_removing_without_a_broker_says_what_is_left(self, side: "Side", fleet: "Fleet") -> None:
        add(fleet, "p1")
        add(fleet, "p2")
        side.say("acme/oslo/pump/p1/status", status(), retain=True)
        devices = fleet.devices.resolve(Targets(("p1",)))
        side.leave()
        assert [(each.outcome, each.cleared) for each in fleet.devices.remove(devices)] == [("removed", False)]

        side.come_back()
        fleet.twins.set(fleet.devices.resolve(Targets(("p2",))), {"a": 1})
        assert side.retained("acme/oslo/pump/p1/status") is None

    def test_refreshing_believes_only_devices_at_exactly_their_path(self, side: "Side", fleet: "Fleet") -> None:
        for name in ("p1", "p2", "p3", "p4"):
            add(fleet, name)
        side.say("acme/oslo/pump/p1/status", status(), retain=True)
        side.say("acme/oslo/pump/p1/twin/reported", b'{"version":0,"reported":{"mode":"eco"},"timestamp":null}', retain=True)
        side.say("acme/oslo/pump/p2/status", status(status="offline"), retain=True)
        side.say("acme/bergen/pump/p3/status", status(), retain=True)
        side.say("acme/oslo/pump/p4/status", b"\xff{garbage", retain=True)

        assert fleet.devices.refresh(fleet.devices.resolve(Targets(("p*",)))) == 2

        seen = {entry.id: (entry.status, entry.firmware) for entry in fleet.devices.list(Targets())}
        assert seen == {"p1": ("online", "2.0.0"), "p2": ("offline", "2.0.0"), "p3": ("unknown", None), "p4": ("unknown", None)}
        selected = fleet.devices.resolve(Targets(selector="status=online,twin.mode=eco,idle<1h,firmware>=2.0.0"))
        assert [device.id for device in selected] == ["p1"]
        assert fleet.devices.show("p1").session == "1-1"

    def test_a_file_is_imported_line_by_line(self, fleet: "Fleet", tmp_path: Path) -> None:
        path = tmp_path / "devices.csv"
        path.write_text("id,type,location,site,floor\r\np1,pump,oslo,north,\r\np2,pump,oslo,,2\r\n\r\n")
        report = fleet.devices.import_file(path)

        assert (report.added, report.unchanged, report.refused) == (2, 0, 0)
        assert fleet.devices.import_file(path).unchanged == 2
        assert [dict(entry.labels) for entry in fleet.devices.list(Targets())] == [{"site": "north"}, {"floor": "2"}]

    def test_bad_lines_are_named_and_good_ones_are_taken(self, fleet: "Fleet", tmp_path: Path) -> None:
        path = tmp_path / "devices.csv"
        lines = [
            b"id,type,location,site",
            b"p1,pump,oslo,a",
            b"p/2,pump,oslo,a",
            b"p3,,oslo,a",
            b"p4,pump,oslo,a,b",
            b"p5,pump,o,\xff",
        ]
        path.write_bytes(b"\n".join([*lines, b"p1,pump,oslo,other", b"p6,pump,oslo,a", b'"p7']))

        with pytest.raises(Partial) as caught:
            fleet.devices.import_file(path)

        report = caught.value.record
        assert isinstance(report, dict)
        assert (report["added"], report["refused"]) == (2, 6)
        assert [row["line"] for row in report["errors"]] == [3, 4, 5, 6, 7, 9]
        assert [entry.id for entry in fleet.devices.list(Targets())] == ["p1", "p6"]

    def test_json_lines_are_imported_too(self, fleet: "Fleet", tmp_path: Path) -> None:
        path = tmp_path / "devices.jsonl"
        good = {"id": "p1", "type": "pump", "location": "oslo", "labels": {"site": "north"}}
        bad = ["{", "[]", '{"id":"p2"}', json.dumps({**good, "labels": {"a": 1}}), json.dumps({**good, "x": 1}), "x" * 70_000]
        path.write_text("\n".join([json.dumps(good), *bad, json.dumps({**good, "id": "p9"})]))

        with pytest.raises(Partial, match="6 lines of"):
            fleet.devices.import_file(path)
        assert [entry.id for entry in fleet.devices.list(Targets())] == ["p1", "p9"]

    def test_a_file_that_is_no_list_of_devices_is_refused(self, fleet: "Fleet", tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("id,type\np1,pump\n")
        (tmp_path / "b.csv").write_text("id,type,location,id\n")
        (tmp_path / "c.jsonl").write_text("nothing\n")
        for name, error in (("a.csv", UsageError), ("b.csv", UsageError), ("d.csv", NotFound), ("e.txt", UsageError)):
            with pytest.raises(error):
                fleet.devices.import_file(tmp_path / name)
        with pytest.raises(FleetError) as caught:
            fleet.devices.import_file(tmp_path / "c.jsonl")
        assert caught.value.status == 1

    def test_removing_again_what_is_named_changes_nothing(self, fleet: "Fleet") -> None:
        fleet.devices.add("p1", device_type="pump", location="oslo", labels={})
        outcomes = []
        for _ in range(2):
            chosen = fleet.devices.resolve(Targets(("p1",)), retired=True)
            outcomes += [each.outcome for each in fleet.devices.remove(chosen)]
        assert outcomes == ["removed", "unchanged"]
        for word in ("p*", "p9"):
            with pytest.raises(NotFound):
                fleet.devices.resolve(Targets((word,)), retired=True)

    def test_a_device_is_suspended_and_resumed_with_reasons(self, side: "Side", fleet: "Fleet") -> None:
        add(fleet, "p1")
        devices = fleet.devices.resolve(Targets(("p1",)))
        (held,) = fleet.devices.suspend(devices, why="stolen?")
        assert (held.id, held.outcome, held.state, held.certificates, held.sessions_cut) == (
            "p1",
            "suspended",
            "suspended",
            0,
            None,
        )
        assert fleet.devices.suspend(devices)[0].outcome == "unchanged"
        side.say("acme/oslo/pump/p1/status", status(), retain=True)
        assert fleet.devices.refresh(devices) == 0
        assert [each.id for each in fleet.devices.list(Targets(), states=[LifeCycle.SUSPENDED])] == ["p1"]
        assert list(fleet.devices.list(Targets(), states=[LifeCycle.ACTIVE])) == []

        (back,) = fleet.devices.resume(devices, why="found")

        assert (back.outcome, back.state) == ("resumed", "active")
        assert fleet.devices.resume(devices)[0].outcome == "unchanged"
        assert fleet.devices.refresh(devices) == 1
        shown = fleet.devices.status("p1")
        assert [(step.event, step.before, step.after, step.reason) for step in shown.timeline] == [
            ("added", None, "active", None),
            ("suspended", "active", "suspended", "stolen?"),
            ("resumed", "suspended", "active", "found"),
        ]
        assert (shown.state, shown.status, shown.certificates) == ("active", "online", ())
        assert shown.idle is not None

    def test_a_retired_device_never_comes_back(self, fleet: "Fleet") -> None:
        add(fleet, "p1")
        add(fleet, "p2")
        gone = fleet.devices.resolve(Targets(("p1",)))
        fleet.devices.remove(gone, why="scrapped")
        both = [*fleet.devices.resolve(Targets(("p2",))), *gone]
        for step in (fleet.devices.suspend, fleet.devices.resume):
            with pytest.raises(Conflict):
                step(both)
        assert fleet.devices.show("p2").state == "active"
        with pytest.raises(NotFound):
            fleet.devices.replace("p1", "SN2")
        assert fleet.devices.status("p1").timeline[-1].reason == "scrapped"
        with pytest.raises(NotFound):
            fleet.devices.status("p9")

    def test_another_unit_takes_the_place_of_the_old_one(self, side: "Side", fleet: "Fleet") -> None:
        add(fleet, "p1", site="north")
        add(fleet, "p2")
        devices = fleet.devices.resolve(Targets(("p1",)))
        fleet.twins.set(devices, {"a": 1})
        side.say("acme/oslo/pump/p1/status", status(), retain=True)
        fleet.devices.refresh(devices)

        done = fleet.devices.replace("p1", "SN1", why="broken")

        assert (done.outcome, done.serial, done.was, done.state, done.cleared) == ("replaced", "SN1", None, "manufactured", True)
        assert side.retained("acme/oslo/pump/p1/status") is None
        assert side.retained("acme/oslo/pump/p1/twin/desired") is not None
        shown = fleet.devices.show("p1")
        assert (shown.serial, shown.status, dict(shown.labels), shown.desired_version) == ("SN1", "unknown", {"site": "north"}, 1)
        assert fleet.devices.replace("p1", "SN1").outcome == "unchanged"
        assert fleet.devices.replace("p1", "SN2").was == "SN1"
        with pytest.raises(Conflict, match="`SN2` is that of device `p1`"):
            fleet.devices.replace("p2", "SN2")
        with pytest.raises(UsageError, match="serial"):
            fleet.devices.replace("p2", "a/b")

    def test_all_or_nothing_of_a_file(self, fleet: "Fleet", tmp_path: Path) -> None:
        path = tmp_path / "devices.csv"
        path.write_text("id,type,location\np1,pump,oslo\nb/2,pump,oslo\np3,pump,oslo\n")
        with pytest.raises(FleetError, match="nothing was added"):
            fleet.devices.import_file(path, atomic=True, errors=tmp_path / "refused.jsonl")
        assert list(fleet.devices.list(Targets())) == []
        assert json.loads((tmp_path / "refused.jsonl").read_text())["line"] == 3
        path.write_text("id,type,location\np1,pump,oslo\np3,pump,oslo\n")
        assert fleet.devices.import_file(path, atomic=True).added == 2
