"""A small shop: the reference application of Ascent."""
