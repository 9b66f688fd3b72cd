"""Samples to train on: formats on disk, their mixture, and what is wrong with a file."""
