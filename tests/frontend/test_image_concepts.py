from fulcrum.domain.jobs import ImageConcept, Where
from fulcrum_ui.parts.image_concepts import Candidate, faults


def candidate(name, n=10, n_others=90):
    return Candidate(ImageConcept(name, (Where("label", name),)), n, n_others)


def test_what_cannot_be_told_from_other_images_is_said_beside_the_row():
    assert candidate("cup").fault() == ""
    assert candidate("cup", 1).fault() == "needs two images of each"
    assert candidate("cup", 100, 0).fault() == "only one class"
    assert candidate("of several conditions", None, None).fault() == ""


def test_names_are_needed_and_taken_once_among_what_is_ticked():
    found = [candidate("cup"), candidate("key"), candidate("boat", 1)]
    assert faults(["cup", "cup ", "boat"], found) == [
        "name taken twice",
        "name taken twice",
        "needs two images of each",
    ]
    assert faults(["cup", None, " "], found) == ["", "", "needs two images of each"]
    assert faults([" ", "key", None], found) == ["needs a name", "", "needs two images of each"]
