/* Scale and shift of one column of G groups from mean and variance, into coefficients [G + 1, 2, column]: scale and shift of each
   group, then mean and inverse deviation. gamma, beta [G, column]; what is added to gamma. */
__device__ void normalising(
    real *out, count columns, count column, count groups, const real *gamma, const real *beta, real more,
    real mean, real variance, real epsilon
) {
    const real inverse = 1 / sqrt(variance + epsilon);
    for (count group = 0; group < groups; group++) {
        const count i = group * columns + column;
        const real scale = (gamma[i] + more) * inverse;
        out[2 * group * columns + column] = scale;
        out[(2 * group + 1) * columns + column] = beta[i] - scale * mean;
    }
    out[2 * groups * columns + column] = mean;
    out[(2 * groups + 1) * columns + column] = inverse;
}

/* coefficients; gamma, beta, groups, more; epsilon; running mean and variance or null, momentum */
COLUMN_SUMS(batch_norm_moments,
    { first += x; second += x * x; },
    ,
    {
        const double mean = first / rows;
        const double squares = second / rows - mean * mean;
        const double variance = squares < 0 ? 0 : squares;
        if (words.word[11]) {
            const double moved = VALUE(13);
            const double unbiased = (double)rows / (rows > 1 ? rows - 1 : 1);
            REALS(11)[column] = (real)((1 - moved) * REALS(11)[column] + moved * (double)(real)mean);
            REALS(12)[column] = (real)((1 - moved) * REALS(12)[column] + moved * unbiased * (double)(real)variance);
        }
        normalising(REALS(5), columns, column, SIZE(8), REALS(6), REALS(7), (real)VALUE(9), (real)mean, (real)variance,
            (real)VALUE(10));
    },
    )

/* columns; coefficients; gamma, beta, groups, more; epsilon; mean, variance */
KERNEL(batch_norm_given)(Words words) {
    EACH(column, SIZE(0)) {
        normalising(REALS(1), SIZE(0), column, SIZE(4), REALS(2), REALS(3), (real)VALUE(5), REALS(7)[column],
            REALS(8)[column], (real)VALUE(6));
    }
}

/* output [2, column]: mean, variance */
COLUMN_SUMS(channel_moments,
    { first += x; second += x * x; },
    ,
    {
        const double mean = first / rows;
        const double variance = second / rows - mean * mean;
        REALS(5)[column] = (real)mean;
        REALS(5)[columns + column] = (real)(variance < 0 ? 0 : variance);
    },
    )

/* elements; output; x, coefficients, channels, rows a group; whether the output is in bfloat16 */
KERNEL(batch_norm_relu)(Words words) {
    const bool to_halves = SIZE(6) != 0;
    const real *x = REALS(2);
    const count c = SIZE(4), rows = SIZE(5);
    EACH(i, SIZE(0)) {
        const real *co = REALS(3) + 2 * (i / c / rows) * c + i % c;
        const real y = x[i] * co[0] + co[c], positive = y > 0 ? y : 0 * y;
        if (to_halves) HALVES(1)[i] = to_half(positive);
        else REALS(1)[i] = positive;
    }
}

/* dy, coefficients; gradients of gamma and beta [G, column], whether they are added; what mean and deviation pass back
   [2, column]. Sums of the gradient where the ReLU lets it pass, and of it times the normalised input. */
COLUMN_SUMS(batch_norm_relu_grad,
    {
        const real *co = REALS(6) + column;
        const bool passes = xs[i] * co[2 * group * columns] + co[(2 * group + 1) * columns] > 0;
        const double d = passes ? (double)REALS(5)[i] : 0.0;
        first += d;
        second += d * (x - (double)co[2 * groups * columns]) * (double)co[(2 * groups + 1) * columns];
    },
    double by_mean = 0; double by_deviation = 0;,
    {
        const count i = group * columns + column;
        const bool add = SIZE(9) != 0;
        const double scale = REALS(6)[2 * group * columns + column];
        REALS(7)[i] = (add ? REALS(7)[i] : (real)0) + (real)second;
        REALS(8)[i] = (add ? REALS(8)[i] : (real)0) + (real)first;
        by_mean += scale * first;
        by_deviation += scale * second;
    },
    {
        const double all = (double)rows * groups;
        REALS(10)[column] = (real)(by_mean / all);
        REALS(10)[columns + column] = (real)(by_deviation / all);
    })

/* elements; output; x, coefficients, channels, rows a group; dy, groups; what mean and deviation pass back; whether the output is in
   bfloat16 */
KERNEL(batch_norm_relu_input_grad)(Words words) {
    const bool to_halves = SIZE(9) != 0;
    const real *x = REALS(2), *dy = REALS(6);
    const count c = SIZE(4), rows = SIZE(5), groups = SIZE(7);
    EACH(i, SIZE(0)) {
        const real *co = REALS(3) + 2 * (i / c / rows) * c + i % c;
        const real *of_all = REALS(3) + 2 * groups * c + i % c, *back = REALS(8) + i % c;
        const real d = x[i] * co[0] + co[c] > 0 ? dy[i] : (real)0;
        const real dx = co[0] * d - back[0] - (x[i] - of_all[0]) * of_all[c] * back[c];
        if (to_halves) HALVES(1)[i] = to_half(dx);
        else REALS(1)[i] = dx;
    }
}
