"""A tiny base with a world branch, and test rows about different pictures, audited by the real command's parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from rich.progress import Progress

from tests.tiny import WORLD_SIDE, WORLD_TOKENS, osd_row, write_osd
from tests.training.conftest import write_tiny_base
from theworld.data.processor import TheWorldProcessor
from theworld.data.samples import OSDSamples
from theworld.data.splits import SourceConfig, SourceOpener
from theworld.evaluation.audit.findings import Findings, Settings
from theworld.evaluation.audit.run import audit
from theworld.models.theworld import TheWorld

NUM_ROWS = 7


@dataclass
class Audited:
    """What `theworld audit` loads, before it runs."""

    base: str
    rows: str
    images: str

    def model(self, **options: object) -> TheWorld:
        torch.manual_seed(0)
        model = TheWorld.from_pretrained(self.base, world_image_size=WORLD_SIDE, dtype=torch.float32, **options)
        if model.cosmos_encoder is not None:
            for layer in model.cosmos_encoder.projector.layers:
                if isinstance(layer, torch.nn.Linear):
                    torch.nn.init.normal_(layer.weight, std=0.5)
        return model

    def samples(self, *, rows: str | None = None, enable_world: bool = True, frames: int = 1) -> OSDSamples:
        processor = TheWorldProcessor.from_pretrained(
            self.base, num_world_tokens=frames * WORLD_TOKENS, world_image_size=WORLD_SIDE, enable_world=enable_world
        )
        opener = SourceOpener(
            processor=processor,
            max_seq_length=512,
            region_style="box",
            skip_malformed=False,
            cache_dir="",
            cache_bytes=1,
        )
        return opener.open(SourceConfig(name="audit", path=rows or self.rows, images=self.images))

    def run(self, model: TheWorld, samples: OSDSamples | None = None, *, batch_size: int = 3) -> Findings:
        settings = Settings(batch_size=batch_size, max_new_tokens=4, probes=2)
        with Progress(disable=True) as progress:
            return audit(model, samples or self.samples(), settings, progress=progress, name="tiny")


@pytest.fixture(scope="session")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Audited:
    folder = tmp_path_factory.mktemp("audited")
    (folder / "base").mkdir()
    write_tiny_base(folder / "base")
    rows = [osd_row(n, answer=("Yes", "No")[n % 2] + ".", id=f"test-{n}") for n in range(NUM_ROWS)]
    path, images = write_osd(folder, rows, "test.json")
    return Audited(base=str(folder / "base"), rows=str(path), images=str(images))


@pytest.fixture(scope="session")
def findings(audited: Audited) -> Findings:
    """Of a model whose branches both work."""
    return audited.run(audited.model())


@pytest.fixture(scope="session")
def one_picture(audited: Audited, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Rows of their own pictures, all of which are black: as good as missing."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("black")
    rows = [osd_row(n, filename=f"black{n}", id=f"black-{n}") for n in range(4)]
    path, _ = write_osd(folder, rows, "black.json")
    for n in range(4):
        Image.new("RGB", (40, 30)).save(Path(audited.images) / f"black{n}.png")
    return str(path)
