"""Vector functions in IR: exp, and WN's gate with one division."""

from __future__ import annotations

import math

from fastglow.engines.cpu.ir import Emitter, Value

LOG2_E = 1.0 / math.log(2.0)
LN2_HIGH = 0.693359375  # 9 bits: n * LN2_HIGH is exact for every exponent n
LN2_LOW = math.log(2.0) - LN2_HIGH
ROUND = 1.5 * 2.0**23  # adding it leaves the nearest integer in the low mantissa bits
DEGREE = 7  # Taylor on |r| <= ln(2)/2: 5e-9 relative, a tenth of float32's rounding


def exp(e: Emitter, x: Value) -> Value:
    """e**x, infinite above 88; below -87 it stays at e**-87, short of denormal numbers."""
    b = e.b
    held = b.select(b.fcmp_ordered("<", x, e.constant(-87.0)), e.constant(-87.0), x)
    shifted = e.fma(held, e.constant(LOG2_E), e.constant(ROUND))
    n = b.fsub(shifted, e.constant(ROUND))
    r = e.fma(n, e.constant(-LN2_HIGH), held)
    r = e.fma(n, e.constant(-LN2_LOW), r)
    p = e.constant(1.0 / math.factorial(DEGREE))
    for k in reversed(range(DEGREE)):
        p = e.fma(p, r, e.constant(1.0 / math.factorial(k)))
    exponent = b.shl(b.bitcast(shifted, e.ints), e.int_constant(23))
    scaled = b.bitcast(b.add(b.bitcast(p, e.ints), exponent), e.vector)
    scaled = b.select(b.fcmp_ordered(">", x, e.constant(88.0)), e.constant(math.inf), scaled)
    return b.select(b.fcmp_unordered("uno", x, x), x, scaled)  # a NaN must stay visible


def gate(e: Emitter, x: Value, y: Value) -> Value:
    """tanh(x) * sigmoid(y) = sign(x) (1 - u) / ((1 + u) (1 + v)), u = e^-2|x|, v = e^-y."""
    b = e.b
    bits = b.bitcast(x, e.ints)
    sign = b.and_(bits, e.int_constant(-(2**31)))
    magnitude = b.bitcast(b.and_(bits, e.int_constant(2**31 - 1)), e.vector)
    one = e.constant(1.0)
    u = exp(e, b.fmul(magnitude, e.constant(-2.0)))
    v = exp(e, b.fsub(e.constant(-0.0), y))
    ratio = b.fdiv(b.fsub(one, u), b.fmul(b.fadd(one, u), b.fadd(one, v)))
    return b.bitcast(b.xor(b.bitcast(ratio, e.ints), sign), e.vector)
