import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetctl.errors import ConfigError
from fleetctl.mqtt.endpoint import Endpoint


@pytest.mark.parametrize(
    ("url", "host", "port", "tls"),
    [
        ("mqtts://localhost:8884", "localhost", 8884, True),
        ("mqtts://broker.example", "broker.example", 8883, True),
        ("mqtt://10.0.0.1", "10.0.0.1", 1883, False),
        ("mqtts://[::1]:9000/", "::1", 9000, True),
    ],
)
def test_a_url_names_host_port_and_tls(url: str, host: str, port: int, tls: bool) -> None:
    endpoint = Endpoint.parse_url(url)
    assert (endpoint.host, endpoint.port, endpoint.tls) == (host, port, tls)
    assert Endpoint.parse_url(endpoint.url) == endpoint


NO_ADDRESSES = """
localhost localhost:8883 https://x mqtts:// mqtts://x:0 mqtts://x:99999 mqtts://x:a mqtts://x/path mqtts://x?a=1 mqtts://x#f
mqtts://user:secret@x mqtts://[::1
"""


@pytest.mark.parametrize("url", ["", "mqtts://a b", "mqtts://x\0y", *NO_ADDRESSES.split()])
def test_what_is_no_address_is_a_configuration_error_that_repeats_no_secret(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Endpoint.parse_url(url)
    assert "secret@" not in caught.value.message


@given(st.text())
def test_any_text_is_an_address_or_a_configuration_error(text: str) -> None:
    for url in (text, f"mqtts://{text}"):
        try:
            endpoint = Endpoint.parse_url(url)
        except ConfigError:
            continue
        assert 0 < endpoint.port < 65536


def test_a_password_is_not_shown() -> None:
    assert "hunter2" not in repr(Endpoint("x", 1, username="u", password="hunter2"))
