"""The index counts what the processor makes, keeps whole turns, and excludes nothing in silence."""

import numpy as np
import pytest
from PIL import Image

from theworld.data.indexing.build import build_index
from theworld.data.pictures.regions import global_regions
from theworld.types import IGNORE_INDEX


def test_lengths_are_those_of_the_samples(open_osd, make_row, processor):
    rows = open_osd([make_row(i, turns=1 + i % 3) for i in range(5)])
    index = build_index(rows, processor, max_seq_length=400, name="train")
    image = Image.new("RGB", (40, 30))
    for number in range(5):
        named, _ = global_regions(rows[number].turns, rows[number].boxes)
        sample = processor.encode(named, image, "x", max_seq_length=400)
        assert index.lengths[number] == len(sample.input_ids)
        assert index.targets[number] == (sample.labels != IGNORE_INDEX).sum()
    assert index.num_turns.tolist() == index.kept_turns.tolist() == [1, 2, 3, 1, 2]
    assert index.num_images.tolist() == [1] * 5
    assert index.eligible.tolist() == [0, 1, 2, 3, 4]
    assert set(index.verdicts) == {"ok"}


def test_over_long_rows_lose_whole_turns_or_are_excluded(open_osd, make_row, processor):
    long = make_row(2)
    long["conversations"][0]["value"] += "x" * 100
    rows = open_osd([make_row(0), make_row(1, turns=3), long])
    full = build_index(rows, processor, max_seq_length=1000, name="train")
    limit = int(full.lengths[0]) + 20
    index = build_index(rows, processor, max_seq_length=limit, name="train")
    assert index.kept_turns.tolist() == [1, 1, 0]
    assert index.eligible.tolist() == [0, 1]
    assert index.lengths.max() <= limit
    assert index.lengths[2] == index.targets[2] == index.num_images[2] == 0
    assert index.verdicts[2].startswith("too long: ")
    assert (
        f"the first turn needs {full.lengths[2]} tokens, expected at most max_seq_length={limit}" in index.verdicts[2]
    )
    assert index.sha256 != full.sha256
    summary = index.summary()
    assert summary.startswith("train: 3 rows, 2 ok, 2 trailing turns dropped from 1 rows")
    assert summary.endswith("1 excluded (too long)")
    with pytest.raises(ValueError, match="none of the 3 rows .* raise max_seq_length=20"):
        build_index(rows, processor, max_seq_length=20, name="train")


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"filename": "absent"}, "missing image", "row 1 .* id 'row-1': found no image 'absent'"),
        (
            {"bbox": [[2, 3, 12, 20], [50, 3, 60, 20]]},
            "bad region",
            r"row 1 \(byte \d+\), id 'row-1': box \(50.0, .* its 40 x 30 image",
        ),
        (
            {"conversations": [{"from": "human", "value": "<mask> <mask>"}, {"from": "gpt", "value": "Region [2]"}]},
            "bad region",
            r"row 1 \(byte \d+\), id 'row-1': answer 0 names",
        ),
        (
            {
                "conversations": [
                    {"from": "human", "value": "<mask> <mask> <unused7>"},
                    {"from": "gpt", "value": "Yes"},
                ]
            },
            "bad conversation",
            "row 1 .* id 'row-1': .* control token",
        ),
    ],
)
def test_malformed_rows_stop_or_are_counted(open_osd, make_row, processor, changes, code, message):
    rows = open_osd([make_row(0), make_row(1, **changes), make_row(2)])
    with pytest.raises(ValueError, match=message):
        build_index(rows, processor, max_seq_length=400, name="train")
    index = build_index(rows, processor, max_seq_length=400, name="train", skip_malformed=True)
    assert index.eligible.tolist() == [0, 2]
    assert index.verdicts[1].startswith(f"{code}: ")
    assert index.summary().endswith(f"1 excluded ({code})")


def test_mask_style_checks_masks(open_osd, make_row, processor):
    good = [{"size": [30, 40], "counts": [1200]}] * 2
    bad = [{"size": [30, 40], "counts": [1199]}] * 2
    build_index(open_osd([make_row(0, rle=good)]), processor, max_seq_length=400, name="t", region_style="mask")
    for changes, message in (({"rle": bad}, "runs add up to 1199"), ({}, "needs `rle`")):
        rows = open_osd([make_row(0, **changes)])
        build_index(rows, processor, max_seq_length=400, name="t")
        with pytest.raises(ValueError, match=message):
            build_index(rows, processor, max_seq_length=400, name="t", region_style="mask")


def test_hash_follows_content(open_osd, make_row, processor):
    def digest(*rows):
        return build_index(open_osd(list(rows)), processor, max_seq_length=400, name="t").sha256

    first = digest(make_row(0), make_row(1))
    assert first == digest(make_row(0), make_row(1))
    moved = make_row(1, bbox=[[2, 3, 12, 20], [20, 10, 38, 29]])
    changed = [digest(make_row(0), moved), digest(make_row(1), make_row(0)), digest(make_row(0))]
    assert len({first, *changed}) == 4
    assert np.all([len(d) == 64 for d in changed])
