"""The pretraining corpus without images: `text_rows` as arrays."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from mentions import Facts, mention_arrays
from text_rows import Imagined, TextRow, text_row
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from theworld.data.synthetic.kinds import COLOURS, KINDS
from theworld.types import IGNORE_INDEX

KIND_NUMBERS = {kind: number for number, kind in enumerate(KINDS, start=1)}
COLOUR_NUMBERS = {colour: number for number, colour in enumerate(COLOURS, start=1)}
MAX_TURNS = 8


def build_text(
    tokenizer_directory: str, seed: int, numbers: range, *, max_seq_length: int, workers: int
) -> tuple[dict[str, np.ndarray], list[list[str]]]:
    """Conversations `numbers`, as the fields of `pretrain_vlm.TextCorpus`, and the questions of each."""
    parts = [numbers[start::workers] for start in range(workers)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        same = [[value] * len(parts) for value in (tokenizer_directory, seed, max_seq_length)]
        results = list(pool.map(_build_part, parts, *same))
    arrays = [result for result, _ in results]
    joined = {key: np.concatenate([part[key] for part in arrays]) for key in arrays[0]}
    return joined, [asked for _, questions in results for asked in questions]


def texts(seed: int, numbers: range) -> Iterator[str]:
    """The text of the conversations, for the tokenizer."""
    for number in numbers:
        for turn in _row(seed, number).turns:
            yield from turn


def region_token_ids(tokenizer: PreTrainedTokenizerFast) -> dict[int, int]:
    """Token id of ` [k]` → k."""
    return {tokenizer.convert_tokens_to_ids(f"▁[{k}]"): k for k in range(8)}


def _row(seed: int, number: int) -> TextRow:
    rng = np.random.default_rng((seed, number, 11))
    return text_row(rng, turns=int(rng.integers(1, MAX_TURNS + 1)))


def _build_part(
    numbers: range, directory: str, seed: int, max_seq_length: int
) -> tuple[dict[str, np.ndarray], list[list[str]]]:
    tokenizer = AutoTokenizer.from_pretrained(directory)
    region_ids = region_token_ids(tokenizer)
    columns: dict[str, list[np.ndarray]] = {}
    questions = []
    for number in numbers:
        row = _row(seed, number)
        input_ids, labels = _encode(tokenizer, row.turns, max_seq_length)
        answers = int(np.sum(np.diff((labels >= 0).astype(int)) == 1))
        questions.append([question for question, _ in row.turns[:answers]])
        facts = {region.number: _facts(region, row) for region in row.regions}
        mention_at, mention_facts = mention_arrays(input_ids, region_ids, facts, skip=row.num_stated)
        sample = {
            "input_ids": _fixed(input_ids, max_seq_length, 0),
            "labels": _fixed(labels, max_seq_length, IGNORE_INDEX),
            "length": np.int32(len(input_ids)),
            "mention_at": mention_at,
            "mention_facts": mention_facts,
        }
        for key, value in sample.items():
            columns.setdefault(key, []).append(value)
    return {key: np.stack(values) for key, values in columns.items()}, questions


def _facts(region: Imagined, row: TextRow) -> Facts:
    """What the text says: a coordinate, a cell in words, a kind; sizes are left to the language-model loss."""
    if row.form == "kind":
        return Facts(kind=KIND_NUMBERS[region.kind], colour=COLOUR_NUMBERS[region.colour])
    coarse = {"coarse_row": region.y * 3 // 100, "coarse_column": region.x * 3 // 100}
    if row.form == "coarse":
        return Facts(**coarse)
    if row.form == "caption":
        return Facts(kind=KIND_NUMBERS[region.kind], colour=COLOUR_NUMBERS[region.colour], **coarse)
    fine = {"row": region.y * 5 // 100, "column": region.x * 5 // 100}
    return Facts(**fine) if row.form == "fine" else Facts(x=region.x, y=region.y, **fine, **coarse)


def _encode(
    tokenizer: PreTrainedTokenizerFast, turns: list[tuple[str, str]], max_seq_length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Ids and labels of Gemma's turns; whole turns beyond `max_seq_length` are left out."""
    input_ids, labels = [tokenizer.bos_token_id], [IGNORE_INDEX]
    newline = tokenizer.encode("\n", add_special_tokens=False)
    for question, answer in turns:
        prompt = tokenizer.encode(
            f"<start_of_turn>user\n{question}<end_of_turn>\n<start_of_turn>model\n", add_special_tokens=False
        )
        target = tokenizer.encode(f"{answer}<end_of_turn>", add_special_tokens=False)
        if len(input_ids) + len(prompt) + len(target) + len(newline) > max_seq_length:
            break
        input_ids += prompt + target + newline
        labels += [IGNORE_INDEX] * len(prompt) + target + [IGNORE_INDEX] * len(newline)
    return np.array(input_ids), np.array(labels)


def _fixed(values: np.ndarray, length: int, fill: int) -> np.ndarray:
    out = np.full(length, fill, dtype=np.int16)
    out[: len(values)] = values
    return out
