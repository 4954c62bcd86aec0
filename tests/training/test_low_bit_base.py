"""A run on a low-bit base: it trains the rest, and exports on the base as it was before rounding."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import load_file

from tests.training.conftest import one_stage
from theworld.models.low_bit import FrozenInt8Linear
from theworld.models.theworld import TheWorld
from theworld.training.callbacks.stage_export import StageExport

pytestmark = pytest.mark.filterwarnings("ignore:Stopped at optimizer step:UserWarning")
STAGES = one_stage(2, world_projector=1e-2, vision=1e-3)


def test_the_export_is_what_trained_on_the_true_base(base, make_module, make_data, make_trainer, tmp_path):
    """Through the trainer, from bfloat16 weights: what is frozen is the base's, what trains is the run's."""
    module = make_module(stages=STAGES, low_bit_base=True, dtype="bfloat16")
    make_trainer(StageExport(), precision="bf16-mixed").fit(module, datamodule=make_data())
    rounded = [name for name, m in module.world.named_modules() if isinstance(m, FrozenInt8Linear)]
    assert len(rounded) == 7 * 2
    exported = TheWorld.from_pretrained(tmp_path / "export" / "only")
    original = TheWorld.from_pretrained(base, world_image_size=16, dtype=torch.bfloat16).state_dict()
    trained = module.world.state_dict()
    state = exported.state_dict()
    assert state.keys() == original.keys()
    for name, weight in state.items():
        if not name.startswith(("cosmos_encoder.projector.", "gemma.model.vision", "gemma.model.multi_modal")):
            assert torch.equal(weight, original[name]), name
        else:
            assert torch.equal(weight, trained[name].to(weight.dtype)), name
    moved = [n for n in state if "vision_tower" in n and not torch.equal(state[n].float(), original[n].float())]
    assert moved  # control: training changed something
    stored = load_file(tmp_path / "export" / "only" / "model.safetensors")
    assert not any("int8" in name or name.endswith(".scale") for name in stored)


def test_a_resumed_run_rounds_its_base_again(make_module, make_data, make_trainer, tmp_path):
    settings = {"stages": STAGES, "low_bit_base": True}
    saver = ModelCheckpoint(dirpath=tmp_path, filename="one", every_n_train_steps=1, save_top_k=1)
    make_trainer(saver, enable_checkpointing=True, max_steps=1).fit(make_module(**settings), datamodule=make_data())
    whole = make_module(**settings)
    make_trainer().fit(whole, datamodule=make_data())
    resumed = make_module(**settings)
    make_trainer().fit(resumed, datamodule=make_data(), ckpt_path=tmp_path / "one.ckpt")
    for (name, ours), theirs in zip(resumed.world.named_parameters(), whole.world.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


def test_stages_that_train_the_language_model_are_refused(make_module):
    with pytest.raises(ValueError, match="found low_bit_base=True with the language model among"):
        make_module(low_bit_base=True)
    make_module(low_bit_base=True, stages=None)  # to test or to validate


def test_answers_are_generated_on_a_low_bit_base(make_module, make_data, make_trainer):
    module = make_module(low_bit_base=True, stages=None)
    answers = make_trainer().predict(module, datamodule=make_data())
    assert sum(len(batch) for batch in answers) == 5
