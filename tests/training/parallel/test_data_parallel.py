"""DDP is wrapped on the stream on which the model computes, whatever name a user chose it by."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from theworld.cli import main
from theworld.training.parallel import data_parallel
from theworld.training.parallel.data_parallel import NAMES, DataParallel


@pytest.mark.parametrize("name", [*NAMES, "auto"])
def test_names_are_ours(name, capsys):
    """In every run of the command line, which is where they are put."""
    with pytest.raises(SystemExit):
        main(["fit", "--print_config", "--trainer.max_steps=not a number"])
    trainer = Trainer(strategy=name, accelerator="cpu", devices=2, logger=False, barebones=True)
    assert type(trainer.strategy) is DataParallel
    assert trainer.strategy._ddp_kwargs == NAMES.get(name, {})


def test_the_model_is_wrapped_on_the_current_stream(monkeypatch):
    """Lightning's own makes a stream, which fails here."""
    wrapped: list[dict] = []

    def stream(*_: object):
        raise AssertionError("a stream was made")

    monkeypatch.setattr(torch.cuda, "Stream", stream)
    for module in (data_parallel, __import__("lightning.pytorch.strategies.ddp", fromlist=["ddp"])):
        monkeypatch.setattr(module, "DistributedDataParallel", lambda **options: wrapped.append(options))
    for kind in (DataParallel, DDPStrategy):
        monkeypatch.setattr(kind, "determine_ddp_device_ids", lambda self: [1])
    model = nn.Linear(1, 1)
    DataParallel(find_unused_parameters=True)._setup_model(model)
    assert wrapped == [{"module": model, "device_ids": [1], "find_unused_parameters": True}]
    with pytest.raises(AssertionError, match="a stream was made"):
        DDPStrategy()._setup_model(model)
