# Sixteen bytes at a time: masks of where a byte occurs, how often it does, and comparing and copying short text without
# a call.
#
# The only place with machine-dependent code. Bit i of a mask speaks of byte i. With SSE2 (every x86-64) a mask is two
# instructions; elsewhere the same functions are plain loops. A block is never read past its cursor: blk_load puts a
# short rest together from smaller words.

cdef extern from *:
    """
    #include <string.h>
    #if defined(__SSE2__)
    #include <emmintrin.h>
    typedef __m128i fp_block;
    static inline fp_block fp_block_load(const unsigned char *p) { return _mm_loadu_si128((const __m128i *)p); }
    static inline unsigned fp_block_is(fp_block b, int c) {
        return (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(b, _mm_set1_epi8((char)c)));
    }
    static inline unsigned fp_block_high(fp_block b) { return (unsigned)_mm_movemask_epi8(b); }
    static inline unsigned fp_block_odd(fp_block b) {
        __m128i low = _mm_cmplt_epi8(b, _mm_set1_epi8(0x21)), rubout = _mm_cmpeq_epi8(b, _mm_set1_epi8(0x7F));
        return (unsigned)_mm_movemask_epi8(_mm_or_si128(low, rubout));     /* signed: bytes >= 0x80 are low, too */
    }
    static inline unsigned fp_block_coded(fp_block b) {
        /* '+' and ';' differ in the bit 0x10 alone. */
        __m128i either = _mm_cmpeq_epi8(_mm_or_si128(b, _mm_set1_epi8(0x10)), _mm_set1_epi8(';'));
        __m128i percent = _mm_cmpeq_epi8(b, _mm_set1_epi8('%'));
        return (unsigned)_mm_movemask_epi8(_mm_or_si128(_mm_or_si128(b, percent), either));
    }
    static inline unsigned fp_block_same(fp_block a, fp_block b) {
        return (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(a, b));
    }
    static inline fp_block fp_block_rest(const unsigned char *p, long n) {
        uint64_t low = 0, high = 0;
        uint32_t first, last;
        if (n >= 8) {
            memcpy(&low, p, 8);
            memcpy(&high, p + n - 8, 8);
            high = n > 8 ? high >> (8 * (16 - n)) : 0;
        } else if (n >= 4) {
            memcpy(&first, p, 4);
            memcpy(&last, p + n - 4, 4);
            low = first | (uint64_t)last << (8 * (n - 4));
        } else if (n > 0) {
            low = p[0] | (uint64_t)p[n >> 1] << (8 * (n >> 1)) | (uint64_t)p[n - 1] << (8 * (n - 1));
        }
        return _mm_set_epi64x((long long)high, (long long)low);
    }
    static inline long fp_count(const unsigned char *p, long n, int c) {
        const __m128i zero = _mm_setzero_si128(), one = _mm_set1_epi8(1), wanted = _mm_set1_epi8((char)c);
        __m128i sum = zero;
        for (; n >= 64; p += 64, n -= 64) {
            __m128i four = _mm_add_epi8(
                _mm_add_epi8(_mm_cmpeq_epi8(fp_block_load(p), wanted), _mm_cmpeq_epi8(fp_block_load(p + 16), wanted)),
                _mm_add_epi8(_mm_cmpeq_epi8(fp_block_load(p + 32), wanted), _mm_cmpeq_epi8(fp_block_load(p + 48), wanted)));
            sum = _mm_add_epi64(sum, _mm_sad_epu8(_mm_sub_epi8(zero, four), zero));
        }
        for (; n > 0; p += 16, n -= 16) {
            fp_block b = n >= 16 ? fp_block_load(p) : fp_block_rest(p, n);
            sum = _mm_add_epi64(sum, _mm_sad_epu8(_mm_and_si128(_mm_cmpeq_epi8(b, wanted), one), zero));
        }
        return _mm_cvtsi128_si32(sum) + _mm_cvtsi128_si32(_mm_srli_si128(sum, 8));
    }
    #else
    typedef struct { unsigned char at[16]; } fp_block;
    static inline fp_block fp_block_load(const unsigned char *p) { fp_block b; memcpy(b.at, p, 16); return b; }
    #define FP_MASK(test) unsigned m = 0; for (int i = 0; i < 16; i++) m |= (unsigned)(test) << i; return m
    static inline unsigned fp_block_is(fp_block b, int c) { FP_MASK(b.at[i] == c); }
    static inline unsigned fp_block_high(fp_block b) { FP_MASK(b.at[i] >= 0x80); }
    static inline unsigned fp_block_odd(fp_block b) { FP_MASK(b.at[i] < 0x21 || b.at[i] > 0x7E); }
    static inline unsigned fp_block_coded(fp_block b) {
        FP_MASK(b.at[i] >= 0x80 || b.at[i] == '%' || b.at[i] == '+' || b.at[i] == ';');
    }
    static inline unsigned fp_block_same(fp_block a, fp_block b) { FP_MASK(a.at[i] == b.at[i]); }
    static inline fp_block fp_block_rest(const unsigned char *p, long n) {
        fp_block b = {{0}};
        memcpy(b.at, p, n);
        return b;
    }
    static inline long fp_count(const unsigned char *p, long n, int c) {
        long sum = 0;
        for (; n > 0; n--) sum += *p++ == c;
        return sum;
    }
    #endif
    static inline void fp_block_put(fp_block b, unsigned char *p) { memcpy(p, &b, 16); }
    static inline int fp_first(unsigned mask) { return __builtin_ctz(mask); }
    """
    ctypedef struct Block "fp_block":
        pass
    Block blk_at "fp_block_load"(const byte* p) noexcept nogil
    unsigned int blk_is "fp_block_is"(Block block, int c) noexcept nogil
    unsigned int blk_high "fp_block_high"(Block block) noexcept nogil
    unsigned int blk_odd "fp_block_odd"(Block block) noexcept nogil         # all but visible ASCII
    unsigned int blk_coded "fp_block_coded"(Block block) noexcept nogil     # '%', '+', ';' and bytes >= 0x80
    unsigned int blk_equal "fp_block_same"(Block a, Block b) noexcept nogil
    Block blk_rest "fp_block_rest"(const byte* p, Py_ssize_t n) noexcept nogil      # n < BLOCK bytes, then NUL
    Py_ssize_t blk_count "fp_count"(const byte* p, Py_ssize_t n, int c) noexcept nogil
    void blk_put "fp_block_put"(Block block, byte* p) noexcept nogil
    int blk_first "fp_first"(unsigned int mask) noexcept nogil

cdef enum:
    BLOCK = 16


cdef inline Block blk_load(const byte* at, Py_ssize_t left) noexcept nogil:
    # Of the next bytes; those beyond `left` are NUL.
    return blk_at(at) if left >= BLOCK else blk_rest(at, left)


cdef inline bint blk_is_ascii(Cursor text) noexcept nogil:
    cdef unsigned int high = 0
    while cur_left(&text) > 0:
        high |= blk_high(blk_load(text.at, cur_left(&text)))
        text.at += BLOCK
    return high == 0


cdef inline unsigned int blk_part(Py_ssize_t left) noexcept nogil:
    # The mask of the bytes that there are.
    return 0xFFFFu if left >= BLOCK else (1u << left) - 1


cdef inline bint blk_begins(const Cursor* text, const byte* known, Py_ssize_t n) noexcept nogil:
    # Whether text begins with n known bytes; BLOCK bytes can be read from `known` on, whatever n is.
    if n > cur_left(text):
        return False
    if n <= BLOCK:
        return (~blk_equal(blk_load(text.at, cur_left(text)), blk_at(known)) & blk_part(n)) == 0
    if n <= 2 * BLOCK:
        return (blk_equal(blk_at(text.at), blk_at(known))
                & blk_equal(blk_at(text.at + n - BLOCK), blk_at(known + n - BLOCK))) == 0xFFFFu
    return memcmp(text.at, known, <size_t>n) == 0


cdef inline bint blk_same(const byte* a, const byte* b, Py_ssize_t n) noexcept nogil:
    # memcmp(a, b, n) == 0 for names: two overlapping words where that is enough.
    if n > BLOCK:
        return memcmp(a, b, <size_t>n) == 0
    if n >= 8:
        return ((utf_word(a) ^ utf_word(b)) | (utf_word(a + n - 8) ^ utf_word(b + n - 8))) == 0
    return hsh_short(a, n) == hsh_short(b, n)   # which has every one of up to seven bytes


cdef inline void blk_copy(byte* out, const byte* at, Py_ssize_t n) noexcept nogil:
    # memcpy for what is mostly short.
    cdef uint64_t head, tail
    cdef uint32_t low, high
    if n > 8 * BLOCK:
        memcpy(out, at, <size_t>n)
    elif n > BLOCK:
        blk_put(blk_at(at + n - BLOCK), out + n - BLOCK)
        while n > BLOCK:
            blk_put(blk_at(at), out)
            at += BLOCK
            out += BLOCK
            n -= BLOCK
    elif n >= 8:
        memcpy(&head, at, 8)
        memcpy(&tail, at + n - 8, 8)
        memcpy(out, &head, 8)
        memcpy(out + n - 8, &tail, 8)
    elif n >= 4:
        memcpy(&low, at, 4)
        memcpy(&high, at + n - 4, 4)
        memcpy(out, &low, 4)
        memcpy(out + n - 4, &high, 4)
    elif n > 0:
        out[n >> 1] = at[n >> 1]
        out[n - 1] = at[n - 1]
        out[0] = at[0]
