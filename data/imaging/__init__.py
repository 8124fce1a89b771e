"""From the bytes of one image file to the pixels of the model, or to the reason for a refusal."""
