"""Concepts given by sentences: checked, built from templates, and as bytes.

A set keeps each sentence once; concepts name their examples by number, so thirty concepts that share their negatives
are not thirty times as long.
"""

import hashlib
import itertools
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from fulcrum.domain.codec import from_json, to_json
from fulcrum.domain.errors import InvalidInput, InvalidSettings

VERSION = 1
MAX_CONCEPTS = 128
MAX_SENTENCES = 200_000

Negatives = Literal["other_domains", "other_concepts"]


@dataclass(frozen=True)
class SentenceConcept:
    """A concept by the numbers of the sentences that are about it, and of some that are not."""

    name: str
    positives: tuple[int, ...]
    negatives: tuple[int, ...]
    domain: str = ""


@dataclass(frozen=True)
class ConceptSet:
    """Concepts over common sentences. Raises InvalidInput for what cannot be a concept, naming it."""

    name: str
    sentences: tuple[str, ...]
    concepts: tuple[SentenceConcept, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.concepts) <= MAX_CONCEPTS:
            raise InvalidInput(f"a concept set has 1 to {MAX_CONCEPTS} concepts, got {len(self.concepts)}")
        if len(self.sentences) > MAX_SENTENCES:
            raise InvalidInput(
                f"a concept set has at most {MAX_SENTENCES} sentences, got {len(self.sentences)}"
            )
        for number, sentence in enumerate(self.sentences):
            if not sentence.strip():
                raise InvalidInput(f"sentence {number} of the concept set is empty")
        names = [c.name for c in self.concepts]
        check_names(names)
        for concept in self.concepts:
            self._check(concept)

    def _check(self, concept: SentenceConcept) -> None:
        used = (*concept.positives, *concept.negatives)
        if used and not 0 <= min(used) <= max(used) < len(self.sentences):
            raise InvalidInput(
                f"concept {concept.name!r} names sentences {min(used)} .. {max(used)}: there are "
                f"{len(self.sentences)}"
            )
        for what, numbers in (("positive", concept.positives), ("negative", concept.negatives)):
            texts = [self.sentences[n] for n in numbers]
            double = _first_double(texts)
            if double is not None:
                raise InvalidInput(f"concept {concept.name!r} has the {what} example {double!r} twice")
        both = {self.sentences[n] for n in concept.positives} & {self.sentences[n] for n in concept.negatives}
        if both:
            raise InvalidInput(
                f"concept {concept.name!r} has {len(both)} sentences both as positive and as negative examples, "
                f"first: {min(both)[:80]!r}"
            )
        check_examples(concept.name, len(concept.positives), len(concept.negatives))

    @property
    def sha256(self) -> str:
        """Of its bytes."""
        return hashlib.sha256(concept_set_bytes(self)).hexdigest()


def check_names(names: Sequence[str]) -> None:
    """Raises InvalidInput for concepts without a name, or two of one name."""
    if any(not name.strip() for name in names):
        raise InvalidInput("every concept needs a name")
    if (double := _first_double(names)) is not None:
        raise InvalidInput(f"two concepts are called {double!r}: names must differ")


def check_examples(name: str, n_pos: int, n_neg: int) -> None:
    """Raises InvalidInput for a concept with fewer than two examples of either kind."""
    if n_pos < 2 or n_neg < 2:
        raise InvalidInput(
            f"concept {name!r} has {n_pos} positive and {n_neg} negative examples: it needs at least two of each"
        )


def example_faults(
    positives: Sequence[str], negatives: Sequence[str]
) -> tuple[dict[int, str], dict[int, str]]:
    """What keeps sentences of one concept out of a set, by their place in either list: nothing keeps the others out.

    A sentence that stands twice in a list is no fault: `concept_set_of` takes it once.
    """
    both = set(positives) & set(negatives)

    def faults(texts: Sequence[str], other: str) -> dict[int, str]:
        empty = {place: "empty" for place, text in enumerate(texts) if not text.strip()}
        double = {place: f"also {other}" for place, text in enumerate(texts) if text in both}
        return double | empty

    return faults(positives, "negative"), faults(negatives, "positive")


def concept_set_bytes(concept_set: ConceptSet) -> bytes:
    """The same set, the same bytes."""
    content = {"version": VERSION, **to_json(concept_set)}
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def read_concept_set(content: bytes) -> ConceptSet:
    """What `concept_set_bytes` wrote. Raises InvalidInput."""
    try:
        found = json.loads(content)
        version = found.pop("version")
    except (ValueError, KeyError, AttributeError) as error:
        raise InvalidInput(f"this is no concept set: {error!r}") from error
    if version != VERSION:
        raise InvalidInput(f"the concept set is of version {version!r}, this reads {VERSION}")
    return from_json(ConceptSet, found)


def concept_set_of(
    name: str,
    positives: Mapping[str, Sequence[str]],
    negatives: Mapping[str, Sequence[str]],
    domains: Mapping[str, str] | None = None,
) -> ConceptSet:
    """From sentences by concept. Repeated sentences within a list are taken once. Raises InvalidInput."""
    number: dict[str, int] = {}

    def numbers(texts: Sequence[str]) -> tuple[int, ...]:
        return tuple(number.setdefault(text, len(number)) for text in dict.fromkeys(texts))

    concepts = tuple(
        SentenceConcept(c, numbers(texts), numbers(negatives.get(c, ())), (domains or {}).get(c, ""))
        for c, texts in positives.items()
    )
    return ConceptSet(name, tuple(number), concepts)


# Every combination of a frame and fillers is one sentence; together several thousand for each word.
FRAMES: tuple[str, ...] = (
    "{person} saw {a} {word} {place}.",
    "There was {a} {adjective} {word} {place}.",
    "{person} talked about the {word} {time}.",
    "{time_first}, {person_low} wanted {a} {word}.",
    "The {adjective} {word} was {place}.",
    "{person} took a picture of the {adjective} {word}.",
    "Is that {a} {word} {place}?",
    "{person} bought {a} {adjective} {word} {time}.",
    "Nobody expected the {word} to be {place}.",
    "My {word} is more {adjective} than yours.",
)
FILLERS: dict[str, tuple[str, ...]] = {
    "person": ("She", "He", "My brother", "Our neighbour", "The teacher", "Anna", "A stranger", "The old man"),
    "place": ("near the house", "in the garden", "by the road", "at the market", "behind the wall",
              "in the picture", "next to the door", "at the corner"),
    "adjective": ("big", "small", "old", "new", "red", "famous", "dirty", "beautiful"),
    "time": ("yesterday", "last week", "in the morning", "this summer", "on Monday", "again and again"),
}  # fmt: skip


def built_from_templates(
    name: str,
    words: Mapping[str, Sequence[str]],
    n_pos: int = 400,
    n_neg: int = 1000,
    *,
    frames: Sequence[str] = FRAMES,
    fillers: Mapping[str, Sequence[str]] = FILLERS,
    negatives: Negatives = "other_concepts",
    longest: int | None = None,
    seed: int = 0,
) -> ConceptSet:
    """A concept for each word of each domain: `n_pos` sentences with the word, `n_neg` with any other word, or with
    words of other domains. The same seed, the same set. Sentences have at most `longest` bytes, of which no tokenizer
    makes more tokens: with 37 the demo's text tower reads them all, which takes 40, begin and end among them.

    With `other_domains` the concepts of a domain have the same negatives, and that alone makes their AP alike: random
    weights then recover the domains (MiniLM, 30 words in 5 domains, 400/1000: ARI 0.66 to 1.00 by the rule, where it
    is -0.03 to 0.03 with `other_concepts`).

    A frame holds `{word}` and names of fillers; `{a}` is the article that fits what follows, and of a filler
    `{x_first}` begins with a capital and `{x_low}` with a small letter.
    Raises InvalidSettings where the templates give fewer sentences than are asked for.
    """
    domain_of = {word: domain for domain, some in words.items() for word in some}
    if len(domain_of) != sum(len(some) for some in words.values()):
        raise InvalidInput("a word stands twice in the word lists: each belongs to one domain")
    if negatives == "other_domains" and len(words) < 2:
        raise InvalidInput("negatives of other domains need at least two domains")
    sentences = {
        word: template_sentences(word, n_pos, frames, fillers, seed, longest=longest) for word in domain_of
    }
    pools: dict[str, list[str]] = {}
    for word, domain in domain_of.items():
        key = domain if negatives == "other_domains" else word
        if key in pools:
            continue
        others = [
            w for w in domain_of if (domain_of[w] != domain if negatives == "other_domains" else w != word)
        ]
        pool = list(dict.fromkeys(itertools.chain.from_iterable(sentences[w] for w in others)))
        if len(pool) < n_neg:
            raise InvalidSettings(
                f"the words other than those of {key!r} give {len(pool)} sentences, n_neg={n_neg} are asked for"
            )
        pools[key] = random.Random(f"{seed}:{key}").sample(pool, n_neg)
    by_word = {w: pools[d if negatives == "other_domains" else w] for w, d in domain_of.items()}
    return concept_set_of(name, sentences, by_word, domain_of)


def template_sentences(
    word: str,
    n: int,
    frames: Sequence[str] = FRAMES,
    fillers: Mapping[str, Sequence[str]] = FILLERS,
    seed: int = 0,
    *,
    longest: int | None = None,
) -> list[str]:
    """`n` different sentences with the word, of at most `longest` bytes.

    Raises InvalidSettings where the templates give fewer.
    """
    made: dict[str, None] = {}
    for frame in frames:
        if "{word}" not in frame:
            raise InvalidSettings(f"the frame {frame!r} has no place for the word: {{word}}")
        used = [
            name for name in fillers if any("{" + name + end in frame for end in ("}", "_first}", "_low}"))
        ]
        for chosen in itertools.product(*(fillers[name] for name in used)):
            made[_filled(frame, word, dict(zip(used, chosen, strict=True)))] = None
    if longest is not None:
        made = {text: None for text in made if len(text.encode()) <= longest}
    if len(made) < n:
        limit = "" if longest is None else f" of at most {longest} bytes"
        raise InvalidSettings(
            f"the templates give {len(made)} sentences{limit} with {word!r}, n_pos={n} are asked for"
        )
    return random.Random(f"{seed}:{word}").sample(list(made), n)


def _filled(frame: str, word: str, chosen: Mapping[str, str]) -> str:
    text = frame.replace("{word}", word)
    for name, value in chosen.items():
        text = text.replace("{" + name + "}", value)
        text = text.replace("{" + name + "_first}", value[:1].upper() + value[1:])
        text = text.replace("{" + name + "_low}", value[:1].lower() + value[1:])
    while (at := text.find("{a}")) >= 0:
        rest = text[at + 3 :].lstrip()
        text = text[:at] + ("an" if rest[:1].lower() in "aeiou" else "a") + text[at + 3 :]
    if "{" in text or "}" in text:
        raise InvalidSettings(f"the frame {frame!r} names a filler that there is not")
    return text[:1].upper() + text[1:]


def _first_double(texts: Sequence[str]) -> str | None:
    seen: set[str] = set()
    for text in texts:
        if text in seen:
            return text[:80]
        seen.add(text)
    return None
