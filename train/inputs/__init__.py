"""Training data: pixel arrays, sample order, augmentation and mixup."""
