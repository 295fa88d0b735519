import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulcrum.client.events import Event, EventDecoder

texts = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20)
names = st.text(
    st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1, max_size=8
).filter(lambda n: not n.startswith(" "))
event_lists = st.lists(
    st.builds(Event, names, st.lists(texts, min_size=1, max_size=3).map("\n".join)), max_size=5
)


def written(events, ending):
    lines = [": a comment"]
    for event in events:
        lines += [
            f"event: {event.name}",
            *(f"data: {line}" for line in event.data.split("\n")),
            "retry: 10",
            "",
        ]
    return "".join(line + ending for line in lines).encode()


@settings(max_examples=100, deadline=None)
@given(event_lists, st.sampled_from(["\n", "\r\n", "\r"]), st.data())
def test_events_are_the_same_wherever_the_chunks_were_cut(events, ending, data):
    content = written(events, ending) + b"\n"  # a lone \r at the end waits for what may be its \n
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=8)))
    decoder, found = EventDecoder(), []
    for start, stop in zip([0, *cuts], [*cuts, len(content)], strict=True):
        found += decoder.feed(content[start:stop])
    assert found == events


def test_an_event_without_a_name_is_a_message_and_one_without_data_is_none():
    assert list(EventDecoder().feed(b"data:1\n\nevent: x\n\n")) == [Event("message", "1")]


def test_half_an_event_is_not_given_out():
    decoder = EventDecoder()
    assert list(decoder.feed(b"event: done\ndata: {")) == []
    assert list(decoder.feed(b"}\n\n")) == [Event("done", "{}")]


def test_data_that_is_not_json_is_a_value_error():
    with pytest.raises(ValueError, match="Expecting"):
        Event("points", "{").json()
