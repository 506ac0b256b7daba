// One WN layer of an inverse flow in one launch, for sm_90a: dilated taps and mel window (gate),
// tanh * sigmoid, the residual product and the output rows. hopper.py holds the note on the design
// and puts the defines and mma_gate / mma_residual (wgmma of the tile's width) before this text.
//
// Defines: C channels, CL blocks of a cluster share a tile's channels, MT 64-row tiles of the gate a
// warpgroup, NT places a tile, STAGES of the ring, BF16.

// The output rows of this block's channels, from staging, added to this block's partial sums.
struct Outputs {  // the weights, as the product wants them
  static constexpr int STEPS = CH / 16;
  u32 o[STEPS][2];
  __device__ __forceinline__ Outputs(const Params &p, const Block &b, int lane) {
#pragma unroll
    for (int k = 0; k < STEPS; ++k) {
      const u32 *row = p.output + ((lane >> 2) * C + b.rank * CH + 16 * k) / 2 + (lane & 3);
      o[k][0] = row[0];
      o[k][1] = row[4];
    }
  }
};
__device__ __forceinline__ void add_outputs(const Params &p, const Block &b, const Tile &tile, const Outputs &w, u32 staging, int warp, int lane) {
  constexpr int STEPS = Outputs::STEPS;
  float *out = p.out + ((b.rank * p.P + tile.phase) * 8 + (lane >> 2)) * (u64)p.N;
  for (int j = warp; j < NT / 8; j += 8) {
    float d0 = 0, d1 = 0, d2 = 0, d3 = 0;
#pragma unroll
    for (int k = 0; k < STEPS; k += 2) {
      const int row = 8 * j + (lane & 7), chunk = (2 * k & 7) + (lane >> 3);
      const u32 at = staging + (k / 4) * B_BYTES + row * ROW + ((chunk ^ (row & 7)) << 4);
      u32 v[4];
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3]) : "r"(at) : "memory");
#pragma unroll
      for (int h = 0; h < 2; ++h)
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." KIND "." KIND ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %5}, {%7, %8}, {%0, %1, %2, %3};"
                     : "+f"(d0), "+f"(d1), "+f"(d2), "+f"(d3)
                     : "r"(w.o[k + h][0]), "r"(0), "r"(w.o[k + h][1]), "r"(v[2 * h]), "r"(v[2 * h + 1]));
    }
    const int n = tile.place + 8 * j + 2 * (lane & 3);
    if (n >= p.N) continue;  // N is even
    if (p.first) asm volatile("st.global.v2.f32 [%0], {%1, %2};" ::"l"(out + n), "f"(d0), "f"(d1) : "memory");
    else asm volatile("red.global.add.v2.f32 [%0], {%1, %2};" ::"l"(out + n), "f"(d0), "f"(d1) : "memory");
  }
}

__device__ __forceinline__ void fence_staging() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Leaves the activations in a stage, whose address it returns. Stages come back a step late, so that
// the tensor cores never pause.
__device__ __forceinline__ u32 gate(const Params &p, const Block &b, Ring &ring, int i, int group, int thread) {
  const int lane = thread & 31, warp = thread >> 5, steps = p.taps * p.x_blocks + p.mel_blocks;
  float acc[MT][NT / 2] = {}, bias_a[MT], bias_b[MT];
#pragma unroll
  for (int m = 0; m < MT; ++m) {
    const float *bias = p.gate_bias + b.rank * 128 * MT + (group * MT + m) * 64 + warp * 16 + (lane >> 2);
    bias_a[m] = bias[0];
    bias_b[m] = 0.5f * bias[8];
  }
  const Outputs outputs(p, b, lane);  // here, so that nothing waits for them after the products
  int before = -1;
  for (int k = 0; k < steps; ++k, ring.next()) {
    wait(b.full + 8 * ring.stage, ring.parity);
    const u32 at = b.at(ring.stage);
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int m = 0; m < MT; ++m)
#pragma unroll
      for (int q = 0; q < 4; ++q)
        mma_gate(acc[m], operand(at + (group * MT + m) * 64 * ROW + 32 * q), operand(at + A_BYTES + 32 * q));
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
    if (before >= 0) give_back(b, before, thread, 1);
    before = ring.stage;
  }
#pragma unroll
  for (int m = 0; m < MT; ++m) mma_wait_gate(acc[m]);
  give_back(b, before, thread, 1);

  u32 v[MT][NT / 8];
#pragma unroll
  for (int m = 0; m < MT; ++m) {
    const float a = bias_a[m], s = bias_b[m];
#pragma unroll
    for (int j = 0; j < NT / 8; ++j)
      v[m][j] = pack(gated(acc[m][4 * j] + a, 0.5f * acc[m][4 * j + 2] + s),
                     gated(acc[m][4 * j + 1] + a, 0.5f * acc[m][4 * j + 3] + s));
  }
  const u32 staging = b.at(ring.stage);
  wait(b.full + 8 * ring.stage, ring.parity);
#pragma unroll
  for (int m = 0; m < MT; ++m) {
    const int t = group * MT + m;  // 32 channels each
    const u32 box = staging + (t / 2) * B_BYTES;
    const int channels = (t & 1) * 4 + warp;
    runs<NT / 8>([&](int j) { put<4>(row_of<4>(box, channels, 8 * j, lane), v[m] + j); },
                 [&](int j) { put<2>(row_of<2>(box, channels, 8 * j, lane), v[m] + j); },
                 [&](int j) { put<1>(row_of<1>(box, channels, 8 * j, lane), v[m] + j); });
  }
  fence_staging();
  named_sync(2, CONSUMERS + 32);
  add_outputs(p, b, b.tile(p, i), outputs, staging, group * 4 + warp, lane);
  named_arrive(3, CONSUMERS + 32);
  ring.next();
  return staging;
}

// What the residual adds to its products, and where they stand.
struct Residual {
  int rows, first;  // of this warpgroup: its channels within the block's, its places within the tile
  float low, high;  // bias
  u32 mask[RN / 8];
  __device__ __forceinline__ Residual(const Params &p, const Block &b, const Tile &tile, int group, int thread)
      : rows(MT == 2 ? group * 64 : 0), first(MT == 2 ? 0 : group * RN) {
    const int lane = thread & 31;
    const float *bias = p.residual_bias + b.rank * CH + rows + (thread >> 5) * 16 + (lane >> 2);
    low = bias[0];
    high = bias[8];
#pragma unroll
    for (int j = 0; j < RN / 8; ++j) {
      const int n = tile.place + first + 8 * j;
      mask[j] = n < p.N ? p.mask[n / 8] >> 2 * (lane & 3) : 0;
    }
  }
  __device__ __forceinline__ void multiply(float (&acc)[RN / 2], u32 weights, u32 inputs) const {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int q = 0; q < 4; ++q)
      mma_residual(acc, operand(weights + rows * ROW + 32 * q), operand(inputs + first * ROW + 32 * q));
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
  }
  // x_next in place of the x that stands in ``box``, or of nothing.
  __device__ __forceinline__ void finish(const Params &p, const float (&acc)[RN / 2], u32 box, int thread) const {
    const int lane = thread & 31, warp = thread >> 5;
    auto sum = [&](int j, int g, u32 x) {  // two places of one channel
      float x0 = 0, x1 = 0;
      if (!p.first) unpack(x, x0, x1);
      const u32 keep = (mask[j] & 1 ? 0xFFFFu : 0) | (mask[j] & 2 ? 0xFFFF0000u : 0);
      const float bias = g ? high : low;
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

__device__ __forceinline__ void residual(const Params &p, const Block &b, Ring &ring, int i, int group, int thread) {
  const int steps = (p.first ? p.x_blocks : 0) + C / 64;
  const Residual r(p, b, b.tile(p, i), group, thread);
  float acc[RN / 2] = {};
  int before = -1;
  for (int k = 0; k < steps; ++k, ring.next()) {
    wait(b.full + 8 * ring.stage, ring.parity);
    r.multiply(acc, b.at(ring.stage), b.at(ring.stage) + A_BYTES);
    asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
    if (before >= 0) give_back(b, before, thread, 1);
    before = ring.stage;
  }
  mma_wait_residual(acc);
  give_back(b, before, thread, 1);
  wait(b.full + 8 * ring.stage, ring.parity);
  r.finish(p, acc, b.at(ring.stage) + (r.rows / 64) * B_BYTES, thread);
  ring.next();
}

// For the only tile of a block: load_residual_of_one has the plan of the ring.
__device__ __forceinline__ void residual_of_one(const Params &p, const Block &b, Ring ring, u32 staging, int group, int thread) {
  const Residual r(p, b, b.tile(p, 0), group, thread);
  float acc[RN / 2] = {};
  const Ring sent = ring;
  if (CL == 2) ring.next();
  const Ring weights = ring;
  if (p.first) {
    for (int m = 0; m < MT; ++m) ring.next();
    wait(b.full + 8 * ring.stage, ring.parity);
    r.multiply(acc, b.at(ring.stage), b.at(ring.stage) + A_BYTES);
  }
  ring = weights;
#pragma unroll
  for (int k = 0; k < C / 64; ++k) {
    if (k % CL == 0) {
      if (k) ring.next();
      wait(b.full + 8 * ring.stage, ring.parity);
    }
    const bool own = k / MT == b.rank;
    if (!own && k % MT == 0) wait(b.full + 8 * sent.stage, sent.parity);
    const u32 inputs = (own ? staging : b.at(sent.stage)) + k % MT * B_BYTES;
    r.multiply(acc, b.at(ring.stage) + k % CL * A_BYTES / 2, inputs);
  }
  mma_wait_residual(acc);
  ring = weights;
  if (r.rows) ring.next();
  r.finish(p, acc, b.at(ring.stage) + A_BYTES, thread);
}

extern "C" __global__ void __launch_bounds__(384, 1) layer(const __grid_constant__ Params p) {
  extern __shared__ char raw[];
  __shared__ alignas(8) u64 barriers[2 * STAGES + 1];
  const int total = p.P * p.blocks;
  Block b;
  b.ring = (shared(raw) + 1023) & ~1023u;
  b.full = shared(barriers);
  b.empty = b.full + 8 * STAGES;
  b.exchanged = b.empty + 8 * STAGES;
  b.rank = CL == 1 ? 0 : cluster_rank();
  b.cluster = blockIdx.x / CL;
  b.clusters = gridDim.x / CL;
  b.tiles = (total - b.cluster + b.clusters - 1) / b.clusters;
  const bool one = ONE_TILE && total <= b.clusters;

  asm volatile("griddepcontrol.launch_dependents;");
  if (threadIdx.x >= 352 && threadIdx.x < 362)
    asm volatile("prefetch.tensormap [%0];" ::"l"(&p.gate + (threadIdx.x - 352)) : "memory");
  if (threadIdx.x == 0) {
    for (int s = 0; s < STAGES; ++s) {
      barrier_init(b.full + 8 * s, 1);
      barrier_init(b.empty + 8 * s, 2 * CL);
    }
    barrier_init(b.exchanged, CL);
    asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async;" ::: "memory");
  }
  __syncthreads();
  cluster_sync();

  const int group = threadIdx.x / 128, thread = threadIdx.x % 128;
  if (group == 2) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    if (thread == 0) produce(p, b, one);
    else if (thread >= 32 && thread < 64) {
      if (ONE_TILE && one) store_tile_of_one(p, b, thread - 32);
      else store_tiles(p, b, thread - 32);
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    Ring ring;
    if (ONE_TILE && one) {
      const u32 staging = gate(p, b, ring, 0, group, thread);
      if (!p.last) residual_of_one(p, b, ring, staging, group, thread);
    } else {
      for (int i = 0; i <= b.tiles; ++i) {
        if (i < b.tiles) gate(p, b, ring, i, group, thread);
        if (i > 0 && !p.last) residual(p, b, ring, i - 1, group, thread);
      }
    }
  }
  __syncwarp();
  cluster_sync();  // no block leaves while another may still write into it or signal it
}
