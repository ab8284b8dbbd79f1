"""Chat templates: the same text as in transformers, made in a sandbox."""

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


# Templates like those of published models, and the text that transformers 5.24 prints for `TALK`.
TALK = [
  dict(role="user", content="hi"),
  dict(role="assistant", content=None, reasoning="hm", tool_calls=None),
]
DIALECT = {
  "{% for m in messages %}{% generation %}{{ m.role }}{% endgeneration %}{% endfor %}": (
    "userassistant"
  ),
  "{% for m in messages %}a {%- generation -%} {{ m.role }} {%- endgeneration -%} b{% endfor %}": (
    "auserbaassistantb"
  ),
  "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}": "21",
  "{% if tools is not none %}T{% endif %}{% if documents != None %}D{% endif %}hi": "hi",
  "{{ tools | tojson }} {{ documents is none }} {{ documents is defined }}": "null True True",
  "{% for m in messages %}{{ m.content }}|{% endfor %}": "hi||",
  "{{ messages[1].content is none }} {{ 'tool_calls' in messages[1] }}": "False False",
  "{{ messages[1].reasoning_content }} {{ messages[1].thinking }} {{ messages[1].reasoning }}": (
    "hm hm hm"
  ),
  "{{ bos_token }}{{ cls_token }}{{ sep_token }}{{ mask_token }}{{ image_token }}{{ boi }}": (
    "<s><cls><sep><mask><img>"
  ),
  "{% set ns = namespace(n=1) %}{% set ns.n = ns.n + 1 %}{{ ns.n }} {{ dict(a=1) }}": "2 {'a': 1}",
}


@pytest.fixture
def spoken(imported):
  names = dict(bos_token="<s>", eos_token="</s>", cls_token="<cls>", mask_token="<mask>")
  config = dict(names, sep_token=dict(content="<sep>", __type="AddedToken"), image_token="<img>")
  return imported("<s>", "</s>", tokenizer_config=config)


@pytest.mark.parametrize("template", DIALECT)
def test_a_template_gives_the_recorded_text_of_transformers(spoken, template):
  (spoken / "chat_template.jinja").write_text(template)
  assert apply_chat_template(TALK, spoken) == DIALECT[template]


@pytest.mark.parametrize("template", DIALECT)
def test_transformers_gives_the_recorded_text(spoken, template):
  transformers = pytest.importorskip("transformers", reason="PARITY=yes make test")
  (spoken / "chat_template.jinja").write_text(template)
  theirs = transformers.AutoTokenizer.from_pretrained(spoken)
  assert theirs.apply_chat_template(TALK, tokenize=False) == DIALECT[template]


def test_a_template_sees_the_names_of_the_older_file(imported):
  folder = imported("<s>", special_tokens_map=dict(bos_token="<s>", eos_token=dict(content="</s>")))
  (folder / "chat_template.jinja").write_text("\ufeff{{ bos_token }}hi{{ eos_token }}", "utf-8")
  assert apply_chat_template([dict(role="user", content="hi")], folder) == "<s>hi</s>"


def test_with_tools_the_template_for_tools_is_used(folder):
  write(folder, [dict(name=name, template=name) for name in ("default", "tool_use")])
  assert apply_chat_template(MESSAGES, folder) == "default"
  assert apply_chat_template(MESSAGES, folder, tools=[dict(name="f")]) == "tool_use"


@pytest.mark.parametrize("template", [1, dict(default="x"), ["x"], [dict(name="default")]])
def test_a_file_with_a_wrong_template_is_named(folder, template):
  write(folder, template)
  with pytest.raises(ValueError, match="tokenizer_config.json: chat_template must be text"):
    apply_chat_template(MESSAGES, folder)


@pytest.mark.parametrize("messages", [["hi"], [None], [dict(role="user", content=object())]])
def test_messages_must_be_json_values(folder, messages):
  with pytest.raises(ValueError, match="a message must be|must be JSON values"):
    apply_chat_template(messages, folder)


def test_half_a_character_is_refused(folder):
  with pytest.raises(ValueError, match=r"the conversation: .* is U\+D83D"):
    BpeTokenizer(folder / "tokenizer.json").encode_chat([dict(role="user", content="\ud83d")])


@pytest.mark.parametrize(
  "template",
  [
    "{% include 'x' %}",
    "{{ 1 + 'a' }}",
    "{{ 1 / 0 }}",
    "{{ range | tojson }}",
  ],
)
def test_any_failure_of_a_template_names_its_file(folder, template):
  (folder / "chat_template.jinja").write_text(template)
  with pytest.raises(ValueError, match=r"template in '.*chat_template\.jinja' refused: "):
    apply_chat_template(MESSAGES, folder)


def test_a_jinja_file_and_the_default_of_several_templates_are_used(folder):
  several = [dict(name="tool", template="no"), dict(name="default", template="yes")]
  write(folder, several)
  assert apply_chat_template(MESSAGES, folder) == "yes"
  (folder / "chat_template.jinja").write_text("jinja")
  assert apply_chat_template(MESSAGES, folder) == "jinja"


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
