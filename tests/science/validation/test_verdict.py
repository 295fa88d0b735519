import itertools

import pytest

from fulcrum.domain.errors import InvalidInput, InvalidSettings
from fulcrum.science.validation.gates import Gate, Kind, State, above, below, combine
from fulcrum.science.validation.specification import ProtectedGroup, Specification
from fulcrum.science.validation.verdict import TRUTH_TABLE, decide

STATES: tuple[State, ...] = ("pass", "fail", "undecided")


def gate(kind: Kind, state: State, n: int = 100, needs_n: int | None = None) -> Gate:
    return Gate(f"{kind} gate", kind, state, "because", n=n, needs_n=needs_n)


def verdict_of(benefit: State, harm: State, net_high: float = 0.1, **more):
    fields = {"split": "confirm", "confirm_look": 1, **more}
    return decide([gate("benefit", benefit), gate("harm", harm)], 1000, net_high, **fields)


@pytest.mark.parametrize(
    ("benefit", "harm", "name"),
    [
        ("pass", "pass", "generalises"),
        ("pass", "undecided", "inconclusive"),
        ("pass", "fail", "generalises with harm"),
        ("undecided", "pass", "inconclusive"),
        ("undecided", "undecided", "inconclusive"),
        ("undecided", "fail", "harmful"),
        ("fail", "pass", "instance-only"),
        ("fail", "undecided", "instance-only"),
        ("fail", "fail", "harmful"),
    ],
)
def test_every_row_of_the_truth_table(benefit: State, harm: State, name: str) -> None:
    assert verdict_of(benefit, harm).name == name


def test_the_table_is_complete_and_every_verdict_is_reachable() -> None:
    assert set(TRUTH_TABLE) == set(itertools.product(STATES, STATES))
    assert set(TRUTH_TABLE.values()) == {
        "instance-only",
        "generalises",
        "generalises with harm",
        "harmful",
        "inconclusive",
    }


def test_a_generalising_correction_that_breaks_more_than_it_fixes_is_harmful() -> None:
    assert verdict_of("pass", "fail", net_high=-0.01).name == "harmful"
    # Within every harm margin a small net loss is what the specification allows.
    assert verdict_of("pass", "pass", net_high=-0.001).name == "generalises"


@pytest.mark.parametrize("split", ["discover", "select"])
@pytest.mark.parametrize(("benefit", "harm"), list(itertools.product(STATES, STATES)))
def test_nothing_generalises_on_the_split_on_which_it_was_found(
    split: str, benefit: State, harm: State
) -> None:
    """SCIENCE.md 8, trap 14."""
    verdict = verdict_of(benefit, harm, split=split, confirm_look=0)
    assert not verdict.name.startswith("generalises")
    if verdict.provisional.startswith("generalises"):
        assert verdict.name == "inconclusive"
        assert verdict.badge == f"inconclusive ({split} split: {verdict.provisional})"
        assert any("proven on confirm" in reason for reason in verdict.reasons)
    else:
        assert verdict.name == verdict.provisional


@pytest.mark.parametrize(("benefit", "harm"), list(itertools.product(STATES, STATES)))
def test_a_failed_precondition_leaves_every_verdict_open(benefit: State, harm: State) -> None:
    gates = [gate("precondition", "fail"), gate("benefit", benefit), gate("harm", harm)]
    verdict = decide(gates, 1000, 0.1, "confirm", 1)
    assert verdict.name == "inconclusive"
    assert verdict.badge == (
        "inconclusive" if verdict.provisional == "inconclusive" else "inconclusive (precondition)"
    )
    assert verdict.needs_n is None


def test_a_second_look_at_confirm_says_so_on_the_badge() -> None:
    assert verdict_of("pass", "pass").badge == "generalises"
    assert verdict_of("pass", "pass", confirm_look=2).badge == "generalises · look 2 at confirm"


def test_inconclusive_says_how_many_images_it_needs_in_the_present_mixture() -> None:
    # 100 images of the failure mode among 1000: to have 250 of them takes 2500 images.
    gates = [
        gate("benefit", "undecided", 100, 250),
        gate("harm", "undecided", 1000, 1200),
        gate("harm", "pass"),
    ]
    verdict = decide(gates, 1000, 0.1, "confirm", 1)
    assert verdict.needs_n == 2500
    assert verdict.badge == "inconclusive (needs n >= 2500)"


def test_no_number_of_images_is_promised_when_one_gate_needs_something_else() -> None:
    gates = [gate("benefit", "undecided", 20, None), gate("harm", "undecided", 1000, 1200)]
    verdict = decide(gates, 1000, 0.1, "confirm", 1)
    assert verdict.needs_n is None
    assert verdict.badge == "inconclusive"


def test_reasons_name_the_gates_that_failed_before_those_that_are_open() -> None:
    gates = [gate("benefit", "undecided"), gate("harm", "fail"), gate("harm", "pass")]
    assert decide(gates, 10, 0.1, "confirm", 1).reasons == ("harm gate: because", "benefit gate: because")


def test_verdicts_without_a_question_are_refused() -> None:
    with pytest.raises(InvalidSettings, match="at least one benefit gate"):
        decide([gate("harm", "pass")], 10, 0.1, "confirm", 1)
    with pytest.raises(InvalidSettings, match="confirm_look=0"):
        verdict_of("pass", "pass", confirm_look=0)
    with pytest.raises(InvalidSettings, match="confirm_look=1"):
        verdict_of("pass", "pass", split="select", confirm_look=1)


def test_an_interval_astride_the_margin_is_undecided() -> None:
    assert (below(0.0, 0.01, 0.01), below(0.0, 0.011, 0.01), below(0.011, 0.02, 0.01)) == (
        "pass",
        "undecided",
        "fail",
    )
    assert (above(0.02, 0.03, 0.02), above(0.01, 0.03, 0.02), above(0.0, 0.019, 0.02)) == (
        "pass",
        "undecided",
        "fail",
    )
    with pytest.raises(InvalidInput, match="no interval"):
        below(0.2, 0.1, 0.15)
    with pytest.raises(InvalidInput, match="no interval"):
        above(float("nan"), 0.1, 0.15)


def test_all_gates_of_a_kind_must_pass_and_one_may_fail_them() -> None:
    ok, bad, unsure = (gate("harm", s) for s in STATES)
    assert combine([ok, ok], "harm") == "pass"
    assert combine([ok, unsure], "harm") == "undecided"
    assert combine([ok, unsure, bad], "harm") == "fail"
    assert combine([bad], "benefit") == "pass"


def test_a_specification_is_frozen_by_its_hash() -> None:
    one = Specification(protected_groups=(ProtectedGroup("sticker", "none"),))
    assert one.sha256 == Specification(protected_groups=(ProtectedGroup("sticker", "none"),)).sha256
    changed = [
        Specification(),
        Specification(harm_margin=0.02),
        Specification(alpha=0.01),
        Specification(protected_groups=(ProtectedGroup("sticker", "none", 0.02),)),
        Specification(worst_group_margin=None),
        Specification(seed=1),
    ]
    assert len({s.sha256 for s in [one, *changed]}) == 7


@pytest.mark.parametrize(
    "wrong",
    [
        {"alpha": 0.0},
        {"harm_margin": 1.0},
        {"min_gain": 0.0},
        {"n_bootstrap": 1999},
        {"min_controls": 50},
        {"temperature": 0.0},
        {"kl_p95_limit": 0.0},
        {"control_percentile": 100.0},
        {"ece_margin": 2.0},
        {"power": 0.2},
        {"ece_bins": 1},
        {"min_group_size": 0},
        {"protected_groups": (ProtectedGroup("a", "b", 0.0),)},
    ],
)
def test_impossible_specifications_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidSettings):
        Specification(**wrong)  # type: ignore[arg-type]
