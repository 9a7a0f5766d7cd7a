"""The checkpoint store: sealed, content-addressed blocks and signed manifests (docs/checkpoint-format.md)."""
