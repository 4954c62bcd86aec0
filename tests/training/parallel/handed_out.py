"""What each rank holds after the first one alone has read the base; for `tests.training.ranks`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from torch import Tensor, distributed
from torch.distributed.device_mesh import init_device_mesh

from tests.tiny import QUIET_TRAINER
from tests.training.parallel.staged_run import stages
from theworld.data.datamodule import OSDDataModule
from theworld.models.theworld import TheWorld
from theworld.training.module import TheWorldModule
from theworld.training.parallel import hand_out
from theworld.training.parallel.hand_out import HandOut, check_handed_out
from theworld.training.parallel.sharding import shard_model, whole
from theworld.training.parallel.strategy import FullySharded

MICRO_BATCHES = 6
FROZEN = "cosmos_encoder.vae.quant_conv.weight"
DIVIDED = "gemma.model.language_model.layers.1.mlp.up_proj.weight"
BUFFER = "gemma.model.language_model.rotary_emb.sliding_attention_inv_freq"
EMBEDDING = "gemma.model.language_model.embed_tokens.weight"


class Record(Callback):
    """Writes every whole tensor that this rank sees when the strategy is set up."""

    def __init__(self, folder: Path):
        self.folder = folder

    def _write(self, trainer: Trainer, module: TheWorldModule) -> None:
        model = module.world
        values = {name: whole(tensor.detach()) for name, tensor in model.named_parameters(remove_duplicate=False)}
        record = {
            "parameters": values,
            "trains": {name: parameter.requires_grad for name, parameter in model.named_parameters()},
            "buffers": dict(model.named_buffers()),
            "divided": [name for name, tensor in model.named_parameters() if hasattr(tensor, "placements")],
            "tied": model.gemma.lm_head.weight is model.get_input_embeddings().weight,
            "config": model.config.to_json_string(use_diff=False),
            "training": model.training,
            "random": torch.get_rng_state(),
        }
        torch.save(record, self.folder / f"rank-{trainer.global_rank}.pt")

    def on_fit_start(self, trainer, pl_module):
        self._write(trainer, pl_module)

    def on_validation_start(self, trainer, pl_module):
        self._write(trainer, pl_module)


def set_up(
    *,
    world_size: int,
    folder: Path,
    data: dict[str, object],
    model: dict[str, object],
    fit: bool = True,
    shard_frozen: bool = False,
) -> None:
    """As far as the first step. No rank but the first is told where the base is, so it cannot open any of its files."""
    warnings.filterwarnings("ignore")
    seed_everything(0, verbose=False)
    strategy = FullySharded(shard_frozen=shard_frozen) if world_size > 1 else "auto"
    settings = {"devices": world_size, "strategy": strategy, "precision": "bf16-mixed", "max_steps": 0}
    settings |= {"accumulate_grad_batches": MICRO_BATCHES // world_size}
    trainer = Trainer(**QUIET_TRAINER | settings | {"callbacks": [Record(folder)], "limit_val_batches": 1})
    if trainer.global_rank > 0:
        model = model | {"base": str(folder / "absent")}
    module = TheWorldModule(stages=stages(), **model)
    (trainer.fit if fit else trainer.validate)(
        module, datamodule=OSDDataModule(micro_batches_per_step=MICRO_BATCHES, **data)
    )


def damaged(*, world_size: int, folder: Path, base: str) -> None:
    """What the comparison says after a change on the last rank; and what the others say when the base is missing."""
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    arguments: list[tuple] = []
    hand_out.check_handed_out = lambda *given: arguments.append(given)  # this process is ours alone
    parts = HandOut.read(lambda: TheWorld.from_pretrained(base))
    groups = ("world_projector", "language")
    shard_model(parts.skeleton, init_device_mesh("cpu", (world_size,)), divided=groups, bfloat16=False)
    parts.fill(torch.device("cpu"))
    messages = {"nothing": _message(lambda: check_handed_out(*arguments[0]))}
    for name, damage in _damages(parts.skeleton).items():
        with damage if rank == world_size - 1 else _nothing():
            messages[name] = _message(lambda: check_handed_out(*arguments[0]))
    messages["undone"] = _message(lambda: check_handed_out(*arguments[0]))
    messages["absent"] = _message(lambda: HandOut.read(lambda: TheWorld.from_pretrained(str(folder / "absent"))))
    torch.save(messages, folder / f"rank-{rank}.pt")
    distributed.destroy_process_group()


def _damages(model: TheWorld) -> dict[str, object]:
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    divided = tensors[DIVIDED].to_local()
    return {
        "frozen": _last_bit(tensors[FROZEN]),
        "divided": _last_bit(divided),
        "buffer": _last_bit(tensors[BUFFER]),
        "order": _flipped(divided),
        "meta": _on_meta(model),
        "untied": _untied(model),
    }


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _last_bit(tensor: Tensor) -> Iterator[None]:
    bits = tensor.detach().view(-1)[-1:].view(torch.int32)
    bits ^= 1
    yield
    bits ^= 1


@contextmanager
def _flipped(tensor: Tensor) -> Iterator[None]:
    """The same values in another order."""
    values = tensor.detach()
    values.copy_(values.flip(0))
    yield
    values.copy_(values.flip(0))


@contextmanager
def _on_meta(model: TheWorld) -> Iterator[None]:
    projector = model.cosmos_encoder.projector
    value = projector.target_rms
    projector.target_rms = value.to("meta")
    yield
    projector.target_rms = value


@contextmanager
def _untied(model: TheWorld) -> Iterator[None]:
    tied = model.gemma.lm_head.weight
    model.gemma.lm_head.weight = torch.nn.Parameter(tied.detach().clone())
    yield
    model.gemma.lm_head.weight = tied


def _message(action: Callable[[], object]) -> str:
    try:
        action()
    except (ValueError, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return ""
