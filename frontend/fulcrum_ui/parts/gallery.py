"""Many small images, of which one can be taken and several ticked: with the mouse, or with Tab, Enter and Space."""

from collections.abc import Sequence
from typing import Any

import streamlit as st

_CSS = """
.grid { display: grid; gap: 8px; grid-template-columns: repeat(auto-fill, minmax(116px, 1fr)); overflow-y: auto; padding: 3px; }
.card { position: relative; border-radius: 8px; }
button { all: unset; cursor: pointer; display: block; width: 100%; border-radius: 8px; font: 12px/1.25 var(--st-font, sans-serif); color: var(--st-text-color); }
button:hover img, button:focus-visible img { outline: 3px solid var(--st-primary-color); }
img { width: 100%; aspect-ratio: 1; object-fit: cover; border-radius: 7px; display: block; background: #8a94a622; }
span { display: block; padding: 3px 2px 0; overflow: hidden; text-overflow: ellipsis; white-space: pre; }
label { position: absolute; left: 0; top: 0; width: 32px; height: 32px; display: grid; place-items: center; cursor: pointer; }
input { width: 18px; height: 18px; margin: 0; cursor: pointer; accent-color: var(--st-primary-color); opacity: 0.82; }
.card:hover input, input:checked, input:focus-visible { opacity: 1; }
input:focus-visible { outline: 3px solid var(--st-primary-color); outline-offset: 1px; }
.card.on img { outline: 3px solid var(--st-primary-color); }
"""

# What is ticked lives here, so that two quick ticks are never one; Python hears of each and only replaces it by
# counting `round` up. With Shift a tick reaches from the last one to this.
_JS = """
export default function (component) {
  const { parentElement, data, setTriggerValue, setStateValue } = component;
  const grid = parentElement.querySelector('.grid');
  grid.style.maxHeight = data.height + 'px';
  if (grid.dataset.round !== String(data.round)) {
    grid.dataset.round = String(data.round); grid.picked = new Set(data.picked); grid.last = null;
  }
  const show = () => grid.querySelectorAll('.card').forEach((card) => {
    const on = grid.picked.has(card.dataset.id), box = card.querySelector('input');
    card.classList.toggle('on', on); if (box) box.checked = on;
  });
  const tick = (at, on, reach) => {
    const from = reach && grid.last !== null ? grid.last : at;
    for (let i = Math.min(from, at); i <= Math.max(from, at); i++)
      on ? grid.picked.add(data.items[i][0]) : grid.picked.delete(data.items[i][0]);
    grid.last = at; show();
    setStateValue('picked', { round: Number(grid.dataset.round), ids: [...grid.picked] });
  };
  const wanted = JSON.stringify([data.items, data.ticks]);
  if (grid.dataset.items !== wanted) {
    grid.dataset.items = wanted; grid.last = null;
    grid.replaceChildren(...data.items.map(([id, src, caption], at) => {
      const card = document.createElement('div'), button = document.createElement('button');
      const img = document.createElement('img'), span = document.createElement('span');
      img.loading = 'lazy'; img.src = src; img.alt = ''; span.textContent = caption;
      button.append(img, span); button.type = 'button'; button.title = caption; button.dataset.id = id;
      button.onclick = () => setTriggerValue('taken', id);
      card.className = 'card'; card.dataset.id = id; card.append(button);
      if (data.ticks) {
        const label = document.createElement('label'), box = document.createElement('input');
        box.type = 'checkbox'; box.setAttribute('aria-label', 'Select ' + id);
        box.onclick = (event) => tick(at, box.checked, event.shiftKey);
        label.title = 'Select; with Shift from the last one to this'; label.append(box); card.append(label);
      }
      return card;
    }));
  }
  show();
}
"""

_gallery = st.components.v2.component("fulcrum.gallery", html='<div class="grid"></div>', css=_CSS, js=_JS)

Items = Sequence[tuple[str, str, str]]


def gallery(key: str, items: Items, height: int = 400) -> str | None:
    """`items`: id, address of the image, caption. The id of the one that was taken just now."""
    if not items:
        st.caption("No images.")
        return None
    return _taken(_shown(key, items, height), items)


def ticked_gallery(key: str, items: Items, height: int = 400) -> str | None:
    """As `gallery`, with a box on each image; `ticked` tells which, also those that are not shown just now."""
    count, before = _state(key)
    result = _shown(key, items, height, ticks=True, round=count, picked=list(before))
    sent = result.get("picked")
    if sent and sent["round"] == count:  # else of before the last `tick`
        st.session_state[_name(key)] = count, tuple(str(i) for i in sent["ids"])
    return _taken(result, items)


def ticked(key: str) -> tuple[str, ...]:
    """Ids in the order in which they were ticked. After the gallery, in the same run, it knows of the last tick."""
    return _state(key)[1]


def tick(key: str, ids: Sequence[str]) -> None:
    """Ticks these and no others, from the next run on."""
    st.session_state[_name(key)] = _state(key)[0] + 1, tuple(dict.fromkeys(ids))


def _shown(key: str, items: Items, height: int, **more: Any) -> Any:
    data = {"items": [list(i) for i in items], "height": height, "ticks": False, "round": 0, "picked": []}
    return _gallery(key=key, data=data | more, on_taken_change=lambda: None, on_picked_change=lambda: None)


def _taken(result: Any, items: Items) -> str | None:
    taken = result.get("taken")
    return taken if isinstance(taken, str) and any(taken == i[0] for i in items) else None


def _name(key: str) -> str:
    return f"ticked-{key}"


def _state(key: str) -> tuple[int, tuple[str, ...]]:
    found: tuple[int, tuple[str, ...]] = st.session_state.get(_name(key), (0, ()))
    return found
