"""mosquitto as a child process, and what a client is told when certificates are wrong on either side."""

import datetime as dt
import os
import resource
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

import pytest

from fleetctl.errors import ConfigError, Conflict, Denied, FleetError, Unavailable, Untrusted
from fleetctl.mqtt.mosquitto import Mosquitto
from fleetctl.mqtt.session import evict, open_session

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.mqtt.conftest import Stand

DAY = dt.timedelta(days=1)


@pytest.fixture
def own_stand(new_stand: "Callable[..., Stand]") -> Iterator["Stand"]:
    """A broker for one test, which may break it."""
    made = new_stand()
    made.engine.start()
    try:
        yield made
    finally:
        made.engine.stop()


def listens(port: int, host: str = "127.0.0.1") -> bool:
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True


def test_no_port_but_the_two_is_open(own_stand: "Stand") -> None:
    opened = [line for line in own_stand.engine.log.read_text().splitlines() if "listen socket on port" in line]
    ports = {own_stand.config.device.port, own_stand.config.fleet.port}
    assert {int(line.split("port ")[1].rstrip(".")) for line in opened} == ports
    assert not listens(1883)


def test_it_may_open_as_many_files_as_the_system_lets_it_and_devices_leave_some_of_them(own_stand: "Stand") -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if sys.platform == "linux":
        assert own_stand.engine.pid is not None
        assert resource.prlimit(own_stand.engine.pid, resource.RLIMIT_NOFILE) == (hard, hard)
    text = (own_stand.config.folder / "mosquitto.conf").read_text()
    general, devices, fleet = text.split("\nlistener ")
    assert "max_connections" not in general + fleet
    most = int(devices.split("max_connections ")[1].split()[0])
    assert 0 < most <= 50_000
    assert hard == resource.RLIM_INFINITY or most < hard


def test_a_reload_is_not_taken_for_done_because_of_an_earlier_one(own_stand: "Stand") -> None:
    own_stand.engine.reload()
    own_stand.engine.reload()
    assert own_stand.engine.log.read_text().count("Reloading config.") == 2


def test_what_it_writes_is_for_its_owner_only(own_stand: "Stand") -> None:
    folder = own_stand.config.folder
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_a_device_may_not_take_another_client_id(own_stand: "Stand") -> None:
    topic = own_stand.address("dev-1", "telemetry")
    with (
        open_session(own_stand.device("dev-1"), "x", client_id="dev-1") as first,
        open_session(own_stand.device("dev-2"), "x", client_id="dev-1") as thief,
    ):
        thief.publish(topic, b"{}")
        with pytest.raises(Denied, match="dev-1/telemetry"):
            thief.flush()
        first.publish(topic, b"{}")
        first.flush()


def test_devices_are_not_let_in_by_the_door_of_the_fleet(own_stand: "Stand") -> None:
    stranger = replace(own_stand.device("dev-1"), port=own_stand.config.fleet.port)
    with pytest.raises(Denied, match=r"refused our certificate .*authority"):
        open_session(stranger, "test")


def test_without_a_certificate_nobody_enters(own_stand: "Stand") -> None:
    with pytest.raises(Denied, match="wants a client certificate"):
        open_session(replace(own_stand.operator(), cert=None, key=None), "test")


def test_an_expired_certificate_of_ours_is_named_with_its_age(own_stand: "Stand") -> None:
    expired = own_stand.people.issue("op:late", begins=-10 * DAY, ends=-3 * DAY - dt.timedelta(hours=1))
    with pytest.raises(Denied, match=r"refused our certificate `.*op-late.*`: it has expired, 3 days ago"):
        open_session(own_stand.with_identity(expired), "test")


def test_a_certificate_of_ours_that_begins_tomorrow_says_so(own_stand: "Stand") -> None:
    early = own_stand.people.issue("op:early", begins=dt.timedelta(hours=5, minutes=1))
    with pytest.raises(Denied, match="not valid yet, it begins in 5 hours") as caught:
        open_session(own_stand.with_identity(early), "test")
    assert "date -u" in caught.value.hint


def test_a_server_certificate_is_no_ticket_for_a_client(own_stand: "Stand") -> None:
    with pytest.raises(Denied, match="refused our certificate"):
        open_session(own_stand.with_identity(own_stand.people.issue("op:server", server=True)), "test")


def test_a_wrong_authority_is_named(own_stand: "Stand") -> None:
    with pytest.raises(Untrusted, match=r"`localhost` was not issued by `.*devices/ca\.pem`"):
        open_session(replace(own_stand.operator(), ca=own_stand.devices.ca), "test")


def test_another_host_name_is_told_with_the_names_of_the_certificate(own_stand: "Stand") -> None:
    with pytest.raises(Untrusted, match=r"not for `127\.0\.0\.2`, only for `localhost`, `127\.0\.0\.1`") as caught:
        _explain_from_other_address(own_stand)
    assert "name" in caught.value.hint


def _explain_from_other_address(stand: "Stand") -> None:
    config = replace(
        stand.config, device=replace(stand.config.device, host="127.0.0.2"), fleet=replace(stand.config.fleet, host="127.0.0.2")
    )
    engine = Mosquitto(config)
    stand.engine.stop()
    engine.start()
    try:
        open_session(replace(stand.operator(), host="127.0.0.2"), "test")
    finally:
        engine.stop()


def test_the_brokers_expired_certificate_is_told_with_its_age(new_stand: "Callable[..., Stand]") -> None:
    stand = new_stand(begins=-10 * DAY, ends=-2 * DAY - dt.timedelta(hours=1))
    stand.engine.start()
    try:
        with pytest.raises(Untrusted, match="the certificate of `localhost` has expired, 2 days ago"):
            open_session(stand.operator(), "test")
    finally:
        stand.engine.stop()


def test_a_revoked_certificate_is_refused_after_a_reload_and_its_session_can_be_cut(own_stand: "Stand") -> None:
    revoked, bystander = own_stand.device("dev-1"), own_stand.device("dev-2")
    assert revoked.cert is not None
    with open_session(revoked, "x", client_id="dev-1") as live, open_session(bystander, "x", client_id="dev-2") as other:
        own_stand.devices.revoke(revoked.cert)
        own_stand.engine.reload()
        with pytest.raises(Denied, match=r"refused our certificate .*: it is revoked"):
            open_session(revoked, "x", client_id="dev-1")
        assert live.connection.connected
        evict(own_stand.operator(), "dev-1")
        with pytest.raises(FleetError):
            live.receive(5)
        other.publish(own_stand.address("dev-2", "telemetry"), b"{}")
        other.flush()


def test_a_reload_that_locks_everybody_out_is_reported(own_stand: "Stand") -> None:
    own_stand.config.device.key.write_text("no key")
    with pytest.raises(FleetError, match="lets nobody in"):
        own_stand.engine.reload()


def test_a_taken_port_is_named(own_stand: "Stand") -> None:
    with pytest.raises(Unavailable, match=f"port `{own_stand.config.device.port}` is taken"):
        Mosquitto(own_stand.config).start()


def test_a_start_that_fails_shows_the_log_and_leaves_no_process(new_stand: "Callable[..., Stand]") -> None:
    stand = new_stand()
    stand.config.fleet.crl.write_text("not a list")
    with pytest.raises(FleetError, match=r"(?s)did not start; its log ends with.*crl\.pem"):
        stand.engine.start()
    assert stand.engine.pid is None
    assert not listens(stand.config.device.port)


def test_other_addresses_than_loopback_need_permission(new_stand: "Callable[..., Stand]") -> None:
    stand = new_stand()
    with pytest.raises(ConfigError, match="reachable from other machines"):
        Mosquitto(replace(stand.config, fleet=replace(stand.config.fleet, host="0.0.0.0"))).start()  # noqa: S104


def test_stopping_reaps_it_and_the_client_learns_that_nobody_answers(own_stand: "Stand") -> None:
    with open_session(own_stand.operator(), "test") as session:
        pid = own_stand.engine.pid
        assert pid is not None
        assert not own_stand.engine.wait(0.05)
        own_stand.engine.stop()
        own_stand.engine.stop()
        assert own_stand.engine.wait(0)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        with pytest.raises(Unavailable, match="was lost"):
            session.receive(5)
    with pytest.raises(Unavailable, match="no broker answers at `localhost:"):
        open_session(own_stand.operator(), "test")


def test_a_broker_killed_and_replaced_is_no_takeover(own_stand: "Stand") -> None:
    with open_session(own_stand.operator(), "test") as session:
        assert own_stand.engine.pid is not None
        os.kill(own_stand.engine.pid, signal.SIGKILL)
        with pytest.raises(Unavailable) as caught:
            session.receive(5)
        assert not isinstance(caught.value, Conflict)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent")
def test_it_dies_with_a_parent_that_is_killed(new_stand: "Callable[..., Stand]", tmp_path: Path) -> None:
    stand = new_stand()
    device, fleet = stand.config.device, stand.config.fleet
    script = textwrap.dedent(f"""
        import time
        from pathlib import Path
        from fleetctl.mqtt.broker import BrokerConfig, Listener
        from fleetctl.mqtt.mosquitto import Mosquitto
        cert, key = Path({str(device.cert)!r}), Path({str(device.key)!r})
        def listener(port, ca, crl):
            return Listener("127.0.0.1", port, cert, key, Path(ca), Path(crl), (), False)
        engine = Mosquitto(BrokerConfig(listener({device.port}, {str(device.client_ca)!r}, {str(device.crl)!r}),
            listener({fleet.port}, {str(fleet.client_ca)!r}, {str(fleet.crl)!r}), Path({str(tmp_path / "broker")!r})))
        engine.start()
        print(engine.pid, flush=True)
        time.sleep(60)
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert int(parent.stdout.readline()) > 0
        assert listens(fleet.port)
        parent.kill()
    deadline = monotonic() + 5
    while listens(fleet.port) and monotonic() < deadline:
        sleep(0.02)
    assert not listens(fleet.port)
