"""Packed and padded batches, every value spelled out."""

import pytest
import torch

from theworld.data.packing.collator import pack, pad
from theworld.types import IGNORE_INDEX, FailedSample, Sample

X = IGNORE_INDEX


def _sample(name, ids, labels, images=1, worlds=1):
    value = float(ord(name))
    return Sample(
        id=name,
        input_ids=torch.tensor(ids),
        labels=torch.tensor(labels),
        token_type_ids=torch.tensor([2, 1, *[0] * (len(ids) - 2)]),
        pixel_values=torch.full((images, 3, 2, 2), value),
        world_pixel_values=torch.full((worlds, 3, 4, 4), -value),
    )


@pytest.fixture
def samples():
    return [_sample("a", [11, 12, 13, 14], [X, X, 13, 14]), _sample("b", [21, 22, 23], [X, 22, X])]


def test_packed_row(samples):
    batch = pack(samples, budget=10, pad_token_id=7, step_target_tokens=99)
    assert batch.input_ids.tolist() == [[11, 12, 13, 14, 21, 22, 23, 7, 7, 7]]
    assert batch.labels.tolist() == [[X, X, 13, 14, X, 22, X, X, X, X]]
    assert batch.token_type_ids.tolist() == [[2, 1, 0, 0, 2, 1, 0, 0, 0, 0]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 0, 1, 2, 0, 1, 2]]
    assert batch.document_ids.tolist() == [[0, 0, 0, 0, 1, 1, 1, -1, -1, -1]]
    assert batch.target_positions.tolist() == [1, 2, 4]
    assert batch.step_target_tokens == 99
    assert batch.num_target_tokens == 3
    assert batch.num_tokens == 7
    assert batch.document_lengths == (4, 3)
    assert batch.ids == ("a", "b")
    assert batch.pixel_values[:, 0, 0, 0].tolist() == [97, 98]
    assert batch.world_pixel_values[:, 0, 0, 0].tolist() == [-97, -98]


def test_row_that_is_exactly_full(samples):
    batch = pack(samples, budget=7, pad_token_id=7, step_target_tokens=3)
    assert batch.input_ids.shape == (1, 7)
    assert batch.document_ids.min() == 0


@pytest.mark.parametrize(
    ("side", "ids", "positions", "documents", "targets"),
    [
        (
            "left",
            [[11, 12, 13, 14], [7, 21, 22, 23]],
            [[0, 1, 2, 3], [0, 0, 1, 2]],
            [[0, 0, 0, 0], [-1, 0, 0, 0]],
            [1, 2, 5],
        ),
        (
            "right",
            [[11, 12, 13, 14], [21, 22, 23, 7]],
            [[0, 1, 2, 3], [0, 1, 2, 0]],
            [[0, 0, 0, 0], [0, 0, 0, -1]],
            [1, 2, 4],
        ),
    ],
)
def test_padded_batch(samples, side, ids, positions, documents, targets):
    batch = pad(samples, pad_token_id=7, side=side)
    assert batch.input_ids.tolist() == ids
    assert batch.position_ids.tolist() == positions
    assert batch.document_ids.tolist() == documents
    assert batch.target_positions.tolist() == targets
    assert batch.step_target_tokens == 3
    flat_labels = batch.labels.flatten()
    assert flat_labels[batch.target_positions + 1].tolist() == [13, 14, 22]
    assert (flat_labels != X).sum() == 3


def test_no_targets_and_no_images():
    batch = pad([_sample("a", [1, 2, 3], [X, X, X], images=0, worlds=0)], pad_token_id=7, side="left")
    assert batch.target_positions.shape == (0,)
    assert batch.target_positions.dtype == torch.int64
    assert batch.pixel_values.shape == (0, 3, 2, 2)


def test_refusals(samples):
    with pytest.raises(ValueError, match=r"found 7 tokens in 2 samples \['a', 'b'\], expected 1 to 6 tokens"):
        pack(samples, budget=6, pad_token_id=7, step_target_tokens=3)
    first_is_target = _sample("c", [1, 2], [1, 2])
    with pytest.raises(ValueError, match="c: its first token is a target"):
        pack([samples[0], first_is_target], budget=10, pad_token_id=7, step_target_tokens=3)
    with pytest.raises(ValueError, match="c: its first token is a target"):
        pad([first_is_target], pad_token_id=7, side="left")
    with pytest.raises(ValueError, match="side 'middle'"):
        pad(samples, pad_token_id=7, side="middle")
    with pytest.raises(ValueError, match="found 0 samples"):
        pad([], pad_token_id=7, side="left")
    with pytest.raises(ValueError, match="expected 1 to 6 tokens"):
        pack([], budget=6, pad_token_id=7, step_target_tokens=3)


def test_weights_lie_at_their_targets(samples):
    failed = [FailedSample(id="b", reason="gone", targets=1.0)]
    batch = pack(samples, budget=7, pad_token_id=7, step_target_tokens=2.5, loss_weights=[1.0, 0.5], failed=failed)
    assert batch.target_weights.tolist() == [1.0, 1.0, 0.5]
    assert batch.target_positions.tolist() == [1, 2, 4]
    assert batch.step_target_tokens == 2.5
    assert batch.failed == tuple(failed)
    plain = pack(samples, budget=7, pad_token_id=7, step_target_tokens=3)
    assert (plain.target_weights, plain.failed) == (None, ())
