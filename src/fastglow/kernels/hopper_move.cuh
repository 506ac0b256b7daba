// What a launch is told, who knows what, and the two warps that move data: one loads every operand
// into a ring of stages in shared memory, one stores what the products leave in a stage.

struct alignas(64) Params {
  TensorMap gate;      // [2C, taps * X]        box 64 x 128 MT
  TensorMap cond;      // [phases * 2C, K]      box 64 x 128 MT
  TensorMap residual;  // [C, C]                box 64 x 64 MT
  TensorMap start;     // [C, X], layer 0 only   box 64 x 64 MT
  TensorMap x_slice;   // [P, N, X]             box 64 x NT / CL
  TensorMap x_tile;    // the same              box 64 x NT
  TensorMap mel;       // [P or 1, N, K]        box 64 x NT / CL
  TensorMap acts_slice;  // [slots * NT, C]     box 64 x NT / CL
  TensorMap acts_tile;   // the same            box 64 x NT
  TensorMap x_next;    // [P, N, C]             box 64 x NT
  const float *gate_bias, *residual_bias;
  const unsigned char *mask;  // a bit a place
  const u32 *output;   // [8, C] pairs
  float *out;          // [CL, P, 8, N]
  int N, P, blocks, taps, x_blocks, mel_blocks, dilation, cond_rows, mel_phases, first, last;
};

constexpr int A_BYTES = 128 * MT * ROW;          // gate rows of this block
constexpr int B_BYTES = NT * ROW;
constexpr int STAGE = A_BYTES + B_BYTES;
constexpr int SLICE = NT / CL;
constexpr int CH = 64 * MT;                      // channels of this block
constexpr int RN = MT == 2 ? NT : NT / 2;        // places a warpgroup has in the residual product
constexpr int SLOTS = 4;                         // why 4: see hopper.py
constexpr int CONSUMERS = 256;
constexpr bool ONE_TILE = CL <= 2 && CL + MT + 1 <= STAGES;  // room for the plan of residual_of_one

struct Ring {
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

struct Tile {
  int phase, place;
  __device__ __forceinline__ Tile(const Params &p, int t) : phase(t / p.blocks), place(t % p.blocks * NT) {}
};

struct Block {  // what every role knows
  u32 ring, full, empty, exchanged;
  int rank, cluster, clusters, tiles;  // rank among the blocks of the cluster
  __device__ __forceinline__ u32 at(int stage) const { return ring + stage * STAGE; }
  __device__ __forceinline__ Tile tile(const Params &p, int i) const { return Tile(p, cluster + i * clusters); }
  __device__ __forceinline__ int slot(int i) const { return (cluster * SLOTS + i % SLOTS) * NT; }
};
constexpr u32 ALL = (1 << CL) - 1;  // blocks of a cluster

__device__ __forceinline__ u32 take(const Block &b, Ring &ring, int bytes) {
  const u32 bar = b.full + 8 * ring.stage;
  wait(b.empty + 8 * ring.stage, ring.parity ^ 1);
  expect(bar, bytes);
  return bar;
}

struct Tap {  // of step k of the taps
  int index, block;  // of 64 columns of the gate's matrix
  __device__ __forceinline__ Tap(const Params &p, int k) {
    const int step = k / p.x_blocks;
    index = tap_at(step, p.taps);
    block = k + (index - step) * p.x_blocks;
  }
};

// Block k of the gate's weights: the mel's, which wait for no other layer, then the taps'.
__device__ __forceinline__ void load_weights(const Params &p, const Block &b, const Tile &tile, int k, int stage) {
  const u32 bar = b.full + 8 * stage, to = b.at(stage);
  const int rows = b.rank * 128 * MT;
  if (k < p.mel_blocks) load2(to, &p.cond, k * 64, tile.phase * p.cond_rows + rows, bar);
  else load2(to, &p.gate, Tap(p, k - p.mel_blocks).block * 64, rows, bar);
}

// What they multiply: a dilated tap is another phase of the tile, or the same one some places off.
__device__ __forceinline__ void load_inputs(const Params &p, const Block &b, const Tile &tile, int k, int stage) {
  const int part = b.rank * SLICE;
  const u32 bar = b.full + 8 * stage, to = b.at(stage) + A_BYTES + part * ROW;
  if (k < p.mel_blocks) {
    share3(to, &p.mel, k * 64, tile.place + part, tile.phase * p.mel_phases, bar, ALL);
  } else {
    const Tap tap(p, k - p.mel_blocks);
    const int at = tile.phase + (tap.index - p.taps / 2) * p.dilation;
    const int shift = at >= 0 ? at / p.P : -((p.P - 1 - at) / p.P);
    share3(to, &p.x_slice, (tap.block - tap.index * p.x_blocks) * 64, tile.place + shift + part, at - shift * p.P, bar, ALL);
  }
}

__device__ __forceinline__ void load_steps(const Params &p, const Block &b, const Tile &tile, Ring &ring, int k, int end) {
  for (; k < end; ++k, ring.next()) {
    take(b, ring, STAGE);
    load_weights(p, b, tile, k, ring.stage);
    load_inputs(p, b, tile, k, ring.stage);
  }
}

__device__ void load_gate(const Params &p, const Block &b, Ring &ring, int i) {
  const Tile tile = b.tile(p, i);
  const int taps = p.taps * p.x_blocks, blocks = p.mel_blocks + taps;
  if (i > 0) return load_steps(p, b, tile, ring, 0, blocks);
  // The mel and the first weights of the taps come while the kernel before this one ends.
  load_steps(p, b, tile, ring, 0, p.mel_blocks);
  // One stage less than there are: a stage comes back when the step after it has begun.
  const int early = p.mel_blocks + (taps < STAGES ? taps : STAGES - 1);
  Ring ahead = ring;
  for (int k = p.mel_blocks; k < early; ++k, ahead.next()) {
    take(b, ahead, STAGE);
    load_weights(p, b, tile, k, ahead.stage);
  }
  asm volatile("griddepcontrol.wait;" ::: "memory");
  for (int k = p.mel_blocks; k < early; ++k, ring.next()) load_inputs(p, b, tile, k, ring.stage);
  load_steps(p, b, tile, ring, early, blocks);
}

__device__ void load_residual(const Params &p, const Block &b, Ring &ring, int i) {
  const Tile tile = b.tile(p, i);
  const int part = b.rank * SLICE, carried = p.first ? p.x_blocks : 0;
  for (int k = 0; k < carried; ++k, ring.next()) {
    const u32 bar = take(b, ring, A_BYTES / 2 + B_BYTES), to = b.at(ring.stage);
    load2(to, &p.start, k * 64, b.rank * CH, bar);
    load3(to + A_BYTES, &p.x_tile, k * 64, tile.place, tile.phase, bar);
  }
  wait(b.exchanged, i & 1);
  asm volatile("fence.proxy.async;" ::: "memory");
  for (int k = 0; k < C / 64; ++k, ring.next()) {
    const u32 bar = take(b, ring, A_BYTES / 2 + B_BYTES), to = b.at(ring.stage);
    load2(to, &p.residual, k * 64, b.rank * CH, bar);
    share2(to + A_BYTES + part * ROW, &p.acts_slice, k * 64, b.slot(i) + part, bar, ALL);
  }
}

// The ring of a block with one tile, after the gate's steps: its own activations; its partner's;
// MT stages of CL blocks of the residual's weights and 64 channels of x each; layer 0's input.
__device__ void load_residual_of_one(const Params &p, const Block &b, Ring &ring) {
  const Tile tile = b.tile(p, 0);
  if (CL == 2) {
    take(b, ring, MT * B_BYTES);
    ring.next();
  }
  for (int m = 0; m < MT; ++m, ring.next()) {
    const u32 bar = take(b, ring, CL * A_BYTES / 2 + (p.first ? 0 : B_BYTES)), to = b.at(ring.stage);
    for (int j = 0; j < CL; ++j) load2(to + j * A_BYTES / 2, &p.residual, (m * CL + j) * 64, b.rank * CH, bar);
    if (!p.first) load3(to + A_BYTES, &p.x_tile, b.rank * CH + 64 * m, tile.place, tile.phase, bar);
  }
  if (p.first) {
    const u32 bar = take(b, ring, A_BYTES / 2 + B_BYTES), to = b.at(ring.stage);
    load2(to, &p.start, 0, b.rank * CH, bar);
    load3(to + A_BYTES, &p.x_tile, 0, tile.place, tile.phase, bar);
  }
}

// What the products leave goes out through the ring too: a free stage for the warps of the
// products to fill; for the residual it already holds the x that they add to.
__device__ void lend(const Params &p, const Block &b, Ring &ring, int x_of_tile) {
  const bool holds_x = x_of_tile >= 0 && !p.first;
  const u32 bar = take(b, ring, holds_x ? MT * B_BYTES : 0);
  if (holds_x) {
    const Tile tile = b.tile(p, x_of_tile);
    for (int m = 0; m < MT; ++m)
      load3(b.at(ring.stage) + m * B_BYTES, &p.x_tile, b.rank * CH + 64 * m, tile.place, tile.phase, bar);
  }
  ring.next();
}

__device__ void produce(const Params &p, const Block &b, bool one) {
  Ring ring;
  for (int i = 0; i <= b.tiles; ++i) {
    if (i < b.tiles) {
      load_gate(p, b, ring, i);
      lend(p, b, ring, -1);
    }
    if (ONE_TILE && one) {
      if (!p.last) load_residual_of_one(p, b, ring);
      return;
    }
    if (i > 0 && !p.last) {
      load_residual(p, b, ring, i - 1);
      lend(p, b, ring, i - 1);
    }
  }
}

__device__ __forceinline__ void give_back(const Block &b, int stage, int thread, u32 count) {
  if (thread < CL) arrive_at(b.empty + 8 * stage, thread, count);
}

// Moves finished tiles to memory, so that no warp of the products waits for it.
__device__ void store_tiles(const Params &p, const Block &b, int lane) {
  const int gate_steps = p.taps * p.x_blocks + p.mel_blocks, residual_steps = (p.first ? p.x_blocks : 0) + C / 64;
  Ring ring;
  for (int i = 0; i <= b.tiles; ++i) {
    if (i < b.tiles) {
      ring.skip(gate_steps);
      named_sync(2, CONSUMERS + 32);
      if (lane == 0 && !p.last) {
        for (int m = 0; m < MT; ++m) store2(b.at(ring.stage) + m * B_BYTES, &p.acts_tile, b.rank * CH + 64 * m, b.slot(i));
        asm volatile("cp.async.bulk.commit_group;\ncp.async.bulk.wait_group.read 0;" ::: "memory");
      }
      named_sync(3, CONSUMERS + 32);  // the output rows have been taken from it too
      give_back(b, ring.stage, lane, 2);
      if (lane == 0 && !p.last) {
        asm volatile("cp.async.bulk.wait_group 0;\nfence.proxy.async;\nfence.acq_rel.gpu;" ::: "memory");
        for (u32 c = 0; c < CL; ++c) arrive_at(b.exchanged, c);
      }
      __syncwarp();
      ring.next();
    }
    if (i > 0 && !p.last) {
      ring.skip(residual_steps);
      named_sync(4, CONSUMERS + 32);
      if (lane == 0) {
        const Tile tile = b.tile(p, i - 1);
        for (int m = 0; m < MT; ++m) store3(b.at(ring.stage) + m * B_BYTES, &p.x_next, b.rank * CH + 64 * m, tile.place, tile.phase);
        asm volatile("cp.async.bulk.commit_group;\ncp.async.bulk.wait_group.read 0;" ::: "memory");
      }
      __syncwarp();
      give_back(b, ring.stage, lane, 2);
      ring.next();
    }
  }
  asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

// The same for a block with one tile: the partner gets the activations directly, and x_next leaves
// the stages that x came into.
__device__ void store_tile_of_one(const Params &p, const Block &b, int lane) {
  Ring ring;
  ring.skip(p.taps * p.x_blocks + p.mel_blocks);
  const u32 staging = b.at(ring.stage);
  ring.next();
  named_sync(2, CONSUMERS + 32);
  if (CL == 2) {
    if (lane == 0 && !p.last) {  // both blocks have read what was there: each tells both
      wait(b.empty + 8 * ring.stage, ring.parity ^ 1);
      send(b.at(ring.stage), staging, MT * B_BYTES, b.full + 8 * ring.stage, b.rank ^ 1);
    }
    __syncwarp();
    ring.next();
  }
  named_sync(3, CONSUMERS + 32);
  if (p.last) return;
  named_sync(4, CONSUMERS + 32);
  if (lane == 0) {
    const Tile tile = b.tile(p, 0);
    for (int m = 0; m < MT; ++m, ring.next())
      store3(b.at(ring.stage) + A_BYTES, &p.x_next, b.rank * CH + 64 * m, tile.place, tile.phase);
    asm volatile("cp.async.bulk.commit_group;\ncp.async.bulk.wait_group 0;" ::: "memory");
  }
}
