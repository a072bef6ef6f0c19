# Sixteen bytes at a time: masks of where a byte occurs, and comparing and copying short text without a call.
#
# The only place with machine-dependent code. Bit i of a mask speaks of byte i. With SSE2 (every x86-64) a mask is two
# instructions; elsewhere the same functions are plain loops. A block is never read past its cursor: blk_load copies a
# short rest into zeroed memory first.

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
    static inline unsigned fp_block_upto(fp_block b, int c) {
        return (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_min_epu8(b, _mm_set1_epi8((char)c)), b));
    }
    #else
    typedef struct { unsigned char at[16]; } fp_block;
    static inline fp_block fp_block_load(const unsigned char *p) { fp_block b; memcpy(b.at, p, 16); return b; }
    #define FP_MASK(test) unsigned m = 0; for (int i = 0; i < 16; i++) m |= (unsigned)(test) << i; return m
    static inline unsigned fp_block_is(fp_block b, int c) { FP_MASK(b.at[i] == c); }
    static inline unsigned fp_block_high(fp_block b) { FP_MASK(b.at[i] >= 0x80); }
    static inline unsigned fp_block_upto(fp_block b, int c) { FP_MASK(b.at[i] <= c); }
    #endif
    static inline int fp_first(unsigned mask) { return __builtin_ctz(mask); }
    static inline int fp_count(unsigned mask) { return __builtin_popcount(mask); }
    """
    ctypedef struct Block "fp_block":
        pass
    Block blk_at "fp_block_load"(const byte* p) noexcept nogil
    unsigned int blk_is "fp_block_is"(Block block, int c) noexcept nogil
    unsigned int blk_high "fp_block_high"(Block block) noexcept nogil
    unsigned int blk_upto "fp_block_upto"(Block block, int c) noexcept nogil
    int blk_first "fp_first"(unsigned int mask) noexcept nogil
    int blk_count "fp_count"(unsigned int mask) noexcept nogil

cdef enum:
    BLOCK = 16


cdef inline Block blk_load(const byte* at, Py_ssize_t left) noexcept nogil:
    # Of the next bytes; those beyond `left` are NUL.
    cdef byte rest[BLOCK]
    if left >= BLOCK:
        return blk_at(at)
    memset(rest, 0, BLOCK)
    memcpy(rest, at, <size_t>left)
    return blk_at(rest)


cdef inline unsigned int blk_part(Py_ssize_t left) noexcept nogil:
    # The mask of the bytes that there are.
    return 0xFFFFu if left >= BLOCK else (1u << left) - 1


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
    if n > BLOCK:
        memcpy(out, at, <size_t>n)
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
