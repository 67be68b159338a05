"""A PKCS #11 token of one's own: SoftHSM2 in a temporary folder."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "81726354"
LABEL = "fleet keys"


@dataclass(frozen=True, slots=True)
class Token:
    """`environment` is what a process needs to use it."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"SOFTHSM2_CONF": str(self.folder / "softhsm2.conf"), "FLEETCTL_PIN_FILE": str(self.folder / "pin")}

    def uri(self, prefix: str = "") -> str:
        return f"pkcs11:token=fleet%20keys{f';object={prefix}' if prefix else ''}?module-path={MODULE}"

    def objects(self) -> str:
        """What another program sees on it, logged in."""
        words = ["pkcs11-tool", "--module", MODULE, "--token-label", LABEL, "-l", "--pin", "env:PIN", "-O"]
        environment = {**self.environment, "PIN": PIN}
        return subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout

    def initialize(self, label: str) -> None:
        words = ["softhsm2-util", "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "12345678"]
        subprocess.run(words, env=self.environment, capture_output=True, check=True)


def made(folder: Path) -> Token:
    if not Path(MODULE).exists() or shutil.which("softhsm2-util") is None or shutil.which("pkcs11-tool") is None:
        pytest.skip("softhsm2 and opensc are not installed")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(
        f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    (folder / "pin").touch(0o600)
    (folder / "pin").write_text(f"{PIN}\n")
    token = Token(folder)
    token.initialize(LABEL)
    return token


@pytest.fixture
def token(tmp_path: Path) -> Token:
    """For programs that the test starts."""
    (tmp_path / "token").mkdir()
    return made(tmp_path / "token")


@pytest.fixture(scope="session")
def _loaded_token(tmp_path_factory: pytest.TempPathFactory) -> Token:
    return made(tmp_path_factory.mktemp("token"))


@pytest.fixture
def loaded(_loaded_token: Token, monkeypatch: pytest.MonkeyPatch) -> Token:
    """For this process, which loads a module only once, and so shares one token among its tests."""
    for name, value in _loaded_token.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("FLEETCTL_PIN", "FLEETCTL_PKCS11_MODULE"):
        monkeypatch.delenv(name, raising=False)
    return _loaded_token
