"""A search for experts as one file, read memory-mapped and without any model: numbers of every unit for every concept,
the same with random weights, and how the concepts lie.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from fulcrum.datasets.index.array_file import ArrayFile, open_array_file, write_array_file
from fulcrum.domain.codec import from_json, to_json
from fulcrum.domain.errors import CorruptIndex, InvalidInput, InvalidRequest, InvalidSettings, UnknownExperts
from fulcrum.domain.experts import (
    ApDistribution,
    ConceptStructure,
    ConceptStructures,
    ExpertConcept,
    ExpertCount,
    ExpertRule,
    ExpertUnit,
    HumanAlignment,
    LayerProfile,
    LayerShare,
    StructureSummary,
    Towards,
    UnitLayer,
    UnitSort,
)

Array = NDArray[Any]
KIND: Final = "experts"
VERSION: Final = 3
_READ: Final = (1, 2, 3)  # the first knew no moments, the second no linear transports
EXPERTS, RANDOM_WEIGHTS = "experts", "random_weights"
N_BINS: Final = 50

COLUMNS: Final = frozenset(
    {
        "ap",  # (2, n_concepts, n_units): as it is, and with random weights
        "auroc",  # (n_concepts, n_units), as in the next three, and in MOMENTS
        "on_p50",
        "on_p90",
        "off_mean",
        "similarity",  # (n_structures, n_concepts, n_concepts)
        "clusters",  # (n_structures, n_concepts)
        "order",
        "linkage",  # (n_structures, n_concepts - 1, 4)
        "positions",  # (n_structures, n_concepts, 2)
        "map_share",  # (n_structures,)
    }
)
MOMENTS: Final = frozenset({"on_mean", "on_sd", "off_sd"})  # beside off_mean; from version 2
# (n_concepts, n_layers, n): units within the layer (-1: there are fewer); with an axis of 2 behind, their maps towards
# the concept and towards the others. From version 3.
LINEAR: Final = frozenset({"linear_units", "linear_scale", "linear_shift"})


@dataclass(frozen=True)
class AboutExperts:
    """What the arrays are about. Structure i is that of `summaries[i]`."""

    layers: tuple[UnitLayer, ...]
    concepts: tuple[ExpertConcept, ...]
    one_base_rate: bool
    rules: tuple[ExpertRule, ...]
    shown_rule: ExpertRule | None
    summaries: tuple[StructureSummary, ...]
    alignments: tuple[HumanAlignment, ...]


class ExpertTable:
    """Every question is answered from the mapped arrays."""

    def __init__(self, file: ArrayFile) -> None:
        """Raises CorruptIndex for a file of another version or without an array."""
        version = file.meta.get("version")
        if version not in _READ or not set(file.arrays) >= _arrays_of(version):
            raise CorruptIndex(f"{file.path.name} is no search for experts of version {_READ}")
        self._file = file
        self.has_moments, self.has_linear = version >= 2, version >= 3

    @classmethod
    def open(cls, path: Path) -> "ExpertTable":
        """Raises CorruptIndex."""
        return cls(open_array_file(path, KIND))

    def __getitem__(self, name: str) -> Array:
        """One of COLUMNS; of MOMENTS and LINEAR where it has them."""
        return self._file.arrays[name]

    @cached_property
    def about(self) -> AboutExperts:
        """Names and summaries."""
        try:
            return from_json(AboutExperts, json.loads(self._file.arrays["about"].tobytes()))
        except (KeyError, ValueError, InvalidRequest) as error:
            raise CorruptIndex(f"{self._file.path.name}: {error}") from error

    @cached_property
    def _row(self) -> dict[str, int]:
        return {concept.name: i for i, concept in enumerate(self.about.concepts)}

    def concept(self, name: str) -> int:
        """The row of a concept. Raises UnknownExperts."""
        if name not in self._row:
            raise UnknownExperts(f"no concept {name[:80]!r} here: there are {list(self._row)[:40]}")
        return self._row[name]

    @property
    def n_units(self) -> int:
        """Over all layers."""
        return int(self["ap"].shape[2])

    def units(
        self, concept: str, sort: UnitSort, descending: bool, layer: str | None, start: int, n: int
    ) -> tuple[ExpertUnit, ...]:
        """Units in the order asked for, equal ones by number. Raises UnknownExperts for a concept or layer."""
        row = self.concept(concept)
        inside = self._inside(layer)
        values = np.asarray(self["ap"][0, row] if sort == "ap" else self[sort][row], dtype=np.float64)[inside]
        order = np.argsort(-values if descending else values, kind="stable")[start : start + n]
        return self._told(row, inside.start + order)

    def n_units_of(self, layer: str | None) -> int:
        """In a layer, or in all."""
        inside = self._inside(layer)
        return int(inside.stop - inside.start)

    def concepts_of_unit(self, number: int) -> tuple[ExpertUnit, ...]:
        """The unit for every concept, highest AP first. Raises UnknownExperts."""
        if not 0 <= number < self.n_units:
            raise UnknownExperts(f"unit {number} is outside of 0 .. {self.n_units - 1}")
        rows = np.argsort(-self["ap"][0, :, number], kind="stable")
        return tuple(self._told(int(row), np.array([number]))[0] for row in rows)

    def counts(self, rule: ExpertRule) -> tuple[ExpertCount, ...]:
        """Experts of every concept by a threshold or by number. Raises as `chosen` does."""
        return tuple(
            ExpertCount(
                c.name, int(self.chosen(rule, row).sum()), int(self.chosen(rule, row, control=True).sum())
            )
            for row, c in enumerate(self.about.concepts)
        )

    def profile(self, concept: str, rule: ExpertRule) -> LayerProfile:
        """Experts layer by layer. Raises UnknownExperts, and as `chosen` does."""
        row = self.concept(concept)
        mine, control = self.chosen(rule, row), self.chosen(rule, row, control=True)
        ap, control_ap = self["ap"][0, row], self["ap"][1, row]
        shares = []
        for layer in self.about.layers:
            part = slice(layer.first, layer.first + layer.n_units)
            shares.append(
                LayerShare(
                    layer.name,
                    layer.n_units,
                    int(mine[part].sum()),
                    float(ap[part].mean()),
                    float(ap[part].max()),
                    int(control[part].sum()),
                    float(control_ap[part].mean()),
                    float(control_ap[part].max()),
                )
            )
        return LayerProfile(concept, rule, tuple(shares))

    def distribution(self, concept: str) -> ApDistribution:
        """Units by AP in bins of 0.02. Raises UnknownExperts."""
        row = self.concept(concept)
        edges = np.linspace(0, 1, N_BINS + 1)
        counts, control = (np.histogram(self["ap"][which, row], edges)[0] for which in (0, 1))
        base_rate = self.about.concepts[row].base_rate
        return ApDistribution(
            concept, base_rate, tuple(edges.tolist()), tuple(counts.tolist()), tuple(control.tolist())
        )

    def chosen(self, rule: ExpertRule, row: int, *, control: bool = False) -> NDArray[np.bool_]:
        """(n_units,) the experts of a concept.

        Raises InvalidSettings for a value out of range, InvalidInput for a threshold across base rates, or for a rule
        that chooses no units.
        """
        ap = self["ap"][int(control), row]
        match rule.rule:
            case "top_k":
                k = 0 if rule.value is None else int(rule.value)
                if rule.value != k or not 1 <= k <= self.n_units:
                    raise InvalidSettings(f"k={rule.value} must be a whole number in 1 .. {self.n_units}")
                mask = np.zeros(self.n_units, dtype=bool)
                mask[np.argsort(-ap, kind="stable")[:k]] = True
                return mask
            case "tau":
                self.require_one_base_rate()
                if rule.value is None or not 0 <= rule.value < 1:
                    raise InvalidSettings(f"tau={rule.value} must lie in 0 .. 1")
                return np.asarray(ap > rule.value)
            case _:
                raise InvalidInput(
                    f"the rule {rule.rule!r} compares concepts and chooses no units: top_k or tau do"
                )

    def layer(self, name: str) -> UnitLayer:
        """Raises UnknownExperts."""
        for known in self.about.layers:
            if known.name == name:
                return known
        names = [known.name for known in self.about.layers]
        raise UnknownExperts(f"no layer {name[:80]!r} here: there are {names[:60]}")

    def richest_layer(self, concept: str, rule: ExpertRule) -> str:
        """The layer with the most experts of a concept; of equal ones that with the best. Raises as `profile` does."""
        shares = self.profile(concept, rule).layers
        return max(shares, key=lambda share: (share.n_experts, share.max_ap)).layer

    def best_of_layer(self, concept: str, layer: str, rule: ExpertRule) -> NDArray[np.int64]:
        """Experts of a concept within a layer, numbered there, the best first: its k best by AP, or those above tau.

        Raises UnknownExperts for a concept or layer, and as `chosen` does.
        """
        inside = self._inside(layer)
        ap = np.asarray(self["ap"][0, self.concept(concept), inside])
        best = np.argsort(-ap, kind="stable")
        if rule.rule == "top_k":
            if rule.value is None or not 1 <= rule.value <= len(ap) or rule.value % 1:
                raise InvalidSettings(
                    f"k={rule.value} must be a whole number in 1 .. {len(ap)}, the units of {layer}"
                )
            return best[: int(rule.value)]
        above = self.chosen(rule, self.concept(concept))[inside]
        return best[above[best]]

    def linear_maps(
        self, concept: str, layer: str, units: NDArray[np.int64], towards: Towards
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(scale, shift) of the linear transport of units of a layer, numbered there.

        Raises UnknownExperts for a concept or layer, InvalidSettings for units that it was not kept for.
        """
        at = self.about.layers.index(self.layer(layer))
        row = self.concept(concept)
        kept = np.asarray(self["linear_units"][row, at])
        found = np.flatnonzero(kept >= 0)
        place = {int(kept[i]): int(i) for i in found}
        if not all(int(unit) in place for unit in units):
            raise InvalidSettings(
                f"the linear transport is kept for the {len(found)} best units of a layer, and {len(units)} of {layer} "
                "were chosen: take fewer, or the transport of mean and spread"
            )
        chosen, side = [place[int(unit)] for unit in units], int(towards == "others")

        def of(name: str) -> NDArray[np.float64]:
            return np.asarray(self[name][row, at, chosen, side], dtype=np.float64)

        return of("linear_scale"), of("linear_shift")

    def require_one_base_rate(self) -> None:
        """Raises InvalidInput where AP cannot be compared across the concepts."""
        if not self.about.one_base_rate:
            few, many = (f(self.about.concepts, key=lambda c: c.base_rate) for f in (min, max))
            raise InvalidInput(
                f"AP cannot be compared across base rates, {few.base_rate:.3f} of {few.name!r} to "
                f"{many.base_rate:.3f} of {many.name!r}: take the best k units, or ask again with n_pos and n_neg"
            )

    def structures(self, rule: ExpertRule) -> ConceptStructures:
        """By a rule that structure was computed for. Raises UnknownExperts, InvalidInput across base rates."""
        if len(self.about.concepts) < 2:
            raise InvalidInput("structure needs at least two concepts")
        if rule not in self.about.rules:
            if rule.rule in ("tau", "cosine_ap"):
                self.require_one_base_rate()
            known = [
                f"{r.rule} {'' if r.value is None else f'{r.value:g}'}".strip() for r in self.about.rules
            ]
            raise UnknownExperts(f"structure was computed for the rules {', '.join(known)}")
        found = {
            (s.of, s.rule is None): i
            for i, s in enumerate(self.about.summaries)
            if s.rule is None or s.rule == rule
        }
        baselines = [i for (_, is_baseline), i in found.items() if is_baseline]
        return ConceptStructures(
            tuple(c.name for c in self.about.concepts),
            tuple(c.domain for c in self.about.concepts),
            self._structure(found[EXPERTS, False]),
            self._structure(found[RANDOM_WEIGHTS, False]),
            tuple(self._structure(i) for i in baselines),
        )

    def similarity(self, rule: ExpertRule) -> NDArray[np.float64]:
        """(n_concepts, n_concepts) of the experts. Raises as `structures` does."""
        self.structures(rule)
        for i, summary in enumerate(self.about.summaries):
            if summary.of == EXPERTS and summary.rule == rule:
                return np.asarray(self["similarity"][i], dtype=np.float64)
        raise AssertionError("structures found it")

    def _structure(self, i: int) -> ConceptStructure:
        summary = self.about.summaries[i]
        x, y = np.asarray(self["positions"][i], dtype=np.float64).T.tolist()
        return ConceptStructure(
            summary.of,
            summary.rule,
            # Five digits: what is shown and compared, at a third of the bytes.
            tuple(tuple(row) for row in np.round(self["similarity"][i].astype(np.float64), 5).tolist()),
            tuple(self["clusters"][i].tolist()),
            tuple(self["order"][i].tolist()),
            tuple(tuple(row) for row in self["linkage"][i].tolist()),
            tuple(x),
            tuple(y),
            float(self["map_share"][i]),
            summary.agreement,
        )

    def _inside(self, layer: str | None) -> slice:
        if layer is None:
            return slice(0, self.n_units)
        known = self.layer(layer)
        return slice(known.first, known.first + known.n_units)

    def _told(self, row: int, numbers: NDArray[np.int64]) -> tuple[ExpertUnit, ...]:
        ap = np.asarray(self["ap"][0, row])
        name = self.about.concepts[row].name
        told = []
        for number in numbers.tolist():
            layer = next(x for x in self.about.layers if x.first <= number < x.first + x.n_units)
            # Equal ones by number, as the lists have them.
            rank = 1 + int((ap > ap[number]).sum()) + int((ap[:number] == ap[number]).sum())
            told.append(
                ExpertUnit(
                    name,
                    rank,
                    number,
                    layer.name,
                    number - layer.first,
                    float(ap[number]),
                    float(self["auroc"][row, number]),
                    float(self["on_p50"][row, number]),
                    float(self["on_p90"][row, number]),
                    float(self["off_mean"][row, number]),
                )
            )
        return tuple(told)


def write_expert_table(path: Path, arrays: Mapping[str, Array], about: AboutExperts) -> None:
    """The same content, the same bytes."""
    assert set(arrays) == _arrays_of(VERSION), set(arrays) ^ _arrays_of(VERSION)
    text = np.frombuffer(json.dumps(to_json(about), sort_keys=True).encode(), dtype=np.uint8)
    write_array_file(path, KIND, {**arrays, "about": text}, {"version": VERSION})


def _arrays_of(version: int) -> frozenset[str]:
    """What a file of a version has."""
    return COLUMNS | (MOMENTS if version >= 2 else frozenset()) | (LINEAR if version >= 3 else frozenset())
