"""The HTTP of it: what is asked where, in how many bytes, how fast, and by how many."""

import base64
import socket
import ssl
import time
from contextlib import ExitStack, suppress

import pytest
from cryptography import x509

from fleetctl import https
from fleetctl.pki.authority import common_names
from fleetctl.pki.csr import make_csr
from fleetctl.platforms.local.est import EstService
from tests.integration.est.stand import Stand, ask, new_key, port_of

REFUSED = (ConnectionError, ssl.SSLError)


def test_the_authorities_are_those_of_devices_and_the_one_of_this_server(stand: Stand) -> None:
    reply = stand.ask("cacerts")
    assert reply.headers["Content-Type"] == "application/pkcs7-mime"
    assert sorted(common_names(each)[0] for each in reply.certificates) == ["device-issuing", "device-root", "fleet-ca"]


def test_the_attributes_ask_for_p256(stand: Stand) -> None:
    reply = stand.ask("csrattrs")
    assert reply.headers["Content-Type"] == "application/csrattrs"
    der = base64.b64decode(reply.body, validate=True)
    assert bytes.fromhex("2a8648ce3d030107") in der
    assert der[1] == len(der) - 2


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/.well-known/est/acme/cacerts", 200),
        ("/.well-known/est/cacerts?x=y", 200),
        ("/.well-known/est/other/cacerts", 404),
        ("/.well-known/est/acme/acme/cacerts", 404),
        ("/.well-known/est/", 404),
        ("/.well-known/est", 404),
        ("/.well-known/est/fullcmc", 404),
        ("/.well-known/est/simpleenroll", 405),
        ("/cacerts", 404),
        ("/", 404),
        ("cacerts/", 404),
    ],
)
def test_a_path_is_an_operation_after_one_label_at_most(stand: Stand, path: str, status: int) -> None:
    assert stand.ask(path).status == status


def test_a_wrong_method_is_told_the_right_one(stand: Stand) -> None:
    assert stand.ask("simpleenroll").headers["Allow"] == "POST"
    assert stand.ask("cacerts", b"").headers["Allow"] == "GET"


def test_a_body_of_another_type_or_too_long_or_without_a_length_is_refused(stand: Stand) -> None:
    assert stand.ask("simpleenroll", b"x", headers={"Content-Type": "text/plain"}).status == 415
    assert stand.ask("simpleenroll", bytes(16384)).status == 401
    assert stand.ask("simpleenroll", bytes(16385)).status == 413
    assert stand.ask("simpleenroll", bytes(600_000)).status == 413
    chunked = {"Transfer-Encoding": "chunked"}
    assert stand.ask("simpleenroll", b"", headers=chunked).status == 411


def raw(stand: Stand, stack: ExitStack) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(stand.layout.fleet_ca))
    tcp = stack.enter_context(socket.create_connection(("localhost", port_of(stand.service.url)), timeout=10))
    return stack.enter_context(context.wrap_socket(tcp, server_hostname="localhost"))


def all_of(connection: ssl.SSLSocket) -> bytes:
    """What comes until the other side hangs up, however it does."""
    data = b""
    with suppress(ConnectionError, ssl.SSLError):
        while chunk := connection.recv(4096):
            data += chunk
    return data


def test_a_body_is_asked_for_only_if_it_may_come(stand: Stand) -> None:
    head = b"POST /.well-known/est/simpleenroll HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    with ExitStack() as stack:
        connection = raw(stand, stack)
        connection.sendall(head % 2)
        began = time.monotonic()
        assert connection.recv(4096).startswith(b"HTTP/1.1 100 ")
        assert time.monotonic() - began < 1
        connection.sendall(b"xx")
        assert connection.recv(4096).startswith(b"HTTP/1.1 401 ")
        refused = raw(stand, stack)
        refused.sendall(head % 20000)
        assert all_of(refused).startswith(b"HTTP/1.1 413 ")


def test_heads_without_end_and_nonsense_get_one_line_or_none(stand: Stand) -> None:
    with ExitStack() as stack:
        endless = raw(stand, stack)
        endless.sendall(b"GET /.well-known/est/cacerts HTTP/1.1\r\n" + b"X: %s\r\n" % (b"y" * 8000) * 5)
        assert b" 200 " not in all_of(endless)
        nonsense = raw(stand, stack)
        nonsense.sendall(b"<hello>\r\n\r\n")
        answer = all_of(nonsense)
    assert b" 400 " in answer
    assert b"<html" not in answer.lower()


def test_a_client_that_trickles_is_left_behind(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(https, "TIMEOUT", 0.5)
    with ExitStack() as stack:
        slow = raw(stand, stack)
        began = time.monotonic()
        with suppress(ConnectionError, ssl.SSLError):
            for _ in range(100):
                slow.sendall(b"G")
                time.sleep(0.05)
        assert 0.3 < time.monotonic() - began < 4


def test_who_never_shakes_hands_stops_nobody(stand: Stand) -> None:
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(socket.create_connection(("localhost", port_of(stand.service.url)), timeout=10))
        began = time.monotonic()
        assert stand.ask("cacerts").status == 200
        assert time.monotonic() - began < 2


def test_one_address_that_never_shakes_hands_leaves_places_to_others(stand: Stand) -> None:
    with ExitStack() as stack:
        for _ in range(https.HANDSHAKES + 20):
            stack.enter_context(socket.create_connection(("127.0.0.1", port_of(stand.service.url)), timeout=10))
        time.sleep(0.3)
        context = ssl.create_default_context(cafile=str(stand.layout.fleet_ca))
        place = ("127.0.0.1", port_of(stand.service.url))
        raw = stack.enter_context(socket.create_connection(place, timeout=10, source_address=("127.0.0.2", 0)))
        with context.wrap_socket(raw, server_hostname="localhost") as secured:
            assert secured.version() == "TLSv1.3"


def test_one_address_without_a_certificate_holds_only_so_many_connections(stand: Stand) -> None:
    stand.add()
    _, holding = stand.enrolled()
    stand.service.stop()
    places = https.Places(each=2, each_address=3)
    stand.service = EstService(stand.fleet, "localhost:0", stand.events.append, places=places)
    stand.service.start()
    with ExitStack() as stack:
        for _ in range(3):
            assert ask(stack.enter_context(stand.connection()), "cacerts").status == 200
        with pytest.raises(REFUSED):
            stand.ask("cacerts")
        for _ in range(2):
            assert ask(stack.enter_context(stand.connection(holding)), "cacerts").status == 200
        with pytest.raises(REFUSED):
            stand.ask("cacerts", holding=holding)
    answered, deadline = 0, time.monotonic() + 5
    while not answered and time.monotonic() < deadline:
        with suppress(*REFUSED):
            answered = stand.ask("cacerts", holding=holding).status
    assert answered == 200, "places are given back"


def test_requests_on_one_connection_do_not_stall(stand: Stand) -> None:
    stand.add()
    _, holding = stand.enrolled()
    csr = make_csr(new_key(), "p-1")
    with stand.connection(holding) as connection:
        times = []
        for _ in range(21):
            began = time.perf_counter()
            assert ask(connection, "simplereenroll", csr).status == 200
            times.append(time.perf_counter() - began)
    assert sorted(times)[10] < 0.03, "a reply in two pieces waits 40 ms for an acknowledgement"


def test_an_authority_that_changes_is_served_without_a_restart(stand: Stand) -> None:
    before = stand.ask("cacerts").certificates
    path = stand.layout.device_ca
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    assert stand.ask("cacerts").certificates == before
    assert all(isinstance(each, x509.Certificate) for each in before)
