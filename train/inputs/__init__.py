"""Training data: arrays, sample order and augmentation."""
