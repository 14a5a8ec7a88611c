"""Pictures can be read: no text is cut off, what is absent is seen in grey, and names are told apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text

from sentence_transformers.order.cells import Order, short_names
from sentence_transformers.order.pictures import _headline, epoch_scatter, order_map, value_map

ALIKE = [f"What is the answer to question {number}, in {number % 3} words?" for number in range(25)]


def epochs(rows: int, batch: int) -> list[Order]:
    """Three, of which each leaves out other rows, and whose last batch is not full."""
    rng = np.random.default_rng(0)
    used = rows - rows // 10 - 1
    orders = [rng.permutation(rows)[:used] for _ in range(3)]
    return [Order([order[at : at + batch] for at in range(0, used, batch)]) for order in orders]


def outside(figure: Figure) -> list[str]:
    """The texts that do not lie in the figure, by a pixel at the most."""
    figure.draw_without_rendering()
    texts = [one for one in figure.findobj(Text) if one.get_visible() and one.get_text()]
    ticks = {label for panel in figure.axes for axis in (panel.xaxis, panel.yaxis) for label in _unseen(axis)}
    inner = figure.bbox.padded(1)
    boxes = {one: one.get_window_extent() for one in texts if one not in ticks}
    return [
        one.get_text() for one, box in boxes.items() if not (inner.contains(*box.min) and inner.contains(*box.max))
    ]


def _unseen(axis: Any) -> list[Text]:
    """Labels of ticks beyond the axis, which are not drawn."""
    low, high = sorted(axis.get_view_interval())
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    return [label for tick in ticks if not low <= tick.get_loc() <= high for label in (tick.label1, tick.label2)]


@pytest.mark.parametrize(
    ("rows", "batch"), [(1, 1), (100, 8), (7_000, 64), pytest.param(1_000_000, 512, marks=pytest.mark.wide)]
)
def test_every_text_lies_in_the_figure(rows: int, batch: int) -> None:
    """Whatever the size of the data, and however much is said of it."""
    orders = epochs(rows, batch) if rows > 1 else [Order([[0]])] * 3
    values = np.array(ALIKE)[np.arange(rows) % len(ALIKE)]
    assert outside(order_map(orders)) == []
    assert outside(order_map(orders[:1])) == []
    assert outside(epoch_scatter(*orders[:2])) == []
    assert outside(value_map(orders[0], values, column="a column of a name that is rather long")) == []
    wide = np.array([f"{number} {'W' * 40}" for number in range(25)])[np.arange(rows) % 25]
    assert outside(value_map(orders[0], wide, column="W" * 40)) == []


def test_a_long_explanation_goes_on_in_another_line() -> None:
    """Where the figure ends."""
    figure = order_map([[[0]]])
    _headline(figure, "A title", "Many words. " * 25)
    assert outside(figure) == []


def test_absent_rows_are_told_from_present_ones_in_grey() -> None:
    """The lightest colour of a row is a quarter of all greys away from white, where nothing is."""
    for figure in (
        order_map(epochs(100, 8)),
        value_map([[0, 1], [2, 3]], list("aaba")),
        epoch_scatter(*epochs(9000, 9)[:2]),
    ):
        panel = figure.axes[0]
        image = panel.images[0]
        greys = image.get_cmap()(np.linspace(0, 1, 256))[:, :3] @ [0.299, 0.587, 0.114]
        assert panel.get_facecolor() == (1, 1, 1, 1)
        assert greys.max() < 0.75
        assert abs(np.diff(greys)).max() < 0.02


@settings(deadline=None)
@given(texts=st.lists(st.text("ab $\n", max_size=30), max_size=8, unique=True), most=st.integers(8, 20))
def test_short_names_are_short_and_told_apart(texts: list[str], most: int) -> None:
    """On one line; a text that fits is left as it is, unless it has a double."""
    names = short_names(texts, most)
    assert len(names) == len(texts) == len(set(names))
    assert all(len(name) <= most and "\n" not in name for name in names)
    lines = [" ".join(text.split()) for text in texts]
    assert all(name == line for name, line in zip(names, lines) if len(line) <= most and lines.count(line) == 1)


def test_values_that_begin_alike_are_shown_where_they_part() -> None:
    """Not by their common beginning."""
    panel = value_map([range(25)], ALIKE).axes[0]
    labels = [label.get_text() for label in panel.get_yticklabels()]
    assert all(f"question {number}, in" in label for number, label in enumerate(labels))


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: order_map([]), "An order map of 0 epochs shows nothing: pass the batches of an epoch or more"),
        (lambda: order_map([["a"]]), "'a' is no batch: pass an epoch's batches, lists of row numbers from 0 on"),
        (lambda: order_map([[["a"]]]), r"\['a'\] is no batch: pass"),
        (lambda: order_map([[[1.5]]]), r"\[1\.5\] is no batch: pass"),
        (lambda: order_map([[[True]]]), r"\[True\] is no batch: pass"),
        (lambda: order_map([[[[0], [1, 2]]]]), r"\[\[0\], \[1, 2\]\] is no batch: pass"),
        (lambda: order_map([[0, 1]]), "0 is no batch: pass"),
        (lambda: value_map([[0]], [None], column="text"), "Each value of 'text' is None.*choose another column"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw: Any, message: str) -> None:
    """The message says what it is, and what to pass."""
    with pytest.raises(ValueError, match=message):
        draw()
