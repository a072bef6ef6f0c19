# Percent decoding of form text, and the way decoded text gets its Span.
#
# Rules (protocols, "Query decoding"): `+` is a space in parameters, `%XX` a byte, a bad escape stays literal, bytes that
# are not UTF-8 become U+FFFD. Text without anything to decode is not copied: its Span points into the request.


cdef Py_ssize_t pct_decode(Cursor source, byte* out, bint plus) noexcept nogil:
    # Writes at most as many bytes as it reads; returns how many.
    # Runs without anything to decode are copied whole.
    cdef Py_ssize_t length = 0, run
    while cur_left(&source):
        run = pct_run(&source)
        blk_copy(out + length, source.at, run)
        source.at += run
        length += run
        if cur_left(&source) and run < BLOCK:
            out[length] = <byte>pct_byte(&source, plus)
            length += 1
    return length


cdef inline Py_ssize_t pct_run(const Cursor* source) noexcept nogil:
    # How many of the next bytes, at most a block, are neither '%' nor '+'.
    cdef Block block = blk_load(source.at, cur_left(source))
    cdef unsigned int stop = (blk_is(block, c'%') | blk_is(block, c'+')) & blk_part(cur_left(source))
    return blk_first(stop) if stop else min(cur_left(source), <Py_ssize_t>BLOCK)


cdef inline int pct_byte(Cursor* source, bint plus) noexcept nogil:
    # Takes what stands for one byte: an escape, '+', or a '%' that is no escape.
    cdef int got = cur_next(source), high, low
    if got == c'+':
        return c' ' if plus else c'+'
    if cur_left(source) < 2:
        return got
    high = chr_hex(source.at[0])
    low = chr_hex(source.at[1])
    if high < 0 or low < 0:
        return got
    source.at += 2
    return high << 4 | low


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
    cdef Py_ssize_t length = cur_left(&raw)
    cdef Py_ssize_t start = rec.scratch.len
    if not coded:
        return span_of(buffer, raw.at - rec.bases.at[buffer], length)
    if not rec_room(rec, length):
        return span_of(IN_SCRATCH, 0, 0)
    rec.scratch.len += pct_decode(raw, rec.scratch.data + start, plus)
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
    if utf_valid(raw.at, length) == length:
        return span_of(buffer, raw.at - rec.bases.at[buffer], length)
    if not rec_room(rec, length):
        return span_of(IN_SCRATCH, 0, 0)
    memcpy(rec.scratch.data + start, raw.at, <size_t>length)
    rec.scratch.len += length
    return pct_repair(rec, start)
