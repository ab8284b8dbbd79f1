"""Continues prompts: python -m experiments.decode --config=configs/decode/ar.py --prompt="..."

Prompts come from --prompt (repeatable), --prompts=file.jsonl (one {"prompt": "..."} a line) or
standard input. One prompt is streamed; several are one batch. --output=run.json keeps everything.
"""

import json
import sys

from absl import flags
from rich.console import Console

from mtjax import launch
from mtjax.methods import check_method
from mtjax.presets import load_pretrained, make_method, weights_for_decoding
from mtjax.report.terminal import counters_table
from mtjax.sampling import Sampling
from mtjax.text import TextModel

_CONFIG = launch.define_config()
_PROMPT = flags.DEFINE_multi_string("prompt", [], "Text to continue; may be given several times.")
_PROMPTS = flags.DEFINE_string("prompts", None, 'JSON lines, each {"prompt": "..."}.')
_OUTPUT = flags.DEFINE_string("output", None, "Where to write texts, tokens, settings, counters.")


def read_prompts() -> list[str]:
  prompts = list(_PROMPT.value)
  if _PROMPTS.value is not None:
    with open(_PROMPTS.value, encoding="utf-8") as file:
      lines = enumerate(file.read().split("\n"), 1)
    prompts += [_prompt_of(line, number) for number, line in lines if line.strip()]
  if not prompts and not sys.stdin.isatty():
    prompts = [text] if (text := sys.stdin.read().rstrip("\n")) else []
  if not prompts:
    raise ValueError('no prompt: give --prompt="...", --prompts=file.jsonl, or text on stdin')
  return prompts


def _prompt_of(line: str, number: int) -> str:
  try:
    return "".join([json.loads(line)["prompt"]])  # a TypeError for anything but text
  except (json.JSONDecodeError, KeyError, TypeError):
    raise ValueError(f'{_PROMPTS.value}, line {number}: not {{"prompt": "..."}}') from None


def formatted(prompts: list[str], tokenizer, prompt_format: str):
  if prompt_format == "text":
    return prompts
  if prompt_format != "chat":
    raise ValueError(f'prompt_format {prompt_format!r} is not one of: "text", "chat"')
  if not hasattr(tokenizer, "encode_chat"):
    raise ValueError("this model's tokenizer has no chat template; use prompt_format text")
  return [tokenizer.encode_chat([dict(role="user", content=prompt)]) for prompt in prompts]


def run() -> None:
  config = launch.required(_CONFIG, "configs/decode/ar.py")
  check_method(config.method)
  launch.check_output(_OUTPUT.value)
  prompts = read_prompts()
  text = load_pretrained(config.model, dtype=config.dtype or None)
  text = TextModel(text.model, weights_for_decoding(text.params, config.weights), text.tokenizer)
  method, method_params = make_method(config, text)
  sampling = Sampling(
    temperature=config.temperature,
    top_k=config.top_k,
    top_p=config.top_p,
    min_p=config.min_p,
    repetition_penalty=config.repetition_penalty,
    presence_penalty=config.presence_penalty,
  )
  results = []
  pieces = text.stream(
    formatted(prompts, text.tokenizer, config.prompt_format),
    method=method,
    method_params=method_params,
    max_tokens=config.max_tokens,
    sampling=sampling,
    key=config.seed,
    stop=config.stop,
    every=config.every,
    on_finish=lambda *result: results.append(result),
  )
  for new in pieces:
    if len(prompts) == 1:
      print(new[0], end="", flush=True)
  completions, generation = results[0]
  print() if len(prompts) == 1 else print(
    "\n\n".join(f"[{row}] {c.prompt}\n{c.text}" for row, c in enumerate(completions))
  )
  Console(stderr=True).print(counters_table(generation.counters))
  if _OUTPUT.value is not None:
    with open(_OUTPUT.value, "w", encoding="utf-8") as file:
      rows = [vars(completion) for completion in completions]
      settings = config.to_dict()
      json.dump(dict(settings=settings, rows=rows, counters=generation.counters), file, indent=2)


if __name__ == "__main__":
  launch.main(run)
