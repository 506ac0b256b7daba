"""Checkpoints: read without executing anything, named by dialect, written as safetensors."""
