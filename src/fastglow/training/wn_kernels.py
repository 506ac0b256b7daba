# mypy: ignore-errors
"""Triton kernels of a WN layer's forward and backward pass, for training.

One launch a layer forward and two backward instead of dozens: the gates are recomputed in the
backward pass, so the only activations kept are the residual stream and the conditioning. The
skip path is folded into ``end``, so a layer adds its E output rows to ``out`` directly. For 32,768
rows of 64 channels on an H200 with one block a processor: forward 17 us, backward 22 + 8 us, and
13 us for the weights' gradients; reading and writing each tensor once would take 5, 7 + 4 and 5 us.

Forward tensors are fp16 and gradients bf16: bf16 in the forward pass would put a noise floor of
-50 dB under the audio, which the network cannot train away; fp16 gradients would need scaling.

Oracle: :func:`fastglow.training.flow.layer`.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _gates(x, weight, cond, rows, steps, inside, T, dilation, stride,
           C: tl.constexpr, TAPS: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    """Both activations of a tile's pre-activations."""
    c = tl.arange(0, C)
    a = tl.zeros((ROWS, C), tl.float32)
    b = tl.zeros((ROWS, C), tl.float32)
    for j in tl.static_range(TAPS):
        shift = (j - TAPS // 2) * dilation
        ok = inside & (steps + shift >= 0) & (steps + shift < T)
        tile = tl.load(x + (rows + shift)[:, None] * C + c[None, :], mask=ok[:, None], other=0.0)
        w = weight + (j * C + c)[:, None] * (2 * C) + c[None, :]
        a = tl.dot(tile, tl.load(w), a)
        b = tl.dot(tile, tl.load(w + C), b)
    at = cond + rows.to(tl.int64)[:, None] * stride + c[None, :]
    a += tl.load(at, mask=inside[:, None], other=0.0).to(tl.float32)
    b += tl.load(at + C, mask=inside[:, None], other=0.0).to(tl.float32)
    return 2.0 * tl.sigmoid(2.0 * a) - 1.0, tl.sigmoid(b)


@triton.jit
def forward(x, weight, cond, res, res_bias, fold, x_next, out, N, T, dilation, stride,
             C: tl.constexpr, E: tl.constexpr, TAPS: tl.constexpr, FIRST: tl.constexpr,
             LAST: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    """Gates, residual and output share of one layer."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = rows < N
    a, b = _gates(x, weight, cond, rows, rows % T, inside, T, dilation, stride, C, TAPS, ROWS)
    c, e = tl.arange(0, C), tl.arange(0, E)
    acts = (a * b).to(x.dtype.element_ty)
    part = tl.dot(acts, tl.load(fold + c[:, None] * E + e[None, :]))
    at = out + rows[:, None] * E + e[None, :]
    if not FIRST:
        part += tl.load(at, mask=inside[:, None], other=0.0)
    tl.store(at, part, mask=inside[:, None])
    if not LAST:
        here = rows[:, None] * C + c[None, :]
        y = tl.dot(acts, tl.load(res + c[:, None] * C + c[None, :]))
        y += tl.load(x + here, mask=inside[:, None], other=0.0).to(tl.float32)
        y += tl.load(res_bias + c)[None, :]
        tl.store(x_next + here, y.to(x_next.dtype.element_ty), mask=inside[:, None])


@triton.jit
def backward_gates(x, weight, cond, res_t, fold_t, dx_next, dout, dgates, acts, N, T, dilation,
                    stride, acts_stride, C: tl.constexpr, E: tl.constexpr, TAPS: tl.constexpr,
                    LAST: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    """Recompute the gates; write their gradients and the activations."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = rows < N
    a, b = _gates(x, weight, cond, rows, rows % T, inside, T, dilation, stride, C, TAPS, ROWS)
    c, e = tl.arange(0, C), tl.arange(0, E)
    g = tl.load(dout + rows[:, None] * E + e[None, :], mask=inside[:, None], other=0.0)
    dacts = tl.dot(g, tl.load(fold_t + e[:, None] * C + c[None, :]))
    if not LAST:
        g = tl.load(dx_next + rows[:, None] * C + c[None, :], mask=inside[:, None], other=0.0)
        dacts = tl.dot(g, tl.load(res_t + c[:, None] * C + c[None, :]), dacts)
    kind = dgates.dtype.element_ty
    wide = rows.to(tl.int64)[:, None]
    at = dgates + wide * stride + c[None, :]
    tl.store(at, (dacts * b * (1.0 - a * a)).to(kind), mask=inside[:, None])
    tl.store(at + C, (dacts * a * b * (1.0 - b)).to(kind), mask=inside[:, None])
    tl.store(acts + wide * acts_stride + c[None, :], (a * b).to(kind), mask=inside[:, None])


@triton.jit
def backward_x(dgates, weight_t, dx_next, dx, N, T, dilation, stride, C: tl.constexpr,
                TAPS: tl.constexpr, LAST: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    """The gradient of the layer's input: the transposed convolution, and the residual's."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside, steps = rows < N, rows % T
    c, c2 = tl.arange(0, C), tl.arange(0, 2 * C)
    here = rows[:, None] * C + c[None, :]
    acc = tl.zeros((ROWS, C), tl.float32)
    for j in tl.static_range(TAPS):
        shift = (TAPS // 2 - j) * dilation
        ok = inside & (steps + shift >= 0) & (steps + shift < T)
        at = dgates + (rows + shift).to(tl.int64)[:, None] * stride + c2[None, :]
        tile = tl.load(at, mask=ok[:, None], other=0.0)
        w = tl.load(weight_t + (j * 2 * C + c2)[:, None] * C + c[None, :])
        acc = tl.dot(tile, w, acc)
    if not LAST:
        acc += tl.load(dx_next + here, mask=inside[:, None], other=0.0).to(tl.float32)
    tl.store(dx + here, acc.to(dx.dtype.element_ty), mask=inside[:, None])


@triton.jit
def backward_weight(x, dgates, partial, partial_bias, N, T, stride, CHUNK: tl.constexpr,
                     C: tl.constexpr, TAPS: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    """A partial sum of the dilated convolution's weight and bias gradients."""
    split, j, layer = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    layers = tl.num_programs(2)
    c, c2 = tl.arange(0, C), tl.arange(0, 2 * C)
    shift = (j - TAPS // 2) * (1 << layer)
    kind = dgates.dtype.element_ty
    x += layer.to(tl.int64) * N * C
    dgates += layer * 2 * C
    acc = tl.zeros((C, 2 * C), tl.float32)
    sums = tl.zeros((2 * C,), tl.float32)
    for start in range(0, CHUNK, ROWS):
        rows = split * CHUNK + start + tl.arange(0, ROWS)
        steps = rows % T
        ok = (rows < N) & (steps + shift >= 0) & (steps + shift < T)
        left = tl.load(x + (rows + shift)[None, :] * C + c[:, None], mask=ok[None, :], other=0.0)
        at = dgates + rows.to(tl.int64)[:, None] * stride + c2[None, :]
        right = tl.load(at, mask=ok[:, None], other=0.0)
        acc = tl.dot(left.to(kind), right, acc)
        sums += tl.sum(right.to(tl.float32), axis=0)
    at = partial + ((split * layers + layer) * TAPS + j) * 2 * C * C
    tl.store(at + c[:, None] * 2 * C + c2[None, :], acc)
    if j == TAPS // 2:  # the tap that sees every row
        tl.store(partial_bias + (split * layers + layer) * 2 * C + c2, sums)


@triton.jit
def backward_outputs(acts, dx, dout, partial_res, partial_fold, partial_bias, N, acts_stride,
                      CHUNK: tl.constexpr, C: tl.constexpr, E: tl.constexpr,
                      ROWS: tl.constexpr):  # fmt: skip
    """A partial sum of the gradients of the residual product and of the output's share."""
    split, layer = tl.program_id(0), tl.program_id(1)
    layers = tl.num_programs(1)
    c, e = tl.arange(0, C), tl.arange(0, E)
    acts += layer * C
    dx += (layer + 1).to(tl.int64) * N * C  # the gradient of this layer's residual output
    acc_res = tl.zeros((C, C), tl.float32)
    acc_fold = tl.zeros((C, E), tl.float32)
    sums = tl.zeros((C,), tl.float32)
    for start in range(0, CHUNK, ROWS):
        rows = split * CHUNK + start + tl.arange(0, ROWS)
        ok = rows < N
        left = tl.load(
            acts + rows.to(tl.int64)[None, :] * acts_stride + c[:, None],
            mask=ok[None, :], other=0.0,
        )  # fmt: skip
        g = tl.load(dout + rows[:, None] * E + e[None, :], mask=ok[:, None], other=0.0)
        acc_fold = tl.dot(left, g, acc_fold)
        if layer < layers - 1:
            gx = tl.load(dx + rows[:, None] * C + c[None, :], mask=ok[:, None], other=0.0)
            acc_res = tl.dot(left, gx, acc_res)
            sums += tl.sum(gx.to(tl.float32), axis=0)
    where = split * layers + layer
    tl.store(partial_res + where * C * C + c[:, None] * C + c[None, :], acc_res)
    tl.store(partial_fold + where * C * E + c[:, None] * E + e[None, :], acc_fold)
    tl.store(partial_bias + where * C + c, sums)
