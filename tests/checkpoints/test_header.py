"""Headers of safetensors files: every byte belongs to one tensor, or the file is refused by name.

The oracle is the safetensors library, which refuses what we refuse.
"""

import json

import numpy as np
import pytest
import safetensors

from mtjax import checkpoints
from mtjax.checkpoints.header import read_header
from mtjax.checkpoints.reading import StoredTensors


def entry(start, stop, shape=None, dtype="F32"):
  return dict(dtype=dtype, shape=[(stop - start) // 4] if shape is None else shape,
              data_offsets=[start, stop])  # fmt: skip


TWO = dict(a=entry(0, 8), b=entry(8, 24))


def write(file, header, data=24):
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  file.write_bytes(
    len(text).to_bytes(8, "little") + text + np.arange(data, dtype=np.uint8).tobytes()
  )


def test_ranges_may_have_any_order_and_may_be_empty(tmp_path):
  file = tmp_path / "model.safetensors"
  write(file, dict(b=TWO["b"], none=entry(8, 8), a=TWO["a"], __metadata__=dict(format="pt")))
  tensors = read_header(file)
  assert {name: tensor.shape for name, tensor in tensors.items()} == dict(b=(4,), none=(0,), a=(2,))
  data = file.stat().st_size - 24
  assert (tensors["a"].offset, tensors["b"].offset) == (data, data + 8)
  with StoredTensors(tmp_path) as stored:
    np.testing.assert_array_equal(
      stored.rows("b", 1, 3), np.arange(12, 20, dtype=np.uint8).view(np.float32)
    )


def test_a_file_without_tensors_has_none(tmp_path):
  write(tmp_path / "x.safetensors", {}, 0)
  assert read_header(tmp_path / "x.safetensors") == {}


def with_b(**fields):
  return TWO | dict(b=TWO["b"] | fields)


BROKEN = {
  "one range twice": (TWO | dict(b=TWO["a"], c=entry(8, 24)), "b begins at byte 0 .* before a end"),
  "overlapping": (dict(a=entry(0, 12), b=entry(8, 24)), "b begins at byte 8 .* before a ends"),
  "inside another": (dict(a=entry(0, 24), b=entry(4, 8)), "b begins at byte 4 .* before a ends"),
  "in the header": (dict(a=entry(-8, 0), b=entry(0, 24)), r"a has the data_offsets \[-8, 0\]"),
  "before the file": (dict(a=entry(-400, -8), b=entry(0, 24)), r"a has the data_offsets \[-400"),
  "backwards": (with_b(data_offsets=[24, 8]), r"b has the data_offsets \[24, 8\]"),
  "a gap": (dict(a=entry(0, 4), b=entry(8, 24)), "b begins at byte 8 .* end of a, at byte 4"),
  "a gap at the beginning": (dict(b=entry(8, 24)), "b begins at byte 8 .* end of the header"),
  "an end beyond the file": (dict(a=entry(0, 8), b=entry(8, 28)), "24 bytes .* must have 28, .* b"),
  "bytes left over": (dict(a=entry(0, 8)), "24 bytes after its header and must have 8, where a"),
  "no tensor for the data": ({}, "24 bytes after its header and must have 0: it was cut or is dam"),
  "too few bytes": (with_b(shape=[5]), r"b has 16 bytes for F32 \[5\]"),
  "too few bytes of whole numbers": (with_b(dtype="I64"), r"b has 16 bytes for I64 \[4\]"),
  "float offsets": (with_b(data_offsets=[8.0, 24.0]), r"b has the data_offsets \[8.0, 24.0\]"),
  "three offsets": (with_b(data_offsets=[8, 16, 24]), r"b has the data_offsets \[8, 16, 24\]"),
  "no list of offsets": (with_b(data_offsets=8), "b has the data_offsets 8; they must be two"),
  "true offsets": (with_b(shape=[], dtype="I8", data_offsets=[False, True]), "False, True"),
  "a shape of words": (with_b(shape=["2", "2"]), r"b has the shape \['2', '2'\]"),
  "a shape of truth": (with_b(shape=[True, 4]), r"b has the shape \[True, 4\]"),
  "a shape of floats": (with_b(shape=[4.0]), r"b has the shape \[4.0\]"),
  "a negative shape": (with_b(shape=[-2, -2]), r"b has the shape \[-2, -2\]"),
  "a nested shape": (with_b(shape=[[4]]), r"b has the shape \[\[4\]\]"),
  "no list of sizes": (with_b(shape=None), "b has the shape None"),
  "a list of dtypes": (with_b(dtype=["F32"]), r"b has the dtype \['F32'\], which is none of BOOL"),
  "no dtype": (with_b(dtype=None), "b has the dtype None"),
  "an unknown dtype": (with_b(dtype="Q4"), "b has the dtype 'Q4', which is none of BOOL"),
  "an entry without shape": (TWO | dict(b=dict(dtype="F32")), "b must have a dtype, a shape"),
  "an entry that is a list": (TWO | dict(b=[]), "b must have a dtype, a shape"),
  "no object": ([], "it is no JSON object"),
  "half an object": (b'{"a": ', "has a broken safetensors header"),
  "no UTF-8": (b'{"\xff": 1}', "has a broken safetensors header"),
  "deep": (b"[" * 100_000, "has a broken safetensors header"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_is_no_safetensors_file_is_refused_by_name(tmp_path, case):
  header, message = BROKEN[case]
  file = tmp_path / "model-00001-of-00001.safetensors"
  write(file, header)
  with pytest.raises(ValueError, match=message) as error:
    read_header(file)
  assert str(file) in str(error.value)
  with pytest.raises(safetensors.SafetensorError):
    safetensors.safe_open(file, "numpy")


@pytest.mark.parametrize(
  ("header", "message"),
  [
    # The library accepts these: it uses the last one, or makes no arrays itself.
    (b'{"a": {}, "a": %s}' % json.dumps(entry(0, 24)).encode(), "a is there twice"),
    (dict(a=entry(0, 24, [6] + [1] * 64)), "a list of at most 64 whole numbers"),
  ],
)
def test_headers_that_the_library_accepts_are_refused(tmp_path, header, message):
  file = tmp_path / "model.safetensors"
  write(file, header)
  with pytest.raises(ValueError, match=message):
    read_header(file)


def test_a_long_header_is_not_read(tmp_path):
  file = tmp_path / "model.safetensors"
  with open(file, "wb") as stream:
    stream.write((10**9).to_bytes(8, "little"))
    stream.truncate(2 * 10**9)  # takes no space
  with pytest.raises(ValueError, match="model.safetensors has a header of 1000000000 bytes"):
    read_header(file)


def test_a_file_of_five_bytes_is_no_header(tmp_path):
  (tmp_path / "model.safetensors").write_bytes(b"12345")
  with pytest.raises(ValueError, match="is no safetensors file, or was cut"):
    read_header(tmp_path / "model.safetensors")


INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
  ("index", "message"),
  [
    ({}, "has no weight_map"),
    (dict(weight_map=None), "has no weight_map"),
    (dict(weight_map=[]), "has no weight_map"),
    (dict(weight_map={}), "has no weight_map"),
    (dict(weight_map={"a": None}), "has None as the file of a; it must be the name of a file"),
    (dict(weight_map={"a": ["x"]}), r"has \['x'\] as the file of a"),
    (dict(weight_map={"a": 1}), "has 1 as the file of a"),
    (dict(weight_map={"a": ""}), "has '' as the file of a"),
    (dict(weight_map={"a": "."}), r"has '\.' as the file of a"),
    (dict(weight_map={"a": "../x.safetensors"}), r"has '\.\./x.safetensors' as the file of a"),
    (dict(weight_map={"a": "b/../../x.safetensors"}), "as the file of a"),
    (dict(weight_map={"a": "/x.safetensors"}), "has '/x.safetensors' as the file of a"),
    (dict(weight_map={"a": "x\0y"}), "as the file of a"),
    (dict(weight_map={"a": "\ud800"}), "as the file of a"),
    (b"[", "is no JSON"),
    (b"", "is no JSON"),
    (b"\xff", "is no JSON"),
    (b"[" * 100_000, "is no JSON"),
    ([], "must hold a JSON object, got list"),
  ],
)
def test_a_wrong_index_is_refused_by_name(folder, index, message):
  # The weights of the folder must not be read instead.
  (folder.parent / "x.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
  content = index if isinstance(index, bytes) else json.dumps(index).encode()
  (folder / INDEX).write_bytes(content)
  with pytest.raises(ValueError, match=message) as error:
    checkpoints.load(folder)
  assert str(folder / INDEX) in str(error.value)


@pytest.mark.parametrize("name", ["x" * 300, "lost.safetensors", "config.json/x"])
def test_weights_with_impossible_names_are_missing(folder, name):
  (folder / INDEX).write_text(json.dumps(dict(weight_map={"a": name})))
  with pytest.raises(FileNotFoundError, match=f"lacks .*, which {INDEX} names"):
    checkpoints.load(folder)


def test_weights_may_be_below_the_folder_and_be_links(folder, tiny):
  """They are so in the cache of the hub."""
  (folder / "part").mkdir()
  (folder / "model.safetensors").rename(folder.parent / "blob")
  (folder / "part" / "one.safetensors").symlink_to(folder.parent / "blob")
  (folder / INDEX).write_text(json.dumps(dict(weight_map={"a": "part/one.safetensors"})))
  assert checkpoints.load(folder)[0] == tiny[0]
