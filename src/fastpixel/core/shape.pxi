# Shapes: the requests of one site have the same names in the same order again and again, so the record that they make
# is kept as a template, and only the values are new.
#
# How it works: when a request has gone the long way (record.pxi), its query's names are kept, and its record as steps:
# a run of constant bytes, then a value. Which pair a value came from is known by its Span, as no two texts of a request
# begin at the same place. The next query with these names is cut along them, its values are checked, and the steps
# write the record.
#
# The rule: a shape writes what the long way would have written, byte for byte, or nothing. The tree depends on the
# names, on which headers there are, and on what the rows made of their values; so a row's pair has guards that say that
# the row would do with the new value what it did with the first one. Every doubt goes the long way: nothing is undone,
# it starts from the request again. And a shape is kept only if it makes of its own request what the long way made.
#
# No shape: HEAD and POST, path variables, dropped pairs, JSON in parameters, a value that a row has changed, an unusable
# time, a messageId that is a hash, more names than fit.


cdef bint shape_take(Rec* rec, Pack* out) noexcept nogil:
    # Appends the record of a request whose shape is known. False: it must go the long way; `out` is as it was.
    cdef Span values[SHAPE_VALUES]
    cdef Shape* shape
    cdef int way
    shape_place(rec)
    if rec.place < 0:
        return False
    for way in range(SHAPE_WAYS):
        shape = &rec.shapes[rec.place + way]
        if shape.route != rec.route.index + 1 or shape.marks != rec.marks or shape.present != rec.present:
            continue
        rec.scratch.len = 0
        if shape_read(rec, shape, values) and shape_fill(rec, shape, values) and shape_write(rec, shape, values, out):
            shape.idle = False
            rec.skipped = shape.skipped
            rec.shaped += 1
            return True
    return False


cdef void shape_place(Rec* rec) noexcept nogil:
    # Where shapes of such requests are; -1: they have none.
    cdef const Request* request = rec.request
    rec.place = -1
    if request.method != M_GET or rec.route.variables or rec.route.visitor or rec.shapes is NULL:
        return
    rec.present = (
        (1 << X_IP if request.ip_len else 0)
        | (1 << X_USER_AGENT if request.headers[H_USER_AGENT].len else 0)
        | (1 << X_REFERRER if request.headers[H_REFERER].len else 0)
    )
    rec.marks = <int>blk_count(span_ptr(&rec.bases, request.query), request.query.len, c'&')
    rec.place = (rec.route.index * 7 + rec.marks) % SHAPE_SETS * SHAPE_WAYS


# --- reading: the values of a query that has the shape's names ---------------------------------------------------------

cdef bint shape_read(Rec* rec, const Shape* shape, Span* values) noexcept nogil:
    # False: another query, or a value that the shape does not cover.
    cdef Cursor source = cur_span(&rec.bases, rec.request.query)
    cdef bint identified = not shape.identity
    cdef const Part* part
    cdef int i
    rec.need = shape.fixed
    for i in range(shape.pairs):
        part = &shape.parts[i]
        source.at = shape_cut(rec, part, shape.text + part.at, source, &values[i])
        if source.at is NULL:
            return False
        rec.need += values[i].len
        if part.guards == 0:
            continue
        if not shape_guard(rec, part, values[i]):
            return False
        if part.guards & G_IDENTITY and not identified:
            identified = not rec_is_blank(rec, values[i])
    return source.at >= source.end and identified


cdef inline const byte* shape_cut(Rec* rec, const Part* part, const byte* name, Cursor source, Span* value) noexcept nogil:
    # Takes the pair that must come next: its name with the '=', if it had one, and what is left up to '&'. Where the
    # next one begins; NULL: it is another pair.
    cdef const byte* at = source.at + part.len
    cdef const byte* start = at
    cdef Block block
    cdef unsigned int stop = 0, coded = 0
    if not blk_begins(&source, name, part.len):
        return NULL
    while at < source.end:
        block = blk_load(at, source.end - at)
        stop = blk_is(block, c'&')
        if stop:
            coded |= blk_coded(block) & (stop ^ (stop - 1))     # up to the '&'
            at += blk_first(stop)
            break
        coded |= blk_coded(block)
        at += BLOCK
    at = min(at, source.end)
    value[0] = span_of(IN_HEAD, start - rec.bases.at[IN_HEAD], at - start)
    if coded and not shape_decode(rec, cur_of(start, at - start), source.end, value):
        return NULL
    if part.bare and at != start:
        return NULL
    return at + 1


cdef bint shape_decode(Rec* rec, Cursor raw, const byte* limit, Span* value) noexcept nogil:
    cdef int met = 0
    value[0] = pct_copy(rec, raw, limit, True, &met)
    return not (rec.route.drop_bad and met & PCT_BAD) and not rec.scratch.failed


cdef inline bint shape_guard(Rec* rec, const Part* part, Span value) noexcept nogil:
    # Whether the rows of the pair would leave this value as it is.
    if value.len == 0:
        return not part.guards & (G_FILLED | G_TIDY | G_SEEN)
    if part.guards & G_UNQUOTED and rec_is_quoted(rec, value):
        return False
    if part.guards & G_TIDY and not rec_is_tidy(rec, value):
        return False
    if part.guards & G_SEEN and rec_is_blank(rec, value):
        return False
    return not part.guards & G_SHORT or value.len <= part.max_chars or rec_chars(rec, value) <= part.max_chars


# --- filling: what the server adds, and what depends on several values ---------------------------------------------------

cdef bint shape_fill(Rec* rec, const Shape* shape, Span* values) noexcept nogil:
    cdef int i
    rec.key = values[shape.key]
    if rec_source(rec) != NO_REASON or rec_trusts(rec) != shape.trusted or rec_policy(rec).ip != shape.ip:
        return False
    if rec.anonymous or rec.protocol != rec.route.protocol:
        return False
    for i in range(shape.gate_count):
        if rec_opens(rec, &rec.route.rows[shape.gates[i].row], values[shape.gates[i].pair]) != shape.gates[i].open:
            return False
    if not shape_time(rec, shape, values):
        return False
    return shape_texts(rec, shape, values) and (
        not (shape.uses >> X_ID) & 1 or rec_new_id(rec, &values[SHAPE_PAIRS + X_ID])
    )


cdef bint shape_time(Rec* rec, const Shape* shape, const Span* values) noexcept nogil:
    if shape.time >= 0:
        return time_read(shape.time_kind, cur_span(&rec.bases, values[shape.time]), &rec.time)
    if shape.sent < 0 or not rec_skew(rec, values[shape.sent], values[shape.original]):
        rec.time = rec.request.received
    return True


cdef bint shape_texts(Rec* rec, const Shape* shape, Span* values) noexcept nogil:
    # Those texts that are no pair's, but the new id.
    cdef Span* texts = values + SHAPE_PAIRS
    if (shape.uses >> X_IP) & 1:
        texts[<int>X_IP] = rec_ip(rec)
        rec.need += texts[<int>X_IP].len
    if (shape.uses >> X_USER_AGENT) & 1:
        texts[<int>X_USER_AGENT] = rec_header(rec, H_USER_AGENT)
        rec.need += texts[<int>X_USER_AGENT].len
    if (shape.uses >> X_REFERRER) & 1:
        texts[<int>X_REFERRER] = rec_header(rec, H_REFERER)
        rec.need += texts[<int>X_REFERRER].len
    if (shape.uses >> X_RECEIPT) & 1:
        texts[<int>X_RECEIPT] = rec_receipt_text(rec)
    return not rec.scratch.failed


# --- writing ------------------------------------------------------------------------------------------------------------

cdef bint shape_write(Rec* rec, const Shape* shape, const Span* values, Pack* out) noexcept nogil:
    # The room is made once, for the longest that it can be.
    cdef const Step* step
    cdef Py_ssize_t start = out.len
    cdef byte* to
    cdef int i
    if rec.need > MAX_RECORD - REC_HEAD or not pk_room(out, rec.need + REC_HEAD + rec_source_bytes(rec)):
        out.failed = False
        return False
    rec_pack_head(rec, shape.members, out)
    to = out.data + out.len
    for i in range(shape.steps):
        step = &shape.all[i]
        to = shape_chunk(to, shape.text + step.at, step.len)
        if step.kind == K_TEXT:
            to = pk_put_str(to, span_ptr(&rec.bases, values[step.value]), values[step.value].len)
        elif step.kind != K_DOTPATH:
            out.len = to - out.data
            if not kind_pack(rec, step.kind, cur_span(&rec.bases, values[step.value]), out):
                out.len = start
                return False
            to = out.data + out.len
    out.len = to - out.data
    return True


cdef inline byte* shape_chunk(byte* to, const byte* text, Py_ssize_t length) noexcept nogil:
    # In whole blocks: there is room for one more, and what is too much is written over.
    cdef byte* end = to + length
    while to < end:
        blk_put(blk_at(text), to)
        to += BLOCK
        text += BLOCK
    return end


# --- keeping ------------------------------------------------------------------------------------------------------------

cdef inline void shape_note(Rec* rec, const Pair* pair, Span value) noexcept nogil:
    # On the long way: a pair as it was sent, and its value.
    cdef Py_ssize_t length = cur_left(&pair.name)
    if rec.place < 0:
        return
    if rec.noted < SHAPE_PAIRS:
        rec.bare[rec.noted] = pair.value.at == pair.name.end
        rec.names[rec.noted] = span_of(IN_HEAD, pair.name.at - rec.bases.at[IN_HEAD], length + (not rec.bare[rec.noted]))
        rec.values[rec.noted] = value
    rec.noted += 1


cdef inline void shape_spoil(Rec* rec) noexcept nogil:
    # The request will have no shape.
    rec.noted = SHAPE_PAIRS + 1


cdef void shape_keep(Rec* rec, Pack* out, Py_ssize_t start) noexcept nogil:
    # After the long way: makes a shape of the request whose record begins at `start`. It is drafted elsewhere, so that
    # what cannot have a shape takes nobody's place.
    cdef Shape* shape = &rec.shapes[SHAPE_SETS * SHAPE_WAYS]
    cdef Shape* place
    if rec.place < 0 or not 0 < rec.noted <= SHAPE_PAIRS or rec.dedupe or rec.bad_time.len or rec.anonymous:
        return
    place = shape_free(rec)
    if place is NULL:
        return
    shape.used = shape.gate_count = 0
    if (shape_names(rec, shape) and shape_rows(rec, shape) and shape_facts(rec, shape)
            and shape_steps(rec, shape, out, start) and shape_proves(rec, shape, out, start)):
        shape.route = rec.route.index + 1
        shape.marks = rec.marks
        shape.present = rec.present
        shape.skipped = rec.skipped
        shape.idle = False
        memcpy(place, shape, sizeof(Shape))


cdef Shape* shape_free(Rec* rec) noexcept nogil:
    # A free place, or one that has not been used since somebody last asked. A shape that another one keeps pushing out
    # would cost more than it saves.
    cdef Shape* set = &rec.shapes[rec.place]
    cdef int way
    for way in range(SHAPE_WAYS):
        if set[way].route == 0 or set[way].idle:
            return &set[way]
    for way in range(SHAPE_WAYS):
        set[way].idle = True
    return NULL


cdef bint shape_names(Rec* rec, Shape* shape) noexcept nogil:
    cdef int i
    shape.pairs = rec.noted
    for i in range(rec.noted):
        memset(&shape.parts[i], 0, sizeof(Part))
        shape.parts[i].bare = rec.bare[i]
        if not shape_text(
            shape, span_ptr(&rec.bases, rec.names[i]), rec.names[i].len, &shape.parts[i].at, &shape.parts[i].len
        ):
            return False
    return True


cdef bint shape_text(Shape* shape, const byte* text, Py_ssize_t length, uint16_t* at, uint16_t* len_) noexcept nogil:
    # Copies constant bytes into the shape. False: there is no room.
    if shape.used + length > SHAPE_TEXT:
        return False
    memcpy(shape.text + shape.used, text, <size_t>length)
    at[0] = <uint16_t>shape.used
    len_[0] = <uint16_t>length
    shape.used += <int>length
    return True


cdef int shape_origin(const Rec* rec, Span text) noexcept nogil:
    # The number of the text among the values: a pair, or SHAPE_PAIRS and an Extra; -1: it is none of them.
    cdef int i
    for i in range(rec.noted):
        if rec.values[i].at == text.at and rec.values[i].len == text.len:
            return i
    for i in range(<int>EXTRAS):
        if rec.extra[i].len and rec.extra[i].at == text.at and rec.extra[i].len == text.len:
            return SHAPE_PAIRS + i
    return -1


cdef int shape_pair(const Rec* rec, Span text) noexcept nogil:
    # The pair whose value it is; -1: none.
    cdef int origin = shape_origin(rec, text)
    return origin if origin < SHAPE_PAIRS else -1


cdef bint shape_rows(Rec* rec, Shape* shape) noexcept nogil:
    # The guards that the rows set on their pairs.
    cdef int i
    for i in range(rec.route.count):
        if rec.route.rows[i].gate >= 0 and not shape_gate(rec, shape, i):
            return False
        if rec.given[i].at != SPAN_NONE and not shape_row(rec, shape, i):
            return False
    return True


cdef bint shape_row(Rec* rec, Shape* shape, int index) noexcept nogil:
    cdef const Row* row = &rec.route.rows[index]
    cdef int pair = shape_pair(rec, rec.given[index])
    cdef Part* part = &shape.parts[max(pair, 0)]
    if row.required != NO_REASON or row.nonempty != NO_REASON or row.has_if_empty:
        part.guards |= G_FILLED
    if row.is_timestamp or row.kind != K_TEXT:
        part.guards |= G_FILLED
    if row.unquote:
        part.guards |= G_UNQUOTED
    if row.tidy:
        part.guards |= G_TIDY
    if row.max_chars and not shape_short(part, row.max_chars):
        return False
    # What was read as its kind has a step that reads it again; shape_steps sees to it.
    return pair >= 0 and (row.kind == K_TEXT or row.is_timestamp or rec.made[index].len > 0)


cdef bint shape_short(Part* part, int max_chars) noexcept nogil:
    # A pair has room for the limit of one row.
    if part.guards & G_SHORT:
        return False
    part.guards |= G_SHORT
    part.max_chars = <uint32_t>max_chars
    return True


cdef bint shape_gate(Rec* rec, Shape* shape, int index) noexcept nogil:
    # `when`: the named parameter is compared again. Only one that nothing else touches counts.
    cdef const Row* named = &rec.route.rows[rec.route.rows[index].gate]
    cdef int32_t node = rec.slots[rec.route.rows[index].gate]
    cdef Gate* gate
    if not named.aside or named.target.length or named.kind != K_TEXT or named.unquote or named.tidy:
        return False
    if named.has_if_empty or shape.gate_count == SHAPE_GATES:
        return False
    if node < 0:
        return True
    gate = &shape.gates[shape.gate_count]
    gate.row = index
    gate.pair = shape_pair(rec, rec.tree.nodes[node].value)
    gate.open = rec_opens(rec, &rec.route.rows[index], rec.tree.nodes[node].value)
    shape.gate_count += 1
    return gate.pair >= 0


cdef bint shape_facts(Rec* rec, Shape* shape) noexcept nogil:
    # Key, time, identity and messageId.
    shape.key = shape_pair(rec, rec.key)
    shape.trusted = rec_trusts(rec)
    shape.ip = rec_policy(rec).ip
    if shape.key < 0 or not shape_times(rec, shape):
        return False
    shape_identity(rec, shape)
    shape.parts[shape.key].guards |= G_FILLED
    return rec.known[N_MESSAGE_ID] < 0 or shape_seen(rec, shape, rec.known[N_MESSAGE_ID])


cdef bint shape_seen(Rec* rec, Shape* shape, int32_t node) noexcept nogil:
    # The node's text must not be blank.
    cdef int pair = shape_pair(rec, rec.tree.nodes[node].value)
    if pair >= 0:
        shape.parts[pair].guards |= G_SEEN
    return pair >= 0


cdef bint shape_times(Rec* rec, Shape* shape) noexcept nogil:
    # The event's time: one text's, or a difference of two, or the receipt.
    cdef int32_t sent = rec.known[N_SENT_AT], original = rec.known[N_ORIGINAL_TIMESTAMP]
    shape.time = shape.sent = shape.original = -1
    if rec.times:
        shape.time = shape_pair(rec, rec.time_text)
        shape.time_kind = rec.time_kind
        return rec.timed and rec.times == 1 and shape.time >= 0
    if not rec.route.skew or sent < 0 or original < 0:
        return True
    shape.sent = shape_pair(rec, rec.tree.nodes[sent].value)
    shape.original = shape_pair(rec, rec.tree.nodes[original].value)
    return shape.sent >= 0 and shape.original >= 0


cdef void shape_identity(Rec* rec, Shape* shape) noexcept nogil:
    # Fewer pairs than the long way looks at would only send more requests there.
    cdef int32_t node
    cdef int i, pair
    shape.identity = rec.route.identity_count > 0
    for i in range(rec.route.identity_count):
        node = tree_member(&rec.tree, &rec.bases, 0, &rec.route.identity[i])
        pair = shape_pair(rec, rec.tree.nodes[node].value) if node >= 0 else -1
        if pair >= 0 and rec.tree.nodes[node].state == NODE_LEAF:
            shape.parts[pair].guards |= G_IDENTITY


cdef bint shape_steps(Rec* rec, Shape* shape, const Pack* out, Py_ssize_t start) noexcept nogil:
    # The record as constant bytes and values: a step ends with a value, the last one with none (kind K_DOTPATH).
    cdef const Leaf* leaf
    cdef Py_ssize_t at = rec.members_at
    cdef uint64_t used = 0
    cdef int i, value, kind, converted = 0
    shape.steps = shape.uses = 0
    if rec.leaves.count > SHAPE_STEPS:
        return False
    for i in range(rec.leaves.count):
        leaf = &rec.leaves.all[i]
        if leaf.value.at >> SPAN_SHIFT == IN_PLAN:              # a default; what stands for an empty value has a guard
            continue
        kind = K_TEXT
        value = shape_made(rec, leaf.value, &kind)
        if value < 0 or kind == K_JSON or kind == K_BASE64_JSON:
            return False
        if value < SHAPE_PAIRS:
            if (used >> value) & 1:
                return False
            used |= 1ull << value
        else:
            shape.uses |= 1 << (value - SHAPE_PAIRS)
        converted += kind != K_TEXT
        if not shape_step(shape, out.data + at, leaf.start - at, value, kind):
            return False
        at = leaf.end
    if converted != rec.converted:
        return False
    shape.members = rec.tree.nodes[0].count
    shape.fixed = shape.steps * REC_VALUE + (rec.route.receipt_count * TIME_TEXT) + UUID_TEXT + out.len - start
    return shape_step(shape, out.data + at, out.len - at, 0, K_DOTPATH)


cdef int shape_made(const Rec* rec, Span value, int* kind) noexcept nogil:
    # Where a leaf's value came from; `kind` is set if a row has read it as one.
    cdef int i
    if value.at >> SPAN_SHIFT != IN_PACKED:
        return shape_origin(rec, value)
    for i in range(rec.route.count):
        if rec.made[i].len and rec.made[i].at == value.at:
            kind[0] = rec.route.rows[i].kind
            return shape_pair(rec, rec.given[i])
    return -1


cdef bint shape_step(Shape* shape, const byte* text, Py_ssize_t length, int value, int kind) noexcept nogil:
    cdef Step* step = &shape.all[shape.steps]
    if shape.steps == SHAPE_STEPS or not shape_text(shape, text, length, &step.at, &step.len):
        return False
    step.value = <uint16_t>value
    step.kind = <uint16_t>kind
    shape.steps += 1
    return True


cdef bint shape_proves(Rec* rec, const Shape* shape, Pack* out, Py_ssize_t start) noexcept nogil:
    # Whether it writes its own request's record again; the new id is the same one.
    cdef Span values[SHAPE_VALUES]
    cdef Span id = rec.extra[<int>X_ID]
    cdef Py_ssize_t end = out.len
    cdef bint same = shape_read(rec, shape, values) and shape_fill(rec, shape, values)
    values[SHAPE_PAIRS + X_ID] = id
    same = same and shape_write(rec, shape, values, out) and out.len - end == end - start
    same = same and memcmp(out.data + start, out.data + end, <size_t>(end - start)) == 0
    out.len = end
    return same
