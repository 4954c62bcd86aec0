"""Whether a step's losses and gradients are finite: computed where they are, agreed on by all ranks, read when needed.

G parameters with a gradient · M micro-batches of the step on this rank
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer


@dataclass
class Look:
    """One step's numbers, on their way to the host.

    Attributes:
        values: float32[M + G], losses, then the largest magnitude of each gradient.
        is_bad: float32[], 1 if any of them is not finite on any rank.
        num_losses: M.
        copied: On a GPU: the moment when both have arrived.
    """

    values: Tensor
    is_bad: Tensor
    num_losses: int
    copied: torch.cuda.Event | None

    def wait(self) -> bool:
        """Whether the step is bad; waits for the device no longer than until the step's gradient was there."""
        if self.copied is not None:
            self.copied.synchronize()
        return bool(self.is_bad)

    @property
    def losses(self) -> list[float]:
        """Of the micro-batches; after `wait`."""
        return self.values[: self.num_losses].tolist()

    @property
    def bad_gradients(self) -> list[int]:
        """Places of the gradients that are not finite; after `wait`."""
        return [place for place, v in enumerate(self.values[self.num_losses :].tolist()) if not math.isfinite(v)]


def look_at(losses: Sequence[Tensor], gradients: Sequence[Tensor]) -> tuple[Look, Tensor]:
    """Begin to find out; a collective of all ranks, and no wait.

    Args:
        losses: float[] each.
        gradients: Of any shape; of sharded ones this rank's shard.

    Returns:
        The look, whose values are on the host once `wait` returns, and `is_bad` on the device.
    """
    local = [gradient.to_local() if isinstance(gradient, DTensor) else gradient for gradient in gradients]
    # The largest magnitude, because a sum of squares overflows where every gradient is finite.
    largest = torch._foreach_norm([g for g in local if g.numel()], ord=math.inf) if local else ()
    held = iter(largest)
    sizes = [next(held).float() if g.numel() else g.new_zeros((), dtype=torch.float32) for g in local]
    values = torch.stack([*(loss.float() for loss in losses), *sizes])  # (M + G,)
    is_bad = (~values.isfinite()).any().float()
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(is_bad, distributed.ReduceOp.MAX)
    if values.device.type != "cuda":
        return Look(_on_host(values), _on_host(is_bad), len(losses), None), is_bad
    look = Look(_on_host(values), _on_host(is_bad), len(losses), torch.cuda.Event())
    assert look.copied is not None
    look.copied.record()
    return look, is_bad


def can_skip_by_itself(optimizer: Optimizer) -> bool:
    """Whether the optimizer leaves out an update on the device, by a number that is there: PyTorch's fused AdamW.

    Not over shards (DTensor), where the number would have to be one as well.
    """
    groups = optimizer.param_groups
    is_fused = isinstance(optimizer, torch.optim.AdamW) and all(group["fused"] for group in groups)
    return is_fused and not any(isinstance(p, DTensor) for group in groups for p in group["params"])


def _on_host(tensor: Tensor) -> Tensor:
    """A copy that arrives some time later, if the tensor is on a GPU."""
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return copy.copy_(tensor, non_blocking=True)
