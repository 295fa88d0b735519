"""What the flip board offers, and the way there from a list that did not keep its answers."""

import dataclasses

from streamlit.testing.v1 import AppTest

from fulcrum_ui.parts import flip_board


def test_each_image_is_counted_under_its_outcome_and_once_as_changed():
    overall = {"still_right": 40, "broken": 2, "fixed": 5, "still_wrong": 9, "moved": 3}
    assert flip_board._counts(overall) == {
        "Changed": 10, "Broken": 2, "Fixed": 5, "Moved": 3, "Still wrong": 6, "Still right": 40,
    }  # fmt: skip
    assert flip_board._counts({"changed_unlabelled": 4})["Changed"] == 4


@dataclasses.dataclass
class Record:
    id: str = "evl_1"


def test_the_address_names_the_list_and_every_change():
    assert flip_board.changed_of_set(Record(), "signs at night") == {
        "evaluation": "evl_1",
        "part": "Flip board",
        "outcome": "Changed",
        "only": "set=signs at night",
    }


def script():
    import streamlit as st

    from fulcrum_ui.parts import keeping

    tabs = keeping.tabs(("Verdict", "Flip board"), "part")
    with tabs[1]:
        if tabs[1].open:
            shown = keeping.segments(["Changed", "Broken"], "outcome", "Broken")
            only = keeping.choice(["all images", "set=signs"], "only")
            every = keeping.switch("Also not judged", "unjudged")
            st.text(f"{shown}, {only}, {every}")
    there = {"part": "Flip board", "outcome": "Changed", "only": "set=signs"}
    st.button("There", on_click=keeping.follow, args=(there,))


def address(app):
    return {k: v[0] if isinstance(v, list) else v for k, v in app.query_params.items()}


def test_a_link_within_a_view_changes_what_is_chosen_there_and_so_does_its_address():
    app = AppTest.from_function(script, default_timeout=30)
    app.query_params["part"] = "Flip board"
    app.run()
    assert [t.value for t in app.text] == ["Broken, all images, False"]
    app.toggle[0].set_value(True).run()
    assert [t.value for t in app.text] == ["Broken, all images, True"]
    assert address(app)["unjudged"] == "1"
    app.button[0].click().run()
    assert not app.exception
    assert [t.value for t in app.text] == ["Changed, set=signs, False"]
    assert address(app) == {
        "part": "Flip board", "outcome": "Changed", "only": "set=signs",
    }  # fmt: skip
    opened = AppTest.from_function(script, default_timeout=30)
    for name, value in address(app).items():
        opened.query_params[name] = value
    opened.run()
    assert [t.value for t in opened.text] == ["Changed, set=signs, False"]
