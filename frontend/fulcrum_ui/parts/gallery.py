"""Many small images, of which one can be taken: with the mouse, or with Tab and Enter."""

from collections.abc import Sequence

import streamlit as st

_CSS = """
.grid { display: grid; gap: 8px; grid-template-columns: repeat(auto-fill, minmax(116px, 1fr)); overflow-y: auto; padding: 2px; }
button { all: unset; cursor: pointer; display: block; border-radius: 8px; font: 12px/1.25 var(--st-font, sans-serif); color: var(--st-text-color); }
button:hover img, button:focus-visible img { outline: 3px solid var(--st-primary-color); }
img { width: 100%; aspect-ratio: 1; object-fit: cover; border-radius: 7px; display: block; background: #8a94a622; }
span { display: block; padding: 3px 2px 0; overflow: hidden; text-overflow: ellipsis; white-space: pre; }
"""

_JS = """
export default function (component) {
  const { parentElement, data, setTriggerValue } = component;
  const grid = parentElement.querySelector('.grid');
  const wanted = JSON.stringify(data.items);
  grid.style.maxHeight = data.height + 'px';
  if (grid.dataset.items === wanted) return;
  grid.dataset.items = wanted;
  grid.replaceChildren(...data.items.map(([id, src, caption]) => {
    const button = document.createElement('button'), img = document.createElement('img'), span = document.createElement('span');
    img.loading = 'lazy'; img.src = src; img.alt = ''; span.textContent = caption;
    button.append(img, span); button.type = 'button'; button.title = caption; button.dataset.id = id;
    button.onclick = () => setTriggerValue('taken', id);
    return button;
  }));
}
"""

_gallery = st.components.v2.component("fulcrum.gallery", html='<div class="grid"></div>', css=_CSS, js=_JS)


def gallery(key: str, items: Sequence[tuple[str, str, str]], height: int = 400) -> str | None:
    """`items`: id, address of the image, caption. The id of the one that was taken just now."""
    if not items:
        st.caption("No images.")
        return None
    data = {"items": [list(i) for i in items], "height": height}
    taken = _gallery(key=key, data=data, on_taken_change=lambda: None).get("taken")
    return taken if isinstance(taken, str) and any(taken == i[0] for i in items) else None
