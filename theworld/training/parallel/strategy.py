"""Lightning's strategy for FSDP2, with its defaults put right and checkpoints that every other strategy reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.distributed.constants import default_pg_timeout
from torch.optim import Optimizer

from theworld.models.theworld import TheWorld
from theworld.training.checkpoints.together import load_together, save_together
from theworld.training.module import TheWorldModule
from theworld.training.parallel.hand_out import HandOut
from theworld.training.parallel.loading import divided_like, load_rows
from theworld.training.parallel.sharding import divide_again, is_sharded, keep_gathered, settle_types, shard_model


class FullySharded(ModelParallelStrategy):
    """FSDP2 over all devices of all nodes: each holds its part of what trains, and of the optimizer's state.

    Choose it with `trainer.strategy.class_path: theworld.training.parallel.strategy.FullySharded`. What no stage trains
    is whole on every device, because gathering gigabytes that never change in every step costs more than it saves;
    where that does not fit, `shard_frozen` divides it as well. The first process alone reads the base.

    Args:
        shard_frozen: Divide also what no stage trains.
        reshard_after_forward: Free a gathered layer between its forward and its backward: less memory, more traffic.
        process_group_backend: `nccl` or `gloo`; by default what the device has.
        timeout: How long a collective may take.
    """

    def __init__(
        self,
        *,
        shard_frozen: bool = False,
        reshard_after_forward: bool = True,
        process_group_backend: str | None = None,
        timeout: timedelta = default_pg_timeout,
    ) -> None:
        super().__init__(process_group_backend=process_group_backend, timeout=timeout)
        self.shard_frozen = shard_frozen
        self.reshard_after_forward = reshard_after_forward
        self._hand_out: HandOut | None = None

    def setup_environment(self) -> None:
        """One dimension over all devices, which Lightning would take for the nodes."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        self._tensor_parallel_size = 1
        super().setup_environment()

    def load_model(self, load: Callable[[], TheWorld]) -> TheWorld:
        """On one process the loaded model; on several a skeleton, which `setup` divides and fills."""
        assert isinstance(self.lightning_module, TheWorldModule)
        _check(self.lightning_module)
        if self.world_size == 1:
            return load()
        self._hand_out = HandOut.read(load)
        return self._hand_out.skeleton

    def setup(self, trainer: Trainer) -> None:
        """Divide the model, which `configure_model` has made, before the optimizer is."""
        module = self.lightning_module
        assert isinstance(module, TheWorldModule)
        _check(module)
        fitting = trainer.state.fn == TrainerFn.FITTING
        if fitting and not is_sharded(module.world):
            self._shard(module)
        if self._hand_out is not None:
            self._hand_out.fill(self.root_device)
            self._hand_out = None  # and with it the base on the first process
        super().setup(trainer)
        if is_sharded(module.world):
            settle_types(module.world)
            divide_again(module.world, reshard_after_forward=self.reshard_after_forward)
            if not fitting:
                keep_gathered(module.world)

    @property
    def lightning_restore_optimizer(self) -> bool:
        """By `load_optimizer_state_dict`, as under every other strategy."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Tensor]:
        """The weights as they are, divided; the module keeps those that train."""
        return self.lightning_module.state_dict()

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, object]:
        """The optimizer's own, as under every other strategy, with divided moments."""
        return Strategy.optimizer_state(self, optimizer)

    def save_checkpoint(
        self, checkpoint: dict[str, object], filepath: str | Path, storage_options: object | None = None
    ) -> None:
        """Write a directory as `CheckpointDirectories` does, every process its own rows."""
        if storage_options is not None:
            raise ValueError(f"found storage_options={storage_options}, expected None: checkpoints are local folders")
        save_together(checkpoint, Path(self.broadcast(filepath)))

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, object]:
        """Verify it, and read what is not divided."""
        if weights_only is False:
            raise ValueError(f"found weights_only=False for {checkpoint_path}, expected True: it could run code then")
        return load_together(Path(self.broadcast(checkpoint_path)))

    def load_model_state_dict(self, checkpoint: Mapping[str, object], strict: bool = True) -> None:
        """Each device reads its rows of what the checkpoint has; the module has checked that nothing is missing."""
        stored = checkpoint["state_dict"]
        assert isinstance(stored, Mapping)
        named = dict(self.lightning_module.named_parameters(remove_duplicate=False))
        for name, value in stored.items():
            load_rows(named[name], value)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, object]) -> None:
        """Each device reads its rows of the moments."""
        states = checkpoint["optimizer_states"]
        assert isinstance(states, list)
        for optimizer, state in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(divided_like(optimizer, state))

    def _shard(self, module: TheWorldModule) -> None:
        groups = module.world.parameter_counts() if self.shard_frozen else module.schedule.groups
        shard_model(
            module.world,
            self.device_mesh["data_parallel"],
            divided=tuple(groups),
            bfloat16=self.precision_plugin.precision == "bf16-mixed",
            reshard_after_forward=self.reshard_after_forward,
        )


def _check(module: TheWorldModule) -> None:
    """Refuse what cannot be divided by rows.

    Raises:
        ValueError: Weights or moments of 8 bits.
    """
    if module.low_bit_base:
        raise ValueError(
            "found model.low_bit_base under FullySharded, expected false: its matrices of 8 bits cannot be divided; "
            "leave out one of the two"
        )
    if module.optimizer_choice == "adamw_8bit":
        raise ValueError(
            "found model.optimizer=adamw_8bit under FullySharded, expected adamw or adamw_bf16: its blocks of 256 "
            "moments would follow from the number of devices, and no other number could resume"
        )
