"""Concepts while somebody writes them: what is wrong stands where it is, and nothing wrong is searched."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fulcrum.domain.concept_files import (
    csv_sentences,
    json_sentences,
    write_concepts_csv,
    write_concepts_json,
)
from fulcrum.domain.concept_sets import built_from_templates
from fulcrum.domain.errors import InvalidInput
from fulcrum_ui.concept_draft import Draft, DraftConcept, Example, read_word_list


def examples(*texts):
    """'+A dog.' is about it, '-A pear.' is not."""
    return tuple(Example(text[1:], text[0] == "+") for text in texts)


DOG = DraftConcept(-1, "dog", "animals", examples("+A dog.", "+Dogs!", "-A pear.", "-I am."))


def test_a_concept_without_faults_is_searched_as_it_stands():
    draft = Draft("pets", (DOG,))
    assert (draft.trouble(), draft.faults(), DOG.faults()) == ("", {}, ("", "", "", ""))
    found = draft.to_set()
    assert (found.name, found.concepts[0].domain) == ("pets", "animals")
    assert Draft.of_set(found).concepts[0].examples == DOG.examples


IN_NEGATIVE, IN_POSITIVE = "also negative", "also positive"


@pytest.mark.parametrize(
    ("concept", "beside_rows", "of_concept"),
    [
        (examples("+a", "+b", "-a", "-c"), (IN_NEGATIVE, "", IN_POSITIVE, ""), "2 sentences to look at"),
        (examples("+a", "+b", "-c", "-"), ("", "", "", "empty"), "1 sentence to look at"),
        (examples("+ ", "+b", "- ", "-c"), ("empty", "", "empty", ""), "2 sentences to look at"),
        (examples("+a", "+b"), ("", ""), "no negative sentence"),
        (examples("-a", "-b"), ("", ""), "no positive sentence"),
        (examples("+a", "-b", "-c"), ("", "", ""), "needs two of each"),
        (examples("+a", "+a", "-b", "-c"), ("", "twice: counts once", "", ""), "needs two of each"),
        (examples("+a", "+a", "+d", "-b", "-c"), ("", "twice: counts once", "", "", ""), ""),
        ((), (), "no positive sentence"),
    ],
)  # fmt: skip
def test_what_is_wrong_stands_beside_the_row(concept, beside_rows, of_concept):
    drafted = DraftConcept(-1, "x", "", concept)
    assert drafted.faults() == beside_rows
    assert drafted.fault() == of_concept


def test_names_are_needed_and_taken_once():
    draft = Draft("", (DOG, DraftConcept(-2, "dog"), DraftConcept(-3, " ")))
    assert draft.faults() == {-1: "name is taken twice", -2: "name is taken twice", -3: "needs a name"}
    assert draft.trouble() == "3 concepts are not right yet."
    assert Draft("").trouble() == "There is no concept yet."
    with pytest.raises(InvalidInput, match="needs a name"):
        draft.to_lists()
    with pytest.raises(InvalidInput, match="two concepts are called 'dog'"):
        Draft("", draft.concepts[:2]).to_lists()


TEXTS = st.sampled_from(["a", "b", "c", "d", "", " "])
CONCEPTS = st.builds(
    DraftConcept,
    st.integers(1, 10**9),
    st.sampled_from(["dog", "cat", "", " "]),
    st.just(""),
    st.lists(st.builds(Example, TEXTS, st.booleans()), max_size=8).map(tuple),
)


@given(st.lists(CONCEPTS, max_size=3, unique_by=lambda c: c.number))
def test_a_draft_is_in_order_exactly_when_it_can_be_searched(concepts):
    draft = Draft("x", tuple(concepts))
    try:
        draft.to_set()
    except InvalidInput:
        assert draft.trouble()
    else:
        assert draft.trouble() == ""


def test_edits_of_the_table_of_concepts_rename_add_and_take_out():
    other = DraftConcept(-2, "owl")
    draft = Draft("pets", (DOG, other)).edited(
        {0: {"name": "hound"}, 1: {"name": "x"}}, [{"domain": "birds"}], [1]
    )
    hound, new = draft.concepts
    assert (hound.number, hound.name, hound.domain, hound.examples) == (-1, "hound", "animals", DOG.examples)
    assert (new.name, new.domain, new.examples) == ("", "birds", ())
    assert new.number not in (-1, -2)
    assert draft.concept(-2) is None


def test_sentences_are_added_line_by_line_to_the_concept_that_is_meant():
    draft = Draft("pets", (DOG, DraftConcept(-2, "owl"))).with_sentences(-2, ["An owl. ", "", " Owls!"], True)
    assert draft.concept(-1) == DOG
    assert draft.concept(-2).examples == examples("+An owl.", "+Owls!")
    assert draft.with_sentences(9, ["lost"], True) == draft


@pytest.mark.parametrize("concepts", [(DOG,), (DOG, DraftConcept(-2, "owl", "", examples("+a", "-a", "-")))])
def test_a_draft_is_taken_home_and_comes_back_with_its_faults(concepts):
    draft = Draft("pets", concepts)
    lists = draft.to_lists()
    for read in (json_sentences([write_concepts_json(lists)]), csv_sentences(write_concepts_csv(lists))):
        back = Draft.of("pets", read)
        assert [(c.name, c.domain, c.examples) for c in back.concepts] == [
            (c.name, c.domain, c.examples) for c in concepts
        ]


def test_word_lists_are_read_line_by_line():
    words = read_word_list("animals: dog, owl\n\nfruits: apple,pear ,")
    assert words == {"animals": ("dog", "owl"), "fruits": ("apple", "pear")}
    built = Draft.of_set(built_from_templates("words", words, 20, 30))
    assert (built.trouble(), len(built.concepts)) == ("", 4)
    for text, said in (
        ("dog, cat", "line 1 is 'dog, cat'"),
        ("a: x\na: y", "line 2"),
        (" \n", "no word yet"),
        ("a:", "line 1"),
    ):
        with pytest.raises(InvalidInput, match=said):
            read_word_list(text)
