/* elements [batch, side, side, 3]; output in [-1, 1]; bytes [images, side, side, 3]; places [batch, 4]: image, flipped,
   shift down, shift right; side */
KERNEL(place_images)(Words words) {
    const unsigned char *bytes = (const unsigned char *)words.word[2];
    const int side = (int)SIZE(4);
    EACH(i, SIZE(0)) {
        const count pixel = i / 3;
        const real *place = REALS(3) + pixel / (side * side) * 4;
        const int y = (int)(pixel / side % side) - (int)place[2], x = (int)(pixel % side) - (int)place[3];
        const bool inside = y >= 0 && y < side && x >= 0 && x < side;
        const int from = place[1] != 0 ? side - 1 - x : x;
        const unsigned long long at = (((unsigned long long)place[0] * side + y) * side + from) * 3 + i % 3;
        REALS(1)[i] = (real)((inside ? (float)bytes[at] : 0.0f) / 127.5f - 1.0f);
    }
}

/* Numbers in [-1, 1] to the nearest of 256 levels. elements; bytes; x; a number that becomes one if any x is not finite */
KERNEL(to_bytes)(Words words) {
    unsigned char *bytes = (unsigned char *)words.word[1];
    EACH(i, SIZE(0)) {
        const float x = (float)REALS(2)[i], level = roundf((x + 1.0f) * 127.5f);
        if (x - x != 0.0f) REALS(3)[0] = 1;
        bytes[i] = level > 0.0f ? (unsigned char)(level < 255.0f ? level : 255.0f) : 0;
    }
}

/* A byte of a sum of bytes times weights in units of 2^-22. */
__device__ count to_byte(long long sum) {
    sum = (sum + (1 << 21)) >> 22;
    return sum < 0 ? 0 : sum > 255 ? 255 : (count)sum;
}

/* A weighted sum of source pixels over columns, then rows. elements [N, side, side, 3]; output; bytes [N, h, w, 3], h, w; side; for rows
   and columns: a table of each output pixel's first source pixel, their number, their weights, and the length of its rows; levels: a,
   means and deviations of three channels, (sum / a - mean) / deviation; whether sums are clipped to 0..255; whether those of columns
   and of rows are rounded to bytes, the weights being in units of 2^-22 */
KERNEL(resize_images)(Words words) {
    const unsigned char *bytes = (const unsigned char *)words.word[2];
    const count h = SIZE(3), w = SIZE(4), side = SIZE(5);
    const real *levels = REALS(10);
    const bool clipped = SIZE(11) != 0, rounded = SIZE(12) != 0;
    EACH(i, SIZE(0)) {
        const count pixel = i / 3, channel = i % 3;
        const real *rows = REALS(6) + pixel / side % side * SIZE(7), *columns = REALS(8) + pixel % side * SIZE(9);
        const unsigned long long image = pixel / side / side;
        const unsigned char *from = bytes + ((image * h + (count)rows[0]) * w + (count)columns[0]) * 3 + channel;
        const count down = (count)rows[1], across = (count)columns[1];
        real sum = 0;
        long long whole = 0;
        for (count y = 0; y < down; y++) {
            real line = 0;
            long long whole_line = 0;
            for (count x = 0; x < across; x++) {
                const unsigned char byte = from[(y * w + x) * 3];
                if (rounded) whole_line += (long long)columns[2 + x] * byte;
                else line += columns[2 + x] * (real)byte;
            }
            if (rounded) whole += (long long)rows[2 + y] * to_byte(whole_line);
            else sum += rows[2 + y] * line;
        }
        if (rounded) sum = (real)to_byte(whole);
        if (clipped) sum = sum < 0 ? (real)0 : sum > 255 ? (real)255 : sum;
        REALS(1)[i] = (sum / levels[0] - levels[1 + channel]) / levels[4 + channel];
    }
}

/* The next row of a table that is taken row by row: its first number is that of the row, and one more afterwards. elements of a row;
   output; table, whose rows begin after `header` numbers; counters; header */
BLOCK_KERNEL(take_row)(Words words) {
    real *table = REALS(2);
    const real *row = table + SIZE(4) + (unsigned long long)table[0] * SIZE(0);
    EACH(i, SIZE(0)) REALS(1)[i] = row[i];
    if (is_last(COUNTERS(3), gridDim.x) && threadIdx.x == 0) table[0] += 1;
}

/* Up to 12 numbers (absent: zero) into a row of a table, that of the row taken last from another table or, without one, the first.
   numbers; table; other table; the numbers */
KERNEL(put_row)(Words words) {
    const count n = SIZE(0), row = words.word[2] ? (count)REALS(2)[0] - 1 : 0;
    EACH(k, n) REALS(1)[row * n + k] = words.word[3 + k] ? REALS(3 + k)[0] : (real)0;
}

/* An image's numbers: mirrored, quarter turns, shift to the right and down, 3 rows of 4 of a colour matrix, black columns and rows */
__device__ bool augment_is_black(const real *by, count x, count y) {
    return x >= (count)by[16] && x < (count)by[17] && y >= (count)by[18] && y < (count)by[19];
}

/* The place before turning and mirroring of the place x, y, which is the image's own */
__device__ count augment_turned(const real *by, count x, count y, count side) {
    const count turns = (count)by[1], last = side - 1;
    count a = x, b = y;
    if (turns == 1) a = last - y, b = x;
    if (turns == 2) a = last - x, b = last - y;
    if (turns == 3) a = y, b = last - x;
    return b * side + (by[0] != 0 ? last - a : a);
}

/* elements; output [N, side, side, 3]; x; numbers [N, 20]; side; whether colours are added to */
KERNEL(augment)(Words words) {
    const count side = SIZE(4);
    const bool adds = SIZE(5) != 0;
    EACH(i, SIZE(0)) {
        const count channel = i % 3, x = i / 3 % side, y = i / 3 / side % side, n = i / 3 / side / side;
        const real *by = REALS(3) + n * 20, *row = by + 4 + channel * 4;
        const long long last = (long long)side - 1, at_x = (long long)x - (long long)by[2], at_y = (long long)y - (long long)by[3];
        const count from_x = (count)(at_x < 0 ? -at_x : at_x > last ? 2 * last - at_x : at_x);
        const count from_y = (count)(at_y < 0 ? -at_y : at_y > last ? 2 * last - at_y : at_y);
        const real *from = REALS(2) + (n * side * side + augment_turned(by, from_x, from_y, side)) * 3;
        const real colour = row[0] * from[0] + row[1] * from[1] + row[2] * from[2] + (adds ? row[3] : (real)0);
        REALS(1)[i] = augment_is_black(by, x, y) ? (real)0 : colour;
    }
}

/* elements; output [N, side, side, 3]; g; numbers [N, 20]; side: what each place of the shifted image gave to up to three places each way,
   gathered in the order of the places */
KERNEL(augment_adjoint)(Words words) {
    const count side = SIZE(4);
    EACH(i, SIZE(0)) {
        const count channel = i % 3, n = i / 3 / side / side;
        /* Where this place goes by mirroring and turning: those are undone by turning back after mirroring. */
        const real *by = REALS(3) + n * 20;
        const long long last = (long long)side - 1, turns = (long long)by[1];
        long long a = i / 3 % side, b = i / 3 / side % side;
        if (by[0] != 0) a = last - a;
        const long long x = turns == 1 ? b : turns == 2 ? last - a : turns == 3 ? last - b : a;
        const long long y = turns == 1 ? last - a : turns == 2 ? last - b : turns == 3 ? a : b;
        real sum = 0;
        for (int v = 0; v < 3; v++) {
            const long long to_y = (v == 0 ? -y : v == 1 ? y : 2 * last - y) + (long long)by[3];
            if (to_y < 0 || to_y > last || (v == 0 && y == 0) || (v == 2 && y == last)) continue;
            for (int h = 0; h < 3; h++) {
                const long long to_x = (h == 0 ? -x : h == 1 ? x : 2 * last - x) + (long long)by[2];
                if (to_x < 0 || to_x > last || (h == 0 && x == 0) || (h == 2 && x == last)) continue;
                if (augment_is_black(by, (count)to_x, (count)to_y)) continue;
                const real *g = REALS(2) + ((n * side + (count)to_y) * side + (count)to_x) * 3;
                sum += by[4 + channel] * g[0] + by[8 + channel] * g[1] + by[12 + channel] * g[2];
            }
        }
        REALS(1)[i] = sum;
    }
}
