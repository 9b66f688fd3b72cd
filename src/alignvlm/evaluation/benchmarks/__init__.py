"""Benchmarks as data: what they ask, in whose words, and where their files are."""
