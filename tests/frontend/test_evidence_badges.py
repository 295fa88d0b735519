"""What verdicts are called and mean."""

from typing import get_args

from fulcrum.science.validation.verdict import VerdictName
from fulcrum_ui.parts.evidence_badges import verdict_meaning


def test_each_verdict_says_what_it_means_and_no_other_word_does():
    meanings = {name: verdict_meaning(name) for name in get_args(VerdictName)}
    assert all(meanings.values())
    assert len(set(meanings.values())) == len(meanings)
    assert verdict_meaning("no verdict") is None
