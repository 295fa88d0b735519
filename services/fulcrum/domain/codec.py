"""Domain values as plain JSON and back: one meaning of every field in Python, HTTP and the store.

Arrays become (nested) lists, tuples become lists, times ISO 8601, alternatives are told apart by their `kind`.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import numpy as np

from fulcrum.domain import corrections
from fulcrum.domain.errors import ComputationFailed, InvalidRequest

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """JSON-ready copy. Raises ComputationFailed for a number that is not finite: no result is nan.

    Infinite margins of a single class are properties, not fields, so they never get here.
    """
    match value:  # the most frequent first
        case None | bool() | int() | str():
            return value
        case float() | np.floating():
            if not math.isfinite(value):
                raise ComputationFailed(f"a result holds {float(value)}, which is not a number")
            return float(value)
        case tuple() | list():
            return [to_json(v) for v in value]
        case dict() | Mapping():
            return {str(k): to_json(v) for k, v in value.items()}
        case np.ndarray():
            return to_json(value.tolist())
        case corrections.Correction():
            return corrections.to_dict(value)
        case np.integer() | np.bool_():
            return value.item()
        case datetime():
            return value.isoformat()
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
        case _:
            raise TypeError(f"{type(value).__name__} has no JSON form")


def from_json(kind: type[T], content: Any, where: str = "") -> T:
    """Inverse of `to_json` for a dataclass `kind`. Raises InvalidRequest naming the field; what a dataclass itself
    refuses (an empty class set, an infinite gain) raises that error.
    """
    return typing.cast(T, _read(kind, content, where or getattr(kind, "__name__", str(kind))))


@lru_cache(maxsize=256)
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _read(kind: Any, content: Any, where: str) -> Any:
    if kind is Any:
        return content
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _read_union(get_args(kind), content, where)
    if origin is Literal:
        if content not in get_args(kind) or isinstance(content, bool):
            raise InvalidRequest(f"{where} is {content!r}: expected one of {list(get_args(kind))}")
        return content
    if origin is np.ndarray:
        return _read_array(kind, content, where)
    if origin is tuple:
        return _read_tuple(get_args(kind), content, where)
    if origin is dict:
        if not isinstance(content, dict):
            raise _wrong(where, "an object", content)
        return {k: _read(get_args(kind)[1], v, f"{where}.{k}") for k, v in content.items()}
    if kind is corrections.Correction:
        if not isinstance(content, dict):
            raise _wrong(where, "an object", content)
        return corrections.from_dict(content)
    if dataclasses.is_dataclass(origin or kind):
        return _read_dataclass(origin or kind, get_args(kind), content, where)
    return _read_plain(kind, content, where)


def _read_dataclass(kind: Any, parameters: tuple[Any, ...], content: Any, where: str) -> Any:
    if not isinstance(content, dict):
        raise _wrong(where, "an object", content)
    hints = _hints(kind)
    if parameters:  # Page[ImageRecord], Answered[Effect]: one type variable each
        hints = {n: _substitute(h, parameters[0]) for n, h in hints.items()}
    fields = {f.name: f for f in dataclasses.fields(kind)}
    unknown = sorted(set(content) - set(fields))
    if unknown:
        raise InvalidRequest(f"{where} has no field {unknown[0]!r}: it has {sorted(fields)}")
    missing = [
        n
        for n, f in fields.items()
        if n not in content and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise InvalidRequest(f"{where} lacks the field {missing[0]!r}")
    return kind(**{n: _read(hints[n], v, f"{where}.{n}") for n, v in content.items()})


def _substitute(hint: Any, parameter: Any) -> Any:
    if isinstance(hint, TypeVar):
        return parameter
    if get_origin(hint) is tuple:
        return tuple[tuple(_substitute(a, parameter) for a in get_args(hint))]  # type: ignore[misc]
    return hint


def _read_union(kinds: tuple[Any, ...], content: Any, where: str) -> Any:
    if content is None and type(None) in kinds:
        return None
    alternatives = [k for k in kinds if k is not type(None)]
    if len(alternatives) == 1:
        return _read(alternatives[0], content, where)
    by_kind = {get_args(_hints(k)["kind"])[0]: k for k in alternatives}
    if not isinstance(content, dict) or content.get("kind") not in by_kind:
        got = content.get("kind") if isinstance(content, dict) else content
        raise InvalidRequest(f"{where} has kind {got!r}: expected one of {sorted(by_kind)}")
    return _read(by_kind[content["kind"]], content, where)


def _read_tuple(kinds: tuple[Any, ...], content: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(content, list | tuple):
        raise _wrong(where, "a list", content)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(_read(kinds[0], v, f"{where}[{i}]") for i, v in enumerate(content))
    if len(kinds) != len(content):
        raise InvalidRequest(f"{where} has {len(content)} items: expected {len(kinds)}")
    return tuple(_read(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, content, strict=True)))


def _read_array(kind: Any, content: Any, where: str) -> Any:
    integer = "integer" in str(kind)
    try:
        array = np.asarray(content, dtype=np.int64 if integer else np.float64)
    except (TypeError, ValueError, OverflowError):
        raise _wrong(where, "a rectangular list of numbers", content) from None
    if not integer and not np.isfinite(array).all():
        raise InvalidRequest(f"{where} holds a number that is not finite")
    return array


def _read_plain(kind: Any, content: Any, where: str) -> Any:
    if kind is datetime:
        try:
            return datetime.fromisoformat(content)
        except (TypeError, ValueError):
            raise _wrong(where, "a time in ISO 8601", content) from None
    if kind is float:
        if isinstance(content, bool) or not isinstance(content, int | float) or not math.isfinite(content):
            raise _wrong(where, "a finite number", content)
        return float(content)
    if kind is int and (isinstance(content, bool) or not isinstance(content, int)):
        raise _wrong(where, "a whole number", content)
    if not isinstance(content, kind):
        raise _wrong(where, {bool: "true or false", str: "a text"}.get(kind, kind.__name__), content)
    return content


def _wrong(where: str, wanted: str, content: Any) -> InvalidRequest:
    return InvalidRequest(f"{where} is {str(content)[:80]!r}: expected {wanted}")
