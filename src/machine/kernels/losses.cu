/* elements [N]; output [4, N]: f-hat, its derivatives by f and by the norm, the norm; f; squared norm; slope and offset of
   a = slope*f + offset: f-hat = a/(norm + |a|) */
KERNEL(bounded_ratio)(Words words) {
    const count n = SIZE(0);
    const real slope = (real)VALUE(4), offset = (real)VALUE(5);
    real *out = REALS(1);
    EACH(i, n) {
        const real a = slope * REALS(2)[i] + offset, norm = sqrt(REALS(3)[i]);
        const real denominator = norm + (a < 0 ? -a : a), square = denominator * denominator;
        out[i] = a / denominator;
        out[n + i] = slope * (norm / square);
        out[2 * n + i] = -(a / square);
        out[3 * n + i] = norm;
    }
}

/* ln(1 + e^x), and its derivative */
__device__ real softplus(real x) { return (x > 0 ? x : (real)0) + log(exp(x > 0 ? -x : x) + 1); }
__device__ real sigmoid(real x) { return 1 / (1 + exp(-x)); }

/* One block. Images, real ones first; output [N]: derivatives; f-hat; real images; loss: 0 hinge, 1 cross-entropy, 2 Wasserstein;
   whether it is the generator's; output [1]: mean over the real ones plus mean over the others */
BLOCK_KERNEL(loss)(Words words) {
    const count n = SIZE(0), reals = SIZE(3), loss = SIZE(4);
    const bool generator = SIZE(5) != 0;
    double of_real = 0, of_fake = 0;
    for (count i = threadIdx.x; i < n; i += blockDim.x) {
        const bool real_image = i < reals, minus = real_image || generator;
        const real x = minus ? -REALS(2)[i] : REALS(2)[i];
        real value = x, derivative = 1;
        if (loss == 1) value = softplus(x), derivative = sigmoid(x);
        if (loss == 0 && !generator) value = 1 + x > 0 ? 1 + x : (real)0, derivative = 1 + x > 0 ? 1 : 0;
        const real images = (real)(real_image ? reals : n - reals);
        REALS(1)[i] = (minus ? -derivative : derivative) / images;
        (real_image ? of_real : of_fake) += value;
    }
    of_real = block_sum(of_real);
    of_fake = block_sum(of_fake);
    if (threadIdx.x == 0) {
        REALS(6)[0] = (real)((reals > 0 ? of_real / reals : 0) + (n > reals ? of_fake / (n - reals) : 0));
    }
}

/* elements [N]; output [2, N]: derivative by f, and by the gradient as a multiple of it; derivative by f-hat; f-hat's derivatives by f
   and by the norm; the norm, which counts as no less than the smallest normal number */
KERNEL(cotangents)(Words words) {
    const count n = SIZE(0);
    EACH(i, n) {
        const real derivative = REALS(2)[i], norm = REALS(5)[i], least = (real)1.17549435e-38f;
        REALS(1)[i] = derivative * REALS(3)[i];
        REALS(1)[n + i] = derivative * REALS(4)[i] / (norm > least ? norm : least);
    }
}

/* One block. images; squared norms; output [1]: mean of their roots */
BLOCK_KERNEL(mean_of_roots)(Words words) {
    const count n = SIZE(0);
    double sum = 0;
    for (count i = threadIdx.x; i < n; i += blockDim.x) sum += sqrt(REALS(1)[i]);
    sum = block_sum(sum);
    if (threadIdx.x == 0) REALS(2)[0] = (real)(sum / n);
}

/* One block. images; squared norms; centre c, weight; output [N]: derivative of weight * mean (norm - c)^2 by the gradient, as a
   multiple of it; outputs [1]: weight * mean (norm - c)^2, mean norm */
BLOCK_KERNEL(penalty)(Words words) {
    const count n = SIZE(0);
    const real centre = (real)VALUE(2), weight = (real)VALUE(3), least = (real)1.17549435e-38f;
    double squares = 0, norms = 0;
    for (count i = threadIdx.x; i < n; i += blockDim.x) {
        const real norm = sqrt(REALS(1)[i]), off = norm - centre;
        REALS(4)[i] = off * 2 * (weight / (real)n) / (norm > least ? norm : least);
        squares += (double)off * off;
        norms += norm;
    }
    squares = block_sum(squares);
    norms = block_sum(norms);
    if (threadIdx.x == 0) {
        REALS(5)[0] = (real)(weight * (squares / n));
        REALS(6)[0] = (real)(norms / n);
    }
}

/* One block. images n; f-hat of them augmented; f-hat of all, whose first n they are; derivative of the loss by all, [N]; N; weight;
   outputs: [n] derivative of weight * mean difference^2 by those of the augmented; [N] that of the loss less it; [1] its value */
BLOCK_KERNEL(consistency)(Words words) {
    const count n = SIZE(0), all = SIZE(4);
    const real weight = (real)VALUE(5), pulling = 2 * weight / (real)n;
    double squares = 0;
    for (count i = threadIdx.x; i < all; i += blockDim.x) {
        real pull = 0;
        if (i < n) {
            const real difference = REALS(1)[i] - REALS(2)[i];
            pull = difference * pulling;
            squares += (double)difference * difference;
            REALS(6)[i] = pull;
        }
        REALS(7)[i] = REALS(3)[i] - pull;
    }
    squares = block_sum(squares);
    if (threadIdx.x == 0) REALS(8)[0] = (real)(weight * (squares / n));
}
