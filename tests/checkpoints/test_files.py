"""Folders in the format of transformers: round trips, refusals and their messages."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as safetensors

from mtjax import checkpoints
from mtjax.data import hub
from mtjax.data.tokenizers import BpeTokenizer, ByteTokenizer, load_tokenizer
from mtjax.models import Layer, Model, Rope, uniform_layers
from mtjax.models.quantize import dequantize, pack, to_int8
from mtjax.train.defaults import named

NORM = "model.layers.1.input_layernorm.weight"


def check_same(folder, model, params):
  again, values = checkpoints.load(folder)
  assert again == model
  jax.tree.map(np.testing.assert_array_equal, values, params)
  assert jax.tree.map(lambda x: x.dtype, values) == jax.tree.map(lambda x: x.dtype, params)


def edit(folder, change, file="model.safetensors"):
  """Rewrites the tensors of a file, a dict by name, after `change` has changed them."""
  tensors = safetensors.load_file(folder / file)
  change(tensors)
  safetensors.save_file(tensors, folder / file)


def edit_config(folder, **fields):
  config = json.loads((folder / "config.json").read_text())
  (folder / "config.json").write_text(json.dumps({**config, **fields}))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_saved_model_comes_back_bit_by_bit(tmp_path, tiny, dtype):
  model, params = tiny
  params = jax.tree.map(lambda x: x.astype(dtype), params)
  checkpoints.save(tmp_path, model, params)
  check_same(tmp_path, model, params)
  # The safetensors library reads the same numbers.
  table = safetensors.load_file(tmp_path / "model.safetensors")["model.embed_tokens.weight"]
  np.testing.assert_array_equal(table, np.asarray(params["embedding"]["table"]))


def test_shards_come_back_and_a_tensor_too_large_has_its_own(tmp_path, tiny):
  checkpoints.save(tmp_path, *tiny, shard_bytes=600)
  files = sorted(tmp_path.glob("model-*.safetensors"))
  index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
  assert len(files) > 3 and set(index["weight_map"].values()) == {file.name for file in files}
  check_same(tmp_path, *tiny)
  checkpoints.save(tmp_path, *tiny)
  assert [file.name for file in tmp_path.glob("model*")] == ["model.safetensors"]
  check_same(tmp_path, *tiny)


def test_a_dtype_converts_weights_and_the_model_computes_in_it(folder, tiny):
  model, params = checkpoints.load(folder, dtype="float32")
  assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
  jax.tree.map(np.testing.assert_array_equal, params, tiny[1])
  assert checkpoints.load(folder, dtype=jnp.bfloat16)[0].config.dtype == "bfloat16"
  with pytest.raises(ValueError, match="dtype must be None or one of float32, bfloat16, float16"):
    checkpoints.load(folder, dtype="int8")


def test_tied_heads_that_are_stored_twice_and_names_without_prefix(tmp_path, tiny):
  model = Model(dataclasses.replace(tiny[0].config, tied=True))
  params = {name: value for name, value in tiny[1].items() if name != "head"}
  checkpoints.save(tmp_path, model, params)

  def change(tensors):
    for name in list(tensors):
      tensors[name.removeprefix("model.")] = tensors.pop(name)
    tensors["lm_head.weight"] = tensors["embed_tokens.weight"].copy()
    tensors["layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(2, np.float32)

  edit(tmp_path, change)
  check_same(tmp_path, model, params)


def test_all_tensors_that_do_not_fit_the_config_are_named(folder):
  def change(tensors):
    del tensors[NORM]
    tensors["model.layers.9.extra"] = np.zeros(3, np.float32)
    tensors["lm_head.weight"] = np.zeros((40, 17), np.float32)

  edit(folder, change)
  with pytest.raises(ValueError) as error:
    checkpoints.load(folder)
  for part in (
    f"missing: {NORM}",
    "unexpected: model.layers.9.extra",
    "misshaped: lm_head.weight is [40, 17] and must be [40, 16]",
  ):
    assert part in str(error.value)


def cut(folder):
  file = folder / "model.safetensors"
  file.write_bytes(file.read_bytes()[:-10])


def garbage(folder):
  (folder / "model.safetensors").write_bytes(b"no tensors here, only text" * 4)


def quantised(folder):
  edit(folder, lambda tensors: tensors.update({NORM: np.zeros(16, np.int8)}))


def only_torch(folder):
  (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def lost_shard(folder):
  index = dict(weight_map={NORM: "model-00001-of-00002.safetensors"})
  (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
  ("damage", "error", "message"),
  [
    (cut, ValueError, "it was cut or is damaged"),
    (garbage, ValueError, "is no safetensors file, or was cut"),
    (quantised, ValueError, "is I8; only F32, BF16, F16 can be read"),
    (only_torch, FileNotFoundError, "pytorch_model.bin: save it as safetensors first"),
    (lost_shard, FileNotFoundError, "lacks model-00001-of-00002.safetensors"),
    (lambda f: (f / "config.json").unlink(), FileNotFoundError, "has no config.json"),
    (lambda f: (f / "config.json").write_text("{"), ValueError, "config.json is no JSON"),
    (lambda f: (f / "config.json").write_text("[" * 10**5), ValueError, "config.json is no JSON"),
    (lambda f: (f / "config.json").write_text("[]"), ValueError, "config.json must hold a JSON"),
  ],
)
def test_broken_folders_are_named(folder, damage, error, message):
  damage(folder)
  with pytest.raises(error, match=message):
    checkpoints.load(folder)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (dict(model_type="mamba"), "'mamba' of config.json is not supported; known: llama, mistral"),
    (dict(quantization_config=dict(bits=4)), "the weights are quantised"),
    (dict(hidden_act="xielu"), "activation 'xielu' is not one of"),
    (dict(rope_parameters=dict(rope_type="longrope")), "rope type 'longrope' is not one of"),
    (dict(rope_parameters=dict(rope_type="llama3", factor=8.0)), "needs 'low_freq_factor'"),
    (dict(partial_rotary_factor=0.5), "partial_rotary_factor must be 1"),
    (dict(hidden_size=None), "config.json has no 'hidden_size'"),
  ],
)
def test_configs_that_the_network_cannot_compute_are_refused(folder, fields, message):
  # The config is checked before any weight is read.
  (folder / "model.safetensors").unlink()
  edit_config(folder, **fields)
  with pytest.raises(ValueError, match=message):
    checkpoints.load(folder)


def test_rope_settings_of_older_files_are_read(folder):
  config = json.loads((folder / "config.json").read_text())
  del config["rope_parameters"]
  config.update(rope_theta=5e5, rope_scaling=dict(type="linear", factor=2.0))
  (folder / "config.json").write_text(json.dumps(config))
  model, _ = checkpoints.load(folder)
  assert model.config.layers[0].rope == Rope(theta=5e5, kind="linear", factor=2.0)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (dict(extra_embeddings=2, norm="layer"), "norm is 'layer', there 'rms'"),
    (dict(layers=(Layer(window=4), Layer(window=8))), "layers is"),
    (dict(norm="layer"), "norm is 'layer', there 'rms'"),
  ],
)
def test_a_config_that_no_family_can_express_is_refused(tmp_path, tiny, fields, message):
  model = Model(dataclasses.replace(tiny[0].config, **fields))
  with pytest.raises(ValueError, match=message):
    checkpoints.save(tmp_path / "out", model, model.init(jax.random.key(0)))
  assert not list(tmp_path.iterdir())


def test_int8_and_packed_parameters_are_refused_and_say_what_to_do(tmp_path, tiny):
  model, params = tiny
  for other in (to_int8(params), pack(params)):
    with pytest.raises(ValueError, match="dequantize"):
      checkpoints.save(tmp_path / "out", model, other)
  checkpoints.save(tmp_path / "out", model, dequantize(to_int8(params)))
  assert checkpoints.load(tmp_path / "out")[0] == model


def test_parameters_of_another_model_are_refused(tmp_path, tiny):
  model = Model(dataclasses.replace(tiny[0].config, layers=uniform_layers(3)))
  with pytest.raises(ValueError, match="layer_2/attention.* is None and must be"):
    checkpoints.save(tmp_path / "out", model, tiny[1])


def test_a_save_that_fails_leaves_the_earlier_model(folder, tiny, monkeypatch):
  model, params = tiny
  before = {path.name: path.read_bytes() for path in folder.iterdir()}
  calls = []

  def full(self, *args):
    calls.append(args)
    if len(calls) > 4:
      raise OSError("no space left on device")
    return original(self, *args)

  original = np.ascontiguousarray
  monkeypatch.setattr(np, "ascontiguousarray", full)
  with pytest.raises(OSError, match="no space left"):
    checkpoints.save(folder, model, jax.tree.map(lambda x: x + 1, params))
  assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
  assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_tokenizer_files_go_with_the_model(tmp_path, tiny):
  source = tmp_path / "imported"
  source.mkdir()
  model = Model(dataclasses.replace(tiny[0].config, vocab_size=4096, tied=True))
  params = model.init(jax.random.key(0))
  shutil.copyfile(BpeTokenizer.bundled().file, source / "tokenizer.json")
  (source / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
  (source / "chat_template.jinja").write_text("{{ messages[0].content }}!")
  tokenizer = load_tokenizer(source)
  checkpoints.save(tmp_path / "out", model, params, tokenizer=tokenizer)
  again = load_tokenizer(tmp_path / "out")
  assert again.encode("Some text") == tokenizer.encode("Some text")
  assert again.eos_ids == tokenizer.eos_ids
  chat = [dict(role="user", content="Hello")]
  assert again.encode_chat(chat) == tokenizer.encode_chat(chat)
  checkpoints.save(tmp_path / "out", model, params, tokenizer=ByteTokenizer())
  assert not (tmp_path / "out" / "chat_template.jinja").exists(), "of the tokenizer before"
  with pytest.raises(ValueError, match="the tokenizer has 4096 ids, but the model has only 40"):
    checkpoints.save(tmp_path / "small", *tiny, tokenizer=tokenizer)


def test_bytes_become_a_file_that_the_tokenizers_library_reads(tmp_path, tiny):
  model = Model(dataclasses.replace(tiny[0].config, vocab_size=258, tied=True))
  params = model.init(jax.random.key(0))
  checkpoints.save(tmp_path, model, params, tokenizer=ByteTokenizer())
  again = load_tokenizer(tmp_path)
  text = "Zwölf Boxkämpfer\n\t\x00 \N{BEAR FACE}"
  assert again.encode(text) == ByteTokenizer().encode(text)
  assert (again.eos_id, again.pad_id) == (256, 257)


def test_ids_are_fetched_with_their_weights_and_failures_are_named(monkeypatch, folder):
  import huggingface_hub

  calls = []

  def fetch(name, allow_patterns):
    calls.append((name, allow_patterns))
    return str(folder)

  monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
  checkpoints.load("someone/tiny")
  assert calls == [("someone/tiny", list(hub.MODEL_FILES))]

  def offline(*args, **kwargs):
    raise ConnectionError("no route to host")

  monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
  with pytest.raises(FileNotFoundError, match="could not be fetched .*no route to host"):
    checkpoints.load("someone/tiny")
  with pytest.raises(
    FileNotFoundError, match="it must be a folder, a GGUF file or a Hugging Face id"
  ):
    checkpoints.load("no-such-folder")
  monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
  with pytest.raises(ImportError, match=r"pip install mtjax\[hf\]"):
    checkpoints.load("someone/tiny")


def test_bfloat16_is_read_from_files_of_other_writers(folder, tiny):
  """safetensors' own writer orders tensors in its own way."""

  def change(tensors):
    assert tensors[NORM].dtype == ml_dtypes.bfloat16

  edit(folder, change)
  check_same(folder, *tiny)


def test_the_folder_of_a_run_is_no_model_and_says_how_to_make_one(tmp_path):
  (tmp_path / "config.json").write_text(json.dumps(named("tiny").to_dict()))
  with pytest.raises(ValueError, match="folder of a training run.*experiments.export --workdir="):
    checkpoints.load(tmp_path)
