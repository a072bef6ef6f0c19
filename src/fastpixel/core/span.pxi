# Spans and cursors: how the core reads bytes.
#
# A Span names bytes by offset, not by pointer, so it survives that its buffer moves when it grows. Its top bits say
# which of a request's buffers it means. Bytes that come from a client are read through a Cursor, which knows its end;
# a read at the end gives -1, never a byte.


cdef inline Span span_of(int buffer, Py_ssize_t at, Py_ssize_t length) noexcept nogil:
    cdef Span span
    span.at = <uint32_t>((<uint32_t>buffer << SPAN_SHIFT) | <uint32_t>at)
    span.len = <uint32_t>length
    return span


cdef inline const byte* span_ptr(const Bases* bases, Span span) noexcept nogil:
    return bases.at[span.at >> SPAN_SHIFT] + (span.at & SPAN_MASK)


cdef inline bint span_is(const Bases* bases, Span span, const char* text, Py_ssize_t length) noexcept nogil:
    return span.len == <uint32_t>length and memcmp(span_ptr(bases, span), text, <size_t>length) == 0


cdef inline Cursor cur_of(const byte* at, Py_ssize_t length) noexcept nogil:
    cdef Cursor cursor
    cursor.at = at
    cursor.end = at + length
    return cursor


cdef inline Cursor cur_span(const Bases* bases, Span span) noexcept nogil:
    return cur_of(span_ptr(bases, span), span.len)


cdef inline Py_ssize_t cur_left(const Cursor* cursor) noexcept nogil:
    return cursor.end - cursor.at


cdef inline int cur_peek(const Cursor* cursor) noexcept nogil:
    # The next byte, or -1 at the end.
    return cursor.at[0] if cursor.at < cursor.end else -1


cdef inline int cur_next(Cursor* cursor) noexcept nogil:
    # Takes the next byte, or gives -1 at the end.
    if cursor.at >= cursor.end:
        return -1
    cursor.at += 1
    return (cursor.at - 1)[0]


cdef inline bint cur_take(Cursor* cursor, int expected) noexcept nogil:
    # Takes the next byte if it is the expected one.
    if cur_peek(cursor) != expected:
        return False
    cursor.at += 1
    return True
