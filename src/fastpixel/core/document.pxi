# Documents: an event that came as JSON, from msgpack members to the tree that a record is made of.
#
# A map's names are unique (the transcoder sees to it), so members are added without being looked for, unless something
# was moved to where they belong.
#
# How it works: the members of the event lie in the Rec's packed buffer as they were transcoded, and stay there: text
# becomes a leaf, everything else a packed value, which the record gets as it is. Only `context` and `context.client`
# are opened, because the server adds members to them. Then rows, identity and completion are those of a pixel.
#
# Rules (the record's contract): null is absent where a field is listed; numbers of ids and times become text; a name
# that only the server sets goes to context.client, unless it says what the server says.


cdef int doc_read(Rec* rec, Cursor source) noexcept nogil:
    # A whole event: one map, inside rec.packed. Gives the Reason against it.
    cdef int reason = doc_members(rec, 0, &source)
    return reason if reason != NO_REASON else doc_settle(rec)


cdef int doc_settle(Rec* rec) noexcept nogil:
    # What the route's rows demand of top-level members, then the identity.
    cdef int i, reason
    for i in range(rec.route.count):
        rec.slots[i] = tree_member(&rec.tree, &rec.bases, 0, &rec.route.rows[i].source)
    reason = rec_rows(rec)
    return reason if reason != NO_REASON else rec_identity(rec)


cdef int doc_members(Rec* rec, int32_t parent, Cursor* source) noexcept nogil:
    cdef Item item
    cdef Cursor name
    cdef uint64_t left
    cdef int reason
    if not out_item(source, &item) or item.kind != ITEM_MAP:
        return R_INVALID_DATA
    left = item.num
    while left:
        left -= 1
        if not out_item(source, &item) or item.kind != ITEM_STR:
            return R_INVALID_DATA
        name = cur_of(item.text, <Py_ssize_t>item.num)
        reason = doc_member(rec, parent, name, source)
        if reason != NO_REASON:
            return reason
    return NO_REASON


cdef int doc_member(Rec* rec, int32_t parent, Cursor name, Cursor* source) noexcept nogil:
    # One member with the value that comes next.
    cdef Cursor value = source[0]
    cdef Segment segment
    cdef Item item
    cdef int field = -1
    rec.pairs += 1
    if rec.pairs > MAX_PAIRS:
        return R_TOO_MANY_PARAMS
    if not out_skip(source):
        return R_INVALID_DATA
    value.end = source.at
    segment = doc_segment(rec, name)
    if path_is_proto(&rec.bases, segment.name):
        rec.skipped += 1
        return NO_REASON
    out_item(&value, &item)
    if parent == 0:
        field = names_find(&rec.plan.fields, &rec.bases, &segment)
        if field >= 0 and item.kind == ITEM_NIL:
            return NO_REASON
        if field >= 0 and rec.plan.field_types[field] == FIELD_SERVER:
            return doc_server(rec, &segment, cur_of(name.end, source.at - name.end), &item)
    return doc_set(rec, parent, field, &segment, cur_of(name.end, source.at - name.end), &item)


cdef Segment doc_segment(const Rec* rec, Cursor name) noexcept nogil:
    cdef Segment segment
    segment.name = doc_span(rec, name)
    segment.hash = tree_hash(name.at, cur_left(&name))
    segment.index = NOT_INDEX
    return segment


cdef inline Span doc_span(const Rec* rec, Cursor text) noexcept nogil:
    return span_of(IN_PACKED, text.at - rec.packed.data, cur_left(&text))


cdef int doc_set(
    Rec* rec, int32_t parent, int field, const Segment* name, Cursor value, const Item* item
) noexcept nogil:
    # `value`: the whole packed value, `item` its header.
    cdef bint opens = item.kind == ITEM_MAP and doc_opens(rec, parent, name)
    cdef int32_t node
    if opens:
        node = tree_map(&rec.tree, &rec.bases, parent, name)
        return doc_members(rec, node, &value) if node >= 0 else R_TOO_LARGE
    if rec.moved and tree_member(&rec.tree, &rec.bases, parent, name) >= 0:
        return doc_aside(rec, parent, name, value)
    if item.kind == ITEM_STR:
        return doc_leaf(rec, parent, name, doc_span(rec, cur_of(item.text, <Py_ssize_t>item.num)))
    if doc_wants_text(rec, field) and doc_is_number(item):
        return doc_leaf(rec, parent, name, doc_number(rec, item))
    node = tree_append(&rec.tree, parent, name, doc_span(rec, value), NODE_PACKED)
    return NO_REASON if node >= 0 else R_TOO_LARGE


cdef int doc_aside(Rec* rec, int32_t parent, const Segment* name, Cursor value) noexcept nogil:
    # Something of the server's stands there already: `context`, if the client's is no map, or a member of
    # context.client, where what was moved goes over what the client put there itself.
    cdef int32_t client
    if parent != 0:
        return NO_REASON
    client = rec_client(rec)
    if client < 0 or tree_add(&rec.tree, &rec.bases, client, name, doc_span(rec, value), NODE_PACKED) < 0:
        return R_TOO_LARGE
    return NO_REASON


cdef int doc_leaf(Rec* rec, int32_t parent, const Segment* name, Span text) noexcept nogil:
    return NO_REASON if tree_append(&rec.tree, parent, name, text, NODE_LEAF) >= 0 else R_TOO_LARGE


cdef bint doc_opens(const Rec* rec, int32_t parent, const Segment* name) noexcept nogil:
    # `context` of the event, and `client` of that.
    cdef const Segment* known = &rec.plan.known[N_CONTEXT if parent == 0 else N_CLIENT]
    if name.hash != known.hash or not span_is(
        &rec.bases, name.name, <const char*>span_ptr(&rec.bases, known.name), known.name.len
    ):
        return False
    return parent == 0 or parent == tree_member(&rec.tree, &rec.bases, 0, &rec.plan.known[N_CONTEXT])


cdef inline bint doc_wants_text(const Rec* rec, int field) noexcept nogil:
    # Fields whose numbers become text: ids and times.
    return field >= 0 and (rec.plan.numeric >> field) & 1


cdef inline bint doc_is_number(const Item* item) noexcept nogil:
    return ITEM_UINT <= item.kind <= ITEM_DOUBLE


cdef Span doc_number(Rec* rec, const Item* item) noexcept nogil:
    # The number as JSON would write it.
    cdef Py_ssize_t start = rec.scratch.len
    if item.kind == ITEM_UINT:
        out_uint(&rec.scratch, item.num)
    elif item.kind == ITEM_INT:
        out_int(&rec.scratch, <int64_t>item.num)
    else:
        out_bits(&rec.scratch, item)
    rec.bases.at[IN_SCRATCH] = rec.scratch.data
    return span_of(IN_SCRATCH, start, rec.scratch.len - start)


cdef int doc_server(Rec* rec, const Segment* name, Cursor value, const Item* item) noexcept nogil:
    # A name that only the server sets. What says the same is not kept twice.
    cdef int32_t client
    if item.kind == ITEM_STR and doc_says_same(rec, name, cur_of(item.text, <Py_ssize_t>item.num)):
        return NO_REASON
    client = rec_client(rec)
    rec.moved = True
    if client < 0:
        return R_TOO_LARGE
    if item.kind == ITEM_STR:
        value = cur_of(item.text, <Py_ssize_t>item.num)
    client = tree_add(
        &rec.tree, &rec.bases, client, name, doc_span(rec, value), NODE_LEAF if item.kind == ITEM_STR else NODE_PACKED
    )
    return NO_REASON if client >= 0 else R_TOO_LARGE


cdef bint doc_says_same(const Rec* rec, const Segment* name, Cursor text) noexcept nogil:
    cdef Span ours
    if span_is(&rec.bases, name.name, b"type", 4):
        ours = rec.type
    elif span_is(&rec.bases, name.name, b"writeKey", 8):
        ours = rec.key
    else:
        return False
    return ours.len == cur_left(&text) and memcmp(span_ptr(&rec.bases, ours), text.at, ours.len) == 0
