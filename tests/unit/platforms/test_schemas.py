"""Which JSON Schemas may be used, and what they say of a document."""

from typing import Any

import pytest

from fleetctl.errors import ConfigError, UsageError
from fleetctl.model.device import Device, DevicePath
from fleetctl.platforms.schemas import DIALECT, Schemas, validator

PUMP = Device(DevicePath("acme", "oslo", "pump", "p1"))
LAMP = Device(DevicePath("acme", "oslo", "lamp", "l1"))


def check(schema: dict[str, Any], desired: dict[str, Any]) -> None:
    Schemas({"pump": schema}.get).check(PUMP, desired)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "nothing"},
        {"properties": {"a": {"pattern": "("}}},
        {"$schema": "http://json-schema.org/draft-03/schema#"},
        {"$schema": 7},
        {"$ref": "https://example.com/pump.json"},
        {"$ref": "file:///etc/passwd"},
        {"properties": {"a": {"$ref": "other.json#/$defs/b"}}},
        {"$defs": {"a": {"items": {"$ref": "#/$defs/none"}}}},
        {"$dynamicRef": "https://example.com/x#y"},
    ],
)
def test_a_schema_of_no_use_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="the schema of type `pump` "):
        validator("pump", schema)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"$schema": DIALECT, "$defs": {"n": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/n"}}},
        {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"n": {}}, "items": {"$ref": "#/definitions/n"}},
        {"$schema": "https://json-schema.org/draft/2019-09/schema"},
        {"$id": "https://example.com/pump", "$defs": {"n": {"$id": "n"}}, "properties": {"a": {"$ref": "n"}}},
        {"properties": {"$ref": {"type": "string"}}, "enum": [{"$ref": "https://example.com"}]},
        {"properties": {"child": {"$ref": "#"}}},
    ],
)
def test_a_schema_may_refer_to_itself(schema: dict[str, Any]) -> None:
    validator("pump", schema)


def test_the_value_that_is_refused_is_named() -> None:
    schema = {"properties": {"network": {"properties": {"apn": {"type": "string"}}}}}
    with pytest.raises(UsageError) as caught:
        check(schema, {"network": {"apn": 5}})

    assert caught.value.message == "the schema of type `pump` refuses `network.apn` of `p1`: 5 is not of type 'string'"
    check(schema, {"network": {"apn": "iot"}, "more": 1})


def test_a_document_that_lacks_something_is_refused_as_a_whole() -> None:
    with pytest.raises(UsageError, match="refuses `p1`: 'a' is a required property"):
        check({"required": ["a"]}, {})


def test_a_schema_without_an_end_is_no_loop() -> None:
    with pytest.raises(ConfigError, match="refers to what is not in it"):
        check({"$ref": "#"}, {"a": 1})


def test_a_type_is_read_once_and_a_type_without_a_schema_takes_everything() -> None:
    asked: list[str] = []

    def read(kind: str) -> None:
        asked.append(kind)

    schemas = Schemas(read)
    for _ in range(2):
        schemas.check(PUMP, {"a": 1})
        schemas.check(LAMP, {"a": 1})

    assert asked == ["pump", "lamp"]
