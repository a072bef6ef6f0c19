# A request's body while it comes: where it ends, and the memory for it.
#
# The framing is followed to find the message's last byte, so that what stands behind it is the next request; whether
# it is well-formed is for httptools to say (RFC 9112, 7.1). Limits are Connection's.

cdef enum:                          # ChunkState: where in a chunked body the next byte is
    CHUNK_SIZE
    CHUNK_EXTENSION                 # up to the LF
    CHUNK_DATA
    CHUNK_DATA_END                  # CRLF behind the data
    CHUNK_TRAILER                   # at a line's start
    CHUNK_TRAILER_LINE
    CHUNK_DONE

cdef enum:
    MAX_CHUNK = 1 << 30             # far above any limit; keeps the sum from overflowing


cdef Body* body_new(Py_ssize_t room) except NULL:
    cdef Body* body = <Body*>calloc(1, sizeof(Body))
    if body is NULL:
        raise MemoryError()
    body.room = room
    return body


cdef void body_free(Body* body) noexcept nogil:
    pk_free(&body.head)
    pk_free(&body.data)
    free(body)


cdef Py_ssize_t chunk_step(Body* body, const byte* at, Py_ssize_t length) noexcept nogil:
    # Follows the chunk framing (RFC 9112, 7.1) to find where the message ends; returns the bytes that belong to it.
    # Whether the framing is well-formed is for httptools to say.
    cdef Cursor source = cur_of(at, length)
    while cur_left(&source) and body.chunk != CHUNK_DONE:
        if body.chunk == CHUNK_DATA:
            chunk_data(body, &source)
        else:
            chunk_byte(body, cur_next(&source))
    return source.at - at


cdef void chunk_data(Body* body, Cursor* source) noexcept nogil:
    cdef Py_ssize_t step = min(cur_left(source), body.left)
    source.at += step
    body.left -= step
    if body.left == 0:
        body.chunk = CHUNK_DATA_END


cdef void chunk_byte(Body* body, int got) noexcept nogil:
    cdef int digit
    if body.chunk == CHUNK_SIZE:
        digit = chr_hex(got)
        if digit >= 0 and body.left < MAX_CHUNK:
            body.left = body.left << 4 | digit
            return
        body.chunk = CHUNK_EXTENSION
    if body.chunk == CHUNK_TRAILER and got != c'\r' and got != c'\n':
        body.chunk = CHUNK_TRAILER_LINE
    if got != c'\n':
        return
    if body.chunk == CHUNK_EXTENSION:
        body.chunk = CHUNK_DATA if body.left else CHUNK_TRAILER
    elif body.chunk == CHUNK_TRAILER:
        body.chunk = CHUNK_DONE
    else:
        body.chunk = CHUNK_SIZE if body.chunk == CHUNK_DATA_END else CHUNK_TRAILER
