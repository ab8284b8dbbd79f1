"""Chat templates of imported models, rendered in a sandbox."""

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def apply_chat_template(
  messages: Sequence[dict[str, Any]], folder: str | Path, **variables: Any
) -> str:
  """The conversation as the text that the model in `folder` was trained on.

  `messages` are {"role": ..., "content": ...}; `variables` are seen by the template, among them
  add_generation_prompt (True unless given). The template is chat_template.jinja, or chat_template
  in tokenizer_config.json or chat_template.json. It runs in a sandbox: it can neither change what
  it is given nor reach Python. Raises FileNotFoundError when the folder has no template,
  ValueError when the template refuses the messages.
  """
  try:
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment
  except ImportError:
    raise ImportError("chat templates need jinja2: pip install mtjax[hf]") from None

  folder = Path(folder)
  config = _json(folder / "tokenizer_config.json")
  environment = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
  )
  environment.filters["tojson"] = _tojson
  functions: dict[str, Any] = dict(raise_exception=_refuse, strftime_now=_now)
  names = ("bos_token", "eos_token", "pad_token", "unk_token")
  special = {name: token for name in names if (token := named_token(config, name)) is not None}
  try:
    return environment.from_string(_template(folder, config)).render(
      **{
        **functions,
        **special,
        "add_generation_prompt": True,
        "messages": list(messages),
        **variables,
      }
    )
  except jinja2.TemplateError as error:
    raise ValueError(f"the chat template of {str(folder)!r} refused: {error}") from None


def named_token(config: dict[str, Any], name: str) -> str | None:
  """The text of a special token in tokenizer_config.json, which has two ways to write it."""
  value = config.get(name)
  return value["content"] if isinstance(value, dict) else value


def _template(folder: Path, config: dict[str, Any]) -> str:
  file = folder / "chat_template.jinja"
  if file.is_file():
    return file.read_text(encoding="utf-8")
  template = config.get("chat_template") or _json(folder / "chat_template.json").get(
    "chat_template"
  )
  if isinstance(template, list):
    template = {each["name"]: each["template"] for each in template}.get("default")
  if not template:
    raise FileNotFoundError(f"{str(folder)!r} has no chat template; give the model plain text")
  return template


def _tojson(value: Any, ensure_ascii=False, indent=None, separators=None, sort_keys=False) -> str:
  # Not jinja2's own filter: that one escapes for HTML.
  return json.dumps(
    value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
  )


def _now(form: str) -> str:
  return datetime.datetime.now().strftime(form)


def _refuse(message: str) -> None:
  import jinja2

  raise jinja2.TemplateError(message)


def _json(path: Path) -> dict[str, Any]:
  return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
