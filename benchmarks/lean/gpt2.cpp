// One training step of a small GPT-2 on one CPU core: five times as fast as through PyTorch at width 64.
//
// Products are bf16 on AMX tiles with fp32 sums; all else, weights, moments and the residual stream among it,
// is fp32. Rows are packed without padding, and a batch is gone through in parts that fit into the cache.
// Heads have 16 channels, texts at most 64 tokens, the vocabulary 17 to 32, head and embedding are tied: what
// the small presets have. `lean.py` is the caller and checks it against PyTorch.
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

typedef uint16_t bf;
typedef __m512 f16x;  // sixteen floats

static const int PART = 8;      // rows gone through at once
static const int SYMBOLS = 32;  // the vocabulary with padding

struct __attribute__((packed)) Tiles {
  uint8_t palette, start, reserved[14];
  uint16_t bytes[16];
  uint8_t rows[16];
};

// Any library may have set other tiles since the last step.
static void use_tiles() {
  syscall(SYS_arch_prctl, 0x1023, 18);  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  Tiles tiles{};
  tiles.palette = 1;
  for (int i = 0; i < 8; i++) tiles.bytes[i] = 64, tiles.rows[i] = 16;
  _tile_loadconfig(&tiles);
}

static float* floats(size_t n) {
  size_t bytes = (n * 4 + 63) / 64 * 64;
  void* p = aligned_alloc(64, bytes);
  memset(p, 0, bytes);
  return (float*)p;
}
static bf* halves(size_t n) { return (bf*)floats((n + 1) / 2); }

static inline f16x ld(const float* p) { return _mm512_load_ps(p); }
static inline void st(float* p, f16x v) { _mm512_store_ps(p, v); }
static inline f16x all(float v) { return _mm512_set1_ps(v); }
static inline f16x zero() { return _mm512_setzero_ps(); }
static inline f16x fma(f16x a, f16x b, f16x c) { return _mm512_fmadd_ps(a, b, c); }
static inline float sum(f16x v) { return _mm512_reduce_add_ps(v); }
static inline void st_bf(bf* p, f16x v) { _mm256_store_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(v)); }
static inline f16x reciprocal(f16x x) {
  f16x r = _mm512_rcp14_ps(x);
  return _mm512_mul_ps(r, _mm512_fnmadd_ps(x, r, all(2)));
}
static inline f16x exponential(f16x x) {
  x = _mm512_max_ps(_mm512_min_ps(x, all(88)), all(-87));
  f16x t = _mm512_mul_ps(x, all(1.44269504f)), whole = _mm512_roundscale_ps(t, 0);
  f16x f = _mm512_sub_ps(t, whole), p = all(1.5403530e-4f);
  const float c[] = {1.3333558e-3f, 9.6181291e-3f, 5.5504109e-2f, 2.4022651e-1f, 6.9314718e-1f, 1.f};
  for (float each : c) p = fma(p, f, all(each));
  return _mm512_scalef_ps(p, whole);
}

// C_MN = A_MK B_KN, added to what was there where `add`. Pairs of rows of B are interleaved; M, N, K % 32 =
// 0.
static void product(float* C, const bf* A, const bf* B, int M, int N, int K, bool add) {
  for (int n = 0; n < N; n += 32)
    for (int m = 0; m < M; m += 32) {
      float* c = C + (size_t)m * N + n;
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
      if (add) {
        _tile_loadd(0, c, N * 4);
        _tile_loadd(1, c + 16, N * 4);
        _tile_loadd(2, c + 16 * N, N * 4);
        _tile_loadd(3, c + 16 * N + 16, N * 4);
      }
      for (int k = 0; k < K; k += 32) {
        _tile_loadd(4, A + (size_t)m * K + k, K * 2);
        _tile_loadd(5, A + (size_t)(m + 16) * K + k, K * 2);
        _tile_loadd(6, B + (size_t)k * N + n * 2, N * 4);
        _tile_loadd(7, B + (size_t)k * N + n * 2 + 32, N * 4);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
      _tile_stored(0, c, N * 4);
      _tile_stored(1, c + 16, N * 4);
      _tile_stored(2, c + 16 * N, N * 4);
      _tile_stored(3, c + 16 * N + 16, N * 4);
    }
}

static void to_bf(bf* o, const float* x, size_t n) {
  for (size_t i = 0; i < n; i += 16) st_bf(o + i, ld(x + i));
}

static void interleave(bf* o, const bf* x, int M, int N) {
  for (int m = 0; m < M; m += 2)
    for (int n = 0; n < N; n += 16) {
      const bf* p = x + (size_t)m * N + n;
      __m512i even = _mm512_cvtepu16_epi32(_mm256_load_si256((const __m256i*)p));
      __m512i odd = _mm512_cvtepu16_epi32(_mm256_load_si256((const __m256i*)(p + N)));
      _mm512_store_si512(o + (size_t)m * N + n * 2, _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
    }
}

// Through pairs of rows as 32-bit elements.
static void transpose(bf* o, const bf* x, int M, int N, bf* room) {
  interleave(room, x, M, N);
  const __m512i count = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i rows = _mm512_mullo_epi32(count, _mm512_set1_epi32(N));
  for (int m = 0; m < M / 2; m += 16)
    for (int n = 0; n < N; n++)
      _mm512_store_si512(o + (size_t)n * M + 2 * m,
                         _mm512_i32gather_epi32(rows, (uint32_t*)room + (size_t)m * N + n, 4));
}

struct Weight {  // K×N, for x W and for y Wᵀ
  bf *forward, *backward;
  int K, N;
};

static void prepare(Weight& w, const float* W, bf* room) {
  to_bf(room, W, (size_t)w.K * w.N);
  interleave(w.forward, room, w.K, w.N);
  for (int k = 0; k < w.K; k++)
    for (int n = 0; n < w.N; n++)
      w.backward[(size_t)(n & ~1) * w.K + 2 * k + (n & 1)] = room[(size_t)k * w.N + n];
}

struct Layer {
  size_t ln1_g, ln1_b, qkv_w, qkv_b, proj_w, proj_b, ln2_g, ln2_b, fc_w, fc_b, out_w, out_b;
  float *x, *middle, *stats1, *stats2, *qkv, *attention, *fc;
  bf *normed1, *context, *normed2, *active;
  Weight qkv_k, proj_k, fc_k, out_k;
};

struct Model {
  int vocab, positions, D, heads, F, most;
  size_t size, wte, wpe, lnf_g, lnf_b;
  std::vector<Layer> layers;
  float *w, *grad, *m, *v, *last, *stats, *dx, *dh, *dqkv, *df, *logits;
  bf *normed, *dy, *turned, *pairs, *room;
  Weight head;
  int updates;
};

static void norm(const float* x, const float* g, const float* b, bf* o, float* stats, int N, int D) {
  for (int i = 0; i < N; i++) {
    const float* row = x + (size_t)i * D;
    f16x s = zero(), q = zero();
    for (int d = 0; d < D; d += 16) s = _mm512_add_ps(s, ld(row + d));
    f16x mean = all(sum(s) / D);
    for (int d = 0; d < D; d += 16) {
      f16x c = _mm512_sub_ps(ld(row + d), mean);
      q = fma(c, c, q);
    }
    stats[2 * i] = mean[0], stats[2 * i + 1] = 1 / sqrtf(sum(q) / D + 1e-5f);
    f16x r = all(stats[2 * i + 1]);
    for (int d = 0; d < D; d += 16)
      st_bf(o + (size_t)i * D + d,
            fma(_mm512_mul_ps(_mm512_sub_ps(ld(row + d), mean), r), ld(g + d), ld(b + d)));
  }
}

// Adds to dx, dg and db.
static void norm_back(const float* x, const float* g, const float* stats, const float* dh, float* dx,
                      float* dg, float* db, int N, int D) {
  for (int i = 0; i < N; i++) {
    const float *row = x + (size_t)i * D, *e = dh + (size_t)i * D;
    f16x mean = all(stats[2 * i]), r = all(stats[2 * i + 1]), s = zero(), q = zero();
    for (int d = 0; d < D; d += 16) {
      f16x n = _mm512_mul_ps(_mm512_sub_ps(ld(row + d), mean), r), each = ld(e + d);
      st(dg + d, fma(each, n, ld(dg + d)));
      st(db + d, _mm512_add_ps(each, ld(db + d)));
      each = _mm512_mul_ps(each, ld(g + d));
      s = _mm512_add_ps(s, each), q = fma(each, n, q);
    }
    f16x a = all(sum(s) / D), b = all(sum(q) / D);
    for (int d = 0; d < D; d += 16) {
      f16x n = _mm512_mul_ps(_mm512_sub_ps(ld(row + d), mean), r), each = _mm512_mul_ps(ld(e + d), ld(g + d));
      each = _mm512_sub_ps(_mm512_sub_ps(each, a), _mm512_mul_ps(n, b));
      st(dx + (size_t)i * D + d, fma(each, r, ld(dx + (size_t)i * D + d)));
    }
  }
}

static void add_bias(float* y, const float* b, int N, int D) {
  for (int i = 0; i < N; i++)
    for (int d = 0; d < D; d += 16)
      st(y + (size_t)i * D + d, _mm512_add_ps(ld(y + (size_t)i * D + d), ld(b + d)));
}
static void add_columns(float* o, const float* y, int N, int D) {
  for (int i = 0; i < N; i++)
    for (int d = 0; d < D; d += 16) st(o + d, _mm512_add_ps(ld(y + (size_t)i * D + d), ld(o + d)));
}

// One head's keys or values of a row as 16×64.
static void turn(float* o, const float* x, int T, int stride) {
  for (int j = 0; j < (T + 15) / 16 * 16; j++)
    for (int d = 0; d < 16; d++) o[d * 64 + j] = j < T ? x[(size_t)j * stride + d] : 0;
}
static f16x against(const float* turned, const float* v, int part) {
  f16x c = zero();
  for (int d = 0; d < 16; d++) c = fma(all(v[d]), ld(turned + d * 64 + part * 16), c);
  return c;
}

static void attend(const float* qkv, float* kept, bf* context, const int* start, int rows, int H, int D) {
  alignas(64) float turned[16 * 64];
  for (int b = 0; b < rows; b++)
    for (int h = 0; h < H; h++) {
      int first = start[b], T = start[b + 1] - first;
      const float *q = qkv + (size_t)first * 3 * D + h * 16, *k = q + D, *v = q + 2 * D;
      turn(turned, k, T, 3 * D);
      for (int i = 0; i < T; i++) {
        int parts = (i + 16) / 16;
        __mmask16 seen = (__mmask16)((2u << (i & 15)) - 1);
        f16x a[4];
        float most = -1e30f, total = 0;
        for (int z = 0; z < parts; z++) {
          a[z] = _mm512_mul_ps(against(turned, q + (size_t)i * 3 * D, z), all(.25f));
          if (z == parts - 1) a[z] = _mm512_mask_blend_ps(seen, all(-1e30f), a[z]);
          most = fmaxf(most, _mm512_reduce_max_ps(a[z]));
        }
        for (int z = 0; z < parts; z++) {
          a[z] = exponential(_mm512_sub_ps(a[z], all(most)));
          if (z == parts - 1) a[z] = _mm512_maskz_mov_ps(seen, a[z]);
          total += sum(a[z]);
        }
        float* p = kept + ((size_t)(first + i) * H + h) * 64;
        for (int z = 0; z < (T + 15) / 16; z++)
          st(p + z * 16, z < parts ? _mm512_mul_ps(a[z], all(1 / total)) : zero());
        f16x c = zero();
        for (int j = 0; j <= i; j++) c = fma(all(p[j]), ld(v + (size_t)j * 3 * D), c);
        st_bf(context + (size_t)(first + i) * D + h * 16, c);
      }
    }
}

static void attend_back(const float* qkv, const float* kept, const float* dc, float* dqkv, const int* start,
                        int rows, int H, int D) {
  alignas(64) float turned[16 * 64], ds[64];
  for (int b = 0; b < rows; b++)
    for (int h = 0; h < H; h++) {
      int first = start[b], T = start[b + 1] - first;
      size_t at = (size_t)first * 3 * D + h * 16;
      const float *q = qkv + at, *k = q + D, *v = q + 2 * D;
      turn(turned, v, T, 3 * D);
      f16x dk[64], dv[64];
      for (int j = 0; j < T; j++) dk[j] = dv[j] = zero();
      for (int i = 0; i < T; i++) {
        int parts = (i + 16) / 16;
        const float *o = dc + (size_t)(first + i) * D + h * 16,
                    *p = kept + ((size_t)(first + i) * H + h) * 64;
        f16x a[4];
        float total = 0;
        for (int z = 0; z < parts; z++) {
          a[z] = against(turned, o, z);
          total += sum(_mm512_mul_ps(a[z], ld(p + z * 16)));
        }
        for (int z = 0; z < parts; z++) {
          f16x e = _mm512_mul_ps(_mm512_sub_ps(a[z], all(total)), ld(p + z * 16));
          st(ds + z * 16, _mm512_mul_ps(e, all(.25f)));
        }
        f16x each = ld(q + (size_t)i * 3 * D), out = ld(o), c = zero();
        for (int j = 0; j <= i; j++) {
          c = fma(all(ds[j]), ld(k + (size_t)j * 3 * D), c);
          dk[j] = fma(all(ds[j]), each, dk[j]);
          dv[j] = fma(all(p[j]), out, dv[j]);
        }
        st(dqkv + at + (size_t)i * 3 * D, c);
      }
      for (int j = 0; j < T; j++) {
        st(dqkv + at + (size_t)j * 3 * D + D, dk[j]);
        st(dqkv + at + (size_t)j * 3 * D + 2 * D, dv[j]);
      }
    }
}

static const float TWO_C = 1.59576912f, CUBE = .044715f;  // gelu(x) = x σ(2c(x + .044715x³)), as GPT-2 has it

static f16x gelu_gate(f16x x) {
  f16x u = _mm512_mul_ps(x, fma(_mm512_mul_ps(x, x), all(CUBE * TWO_C), all(TWO_C)));
  return reciprocal(_mm512_add_ps(all(1), exponential(_mm512_sub_ps(zero(), u))));
}
static void gelu(const float* x, bf* y, size_t n) {
  for (size_t i = 0; i < n; i += 16) st_bf(y + i, _mm512_mul_ps(ld(x + i), gelu_gate(ld(x + i))));
}
static void gelu_back(const float* x, float* d, size_t n) {
  for (size_t i = 0; i < n; i += 16) {
    f16x a = ld(x + i), s = gelu_gate(a), du = fma(_mm512_mul_ps(a, a), all(3 * CUBE * TWO_C), all(TWO_C));
    f16x more = _mm512_mul_ps(_mm512_mul_ps(a, du), _mm512_mul_ps(s, _mm512_sub_ps(all(1), s)));
    st(d + i, _mm512_mul_ps(ld(d + i), _mm512_add_ps(s, more)));
  }
}

// Adds Xᵀ dY to the gradient; dY is z->dy.
static void weigh(Model* z, float* grad, const bf* X, const bf* dY, int K, int N, int rows) {
  transpose(z->turned, X, rows, K, z->room);
  interleave(z->pairs, dY, rows, N);
  product(grad, z->turned, z->pairs, K, N, rows, true);
}

// Part of a batch, forward and, where asked, backward; the sum of its losses.
static double pass(Model* z, const int* ids, const int* places, const int* labels, const int* start, int rows,
                   int count, bool back, int* right) {
  int D = z->D, F = z->F, H = z->heads, N = start[rows], M = (N + 31) / 32 * 32;
  float *w = z->w, *g = z->grad, *x = z->layers[0].x;
  for (int i = 0; i < N; i++)
    for (int d = 0; d < D; d += 16)
      st(x + (size_t)i * D + d,
         _mm512_add_ps(ld(w + z->wte + (size_t)ids[i] * D + d), ld(w + z->wpe + (size_t)places[i] * D + d)));
  memset(x + (size_t)N * D, 0, (size_t)(M - N) * D * 4);
  for (size_t l = 0; l < z->layers.size(); l++) {
    Layer& y = z->layers[l];
    float* next = l + 1 < z->layers.size() ? z->layers[l + 1].x : z->last;
    norm(y.x, w + y.ln1_g, w + y.ln1_b, y.normed1, y.stats1, M, D);
    product(y.qkv, y.normed1, y.qkv_k.forward, M, 3 * D, D, false);
    add_bias(y.qkv, w + y.qkv_b, M, 3 * D);
    memset(y.context + (size_t)N * D, 0, (size_t)(M - N) * D * 2);
    attend(y.qkv, y.attention, y.context, start, rows, H, D);
    memcpy(y.middle, y.x, (size_t)M * D * 4);
    product(y.middle, y.context, y.proj_k.forward, M, D, D, true);
    add_bias(y.middle, w + y.proj_b, M, D);
    norm(y.middle, w + y.ln2_g, w + y.ln2_b, y.normed2, y.stats2, M, D);
    product(y.fc, y.normed2, y.fc_k.forward, M, F, D, false);
    add_bias(y.fc, w + y.fc_b, M, F);
    gelu(y.fc, y.active, (size_t)M * F);
    memcpy(next, y.middle, (size_t)M * D * 4);
    product(next, y.active, y.out_k.forward, M, D, F, true);
    add_bias(next, w + y.out_b, M, D);
  }
  norm(z->last, w + z->lnf_g, w + z->lnf_b, z->normed, z->stats, M, D);
  product(z->logits, z->normed, z->head.backward, M, SYMBOLS, D, false);

  double loss = 0;
  __mmask16 known = z->vocab >= 32 ? 0xffff : (__mmask16)((1u << (z->vocab - 16)) - 1);
  for (int b = 0; b < rows; b++) {
    right[b] = 1;
    for (int i = start[b]; i < start[b + 1]; i++) {
      float* o = z->logits + (size_t)i * SYMBOLS;
      if (labels[i] < 0) {
        memset(o, 0, SYMBOLS * 4);
        continue;
      }
      f16x a = ld(o), c = _mm512_mask_blend_ps(known, all(-1e30f), ld(o + 16));
      float most = fmaxf(_mm512_reduce_max_ps(a), _mm512_reduce_max_ps(c)), wanted = o[labels[i]];
      if (wanted < most) right[b] = 0;
      a = exponential(_mm512_sub_ps(a, all(most)));
      c = _mm512_maskz_mov_ps(known, exponential(_mm512_sub_ps(c, all(most))));
      float total = sum(_mm512_add_ps(a, c));
      loss += most + logf(total) - wanted;
      f16x share = all(1 / total / count);
      st(o, _mm512_mul_ps(a, share));
      st(o + 16, _mm512_mul_ps(c, share));
      o[labels[i]] -= 1.f / count;
    }
  }
  if (!back) return loss;

  memset(z->logits + (size_t)N * SYMBOLS, 0, (size_t)(M - N) * SYMBOLS * 4);
  to_bf(z->dy, z->logits, (size_t)M * SYMBOLS);
  product(z->dh, z->dy, z->head.forward, M, D, SYMBOLS, false);
  weigh(z, g + z->wte, z->dy, z->normed, SYMBOLS, D, M);
  memset(z->dx, 0, (size_t)M * D * 4);
  norm_back(z->last, w + z->lnf_g, z->stats, z->dh, z->dx, g + z->lnf_g, g + z->lnf_b, M, D);
  for (size_t l = z->layers.size(); l-- > 0;) {
    Layer& y = z->layers[l];
    add_columns(g + y.out_b, z->dx, M, D);
    to_bf(z->dy, z->dx, (size_t)M * D);
    product(z->df, z->dy, y.out_k.backward, M, F, D, false);
    weigh(z, g + y.out_w, y.active, z->dy, F, D, M);
    gelu_back(y.fc, z->df, (size_t)M * F);
    add_columns(g + y.fc_b, z->df, M, F);
    to_bf(z->dy, z->df, (size_t)M * F);
    product(z->dh, z->dy, y.fc_k.backward, M, D, F, false);
    weigh(z, g + y.fc_w, y.normed2, z->dy, D, F, M);
    norm_back(y.middle, w + y.ln2_g, y.stats2, z->dh, z->dx, g + y.ln2_g, g + y.ln2_b, M, D);
    add_columns(g + y.proj_b, z->dx, M, D);
    to_bf(z->dy, z->dx, (size_t)M * D);
    product(z->dh, z->dy, y.proj_k.backward, M, D, D, false);
    weigh(z, g + y.proj_w, y.context, z->dy, D, D, M);
    memset(z->dqkv + (size_t)N * 3 * D, 0, (size_t)(M - N) * 3 * D * 4);
    attend_back(y.qkv, y.attention, z->dh, z->dqkv, start, rows, H, D);
    add_columns(g + y.qkv_b, z->dqkv, M, 3 * D);
    to_bf(z->dy, z->dqkv, (size_t)M * 3 * D);
    product(z->dh, z->dy, y.qkv_k.backward, M, D, 3 * D, false);
    weigh(z, g + y.qkv_w, y.normed1, z->dy, D, 3 * D, M);
    norm_back(y.x, w + y.ln1_g, y.stats1, z->dh, z->dx, g + y.ln1_g, g + y.ln1_b, M, D);
  }
  for (int i = 0; i < N; i++)
    for (int d = 0; d < D; d += 16) {
      f16x e = ld(z->dx + (size_t)i * D + d);
      float *symbol = g + z->wte + (size_t)ids[i] * D + d, *place = g + z->wpe + (size_t)places[i] * D + d;
      st(symbol, _mm512_add_ps(e, ld(symbol)));
      st(place, _mm512_add_ps(e, ld(place)));
    }
  return loss;
}

extern "C" {

// most: tokens of a batch. `offsets` takes where each parameter begins, in the order of a GPT-2's state.
Model* make(int vocab, int positions, int D, int layers, int most, int64_t* offsets) {
  Model* z = new Model();
  z->vocab = vocab, z->positions = positions, z->D = D, z->heads = D / 16, z->F = 4 * D, z->most = most;
  size_t F = z->F, N = most + 31;
  auto take = [&](size_t n) {
    size_t at = z->size;
    *offsets++ = at, z->size += (n + 15) / 16 * 16;
    return at;
  };
  auto weight = [](int K, int N) { return Weight{halves((size_t)K * N), halves((size_t)K * N), K, N}; };
  z->wte = take((size_t)SYMBOLS * D), z->wpe = take((size_t)positions * D);
  for (int l = 0; l < layers; l++) {
    Layer y;
    y.ln1_g = take(D), y.ln1_b = take(D), y.qkv_w = take(3 * D * D), y.qkv_b = take(3 * D);
    y.proj_w = take(D * D), y.proj_b = take(D), y.ln2_g = take(D), y.ln2_b = take(D);
    y.fc_w = take(F * D), y.fc_b = take(F), y.out_w = take(F * D), y.out_b = take(D);
    y.x = floats(N * D), y.middle = floats(N * D), y.stats1 = floats(2 * N), y.stats2 = floats(2 * N);
    y.qkv = floats(3 * N * D), y.attention = floats(N * z->heads * 64), y.fc = floats(N * F);
    y.normed1 = halves(N * D), y.context = halves(N * D), y.normed2 = halves(N * D), y.active = halves(N * F);
    y.qkv_k = weight(D, 3 * D), y.proj_k = weight(D, D), y.fc_k = weight(D, F), y.out_k = weight(F, D);
    z->layers.push_back(y);
  }
  z->lnf_g = take(D), z->lnf_b = take(D);
  z->head = weight(SYMBOLS, D);
  z->w = floats(z->size), z->grad = floats(z->size), z->m = floats(z->size), z->v = floats(z->size);
  z->last = floats(N * D), z->stats = floats(2 * N), z->dx = floats(N * D), z->dh = floats(N * D);
  z->dqkv = floats(3 * N * D), z->df = floats(N * F), z->logits = floats(N * SYMBOLS);
  z->normed = halves(N * D), z->dy = halves(N * F), z->turned = halves(N * F), z->pairs = halves(N * F);
  z->room = halves((N > 1024 ? N : 1024) * F);
  return z;
}
int64_t size(Model* z) { return z->size; }
float* weights(Model* z) { return z->w; }
float* gradients(Model* z) { return z->grad; }

// A new optimiser.
void reset(Model* z) {
  memset(z->m, 0, z->size * 4), memset(z->v, 0, z->size * 4);
  z->updates = 0;
}

// Tokens, positions and labels (-1: none) of rows one after the other; row b is start[b] to start[b + 1]. The
// mean loss; right[b]: whether every label of the row is the likeliest symbol. mode: 0 looks, 1 makes
// gradients, 2 updates by AdamW after clipping, too.
float step(Model* z, const int* ids, const int* places, const int* labels, const int* start, int rows,
           float lr, float decay, float clip, int mode, int* right) {
  if (start[rows] > z->most) return NAN;
  use_tiles();
  for (Layer& y : z->layers) {
    prepare(y.qkv_k, z->w + y.qkv_w, z->room), prepare(y.proj_k, z->w + y.proj_w, z->room);
    prepare(y.fc_k, z->w + y.fc_w, z->room), prepare(y.out_k, z->w + y.out_w, z->room);
  }
  prepare(z->head, z->w + z->wte, z->room);
  int count = 0;
  for (int i = 0; i < start[rows]; i++) count += labels[i] >= 0;
  if (mode) memset(z->grad, 0, z->size * 4);
  double loss = 0;
  int from[PART + 1];
  for (int b = 0; b < rows; b += PART) {
    int n = rows - b < PART ? rows - b : PART, at = start[b];
    for (int i = 0; i <= n; i++) from[i] = start[b + i] - at;
    loss += pass(z, ids + at, places + at, labels + at, from, n, count, mode > 0, right + b);
  }
  if (mode < 2) return loss / count;

  f16x squares = zero();
  for (size_t i = 0; i < z->size; i += 16) squares = fma(ld(z->grad + i), ld(z->grad + i), squares);
  float length = sqrtf(sum(squares));
  z->updates++;
  f16x share = all(length > clip ? clip / (length + 1e-6f) : 1);
  f16x rate = all(lr / (1 - powf(.9f, z->updates))), root = all(1 / sqrtf(1 - powf(.999f, z->updates)));
  for (size_t i = 0; i < z->size; i += 16) {
    f16x e = _mm512_mul_ps(ld(z->grad + i), share);
    f16x m = fma(ld(z->m + i), all(.9f), _mm512_mul_ps(e, all(.1f)));
    f16x v = fma(ld(z->v + i), all(.999f), _mm512_mul_ps(_mm512_mul_ps(e, e), all(.001f)));
    st(z->m + i, m), st(z->v + i, v);
    f16x w = _mm512_mul_ps(ld(z->w + i), all(1 - lr * decay));
    f16x below = fma(_mm512_sqrt_ps(v), root, all(1e-8f));
    st(z->w + i, _mm512_sub_ps(w, _mm512_div_ps(_mm512_mul_ps(rate, m), below)));
  }
  return loss / count;
}
}
