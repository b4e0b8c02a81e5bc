/* A block an image. output; x, elements an image, t */
BLOCK_KERNEL(squared_distance)(Words words) {
    const count len = SIZE(2);
    const real *x = REALS(1) + (unsigned long long)blockIdx.x * len;
    const double t = VALUE(3);
    double sum = 0;
    for (count i = threadIdx.x; i < len; i += blockDim.x) sum += ((double)x[i] - t) * ((double)x[i] - t);
    sum = block_sum(sum);
    if (threadIdx.x == 0) REALS(0)[blockIdx.x] = (real)sum;
}

/* elements; parts, one a block; counters; output; a, b; whether the root of the sum is taken */
BLOCK_KERNEL(dot)(Words words) {
    const real *a = REALS(4), *b = REALS(5);
    double sum = 0;
    EACH(i, SIZE(0)) sum += (double)a[i] * (double)b[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) DOUBLES(1)[blockIdx.x] = sum;
    if (!is_last(COUNTERS(2), gridDim.x)) return;
    sum = 0;
    for (count i = threadIdx.x; i < gridDim.x; i += blockDim.x) sum += DOUBLES(1)[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) REALS(3)[0] = (real)(SIZE(6) ? sqrt(sum) : sum);
}

/* Two sums over the rows of each of some groups for each column. Blocks: columns, parts, groups. Each block `add`s to its parts
   [group, part, 2, column] the values of `x` (and what else it reads) at element i of a row and column of a group; the last block
   of some columns then runs `finish` for each of them and each group, whose sums are `first` and `second`, and at last `end`.
   rows, columns; parts; counters; x; more; word 15: whether x is in bfloat16 */
#define COLUMN_SUMS(name, add, begin, finish, end) \
    BLOCK_KERNEL(name)(Words words) { \
        __shared__ double sums[2][8][33]; \
        const count rows = SIZE(0), columns = SIZE(1), parts = gridDim.y, groups = gridDim.z; \
        const count column = blockIdx.x * 32 + threadIdx.x; \
        const bool half = SIZE(15) != 0; \
        const real *xs = REALS(4); \
        double first = 0, second = 0; \
        if (column < columns) { \
            for (count r = blockIdx.y * 8 + threadIdx.y; r < rows; r += parts * 8) { \
                const count group = blockIdx.z, row = group * rows + r, i = row * columns + column; \
                const double x = half ? of_half(HALVES(4)[i]) : xs[i]; \
                (void)group, (void)i; \
                add \
            } \
        } \
        sums[0][threadIdx.y][threadIdx.x] = first; \
        sums[1][threadIdx.y][threadIdx.x] = second; \
        __syncthreads(); \
        if (threadIdx.y < 2 && column < columns) { \
            double sum = 0; \
            for (count k = 0; k < 8; k++) sum += sums[threadIdx.y][k][threadIdx.x]; \
            DOUBLES(2)[((blockIdx.z * parts + blockIdx.y) * 2 + threadIdx.y) * columns + column] = sum; \
        } \
        if (!is_last(COUNTERS(3) + blockIdx.x, parts * groups)) return; \
        const bool mine = threadIdx.y == 0 && column < columns; \
        begin \
        for (count group = 0; group < groups; group++) { \
            first = second = 0; \
            if (column < columns) { \
                for (count k = threadIdx.y; k < parts; k += 8) { \
                    first += DOUBLES(2)[((group * parts + k) * 2) * columns + column]; \
                    second += DOUBLES(2)[((group * parts + k) * 2 + 1) * columns + column]; \
                } \
            } \
            __syncthreads(); \
            sums[0][threadIdx.y][threadIdx.x] = first; \
            sums[1][threadIdx.y][threadIdx.x] = second; \
            __syncthreads(); \
            first = second = 0; \
            for (count k = 0; k < 8; k++) { \
                first += sums[0][k][threadIdx.x]; \
                second += sums[1][k][threadIdx.x]; \
            } \
            (void)group; \
            if (mine) { finish } \
        } \
        if (mine) { end } \
    }

/* s or null (ones), pixels an image; output; whether it is added */
COLUMN_SUMS(channel_sum,
    { first += words.word[5] ? x * (double)REALS(5)[row / SIZE(6)] : x; },
    ,
    { REALS(7)[column] = (SIZE(8) ? REALS(7)[column] : (real)0) + (real)first; },
    )
