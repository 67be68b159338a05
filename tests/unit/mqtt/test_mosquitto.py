from dataclasses import replace
from pathlib import Path

import pytest

from fleetctl.errors import ConfigError
from fleetctl.model.access import Action, Rule, claim_rules, device_rules, fleet_rules
from fleetctl.mqtt.broker import BrokerConfig, Listener
from fleetctl.mqtt.mosquitto import render_acl, render_config

# what mosquitto reads as its default listener's, and then opens 1883 on every address (per_listener_settings true)
OF_A_LISTENER = """
acl_file allow_anonymous allow_zero_length_clientid auth_plugin auto_id_prefix bind_address cafile capath certfile ciphers crlfile
keyfile max_connections max_qos max_topic_alias mount_point password_file plugin port protocol psk_file psk_hint
require_certificate socket_domain tls_version use_identity_as_username use_subject_as_username use_username_as_clientid
"""


def listener(port: int, rules: tuple[Rule, ...], *, forced: bool) -> Listener:
    folder = Path("/etc/fleet")
    cert, key = folder / "broker.pem", folder / "broker.key"
    return Listener("127.0.0.1", port, cert, key, folder / f"ca-{port}.pem", folder / f"crl-{port}.pem", rules, forced)


@pytest.fixture
def config() -> BrokerConfig:
    device, fleet = listener(8883, device_rules("acme"), forced=True), listener(8884, fleet_rules("acme"), forced=False)
    return BrokerConfig(device, fleet, Path("/var/fleet"))


def sections(text: str) -> list[dict[str, str]]:
    """The settings before the first listener, and those of each listener."""
    found: list[dict[str, str]] = [{}]
    for line in filter(None, text.splitlines()):
        name, _, value = line.partition(" ")
        if name == "listener":
            found.append({})
        found[-1][name] = value
    return found


def test_nothing_of_a_listener_stands_above_the_first_one(config: BrokerConfig) -> None:
    above, *_ = sections(render_config(config)["mosquitto.conf"])
    assert not set(OF_A_LISTENER.split()) & set(above)
    assert "max_connections" not in above
    assert (above["per_listener_settings"], above["persistence"]) == ("true", "false")


def test_each_listener_demands_certificates_of_its_own_authority(config: BrokerConfig) -> None:
    _, device, fleet = sections(render_config(config)["mosquitto.conf"])
    assert device == {
        "listener": "8883 127.0.0.1",
        "tls_version": "tlsv1.3",
        "cafile": "/etc/fleet/ca-8883.pem",
        "certfile": "/etc/fleet/broker.pem",
        "keyfile": "/etc/fleet/broker.key",
        "crlfile": "/etc/fleet/crl-8883.pem",
        "require_certificate": "true",
        "use_identity_as_username": "true",
        "use_username_as_clientid": "true",
        "max_connections": "50000",
        "allow_anonymous": "false",
        "allow_zero_length_clientid": "false",
        "acl_file": "/var/fleet/device.acl",
    }
    assert "use_username_as_clientid" not in fleet
    assert (fleet["listener"], fleet["cafile"], fleet["acl_file"]) == (
        "8884 127.0.0.1",
        "/etc/fleet/ca-8884.pem",
        "/var/fleet/fleet.acl",
    )


def test_the_rules_of_the_contract_become_patterns(config: BrokerConfig) -> None:
    rendered = render_config(config)
    assert rendered["fleet.acl"] == "pattern read acme/#\npattern write acme/#\n"
    assert "pattern write acme/+/+/%u/status\n" in rendered["device.acl"]
    assert "pattern read acme/_fleet/trust\n" in rendered["device.acl"]
    assert all(line.startswith(("pattern read ", "pattern write ")) for line in rendered["device.acl"].splitlines())


def test_the_listener_for_claims_keeps_client_ids_free_and_connections_few(config: BrokerConfig) -> None:
    claims = replace(listener(8886, claim_rules("acme"), forced=False), transient=True)
    rendered = render_config(replace(config, claims=claims), connections=2000)
    *_, section = sections(rendered["mosquitto.conf"])
    assert section == {
        "listener": "8886 127.0.0.1",
        "tls_version": "tlsv1.3",
        "cafile": "/etc/fleet/ca-8886.pem",
        "certfile": "/etc/fleet/broker.pem",
        "keyfile": "/etc/fleet/broker.key",
        "crlfile": "/etc/fleet/crl-8886.pem",
        "require_certificate": "true",
        "use_identity_as_username": "true",
        "max_connections": "250",
        "max_qos": "1",
        "max_topic_alias": "0",
        "allow_anonymous": "false",
        "allow_zero_length_clientid": "false",
        "acl_file": "/var/fleet/claims.acl",
    }
    assert rendered["claims.acl"] == (
        "pattern write acme/_fleet/provision/%u/%c/request\npattern read acme/_fleet/provision/%u/%c/reply\n"
    )


def test_no_rules_permit_nothing() -> None:
    assert render_acl(()) == ""


def test_who_is_denied_stands_before_the_patterns_in_one_order(config: BrokerConfig) -> None:
    text = render_acl((Rule(Action.READ, "acme/%u"),), {"p-2", "p-1"})
    assert text == "user p-1\ntopic deny #\nuser p-2\ntopic deny #\npattern read acme/%u\n"
    with pytest.raises(ConfigError):
        render_acl((), {"p-1\ntopic readwrite #"})
    acls = render_config(replace(config, device=replace(config.device, denied=frozenset({"p-1"}))))
    assert [name for name, rules in acls.items() if "deny" in rules] == ["device.acl"]


def test_only_root_names_a_user(config: BrokerConfig) -> None:
    assert "user" not in sections(render_config(config)["mosquitto.conf"])[0]
    assert sections(render_config(config, "root")["mosquitto.conf"])[0]["user"] == "root"


@pytest.mark.parametrize("name", ["a\nlistener 1883", "a\rb", "a\tb", "trailing ", "a\u2028b", "a\0b"])
def test_a_path_that_would_write_a_second_line_is_refused(config: BrokerConfig, name: str) -> None:
    path, fleet = Path("/x") / name, config.fleet
    for evil in (replace(fleet, cert=path), replace(fleet, key=path), replace(fleet, client_ca=path), replace(fleet, crl=path)):
        with pytest.raises(ConfigError, match="cannot be written into a mosquitto configuration"):
            render_config(replace(config, fleet=evil))
    with pytest.raises(ConfigError):
        render_config(replace(config, folder=Path("/x\nallow_anonymous true")))
    with pytest.raises(ConfigError):
        render_acl((Rule(Action.READ, f"acme/{name}"),))


@pytest.mark.parametrize("host", ["127.0.0.1 bind", "127.0.0.1\nallow_anonymous true", ""])
def test_an_address_is_one_word(config: BrokerConfig, host: str) -> None:
    with pytest.raises(ConfigError):
        render_config(replace(config, device=replace(config.device, host=host)))
