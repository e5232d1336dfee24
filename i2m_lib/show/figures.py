"""Figures of the notebooks: pictures of meshes, sheets of pictures, curves and ladders (matplotlib)."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from i2m_lib.dataset.render import Renderer
from i2m_lib.geometry.cameras import Camera

PORTRAIT = Camera(azimuth=-35.0, elevation=20.0, distance=2.2, focal=1.75)
OURS, OTHERS, ORACLES = "#c0392b", "#7f8c8d", "#2c6fa6"  # colours of our method, of others, of oracles and floors
COLOURS = dict.fromkeys(["template", "template_ffd", "image2mesh"], OURS)


def on_white(rgba: np.ndarray) -> np.ndarray:
    """(h, w, 4) uint8 over white: (h, w, 3) uint8."""
    return np.where(rgba[..., 3:] > 0, rgba[..., :3], 255).astype(np.uint8)


def portraits(meshes: Sequence[tuple | None], size: int = 192, cameras: Sequence[Camera] | None = None) -> list:
    """Pictures (size, size, 3) uint8 of meshes (V, F, C), all in the same light; None stays blank."""
    pictures = [np.full((size, size, 3), 255, np.uint8) for _ in meshes]
    with Renderer(size) as renderer:
        for i, mesh in enumerate(meshes):
            if mesh is not None:
                camera = cameras[i] if cameras else PORTRAIT
                pictures[i] = on_white(renderer.render(*mesh, camera, np.random.default_rng(3)))
    return pictures


def sheet(
    rows: Sequence[Sequence[np.ndarray]], columns: Sequence[str] = (), labels: Sequence[str] = (), side: float = 1.3
) -> plt.Figure:
    """A grid of pictures (h, w, 3 or 4), with names over the columns and beside the rows."""
    n_rows, n_columns = len(rows), max(map(len, rows))
    figure, axes = plt.subplots(n_rows, n_columns, figsize=(side * n_columns, side * n_rows), squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[], frame_on=False)
    for i, row in enumerate(rows):
        for axis, picture in zip(axes[i], row, strict=False):
            axis.imshow(on_white(picture) if picture.shape[2] == 4 else picture)
    for axis, text in zip(axes[0], columns, strict=False):
        axis.set_title(text, fontsize=8)
    for axis, text in zip(axes[:, 0], labels, strict=False):
        axis.set_ylabel(text, fontsize=8)
    figure.subplots_adjust(wspace=0.02, hspace=0.02)
    return figure


def arrange(distances: np.ndarray) -> np.ndarray:
    """Places (n, 2) in the plane whose distances resemble the given (n, n): classical multidimensional scaling."""
    n = len(distances)
    centring = np.eye(n) - 1 / n
    gram = -centring @ ((distances + distances.T) / 2) ** 2 @ centring / 2
    values, vectors = np.linalg.eigh(gram)
    places = vectors[:, -2:] * np.sqrt(np.maximum(values[-2:], 0))
    return np.pad(places, ((0, 0), (2 - places.shape[1], 0)))  # a single point has one coordinate


def draw_graph(places: np.ndarray, pictures: Sequence[np.ndarray], edges: Sequence[tuple[int, int]]) -> plt.Figure:
    """Directed edges (i, j) between thumbnails at places (n, 2)."""
    figure, axis = plt.subplots(figsize=(8, 6))
    arrow = {"arrowstyle": "->", "color": "0.75", "lw": 0.6, "shrinkA": 12, "shrinkB": 12}
    for i, j in edges:
        axis.annotate("", places[j], places[i], arrowprops=arrow)
    for place, picture in zip(places, pictures, strict=True):
        rgba = np.dstack([picture, 255 * (picture.min(-1) < 255).astype(np.uint8)])
        axis.add_artist(AnnotationBbox(OffsetImage(rgba, zoom=0.42 * 128 / len(rgba)), place, frameon=False))
    pad = 0.08 * np.ptp(places, axis=0) + 1e-9
    xlim, ylim = zip(places.min(0) - pad, places.max(0) + pad, strict=True)
    axis.set(xlim=xlim, ylim=ylim)
    axis.axis("off")
    return figure


def ceilings(table: pd.DataFrame, floor: float) -> plt.Figure:
    """Mean value over shapes against the number of templates, a line for each way to choose, and the floor: columns
    choice, n_templates, model_id, value."""
    figure, axis = plt.subplots(figsize=(5.5, 3.2), layout="tight")
    means = table.groupby(["choice", "n_templates"], sort=False).value.mean().unstack("choice", sort=False).sort_index()
    for choice, style in zip(means, ("o-", "s--", "^:"), strict=False):
        colour = OURS if choice == "coverage" else OTHERS
        axis.plot(means.index, means[choice], style, color=colour, label=choice, ms=4)
    axis.axhline(floor, color=ORACLES, lw=1, label="floor")
    axis.set_xscale("log", base=2)
    axis.set_xticks(means.index, means.index.astype(str))
    axis.set(xlabel="templates", ylabel="Chamfer-L1", ylim=(0, 1.1 * means.max(axis=None)))
    _finish(axis, legend=True)
    return figure


def curves(history: pd.DataFrame) -> plt.Figure:
    """Training and validation value of each term of the loss, and what else was measured, an epoch a point."""
    terms = list(dict.fromkeys(c.split("_", 1)[1] for c in history if c.startswith(("train_", "val_"))))
    figure, axes = plt.subplots(1, len(terms), figsize=(2.6 * len(terms), 2.3), squeeze=False, layout="tight")
    for axis, term in zip(axes[0], terms, strict=True):
        for split, colour in (("train", OTHERS), ("val", OURS)):
            if f"{split}_{term}" in history:
                axis.plot(history.epoch, history[f"{split}_{term}"], color=colour, label=split)
        axis.set_title(term, fontsize=9)
        axis.set(xlabel="epoch", ylim=(0, None))
        _finish(axis, legend=axis is axes[0, 0])
    return figure


def ladder(table: pd.DataFrame, xlabel: str) -> plt.Figure:
    """Bars with intervals, a row each, in the order given: columns method, mean, low, high."""
    figure, axis = plt.subplots(figsize=(6.5, 0.32 * len(table) + 0.9), layout="tight")
    colours = [COLOURS.get(m, ORACLES if m.startswith(("oracle", "floor")) else OTHERS) for m in table.method]
    errors = [table["mean"] - table.low, table.high - table["mean"]]
    axis.barh(table.method, table["mean"], xerr=errors, color=colours, height=0.65, ecolor="0.2", capsize=2)
    axis.invert_yaxis()
    axis.set_xlabel(xlabel)
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def bands(table: pd.DataFrame, ylabel: str, floor: float) -> plt.Figure:
    """Small multiples of means with their intervals, three a row, and the floor: a panel for each `panel`, a line for
    each `line` in it, at levels that are numbers or names: columns panel, line, level, mean, low, high."""
    panels = list(table.groupby("panel", sort=False))
    n_rows = -(-len(panels) // 3)
    figure, axes = plt.subplots(n_rows, 3, figsize=(7.5, 2.3 * n_rows), sharey=True, squeeze=False, layout="tight")
    axes[0, 0].set_ylim(0, 1.05 * table.high.max())
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    for axis, (panel, rows) in zip(axes.flat, panels, strict=False):
        for (line, part), colour in zip(rows.groupby("line", sort=False), (OURS, ORACLES, OTHERS), strict=False):
            numbers = pd.to_numeric(part.level, errors="coerce")
            part = part if numbers.isna().any() else part.assign(level=numbers).sort_values("level")
            axis.plot(part.level, part["mean"], "o-", color=colour, ms=3, lw=1, label=line)
            axis.fill_between(part.level, part.low, part.high, color=colour, alpha=0.2, lw=0)
        axis.axhline(floor, color=ORACLES, lw=1, ls="--")
        axis.set_title(panel, fontsize=9)
        axis.tick_params(labelsize=7)
        _finish(axis, legend=rows.line.nunique() > 1, fontsize=7)
    figure.supylabel(ylabel, fontsize=9)
    return figure


def calibration(error: pd.DataFrame, accuracy: pd.DataFrame) -> plt.Figure:
    """Left the error against stated confidence, right the accuracy against stated probability, where what is stated is
    true on the dashed line: columns level, mean, low, high each, in the order of level."""
    figure, axes = plt.subplots(1, 2, figsize=(6.5, 2.8), layout="tight")
    for axis, rows in zip(axes, (error, accuracy), strict=True):
        errors = [rows["mean"] - rows.low, rows.high - rows["mean"]]
        axis.errorbar(rows.level, rows["mean"], errors, fmt="o-", color=OURS)
        _finish(axis)
    axes[0].set(xlabel="confidence (1 - doubt)", ylabel="Chamfer-L1", ylim=(0, None))
    axes[1].plot([0, 1], [0, 1], "--", color=OTHERS, lw=1)
    axes[1].set(xlabel="probability of the category", ylabel="share that is right", xlim=(0, 1.02), ylim=(0, 1.02))
    return figure


def _finish(axis: plt.Axes, *, legend: bool = False, **options: float) -> None:
    axis.grid(alpha=0.3)
    if legend:
        axis.legend(frameon=False, **options)


def save(figure: plt.Figure, path: str | Path) -> plt.Figure:
    """Writes the figure as a picture for readers without a kernel, and hands it back for the notebook."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})
    return figure
