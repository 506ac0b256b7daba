// All layers of a flow in one launch, for sm_90a, where every tile has blocks of its own: short inputs.
// hopper_flow.py holds the note on the design and puts the defines and mma_gate / mma_residual (wgmma
// of NT and of NT / 2 places) before hopper.cuh and this text.
//
// Defines: C channels, RANKS = C / 64 blocks share a tile's channels, PAIR of them share a partial sum
// of the output rows, NT places a tile, A_STAGES and B_STAGES of the rings, LAYERS, BF16, KIND.

struct alignas(64) Layer {
  TensorMap gate;      // [2C, taps * X]     box 64 x 128
  TensorMap cond;      // [phases * 2C, K]   box 64 x 128
  TensorMap residual;  // [C, C]             box 64 x 64
  TensorMap x;         // [P, N, X] input    box 64 x NT
  const float *gate_bias, *residual_bias;
  const u32 *output;   // [8, C] pairs
};
struct alignas(64) Params {
  Layer layers[LAYERS];
  TensorMap start;     // [C, 64]            box 64 x 64
  TensorMap mel;       // [P or 1, N, K]     box 64 x NT
  TensorMap acts;      // [tiles * NT, C]    box 64 x NT
  const unsigned char *mask;  // a bit a place
  float *out;          // [C / (64 PAIR), P, 8, N]
  u32 *flags;          // of each tile, how many blocks have stored x, then activations; last: blocks done
  int N, P, across, taps, mel_blocks, mel_phases, cond_rows;  // across: tiles of a phase
};

constexpr int A_BYTES = 128 * ROW;  // gate rows of this block
constexpr int B_BYTES = NT * ROW;
constexpr int HALF = 64 * ROW;      // residual rows of this block
constexpr int RN = NT / 2;          // places of a warpgroup in the residual product
constexpr int CONSUMERS = 256;

template <int STAGES> struct Ring {
  int stage = 0;
  u32 parity = 0;
  __device__ __forceinline__ void next() {
    if (++stage == STAGES) { stage = 0; parity ^= 1; }
  }
};
using RingA = Ring<A_STAGES>;  // weights
using RingB = Ring<B_STAGES>;  // what they multiply

struct Block {  // what every role knows
  u32 a, b, staging, own, a_full, a_empty, b_full, b_empty;
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

__device__ __forceinline__ void signal(u32 *flag) {  // after its stores are complete
  asm volatile("fence.proxy.async;\nred.release.gpu.global.add.u32 [%0], 1;" ::"l"(flag) : "memory");
}
__device__ __forceinline__ void await(const u32 *flag, u32 count) {
  u32 found;
  do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(found) : "l"(flag) : "memory");
  while (found < count);
}

// Weights wait for nothing but room.
__device__ void load_weights(const Params &p, const Block &b) {
  RingA ring;
  auto one = [&](const TensorMap *map, int k, int row) {
    const u32 bar = b.take(ring, A_BYTES);
    load2(b.at(ring), map, 64 * k, row, bar);
    ring.next();
  };
  for (int i = 0; i < LAYERS; ++i) {
    const Layer &layer = p.layers[i];
    const int taps = p.taps * (i ? RANKS : 1);
    for (int k = 0; k < p.mel_blocks; ++k) one(&layer.cond, k, b.phase * p.cond_rows + b.rank * 128);
    for (int k = 0; k < taps; ++k) one(&layer.gate, k, b.rank * 128);
    if (i == LAYERS - 1) return;
    if (i == 0) {
      const u32 bar = b.take(ring, HALF);
      load2(b.at(ring), &p.start, 0, b.rank * 64, bar);
      ring.next();
    }
    for (int k = 0; k < RANKS; k += 2, ring.next()) {  // two blocks of columns a stage
      const int count = k + 1 < RANKS ? 2 : 1;
      const u32 bar = b.take(ring, count * HALF);
      for (int j = 0; j < count; ++j) load2(b.at(ring) + j * HALF, &layer.residual, 64 * (k + j), b.rank * 64, bar);
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

// Until the blocks whose x this one's taps read have stored it, a tap a lane.
__device__ __forceinline__ void await_taps(const Params &p, const Block &b, int i, int lane) {
  for (int tap = lane; tap < p.taps; tap += 32) {
    const Tap from(p, b, i, tap);
    const int low = b.place + from.shift, high = low + NT - 1;
    for (int t = low > 0 ? low / NT : 0; t < p.across && t * NT <= high; ++t)
      await(p.flags + from.phase * p.across + t, RANKS * i);
  }
  __syncwarp();
  asm volatile("fence.proxy.async;" ::: "memory");
}

__device__ void load_inputs(const Params &p, const Block &b, int lane) {
  RingB ring;
  auto planes = [&](const TensorMap *map, int k, int place, int phase) {
    const u32 bar = b.take(ring);
    load3(b.at(ring), map, 64 * k, place, phase, bar);
    ring.next();
  };
  for (int i = 0; i < LAYERS; ++i) {
    const Layer &layer = p.layers[i];
    const bool last = i == LAYERS - 1;
    if (lane == 0)
      for (int k = 0; k < p.mel_blocks; ++k) planes(&p.mel, k, b.place, b.phase * p.mel_phases);
    if (i) await_taps(p, b, i, lane);
    if (lane == 0) {
      for (int tap = 0; tap < p.taps; ++tap) {
        const Tap from(p, b, i, tap);
        for (int k = 0; k < (i ? RANKS : 1); ++k) planes(&layer.x, k, b.place + from.shift, from.phase);
      }
      if (i == 0 && !last) planes(&layer.x, 0, b.place, b.phase);
      if (RANKS > 1) {
        await(p.flags + p.P * p.across + b.tile, RANKS * (i + 1));
        asm volatile("fence.proxy.async;" ::: "memory");
        for (int k = 0; k < RANKS; ++k) {
          if (k == b.rank || (last && k / PAIR != b.rank / PAIR)) continue;
          const u32 bar = b.take(ring);
          load2(b.at(ring), &p.acts, 64 * k, b.tile * NT, bar);
          ring.next();
        }
      }
    }
    __syncwarp();
  }
}

// Moves what the products leave to memory, and says so.
__device__ void store_results(const Params &p, const Block &b, int lane) {
  for (int i = 0; i < LAYERS; ++i) {
    named_sync(2, CONSUMERS + 32);
    if (lane == 0 && RANKS > 1) {
      store2(b.staging, &p.acts, b.rank * 64, b.tile * NT);
      asm volatile("cp.async.bulk.commit_group;\ncp.async.bulk.wait_group 0;" ::: "memory");
      signal(p.flags + p.P * p.across + b.tile);
    }
    __syncwarp();
    if (i == LAYERS - 1) return;
    named_sync(4, CONSUMERS + 32);
    if (lane == 0) {
      store3(b.own, &p.layers[i + 1].x, b.rank * 64, b.place, b.phase);
      asm volatile("cp.async.bulk.commit_group;\ncp.async.bulk.wait_group 0;" ::: "memory");
      signal(p.flags + b.tile);
    }
    __syncwarp();
  }
}

// The output rows of PAIR blocks' channels, each block for its share of the places.
struct Outputs {
  static constexpr int STEPS = PAIR * 4;
  u32 o[STEPS][2];
  __device__ __forceinline__ Outputs(const Layer &layer, const Block &b, int lane) {
    const int first = b.rank / PAIR * PAIR * 64;
#pragma unroll
    for (int k = 0; k < STEPS; ++k) {
      const u32 *row = layer.output + ((lane >> 2) * C + first + 16 * k) / 2 + (lane & 3);
      o[k][0] = row[0];
      o[k][1] = row[4];
    }
  }
  __device__ __forceinline__ void add(const Params &p, const Block &b, bool first, const u32 (&box)[PAIR], int warp, int lane) const {
    float *out = p.out + ((b.rank / PAIR * p.P + b.phase) * 8 + (lane >> 2)) * (u64)p.N;
    for (int j = warp * PAIR + b.rank % PAIR; j < NT / 8; j += 8 * PAIR) {
      float d0 = 0, d1 = 0, d2 = 0, d3 = 0;
#pragma unroll
      for (int k = 0; k < STEPS; k += 2) {
        const int row = 8 * j + (lane & 7), chunk = (2 * k & 7) + (lane >> 3);
        const u32 at = box[k / 4] + row * ROW + ((chunk ^ (row & 7)) << 4);
        u32 v[4];
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3]) : "r"(at) : "memory");
#pragma unroll
        for (int h = 0; h < 2; ++h)
          asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." KIND "." KIND ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %5}, {%7, %8}, {%0, %1, %2, %3};"
                       : "+f"(d0), "+f"(d1), "+f"(d2), "+f"(d3)
                       : "r"(o[k + h][0]), "r"(0), "r"(o[k + h][1]), "r"(v[2 * h]), "r"(v[2 * h + 1]));
      }
      const int n = b.place + 8 * j + 2 * (lane & 3);
      if (n >= p.N) continue;  // N is even
      if (first) asm volatile("st.global.v2.f32 [%0], {%1, %2};" ::"l"(out + n), "f"(d0), "f"(d1) : "memory");
      else asm volatile("red.global.add.v2.f32 [%0], {%1, %2};" ::"l"(out + n), "f"(d0), "f"(d1) : "memory");
    }
  }
};

__device__ __forceinline__ void fence_staging() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Leaves the activations in staging.
__device__ __forceinline__ void gate(const Params &p, const Block &b, RingA &a, RingB &in, int i, int group, int thread) {
  const int lane = thread & 31, warp = thread >> 5, steps = p.mel_blocks + p.taps * (i ? RANKS : 1);
  const float *bias = p.layers[i].gate_bias + b.rank * 128 + group * 64 + warp * 16 + (lane >> 2);
  const float tanh_bias = bias[0], sigmoid_bias = 0.5f * bias[8];
  float acc[NT / 2] = {};
  int before_a = -1, before_b = -1;
  for (int k = 0; k < steps; ++k, a.next(), in.next()) {
    b.filled(a);
    b.filled(in);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int q = 0; q < 4; ++q) mma_gate(acc, operand(b.at(a) + group * 64 * ROW + 32 * q), operand(b.at(in) + 32 * q));
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
    if (k) {  // stages come back a step late, so that the tensor cores never pause
      give(b.a_empty, before_a, thread);
      give(b.b_empty, before_b, thread);
    }
    before_a = a.stage;
    before_b = in.stage;
  }
  mma_wait_gate(acc);
  give(b.a_empty, before_a, thread);
  give(b.b_empty, before_b, thread);
  u32 v[NT / 8];
#pragma unroll
  for (int j = 0; j < NT / 8; ++j)
    v[j] = pack(gated(acc[4 * j] + tanh_bias, 0.5f * acc[4 * j + 2] + sigmoid_bias),
                gated(acc[4 * j + 1] + tanh_bias, 0.5f * acc[4 * j + 3] + sigmoid_bias));
  const int channels = group * 4 + warp;
  runs<NT / 8>([&](int j) { put<4>(row_of<4>(b.staging, channels, 8 * j, lane), v + j); },
               [&](int j) { put<2>(row_of<2>(b.staging, channels, 8 * j, lane), v + j); },
               [&](int j) { put<1>(row_of<1>(b.staging, channels, 8 * j, lane), v + j); });
  fence_staging();
  named_sync(2, CONSUMERS + 32);
}

// x_next = x + residual . activations, in place of the x that stands in ``own``.
struct Residual {
  int first;  // place within the tile
  float low, high;  // bias
  u32 mask[RN / 8];
  __device__ __forceinline__ Residual(const Params &p, const Block &b, int i, int group, int thread) : first(group * RN) {
    const int lane = thread & 31;
    const float *bias = p.layers[i].residual_bias + b.rank * 64 + (thread >> 5) * 16 + (lane >> 2);
    low = bias[0];
    high = bias[8];
#pragma unroll
    for (int j = 0; j < RN / 8; ++j) {
      const int n = b.place + first + 8 * j;
      mask[j] = n < p.N ? p.mask[n / 8] >> 2 * (lane & 3) : 0;
    }
  }
  __device__ __forceinline__ void multiply(float (&acc)[RN / 2], u32 weights, u32 inputs) const {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int q = 0; q < 4; ++q) mma_residual(acc, operand(weights + 32 * q), operand(inputs + first * ROW + 32 * q));
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
  }
  __device__ __forceinline__ void finish(const Block &b, const float (&acc)[RN / 2], bool fresh, int thread) const {
    const int lane = thread & 31, warp = thread >> 5;
    auto sum = [&](int j, int g, u32 x) {  // two places of one channel
      float x0 = 0, x1 = 0;
      if (!fresh) unpack(x, x0, x1);
      const u32 keep = (mask[j] & 1 ? 0xFFFFu : 0) | (mask[j] & 2 ? 0xFFFF0000u : 0);
      const float bias = g ? high : low;
      return pack(x0 + (acc[4 * j + 2 * g] + bias), x1 + (acc[4 * j + 2 * g + 1] + bias)) & keep;
    };
#pragma unroll
    for (int g = 0; g < 2; ++g) {
      auto run = [&](auto k, int j) {
        constexpr int K = decltype(k)::value;
        const u32 at = row_of<K>(b.own, warp * 2 + g, first + 8 * j, lane);
        u32 v[K];
        get<K>(at, v);
#pragma unroll
        for (int r = 0; r < K; ++r) v[r] = sum(j + r, g, v[r]);
        put<K>(at, v);
      };
      runs<RN / 8>([&](int j) { run(Count<4>(), j); }, [&](int j) { run(Count<2>(), j); }, [&](int j) { run(Count<1>(), j); });
    }
    fence_staging();
    named_arrive(4, CONSUMERS + 32);
  }
};

// FIRST: layer 0 (a branch around products would make the compiler put them one after another).
template <bool FIRST>
__device__ __forceinline__ void residual(const Params &p, const Block &b, RingA &a, RingB &in, int i, const Outputs &outputs, int group, int thread) {
  const Residual r(p, b, i, group, thread);
  float acc[RN / 2] = {};
  RingA held_a = a;
  RingB held_b = in;
  u32 pair[PAIR];
  if (FIRST) {
    b.filled(a);
    b.filled(in);
    r.multiply(acc, b.at(a), b.at(in));
    a.next();
    in.next();
  }
#pragma unroll
  for (int k = 0; k < RANKS; ++k) {
    if (k % 2 == 0) b.filled(a);
    u32 inputs = b.staging;
    if (k != b.rank) {
      b.filled(in);
      inputs = b.at(in);
      in.next();
    }
#pragma unroll
    for (int j = 0; j < PAIR; ++j)
      if (k == b.rank / PAIR * PAIR + j) pair[j] = inputs;
    r.multiply(acc, b.at(a) + k % 2 * HALF, inputs);
    if (k % 2 || k == RANKS - 1) a.next();
  }
  mma_wait_residual(acc);
  for (int n = FIRST + (RANKS + 1) / 2; n > 0; --n, held_a.next()) give(b.a_empty, held_a.stage, thread);
  r.finish(b, acc, FIRST, thread);
  outputs.add(p, b, FIRST, pair, group * 4 + (thread >> 5), thread & 31);
  named_sync(5, CONSUMERS);  // all have read the stages and staging
  for (int n = FIRST + RANKS - 1; n > 0; --n, held_b.next()) give(b.b_empty, held_b.stage, thread);
}

// The last layer has no residual: only the activations of the other blocks of the same partial sum.
__device__ __forceinline__ void finish_outputs(const Params &p, const Block &b, RingB &in, const Outputs &outputs, int group, int thread) {
  u32 pair[PAIR];
#pragma unroll
  for (int j = 0; j < PAIR; ++j) {
    pair[j] = b.staging;
    if (j == b.rank % PAIR) continue;
    b.filled(in);
    pair[j] = b.at(in);
    in.next();
  }
  outputs.add(p, b, LAYERS == 1, pair, group * 4 + (thread >> 5), thread & 31);
}

// The last block of all clears the flags for the next launch: by then nobody waits for one.
__device__ void leave(const Params &p) {
  __syncthreads();
  if (threadIdx.x >= 32) return;
  const int count = 2 * p.P * p.across;
  u32 done = 0;
  if (threadIdx.x == 0)
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;" : "=r"(done) : "l"(p.flags + count) : "memory");
  done = __shfl_sync(0xFFFFFFFF, done, 0);
  if (done != gridDim.x - 1) return;
  for (int j = threadIdx.x; j <= count; j += 32) p.flags[j] = 0;
}

extern "C" __global__ void __launch_bounds__(384, 1) flow(const __grid_constant__ Params p) {
  extern __shared__ char raw[];
  __shared__ alignas(8) u64 barriers[2 * (A_STAGES + B_STAGES)];
  Block b;
  b.a = (shared(raw) + 1023) & ~1023u;
  b.b = b.a + A_STAGES * A_BYTES;
  b.staging = b.b + B_STAGES * B_BYTES;
  b.own = b.staging + B_BYTES;
  b.a_full = shared(barriers);
  b.a_empty = b.a_full + 8 * A_STAGES;
  b.b_full = b.a_empty + 8 * A_STAGES;
  b.b_empty = b.b_full + 8 * B_STAGES;
  b.rank = blockIdx.x % RANKS;
  b.tile = blockIdx.x / RANKS;
  b.phase = b.tile / p.across;
  b.place = b.tile % p.across * NT;
  if (threadIdx.x >= 352)
    for (int j = threadIdx.x - 352; j < 4 * LAYERS + 3; j += 32) {
      const TensorMap *map = j < 4 * LAYERS ? &p.layers[j / 4].gate + j % 4 : &p.start + (j - 4 * LAYERS);
      asm volatile("prefetch.tensormap [%0];" ::"l"(map));
    }
  if (threadIdx.x == 0) {
    for (int s = 0; s < A_STAGES; ++s) {
      barrier_init(b.a_full + 8 * s, 1);
      barrier_init(b.a_empty + 8 * s, 2);
    }
    for (int s = 0; s < B_STAGES; ++s) {
      barrier_init(b.b_full + 8 * s, 1);
      barrier_init(b.b_empty + 8 * s, 2);
    }
    asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async;" ::: "memory");
  }
  __syncthreads();
  const int group = threadIdx.x / 128, thread = threadIdx.x % 128, lane = thread & 31;
  if (group == 2) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 56;");
    if (thread == 0) load_weights(p, b);
    else if (thread >= 32 && thread < 64) load_inputs(p, b, lane);
    else if (thread >= 64 && thread < 96) store_results(p, b, lane);
    __syncwarp();
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 216;");
    RingA a;
    RingB in;
    if (LAYERS > 1) {
      const Outputs outputs(p.layers[0], b, lane);  // here, so that nothing waits for them later
      gate(p, b, a, in, 0, group, thread);
      residual<true>(p, b, a, in, 0, outputs, group, thread);
    }
    for (int i = 1; i < LAYERS - 1; ++i) {
      const Outputs outputs(p.layers[i], b, lane);
      gate(p, b, a, in, i, group, thread);
      residual<false>(p, b, a, in, i, outputs, group, thread);
    }
    const Outputs outputs(p.layers[LAYERS - 1], b, lane);
    gate(p, b, a, in, LAYERS - 1, group, thread);
    finish_outputs(p, b, in, outputs, group, thread);
  }
  leave(p);
}
