"""Cutting the sessions of an identity: lists are looked at in handshakes only, and mosquitto keeps whom it knows."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from fleetctl.errors import FleetError
from fleetctl.platforms.local.running import Obedience

if TYPE_CHECKING:
    from fleetctl.platforms.local.fleet import LocalFleet

LOG = "mosquitto.log"
_CAME = re.compile(rb"New client connected from \S+ as (.+) \(p\d+, c\d+, k\d+, u'([^']*)'\)\.$")
_WENT = re.compile(rb": Client (.+?) (?:disconnected|closed its connection)")


def cut(fleet: "LocalFleet", names: Iterable[tuple[str, str | None]], told: Obedience) -> dict[str, bool]:
    """Cut whoever is connected as these subjects (with the device id of devices): whether no session of each is left.

    The built-in broker does so by itself when it reads its lists. Of mosquitto we take over the client id: a device's is its
    name, those of people and claims stand in the broker's log.
    """
    wanted = dict(names)
    if not told.reloaded or told.engine != "mosquitto":
        return dict.fromkeys(wanted, told.reloaded)
    others = {subject for subject, device_id in wanted.items() if device_id is None}
    connected = client_ids(fleet.context.broker_folder / LOG, others) if others else {}
    return {
        subject: _evict(fleet, [device_id] if device_id is not None else connected.get(subject))
        for subject, device_id in wanted.items()
    }


def client_ids(log: Path, subjects: Iterable[str]) -> dict[str, list[str]]:
    """The client ids under which each of the subjects is or was connected, as mosquitto's log tells it.

    One that is gone does no harm here, one that is missing would. Empty where there is no log.
    """
    wanted = {subject.encode(): subject for subject in subjects}
    open_now: dict[bytes, bytes] = {}
    try:
        with log.open("rb") as lines:
            for line in lines:
                _follow(line.rstrip(b"\r\n"), wanted, open_now)
    except OSError:
        return {}
    found: dict[str, list[str]] = {subject: [] for subject in wanted.values()}
    for client_id, subject in open_now.items():
        found[wanted[subject]].append(client_id.decode(errors="replace"))
    return found


def _follow(line: bytes, wanted: dict[bytes, str], open_now: dict[bytes, bytes]) -> None:
    if came := _CAME.search(line):
        open_now.pop(came[1], None)
        if came[2] in wanted:
            open_now[came[1]] = came[2]
    elif open_now and (went := _WENT.search(line)):
        open_now.pop(went[1], None)


def _evict(fleet: "LocalFleet", client_ids: list[str] | None) -> bool:
    """Whether none of them is connected any more; None of them known is no proof."""
    from fleetctl.mqtt.session import evict

    if client_ids is None:
        return False
    try:
        for client_id in client_ids:
            evict(fleet.endpoint, client_id)
    except FleetError:
        return False
    return True
