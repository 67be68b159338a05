from dataclasses import replace
from pathlib import Path

import pytest

from fleetctl.errors import ConfigError
from fleetctl.mqtt.broker import BrokerConfig, Listener, check_config, choose_engine, find_mosquitto, reachable


def installed(_name: str, path: str | None = None) -> str | None:
    return "/usr/bin/mosquitto"


def installed_for_root(_name: str, path: str | None = None) -> str | None:
    return "/usr/sbin/mosquitto" if path and "/usr/sbin" in path.split(":") else None


def missing(_name: str, path: str | None = None) -> str | None:
    return None


def test_mosquitto_is_chosen_where_it_is_installed_and_the_builtin_one_elsewhere() -> None:
    assert choose_engine(None, installed) == "mosquitto"
    assert choose_engine(None, installed_for_root) == "mosquitto"
    assert choose_engine(None, missing) == "builtin"
    assert choose_engine("builtin", installed) == "builtin"


def test_mosquitto_is_found_off_the_path() -> None:
    assert find_mosquitto(installed_for_root) == Path("/usr/sbin/mosquitto")


def test_an_engine_that_is_not_there_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="not installed"):
        choose_engine("mosquitto", missing)
    with pytest.raises(ConfigError, match="`emqx` is not a broker engine"):
        choose_engine("emqx", installed)


@pytest.fixture
def config(tmp_path: Path) -> BrokerConfig:
    cert, key, authority, crl = (tmp_path / name for name in ("cert", "key", "ca", "crl"))
    for path in (cert, key, authority, crl):
        path.touch()
    device = Listener("127.0.0.1", 8883, cert, key, authority, crl, (), identity_is_client_id=True)
    return BrokerConfig(device, replace(device, port=8884), tmp_path)


def test_loopback_and_different_ports_are_fine(config: BrokerConfig) -> None:
    check_config(config)
    check_config(replace(config, device=replace(config.device, host="::1"), fleet=replace(config.fleet, host="localhost")))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "broker.example"])  # noqa: S104
def test_other_machines_come_only_where_they_are_allowed(config: BrokerConfig, host: str) -> None:
    opened = replace(config, device=replace(config.device, host=host))
    with pytest.raises(ConfigError, match="reachable from other machines"):
        check_config(opened)
    check_config(replace(opened, allow_remote=True))


def test_two_listeners_need_two_ports(config: BrokerConfig) -> None:
    with pytest.raises(ConfigError, match="share port 8883"):
        check_config(replace(config, fleet=config.device))
    with pytest.raises(ConfigError, match="the fleet and the claims listener cannot share port 8884"):
        check_config(replace(config, claims=config.fleet))


def test_a_missing_file_is_named(config: BrokerConfig) -> None:
    config.fleet.crl.unlink()
    with pytest.raises(ConfigError, match="crl`, which does not exist"):
        check_config(config)


def test_the_unspecified_address_is_reached_by_loopback() -> None:
    assert [reachable(host) for host in ("0.0.0.0", "::", "localhost", "10.0.0.1")] == [  # noqa: S104
        "127.0.0.1",
        "::1",
        "localhost",
        "10.0.0.1",
    ]
