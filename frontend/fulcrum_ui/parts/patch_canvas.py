"""An image with a heatmap over its patches, on which one can click a patch or brush a region."""

from collections.abc import Sequence
from typing import Any, Literal

import streamlit as st

_HTML = """
<div class="frame"><img alt=""><canvas tabindex="0" role="img"></canvas><div class="hint"></div></div>
"""

_CSS = """
.frame { position: relative; width: 100%; aspect-ratio: 1; border-radius: 8px; overflow: hidden; background: #8a94a622; }
img, canvas { position: absolute; inset: 0; width: 100%; height: 100%; display: block; }
img { object-fit: cover; }
canvas { cursor: crosshair; outline: none; touch-action: none; }
canvas:focus-visible { box-shadow: inset 0 0 0 3px #2f6fed; }
.hint { position: absolute; left: 6px; bottom: 6px; font: 12px var(--st-font, sans-serif); color: #fff;
  background: #000a; border-radius: 4px; padding: 1px 7px; pointer-events: none; }
.hint:empty { display: none; }
"""

# `heat`: a number for each patch, row by row; negative ones in the other colour. The picture is kept between runs: only
# what changed is drawn anew. Keys: arrows move, Enter picks, Escape clears.
_JS = """
export default function (component) {
  const { parentElement, data, setTriggerValue } = component;
  const image = parentElement.querySelector('img');
  const canvas = parentElement.querySelector('canvas');
  const hint = parentElement.querySelector('.hint');
  const { rows, cols, heat, values, picked, mode } = data;
  if (image.getAttribute('src') !== data.src) image.setAttribute('src', data.src);
  image.alt = data.alt;
  canvas.setAttribute('aria-label', data.alt + '. Arrow keys move over ' + rows + ' by ' + cols + ' patches, Enter picks one.');
  const scale = Math.max(1e-12, ...heat.map(Math.abs));
  let hover = null, brush = null;
  const chosen = new Set(picked);
  const draw = () => {
    const side = 3 * 240;
    if (canvas.width !== side) { canvas.width = side; canvas.height = side; }
    const g = canvas.getContext('2d');
    g.clearRect(0, 0, side, side);
    const w = side / cols, h = side / rows;
    heat.forEach((v, i) => {
      const strength = Math.abs(v) / scale;
      if (strength < 0.02) return;
      g.fillStyle = v > 0 ? `rgba(255,122,0,${0.72 * strength})` : `rgba(47,111,237,${0.72 * strength})`;
      g.fillRect((i % cols) * w, Math.floor(i / cols) * h, w + 0.5, h + 0.5);
    });
    const outline = (i, colour, width) => {
      g.strokeStyle = colour; g.lineWidth = width;
      g.strokeRect((i % cols) * w + width / 2, Math.floor(i / cols) * h + width / 2, w - width, h - width);
    };
    chosen.forEach((i) => {
      if (mode === 'brush') { g.fillStyle = 'rgba(47,111,237,0.35)'; g.fillRect((i % cols) * w, Math.floor(i / cols) * h, w, h); }
      outline(i, '#ffffff', 9); outline(i, '#2f6fed', 5);
    });
    if (hover !== null) outline(hover, '#ffffffcc', 4);
    if (brush !== null) {
      g.strokeStyle = '#fff'; g.lineWidth = 5; g.setLineDash([14, 9]);
      const b = box();
      g.strokeRect(b.c0 * w, b.r0 * h, (b.c1 - b.c0 + 1) * w, (b.r1 - b.r0 + 1) * h); g.setLineDash([]);
    }
    hint.textContent = hover === null ? data.hint
      : `patch ${hover}` + (heat.length ? `: ${values[hover].toPrecision(3)}` : '');
  };
  const box = () => {
    const [a, b] = brush;
    return { r0: Math.min(Math.floor(a / cols), Math.floor(b / cols)), r1: Math.max(Math.floor(a / cols), Math.floor(b / cols)),
             c0: Math.min(a % cols, b % cols), c1: Math.max(a % cols, b % cols) };
  };
  const at = (event) => {
    const r = canvas.getBoundingClientRect();
    const c = Math.min(cols - 1, Math.max(0, Math.floor((event.clientX - r.left) / r.width * cols)));
    const y = Math.min(rows - 1, Math.max(0, Math.floor((event.clientY - r.top) / r.height * rows)));
    return y * cols + c;
  };
  canvas.onpointermove = (e) => { hover = at(e); if (brush) brush[1] = hover; draw(); };
  canvas.onpointerleave = () => { hover = null; draw(); };
  canvas.onpointerdown = (e) => { if (mode === 'brush') { brush = [at(e), at(e)]; canvas.setPointerCapture(e.pointerId); draw(); } };
  canvas.onpointerup = (e) => {
    if (mode !== 'brush') { pick(at(e)); return; }
    if (!brush) return;
    const b = box(), region = [];
    for (let r = b.r0; r <= b.r1; r++) for (let c = b.c0; c <= b.c1; c++) region.push(r * cols + c);
    brush = null;
    const known = region.every((i) => chosen.has(i));
    region.forEach((i) => known ? chosen.delete(i) : chosen.add(i));
    setTriggerValue('picked', [...chosen].sort((x, y) => x - y)); draw();
  };
  const pick = (i) => {
    const again = chosen.has(i) && chosen.size === 1;
    chosen.clear(); if (!again) chosen.add(i);
    setTriggerValue('picked', [...chosen]); draw();
  };
  canvas.onkeydown = (e) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -cols, ArrowDown: cols }[e.key];
    if (step !== undefined) {
      const to = (hover ?? 0) + (hover === null ? 0 : step);
      if (to >= 0 && to < rows * cols) hover = to;
      e.preventDefault(); draw();
    } else if (e.key === 'Enter' && hover !== null) {
      if (mode === 'brush') { chosen.has(hover) ? chosen.delete(hover) : chosen.add(hover);
        setTriggerValue('picked', [...chosen].sort((x, y) => x - y)); draw(); } else pick(hover);
    } else if (e.key === 'Escape') { chosen.clear(); setTriggerValue('picked', []); draw(); }
  };
  draw();
  return () => { canvas.onpointermove = canvas.onpointerup = canvas.onpointerdown = canvas.onkeydown = null; };
}
"""

_canvas = st.components.v2.component("fulcrum.patch_canvas", html=_HTML, css=_CSS, js=_JS)


def patch_canvas(
    key: str,
    src: str,
    grid: tuple[int, int],
    *,
    heat: Sequence[float] = (),
    picked: Sequence[int] = (),
    mode: Literal["pick", "brush"] = "pick",
    hint: str = "",
    alt: str = "the image",
) -> tuple[int, ...] | None:
    """Draws it; the patches that were picked just now (row-major), None where nothing was."""
    rows, cols = grid
    data: dict[str, Any] = {
        "src": src,
        "rows": rows,
        "cols": cols,
        "heat": [float(v) for v in heat],
        "values": [float(v) for v in heat],
        "picked": list(picked),
        "mode": mode,
        "hint": hint,
        "alt": alt,
    }
    result = _canvas(key=key, data=data, on_picked_change=lambda: None)
    found = result.get("picked")
    return None if found is None else tuple(int(i) for i in found)
