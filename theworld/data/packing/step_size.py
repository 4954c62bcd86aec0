"""How many micro-batches are an optimizer step: what trainer and data must agree on."""

from __future__ import annotations


def check_step_size(micro_batches_per_step: int, *, accumulate_grad_batches: int, devices: int) -> None:
    """Refuse an optimizer step of other rows than the plan's.

    Args:
        micro_batches_per_step: Packed rows of a planned step.
        accumulate_grad_batches: The trainer's.
        devices: The trainer's, on all nodes.
    """
    found = accumulate_grad_batches * devices
    if found != micro_batches_per_step:
        raise ValueError(
            f"found accumulate_grad_batches={accumulate_grad_batches} x {devices} devices = {found} rows a step, "
            f"expected micro_batches_per_step={micro_batches_per_step}; set trainer.accumulate_grad_batches "
            f"to micro_batches_per_step / devices, or data.micro_batches_per_step to {found}."
        )


def steps_to_overfit(overfit_batches: int | float, *, accumulate_grad_batches: int) -> int | None:
    """Optimizer steps that `trainer.overfit_batches` asks for, which counts the micro-batches of a rank; None if none.

    Raises:
        ValueError: It is a fraction, or not a whole number of steps.
    """
    if not overfit_batches:
        return None
    if isinstance(overfit_batches, float) or overfit_batches % accumulate_grad_batches:
        raise ValueError(
            f"found overfit_batches={overfit_batches}, expected whole optimizer steps of "
            f"accumulate_grad_batches={accumulate_grad_batches} micro-batches each; set trainer.overfit_batches to a "
            "multiple of that"
        )
    return overfit_batches // accumulate_grad_batches
