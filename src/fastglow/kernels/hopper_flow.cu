// All layers of some flows in one launch, for sm_90a, where every tile has blocks of its own: short inputs.
// hopper_flow.py holds the note on the design and puts the defines, mma_gate and mma_residual (wgmma of
// NT and of RN places) and the headers before this text.
//
// Defines: C channels, CL blocks of a cluster share a tile's channels, MT 64-row tiles of the gate a
// warpgroup, NT places a tile, A_STAGES and B_STAGES of the rings, LAYERS, BANDS of the mel, MEL_BLOCKS of
// 64 columns of the conditioning, EARLY_BLOCKS of them that come a layer ahead, BF16, KIND.

// 16 columns of the mel's windows, which overlap: column c of place n is band c % BANDS of frame
// n + c / BANDS. Frames stand 16 bytes, 8 bands, apart, so that a window one frame on begins 16 bytes on.
__device__ __forceinline__ u64 windows(const Block &b, int k) {
  constexpr int CHUNKS = BANDS / 8;
  const u32 at = b.mel + 2 * k % CHUNKS * FRAMES * 16 + 2 * k / CHUNKS * 16;
  return (u64)((at & 0x3FFFF) >> 4) | (u64)FRAMES << 16 | (u64)8 << 32;
}

// Of a layer, for the rows of this thread: asked for well before they are needed, because an answer takes
// a microsecond or two while the copy engine is at work.
struct Biases {
  float tanh[MT], sigmoid[MT], low, high;
  __device__ __forceinline__ void load(const Params &p, const Block &b, int layer, int group, int thread) {
    const int row = (thread >> 5) * 16 + (thread & 31) / 4;
#pragma unroll
    for (int m = 0; m < MT; ++m) {
      const float *bias = p.gate_bias + layer * 2 * C + b.rank * 2 * CH + (group * MT + m) * 64 + row;
      tanh[m] = bias[0];
      sigmoid[m] = bias[8];
    }
    const float *bias = p.residual_bias + layer * C + b.rank * CH + (MT == 2 ? group * 64 : 0) + row;
    low = bias[0];
    high = bias[8];
  }
};

// Not by assignments, which the compiler knows to be zero: it would put products one after another (C7519).
__device__ __forceinline__ void clear(float (&acc)[MT][NT / 2]) {
#pragma unroll
  for (int m = 0; m < MT; ++m)
#pragma unroll
    for (int j = 0; j < NT / 2; ++j) asm volatile("mov.f32 %0, 0f00000000;" : "=f"(acc[m][j]));
}
// A stage of the gate's weights.
template <typename Inputs>
__device__ __forceinline__ void multiply(float (&acc)[MT][NT / 2], u32 weights, int group, Inputs inputs) {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
  for (int m = 0; m < MT; ++m)
#pragma unroll
    for (int q = 0; q < 4; ++q) mma_gate(acc[m], operand(weights + (group * MT + m) * 64 * ROW + 32 * q), inputs(q));
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// The next layer's gate, as far as it goes without x. Its stages are given back before the residual, whose
// weights may need them.
__device__ __forceinline__ void early(const Block &b, RingA &a, float (&acc)[MT][NT / 2], int group, int thread) {
  clear(acc);
  RingA held = a;
  for (int k = 0; k < EARLY; ++k, a.next()) {
    b.filled(a);
    multiply(acc, b.at(a), group, [&](int q) { return windows(b, 4 * k + q); });
  }
  if (EARLY) {
#pragma unroll
    for (int m = 0; m < MT; ++m) mma_wait_gate(acc[m]);
  }
  for (int k = 0; k < EARLY; ++k, held.next()) give(b.a_empty, held.stage, thread);
}

// Leaves the activations in staging. Stages come back a step late, so that the tensor cores never pause.
__device__ __forceinline__ void gate(const Params &p, const Block &b, RingA &a, RingB &in, int flow, int i, float (&acc)[MT][NT / 2], Biases &biases, Outputs &outputs, int group, int thread) {
  const int lane = thread & 31, warp = thread >> 5, blocks = i ? C / 64 : 1;
  int before_a = -1, before_b = -1;
  auto finished = [&](int stage_a, int stage_b) {  // the step before this one
    asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
    if (before_a >= 0) give(b.a_empty, before_a, thread);
    if (before_b >= 0) give(b.b_empty, before_b, thread);
    before_a = stage_a;
    before_b = stage_b;
  };
  wait(b.mel_full, 0);
  for (int k = i ? EARLY : 0; k < MEL_BLOCKS; ++k, a.next()) {  // but what ``acc`` holds of the mel
    b.filled(a);
    multiply(acc, b.at(a), group, [&](int q) { return windows(b, 4 * k + q); });
    finished(a.stage, -1);
  }
  biases.load(p, b, flow * LAYERS + i, group, thread);
  outputs.load(p, b, flow * LAYERS + i, lane);
  for (int step = 0; step < p.taps; ++step)
    for (int k = 0; k < blocks; ++k, a.next()) {
      const bool own = i > 0 && step == 0 && k / MT == b.rank;  // of the tap in the middle
      const u32 x = own ? b.own + k % MT * B_BYTES : b.at(in);
      b.filled(a);
      if (!own) b.filled(in);
      multiply(acc, b.at(a), group, [&](int q) { return operand(x + 32 * q); });
      finished(a.stage, own ? -1 : in.stage);
      if (!own) in.next();
    }
#pragma unroll
  for (int m = 0; m < MT; ++m) mma_wait_gate(acc[m]);
  give(b.a_empty, before_a, thread);
  if (before_b >= 0) give(b.b_empty, before_b, thread);
#pragma unroll
  for (int m = 0; m < MT; ++m) {
    const float tanh = biases.tanh[m], sigmoid = 0.5f * biases.sigmoid[m];
    u32 v[NT / 8];
#pragma unroll
    for (int j = 0; j < NT / 8; ++j)
      v[j] = pack(gated(acc[m][4 * j] + tanh, 0.5f * acc[m][4 * j + 2] + sigmoid),
                  gated(acc[m][4 * j + 1] + tanh, 0.5f * acc[m][4 * j + 3] + sigmoid));
    const int t = group * MT + m, channels = (t & 1) * 4 + warp;  // 32 channels each
    const u32 box = b.staging + t / 2 * B_BYTES;
    runs<NT / 8>([&](int j) { put<4>(row_of<4>(box, channels, 8 * j, lane), v + j); },
                 [&](int j) { put<2>(row_of<2>(box, channels, 8 * j, lane), v + j); },
                 [&](int j) { put<1>(row_of<1>(box, channels, 8 * j, lane), v + j); });
  }
  fence_staging();
}

// x_next = x + residual . activations, in place of the x that stands in ``own``.
struct Residual {
  int rows, first;  // of this warpgroup: its channels within the block's, its places within the tile
  u32 mask[RN / 8];
  __device__ __forceinline__ Residual(const Params &p, const Block &b, int group, int thread)
      : rows(MT == 2 ? group * 64 : 0), first(MT == 2 ? 0 : group * RN) {
#pragma unroll
    for (int j = 0; j < RN / 8; ++j) {
      const int n = b.place + first + 8 * j;
      mask[j] = n < p.N ? p.mask[n / 8] >> 2 * (thread & 3) : 0;
    }
  }
  __device__ __forceinline__ void multiply(float (&acc)[RN / 2], u32 weights, u32 inputs) const {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int q = 0; q < 4; ++q)
      mma_residual(acc, operand(weights + rows * ROW + 32 * q), operand(inputs + first * ROW + 32 * q));
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
  }
  template <bool FIRST>
  __device__ __forceinline__ void finish(const Block &b, const float (&acc)[RN / 2], const Biases &biases, int thread) const {
    const int lane = thread & 31, warp = thread >> 5;
    const u32 box = b.own + rows / 64 * B_BYTES;
    auto sum = [&](int j, int g, u32 x) {  // two places of one channel
      float x0 = 0, x1 = 0;
      if (!FIRST) unpack(x, x0, x1);
      const u32 keep = (mask[j] & 1 ? 0xFFFFu : 0) | (mask[j] & 2 ? 0xFFFF0000u : 0);
      const float bias = g ? biases.high : biases.low;
      return pack(x0 + (acc[4 * j + 2 * g] + bias), x1 + (acc[4 * j + 2 * g + 1] + bias)) & keep;
    };
#pragma unroll
    for (int g = 0; g < 2; ++g) {
      auto run = [&](auto k, int j) {
        constexpr int K = decltype(k)::value;
        const u32 at = row_of<K>(box, warp * 2 + g, first + 8 * j, lane);
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
__device__ __forceinline__ void residual(const Block &b, RingA &a, RingB &in, u32 sent, const Residual &r, const Biases &biases, Outputs &outputs, int warp, int thread) {
  float acc[RN / 2] = {};
  RingA held = a;
  const int input = in.stage;
  if (FIRST) {
    b.filled(a);
    b.filled(in);
    r.multiply(acc, b.at(a), b.at(in));
    a.next();
    in.next();
  }
#pragma unroll
  for (int k = 0; k < C / 64; ++k) {
    if (k % 2 == 0) b.filled(a);
    const bool own = k / MT == b.rank;
    if (CL == 2 && !own) wait(b.sent, sent & 1);
    r.multiply(acc, b.at(a) + k % 2 * HALF, (own ? b.staging : b.partner) + k % MT * B_BYTES);
    if (k % 2 || k == C / 64 - 1) a.next();
  }
  outputs.add<FIRST>(b, warp, thread & 31);  // while the tensor cores multiply
  mma_wait_residual(acc);
  for (int n = FIRST + (C / 64 + 1) / 2; n > 0; --n, held.next()) give(b.a_empty, held.stage, thread);
  if (FIRST) give(b.b_empty, input, thread);
  r.finish<FIRST>(b, acc, biases, thread);
}

__device__ __forceinline__ void multiply_layers(const Params &p, const Block &b, int group, int index) {
  const Residual r(p, b, group, index);
  RingA a;
  RingB in;
  Biases biases;
  Outputs outputs;
  float acc[MT][NT / 2];
  u32 sent = 0;  // how often the partner has sent its activations
  for (int f = 0; f < p.count; ++f) {
    const int flow = p.first + f, thread = afresh(index), warp = group * 4 + (thread >> 5), lane = thread & 31;
    clear(acc);
    for (int i = 0;; ++i) {
      gate(p, b, a, in, flow, i, acc, biases, outputs, group, thread);
      if (i == LAYERS - 1) break;
      named_sync(2, CONSUMERS + 32);
      early(b, a, acc, group, thread);
      if (i == 0) residual<true>(b, a, in, sent++, r, biases, outputs, warp, thread);
      else residual<false>(b, a, in, sent++, r, biases, outputs, warp, thread);
      named_sync(5, CONSUMERS);  // all have read staging, and written own
    }
    named_sync(5, CONSUMERS);
    outputs.add<false>(b, warp, lane);
    outputs.store(p, b, f, warp, lane);
    // None writes staging again before all have read it: the next flow's gate waits for what follows this.
    named_arrive(7, CONSUMERS + 96);
  }
}

extern "C" __global__ void __launch_bounds__(384, 1) flow(const __grid_constant__ Params p) {
  extern __shared__ char raw[];
  __shared__ alignas(8) u64 barriers[2 * (A_STAGES + B_STAGES) + 2];
  Block b;
  b.a = (shared(raw) + 1023) & ~1023u;
  b.b = b.a + A_STAGES * A_BYTES;
  b.staging = b.b + B_STAGES * B_BYTES;
  b.own = b.staging + MT * B_BYTES;
  b.partner = b.own + MT * B_BYTES;
  b.mel = b.partner + (CL - 1) * MT * B_BYTES;
  b.a_full = shared(barriers);
  b.a_empty = b.a_full + 8 * A_STAGES;
  b.b_full = b.a_empty + 8 * A_STAGES;
  b.b_empty = b.b_full + 8 * B_STAGES;
  b.mel_full = b.b_empty + 8 * B_STAGES;
  b.sent = b.mel_full + 8;
  b.rank = blockIdx.x % CL;
  b.tile = blockIdx.x / CL;
  b.phase = b.tile / p.across;
  b.place = b.tile % p.across * NT;
  if (threadIdx.x >= 352 && threadIdx.x < 360)
    asm volatile("prefetch.tensormap [%0];" ::"l"(&p.gate0 + (threadIdx.x - 352)));
  if (threadIdx.x / 32 == 8) {  // the warp of the weights begins at once
    if (threadIdx.x == 256) {
      for (int s = 0; s < A_STAGES; ++s) {
        barrier_init(b.a_full + 8 * s, 1);
        barrier_init(b.a_empty + 8 * s, 2);
      }
      asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async;" ::: "memory");
    }
    __syncwarp();
    named_arrive(6, 384);
  } else {
    if (threadIdx.x == 0) {
      for (int s = 0; s < B_STAGES; ++s) {
        barrier_init(b.b_full + 8 * s, 1);
        barrier_init(b.b_empty + 8 * s, 2);
      }
      barrier_init(b.mel_full, 1);
      barrier_init(b.sent, 1);
      asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async;" ::: "memory");
    }
    named_sync(6, 384);
  }
  if (CL == 2) asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
  const int group = threadIdx.x / 128, thread = threadIdx.x % 128;
  if (group == 2) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(NT == 192 ? 72 : 88));
    if (thread == 0) load_weights(p, b);
    else if (thread >= 32) move(p, b, thread / 32 - 1, thread % 32);
    __syncwarp();
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(NT == 192 ? 216 : 208));
    multiply_layers(p, b, group, thread);
  }
  if (CL == 2) {  // nobody ends while what it sent is on its way
    if (threadIdx.x / 32 != 10) asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
    cluster_sync();
  } else {
    __syncthreads();
  }
  if (threadIdx.x == 0) asm volatile("red.relaxed.gpu.global.add.u64 [%0], 1;" ::"l"(p.done) : "memory");
}
