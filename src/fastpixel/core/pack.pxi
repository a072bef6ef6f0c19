# The msgpack writer: appends values to a growable buffer.
#
# Source: the msgpack specification (timestamps: extension type -1). Out of memory sets `failed` and makes every later
# write a no-op; the caller looks once, at the end. Integers and lengths take their shortest form, as msgpack-python's
# packer writes them, so that records compare byte for byte.


cdef inline bint pk_room(Pack* p, Py_ssize_t need) noexcept nogil:
    # Makes sure that `need` more bytes fit.
    if p.len + need <= p.cap:
        return True
    return pk_grow(p, need)


cdef bint pk_grow(Pack* p, Py_ssize_t need) noexcept nogil:
    cdef Py_ssize_t cap = p.cap * 2 if p.cap else 4096
    cdef byte* data
    while cap < p.len + need:
        cap *= 2
    data = <byte*>realloc(p.data, <size_t>cap)
    if data is NULL:
        p.failed = True
        return False
    p.data = data
    p.cap = cap
    return True


cdef void pk_free(Pack* p) noexcept nogil:
    free(p.data)
    p.data = NULL
    p.len = p.cap = 0
    p.failed = False


cdef inline void pk_byte(Pack* p, int value) noexcept nogil:
    if pk_room(p, 1):
        p.data[p.len] = <byte>value
        p.len += 1


cdef inline void pk_raw(Pack* p, const void* data, Py_ssize_t length) noexcept nogil:
    if length > 0 and pk_room(p, length):
        blk_copy(p.data + p.len, <const byte*>data, length)
        p.len += length


cdef inline void pk_be(Pack* p, int tag, uint64_t value, int width) noexcept nogil:
    # A tag byte and a big-endian number of `width` bytes, 1 to 8; and nothing behind it, where the JSON reader has
    # written already.
    if not pk_room(p, width + 1):
        return
    value = htobe64(value << (64 - 8 * width))
    p.data[p.len] = <byte>tag
    memcpy(p.data + p.len + 1, &value, <size_t>width)
    p.len += width + 1


cdef inline void pk_nil(Pack* p) noexcept nogil:
    pk_byte(p, 0xC0)


cdef inline void pk_bool(Pack* p, bint value) noexcept nogil:
    pk_byte(p, 0xC3 if value else 0xC2)


cdef inline void pk_uint(Pack* p, uint64_t value) noexcept nogil:
    if value < 0x80:
        pk_byte(p, <int>value)
    elif value <= 0xFF:
        pk_be(p, 0xCC, value, 1)
    elif value <= 0xFFFF:
        pk_be(p, 0xCD, value, 2)
    elif value <= 0xFFFFFFFFu:
        pk_be(p, 0xCE, value, 4)
    else:
        pk_be(p, 0xCF, value, 8)


cdef inline void pk_int(Pack* p, int64_t value) noexcept nogil:
    if value >= 0:
        pk_uint(p, <uint64_t>value)
    elif value >= -32:
        pk_byte(p, <int>(value & 0xFF))
    elif value >= -0x80:
        pk_be(p, 0xD0, <uint64_t>value, 1)
    elif value >= -0x8000:
        pk_be(p, 0xD1, <uint64_t>value, 2)
    elif value >= -0x80000000LL:
        pk_be(p, 0xD2, <uint64_t>value, 4)
    else:
        pk_be(p, 0xD3, <uint64_t>value, 8)


cdef inline void pk_double(Pack* p, double value) noexcept nogil:
    cdef uint64_t bits
    memcpy(&bits, &value, 8)
    pk_be(p, 0xCB, bits, 8)


cdef enum:
    STR_HEAD = 5                    # bytes of the longest


cdef inline void pk_str_head(Pack* p, Py_ssize_t length) noexcept nogil:
    if pk_room(p, STR_HEAD):
        p.len = pk_put_str_head(p.data + p.len, length) - p.data


cdef inline void pk_str(Pack* p, const void* data, Py_ssize_t length) noexcept nogil:
    # The bytes must be valid UTF-8.
    if pk_room(p, length + STR_HEAD):
        p.len = pk_put_str(p.data + p.len, <const byte*>data, length) - p.data


# Where there is room already; they give the place after what they wrote, and write nothing behind it.

cdef inline byte* pk_put_str(byte* to, const byte* data, Py_ssize_t length) noexcept nogil:
    to = pk_put_str_head(to, length)
    blk_copy(to, data, length)
    return to + length


cdef inline byte* pk_put_str_head(byte* to, Py_ssize_t length) noexcept nogil:
    if length < 32:
        to[0] = <byte>(0xA0 | length)
        return to + 1
    if length <= 0xFF:
        to[0] = 0xD9
        to[1] = <byte>length
        return to + 2
    return pk_put_long_head(to, length)


cdef byte* pk_put_long_head(byte* to, Py_ssize_t length) noexcept nogil:
    cdef int width = 2 if length <= 0xFFFF else 4, i
    to[0] = 0xDA if width == 2 else 0xDB
    for i in range(width):
        to[1 + i] = <byte>(length >> (8 * (width - 1 - i)))
    return to + 1 + width


cdef inline void pk_map(Pack* p, Py_ssize_t count) noexcept nogil:
    if count < 16:
        pk_byte(p, 0x80 | <int>count)
    elif count <= 0xFFFF:
        pk_be(p, 0xDE, <uint64_t>count, 2)
    else:
        pk_be(p, 0xDF, <uint64_t>count, 4)


cdef inline void pk_array(Pack* p, Py_ssize_t count) noexcept nogil:
    if count < 16:
        pk_byte(p, 0x90 | <int>count)
    elif count <= 0xFFFF:
        pk_be(p, 0xDC, <uint64_t>count, 2)
    else:
        pk_be(p, 0xDD, <uint64_t>count, 4)


cdef void pk_seconds(Pack* p, int64_t seconds, uint32_t nanos) noexcept nogil:
    # A time, seconds since the Unix epoch and nanoseconds. As msgpack-python's Timestamp: 32 bit form when there is no
    # fraction, then 64, then 96.
    if 0 <= seconds <= 0xFFFFFFFFLL and nanos == 0:
        pk_byte(p, 0xD6)
        pk_be(p, 0xFF, <uint64_t>seconds, 4)
    elif 0 <= seconds < (1LL << 34):
        pk_byte(p, 0xD7)
        pk_be(p, 0xFF, (<uint64_t>nanos << 34) | <uint64_t>seconds, 8)
    else:
        pk_byte(p, 0xC7)
        pk_byte(p, 12)
        pk_be(p, 0xFF, nanos, 4)
        pk_be(p, <int>((<uint64_t>seconds >> 56) & 0xFF), <uint64_t>seconds, 7)


cdef void pk_bin(Pack* p, const void* data, Py_ssize_t length) noexcept nogil:
    if length <= 0xFF:
        pk_be(p, 0xC4, <uint64_t>length, 1)
    elif length <= 0xFFFF:
        pk_be(p, 0xC5, <uint64_t>length, 2)
    else:
        pk_be(p, 0xC6, <uint64_t>length, 4)
    pk_raw(p, data, length)
