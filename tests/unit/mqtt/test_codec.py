"""The codec against bytes that are no packets: nothing but MalformedPacket, and nothing on stderr."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetctl.mqtt import codec
from fleetctl.mqtt.codec import (
    AuthPacket,
    ConnAckPacket,
    ConnectPacket,
    Decoder,
    DisconnectPacket,
    MalformedPacket,
    Packet,
    PingReqPacket,
    PubAckPacket,
    PublishPacket,
    QoS,
    SubAckPacket,
    SubAckReasonCode,
    SubscribePacket,
    TopicFilter,
    UnsubscribePacket,
    UnsupportedVersion,
    Will,
)

LIMIT = 4096
WILL = Will("w/é", payload=b"\xff", content_type="é", response_topic="r", correlation_data=b"\xff", user_properties=[("ü", "b")])
PACKETS: list[Packet] = [
    ConnectPacket("abc", will=WILL, username="ü", password=b"\xff", user_properties=[("a", "ü")], session_expiry_interval=7),
    ConnAckPacket(reason_str="ü", assigned_client_id="é"),
    PublishPacket("a/ü", b"\xff\xfe", qos=QoS.AT_LEAST_ONCE, packet_id=4, response_topic="é", user_properties=[("ü", "é")]),
    PublishPacket("a/b", b"\xff\xfe"),
    PublishPacket("a/b", b"", message_expiry_interval=8, correlation_data=b"\xf0", subscription_ids=[1, 200]),
    PubAckPacket(3, reason_str="ü"),
    SubscribePacket(3, [TopicFilter("ü/+"), TopicFilter("#")], subscription_id=8),
    SubAckPacket(3, [SubAckReasonCode.GRANTED_QOS_AT_LEAST_ONCE], reason_str="ü"),
    UnsubscribePacket(3, ["ü", "é"], user_properties=[("a", "ü")]),
    PingReqPacket(),
    DisconnectPacket(reason_str="é", session_expiry_interval=3),
    AuthPacket(authentication_method="é", authentication_data=b"\xff"),
]
FRAMES = [codec.encode(packet) for packet in PACKETS]


@pytest.mark.parametrize("packet", PACKETS, ids=lambda packet: type(packet).__name__)
def test_what_is_encoded_decodes_to_the_same(packet: Packet) -> None:
    assert codec.decode(codec.encode(packet)) == packet


@given(st.lists(st.sampled_from(range(len(PACKETS))), max_size=6), st.data())
def test_packets_come_out_of_a_stream_however_it_is_cut(indices: list[int], data: st.DataObject) -> None:
    stream = b"".join(FRAMES[index] for index in indices)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    decoder = Decoder(LIMIT)
    found: list[Packet] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found.extend(decoder.feed(stream[start:end]))
    assert found == [PACKETS[index] for index in indices]


def mutate(frame: bytes, edits: list[tuple[int, int, int]]) -> bytes:
    body = bytearray(frame)
    for place, value, kind in edits:
        at = place % len(body)
        if kind == 0:
            body[at] = value
        elif kind == 1:
            body.insert(at, value)
        elif len(body) > 2:
            del body[at]
    body[1] = len(body) - 2 if kind_of_length(edits) else body[1]
    return bytes(body)


def kind_of_length(edits: list[tuple[int, int, int]]) -> bool:
    """Most often the length is put right, so that the edits are looked at and not refused for their length."""
    return not edits or edits[0][0] % 8 != 0


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(FRAMES), st.lists(st.tuples(st.integers(0, 127), st.integers(0, 255), st.integers(0, 2)), max_size=4))
def test_a_mutated_packet_decodes_or_is_malformed(frame: bytes, edits: list[tuple[int, int, int]]) -> None:
    try:
        codec.decode(mutate(frame, edits))
    except MalformedPacket:
        return


@given(st.binary(max_size=300))
def test_noise_is_never_more_than_malformed(noise: bytes) -> None:
    try:
        list(Decoder(LIMIT).feed(noise))
    except MalformedPacket:
        return


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (b"\x30\x04\x00\x02\xff\xfe", "not UTF-8"),
        (b"\x30\x06\x00\x03\xed\xa0\x80\x00", "not UTF-8"),
        (b"\x30\x04\x00\x01\x00\x00", "NUL"),
        (b"\x82\x07\x00\x01\x00\x00\x01a\xc0", "reserved bit"),
        (b"\x82\x07\x00\x01\x00\x00\x01a\x03", "qos"),
        (b"\x10\x10\x00\x04MQTT\x05\x03\x00\x3c\x00\x00\x03abc", "contradict"),
        (b"\x10\x10\x00\x04MQTT\x05\x22\x00\x3c\x00\x00\x03abc", "contradict"),
        (b"\x38\x04\x00\x01a\x00", "contradict"),
        (b"\x36\x06\x00\x01a\x00\x01\x00", "contradict"),
        (b"\x80\x07\x00\x01\x00\x00\x01a\x00", "begins like that"),
        (b"\x00\x00", "begins like that"),
        (b"\x10\x03\x00\x01X", "another protocol"),
        (b"\xc0\x01\x00", "remaining length"),
        (b"\xc0\x80\x00", "shortest form"),
        (b"", "nothing"),
        (b"\x30\x02\x00", "length of the packet is wrong"),
        (b"\x30\x07\x00\x01a\x02\x01\x07x", "neither 0 nor 1"),
    ],
)
def test_what_breaks_a_rule_is_refused(frame: bytes, why: str) -> None:
    with pytest.raises(MalformedPacket, match=f"(?i){why}"):
        codec.decode(frame)


def test_a_string_that_would_panic_the_package_leaves_stderr_clean(capfd: pytest.CaptureFixture[str]) -> None:
    for frame in FRAMES:
        for at in range(2, len(frame)):
            try:
                codec.decode(frame[:at] + b"\xff" + frame[at + 1 :])
            except MalformedPacket:
                continue
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("version", [3, 4, 6])
def test_another_version_of_the_protocol_is_told_apart(version: int) -> None:
    name = b"\0\6MQIsdp" if version == 3 else b"\0\4MQTT"
    body = name + bytes((version, 2, 0, 60, 0, 1)) + b"c"
    with pytest.raises(UnsupportedVersion) as caught:
        codec.decode(bytes((0x10, len(body))) + body)
    assert caught.value.version == version


def test_an_announced_size_is_refused_before_anything_is_buffered() -> None:
    with pytest.raises(MalformedPacket) as caught:
        list(Decoder(LIMIT).feed(b"\x30\xff\xff\xff\x7f"))
    assert caught.value.reason == 0x95


def test_a_length_without_end_is_refused() -> None:
    with pytest.raises(MalformedPacket, match="no end"):
        list(Decoder(LIMIT).feed(b"\x30\xff\xff\xff\xff"))


def test_a_bad_first_byte_is_refused_before_its_length_is_known() -> None:
    with pytest.raises(MalformedPacket):
        list(Decoder(LIMIT).feed(b"G"))


def test_the_packets_before_a_bad_one_are_handed_out() -> None:
    found = []
    with pytest.raises(MalformedPacket):  # noqa: PT012 - what came before is the point
        for packet in Decoder(LIMIT).feed(FRAMES[9] + b"\x00\x00"):
            found.append(packet)  # noqa: PERF402
    assert found == [PACKETS[9]]


def test_a_packet_of_exactly_the_limit_passes_and_one_byte_more_does_not() -> None:
    room = LIMIT - len(codec.encode(PublishPacket("t", b""))) - 1
    exact = codec.encode(PublishPacket("t", b"x" * room))
    assert len(exact) == LIMIT
    assert len(list(Decoder(LIMIT).feed(exact))) == 1
    with pytest.raises(MalformedPacket):
        list(Decoder(LIMIT).feed(codec.encode(PublishPacket("t", b"x" * (room + 1)))))


def test_what_cannot_be_written_is_malformed_too() -> None:
    with pytest.raises(MalformedPacket):
        codec.encode(PublishPacket("t", bytes(1 << 28)))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_panic_of_the_package_is_caught_by_its_name(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MalformedPacket) as caught:
        codec._read(b"\x30\x04\x00\x02\xff\xfe")
    assert type(caught.value.__cause__).__name__ == "PanicException"
    assert "panicked" in capfd.readouterr().err, "if it is silent by now, the strings need no check of their own"


def test_what_ends_the_program_is_not_taken_for_a_panic() -> None:
    assert isinstance(codec._translated(KeyboardInterrupt()), KeyboardInterrupt)
