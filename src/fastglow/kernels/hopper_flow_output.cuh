// The output rows of a flow's WN in hopper_flow.cu, which are summed over its layers.

// The output rows of this block's channels; the sums over the layers stay in registers.
struct Outputs {
  static constexpr int STEPS = CH / 16, MINE = (NT / 8 + 7) / 8;
  u32 o[STEPS][2];
  float sums[MINE][2];
  __device__ __forceinline__ void load(const Params &p, const Block &b, int layer, int lane) {
#pragma unroll
    for (int k = 0; k < STEPS; ++k) {
      const u32 *row = p.output + ((layer * 8 + (lane >> 2)) * C + b.rank * CH + 16 * k) / 2 + (lane & 3);
      o[k][0] = row[0];
      o[k][1] = row[4];
    }
  }
  template <bool FIRST>
  __device__ __forceinline__ void add(const Block &b, int warp, int lane) {
#pragma unroll
    for (int m = 0; m < MINE; ++m) {
      const int j = m * 8 + warp;
      if (j >= NT / 8) continue;
      float d0 = 0, d1 = 0, d2 = 0, d3 = 0;
#pragma unroll
      for (int k = 0; k < STEPS; k += 2) {
        const int row = 8 * j + (lane & 7), chunk = (2 * k & 7) + (lane >> 3);
        const u32 at = b.staging + (k / 4) * B_BYTES + row * ROW + ((chunk ^ (row & 7)) << 4);
        u32 v[4];
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3]) : "r"(at) : "memory");
#pragma unroll
        for (int h = 0; h < 2; ++h)
          asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." KIND "." KIND ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %5}, {%7, %8}, {%0, %1, %2, %3};"
                       : "+f"(d0), "+f"(d1), "+f"(d2), "+f"(d3)
                       : "r"(o[k + h][0]), "r"(0), "r"(o[k + h][1]), "r"(v[2 * h]), "r"(v[2 * h + 1]));
      }
      sums[m][0] = FIRST ? d0 : added(sums[m][0], d0);
      sums[m][1] = FIRST ? d1 : added(sums[m][1], d1);
    }
  }
  // As red.global.add in hopper.cu adds, which flushes subnormal numbers.
  __device__ __forceinline__ static float added(float a, float b) {
    float sum;
    asm("add.rn.ftz.f32 %0, %1, %2;" : "=f"(sum) : "f"(a), "f"(b));
    return sum;
  }
  __device__ __forceinline__ void store(const Params &p, const Block &b, int f, int warp, int lane) const {
    float *out = p.out[(p.count - 1 - f) % 2] + ((b.rank * p.P + b.phase) * 8 + (lane >> 2)) * (u64)p.N;
#pragma unroll
    for (int m = 0; m < MINE; ++m) {
      const int j = m * 8 + warp, n = b.place + 8 * j + 2 * (lane & 3);
      if (j < NT / 8 && n < p.N)  // N is even
        asm volatile("st.global.v2.f32 [%0], {%1, %2};" ::"l"(out + n), "f"(sums[m][0]), "f"(sums[m][1]) : "memory");
    }
  }
};
