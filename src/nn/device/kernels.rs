//! The device's kernels in CUDA C, compiled at run time for `real` of one element type. Every one takes the same structure of
//! 64-bit words, so that a launch needs no signature, and is named after its operator.
//!
//! Sums have a fixed partition and are taken in double, so results do not change from one call to the next.

/// Words a kernel is given.
pub const WORDS: usize = 12;
/// Threads of a block.
pub const THREADS: usize = 256;
/// Columns and rows of a block that sums over rows.
pub const TILE: [usize; 2] = [32, 8];

/// All kernels; a line `typedef float real;` goes before.
pub const SOURCE: &str = r#"
typedef unsigned int count;
struct Words { unsigned long long word[12]; };
union Bits { unsigned long long word; double value; };

#define KERNEL extern "C" __global__ void
#define SIZE(k) ((count)words.word[k])
#define REALS(k) ((real *)words.word[k])
#define DOUBLES(k) ((double *)words.word[k])
#define VALUE(k) value_of(words.word[k])
#define EACH(i, n) for (count i = blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += gridDim.x * blockDim.x)

__device__ double value_of(unsigned long long word) {
    Bits bits;
    bits.word = word;
    return bits.value;
}

/* Sum over the 256 threads of a block, for the first of them. */
__device__ double block_sum(double value) {
    __shared__ double sums[256];
    sums[threadIdx.x] = value;
    __syncthreads();
    for (count half = 128; half > 0; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    return sums[0];
}

/* elements; output; operands x, a, b (absent: null); values p, q, r */
#define POINTWISE(name, expression) \
    KERNEL k_##name(Words words) { \
        real *out = REALS(1); \
        const real *xs = REALS(2), *as = REALS(3), *bs = REALS(4); \
        const real p = (real)VALUE(5), q = (real)VALUE(6), r = (real)VALUE(7); \
        EACH(i, SIZE(0)) { \
            const real x = xs[i], a = as ? as[i] : (real)0, b = bs ? bs[i] : (real)0; \
            (void)x, (void)a, (void)b, (void)p, (void)q, (void)r; \
            out[i] = expression; \
        } \
    }

POINTWISE(leaky_relu, x > 0 ? x : p * x)
POINTWISE(leaky_relu_slope, a > 0 ? x : p * x)
POINTWISE(tanh, tanh(x))
POINTWISE(tanh_grad, x * (1 - a * a))
POINTWISE(add, x + a)
POINTWISE(add_assign, x + a)
POINTWISE(copy, a)
POINTWISE(adam_first_moment, p * x + q * a)
POINTWISE(adam_second_moment, p * x + q * a * a)
POINTWISE(adam_step, x - p * a / (sqrt(b) / q + r))
POINTWISE(moving_average, p * x + q * a)
POINTWISE(clip, x > p ? p : x < -p ? -p : x)

/* elements; output; x; bias or null, channels; c or null, elements an image; y or null (x itself); alpha: 1 is no slope.
   x + c*bias, times the slope of a leaky ReLU where its output was y */
KERNEL k_finish(Words words) {
    real *out = REALS(1);
    const real *x = REALS(2), *bias = REALS(3), *c = REALS(5), *y = REALS(7);
    const count channels = SIZE(4), image = SIZE(6);
    const real alpha = (real)VALUE(8);
    EACH(i, SIZE(0)) {
        real v = x[i];
        if (bias) v += c ? c[i / image] * bias[i % channels] : bias[i % channels];
        const real sign = y ? y[i] : v;
        out[i] = sign > 0 ? v : alpha * v;
    }
}

/* elements; output; [outer, rows, columns] -> [outer, columns, rows] */
KERNEL k_transpose(Words words) {
    real *out = REALS(1);
    const real *x = REALS(2);
    const count rows = SIZE(3), columns = SIZE(4);
    EACH(i, SIZE(0)) {
        const count row = i % rows, column = i / rows % columns, outer = i / rows / columns;
        out[i] = x[(outer * rows + row) * columns + column];
    }
}

/* elements; output; x, s, elements an image, t */
KERNEL k_scale_images(Words words) {
    real *out = REALS(1);
    const real *x = REALS(2), *s = REALS(3);
    const count image = SIZE(4);
    const real t = (real)VALUE(5);
    EACH(i, SIZE(0)) out[i] = s[i / image] * (x[i] - t);
}

/* A block an image. output; x, elements an image, t */
KERNEL k_squared_distance(Words words) {
    const count len = SIZE(2);
    const real *x = REALS(1) + (unsigned long long)blockIdx.x * len;
    const double t = VALUE(3);
    double sum = 0;
    for (count i = threadIdx.x; i < len; i += blockDim.x) sum += ((double)x[i] - t) * ((double)x[i] - t);
    sum = block_sum(sum);
    if (threadIdx.x == 0) REALS(0)[blockIdx.x] = (real)sum;
}

/* A block a row. output; w, columns, v */
KERNEL k_matrix_times_vector(Words words) {
    const count columns = SIZE(2);
    const real *w = REALS(1) + (unsigned long long)blockIdx.x * columns, *v = REALS(3);
    double sum = 0;
    for (count i = threadIdx.x; i < columns; i += blockDim.x) sum += (double)w[i] * (double)v[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) REALS(0)[blockIdx.x] = (real)sum;
}

/* elements; a part a block; a, b */
KERNEL k_dot_parts(Words words) {
    const real *a = REALS(2), *b = REALS(3);
    double sum = 0;
    EACH(i, SIZE(0)) sum += (double)a[i] * (double)b[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) DOUBLES(1)[blockIdx.x] = sum;
}

/* One block. parts; output; the parts */
KERNEL k_sum_parts(Words words) {
    double sum = 0;
    for (count i = threadIdx.x; i < SIZE(0); i += blockDim.x) sum += DOUBLES(2)[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) REALS(1)[0] = (real)sum;
}

/* Two sums over the rows of each group for each column, as parts [group, part, 2, column].
   rows, columns; parts; x, and what `add` reads. Blocks: columns, parts, groups. */
#define COLUMN_SUMS(name, add) \
    KERNEL k_##name(Words words) { \
        __shared__ double sums[2][8][33]; \
        const count rows = SIZE(0), columns = SIZE(1), group = blockIdx.z; \
        const count column = blockIdx.x * 32 + threadIdx.x; \
        const real *xs = REALS(3); \
        double first = 0, second = 0; \
        if (column < columns) { \
            for (count r = blockIdx.y * 8 + threadIdx.y; r < rows; r += gridDim.y * 8) { \
                const count row = group * rows + r, i = row * columns + column; \
                const double x = xs[i]; \
                add \
            } \
        } \
        sums[0][threadIdx.y][threadIdx.x] = first; \
        sums[1][threadIdx.y][threadIdx.x] = second; \
        __syncthreads(); \
        if (threadIdx.y < 2 && column < columns) { \
            double sum = 0; \
            for (count k = 0; k < 8; k++) sum += sums[threadIdx.y][k][threadIdx.x]; \
            DOUBLES(2)[((group * gridDim.y + blockIdx.y) * 2 + threadIdx.y) * columns + column] = sum; \
        } \
    }

/* s, pixels an image */
COLUMN_SUMS(channel_sum_parts, { first += x * (double)REALS(4)[row / SIZE(5)]; })
COLUMN_SUMS(channel_moments_parts, { first += x; second += x * x; })
/* dy, coefficients, groups */
COLUMN_SUMS(batch_norm_relu_grad_parts, {
    const real *co = REALS(5) + column;
    const count groups = SIZE(6);
    const bool passes = xs[i] * co[2 * group * columns] + co[(2 * group + 1) * columns] > 0;
    const double d = passes ? (double)REALS(4)[i] : 0.0;
    first += d;
    second += d * (x - (double)co[2 * groups * columns]) * (double)co[(2 * groups + 1) * columns];
})

/* elements; output [group, sums, column]; parts [group, part, 2, column]: columns, parts; sums, 1 or 2 */
KERNEL k_column_sums(Words words) {
    const count columns = SIZE(3), parts = SIZE(4), sums = SIZE(5);
    EACH(i, SIZE(0)) {
        const count column = i % columns, which = i / columns % sums, group = i / columns / sums;
        double sum = 0;
        for (count k = 0; k < parts; k++) sum += DOUBLES(2)[((group * parts + k) * 2 + which) * columns + column];
        REALS(1)[i] = (real)sum;
    }
}

/* columns; output [2, column]: mean, variance; parts; their number; rows */
KERNEL k_moments_of_sums(Words words) {
    const count columns = SIZE(0), parts = SIZE(3);
    const double rows = VALUE(4);
    EACH(column, columns) {
        double sum = 0, squares = 0;
        for (count k = 0; k < parts; k++) {
            sum += DOUBLES(2)[k * 2 * columns + column];
            squares += DOUBLES(2)[(k * 2 + 1) * columns + column];
        }
        const double mean = sum / rows, variance = squares / rows - mean * mean;
        REALS(1)[column] = (real)mean;
        REALS(1)[columns + column] = (real)(variance < 0 ? 0 : variance);
    }
}

/* elements; output; x, coefficients, channels, rows a group */
KERNEL k_batch_norm_relu(Words words) {
    const real *x = REALS(2);
    const count c = SIZE(4), rows = SIZE(5);
    EACH(i, SIZE(0)) {
        const real *co = REALS(3) + 2 * (i / c / rows) * c + i % c;
        const real y = x[i] * co[0] + co[c];
        REALS(1)[i] = y > 0 ? y : 0 * y;
    }
}

/* elements; output; x, coefficients, channels, rows a group; dy, groups */
KERNEL k_batch_norm_relu_input_grad(Words words) {
    const real *x = REALS(2), *dy = REALS(6);
    const count c = SIZE(4), rows = SIZE(5), groups = SIZE(7);
    EACH(i, SIZE(0)) {
        const real *co = REALS(3) + 2 * (i / c / rows) * c + i % c;
        const real *of_all = REALS(3) + 2 * groups * c + i % c;
        const real mean = of_all[0], inverse = of_all[c], by_mean = of_all[2 * c], by_deviation = of_all[3 * c];
        const real d = x[i] * co[0] + co[c] > 0 ? dy[i] : (real)0;
        REALS(1)[i] = co[0] * d - by_mean - (x[i] - mean) * inverse * by_deviation;
    }
}

/* elements; output [N, 2h, 2w, C]; x, columns of the output, channels; scale */
KERNEL k_upsample2(Words words) {
    const count wide = SIZE(3), c = SIZE(4);
    const real scale = (real)VALUE(5);
    EACH(i, SIZE(0)) {
        const count column = i / c % wide, row = i / c / wide;
        REALS(1)[i] = scale * REALS(2)[(row / 2 * (wide / 2) + column / 2) * c + i % c];
    }
}

/* elements; output [N, h/2, w/2, C]; x, columns of the output, channels; scale */
KERNEL k_avg_pool2(Words words) {
    const count w = SIZE(3), c = SIZE(4);
    const real scale = (real)VALUE(5);
    EACH(i, SIZE(0)) {
        const count column = i / c % w, row = i / c / w;
        const real *upper = REALS(2) + (row * 2 * w + column) * 2 * c + i % c, *lower = upper + 2 * w * c;
        REALS(1)[i] = scale * ((upper[0] + upper[c]) + (lower[0] + lower[c]));
    }
}

/* elements [N, C]; output; x, pixels, channels; scale */
KERNEL k_global_pool(Words words) {
    const count pixels = SIZE(3), c = SIZE(4);
    const real scale = (real)VALUE(5);
    EACH(i, SIZE(0)) {
        const real *x = REALS(2) + i / c * pixels * c + i % c;
        real sum = 0;
        for (count k = 0; k < pixels; k++) sum += x[k * c];
        REALS(1)[i] = sum * scale;
    }
}

/* elements; output; dy, pixels, channels; scale */
KERNEL k_global_pool_grad(Words words) {
    const count pixels = SIZE(3), c = SIZE(4);
    const real scale = (real)VALUE(5);
    EACH(i, SIZE(0)) REALS(1)[i] = scale * REALS(2)[i / c / pixels * c + i % c];
}

/* elements [N, H', W', C]; output; x [N, H, W, C]; channels; rows, columns; those of the output; stride, padding;
   whether the mean is taken */
KERNEL k_pool3(Words words) {
    const real *x = REALS(2);
    const count c = SIZE(3), h = SIZE(4), w = SIZE(5), out_h = SIZE(6), out_w = SIZE(7);
    const count stride = SIZE(8), padding = SIZE(9);
    const bool mean = SIZE(10) != 0;
    EACH(i, SIZE(0)) {
        const count top = i / c / out_w % out_h * stride, left = i / c % out_w * stride, image = i / c / out_w / out_h;
        const count y0 = top > padding ? top - padding : 0, x0 = left > padding ? left - padding : 0;
        const count y1 = top + 3 - padding < h ? top + 3 - padding : h, x1 = left + 3 - padding < w ? left + 3 - padding : w;
        real result = 0;
        for (count yy = y0; yy < y1; yy++) {
            for (count xx = x0; xx < x1; xx++) {
                const real v = x[((image * h + yy) * w + xx) * c + i % c];
                const bool first = yy == y0 && xx == x0;
                result = first ? v : mean ? result + v : v > result ? v : result;
            }
        }
        REALS(1)[i] = mean ? result * (real)(1.0 / (double)((y1 - y0) * (x1 - x0))) : result;
    }
}

/* elements [rows, columns]; output; g; columns; u, v, 1/sigma: one after the other */
KERNEL k_spectral_pull_back(Words words) {
    const count columns = SIZE(3), rows = SIZE(0) / columns;
    const real *u = REALS(4), *v = u + rows, inverse = v[columns];
    EACH(i, SIZE(0)) REALS(1)[i] = (REALS(2)[i] - u[i / columns] * v[i % columns]) * inverse;
}

/* elements [.., 4, 4]; output; w [.., 3, 3]; scale: the sum of four copies, each shifted by 0 or 1 in both directions */
KERNEL k_spread_kernel(Words words) {
    const real scale = (real)VALUE(3);
    EACH(i, SIZE(0)) {
        const real *w = REALS(2) + i / 16 * 9;
        const count y = i / 4 % 4, x = i % 4;
        real sum = 0;
        for (count a = 0; a < 2; a++) {
            for (count b = 0; b < 2; b++) {
                if (y >= a && y - a < 3 && x >= b && x - b < 3) sum += w[(y - a) * 3 + x - b];
            }
        }
        REALS(1)[i] = scale * sum;
    }
}

/* elements [.., 3, 3]; output; w [.., 4, 4]; scale: the transpose of k_spread_kernel */
KERNEL k_gather_kernel(Words words) {
    const real scale = (real)VALUE(3);
    EACH(i, SIZE(0)) {
        const real *w = REALS(2) + i / 9 * 16 + i / 3 % 3 * 4 + i % 3;
        REALS(1)[i] = scale * ((w[0] + w[4]) + (w[1] + w[5]));
    }
}

/* elements [a, b, k]; output [b, a, k]; x; a; b; k: axes exchanged and the last one turned round */
KERNEL k_turn_kernel(Words words) {
    const count as = SIZE(3), bs = SIZE(4), ks = SIZE(5);
    EACH(i, SIZE(0)) {
        const count k = i % ks, a = i / ks % as, b = i / ks / as;
        REALS(1)[i] = REALS(2)[(a * bs + b) * ks + ks - 1 - k];
    }
}

/* elements [batch, side, side, 3]; output in [-1, 1]; bytes [images, side, side, 3]; places [batch, 4]: image, flipped,
   shift down, shift right; side */
KERNEL k_place_images(Words words) {
    const unsigned char *bytes = (const unsigned char *)words.word[2];
    const long long *places = (const long long *)words.word[3];
    const int side = (int)SIZE(4);
    EACH(i, SIZE(0)) {
        const count pixel = i / 3;
        const long long *place = places + pixel / (side * side) * 4;
        const int y = (int)(pixel / side % side) - (int)place[2], x = (int)(pixel % side) - (int)place[3];
        const bool inside = y >= 0 && y < side && x >= 0 && x < side;
        const int from = place[1] ? side - 1 - x : x;
        const unsigned long long at = (((unsigned long long)place[0] * side + y) * side + from) * 3 + i % 3;
        REALS(1)[i] = (real)((inside ? (float)bytes[at] : 0.0f) / 127.5f - 1.0f);
    }
}
"#;
