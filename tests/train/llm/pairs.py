"""Questions and answers to fine-tune on, and the longest row they may fill."""

PAIRS = [("one?", "First."), ("and two?", "The second."), ("three", "3"), ("and four?", "The fourth one.")]


LONG = 512
