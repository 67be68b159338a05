"""Devices in the registry: an id is given out once, and its record is kept for ever."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from fleetctl.errors import Conflict, FleetError, NotFound, UsageError
from fleetctl.model.device import BELIEVED, Device, DevicePath, LifeCycle, check_labels, is_level, printable, rank
from fleetctl.model.presence import Sighting, supersedes
from fleetctl.registry.database import Row, marks, pages, upsert
from fleetctl.registry.timeline import Timeline

PAGE = 500
"""How many rows a stream reads at a time."""

_COLUMNS = """SELECT d.id, d.tenant, d.location, d.type, d.state, d.created_at,
    p.status, p.session, p.firmware, p.digest, p.heartbeat, p.received_at, t.version, t.desired, r.version, r.reported,
    d.serial, d.batch, d.profile,
    (SELECT max(c.not_after) FROM certificates c WHERE c.device_id = d.id AND c.revoked_at IS NULL)
"""
_HEARD = """LEFT JOIN presence p ON p.device_id = d.id LEFT JOIN twins t ON t.device_id = d.id
    LEFT JOIN reported r ON r.device_id = d.id
"""


class DeviceRecord(NamedTuple):
    """A device with what was last heard of it; `certificate_ends` is when the last of its good certificates does."""

    device: Device
    sighting: Sighting | None = None
    desired_version: int | None = None
    desired: Mapping[str, Any] | None = None
    reported_version: int | None = None
    reported: Mapping[str, Any] | None = None
    certificate_ends: str | None = None


_PRESENCE = upsert("presence", "device_id", "status", "session", "firmware", "digest", "heartbeat", "document", "received_at")
_BELIEVED = ", ".join(f"'{state}'" for state in BELIEVED)


class Devices(Timeline):
    def add_device(self, device: Device, *, actor: str | None = None) -> bool:
        """True if it was added, False if the same one was there already.

        Raises:
            Conflict: the id is taken by another device, or by one that was removed; or the serial is another device's.
        """
        labels = check_labels(device.labels)
        with self.transaction():
            held = self._held(device.id)
            if held is not None:
                _check_same(held, device, labels)
                return False
            self._check_serial(device)
            self._insert([(device, labels)], actor)
        return True

    def add_devices(self, devices: Sequence[Device], *, actor: str | None = None) -> list[bool | FleetError]:
        """What `add_device` says or raises of each, in one transaction; those that are refused do not stop the others."""
        outcomes: dict[int, bool | FleetError] = {}
        new: dict[str, tuple[Device, dict[str, str]]] = {}
        with self.transaction():
            known = self._known([device.id for device in devices])
            later = []
            for index, device in enumerate(devices):
                if device.id in known or device.id in new or device.serial is not None:
                    later.append(index)
                    continue
                try:
                    new[device.id] = device, check_labels(device.labels)
                except UsageError as error:
                    outcomes[index] = error
            self._insert(list(new.values()), actor)
            for index in later:
                outcomes[index] = self._tried(devices[index], actor)
        return [outcomes.get(index, True) for index in range(len(devices))]

    def _tried(self, device: Device, actor: str | None) -> bool | FleetError:
        try:
            return self.add_device(device, actor=actor)
        except (Conflict, UsageError) as error:
            return error

    def _known(self, ids: Sequence[str]) -> set[str]:
        found: set[str] = set()
        for page in pages(ids):
            found.update(row[0] for row in self.read(f"SELECT id FROM devices WHERE id IN ({marks(page)})", page))  # noqa: S608
        return found

    def _insert(self, devices: Sequence[tuple[Device, Mapping[str, str]]], actor: str | None) -> None:
        """New devices with their checked labels and the first step of their lives."""
        ranks = [rank(device.id) for device, _ in devices]
        self.write_many(
            "INSERT INTO devices VALUES (?, ?, ?, ?, ?, ?, NULL, ?, ?, ?, ?)",
            [
                (
                    *(device.id, device.path.tenant, device.path.location, device.path.device_type),
                    *(device.state, device.created_at, device.serial, device.batch, device.profile, place),
                )
                for (device, _), place in zip(devices, ranks, strict=True)
            ],
        )
        self._begin_lives([(device.id, device.created_at, device.state) for device, _ in devices], actor)
        labels = [
            (device.id, key, value, place)
            for (device, labels), place in zip(devices, ranks, strict=True)
            for key, value in labels.items()
        ]
        if labels:
            self.write_many("INSERT INTO labels VALUES (?, ?, ?, ?)", labels)

    def retire_device(self, device_id: str, at: str, *, reason: str | None = None, actor: str | None = None) -> bool:
        """Keep the record and the id, but the device is no longer part of the fleet; False if it was retired already."""
        return self.move_device(device_id, LifeCycle.RETIRED, event="retired", at=at, reason=reason, actor=actor)

    def bind_serial(self, device_id: str, serial: str | None) -> None:
        """Give a device another maker's serial; raises `Conflict` where another device has it."""
        with self.transaction():
            self._check_serial(replace(self.device(device_id), serial=serial))
            self.write("UPDATE devices SET serial = ? WHERE id = ?", (serial, device_id))

    def device_by_serial(self, serial: str) -> Device:
        """Raises `NotFound`; a retired device is found too."""
        row = self.read_one("SELECT id FROM devices WHERE serial = ?", (serial,))
        if row is None:
            raise NotFound(f"no device with serial {printable(serial)}", "see fleetctl provision list")
        return self.device(row[0])

    def device(self, device_id: str) -> Device:
        """Raises `NotFound`; a retired device is found too."""
        device = self._held(device_id)
        if device is None:
            raise NotFound(f"no device named {printable(device_id)}", "see fleetctl provision list")
        return device

    def active_device(self, device_id: str) -> Device:
        """Raises `NotFound` for a retired device too."""
        device = self.device(device_id)
        if device.state is LifeCycle.RETIRED:
            raise NotFound(f"device `{device_id}` was removed from the fleet", f"see fleetctl provision show {device_id}")
        return device

    def check_named(self, ids: Sequence[str], *, retired: bool = False) -> None:
        """Raises `NotFound` as `active_device` does, or with `retired` as `device` does, for the first of them that it would."""
        for page in pages(ids):
            known = list(filter(is_level, page))
            statement = f"SELECT id, state FROM devices WHERE id IN ({marks(known)})"  # noqa: S608
            states = {row[0]: row[1] for row in self.read(statement, known)} if known else {}
            for name in page:
                if name not in states or (not retired and states[name] == LifeCycle.RETIRED):
                    self.device(name) if retired else self.active_device(name)

    def knows(self, path: DevicePath) -> bool:
        """Whether a device that is believed lives at exactly that path: what comes from anywhere else is not taken in."""
        return self._lives_at(path, f"IN ({_BELIEVED})")

    def _lives_at(self, path: DevicePath, states: str) -> bool:
        found = self.read_one(
            f"SELECT 1 FROM devices WHERE id = ? AND tenant = ? AND location = ? AND type = ? AND state {states}",  # noqa: S608
            (path.device_id, path.tenant, path.location, path.device_type),
        )
        return found is not None

    def records(self, ids: Iterable[str] | None = None, *, retired: bool = False) -> Iterator[DeviceRecord]:
        """All devices in the order of their ids, or those of `ids` that exist; `retired` includes what was removed."""
        states = "" if retired else f" AND d.state <> '{LifeCycle.RETIRED}'"
        for rows in self._all_pages(states) if ids is None else self._pages_of(ids, states):
            labels = self._labels([row[0] for row in rows])
            for row in rows:
                yield self._record(row, labels.get(row[0], {}))

    def device_ids(self, prefix: str = "", limit: int = -1) -> list[str]:
        """Ids of active devices that begin with `prefix`, for completion."""
        rows = self.read(
            "SELECT id FROM devices WHERE id >= ? AND id < ? AND state <> ? ORDER BY id LIMIT ?",
            (prefix, prefix + "\x7f", LifeCycle.RETIRED, limit),
        )
        return [row[0] for row in rows]

    def count_devices(self) -> int:
        row = self.read_one("SELECT count(*) FROM devices WHERE state <> ?", (LifeCycle.RETIRED,))
        return int(row[0]) if row else 0

    def remember_presence(self, path: DevicePath, presence_json: str | bytes, received_at: float) -> bool:
        """Keep a status document; False if the device is unknown at that path or a newer session was heard of."""
        document = self.parse(presence_json if isinstance(presence_json, str) else presence_json.decode())
        seen = Sighting(
            document["status"],
            document["session"],
            document.get("firmwareVersion") or "",
            document.get("digest") or "",
            float(document.get("heartbeat") or 0),
            received_at,
        )
        with self.transaction():
            # of one that is out of service it is believed that it went: the broker says so when it cuts the session
            heard = self.knows(path) if seen.status == "online" else self._lives_at(path, f"<> '{LifeCycle.RETIRED}'")
            if not heard or not supersedes(seen, self.sighting(path.device_id)):
                return False
            self.write(
                _PRESENCE,
                (
                    path.device_id,
                    seen.status,
                    seen.session,
                    seen.firmware_version,
                    seen.digest,
                    seen.heartbeat,
                    _text(presence_json),
                    received_at,
                ),
            )
        return True

    def sighting(self, device_id: str) -> Sighting | None:
        row = self.read_one(
            "SELECT status, session, firmware, digest, heartbeat, received_at FROM presence WHERE device_id = ?", (device_id,)
        )
        return None if row is None else Sighting(*row)

    def presence_document(self, device_id: str) -> dict[str, Any] | None:
        """The status document that was last remembered, entire."""
        row = self.read_one("SELECT document FROM presence WHERE device_id = ?", (device_id,))
        return None if row is None else dict(self.parse(row[0]))

    def _check_serial(self, device: Device) -> None:
        row = None if device.serial is None else self.read_one("SELECT id FROM devices WHERE serial = ?", (device.serial,))
        if row is not None and row[0] != device.id:
            raise Conflict(
                f"serial {printable(str(device.serial))} is that of device `{row[0]}`",
                f"see fleetctl provision show {row[0]}",
            )

    def _held(self, device_id: str) -> Device | None:
        if not is_level(device_id) or self.read_one("SELECT 1 FROM devices WHERE id = ?", (device_id,)) is None:
            return None
        return next((record.device for record in self.records([device_id], retired=True)), None)

    def _all_pages(self, states: str) -> Iterator[list[Row]]:
        statement = _COLUMNS + "FROM devices d " + _HEARD + "WHERE d.id > ?" + states + " ORDER BY d.id LIMIT ?"
        after = ""
        while page := self.read(statement, (after, PAGE)):
            yield page
            after = page[-1][0]

    def _pages_of(self, ids: Iterable[str], states: str) -> Iterator[list[Row]]:
        for page in pages(filter(is_level, ids)):
            statement = f"{_COLUMNS}FROM devices d {_HEARD}WHERE d.id IN ({marks(page)}){states}"
            found = {row[0]: row for row in self.read(statement, page)}
            yield [found[name] for name in page if name in found]

    def _labels(self, ids: Sequence[str]) -> dict[str, dict[str, str]]:
        labels: dict[str, dict[str, str]] = {}
        statement = f"SELECT device_id, key, value FROM labels WHERE device_id IN ({marks(ids)}) ORDER BY device_id, key"  # noqa: S608
        for name, key, value in self.read(statement, ids) if ids else ():
            labels.setdefault(name, {})[key] = value
        return labels

    def _record(self, row: Row, labels: Mapping[str, str]) -> DeviceRecord:
        path = DevicePath(row[1], row[2], row[3], row[0])
        device = Device(path, labels, LifeCycle(row[4]), row[5], *row[16:19])
        sighting = None if row[6] is None else Sighting(*row[6:12])
        desired, reported = (None if text is None else self.parse(text) for text in (row[13], row[15]))
        return DeviceRecord(device, sighting, row[12], desired, row[14], reported, row[19])


def _text(document: str | bytes) -> str:
    return document if isinstance(document, str) else document.decode()


def _check_same(held: Device, wanted: Device, labels: Mapping[str, str]) -> None:
    if held.state is LifeCycle.RETIRED:
        raise Conflict(f"device id `{wanted.id}` was used before and is retired", "choose another id: none is given out twice")
    differences = [
        f"{name} is `{here}`, not `{there}`"
        for name, here, there in (
            ("tenant", held.path.tenant, wanted.path.tenant),
            ("location", held.path.location, wanted.path.location),
            ("type", held.path.device_type, wanted.path.device_type),
            ("serial", held.serial or "", wanted.serial or held.serial or ""),
        )
        if here != there
    ]
    differences += [
        f"label `{key}` is {_shown(held.labels.get(key))}, not {_shown(labels.get(key))}"
        for key in sorted({*held.labels, *labels})
        if held.labels.get(key) != labels.get(key)
    ]
    if differences:
        raise Conflict(
            f"device `{wanted.id}` exists already and differs: {'; '.join(differences)}",
            f"see fleetctl provision show {wanted.id}",
        )


def _shown(value: str | None) -> str:
    return "absent" if value is None else printable(value)
