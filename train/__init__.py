"""Learning on Ray Train: the ViT, its sample order, checkpoints, evaluation, gates and release bundles."""
