"""A thin layer over llvmlite's IR builder: loops, vectors of float32 and plain arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import llvmlite.ir as ir

I32, I64 = ir.IntType(32), ir.IntType(64)
F32 = ir.FloatType()
PTR = ir.PointerType()
Value = Any  # llvmlite is untyped


class _BFloat(ir.Type):  # type: ignore[misc]
    """LLVM's bfloat, which llvmlite does not name."""

    def _to_string(self) -> str:
        return "bfloat"


BF16 = _BFloat()

VECTORS = 3  # of frames in a block
SIDE = 2  # rows after the weights of a product of bytes: scales, and sums of the rounded weights


@dataclass(frozen=True, slots=True)
class Shape:
    """The register tile that suits a processor.

    Attributes:
        lanes: float32 numbers in one vector.
        rows: Output rows in one group.
        depth: Values of K in one 32-bit number: 1 float32, 2 bfloat16 or 4 of 8 bits.
        fused: Whether the processor multiplies and adds in one instruction; without, asking
            LLVM for one would call the C library for each lane (10 times slower).
    """

    lanes: int
    rows: int
    depth: int = 1
    fused: bool = True

    @property
    def block(self) -> int:
        """Frames in a block."""
        return VECTORS * self.lanes

    @property
    def audio(self) -> Shape:
        """The tile of the products that read the audio: 8 bits are too few for it."""
        return replace(self, depth=1) if self.depth == 4 else self


class Emitter:
    """Builds one function; integers given as Python ints become i64 constants.

    Attributes:
        b: The llvmlite builder.
        shape: The register tile.
        lanes: float32 numbers in one vector register.
        args: The function's arguments.
    """

    def __init__(
        self,
        module: ir.Module,
        name: str,
        arguments: Sequence[Value],
        shape: Shape,
        *,
        exported: bool = False,
    ) -> None:
        """Start a function that returns nothing; ``exported`` makes it callable from Python."""
        kind = ir.FunctionType(ir.VoidType(), list(arguments))
        self.function = ir.Function(module, kind, name)
        if not exported:
            self.function.linkage = "internal"
            self.function.attributes.add("noinline")  # one copy each: the code stays small
        self.module, self.shape, self.lanes = module, shape, shape.lanes
        self.vector = ir.VectorType(F32, self.lanes)
        self.ints = ir.VectorType(I32, self.lanes)
        self.b = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.args = self.function.args

    def end(self) -> Value:
        """Return from the function and hand it over for calls."""
        self.b.ret_void()
        return self.function

    # integers

    def i64(self, value: Value) -> Value:
        """An i64 value."""
        return I64(value) if isinstance(value, int) else value

    def add(self, *terms: Value) -> Value:
        """The sum of i64 values."""
        total = self.i64(terms[0])
        for term in terms[1:]:
            total = self.b.add(total, self.i64(term))
        return total

    def mul(self, *factors: Value) -> Value:
        """The product of i64 values."""
        product = self.i64(factors[0])
        for factor in factors[1:]:
            product = self.b.mul(product, self.i64(factor))
        return product

    def div(self, a: Value, b: Value) -> Value:
        """The quotient of non-negative i64 values, rounded down."""
        return self.b.udiv(self.i64(a), self.i64(b))

    def less(self, a: Value, b: Value) -> Value:
        """Whether a < b, signed."""
        return self.b.icmp_signed("<", self.i64(a), self.i64(b))

    def minimum(self, a: Value, b: Value) -> Value:
        """The smaller i64."""
        return self.b.select(self.less(a, b), self.i64(a), self.i64(b))

    # memory

    def at(self, pointer: Value, floats: Value) -> Value:
        """The address ``floats`` float32 numbers past ``pointer``."""
        return self.b.gep(pointer, [self.i64(floats)], source_etype=F32)

    def field(self, context: Value, index: Value) -> Value:
        """Entry ``index`` of a table of i64."""
        place = self.b.gep(context, [self.i64(index)], source_etype=I64)
        return self.b.load(place, typ=I64, align=8)

    def pointer(self, context: Value, index: Value) -> Value:
        """Entry ``index`` of a table of addresses."""
        return self.b.inttoptr(self.field(context, index), PTR)

    def load(self, pointer: Value, floats: Value = 0) -> Value:
        """A vector from any float32 address."""
        return self.b.load(self.at(pointer, floats), typ=self.vector, align=4)

    def store(self, value: Value, pointer: Value, floats: Value = 0) -> None:
        """A vector to any float32 address."""
        self.b.store(value, self.at(pointer, floats), align=4)

    def prefetch(self, pointer: Value, floats: Value) -> None:
        """Ask for the cache line ``floats`` past ``pointer``, which need not exist."""
        function = self._intrinsic("llvm.prefetch.p0", ir.VoidType(), [PTR, I32, I32, I32])
        self.b.call(function, [self.at(pointer, floats), I32(0), I32(3), I32(1)])

    # vectors

    def constant(self, value: float) -> Value:
        """A vector of one float32 number."""
        return ir.Constant(self.vector, [value] * self.lanes)

    def int_constant(self, value: int) -> Value:
        """A vector of one 32-bit integer."""
        return ir.Constant(self.ints, [value] * self.lanes)

    def broadcast(self, pointer: Value, floats: Value = 0) -> Value:
        """One float32 of memory in every lane."""
        scalar = self.b.load(self.at(pointer, floats), typ=F32, align=4)
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.b.insert_element(undefined, scalar, I32(0))
        zeros = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return self.b.shuffle_vector(first, undefined, zeros)

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """The sum a * b + c, rounded once where the processor can."""
        if not self.shape.fused:
            return self.b.fadd(self.b.fmul(a, b), c)
        function = self._intrinsic(f"llvm.fma.v{self.lanes}f32", self.vector, [self.vector] * 3)
        return self.b.call(function, [a, b, c])

    def dot(self, a: Value, b: Value, c: Value) -> Value:
        """The sum c + a[even] * b[even] + a[odd] * b[odd] of lanes that hold two bfloat16 each."""
        pairs = ir.VectorType(BF16, 2 * self.lanes)
        a, b = (self.b.bitcast(pair, pairs) for pair in (a, b))
        kinds = [self.vector, pairs, pairs]
        name = f"llvm.x86.avx512bf16.dpbf16ps.{32 * self.lanes}"
        return self.b.call(self._intrinsic(name, self.vector, kinds), [c, a, b])

    def pair(self, even: Value, odd: Value) -> Value:
        """Lanes of two bfloat16, the first in the low half, from two vectors of float32."""
        narrow = ir.VectorType(BF16, self.lanes)
        name = f"llvm.x86.avx512bf16.cvtneps2bf16.{32 * self.lanes}"
        convert = self._intrinsic(name, narrow, [self.vector])
        halves = [
            self.b.zext(
                self.b.bitcast(
                    self.b.call(convert, [x]), ir.VectorType(ir.IntType(16), self.lanes)
                ),
                self.ints,
            )
            for x in (even, odd)
        ]
        high = self.b.shl(halves[1], self.int_constant(16))
        return self.b.bitcast(self.b.or_(halves[0], high), self.vector)

    def dot_bytes(self, unsigned: Value, signed: Value, total: Value) -> Value:
        """The sum total + a[0] * b[0] + ... + a[3] * b[3] of lanes that hold four bytes each."""
        name = f"llvm.x86.avx512.vpdpbusd.{32 * self.lanes}"
        return self.b.call(
            self._intrinsic(name, self.ints, [self.ints] * 3), [total, unsigned, signed]
        )

    def _intrinsic(self, name: str, result: Value, kinds: Sequence[Value]) -> Value:
        known = self.module.globals.get(name)
        return known or ir.Function(self.module, ir.FunctionType(result, list(kinds)), name)

    def keep(self, mask: Value, value: Value) -> Value:
        """``value`` where the float32 mask is not zero, 0 elsewhere (NaN does not leak)."""
        inside = self.b.fcmp_ordered("!=", mask, self.constant(0.0))
        return self.b.select(inside, value, self.constant(0.0))

    # control

    def loop(
        self,
        first: Value,
        last: Value,
        body: Callable[..., Sequence[Value] | None],
        carry: Sequence[Value] = (),
    ) -> list[Value]:
        """Emit `for i in range(first, last): carry = body(i, *carry)`, which may run no time."""
        before = self.b.block
        head, inside, after = (self.b.append_basic_block(n) for n in ("head", "body", "after"))
        self.b.branch(head)
        self.b.position_at_end(head)
        index = self.b.phi(I64)
        index.add_incoming(self.i64(first), before)
        state = []
        for value in carry:
            phi = self.b.phi(value.type)
            phi.add_incoming(value, before)
            state.append(phi)
        self.b.cbranch(self.less(index, last), inside, after)
        self.b.position_at_end(inside)
        results = body(index, *state) or ()
        following = self.add(index, 1)
        end = self.b.block
        index.add_incoming(following, end)
        for phi, value in zip(state, results, strict=True):
            phi.add_incoming(value, end)
        self.b.branch(head)
        self.b.position_at_end(after)
        return state
