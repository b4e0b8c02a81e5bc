#include <cmath>
#include <cstddef>
#include <ucontext.h>
#include <vector>
using std::exp;
using std::log;
using std::sqrt;
using std::tanh;
struct Place { unsigned x, y, z; };
static thread_local Place threadIdx, blockIdx, blockDim, gridDim;
static thread_local ucontext_t scheduler, *current;
#define __device__ static
#define __shared__ static thread_local
#define KERNEL(name) extern "C" void k_##name
#define BLOCK_KERNEL(name) extern "C" { char meets_##name = 1; } extern "C" void k_##name
__attribute__((noinline)) static void __syncthreads() { swapcontext(current, &scheduler); }
static void __threadfence() {}
static unsigned atomicAdd(unsigned *at, unsigned more) {
    const unsigned before = *at;
    *at += more;
    return before;
}

SOURCE_GOES_HERE

typedef void (*Kernel)(Words);

static void place(const unsigned *grid, const unsigned *block) {
    gridDim = {grid[0], grid[1], grid[2]}, blockDim = {block[0], block[1], 1};
}

static void of_block(const unsigned *grid, unsigned b) {
    blockIdx = {b % grid[0], b / grid[0] % grid[1], b / grid[0] / grid[1]};
}

/* A kernel whose threads never meet. */
extern "C" void run(Kernel kernel, const unsigned *grid, const unsigned *block, const Words *words) {
    place(grid, block);
    for (unsigned b = 0; b < grid[0] * grid[1] * grid[2]; b++) {
        of_block(grid, b);
        for (unsigned t = 0; t < block[0] * block[1]; t++) {
            threadIdx = {t % block[0], t / block[0], 0};
            kernel(*words);
        }
    }
}

static thread_local Kernel running;
static thread_local const Words *given;
static thread_local char *ended;
static void thread_of_block() {
    running(*given);
    *ended = 1;
}

/* A kernel whose threads meet at barriers: each runs to the next one in turn. */
extern "C" void run_meeting(Kernel kernel, const unsigned *grid, const unsigned *block, const Words *words) {
    const unsigned threads = block[0] * block[1];
    const size_t stack = 64 << 10;
    std::vector<char> stacks(threads * stack);
    std::vector<ucontext_t> contexts(threads);
    running = kernel, given = words;
    place(grid, block);
    for (unsigned b = 0; b < grid[0] * grid[1] * grid[2]; b++) {
        of_block(grid, b);
        std::vector<char> done(threads, 0);
        for (unsigned t = 0; t < threads; t++) {
            getcontext(&contexts[t]);
            contexts[t].uc_stack.ss_sp = &stacks[t * stack];
            contexts[t].uc_stack.ss_size = stack;
            contexts[t].uc_link = &scheduler;
            makecontext(&contexts[t], thread_of_block, 0);
        }
        for (bool left = true; left;) {
            left = false;
            for (unsigned t = 0; t < threads; t++) {
                if (done[t]) continue;
                threadIdx = {t % block[0], t / block[0], 0};
                current = &contexts[t], ended = &done[t];
                swapcontext(&scheduler, current);
                left |= !done[t];
            }
        }
    }
}
