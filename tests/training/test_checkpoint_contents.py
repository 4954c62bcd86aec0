"""A checkpoint holds what trains and nothing else, and only the matching one is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.training.conftest import one_stage
from theworld.models.parameter_groups import parameter_groups

pytestmark = pytest.mark.filterwarnings("ignore:Stopped at optimizer step:UserWarning")  # many runs here stop early


@pytest.fixture
def saved(make_module, make_data, make_trainer, tmp_path) -> Path:
    """A checkpoint after one of two steps of training the world projector."""
    saver = ModelCheckpoint(dirpath=tmp_path / "saved", filename="one", every_n_train_steps=1)
    trainer = make_trainer(saver, enable_checkpointing=True, max_steps=1)
    trainer.fit(make_module(stages=one_stage(world_projector=1e-2)), datamodule=make_data())
    return tmp_path / "saved" / "one.ckpt"


def test_only_what_trains_is_saved(saved, make_module, make_data, make_trainer):
    content = torch.load(saved, weights_only=True)
    assert set(content["state_dict"]) == {
        f"model.cosmos_encoder.projector.layers.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")
    }
    assert saved.stat().st_size < 50_000  # control: the whole tiny model is over 90 kB in float32
    assert "hyper_parameters" not in content  # nothing to build a model from


def test_a_checkpoint_of_other_stages_is_refused(saved, make_module, make_data, make_trainer):
    module = make_module(stages=one_stage(vision=1e-2))
    with pytest.raises(
        ValueError, match=r"found 4 weights in the checkpoint, expected the \d+ that model.stages trains"
    ):
        make_trainer().fit(module, datamodule=make_data(), ckpt_path=saved)


def test_a_checkpoint_without_stages_is_refused(saved, make_module, make_data, make_trainer):
    with pytest.raises(ValueError, match="found no stages, expected at least one to train or to load a checkpoint"):
        make_trainer(limit_val_batches=1).validate(make_module(stages=None), datamodule=make_data(), ckpt_path=saved)


def test_a_checkpoint_of_another_shape_is_refused(saved, make_module, make_data, make_trainer):
    content = torch.load(saved, weights_only=True)
    content["state_dict"]["model.cosmos_encoder.projector.layers.0.weight"] = torch.zeros(16, 3)
    torch.save(content, saved)
    with pytest.raises(ValueError, match=r"found shape \(16, 3\) of model.cosmos_encoder.projector.layers.0.weight"):
        make_trainer().fit(make_module(stages=one_stage(world_projector=1e-2)), datamodule=make_data(), ckpt_path=saved)


def test_an_optimizer_state_in_another_order_is_refused(saved, make_module, make_data, make_trainer):
    content = torch.load(saved, weights_only=True)
    content["optimizer_states"][0]["param_groups"][0]["param_names"].reverse()
    torch.save(content, saved)
    with pytest.raises(ValueError, match="found the optimizer's parameters in another order"):
        make_trainer().fit(make_module(stages=one_stage(world_projector=1e-2)), datamodule=make_data(), ckpt_path=saved)


def test_a_float32_master_survives_loading_into_bfloat16_weights(make_module, make_data, make_trainer, tmp_path):
    settings = {"stages": one_stage(world_projector=1e-2, language=1e-2), "dtype": "bfloat16"}
    saver = ModelCheckpoint(dirpath=tmp_path / "saved", filename="one", every_n_train_steps=1)
    trained, loaded = make_module(**settings), make_module(**settings)
    data = make_data()
    make_trainer(saver, enable_checkpointing=True, max_steps=1, precision="bf16-mixed").fit(trained, datamodule=data)
    trainer = make_trainer(limit_val_batches=1, precision="bf16-mixed")
    trainer.validate(loaded, datamodule=make_data(), ckpt_path=tmp_path / "saved" / "one.ckpt", verbose=False)
    for (group, before), after in zip(
        parameter_groups(trained.world).items(), parameter_groups(loaded.world).values(), strict=True
    ):
        for (name, a), (_, b) in zip(before, after, strict=True):
            assert a.dtype == b.dtype == (torch.bfloat16 if group in ("world_encoder", "vision") else torch.float32)
            assert torch.equal(a, b), name
    masters = [p for _, p in parameter_groups(loaded.world)["language"]]
    assert any(not torch.equal(p, p.bfloat16().float()) for p in masters)  # control: rounding would have lost something
