"""Why a row cannot be used: the fixed codes that verdicts begin with, and the error that carries one."""

from __future__ import annotations

OK = "ok"

MALFORMED = "malformed"  # no JSON, or not in its format's schema
MISSING_IMAGE = "missing image"  # no such file below the image folder
UNREADABLE_IMAGE = "unreadable image"  # no JPEG, PNG or WebP, damaged, or of more than 8 bits a channel
TOO_LARGE = "too large"  # an image of more pixels or bytes than are ever decoded
BAD_REGION = "bad region"  # a box outside the image, or a region that nothing names
BAD_MASK = "bad mask"  # of another size than the image, or runs that do not add up to it
MASK_COUNT = "mask count"  # `<mask>` in the questions and boxes differ in number
BAD_CONVERSATION = "bad conversation"  # empty, one-sided, out of turn, or with control tokens
NO_TARGETS = "no target tokens"  # nothing to learn: an empty answer
TOO_LONG = "too long"  # not even the first turn fits
DUPLICATE_ID = "duplicate id"  # of a row that came earlier

CODES = (
    *(MALFORMED, MISSING_IMAGE, UNREADABLE_IMAGE, TOO_LARGE, BAD_REGION, BAD_MASK, MASK_COUNT),
    *(BAD_CONVERSATION, NO_TARGETS, TOO_LONG, DUPLICATE_ID),
)


class RowError(ValueError):
    """A row that cannot be used.

    Attributes:
        code: One of `CODES`.
    """

    def __init__(self, code: str, message: str):
        super().__init__(code, message)
        self.code = code

    def __str__(self) -> str:
        return str(self.args[1])
