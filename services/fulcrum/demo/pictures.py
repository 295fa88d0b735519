"""Pictures of a report as text that can stand inside HTML: PNG data URIs and SVG charts."""

import base64
import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

# Okabe and Ito's palette: told apart by colour-blind readers, and in grey.
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#8a8f98"
_INK = "#2b2f36"


def png_uri(image: Image.Image, scale: int = 1) -> str:
    """A PNG as a data URI, enlarged by whole pixels so that small drawings stay sharp."""
    if scale > 1:
        image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def overlay(image: Image.Image, patch_map: NDArray[np.floating]) -> Image.Image:
    """The image, darkened where the map is low and glowing where it is high; an all-zero map leaves it dark.

    `patch_map` (rows, columns) >= 0 over the whole image.
    """
    peak = float(patch_map.max())
    scaled = (patch_map / peak if peak > 0 else patch_map).astype(np.float32)
    smooth = Image.fromarray((scaled * 255).astype(np.uint8)).resize(image.size, Image.Resampling.BILINEAR)
    strength = np.asarray(smooth, dtype=np.float32)[..., None] / 255
    colours = matplotlib.colormaps["inferno"](strength[..., 0])[..., :3] * 255
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    mixed = pixels * (0.45 + 0.25 * strength) + colours * 0.55 * strength
    return Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8))


def before_after_bars(names: Sequence[str], before: Sequence[float], after: Sequence[float]) -> str:
    """Probabilities of classes before and after, as paired bars."""
    figure, axes = _figure(4.6, 0.42 * len(names) + 0.7)
    y = np.arange(len(names))
    axes.barh(y - 0.19, before, 0.36, color=GREY, label="before")
    axes.barh(y + 0.19, after, 0.36, color=BLUE, label="after")
    axes.set_yticks(y, names)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
    axes.legend(frameon=False, loc="lower right", fontsize=9)
    return _svg(figure)


def score_bars(latents: Sequence[int], scores: Sequence[float], effects: Sequence[float]) -> str:
    """Attribution scores beside measured effects."""
    figure, axes = _figure(4.8, 0.36 * len(latents) + 0.9)
    y = np.arange(len(latents))
    axes.barh(y - 0.19, scores, 0.36, color=ORANGE, label="score (estimate)")
    axes.barh(y + 0.19, effects, 0.36, color=BLUE, label="measured effect")
    axes.set_yticks(y, [str(n) for n in latents])
    axes.set_ylabel("latent")
    axes.set_xlabel("logits of margin")
    axes.axvline(0, color=_INK, linewidth=0.8)
    axes.invert_yaxis()
    axes.legend(frameon=False, fontsize=9)
    return _svg(figure)


def dose_chart(gains: Sequence[float], attacked: Sequence[float], others: Sequence[float]) -> str:
    """Accuracy over the gain of all edits."""
    figure, axes = _figure(4.8, 3.0)
    axes.plot(gains, others, "o-", color=GREEN, label="all others")
    axes.plot(gains, attacked, "s-", color=RED, label="attacked")
    axes.set_xlabel("gain of the edited latents (0 suppresses, 1 changes nothing)")
    axes.set_ylabel("top-1")
    axes.set_ylim(0, 1.03)
    axes.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
    axes.legend(frameon=False, fontsize=9)
    return _svg(figure)


def controls_chart(gain: float, controls: dict[str, NDArray[np.floating]]) -> str:
    """The correction's gain against the gains of its controls."""
    figure, axes = _figure(4.8, 3.0)
    colours = {"matched_latents": ORANGE, "random_directions": GREY}
    everything = np.concatenate([*controls.values(), [gain, 0.0]])
    bins = np.linspace(everything.min() - 0.01, everything.max() + 0.01, 50)
    for kind, values in controls.items():
        label = f"{len(values)} {kind.replace('_', ' ')}"
        axes.hist(values, bins=bins.tolist(), color=colours.get(kind, BLUE), alpha=0.75, label=label)
    axes.axvline(gain, color=BLUE, linewidth=2.5)
    axes.annotate(
        "this correction", (gain, axes.get_ylim()[1] * 0.9), xytext=(-6, 0), textcoords="offset points",
        ha="right", color=BLUE, fontsize=9,
    )  # fmt: skip
    axes.set_xlabel("net gain on unseen attacked images")
    axes.set_ylabel("controls")
    axes.xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0, decimals=0))
    axes.legend(frameon=False, fontsize=9, loc="upper center")
    return _svg(figure)


def search_chart(group: Sequence[float], clean: Sequence[float], n_edits: Sequence[int]) -> str:
    """How the search went: accuracy of both groups after each step."""
    figure, axes = _figure(4.8, 3.0)
    x = np.arange(len(group))
    axes.plot(x, clean, "o-", color=GREEN, label="clean", markersize=4)
    axes.plot(x, group, "s-", color=RED, label="attacked", markersize=4)
    for i in {0, len(group) - 1, int(np.argmax(n_edits))}:
        axes.annotate(f"{n_edits[i]} edits", (x[i], group[i]), xytext=(0, -14), textcoords="offset points",
                      ha="center", fontsize=8, color=_INK)  # fmt: skip
    axes.set_xlabel("step of the search (forward, then backward)")
    axes.set_ylabel("top-1 on discover")
    axes.set_ylim(0, 1.05)
    axes.yaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1.0))
    axes.legend(frameon=False, fontsize=9, loc="center right")
    return _svg(figure)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    # Figure without pyplot: no global state, no window system.
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK, labelsize=9)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_fontsize(9)
    return figure, axes


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    with matplotlib.rc_context(
        {"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": "fulcrum"}
    ):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
