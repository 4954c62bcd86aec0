"""What an index depends on, gathered from processor and settings; and refusing an index made from other things."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from theworld import __version__
from theworld.data.indexing.index import Index
from theworld.data.indexing.table import IndexHeader, IndexSettings, SourceFile
from theworld.data.processor import TheWorldProcessor


def make_header(
    processor: TheWorldProcessor, *, row_format: str, source: SourceFile, max_seq_length: int, region_style: str
) -> IndexHeader:
    """The header of an index that is made now.

    Args:
        processor: Counts the tokens.
        row_format: Name of the format of the rows.
        source: The file of the rows.
        max_seq_length: Longest sample, in tokens.
        region_style: How regions are drawn.
    """
    return IndexHeader(
        row_format=row_format,
        source=source,
        tokenizer_sha256=tokenizer_sha256(processor.tokenizer),
        settings=IndexSettings(
            max_seq_length=max_seq_length,
            region_style=region_style,
            num_image_tokens=processor.num_image_tokens,
            num_world_tokens=processor.num_world_tokens,
            world_image_size=processor.world_image_size,
            enable_world=processor.enable_world,
        ),
        package_version=__version__,
    )


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str:
    """Hash of all that decides which ids a text becomes."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def refuse_other(index: Index, expected: IndexHeader, *, path: str | Path) -> None:
    """Refuse an index whose counts are not those of this run.

    Args:
        index: As it was read.
        expected: From `make_header`, with any source.
        path: Where it was read, for the message.

    Raises:
        ValueError: Row format, tokenizer or settings differ; says which, and how.
    """
    found = _counted(index.header)
    differences = [
        f"{key} (index {found[key]}, now {value})" for key, value in _counted(expected).items() if found[key] != value
    ]
    if differences:
        raise ValueError(
            f"the index {path} was made with other settings: {'; '.join(differences)}. Make it again with "
            "`theworld data index`, or set the run's back."
        )


def _counted(header: IndexHeader) -> dict[str, object]:
    return {
        "row_format": header.row_format,
        "tokenizer_sha256": header.tokenizer_sha256,
        **asdict(header.settings),
    }
