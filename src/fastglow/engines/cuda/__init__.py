"""The CUDA engine: the plan as Triton kernels on an NVIDIA GPU.

Importing this imports no PyTorch: ``probe`` looks for a GPU first, ``engine`` needs one.
"""
