"""What callers hand over, as JSON: dictionaries, pydantic models, dataclasses, and anything that says how."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from enum import Enum
from os import PathLike
from pathlib import PurePath
from typing import Any

__all__ = ["dumps", "request", "response_format"]


def _plain(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json", exclude_none=True)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        pairs = ((field.name, getattr(value, field.name)) for field in fields)
        return {name: each for name, each in pairs if each is not None}
    to_dict = getattr(value, "to_dict", None)
    if callable(to_dict):
        return to_dict()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (PurePath, PathLike)):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray, memoryview)):
        return list(value)
    raise TypeError(
        f"{type(value).__name__} cannot be sent: give a dict, a pydantic model, a dataclass or a plain value"
    )


_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_plain, allow_nan=False)


def dumps(value: Any) -> str:
    """JSON text."""
    return _encoder.encode(value)


def response_format(value: Any) -> Any:
    """A response format: as OpenAI writes it, or a pydantic model class, whose schema it then is."""
    schema = getattr(value, "model_json_schema", None)
    if isinstance(value, type) and callable(schema):
        written = _strict(schema())
        return {
            "type": "json_schema",
            "json_schema": {"name": value.__name__, "schema": written, "strict": True},
        }
    return value


def _strict(schema: Any) -> Any:
    # OpenAI's strict mode wants every object closed and every property required.
    # Source: platform.openai.com/docs/guides/structured-outputs, "Supported schemas".
    if isinstance(schema, dict):
        schema = {key: _strict(value) for key, value in schema.items() if key != "default"}
        if schema.get("type") == "object" and "properties" in schema:
            schema["additionalProperties"] = False
            schema["required"] = list(schema["properties"])
        return schema
    if isinstance(schema, list):
        return [_strict(value) for value in schema]
    return schema


def request(messages: Any, model: str | None, fields: dict[str, Any]) -> str:
    """A chat request. A field that is ``None`` is left out; a string is one message of the user's."""
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    elif not isinstance(messages, (list, tuple)):
        if isinstance(messages, (Mapping, bytes, bytearray)) or not isinstance(messages, Iterable):
            raise TypeError("messages is a list of messages, or a string")
        messages = list(messages)
    body: dict[str, Any] = {"model": model or "", "messages": messages}
    for name, value in fields.items():
        if value is not None:
            body[name] = response_format(value) if name == "response_format" else value
    return _encoder.encode(body)
