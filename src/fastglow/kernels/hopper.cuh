// What sm_90a offers, by its instructions: barriers, the tensor copy engine, wgmma operands, the
// movement of 8 x 8 matrices; and the order of the taps. hopper.py and hopper_flow.py put this before their own.

typedef unsigned int u32;
typedef unsigned long long u64;

struct alignas(64) TensorMap { char bytes[128]; };

constexpr int ROW = 128;  // bytes of 64 halves: one swizzled row

__device__ __forceinline__ u32 shared(const void *p) { return (u32)__cvta_generic_to_shared(p); }

__device__ __forceinline__ void barrier_init(u32 bar, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count));
}
__device__ __forceinline__ void expect(u32 bar, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory");
}
__device__ __forceinline__ void wait(u32 bar, u32 parity) {
  asm volatile(
      "{\n.reg .pred p;\nwait_%=:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
      "@!p bra wait_%=;\n}" ::"r"(bar), "r"(parity) : "memory");
}
// That block's barrier. No release at the scope of the cluster: it would be a fence of the whole
// GPU, a quarter of a layer's time. Stages that are given back were read by the tensor cores or before
// a barrier of the block; activations that lie in the L2 cache have a fence of their own before.
__device__ __forceinline__ void arrive_at(u32 bar, u32 block, u32 count = 1) {
  asm volatile(
      "{\n.reg .b32 remote;\nmapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote], %2;\n}"
      ::"r"(bar), "r"(block), "r"(count) : "memory");
}
// Not bar.sync and bar.arrive, which promise that all come to them at one instruction.
__device__ __forceinline__ void named_sync(int id, int count) {
  asm volatile("barrier.sync %0, %1;" ::"r"(id), "r"(count) : "memory");
}
__device__ __forceinline__ void named_arrive(int id, int count) {
  asm volatile("barrier.arrive %0, %1;" ::"r"(id), "r"(count) : "memory");
}
__device__ __forceinline__ void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
__device__ __forceinline__ u32 cluster_rank() {
  u32 r;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
  return r;
}

// A piece of this block's shared memory to that of another block, whose barrier is told.
__device__ __forceinline__ void send(u32 to, u32 from, int bytes, u32 bar, u32 block) {
  asm volatile(
      "{\n.reg .b32 there, told;\nmapa.shared::cluster.u32 there, %0, %4;\nmapa.shared::cluster.u32 told, %3, %4;\n"
      "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [there], [%1], %2, [told];\n}"
      ::"r"(to), "r"(from), "r"(bytes), "r"(bar), "r"(block) : "memory");
}
__device__ __forceinline__ void load2(u32 to, const TensorMap *map, int c, int r, u32 bar) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];"
      ::"r"(to), "l"(map), "r"(bar), "r"(c), "r"(r) : "memory");
}
__device__ __forceinline__ void load3(u32 to, const TensorMap *map, int c, int n, int p, u32 bar) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];"
      ::"r"(to), "l"(map), "r"(bar), "r"(c), "r"(n), "r"(p) : "memory");
}
// To several blocks of the cluster at the same address, each block's own barrier told.
__device__ __forceinline__ void share2(u32 to, const TensorMap *map, int c, int r, u32 bar, u32 blocks) {
  if (CL == 1) return load2(to, map, c, r, bar);
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster"
      " [%0], [%1, {%3, %4}], [%2], %5;"
      ::"r"(to), "l"(map), "r"(bar), "r"(c), "r"(r), "h"((unsigned short)blocks) : "memory");
}
__device__ __forceinline__ void share3(u32 to, const TensorMap *map, int c, int n, int p, u32 bar, u32 blocks) {
  if (CL == 1) return load3(to, map, c, n, p, bar);
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster"
      " [%0], [%1, {%3, %4, %5}], [%2], %6;"
      ::"r"(to), "l"(map), "r"(bar), "r"(c), "r"(n), "r"(p), "h"((unsigned short)blocks) : "memory");
}
__device__ __forceinline__ void store2(u32 from, const TensorMap *map, int c, int r) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%1, {%2, %3}], [%0];"
               ::"r"(from), "l"(map), "r"(c), "r"(r) : "memory");
}
__device__ __forceinline__ void store3(u32 from, const TensorMap *map, int c, int n, int p) {
  asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%1, {%2, %3, %4}], [%0];"
               ::"r"(from), "l"(map), "r"(c), "r"(n), "r"(p) : "memory");
}

// In the order of the products: the tap in the middle first, which a block may have before the others.
__device__ __forceinline__ int tap_at(int step, int taps) {
  return step == 0 ? taps / 2 : step - (step <= taps / 2);
}

// K-major operand, rows of 128 bytes in the 128-byte swizzle, 8 rows a kilobyte.
__device__ __forceinline__ u64 operand(u32 address) {
  return (u64)((address & 0x3FFFF) >> 4) | (u64)1 << 16 | (u64)64 << 32 | (u64)1 << 62;
}
__device__ __forceinline__ u32 pack(float low, float high) {
  u32 r;
  if (BF16) asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  else asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}
__device__ __forceinline__ float tanh_fast(float x) {
  float y;
  asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float gated(float a, float half_b) {  // tanh(a) * sigmoid(b)
  return tanh_fast(a) * (0.5f * tanh_fast(half_b) + 0.5f);
}

// 8 channels x 8 K places, a matrix a register, to and from rows of places: transposed on the way.
template <int K>
__device__ __forceinline__ void put(u32 at, const u32 *v) {
  if (K == 4) asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};"
                           ::"r"(at), "r"(v[0]), "r"(v[1]), "r"(v[2]), "r"(v[3]) : "memory");
  else if (K == 2) asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};"
                                ::"r"(at), "r"(v[0]), "r"(v[1]) : "memory");
  else asm volatile("stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%0], {%1};" ::"r"(at), "r"(v[0]) : "memory");
}
template <int K>
__device__ __forceinline__ void get(u32 at, u32 *v) {
  if (K == 4) asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                           : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3]) : "r"(at) : "memory");
  else if (K == 2) asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                                : "=r"(v[0]), "=r"(v[1]) : "r"(at) : "memory");
  else asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(v[0]) : "r"(at) : "memory");
}
// Where a lane's row of K matrices stands: place in the box, group of 8 channels within its 64.
template <int K>
__device__ __forceinline__ u32 row_of(u32 box, int group, int place, int lane) {
  const int row = place + lane % (8 * K);
  return box + row * ROW + ((group ^ (row & 7)) << 4);
}
template <int K> struct Count { static constexpr int value = K; };
// f<K>(j) for all M matrices in runs of K = 4, 2, 1.
template <int M, typename F4, typename F2, typename F1>
__device__ __forceinline__ void runs(F4 four, F2 two, F1 one) {
#pragma unroll
  for (int j = 0; j + 4 <= M; j += 4) four(j);
  if (M & 2) two(M & ~3);
  if (M & 1) one(M - 1);
}
__device__ __forceinline__ void unpack(u32 v, float &low, float &high) {
  if (BF16) {
    low = __uint_as_float(v << 16);
    high = __uint_as_float(v & 0xFFFF0000u);
  } else {
    asm("{\n.reg .b16 a, b;\nmov.b32 {a, b}, %2;\ncvt.f32.f16 %0, a;\ncvt.f32.f16 %1, b;\n}"
        : "=f"(low), "=f"(high) : "r"(v));
  }
}
