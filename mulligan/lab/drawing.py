"""Recordings as GIF and PNG: the same panels as in the page, drawn by Matplotlib (the extra ``lab``).

Colours are those of Okabe and Ito (2008), told apart with every common colour blindness.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mulligan.errors import SetupError
from mulligan.lab.recording import (
    Arrows,
    Bars,
    Curve,
    Field,
    Panel,
    Paths,
    Points,
    Recording,
    Table,
    at_frame,
)
from mulligan.lab.scales import COLOURS, PALETTES, panel_range
from mulligan.report.writing import write_whole

DOTS = 100  # per inch
Z95 = 1.96


def write_gif(recording: Recording, path: str | Path) -> None:
    """Write an animation that repeats, at the recording's rate; its last frame stays for two seconds.

    Raises SetupError without Matplotlib and Pillow, or where the file cannot be written.
    """
    from PIL import Image

    pictures = [Image.fromarray(pixels) for pixels in _drawn(recording, range(recording.length))]
    colours = pictures[-1].quantize(colors=255)  # one palette: without it the background flickers
    frames = [picture.quantize(palette=colours, dither=Image.Dither.NONE) for picture in pictures]
    pauses = [round(1000 / recording.rate)] * (len(frames) - 1) + [2000]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=pauses, loop=0, optimize=True)
    write_whole(buffer.getvalue(), path)


def write_strip(recording: Recording, path: str | Path, most: int = 4) -> None:
    """Write at most ``most`` frames, evenly spread from the first to the last, one below another.

    Raises SetupError as ``write_gif`` does.
    """
    from PIL import Image

    chosen = np.unique(np.linspace(0, recording.length - 1, min(most, recording.length)).round().astype(int))
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(list(_drawn(recording, chosen.tolist())))).save(buffer, "PNG", optimize=True)
    write_whole(buffer.getvalue(), path)


def _drawn(recording: Recording, frames: Sequence[int]) -> Any:
    """Pixels (height, width, 3) of each of the frames."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SetupError("GIF and PNG need Matplotlib", "", "", "pip install 'mulligan[lab]'") from error

    panels = recording.panels
    columns = columns_of(len(panels))
    rows = -(-len(panels) // columns)
    wide, high = max(4.3 * columns, 6.4), 3.7 * rows + 1.5
    figure = Figure(figsize=(wide, high), dpi=DOTS)
    canvas = FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        rows,
        columns,
        left=0.75 / wide,
        right=1 - 0.2 / wide,
        top=1 - 0.75 / high,
        bottom=1.55 / high,
        wspace=0.3,
        hspace=0.35,
    )
    spaces = [figure.add_subplot(grid[divmod(k, columns)]) for k in range(len(panels))]
    for frame in frames:
        for space, panel in zip(spaces, panels):
            space.clear()
            _table(space, panel, frame) if isinstance(panel, Table) else _axes(space, panel, frame)
        texts = _texts(figure, recording, frame)
        canvas.draw()
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()
        for text in texts:
            text.remove()


def columns_of(panels: int) -> int:
    """Panels side by side: up to three in one row, four as two by two.

    >>> [columns_of(n) for n in (1, 2, 3, 4, 6)]
    [1, 2, 3, 2, 3]
    """
    return panels if panels <= 3 else 2 if panels == 4 else 3


def _texts(figure: Any, recording: Recording, frame: int) -> list[Any]:
    """The title above; the caption and the numbers of this frame below."""
    wide, high = int(figure.get_figwidth() * 12.5), figure.get_figheight()
    numbers = "   ".join(f"{key}: {at_frame(np.array(each, object), frame)}" for key, each in recording.numbers.items())
    caption = textwrap.fill(recording.captions[frame], wide, max_lines=2)
    below = textwrap.fill(numbers, int(wide * 1.15), max_lines=3)
    return [
        figure.text(0.012, 1 - 0.12 / high, recording.title, fontsize=11, fontweight="bold", va="top"),
        figure.text(0.012, 0.98 / high, caption, fontsize=9.5, va="top"),
        figure.text(0.012, 0.55 / high, below, fontsize=8, va="top", color="#565d66"),
    ]


def _axes(space: Any, panel: Panel, frame: int) -> None:
    """One panel: its layers in order, its ranges, its words."""
    for layer in panel.layers:
        _LAYERS[type(layer)](space, layer, frame)
    for scale, way in ((panel.x, "x"), (panel.y, "y")):
        low, high = panel_range(panel, way)
        getattr(space, f"set_{way}scale")("log" if scale.log else "linear")
        getattr(space, f"set_{way}lim")(low, high)
        getattr(space, f"set_{way}label")(scale.label, fontsize=9)
        if scale.log and high < 300 * low:  # few decades: 1, 2, 5 and their multiples, or the labels overlap
            from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

            ticks = getattr(space, f"{way}axis")
            ticks.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0)))
            ticks.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ticks.set_minor_formatter(NullFormatter())
        if scale.names:
            getattr(space, f"set_{way}ticks")(range(len(scale.names)), scale.names)
    space.tick_params(labelsize=8)
    space.set_title(panel.title, fontsize=9.5, loc="left")
    for side in ("top", "right"):
        space.spines[side].set_visible(False)
    if panel.square:
        space.set_aspect("equal", adjustable="box")
    if panel.bare:
        space.set_xticks([])
        space.set_yticks([])
    if panel.legend and len(panel.layers) > 1:
        space.legend(fontsize=7.5, frameon=True, framealpha=0.8, edgecolor="none", loc="upper right")


def _points(space: Any, layer: Points, frame: int) -> None:
    xy, colour = at_frame(layer.xy, frame), COLOURS[layer.role]
    space.plot(*xy.T, "o", ms=layer.size, mew=0, color=colour, alpha=layer.opacity, label=layer.label)


def _curve(space: Any, layer: Curve, frame: int) -> None:
    colour, y = COLOURS[layer.role], at_frame(layer.y, frame)
    if layer.low is not None and layer.high is not None:
        low, high = at_frame(layer.low, frame), at_frame(layer.high, frame)
        space.fill_between(layer.x, low, high, color=colour, alpha=0.2, lw=0)
    style = {"ls": "--" if layer.dashed else "-", "marker": "o" if layer.dots else None, "ms": 3.5}
    space.plot(layer.x, y, color=colour, lw=1.6, label=layer.label, **style)


def _paths(space: Any, layer: Paths, frame: int) -> None:
    shown = layer.xy[:, : max(int(at_frame(layer.shown, frame)), 1)]
    lines = np.concatenate([shown, np.full((len(shown), 1, 2), np.nan)], axis=1).reshape(-1, 2)
    colour = COLOURS[layer.role]
    space.plot(*lines.T, "-", lw=layer.width, color=colour, alpha=layer.opacity, label=layer.label)
    space.plot(*shown[:, -1].T, "o", ms=3, mew=0, color=colour)


def _bars(space: Any, layer: Bars, frame: int) -> None:
    error = at_frame(layer.error, frame)
    style: Any = {} if error is None else {"yerr": Z95 * error, "error_kw": {"elinewidth": 1, "capsize": 3}}
    height = at_frame(layer.height, frame)
    space.bar(layer.at, height, layer.width, color=COLOURS[layer.role], alpha=0.85, label=layer.label, **style)


def _arrows(space: Any, layer: Arrows, frame: int) -> None:
    xy, along = at_frame(layer.xy, frame), at_frame(layer.along, frame)
    settings = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.005}
    space.quiver(*xy.T, *along.T, color=COLOURS[layer.role], label=layer.label, **settings)


def _field(space: Any, layer: Field, frame: int) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    low, high = field_range(layer)
    colours = LinearSegmentedColormap.from_list("", PALETTES[layer.palette])
    half_x, half_y = (0.5 * (axis[-1] - axis[0]) / max(len(axis) - 1, 1) for axis in (layer.x, layer.y))
    extent = (layer.x[0] - half_x, layer.x[-1] + half_x, layer.y[0] - half_y, layer.y[-1] + half_y)
    z = at_frame(layer.z, frame)
    space.imshow(z, origin="lower", extent=extent, cmap=colours, vmin=low, vmax=high, aspect="auto")


def field_range(layer: Field) -> tuple[float, float]:
    """What the ends of a field's colours mean; around 0 where it is signed."""
    if layer.palette == "signed":
        most = float(np.abs(layer.z).max()) or 1.0
        return (-most if layer.low is None else layer.low), (most if layer.high is None else layer.high)
    low = float(layer.z.min()) if layer.low is None else layer.low
    high = float(layer.z.max()) if layer.high is None else layer.high
    return low, high if high > low else low + 1.0


def _table(space: Any, table: Table, frame: int) -> None:
    """Numbers as text, with their standard errors."""
    space.axis("off")
    space.set_title(table.label, fontsize=9.5, loc="left")
    cells = [
        [name, *row] for name, row in zip(table.names, table_cells(table, frame))
    ]  # row labels would leave the axes
    drawn = space.table(cells, colLabels=["", *table.heads], loc="upper left", cellLoc="right")
    drawn.auto_set_font_size(False)
    drawn.set_fontsize(8)
    drawn.auto_set_column_width(range(1 + len(table.heads)))
    for cell in drawn.get_celld().values():
        cell.set_linewidth(0.3)


def table_cells(table: Table, frame: int) -> list[list[str]]:
    """The texts of a table at a frame.

    >>> table_cells(Table("t", ("n",), ("row",), np.ones((1, 1, 1)), np.full((1, 1, 1), 0.25)), 0)
    [['1.00 ± 0.25']]
    """
    values, errors, shown = (at_frame(array, frame) for array in (table.values, table.errors, table.shown))
    errors = np.zeros_like(values) if errors is None else errors
    shown = np.ones_like(values) if shown is None else shown
    return [
        [_with_error(v, e, table.digits) if there else "–" for v, e, there in zip(*rows)]
        for rows in zip(values, errors, shown)
    ]


def _with_error(value: float, error: float, digits: int) -> str:
    if error <= 0:
        return f"{value:.{digits}g}"
    places = max(0, 1 - int(np.floor(np.log10(error))))
    return f"{value:.{places}f} ± {error:.{places}f}"


_LAYERS: dict[type, Any] = {
    Points: _points,
    Curve: _curve,
    Paths: _paths,
    Bars: _bars,
    Arrows: _arrows,
    Field: _field,
}
