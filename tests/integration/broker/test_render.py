"""`broker render`: the same bytes every time."""

import stat
from pathlib import Path

import pytest

from fleetctl.config import Context
from fleetctl.errors import UsageError
from fleetctl.platforms.local.reloading import Reload
from fleetctl.platforms.local.rendering import Rendering, render


def test_rendering_twice_is_the_same_to_the_byte(context: Context, tmp_path: Path) -> None:
    wanted = Rendering(Path("/etc/mosquitto/fleetctl"), "0.0.0.0", with_key=True)  # noqa: S104
    one, other = tmp_path / "one", tmp_path / "other"
    assert {each.outcome for each in render(context, one, wanted)} == {"rendered"}
    assert {each.outcome for each in render(context, one, wanted)} == {"unchanged"}
    render(context, other, wanted)
    names = sorted(path.name for path in one.iterdir())
    assert names == [
        "broker.key",
        "broker.pem",
        "device-ca.pem",
        "device.acl",
        "device.crl.pem",
        "fleet.acl",
        "fleet.crl.pem",
        "mosquitto.conf",
        "people-ca.pem",
    ]
    assert all((one / name).read_bytes() == (other / name).read_bytes() for name in names)
    modes = {name: stat.S_IMODE((one / name).stat().st_mode) for name in names}
    assert {name for name, mode in modes.items() if mode != 0o644} == {"broker.key"}
    assert modes["broker.key"] == 0o600


def test_paths_are_those_of_the_brokers_host_and_the_key_stays_here(context: Context, tmp_path: Path) -> None:
    made = render(context, tmp_path / "out", Rendering(Path("/etc/mosquitto/fleetctl"), key=Path("/etc/ssl/private/b.key")))
    text = (tmp_path / "out" / "mosquitto.conf").read_text()
    assert "broker.key" not in {each.name for each in made}
    assert "keyfile /etc/ssl/private/b.key\n" in text
    assert "acl_file /etc/mosquitto/fleetctl/device.acl\n" in text
    assert "user mosquitto\n" in text
    assert str(tmp_path) not in text
    assert str(context.folder) not in text


def test_what_would_not_make_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="not a whole path"):
        Rendering(Path("etc"))
    with pytest.raises(UsageError, match="either copied or somewhere"):
        Rendering(Path("/etc"), key=Path("/k"), with_key=True)
    with pytest.raises(UsageError, match="say how"):
        Reload()
