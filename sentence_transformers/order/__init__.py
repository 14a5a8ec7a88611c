"""See and check the order in which rows are trained on; see ``docs/order.md``."""

from __future__ import annotations

from sentence_transformers.order.callback import OrderCallback, OrderChanged
from sentence_transformers.order.fingerprint import order_fingerprint

__all__ = ["OrderCallback", "OrderChanged", "order_fingerprint"]
