"""`theworld audit`: load an export and a test set, run all arms, write what was found."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from rich import print as rich_print
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import PretrainedConfig

from theworld.assets import resolve
from theworld.data.pictures.blank import BlankImage
from theworld.data.pictures.regions import RegionStyle
from theworld.data.processor import TheWorldProcessor
from theworld.data.shards.node_cache import CACHE_BYTES, CACHE_FOLDER
from theworld.data.splits import SourceConfig, SourceOpener
from theworld.evaluation.audit.findings import Settings
from theworld.evaluation.audit.page import page_files, table
from theworld.evaluation.audit.run import audit
from theworld.models.configuration import TheWorldConfig
from theworld.models.loading import cosmos_of
from theworld.models.theworld import TheWorld
from theworld.models.world_sources.attach import attach_trained_source, needs_source


def audit_model(
    model: str,
    *,
    rows: str,
    images: str,
    output: str,
    batch_size: int = 32,
    max_new_tokens: int = 32,
    probes: int = 8,
    seed: int = 0,
    level: float = 0.001,
    margin: float = 0.05,
    region_style: RegionStyle = "box",
    max_seq_length: int = 6144,
    blank_image: BlankImage | None = None,
    cosmos_model: str | None = None,
    text: str | None = None,
    device: str | None = None,
) -> None:
    """Ask whether a model relies on its world tokens or on its image: the same questions with each of them taken away.

    Writes `audit.json`, `report.html`, `audit.png` and `predictions/<arm>.jsonl`. Arms that cannot differ because a
    branch is disconnected are an error, with status 1, which names the likely cause; the files are written even so.

    Args:
        model: Folder of an export with a world branch.
        rows: Test rows in OSD's schema, one question each.
        images: Folder of their images.
        output: Folder for the report.
        batch_size: Most prompts of a batch.
        max_new_tokens: Longest answer, in tokens.
        probes: Samples over which attention and gradients are measured.
        seed: Of the noise and of the exchange between samples.
        level: Of significance: reliance needs a p below it.
        margin: Largest difference of accuracies that passes for none; 0.05 is 5 points.
        region_style: How regions are drawn, as in training.
        max_seq_length: Longest row in tokens; longer ones are not asked.
        blank_image: Of a control: the tower that sees plain colours, as the export was trained.
        cosmos_model: Where the denoiser of a model of several frames is read; default: NVIDIA's repository.
        text: The text embeddings such a model was trained with, if there were any.
        device: Where to compute; by default a GPU if there is one.
    """
    settings = Settings(
        batch_size=batch_size, max_new_tokens=max_new_tokens, probes=probes, seed=seed, level=level, margin=margin
    )
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    loaded = _load(model, place, cosmos_model=cosmos_model, text=text)
    config = loaded.config
    processor = TheWorldProcessor.from_pretrained(
        model,
        num_world_tokens=config.num_world_tokens if config.enable_world else 0,
        world_image_size=config.world_image_size,
        enable_world=config.enable_world,
        blank_image=blank_image,
    )
    opener = SourceOpener(
        processor=processor,
        max_seq_length=max_seq_length,
        region_style=region_style,
        skip_malformed=False,
        cache_dir=CACHE_FOLDER,
        cache_bytes=CACHE_BYTES,
    )
    samples = opener.open(SourceConfig(name="audit", path=rows, images=images))
    print(samples.index.summary())
    with _progress() as progress:
        findings = audit(loaded, samples, settings, progress=progress, name=model)
    rich_print(table(findings))
    contents = findings.files() | page_files(findings)  # all of it before the first is written
    for name, content in contents.items():
        path = Path(output).expanduser() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        print(f"Wrote {path}")
    if findings.errors:
        sys.exit("theworld audit: " + "\n".join(findings.errors))


def _load(model: str, place: torch.device, *, cosmos_model: str | None, text: str | None) -> TheWorld:
    """An export as it was trained, also one without a world branch, which the audit then refuses with its reason."""
    stored, _ = PretrainedConfig.get_config_dict(resolve(model))
    if stored.get("model_type") != TheWorldConfig.model_type:
        raise ValueError(
            f"found model_type {stored.get('model_type')!r} in {model}, expected an export of a training run; a base "
            "has no trained world projector that could be audited"
        )
    loaded = TheWorld.from_pretrained(model, enable_world=bool(stored["enable_world"])).to(place).eval()
    if needs_source(loaded.config):
        attach_trained_source(loaded, cosmos_of(model, cosmos_model), text=text, dtype=loaded.dtype)
    return loaded


def _progress() -> Progress:
    return Progress(TextColumn("{task.description:<20}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
