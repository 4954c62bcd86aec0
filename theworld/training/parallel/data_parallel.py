"""DDP that lives on the stream on which the model computes."""

from __future__ import annotations

from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from torch import nn
from torch.nn.parallel import DistributedDataParallel

NAMES = {"ddp": {}, "ddp_find_unused_parameters_true": {"find_unused_parameters": True}}
"""What users write in `trainer.strategy`, and what it sets; `auto` on several devices is the first."""


class DataParallel(DDPStrategy):
    """Lightning's DDP, wrapped on the current stream instead of one of its own.

    Lightning (up to 2.6.6) wraps the model on a new CUDA stream, which only captured graphs need. What DDP hooks into
    then belongs to that stream for good, and gradients go from the stream that computes them to it and back in every
    step; PyTorch warns of that ("The AccumulateGrad node's stream does not match …") and asks to wrap where forward
    runs. On two H200 one of two such runs had gradients of the projector that were wrong from the second step on, with
    a right loss (`experiments/README.md`, 2026-11-27); whether this was the cause is not known.
    """

    def _setup_model(self, model: nn.Module) -> DistributedDataParallel:
        return DistributedDataParallel(module=model, device_ids=self.determine_ddp_device_ids(), **self._ddp_kwargs)


def register() -> None:
    """Have Lightning take it for the names in `NAMES`."""
    for name, settings in NAMES.items():
        StrategyRegistry.register(
            name, DataParallel, description="DDP on the current stream", override=True, start_method="popen", **settings
        )
