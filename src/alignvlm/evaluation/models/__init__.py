"""Models as evaluation asks them: ours, any of transformers', and endpoints."""
