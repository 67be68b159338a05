"""`broker check`: every trap by its name."""

import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from fleetctl.config import Context
from fleetctl.errors import NotFound
from fleetctl.pki.crl import read_held
from fleetctl.platforms.local.brokercheck import check_broker, check_names
from fleetctl.platforms.local.brokerprobe import probe_plain, probe_tls
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.layout import Layout
from fleetctl.platforms.local.rendering import Rendering, render
from tests.integration.broker.conftest import ME, SERVICE, Outside, renew_broker


def codes(fleet: LocalFleet, path: Path | None = None, *, live: bool = False) -> list[str]:
    return [each.code for each in check_broker(fleet, path, live=live)]


def test_what_is_rendered_is_clean_and_so_is_the_broker_that_runs_with_it(outside: Outside, fleet: LocalFleet) -> None:
    assert codes(fleet, outside.folder, live=True) == []


def test_a_running_broker_with_older_files_is_told_apart(outside: Outside, fleet: LocalFleet) -> None:
    renew_broker(fleet)
    render(fleet.context, outside.folder, outside.wanted)
    assert codes(fleet, outside.folder, live=True) == ["certificate_stale", "certificate_stale"]
    outside.process.terminate()
    outside.process.wait()
    assert codes(fleet, outside.folder, live=True) == ["no_handshake", "no_handshake", "operator_refused"]


EDITS = [
    ("max_inflight_messages 100", "max_connections 10", "option_above_listener"),
    ("allow_anonymous false", "allow_anonymous true", "anonymous"),
    ("tls_version tlsv1.3\n", "", "tls_version"),
    ("tls_version tlsv1.3", "tls_version tlsv1.2", "tls_version"),
    ("require_certificate true", "require_certificate false", "certificate_optional"),
    ("use_identity_as_username true", "use_subject_as_username true", "subject_as_username"),
    ("use_identity_as_username true\n", "", "no_identity"),
    ("use_username_as_clientid true\n", "", "client_id_free"),
    ("per_listener_settings true\n", "", "rules_shared"),
    ("people-ca.pem", "device-ca.pem", "shared_authority"),
    ("fleet.acl", "absent.acl", "file_missing"),
    ("allow_anonymous false", "allow_anonymous false\nlistener 2000", "plain_listener"),
]


@pytest.mark.parametrize(("old", "new", "code"), EDITS, ids=[f"{code}-{number}" for number, (*_, code) in enumerate(EDITS)])
def test_a_trap_in_the_configuration_is_called_by_its_name(
    context: Context, fleet: LocalFleet, tmp_path: Path, old: str, new: str, code: str
) -> None:
    render(context, tmp_path / "out", Rendering(tmp_path / "out", user=ME, with_key=True))
    path = tmp_path / "out" / "mosquitto.conf"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    assert code in codes(fleet, tmp_path / "out")
    assert code in codes(fleet, path)


def test_without_a_list_nothing_that_a_reload_promises_is_kept(context: Context, fleet: LocalFleet, tmp_path: Path) -> None:
    render(context, tmp_path / "out", Rendering(tmp_path / "out", user=ME, with_key=True))
    path = tmp_path / "out" / "mosquitto.conf"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.startswith("crlfile")))
    assert codes(fleet, path) == ["ca_changes_ignored", "no_crlfile", "tickets_survive"] * 2


def test_what_the_dynamic_security_plugin_cannot_do_is_told(fleet: LocalFleet, tmp_path: Path) -> None:
    path = tmp_path / "mosquitto.conf"
    path.write_text("listener 2000\nplugin /usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so\n")
    assert codes(fleet, path) == ["dynsec_without_acl", "plain_listener"]
    path.write_text("# nothing\n")
    assert codes(fleet, path) == ["no_listener"]


def test_an_included_folder_is_read_too(fleet: LocalFleet, tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "a.conf").write_text("listener 2000\nallow_anonymous true\n")
    (tmp_path / "mosquitto.conf").write_text(f"include_dir {tmp_path}/conf.d\n")
    assert codes(fleet, tmp_path / "mosquitto.conf") == ["anonymous", "no_acl", "plain_listener"]


def test_files_are_judged_with_the_eyes_of_the_brokers_user(context: Context, fleet: LocalFleet, open_folder: Path) -> None:
    folder = open_folder / "out"
    render(context, folder, Rendering(folder, user=SERVICE, with_key=True))
    assert codes(fleet, folder) == []
    (folder / "broker.key").chmod(0)
    assert codes(fleet, folder) == ["key_unreadable"] * 2
    (folder / "broker.key").chmod(0o644)
    assert codes(fleet, folder) == ["key_exposed"] * 2
    (folder / "broker.key").chmod(0o600)
    open_folder.chmod(0o700 if os.geteuid() == 0 else 0o600)
    if os.geteuid() == 0:
        assert {"key_unreadable", "file_unreadable"} == set(codes(fleet, folder))
    open_folder.chmod(0o755)


def test_lists_are_watched(context: Context, fleet: LocalFleet, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    render(context, folder, Rendering(folder, user=ME, with_key=True))
    now = fleet.clock()
    life = max(held.next_update for held in read_held(folder / "fleet.crl.pem").values()) - now
    late = LocalFleet(context, clock=lambda: now + life * 0.6)
    past = LocalFleet(context, clock=lambda: now + life + 60)
    with late, past:
        assert "crl_past_half_life" in codes(late, folder)
        assert "crl_expired" in codes(past, folder)
    (folder / "fleet.crl.pem").write_bytes((folder / "device.crl.pem").read_bytes())
    assert codes(fleet, folder) == ["crl_missing"]
    (folder / "fleet.crl.pem").write_text("damaged")
    assert codes(fleet, folder) == ["file_damaged"]


def test_a_broker_certificate_for_another_name_is_told(context: Context, fleet: LocalFleet, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    render(context, folder, Rendering(folder, user=ME, with_key=True))
    with LocalFleet(replace(context, device_broker="mqtts://broker.example.org:8883")) as moved:
        (found,) = check_broker(moved, folder, live=False)
    assert found.code == "certificate_wrong_host"
    assert "`broker.example.org`" in found.detail
    assert "`localhost`" in found.detail


def test_a_context_without_a_broker_has_nothing_to_check(fleet: LocalFleet) -> None:
    with pytest.raises(NotFound, match="no configuration of a broker") as caught:
        check_broker(fleet, None, live=False)
    assert caught.value.hint == "fleetctl broker run"


def test_port_1883_and_older_tls_are_found_on_a_broker_that_runs(fleet: LocalFleet) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    layout = Layout(fleet.context.folder)
    context.load_cert_chain(layout.public("broker.pem"), layout.key("broker"))
    with _answering(context) as port:
        assert [each.code for each in probe_tls("127.0.0.1", port)] == ["tls12_accepted"]
    with _answering(None) as port:
        assert [each.code for each in probe_plain("127.0.0.1", port)] == ["port_1883_open"]
    assert list(probe_plain("127.0.0.1", port)) == []


@contextmanager
def _answering(context: ssl.SSLContext | None) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    taken, _ = server.accept()
                    with taken, suppress(OSError):
                        if context is not None:
                            context.wrap_socket(taken, server_side=True).close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_a_name_that_rules_would_take_for_more_than_one_level_is_found(fleet: LocalFleet) -> None:
    row = fleet.registry.certificates()[0]
    fleet.registry.add_certificate(replace(row, serial="77", subject="a/b"))
    assert [(each.code, each.severity) for each in check_names(fleet)] == [("dangerous_name", "error")]
    fleet.registry.revoke_certificate("77", "unspecified", "2026-01-01T00:00:00Z")
    assert list(check_names(fleet)) == []
