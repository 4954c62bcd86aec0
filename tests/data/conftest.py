"""The tiny tokenizer with a few words and Gemma's chat template, a 32 px image processor, and OSD files."""

import pytest

from tests.tiny import make_image_processor, make_tokenizer, osd_row, write_osd
from theworld.data.datamodule import OSDDataModule
from theworld.data.indexing.build import build_index
from theworld.data.processor import TheWorldProcessor
from theworld.data.rows.osd import OSDRows
from theworld.data.samples import OSDSamples
from theworld.data.stores import FolderStore

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
    return make_tokenizer(PIECES, CHAT_TEMPLATE)


@pytest.fixture(scope="session")
def image_processor():
    return make_image_processor(32)


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


@pytest.fixture(name="write_osd")
def _write_osd(tmp_path):
    """Write rows and an image for each; returns (path, image folder)."""

    def write(rows, name="train.json"):
        return write_osd(tmp_path, rows, name)

    return write


@pytest.fixture
def open_osd(write_osd):
    def build(rows, name="train.json"):
        path, folder = write_osd(rows, name)
        return OSDRows(path, image_folder=folder)

    return build


@pytest.fixture
def make_samples(processor):
    """Opened rows as samples read from their folder."""

    def make(rows, **settings):
        settings = {"max_seq_length": 400, "name": "train"} | settings
        index = build_index(rows, processor, **settings)
        store = FolderStore(index, rows_path=rows.path, image_folder=rows.images.folder)
        return OSDSamples(store, index=index, processor=processor)

    return make


@pytest.fixture
def base(processor, tmp_path):
    processor.save_pretrained(tmp_path / "base")
    return str(tmp_path / "base")


@pytest.fixture
def make_data(base, write_osd, make_row):
    files = {}
    for split, turns in (("train", 3), ("val", 2), ("test", 1)):
        rows = [make_row(i, turns=1 + i % turns) for i in range(22)]
        path, images = write_osd(rows, f"{split}.json")
        files |= {f"{split}_path": str(path), f"{split}_images": str(images)}

    def make(**changes):
        settings = files | {
            "base": base,
            "num_world_tokens": 5,
            "world_image_size": 16,
            "max_seq_length": 300,
            "token_budget": 400,
            "micro_batches_per_step": 2,
            "seed": 5,
        }
        return OSDDataModule(**settings | changes)

    return make
