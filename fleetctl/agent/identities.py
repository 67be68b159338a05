"""Where a device keeps the identities that it was given: whole folders, exchanged by the name of one link.

identities/N        an ordinary bundle: device.key device.pem ca.pem trust.cose root.pub device.yaml
identity            -> identities/N, the one in use
identity.new        -> identities/N, one that is being made, or that is whole and waits for its proof
identity.prev       -> identities/N, the one before

Key and certificate always change together, by one rename: whenever the process dies, `identity` is a whole bundle, the old
one or the new one. What no link names is removed.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from fleetctl import files
from fleetctl.errors import FleetError, NotFound
from fleetctl.keys.store import PrivateKey, load_key, private_pem
from fleetctl.wire import bundle

FOLDERS = "identities"
CURRENT, NEW, PREVIOUS = "identity", "identity.new", "identity.prev"
UNANNOUNCED = "unannounced"
"""A file in an identity that the fleet has not seen in use yet."""


class Identities:
    """The identities in one state folder, which its process holds alone."""

    def __init__(self, state: Path) -> None:
        self._state = state

    @property
    def current(self) -> Path | None:
        """The folder in use, by a name that stays its own when the link moves on."""
        return self._named(CURRENT)

    @property
    def previous(self) -> Path | None:
        return self._named(PREVIOUS)

    @property
    def candidate(self) -> Path | None:
        return self._named(NEW)

    @property
    def whole_candidate(self) -> Path | None:
        """One that lacks nothing but its proof: the certificate is the last file that is written."""
        folder = self.candidate
        return folder if folder is not None and (folder / bundle.CERTIFICATE).exists() else None

    def candidate_key(self, make: PrivateKey) -> PrivateKey:
        """The key of the candidate: the one that is there, else `make`, durable before anyone hears of it."""
        found = self.candidate
        if found is not None:
            try:
                return load_key(found / bundle.KEY)
            except FleetError:
                self.drop_candidate()
        folder = self._make_folder()
        files.write_atomic(folder / bundle.KEY, private_pem(make), 0o600)
        self._link(NEW, folder)
        return make

    def complete(self, parts: Mapping[str, bytes]) -> Path:
        """Add the other files to the candidate, the certificate last; raises `NotFound` where there is none."""
        folder = self.candidate
        if folder is None:
            raise NotFound(f"`{self._state}` has no new identity", "begin the renewal again: fleetctl agent run BUNDLE")
        for name in sorted(parts, key=lambda name: name == bundle.CERTIFICATE):
            files.write_atomic(folder / name, parts[name])
        return folder

    def commit(self) -> None:
        """Let the candidate be the identity, and the identity the previous one."""
        current = self.current
        if current is not None:
            self._link(PREVIOUS, current)
        (self._state / NEW).replace(self._state / CURRENT)
        files.sync_folder(self._state)
        self.tidy()

    def drop_candidate(self) -> None:
        (self._state / NEW).unlink(missing_ok=True)
        self.tidy()

    def tidy(self) -> None:
        """Remove what no link names: secrets that nobody needs any more."""
        home = self._state / FOLDERS
        named = {self._named(name) for name in (CURRENT, NEW, PREVIOUS)}
        if home.is_dir():
            for folder in home.resolve().iterdir():
                if folder not in named:
                    shutil.rmtree(folder, ignore_errors=True)

    def _named(self, name: str) -> Path | None:
        link = self._state / name
        try:
            folder = link.resolve(strict=True)
        except (OSError, RuntimeError):
            return None
        return folder if folder.is_dir() else None

    def _make_folder(self) -> Path:
        home = files.private_folder(self._state / FOLDERS)
        used = [int(found.name) for found in home.iterdir() if found.name.isdecimal()]
        folder = files.private_folder(home.resolve() / str(max(used, default=0) + 1))
        files.sync_folder(home)
        files.sync_folder(self._state)
        return folder

    def _link(self, name: str, folder: Path) -> None:
        """Have `name` lead to `folder`, in one step."""
        temporary = self._state / f".{name}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(os.path.join(FOLDERS, folder.name))  # noqa: PTH118
        temporary.replace(self._state / name)
        files.sync_folder(self._state)
