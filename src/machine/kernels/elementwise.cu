/* elements; output; operands x, a, b (absent: null); values p, q, r */
#define POINTWISE(name, expression) \
    KERNEL(name)(Words words) { \
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
POINTWISE(gelu, x * (real)(0.5 * erfc((double)x * -0.70710678118654752)))
POINTWISE(quick_gelu, x / (1 + exp((real)-1.702 * x)))
POINTWISE(add, x + a)
POINTWISE(add_assign, x + a)
POINTWISE(copy, a)
POINTWISE(clip, x > p ? p : x < -p ? -p : x)

/* elements; output; value */
KERNEL(fill)(Words words) {
    const real value = (real)VALUE(2);
    EACH(i, SIZE(0)) REALS(1)[i] = value;
}

/* elements; output; a, its elements; b */
KERNEL(join)(Words words) {
    const count of_a = SIZE(3);
    EACH(i, SIZE(0)) REALS(1)[i] = i < of_a ? REALS(2)[i] : REALS(4)[i - of_a];
}

/* elements; output [N, A + B]; a, A; b, B */
KERNEL(join_columns)(Words words) {
    const count of_a = SIZE(3), of_b = SIZE(5);
    EACH(i, SIZE(0)) {
        const count row = i / (of_a + of_b), column = i % (of_a + of_b);
        REALS(1)[i] = column < of_a ? REALS(2)[row * of_a + column] : REALS(4)[row * of_b + column - of_a];
    }
}

/* elements; output [N, B]; x, its columns, B */
KERNEL(last_columns)(Words words) {
    const count columns = SIZE(3), last = SIZE(4);
    EACH(i, SIZE(0)) REALS(1)[i] = REALS(2)[(i / last + 1) * columns - last + i % last];
}

/* elements; output in bfloat16; x */
KERNEL(to_bf16)(Words words) {
    EACH(i, SIZE(0)) HALVES(1)[i] = to_half(REALS(2)[i]);
}

/* elements; output; x in bfloat16; whether it is added */
KERNEL(of_bf16)(Words words) {
    const bool add = SIZE(3) != 0;
    EACH(i, SIZE(0)) REALS(1)[i] = (add ? REALS(1)[i] : (real)0) + of_half(HALVES(2)[i]);
}

/* elements; parameters; gradient; moments, both; the rate over the first moment's correction, the root of the second's, its decay and what that leaves;
   decay of the first moment and what it leaves; epsilon */
KERNEL(adam)(Words words) {
    real *xs = REALS(1), *ms = REALS(3), *vs = REALS(4);
    const real rate = REALS(5)[0], correction = REALS(5)[1], b2 = REALS(5)[2], rest2 = REALS(5)[3];
    const real b = (real)VALUE(6), rest = (real)VALUE(7), epsilon = (real)VALUE(8);
    EACH(i, SIZE(0)) {
        const real g = REALS(2)[i], m = b * ms[i] + rest * g, v = b2 * vs[i] + rest2 * g * g;
        ms[i] = m;
        vs[i] = v;
        xs[i] = xs[i] - rate * m / (sqrt(v) / correction + epsilon);
    }
}

/* elements; average; x; the decay and what it leaves */
KERNEL(moving_average)(Words words) {
    const real decay = REALS(3)[0], rest = REALS(3)[1];
    EACH(i, SIZE(0)) REALS(1)[i] = decay * REALS(1)[i] + rest * REALS(2)[i];
}

/* elements; output; x, in bfloat16 or not; bias or null, channels; c or null, elements an image; y or null (x itself); alpha: 1
   is no slope; whether y, and whether the output is in bfloat16. x + c*bias, times the slope of a leaky ReLU where its output was y */
KERNEL(finish)(Words words) {
    real *out = REALS(1);
    const bool half = SIZE(3) != 0, y_is_half = SIZE(10) != 0, to_halves = SIZE(11) != 0;
    const real *bias = REALS(4), *c = REALS(6), *y = REALS(8);
    const count channels = SIZE(5), image = SIZE(7);
    const real alpha = (real)VALUE(9);
    EACH(i, SIZE(0)) {
        real v = half ? of_half(HALVES(2)[i]) : REALS(2)[i];
        if (bias) v += c ? c[i / image] * bias[i % channels] : bias[i % channels];
        const real sign = !y ? v : y_is_half ? of_half(HALVES(8)[i]) : y[i];
        v = sign > 0 ? v : alpha * v;
        if (to_halves) HALVES(1)[i] = to_half(v);
        else out[i] = v;
    }
}

/* elements; output; x, of the same type: bfloat16 or not; [outer, rows, columns, inner] -> [outer, columns, rows, inner] */
KERNEL(transpose)(Words words) {
    const bool half = SIZE(6) != 0;
    const count rows = SIZE(3), columns = SIZE(4), inner = SIZE(5);
    EACH(i, SIZE(0)) {
        const count k = i / inner, row = k % rows, column = k / rows % columns, outer = k / rows / columns;
        const count from = ((outer * rows + row) * columns + column) * inner + i % inner;
        if (half) HALVES(1)[i] = HALVES(2)[from];
        else REALS(1)[i] = REALS(2)[from];
    }
}

/* elements; output; x, s, elements an image: s*x */
KERNEL(scale_images)(Words words) {
    const count image = SIZE(4);
    EACH(i, SIZE(0)) REALS(1)[i] = REALS(3)[i / image] * REALS(2)[i];
}

/* elements; output; x, c, g, s, t, elements an image: c*x + s*g + t */
KERNEL(combine_images)(Words words) {
    const count image = SIZE(7);
    EACH(i, SIZE(0)) {
        const count n = i / image;
        REALS(1)[i] = REALS(3)[n] * REALS(2)[i] + (REALS(5)[n] * REALS(4)[i] + REALS(6)[n]);
    }
}

/* elements; output; a, b, weight of a; elements an image */
KERNEL(mix_images)(Words words) {
    const count image = SIZE(5);
    EACH(i, SIZE(0)) {
        const real weight = REALS(4)[i / image];
        REALS(1)[i] = weight * REALS(2)[i] + (1 - weight) * REALS(3)[i];
    }
}

/* elements; output; rows x, whether in single precision; what is taken off each row, its length */
KERNEL(centre_rows)(Words words) {
    const count columns = SIZE(5);
    EACH(i, SIZE(0)) {
        const double x = SIZE(3) ? (double)((const float *)words.word[2])[i] : DOUBLES(2)[i];
        DOUBLES(1)[i] = x - DOUBLES(4)[i % columns];
    }
}

/* elements [N]; output; x [N, classes]; labels, ones among zeros; classes */
KERNEL(select_class)(Words words) {
    const count classes = SIZE(4);
    EACH(i, SIZE(0)) {
        real sum = 0;
        for (count k = 0; k < classes; k++) sum += REALS(2)[i * classes + k] * REALS(3)[i * classes + k];
        REALS(1)[i] = sum;
    }
}
