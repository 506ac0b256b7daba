// What a launch of hopper_flow.cu is told, who knows what, and the three warps that move data: one loads
// weights, one what they multiply, one stores. hopper_flow.py holds the note on the design.

struct alignas(64) Layer {
  TensorMap gate;      // [2C, taps * X]     box 64 x 128 MT
  TensorMap cond;      // [P * 2C, K]        box 64 x 128 MT
  TensorMap residual;  // [C, C]             box 64 x 64 MT
  TensorMap x;         // [P, N, X] input    box 64 x NT
  const float *gate_bias, *residual_bias;
  const u32 *output;   // [8, C] pairs
};
struct alignas(64) Params {
  Layer layers[LAYERS];
  TensorMap start;     // [C, 64]            box 64 x 64 MT
  TensorMap mel;       // [BANDS / 8, frames, 8]  box all of a tile's windows
  const unsigned char *mask;  // a bit a place
  float *out;          // [CL, P, 8, N]
  u64 *done;           // blocks that have ended, of all launches so far
  u32 *flags;          // a tile: how often its blocks have stored x, in all launches so far
  int N, P, across, taps;  // across: tiles of a phase
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
static_assert(A_STAGES >= 1 + (C / 64 + 1) / 2 && A_STAGES >= EARLY && B_STAGES >= 2, "the rings would never go on");
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
  __device__ __forceinline__ void skip(int count) { stage = (stage + count) % STAGES; }  // parity is lost
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

// Weights wait for nothing but room.
__device__ void load_weights(const Params &p, const Block &b) {
  RingA ring;
  auto load = [&](const TensorMap &map, int first, int column, int count) {
    for (int k = column; k < column + count; ++k, ring.next()) {
      const u32 bar = b.take(ring, A_BYTES);
      load2(b.at(ring), &map, 64 * k, first + b.rank * 2 * CH, bar);
    }
  };
  auto load_mel = [&](int i, int from, int to) { load(p.layers[i].cond, b.phase * 2 * C, from, to - from); };
  for (int i = 0; i < LAYERS; ++i) {
    const Layer &layer = p.layers[i];
    const int blocks = i ? C / 64 : 1;
    load_mel(i, i ? EARLY : 0, MEL_BLOCKS);
    for (int step = 0; step < p.taps; ++step) load(layer.gate, 0, tap_at(step, p.taps) * blocks, blocks);
    if (i == LAYERS - 1) return;
    load_mel(i + 1, 0, EARLY);
    if (i == 0) {
      const u32 bar = b.take(ring, HALF);
      load2(b.at(ring), &p.start, 0, b.rank * CH, bar);
      ring.next();
    }
    for (int k = 0; k < C / 64; k += 2, ring.next()) {  // two blocks of columns a stage
      const int count = k + 1 < C / 64 ? 2 : 1;
      const u32 bar = b.take(ring, count * HALF);
      for (int j = 0; j < count; ++j) load2(b.at(ring) + j * HALF, &layer.residual, 64 * (k + j), b.rank * CH, bar);
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
// Until the blocks whose x this one's taps read have stored it, a tap a lane. The tap in the middle is of
// the tile itself, whose blocks hold it and give it to each other.
__device__ __forceinline__ void await_taps(const Params &p, const Block &b, int i, u32 before, int lane) {
  for (int tap = lane; tap < p.taps; tap += 32) {
    if (tap == p.taps / 2) continue;
    const Tap from(p, b, i, tap);
    const int low = b.place + from.shift, high = low + NT - 1;
    for (int t = low > 0 ? low / NT : 0; t < p.across && t * NT <= high; ++t)
      await(p.flags + from.phase * p.across + t, before + CL * i);
  }
  __syncwarp();
  asm volatile("fence.proxy.async;" ::: "memory");
}

__device__ void load_inputs(const Params &p, const Block &b, int lane) {
  RingB ring;
  auto load = [&](int i, int tap, int blocks) {
    const Tap from(p, b, i, tap);
    for (int k = 0; k < blocks; ++k, ring.next()) {
      const u32 bar = b.take(ring);
      load3(b.at(ring), &p.layers[i].x, 64 * k, b.place + from.shift, from.phase, bar);
    }
  };
  asm volatile("griddepcontrol.wait;" ::: "memory");
  u64 done;  // of this launch some perhaps, but not all, while this block has not ended
  asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(done) : "l"(p.done) : "memory");
  const u32 before = (u32)(done / gridDim.x) * (CL * (LAYERS - 1));
  if (lane == 0) {
    expect(b.mel_full, MEL_BYTES);
    load3(b.mel, &p.mel, 0, b.place, 0, b.mel_full);
  }
  if (lane == 0) {
    for (int step = 0; step < p.taps; ++step) load(0, tap_at(step, p.taps), 1);
    if (LAYERS > 1) load(0, p.taps / 2, 1);
  }
  __syncwarp();
  for (int i = 1; i < LAYERS; ++i) {
    if (lane == 0)
      for (int k = 0; k < OTHERS; ++k, ring.next()) b.take(ring);  // the partner fills them
    await_taps(p, b, i, before, lane);
    if (lane == 0)
      for (int step = 1; step < p.taps; ++step) load(i, tap_at(step, p.taps), C / 64);
    __syncwarp();
  }
}

// Gives the partner this block's activations and x, and the other tiles its x.
__device__ void store_results(const Params &p, const Block &b, int lane) {
  RingB theirs;  // the partner's, by the stage where its next layer begins
  if (CL == 2) asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
  for (int i = 0; i < LAYERS - 1; ++i) {
    if (CL == 2 && lane == 0) expect(b.sent, MT * B_BYTES);
    named_sync(2, CONSUMERS + 32);
    // The partner reads them before it gives its x, for which this block waits before the next layer's.
    if (CL == 2 && lane == 0) send(b.partner, b.staging, MT * B_BYTES, b.sent, b.rank ^ 1);
    theirs.skip(i ? OTHERS + (p.taps - 1) * (C / 64) : p.taps + 1);
    named_sync(4, CONSUMERS + 32);
    if (lane == 0) {
      for (int m = 0; m < MT; ++m) store3(b.own + m * B_BYTES, &p.layers[i + 1].x, b.rank * CH + 64 * m, b.place, b.phase);
      asm volatile("cp.async.bulk.commit_group;" ::: "memory");
      // Those stages are empty: it gave its activations after the last product of its gate.
      for (int m = 0; m < OTHERS; ++m, theirs.next())
        send(b.at(theirs), b.own + m * B_BYTES, B_BYTES, b.b_full + 8 * theirs.stage, b.rank ^ 1);
      theirs.skip(B_STAGES - OTHERS);
      asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
      signal(p.flags + b.tile);
    }
    __syncwarp();
  }
}
