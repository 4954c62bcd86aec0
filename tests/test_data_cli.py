"""The tools under `theworld data`, from rows to shards to a look at them; mistakes end with a message."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path
from typing import get_args

import pytest

from tests.tiny import osd_row, write_osd
from theworld import data_cli
from theworld.cli import main
from theworld.data.datamodule import OSDDataModule
from theworld.data.indexing.index import Index
from theworld.data.rows.formats import FORMATS
from theworld.data.stores import FolderStore
from theworld.training.module import TheWorldModule

BASE = ["--base=theworld-tiny", "--world_image_size=64", "--max_seq_length=400", "--num_workers=0"]


@pytest.fixture
def source(tmp_path) -> tuple[str, str]:
    rows, images = write_osd(tmp_path, [osd_row(i, turns=1 + i % 3) for i in range(6)] + [osd_row(7, bbox=[])])
    return f"--rows={rows}", f"--images={images}"


@pytest.fixture
def indexed(source, tmp_path) -> Path:
    main(["data", "index", *source, *BASE, f"--output={tmp_path / 'osd.parquet'}"])
    return tmp_path / "osd.parquet"


@pytest.fixture
def ended(capsys):
    """Runs a tool that must fail; returns its message."""

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as stop:
            main(["data", *arguments])
        assert stop.value.code not in (0, None)
        return f"{stop.value.code} {capsys.readouterr().err}"

    return run


def test_from_rows_to_shards_to_a_look(source, indexed, tmp_path, capsys):
    index = Index.read(indexed)
    assert index.verdict_counts() == {"ok": 6, "mask count": 1}
    assert index.header.settings.num_world_tokens == 64

    shards = tmp_path / "shards"
    main(["data", "shard", f"--index={indexed}", *source, f"--output={shards}", "--shard_bytes=65536"])
    sharded = Index.read(shards / "index.parquet")
    assert sharded.sha256 == index.sha256
    assert f"{len(sharded.header.shards)} shards and index.parquet in {shards}" in capsys.readouterr().out

    look = ["data", "inspect", "--token_budget=800", "--samples=3"]
    main([*look, f"--index={indexed}", *source, f"--output={tmp_path / 'a'}"])
    main([*look, f"--index={shards / 'index.parquet'}", f"--shards={shards}", f"--output={tmp_path / 'b'}", "--verify"])
    assert "0 lost" in capsys.readouterr().out
    for name in ("contact_sheet.png", "histograms.png"):
        found = [(tmp_path / folder / name).stat().st_size for folder in "ab"]
        assert min(found) > 1000
    assert (tmp_path / "a" / "histograms.png").read_bytes() == (tmp_path / "b" / "histograms.png").read_bytes()
    assert "mask count" in (tmp_path / "a" / "inspect.html").read_text(encoding="utf-8")


def test_a_flipped_byte_in_a_shard_is_named_and_ends_with_status_1(source, indexed, tmp_path, capsys):
    shards = tmp_path / "shards"
    main(["data", "shard", f"--index={indexed}", *source, f"--output={shards}"])
    sharded = Index.read(shards / "index.parquet")
    tar = bytearray((shards / "shard-000000.tar").read_bytes())
    tar[sharded.number("image_offset", 3) + 20] ^= 1
    (shards / "shard-000000.tar").write_bytes(tar)
    verify = ["data", "inspect", f"--index={shards / 'index.parquet'}", f"--shards={shards}", "--token_budget=800"]
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([*verify, f"--output={tmp_path / 'look'}", "--verify"])
    assert stop.value.code == 1
    printed = capsys.readouterr().out
    assert "1 lost" in printed
    assert "id 'row-3'" in printed
    assert "row-2" not in printed


def test_an_interrupted_index_goes_on_or_begins_again(source, ended, tmp_path, monkeypatch):
    output = f"--output={tmp_path / 'osd.parquet'}"
    written = []

    def stop(self: Index, path: Path) -> None:
        written.append(path)
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Index, "write", stop)
        assert "theworld data index: disk full" in ended("index", *source, *BASE, output)
    assert len(written) == 1
    parts = tmp_path / "osd.parquet.parts"
    assert parts.is_dir()
    changed = [argument for argument in BASE if "max_seq" not in argument] + ["--max_seq_length=300"]
    assert "max_seq_length (then 400, now 300)" in ended("index", *source, *changed, output)
    main(["data", "index", *source, *changed, output, "--restart"])
    assert Index.read(tmp_path / "osd.parquet").max_seq_length == 300
    assert not parts.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "--index={index}", "--token_budget=800", "--output=x"], "expected rows and images, or shards"),
        (["inspect", "--index={index}", "{rows}", "{images}", "--token_budget=50", "--output=x"], "raise token_budget"),
        (
            ["inspect", "--index={index}", "{rows}", "{images}", "--token_budget=800", "--output=x", "--verify"],
            "--shards",
        ),
        (["inspect", "--index=none.parquet", "{rows}", "{images}", "--token_budget=800", "--output=x"], "none.parquet"),
        (["shard", "--index={index}", "--rows=none.json", "{images}", "--output=x"], "none.json"),
        (["index", "--rows=none.json", "{images}", "--output=x.parquet", *BASE], "none.json: no such file"),
        (["index", "{rows}", "{images}", "--output=x", *BASE, "--row_format=coco"], "row_format"),
        (["index", "{rows}", "{images}", "--output=x"], "index.base"),
        (["repair"], "repair"),
    ],
)
def test_mistakes_are_named(source, indexed, ended, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    names = {"index": indexed, "rows": source[0], "images": source[1]}
    assert message in ended(*(argument.format(**names) for argument in arguments))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("place", ["README.md", "theworld/data_cli.py", "experiments/speed/data/README.md"])
def test_documented_commands_are_accepted(place):
    """Every flag that a document names is one, and none that is required is left out."""
    text = (Path(__file__).parents[1] / place).read_text(encoding="utf-8")
    text = re.sub(r"#.*$|\.\.\.", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    commands = re.findall(r"^ *theworld data (.+)$", text, flags=re.MULTILINE)
    assert commands
    for command in commands:
        data_cli.make_parser().parse_args(shlex.split(command))


def test_settings_default_to_those_of_training():
    """An index made with defaults fits a run with defaults."""
    tool = inspect.signature(data_cli.index_rows).parameters
    for trained in (OSDDataModule, TheWorldModule):
        for name, parameter in inspect.signature(trained.__init__).parameters.items():
            if name in tool and name not in ("num_workers", "base"):
                assert tool[name].default == parameter.default, name
    assert "max_seq_length" in tool
    assert "world_projection_mode" in tool


def test_the_formats_offered_are_those_there_are():
    assert set(get_args(inspect.get_annotations(data_cli.index_rows, eval_str=True)["row_format"])) == set(FORMATS)


def test_rows_of_other_formats_are_indexed_by_their_own_rules(tmp_path, capsys):
    _, images = write_osd(tmp_path, [osd_row(0)])
    rows = tmp_path / "vsr.jsonl"
    rows.write_text('{"image": "img0.png", "caption": "The cat is on the mat.", "label": 0, "relation": "on"}\n' * 2)
    output = tmp_path / "vsr.parquet"
    main(["data", "index", f"--rows={rows}", f"--images={images}", *BASE, f"--output={output}", "--row_format=vsr"])
    assert "2 rows, 2 ok" in capsys.readouterr().out
    index = Index.read(output)
    assert index.header.row_format == "vsr"
    assert [index.text("id", row) for row in range(2)] == ["img0.png#0", "img0.png#1"]
    assert FolderStore(index, rows_path=rows, image_folder=images).row_bytes(1).startswith(b'{"image"')
    main(
        [
            *("data", "inspect", f"--index={output}", f"--rows={rows}", f"--images={images}", "--token_budget=400"),
            f"--output={tmp_path / 'look'}",
        ]
    )
    page = (tmp_path / "look" / "inspect.html").read_text(encoding="utf-8")
    assert "Is the following statement true? The cat is on the mat." in page
    assert "No." in page


def test_home_is_expanded_in_every_path(source, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    main(["data", "index", *source, *BASE, "--output=~/osd.parquet"])
    assert (tmp_path / "osd.parquet").is_file()
    main(["data", "shard", "--index=~/osd.parquet", *source, "--output=~/shards"])
    assert (tmp_path / "shards" / "index.parquet").is_file()
