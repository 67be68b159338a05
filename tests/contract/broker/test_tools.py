"""Both engines seen by another implementation of MQTT 5: mosquitto_pub and mosquitto_sub."""

import subprocess
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.contract.broker.conftest import Stand


class TestTools:
    """Driven by `mosquitto_pub -V 5` and `mosquitto_sub -V 5`."""

    def test_a_message_goes_from_one_to_the_other(self, stand: "Stand", tree: str) -> None:
        command = stand.tool(
            "mosquitto_sub", "op:alice", stand.unique("sub"), "-q", "1", "-t", f"{tree}/a", "-W", "25", "-C", "1"
        )
        with subprocess.Popen(
            [*command, "-t", f"{tree}/ready", "-T", f"{tree}/ready"], stdout=subprocess.PIPE, text=True
        ) as listener:
            stand.await_reader(f"{tree}/ready")
            sent = stand.pub("op:alice", f"{tree}/a", "-m", "hello")
            heard, _ = listener.communicate(timeout=30)
        assert (sent.returncode, listener.returncode, heard) == (0, 0, "hello\n")
        assert "RC:0" in sent.stdout

    def test_retained_messages_are_read_with_their_flag(self, stand: "Stand", tree: str) -> None:
        for name in ("a", "b"):
            assert stand.pub("op:alice", f"{tree}/{name}/status", "-r", "-m", name).returncode == 0
        found = stand.sub("op:alice", "-t", f"{tree}/+/status", "-C", "2", "-W", "25")
        assert {(each["topic"], each["payload"], each["retain"]) for each in found} == {
            (f"{tree}/a/status", "a", 1),
            (f"{tree}/b/status", "b", 1),
        }

    def test_a_retained_message_is_cleared(self, stand: "Stand", tree: str) -> None:
        stand.pub("op:alice", f"{tree}/a", "-r", "-m", "x")
        stand.pub("op:alice", f"{tree}/a", "-r", "-n")
        stand.pub("op:alice", f"{tree}/b", "-r", "-m", "y")
        found = stand.sub("op:alice", "-t", f"{tree}/a", "-t", f"{tree}/b", "-C", "1", "-W", "25")
        assert [each["topic"] for each in found] == [f"{tree}/b"]

    def test_a_device_is_told_what_it_may_not_write(self, stand: "Stand") -> None:
        mine, other = (
            stand.pub("dev-1", "acme/h/s/dev-1/status", "-m", "x"),
            stand.pub("dev-1", "acme/h/s/dev-2/status", "-m", "x"),
        )
        assert "RC:16" in mine.stdout
        assert "RC:135" in other.stdout + other.stderr

    def test_a_device_reads_its_retained_assignment(self, stand: "Stand") -> None:
        topic = "acme/h/s/dev-3/ota/desired"
        assert stand.pub("op:alice", topic, "-r", "-m", "signed").returncode == 0
        assert [each["payload"] for each in stand.sub("dev-3", "-t", topic, "-C", "1", "-W", "25")] == ["signed"]

    def test_a_command_arrives_with_response_topic_and_correlation(self, stand: "Stand", tree: str) -> None:
        listener = stand.connect()
        listener.subscribe(f"{tree}/#")
        extra = ["-D", "publish", "response-topic", "acme/reply", "-D", "publish", "correlation-data", "42"]
        stand.pub("op:alice", f"{tree}/commands/ping", "-m", "{}", *extra, "-D", "publish", "user-property", "k", "v")
        found: Any = listener.take(1)[0].properties
        assert (found.ResponseTopic, found.CorrelationData, found.UserProperty) == ("acme/reply", b"42", [("k", "v")])

    def test_the_will_of_a_killed_client_is_published(self, stand: "Stand", tree: str) -> None:
        listener = stand.connect()
        listener.subscribe(f"{tree}/will")
        words = ["-t", f"{tree}/x", "--will-topic", f"{tree}/will", "--will-payload", "gone", "--will-qos", "1"]
        command = stand.tool("mosquitto_sub", "op:alice", stand.unique("mortal"), *words)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as mortal:
            try:
                stand.await_reader(f"{tree}/x")
            finally:
                mortal.kill()
        assert listener.take(1)[0].payload == b"gone"

    def test_messages_wait_for_a_session_between_two_visits(self, stand: "Stand", tree: str) -> None:
        words = ["-q", "1", "-t", f"{tree}/#", "-c", "-x", "60", "-W", "25"]
        name = stand.unique("sleepy")
        first = stand.tool("mosquitto_sub", "op:alice", name, *words, "-E")
        assert subprocess.run(first, capture_output=True, timeout=30, check=False).returncode == 0
        for number in range(3):
            stand.pub("op:alice", f"{tree}/{number}", "-m", str(number))
        second = stand.tool("mosquitto_sub", "op:alice", name, *words, "-C", "3")
        done = subprocess.run(second, capture_output=True, text=True, timeout=30, check=False)
        assert done.stdout.split() == ["0", "1", "2"]

    def test_many_lines_are_published_and_received(self, stand: "Stand", tree: str) -> None:
        listener = stand.connect()
        listener.subscribe(f"{tree}/#")
        command = stand.tool("mosquitto_pub", "op:alice", stand.unique("lines"), "-q", "1", "-t", f"{tree}/lines", "-l")
        lines = "".join(f"{number}\n" for number in range(2000))
        assert subprocess.run(command, input=lines, text=True, timeout=30, check=False).returncode == 0
        assert [int(message.payload) for message in listener.take(2000)] == list(range(2000))
