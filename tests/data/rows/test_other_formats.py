"""LLaVA's and VSR's rows, spelled out; their defects are named as OSD's are."""

import json

import pytest

from theworld.data.rows.faults import BAD_CONVERSATION, MALFORMED, MASK_COUNT, NO_TARGETS, RowError
from theworld.data.rows.llava import LlavaFormat
from theworld.data.rows.row import ParsedRow
from theworld.data.rows.vsr import VsrFormat

LLAVA = {
    "id": "004539375",
    "image": "00453/004539375.jpg",
    "conversations": [
        {"from": "human", "value": "Render a clear and concise summary of the photo.\n<image>"},
        {"from": "gpt", "value": "select luxury furniture 3 - inch gel memory foam mattress topper"},
        {"from": "human", "value": "Is it soft?"},
        {"from": "gpt", "value": "Yes, it is."},
    ],
}
VSR = {
    "image": "000000085637.jpg",
    "image_link": "http://images.cocodataset.org/train2017/000000085637.jpg",
    "caption": "The cat is in front of the {dog}.",
    "label": 1,
    "relation": "in front of",
    "annotator_id": 5,
}


def _parse(row_format, row, number=7):
    return row_format.parse(json.dumps(row).encode(), number=number, where="rows.json, row 7 (byte 9)")


def _talk(*values):
    return {"conversations": [{"from": ("human", "gpt")[i % 2], "value": value} for i, value in enumerate(values)]}


def test_a_llava_row():
    assert _parse(LlavaFormat(), LLAVA) == ParsedRow(
        id="004539375#7",
        filename="00453/004539375.jpg",
        turns=(
            (
                "Render a clear and concise summary of the photo.",
                "select luxury furniture 3 - inch gel memory foam mattress topper",
            ),
            ("Is it soft?", "Yes, it is."),
        ),
    )


@pytest.mark.parametrize("question", ["<image>\nWhat is it?", "What is it?\n<image>", " What is it?  "])
def test_llava_s_image_stands_at_either_end(question):
    parsed = _parse(LlavaFormat(), LLAVA | _talk(question, "A mattress."))
    assert parsed.turns == (("What is it?", "A mattress."),)


def test_rows_of_one_llava_id_get_ids_of_their_own():
    assert _parse(LlavaFormat(), LLAVA, 3).id != _parse(LlavaFormat(), LLAVA, 4).id


@pytest.mark.parametrize("label", [0, 1])
def test_a_vsr_row(label):
    assert _parse(VsrFormat(), VSR | {"label": label}) == ParsedRow(
        id="000000085637.jpg#7",
        filename="000000085637.jpg",
        turns=(
            (
                "Is the following statement true? The cat is in front of the {dog}.",
                "Yes." if label else "No.",
            ),
        ),
        qa_info=("qualitative", "in_front_of_predicate"),
    )


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"image": None}, MALFORMED, "key 'image' is missing"),
        ({"image": ["a.jpg", "b.jpg"]}, MALFORMED, "image is .*, expected a string"),
        (_talk("a <image> b", "c"), BAD_CONVERSATION, "'<image>', which is a control token"),
        (_talk("<image>\na\n<image>", "c"), BAD_CONVERSATION, "'<image>', which is a control token"),
        (_talk("a\n<image>", "c", "d <image>", "e"), BAD_CONVERSATION, "message 2 contains '<image>'"),
        (_talk("a\n<image>", "<unused1>"), BAD_CONVERSATION, "'<unused1>', which is a control token"),
        (_talk("<image>", "c"), BAD_CONVERSATION, "message 0 from 'human' is empty"),
        (_talk("a\n<image>", " "), NO_TARGETS, "message 1 from 'gpt' is empty"),
        (_talk("a\n<image>"), BAD_CONVERSATION, "found 1 messages"),
        ({"conversations": LLAVA["conversations"][1:]}, BAD_CONVERSATION, "message 0 is from 'gpt', expected 'human'"),
        (_talk("a <mask>", "b"), MASK_COUNT, "found 1 <mask> in a row of a format without boxes"),
    ],
)
def test_llava_defects_are_named(changes, code, message):
    row = {key: value for key, value in (LLAVA | changes).items() if value is not None}
    with pytest.raises(RowError, match=rf"row 7 \(byte 9\), id '004539375': .*{message}") as error:
        _parse(LlavaFormat(), row)
    assert error.value.code == code


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"image": None}, MALFORMED, "key 'image' is missing"),
        ({"caption": "  "}, BAD_CONVERSATION, "is empty"),
        ({"caption": "The <end_of_turn> is left."}, BAD_CONVERSATION, "'<end_of_turn>', which is a control token"),
        ({"caption": "The <mask> is left."}, MASK_COUNT, "found 1 <mask>"),
        ({"relation": None}, MALFORMED, "key 'relation' is missing"),
        ({"label": None}, MALFORMED, "key 'label' is missing"),
        ({"label": "1"}, MALFORMED, "label is '1', expected 1"),
        ({"label": 2}, MALFORMED, "label is 2, expected 1"),
        ({"label": True}, MALFORMED, "label is True, expected 1"),
    ],
)
def test_vsr_defects_are_named(changes, code, message):
    row = {key: value for key, value in (VSR | changes).items() if value is not None}
    with pytest.raises(RowError, match=rf"row 7 \(byte 9\), id 'absent': .*{message}") as error:
        _parse(VsrFormat(), row)
    assert error.value.code == code


@pytest.mark.parametrize("row_format", [LlavaFormat(), VsrFormat()])
def test_what_is_no_object_is_refused(row_format):
    with pytest.raises(RowError, match="found list, expected an object"):
        row_format.parse(b"[]", number=0, where="rows.json, row 0")
    with pytest.raises(RowError, match="not valid JSON"):
        row_format.parse(b'{"a": 1,}', number=0, where="rows.json, row 0")
