"""JSON Schemas of desired documents, one for each device type: what they refuse is never sent."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fleetctl.errors import ConfigError, UsageError
from fleetctl.model.device import Device, printable

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

    from fleetctl.registry import Registry


class Schemas:
    """The schemas of a registry, each read once for one write."""

    def __init__(self, registry: "Registry") -> None:
        self._registry = registry
        self._known: dict[str, Draft202012Validator | None] = {}

    def check(self, device: Device, desired: Mapping[str, Any]) -> None:
        """Raises `UsageError` that names the value and what its schema says; `ConfigError` for a schema of no use."""
        kind = device.path.device_type
        if kind not in self._known:
            schema = self._registry.twin_schema(kind)
            self._known[kind] = None if schema is None else validator(kind, schema)
        known = self._known[kind]
        if known is not None:
            _check(known, device, desired)


def validator(kind: str, schema: Mapping[str, Any]) -> "Draft202012Validator":
    """A schema that may be used; raises `ConfigError` for one that is none, or that refers to another place."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ConfigError(
            f"the schema of type {printable(kind)} is no JSON Schema: {error.message[:200]}",
            "mend it: https://json-schema.org/draft/2020-12",
        ) from error
    return Draft202012Validator(schema)


def _check(known: "Draft202012Validator", device: Device, desired: Mapping[str, Any]) -> None:
    from referencing.exceptions import Unresolvable

    kind = device.path.device_type
    try:
        error = next(iter(known.iter_errors(dict(desired))), None)
    except (Unresolvable, RecursionError) as failure:
        raise ConfigError(
            f"the schema of type `{kind}` refers to what is not in it", f"see fleetctl twin schema {kind}"
        ) from failure
    if error is not None:
        where = ".".join(str(part) for part in error.absolute_path) or "the document"
        raise UsageError(
            f"the schema of type `{kind}` refuses `{where}` of `{device.id}`: {printable(error.message).strip('`')}",
            f"see fleetctl twin schema {kind}",
        )
