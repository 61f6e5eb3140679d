"""The lab: an embedded AWS that tells the truth, with real hosts behind it."""
