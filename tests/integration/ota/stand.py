"""A fleet with real parts: a context, its broker as a process, and simulated devices as another."""

import json
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from fleetctl import config
from fleetctl.demo import firmware, place
from fleetctl.demo.processes import Child, child
from fleetctl.model.rollout import Parameters
from fleetctl.mqtt.session import Session
from fleetctl.platforms.local.fleet import LocalFleet
from fleetctl.platforms.local.init import create_context
from fleetctl.platforms.protocol import Targets
from fleetctl.platforms.updates import PlanEntry, PlanOptions

HEARTBEAT = 0.3
QUICK = Parameters(
    accept_within=10.0, finish_within=15.0, soak=0.0, heartbeat=HEARTBEAT, heartbeats=1, stale_after=10.0, max_attempts=3
)


class Stand:
    """One fleet for one test: tenant `acme`, devices `pump-1` and so on, all of them real MQTT sessions."""

    def __init__(self, folder: Path, stack: ExitStack, engine: str) -> None:
        self.folder = folder
        self.environ = {"FLEETCTL_HOME": str(folder / "home")}
        self._stack = stack
        port = place.free_ports()
        create_context("test", "acme", f"mqtts://{place.HOST}:{port}", "tester", environ=self.environ)
        self.broker = self.run("broker", "broker", "run", "--context", "test", "--engine", engine)
        self.broker.wait_for("listening", 20.0)
        self.fleet = self.open()

    def open(self) -> LocalFleet:
        """The fleet as another terminal opens it."""
        return self._stack.enter_context(LocalFleet(config.load_context("test", self.environ)))

    def run(self, name: str, *words: str) -> Child:
        return self._stack.enter_context(child(name, [*words, "-o", "jsonl"], self.environ, self.folder / f"{name}.log"))

    def add(self, count: int, first: int = 1) -> list[str]:
        names = [f"pump-{number}" for number in range(first, first + count)]
        for name in names:
            bundle = self.folder / "bundles" / name
            self.fleet.devices.add(name, device_type="pump", location=f"at-{name}", labels={}, bundle=bundle)
        return names

    def start_agents(self, names: list[str], label: str = "agents") -> Child:
        """Be these devices; returns when all are online."""
        words = ["agent", "simulate", *(str(self.folder / "bundles" / name) for name in names)]
        words += ["--state", str(self.folder / "state"), "--heartbeat", f"{HEARTBEAT}s", "--reboot-delay", "100ms"]
        agents = self.run(label, *words, "--self-test", "sh {image}")
        waiting = set(names)
        while waiting:
            waiting.discard(agents.wait_for("online", 20.0)["deviceId"])
        return agents

    def release(self, version: str, self_test: str = firmware.HEALTHY) -> str:
        file = self.folder / f"{version}.bin"
        file.write_bytes(firmware.image(version, self_test))
        return self.fleet.updates.publish(file, "pump", version).name

    def plan(self, release: str, parameters: Parameters = QUICK, file: Path | None = None) -> PlanEntry:
        devices = self.fleet.devices.resolve(Targets(selector="type=pump"))
        return self.fleet.updates.plan(release, devices, PlanOptions(parameters=parameters), file=file)

    def session(self, **options: Any) -> Session:
        return self._stack.enter_context(self.fleet.open_session("test", **options))


class Acceptances:
    """Counts on the wire how often each device accepted each attempt, from before the first offer on."""

    def __init__(self, session: Session, names: list[str]) -> None:
        self._session = session
        session.subscribe([f"acme/at-{name}/pump/{name}/ota/status" for name in names])

    def count(self) -> Counter[tuple[str, int]]:
        """(device, attempt) of every `accepted` that was published; retained ones of before do not count."""
        seen: Counter[tuple[str, int]] = Counter()
        while messages := self._session.receive(0.3):
            for message in messages:
                said = json.loads(message.payload)
                if said["phase"] == "accepted" and not message.retain:
                    seen[message.topic.split("/")[3], said["attempt"]] += 1
        return seen
