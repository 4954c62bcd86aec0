"""A benchmark's question is seen as the same row is in training: the same pixels, the same ids up to the answer."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from tests.evaluation.benchmarks import published
from theworld.data.indexing.build import build_index
from theworld.data.rows.formats import format_named
from theworld.data.rows.osd import OSDRows
from theworld.data.samples import OSDSamples
from theworld.data.stores import FolderStore
from theworld.evaluation.benchmarks.benchmark import check_items, prompt
from theworld.evaluation.benchmarks.opening import open_benchmark
from theworld.types import IGNORE_INDEX


def training_samples(path, images, processor, *, row_format="osd", region_style="box"):
    """The rows as a training run reads them, from index to pixels."""
    rows = OSDRows(path, image_folder=images, row_format=format_named(row_format))
    index = build_index(rows, processor, max_seq_length=2000, name="train", region_style=region_style)
    store = FolderStore(index, rows_path=path, image_folder=images)
    settings = {"index": index, "processor": processor, "region_style": region_style}
    samples = OSDSamples(store, row_format=format_named(row_format), **settings)
    return [samples[number] for number in range(len(samples))]


def assert_same_view(benchmark, processor, trained, region_style="box"):
    assert len(benchmark.items) == len(trained) > 3
    for item, sample in zip(benchmark.items, trained, strict=True):
        asked = prompt(benchmark, item, processor, region_style=region_style)
        first_target = int(torch.nonzero(sample.labels != IGNORE_INDEX)[0])
        assert torch.equal(asked.input_ids, sample.input_ids[:first_target])
        assert torch.equal(asked.token_type_ids, sample.token_type_ids[:first_target])
        assert torch.equal(asked.pixel_values, sample.pixel_values)
        assert torch.equal(asked.world_pixel_values, sample.world_pixel_values)
        assert asked.world_pixel_values.shape[0] == 1


@pytest.mark.parametrize("region_style", ["box", "mask"])
def test_spatialrgpt_bench_is_seen_as_osd_is_in_training(tmp_path, loaded, region_style):
    rows = published.srgpt_rows()
    path, images = published.write_srgpt(tmp_path, rows)
    same = [
        {key: row[key] for key in ("id", "conversations", "bbox", "rle", "qa_info")}
        | {"filename": row["image_info"]["file_path"]}
        for row in rows
    ]
    (tmp_path / "osd.json").write_text(json.dumps(same))
    trained = training_samples(tmp_path / "osd.json", images, loaded.processor, region_style=region_style)
    inside = published.write_srgpt_parquet(tmp_path / "val.parquet", rows)
    for benchmark in (
        open_benchmark("srgpt", str(path), images=str(images)),
        open_benchmark("srgpt", str(inside)),
        open_benchmark("osd", str(tmp_path / "osd.json"), images=str(images)),
    ):
        assert_same_view(benchmark, loaded.processor, trained, region_style)


def test_vsr_is_seen_as_in_training(tmp_path, loaded):
    path, images = published.write_vsr(tmp_path, published.vsr_rows())
    trained = training_samples(path, images, loaded.processor, row_format="vsr")
    assert_same_view(open_benchmark("vsr", str(path), images=str(images)), loaded.processor, trained)


def test_another_drawing_is_noticed(tmp_path, loaded):
    """The control: one box a pixel further, or the other style, is no longer the same view."""
    path, images = published.write_srgpt(tmp_path, published.srgpt_rows(4))
    benchmark = open_benchmark("srgpt", str(path), images=str(images))
    item = benchmark.items[0]
    first = prompt(benchmark, item, loaded.processor)
    (left, top, right, bottom), other = item.row.boxes
    moved = replace(item, row=replace(item.row, boxes=((left + 1, top, right + 1, bottom), other)))
    for changed in (
        prompt(benchmark, moved, loaded.processor),
        prompt(benchmark, item, loaded.processor, region_style="mask"),
    ):
        assert not torch.equal(changed.pixel_values, first.pixel_values)
        assert not torch.equal(changed.world_pixel_values, first.world_pixel_values)
        assert torch.equal(changed.input_ids, first.input_ids)


def test_multiple_choice_prompts_begin_a_training_sample(tmp_path, loaded):
    folder = str(published.write_cv_bench(tmp_path))
    benchmark = open_benchmark("cvbench", folder)
    for item in benchmark.items[:5]:
        asked = prompt(benchmark, item, loaded.processor)
        trained = loaded.processor.encode(item.row.turns, None, "x", max_seq_length=2000)
        first_target = int(torch.nonzero(trained.labels != IGNORE_INDEX)[0])
        assert torch.equal(asked.input_ids, trained.input_ids[:first_target])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [[900, 900, 950, 950], [4, 6, 30, 40]]}, r"box \(900.0, .* covers less than a pixel of its 64 x 48"),
        (
            {"image_info": {"file_path": "SUNRGBD/kv1/000000.png", "height": 480, "width": 640}},
            r"expected \(640, 480\)",
        ),
        ({"rle": [published.rle_of((0, 0, 9, 9)) | {"size": [4, 6]}] * 2}, r"mask size is \[4, 6\]"),
    ],
)
def test_regions_that_do_not_fit_their_image_are_found_before_the_first_answer(tmp_path, loaded, change, message):
    rows = published.srgpt_rows(3)
    rows[0] |= change
    path, images = published.write_srgpt(tmp_path, rows)
    benchmark = open_benchmark("srgpt", str(path), images=str(images))
    checked = []
    faults = check_items(benchmark, loaded.processor, region_style="box", on_checked=lambda: checked.append(1))
    assert list(faults) == [rows[0]["id"]]
    assert len(checked) == 3
    with pytest.raises(ValueError, match=rf"row 0, id '{rows[0]['id']}'.*{message}"):
        raise ValueError(faults[str(rows[0]["id"])])
