"""What answers do not depend on: the prompts beside them. And that a prompt is the beginning of a training sample."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.evaluation.benchmarks import published
from theworld.data.packing.collator import pad
from theworld.evaluation.answering import _generate, answer, answer_batch
from theworld.evaluation.benchmarks.benchmark import prompt
from theworld.evaluation.benchmarks.opening import open_benchmark
from theworld.types import PADDING_DOCUMENT


@pytest.fixture(scope="module")
def prompts(loaded, tmp_path_factory):
    """Eleven of different lengths; the third batch of four is not full."""
    path, images = published.write_srgpt(tmp_path_factory.mktemp("bench"), published.srgpt_rows(11))
    benchmark = open_benchmark("srgpt", str(path), images=str(images))
    made = [prompt(benchmark, item, loaded.processor) for item in benchmark.items]
    assert len({len(sample.input_ids) for sample in made}) > 2
    return made


def answers(loaded, prompts, batch_size, tokens=24):
    return list(answer(loaded.model, loaded.processor, prompts, batch_size=batch_size, max_new_tokens=tokens))


def prefills_of(model, run):
    """What `run` gives the model in its first passes, row by row."""
    given = []
    hook = model.register_forward_pre_hook(lambda _, args, kwargs: given.append(kwargs["input_ids"]), with_kwargs=True)
    try:
        run()
    finally:
        hook.remove()
    return [ids for ids in given if ids.shape[1] > 1]


def test_a_batch_answers_as_each_prompt_alone(loaded, prompts):
    alone = answers(loaded, prompts, 1)
    assert len({one.text for one in alone}) > 3
    for batch_size in (4, 8):
        assert answers(loaded, prompts, batch_size) == alone
    assert [one.id for one in alone] == [sample.id for sample in prompts]


def test_padding_that_is_attended_to_changes_answers(loaded, prompts):
    """The control: the comparison above notices what it is there for."""
    alone = answers(loaded, prompts, 1)
    batch = pad(prompts, pad_token_id=loaded.processor.pad_token_id, side="left")
    seen = replace(batch, document_ids=torch.zeros_like(batch.document_ids))
    together = answer_batch(loaded.model, loaded.processor, seen, max_new_tokens=24)
    assert [one.tokens for one in together] != [one.tokens for one in alone]


def test_what_generation_is_given_are_the_prompts_token_by_token(loaded, prompts):
    prefills = prefills_of(loaded.model, lambda: answers(loaded, prompts, 8, tokens=2))
    assert [len(ids) for ids in prefills] == [8, 3]
    rows = [row for ids in prefills for row in ids]
    for row, sample in zip(rows, prompts, strict=True):
        padding = len(row) - len(sample.input_ids)
        assert torch.equal(row[padding:], sample.input_ids)
        assert (row[:padding] == loaded.processor.pad_token_id).all()


def test_an_answer_ends_where_the_model_ends_its_turn(loaded, prompts):
    whole, cut = answers(loaded, prompts[:2], 2, tokens=40), answers(loaded, prompts[:2], 2, tokens=3)
    stops = {loaded.processor.end_of_turn_id, loaded.processor.tokenizer.eos_token_id}
    for long, short in zip(whole, cut, strict=True):
        assert long.is_complete
        assert not stops & set(long.tokens)
        assert not short.is_complete
        assert short.tokens == long.tokens[:3]
    assert loaded.processor.tokenizer.decode(list(whole[0].tokens)).strip() == whole[0].text


def test_prompts_are_read_as_answers_are_taken(loaded, prompts):
    read = []

    def reading():
        for sample in prompts:
            read.append(sample.id)
            yield sample

    first = next(answer(loaded.model, loaded.processor, reading(), batch_size=2, max_new_tokens=2))
    assert (first.id, len(read)) == (prompts[0].id, 2)


def test_what_cannot_be_answered_is_refused(loaded, prompts):
    with pytest.raises(ValueError, match="found batch_size=0, expected at least 1"):
        answer(loaded.model, loaded.processor, prompts, batch_size=0, max_new_tokens=1)
    right = pad(prompts, pad_token_id=loaded.processor.pad_token_id, side="right")
    assert (right.document_ids[:, -1] == PADDING_DOCUMENT).any()
    with pytest.raises(ValueError, match="padded on the right"):
        answer_batch(loaded.model, loaded.processor, right, max_new_tokens=1)
    loaded.model.train()
    try:
        with pytest.raises(ValueError, match="found a model in training mode"):
            answer_batch(loaded.model, loaded.processor, right, max_new_tokens=1)
    finally:
        loaded.model.eval()


def test_near_ties_are_decided_without_the_other_rows(loaded, prompts, monkeypatch):
    """Where everything counts as near, every row is answered again: alone, without padding, with its own pixels."""
    alone = answers(loaded, prompts, 1)
    assert [len(ids) for ids in prefills_of(loaded.model, lambda: answers(loaded, prompts, 8, tokens=2))] == [8, 3]
    monkeypatch.setattr("theworld.evaluation.answering.NEAR_TIE", torch.inf)
    again = prefills_of(loaded.model, lambda: answers(loaded, prompts, 8, tokens=2))
    assert [len(ids) for ids in again] == [8, *[1] * 8, 3, *[1] * 3]
    singles = [ids[0] for ids in again if len(ids) == 1]
    assert all(torch.equal(ids, sample.input_ids) for ids, sample in zip(singles, prompts, strict=True))
    assert answers(loaded, prompts, 8) == alone


def test_how_near_a_tie_came_is_known(loaded, prompts):
    """Against the logits themselves, for a row that ends before the others."""
    model, processor = loaded.model, loaded.processor
    stops = [processor.end_of_turn_id, processor.tokenizer.eos_token_id]
    batch = pad(prompts, pad_token_id=processor.pad_token_id, side="left")
    rows, least = _generate(model, processor, batch, stops, 24)
    lengths = [next((place for place, token in enumerate(row) if token in stops), 23) + 1 for row in rows]
    assert len(set(lengths)) > 1
    for row, (tokens, length) in enumerate(zip(rows, lengths, strict=True)):
        with torch.no_grad():
            whole = torch.cat([prompts[row].input_ids, torch.tensor(tokens[:length])])[None]
            pixels = prompts[row].pixel_values, prompts[row].world_pixel_values
            logits = model(whole, pixel_values=pixels[0], world_pixel_values=pixels[1]).logits[0, -length - 1 : -1]
        best = logits.topk(2, dim=-1).values
        assert least[row] == pytest.approx(float((best[:, 0] - best[:, 1]).min()), abs=1e-4)
