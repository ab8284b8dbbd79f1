"""A source of text, as a short string in a config or on a command line."""

import dataclasses
from typing import Any

from mtjax.data.sources.text_files import whole_text


@dataclasses.dataclass(frozen=True)
class Source:
  """Texts by name: "kind:name", and after the first "#" options, "key=value" divided by ";".

    file:books/*.txt.gz#header=-------     one document per file: the text after the line "-------"
    file:names.txt#per=line                one document per line
    file:gsm8k.jsonl#text_key=Question: {question}\\nAnswer: {answer}
    file:written.jsonl#ids_key=ids         one document per line: token ids of the model's tokenizer
    tfds:lm1b:1.1.0#split=train[:1%]       a TFDS dataset that is already prepared
    builtin:tinyshakespeare#split=valid    a text that comes with mtjax: train, valid, test

  Files are .txt or .jsonl, .gz or not, in the order of their names. JSON lines end only at "\\n";
  in text files all line ends become "\\n". In options, a backslash and n mean a new line.
  `parse` raises ValueError for unknown kinds, keys and values; nothing is opened before `documents`
  or `fingerprint`.
  """

  uri: str
  text_key: str = "text"  # for JSON lines and TFDS: a key, or a format string of several
  ids_key: str = ""  # for JSON lines: a key of token ids, in place of a text
  header: str = ""  # for text files: the line after which the text begins; "": all is text
  per: str = "file"  # for text files: a document is a "file" or a "line"
  split: str = "train"  # for TFDS and builtin
  data_dir: str = ""  # for TFDS; "": its own default
  download: bool = False  # for TFDS: a missing dataset may be fetched and prepared
  weight: float = 1.0  # share of the rows in a mixture

  def __post_init__(self):
    kind, _, name = self.uri.partition(":")
    if kind not in _KINDS or not name:
      kinds = ", ".join(f"{kind}:..." for kind in _KINDS)
      raise ValueError(f"source {self.uri!r} is none of: {kinds}")
    changed = {f.name for f in dataclasses.fields(self) if getattr(self, f.name) != f.default}
    if extra := changed - {"uri", "weight", *_KINDS[kind]}:
      allowed = ", ".join((*_KINDS[kind], "weight"))
      raise ValueError(f"{kind}: takes {allowed}; not {', '.join(sorted(extra))} ({self.uri!r})")
    if self.per not in ("file", "line"):
      raise ValueError(f'per must be "file" or "line", got {self.per!r}')
    if self.ids_key and self.text_key != "text":
      raise ValueError(f"{self.uri!r} has both text_key and ids_key: it holds texts or tokens")
    if not self.weight > 0:
      raise ValueError(f"the weight of {self.uri!r} must be above 0, got {self.weight}")

  @classmethod
  def parse(cls, text: "str | Source") -> "Source":
    if isinstance(text, Source):
      return text
    uri, _, rest = text.partition("#")
    options: dict[str, Any] = {}
    known = {field.name for field in dataclasses.fields(cls)} - {"uri"}
    for option in filter(None, rest.split(";")):
      key, equals, value = option.partition("=")
      if key not in known or not equals:
        raise ValueError(f"{text!r}: {option!r} is not key=value of: {', '.join(sorted(known))}")
      options[key] = _value(key, value, text)
    return cls(uri, **options)

  @property
  def kind(self) -> str:
    return self.uri.partition(":")[0]

  @property
  def name(self) -> str:
    return self.uri.partition(":")[2]


_KINDS = {
  "file": ("text_key", "ids_key", "header", "per"),
  "tfds": ("text_key", "split", "data_dir", "download"),
  "builtin": ("split",),
}


def _value(key: str, value: str, text: str) -> Any:
  try:
    if key == "weight":
      return float(value)
    if key == "download":
      return {"true": True, "false": False}[value.lower()]
  except (ValueError, KeyError):
    raise ValueError(f"{text!r}: {key} cannot be {value!r}") from None
  return value.replace("\\n", "\n")


def text_of(record: dict[str, Any], text_key: str, where: str) -> str:
  """Returns the text of a record: record[text_key], or text_key as a format string of its keys."""
  try:
    text = text_key.format_map(record) if "{" in text_key else record[text_key]
  except (KeyError, IndexError) as error:
    raise ValueError(f"{where}: no key {error}; there is: {', '.join(map(str, record))}") from None
  if not isinstance(text, str):
    raise ValueError(f"{where}: {text_key!r} holds {type(text).__name__}, not text")
  return whole_text(text, where)
