// Between two flows of hopper_flow.cu: what the kernels of coupling.py compute, with their bits. A warp does it for
// the places that one tap of the next flow's layer 0 reads, so nothing waits for the tiles of the other taps.

// What may have been written by other blocks of this launch, so never from L1; zero where it is not valid.
__device__ __forceinline__ float shared_by_blocks(const float *at, bool valid) {
  float v;
  asm volatile("{\n.reg .pred p;\nsetp.ne.u32 p, %2, 0;\nmov.f32 %0, 0f00000000;\n@p ld.relaxed.gpu.global.f32 %0, [%1];\n}"
               : "=&f"(v) : "l"(at), "r"((u32)valid) : "memory");
  return v;
}
__device__ __forceinline__ void store_half(u32 at, u32 v) {
  asm volatile("st.shared.b16 [%0], %1;" ::"r"(at), "h"((unsigned short)v) : "memory");
}
// Of the flow that has ended and the one after it, what concerns one plane. Planes are counted from the end: the
// last is 7, and those before 8 - n wait for a later flow.
struct Coupling {
  float bias, row[8];     // of the plane's output row; its row of the inverse
  int output, mate;       // its output row: b where the plane changes, else log_s of the plane that does, its mate
  int slot, next_half;    // in what is given to the next flow, and how many planes are
  bool flows, changes;
  __device__ __forceinline__ Coupling(const Params &p, int flow, int plane) {
    const int *kinds = p.kinds + 2 * flow;
    const int n = kinds[0], half = n / 2, index = plane - (8 - n);
    flows = index >= 0;
    changes = flows && index / half == !kinds[1];
    output = index % half + (changes ? 0 : half);
    mate = plane + (index < half ? half : -half);
    next_half = kinds[2] / 2;
    slot = plane - (8 - kinds[2] + (kinds[3] ? next_half : 0));
    bias = flows ? p.output_bias[8 * flow + output] : 0;
#pragma unroll
    for (int c = 0; c < 8; ++c) row[c] = p.inverse[64 * flow + 8 * plane + c];
  }
  // (value - b) * exp(-log_s), then the inverse, columns in their order, whose first 8 - n are zero: noise that is
  // not finite so spoils its place some flows earlier than in coupling.py.
  __device__ __forceinline__ float undo(float v, const float (&outputs)[CL], bool real) const {
    float sum = __fadd_rn(bias, 0.0f);
#pragma unroll
    for (int r = 0; r < CL; ++r) sum = __fadd_rn(sum, outputs[r]);
    float e = __fmul_rn(__fsub_rn(0.0f, __shfl_sync(~0u, sum, mate, 8)), 1.44269502f);  // 0x3FB8AA3B
    asm("ex2.approx.f32 %0, %0;" : "+f"(e));
    const float x = changes ? __fmul_rn(e, __fsub_rn(v, sum)) : v;
    float mixed = 0;
#pragma unroll
    for (int c = 0; c < 8; ++c) mixed = __fmaf_rn(row[c], __shfl_sync(~0u, x, c, 8), mixed);
    return flows ? real ? mixed : 0.0f : v;
  }
  // This plane's part of a row of layer 0's input, [high | low | high | 1 | 1 | 0...]: eight slots first, without
  // planes, then those of the plane.
  __device__ __forceinline__ void begin(u32 box, int place, int chunk, bool real) const {
    u32 ones[4];
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const int past = 8 * chunk + 2 * w - 3 * next_half;  // slots from the first 1 on
      ones[w] = real ? (past == 0 || past == 1 ? ONE : 0) | (past == 0 || past == -1 ? ONE << 16 : 0) : 0;
    }
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};"
                 ::"r"(box + place * ROW + ((chunk ^ place & 7) << 4)), "r"(ones[0]), "r"(ones[1]), "r"(ones[2]), "r"(ones[3]) : "memory");
  }
  __device__ __forceinline__ void give(u32 box, int place, float v) const {
    const u32 high = pack(v, 0.0f);
    float value, none;
    unpack(high, value, none);
    put(box, place, slot, high);
    put(box, place, next_half + slot, pack(__fsub_rn(v, value), 0.0f));
    put(box, place, 2 * next_half + slot, high);
  }
  __device__ __forceinline__ static void put(u32 box, int place, int at, u32 value) {
    store_half(box + place * ROW + ((at >> 3 ^ place & 7) << 4) + (at & 7) * 2, value);
  }
  static constexpr u32 ONE = BF16 ? 0x3F80 : 0x3C00;
};

// The end of flow f, and step ``step`` of layer 0's input of the next, once the tiles that it reads have ended the flow;
// of the tap in the middle, step 0, again for ``start``, and the planes after the flow. ``count``: signals before the flow.
// Eight lanes have a place, a plane each, and the three warps one copy of this: with a place a lane and three copies
// it took 14,000 clocks.
//
// Two sets of ``out`` suffice: a tile writes that of flow f + 2 when it has awaited, for its layer 0, just those tiles
// that read its ``out`` of flow f, until they had ended flow f + 1. Planes are written before those tiles are
// awaited, so there are three sets.
__device__ __forceinline__ void couple(const Params &p, const Block &b, int f, int step, u32 count, int lane) {
  constexpr int BATCH = NT == 48 ? 6 : 4;  // groups of 4 places that are loaded at once
  const int plane = lane & 7, first = lane / 8;
  const bool middle = step == 0;
  const Coupling of(p, p.first + f, plane);
  const Tap from(p, b, 0, tap_at(step, p.taps));
  const int begin = b.place + from.shift + first;
  u64 mask = 0;  // of this lane's places
#pragma unroll 1
  for (int g = 0; g < NT / 4; ++g) {
    const int place = begin + 4 * g;
    if (place >= 0 && place < p.N) mask |= (u64)(p.mask[place / 8] >> place % 8 & 1) << g;
  }
  flow_ended(p, b, step, lane);
  RingB ring = start_of(p, f + 1), again = ring;  // all stages are empty
  ring.skip(step);
  again.skip(p.taps);
#pragma unroll 1
  for (int g = 0; g < NT / 4; ++g) {
    of.begin(b.at(ring), first + 4 * g, plane, mask >> g & 1);
    if (middle) of.begin(b.at(again), first + 4 * g, plane, mask >> g & 1);
  }
  if (!middle || CL == 2) await_tap(p, b, from, count + SIGNALS);  // of its own tile, for the partner's part
  __syncwarp();
  const int turn = p.count - 1 - f;  // flows of this launch after the one that ends
  const int row = (from.phase * p.group + p.group - 8 + plane) * p.N + begin;
  const float *out = p.out[turn % 2] + (from.phase * 8 + of.output) * p.N + begin;
  const float *planes = p.planes[turn % 3] + row;
  const bool held = plane >= 8 - p.group, given = (u32)of.slot < of.next_half, keeps = middle && b.rank == 0 && held;
#pragma unroll 1
  for (int group = 0; group < NT / 4; group += BATCH) {
    float v[BATCH], outputs[BATCH][CL];
#pragma unroll
    for (int j = 0; j < BATCH; ++j) {
      const int n = 4 * (group + j);
      const bool inside = (u32)(begin + n) < p.N;
      v[j] = shared_by_blocks(planes + n, inside && held);
#pragma unroll
      for (int r = 0; r < CL; ++r) outputs[j][r] = shared_by_blocks(out + r * p.P * 8 * p.N + n, inside && of.flows);
    }
#pragma unroll
    for (int j = 0; j < BATCH; ++j) {
      const int g = group + j;
      const bool real = mask >> g & 1;
      const float found = of.undo(v[j], outputs[j], real);
      if (given && real) {
        of.give(b.at(ring), first + 4 * g, found);
        if (middle) of.give(b.at(again), first + 4 * g, found);
      }
      // Before this warp's arrival, which the consumers await, whom the next signal awaits: so whoever awaits that sees them.
      if (keeps && (u32)(begin + 4 * g) < p.N) p.planes[(turn + 2) % 3][row + 4 * g] = found;
    }
  }
  fence_staging();
  __syncwarp();
  give(b.b_full, ring.stage, lane);
  if (middle) give(b.b_full, again.stage, lane);
}
