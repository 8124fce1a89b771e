"""From a structured finding to a text in plain words, checked sentence by sentence."""
