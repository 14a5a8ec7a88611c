"""The picture of an order: one panel per stack and epoch, a column per step, a cell per row, coloured by the row.

A row's colour is its place in the first epoch. The first epoch is therefore a smooth ramp, a fresh permutation is
speckle, and an epoch that repeats the first is a piece of that ramp: a replay is seen without reading a number.
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from order import Order, agreeing, replayed, rows_of

from sentence_transformers.order.pictures import FAINT, INK, PAPER, order_map

ALARM = "#8a1c1c"


def draw(stacks: dict[str, tuple[Order, Order]], checkpoint: int, per_epoch: int, path: Path) -> None:
    """Draw (plan, run) of each named stack side by side, and mark where the run was resumed.

    Args:
        stacks (dict): For each heading the uninterrupted order and the one that was read.
        checkpoint (int): The first step after the resume.
        per_epoch (int): Steps in an epoch.
        path (Path): The PNG file to write.
    """
    epochs = len(next(iter(stacks.values()))[0]) // per_epoch
    figure = Figure(figsize=(13, 1.4 + 2.0 * epochs), dpi=150)
    axes = figure.subplots(epochs, len(stacks), sharex=True, sharey=True, squeeze=False)
    figure.subplots_adjust(left=0.075, right=0.905, top=0.775, bottom=0.09, hspace=0.32, wspace=0.06)
    for column, (heading, (plan, run)) in enumerate(stacks.items()):
        _write(axes[0, column], heading, rise=27, fontsize=12.5, fontweight="bold", color=INK)
        order_map(
            [rows_of(run, range(start, start + per_epoch)) for start in range(0, len(run), per_epoch)],
            axes=axes[:, column],
        )
        for epoch in range(epochs):
            axis = axes[epoch, column]
            _part_ranks(axis, len(run[0]))
            if epoch == checkpoint // per_epoch:
                _caption_resumed(axis, plan, run, checkpoint, per_epoch)
            else:
                _caption(axis, run, per_epoch, epoch)
        axes[-1, column].set_xlabel("step of the epoch", color=INK)
    for epoch in range(epochs):
        axes[epoch, 0].set_ylabel(f"Epoch {epoch + 1}", fontsize=12, fontweight="bold", color=INK, labelpad=10)
    _colour_bar(figure, axes[0, 0].images[0])
    _headline(figure, checkpoint // per_epoch + 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, facecolor=PAPER)


def _part_ranks(axis: Axes, ranks: int) -> None:
    """Part the rows of the ranks, and name these."""
    height = axis.get_ylim()[0]
    for rank in range(1, ranks):
        axis.axhline(rank * height / ranks, color=PAPER, linewidth=2.5)
    axis.set_yticks(
        [(rank + 0.5) * height / ranks for rank in range(ranks)], [f"rank {rank}" for rank in range(ranks)]
    )


def _write(axis: Axes, text: str, step: float = 0.5, rise: float = 5, **style: str | float) -> None:
    """Put text `rise` points above a panel, beginning at `step`."""
    where = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
    axis.annotate(
        text, xy=(step, 1.0), xytext=(0, rise), ha="left", **where, **{"fontsize": 9.5, "color": FAINT, **style}
    )


def _caption(axis: Axes, run: Order, per_epoch: int, epoch: int) -> None:
    """Say above the panel of an epoch that ran through what is to be seen in it."""
    again = len(replayed(run, per_epoch, epoch))
    if epoch == 0:
        _write(axis, "the ramp that gives each row its colour")
    elif again:
        _write(axis, f"{again} of {per_epoch} steps repeat an earlier epoch", color=ALARM, fontweight="bold")
    else:
        _write(axis, "a fresh order")


def _caption_resumed(axis: Axes, plan: Order, run: Order, checkpoint: int, per_epoch: int) -> None:
    """Mark where the run was resumed, and say what it went on with."""
    epoch, step = divmod(checkpoint, per_epoch)
    axis.axvline(step + 0.5, color=PAPER, linewidth=5)
    axis.axvline(step + 0.5, color=INK, linewidth=1.8, linestyle=(0, (4, 2)), clip_on=False)
    repeats = any(earlier < checkpoint for earlier in replayed(run, per_epoch, epoch))
    _write(axis, "an earlier epoch's steps, then killed" if repeats else "a fresh order, then killed")
    rest = range(checkpoint, (epoch + 1) * per_epoch)
    if agreeing(run, plan, rest) == len(rest):
        _write(axis, "resumed: exactly as planned", step=step + 0.5, color=INK, fontweight="bold")
    elif len(replayed(run, per_epoch, epoch)) >= len(rest):
        _write(axis, "resumed: epoch 1 once more", step=step + 0.5, color=ALARM, fontweight="bold")
    else:
        _write(axis, "resumed: not as planned", step=step + 0.5, color=ALARM, fontweight="bold")


def _colour_bar(figure: Figure, image: AxesImage) -> None:
    bar = figure.colorbar(image, cax=figure.add_axes((0.925, 0.09, 0.012, 0.685)))
    bar.set_ticks([0, 1], labels=["first", "last"])
    bar.set_label("colour = the row, by its place in epoch 1", color=INK, labelpad=-18)
    bar.ax.tick_params(length=0, labelcolor=FAINT)
    bar.outline.set_visible(False)


def _headline(figure: Figure, epoch: int) -> None:
    figure.text(0.075, 0.94, "What each step was trained on", fontsize=18, fontweight="bold", color=INK)
    explained = (
        f"The run was killed in epoch {epoch} and resumed. Speckle is a fresh order; a smooth ramp is epoch 1 again. "
        "White: left out of epoch 1."
    )
    figure.text(0.075, 0.9, explained, fontsize=11, color=FAINT)
