"""Where this package meets others: users' own jitted code, PyTorch, transformers."""
