"""Hugging Face ids and their revisions, from a cache on disk and without a network."""

import jax
import numpy as np
import pytest

import mtjax
from mtjax import checkpoints
from mtjax.data.hub import at_revision, local_folder
from mtjax.data.tokenizers import ByteTokenizer, load_tokenizer
from mtjax.models import Model, TransformerConfig, uniform_layers
from mtjax.pretrained import load_pretrained

constants = pytest.importorskip("huggingface_hub.constants", reason="pip install mtjax[hf]")

OLD, NEW = "1" * 40, "2" * 40
MODEL = Model(
  TransformerConfig(
    vocab_size=258,
    dim=8,
    heads=1,
    kv_heads=1,
    head_dim=8,
    mlp_dim=8,
    layers=uniform_layers(1),
    max_position=32,
  )
)


def params_of(seed):
  return MODEL.init(jax.random.key(seed))


@pytest.fixture
def cache(tmp_path, monkeypatch):
  """A cache in the layout of huggingface_hub: two commits of one model, and nothing to fetch."""
  root = tmp_path / "models--someone--tiny"
  for seed, commit in enumerate((OLD, NEW)):
    folder = root / "snapshots" / commit
    checkpoints.save(folder, MODEL, params_of(seed), tokenizer=ByteTokenizer())
  for ref, commit in {"main": NEW, "v1": OLD, "refs/pr/3": OLD}.items():
    file = root / "refs" / ref
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(commit)
  monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
  monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
  monkeypatch.chdir(tmp_path)
  return root


def is_model_of(seed, text):
  old, new = (jax.tree.leaves(params) for params in (params_of(seed), text.params))
  return all(np.array_equal(a, b) for a, b in zip(old, new, strict=True))


@pytest.mark.parametrize(
  ("revision", "seed"), [(None, 1), ("main", 1), ("v1", 0), ("refs/pr/3", 0), (OLD, 0), (NEW, 1)]
)
def test_a_branch_a_tag_and_a_commit_are_read(cache, revision, seed):
  text = mtjax.load("someone/tiny", revision=revision, weights=None)
  assert is_model_of(seed, text)
  assert text.name == ("someone/tiny" if revision is None else f"someone/tiny@{revision}")
  assert is_model_of(seed, load_pretrained(text.name))


def test_a_tokenizer_is_that_of_the_revision(cache):
  (cache / "snapshots" / OLD / "tokenizer.json").write_text("{}")
  assert load_tokenizer("someone/tiny").vocab_size == 258
  with pytest.raises(ValueError, match=f"snapshots/{OLD}/tokenizer.json"):
    load_tokenizer("someone/tiny@v1")


def test_a_revision_that_is_not_in_the_cache_is_named_offline(cache):
  for revision in ("v2", "3" * 40):
    with pytest.raises(FileNotFoundError, match=f"revision '{revision}' of 'someone/tiny' .*Local"):
      mtjax.load("someone/tiny", revision=revision)
  with pytest.raises(FileNotFoundError, match="'someone/other' is no local folder"):
    mtjax.load("someone/other")


def test_what_is_local_has_no_revision(cache, tmp_path):
  (tmp_path / "here" / "model").mkdir(parents=True)
  for name in ("here/model", str(cache / "snapshots" / OLD), "here"):
    with pytest.raises(ValueError, match=r"is a local file or folder.*leave revision='v1' out"):
      mtjax.load(name, revision="v1")
    with pytest.raises(ValueError, match=r"is a local file or folder.*leave @v1 out"):
      load_pretrained(f"{name}@v1")
  for name in ("target", "smollm2", "a/b/c", "/no/folder"):
    with pytest.raises(ValueError, match=f"is for a Hugging Face id, owner/name; '{name}' is none"):
      mtjax.load(name, revision="v1")
    with pytest.raises(ValueError, match=f"'{name}@v1' is no file or folder, and only a Hugging"):
      load_pretrained(f"{name}@v1")


def test_a_folder_may_have_an_at_sign_in_its_name(cache, tmp_path):
  checkpoints.save(tmp_path / "here" / "run@3", MODEL, params_of(5), tokenizer=ByteTokenizer())
  assert is_model_of(5, load_pretrained("here/run@3"))


@pytest.mark.parametrize("revision", ["", "..", "a/../../b", "/etc", "a b", "-x", "a@b"])
def test_a_revision_that_cannot_be_one_is_refused(cache, revision):
  with pytest.raises(ValueError, match="must be a branch, a tag or a commit"):
    local_folder(f"someone/tiny@{revision}")
  with pytest.raises(ValueError, match="must be a branch, a tag or a commit"):
    mtjax.load("someone/tiny", revision=revision)


def test_one_name_has_one_revision():
  with pytest.raises(ValueError, match="'someone/tiny@v1' names a revision already"):
    at_revision("someone/tiny@v1", "v2")
