"""Concepts and human judgements as people keep them in files: JSON in Suau's layout, CSV."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fulcrum.domain.codec import from_json, to_json
from fulcrum.domain.concept_sets import ConceptSet, concept_set_of
from fulcrum.domain.errors import InvalidInput

UnknownWords = Literal["refuse", "leave_out"]
_POSITIVE, _NEGATIVE = ("1", "positive", "pos", "true", "yes"), ("0", "negative", "neg", "false", "no")


@dataclass(frozen=True)
class PairRatings:
    """How alike people find pairs of concepts. `raters` has a row for each pair where single raters are known."""

    name: str
    pairs: tuple[tuple[str, str], ...]
    ratings: tuple[float, ...]
    raters: tuple[tuple[float, ...], ...] = ()
    kind: Literal["pairs"] = "pairs"

    def __post_init__(self) -> None:
        if not len(self.pairs) == len(self.ratings) or (self.raters and len(self.raters) != len(self.pairs)):
            raise InvalidInput(f"{self.name!r} has {len(self.pairs)} pairs and {len(self.ratings)} ratings")
        if len({len(row) for row in self.raters}) > 1:
            raise InvalidInput(f"{self.name!r}: every pair needs a rating by every rater")
        for pair, rating in zip(self.pairs, self.ratings, strict=True):
            if not math.isfinite(rating):
                raise InvalidInput(f"{self.name!r}: the rating of {pair} is {rating}, which is no number")
            if pair[0] == pair[1]:
                raise InvalidInput(f"{self.name!r} rates {pair[0]!r} against itself")
        if self.ratings and min(self.ratings) == max(self.ratings):
            raise InvalidInput(
                f"{self.name!r}: all {len(self.ratings)} ratings are {self.ratings[0]:g}, so there is no order to "
                "compare with"
            )


@dataclass(frozen=True)
class TripletChoices:
    """Odd ones out: of (a, b, c) people found c the odd one."""

    name: str
    triplets: tuple[tuple[str, str, str], ...]
    kind: Literal["triplets"] = "triplets"

    def __post_init__(self) -> None:
        for triplet in self.triplets:
            if len(set(triplet)) < 3:
                raise InvalidInput(f"{self.name!r}: {triplet} are not three different concepts")


HumanJudgements = PairRatings | TripletChoices


@dataclass(frozen=True)
class _Kept:
    judgements: HumanJudgements


def judgements_bytes(judgements: HumanJudgements) -> bytes:
    """The same judgements, the same bytes."""
    return json.dumps(to_json(_Kept(judgements)), sort_keys=True, separators=(",", ":")).encode()


def read_judgements_bytes(content: bytes) -> HumanJudgements:
    """What `judgements_bytes` wrote. Raises InvalidInput."""
    return from_json(_Kept, json.loads(content)).judgements


@dataclass(frozen=True)
class SentenceLists:
    """Sentences by concept as a file has them, whatever is wrong with them."""

    positives: dict[str, list[str]]
    negatives: dict[str, list[str]]
    domains: dict[str, str]

    def to_set(self, name: str) -> ConceptSet:
        """Raises InvalidInput for what cannot be a concept."""
        return concept_set_of(name, self.positives, self.negatives, self.domains)


def read_concepts_json(files: Sequence[bytes], name: str = "concepts") -> ConceptSet:
    """Files in Suau's layout, each one concept or a list of them:

    `{"concept": "dog", "group": "animals", "sentences": {"positive": [...], "negative": [...]}}`.
    Raises InvalidInput naming what is missing.
    """
    return json_sentences(files).to_set(name)


def read_concepts_csv(text: str, name: str = "concepts") -> ConceptSet:
    """A row for each example: `concept, sentence, label` (1 or 0, positive or negative), optionally `domain`.

    Raises InvalidInput naming the row.
    """
    for number, row in _rows(text, ("concept", "sentence", "label")):
        if not row["sentence"].strip():
            raise InvalidInput(f"row {number}: the sentence is empty")
    return csv_sentences(text).to_set(name)


def json_sentences(files: Sequence[bytes]) -> SentenceLists:
    """What files in Suau's layout hold, to be looked through. Raises InvalidInput for what is no such file."""
    found = SentenceLists({}, {}, {})
    for content in files:
        try:
            read = json.loads(content)
        except ValueError as error:
            raise InvalidInput(f"a concept file is no JSON: {error}") from error
        for one in read if isinstance(read, list) else [read]:
            concept, sentences = _suau(one)
            if concept in found.positives:
                raise InvalidInput(f"two concepts are called {concept!r}: names must differ")
            found.positives[concept], found.negatives[concept] = sentences
            found.domains[concept] = str(
                one.get("group") or one.get("concept_group") or one.get("domain") or ""
            )
    return found


def csv_sentences(text: str) -> SentenceLists:
    """What a CSV of examples holds, to be looked through. Raises InvalidInput for labels and domains of no meaning."""
    found = SentenceLists({}, {}, {})
    for number, row in _rows(text, ("concept", "sentence", "label")):
        concept, label = row["concept"].strip(), row["label"].strip().casefold()
        if label not in (*_POSITIVE, *_NEGATIVE):
            raise InvalidInput(
                f"row {number}: label is {row['label']!r}: expected 1 or 0, positive or negative"
            )
        found.positives.setdefault(concept, [])
        (found.positives if label in _POSITIVE else found.negatives).setdefault(concept, []).append(
            row["sentence"]
        )
        domain = (row.get("domain") or "").strip()
        if found.domains.setdefault(concept, domain) != domain:
            raise InvalidInput(
                f"row {number}: concept {concept!r} is of domain {found.domains[concept]!r} and of {domain!r}"
            )
    return found


def write_concepts_json(lists: SentenceLists) -> bytes:
    """What `json_sentences` reads: a list in Suau's layout."""
    found = [
        {
            "concept": concept,
            "group": lists.domains.get(concept, ""),
            "sentences": {"positive": list(positives), "negative": list(lists.negatives.get(concept, ()))},
        }
        for concept, positives in lists.positives.items()
    ]
    return json.dumps(found, ensure_ascii=False, indent=1).encode()


def write_concepts_csv(lists: SentenceLists) -> str:
    """What `csv_sentences` reads. A concept without any sentence has no row."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(("concept", "sentence", "label", "domain"))
    for concept, positives in lists.positives.items():
        for label, texts in (("1", positives), ("0", lists.negatives.get(concept, ()))):
            writer.writerows((concept, text, label, lists.domains.get(concept, "")) for text in texts)
    return out.getvalue()


def read_ratings_csv(text: str, name: str) -> HumanJudgements:
    """`word_1, word_2, rating`, optionally a column for each rater (`rating` may then be left out: their mean), or
    `word_1, word_2, odd` for odd ones out.

    Raises InvalidInput for missing columns, a rating that is no number, a pair that is rated twice, constant ratings.
    """
    header = next(csv.reader(io.StringIO(text)), [])
    if "odd" in header:
        rows = _rows(text, ("word_1", "word_2", "odd"))
        return TripletChoices(
            name, tuple((r["word_1"].strip(), r["word_2"].strip(), r["odd"].strip()) for _, r in rows)
        )
    raters = [c for c in header if c not in ("word_1", "word_2", "rating")]
    if "rating" not in header and not raters:
        raise InvalidInput(
            f"{name!r} has the columns {header}: expected word_1, word_2, rating, or a column for each rater"
        )
    pairs: list[tuple[str, str]] = []
    ratings: list[float] = []
    by_rater: list[tuple[float, ...]] = []
    seen: set[frozenset[str]] = set()
    for number, row in _rows(text, ("word_1", "word_2")):
        pair = (row["word_1"].strip(), row["word_2"].strip())
        if frozenset(pair) in seen:
            raise InvalidInput(f"row {number}: {pair[0]!r} and {pair[1]!r} are rated twice")
        seen.add(frozenset(pair))
        single = tuple(_number(row[c], number, c) for c in raters)
        pairs.append(pair)
        by_rater.append(single)
        ratings.append(
            _number(row["rating"], number, "rating") if "rating" in header else sum(single) / len(single)
        )
    return PairRatings(name, tuple(pairs), tuple(ratings), tuple(by_rater) if raters else ())


def among_concepts(
    judgements: HumanJudgements, concepts: Sequence[str], unknown_words: UnknownWords = "refuse"
) -> HumanJudgements:
    """The judgements about concepts that are there, under their names. A concept `colour=red` is also called `red`.

    Raises InvalidInput for words that are no concept (unless they are to be left out), and when fewer than three
    pairs, or no triplet, are left.
    """
    known = _names(concepts)
    tuples: Sequence[tuple[str, ...]] = (
        judgements.pairs if isinstance(judgements, PairRatings) else judgements.triplets
    )
    unknown = sorted({w for words in tuples for w in words if w not in known})
    if unknown and unknown_words == "refuse":
        raise InvalidInput(
            f"{judgements.name!r} has {len(unknown)} words that are no concept here, first: {unknown[:5]}; the "
            f"concepts are {list(concepts)[:10]}. Leave such words out to use the rest"
        )
    rows = [i for i, words in enumerate(tuples) if all(w in known for w in words)]
    fewest = 3 if isinstance(judgements, PairRatings) else 1
    if len(rows) < fewest:
        raise InvalidInput(
            f"{judgements.name!r} has {len(rows)} of {len(tuples)} judgements about concepts that are here: at least "
            f"{fewest} are needed"
        )
    if isinstance(judgements, TripletChoices):
        named = tuple((known[a], known[b], known[c]) for a, b, c in (judgements.triplets[i] for i in rows))
        return TripletChoices(judgements.name, named)
    return PairRatings(
        judgements.name,
        tuple((known[judgements.pairs[i][0]], known[judgements.pairs[i][1]]) for i in rows),
        tuple(judgements.ratings[i] for i in rows),
        tuple(judgements.raters[i] for i in rows) if judgements.raters else (),
    )


def _names(concepts: Sequence[str]) -> dict[str, str]:
    """What a concept may be called, to its name."""
    short = [name.partition("=")[2] for name in concepts]
    known = {s: name for s, name in zip(short, concepts, strict=True) if s and short.count(s) == 1}
    return known | {name: name for name in concepts}


def _suau(one: Any) -> tuple[str, tuple[list[str], list[str]]]:
    if not isinstance(one, Mapping) or not isinstance(one.get("concept"), str):
        raise InvalidInput(
            "a concept file needs {'concept': name, 'sentences': {'positive': [], 'negative': []}}"
        )
    sentences = one.get("sentences")
    lists = []
    for what in ("positive", "negative"):
        found = sentences.get(what) if isinstance(sentences, Mapping) else None
        if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
            raise InvalidInput(f"concept {one['concept']!r} lacks the list sentences.{what}")
        lists.append(found)
    return one["concept"], (lists[0], lists[1])


def _rows(text: str, needed: Sequence[str]) -> "list[tuple[int, dict[str, str]]]":
    reader = csv.DictReader(io.StringIO(text))
    header = reader.fieldnames or []
    missing = [c for c in needed if c not in header]
    if missing:
        raise InvalidInput(f"the file has the columns {list(header)}: {', '.join(missing)} missing")
    rows = []
    for number, row in enumerate(reader, start=2):
        if None in row or any(row[c] is None for c in header):
            raise InvalidInput(
                f"row {number} has not as many values as the header has columns ({len(header)})"
            )
        rows.append((number, row))
    if not rows:
        raise InvalidInput("the file has no rows")
    return rows


def _number(text: str, row: int, column: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InvalidInput(f"row {row}: {column} is {text!r}, which is no number")
    return value
