# Character classes and Unicode facts that other files ask for.
#
# "Invisible" (protocol rules): Default_Ignorable_Code_Point, White_Space other than U+0020, general category C*, and
# U+2800. "Blank": nothing but white space and invisible characters. The interpreter's own Unicode database answers for
# most of it: Py_UNICODE_ISPRINTABLE is false for exactly the categories C* and Z* but U+0020, all of Z* is White_Space,
# and White_Space outside Z* is Cc. It is a table look-up that needs no GIL. Only Default_Ignorable_Code_Point is not in
# that database; it is listed here (source: DerivedCoreProperties.txt, the same from Unicode 14 to 16).

cdef extern from "Python.h" nogil:
    bint Py_UNICODE_ISPRINTABLE(int codepoint)

cdef extern from * nogil:
    int __builtin_ctzll(unsigned long long value)

cdef enum:
    CHR_IGNORABLES = 17
    CHR_BRAILLE_BLANK = 0x2800

cdef int[2 * CHR_IGNORABLES] CHR_IGNORABLE = [         # first and last of each range, ascending
    0xAD, 0xAD, 0x34F, 0x34F, 0x61C, 0x61C, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180F, 0x200B, 0x200F,
    0x202A, 0x202E, 0x2060, 0x206F, 0x3164, 0x3164, 0xFE00, 0xFE0F, 0xFEFF, 0xFEFF, 0xFFA0, 0xFFA0, 0xFFF0, 0xFFF8,
    0x1BCA0, 0x1BCA3, 0x1D173, 0x1D17A, 0xE0000, 0xE0FFF,
]


cdef inline bint chr_digit(int c) noexcept nogil:
    return 48 <= c <= 57


cdef inline int chr_lower(int c) noexcept nogil:
    # ASCII only.
    return c | 0x20 if 65 <= c <= 90 else c


cdef int[256] CHR_HEX                # the value of a hexadecimal digit, or 0x100


cdef inline int chr_hex(int c) noexcept nogil:
    # The value of a hexadecimal digit, or -1.
    if 48 <= c <= 57:
        return c - 48
    c |= 0x20
    if 97 <= c <= 102:
        return c - 87
    return -1


for _c in range(256):
    CHR_HEX[<int>_c] = chr_hex(_c) if chr_hex(_c) >= 0 else 0x100
del _c


cdef inline uint64_t chr_marks(uint64_t word) noexcept nogil:
    # Where eight bytes hold what ends a plain run of a JSON string: '"', '\\' or a control character. The lowest bit that
    # is set is exact (a borrow may add false ones above it only). Source: S. E. Anderson, "Bit Twiddling Hacks".
    cdef uint64_t quote = word ^ 0x2222222222222222u
    cdef uint64_t escape = word ^ 0x5C5C5C5C5C5C5C5Cu
    return 0x8080808080808080u & (
        ((word - 0x2020202020202020u) & ~word)
        | ((quote - 0x0101010101010101u) & ~quote)
        | ((escape - 0x0101010101010101u) & ~escape)
    )


cdef inline int chr_first(uint64_t marks) noexcept nogil:
    # Which byte the lowest mark is in.
    return __builtin_ctzll(marks) >> 3


cdef inline bint chr_blank(int c) noexcept nogil:
    # What trimming removes around numbers: ASCII white space.
    return c == 32 or 9 <= c <= 13


cdef bint chr_ignorable(int codepoint) noexcept nogil:
    cdef int low = 0, high = CHR_IGNORABLES, middle
    while low < high:
        middle = (low + high) // 2
        if codepoint > CHR_IGNORABLE[2 * middle + 1]:
            low = middle + 1
        else:
            high = middle
    return low < CHR_IGNORABLES and codepoint >= CHR_IGNORABLE[2 * low]


cdef inline bint chr_invisible(int codepoint) noexcept nogil:
    if codepoint < 0x7F:
        return codepoint < 0x20
    return codepoint == CHR_BRAILLE_BLANK or not Py_UNICODE_ISPRINTABLE(codepoint) or chr_ignorable(codepoint)


cdef bint chr_is_blank_text(const byte* p, Py_ssize_t n) noexcept nogil:
    # Of valid UTF-8; an empty text is blank.
    cdef Cursor cursor = cur_of(p, n)
    cdef int c
    while cur_left(&cursor) > 0:
        c = utf_next(&cursor)
        if c != 32 and not chr_invisible(c):
            return False
    return True


cdef Py_ssize_t chr_tidy(const byte* p, Py_ssize_t n, byte* out) noexcept nogil:
    # Valid UTF-8 without its invisible characters, then without U+0020 (all white space that is left then) at both ends;
    # gives the length. `out` has room for n; it may be `p` itself, as nothing is written ahead of what was read.
    cdef Cursor cursor = cur_of(p, n)
    cdef const byte* at
    cdef Py_ssize_t length = 0
    cdef int c
    while cur_left(&cursor) > 0:
        at = cursor.at
        c = utf_next(&cursor)
        if not chr_invisible(c) and (c != 32 or length):
            memmove(out + length, at, <size_t>(cursor.at - at))
            length += cursor.at - at
    while length and out[length - 1] == 32:
        length -= 1
    return length


# Lone surrogates, which only a str can hold, are category Cs and so invisible: "ignore" leaves them out.

def is_blank(str text not None):
    """Nothing but white space and invisible characters."""
    cdef bytes data = text.encode("utf-8", "ignore")
    return chr_is_blank_text(data, len(data))


def tidy(str text not None):
    """Without invisible characters, then trimmed."""
    cdef bytes data = text.encode("utf-8", "ignore")
    cdef byte* out = <byte*>malloc(<size_t>(len(data) + 1))
    if out is NULL:
        raise MemoryError
    try:
        return (<char*>out)[:chr_tidy(data, len(data), out)].decode("utf-8")
    finally:
        free(out)
