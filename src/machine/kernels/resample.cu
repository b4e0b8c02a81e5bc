/* elements; output [N, 2h, 2w, C]; x, columns of the output, channels; scale */
KERNEL(upsample2)(Words words) {
    const count wide = SIZE(3), c = SIZE(4);
    const real scale = (real)VALUE(5);
    EACH(i, SIZE(0)) {
        const count column = i / c % wide, row = i / c / wide;
        REALS(1)[i] = scale * REALS(2)[(row / 2 * (wide / 2) + column / 2) * c + i % c];
    }
}

/* elements; output [N, h/2, w/2, C]; x, columns of the output, channels; scale */
KERNEL(avg_pool2)(Words words) {
    const count w = SIZE(3), c = SIZE(4);
    const real scale = (real)VALUE(5);
    EACH(i, SIZE(0)) {
        const count column = i / c % w, row = i / c / w;
        const real *upper = REALS(2) + (row * 2 * w + column) * 2 * c + i % c, *lower = upper + 2 * w * c;
        REALS(1)[i] = scale * ((upper[0] + upper[c]) + (lower[0] + lower[c]));
    }
}

/* elements; output [N, 2h, 2w, C]; x, its rows and columns, channels; scale: three times the near pixel and the far one, along each axis */
KERNEL(fir_up2)(Words words) {
    const count h = SIZE(3), w = SIZE(4), c = SIZE(5);
    const real scale = (real)VALUE(6);
    EACH(i, SIZE(0)) {
        const count column = i / c % (2 * w), row = i / c / (2 * w) % (2 * h), image = i / c / (2 * w) / (2 * h);
        real sum = 0;
        for (count down = 0; down < 2; down++) {
            /* One less than the rows and columns that are read, which may lie before the first. */
            const count y = (row + 1) / 2 + down, near_y = row % 2 != down;
            if (y == 0 || y > h) continue;
            for (count right = 0; right < 2; right++) {
                const count x = (column + 1) / 2 + right, near_x = column % 2 != right;
                if (x == 0 || x > w) continue;
                sum += (near_y ? 3 : 1) * (near_x ? 3 : 1) * REALS(2)[((image * h + y - 1) * w + x - 1) * c + i % c];
            }
        }
        REALS(1)[i] = scale * sum;
    }
}

/* elements; output [N, h/2, w/2, C]; x, rows and columns of the output, channels; scale */
KERNEL(fir_down2)(Words words) {
    const count h = SIZE(3), w = SIZE(4), c = SIZE(5);
    const real scale = (real)VALUE(6);
    EACH(i, SIZE(0)) {
        const count column = i / c % w, row = i / c / w % h, image = i / c / w / h;
        real sum = 0;
        for (count down = 0; down < 4; down++) {
            const count y = 2 * row + down;
            if (y == 0 || y > 2 * h) continue;
            for (count right = 0; right < 4; right++) {
                const count x = 2 * column + right;
                if (x == 0 || x > 2 * w) continue;
                const real weight = (real)((down % 3 ? 3 : 1) * (right % 3 ? 3 : 1));
                sum += weight * REALS(2)[((image * 2 * h + y - 1) * 2 * w + x - 1) * c + i % c];
            }
        }
        REALS(1)[i] = scale * sum;
    }
}

/* elements [N, C]; output; x, pixels, channels; scale */
KERNEL(global_pool)(Words words) {
    const count pixels = SIZE(3), c = SIZE(4);
    const real scale = (real)VALUE(5);
    EACH(i, SIZE(0)) {
        const real *x = REALS(2) + i / c * pixels * c + i % c;
        real sum = 0;
        for (count k = 0; k < pixels; k++) sum += x[k * c];
        REALS(1)[i] = sum * scale;
    }
}

/* elements; output; dy, pixels, channels; scale */
KERNEL(global_pool_grad)(Words words) {
    const count pixels = SIZE(3), c = SIZE(4);
    const real scale = (real)VALUE(5);
    EACH(i, SIZE(0)) REALS(1)[i] = scale * REALS(2)[i / c / pixels * c + i % c];
}

/* elements [N, H', W', C]; output; x [N, H, W, C]; channels; rows, columns; those of the output; stride, padding;
   whether the mean is taken */
KERNEL(pool3)(Words words) {
    const real *x = REALS(2);
    const count c = SIZE(3), h = SIZE(4), w = SIZE(5), out_h = SIZE(6), out_w = SIZE(7);
    const count stride = SIZE(8), padding = SIZE(9);
    const bool mean = SIZE(10) != 0;
    EACH(i, SIZE(0)) {
        const count top = i / c / out_w % out_h * stride, left = i / c % out_w * stride, image = i / c / out_w / out_h;
        const count y0 = top > padding ? top - padding : 0, x0 = left > padding ? left - padding : 0;
        const count y1 = top + 3 - padding < h ? top + 3 - padding : h, x1 = left + 3 - padding < w ? left + 3 - padding : w;
        real result = 0;
        for (count yy = y0; yy < y1; yy++) {
            for (count xx = x0; xx < x1; xx++) {
                const real v = x[((image * h + yy) * w + xx) * c + i % c];
                const bool first = yy == y0 && xx == x0;
                result = first ? v : mean ? result + v : v > result ? v : result;
            }
        }
        REALS(1)[i] = mean ? result * (real)(1.0 / (double)((y1 - y0) * (x1 - x0))) : result;
    }
}

/* Of 3x3 taps the sum of four copies, each shifted by 0 or 1 in both directions. elements; output [A, 4, 4, B]; w [A, 3, 3, B] or,
   turned, [B, 3, 3, A] with the taps turned round; scale; A, B; whether it is turned */
KERNEL(spread_kernel)(Words words) {
    const real scale = (real)VALUE(3);
    const count as = SIZE(4), bs = SIZE(5);
    const bool turned = SIZE(6) != 0;
    EACH(i, SIZE(0)) {
        const count b = i % bs, x = i / bs % 4, y = i / bs / 4 % 4, a = i / bs / 16;
        real sum = 0;
        for (count left = 0; left < 2; left++) {
            for (count up = 0; up < 2; up++) {
                if (y < up || y - up >= 3 || x < left || x - left >= 3) continue;
                const count tap = (y - up) * 3 + x - left;
                sum += turned ? REALS(2)[(b * 9 + 8 - tap) * as + a] : REALS(2)[(a * 9 + tap) * bs + b];
            }
        }
        REALS(1)[i] = scale * sum;
    }
}

/* The transpose of spread_kernel. elements; output [A, 3, 3, B] or, turned, [B, 3, 3, A]; w [A, 4, 4, B]; scale; A, B; whether it is
   turned; whether it is added */
KERNEL(gather_kernel)(Words words) {
    const real scale = (real)VALUE(3);
    const count as = SIZE(4), bs = SIZE(5);
    const bool turned = SIZE(6) != 0, add = SIZE(7) != 0;
    EACH(i, SIZE(0)) {
        const count last = turned ? as : bs, of = i / last / 9, tap = turned ? 8 - i / last % 9 : i / last % 9;
        const count a = turned ? i % last : of, b = turned ? of : i % last;
        const real *w = REALS(2) + ((a * 4 + tap / 3) * 4 + tap % 3) * bs + b;
        const real sum = scale * ((w[0] + w[4 * bs]) + (w[bs] + w[5 * bs]));
        REALS(1)[i] = (add ? REALS(1)[i] : (real)0) + sum;
    }
}
