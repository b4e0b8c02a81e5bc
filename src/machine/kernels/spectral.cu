/* Spectral norms of several matrices at once. A table has a row of 8 for each: its place in the parameters, rows, columns, the
   places of u and of v in the buffers (and in vectors of the same places), and the rows, columns and elements of those before it. */
#define ROW(k) ((const long long *)words.word[1] + 8 * (k))

/* The matrix that holds the row (5), column (6) or element (7) i of all. */
__device__ count matrix_of(const long long *table, count matrices, count which, count i) {
    count k = 0;
    while (k + 1 < matrices && table[8 * (k + 1) + which] <= i) k++;
    return k;
}

/* columns of all; table, matrices; parameters; u; output, W^T u at the columns of each */
KERNEL(spectral_transposed_times)(Words words) {
    EACH(i, SIZE(0)) {
        const long long *m = ROW(matrix_of(ROW(0), SIZE(2), 6, i));
        const count rows = m[1], columns = m[2], column = i - m[6];
        const real *w = REALS(3) + m[0] + column, *u = REALS(4) + m[3];
        real sum = 0;
        for (count r = 0; r < rows; r++) sum += u[r] * w[r * columns];
        REALS(5)[i] = sum;
    }
}

/* A block a matrix. -; table; epsilon; W^T u; vectors: v of length one */
BLOCK_KERNEL(spectral_v)(Words words) {
    const long long *m = ROW(blockIdx.x);
    const count columns = m[2];
    const real *x = REALS(3) + m[6];
    double sum = 0;
    for (count i = threadIdx.x; i < columns; i += blockDim.x) sum += (double)x[i] * x[i];
    const double norm = sqrt(block_sum(sum)), floor = VALUE(2);
    const real inverse = (real)(1 / (norm > floor ? norm : floor));
    for (count i = threadIdx.x; i < columns; i += blockDim.x) REALS(4)[m[4] + i] = x[i] * inverse;
}

/* A block a row of all. -; table, matrices; parameters; v's vectors; output, W v at the rows of each */
BLOCK_KERNEL(spectral_times)(Words words) {
    const long long *m = ROW(matrix_of(ROW(0), SIZE(2), 5, blockIdx.x));
    const count columns = m[2], row = blockIdx.x - m[5];
    const real *w = REALS(3) + m[0] + (unsigned long long)row * columns, *v = REALS(4) + m[4];
    double sum = 0;
    for (count i = threadIdx.x; i < columns; i += blockDim.x) sum += (double)w[i] * v[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) REALS(5)[blockIdx.x] = (real)sum;
}

/* A block a matrix. -; table; epsilon; W v; vectors, whose u becomes W v of length one if it is iterated; 1/sigma at its place;
   whether it is iterated; buffers, which take u and v, or null */
BLOCK_KERNEL(spectral_u)(Words words) {
    const long long *m = ROW(blockIdx.x);
    const count rows = m[1], columns = m[2];
    const real *x = REALS(3) + m[5];
    real *u = REALS(4) + m[3], *v = REALS(4) + m[4], *moved = REALS(7);
    const bool iterated = SIZE(6) != 0;
    double sum = 0;
    for (count i = threadIdx.x; i < rows; i += blockDim.x) sum += (double)x[i] * x[i];
    const double norm = sqrt(block_sum(sum)), floor = VALUE(2);
    const real inverse = (real)(1 / (norm > floor ? norm : floor));
    double sigma = 0;
    for (count i = threadIdx.x; i < rows; i += blockDim.x) {
        if (iterated) u[i] = x[i] * inverse;
        if (moved) moved[m[3] + i] = u[i];
        sigma += (double)u[i] * x[i];
    }
    if (moved) for (count i = threadIdx.x; i < columns; i += blockDim.x) moved[m[4] + i] = v[i];
    sigma = block_sum(sigma);
    if (threadIdx.x == 0) REALS(5)[blockIdx.x] = (real)(1 / sigma);
}

/* elements of all; table, matrices; parameters; 1/sigma of each; output, of the parameters' places */
KERNEL(spectral_divide)(Words words) {
    EACH(i, SIZE(0)) {
        const count k = matrix_of(ROW(0), SIZE(2), 7, i);
        const unsigned long long at = ROW(k)[0] + (i - ROW(k)[7]);
        REALS(5)[at] = REALS(3)[at] * REALS(4)[k];
    }
}

/* elements [rows, columns]; gradient, which it is added to; g; columns; u, v, 1/sigma, <g, W/sigma> */
KERNEL(spectral_pull_back)(Words words) {
    const count columns = SIZE(3);
    const real inverse = REALS(6)[0], inner = REALS(7)[0];
    EACH(i, SIZE(0)) {
        REALS(1)[i] += (REALS(2)[i] - REALS(4)[i / columns] * inner * REALS(5)[i % columns]) * inverse;
    }
}
