"""The token layout: spelled out id by id, equal to transformers' Gemma 3 processor, and safe from injected tokens."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import Gemma3Processor

from tests.tiny import make_tokenizer
from theworld.data.pictures.images import world_pixels
from theworld.data.processor import TheWorldProcessor
from theworld.types import IGNORE_INDEX, TokenType

TURNS = (("Is Region [0] left of Region [1]?", "Yes."), ("Sure?", "No, Region [1] is."))


@pytest.fixture(scope="module")
def image():
    return Image.linear_gradient("L").convert("RGB").resize((40, 30))


def test_supervised_ids_of_two_turns_spelled_out(processor, tokenizer, image):
    sample = processor.encode(TURNS, image, "a", max_seq_length=500)
    plain = [tokenizer.decode([token]) for token in sample.input_ids]
    expected = [
        *("<bos>", "<unused0>", *["<unused1>"] * 5, "<unused2>"),
        *("<start_of_turn>", "user", "\n\n\n", "<start_of_image>", *["<image_soft_token>"] * 4, "<end_of_image>"),
        *("\n\n", "Is", " ", "Region", " [", "0", "]", " left", " of", " ", "Region", " [", "1", "]", "?"),
        *("<end_of_turn>", "\n", "<start_of_turn>", "model", "\n", "Yes", ".", "<end_of_turn>", "\n"),
        *("<start_of_turn>", "user", "\n", "S", "u", "r", "e", "?", "<end_of_turn>", "\n"),
        *("<start_of_turn>", "model", "\n", "No", ",", " ", "Region", " [", "1", "]", " ", "i", "s", "."),
        *("<end_of_turn>", "\n"),
    ]
    assert plain == expected
    supervised = [tokenizer.decode([t]) for t in sample.labels[sample.labels != IGNORE_INDEX]]
    assert supervised == [
        *("Yes", ".", "<end_of_turn>"),
        *("No", ",", " ", "Region", " [", "1", "]", " ", "i", "s", ".", "<end_of_turn>"),
    ]
    where = torch.nonzero(sample.labels != IGNORE_INDEX).flatten().tolist()
    assert where == [*range(37, 40), *range(54, 66)]
    assert torch.equal(sample.labels[where], sample.input_ids[where])
    types = torch.zeros(len(expected), dtype=torch.int64)
    types[2:7] = TokenType.WORLD
    types[12:16] = TokenType.IMAGE
    assert torch.equal(sample.token_type_ids, types)
    assert processor.fixed_tokens == 17


def test_pixels_of_both_branches(processor, image_processor, image):
    sample = processor.encode(TURNS, image, "a", max_seq_length=500)
    direct = image_processor(images=[image], return_tensors="pt")["pixel_values"]
    assert sample.pixel_values.shape == (1, 3, 32, 32)
    assert torch.equal(sample.pixel_values, direct.float())
    assert torch.equal(sample.world_pixel_values, world_pixels(image, 16)[None])


@pytest.fixture(scope="module")
def tiny_base():
    return TheWorldProcessor.from_pretrained("theworld-tiny", num_world_tokens=4, world_image_size=16)


@settings(max_examples=100, deadline=None)
@given(
    texts=st.lists(st.text(max_size=40) | st.sampled_from(["<end_of_turn>\n", "Region [12]", " a  b\n\n"]), max_size=4)
)
def test_ids_are_those_of_transformers_own_call(tiny_base, texts):
    expected = tiny_base.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    assert tiny_base._ids(texts) == expected


def test_a_tokenizer_that_truncates_and_pads_does_neither_here(image_processor):
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=20)
    assert len(tokenizer.backend_tokenizer.encode("abcdef").ids) == 20  # control
    processor = TheWorldProcessor(
        tokenizer, image_processor, num_image_tokens=4, num_world_tokens=5, world_image_size=16
    )
    assert [len(ids) for ids in processor._ids(["abcdef", "a"])] == [6, 1]


def test_world_off_equals_transformers_gemma3(make_processor, tokenizer, image_processor, image):
    """Training conversation and inference prompt, against the chat template and processor of transformers."""
    off = make_processor(enable_world=False)
    theirs = Gemma3Processor(image_processor, tokenizer, image_seq_length=4)
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": TURNS[0][0]}]},
        {"role": "assistant", "content": [{"type": "text", "text": TURNS[0][1]}]},
        {"role": "user", "content": [{"type": "text", "text": TURNS[1][0]}]},
        {"role": "assistant", "content": [{"type": "text", "text": TURNS[1][1]}]},
    ]
    for kept, prompt in ((4, False), (3, True), (1, True)):
        text = tokenizer.apply_chat_template(messages[:kept], tokenize=False, add_generation_prompt=prompt)
        text = text.removeprefix("<bos>")
        expected = theirs(text="<bos>" + text, images=[image], add_special_tokens=False, return_tensors="pt")
        turns = TURNS[: (kept + 1) // 2]
        ours = off.encode_prompt(turns, image, "a") if prompt else off.encode(turns, image, "a", max_seq_length=500)
        assert ours.input_ids.tolist() == expected["input_ids"][0].tolist()
        assert ours.token_type_ids.tolist() == expected["token_type_ids"][0].tolist()
        assert torch.equal(ours.pixel_values, expected["pixel_values"].float())
        assert ours.world_pixel_values.shape == (0, 3, 16, 16)


def test_prompt_is_the_beginning_of_the_training_sample(processor, image):
    """Both turns: what the model is asked at inference is exactly what preceded the answer in training."""
    trained = processor.encode(TURNS, image, "a", max_seq_length=500)
    for asked, answer_start in ((TURNS[:1], 37), (TURNS, 54)):
        prompt = processor.encode_prompt(asked, image, "a")
        assert prompt.input_ids.tolist() == trained.input_ids[:answer_start].tolist()
        assert (prompt.labels == IGNORE_INDEX).all()
    secret = processor.encode_prompt([(TURNS[0][0], "other answer")], image, "a")
    assert torch.equal(secret.input_ids, processor.encode_prompt(TURNS[:1], image, "a").input_ids)


def test_counts_and_whole_turns(processor, image):
    counts = processor.count_tokens(TURNS)
    assert counts == [(41, 3), (67, 15)]
    for limit, kept in ((40, 0), (41, 1), (66, 1), (67, 2), (1000, 2)):
        assert processor.fit_turns(TURNS, limit) == kept
        if kept:
            sample = processor.encode(TURNS, image, "a", max_seq_length=limit)
            found = (len(sample.input_ids), int((sample.labels != IGNORE_INDEX).sum()))
            assert found == counts[kept - 1]
    with pytest.raises(ValueError, match="a: the first turn needs 41 tokens, expected at most max_seq_length=40"):
        processor.encode(TURNS, image, "a", max_seq_length=40)


@pytest.mark.parametrize("text", ["<start_of_image>", "<unused1>", "<end_of_turn>", "<image_soft_token>", "<bos>"])
def test_control_tokens_in_text_are_refused(processor, image, text):
    for turns in ([(f"a {text} b", "c")], [("a", f"b{text}")]):
        with pytest.raises(ValueError, match=f"turn 0 contains the control token '{text}'"):
            processor.encode(turns, image, "a", max_seq_length=500)
    with pytest.raises(ValueError, match="control token"):
        processor.encode_prompt([(text, "")], image, "a")


def test_non_ascii_text_falls_back_to_bytes(processor, tokenizer, image):
    sample = processor.encode([("Où?", "Là — 3.5 m.")], image, "a", max_seq_length=500)
    answer = sample.labels[sample.labels != IGNORE_INDEX][:-1]
    assert tokenizer.decode(answer) == "Là — 3.5 m."


def test_save_and_load(processor, image, tmp_path):
    processor.save_pretrained(tmp_path)
    loaded = TheWorldProcessor.from_pretrained(tmp_path, num_world_tokens=5, world_image_size=16)
    assert loaded.num_image_tokens == 4
    first = processor.encode(TURNS, image, "a", max_seq_length=500)
    again = loaded.encode(TURNS, image, "a", max_seq_length=500)
    for name in ("input_ids", "labels", "token_type_ids", "pixel_values", "world_pixel_values"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    (tmp_path / "processor_config.json").unlink()
    with pytest.raises(ValueError, match="found no number of image tokens"):
        TheWorldProcessor.from_pretrained(tmp_path, num_world_tokens=5, world_image_size=16)
    (tmp_path / "config.json").write_text('{"model_type": "theworld", "gemma_config": {"mm_tokens_per_image": 4}}')
    again = TheWorldProcessor.from_pretrained(tmp_path, num_world_tokens=5, world_image_size=16)
    assert again.num_image_tokens == 4


def test_bad_settings(make_processor):
    with pytest.raises(ValueError, match="the tokenizer has no token '<unused99>'"):
        make_processor(start_of_world="<unused99>")
    with pytest.raises(ValueError, match="expected three different tokens"):
        make_processor(start_of_world="<unused1>")
    with pytest.raises(ValueError, match="num_world_tokens=0"):
        make_processor(num_world_tokens=0)
    assert make_processor(num_world_tokens=0, enable_world=False).num_world_tokens == 0
