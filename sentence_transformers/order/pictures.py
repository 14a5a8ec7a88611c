"""Pictures of the order of rows: what each step reads, one epoch against another, and where values fall.

Guarantee: what is drawn is what is passed in, nothing is drawn anew. Up to some thousand cells or points each row is
drawn; beyond that, rows are counted in bins, or, where a colour is a row, the row in the middle of each cell is shown,
and the picture says so. All are drawn on a scale of rising lightness (cividis), which reads the same in grey and for
colour-blind eyes, without its light end, so that white is where nothing is.

Cost: linear in rows, a few seconds for ten million; see :mod:`~sentence_transformers.order.cells`.

Known bias: of more rows than cells, a pattern as fine as a cell's stride cannot be seen.

A picture goes to a file, whose suffix says of what kind (``.png``, ``.svg``), and is returned as a figure. Needs
matplotlib: ``pip install "sentence-transformers[order]"``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sentence_transformers.order.cells import (
    Floats,
    Order,
    bin_counts,
    order_cells,
    short_names,
    value_cells,
    value_codes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

PAPER, INK, FAINT, RULE = "#ffffff", "#1b1f24", "#5b6470", "#d7dade"
STEPS_DRAWN, PLACES_DRAWN = 480, 64  # columns and rows of an order map's cells
POINTS_DRAWN = 5_000  # points of a scatter; beyond that, bins
BINS = 160  # to a side
LIGHTEST = 0.82  # the part of cividis that is drawn; in grey its end is 183 of 255, far from white
VALUES_DRAWN = 20  # lines of a value map
SPANS_DRAWN = 120  # steps, or spans of steps, of a value map
_NAME = 28  # characters of a value's name


Epoch = Order | Iterable[Sequence[int]]


def order_map(
    epochs: Sequence[Epoch], path: str | Path | None = None, axes: Sequence[Axes] | None = None, first: int = 0
) -> Figure:
    """
    Draw which rows each step reads: a panel an epoch, a column a step, a cell a row, coloured by the row.

    A row's colour is its place in the first of the epochs. That one is therefore a smooth ramp; a new order is
    speckle, and an epoch, or a part of one, that repeats the first is a piece of the ramp.

    Args:
        epochs (Sequence): The batches of each epoch; of several processes, those of a step joined.
        path (str or Path, optional): The file to write.
        axes (Sequence[Axes], optional): A panel for each epoch, in a figure of your own, which is then left to you:
            no titles, no colour bar.
        first (int): The number of the first epoch. Defaults to 0.

    Returns:
        Figure: The figure.

    Raises:
        ValueError: If there is no epoch, or one that is no batches of row numbers.
    """
    orders = [_order(epoch) for epoch in epochs]
    if not orders:
        raise ValueError("An order map of 0 epochs shows nothing: pass the batches of an epoch or more.")
    place = orders[0].places(1 + max(int(order.rows.max()) for order in orders))
    cells = [order_cells(order, place, STEPS_DRAWN, PLACES_DRAWN) for order in orders]
    if axes is not None:
        for panel, colours, order in zip(axes, cells, orders):
            _map_panel(panel, colours, order)
        return _figure_of(axes[0])
    figure = _figure(1.75 + 1.55 * len(orders))
    panels = figure.subplots(len(orders), 1, sharex=True, squeeze=False)[:, 0]
    for number, (panel, colours, order) in enumerate(zip(panels, cells, orders), first):
        image = _map_panel(panel, colours, order)
        panel.set_ylabel(f"epoch {number}\nplace in batch", color=INK)
    panels[-1].set_xlabel("step of the epoch", color=INK)
    drawn, rows = max(np.count_nonzero(np.isfinite(one)) for one in cells), max(len(order.rows) for order in orders)
    said = [f"One row of {rows / drawn:,.0f} is drawn."] if rows > 1.5 * drawn else []
    if any(np.isnan(one).any() for one in cells):
        said.append(f"White: no row, or one that epoch {first} has not.")
    colour = f"Colour: the row, by its place in epoch {first}. Speckle: a new order. Ramp: that epoch again."
    _headline(figure, f"Which rows each step reads: {rows:,} rows an epoch", colour, *said)
    bar = figure.colorbar(image, ax=list(panels), fraction=0.04, pad=0.015, aspect=12 * len(panels))
    bar.set_ticks([0, 1], labels=["first", "last"])
    bar.set_label(f"place in epoch {first}", color=INK, labelpad=-12)
    _plain(bar.ax)
    return _written(figure, path)


def epoch_scatter(
    one: Epoch, other: Epoch, path: str | Path | None = None, numbers: tuple[int, int] = (0, 1)
) -> Figure:
    """
    Draw where each row is in one epoch against where it is in another.

    Two orders that have nothing in common fill the square evenly; an order that comes again is its diagonal.

    Args:
        one (Order or Iterable): The batches of the one epoch.
        other (Order or Iterable): The batches of the other.
        path (str or Path, optional): The file to write.
        numbers (tuple): The numbers of the epochs. Defaults to (0, 1).

    Returns:
        Figure: The figure.
    """
    orders = _order(one), _order(other)
    rows = 1 + max(int(order.rows.max()) for order in orders)
    places = [order.places(rows) for order in orders]
    both = np.isfinite(places[0]) & np.isfinite(places[1])
    x, y = (place[both] * (len(order.rows) - 1) for place, order in zip(places, orders))
    alone = [np.count_nonzero(np.isfinite(place) & ~both) for place in places]
    figure = _figure(6.6, width=6.6 if len(x) <= POINTS_DRAWN else 8.2)
    panel = figure.subplots()
    if len(x) <= POINTS_DRAWN:
        panel.scatter(x, y, s=float(np.clip(8_000 / max(len(x), 1), 3, 30)), color="#00336f", linewidths=0)
        panel.set_xlim(-0.02 * len(orders[0].rows), 1.02 * len(orders[0].rows))
        panel.set_ylim(-0.02 * len(orders[1].rows), 1.02 * len(orders[1].rows))
    else:
        _density(figure, panel, x, y, [len(order.rows) for order in orders])
    panel.set_xlabel(f"place of the row in epoch {numbers[0]}", color=INK)
    panel.set_ylabel(f"place of the row in epoch {numbers[1]}", color=INK)
    _plain(panel)
    panel.xaxis.set_major_formatter(_thousands())
    panel.yaxis.set_major_formatter(_thousands())
    found = [f"{len(x):,} rows in both"]
    found += [f"{count:,} rows only in epoch {number}" for count, number in zip(alone, numbers) if count]
    explained = "An even cloud: a new order. A line: the same order again."
    _headline(figure, f"Epoch {numbers[1]} against epoch {numbers[0]}", explained, f"{', '.join(found)}.")
    return _written(figure, path)


def value_map(
    epoch: Epoch, values: Any, path: str | Path | None = None, column: str = "value", number: int = 0
) -> Figure:
    """
    Draw where the rows of each value of a column fall in an epoch: a line a value, the most frequent on top.

    Args:
        epoch (Order or Iterable): The batches of the epoch.
        values (Sequence or pyarrow array): The column; a value for each row of the data.
        path (str or Path, optional): The file to write.
        column (str): Its name.
        number (int): The epoch's number. Defaults to 0.

    Returns:
        Figure: The figure.

    Raises:
        ValueError: If there are fewer values than rows, or none at all, or they are of a kind that cannot be compared.
    """
    order = _order(epoch)
    codes, names = value_codes(values, column)
    if int(order.rows.max()) >= len(codes):
        raise ValueError(f"Row {order.rows.max()} has no value: {column!r} holds {len(codes)}; pass one for each row.")
    if not names or int(codes.max(initial=-1)) < 0:
        raise ValueError(f"Each value of {column!r} is None, so that no line can be drawn: choose another column.")
    frequent = np.argsort(-np.bincount(codes[codes >= 0], minlength=1), kind="stable")[:VALUES_DRAWN]
    counts = value_cells(order, codes, frequent, SPANS_DRAWN)
    figure = _figure(1.7 + 0.24 * max(len(frequent), 4))
    panel = figure.subplots()
    shown, most = np.ma.masked_equal(counts, 0), int(counts.max(initial=1))
    extent = (0.5, order.steps + 0.5, len(frequent), 0)
    scale = {"cmap": _visible_on_white(darkening=True), "vmin": min(most - 1, 1), "vmax": most}
    image = panel.imshow(shown, aspect="auto", interpolation="nearest", extent=extent, **scale)
    shortened = _names([names[code] for code in frequent])
    labels = [f"{name} ({int(total):,})" for name, total in zip(shortened, counts.sum(axis=1))]
    panel.set_yticks(np.arange(len(frequent)) + 0.5, labels)
    panel.set_xlabel(f"step of epoch {number}", color=INK)
    for line in range(1, len(frequent)):
        panel.axhline(line, color=RULE, linewidth=0.6)
    _plain(panel)
    _steps_axis(panel, order.steps)
    if most > 1:
        _value_bar(figure, panel, image, most, order.steps / counts.shape[1])
    few = f"The {len(frequent)} most frequent of {len(names):,} values" if len(names) > len(frequent) else "The values"
    colour = "Colour: rows at these steps; white: none." if most > 1 else "Dark: a row at this step."
    said = f"{few}, a line each, with their numbers of rows."
    _headline(figure, f"Where the values of {_names([column])[0]} fall in epoch {number}", said, colour)
    return _written(figure, path)


def _order(epoch: Epoch) -> Order:
    return epoch if isinstance(epoch, Order) else Order(epoch)


def _value_bar(figure: Figure, panel: Axes, image: AxesImage, most: int, steps: float) -> None:
    """The scale of a value map whose cells hold up to ``most`` rows, of ``steps`` steps each."""
    bar = figure.colorbar(image, ax=panel, fraction=0.04, pad=0.015)
    bar.set_ticks(_whole_numbers().tick_values(1, most))
    bar.ax.set_ylim(1, most)
    bar.ax.yaxis.set_major_formatter(_thousands())
    bar.set_label("rows a step" if steps < 1.5 else f"rows in {steps:,.0f} steps", color=INK)
    _plain(bar.ax)


def _map_panel(panel: Axes, cells: Floats, order: Order) -> AxesImage:
    extent = (0.5, order.steps + 0.5, int(order.sizes.max()), 0)
    scale = {"cmap": _visible_on_white(), "vmin": 0, "vmax": 1}
    image = panel.imshow(cells, aspect="auto", interpolation="nearest", extent=extent, **scale)
    panel.set_facecolor(PAPER)
    panel.yaxis.set_major_locator(_whole_numbers(5))
    panel.yaxis.set_major_formatter(_thousands())
    _plain(panel)
    _steps_axis(panel, order.steps)
    return image


def _density(figure: Figure, panel: Axes, x: Floats, y: Floats, lengths: list[int]) -> None:
    """Rows in each of BINS × BINS squares, on a logarithmic scale."""
    from matplotlib.colors import LogNorm

    counts = bin_counts(x, y, lengths, BINS)
    darkest = max(int(counts.max()), len(x) / BINS)  # an order that comes again, in any picture
    image = panel.imshow(
        np.ma.masked_equal(counts, 0),
        origin="lower",
        aspect="auto",
        cmap=_visible_on_white(darkening=True),
        norm=LogNorm(1, darkest),
        interpolation="nearest",
        extent=(0, lengths[0], 0, lengths[1]),
    )
    bar = figure.colorbar(image, ax=panel, fraction=0.045, pad=0.02)
    bar.set_label(f"rows in a square of {lengths[0] / BINS:,.0f} × {lengths[1] / BINS:,.0f} places", color=INK)
    _plain(bar.ax)


def _names(values: Iterable[Any]) -> list[str]:
    """What is written for each value; a dollar sign is one, and begins no formula."""
    return [name.replace("$", r"\$") for name in short_names(list(map(str, values)), _NAME)]


def _figure(height: float, width: float = 10.0) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError as cause:
        raise ImportError(
            'matplotlib is missing, which pictures need. Install it with\n  pip install "sentence-transformers[order]"'
        ) from cause
    return Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor=PAPER)


def _figure_of(axes: Axes) -> Figure:
    figure: Any = axes.figure
    result: Figure = figure
    return result


def _headline(figure: Figure, title: str, explained: str, *more: str) -> None:
    """A title, and below it what is to be seen; what is too long for the figure goes on in a line of its own."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
    said = "\n".join([explained, " ".join(more)]).rstrip()
    figure.get_axes()[0].set_title(said, loc="left", fontsize=9, color=FAINT, wrap=True)


def _plain(panel: Axes) -> None:
    panel.tick_params(length=0, labelsize=9, labelcolor=FAINT)
    for spine in panel.spines.values():
        spine.set_visible(False)


def _steps_axis(panel: Axes, steps: int) -> None:
    """Whole steps, the first one being 1, with separators of thousands."""
    panel.xaxis.set_major_locator(_whole_numbers())
    panel.xaxis.set_major_formatter(_thousands())
    panel.set_xlim(0.5, steps + 0.5)


def _visible_on_white(darkening: bool = False) -> Any:
    """cividis without the end that is nearly white."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    kept = np.linspace(0, LIGHTEST, 256)
    return ListedColormap(colormaps["cividis"](kept[::-1] if darkening else kept))


def _thousands() -> Any:
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda number, _: f"{number:,.0f}")


def _whole_numbers(intervals: int = 8) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=intervals, integer=True, min_n_ticks=1)


def _written(figure: Figure, path: str | Path | None) -> Figure:
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None} if Path(path).suffix == ".svg" else None)
    return figure
