"""The network: what each family of timm takes, and where its parts are."""
