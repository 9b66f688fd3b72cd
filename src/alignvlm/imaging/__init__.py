"""From files to pages (`decode`) to tiles (`tiling`); never imports torch.

Nothing is imported here: the decoding process has to start fast.
"""
