from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers import decoders as token_decoders

from alignvlm.errors import ConfigurationError, WeightsError
from alignvlm.imaging.tiling import TileGrid
from alignvlm.model.condense import Condenser, load_plain_tokenizer, mix
from alignvlm.model.reading import ReadGlyph, Reading, ReadLine

ALPHABET = ["\n", " ", *"abcdelotu0"]
GRID = (4, 16)  # rows and columns of visual tokens in a tile
ONE_TILE = TileGrid(rows=1, cols=1, thumbnail=False)


def make_tokenizer() -> Tokenizer:
    """Bytes, three merges, and a control token."""
    vocabulary = {"<|end|>": 0}
    for token in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[token] = len(vocabulary)
    merges = [("t", "o"), ("to", "t"), ("a", "l"), ("t", "l")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = token_decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    tokenizer.encode_special_tokens = True
    return tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return make_tokenizer()


def make_condenser(tokenizer: Tokenizer, merge: str = "spell", prune: bool = True) -> Condenser:
    ids = [tokenizer.encode(char).ids[0] for char in ALPHABET]
    condenser = Condenser(GRID, ids, prune=prune, merge=merge)
    condenser.tokenizer = tokenizer
    return condenser


def cells(lines: dict[int, str], grid: TileGrid = ONE_TILE) -> torch.Tensor:
    """P_vocab [T*N, V'] of a page whose rows of cells say these strings, a character a cell."""
    rows, columns = grid.rows * GRID[0], grid.cols * GRID[1]
    page = torch.zeros(rows, columns, len(ALPHABET))
    page[..., 0] = 1
    for row, text in lines.items():
        for column, char in enumerate(text):
            page[row, column] = 0
            page[row, column, ALPHABET.index(char)] = 1
    tiles = page.unflatten(0, (grid.rows, GRID[0])).unflatten(2, (grid.cols, GRID[1]))
    return tiles.transpose(1, 2).flatten(0, 1).flatten(1, 2).flatten(0, 1)


def embeddings(tokenizer: Tokenizer) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(tokenizer.get_vocab_size(), 8)


def test_spelled_words_are_the_embeddings_of_the_text_s_own_tokens(tokenizer: Tokenizer) -> None:
    table, probs = embeddings(tokenizer), cells({0: "total due", 2: "tt 00"})
    tokens = make_condenser(tokenizer)(torch.zeros(len(probs), 8), probs, ONE_TILE, table)
    ids = tokenizer.encode("total due\ntt 00").ids
    assert len(ids) < len("total due\ntt 00")
    torch.testing.assert_close(tokens, table[ids])


def test_words_across_tile_seams_are_whole(tokenizer: Tokenizer) -> None:
    grid = TileGrid(rows=2, cols=2, thumbnail=False)
    probs = cells({1: "abcdeabcdeabc" + "total due", 5: "l"}, grid)
    assert make_condenser(tokenizer).read(probs, grid).text == "abcdeabcdeabctotal due\nl"


def test_a_thumbnail_is_not_read(tokenizer: Tokenizer) -> None:
    probs = torch.cat((cells({0: "due"}), cells({0: "total"})))
    grid = TileGrid(rows=1, cols=1, thumbnail=True)
    assert make_condenser(tokenizer).read(probs, grid).text == "total"


def test_second_guesses_are_mixed_in_by_their_probability(tokenizer: Tokenizer) -> None:
    sure = ReadGlyph("t", 1.0, 0, 0, ("l", 0.0))
    unsure = ReadGlyph("o", 0.75, 0, 1, ("l", 0.25))
    reading = Reading(rows=((ReadLine((sure, unsure)),),))
    (weights,) = make_condenser(tokenizer).spell(reading)
    to, tl = tokenizer.token_to_id("to"), tokenizer.token_to_id("tl")
    assert weights == pytest.approx({to: 0.75, tl: 0.25})
    table = embeddings(tokenizer)
    torch.testing.assert_close(mix([weights], table)[0], 0.75 * table[to] + 0.25 * table[tl])


def test_control_tokens_on_a_page_are_plain_text(tokenizer: Tokenizer) -> None:
    glyphs = tuple(ReadGlyph(char, 1.0, 0, i, ("a", 0.0)) for i, char in enumerate("<|end|>"))
    spelled = make_condenser(tokenizer).spell(Reading(rows=((ReadLine(glyphs),),)))
    assert [0] not in [list(weights) for weights in spelled]
    assert tokenizer.decode([next(iter(w)) for w in spelled]) == "<|end|>"


def test_control_tokens_without_the_mark_of_one_are_plain_text_too(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    stored = Tokenizer.from_str(tokenizer.to_str())
    stored.add_tokens(["<think>", "   ", "é"])
    stored.save(str(tmp_path / "tokenizer.json"))
    text = "a<think>b<|end|>   é"
    assert stored.token_to_id("<think>") in stored.encode(text).ids
    plain = load_plain_tokenizer(tmp_path)
    encoding = plain.encode(text)
    control = {stored.token_to_id(token) for token in ("<think>", "<|end|>")}
    assert not control & set(encoding.ids)
    assert encoding.tokens[-2:] == ["   ", "é"]
    assert "".join(text[start:end] for start, end in encoding.offsets) == text
    assert plain.get_vocab() == stored.get_vocab()


def test_a_stored_truncation_does_not_cut_pages(tokenizer: Tokenizer, tmp_path: Path) -> None:
    stored = Tokenizer.from_str(tokenizer.to_str())
    stored.enable_truncation(3)
    stored.save(str(tmp_path / "tokenizer.json"))
    assert len(load_plain_tokenizer(tmp_path).encode("abcabc").ids) == 6


def test_a_blank_page_has_no_visual_token(tokenizer: Tokenizer) -> None:
    probs, table = cells({}), embeddings(tokenizer)
    for merge in ("spell", "average", "none"):
        condenser = make_condenser(tokenizer, merge)
        assert condenser(torch.zeros(len(probs), 8), probs, ONE_TILE, table).shape == (0, 8)


def test_pruning_drops_empty_cells_and_keeps_the_ends_of_rows(tokenizer: Tokenizer) -> None:
    probs = cells({1: "ab", 3: "  c"})
    tokens = torch.arange(len(probs), dtype=torch.float32)[:, None].repeat(1, 8)
    kept = make_condenser(tokenizer, "none")(tokens, probs, ONE_TILE, embeddings(tokenizer))
    start, end = GRID[1], 2 * GRID[1] - 1
    third = 3 * GRID[1]
    expected = [start, start + 1, end, third, third + 1, third + 2, 4 * GRID[1] - 1]
    assert kept[:, 0].tolist() == expected


def test_equal_neighbours_become_their_mean(tokenizer: Tokenizer) -> None:
    probs = cells({0: "aab"})
    tokens = torch.arange(len(probs), dtype=torch.float32)[:, None].repeat(1, 8)
    condenser = make_condenser(tokenizer, "average", prune=False)
    merged = condenser(tokens, probs, ONE_TILE, embeddings(tokenizer))[:, 0]
    empty = np.arange(3, 16).mean()
    assert merged[:3].tolist() == pytest.approx([0.5, 2, empty])
    assert len(merged) == 3 + 3  # the other rows are one run of empty cells each


def test_double_letters_stay_two_when_the_cells_between_them_are_pruned(
    tokenizer: Tokenizer,
) -> None:
    probs = cells({0: "l\n\nllo"})
    tokens = torch.arange(len(probs), dtype=torch.float32)[:, None].repeat(1, 8)
    condenser = make_condenser(tokenizer, "average", prune=True)
    merged = condenser(tokens, probs, ONE_TILE, embeddings(tokenizer))[:, 0]
    assert merged.tolist() == pytest.approx([0, 3.5, 5, GRID[1] - 1])


def test_spelling_needs_pruning_and_a_tokenizer(tokenizer: Tokenizer) -> None:
    with pytest.raises(ConfigurationError, match="prune"):
        Condenser(GRID, [1, 2], prune=False, merge="spell")
    condenser = Condenser(GRID, [1, 2], prune=True, merge="spell")
    with pytest.raises(ConfigurationError, match="no tokenizer"):
        condenser.read(cells({}), ONE_TILE)


def test_a_damaged_tokenizer_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(WeightsError, match=r"tokenizer\.json is missing or damaged"):
        load_plain_tokenizer(tmp_path)
