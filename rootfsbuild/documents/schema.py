"""The JSON Schema (draft 2020-12) of a recipe, made from the table from which recipes are checked."""

from __future__ import annotations

from typing import Any

from rootfsbuild.documents.recipe_fields import RECIPE
from rootfsbuild.documents.shapes import (
    Either,
    Field,
    Flag,
    Moment,
    Named,
    Several,
    Shape,
    Table,
    Text,
    Whole,
)


def recipe_schema() -> dict[str, Any]:
    """Return the JSON Schema of a recipe; what only the distribution can tell is not in it."""
    # A recipe that extends another may leave out what that one says.
    schema = _table(RECIPE)
    required = schema.pop("required")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "rootfsbuild recipe",
        **schema,
        "anyOf": [{"required": required}, {"required": ["extends"]}],
    }


def _table(table: Table) -> dict[str, Any]:
    required = [name for name, field in table.fields.items() if field.required]
    return {
        "type": "object",
        "properties": {name: _field(field) for name, field in table.fields.items()},
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }


def _field(field: Field) -> dict[str, Any]:
    default = {"default": _plain(field.default)} if field.default is not None else {}
    return {"description": field.about, **_shape(field.shape), **default}


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _shape(shape: Shape) -> dict[str, Any]:
    match shape:
        case Table():
            schema = _table(shape)
        case Named():
            key, value = _shape(shape.key), _shape(shape.value)
            schema = {"type": "object", "propertyNames": key, "additionalProperties": value}
        case Several():
            schema = {"type": "array", "items": _shape(shape.item)}
        case Either():
            schema = {"anyOf": [_shape(option) for option in shape.options]}
        case Whole():
            schema = {"type": "integer", "minimum": shape.least, "maximum": shape.most}
        case Flag():
            schema = {"type": "boolean"}
        case Text():
            schema = _text(shape)
        case Moment():
            schema = {"type": "string", "pattern": f"^({shape.pattern})$"}
    return schema


def _text(shape: Text) -> dict[str, Any]:
    if shape.choices:
        return {"enum": [*shape.choices, *shape.aliases]}
    return {"type": "string", **({"pattern": f"^({shape.pattern})$"} if shape.pattern else {})}
