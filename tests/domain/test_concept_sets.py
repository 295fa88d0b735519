"""Concepts by sentences, and what people say of them: read, built, and refused with words."""

import json

import pytest

from fulcrum.domain.concept_files import (
    PairRatings,
    TripletChoices,
    among_concepts,
    judgements_bytes,
    read_concepts_csv,
    read_concepts_json,
    read_judgements_bytes,
    read_ratings_csv,
)
from fulcrum.domain.concept_sets import (
    ConceptSet,
    SentenceConcept,
    built_from_templates,
    concept_set_bytes,
    concept_set_of,
    read_concept_set,
)
from fulcrum.domain.errors import InvalidInput, InvalidSettings, UnknownModel
from fulcrum.domain.language_models import check_language_model, chosen_layers

WORDS = {"animals": ("dog", "owl"), "fruits": ("apple", "pear")}
SENTENCES = {"positive": ["A dog.", "Dogs!"], "negative": ["A pear.", "I am."]}
DOG = {"concept": "dog", "group": "animals", "sentences": SENTENCES}


def test_templates_make_the_same_set_for_the_same_seed_with_as_many_examples_as_asked_for():
    asked = {"n_pos": 50, "n_neg": 80, "negatives": "other_domains"}
    built = built_from_templates("a", WORDS, **asked, seed=3)
    assert built == built_from_templates("a", WORDS, **asked, seed=3)
    assert built.sha256 != built_from_templates("a", WORDS, **asked, seed=4).sha256
    for concept in built.concepts:
        positive = [built.sentences[n].lower() for n in concept.positives]
        negative = [built.sentences[n].lower() for n in concept.negatives]
        assert (len(set(positive)), len(set(negative))) == (50, 80)
        assert all(concept.name in text for text in positive)
        same_domain = WORDS[concept.domain]
        assert not any(word in text.split() for text in negative for word in same_domain)
    dog, owl, *_ = built.concepts
    assert dog.negatives == owl.negatives  # so that they are sorted once


def test_negatives_are_of_any_other_word():
    built = built_from_templates("a", WORDS, 50, 80)
    dog = built.concepts[0]
    texts = " ".join(built.sentences[n] for n in dog.negatives)
    assert "owl" in texts
    assert "dog" not in texts


def test_an_article_fits_what_follows_it():
    built = built_from_templates(
        "a", WORDS, 2, 2, frames=("{a} {word}", "{a} {x} {word}"), fillers={"x": ("old",)}
    )
    assert {"An owl", "A dog", "An old dog", "An apple"} <= set(built.sentences)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"n_pos": 10**6}, InvalidSettings, "sentences with 'dog', n_pos=1000000 are asked for"),
        ({"n_pos": 5, "n_neg": 11}, InvalidSettings, "give 10 sentences, n_neg=11"),
        ({"words": {"animals": ("dog", "owl")}}, InvalidInput, "at least two domains"),
        ({"words": {"a": ("dog",), "b": ("dog",)}}, InvalidInput, "stands twice"),
        ({"frames": ("nothing here",)}, InvalidSettings, "no place for the word"),
        ({"frames": ("{word} {where}",)}, InvalidSettings, "names a filler that there is not"),
    ],
)
def test_templates_that_cannot_be_filled_say_why(change, error, words):
    asked = {"words": WORDS, "n_pos": 20, "n_neg": 20, "negatives": "other_domains"} | change
    with pytest.raises(error, match=words):
        built_from_templates("a", asked.pop("words"), **asked)


def test_a_set_comes_back_from_its_bytes():
    built = built_from_templates("a", WORDS, 10, 10)
    assert read_concept_set(concept_set_bytes(built)) == built
    for content in (b"no json", b"{}", json.dumps({"version": 9}).encode()):
        with pytest.raises(InvalidInput):
            read_concept_set(content)


@pytest.mark.parametrize(
    ("sentences", "concept", "words"),
    [
        (("a", "b", "c", "d"), SentenceConcept("x", (0, 1), (1, 2)), "both as positive and as negative"),
        (("a", "b", "c", "d"), SentenceConcept("x", (0, 1), ()), "2 positive and 0 negative"),
        (("a", "b", "c", "d"), SentenceConcept("x", (), (1, 2)), "0 positive and 2 negative"),
        (("a", "b", "c", "d"), SentenceConcept("x", (0, 0), (1, 2)), "the positive example 'a' twice"),
        (("a", "b", "c", "a"), SentenceConcept("x", (0, 1), (2, 3)), "both as positive and as negative"),
        (
            ("a", " ", "c", "d"),
            SentenceConcept("x", (0, 1), (2, 3)),
            "sentence 1 of the concept set is empty",
        ),
        (("a", "b", "c", "d"), SentenceConcept("x", (0, 9), (2, 3)), "names sentences 0 .. 9"),
        (("a", "b", "c", "d"), SentenceConcept(" ", (0, 1), (2, 3)), "needs a name"),
    ],
)
def test_what_cannot_be_a_concept_is_refused_by_name(sentences, concept, words):
    with pytest.raises(InvalidInput, match=words):
        ConceptSet("s", sentences, (concept,))


def test_a_name_is_taken_once_and_repeated_lines_of_a_file_count_once():
    concept = SentenceConcept("x", (0, 1), (2, 3))
    with pytest.raises(InvalidInput, match="two concepts are called 'x'"):
        ConceptSet("s", ("a", "b", "c", "d"), (concept, concept))
    found = concept_set_of("s", {"x": ["a", "b", "a"]}, {"x": ["c", "d"]})
    assert found.concepts[0].positives == (0, 1)


def test_concepts_are_read_in_suaus_layout_and_from_csv_alike():
    from_json = read_concepts_json([json.dumps(DOG).encode()])
    rows = ["concept,sentence,label,domain"]
    rows += [f"dog,{text},1,animals" for text in SENTENCES["positive"]]
    rows += [f"dog,{text},0,animals" for text in SENTENCES["negative"]]
    assert read_concepts_csv("\n".join(rows)) == from_json
    assert from_json.concepts[0].domain == "animals"
    both = read_concepts_json([json.dumps([DOG, DOG | {"concept": "hound"}]).encode()])
    assert [c.name for c in both.concepts] == ["dog", "hound"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "no JSON"),
        (b'{"sentences": {}}', "a concept file needs"),
        (b'{"concept": "dog", "sentences": {"positive": ["a", "b"]}}', "'dog' lacks the list sentences.negative"),
        (json.dumps([DOG, DOG]).encode(), "two concepts are called 'dog'"),
    ],
)  # fmt: skip
def test_a_concept_file_that_lacks_something_says_what(content, words):
    with pytest.raises(InvalidInput, match=words):
        read_concepts_json([content])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("concept,sentence\ndog,A dog.", "label missing"),
        ("concept,sentence,label\ndog,A dog.,maybe", "row 2: label is 'maybe'"),
        ("concept,sentence,label\ndog, ,1", "row 2: the sentence is empty"),
        ("concept,sentence,label\ndog,A dog.", "row 2 has not as many values"),
        ("concept,sentence,label", "no rows"),
        ("concept,sentence,label,domain\ndog,A,1,x\ndog,B,0,y", "of domain 'x' and of 'y'"),
    ],
)
def test_a_concept_csv_that_cannot_be_meant_names_the_row(text, words):
    with pytest.raises(InvalidInput, match=words):
        read_concepts_csv(text)


def test_ratings_are_read_with_raters_and_odd_ones_out():
    plain = read_ratings_csv("word_1,word_2,rating\ndog,cat,8\ndog,car,1\ncat,car,2", "a")
    assert plain == PairRatings("a", (("dog", "cat"), ("dog", "car"), ("cat", "car")), (8, 1, 2))
    raters = read_ratings_csv("word_1,word_2,r1,r2\ndog,cat,8,9\ndog,car,1,2\ncat,car,2,4", "a")
    assert raters.ratings == (8.5, 1.5, 3)
    assert raters.raters == ((8, 9), (1, 2), (2, 4))
    odd = read_ratings_csv("word_1,word_2,odd\ndog,cat,car", "a")
    assert odd == TripletChoices("a", (("dog", "cat", "car"),))
    for judgements in (plain, raters, odd):
        assert read_judgements_bytes(judgements_bytes(judgements)) == judgements


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("word_1,word_2,rating\na,b,3\na,c,3\nb,c,3", "all 3 ratings are 3"),
        ("word_1,word_2,rating\na,b,high", "row 2: rating is 'high'"),
        ("word_1,word_2,rating\na,b,nan", "row 2: rating is 'nan'"),
        ("word_1,word_2,rating\na,b,1\nb,a,2", "row 3: 'b' and 'a' are rated twice"),
        ("word_1,word_2,rating\na,a,1\na,b,2", "rates 'a' against itself"),
        ("word_1,word_2", "expected word_1, word_2, rating"),
        ("one,two,rating\na,b,1", "word_1, word_2 missing"),
        ("word_1,word_2,odd\na,b,a", "not three different"),
    ],
)
def test_a_file_of_ratings_that_says_nothing_is_refused(text, words):
    with pytest.raises(InvalidInput, match=words):
        read_ratings_csv(text, "mine")


def test_unknown_words_are_named_or_left_out():
    ratings = PairRatings(
        "m", (("dog", "cat"), ("dog", "car"), ("cat", "car"), ("cat", "sofa")), (8, 1, 2, 3)
    )
    concepts = ["animal=dog", "animal=cat", "car"]
    with pytest.raises(InvalidInput, match=r"'m' has 1 words that are no concept here, first: \['sofa'\]"):
        among_concepts(ratings, concepts)
    kept = among_concepts(ratings, concepts, "leave_out")
    assert kept.pairs == (("animal=dog", "animal=cat"), ("animal=dog", "car"), ("animal=cat", "car"))
    with pytest.raises(InvalidInput, match="1 of 4 judgements about concepts that are here"):
        among_concepts(ratings, ["dog", "cat"], "leave_out")
    same = PairRatings("m", (*ratings.pairs[:3], ("dog", "sofa")), (5, 5, 5, 1))
    with pytest.raises(InvalidInput, match="all 3 ratings are 5"):
        among_concepts(same, concepts, "leave_out")


def test_sentences_of_a_word_list_can_be_short_enough_for_a_small_tower():
    words = {"animals": ("dog", "cat", "owl"), "fruits": ("apple", "pear", "banana")}
    built = built_from_templates("words", words, 100, 200, longest=37)
    assert max(len(s.encode()) for s in built.sentences) <= 37
    assert {len(c.positives) for c in built.concepts} == {100}
    with pytest.raises(InvalidSettings, match="sentences of at most 37 bytes with 'refrigerator', n_pos=100"):
        built_from_templates("words", {"a": ("refrigerator",), "b": ("dog",)}, 100, 2, longest=37)


def test_layers_are_chosen_by_what_they_are_or_by_name_and_a_wish_that_none_fulfils_is_refused():
    names = ("h.0.attn.c_attn", "h.0.mlp.c_fc", "h.1.attn.c_attn", "h.1.mlp.c_fc")
    assert chosen_layers(names, ()) == names
    assert chosen_layers(names, ("mlp",)) == names[1::2]
    assert chosen_layers(names, ("h.1.*", "attention")) == (names[0], *names[2:])
    with pytest.raises(InvalidInput, match=r"no linear layer of this model is 'h\.2\.\*'"):
        chosen_layers(names, ("mlp", "h.2.*"))


@pytest.mark.parametrize("reference", ["folder:lab/a", "folder:lab", "hf-hub:owner/name", "hf-hub:a.b/c-d_1"])
def test_references_that_can_name_a_language_model(reference):
    check_language_model(reference)


@pytest.mark.parametrize(
    "reference", ["", "gpt2", "/etc", "owner/name", "hf-hub:", "hf-hub:name", "hf-hub:a/b/c", "hf-hub:../a", "folder:",
                  "hf-hub:a/..", "local-dir:/etc", "hf-hub:a/b\n"]
)  # fmt: skip
def test_references_that_cannot(reference):
    with pytest.raises(UnknownModel, match="is not a language model that can be asked for"):
        check_language_model(reference)
