typedef unsigned int count;
struct Words { unsigned long long word[16]; };
union Bits { unsigned long long word; double value; };

#define SIZE(k) ((count)words.word[k])
#define REALS(k) ((real *)words.word[k])
#define DOUBLES(k) ((double *)words.word[k])
#define HALVES(k) ((unsigned short *)words.word[k])
#define COUNTERS(k) ((count *)words.word[k])
#define VALUE(k) value_of(words.word[k])
#define EACH(i, n) for (count i = blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += gridDim.x * blockDim.x)

__device__ double value_of(unsigned long long word) {
    Bits bits;
    bits.word = word;
    return bits.value;
}

/* bfloat16, rounded to the nearest, ties to even */
__device__ unsigned short to_half(real value) {
    union { float value; count bits; } v;
    v.value = (float)value;
    if ((v.bits & 0x7fffffff) > 0x7f800000) return (unsigned short)(v.bits >> 16 | 64);
    return (unsigned short)((v.bits + 0x7fff + (v.bits >> 16 & 1)) >> 16);
}

__device__ real of_half(unsigned short half) {
    union { float value; count bits; } v;
    v.bits = (count)half << 16;
    return (real)v.value;
}

/* Sum over the 256 threads of a block, for all of them. */
__device__ double block_sum(double value) {
    __shared__ double sums[256];
    __syncthreads();
    sums[threadIdx.x] = value;
    __syncthreads();
    for (count half = 128; half > 0; half /= 2) {
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        __syncthreads();
    }
    return sums[0];
}

/* For all threads of a block, whether it is the last of so many that come here; then it sees what the others wrote. */
__device__ bool is_last(count *done, count blocks) {
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0 && threadIdx.y == 0) {
        last = atomicAdd(done, 1u) == blocks - 1;
        if (last) *done = 0;
    }
    __syncthreads();
    __threadfence();
    return last;
}
