"""Chat templates of imported models, which turn messages into the text of a model's training."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtjax.data import templates
from mtjax.data.sources.text_files import read_object, read_text, whole_text
from mtjax.data.special_tokens import CONFIG, read_special_tokens

# Names of a message's reasoning; most templates read the first one, some the second.
_REASONING = ("reasoning_content", "thinking", "reasoning")


def apply_chat_template(
  messages: Sequence[dict[str, Any]], folder: str | Path, **variables: Any
) -> str:
  """Returns the conversation as the text that the model in `folder` was trained on.

  `messages` are {"role": ..., "content": ...}. A key whose value is None counts as missing, and
  reasoning under one of its names is available under the others, as in transformers 5. The template
  sees `variables`, among them add_generation_prompt (default True), tools and documents (default
  None), and the special tokens that the folder's files name. The template is chat_template.jinja,
  or chat_template in tokenizer_config.json or chat_template.json; of several, it is the default,
  or with tools the one named tool_use.

  It runs in a sandbox in a process of its own, with limits of time, memory and length
  (`mtjax.data.templates.LIMITS`): it can neither change its variables nor reach Python. Raises
  FileNotFoundError if the folder has no template, ValueError that names the template's file if it
  refuses the messages, fails or exceeds a limit, and ImportError without jinja2.
  """
  folder = Path(folder)
  template = read_template(folder, has_tools=variables.get("tools") is not None)
  return render_template(messages, template, read_special_tokens(folder).named, **variables)


def render_template(
  messages: Sequence[dict[str, Any]],
  template: tuple[Path, str],
  named: Mapping[str, str],
  **variables: Any,
) -> str:
  """Returns what `apply_chat_template` does, for a template and the file that errors name."""
  if importlib.util.find_spec("jinja2") is None:
    raise ImportError("chat templates need jinja2: `pip install mtjax[hf]`")
  file, text = template
  values = {
    **named,
    "tools": None,
    "documents": None,
    "add_generation_prompt": True,
    "messages": [_message(message) for message in messages],
    **variables,
  }
  try:
    return templates.renderer().render(text, values)
  except templates.Unrenderable as error:
    raise ValueError(f"the chat template in {str(file)!r} refused: {error}") from None


def read_template(folder: Path, *, has_tools: bool) -> tuple[Path, str]:
  """Returns a folder's template, and the file it is in. Raises FileNotFoundError without one."""
  jinja = folder / "chat_template.jinja"
  if jinja.is_file():
    return jinja, read_text(jinja)
  for file in (folder / CONFIG, folder / "chat_template.json"):
    template = read_object(file).get("chat_template")
    if isinstance(template, list):
      template = _one_of(template, file, has_tools)
    if template and not isinstance(template, str):
      raise ValueError(f"{file}: chat_template must be text, got {template!r:.80}")
    if template:
      return file, whole_text(template, str(file))
  raise FileNotFoundError(f"{str(folder)!r} has no chat template: give the model plain text")


def _message(message: Any) -> dict[str, Any]:
  if not isinstance(message, Mapping):
    raise ValueError(f'a message must be {{"role": ..., "content": ...}}, got {message!r:.80}')
  known = {key: value for key, value in message.items() if value is not None}
  reasoning = next((known[name] for name in _REASONING if name in known), None)
  if reasoning is None:
    return known
  return {"thinking": reasoning, **known, "reasoning_content": reasoning}


def _one_of(several: list[Any], file: Path, has_tools: bool) -> Any:
  try:
    by_name = {each["name"]: each["template"] for each in several}
  except (TypeError, KeyError):
    raise ValueError(
      f'{file}: chat_template must be text, or a list of {{"name": ..., "template": ...}}'
    ) from None
  return by_name.get("tool_use" if has_tools and "tool_use" in by_name else "default")
