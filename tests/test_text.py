"""Text and tokens: special tokens, ends of turns, and where a prompt ends, as TRL and the chat template have it."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("transformers")

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from polobench.core.errors import UsageError
from polobench.tasks.text import TextCodec
from polobench.tasks.tiny import character_tokenizer

CHATML = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}~\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
WORDS = "abcdefgh <>usertainl\n?."


def test_a_template_that_writes_the_date_gives_the_same_prompt_every_day() -> None:
    asked = "{% if strftime_now is defined %}{% set day = strftime_now('%-d %d %b %B %Y-%m') %}{{ day }}{% endif %}"
    codec = TextCodec(characters(template=asked + CHATML))
    assert codec._written("abc") == "26 26 Jul July 2024-07<user>abc~\n<assistant>"


def characters(special: str = "~", template: str | None = None) -> Any:
    tokenizer = character_tokenizer("".join(dict.fromkeys(WORDS + special)))
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    tokenizer.chat_template = template
    return tokenizer


def merging(*, before: bool = False) -> Any:
    """A BPE in which a blank joins the word behind it; with `before`, a text gets one put before itself."""
    letters = ["<end>", "\u0120", *"abcd?"]
    merges = [("\u0120", "a"), ("\u0120a", "b"), ("c", "d")]
    vocabulary = {token: number for number, token in enumerate([*letters, *("".join(pair) for pair in merges)])}
    inner = Tokenizer(models.BPE(vocabulary, merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=before, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<end>", pad_token="<end>")


def with_bos(tokenizer: Any, single: str = "^ $A") -> Any:
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in single.split() if token != "$A"}
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=list(ids.items()))
    return tokenizer


def by_trl(tokenizer: Any, prompt: str, answers: list[str]) -> tuple[list[int], list[list[int]]]:
    """A plain prompt and its answers as TRL's trainer of DPO tokenizes them."""
    from trl.trainer.dpo_trainer import common_prefix_length

    asked = tokenizer(prompt)["input_ids"]
    wholes = [tokenizer(prompt + answer + tokenizer.eos_token)["input_ids"] for answer in answers]
    shared = min(common_prefix_length(asked, whole) for whole in wholes)
    return asked[:shared], [whole[shared:] for whole in wholes]


def test_a_prompt_without_a_template_gets_what_the_tokenizer_adds() -> None:
    tokenizer = with_bos(characters("^"))
    codec = TextCodec(tokenizer)
    assert codec.prompt("ab") == tokenizer("ab")["input_ids"]
    assert codec.prompt("ab")[0] == tokenizer.convert_tokens_to_ids("^")
    assert codec.response("ab") == [*tokenizer("ab", add_special_tokens=False)["input_ids"], 0]


def test_a_template_writes_its_own_special_tokens_and_nothing_adds_them_twice() -> None:
    tokenizer = with_bos(characters("^~", "^" + CHATML))
    prompt = TextCodec(tokenizer).prompt("ab")
    assert prompt.count(tokenizer.convert_tokens_to_ids("^")) == 1
    turns = [{"role": "user", "content": "ab"}]
    assert prompt == tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]


@pytest.mark.parametrize("single", ["$A <end>", "^ $A <end>"])
def test_an_end_that_the_tokenizer_adds_does_not_end_the_prompt(single: str) -> None:
    tokenizer = with_bos(characters("^"), single)
    prompt, (answer,) = TextCodec(tokenizer).answered("ab", ["c"])
    assert 0 not in prompt
    assert answer == [tokenizer.convert_tokens_to_ids("c"), 0]


@pytest.mark.parametrize("ends", [(), (7,)])
def test_a_response_ends_as_the_template_ends_it_and_once(ends: tuple[int, ...]) -> None:
    tokenizer = characters("~", CHATML)
    codec, turn_end = TextCodec(tokenizer, ends), tokenizer.convert_tokens_to_ids("~")
    letter = tokenizer.convert_tokens_to_ids("a")
    for text in ("a", "a~", "a~~"):
        assert codec.response(text) == [letter, turn_end]
        assert codec.answered("b", [text])[1] == [[letter, turn_end]]
    assert codec.response("a<end>") == [letter, 0]
    assert codec.end_tokens == {0, turn_end, *ends}


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m['role'][0] }}{% endfor %}",
        "{{ raise_exception('no answers here') if messages|length > 1 else 'a' }}",
    ],
)
def test_a_template_that_shows_no_answer_ends_it_with_the_end_token(template: str) -> None:
    tokenizer = characters("~", template)
    codec = TextCodec(tokenizer)
    assert codec.response("b") == [tokenizer.convert_tokens_to_ids("b"), 0]
    prompt, answers = codec.answered("c", ["b", "d"])
    assert prompt == codec.prompt("c")
    assert answers == [codec.response("b"), codec.response("d")]


def test_a_response_of_which_the_template_shows_a_part_is_kept_whole() -> None:
    """Some templates drop the thoughts of an answer."""
    template = CHATML.replace("m['content']", "m['content'].split('?')[-1]")
    codec = TextCodec(characters("~", template))
    _, (answer, other) = codec.answered("a", ["bc?d", "d"])
    assert answer == codec.response("bc?d")
    assert other == codec.response("d")


def test_an_end_is_no_part_of_the_text() -> None:
    """Also where the tokenizer does not take it for a special token."""
    tokenizer = characters("~")
    codec = TextCodec(tokenizer, [tokenizer.convert_tokens_to_ids("d")])
    assert codec.text(tokenizer("abd")["input_ids"]) == "ab"
    assert codec.text(tokenizer("adb")["input_ids"]) == "adb"


def test_a_template_that_refuses_a_prompt_says_so() -> None:
    with pytest.raises(UsageError, match=r"refuses messages of user: .*nobody"):
        TextCodec(characters("~", "{{ raise_exception('nobody') }}")).prompt("a")


def test_a_response_of_a_conversation_is_what_the_template_makes_of_it() -> None:
    """Here it puts a thought before the last answer, as Qwen 3's does."""
    template = CHATML.replace("{{ m['content'] }}", "{% if m['role'] == 'assistant' %}<>{% endif %}{{ m['content'] }}")
    tokenizer = characters("~", template)
    prompt, (answer,) = TextCodec(tokenizer).answered((("user", "ab"),), ["c"])
    assert tokenizer.decode(prompt) == "<user>ab~\n<assistant>"
    assert tokenizer.decode(answer) == "<>c~"


def test_a_template_that_rewrites_the_prompt_leaves_it_alone() -> None:
    template = "{% if messages|length > 1 %}<{% endif %}" + CHATML
    codec = TextCodec(characters("~", template))
    prompt, answers = codec.answered("ab", ["c"])
    assert prompt == codec.prompt("ab")
    assert answers == [codec.response("c")]


PLAIN = {
    "characters": characters, "blanks that merge": merging, "a blank before": lambda: merging(before=True),
    "bos": lambda: with_bos(characters("^")),
    "bos and a blank before": lambda: with_bos(merging(before=True), "<end> $A"),
}  # fmt: skip


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize(("prompt", "answers"), [("ab?", ["cd", "ab"]), ("ab? ", ["ab", "cd"]), ("bc", ["d", "a"])])
def test_the_boundary_is_where_trl_has_it(kind: str, prompt: str, answers: list[str]) -> None:
    pytest.importorskip("trl")
    tokenizer = PLAIN[kind]()
    assert TextCodec(tokenizer).answered(prompt, answers) == by_trl(tokenizer, prompt, answers)


def test_a_trailing_blank_belongs_to_the_word_behind_it() -> None:
    tokenizer = merging()
    codec = TextCodec(tokenizer)
    prompt, (answer,) = codec.answered("b? ", ["ab"])
    assert prompt == tokenizer("b?")["input_ids"] != codec.prompt("b? ")
    assert answer == [tokenizer.convert_tokens_to_ids("\u0120ab"), 0]
    assert answer != codec.response("ab")


def test_a_prompt_keeps_a_token_at_which_a_policy_can_be_asked() -> None:
    tokenizer = merging()
    assert tokenizer("cd")["input_ids"] == [tokenizer.convert_tokens_to_ids("cd")]
    prompt, answers = TextCodec(tokenizer).answered("c", ["d"])
    assert tokenizer.convert_ids_to_tokens([*prompt, *answers[0]]) == ["c", "d", "<end>"]


def test_a_token_without_an_embedding_is_named() -> None:
    tokenizer = characters("~")
    known = tokenizer.convert_tokens_to_ids("~")
    with pytest.raises(UsageError, match=r"no embedding for token '~'"):
        TextCodec(tokenizer, embedded=known).prompt("a~")
    assert TextCodec(tokenizer, embedded=known).prompt("ab")


def test_tokens_beyond_the_tokenizer_are_no_text() -> None:
    assert TextCodec(characters()).text([1, 500, 2]) == "ab"
