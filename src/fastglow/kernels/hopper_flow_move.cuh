// What a launch of hopper_flow.cu is told, who knows what, and the three warps that move data: one loads
// weights, one what they multiply, one stores. hopper_flow.py holds the note on the design.

struct alignas(64) Params {
  TensorMap gate0;     // [F * 2C, taps * 64]      box 64 x 128 MT   layer 0 of every flow
  TensorMap gate;      // [F * (L - 1) * 2C, taps * C]               the other layers
  TensorMap cond;      // [F * L * P * 2C, K]
  TensorMap residual;  // [F * L * C, C]           box 64 x 64 MT
  TensorMap start;     // [F * C, 64]
  TensorMap given;     // [P, N, 64]               box 64 x NT       layer 0's input of the first flow
  TensorMap x;         // [2 * (L - 1) * P, N, C]                    the other layers', by parity of the flow
  TensorMap mel;       // [BANDS / 8, frames, 8]   box all of a tile's windows
  const float *gate_bias, *residual_bias;  // [F, L, 2C], [F, L, C]
  const u32 *output;         // [F, L, 8, C] pairs
  const float *output_bias;  // [F, 8]
  const float *inverse;      // [F, 8, 8], its last rows and columns
  const int *kinds;          // [F, 2] channels of the coupling, whether its halves are swapped
  const unsigned char *mask; // a bit a place
  float *out[2];             // [CL, P, 8, N] the last flow's, and in turn
  float *planes[3];          // [P, G, N] what the last flow's coupling reads, and in turn
  u64 *done;           // blocks that have ended, of all launches so far
  u32 *flags;          // a tile: how often its blocks have stored x or out, in all launches so far
  int N, P, across, taps;  // across: tiles of a phase
  int first, count, group; // flows of this launch; G
};

constexpr int A_BYTES = 128 * MT * ROW;  // gate rows of this block
constexpr int HALF = A_BYTES / 2;        // residual rows
constexpr int B_BYTES = NT * ROW;
constexpr int CH = 64 * MT;              // channels of this block
constexpr int RN = MT == 2 ? NT : NT / 2;  // places a warpgroup has in the residual product
constexpr int CONSUMERS = 256;
constexpr int OTHERS = C / 64 - MT;      // boxes of x that the partner has
// Blocks of the next layer's mel that are multiplied while the partner's activations are on their way.
constexpr int EARLY = CL == 2 ? EARLY_BLOCKS : 0;
// Layer 0's residual holds the stages of ``start`` and of all its weights at once.
static_assert(A_STAGES >= 1 + (C / 64 + 1) / 2 && A_STAGES >= EARLY, "the ring would never go on");
static_assert(B_STAGES >= 4 && LAYERS > 1, "layer 0's inputs are written at once");
// The partner may still have layer 0's input, in the stage before those where its next layer begins.
static_assert(B_STAGES > OTHERS, "a stage would be overwritten");
static_assert(EARLY <= MEL_BLOCKS, "the mel has no more");
constexpr int FRAMES = NT + 64 * MEL_BLOCKS / BANDS - 1;  // of mel, that the windows of a tile read
constexpr int MEL_BYTES = BANDS / 8 * FRAMES * 16;

template <int STAGES, bool WEIGHTS> struct Ring {  // two types, also where both have as many stages
  int stage = 0;
  u32 parity = 0;
  __device__ __forceinline__ void next() {
    if (++stage == STAGES) { stage = 0; parity ^= 1; }
  }
  __device__ __forceinline__ void skip(int count) {
    stage += count;
    parity ^= stage / STAGES & 1;
    stage %= STAGES;
  }
};
using RingA = Ring<A_STAGES, true>;
using RingB = Ring<B_STAGES, false>;  // what they multiply

struct Block {  // what every role knows
  u32 a, b, staging, own, partner, mel;  // staging: activations; own: x; partner: its activations
  u32 a_full, a_empty, b_full, b_empty, mel_full, sent;
  int rank, tile, phase, place;
  __device__ __forceinline__ u32 at(const RingA &r) const { return a + r.stage * A_BYTES; }
  __device__ __forceinline__ u32 at(const RingB &r) const { return b + r.stage * B_BYTES; }
  __device__ __forceinline__ void filled(const RingA &r) const { wait(a_full + 8 * r.stage, r.parity); }
  __device__ __forceinline__ void filled(const RingB &r) const { wait(b_full + 8 * r.stage, r.parity); }
  __device__ __forceinline__ u32 take(const RingA &r, int bytes) const {
    wait(a_empty + 8 * r.stage, r.parity ^ 1);
    expect(a_full + 8 * r.stage, bytes);
    return a_full + 8 * r.stage;
  }
  __device__ __forceinline__ u32 take(const RingB &r) const {
    wait(b_empty + 8 * r.stage, r.parity ^ 1);
    expect(b_full + 8 * r.stage, B_BYTES);
    return b_full + 8 * r.stage;
  }
};
__device__ __forceinline__ void give(u32 empty, int stage, int thread) {
  if (thread == 0) asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(empty + 8 * stage) : "memory");
}

// The copy engine's stores are complete, and so visible to this thread; now to all.
__device__ __forceinline__ void signal(u32 *flag) {
  asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(flag) : "memory");
}
__device__ __forceinline__ void await(const u32 *flag, u32 count) {
  u32 found;
  do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(found) : "l"(flag) : "memory");
  while ((int)(found - count) < 0);  // both wrap around
}

// Keeps the compiler from holding in registers, over a loop, what follows from it.
__device__ __forceinline__ int afresh(int v) {
  asm volatile("" : "+r"(v));
  return v;
}

__device__ __forceinline__ void fence_staging() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Weights wait for nothing but room, so they run ahead into the next layer and the next flow.
__device__ void load_weights(const Params &p, const Block &b) {
  RingA ring;
  auto load = [&](const TensorMap &map, int matrix, int column, int count) {  // of 2C rows each
    for (int k = column; k < column + count; ++k, ring.next()) {
      const u32 bar = b.take(ring, A_BYTES);
      load2(b.at(ring), &map, 64 * k, matrix * 2 * C + b.rank * 2 * CH, bar);
    }
  };
  for (int flow = p.first; flow < p.first + p.count; ++flow) {
    auto load_mel = [&](int i, int from, int to) { load(p.cond, (flow * LAYERS + i) * p.P + b.phase, from, to - from); };
    for (int i = 0; i < LAYERS; ++i) {
      const int blocks = i ? C / 64 : 1;
      load_mel(i, i ? EARLY : 0, MEL_BLOCKS);
      for (int step = 0; step < p.taps; ++step)
        load(i ? p.gate : p.gate0, i ? flow * (LAYERS - 1) + i - 1 : flow, tap_at(step, p.taps) * blocks, blocks);
      if (i == LAYERS - 1) break;
      load_mel(i + 1, 0, EARLY);
      if (i == 0) {
        const u32 bar = b.take(ring, HALF);
        load2(b.at(ring), &p.start, 0, flow * C + b.rank * CH, bar);
        ring.next();
      }
      for (int k = 0; k < C / 64; k += 2, ring.next()) {  // two blocks of columns a stage
        const int count = k + 1 < C / 64 ? 2 : 1, row = (flow * LAYERS + i) * C + b.rank * CH;
        const u32 bar = b.take(ring, count * HALF);
        for (int j = 0; j < count; ++j) load2(b.at(ring) + j * HALF, &p.residual, 64 * (k + j), row, bar);
      }
    }
  }
}

struct Tap {  // a dilated tap is another phase of the tile, or the same one some places off
  int phase, shift;
  __device__ __forceinline__ Tap(const Params &p, const Block &b, int i, int tap) {
    const int at = b.phase + (tap - p.taps / 2) * (1 << i);
    shift = at >= 0 ? at / p.P : -((p.P - 1 - at) / p.P);
    phase = at - shift * p.P;
  }
};
// What a tap reads, until its blocks have stored it.
__device__ __forceinline__ void await_tap(const Params &p, const Block &b, const Tap &from, u32 count) {
  const int low = b.place + from.shift, high = low + NT - 1;
  for (int t = low > 0 ? low / NT : 0; t < p.across && t * NT <= high; ++t)
    await(p.flags + from.phase * p.across + t, count);
}
// x, a tap a lane. The tap in the middle is of the tile itself, whose blocks hold it and give it to each other.
__device__ __forceinline__ void await_taps(const Params &p, const Block &b, int i, u32 count, int lane) {
  for (int tap = lane; tap < p.taps; tap += 32)
    if (tap != p.taps / 2) await_tap(p, b, Tap(p, b, i, tap), count);
  __syncwarp();
  asm volatile("fence.proxy.async;" ::: "memory");
}

constexpr int SIGNALS = CL * LAYERS;  // of a flow to a tile's flag: each block's x of all layers but the first, and out
// The flag of this block's tile, before this launch. The kernel before has ended then.
__device__ __forceinline__ u32 flags_before(const Params &p) {
  asm volatile("griddepcontrol.wait;" ::: "memory");
  u64 done;  // of this launch some perhaps, but not all, while this block has not ended
  asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(done) : "l"(p.done) : "memory");
  return (u32)(done / gridDim.x) * p.count * SIGNALS;
}
// All have stored out, and given back all stages.
__device__ __forceinline__ void flow_ended(const Params &p, const Block &b, int warp, int lane) {
  __syncwarp();
  named_sync(7, CONSUMERS + 96);
  if (warp == 1 && lane == 0) signal(p.flags + b.tile);
}
// Where what flow f multiplies begins.
__device__ __forceinline__ RingB start_of(const Params &p, int f) {
  RingB ring;
  ring.skip(f * (p.taps + 1 + (LAYERS - 1) * (OTHERS + (p.taps - 1) * (C / 64))));
  return ring;
}
// Which x a layer reads. Two sets suffice: a tile that has ended flow f + 1 has awaited, at every layer, just
// those tiles that read its x there, so they had ended flow f. Hence x of flow f + 2 may stand in its place.
__device__ __forceinline__ int plane_of(const Params &p, int f, int i, int phase) {
  return ((f & 1) * (LAYERS - 1) + i - 1) * p.P + phase;
}
