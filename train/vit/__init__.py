"""The network: families of timm models, construction, inference and warm start."""
