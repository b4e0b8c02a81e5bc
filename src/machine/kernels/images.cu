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
