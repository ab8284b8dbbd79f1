"""TFDS without TensorFlow: names of the catalogue, missing datasets, and local text."""

import json
import subprocess
import sys

import pytest

from mtjax import data
from mtjax.data.sources.read import documents, fingerprint
from mtjax.data.sources.source import Source
from mtjax.data.tokenizers import ByteTokenizer


@pytest.fixture(scope="module")
def tfds():
  import tensorflow_datasets

  return tensorflow_datasets


@pytest.mark.parametrize("name", ["lm1b", "lm1b:1.1.0", "wiki40b/en"])
def test_catalogue_names_are_read(tfds, name):
  with tfds.testing.mock_data(num_examples=3):
    source = Source.parse(f"tfds:{name}#split=train")
    texts = list(documents(source))
  assert len(texts) == 3 and all(isinstance(text, str) for text in texts)


def test_several_features_make_a_text(tfds):
  with tfds.testing.mock_data(num_examples=2):
    texts = list(documents(Source.parse("tfds:wiki40b/en#text_key={wikidata_id}|{text}")))
  assert all("|" in text for text in texts)


@pytest.mark.parametrize(
  ("name", "error", "message"),
  [
    ("lm1b", FileNotFoundError, "not prepared in .*#download=true"),
    ("wiki40b/en:1.3.0", FileNotFoundError, "not prepared in"),
    ("wiki40b/xx", ValueError, "BuilderConfig xx not found"),
    ("no_such_thing", ValueError, "knows no dataset 'no_such_thing'"),
  ],
)
def test_a_missing_dataset_is_explained_at_once(tmp_path, name, error, message):
  with pytest.raises(error, match=message):
    list(documents(Source.parse(f"tfds:{name}#data_dir={tmp_path}")))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """Returns the source string of 20 numbered lines (train) and 2 (valid)."""
  from mtjax.data.sources.local_text import prepare

  folder = tmp_path_factory.mktemp("tfds")
  (folder / "train.txt").write_text("\n".join(f"line {n} é" for n in range(20)))
  (folder / "valid.txt").write_text("one\ntwo\n")
  splits = {name: f"file:{folder}/{name}.txt#per=line" for name in ("train", "valid")}
  return prepare("lines", splits, data_dir=str(folder / "data"))


def test_local_text_comes_back(prepared):
  texts = list(documents(Source.parse(prepared)))
  assert sorted(texts) == sorted(f"line {n} é" for n in range(20))
  assert sorted(documents(Source.parse(f"{prepared};split=valid"))) == ["one", "two"]
  assert len(list(documents(Source.parse(f"{prepared};split=train[:25%]")))) == 5


def test_another_process_reads_it_without_the_builder_or_tensorflow(prepared):
  code = (
    "import sys; from mtjax.data.sources import Source, documents; "
    f"print(len(list(documents(Source.parse({prepared!r})))), 'tensorflow' in sys.modules)"
  )
  run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
  assert run.stdout.split() == ["20", "False"], run.stderr


def test_it_trains(prepared, tmp_path):
  batches = data.TrainBatches(
    [prepared], ByteTokenizer(), batch=2, length=16, seed=0, cache_dir=str(tmp_path)
  )
  assert next(batches)["tokens"].shape == (2, 16)


@pytest.mark.parametrize(
  ("option", "message"),
  [
    ("split=test", "Unknown split 'test'. Should be one of"),
    ("split=train[:x]", "Error parsing split"),
    ("text_key=title", "no key 'title'; there is: text"),
  ],
)
def test_mistakes_about_a_prepared_set_are_named(prepared, option, message):
  with pytest.raises(ValueError, match=message):
    list(documents(Source.parse(f"{prepared};{option}")))


def test_another_version_is_refused(prepared):
  with pytest.raises(ValueError, match="version 9.9.9"):
    list(documents(Source.parse(prepared.replace(":1.0.0", ":9.9.9"))))


def test_changed_files_make_another_dataset(tmp_path):
  from mtjax.data.sources.local_text import prepare

  path = tmp_path / "a.txt"
  names = []
  for content in ("one", "two", "two"):
    path.write_text(content)
    names.append(prepare("a", {"train": f"file:{path}"}, data_dir=str(tmp_path / "data")))
    assert list(documents(Source.parse(names[-1]))) == [content]
  assert names[0] != names[1] == names[2]
  one, two = (fingerprint(Source.parse(name)) for name in names[:2])
  assert one != two


def test_other_formats_are_refused(tmp_path):
  from mtjax.data.sources.local_text import prepare

  (tmp_path / "a.txt").write_text("one")
  source = prepare("a", {"train": f"file:{tmp_path}/a.txt"}, data_dir=str(tmp_path / "data"))
  (file,) = (tmp_path / "data").rglob("dataset_info.json")
  info = json.loads(file.read_text())
  file.write_text(json.dumps({**info, "fileFormat": "tfrecord"}))
  with pytest.raises(ValueError, match="not stored as array_record"):
    list(documents(Source.parse(source)))


@pytest.mark.parametrize(
  ("name", "splits", "message"),
  [("Bad Name", {"train": "file:x.txt"}, "must be of a-z"), ("a", {}, "there is no split")],
)
def test_bad_names_are_refused(tmp_path, name, splits, message):
  from mtjax.data.sources.local_text import prepare

  with pytest.raises(ValueError, match=message):
    prepare(name, splits, data_dir=str(tmp_path))
