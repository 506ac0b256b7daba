// The three warps of hopper_flow.cu that move data, one by the layers of a flow what is multiplied, one what was. Between
// flows all three couple.

// Layer 0's input of the launch's first flow, and what the other layers read.
__device__ __forceinline__ void load_layers(const Params &p, const Block &b, int f, u32 count, int lane) {
  RingB ring = start_of(p, f);
  auto load = [&](const TensorMap &map, const Tap &from, int plane, int blocks) {
    for (int k = 0; k < blocks; ++k, ring.next()) {
      const u32 bar = b.take(ring);
      load3(b.at(ring), &map, 64 * k, b.place + from.shift, plane, bar);
    }
  };
  if (f > 0) {
    ring.skip(p.taps + 1);
  } else if (lane == 0) {
    expect(b.mel_full, MEL_BYTES);
    load3(b.mel, &p.mel, 0, b.place, 0, b.mel_full);
    for (int step = 0; step < p.taps + 1; ++step) {
      const Tap from(p, b, 0, tap_at(step % p.taps, p.taps));  // the one in the middle again for ``start``
      load(p.given, from, from.phase, 1);
    }
  }
  __syncwarp();
  for (int i = 1; i < LAYERS; ++i) {
    if (lane == 0)
      for (int k = 0; k < OTHERS; ++k, ring.next()) b.take(ring);  // the partner fills them
    await_taps(p, b, i, count + CL * i, lane);
    if (lane == 0)
      for (int step = 1; step < p.taps; ++step) {
        const Tap from(p, b, i, tap_at(step, p.taps));
        load(p.x, from, plane_of(p, f, i, from.phase), C / 64);
      }
    __syncwarp();
  }
}

// Gives the partner this block's activations and x, and the other tiles its x.
__device__ __forceinline__ void store_layers(const Params &p, const Block &b, int f, u32 count, int lane) {
  RingB theirs = start_of(p, f);  // the partner's, by the stage where its next layer begins
  for (int i = 0; i < LAYERS - 1; ++i) {
    if (CL == 2 && lane == 0) expect(b.sent, MT * B_BYTES);
    named_sync(2, CONSUMERS + 32);
    // The partner reads them before it gives its x, for which this block waits before the next layer's.
    if (CL == 2 && lane == 0) send(b.partner, b.staging, MT * B_BYTES, b.sent, b.rank ^ 1);
    theirs.skip(i ? OTHERS + (p.taps - 1) * (C / 64) : p.taps + 1);
    named_sync(4, CONSUMERS + 32);
    if (lane == 0) {
      const int plane = plane_of(p, f, i + 1, b.phase);
      for (int m = 0; m < MT; ++m) store3(b.own + m * B_BYTES, &p.x, b.rank * CH + 64 * m, b.place, plane);
      asm volatile("cp.async.bulk.commit_group;" ::: "memory");
      // Those stages are empty: it gave its activations after the last product of its gate.
      RingB to = theirs;
      for (int m = 0; m < OTHERS; ++m, to.next())
        send(b.at(to), b.own + m * B_BYTES, B_BYTES, b.b_full + 8 * to.stage, b.rank ^ 1);
      asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
      signal(p.flags + b.tile);
    }
    __syncwarp();
  }
  // Else this block's signal of out could pass for the partner's of its last x.
  if (CL == 2 && lane == 0) await(p.flags + b.tile, count + CL * (LAYERS - 1));
  __syncwarp();
}

__device__ __forceinline__ void move(const Params &p, const Block &b, int warp, int lane) {
  if (CL == 2 && warp == 1) asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
  const u32 before = flags_before(p);
  for (int f = 0; f < p.count; ++f) {
    const u32 count = before + f * SIGNALS;
    if (warp == 0) load_layers(p, b, f, count, lane);
    if (warp == 1) store_layers(p, b, f, count, lane);
    if (f < p.count - 1) couple(p, b, f, warp, count, lane);
    else flow_ended(p, b, warp, lane);
  }
}
