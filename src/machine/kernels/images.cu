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
