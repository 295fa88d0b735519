"""Domain values for tests of the wire: any value of any dataclass that has a message."""

import dataclasses
import types
import typing
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fulcrum.domain.edits import Cap, Edit, PredictedClassCondition, Scope
from fulcrum.domain.tasks import ClassSet, MarginTarget
from fulcrum.rpc.images import ImageHash

texts = st.text(st.characters(codec="utf-8"), max_size=8)
finite = st.floats(allow_nan=False, allow_infinity=False)
whole = st.integers(-(2**63), 2**63 - 1)
counts = st.integers(0, 2**40)
hashes = st.builds(ImageHash, st.text("0123456789abcdef", min_size=64, max_size=64))
names = st.lists(texts.filter(str.strip), min_size=1, max_size=3, unique=True).map(tuple)
float_arrays = st.sampled_from([np.float16, np.float32, np.float64]).flatmap(
    lambda dtype: arrays.arrays(
        dtype,
        arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
        elements={"allow_nan": False, "allow_infinity": False},
    )
)
integer_arrays = arrays.arrays(
    st.sampled_from([np.int32, np.int64]), arrays.array_shapes(min_dims=1, max_dims=2, min_side=0)
)

CONSTRAINED = {
    ClassSet: st.builds(
        ClassSet,
        names,
        st.lists(texts.map(lambda t: t.replace("{}", "") + " {}"), min_size=1, max_size=2).map(tuple),
    ),
    Scope: st.one_of(
        st.builds(Scope, st.sampled_from(["all", "cls", "patches"])),
        st.builds(Scope, st.just("patch_list"), st.lists(counts, min_size=1, max_size=3).map(tuple)),
    ),
    PredictedClassCondition: st.builds(PredictedClassCondition, names),
    Cap: st.builds(Cap, counts, finite.map(abs)),
    MarginTarget: st.lists(texts, min_size=2, max_size=2, unique=True).map(lambda two: MarginTarget(*two)),
    ImageHash: hashes,
}


def any_of(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a dataclass, or of any type that a field of one has."""
    if kind in CONSTRAINED:
        return CONSTRAINED[kind]
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return st.one_of(*(st.none() if k is type(None) else any_of(k) for k in inner))
    if origin is Literal:
        return st.sampled_from(inner)
    if origin is np.ndarray:
        return integer_arrays if "integer" in str(kind) else float_arrays
    if origin is tuple and inner[-1] is Ellipsis:
        items = st.lists(any_of(inner[0]), max_size=3)
        if inner[0] == Edit:  # a correction edits each latent once
            items = st.lists(any_of(Edit), max_size=3, unique_by=lambda e: e.latent)
        return items.map(tuple)
    if origin is tuple:
        return st.tuples(*map(any_of, inner))
    if origin is dict:
        return st.dictionaries(texts, finite, max_size=3)
    if dataclasses.is_dataclass(kind):
        return _built(kind)
    return {str: texts, int: whole, float: finite, bool: st.booleans(), bytes: st.binary(max_size=20)}[kind]


def _built(kind: Any) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(kind)
    parts = {f.name: any_of(hints[f.name]) for f in dataclasses.fields(kind)}
    if "latent" in parts and "kind" in parts:
        parts["latent"] = counts  # edits and conditions refuse negative ones
    return st.builds(kind, **parts)


def same(a: Any, b: Any) -> bool:
    """Equal in every bit: types, dtypes, shapes, the sign of zero."""
    if isinstance(a, np.ndarray):
        return (
            isinstance(b, np.ndarray)
            and a.dtype == b.dtype
            and a.shape == b.shape
            and a.tobytes() == b.tobytes()
        )
    if dataclasses.is_dataclass(a):
        return type(a) is type(b) and all(
            same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a)
        )
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return type(a) is type(b) and a == b and repr(a) == repr(b)
