"""Folders that bring code along: none of it is imported, whichever file names it, and what names it is refused.

Other evil inputs are tested where they are read: pickles in checkpoints and manifests (`training/checkpoints`), classes
of other packages in a config (`test_cli.py`), archives, images and rows (`data`).
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, dynamic_module_utils

from tests.tiny import gemma_config, make_tokenizer, write_base
from theworld.data.processor import TheWorldProcessor
from theworld.models.theworld import TheWorld

EVIL = """
import pathlib
from transformers import Gemma3Config, PreTrainedTokenizerFast, Gemma3ImageProcessorPil
pathlib.Path({marker!r}).touch()
class Config(Gemma3Config): ...
class Tokenizer(PreTrainedTokenizerFast): ...
class Images(Gemma3ImageProcessorPil): ...
"""
FILES = {
    "config.json": {"AutoConfig": "evil.Config"},
    "tokenizer_config.json": {"AutoTokenizer": [None, "evil.Tokenizer"]},
    "preprocessor_config.json": {"AutoImageProcessor": "evil.Images"},
}
"""Config file → the `auto_map` it gets."""
READERS = {
    "config.json": AutoConfig,
    "tokenizer_config.json": AutoTokenizer,
    "preprocessor_config.json": AutoImageProcessor,
}


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> dict[str, Path]:
    """A base, and an export of ours made from it."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in ("base", "export")}
    tokenizer = make_tokenizer()
    write_base(folders["base"], gemma_config(vocab_size=len(tokenizer)), tokenizer)
    TheWorld.from_pretrained(folders["base"], world_image_size=16).save_pretrained(folders["export"])
    processor(folders["base"]).save_pretrained(folders["export"])
    return folders


def processor(folder: Path) -> TheWorldProcessor:
    return TheWorldProcessor.from_pretrained(folder, num_world_tokens=4, world_image_size=16)


@pytest.fixture
def evil(clean, tmp_path, monkeypatch):
    """A copy of one of them whose config file names a module beside it; the folder and what the module would make."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.path", [*sys.path])  # transformers adds that folder

    def make(kind: str, file: str) -> tuple[Path, Path]:
        folder, marker = tmp_path / f"{kind}-{file}", tmp_path / f"ran-{kind}-{file}"
        shutil.copytree(clean[kind], folder)
        (folder / "evil.py").write_text(EVIL.format(marker=str(marker)))
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": FILES[file]}))
        return folder, marker

    yield make
    for name in [name for name in sys.modules if name.split(".")[0] == "transformers_modules"]:
        del sys.modules[name]


@pytest.mark.parametrize("kind", ["base", "export"])
@pytest.mark.parametrize("file", FILES)
def test_code_beside_a_model_is_not_imported(evil, kind, file):
    folder, marker = evil(kind, file)
    if file == "config.json":
        with pytest.raises(ValueError, match="found auto_map in .*config.json, expected none"):
            TheWorld.from_pretrained(folder)
    else:
        TheWorld.from_pretrained(folder)
    refusal = "trust_remote_code: not asked for, the classes are known ones"
    try:
        processor(folder)
    except ValueError as error:
        refusal = str(error)
    assert "trust_remote_code" in refusal  # if it refuses, it is transformers' own refusal
    assert not marker.exists()
    READERS[file].from_pretrained(folder, trust_remote_code=True)
    assert marker.exists()  # control: who trusts it runs it
