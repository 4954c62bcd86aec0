"""A tiny real base on disk, OSD files, and the real data module, model and trainer over them."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from lightning.pytorch import Callback, Trainer, seed_everything

from tests.tiny import (
    QUIET_TRAINER,
    WORLD_SIDE,
    WORLD_TOKENS,
    gemma_config,
    make_tokenizer,
    osd_row,
    write_base,
    write_osd,
)
from theworld.data.datamodule import OSDDataModule
from theworld.training.callbacks.stage_schedule import StageSchedule
from theworld.training.module import TheWorldModule
from theworld.training.stages import LearningRates, Stage


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of `write_tiny_base`."""
    folder = tmp_path_factory.mktemp("base")
    write_tiny_base(folder)
    return str(folder)


def write_tiny_base(folder: Path) -> None:
    """A Gemma 3 base with a Wan VAE beside it, as transformers and diffusers write them.

    Two layers are both sliding ones, so the window must span a sample for world tokens to reach the answer.
    """
    tokenizer = make_tokenizer()
    config = gemma_config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=256,
    )
    write_base(folder, config, tokenizer)


@pytest.fixture(scope="session")
def osd(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Twelve training rows, three validation rows and five test rows, with their images; paths by data argument."""
    arguments = {}
    for split, count in (("train", 12), ("val", 3), ("test", 5)):
        rows = [
            osd_row(
                number,
                turns=1 if split == "test" else 1 + number % 2,
                answer=("Yes", "No")[number % 2] + "." * (1 + number % 3),
                id=f"{split}-{number}",
            )
            for number in range(count)
        ]
        path, images = write_osd(tmp_path_factory.mktemp(split), rows, f"{split}.json")
        arguments |= {f"{split}_path": str(path), f"{split}_images": str(images)}
    return arguments


def one_stage(steps: int = 2, **rates: float) -> dict[str, Stage]:
    return {"only": Stage(learning_rates=LearningRates(**rates), max_steps=steps)}


@pytest.fixture
def stages() -> dict[str, Stage]:
    """Projector, then vision, then language: seven steps in all."""
    return {
        "projection": Stage(learning_rates=LearningRates(world_projector=1e-2), max_steps=2),
        "vision": Stage(learning_rates=LearningRates(world_projector=1e-2, vision=1e-3), max_steps=2, warmup_steps=1),
        "language": Stage(
            learning_rates=LearningRates(world_projector=1e-2, language=1e-3), max_steps=3, warmup_steps=1
        ),
    }


MODEL = {"world_image_size": WORLD_SIDE, "dtype": "float32", "max_new_tokens": 3}
DATA = {"num_world_tokens": WORLD_TOKENS, "world_image_size": WORLD_SIDE, "max_seq_length": 192, "token_budget": 256}


@pytest.fixture
def make_module(base: str, stages: dict[str, Stage]) -> Callable[..., TheWorldModule]:
    """A module over the tiny base; its projector is new, from the same seed every time."""

    def make(**changes: object) -> TheWorldModule:
        seed_everything(0, verbose=False)
        return TheWorldModule(**({"base": base, "stages": stages} | MODEL | changes))

    return make


@pytest.fixture
def make_data(base: str, osd: dict[str, str]) -> Callable[..., OSDDataModule]:
    def make(**changes: object) -> OSDDataModule:
        return OSDDataModule(**({"base": base} | osd | DATA | changes))

    return make


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., Trainer]:
    """A CPU trainer with the stage schedule and the given callbacks; no validation of its own, no checkpoints."""

    def make(*callbacks: Callback, **changes: object) -> Trainer:
        settings = QUIET_TRAINER | {
            "max_epochs": -1,
            "num_sanity_val_steps": 0,
            "limit_val_batches": 0,
            "log_every_n_steps": 1,
            "default_root_dir": tmp_path,
            "callbacks": [StageSchedule(), *callbacks],
        }
        return Trainer(**(settings | changes))

    return make


@pytest.fixture
def handlers():
    """A run that was preempted leaves the signals ignored; pytest's process goes on."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)
