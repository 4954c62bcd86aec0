"""The tiny base's tokenizer: BPE with byte fallback, Gemma's special tokens, Gemma's chat template.

Any text round-trips (what the merges do not know falls back to bytes), and numbers are read digit by digit as Gemma
does. A region name such as ` [3]` is one piece, because the tiny model has few layers to spend on spelling.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = (
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
    *(f"<unused{i}>" for i in range(8)),
)
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
PIECES = r"▁?\[\d\]|▁?[A-Za-z]+|▁?\d|\n|▁?[^A-Za-z\d▁\n]|▁"

# Gemma's turn format: one user or model turn after another, the assistant's role spelt "model".
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] | trim }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<start_of_image>' }}{% else %}{{ part['text'] | trim }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], *, vocab_size: int) -> PreTrainedTokenizerFast:
    """Learns the merges from `texts`; ids are special tokens, then 256 bytes, then characters and merges."""
    draft = _pipeline(Tokenizer(models.BPE()))
    first_piece = len(SPECIAL_TOKENS) + len(BYTES)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - first_piece,
        initial_alphabet=sorted({*string.ascii_letters, *string.digits, *string.punctuation, "▁", "\n"}),
        min_frequency=2,
        show_progress=False,
    )
    draft.train_from_iterator(texts, trainer)
    learned = draft.get_vocab()
    pieces = sorted(learned, key=learned.__getitem__)
    vocab = {piece: i for i, piece in enumerate((*SPECIAL_TOKENS, *BYTES, *pieces))}
    merges = [tuple(pair) for pair in _merges(draft)]

    tokenizer = _pipeline(Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True)))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
        image_token="<image_soft_token>",
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _pipeline(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), behavior="isolated")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def _merges(tokenizer: Tokenizer) -> list[list[str]]:
    return json.loads(tokenizer.to_str())["model"]["merges"]
