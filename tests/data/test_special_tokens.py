"""Special and added tokens, as the files beside a tokenizer.json declare them."""

import fnmatch
import json

import pytest

from mtjax.data.hub import MODEL_FILES, TOKENIZER_FILES
from mtjax.data.streaming import TextStream
from mtjax.data.tokenizers import load_tokenizer

FAST = dict(tokenizer_class="PreTrainedTokenizerFast")
TEXT = "a<tool>b<|im_end|></s>"
A, B = ord("a"), ord("b")


def entry(content, special=True, **flags):
  plain = dict(single_word=False, lstrip=False, rstrip=False, normalized=False)
  return dict(plain, content=content, special=special, **flags)


def typed(content, **flags):
  return dict(entry(content, **flags), __type="AddedToken")


ADDED = {"258": entry("<tool>", special=False), "259": entry("<|im_end|>")}
OLDER = dict(bos_token="<s>", eos_token=entry("<|stop|>"), pad_token="<fill>")

# The files of folders whose tokenizer.json has <s> and </s>, and that declare something else.
FOLDERS = {
  "names in the older file": dict(
    tokenizer_config=dict(FAST, eos_token="</s>"), special_tokens_map=OLDER
  ),
  "names in the older file alone": dict(special_tokens_map=OLDER, tokenizer_config=FAST),
  "the newer file speaks alone": dict(
    tokenizer_config=dict(FAST, eos_token="</s>", added_tokens_decoder=ADDED),
    special_tokens_map=OLDER,
    added_tokens={"<|other|>": 258},
  ),
  "tokens of the newer file": dict(
    tokenizer_config=dict(FAST, bos_token="<s>", eos_token="<|im_end|>", added_tokens_decoder=ADDED)
  ),
  "tokens of the older file": dict(
    tokenizer_config=dict(FAST, bos_token="<s>", eos_token="</s>"), added_tokens={"<tool>": 258}
  ),
  "an end token of the older file": dict(
    tokenizer_config=dict(FAST, eos_token="<|im_end|>"),
    added_tokens={"<|im_end|>": 259, "<tool>": 258},
  ),
  "what tokenizer.json has is not added": dict(
    tokenizer_config=dict(FAST, eos_token="</s>"), added_tokens={"</s>": 7, "<tool>": 258}
  ),
  "names without a token get ids in a fixed order": dict(
    tokenizer_config=dict(
      FAST,
      image_token="<image>",
      pad_token=typed("<pad>", lstrip=True),
      sep_token="<sep>",
      cls_token="<cls>",
      mask_token="<mask>",
      unk_token="<unk>",
      eos_token="<eos>",
      bos_token="<bos>",
      add_bos_token=True,
      extra_special_tokens=["<tool>"],
    )
  ),
  "names of the model's own": dict(
    tokenizer_config=dict(
      FAST, eos_token="</s>", extra_special_tokens=dict(boi="<tool>", image_token="<img>")
    )
  ),
}


@pytest.mark.parametrize("files", FOLDERS.values(), ids=FOLDERS)
def test_ids_are_those_of_transformers(imported, files):
  transformers = pytest.importorskip("transformers", reason="PARITY=yes make test")
  folder = imported("<s>", "</s>", **files)
  theirs, ours = transformers.AutoTokenizer.from_pretrained(folder), load_tokenizer(folder)
  assert ours.eos_id == theirs.eos_token_id
  assert theirs.bos_token_id in (None, ours.bos_id)
  assert theirs.pad_token_id in (None, ours.pad_id)
  assert ours.mask_token == theirs.mask_token
  assert ours.encode(TEXT) == theirs.encode(TEXT)
  added = theirs.added_tokens_decoder
  assert ours.special_tokens() == {str(t): index for index, t in added.items() if t.special}


# The ids below are those of transformers 5.24 for the folders above.
def test_the_older_file_names_the_tokens(imported):
  files = FOLDERS["names in the older file"]
  tokenizer = load_tokenizer(imported("<s>", "</s>", "<|stop|>", "<fill>", **files))
  assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.pad_id) == (256, (258,), 259)


@pytest.mark.parametrize(
  ("name", "ids"),
  [
    ("tokens of the newer file", [A, 258, B, 259, 257]),
    ("tokens of the older file", [A, 258, B, *b"<|im_end|>", 257]),
  ],
)
def test_added_tokens_have_the_ids_that_a_file_names(imported, name, ids):
  assert load_tokenizer(imported("<s>", "</s>", **FOLDERS[name])).encode(TEXT) == ids


def test_an_end_token_that_tokenizer_json_lacks_is_added(imported):
  files = dict(tokenizer_config=dict(eos_token="<|end|>"), config=dict(eos_token_id=[257, -1]))
  tokenizer = load_tokenizer(imported("<s>", "</s>", **files))
  assert (tokenizer.eos_ids, tokenizer.vocab_size) == ((258, 257), 259)


def test_added_tokens_are_text_unless_they_are_special(imported):
  tokenizer = load_tokenizer(imported("<s>", "</s>", **FOLDERS["tokens of the newer file"]))
  assert tokenizer.token_bytes()[256:] == [b"", b"", b"<tool>", b""]
  assert TextStream(tokenizer).feed([A, 258, 259]) == tokenizer.decode([A, 258, 259]) == "a<tool>"
  assert tokenizer.special_tokens() == {"<s>": 256, "</s>": 257, "<|im_end|>": 259}
  assert tokenizer.encode_documents(["<|im_end|>"]) == [list(b"<|im_end|>")]


def test_added_tokens_make_another_vocabulary(imported):
  plain = imported("<s>", "</s>", tokenizer_config=dict(eos_token="</s>"))
  same = imported("<s>", "</s>", tokenizer_config=dict(bos_token="<s>", eos_token="</s>"))
  other = imported("<s>", "</s>", **FOLDERS["tokens of the newer file"])
  hashes = [load_tokenizer(folder).fingerprint() for folder in (plain, same, other)]
  assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize(
  ("name", "content"),
  [
    ("added_tokens", {"<tool>": 300}),
    ("tokenizer_config", dict(eos_token="</s>", added_tokens_decoder={"300": entry("<tool>")})),
  ],
)
def test_an_impossible_id_is_refused(imported, name, content):
  folder = imported("<s>", "</s>", **{name: content})
  with pytest.raises(ValueError, match=rf"{name}.json says that '<tool>' is token 300.*token 258"):
    load_tokenizer(folder)


@pytest.mark.parametrize(
  ("name", "content"),
  [
    *[("generation_config", dict(eos_token_id=x)) for x in ("256", [256, None], {}, 1.0, True)],
    ("config", dict(eos_token_id="</s>")),
    ("config", []),
    *[("tokenizer_config", dict(eos_token=x)) for x in (["</s>"], 1, {}, dict(content=None))],
    ("tokenizer_config", dict(pad_token=dict(content="x", lstrip="yes"))),
    ("tokenizer_config", dict(extra_special_tokens="x")),
    ("tokenizer_config", dict(extra_special_tokens=dict(image_token=1))),
    *[("tokenizer_config", dict(added_tokens_decoder=x)) for x in (None, [], {"x": "y"}, {"1": 2})],
    ("tokenizer_config", dict(pad_token="\ud83d")),
    ("special_tokens_map", dict(eos_token=1)),
    ("special_tokens_map", dict(additional_special_tokens=[None])),
    *[("added_tokens", dict(x=x)) for x in ("1", None, -1, True)],
    ("added_tokens", {"\ud83d": 258}),
  ],
)
def test_a_file_with_wrong_content_is_named(imported, name, content):
  with pytest.raises(ValueError, match=f"{name}.json"):
    load_tokenizer(imported("<s>", "</s>", **{name: content}))


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000])
@pytest.mark.parametrize(
  "name", ["tokenizer_config", "special_tokens_map", "added_tokens", "generation_config", "config"]
)
def test_a_file_that_is_no_json_is_named(imported, name, text):
  folder = imported("<s>", "</s>")
  (folder / f"{name}.json").write_text(text)
  with pytest.raises(ValueError, match=f"{name}.json"):
    load_tokenizer(folder)


def test_a_tokenizer_json_may_begin_with_a_byte_order_mark(imported):
  folder = imported("<s>", "</s>")
  file = folder / "tokenizer.json"
  before = load_tokenizer(folder).fingerprint()
  file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
  assert json.loads(file.read_text(encoding="utf-8-sig"))
  assert load_tokenizer(folder).fingerprint() == before


@pytest.mark.parametrize(
  "file",
  ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"],
)
@pytest.mark.parametrize("patterns", [TOKENIZER_FILES, MODEL_FILES], ids=["tokenizer", "model"])
def test_every_file_that_is_read_is_also_fetched(file, patterns):
  assert any(fnmatch.fnmatch(file, pattern) for pattern in patterns)
