# The kind `params`: one JSON object in a parameter, whose members become properties, and whose special ones name a person.
#
# Rule: protocols "PitchTarget". The form-decoded value, trimmed, is JSON if it begins with '{', else base64 of JSON; it is
# never percent-decoded again. jsn_pack transcodes it and leaves out the names that do not count; then every member is a
# node of the tree, made of what was transcoded. A member of a name that a row has set already is passed over: the row's
# own parameter wins. A special member that is null or blank is none. A userId of a wrong type goes where every such
# field goes (rec_types).
#
# What cannot be read is stored as context.paramsError and context.paramsText, unless an access token could be in it; then
# its length and its SHA-256 stand for it. Where something is to be hashed there are zeros, and the Plan is told.

_PARAMS_SPECIAL = (
    ("email", "traits.email"), ("uuid", "userId"), ("fbid", "traits.fbid"),
    ("access_token", "traits.accessTokenSha256"),
)
_PARAMS_ERRORS = ("bad_json", "bad_encoding", "too_deep", "not_an_object", "bad_base64")

cdef enum:
    PRM_TEXT = 4096                 # bytes that are kept of a text
    PRM_SHORT = 20                  # fewer bytes are no token
    PRM_HEX = 64                    # digits of a SHA-256
    PRM_HASH = 7 + PRM_HEX          # with "sha256:" before them
    PRM_COUNT = 9                   # digits of a length, at most
    PRM_DIGITS = 21                 # of a 64-bit number and its sign

cdef const char* PRM_NAME = "accesstoken"                   # the letters of access_token; only the first is an 'a'


cdef void prm_take(Rec* rec, int32_t node) noexcept nogil:
    # A row's text, aside, becomes part of the event.
    cdef Span value = rec.tree.nodes[node].value, text
    cdef Py_ssize_t start = rec.packed.len
    cdef int held = prm_read(rec, value, &text)
    tree_drop(&rec.tree, node)
    if held == PRM_OBJECT:
        prm_members(rec, start)
    elif held != PRM_BLANK:
        prm_keep(rec, held, value, text)


# --- reading ------------------------------------------------------------------------------------------------------------

cdef int prm_read(Rec* rec, Span value, Span* text) noexcept nogil:
    # What it holds, a ParamsResult; an object is then at the end of rec.packed. `text` is what was read as JSON, or the
    # trimmed value if it is not base64.
    cdef Cursor trimmed = num_trim(cur_span(&rec.bases, value))
    text.at = value.at + <uint32_t>(trimmed.at - span_ptr(&rec.bases, value))
    text.len = <uint32_t>cur_left(&trimmed)
    if rec_is_blank(rec, text[0]):
        return PRM_BLANK
    if trimmed.at[0] != c'{' and not prm_decode(rec, text):
        return PRM_BAD_BASE64
    return prm_transcode(rec, text[0])


cdef bint prm_decode(Rec* rec, Span* text) noexcept nogil:
    # False: it is not base64.
    cdef Py_ssize_t start = rec.scratch.len, length
    if not rec_room(rec, text.len):
        return False
    length = b64_decode(span_ptr(&rec.bases, text[0]), text.len, rec.scratch.data + start)
    if length < 0:
        return False
    rec.scratch.len += length
    text[0] = span_of(IN_SCRATCH, start, length)
    return True


cdef int prm_transcode(Rec* rec, Span text) noexcept nogil:
    cdef Py_ssize_t start = rec.packed.len
    cdef Cursor made
    cdef int held
    rec.json.screened = True
    held = jsn_pack(&rec.json, span_ptr(&rec.bases, text), text.len, &rec.packed, PARAM_DEPTH)
    rec.json.screened = False
    rec.bases.at[IN_PACKED] = rec.packed.data
    made = cur_of(rec.packed.data + start, rec.packed.len - start)
    if held == PRM_OBJECT and not out_is_map(&made):
        rec.packed.len = start
        held = PRM_NOT_AN_OBJECT
    return held


# --- an object ----------------------------------------------------------------------------------------------------------

cdef void prm_members(Rec* rec, Py_ssize_t start) noexcept nogil:
    # Of the map at `start` in rec.packed, which nothing makes longer meanwhile: the cursor points into it.
    cdef Cursor src = cur_of(rec.packed.data + start, rec.packed.len - start)
    cdef int32_t properties = tree_map(&rec.tree, &rec.bases, 0, &rec.plan.params.properties)
    cdef Item item, name
    cdef Span value
    cdef uint64_t left
    if properties < 0 or rec.packed.failed or not out_item(&src, &item):
        return
    left = item.num
    while left and out_item(&src, &name):
        value = prm_value(rec, &src, &item)
        prm_member(rec, properties, &name, &item, value)
        left -= 1


cdef Span prm_value(const Rec* rec, Cursor* src, Item* item) noexcept nogil:
    # Takes one value. The Span of a text has no header, that of anything else is all of it.
    cdef const byte* begin = src.at
    cdef Cursor ahead = src[0]
    out_skip(src)
    if out_item(&ahead, item) and item.kind == ITEM_STR:
        return prm_span(rec, item)
    return span_of(IN_PACKED, begin - rec.packed.data, src.at - begin)


cdef inline Span prm_span(const Rec* rec, const Item* item) noexcept nogil:
    return span_of(IN_PACKED, item.text - rec.packed.data, <Py_ssize_t>item.num)


cdef void prm_member(
    Rec* rec, int32_t properties, const Item* name, const Item* item, Span value
) noexcept nogil:
    cdef Segment segment
    cdef int special
    cdef int32_t there
    segment.name = prm_span(rec, name)
    segment.hash = tree_hash(name.text, <Py_ssize_t>name.num)
    segment.index = NOT_INDEX
    special = names_find(&rec.plan.params.special, &rec.bases, &segment)
    if special >= 0:
        prm_special(rec, special, item, value)
        return
    there = tree_find(&rec.tree, &rec.bases, properties, &segment)
    if there < 0 or not tree_is_member(&rec.tree, there):
        tree_put(&rec.tree, &rec.bases, properties, &segment, 1, value, prm_state(item), False)


cdef inline int prm_state(const Item* item) noexcept nogil:
    return NODE_LEAF if item.kind == ITEM_STR else NODE_PACKED


cdef void prm_special(Rec* rec, int special, const Item* item, Span value) noexcept nogil:
    cdef int state = prm_state(item)
    if item.kind == ITEM_NIL or (state == NODE_LEAF and rec_is_blank(rec, value)):
        return
    if special == PRM_TOKEN and (state != NODE_LEAF or not prm_token(rec, &value)):
        return
    if special == PRM_FBID and not prm_is_fbid(rec, item, value):
        return
    if special == PRM_UUID and (item.kind == ITEM_UINT or item.kind == ITEM_INT):
        state = NODE_LEAF
        if not prm_whole(rec, item, &value):
            return
    tree_place(&rec.tree, &rec.bases, &rec.plan.params.targets[special], value, state)


cdef bint prm_whole(Rec* rec, const Item* item, Span* text) noexcept nogil:
    # A whole number's digits. False: out of memory.
    cdef Py_ssize_t start = rec.scratch.len
    if not rec_room(rec, PRM_DIGITS):
        return False
    if item.kind == ITEM_INT:
        out_int(&rec.scratch, <int64_t>item.num)
    else:
        out_uint(&rec.scratch, item.num)
    text[0] = span_of(IN_SCRATCH, start, rec.scratch.len - start)
    return True


cdef bint prm_is_fbid(const Rec* rec, const Item* item, Span value) noexcept nogil:
    # A number that is not negative, or a text of digits.
    cdef Cursor text = cur_span(&rec.bases, value)
    if item.kind != ITEM_STR:
        return item.kind == ITEM_UINT
    while chr_digit(cur_peek(&text)):
        text.at += 1
    return cur_left(&text) == 0


# --- hashes -------------------------------------------------------------------------------------------------------------

cdef bint prm_token(Rec* rec, Span* token) noexcept nogil:
    # Puts the place of its hash for the token. What a reject had instead of one is that hash. False: out of memory.
    cdef Span digits
    if token.len == PRM_HASH and prm_is_hash(rec, token[0], &digits):
        token[0] = digits
        return True
    return prm_secret(rec, token)


cdef bint prm_secret(Rec* rec, Span* text) noexcept nogil:
    # Notes the text for Plan._hash. False: out of memory.
    cdef Py_ssize_t start = rec.scratch.len
    if not rec_room(rec, PRM_HEX):
        return False
    memset(rec.scratch.data + start, c'0', PRM_HEX)
    rec.scratch.len += PRM_HEX
    rec.secret = text[0]
    rec.secret_at = text[0] = span_of(IN_SCRATCH, start, PRM_HEX)
    return True


cdef bint prm_is_hash(const Rec* rec, Span text, Span* digits) noexcept nogil:
    # Whether it begins with "sha256:" and 64 hexadecimal digits.
    cdef Cursor cursor = cur_span(&rec.bases, text)
    cdef int c, i
    if not prm_literal(&cursor, b"sha256:", 7):
        return False
    for i in range(PRM_HEX):
        c = cur_next(&cursor)
        if not (chr_digit(c) or c'a' <= c <= c'f'):
            return False
    digits.at = text.at + 7
    digits.len = PRM_HEX
    return True


cdef bint prm_literal(Cursor* cursor, const char* text, Py_ssize_t length) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(length):
        if not cur_take(cursor, text[i]):
            return False
    return True


# --- no object ----------------------------------------------------------------------------------------------------------

cdef void prm_keep(Rec* rec, int held, Span value, Span text) noexcept nogil:
    # In context: why, and the text or what stands for it.
    cdef const ParamsNames* names = &rec.plan.params
    cdef int32_t context = tree_map(&rec.tree, &rec.bases, 0, &rec.plan.known[N_CONTEXT])
    cdef Span digits
    cdef uint64_t length = value.len
    if context < 0 or rec.scratch.failed:
        return
    if held != PRM_BAD_BASE64 and not rec.anonymous and prm_is_harmless(rec, text):
        if text.len > PRM_TEXT:
            text.len = <uint32_t>utf_valid(span_ptr(&rec.bases, text), PRM_TEXT)
        tree_add(&rec.tree, &rec.bases, context, &names.error, names.errors[held], NODE_LEAF)
        tree_add(&rec.tree, &rec.bases, context, &names.text, text, NODE_LEAF)
        return
    if not prm_is_note(rec, text, &digits, &length, &held):
        digits = value
        if not prm_secret(rec, &digits):
            return
    tree_add(&rec.tree, &rec.bases, context, &names.error, names.errors[held], NODE_LEAF)
    tree_add(&rec.tree, &rec.bases, context, &names.length, prm_packed(rec, length), NODE_PACKED)
    tree_add(&rec.tree, &rec.bases, context, &names.sha256, digits, NODE_LEAF)


cdef Span prm_packed(Rec* rec, uint64_t number) noexcept nogil:
    cdef Py_ssize_t start = rec.packed.len
    pk_uint(&rec.packed, number)
    rec.bases.at[IN_PACKED] = rec.packed.data
    return span_of(IN_PACKED, start, rec.packed.len - start)


cdef bint prm_is_note(Rec* rec, Span text, Span* digits, uint64_t* length, int* held) noexcept nogil:
    # What a reject had instead of such a text, "sha256:<hex> <n> bytes <error>", says the same about it again.
    cdef Cursor cursor = cur_span(&rec.bases, text)
    cdef uint64_t count = 0
    cdef int i, taken = 0
    if not prm_is_hash(rec, text, digits):
        return False
    cursor.at += PRM_HASH
    if not cur_take(&cursor, c' '):
        return False
    while chr_digit(cur_peek(&cursor)) and taken < PRM_COUNT:
        count = count * 10 + <uint64_t>(cur_next(&cursor) - c'0')
        taken += 1
    if taken == 0 or not prm_literal(&cursor, b" bytes ", 7):
        return False
    for i in range(<int>PRM_BAD_JSON, <int>PRM_BLANK):
        if cur_left(&cursor) == rec.plan.params.errors[i].len and memcmp(
            cursor.at, span_ptr(&rec.bases, rec.plan.params.errors[i]), rec.plan.params.errors[i].len
        ) == 0:
            held[0] = i
            length[0] = count
            return True
    return False


cdef bint prm_is_harmless(const Rec* rec, Span text) noexcept nogil:
    # Whether no access token can be in it: it is text, has no escape that could spell the name, and is not made of base64's
    # characters alone, as a bare token or a further layer of base64 is. The name is looked for by its letters, because
    # NUL bytes of UTF-16 or another sign may part them.
    cdef Cursor cursor = cur_span(&rec.bases, text)
    cdef bint mixed = text.len < PRM_SHORT
    cdef int matched = 0, c, letter
    if utf_valid(cursor.at, text.len) != text.len:
        return False
    while cur_left(&cursor):
        c = cur_next(&cursor)
        mixed = mixed or (B64_VALUE[c] == B64_BAD and c != c'"')
        if c == c'\\' and cur_peek(&cursor) == c'u':
            return False
        letter = c | 0x20
        if not c'a' <= letter <= c'z':
            continue
        matched = matched + 1 if letter == PRM_NAME[matched] else letter == c'a'
        if PRM_NAME[matched] == 0:
            return False
    return mixed
