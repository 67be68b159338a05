"""A fleet that runs: broker, artifact server and devices as processes, driven through the command line alone."""

import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fleetctl.demo import place
from fleetctl.demo.processes import Child, child
from tests.e2e.console import Console

DEVICES = ("pump-1", "pump-2")
ROGUE = "pump-9"
"""A device that no agent plays: tests connect with its certificate and say what they like."""


class RunningFleet:
    """Tenant `acme`, type `pump`, location `oslo`."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.console = Console(folder / "home")
        self._stack = stack
        self.port = place.free_ports()
        made = self.console.run("init", "--tenant", "acme", "--broker", f"mqtts://localhost:{self.port}")
        assert made.status == 0, made.err
        self.process("broker", "broker", "run").wait_for("listening", 20.0)
        for name in (*DEVICES, ROGUE):
            self.add(name)
        self.process("serve", "ota", "serve").wait_for("serving", 20.0)
        self._players: dict[str, Child] = {}
        self.play(*DEVICES)

    def process(self, name: str, *words: str) -> Child:
        log = self.folder / f"{name}.log"
        return self._stack.enter_context(child(name, [*words, "-o", "jsonl"], {"FLEETCTL_HOME": str(self.console.home)}, log))

    def bundle(self, name: str) -> Path:
        return self.folder / "bundles" / name

    def add(self, name: str) -> None:
        words = ["provision", "add", name, "--type", "pump", "--location", "oslo", "--bundle", self.bundle(name)]
        assert self.console.run(*words).status == 0

    def play(self, *names: str) -> None:
        """Be these devices; returns when all are online."""
        words = ["agent", "simulate", *(str(self.bundle(name)) for name in names), "--state", str(self.folder / "state")]
        words += ["--heartbeat", "300ms", "--reboot-delay", "100ms", "--self-test", "sh {image}", "--telemetry", "500ms"]
        agents = self.process("agents-" + names[0], *words)
        waiting = set(names)
        while waiting:
            waiting.discard(agents.wait_for("online", 20.0)["deviceId"])
        self._players |= dict.fromkeys(names, agents)

    def topic(self, device: str, channel: str) -> str:
        return f"acme/oslo/pump/{device}/{channel}"

    def say(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish as an operator."""
        words = ["publish", "-t", topic, "-", *(["--retain"] if retain else [])]
        said = self.console.run(*words, stdin=payload)
        assert said.status == 0, said.err

    def say_as_rogue(self, channel: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish as the device that nobody plays, with another program."""
        self.mosquitto(
            "mosquitto_pub",
            "-t",
            self.topic(ROGUE, channel),
            "-s" if payload else "-n",
            *(["-r"] if retain else []),
            stdin=payload,
        )

    def mosquitto(self, program: str, *words: str, stdin: bytes = b"") -> bytes:
        bundle = self.bundle(ROGUE)
        files = ["--cafile", bundle / "ca.pem", "--cert", bundle / "device.pem", "--key", bundle / "device.key"]
        common = [program, "-V", "5", "-q", "1", "-h", "localhost", "-p", str(self.port), "-i", ROGUE, *map(str, files)]
        done = subprocess.run([*common, *words], input=stdin, capture_output=True, timeout=20, check=True)
        return done.stdout

    def is_alive(self, device: str) -> bool:
        """Whether it still answers a ping."""
        said = self.console.run("publish", device, "commands/ping", "--wait", "--timeout", "10s", "-o", "json")
        return said.status == 0 and bool(said.json[0]["status"] == "succeeded")

    def dropped(self, device: str) -> int:
        """How many messages the device says, in its telemetry, that it has dropped."""
        said = self.console.run("tail", device, "--channel", "telemetry", "--count", "1", "--duration", "20s", "-o", "jsonl")
        return int(said.lines[0]["payload"]["metadata"]["dropped"])

    def event(self, name: str, device: str, timeout: float = 10.0, **words: Any) -> dict[str, Any]:
        """The next event of that name, of that device, with these words."""
        deadline = time.monotonic() + timeout
        while True:
            found = self._players[device].wait_for(name, max(0.1, deadline - time.monotonic()))
            if found["deviceId"] == device and all(found.get(key) == value for key, value in words.items()):
                return found
