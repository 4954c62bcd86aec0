"""Text and image to a `Sample`: Gemma 3's chat layout with the world block right after `<bos>`, or after the image.

    <bos> SOW world x N EOW <start_of_turn>user ... <start_of_image> image x I <end_of_image> ... question<end_of_turn>
    <start_of_turn>model answer<end_of_turn> <start_of_turn>user ...

Every placeholder is expanded here, once, so that the length counted is the length the model sees. The conversation
is tokenised in segments (question, header, answer, newline); training and inference prompts are therefore equal.

Shape legend: `T` tokens · `I` images (0 or 1) · `W` world frames (0 or 1) · `H`, `h` sides of the two inputs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer, Gemma3ImageProcessorPil, PreTrainedTokenizerBase

from theworld.assets import resolve
from theworld.data.pictures.blank import BlankImage, blank_picture, check_blank
from theworld.data.pictures.images import world_pixels
from theworld.data.pictures.regions import Turn
from theworld.data.pictures.vision_pixels import VisionPixels
from theworld.data.stored_settings import num_image_tokens, recorded_blank_image, recorded_world_position, token_id
from theworld.data.world_block import WorldPosition, check_position, opening_ids
from theworld.types import IGNORE_INDEX, Sample, TokenType

START_OF_TURN = "<start_of_turn>"
END_OF_TURN = "<end_of_turn>"
START_OF_IMAGE = "<start_of_image>"
END_OF_IMAGE = "<end_of_image>"
IMAGE_PLACEHOLDER = "<image_soft_token>"

_Segments = list[tuple[list[int], bool]]


class TheWorldProcessor:
    """Turns conversations into token ids and images into pixels.

    Args:
        tokenizer: Gemma's, or one with the same special tokens.
        image_processor: Gemma 3's, for what SigLIP sees; pan-and-scan is switched off.
        num_image_tokens: Image placeholders an image is expanded to (256 in Gemma 3).
        num_world_tokens: World placeholders between SOW and EOW, all world steps included. Ignored with the world off.
        world_image_size: Side of the world encoder's square input, in pixels.
        enable_world: False leaves out SOW, placeholders and EOW: the sequence is Gemma's own.
        start_of_world: Token that opens the world block.
        world_placeholder: Token that stands for one world token.
        end_of_world: Token that closes the world block.
        blank_image: Which tower sees a plain colour in place of the image: `vision`, `world` or `none`. For
            controls only: anything but `none` is warned of, and `save_pretrained` writes it down.
        world_position: Where the world block stands: `first` or `after_image`, which `save_pretrained` writes down.

    Attributes:
        fixed_tokens: Tokens of every sample before its first question: world block, image block, turn header.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        image_processor: Gemma3ImageProcessorPil,
        *,
        num_image_tokens: int,
        num_world_tokens: int,
        world_image_size: int,
        enable_world: bool = True,
        start_of_world: str = "<unused0>",
        world_placeholder: str = "<unused1>",
        end_of_world: str = "<unused2>",
        blank_image: BlankImage = "none",
        world_position: WorldPosition = "first",
    ):
        check_blank(blank_image)
        check_position(world_position)
        if num_image_tokens < 1 or (enable_world and (num_world_tokens < 1 or world_image_size < 1)):
            raise ValueError(
                f"found num_image_tokens={num_image_tokens}, num_world_tokens={num_world_tokens}, "
                f"world_image_size={world_image_size}, expected all of them to be at least 1."
            )
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self._vision_pixels = VisionPixels(image_processor)
        self.num_image_tokens = num_image_tokens
        self.num_world_tokens = num_world_tokens if enable_world else 0
        self.world_image_size = world_image_size
        self.enable_world = enable_world
        self.blank_image = blank_image
        self.world_position: WorldPosition = world_position
        self.bos_token_id = token_id(tokenizer, tokenizer.bos_token)
        self.pad_token_id = token_id(tokenizer, tokenizer.pad_token)
        self.end_of_turn_id = token_id(tokenizer, END_OF_TURN)
        self.image_token_id = token_id(tokenizer, IMAGE_PLACEHOLDER)
        self.start_of_world_id = token_id(tokenizer, start_of_world)
        self.world_token_id = token_id(tokenizer, world_placeholder)
        self.end_of_world_id = token_id(tokenizer, end_of_world)
        if len({self.start_of_world_id, self.world_token_id, self.end_of_world_id}) < 3:
            raise ValueError(
                f"start_of_world, world_placeholder and end_of_world are {start_of_world!r}, {world_placeholder!r}, "
                f"{end_of_world!r}, expected three different tokens."
            )
        control = {START_OF_TURN, END_OF_TURN, START_OF_IMAGE, END_OF_IMAGE, IMAGE_PLACEHOLDER}
        control |= {start_of_world, world_placeholder, end_of_world, *tokenizer.all_special_tokens}
        self._control = re.compile("|".join(map(re.escape, sorted(control, key=len, reverse=True))))
        # transformers' own call costs as much again as the encoding; it also switches off what the file may say of
        # truncation and padding, so it is made once.
        tokenizer("", add_special_tokens=False)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._encode_batch = None if backend is None else backend.encode_batch_fast
        self._opening = self._make_opening()
        self._opening_tensors = self._opening_as_tensors()
        self._model_header, self._newline = self._ids([f"{START_OF_TURN}model\n", "\n"])

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        num_world_tokens: int,
        world_image_size: int,
        enable_world: bool = True,
        blank_image: BlankImage | None = None,
        world_position: WorldPosition | None = None,
        revision: str | None = None,
    ) -> TheWorldProcessor:
        """Load tokenizer and image processor of a base model or of an export of ours.

        Args:
            name_or_path: Directory, Hub name, or `theworld-tiny`.
            num_world_tokens: As in the constructor.
            world_image_size: As in the constructor.
            enable_world: As in the constructor.
            blank_image: As in the constructor; by default `none`, which an export that was trained on blank pictures
                refuses: it must be said which of the two is meant.
            world_position: As in the constructor; by default as an export was trained, else `first`.
            revision: Commit of a Hub repository.
        """
        name = resolve(name_or_path)
        return cls(
            AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False),
            Gemma3ImageProcessorPil.from_pretrained(name, revision=revision, do_pan_and_scan=False),
            num_image_tokens=num_image_tokens(name, revision),
            num_world_tokens=num_world_tokens,
            world_image_size=world_image_size,
            enable_world=enable_world,
            blank_image=recorded_blank_image(name, revision, chosen=blank_image),
            world_position=recorded_world_position(name, revision, chosen=world_position),
        )

    def save_pretrained(self, directory: str | Path) -> None:
        """Write tokenizer, image processor and `processor_config.json`, as Gemma 3's own processor has them."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(directory)
        self.image_processor.save_pretrained(directory)
        config = {"processor_class": "Gemma3Processor", "image_seq_length": self.num_image_tokens}
        config |= {} if self.blank_image == "none" else {"blank_image": self.blank_image}
        config |= {} if self.world_position == "first" else {"world_position": self.world_position}
        (directory / "processor_config.json").write_text(json.dumps(config, indent=2) + "\n")

    @property
    def fixed_tokens(self) -> int:
        """Tokens of every sample before its first question."""
        return len(self._opening)

    def count_tokens(self, turns: Sequence[Turn]) -> list[tuple[int, int]]:
        """(length, target tokens) of the sample when 1, 2, ... turns are kept, placeholders included.

        Args:
            turns: Questions and answers with `Region [g]` names.
        """
        counts = []
        length, targets = len(self._opening), 0
        for question, answer in self._tokenize(turns):
            length += len(question) + len(self._model_header) + len(answer) + len(self._newline)
            targets += len(answer)
            counts.append((length, targets))
        return counts

    def fit_turns(self, turns: Sequence[Turn], max_seq_length: int) -> int:
        """How many whole turns, from the first on, fit into `max_seq_length` tokens; 0 if none does."""
        return sum(length <= max_seq_length for length, _ in self.count_tokens(turns))

    def encode(self, turns: Sequence[Turn], image: Image.Image | None, id: str, *, max_seq_length: int) -> Sample:
        """One training sample; whole trailing turns that do not fit are left out.

        Args:
            turns: Questions and answers with `Region [g]` names.
            image: RGB, with the regions drawn on it; seen by the vision tower and by the world encoder. None: the
                sample has its placeholders, but what fills them (pixels or features) is for the caller to add.
            id: Name of the row.
            max_seq_length: Largest length in tokens, placeholders included.

        Raises:
            ValueError: Not even one turn fits, or the text contains a control token.
        """
        segments: _Segments = []
        length = len(self._opening)
        for question, answer in self._tokenize(turns):
            turn: _Segments = [(question, False), (self._model_header, False), (answer, True), (self._newline, False)]
            length += sum(len(ids) for ids, _ in turn)
            if length > max_seq_length:
                break
            segments += turn
        if not segments:
            raise ValueError(
                f"{id}: the first turn needs {length} tokens, expected at most max_seq_length={max_seq_length}; "
                "raise max_seq_length or use fewer world tokens."
            )
        return self._sample(segments, image, id)

    def encode_prompt(self, turns: Sequence[Turn], image: Image.Image, id: str) -> Sample:
        """An inference prompt that ends with the model's header; the answer of the last turn is never read.

        Args:
            turns: Earlier questions and answers, and last the question to answer.
            image: As in `encode`.
            id: Name of the row.
        """
        *history, (last, _) = turns
        *earlier, (question, _) = self._tokenize([*history, (last, "")])
        segments: _Segments = []
        for asked, answer in earlier:
            segments += [(asked, False), (self._model_header, False), (answer, False), (self._newline, False)]
        segments += [(question, False), (self._model_header, False)]
        return self._sample(segments, image, id)

    def pixels(self, image: Image.Image | None) -> Tensor:
        """What the vision tower sees: float32[I, 3, H, W], normalised as its checkpoint says; `I` is 1 or 0."""
        if image is not None and self.blank_image == "vision":
            image = blank_picture(image)
        return self._vision_pixels(image)

    def world_pixels(self, image: Image.Image | None) -> Tensor:
        """What the world encoder sees: float32[W, 3, h, w] in [-1, 1]; `W` is 0 with the world off or no image."""
        if not self.enable_world or image is None:
            return torch.empty(0, 3, self.world_image_size, self.world_image_size)
        shown = blank_picture(image) if self.blank_image == "world" else image
        return world_pixels(shown, self.world_image_size)[None]  # (W, 3, h, w)

    def _make_opening(self) -> list[int]:
        """All up to where the first question begins."""
        world = [self.start_of_world_id, *[self.world_token_id] * self.num_world_tokens, self.end_of_world_id]
        before, after = self._ids([f"{START_OF_TURN}user\n\n\n{START_OF_IMAGE}", f"{END_OF_IMAGE}"])
        image = [*[self.image_token_id] * self.num_image_tokens, *after]
        blocks = {"world": world if self.enable_world else [], "header": before, "image": image}
        return opening_ids(self.bos_token_id, **blocks, world_position=self.world_position)

    def _opening_as_tensors(self) -> tuple[Tensor, Tensor]:
        """The opening's ids and its token types: all placeholders of a sample are in it."""
        ids = torch.tensor(self._opening)
        types = torch.full_like(ids, TokenType.TEXT)
        types[ids == self.image_token_id] = TokenType.IMAGE
        if self.enable_world:
            types[ids == self.world_token_id] = TokenType.WORLD
        return ids, types

    def _tokenize(self, turns: Sequence[Turn]) -> list[tuple[list[int], list[int]]]:
        """Ids of each question (from where the header or the image block left off) and of each answer (the targets)."""
        texts = []
        for number, turn in enumerate(turns):
            for text in turn:
                if match := self._control.search(text):
                    raise ValueError(
                        f"turn {number} contains the control token {match.group()!r}, expected plain text; remove it."
                    )
            opening = f"{START_OF_TURN}user\n" if number else "\n\n"
            texts += [f"{opening}{turn[0].strip()}{END_OF_TURN}\n", f"{turn[1].strip()}{END_OF_TURN}"]
        ids = self._ids(texts)
        return list(zip(ids[0::2], ids[1::2], strict=True))

    def _ids(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        if self._encode_batch is not None:
            return [encoded.ids for encoded in self._encode_batch(texts, add_special_tokens=False)]
        return self.tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]

    def _sample(self, segments: _Segments, image: Image.Image | None, id: str) -> Sample:
        """The opening, then the segments (token ids, whether they are targets)."""
        opening, types = self._opening_tensors
        text = torch.from_numpy(np.array([token for ids, _ in segments for token in ids], dtype=np.int64))
        lengths = [len(ids) for ids, _ in segments]
        is_target = torch.from_numpy(np.repeat(np.array([target for _, target in segments], dtype=bool), lengths))
        labels = torch.where(is_target, text, IGNORE_INDEX)
        return Sample(
            id=id,
            input_ids=torch.cat([opening, text]),  # (T,)
            labels=torch.cat([torch.full_like(opening, IGNORE_INDEX), labels]),  # (T,)
            token_type_ids=torch.cat([types, torch.full_like(text, TokenType.TEXT)]),  # (T,)
            pixel_values=self.pixels(image),
            world_pixel_values=self.world_pixels(image),
        )
