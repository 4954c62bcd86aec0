"""A source is one file: what names it is found by its `kind`, and the frame as a source is what a model does alone."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file

from tests.models.world_sources.conftest import new_vae
from tests.tiny import osd_row, write_osd
from theworld.cli import main
from theworld.evaluation.loaded_model import load_model
from theworld.models.theworld import TheWorld
from theworld.models.world_encoder import WorldEncoder
from theworld.models.world_sources.attach import attach_trained_source, known_settings, needs_source
from theworld.models.world_sources.frame import Frame, FrameSettings
from theworld.models.world_sources.hidden_states import HiddenStatesSettings
from theworld.models.world_sources.rollout import RolloutSettings
from theworld.models.world_sources.source import SourceSettings

SIDE = 32


def test_every_file_with_settings_is_known():
    assert known_settings() == {
        "frame": FrameSettings,
        "rollout": RolloutSettings,
        "hidden_states": HiddenStatesSettings,
    }


def test_settings_come_back_from_a_fingerprint():
    settings = RolloutSettings(num_world_steps=3, guidance_scale=1.5, seed=7)
    facts = {"kind": "rollout", "num_world_steps": "3", "guidance_scale": "1.5", "seed": "7"}
    facts |= {"num_inference_steps": "35", "fps": "16", "given_sigma": "0.0001"}
    assert known_settings()["rollout"].from_facts(facts) == settings


def test_the_frame_is_what_the_encoder_makes_and_takes_no_text():
    encoder = WorldEncoder(new_vae())
    source = FrameSettings().source(encoder, "unused", text=None, dtype=torch.float32)
    pixels = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert isinstance(source, Frame)
    assert torch.equal(source.encode(pixels, ["a", "b"]), encoder(pixels))
    assert set(source.fingerprint()) == {"kind", "vae_sha256"}
    with pytest.raises(ValueError, match="found text=a for the frame, expected none"):
        FrameSettings().source(encoder, "unused", text="a", dtype=torch.float32)


def test_a_new_source_needs_one_class_and_its_settings(monkeypatch):
    """Nothing but the class statement makes an export of it loadable."""
    monkeypatch.setattr(SourceSettings, "known", dict(SourceSettings.known))

    @dataclass(frozen=True, kw_only=True)
    class TwiceSettings(SourceSettings):
        kind = "twice"
        factor: float = 2.0

        def source(self, vae, cosmos_model, *, text, dtype):
            return Twice(vae, self.factor)

    class Twice(Frame):
        def __init__(self, vae: WorldEncoder, factor: float) -> None:
            super().__init__(vae)
            self.factor = factor

        def encode(self, pixels, keys):
            return self.factor * super().encode(pixels, keys)

        def fingerprint(self):
            return super().fingerprint() | {"kind": "twice", "factor": self.factor}

    model = TheWorld.from_pretrained("theworld-tiny", world_image_size=SIDE, dtype=torch.float32)
    source = Twice(model.cosmos_encoder.vae, 3.0)
    model.config.world_source = {name: str(value) for name, value in source.fingerprint().items()}
    assert needs_source(model.config)
    attach_trained_source(model, "unused", text=None, dtype=torch.float32)
    pixels = torch.rand(1, 3, SIDE, SIDE) * 2 - 1
    assert torch.equal(model.cosmos_encoder.source.encode(pixels, ["a"]), 3.0 * model.cosmos_encoder.vae(pixels))


def test_a_cache_by_the_class_of_the_settings(tmp_path):
    """`--source=…`: entries are those of a cache without a source, and the export of a run on them finds it."""
    path, images = write_osd(tmp_path, [osd_row(number, turns=1) for number in range(2)])
    index, of = tmp_path / "osd.parquet", [f"--rows={path}", f"--images={images}"]
    main(
        ["data", "index", *of, "--base=theworld-tiny", f"--output={index}", f"--world_image_size={SIDE}"]
        + ["--max_seq_length=400", "--num_workers=0"]
    )
    more = ["--device=cpu", "--dtype=float32", "--precision=32-true", "--features=[world_latents]"]
    made = {"plain": [], "source": ["--source=theworld.models.world_sources.frame.FrameSettings"]}
    for name, chosen in made.items():
        words = ["data", "cache", *of, f"--index={index}", "--base=theworld-tiny", f"--output={tmp_path / name}"]
        main([*words, *more, *chosen])
    shards = sorted((tmp_path / "plain" / "world_latents").glob("*.safetensors"))
    assert shards
    for shard in shards:
        plain, source = load_file(shard), load_file(tmp_path / "source" / "world_latents" / shard.name)
        assert plain.keys() == source.keys()
        assert all(torch.equal(plain[name], source[name]) for name in plain)
    main(
        ["fit", "--trainer.accelerator=cpu", "--trainer.precision=32-true", f"--trainer.default_root_dir={tmp_path}"]
        + ["--trainer.logger=false", "--trainer.enable_progress_bar=false", "--model.dtype=float32"]
        + ["--model.base=theworld-tiny", f"--model.world_image_size={SIDE}", "--data.micro_batches_per_step=1"]
        + ["--model.stages={s: {learning_rates: {world_projector: 1.0e-2}, max_steps: 1, warmup_steps: 0}}"]
        + [f"--data.train_path={path}", f"--data.train_images={images}", f"--data.train_index={index}"]
        + [f"--data.train_features={tmp_path / 'source'}", "--data.token_budget=400", "--data.max_seq_length=400"]
        + ["--data.num_workers=0"]
    )
    loaded = load_model(str(tmp_path / "export" / "s"), dtype=torch.float32, device=torch.device("cpu"))
    assert loaded.model.config.world_source["kind"] == "frame"
    assert isinstance(loaded.model.cosmos_encoder.source, Frame)
