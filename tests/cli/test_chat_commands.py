"""The conversation of a chat, its files and its commands; no model runs."""

import json

import pytest

from mtjax.cli.chat.commands import COMMANDS, obey
from mtjax.cli.chat.conversation import Conversation, Turn, fitted, parse_conversation

TURNS = (Turn("one", "1"), Turn("two", "2\n"), Turn("ünï", ""))
TALK = Conversation("be brief", TURNS)


def encode(messages):
  """Returns 3 tokens for each message and one for each of its letters."""
  return [0] * sum(3 + len(message["content"]) for message in messages)


def test_messages_are_those_of_a_template():
  assert TALK.messages("four") == [
    dict(role="system", content="be brief"),
    dict(role="user", content="one"),
    dict(role="assistant", content="1"),
    dict(role="user", content="two"),
    dict(role="assistant", content="2\n"),
    dict(role="user", content="ünï"),
    dict(role="assistant", content=""),
    dict(role="user", content="four"),
  ]
  assert Conversation().messages() == []


# Tokens: system 11, the turns 10, 11 and 9, the question 7; in all 48.
@pytest.mark.parametrize(
  ("positions", "left_out", "tokens"),
  [(100, 0, 48), (52, 0, 48), (51, 1, 38), (42, 1, 38), (41, 2, 27), (31, 2, 27), (22, 3, 18)],
)
def test_the_oldest_turns_are_left_out_and_never_the_system_message(positions, left_out, tokens):
  talk, ids = fitted(TALK, "four", encode, max_tokens=4, positions=positions)
  assert talk == Conversation("be brief", TURNS, left_out) and len(ids) == tokens
  kept = talk.messages("four")
  assert kept[0]["content"] == "be brief" and kept[1:] == TALK.messages("four")[1 + 2 * left_out :]


def test_what_was_left_out_stays_so():
  talk, ids = fitted(Conversation(None, TURNS, 2), "x", encode, max_tokens=4, positions=999)
  assert talk.left_out == 2 and len(ids) == 13
  assert len(json.loads(talk.as_json())) == 6


@pytest.mark.parametrize("talk", [TALK, Conversation("be brief", TURNS, 3), Conversation()])
def test_a_message_that_can_never_fit_is_refused(talk):
  with pytest.raises(
    ValueError, match="has .* tokens; with max_tokens 4 .* model has 21 positions"
  ):
    fitted(talk, "a question of 36 letters or so, or so", encode, max_tokens=4, positions=21)


def test_a_conversation_is_saved_and_read_again(tmp_path):
  file = tmp_path / "talk with spaces.json"
  same, told = obey(TALK, f"/save {file}\n")
  assert same == TALK and told.endswith("holds 3 turns")
  assert json.loads(file.read_text())[5] == dict(role="user", content="ünï")
  loaded, told = obey(Conversation("other", (Turn("a", "b"),), 1), f"/load {file}")
  assert loaded == TALK and "3 turns" in told


def test_a_file_of_another_program_may_have_a_byte_order_mark_and_more_fields(tmp_path):
  file = tmp_path / "talk.json"
  messages = [dict(role="user", content="a", id=1), dict(role="assistant", content="b")]
  file.write_text("\ufeff" + json.dumps(messages))
  assert obey(Conversation(), f"/load {file}")[0] == Conversation(None, (Turn("a", "b"),))


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ("{", "not JSON"),
    ("{}", "must be a list of"),
    ('["hello"]', "must be a list of"),
    ('[{"role": "user", "content": null}]', "must be a list of"),
    ('[{"role": "user", "content": "a"}]', "end with the assistant, got user"),
    ('[{"role": "assistant", "content": "a"}]', "got assistant"),
    ('[{"role": "system", "content": "a"}, {"role": "system", "content": "a"}]', "got system"),
    ('[{"role": "user", "content": "\\ud83d"}, {"role": "assistant", "content": ""}]', "surrogate"),
  ],
)
def test_a_file_that_is_no_conversation_is_named(content, message):
  with pytest.raises(ValueError, match=f"(?s)^talk.json.*{message}"):
    parse_conversation(content, "talk.json")


def test_reset_and_system_act_on_their_part_alone():
  assert obey(TALK, "/reset")[0] == Conversation("be brief")
  assert obey(TALK, "/system  speak of cats ")[0] == Conversation("speak of cats", TURNS)
  assert obey(TALK, "/system")[0] == Conversation(None, TURNS)
  assert obey(TALK, "/exit") is None


def test_help_names_every_command():
  _, told = obey(TALK, "/help")
  assert [line.split()[0] for line in told.splitlines()[:-1]] == list(COMMANDS)
  assert set(COMMANDS) == {"/help", "/reset", "/system", "/save", "/load", "/exit"}


@pytest.mark.parametrize(
  ("line", "error", "message"),
  [
    ("/quit", ValueError, "there is no command /quit; /help lists them"),
    ("/", ValueError, "there is no command /;"),
    ("/save", ValueError, "'/save' is not '/save FILE'"),
    ("/reset now", ValueError, "'/reset now' is not '/reset'"),
    ("/load no/such.json", FileNotFoundError, "no/such.json"),
    ("/save no/such.json", FileNotFoundError, "no/such.json"),
  ],
)
def test_a_bad_command_is_answered(line, error, message):
  with pytest.raises(error, match=message):
    obey(TALK, line)
