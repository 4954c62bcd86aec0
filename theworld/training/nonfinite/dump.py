"""What is kept of an optimizer step whose loss or gradient was not finite: enough to make it again.

    <default_root_dir>/nonfinite/step=12/
        rank-0.json           step, epoch, samples and loss of each micro-batch, gradients that were not finite
        rank-0.safetensors    states of the random number generators before the step
        weights.safetensors   what some stage trains, as it was before the step (main process)

Every rank writes its own; safetensors and JSON hold no code.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from theworld.data.indexing.table import write_durably

FORMAT = 1
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class MicroBatch:
    """One micro-batch of the step.

    Attributes:
        ids: Names of its samples, in row order.
        loss: What the training step returned, as text: JSON has no NaN.
    """

    ids: tuple[str, ...]
    loss: str


@dataclass(frozen=True, kw_only=True)
class StepDump:
    """One rank's account of the step.

    Attributes:
        step: Optimizer steps made before it.
        epoch: Lightning's epoch.
        rank: Whose account this is.
        world_size: Number of ranks.
        micro_batches: In order.
        gradients: Names of the parameters whose accumulated gradient was not finite on this rank.
        policy: What was done about it.
        checkpoint: The newest checkpoint then, if any.
        config: Where the run's settings lie, if they were saved.
        has_weights: Whether `weights.safetensors` lies beside it.
    """

    step: int
    epoch: int
    rank: int
    world_size: int
    micro_batches: tuple[MicroBatch, ...]
    gradients: tuple[str, ...]
    policy: str
    checkpoint: str | None
    config: str | None
    has_weights: bool


def write_dump(
    folder: Path, dump: StepDump, *, generators: Mapping[str, Tensor], weights: Mapping[str, Tensor] | None
) -> None:
    """Write one rank's account; its JSON, written last, says that the rest is there.

    Args:
        folder: The step's own.
        dump: What is known.
        generators: From `generator_states`.
        weights: From the main process only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(generators), folder / f"rank-{dump.rank}.safetensors")
    if weights is not None:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, folder / WEIGHTS)
    text = json.dumps({"format": FORMAT} | asdict(dump), indent=2) + "\n"
    write_durably(folder / f"rank-{dump.rank}.json", text.encode())


def read_dump(folder: Path) -> list[StepDump]:
    """The accounts of all ranks, in order.

    Raises:
        ValueError: One is missing, damaged, or of another format.
    """
    paths = sorted(folder.glob("rank-*.json"), key=lambda path: int(path.stem.split("-")[1]))
    if not paths:
        raise ValueError(
            f"{folder}: found no rank-*.json, expected the folder of a step, such as outputs/x/nonfinite/step=12"
        )
    dumps = [_read(path) for path in paths]
    if [dump.rank for dump in dumps] != list(range(dumps[0].world_size)):
        raise ValueError(
            f"{folder}: found the accounts of ranks {[dump.rank for dump in dumps]}, expected all "
            f"{dumps[0].world_size}; the others were killed before they wrote theirs, or write elsewhere"
        )
    return dumps


def read_weights(folder: Path) -> dict[str, Tensor]:
    """What some stage trains, by name in the model."""
    return load_file(folder / WEIGHTS)


def read_generators(folder: Path, rank: int = 0) -> dict[str, Tensor]:
    """States of a rank's random number generators."""
    return load_file(folder / f"rank-{rank}.safetensors")


def generator_states() -> dict[str, Tensor]:
    """States of Python's, NumPy's and PyTorch's generators, as tensors. Waits for no device."""
    version, numbers, spare = random.getstate()
    assert version == 3, f"found version {version} of Python's generator, expected 3"
    numpy_state = np.random.get_state(legacy=False)
    assert isinstance(numpy_state, dict)
    inner = numpy_state["state"]
    states = {
        "python": torch.tensor(numbers, dtype=torch.int64),
        "python_spare": torch.tensor([] if spare is None else [spare], dtype=torch.float64),
        "numpy": torch.from_numpy(inner["key"].astype(np.int64)),
        "numpy_rest": torch.tensor([inner["pos"], numpy_state["has_gauss"], numpy_state["gauss"]], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def set_generators(states: Mapping[str, Tensor]) -> None:
    """The opposite of `generator_states`."""
    spare = states["python_spare"].tolist()
    random.setstate((3, tuple(states["python"].tolist()), spare[0] if spare else None))
    position, has_gauss, gauss = states["numpy_rest"].tolist()
    np.random.set_state(("MT19937", states["numpy"].numpy().astype(np.uint32), int(position), int(has_gauss), gauss))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def _read(path: Path) -> StepDump:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if (found := content.pop("format")) != FORMAT:
            raise ValueError(f"format {found}")
        batches = tuple(MicroBatch(tuple(batch["ids"]), batch["loss"]) for batch in content.pop("micro_batches"))
        return StepDump(**content | {"micro_batches": batches, "gradients": tuple(content["gradients"])})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: found {type(error).__name__} {error}, expected a step of format {FORMAT}") from error
