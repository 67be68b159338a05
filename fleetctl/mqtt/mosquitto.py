"""mosquitto as a child process: a hardened configuration rendered from `BrokerConfig`, and a process that dies with ours."""

import os
import pwd
import resource
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from time import monotonic, sleep
from typing import IO

from fleetctl import files
from fleetctl.errors import ConfigError, FleetError, Unavailable
from fleetctl.model.access import Rule
from fleetctl.mqtt.broker import BrokerConfig, Listener, check_config, check_ports, find_mosquitto, reachable

START_SECONDS = 10.0
RELOAD_SECONDS = 3.0
STOP_SECONDS = 5.0
LOG_LINES = 8
LAST_BYTES = 16384
PACKET_BYTES = 131072 + 4096
MOST_DEVICES = 50_000
MOST_CLAIMS = 500
RELOADING = b"Reloading config."

# Only Linux can tie a child's life to its parent's. Run before mosquitto in the same process, because code between fork and exec
# is not safe in a process with threads; the parent may be gone before prctl is reached, hence the second look.
#
# The soft limit of open files, often 1024, is raised to the hard one: mosquitto ends when it runs out of them.
_TIED_TO_PARENT = """
import contextlib, os, resource, sys
parent, program = int(sys.argv[1]), sys.argv[2:]
if sys.platform == "linux":
    import ctypes, signal
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
with contextlib.suppress(ValueError, OSError):
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
os.execv(program[0], program)
"""

_GLOBAL = """\
per_listener_settings true
{user}{persistence}
connection_messages true
log_dest stderr
log_timestamp_format %Y-%m-%dT%H:%M:%S
log_type error
log_type warning
log_type notice
log_type information
max_inflight_messages 100
max_queued_messages 10000
max_queued_bytes 67108864
max_packet_size {packet}
persistent_client_expiration 7d
set_tcp_nodelay true
sys_interval 0
"""

_LISTENER = """
listener {port} {host}
tls_version tlsv1.3
cafile {ca}
certfile {cert}
keyfile {key}
crlfile {crl}
require_certificate true
use_identity_as_username true
{more}allow_anonymous false
allow_zero_length_clientid false
acl_file {acl}
"""

_DEVICE = """\
use_username_as_clientid true
max_connections {connections}
"""

_TRANSIENT = """\
max_connections {connections}
max_qos 1
max_topic_alias 0
"""


def device_connections() -> int:
    """How many devices may be connected: the rest of the open files is for the fleet listener and mosquitto itself."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return MOST_DEVICES if hard == resource.RLIM_INFINITY else max(1, min(MOST_DEVICES, hard * 4 // 5))


def render_config(
    config: BrokerConfig, user: str | None = None, connections: int = MOST_DEVICES, persistence: Path | None = None
) -> dict[str, str]:
    """`mosquitto.conf` and an ACL for each listener, `device.acl`, by name; `user` is whom mosquitto stays if root starts it.

    `persistence` is a folder in which it keeps retained messages and sessions; without one they end with it.
    Nothing that belongs to a listener may stand above the first `listener`: it would open 1883 to the world in plain text.
    """
    kept = "persistence false" if persistence is None else f"persistence true\npersistence_location {_path(persistence)}/"
    named = f"user {_word(user, 'user name')}\n" if user else ""
    text = _GLOBAL.format(user=named, persistence=kept, packet=PACKET_BYTES)
    acls = {f"{name}.acl": listener for name, listener in config.named.items()}
    for name, listener in acls.items():
        text += _render_listener(listener, config.folder / name, connections)
    return {"mosquitto.conf": text, **{name: render_acl(each.rules, each.denied) for name, each in acls.items()}}


def _render_listener(listener: Listener, acl: Path, connections: int) -> str:
    return _LISTENER.format(
        port=listener.port,
        host=_word(listener.host, "address"),
        ca=_path(listener.client_ca),
        cert=_path(listener.cert),
        key=_path(listener.key),
        crl=_path(listener.crl),
        more=_more(listener, connections),
        acl=_path(acl),
    )


def _more(listener: Listener, connections: int) -> str:
    if listener.transient:
        return _TRANSIENT.format(connections=max(1, min(MOST_CLAIMS, connections // 8)))
    return _DEVICE.format(connections=connections) if listener.identity_is_client_id else ""


def render_acl(rules: tuple[Rule, ...], denied: Iterable[str] = ()) -> str:
    """Patterns throughout: a bare `topic` line would speak of anonymous clients only.

    mosquitto asks what it knows of a user first, and asks no pattern after it was told no.
    """
    refusals = "".join(f"user {_line(name, 'identity')}\ntopic deny #\n" for name in sorted(denied))
    return refusals + "".join(f"pattern {rule.action} {_line(rule.pattern, 'topic pattern')}\n" for rule in rules)


def _path(path: Path) -> str:
    return _line(str(path.absolute()), "path")


def _word(text: str, what: str) -> str:
    if " " in text:
        raise ConfigError(f"the {what} `{text}` holds a space, which mosquitto cannot read")
    return _line(text, what)


def _line(text: str, what: str) -> str:
    """`text`, unless it would end its line or begin another setting."""
    if not text or text != text.strip() or not text.isprintable():
        raise ConfigError(f"the {what} {text!r} cannot be written into a mosquitto configuration", "choose a plain name")
    return text


def tied_to_parent(command: list[str]) -> list[str]:
    """`command`, killed by Linux when the thread that starts it ends; on other systems it is the command as it was."""
    return [sys.executable, "-I", "-S", "-c", _TIED_TO_PARENT, str(os.getpid()), *command]


class Mosquitto:
    """Start it from a thread that lives as long as the broker should: Linux ends the child with the thread that made it.

    On other systems only `stop` ends it.
    """

    def __init__(self, config: BrokerConfig, program: Path | None = None, user: str | None = None) -> None:
        """`user` is whom it becomes where root starts it, who must be able to read the folder then; root by default."""
        self._config = config
        self._program = program
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self._config.folder / "mosquitto.log"

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Return once all listeners answer a TLS handshake; otherwise raise, with the end of the log, and leave no process."""
        program = self._program or find_mosquitto()
        if program is None:
            raise ConfigError("mosquitto is not installed", "install it (apt-get install mosquitto), or use --engine builtin")
        check_config(self._config)
        check_ports(self._config)
        self._write_config()
        command = [str(program), "-c", str(self._config.folder.absolute() / "mosquitto.conf")]
        with self._open_log() as log:
            self._process = subprocess.Popen(
                tied_to_parent(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._await_handshakes("did not start", START_SECONDS)
        except BaseException:
            self.stop()
            raise

    def _write_config(self) -> None:
        files.private_folder(self._config.folder)
        root = pwd.getpwuid(os.geteuid()).pw_name if os.geteuid() == 0 else None
        mode = 0o600 if self._user is None else 0o644
        for name, text in render_config(self._config, root and (self._user or root), device_connections()).items():
            files.write_atomic(self._config.folder / name, text.encode(), mode)

    def _open_log(self) -> IO[bytes]:
        return os.fdopen(os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600), "wb")

    def reload(self, config: BrokerConfig | None = None) -> None:
        """Have it read certificates, authorities, lists and rules again, and prove that it still lets clients in.

        Sessions that are open stay open, also those of a certificate revoked since: cut them with `session.evict`. Who is denied
        may connect: nothing that it says reaches anybody, and nothing reaches it.
        """
        self._config = config or self._config
        if self._process is None or self._process.poll() is not None:
            raise Unavailable("mosquitto does not run", "start it with fleetctl broker run")
        self._write_config()
        offset = self.log.stat().st_size
        self._process.send_signal(signal.SIGHUP)
        deadline = monotonic() + RELOAD_SECONDS
        while not self._reloads_since(offset):
            if monotonic() > deadline:
                raise FleetError("mosquitto did not read its files again", f"its log: {self.log}")
            sleep(0.01)
        self._await_handshakes("lets nobody in since it read its files again", RELOAD_SECONDS)

    def _reloads_since(self, offset: int) -> bool:
        """Whether the log says so behind `offset`; the log of a large fleet is long."""
        with self.log.open("rb") as log:
            log.seek(offset)
            return RELOADING in log.read()

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it has ended, after at most `timeout` seconds."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self) -> None:
        """End it and reap it; harmless when it has ended already."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()

    def last_words(self) -> str:
        """The end of its log, for an error."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - LAST_BYTES))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-LOG_LINES:])

    def _await_handshakes(self, what: str, seconds: float) -> None:
        deadline = monotonic() + seconds
        for listener in self._config.listeners:
            while not _answers(listener):
                ended = self._process is None or self._process.poll() is not None
                if ended or monotonic() > deadline:
                    raise FleetError(f"mosquitto {what}; its log ends with\n{self.last_words()}", f"the whole log: {self.log}")
                sleep(0.02)


def _answers(listener: Listener) -> bool:
    """Whether a TLS handshake gets as far as the broker's certificate: it has its files, and a loop that runs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((reachable(listener.host), listener.port), timeout=2) as tcp,
            context.wrap_socket(tcp) as tls,
        ):
            return tls.version() is not None
    except OSError:
        return False
