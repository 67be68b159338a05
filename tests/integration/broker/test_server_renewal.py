"""The certificate that the servers of a context show, renewed while they run and after it has expired."""

import ssl
from contextlib import ExitStack
from pathlib import Path

import pytest
from cryptography import x509

from fleetctl import config
from fleetctl.demo.place import free_ports
from fleetctl.keys.store import load_key
from fleetctl.mqtt.broker import find_mosquitto
from fleetctl.pki.authority import read_certificates, serial_of
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.init import create_context
from fleetctl.platforms.local.layout import Layout
from fleetctl.platforms.local.server_renewal import renew_servers
from tests.integration.ota.stand import Stand


def shown(port: int) -> str:
    """The serial number of the certificate that a port shows now."""
    return serial_of(x509.load_pem_x509_certificate(ssl.get_server_certificate(("127.0.0.1", port)).encode()))


@pytest.mark.parametrize("engine", ["mosquitto", "builtin"])
@pytest.mark.parametrize("rekey", [False, True])
def test_a_broker_that_runs_shows_the_new_one_at_once(tmp_path: Path, engine: str, rekey: bool) -> None:
    assert engine == "builtin" or find_mosquitto(), "apt-get install mosquitto"
    with ExitStack() as stack:
        stand = Stand(tmp_path, stack, engine)
        layout = Layout(stand.fleet.context.folder)
        port = int(stand.fleet.context.device_broker.rpartition(":")[2])
        before, key = read_certificates(layout.public("broker.pem"))[0], load_key(layout.key("broker")).public_key()

        done = renew_servers(stand.fleet, rekey=rekey)

        after = read_certificates(layout.public("broker.pem"))[0]
        assert (done.outcome, done.replaces) == ("rekeyed" if rekey else "renewed", serial_of(before))
        assert shown(port) == shown(port + 1) == serial_of(after) == done.serial != serial_of(before)
        assert (after.public_key() == key) is not rekey
        names = [each.extensions.get_extension_for_class(x509.SubjectAlternativeName).value for each in (before, after)]
        assert names[0] == names[1]
        with stand.fleet.open_session("test") as session:
            session.flush()


def test_one_that_has_expired_is_renewed_too(tmp_path: Path) -> None:
    environ = {"FLEETCTL_HOME": str(tmp_path)}
    create_context("prod", "acme", f"mqtts://localhost:{free_ports()}", "alice", environ=environ)
    context = config.load_context("prod", environ)
    with LocalFleet(context) as now:
        later = now.clock() + 900 * 86400
    with LocalFleet(context, clock=lambda: later) as fleet:
        done = renew_servers(fleet)
        assert fleet.registry.certificate(done.serial).not_after > "2028"
    assert read_certificates(Layout(context.folder).public("broker.pem.prev"))
