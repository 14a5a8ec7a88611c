"""The pull requests for accelerate and transformers."""
