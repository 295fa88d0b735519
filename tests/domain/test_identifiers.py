import re

import pytest

from fulcrum.domain import identifiers
from fulcrum.domain.identifiers import new_id, now


def test_ids_are_unique_well_formed_and_need_no_escaping_in_a_url():
    made = [new_id("img") for _ in range(2000)]
    assert len(set(made)) == 2000
    assert all(re.fullmatch(r"img_[0-9a-hjkmnp-tv-z]{26}", i) for i in made)


@pytest.mark.parametrize("later_ms", [1, 1000, 10**9])
def test_a_later_id_sorts_later_as_text(monkeypatch, later_ms):
    from datetime import timedelta

    first, at = new_id("x"), now()
    monkeypatch.setattr(identifiers, "now", lambda: at + timedelta(milliseconds=later_ms + 1))
    assert new_id("x") > first


def test_the_clock_is_aware_and_in_utc():
    assert now().utcoffset().total_seconds() == 0
