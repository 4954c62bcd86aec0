"""`theworld data …`: make synthetic scenes, index rows, write shards, cache features, look data over.

    theworld data synthetic --num_train=100
    theworld data index --rows=osd.json --images=openimages --output=osd.parquet --base=google/gemma-3-4b-it
    theworld data shard --index=osd.parquet --rows=osd.json --images=openimages --output=shards
    theworld data cache --index=shards/index.parquet --shards=shards --output=features --base=google/gemma-3-4b-it
    theworld data inspect --index=shards/index.parquet --shards=shards --token_budget=14336 --output=look

Each tool is a function whose arguments are its flags; `theworld data index --help` lists them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser

from theworld.data.indexing.file import index_file
from theworld.data.indexing.index import Index
from theworld.data.inspection.findings import inspect_source, print_findings, write_findings
from theworld.data.pictures.regions import RegionStyle
from theworld.data.processor import TheWorldProcessor
from theworld.data.rows.formats import format_named
from theworld.data.shards.store import open_store
from theworld.data.shards.tar_check import check_shards
from theworld.data.shards.writer import SHARD_BYTES, write_shards
from theworld.data.stores import FolderStore
from theworld.data.synthetic import SyntheticScenes
from theworld.data.synthetic.pair_pictures import PairPictures
from theworld.feature_cache import cache_features
from theworld.world_tokens import num_world_tokens


def data_tool(args: Sequence[str]) -> None:
    """Run `theworld data` with these arguments; a mistake in the data ends it with a message and status 1."""
    parser = make_parser()
    settings = parser.parse_args(list(args))
    tool, _ = TOOLS[settings.tool]
    try:
        arguments = vars(parser.instantiate_classes(settings)[settings.tool])
        _generate(tool(**arguments)) if isinstance(tool, type) else tool(**arguments)
    except (ValueError, OSError) as error:
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
        sys.exit(f"theworld data {settings.tool}: {error}{notes}")
    except KeyboardInterrupt:
        sys.exit(f"theworld data {settings.tool}: interrupted; the same command goes on where it stopped.")


def make_parser() -> ArgumentParser:
    """The command line of `theworld data`: a subcommand a tool, its arguments as flags."""
    parser = ArgumentParser(prog="theworld data", description="Tools that make, index, store and show data.")
    tools = parser.add_subcommands(dest="tool")
    for name, (tool, flags) in TOOLS.items():
        summary = (tool.__doc__ or "").splitlines()[0]
        subparser = ArgumentParser(description=summary)
        if isinstance(tool, type):
            subparser.add_class_arguments(tool, as_group=False)
        else:
            subparser.add_function_arguments(tool, as_group=False, skip=set(flags))
        for flag, meaning in flags.items():
            subparser.add_argument(f"--{flag}", action="store_true", help=meaning)
        tools.add_subcommand(name, subparser, help=summary)
    return parser


def _generate(scenes: SyntheticScenes | PairPictures) -> None:
    made = scenes.generate()
    paths = made if isinstance(made, dict) else asdict(made)
    for name, path in paths.items():
        print(f"{name}: {path}")


def index_rows(
    *,
    rows: str,
    images: str,
    output: str,
    base: str,
    row_format: Literal["osd", "llava", "vsr"] = "osd",
    max_seq_length: int = 6144,
    region_style: RegionStyle = "box",
    enable_world: bool = True,
    world_image_size: int = 512,
    world_projection_mode: Literal["spatial", "channel"] = "spatial",
    num_world_steps: int = 0,
    world_tokens_per_frame: int | None = None,
    world_latent_shape: tuple[int, int] | None = None,
    num_workers: int | None = None,
    check_images: bool = True,
    restart: bool = False,
) -> None:
    """Check every row and image of a file once, and write what they weigh in tokens into a parquet file.

    An interrupted run goes on where it stopped when it is started again in the same way.

    Args:
        rows: JSON array of objects, or JSON Lines.
        images: Folder below which every image lies.
        output: The parquet file to make.
        base: Directory or Hub name of the base model (or `theworld-tiny`), for its tokenizer.
        row_format: What the rows are: `osd`, `llava` or `vsr`.
        max_seq_length: Longest sample in tokens, placeholders included; trailing turns beyond it are dropped.
        region_style: `box` outlines regions, `mask` tints them (needs `rle` in the rows).
        enable_world: False counts no world tokens.
        world_image_size: Side of the world encoder's square input, in pixels.
        world_projection_mode: `spatial` has a world token a latent cell, `channel` one a latent channel.
        num_world_steps: Future latent frames besides the image's own.
        world_tokens_per_frame: World tokens of a latent frame in spatial mode, a square; by default one a cell.
        world_latent_shape: Channels and stride in pixels of a world source's latents, if not the VAE's.
        num_workers: Worker processes besides this one; 0 works in this one, by default one a CPU.
        check_images: Decode every image to find damaged ones; False hashes them and reads their headers.
        restart: Throw away what an interrupted run has finished.
    """
    processor = TheWorldProcessor.from_pretrained(
        base,
        num_world_tokens=num_world_tokens(
            world_image_size, world_projection_mode, num_world_steps, world_tokens_per_frame, world_latent_shape
        ),
        world_image_size=world_image_size,
        enable_world=enable_world,
    )
    index = index_file(
        Path(rows).expanduser(),
        image_folder=Path(images).expanduser(),
        output=Path(output).expanduser(),
        processor=processor,
        row_format=row_format,
        max_seq_length=max_seq_length,
        region_style=region_style,
        num_workers=num_workers,
        check_images=check_images,
        restart=restart,
    )
    print(index.summary())
    if not len(index):
        sys.exit(f"{output}: none of the rows can be used; `theworld data inspect` shows why.")


def shard_rows(*, index: str, rows: str, images: str, output: str, shard_bytes: int = SHARD_BYTES) -> None:
    """Write rows and images as WebDataset tars, with an index of their own.

    An interrupted run goes on where it stopped when it is started again in the same way.

    Args:
        index: The parquet file that `theworld data index` made.
        rows: The file that was indexed.
        images: The folder that was indexed.
        output: Folder of the tars and of `index.parquet`.
        shard_bytes: Most bytes of a tar, unless one row is larger.
    """
    made = Index.read(Path(index).expanduser())
    store = FolderStore(made, rows_path=Path(rows).expanduser(), image_folder=Path(images).expanduser())
    sharded = write_shards(store, made, Path(output).expanduser(), shard_bytes=shard_bytes)
    print(f"{len(sharded.header.shards)} shards and index.parquet in {output}")
    print(sharded.summary())


def inspect_rows(
    *,
    index: str,
    token_budget: int,
    output: str,
    rows: str | None = None,
    images: str | None = None,
    shards: str | None = None,
    max_images: int | None = None,
    samples: int = 12,
    seed: int = 0,
    verify: bool = False,
) -> None:
    """Show what an index says, how its samples pack into a budget, and samples as the model sees them.

    Args:
        index: The parquet file that `theworld data index` or `theworld data shard` made.
        token_budget: Tokens of a packed row.
        output: Folder for `inspect.html`, `contact_sheet.png` and `histograms.png`.
        rows: The file that was indexed.
        images: The folder that was indexed.
        shards: Folder or URL of the tars, in place of `rows` and `images`.
        max_images: Most images of a packed row; by default any number.
        samples: How many samples are shown.
        seed: Seed of their choice and of the plan.
        verify: Read the shards from end to end, and name every row that is not as it was written.
    """
    found = Index.read(Path(index).expanduser())
    if verify:
        if shards is None:
            raise ValueError("--verify reads shards from end to end, expected --shards; add it, or leave out --verify.")
        report = check_shards(found, shards)
        print(report.summary())
        if not report.is_intact:
            sys.exit(1)
    findings = inspect_source(
        open_store(found, rows, images, shards),
        found,
        row_format=format_named(found.header.row_format),
        token_budget=token_budget,
        max_images=max_images,
        samples=samples,
        seed=seed,
    )
    title = f"{Path(index).name}: {len(findings.cards)} of {len(found):,} samples (seed {seed})"
    print_findings(findings, title=title)
    for path in write_findings(findings, Path(output).expanduser(), title=title):
        print(path)


TOOLS: dict[str, tuple[Callable[..., object], dict[str, str]]] = {
    "synthetic": (SyntheticScenes, {}),
    "pairs": (PairPictures, {}),
    "index": (index_rows, {"restart": "Throw away what an interrupted run has finished."}),
    "shard": (shard_rows, {}),
    "cache": (cache_features, {"restart": "Throw away what is there of these features."}),
    "inspect": (inspect_rows, {"verify": "Read the shards from end to end, and name every row that is lost."}),
}
"""Tools by name, with their arguments that take no value."""
