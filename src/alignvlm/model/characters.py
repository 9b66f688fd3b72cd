"""The characters that the default model's connector can say, as tokens of the LLM's vocabulary."""

from __future__ import annotations

from typing import Protocol

EMPTY = "\n"
"""What an empty cell says: whitespace, as most patches do in the paper's Figure 3."""

_ASCII = "".join(chr(code) for code in range(33, 127))
_EUROPEAN = "£€°§éèêëàâäáåçñöôóòøùûüúîïíßæÉÈÀÄÖÜÅÇÑØ–—‘’“”•©®±×½"

CANDIDATES = EMPTY + " " + _ASCII + _EUROPEAN


class _Tokenizer(Protocol):
    def encode(self, text: str, add_special_tokens: bool = ...) -> list[int]: ...


def character_tokens(tokenizer: _Tokenizer) -> dict[str, int]:
    """Token id of every candidate character that is one token for this tokenizer.

    `EMPTY` comes first, the space second. The connector's `vocabulary` is the values in order.
    """
    ids = {char: tokenizer.encode(char, add_special_tokens=False) for char in CANDIDATES}
    return {char: tokens[0] for char, tokens in ids.items() if len(tokens) == 1}
