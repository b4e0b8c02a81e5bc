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

/* One block. Images, real ones first; output [N]: derivatives; f-hat; real images; loss: 0 hinge, 1 cross-entropy, 2 Wasserstein, 3 the
   relativistic one of pairs; whether it is the generator's; output [1]: mean over the real ones plus mean over the others; of pairs, for
   the generator f-hat of the real images */
BLOCK_KERNEL(loss)(Words words) {
    const count n = SIZE(0), reals = SIZE(3), loss = SIZE(4);
    const bool generator = SIZE(5) != 0;
    double of_real = 0, of_fake = 0;
    if (loss == 3) {
        const count pairs = generator ? n : reals;
        const real *theirs = generator ? REALS(7) : REALS(2) + pairs;
        for (count i = threadIdx.x; i < pairs; i += blockDim.x) {
            const real x = theirs[i] - REALS(2)[i], derivative = sigmoid(x) / (real)pairs;
            REALS(1)[i] = -derivative;
            if (!generator) REALS(1)[pairs + i] = derivative;
            of_real += softplus(x);
        }
        of_real = block_sum(of_real);
        if (threadIdx.x == 0) REALS(6)[0] = (real)(of_real / pairs);
        return;
    }
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

/* elements [N]; output [3, N]: derivative by f, by the gradient as a multiple of it, and what is added to each entry of that; derivative
   by f-hat; f-hat's derivatives by f and by the norm; the norm, which counts as no less than the smallest normal number; target */
KERNEL(cotangents)(Words words) {
    const count n = SIZE(0);
    EACH(i, n) {
        const real derivative = REALS(2)[i], norm = REALS(5)[i], least = (real)1.17549435e-38f;
        const real scale = derivative * REALS(4)[i] / (norm > least ? norm : least);
        REALS(1)[i] = derivative * REALS(3)[i];
        REALS(1)[n + i] = scale;
        REALS(1)[2 * n + i] = -scale * (real)VALUE(6);
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

/* One block. images n; real ones r; whether the others are penalised too; gamma [1]; derivative of the loss by f-hat; f; squared norms of
   the gradient g; n of f-hat = a/(n + |a|) or null for f-hat = f; slope and offset of a = slope*f + offset; target t; output [3, n]:
   derivatives of loss and penalty gamma/2*E|by_f*g|^2 by f, by g as a multiple of it, and what is added to each entry; outputs [1]:
   penalty, mean norm */
BLOCK_KERNEL(zero_centred)(Words words) {
    const count n = SIZE(0), reals = SIZE(1);
    const bool both = SIZE(2) != 0;
    const real gamma = REALS(3)[0], slope = (real)VALUE(8), offset = (real)VALUE(9), target = (real)VALUE(10);
    const real *ns = REALS(7), least = (real)1.17549435e-38f;
    real *out = REALS(11);
    double value = 0, norms = 0;
    for (count i = threadIdx.x; i < n; i += blockDim.x) {
        const bool real_image = i < reals;
        const real weight = real_image || both ? gamma / (real)(real_image ? reals : n - reals) : (real)0;
        const real d = REALS(4)[i], q = REALS(6)[i];
        real by_f = 1, by_norm = 0, by_ff = 0, by_f_norm = 0, norm = 1;
        if (ns) {
            norm = ns[i];
            const real a = slope * REALS(5)[i] + offset, size = a < 0 ? -a : a, under = norm + size;
            by_f = slope * norm / (under * under);
            by_norm = -a / (under * under);
            by_ff = (a < 0 ? 2 : -2) * norm / (under * under * under);
            by_f_norm = slope * (size - norm) / (under * under * under);
        }
        const real pull = (d * by_norm + weight * by_f * by_f_norm * q) / (norm > least ? norm : least);
        out[i] = d * by_f + weight * by_f * by_ff * q;
        out[n + i] = weight * by_f * by_f + pull;
        out[2 * n + i] = -pull * target;
        value += (double)(weight / 2 * by_f * by_f) * q;
        norms += sqrt(q);
    }
    value = block_sum(value);
    norms = block_sum(norms);
    if (threadIdx.x == 0) {
        REALS(12)[0] = (real)value;
        REALS(13)[0] = (real)(norms / n);
    }
}
