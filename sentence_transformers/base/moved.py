"""What training arguments of 6.2.0+epoch.1, the fork's first version, are called now."""

from __future__ import annotations

from typing import Any

_PLANNED = """pass the class:
    from sentence_transformers.planned import PlannedNoDuplicatesBatchSampler
    args = ...TrainingArguments(..., batch_sampler={}PlannedNoDuplicatesBatchSampler{})"""
_ORDER = """pass a callback to the trainer, or none to switch it off:
    from sentence_transformers.order import OrderCallback
    trainer = ...Trainer(..., callbacks=[OrderCallback(on_change="warn")])  # or "stop", which was "strict\""""


def check_moved(arguments: dict[str, Any]) -> None:
    """
    Check that no argument is one of the fork's first version.

    Raises:
        ValueError: If one is; the message shows the lines that replace it.
    """
    planned = "no_duplicates_planned"
    if "plan_across_devices" in arguments:
        option = f", across_devices={arguments['plan_across_devices']})"
        moved, instead = "plan_across_devices", _PLANNED.format("functools.partial(", option)
    elif isinstance(arguments.get("batch_sampler"), str) and arguments["batch_sampler"] == planned:
        moved, instead = f'batch_sampler="{planned}"', _PLANNED.format("", "")
    elif "order_guard" in arguments:
        moved, instead = "order_guard", _ORDER
    else:
        return
    raise ValueError(f"{moved} of 6.2.0+epoch.1 has moved; {instead}")
