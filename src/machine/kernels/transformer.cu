/* A block a vector. output; x; channels; gamma; beta; epsilon */
BLOCK_KERNEL(layer_norm)(Words words) {
    const count c = SIZE(2);
    const real *x = REALS(1) + (unsigned long long)blockIdx.x * c;
    real *out = REALS(0) + (unsigned long long)blockIdx.x * c;
    double sum = 0;
    for (count i = threadIdx.x; i < c; i += blockDim.x) sum += (double)x[i];
    const double mean = block_sum(sum) / c;
    sum = 0;
    for (count i = threadIdx.x; i < c; i += blockDim.x) sum += ((double)x[i] - mean) * ((double)x[i] - mean);
    const double scale = 1 / sqrt(block_sum(sum) / c + VALUE(5));
    for (count i = threadIdx.x; i < c; i += blockDim.x) out[i] = (real)(((double)x[i] - mean) * scale) * REALS(3)[i] + REALS(4)[i];
}

/* A block for 32 queries of a head of an image: its threads are 8 for each query, of which each sums 8 of the 64 channels. Keys and
   values come 16 at a time; sums are scaled anew where a larger score is met. output [N, queries, heads * 64]; queries, keys and values
   [N, tokens, 3 * heads * 64]; tokens; queries. Blocks: 32 queries, heads, images */
BLOCK_KERNEL(attention)(Words words) {
    __shared__ real keys[16][65], values[16][64], scores[32][17];
    const count tokens = SIZE(2), queries = SIZE(3), heads = gridDim.y;
    const count pitch = 3 * heads * 64, mine = threadIdx.x / 8, part = threadIdx.x % 8;
    const count query = blockIdx.x * 32 + mine;
    const bool asks = query < queries;
    const real *of_head = REALS(1) + (unsigned long long)blockIdx.z * tokens * pitch + blockIdx.y * 64;
    real q[64], sums[8], total = 0, largest = 0;
    for (count d = 0; d < 64; d++) q[d] = asks ? of_head[(unsigned long long)query * pitch + d] * (real)0.125 : (real)0;
    for (count d = 0; d < 8; d++) sums[d] = 0;
    for (count first = 0; first < tokens; first += 16) {
        const count some = tokens - first < 16 ? tokens - first : 16;
        __syncthreads();
        for (count i = threadIdx.x; i < some * 64; i += 256) {
            const real *row = of_head + (unsigned long long)(first + i / 64) * pitch + heads * 64 + i % 64;
            keys[i / 64][i % 64] = row[0];
            values[i / 64][i % 64] = row[heads * 64];
        }
        __syncthreads();
        for (count k = part; k < some; k += 8) {
            real score = 0;
            for (count d = 0; d < 64; d++) score += q[d] * keys[k][d];
            scores[mine][k] = score;
        }
        __syncthreads();
        real most = first ? largest : scores[mine][0];
        for (count k = 0; k < some; k++) most = scores[mine][k] > most ? scores[mine][k] : most;
        const real rescale = first ? exp(largest - most) : (real)0;
        largest = most;
        total *= rescale;
        for (count d = 0; d < 8; d++) sums[d] *= rescale;
        for (count k = 0; k < some; k++) {
            const real share = exp(scores[mine][k] - most);
            total += share;
            for (count d = 0; d < 8; d++) sums[d] += share * values[k][part + d * 8];
        }
    }
    if (!asks) return;
    real *out = REALS(0) + ((unsigned long long)blockIdx.z * queries + query) * heads * 64 + blockIdx.y * 64;
    for (count d = 0; d < 8; d++) out[part + d * 8] = sums[d] / total;
}
