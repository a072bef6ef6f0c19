
# base64 inside a parameter's value, as senders really write it.
#
# Source: RFC 4648 sections 4 and 5, and the protocol rules of `params` and `data`: CR, LF and TAB are dropped; '-' is '+'
# and '_' is '/'; a space is '+', because form decoding turned a raw '+' into one, so the caller trims the value before,
# not this file; padding may be left out, wholly or in part. Everything else is strict: a foreign character, one lone
# last character, more '=' than the length needs, or anything after a '=' is not base64. Unused bits of the last
# character may be set, as with Python's b64decode.

cdef enum:
    B64_PAD = 64
    B64_DROP = 65
    B64_BAD = 66

cdef byte[256] B64_VALUE


cdef void b64_fill() noexcept nogil:
    cdef const char* alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    cdef int i
    memset(B64_VALUE, B64_BAD, 256)
    for i in range(64):
        B64_VALUE[<byte>alphabet[i]] = <byte>i
    B64_VALUE[45] = B64_VALUE[32] = 62              # '-' and ' ' are '+'
    B64_VALUE[95] = 63                              # '_' is '/'
    B64_VALUE[61] = B64_PAD
    B64_VALUE[13] = B64_VALUE[10] = B64_VALUE[9] = B64_DROP


b64_fill()


cdef inline bint b64_ends(Cursor* cursor, int pads) noexcept nogil:
    # Nothing but dropped characters and at most `pads` '='.
    cdef int value
    while cur_left(cursor) > 0:
        value = B64_VALUE[cur_next(cursor)]
        pads -= value == B64_PAD
        if value < B64_PAD or value == B64_BAD or pads < 0:
            return False
    return True


cdef inline int b64_group(Cursor* cursor, uint32_t* bits) noexcept nogil:
    # Takes up to four characters of the alphabet; gives how many, and their bits aligned as if they were four.
    cdef int count = 0, value
    bits[0] = 0
    while count < 4 and cur_left(cursor) > 0:
        value = B64_VALUE[cur_peek(cursor)]
        if value < B64_PAD:
            bits[0] |= <uint32_t>value << (18 - 6 * count)
            count += 1
        elif value != B64_DROP:
            break
        cursor.at += 1
    return count


cdef Py_ssize_t b64_decode(const byte* p, Py_ssize_t n, byte* out) noexcept nogil:
    # Gives the decoded length, or -1: not base64. `out` has room for n; it may be `p` itself.
    cdef Cursor cursor = cur_of(p, n)
    cdef Py_ssize_t length = 0
    cdef uint32_t bits
    cdef int count = 4, i
    while count == 4:
        count = b64_group(&cursor, &bits)
        for i in range(count - 1):
            out[length + i] = <byte>(bits >> (16 - 8 * i))
        length += count - 1 if count else 0
    return length if count != 1 and b64_ends(&cursor, 4 - count if count else 0) else -1


def unbase64(bytes data not None):
    """Decodes base64 or base64url; CR, LF and TAB are dropped, a space is '+', padding is optional; None: not base64."""
    cdef byte* out = <byte*>malloc(<size_t>(len(data) + 1))
    cdef Py_ssize_t length
    if out is NULL:
        raise MemoryError
    try:
        length = b64_decode(data, len(data), out)
        return (<char*>out)[:length] if length >= 0 else None
    finally:
        free(out)
