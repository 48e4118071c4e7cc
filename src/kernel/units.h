/*
 * The part of products.h that knows how each quantised type packs its columns: one unit of a group of rows, opened into bytes and scales. Meant to
 * be included there only, once in an ISA file; what a type is, in plain C: types.c.
 */

/* A unit of a group ready for dot products. value = fma(d·s, q − bias, m·j); what a kind does not use stays undefined. */
typedef struct unit {
    vi q[8]; /* columns 4j..4j+3 of the rows */
    vf d, m;
    vf s[2], j[2]; /* of the halves: integers held as floats */
} unit;

typedef enum kind {
    PLAIN,         /* one scale */
    MINIMUM,       /* and a minimum */
    HALVES,        /* two integer scales a block */
    HALVES_MINIMUM /* and two minima */
} kind;

/* header, p: the run's header and the unit; i: the unit's number in the file's superblock; g: group of the strip. */
typedef void open_unit(unit *u, const unsigned char *header, const unsigned char *p, int i, int g);

/* A field of 4 (of 2) bytes a row that begins at p. */
ALWAYS vi words(const unsigned char *p, int g)
{
    return vi_load(p + 4 * GROUP_ROWS * g);
}
ALWAYS vf halves(const unsigned char *p, int g)
{
    return vf_load_half(p + 2 * GROUP_ROWS * g);
}
ALWAYS vi bytes(int b)
{
    return vi_set8((char)b);
}
ALWAYS vi low_bits(vi a, int mask)
{
    return vi_and(a, vi_set32(mask));
}

ALWAYS void open_nibbles(unit *u, const unsigned char *p, int g)
{
    UNROLL for (int i = 0; i < 4; i++)
    {
        vi n = words(p + 64 * i, g);
        u->q[i] = vi_and(n, bytes(15));
        u->q[4 + i] = vi_and(vi_shr16(n, 4), bytes(15));
    }
}

/* bit j of every byte of `singles`, moved to `to` */
ALWAYS vi single_bit(vi singles, int j, int to)
{
    vi s = j < to ? vi_shl32(singles, to - j) : vi_shr32(singles, j - to);
    return vi_and(s, bytes(1 << to));
}

/* bits 2j, 2j + 1 of every byte, moved to `to` */
ALWAYS vi bit_pair(vi pairs, int j, int to)
{
    vi s = 2 * j < to ? vi_shl32(pairs, to - 2 * j) : vi_shr32(pairs, 2 * j - to);
    return vi_and(s, bytes(3 << to));
}

ALWAYS void open_q8_0(unit *u, const unsigned char *header, const unsigned char *p, int i, int g)
{
    (void)header, (void)i;
    u->d = halves(p, g);
    UNROLL for (int j = 0; j < 8; j++) u->q[j] = words(p + 32 + 64 * j, g);
}

ALWAYS void open_q4_0(unit *u, const unsigned char *header, const unsigned char *p, int i, int g)
{
    (void)header, (void)i;
    u->d = halves(p, g);
    open_nibbles(u, p + 32, g);
}

ALWAYS void open_q4_1(unit *u, const unsigned char *header, const unsigned char *p, int i, int g)
{
    (void)header, (void)i;
    u->d = halves(p, g);
    u->m = halves(p + 32, g);
    open_nibbles(u, p + 64, g);
}

ALWAYS void open_fifth_bits(unit *u, const unsigned char *p, int g)
{
    vi singles = words(p, g);
    open_nibbles(u, p + 64, g);
    UNROLL for (int j = 0; j < 8; j++) u->q[j] = vi_or(u->q[j], single_bit(singles, j, 4));
}

ALWAYS void open_q5_0(unit *u, const unsigned char *header, const unsigned char *p, int i, int g)
{
    (void)header, (void)i;
    u->d = halves(p, g);
    open_fifth_bits(u, p + 32, g);
}

ALWAYS void open_q5_1(unit *u, const unsigned char *header, const unsigned char *p, int i, int g)
{
    (void)header, (void)i;
    u->d = halves(p, g);
    u->m = halves(p + 32, g);
    open_fifth_bits(u, p + 64, g);
}

ALWAYS void look_up(unit *u, const uint8_t table[16])
{
    vi t = vi_table(table);
    UNROLL for (int j = 0; j < 8; j++) u->q[j] = vi_shuffle8(t, u->q[j]);
}

/* the values of IQ4_NL and IQ4_XS plus 128 */
ALWAYS void look_up_iq4(unit *u)
{
    static const uint8_t values[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                       129, 141, 153, 166, 181, 197, 217, 241};
    look_up(u, values);
}

ALWAYS void open_iq4_nl(unit *u, const unsigned char *header, const unsigned char *p, int i, int g)
{
    open_q4_0(u, header, p, i, g);
    look_up_iq4(u);
}

ALWAYS void open_mxfp4(unit *u, const unsigned char *header, const unsigned char *p, int i, int g)
{
    static const uint8_t values[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};
    (void)header, (void)i;
    vi e = vi_from_u8(p + GROUP_ROWS * g);
    vi normal = vi_shl32(vi_sub32(e, vi_set32(1)), 23), tiny = vi_shlv32(vi_set32(0x00200000), e);
    u->d = vf_as(vi_less(e, vi_set32(2), tiny, normal));
    open_nibbles(u, p + 16, g);
    look_up(u, values); /* doubled, plus 12 */
}

/* Scales and minima of Q4_K and Q5_K: three words of a row's header, see q4_k_scales in types.c. */
ALWAYS void open_k_scales(unit *u, const unsigned char *header, int i, int g)
{
    vi a = words(header + 64, g), b = words(header + 128, g), scale, minimum;
    if (i < 4) {
        scale = low_bits(vi_shr32_by(a, 8 * i), 63);
        minimum = low_bits(vi_shr32_by(b, 8 * i), 63);
    } else {
        vi c = vi_shr32_by(words(header + 192, g), 8 * (i - 4));
        scale = vi_or(low_bits(c, 15), low_bits(vi_shr32_by(a, 8 * (i - 4) + 2), 48));
        minimum =
            vi_or(low_bits(vi_shr32(c, 4), 15), low_bits(vi_shr32_by(b, 8 * (i - 4) + 2), 48));
    }
    u->d = vf_mul(halves(header, g), vf_from_int(scale));
    u->m = vf_negate(vf_mul(halves(header + 32, g), vf_from_int(minimum)));
}

ALWAYS void open_q4_k(unit *u, const unsigned char *header, const unsigned char *p, int i, int g)
{
    open_k_scales(u, header, i, g);
    open_nibbles(u, p, g);
}

ALWAYS void open_q5_k(unit *u, const unsigned char *header, const unsigned char *p, int i, int g)
{
    open_k_scales(u, header, i, g);
    open_fifth_bits(u, p, g);
}

ALWAYS void open_q6_k(unit *u, const unsigned char *header, const unsigned char *p, int i, int g)
{
    vi pairs[2] = {words(p, g), words(p + 64, g)};
    vi scales = vi_shr32_by(words(header + 32 + 64 * (i / 2), g), 16 * (i & 1));
    u->d = halves(header, g);
    u->s[0] = vf_from_int(vi_sar32(vi_shl32(scales, 24), 24));
    u->s[1] = vf_from_int(vi_sar32(vi_shl32(scales, 16), 24));
    open_nibbles(u, p + 128, g);
    UNROLL for (int j = 0; j < 8; j++) u->q[j] = vi_or(u->q[j], bit_pair(pairs[j / 4], j % 4, 4));
}

ALWAYS void open_q3_k(unit *u, const unsigned char *header, const unsigned char *p, int i, int g)
{
    vi pairs[2] = {words(p, g), words(p + 64, g)}, singles = words(p + 128, g);
    u->d = halves(header, g);
    UNROLL for (int h = 0; h < 2; h++)
    {
        int s = 2 * i + h, low = s & 7;
        vi a = vi_shr32_by(words(header + 32 + 64 * (low / 4), g), 8 * (low % 4) + (s < 8 ? 0 : 4));
        vi b = vi_shr32_by(words(header + 160, g), 8 * (s % 4) + 2 * (s / 4));
        a = vi_or(low_bits(a, 15), vi_shl32(low_bits(b, 3), 4));
        u->s[h] = vf_from_int(vi_sub32(a, vi_set32(32)));
    }
    UNROLL for (int j = 0; j < 8; j++) u->q[j] =
        vi_or(bit_pair(pairs[j / 4], j % 4, 0), single_bit(singles, j, 2));
}

ALWAYS void open_q2_k(unit *u, const unsigned char *header, const unsigned char *p, int i, int g)
{
    vi pairs[2] = {words(p, g), words(p + 64, g)};
    vi scales = vi_shr32_by(words(header + 64 + 64 * (i / 2), g), 16 * (i & 1));
    u->d = halves(header, g);
    u->m = vf_negate(halves(header + 32, g));
    u->s[0] = vf_from_int(low_bits(scales, 15));
    u->s[1] = vf_from_int(low_bits(vi_shr32(scales, 8), 15));
    u->j[0] = vf_from_int(low_bits(vi_shr32(scales, 4), 15));
    u->j[1] = vf_from_int(low_bits(vi_shr32(scales, 12), 15));
    UNROLL for (int j = 0; j < 8; j++) u->q[j] = bit_pair(pairs[j / 4], j % 4, 0);
}

ALWAYS void open_iq4_xs(unit *u, const unsigned char *header, const unsigned char *p, int i, int g)
{
    vi high = vi_from_u16(header + 32 + 2 * GROUP_ROWS * g);
    vi low = low_bits(vi_shr32_by(words(header + 64, g), 4 * i), 15);
    high = vi_shl32(low_bits(vi_shr32_by(high, 2 * i), 3), 4);
    u->d = vf_mul(halves(header, g), vf_from_int(vi_sub32(vi_or(low, high), vi_set32(32))));
    open_nibbles(u, p, g);
    look_up_iq4(u);
}
