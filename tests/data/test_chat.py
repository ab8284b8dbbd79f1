"""Chat templates: the text that transformers gives, in a sandbox."""

import json
import shutil

import pytest

from mtjax.data.chat import apply_chat_template
from mtjax.data.tokenizers import BpeTokenizer

pytest.importorskip("jinja2", reason="pip install mtjax[hf]")

TEMPLATE = """{%- for message in messages %}
    {%- if message.role not in ('user', 'assistant') %}
        {{- raise_exception('Unknown role ' + message.role) }}
    {%- endif %}
    {%- if message.hidden %}
        {%- continue %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content | trim + eos_token + '\\n' }}
{%- endfor %}
{%- if tools %}
    {{- tools | tojson }}
{%- endif %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
MESSAGES = [
  dict(role="user", content=" Wie heißt du?<b> "),
  dict(role="assistant", content="x", hidden=True),
]


@pytest.fixture
def folder(tmp_path):
  from importlib import resources

  shutil.copy(str(resources.files("mtjax") / "assets" / "tokenizer.json"), tmp_path)
  write(tmp_path, TEMPLATE)
  return tmp_path


def write(folder, template, **extra):
  config = dict(
    eos_token="<|endoftext|>",
    chat_template=template,
    tokenizer_class="PreTrainedTokenizerFast",
    **extra,
  )
  (folder / "tokenizer_config.json").write_text(json.dumps(config))


def test_a_conversation_is_written_as_the_template_says(folder):
  text = apply_chat_template(MESSAGES, folder, tools=[dict(name="é<")])
  assert text == (
    '<|im_start|>user\nWie heißt du?<b><|endoftext|>\n[{"name": "é<"}]<|im_start|>assistant\n'
  )


def test_it_is_the_text_and_the_ids_of_transformers(folder):
  transformers = pytest.importorskip("transformers", reason="PARITY=yes make test")
  theirs = transformers.AutoTokenizer.from_pretrained(folder)
  for prompt in (False, True):
    assert apply_chat_template(
      MESSAGES, folder, add_generation_prompt=prompt
    ) == theirs.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=prompt)
  ids = theirs.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=False)
  assert BpeTokenizer(folder / "tokenizer.json").encode_chat(MESSAGES) == ids


def test_a_file_of_its_own_and_the_default_of_several_are_found(folder):
  several = [dict(name="tool", template="no"), dict(name="default", template="yes")]
  write(folder, several)
  assert apply_chat_template(MESSAGES, folder) == "yes"
  (folder / "chat_template.jinja").write_text("own")
  assert apply_chat_template(MESSAGES, folder) == "own"


def test_a_refusal_of_the_template_is_passed_on(folder):
  with pytest.raises(ValueError, match="refused: Unknown role bishop"):
    apply_chat_template([dict(role="bishop", content="")], folder)


@pytest.mark.parametrize(
  "template", ["{{ ''.__class__.__mro__ }}", "{{ messages.append(1) }}", "{% for %}"]
)
def test_a_template_cannot_leave_the_sandbox(folder, template):
  write(folder, template)
  with pytest.raises(ValueError, match="refused"):
    apply_chat_template(MESSAGES, folder)


def test_a_folder_without_a_template_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match="has no chat template"):
    apply_chat_template(MESSAGES, tmp_path)
