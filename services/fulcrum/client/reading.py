"""JSON of the gateway as domain values; fields that a newer gateway has and this SDK does not are passed over."""

import dataclasses
import types
import typing
from functools import lru_cache
from typing import Any, TypeVar, Union, get_args, get_origin

from fulcrum.domain.codec import from_json
from fulcrum.domain.corrections import Correction
from fulcrum.domain.errors import FulcrumError, InternalError

T = TypeVar("T")


def read(kind: type[T], content: Any, where: str) -> T:
    """`content` as `kind`. Raises InternalError naming the field: an answer that cannot be read is no mistake of the
    caller.
    """
    try:
        return from_json(kind, content)
    except FulcrumError:
        pass  # mostly a field that is new; looking for one in every answer would double the work of reading
    try:
        return from_json(kind, known(kind, content))
    except FulcrumError as error:
        raise InternalError(
            f"the answer of {where} cannot be read ({error}): are gateway and SDK of different versions?"
        ) from error


def known(kind: Any, content: Any) -> Any:
    """`content` without the fields that `kind` does not have. A correction stays whole: its hash covers all of it."""
    origin, parameters = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _known_of_union(parameters, content)
    if origin is tuple and isinstance(content, list):
        kinds = parameters[:1] * len(content) if parameters[-1] is Ellipsis else parameters
        if len(kinds) != len(content):
            return content  # for `from_json` to refuse
        return [known(k, v) for k, v in zip(kinds, content, strict=True)]
    plain: Any = origin or kind
    if plain is Correction or not _has_fields(plain) or not isinstance(content, dict):
        return content
    hints = _hints(plain)
    if parameters:
        hints = {n: _filled(h, parameters[0]) for n, h in hints.items()}
    return {n: known(hints[n], v) for n, v in content.items() if n in hints}


def _known_of_union(kinds: tuple[Any, ...], content: Any) -> Any:
    kinds = tuple(k for k in kinds if k is not type(None))
    if len(kinds) == 1:
        return known(kinds[0], content)
    for kind in kinds:
        named = get_args(_hints(kind).get("kind")) if _has_fields(kind) else ()
        if isinstance(content, dict) and content.get("kind") in named:
            return known(kind, content)
    return content


def _has_fields(kind: Any) -> bool:
    return dataclasses.is_dataclass(kind)


@lru_cache(maxsize=256)
def _hints(kind: type) -> dict[str, Any]:
    names = {f.name for f in dataclasses.fields(kind)}
    return {n: h for n, h in typing.get_type_hints(kind).items() if n in names}


def _filled(hint: Any, parameter: Any) -> Any:
    if isinstance(hint, TypeVar):
        return parameter
    if get_origin(hint) is tuple:
        return tuple[tuple(_filled(a, parameter) for a in get_args(hint))]  # type: ignore[misc]
    return hint
