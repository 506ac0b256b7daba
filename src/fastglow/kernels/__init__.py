"""GPU kernels of the inverse pass, one a file with its plain reference beside it.

``hopper`` and ``hopper_flow`` are CUDA C++ for compute capability 9.0; their references are those
of ``gate`` and ``residual``. The others are Triton kernels that run on NVIDIA GPUs from compute
capability 8.0 on, and, slowly, on CPU tensors when ``TRITON_INTERPRET=1`` is set before Triton is
imported. Axes and layouts common to all of them:

P phases (or 1), N places on the frame axis, C channels of WN (padded to a multiple of 64), n audio
channels of a flow, G = n_group, O = n padded to a multiple of 8. Streams are [P, N, channels];
what lies outside the utterances is zero. Launchers allocate nothing and do not synchronise, so
that CUDA graphs can capture them.

Every sum over channels or taps runs in one fixed order, whatever the tile, so that a result
depends on neither the length, nor the batch, nor the place of a row in it.
"""
