"""The look of all pages: colours that stay apart for colour-blind eyes, in light and dark, and a little CSS."""

from typing import Any

import streamlit as st

# Blue against orange is told apart with every common colour blindness; grey is what did not move.
BEFORE = "#8a94a6"
AFTER = "#2f6fed"
TOWARDS = "#2f6fed"  # raises the target
AGAINST = "#e07b00"  # lowers it
CONTROL = "#b8bfcc"
GOOD = "#1f8a5b"
BAD = "#c2410c"
CATEGORIES = ("#2f6fed", "#e07b00", "#1f8a5b", "#a855c7", "#8a6d3b", "#0ea5b7", "#d64a7f", "#6b7280")
HEAT = ("#00000000", "#ffb000", "#fe6100", "#dc267f")  # nothing, weak, strong, strongest

STREAMLIT: dict[str, Any] = {
    "theme.light.primaryColor": "#2f6fed",
    "theme.light.backgroundColor": "#ffffff",
    "theme.light.secondaryBackgroundColor": "#f4f6fa",
    "theme.light.textColor": "#1b2333",
    "theme.light.borderColor": "#dde2ec",
    "theme.dark.primaryColor": "#6b9bff",
    "theme.dark.backgroundColor": "#11151c",
    "theme.dark.secondaryBackgroundColor": "#1a202b",
    "theme.dark.textColor": "#e6eaf2",
    "theme.dark.borderColor": "#2c3545",
    "theme.baseRadius": "8px",
    "theme.baseFontSize": 15,
    "theme.chartCategoricalColors": list(CATEGORIES),
}

_CSS = """
<style>
.block-container { padding: 4.4rem 2rem 3rem 2rem; max-width: 1880px; }
h1 { font-size: 1.55rem !important; padding: 0 0 0.3rem 0 !important; line-height: 1.25 !important; letter-spacing: -0.01em; }
h2 { font-size: 1.15rem !important; padding: 0.3rem 0 0.4rem 0 !important; line-height: 1.3 !important; }
h2[slot="title"] { padding: 1.2rem 3rem 0.4rem 1.4rem !important; }
h3 { font-size: 1.02rem !important; padding: 0.3rem 0 0.4rem 0 !important; line-height: 1.3 !important; }
[data-testid="stVerticalBlock"] { gap: 0.7rem; }
[data-testid="stMetricValue"] { font-size: 1.5rem; }
.fu-quiet { opacity: 0.66; font-size: 0.86rem; }
.fu-num { font-variant-numeric: tabular-nums; }
.fu-bars { display: grid; grid-template-columns: minmax(5rem, max-content) 1fr 4.2rem 4.2rem; gap: 0.28rem 0.6rem;
  align-items: center; font-size: 0.9rem; }
.fu-bars .fu-head { font-size: 0.76rem; opacity: 0.66; text-align: right; }
.fu-bars .fu-value { text-align: right; font-variant-numeric: tabular-nums; }
.fu-bars .fu-name { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; max-width: 13rem; }
.fu-bars .fu-top { font-weight: 650; }
.fu-track { position: relative; height: 1.05rem; border-radius: 4px; background: rgba(128, 140, 165, 0.14); }
.fu-track i { position: absolute; left: 0; border-radius: 4px; height: 46%; }
.fu-track i.b { top: 2%; background: #8a94a6; } .fu-track i.a { bottom: 2%; background: #2f6fed; }
.fu-track i.only { height: 100%; top: 0; }
.fu-badge { display: inline-block; padding: 0.06rem 0.5rem; border-radius: 99px; font-size: 0.8rem; font-weight: 600;
  border: 1px solid currentColor; white-space: nowrap; }
/* Mixed with the colour of the text, so that they are read on light and on dark. */
.fu-good { color: color-mix(in srgb, #1f9d63 72%, currentColor); } .fu-bad { color: color-mix(in srgb, #d9480f 76%, currentColor); }
.fu-plain { opacity: 0.75; } .fu-info { color: color-mix(in srgb, #2f6fed 76%, currentColor); }
/* In the free corner of the header, and out of the page's flow. */
[data-testid="stElementContainer"]:has(> * .fu-role), [data-testid="stElementContainer"]:has(> .fu-role) { position: absolute; }
.fu-role { position: fixed; top: 1rem; right: 2rem; z-index: 999991; font-size: 0.8rem; opacity: 0.75; cursor: help;
  padding: 0.1rem 0.6rem; border: 1px solid rgba(128, 140, 165, 0.5); border-radius: 99px; white-space: nowrap; }
.fu-asked { display: grid; grid-template-columns: 5rem 1fr; gap: 0.6rem; padding: 0.15rem 0; align-items: baseline; }
.fu-asked > div { display: flex; flex-wrap: wrap; gap: 0.3rem; overflow-wrap: anywhere; }
.fu-picture { width: 100%; max-width: 24rem; aspect-ratio: 1; object-fit: cover; border-radius: 8px; display: block;
  background: rgba(128, 140, 165, 0.14); }
.fu-crops { display: grid; grid-template-columns: repeat(4, 1fr); gap: 4px; margin-top: 0.3rem; }
.fu-crops img, .fu-tiles img { width: 100%; aspect-ratio: 1; object-fit: cover; border-radius: 5px; display: block;
  background: rgba(128, 140, 165, 0.14); image-rendering: auto; }
.fu-card-head { display: flex; justify-content: space-between; gap: 0.5rem; align-items: baseline; }
.fu-card-head b { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.fu-mark { margin-right: auto; opacity: 0.7; font-size: 0.85rem; color: color-mix(in srgb, #1f9d63 72%, currentColor); }
.fu-entry { padding: 0.35rem 0; border-top: 1px solid rgba(128, 140, 165, 0.22); overflow-wrap: anywhere; }
.fu-entry:first-child { border-top: 0; }
.fu-scores { display: flex; gap: 0.9rem; font-size: 0.84rem; flex-wrap: wrap; }
.fu-scores span { white-space: nowrap; }
.fu-tiles { display: grid; gap: 10px; grid-template-columns: repeat(auto-fill, minmax(132px, 1fr)); }
.fu-tiles figure { margin: 0; font-size: 0.8rem; line-height: 1.25; }
.fu-tiles figcaption { padding-top: 0.2rem; overflow-wrap: anywhere; }
.fu-banner { border-radius: 8px; padding: 0.6rem 0.9rem; font-size: 0.98rem; background: rgba(47, 111, 237, 0.09);
  border-left: 4px solid #2f6fed; }
.fu-banner.good { background: rgba(31, 138, 91, 0.1); border-color: #1f8a5b; }
.fu-banner.bad { background: rgba(194, 65, 12, 0.1); border-color: #c2410c; }
.fu-banner.plain { background: rgba(128, 140, 165, 0.12); border-color: #8a94a6; }
.fu-table { width: 100%; border-collapse: collapse; font-size: 0.88rem; }
.fu-table th { text-align: left; font-weight: 600; opacity: 0.7; font-size: 0.78rem; padding: 0.25rem 0.5rem; }
.fu-table td { padding: 0.28rem 0.5rem; border-top: 1px solid rgba(128, 140, 165, 0.22); vertical-align: top; }
.fu-table td.r, .fu-table th.r { text-align: right; font-variant-numeric: tabular-nums; }
@media (max-width: 900px) { .block-container { padding-left: 1rem; padding-right: 1rem; } }
</style>
"""


def apply() -> None:
    """Once in each run of the script."""
    st.html(_CSS)
