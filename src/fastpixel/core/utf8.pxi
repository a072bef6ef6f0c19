
# UTF-8: checks it, repairs it, counts and reads its code points.
#
# Well-formed is what The Unicode Standard's table 3-7 lists: no surrogates, no overlong forms, nothing above U+10FFFF.
# One function, utf_next, knows that table. What is ill-formed is taken away by maximal subparts ("U+FFFD Substitution of
# Maximal Subparts", chapter 3), which is also what bytes.decode("utf-8", "replace") does, so both give the same text.
# ASCII is most of what arrives and is skipped eight bytes at a time.

cdef extern from "<endian.h>" nogil:
    uint64_t le64toh(uint64_t value)
    uint64_t htobe64(uint64_t value)

cdef enum:
    UTF_REPLACEMENT = 0xFFFD


cdef inline uint64_t utf_word(const byte* at) noexcept nogil:
    # Eight bytes, the first one lowest, from any address. The caller knows that they are there.
    cdef uint64_t word
    memcpy(&word, at, 8)
    return le64toh(word)


cdef inline void utf_skip_ascii(Cursor* cursor) noexcept nogil:
    while cur_left(cursor) >= 8 and not utf_word(cursor.at) & 0x8080808080808080u:
        cursor.at += 8
    while 0 <= cur_peek(cursor) < 0x80:
        cursor.at += 1


cdef inline int utf_tail(Cursor* cursor, int code, int count, int low, int high) noexcept nogil:
    # Takes `count` continuation bytes; the first must lie between low and high.
    cdef int c
    while count:
        c = cur_peek(cursor)
        if not low <= c <= high:
            return -1
        cursor.at += 1
        code = code << 6 | (c & 0x3F)
        low = 0x80
        high = 0xBF
        count -= 1
    return code


cdef inline int utf_next(Cursor* cursor) noexcept nogil:
    # Takes one code point. -1: the end; or an ill-formed sequence, and then its maximal subpart has been taken.
    cdef int lead = cur_next(cursor)
    if lead < 0x80:
        return lead
    if lead < 0xC2 or lead > 0xF4:
        return -1
    if lead < 0xE0:
        return utf_tail(cursor, lead & 0x1F, 1, 0x80, 0xBF)
    if lead < 0xF0:
        return utf_tail(cursor, lead & 0x0F, 2, 0xA0 if lead == 0xE0 else 0x80, 0x9F if lead == 0xED else 0xBF)
    return utf_tail(cursor, lead & 0x07, 3, 0x90 if lead == 0xF0 else 0x80, 0x8F if lead == 0xF4 else 0xBF)


cdef Py_ssize_t utf_valid(const byte* p, Py_ssize_t n) noexcept nogil:
    # The length of the well-formed beginning.
    cdef Cursor cursor = cur_of(p, n)
    cdef const byte* good
    while True:
        utf_skip_ascii(&cursor)
        good = cursor.at
        if utf_next(&cursor) < 0:
            return good - p


cdef inline Py_ssize_t utf_put(byte* out, int code) noexcept nogil:
    # Writes one code point (not a surrogate); gives its length, at most 4.
    if code < 0x80:
        out[0] = <byte>code
        return 1
    if code < 0x800:
        out[0] = <byte>(0xC0 | code >> 6)
        out[1] = <byte>(0x80 | (code & 0x3F))
        return 2
    if code < 0x10000:
        out[0] = <byte>(0xE0 | code >> 12)
        out[1] = <byte>(0x80 | (code >> 6 & 0x3F))
        out[2] = <byte>(0x80 | (code & 0x3F))
        return 3
    out[0] = <byte>(0xF0 | code >> 18)
    out[1] = <byte>(0x80 | (code >> 12 & 0x3F))
    out[2] = <byte>(0x80 | (code >> 6 & 0x3F))
    out[3] = <byte>(0x80 | (code & 0x3F))
    return 4


cdef Py_ssize_t utf_repair(const byte* p, Py_ssize_t n, byte* out) noexcept nogil:
    # Copies, with U+FFFD for what is ill-formed; gives the length. `out` has room for 3 * n and is not `p`.
    cdef Cursor cursor = cur_of(p, n)
    cdef Py_ssize_t length = 0, good
    while cur_left(&cursor) > 0:
        good = utf_valid(cursor.at, cur_left(&cursor))
        memcpy(out + length, cursor.at, <size_t>good)
        length += good
        cursor.at += good
        if cur_left(&cursor) > 0:
            utf_next(&cursor)
            length += utf_put(out + length, UTF_REPLACEMENT)
    return length


cdef Py_ssize_t utf_chars(const byte* p, Py_ssize_t n) noexcept nogil:
    # Code points of well-formed text: its bytes that are no continuation bytes.
    cdef Py_ssize_t count = 0, i
    for i in range(n):
        count += (p[i] & 0xC0) != 0x80
    return count


def utf8_check(bytes data not None):
    """(length of the well-formed beginning, code points in it, the whole text repaired) of some bytes."""
    cdef Py_ssize_t n = len(data), good = utf_valid(data, n)
    cdef byte* out = <byte*>malloc(<size_t>(3 * n + 1))
    if out is NULL:
        raise MemoryError
    try:
        return good, utf_chars(data, good), (<char*>out)[:utf_repair(data, n, out)].decode("utf-8")
    finally:
        free(out)
