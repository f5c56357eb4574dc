"""What was understood of preference data: counts, lengths, and examples as a model reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median, quantiles
from typing import Any

from polobench.policies.pretrained import Pretrained
from polobench.tasks.fields import prompt_key
from polobench.tasks.preference_data import PreferenceData, RankedGroup
from polobench.tasks.text import TextCodec, shown

EXAMPLES = 3


def summary(data: PreferenceData, model: Pretrained | None = None) -> dict[str, Any]:
    """A table of JSON's types. With a model, lengths are in tokens of its tokenizer, else in characters.

    Its keys: the number of `rows` of each shape; distinct `prompts`; ranked `groups`, their `responses` and the `pairs`
    in which one is better; `ties`, the pairs of equal score; `duplicates`, the groups that repeat an earlier one;
    `lengths`; `left_out`, how often for each reason; and the first groups as `examples`.
    """
    codec = TextCodec(model.tokenizer, model.end_tokens, model.embedded_tokens) if model else None
    parts = [_read(group, codec) for group in data.groups]
    sizes = [[len(part) for part in texts] for texts in parts]
    longest = [prompt + max(responses) for prompt, *responses in sizes]
    lengths = {"prompt": [prompt for prompt, *_ in sizes], "response": [size for _, *rest in sizes for size in rest]}
    left_out = Counter(reason for _, reason in data.skipped)
    if model and max(longest) > model.context_length:
        left_out["longer than the model's context"] = sum(length > model.context_length for length in longest)
    ties = sum(_pairs(count) for group in data.groups for count in Counter(group.scores).values())
    return {
        "data": data.name,
        "digest": data.digest,
        "rows": dict(data.shapes),
        "prompts": len({prompt_key(group.prompt) for group in data.groups}),
        "groups": len(data.groups),
        "responses": len(lengths["response"]),
        "pairs": sum(_pairs(len(group.responses)) for group in data.groups) - ties,
        "ties": ties,
        "duplicates": len(data.groups) - len({_content(group) for group in data.groups}),
        "unit": "tokens" if model else "characters",
        "lengths": {name: _spread(found) for name, found in (lengths | {"prompt and response": longest}).items()},
        "left_out": dict(left_out.most_common()),
        "examples": [_example(group, texts, model) for group, texts in zip(data.groups[:EXAMPLES], parts)],
    }


def _read(group: RankedGroup, codec: TextCodec | None) -> list[Sequence[Any]]:
    """The prompt and the responses, in tokens where there is a tokenizer."""
    if codec is None:
        return [shown(group.prompt), *group.responses]
    prompt, responses = codec.answered(group.prompt, group.responses)
    return [prompt, *responses]


def _example(group: RankedGroup, parts: Sequence[Any], model: Pretrained | None) -> dict[str, Any]:
    prompt, *texts = [str(model.tokenizer.decode(part)) for part in parts] if model else map(str, parts)
    responses = [{"score": score, "text": text} for score, text in zip(group.scores, texts)]
    return {"row": group.where, "prompt": prompt, "responses": responses}


def _pairs(count: int) -> int:
    return count * (count - 1) // 2


def _content(group: RankedGroup) -> tuple[str, frozenset[tuple[str, float]]]:
    return prompt_key(group.prompt), frozenset(zip(map(str.strip, group.responses), group.scores))


def _spread(values: Sequence[int]) -> dict[str, float]:
    high = quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]
    return {"least": min(values), "median": median(values), "95 %": round(high, 1), "most": max(values)}
