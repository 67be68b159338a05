"""JSON Schemas of desired documents, one for each device type: what they refuse is never sent."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fleetctl.errors import ConfigError, UsageError
from fleetctl.model.device import Device, printable

if TYPE_CHECKING:
    from jsonschema.protocols import Validator
    from referencing import Resource

SIZE_LIMIT = 65536
DIALECT = "https://json-schema.org/draft/2020-12/schema"


class Schemas:
    """The schemas that `read` finds by device type, each read once for one write."""

    def __init__(self, read: Callable[[str], Mapping[str, Any] | None]) -> None:
        self._read = read
        self._known: dict[str, Validator | None] = {}

    def check(self, device: Device, desired: Mapping[str, Any]) -> None:
        """Raises `UsageError` that names the value and what its schema says; `ConfigError` for a schema of no use."""
        kind = device.path.device_type
        if kind not in self._known:
            schema = self._read(kind)
            self._known[kind] = None if schema is None else validator(kind, schema)
        known = self._known[kind]
        if known is not None:
            _check(known, device, desired)


def validator(kind: str, schema: Mapping[str, Any]) -> "Validator":
    """A schema that may be used; raises `ConfigError` for one that is none, or that refers to what is not in it."""
    import referencing.jsonschema
    from jsonschema import Draft7Validator, Draft201909Validator, Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from referencing.exceptions import Unresolvable

    drafts = {str(each.META_SCHEMA["$schema"]): each for each in (Draft7Validator, Draft201909Validator, Draft202012Validator)}
    said = schema.get("$schema", DIALECT)
    draft = next((each for name, each in drafts.items() if isinstance(said, str) and name.rstrip("#") == said.rstrip("#")), None)
    if draft is None:
        raise _useless(kind, f"is written for {printable(str(said))}", f'write it for "$schema": "{DIALECT}"')
    specification = referencing.jsonschema.specification_with(str(draft.META_SCHEMA["$schema"]))
    try:
        draft.check_schema(schema)
        resource = specification.create_resource(schema)
        registry = referencing.jsonschema.EMPTY_REGISTRY
        _check_references(registry.resolver_with_root(resource), resource)
    except SchemaError as error:
        why = printable(error.message).strip("`")
        raise _useless(kind, f"is no JSON Schema: {why}", "see https://json-schema.org/understanding-json-schema") from error
    except (Unresolvable, RecursionError) as error:
        raise _useless(
            kind, f"refers to {printable(str(getattr(error, 'ref', 'itself')))}, which is not in it", "put it below `$defs`"
        ) from error
    return draft(schema, registry=registry)


def _check_references(resolver: Any, resource: "Resource[Any]") -> None:
    """Raises `Unresolvable`: nothing is ever fetched from another place."""
    if isinstance(resource.contents, Mapping):
        for word in ("$ref", "$dynamicRef"):
            if isinstance(target := resource.contents.get(word), str):
                resolver.lookup(target)
    for inner in resource.subresources():
        _check_references(resolver.in_subresource(inner), inner)


def _check(known: "Validator", device: Device, desired: Mapping[str, Any]) -> None:
    from jsonschema.exceptions import best_match
    from referencing.exceptions import Unresolvable

    kind = device.path.device_type
    try:
        error = best_match(known.iter_errors(dict(desired)))
    except (Unresolvable, RecursionError) as failure:
        raise _useless(kind, "refers to what is not in it", f"see fleetctl twin schema {kind}") from failure
    if error is not None:
        where = ".".join(str(part) for part in error.absolute_path)
        subject = f"{printable(where)} of " if where else ""
        raise UsageError(
            f"the schema of type `{kind}` refuses {subject}`{device.id}`: {printable(error.message).strip('`')}",
            f"see fleetctl twin schema {kind}",
        )


def _useless(kind: str, why: str, hint: str) -> ConfigError:
    return ConfigError(f"the schema of type {printable(kind)} {why}", hint)
