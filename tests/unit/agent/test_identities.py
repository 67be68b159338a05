"""The folders of identities: whenever the process dies, what is in use is whole."""

import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleetctl import files
from fleetctl.agent.identities import Identities
from fleetctl.keys.store import generate_key, load_key, public_pem
from fleetctl.wire import bundle


class PowerCut(Exception):
    """The process ends here."""


def parts(text: str) -> dict[str, bytes]:
    return {name: text.encode() for name in bundle.FILES if name != bundle.KEY}


def make(identities: Identities, text: str) -> bytes:
    """A whole candidate; its public key."""
    key = identities.candidate_key(generate_key("p256"))
    identities.complete(parts(text))
    return public_pem(key)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    identities = Identities(tmp_path)
    make(identities, "old")
    identities.commit()
    return tmp_path


def in_use(state: Path) -> tuple[str, bytes]:
    """What the certificate file says, and the public key beside it."""
    folder = state / "identity"
    return (folder / bundle.CERTIFICATE).read_text(), public_pem(load_key(folder / bundle.KEY))


def test_the_key_of_a_candidate_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    first = Identities(tmp_path).candidate_key(generate_key("p256"))
    again = Identities(tmp_path).candidate_key(generate_key("p256"))
    assert public_pem(first) == public_pem(again)
    key = tmp_path / "identity.new" / bundle.KEY
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.resolve().stat().st_mode) == 0o700


def test_a_commit_keeps_the_one_before_and_removes_the_one_before_that(state: Path) -> None:
    identities = Identities(state)
    for text in ("second", "third"):
        make(identities, text)
        identities.commit()
    assert in_use(state)[0] == "third"
    assert (state / "identity.prev" / bundle.CERTIFICATE).read_text() == "second"
    assert len(list((state / "identities").iterdir())) == 2
    assert identities.candidate is None


def test_a_dropped_candidate_leaves_no_key_behind(state: Path) -> None:
    before = in_use(state)
    identities = Identities(state)
    make(identities, "new")
    identities.drop_candidate()
    assert in_use(state) == before
    assert len(list((state / "identities").iterdir())) == 1


def test_a_candidate_is_whole_only_with_its_certificate(state: Path) -> None:
    identities = Identities(state)
    identities.candidate_key(generate_key("p256"))
    assert identities.whole_candidate is None
    identities.complete(parts("new"))
    assert identities.whole_candidate is not None


def _cutting(monkeypatch: pytest.MonkeyPatch, after: int) -> Callable[[], int]:
    """Power fails at the n-th change of the disk."""
    count = 0

    def wrap(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def call(*args: Any, **words: Any) -> Any:
            nonlocal count
            count += 1
            if count > after:
                raise PowerCut
            return original(*args, **words)

        monkeypatch.setattr(owner, name, call)

    for owner, name in (
        (files, "write_atomic"),
        (files, "sync_folder"),
        (files, "private_folder"),
        (Path, "symlink_to"),
        (Path, "replace"),
        (Path, "unlink"),
        (shutil, "rmtree"),
    ):
        wrap(owner, name)
    return lambda: count


@pytest.mark.parametrize("after", range(45))
def test_key_and_certificate_always_match_wherever_power_fails(state: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    old = in_use(state)
    new = None
    with monkeypatch.context() as patched:
        _cutting(patched, after)
        try:
            new = make(Identities(state), "new")
            Identities(state).commit()
        except PowerCut:
            pass
    found = in_use(state)
    assert found == old or (found[0] == "new" and found[1] != old[1])
    assert new is None or found in (old, ("new", new))
    identities = Identities(state)
    if identities.current is not None and found[0] != "new":
        made = make(identities, "new") if identities.whole_candidate is None else public_pem(_key(identities))
        identities.commit()
        assert in_use(state) == ("new", made)
    identities.tidy()
    assert len(list((state / "identities").iterdir())) <= 2


def _key(identities: Identities) -> Any:
    folder = identities.whole_candidate
    assert folder is not None
    return load_key(folder / bundle.KEY)
