"""See and check the order in which rows are trained on; see ``docs/order.md``."""

from __future__ import annotations

from sentence_transformers.order.callback import OrderCallback, OrderChanged
from sentence_transformers.order.fingerprint import order_fingerprint
from sentence_transformers.order.pictures import epoch_scatter, order_map, value_map
from sentence_transformers.order.report import OrderReport, order_report

__all__ = [
    "OrderCallback",
    "OrderChanged",
    "OrderReport",
    "epoch_scatter",
    "order_fingerprint",
    "order_map",
    "order_report",
    "value_map",
]
