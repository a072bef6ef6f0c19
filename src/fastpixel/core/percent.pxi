# Percent decoding of form text, and the way decoded text gets its Span.
#
# Rules (protocols, "Query decoding"): `+` is a space in parameters, `%XX` a byte, a bad escape stays literal, bytes that
# are not UTF-8 become U+FFFD. Text without anything to decode is not copied: its Span points into the request.


cdef enum:                          # what decoding has met
    PCT_BAD = 1                     # a '%' that is no escape, or a raw ';'
    PCT_HIGH = 0x80                 # bytes that have this bit, so that the result may not be UTF-8


cdef Py_ssize_t pct_decode(Cursor source, const byte* limit, byte* out, bint plus, int* met) noexcept nogil:
    # Writes at most as many bytes as it reads; returns how many. Bytes up to `limit` can be read, though they are no part
    # of the text, and `out` has room for BLOCK more: blocks are copied whole, and what is wrong is written over.
    cdef const byte* at = source.at
    cdef byte* to = out
    cdef Block block
    cdef unsigned int stop
    cdef int flags = 0
    while at < source.end:
        block = blk_load(at, limit - at)
        blk_put(block, to)
        stop = blk_coded(block)
        if stop == 0:
            at += BLOCK
            to += BLOCK
            continue
        at += blk_first(stop)
        to += blk_first(stop)
        while at < source.end:
            to[0] = pct_byte(&at, source.end, plus, &flags)
            to += 1
            if at >= source.end or at[0] != c'%':               # escapes often follow one another
                break
    met[0] = flags
    # What was copied beyond the end does not count.
    return to - out - (at - source.end)


cdef inline byte pct_byte(const byte** source, const byte* end, bint plus, int* met) noexcept nogil:
    # Takes what stands for one byte: an escape, '+', or what only has to be noticed.
    cdef const byte* at = source[0]
    cdef int got = at[0], code
    source[0] = at + 1
    if got == c'%' and end - at > 2:
        code = CHR_HEX[at[1]] << 4 | CHR_HEX[at[2]]
        if code < 0x100:
            source[0] = at + 3
            met[0] |= code & PCT_HIGH
            return <byte>code
    elif got == c'+':
        return c' ' if plus else c'+'
    met[0] |= got & PCT_HIGH or PCT_BAD
    return <byte>got


cdef bint pct_is_bad(Cursor source) noexcept nogil:
    # Whether a '%' is not followed by two hexadecimal digits.
    cdef const byte* found
    while cur_left(&source):
        found = <const byte*>memchr(source.at, c'%', <size_t>cur_left(&source))
        if found is NULL:
            return False
        source.at = found + 1
        if cur_left(&source) < 2 or chr_hex(source.at[0]) < 0 or chr_hex(source.at[1]) < 0:
            return True
        source.at += 2
    return False


cdef Span pct_text(Rec* rec, int buffer, Cursor raw, bint coded, bint plus) noexcept nogil:
    # The Span of a name or value whose raw bytes lie in `buffer`; `coded`: it has '%', '+' or bytes >= 0x80.
    cdef int met = 0
    if not coded:
        return span_of(buffer, raw.at - rec.bases.at[buffer], cur_left(&raw))
    return pct_copy(rec, raw, raw.end, plus, &met)


cdef Span pct_copy(Rec* rec, Cursor raw, const byte* limit, bint plus, int* met) noexcept nogil:
    # The Span of the decoded text in the scratch buffer.
    cdef Py_ssize_t start = rec.scratch.len
    if not rec_room(rec, cur_left(&raw) + BLOCK):
        return span_of(IN_SCRATCH, 0, 0)
    rec.scratch.len += pct_decode(raw, limit, rec.scratch.data + start, plus, met)
    if not met[0] & PCT_HIGH:
        return span_of(IN_SCRATCH, start, rec.scratch.len - start)
    return pct_repair(rec, start)


cdef Span pct_repair(Rec* rec, Py_ssize_t start) noexcept nogil:
    # The Span of the scratch bytes from `start` on, repaired if they are not UTF-8.
    cdef Py_ssize_t length = rec.scratch.len - start
    cdef Py_ssize_t good = utf_valid(rec.scratch.data + start, length)
    if good == length or not rec_room(rec, 3 * length):
        return span_of(IN_SCRATCH, start, good)
    length = utf_repair(rec.scratch.data + start, length, rec.scratch.data + rec.scratch.len)
    start = rec.scratch.len
    rec.scratch.len += length
    return span_of(IN_SCRATCH, start, length)


cdef Span rec_text(Rec* rec, int buffer, Cursor raw) noexcept nogil:
    # Bytes of a header as text: nothing is decoded, only repaired.
    cdef Py_ssize_t length = cur_left(&raw)
    cdef Py_ssize_t start = rec.scratch.len
    if blk_is_ascii(raw) or utf_valid(raw.at, length) == length:
        return span_of(buffer, raw.at - rec.bases.at[buffer], length)
    if not rec_room(rec, length):
        return span_of(IN_SCRATCH, 0, 0)
    memcpy(rec.scratch.data + start, raw.at, <size_t>length)
    rec.scratch.len += length
    return pct_repair(rec, start)
