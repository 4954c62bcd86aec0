"""Rows are found as `json` would, in bounded memory; a broken row is reported with its place, and the rest survive."""

import json
import tracemalloc

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from theworld.data.rows import json_array, json_rows
from theworld.data.rows.json_rows import JsonRows, row_spans

_values = st.recursive(
    st.text(alphabet='ab"\\{}[],: \n\té') | st.integers() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('k"{\\', max_size=3), inner, max_size=3),
    max_leaves=8,
)
_objects = st.dictionaries(st.text('k"{}\\', max_size=3), _values, max_size=3)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(_objects, min_size=1, max_size=5), chunk=st.integers(1, 40), indent=st.sampled_from([None, 2]))
def test_spans_are_the_rows_at_every_chunk_size(rows, chunk, indent, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rows")
    (folder / "a.json").write_text(json.dumps(rows, indent=indent, ensure_ascii=False))
    (folder / "a.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    for name in ("a.json", "a.jsonl"):
        found = JsonRows(folder / name, chunk_bytes=chunk)
        assert [json.loads(found[i]) for i in range(len(found))] == rows


def test_memory_stays_bounded(tmp_path):
    row = {"text": 'x"{' * 10_000, "more": [1] * 100}
    path = tmp_path / "big.json"
    path.write_text(json.dumps([row] * 700))
    assert path.stat().st_size > 25e6
    tracemalloc.start()
    rows = JsonRows(path, chunk_bytes=1 << 16)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(rows) == 700
    assert peak < 1.5e6
    assert json.loads(rows[699]) == row


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1}, {"b": "cut', r"middle of the row that begins at byte 11"),
        ('[{"a": 1}', r"found b'' before byte 9, expected ']'"),
        ('[{"a": 1} {"b": 2}]', r"found b'' before byte 10, expected ','"),
        ('[{"a": 1}, 7, {"a": 2}]', r"found b',7,' before byte 14"),
        ('[{"a": 1}, {"a": 2}], {"a": 3}', r"found b'\],' before byte 22"),
        ('[{"a": 1}, ]', r"found b',' before byte 11, expected '\]'"),
        ('[, {"a": 1}]', r"found b',' before byte 3, expected ''"),
        ('[{"a": 1}, {"a": {"b": 2}, {"a": 3}]', r"row that begins at byte 11 is not closed .* at byte 27"),
        ('"text"', r"starts with b'\"', expected '\['"),
        ("[]", "holds no rows"),
        ("", "starts with b''"),
    ],
)
def test_files_that_are_no_rows(tmp_path, text, message):
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        JsonRows(path)


def _read(path, spans):
    raw = path.read_bytes()
    return [raw[span.offset : span.offset + span.size] for span in spans]


_texts = st.text(alphabet='ab"\\{}[],: é', max_size=6)
_parts = st.lists(st.fixed_dictionaries({"from": _texts}), max_size=2)
_rows = st.lists(st.builds(lambda name, talk: {"id": name, "talk": talk}, _texts, _parts), min_size=3, max_size=5)


@settings(max_examples=100, deadline=None)
@given(
    rows=_rows,
    data=st.data(),
    insert=st.text(alphabet='a"\\{}[],:', max_size=4),
    chunk=st.sampled_from([1, 7, 1000]),
    lines=st.booleans(),
)
def test_whatever_happens_to_one_row_the_others_are_found(rows, data, insert, chunk, lines, tmp_path_factory):
    texts = [json.dumps(row) for row in rows]
    broken = data.draw(st.integers(1, len(texts) - 1))
    first = data.draw(st.integers(0, len(texts[broken])))
    last = data.draw(st.integers(first, len(texts[broken])))
    edited = texts[broken][:first] + insert + texts[broken][last:]
    assume(edited.count('{"id":') <= 1)
    path = tmp_path_factory.mktemp("rows") / "rows"
    whole = [*texts[:broken], edited, *texts[broken + 1 :]]
    path.write_text("\n".join(whole) if lines else f"[{', '.join(whole)}]")
    spans = list(row_spans(path, chunk_bytes=chunk))
    found = _read(path, [span for span in spans if span.fault is None])
    for number in set(range(len(texts))) - {broken}:
        assert found.count(texts[number].encode()) >= texts.count(texts[number]) - (texts[number] == texts[broken])
    if not _is_object(edited):
        assert any(span.fault or not _is_object(raw) for span, raw in zip(spans, _read(path, spans), strict=True))


def _is_object(text):
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


ROW = b'{"id": "a", "talk": [{"from": "b"}]}'
BROKEN = {
    "no closing brace": ROW[:-1],
    "no closing bracket and brace": ROW[:-2],
    "one brace too many": ROW[:10] + b"}" + ROW[10:],
    "open string": b'{"id": "a, "talk": []}',
    "cut in a string": b'{"id": "a',
    "cut after a colon": b'{"id":',
    "rubbish": b"\x00\xff\xfe",
    "two rows without a comma": ROW + b" " + b'{"id": "x"}',
    "no opening brace": ROW[1:],
    "a closing bracket": b"]",
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_row_in_the_middle_of_an_array(tmp_path, fault):
    path = tmp_path / "rows.json"
    path.write_bytes(b"[" + b", ".join([ROW] * 3 + [BROKEN[fault]] + [ROW] * 3) + b"]")
    spans = list(row_spans(path))
    sound = [raw for raw in _read(path, [span for span in spans if span.fault is None]) if raw == ROW]
    assert len(sound) == (7 if fault == "two rows without a comma" else 6)
    (bad,) = [span for span in spans if span.fault]
    offset = 1 + 3 * (len(ROW) + 2)
    assert offset <= bad.offset <= offset + len(BROKEN[fault])
    assert str(bad.offset) in bad.fault or str(bad.offset + bad.size) in bad.fault
    if fault != "a closing bracket":  # positive control: the same file without the broken row has no fault
        path.write_bytes(b"[" + b", ".join([ROW] * 6) + b"]")
        assert [span.fault for span in row_spans(path)] == [None] * 6


def test_rows_with_objects_that_begin_like_rows(tmp_path, monkeypatch):
    nested = b'{"id": 1, "parts": [{"id": 2}, {"id": 3}]}'
    path = tmp_path / "rows.json"
    path.write_bytes(b"[" + b",\n".join([nested] * 5) + b"]")
    spans = list(row_spans(path))
    assert _read(path, spans) == [nested] * 5
    assert not any(span.fault for span in spans)
    monkeypatch.setattr(json_array, "_LOOK_AHEAD", 3)  # the control: without following such objects they are faults
    assert any(span.fault for span in row_spans(path))


@pytest.mark.parametrize("lines", [False, True])
def test_rows_beyond_the_limit_are_passed_over_without_being_kept(tmp_path, lines, monkeypatch):
    limit = 4 << 20
    for module in (json_array, json_rows):
        monkeypatch.setattr(module, "MAX_ROW_BYTES", limit)
    path = tmp_path / "rows"
    with path.open("wb") as file:
        file.write(b"" if lines else b"[")
        file.write(ROW + (b"\n" if lines else b","))
        file.write(b'{"id": "')
        for _ in range(20):
            file.write(b"x" * (1 << 20))
        file.write(b'"}' + (b"\n" if lines else b",") + ROW + (b"" if lines else b"]"))
    tracemalloc.start()
    before, long, after = row_spans(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert _read(path, [before, after]) == [ROW, ROW]
    assert f"the row at byte {long.offset} has " in long.fault
    assert long.size >= 20 << 20
    assert long.offset == len(ROW) + (1 if lines else 2)
    assert peak < 3 * limit


def test_every_byte_is_handed_over_once(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"id": i} for i in range(1000)]) + " \n")
    chunks = []
    assert len(list(row_spans(path, chunk_bytes=100, on_bytes=chunks.append))) == 1000
    assert b"".join(chunks) == path.read_bytes()
