"""Fine-tuning of the language model: full, LoRA or QLoRA."""
