"""Concepts given by sentences while somebody writes them: nothing here has to be right yet.

`ConceptSet` refuses what cannot be a concept; a draft says where it is.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from fulcrum.domain.concept_files import SentenceLists
from fulcrum.domain.concept_sets import (
    MAX_CONCEPTS,
    ConceptSet,
    check_examples,
    check_names,
    example_faults,
)
from fulcrum.domain.errors import InvalidInput

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Example:
    """A sentence, and whether it is about the concept."""

    sentence: str
    about: bool


@dataclass(frozen=True)
class DraftConcept:
    """A concept; `number` stays when its name changes."""

    number: int
    name: str
    domain: str = ""
    examples: tuple[Example, ...] = ()

    def sentences(self, about: bool) -> tuple[str, ...]:
        """Those about it, or the others."""
        return tuple(e.sentence for e in self.examples if e.about == about)

    def faults(self) -> tuple[str, ...]:
        """What is wrong with each example, "" where nothing is; `twice` alone does no harm."""
        places: dict[bool, list[int]] = {True: [], False: []}
        for place, example in enumerate(self.examples):
            places[example.about].append(place)
        positive, negative = example_faults(self.sentences(True), self.sentences(False))
        found = {places[True][p]: words for p, words in positive.items()}
        found |= {places[False][p]: words for p, words in negative.items()}
        counts = Counter(self.examples)
        seen: set[Example] = set()
        for place, example in enumerate(self.examples):
            if counts[example] > 1 and example in seen:
                found.setdefault(place, "twice: counts once")
            seen.add(example)
        return tuple(found.get(place, "") for place in range(len(self.examples)))

    def fault(self) -> str:
        """What keeps the whole concept out, "" where nothing does."""
        if not self.name.strip():
            return "needs a name"
        positive, negative = example_faults(self.sentences(True), self.sentences(False))
        if positive or negative:
            n = len(positive) + len(negative)
            return f"{n} sentence{'s' if n > 1 else ''} to look at"
        n_pos, n_neg = (len(set(self.sentences(about))) for about in (True, False))
        if not n_pos or not n_neg:
            return f"no {'positive' if not n_pos else 'negative'} sentence"
        try:
            check_examples(self.name, n_pos, n_neg)
        except InvalidInput:
            return "needs two of each"
        return ""


@dataclass(frozen=True)
class Draft:
    """A set of concepts, by the order in which they were written."""

    name: str
    concepts: tuple[DraftConcept, ...] = ()

    def faults(self) -> dict[int, str]:
        """What keeps concepts out, by their number."""
        found = {c.number: c.fault() for c in self.concepts}
        names = Counter(c.name for c in self.concepts)
        for concept in self.concepts:
            if names[concept.name] > 1 and concept.name.strip():
                found[concept.number] = "name is taken twice"
        return {number: words for number, words in found.items() if words}

    def trouble(self) -> str:
        """Why it is no set of concepts yet, "" when it is."""
        faults = self.faults()
        if not self.concepts:
            return "There is no concept yet."
        if len(self.concepts) > MAX_CONCEPTS:
            return f"There are {len(self.concepts)} concepts: at most {MAX_CONCEPTS} are searched at once."
        if faults:
            n = len(faults)
            return "One concept is not right yet." if n == 1 else f"{n} concepts are not right yet."
        return ""

    def to_set(self) -> ConceptSet:
        """Raises InvalidInput for what `trouble` says."""
        return self.to_lists().to_set(self.name.strip() or "concepts")

    def to_lists(self) -> SentenceLists:
        """As a file has them. Raises InvalidInput where a name is missing or taken twice: a file would mix the two."""
        check_names([c.name for c in self.concepts])
        return SentenceLists(
            {c.name: list(c.sentences(True)) for c in self.concepts},
            {c.name: list(c.sentences(False)) for c in self.concepts},
            {c.name: c.domain for c in self.concepts},
        )

    @staticmethod
    def of(name: str, lists: SentenceLists) -> "Draft":
        """To be written on."""
        return Draft(
            name,
            tuple(
                DraftConcept(
                    next(_numbers),
                    concept,
                    lists.domains.get(concept, ""),
                    (
                        *(Example(text, True) for text in positives),
                        *(Example(text, False) for text in lists.negatives.get(concept, ())),
                    ),
                )
                for concept, positives in lists.positives.items()
            ),
        )

    @staticmethod
    def of_set(found: ConceptSet) -> "Draft":
        """What was searched once, to go on from."""

        def texts(numbers: tuple[int, ...]) -> list[str]:
            return [found.sentences[n] for n in numbers]

        lists = SentenceLists(
            {c.name: texts(c.positives) for c in found.concepts},
            {c.name: texts(c.negatives) for c in found.concepts},
            {c.name: c.domain for c in found.concepts},
        )
        return Draft.of(found.name, lists)

    def concept(self, number: int) -> DraftConcept | None:
        """None for one that was taken out."""
        return next((c for c in self.concepts if c.number == number), None)

    def changed(self, concept: DraftConcept) -> "Draft":
        """With this one in the place of what it was."""
        return replace(
            self, concepts=tuple(concept if c.number == concept.number else c for c in self.concepts)
        )

    def with_sentences(self, number: int, sentences: Iterable[str], about: bool) -> "Draft":
        """More examples of a concept; empty lines are none."""
        concept = self.concept(number)
        if concept is None:
            return self
        more = tuple(Example(s.strip(), about) for s in sentences if s.strip())
        return self.changed(replace(concept, examples=concept.examples + more))

    def edited(
        self, changed: dict[int, dict[str, str]], added: Sequence[dict[str, str]], deleted: Iterable[int]
    ) -> "Draft":
        """After edits of the table of concepts: rows by their place, fields `name` and `domain`."""
        gone = set(deleted)
        kept = [
            replace(c, **{k: v or "" for k, v in changed.get(place, {}).items() if k in ("name", "domain")})  # type: ignore[arg-type]  # both are texts
            for place, c in enumerate(self.concepts)
            if place not in gone
        ]
        new = [DraftConcept(next(_numbers), row.get("name") or "", row.get("domain") or "") for row in added]
        return replace(self, concepts=(*kept, *new))


def read_word_list(text: str) -> dict[str, tuple[str, ...]]:
    """`animals: dog, cat` on each line, as the words of each domain. Raises InvalidInput for a line without a colon."""
    found: dict[str, tuple[str, ...]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        domain, colon, words = line.partition(":")
        some = tuple(word.strip() for word in words.split(",") if word.strip())
        if not colon or not domain.strip() or not some:
            raise InvalidInput(
                f"line {number} is {line.strip()[:60]!r}: expected a domain, a colon and words, such as animals: dog, cat"
            )
        if domain.strip() in found:
            raise InvalidInput(f"line {number}: the domain {domain.strip()!r} stands twice")
        found[domain.strip()] = some
    if not found:
        raise InvalidInput("there is no word yet: write a line such as animals: dog, cat")
    return found
