"""A byte-fallback tokenizer with Gemma's special tokens and chat template, a 32 px image processor, and OSD files."""

import json

import numpy as np
import pytest
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import Gemma3ImageProcessorPil, PreTrainedTokenizerFast

from theworld.data.osd import OSDRows
from theworld.data.processor import TheWorldProcessor

SPECIALS = [
    *("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"),
    *("<start_of_image>", "<end_of_image>", "<image_soft_token>", *(f"<unused{i}>" for i in range(8))),
]
PIECES = [
    "\n",
    "\n\n",
    "\n\n\n",
    "▁",
    "user",
    "model",
    "Region",
    "▁[",
    "]",
    "Is",
    "Yes",
    "No",
    "▁left",
    "▁of",
    "?",
    ".",
]

# Gemma 3's template, less its checks of role order.
CHAT_TEMPLATE = """{{ bos_token }}{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant'
else message['role'] %}{{ '<start_of_turn>' + role + '\n' }}{% if message['content'] is string %}{{
message['content'] | trim }}{% else %}{% for item in message['content'] %}{% if item['type'] == 'image' %}{{
'<start_of_image>' }}{% elif item['type'] == 'text' %}{{ item['text'] | trim }}{% endif %}{% endfor %}{% endif %}{{
'<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""


@pytest.fixture(scope="session")
def tokenizer():
    letters = [chr(c) for c in range(33, 127)]
    merges = []
    vocab = dict.fromkeys([*SPECIALS, *(f"<0x{b:02X}>" for b in range(256)), *letters])
    for piece in PIECES:
        for end in range(2, len(piece) + 1):
            pair = (piece[: end - 1], piece[end - 1])
            if pair not in merges:
                merges.append(pair)
        for end in range(1, len(piece) + 1):
            vocab.setdefault(piece[:end])
    vocab = {token: number for number, token in enumerate(vocab)}
    raw = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    raw.normalizer = normalizers.Replace(" ", "▁")
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    raw.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


@pytest.fixture(scope="session")
def image_processor():
    return Gemma3ImageProcessorPil(
        size={"height": 32, "width": 32}, image_mean=[0.5] * 3, image_std=[0.5] * 3, do_pan_and_scan=False
    )


@pytest.fixture
def make_processor(tokenizer, image_processor):
    def make(**changes):
        settings = {"num_image_tokens": 4, "num_world_tokens": 5, "world_image_size": 16} | changes
        return TheWorldProcessor(tokenizer, image_processor, **settings)

    return make


@pytest.fixture
def processor(make_processor):
    return make_processor()


@pytest.fixture(scope="session")
def make_row():
    return osd_row


def osd_row(number, turns=1, **changes):
    """One valid row about image `img<number>` with two regions, each mentioned once a turn."""
    conversations = []
    for turn in range(turns):
        opening = "<image>\n" if turn == 0 else ""
        text = f"{opening}Is <mask> <depth> left of <mask> <depth>?{'?' * (number % 7)}"
        conversations += [
            {"from": "human", "value": text},
            {"from": "gpt", "value": "Yes, Region [0] is left of Region [1]."},
        ]
    row = {
        "id": f"row-{number}",
        "filename": f"img{number}",
        "conversations": conversations,
        "bbox": [[2, 3, 12, 20], [20, 10, 38, 28]] * turns,
        "qa_info": {"type": "qualitative", "category": "left_predicate"},
    }
    return {key: value for key, value in (row | changes).items() if value is not None}


@pytest.fixture
def write_osd(tmp_path):
    """Write rows and an image for each; returns (path, image folder)."""

    def write(rows, name="train.json"):
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        for number, row in enumerate(rows):
            filename = row.get("filename")
            if isinstance(filename, str) and filename.startswith("img"):
                pixels = np.random.default_rng(number).integers(0, 256, (30, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{filename}.png")
        path = tmp_path / name
        if name.endswith(".jsonl"):
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            path.write_text(json.dumps(rows))
        return path, folder

    return write


@pytest.fixture
def open_osd(write_osd):
    def build(rows, name="train.json"):
        path, folder = write_osd(rows, name)
        return OSDRows(path, image_folder=folder)

    return build
