#include <cmath>
#include <csetjmp>
#include <cstddef>
#include <ucontext.h>
#include <vector>
using std::erfc;
using std::exp;
using std::log;
using std::sqrt;
using std::tanh;
struct Place { unsigned x, y, z; };
static thread_local Place threadIdx, blockIdx, blockDim, gridDim;
static thread_local jmp_buf scheduler, *current;
#define __device__ static
#define __shared__ static thread_local
#define KERNEL(name) extern "C" void k_##name
#define BLOCK_KERNEL(name) extern "C" { char meets_##name = 1; } extern "C" void k_##name
__attribute__((noinline)) static void __syncthreads() {
    if (!_setjmp(*current)) _longjmp(scheduler, 1);
}
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
static thread_local bool *ended;
static void thread_of_block() {
    running(*given);
    *ended = true;
    _longjmp(scheduler, 1);
}

/* What a thread of a block needs; it begins on a stack of its own, and goes on where it met the others. */
struct Thread {
    ucontext_t start;
    jmp_buf at;
    bool begun, done;
    char stack[32 << 10];
};

static void go_on(Thread &thread) {
    current = &thread.at, ended = &thread.done;
    if (_setjmp(scheduler)) return;
    if (thread.begun) _longjmp(thread.at, 1);
    thread.begun = true;
    getcontext(&thread.start);
    thread.start.uc_stack.ss_sp = thread.stack;
    thread.start.uc_stack.ss_size = sizeof thread.stack;
    thread.start.uc_link = nullptr;
    makecontext(&thread.start, thread_of_block, 0);
    setcontext(&thread.start);
}

/* A kernel whose threads meet at barriers: each runs to the next one in turn. */
extern "C" void run_meeting(Kernel kernel, const unsigned *grid, const unsigned *block, const Words *words) {
    static thread_local std::vector<Thread> threads(256);
    const unsigned of_block_threads = block[0] * block[1];
    running = kernel, given = words;
    place(grid, block);
    for (unsigned b = 0; b < grid[0] * grid[1] * grid[2]; b++) {
        of_block(grid, b);
        for (unsigned t = 0; t < of_block_threads; t++) threads[t].begun = threads[t].done = false;
        for (bool left = true; left;) {
            left = false;
            for (unsigned t = 0; t < of_block_threads; t++) {
                if (threads[t].done) continue;
                threadIdx = {t % block[0], t / block[0], 0};
                go_on(threads[t]);
                left |= !threads[t].done;
            }
        }
    }
}
