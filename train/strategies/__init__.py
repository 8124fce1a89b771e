"""How weights, gradients and optimizer state lie on the workers: DDP, FSDP2 and DeepSpeed ZeRO."""
