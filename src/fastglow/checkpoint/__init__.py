"""Checkpoints: read without executing anything, named by dialect, written as safetensors."""

from fastglow.checkpoint.native import save_safetensors
from fastglow.checkpoint.npyfolder import save_npy_folder
from fastglow.checkpoint.store import load_weights, read_tensor_file
from fastglow.checkpoint.weights import Provenance, Weights

__all__ = [
    "Provenance",
    "Weights",
    "load_weights",
    "read_tensor_file",
    "save_npy_folder",
    "save_safetensors",
]
