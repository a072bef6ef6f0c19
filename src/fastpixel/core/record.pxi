# From pairs to a record: places every pair in the tree, settles the rows, completes the event, writes it.
#
# The order is the contract (docs/protocols.md says it in words): structure, key, source, rows, identity; then the
# record's own completion, which cannot fail. Everything here is about one request and its Rec; no Python object is
# touched.


cdef inline bint rec_room(Rec* rec, Py_ssize_t need) noexcept nogil:
    # Makes room in the scratch buffer, which may move.
    if not pk_room(&rec.scratch, need):
        return False
    rec.bases.at[IN_SCRATCH] = rec.scratch.data
    return True


cdef void rec_open(Rec* rec, const PlanData* plan, const Route* route, const Request* request) noexcept nogil:
    # What both ways need.
    rec.scratch.len = rec.packed.len = 0
    rec.scratch.failed = rec.packed.failed = False
    rec.bases.at[IN_HEAD] = request.head
    rec.bases.at[IN_BODY] = request.body
    rec.bases.at[IN_SCRATCH] = rec.scratch.data
    rec.bases.at[IN_PACKED] = rec.packed.data
    rec.bases.at[IN_PLAN] = plan.blob
    rec.bases.at[IN_ALIAS] = request.alias
    rec.plan = plan
    rec.route = route
    rec.request = request
    rec.source = NULL
    rec.protocol = route.protocol
    rec.type.at = SPAN_NONE
    rec.anonymous = rec.issued = rec.visited = False
    rec.skipped = 0
    rec.dedupe = False
    rec.key.len = 0
    rec.place = -1


cdef void rec_begin(Rec* rec, const PlanData* plan, const Route* route, const Request* request) noexcept nogil:
    rec_open(rec, plan, route, request)
    rec_clear(rec)


cdef void rec_clear(Rec* rec) noexcept nogil:
    # What the long way needs, whatever a shape has tried before.
    cdef int i
    if rec.bulky:
        rec_slim(rec)
    rec.scratch.len = rec.packed.len = 0
    rec.scratch.failed = rec.packed.failed = False
    tree_reset(&rec.tree)
    rec.source = NULL
    rec.protocol = rec.route.protocol
    rec.anonymous = False
    rec.pairs = rec.noted = rec.times = rec.converted = 0
    rec.timed = rec.misfit = rec.moved = rec.closed = False
    rec.bad_time.len = rec.secret.len = rec.key.len = 0
    memset(rec.extra, 0, sizeof(rec.extra))
    for i in range(rec.route.count):
        rec.slots[i] = -1
        rec.given[i].at = SPAN_NONE
        rec.made[i].len = 0


cdef void rec_slim(Rec* rec) noexcept nogil:
    # After a large form: gives back memory that pixels do not need.
    pk_free(&rec.packed)
    pk_free(&rec.scratch)
    jsn_free(&rec.json)
    tree_slim(&rec.tree)
    rec_room(rec, REC_SCRATCH)
    rec.bulky = False


cdef int rec_read(Rec* rec) noexcept nogil:
    # The whole way to an event that may be stored, or the Reason against it. The POST twin (protocols): any body but JSON
    # is a form, read after the query.
    cdef bint form = rec.request.method == M_POST and not head_is_json(rec.request)
    cdef int reason = R_BAD_ENCODING if form and head_is_encoded(rec.request) else NO_REASON
    if reason == NO_REASON:
        reason = rec_all_pairs(rec, form)
    if reason == NO_REASON:
        reason = rec_key(rec)
    if reason == NO_REASON:
        reason = rec_rows(rec)
    if reason == NO_REASON:
        reason = rec_identity(rec)
    return reason


cdef int rec_all_pairs(Rec* rec, bint form) noexcept nogil:
    cdef int reason = rec_variables(rec)
    if reason == NO_REASON:
        reason = rec_pairs(rec, IN_HEAD, cur_span(&rec.bases, rec.request.query))
    if reason == NO_REASON and form:
        rec.bulky = rec.request.body_len > REC_BULK
        reason = rec_pairs(rec, IN_BODY, cur_of(rec.request.body, rec.request.body_len))
    if reason == NO_REASON and rec.tree.arrays and tree_holes(&rec.tree, 0) > MAX_HOLES:
        reason = R_INDEX_TOO_LARGE
    return reason


# --- pairs ------------------------------------------------------------------------------------------------------------

cdef int rec_variables(Rec* rec) noexcept nogil:
    # Path variables are rows like parameters; each is decoded once.
    cdef const Row* row
    cdef Cursor raw
    cdef int i, reason
    for i in range(rec.route.count):
        row = &rec.route.rows[i]
        if row.variable < 0:
            continue
        raw = path_segment(cur_span(&rec.bases, rec.request.path), row.variable)
        reason = rec_row(rec, i, pct_text(rec, rec.request.path.at >> SPAN_SHIFT, raw, True, False))
        if reason != NO_REASON:
            return reason
    return NO_REASON


cdef int rec_pairs(Rec* rec, int buffer, Cursor source) noexcept nogil:
    cdef Pair pair
    cdef int reason
    while qry_next(&source, &pair):
        if rec.route.drop_bad and qry_is_bad(&pair):
            shape_spoil(rec)
            continue
        rec.pairs += 1
        if rec.pairs > MAX_PAIRS:
            return R_TOO_MANY_PARAMS
        reason = rec_pair(rec, buffer, &pair)
        if reason != NO_REASON:
            return reason
    return NO_REASON


cdef int rec_pair(Rec* rec, int buffer, const Pair* pair) noexcept nogil:
    cdef Span value = pct_text(rec, buffer, pair.value, pair.value_flags & CC_CODED, True)
    cdef Segment name
    cdef int row
    name.name = pct_text(rec, buffer, pair.name, pair.name_flags & CC_CODED, True)
    name.hash = tree_hash(span_ptr(&rec.bases, name.name), name.name.len)
    name.index = NOT_INDEX
    row = names_find(&rec.route.names, &rec.bases, &name)
    shape_note(rec, pair, value)
    if row >= 0:
        return rec_row(rec, row, value)
    return rec_rest(rec, &name, value, (pair.name_flags & (CC_DOT | CC_CODED)) != 0)


cdef int rec_row(Rec* rec, int index, Span value) noexcept nogil:
    # A pair that a row names goes to the row's target, or aside until the gates are known.
    cdef const Row* row = &rec.route.rows[index]
    cdef int status
    if row.aside:
        status = tree_put(&rec.tree, &rec.bases, 1, &row.source, 1, value, NODE_LEAF, rec.route.first)
    else:
        status = tree_put(
            &rec.tree, &rec.bases, 0, row.target.at, row.target.length, value, NODE_LEAF, rec.route.first
        )
    if status == PUT_DONE:
        rec.slots[index] = rec.tree.put
    return rec_status(status)


cdef inline int rec_status(int put) noexcept nogil:
    if put == PUT_INDEX:
        return R_INDEX_TOO_LARGE
    return R_TOO_LARGE if put == PUT_FAILED else NO_REASON


cdef int rec_rest(Rec* rec, const Segment* name, Span value, bint dots) noexcept nogil:
    # Every other pair: one literal name, or a dot path, below the target of the '*' row.
    cdef const Row* row
    cdef Segment path[MAX_SEGMENTS]
    cdef int prefix, count = 1
    if rec.route.rest < 0:
        return NO_REASON
    row = &rec.route.rows[rec.route.rest]
    prefix = row.target.length
    if prefix:
        memcpy(path, row.target.at, <size_t>prefix * sizeof(Segment))
    path[prefix] = name[0]
    if row.kind == K_DOTPATH and dots:
        count = path_cut(&rec.bases, name.name, path + prefix)
    elif path_is_proto(&rec.bases, name.name):
        count = PATH_PROTO
    if count == PATH_EMPTY:
        return NO_REASON
    if count == PATH_PROTO:
        rec.skipped += 1
        return NO_REASON
    if count == PATH_DEEP:
        return R_TOO_DEEP
    if prefix == 0 and rec_is_reserved(rec, &path[0]):
        memmove(path + 2, path, <size_t>count * sizeof(Segment))
        path[0] = rec.plan.known[N_CONTEXT]
        path[1] = rec.plan.known[N_CLIENT]
        count += 2
    return rec_status(
        tree_put(&rec.tree, &rec.bases, 0, path, prefix + count, value, NODE_LEAF, rec.route.first)
    )


cdef bint rec_is_reserved(Rec* rec, const Segment* name) noexcept nogil:
    # Names that only the server sets (the record's contract: "Server-owned").
    cdef int field = names_find(&rec.plan.fields, &rec.bases, name)
    return field >= 0 and rec.plan.field_types[field] == FIELD_SERVER


cdef int path_cut(const Bases* bases, Span name, Segment* out) noexcept nogil:
    # Cuts a dot path; returns how many segments, or PATH_EMPTY, PATH_PROTO, PATH_DEEP (the first of these that is true).
    cdef const byte* begin = span_ptr(bases, name)
    cdef uint32_t start = 0, at = 0, end
    cdef unsigned int dots
    cdef int count = 0, verdict = 0, got
    while start <= name.len:
        # From `at` on, up to a dot or the end.
        dots = blk_is(blk_load(begin + at, name.len - at), c'.') & blk_part(name.len - at)
        if dots == 0 and name.len - at > BLOCK:
            at += BLOCK
            continue
        end = at + blk_first(dots) if dots else name.len
        got = path_segment_set(&out[min(count, <int>MAX_DEPTH)], name, begin, start, end, count)
        if got == PATH_EMPTY:
            return PATH_EMPTY
        verdict = got if got else verdict
        count += 1
        start = at = end + 1
    if verdict == 0 and count > MAX_DEPTH:
        verdict = PATH_DEEP
    return verdict if verdict else count


cdef inline int path_segment_set(
    Segment* out, Span name, const byte* begin, uint32_t start, uint32_t end, int position
) noexcept nogil:
    # The segment from `start` to `end`; 0, PATH_EMPTY or PATH_PROTO.
    if start == end:
        return PATH_EMPTY
    out.name.at = name.at + start
    out.name.len = end - start
    out.hash = tree_hash(begin + start, end - start)
    out.index = <int16_t>(path_index(begin + start, end - start) if position else NOT_INDEX)
    return PATH_PROTO if end - start == 9 and memcmp(begin + start, b"__proto__", 9) == 0 else 0


cdef int path_index(const byte* at, Py_ssize_t length) noexcept nogil:
    # 0|[1-9][0-9]{0,2} is an array's index; more digits are too large a one; anything else is a name.
    cdef int value = 0
    cdef Py_ssize_t i
    if length == 0 or (at[0] == c'0' and length > 1):
        return NOT_INDEX
    for i in range(length):
        if not chr_digit(at[i]):
            return NOT_INDEX
        if i < 3:
            value = value * 10 + at[i] - c'0'
    return value if length <= 3 else INDEX_TOO_LARGE


cdef inline bint path_is_proto(const Bases* bases, Span name) noexcept nogil:
    return name.len == 9 and span_is(bases, name, b"__proto__", 9)


cdef Cursor path_segment(Cursor path, int index) noexcept nogil:
    # The raw bytes between the slashes; the path starts with one.
    cdef const byte* start
    cdef int got = cur_next(&path)
    start = path.at
    while True:
        got = cur_next(&path)
        if got >= 0 and got != c'/':
            continue
        if index == 0 or got < 0:
            return cur_of(start, (path.at if got < 0 else path.at - 1) - start)
        index -= 1
        start = path.at


# --- rows -------------------------------------------------------------------------------------------------------------

cdef inline bint rec_is_text(const Rec* rec, int32_t node) noexcept nogil:
    return node >= 0 and rec.tree.nodes[node].state == NODE_LEAF and tree_is_live(&rec.tree, node)


cdef int rec_key(Rec* rec) noexcept nogil:
    # The key, then its source.
    cdef const Row* row = &rec.route.rows[rec.route.key]
    cdef int32_t node = rec.slots[rec.route.key]
    if not rec_is_text(rec, node) or rec.tree.nodes[node].value.len == 0:
        return row.required
    rec.key = rec.tree.nodes[node].value
    return rec_source(rec)


cdef int rec_source(Rec* rec) noexcept nogil:
    # The key's source and what the visitor wishes of it, or the Reason against it.
    cdef int reason = rec_find_source(rec)
    return rec_privacy(rec) if reason == NO_REASON and rec.request.gpc else reason


cdef int rec_find_source(Rec* rec) noexcept nogil:
    # None configured: every key is good. A source's origins belong to it.
    cdef Segment name
    cdef int found
    if rec.plan.sources.count == 0:
        return NO_REASON
    name.name = rec.key
    name.hash = tree_hash(span_ptr(&rec.bases, name.name), name.name.len)
    found = names_find(&rec.plan.sources, &rec.bases, &name)
    if found < 0 or not rec.plan.source_rows[found].protocols & rec.route.shared:
        return R_UNKNOWN_KEY
    rec.source = &rec.plan.source_rows[found]
    if not rec.source.enabled:
        return R_SOURCE_DISABLED
    if rec.source.origins.count and not rec_origin_fits(rec):
        return R_ORIGIN_NOT_ALLOWED
    if not (rec.source.protocols >> rec.route.protocol) & 1:
        rec.protocol = bit_first(rec.source.protocols & rec.route.shared)
    return NO_REASON


cdef int bit_first(uint64_t bits) noexcept nogil:
    # The number of the lowest bit; there is one.
    cdef int number = 0
    while not (bits >> number) & 1:
        number += 1
    return number


cdef bint rec_origin_fits(const Rec* rec) noexcept nogil:
    # A request without an Origin comes from no page.
    cdef Segment name
    name.name = rec.request.headers[H_ORIGIN]
    if name.name.len == 0:
        return True
    name.hash = tree_hash(span_ptr(&rec.bases, name.name), name.name.len)
    return names_find(&rec.source.origins, &rec.bases, &name) >= 0


cdef inline const Source* rec_policy(const Rec* rec) noexcept nogil:
    # Whose privacy rules hold.
    return &rec.plan.general if rec.source is NULL else rec.source


cdef void rec_stricter(Source* policy, const Source* other) noexcept nogil:
    # Both hold: the policies are in the order of their strictness.
    policy.ip = max(policy.ip, other.ip)
    policy.gpc = max(policy.gpc, other.gpc)


cdef int rec_privacy(Rec* rec) noexcept nogil:
    # The visitor objects (rule: "Privacy" of the contract).
    cdef int policy = rec_policy(rec).gpc
    rec.anonymous = policy == GPC_ANONYMISE
    if policy == GPC_DROP or (rec.anonymous and rec_is_personal(rec)):
        return R_PRIVACY
    return NO_REASON


cdef bint rec_is_personal(const Rec* rec) noexcept nogil:
    # identify, alias and group say something of a person and nothing else.
    if rec.type.at == SPAN_NONE:
        return rec.route.personal
    return (
        span_is(&rec.bases, rec.type, b"identify", 8) or span_is(&rec.bases, rec.type, b"alias", 5)
        or span_is(&rec.bases, rec.type, b"group", 5)
    )


cdef inline bint rec_trusts(const Rec* rec) noexcept nogil:
    return rec.source is not NULL and rec.source.trust_client_ip


cdef inline Py_ssize_t rec_source_bytes(const Rec* rec) noexcept nogil:
    # Of the packed member `source`; 0: there is none.
    return 0 if rec.source is NULL else rec.source.packed.len


cdef int rec_rows(Rec* rec) noexcept nogil:
    cdef int i, reason
    for i in range(rec.route.count):
        if i == rec.route.key or i == rec.route.rest:
            continue
        reason = rec_settle(rec, i)
        if reason != NO_REASON:
            return reason
    return NO_REASON


cdef int rec_settle(Rec* rec, int index) noexcept nogil:
    # One row: where its value goes, and whether it is what the row demands.
    cdef const Row* row = &rec.route.rows[index]
    cdef int32_t node = rec.slots[index]
    if node >= 0 and row.aside and row.target.length:
        node = rec_place(rec, row, node)
        rec.slots[index] = node
    if not rec_is_text(rec, node):
        return row.required
    rec.given[index] = rec.tree.nodes[node].value
    if row.unquote:
        rec_unquote(rec, &rec.tree.nodes[node].value)
    if row.tidy and not rec_tidy(rec, node):
        return row.required
    if rec.tree.nodes[node].value.len == 0:
        return rec_empty(rec, row, node)
    if row.max_chars and rec_chars(rec, rec.tree.nodes[node].value) > row.max_chars:
        return R_VALUE_TOO_LONG
    if row.kind == K_TEXT:
        return NO_REASON
    return rec_convert(rec, index, node)


cdef int32_t rec_place(Rec* rec, const Row* row, int32_t node) noexcept nogil:
    # Gates: `trusted` and `when`. Returns the node at the row's target, or -1 if the row does not count.
    cdef Span value = rec.tree.nodes[node].value
    if row.trusted and not rec_trusts(rec):
        return -1
    if row.gate >= 0 and not rec_gate(rec, row):
        if row.otherwise.length:
            tree_place(&rec.tree, &rec.bases, &row.otherwise, value, NODE_LEAF)
        return -1
    return tree_place(&rec.tree, &rec.bases, &row.target, value, NODE_LEAF)


cdef bint rec_gate(const Rec* rec, const Row* row) noexcept nogil:
    cdef int32_t node = rec.slots[row.gate]
    return rec_is_text(rec, node) and rec_opens(rec, row, rec.tree.nodes[node].value)


cdef inline bint rec_opens(const Rec* rec, const Row* row, Span value) noexcept nogil:
    return span_is(
        &rec.bases, value, <const char*>span_ptr(&rec.bases, row.gate_value), row.gate_value.len
    )


cdef void rec_unquote(const Rec* rec, Span* value) noexcept nogil:
    if rec_is_quoted(rec, value[0]):
        value.at += 1
        value.len -= 2


cdef inline bint rec_is_quoted(const Rec* rec, Span value) noexcept nogil:
    cdef const byte* at = span_ptr(&rec.bases, value)
    return value.len >= 2 and at[0] == c'"' and at[value.len - 1] == c'"'


cdef bint rec_tidy(Rec* rec, int32_t node) noexcept nogil:
    # False: nothing is left, and the node is gone.
    cdef Span value = rec.tree.nodes[node].value
    cdef Py_ssize_t length
    if rec_is_tidy(rec, value):
        return True
    if not rec_room(rec, value.len):
        return False
    length = chr_tidy(span_ptr(&rec.bases, value), value.len, rec.scratch.data + rec.scratch.len)
    if length == 0:
        tree_drop(&rec.tree, node)
        return False
    rec.tree.nodes[node].value = span_of(IN_SCRATCH, rec.scratch.len, length)
    rec.scratch.len += length
    return True


cdef bint rec_is_tidy(const Rec* rec, Span value) noexcept nogil:
    # Visible ASCII only, as nearly every id is.
    cdef Cursor text = cur_span(&rec.bases, value)
    cdef Block block
    while cur_left(&text):
        block = blk_load(text.at, cur_left(&text))
        if blk_odd(block) & blk_part(cur_left(&text)):
            return False
        text.at += min(cur_left(&text), <Py_ssize_t>BLOCK)
    return value.len > 0


cdef int rec_empty(Rec* rec, const Row* row, int32_t node) noexcept nogil:
    if row.required != NO_REASON:
        return row.required
    if row.nonempty != NO_REASON:
        return row.nonempty
    if row.has_if_empty:
        rec.tree.nodes[node].value = row.if_empty
    elif row.is_timestamp:
        tree_drop(&rec.tree, node)
    elif row.kind != K_TEXT:
        rec_unusable(rec, row, node)
    return NO_REASON


cdef void rec_unusable(Rec* rec, const Row* row, int32_t node) noexcept nogil:
    # What cannot be read is not lost: it goes where a person will find it. Unless the row says that it does not matter.
    if row.ignored:
        tree_drop(&rec.tree, node)
    else:
        rec_to_client(rec, node, &row.source)


cdef inline Py_ssize_t rec_chars(const Rec* rec, Span value) noexcept nogil:
    return utf_chars(span_ptr(&rec.bases, value), value.len)


cdef inline bint rec_is_blank(const Rec* rec, Span value) noexcept nogil:
    return chr_is_blank_text(span_ptr(&rec.bases, value), value.len)


cdef int rec_convert(Rec* rec, int index, int32_t node) noexcept nogil:
    # Gives the value its kind.
    cdef const Row* row = &rec.route.rows[index]
    cdef Py_ssize_t start = rec.packed.len
    if row.is_timestamp:
        rec_time(rec, row.kind, rec.tree.nodes[node].value)
        if not rec.timed:
            if row.required != NO_REASON:
                return row.required
            rec.bad_time = rec.tree.nodes[node].value
        tree_drop(&rec.tree, node)
        return NO_REASON
    if row.kind == K_PARAMS:
        prm_take(rec, node)
        return NO_REASON
    # Room for what base64 decodes to, before anything points into a buffer that may move.
    if row.kind == K_BASE64_JSON and not rec_room(rec, rec.tree.nodes[node].value.len):
        return R_TOO_LARGE
    if kind_pack(rec, row.kind, cur_span(&rec.bases, rec.tree.nodes[node].value), &rec.packed):
        rec.bases.at[IN_PACKED] = rec.packed.data
        rec.made[index] = span_of(IN_PACKED, start, rec.packed.len - start)
        rec.converted += 1
        rec.tree.nodes[node].state = NODE_PACKED
        rec.tree.nodes[node].value = rec.made[index]
        return NO_REASON
    if row.required != NO_REASON:
        return row.required
    rec_unusable(rec, row, node)
    return NO_REASON


cdef void rec_time(Rec* rec, int kind, Span text) noexcept nogil:
    # The client's time of the event.
    rec.timed = time_read(kind, cur_span(&rec.bases, text), &rec.time)
    rec.time_text = text
    rec.time_kind = kind
    rec.times += 1


cdef int rec_identity(Rec* rec) noexcept nogil:
    # At least one of the names has a text that is not blank.
    cdef int32_t node
    cdef int i
    for i in range(rec.route.identity_count):
        node = tree_member(&rec.tree, &rec.bases, 0, &rec.route.identity[i])
        if node < 0 or rec.tree.nodes[node].state != NODE_LEAF:
            continue
        if not rec_is_blank(rec, rec.tree.nodes[node].value):
            return NO_REASON
    return R_MISSING_IDENTITY if rec.route.identity_count else NO_REASON


# --- completion -------------------------------------------------------------------------------------------------------

cdef int rec_complete(Rec* rec) noexcept nogil:
    # What the server adds. The order matters: types first, so that what follows may rely on them.
    if rec.anonymous:
        rec_anonymise(rec)
    rec_types(rec)
    if rec.route.visitor and rec.plan.visitor.on and not rec.anonymous and not rec_visit(rec):
        return R_SPOOL_FULL
    rec_timestamp(rec)
    rec_defaults(rec)
    rec_receipt(rec)
    rec_context(rec)
    rec.dedupe = rec.route.dedupe_count > 0 and rec.timed and not rec.anonymous    # the hash would tell the person
    if not rec.dedupe and not rec_message_id(rec):
        return R_SPOOL_FULL
    return R_TOO_LARGE if rec.tree.failed or rec.scratch.failed or rec.packed.failed else NO_REASON


cdef void rec_anonymise(Rec* rec) noexcept nogil:
    # Before the types are looked at, so that nothing of it comes to context.client.
    # SDKs send a person's traits in the context of every event.
    cdef int32_t context, client
    cdef int i
    context = tree_member(&rec.tree, &rec.bases, 0, &rec.plan.known[N_CONTEXT])
    client = -1 if context < 0 else tree_member(&rec.tree, &rec.bases, context, &rec.plan.known[N_CLIENT])
    for i in range(PERSONAL):
        rec_forget(rec, 0, &rec.plan.personal[i])
        rec_forget(rec, context, &rec.plan.personal[i])
        rec_forget(rec, client, &rec.plan.personal[i])


cdef void rec_forget(Rec* rec, int32_t parent, const Segment* name) noexcept nogil:
    # Drops a member, if there is one.
    cdef int32_t node = -1 if parent < 0 else tree_member(&rec.tree, &rec.bases, parent, name)
    if node >= 0:
        tree_drop(&rec.tree, node)


cdef bint rec_visit(Rec* rec) noexcept nogil:
    # The visitor's id, if the client gave none: the cookie's, else a new one. False: there is no randomness.
    cdef int32_t node = tree_member(&rec.tree, &rec.bases, 0, &rec.plan.personal[P_ANONYMOUS_ID])
    cdef Cursor cookie
    cdef Span id
    if node >= 0 and not (rec.tree.nodes[node].state == NODE_LEAF and rec_is_blank(rec, rec.tree.nodes[node].value)):
        return True
    cookie = visit_cookie(rec)
    if uuid_is_7(cookie):
        memcpy(rec.visitor, cookie.at, UUID_TEXT)
    elif rec.visited or uuid_7(rec.request.received, rec.visitor):
        rec.issued = True
    else:
        return False
    if not rec_room(rec, UUID_TEXT):
        return True                 # rec_complete sees that memory is short
    memcpy(rec.scratch.data + rec.scratch.len, rec.visitor, UUID_TEXT)
    id = span_of(IN_SCRATCH, rec.scratch.len, UUID_TEXT)
    rec.scratch.len += UUID_TEXT
    tree_add(&rec.tree, &rec.bases, 0, &rec.plan.personal[P_ANONYMOUS_ID], id, NODE_LEAF)
    return True


cdef Cursor visit_cookie(const Rec* rec) noexcept nogil:
    # The value of the visitor cookie (RFC 6265, 4.2.1); empty: there is none.
    cdef Cursor source = head_value(rec.request, H_COOKIE), part
    cdef const Span* name = &rec.plan.visitor.name
    cdef const byte* end
    while cur_left(&source):
        end = <const byte*>memchr(source.at, c';', <size_t>cur_left(&source))
        part = num_trim(cur_of(source.at, (source.end if end is NULL else end) - source.at))
        source.at = source.end if end is NULL else end + 1
        if cur_left(&part) >= name.len and memcmp(part.at, span_ptr(&rec.bases, name[0]), name.len) == 0:
            part.at += name.len
            return part
    return cur_of(source.end, 0)


cdef void rec_types(Rec* rec) noexcept nogil:
    # A listed field of the wrong type goes to context.client; `known` then holds the members the core asks for.
    cdef int32_t node, following
    cdef int i, field, type_
    for i in range(KNOWN_COUNT):
        rec.known[i] = -1
    if not rec.closed:
        rec_context_type(rec)
    node = rec.tree.nodes[0].first
    while node >= 0:
        following = rec.tree.nodes[node].next
        field = rec_field(rec, node)
        if field >= 0:
            type_ = rec.plan.field_types[field]
            if rec_fits(rec, type_, node):
                if field <= N_CONTEXT:
                    rec.known[field] = node
            else:
                rec.misfit = True
                rec_to_client(rec, node, &rec.plan.fields.all[field])
        node = following


cdef int rec_field(Rec* rec, int32_t node) noexcept nogil:
    cdef Segment name
    name.name = rec.tree.nodes[node].name
    name.hash = rec.tree.nodes[node].hash
    return names_find(&rec.plan.fields, &rec.bases, &name)


cdef bint rec_fits(const Rec* rec, int type_, int32_t node) noexcept nogil:
    cdef int state = rec.tree.nodes[node].state, head
    if type_ == FIELD_TEXT or type_ == FIELD_TIME:
        return state == NODE_LEAF
    if type_ == FIELD_SERVER or state == NODE_MAP:
        return True
    if state != NODE_PACKED:
        return False
    head = span_ptr(&rec.bases, rec.tree.nodes[node].value)[0]
    return head & 0xF0 == 0x80 or head == 0xDE or head == 0xDF


cdef void rec_context_type(Rec* rec) noexcept nogil:
    # Makes sure that context and context.client, where they exist, are maps.
    cdef const Segment* context = &rec.plan.known[N_CONTEXT]
    cdef const Segment* client = &rec.plan.known[N_CLIENT]
    cdef int32_t node = tree_member(&rec.tree, &rec.bases, 0, context)
    if node >= 0 and rec.tree.nodes[node].state != NODE_MAP:
        rec_wrap(rec, node, context)
    elif node >= 0:
        node = tree_member(&rec.tree, &rec.bases, node, client)
        if node >= 0 and rec.tree.nodes[node].state != NODE_MAP:
            rec_wrap(rec, node, client)


cdef void rec_wrap(Rec* rec, int32_t node, const Segment* name) noexcept nogil:
    # `node`, which should be a map, leaves its place and becomes context.client.<name>.
    cdef int32_t kept
    rec.misfit = True
    kept = tree_take(&rec.tree, node, 1, name)
    cdef int32_t client = rec_client(rec) if kept >= 0 else -1
    if client >= 0:
        tree_take(&rec.tree, kept, client, name)


cdef int32_t rec_client(Rec* rec) noexcept nogil:
    # The map context.client; both names are maps afterwards.
    cdef int32_t context
    rec_context_type(rec)
    context = tree_map(&rec.tree, &rec.bases, 0, &rec.plan.known[N_CONTEXT])
    if context < 0:
        return -1
    return tree_map(&rec.tree, &rec.bases, context, &rec.plan.known[N_CLIENT])


cdef void rec_to_client(Rec* rec, int32_t node, const Segment* name) noexcept nogil:
    # Moves a member to context.client.<name>, over one that the client put there itself.
    cdef int32_t client = rec_client(rec), other
    if client < 0:
        return
    other = tree_member(&rec.tree, &rec.bases, client, name)
    if other == node:
        return
    if other >= 0:
        tree_drop(&rec.tree, other)
    tree_take(&rec.tree, node, client, name)


cdef void rec_timestamp(Rec* rec) noexcept nogil:
    # Unusable: the text is kept beside the receipt. Absent: by the client's two clocks, if the dialect says so.
    cdef int32_t node = rec.known[N_TIMESTAMP]
    if node >= 0 and not rec.timed:
        rec_time(rec, K_ISO8601, rec.tree.nodes[node].value)
        if not rec.timed and rec.tree.nodes[node].value.len:
            rec.bad_time = rec.tree.nodes[node].value
    if node >= 0:
        tree_drop(&rec.tree, node)
    if not rec.timed and not (rec.bad_time.len == 0 and rec.route.skew and rec_known_skew(rec)):
        rec.time = rec.request.received
    if rec.bad_time.len:
        rec_keep_bad_time(rec)


cdef void rec_keep_bad_time(Rec* rec) noexcept nogil:
    cdef int32_t client
    cdef int known = N_ORIGINAL_TIMESTAMP
    rec.misfit = True
    if rec.known[N_ORIGINAL_TIMESTAMP] < 0:
        rec.known[known] = tree_add(&rec.tree, &rec.bases, 0, &rec.plan.known[known], rec.bad_time, NODE_LEAF)
        return
    client = rec_client(rec)
    if client >= 0:
        tree_add(&rec.tree, &rec.bases, client, &rec.plan.known[N_TIMESTAMP], rec.bad_time, NODE_LEAF)


cdef bint rec_known_skew(Rec* rec) noexcept nogil:
    cdef int32_t sent = rec.known[N_SENT_AT], original = rec.known[N_ORIGINAL_TIMESTAMP]
    if sent < 0 or original < 0:
        return False
    return rec_skew(rec, rec.tree.nodes[sent].value, rec.tree.nodes[original].value)


cdef bint rec_skew(Rec* rec, Span sent_text, Span original_text) noexcept nogil:
    # receipt - (sentAt - originalTimestamp), RudderStack's correction of a client's clock. False: rec.time is not set.
    cdef Time sent, original
    cdef int64_t nanos
    if not time_read(K_ISO8601, cur_span(&rec.bases, sent_text), &sent):
        return False
    if not time_read(K_ISO8601, cur_span(&rec.bases, original_text), &original):
        return False
    nanos = <int64_t>rec.request.received.nanos - sent.nanos + original.nanos
    rec.time.seconds = rec.request.received.seconds - sent.seconds + original.seconds
    while nanos < 0:
        nanos += 1000000000
        rec.time.seconds -= 1
    rec.time.seconds += nanos // 1000000000
    rec.time.nanos = <uint32_t>(nanos % 1000000000)
    return time_usable(&rec.time)


cdef void rec_defaults(Rec* rec) noexcept nogil:
    # Dialect.defaults, where the client gave nothing at that path.
    cdef const Default* default
    cdef int32_t parent
    cdef int i, depth
    for i in range(rec.route.default_count):
        default = &rec.route.defaults[i]
        parent = 0
        for depth in range(default.target.length - 1):
            parent = tree_map(&rec.tree, &rec.bases, parent, &default.target.at[depth])
            if parent < 0:
                return
        if tree_member(&rec.tree, &rec.bases, parent, &default.target.at[default.target.length - 1]) < 0:
            tree_add(
                &rec.tree, &rec.bases, parent, &default.target.at[default.target.length - 1],
                default.packed, NODE_PACKED,
            )


cdef void rec_receipt(Rec* rec) noexcept nogil:
    # Names that hold the time of receipt as text, unless the client sent them.
    cdef int i
    for i in range(rec.route.receipt_count):
        if tree_member(&rec.tree, &rec.bases, 0, &rec.route.receipt[i]) >= 0:
            continue
        if rec.extra[<int>X_RECEIPT].len == 0:
            rec.extra[<int>X_RECEIPT] = rec_receipt_text(rec)
        tree_add(&rec.tree, &rec.bases, 0, &rec.route.receipt[i], rec.extra[<int>X_RECEIPT], NODE_LEAF)


cdef Span rec_receipt_text(Rec* rec) noexcept nogil:
    # Within a second only the milliseconds differ: 5 % of what a pixel costs.
    cdef Time received = rec.request.received
    if not rec_room(rec, TIME_TEXT):
        return span_of(IN_SCRATCH, 0, 0)
    if rec.receipt[0] == 0 or received.seconds != rec.receipt_second:
        time_text(received, rec.receipt)
        rec.receipt_second = received.seconds
    time_put(rec.receipt + 20, <int>(received.nanos // 1000000), 3)
    memcpy(rec.scratch.data + rec.scratch.len, rec.receipt, TIME_TEXT)
    rec.scratch.len += TIME_TEXT
    return span_of(IN_SCRATCH, rec.scratch.len - TIME_TEXT, TIME_TEXT)


cdef void rec_context(Rec* rec) noexcept nogil:
    # What connection and headers know, where the client said nothing.
    if rec.closed:
        return
    if rec_policy(rec).ip != IP_KEEP or rec.anonymous:
        rec_client_ip(rec)
    if rec.request.ip_len and rec_policy(rec).ip != IP_DROP and not rec.anonymous:
        rec_context_put(rec, X_IP, N_IP, rec_ip(rec))
    if rec.request.headers[H_USER_AGENT].len:
        rec_context_put(rec, X_USER_AGENT, N_USER_AGENT, rec_header(rec, H_USER_AGENT))
    if rec.request.headers[H_REFERER].len:
        rec_context_put(rec, X_REFERRER, N_REFERRER, rec_header(rec, H_REFERER))


cdef void rec_client_ip(Rec* rec) noexcept nogil:
    # The policy holds for an address that the client gave, too: context.ip, and what was moved to context.client.
    cdef int32_t context = tree_member(&rec.tree, &rec.bases, 0, &rec.plan.known[N_CONTEXT])
    if context >= 0:
        rec_shorten_ip(rec, context)
        rec_shorten_ip(rec, tree_member(&rec.tree, &rec.bases, context, &rec.plan.known[N_CLIENT]))


cdef void rec_shorten_ip(Rec* rec, int32_t parent) noexcept nogil:
    # What is no address is not kept in its place.
    cdef int32_t node = -1 if parent < 0 else tree_member(&rec.tree, &rec.bases, parent, &rec.plan.known[N_IP])
    if node < 0:
        return
    shape_spoil(rec)
    if rec.tree.nodes[node].state == NODE_LEAF and rec_policy(rec).ip == IP_TRUNCATE and not rec.anonymous:
        rec.tree.nodes[node].value = rec_truncated(rec, cur_span(&rec.bases, rec.tree.nodes[node].value))
        if rec.tree.nodes[node].value.len:
            return
    tree_drop(&rec.tree, node)


cdef Span rec_truncated(Rec* rec, Cursor text) noexcept nogil:
    # The address without its last bits, as text; empty: it is none.
    cdef char short[INET6_ADDRSTRLEN]
    cdef Py_ssize_t length = prx_truncate(text, short)
    if length == 0 or not rec_room(rec, length):
        return span_of(IN_SCRATCH, 0, 0)
    memcpy(rec.scratch.data + rec.scratch.len, short, <size_t>length)
    rec.scratch.len += length
    return span_of(IN_SCRATCH, rec.scratch.len - length, length)


cdef Span rec_ip(Rec* rec) noexcept nogil:
    cdef Py_ssize_t length = rec.request.ip_len
    if rec_policy(rec).ip == IP_TRUNCATE:
        return rec_truncated(rec, cur_of(rec.request.ip, length))
    if not rec_room(rec, length):
        return span_of(IN_SCRATCH, 0, 0)
    memcpy(rec.scratch.data + rec.scratch.len, rec.request.ip, <size_t>length)
    rec.scratch.len += length
    return span_of(IN_SCRATCH, rec.scratch.len - length, length)


cdef inline Span rec_header(Rec* rec, int header) noexcept nogil:
    return rec_text(rec, IN_HEAD, cur_span(&rec.bases, rec.request.headers[header]))


cdef void rec_context_put(Rec* rec, int extra, int known, Span value) noexcept nogil:
    cdef int32_t context = tree_map(&rec.tree, &rec.bases, 0, &rec.plan.known[N_CONTEXT])
    if context < 0 or tree_member(&rec.tree, &rec.bases, context, &rec.plan.known[known]) >= 0:
        return
    rec.extra[extra] = value
    tree_add(&rec.tree, &rec.bases, context, &rec.plan.known[known], value, NODE_LEAF)


cdef bint rec_message_id(Rec* rec) noexcept nogil:
    # The client's, unless it is blank. False: there is no randomness.
    cdef int32_t node = rec.known[N_MESSAGE_ID]
    cdef Span id
    if node >= 0 and not rec_is_blank(rec, rec.tree.nodes[node].value):
        return True
    if not rec_new_id(rec, &id):
        return False
    rec_set_message_id(rec, id)
    return True


cdef bint rec_new_id(Rec* rec, Span* id) noexcept nogil:
    if not rec_room(rec, UUID_TEXT) or not uuid_7(rec.request.received, rec.scratch.data + rec.scratch.len):
        return False
    id[0] = span_of(IN_SCRATCH, rec.scratch.len, UUID_TEXT)
    rec.scratch.len += UUID_TEXT
    return True


cdef void rec_set_message_id(Rec* rec, Span id) noexcept nogil:
    rec.extra[<int>X_ID] = id
    tree_add(&rec.tree, &rec.bases, 0, &rec.plan.known[N_MESSAGE_ID], id, NODE_LEAF)


cdef int rec_pack(Rec* rec, Py_ssize_t body, Pack* out) noexcept nogil:
    # Appends the record, or gives the Reason and appends nothing. `body`: bytes that the limit is reckoned from.
    cdef Py_ssize_t start = out.len
    rec_pack_head(rec, rec.tree.nodes[0].count, out)
    rec.members_at = out.len
    rec.leaves.count = 0
    tree_pack_members(&rec.tree, &rec.bases, &rec.tree.nodes[0], out, &rec.leaves)
    if out.failed or out.len - start > max(4 * body, <Py_ssize_t>MAX_RECORD):
        out.len = start
        out.failed = False
        return R_TOO_LARGE
    return NO_REASON


cdef void rec_pack_head(const Rec* rec, Py_ssize_t members, Pack* out) noexcept nogil:
    # What comes before the tree's members. receivedAt comes first: `scan` then reads one member.
    cdef bint named = rec_source_bytes(rec) > 0
    pk_map(out, members + (5 if named else 4))
    pk_str(out, b"receivedAt", 10)
    pk_seconds(out, rec.request.received.seconds, rec.request.received.nanos)
    pk_str(out, b"timestamp", 9)
    pk_seconds(out, rec.time.seconds, rec.time.nanos)
    if rec.type.at == SPAN_NONE:
        pk_raw(out, span_ptr(&rec.bases, rec.route.head), rec.route.head.len)
    else:
        rec_pack_kind(rec, out)
    if named:
        pk_raw(out, span_ptr(&rec.bases, rec.source.packed), rec.source.packed.len)


cdef void rec_pack_kind(const Rec* rec, Pack* out) noexcept nogil:
    # `protocol` and `type` where they are not the route's.
    cdef Span protocol = rec.plan.protocols[rec.protocol]
    pk_raw(out, span_ptr(&rec.bases, protocol), protocol.len)
    pk_str(out, b"type", 4)
    pk_str(out, span_ptr(&rec.bases, rec.type), rec.type.len)
