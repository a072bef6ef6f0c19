# The map of the compiled module: its structs, and what each field is for, in the order in which a request meets them.
# Everything below Plan is `noexcept nogil`: the compiler itself proves that no Python object is made for a parameter.

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

ctypedef unsigned char byte

cdef enum:
    SPAN_SHIFT = 29                 # a buffer of a request has less than 512 MiB
    SPAN_MASK = 0x1FFFFFFF

cdef enum:                          # which bytes a Span means
    IN_HEAD                         # the request's head
    IN_BODY                         # its body
    IN_SCRATCH                      # decoded text
    IN_PACKED                       # values that are msgpack already
    IN_PLAN                         # constants of the Plan
    IN_ALIAS                        # the path that an alias stands for
    IN_SHARED                       # a context that events of one request have in common

cdef enum:
    SPAN_NONE = 0xFFFFFFFF          # `at` of a Span that there is not

cdef struct Span:
    uint32_t at                     # buffer number << SPAN_SHIFT | offset
    uint32_t len

cdef struct Bases:
    const byte* at[8]               # where each Buffer is now

cdef struct Cursor:
    const byte* at                  # the next byte
    const byte* end

cdef struct Pack:                   # a growable buffer of msgpack (or any bytes)
    byte* data
    Py_ssize_t len
    Py_ssize_t cap
    bint failed                     # out of memory; later writes do nothing

cpdef enum _Reason:                 # why a request is refused; the one list that header, metric, docs and CLI share
    R_MISSING_KEY
    R_MISSING_WRITE_KEY
    R_UNKNOWN_KEY
    R_SOURCE_DISABLED
    R_ORIGIN_NOT_ALLOWED
    R_MISSING_IDENTITY
    R_MISSING_PERSON
    R_MISSING_EVENT
    R_MISSING_EVENT_TOKEN
    R_BAD_AMOUNT
    R_VALUE_TOO_LONG
    R_TOO_MANY_PARAMS
    R_TOO_DEEP
    R_INDEX_TOO_LARGE
    R_TOO_LARGE
    R_BAD_JSON
    R_BAD_ENCODING
    R_BAD_FIELD
    R_INVALID_DATA
    R_RATE_LIMITED
    R_PRIVACY
    R_SPOOL_FULL
    R_HEAD
    R_BAD_HTTP

cdef enum:
    NO_REASON = -1                  # nothing speaks against storing it
    REASON_COUNT = R_BAD_HTTP + 1

cpdef enum _Kind:                   # of value; a row in dialect.KINDS and a function in kind.pxi each
    K_TEXT
    K_INT
    K_NUMBER
    K_BOOL
    K_UNIX
    K_UNIX_MS
    K_ISO8601
    K_JSON
    K_BASE64_JSON
    K_DOTPATH
    K_PARAMS                        # of PitchTarget: a function in params.pxi

cdef enum:
    MAX_PAIRS = 1000                # of a request
    MAX_DEPTH = 32                  # segments of a dot path
    MAX_SEGMENTS = 48               # with the row's own target before them
    MAX_HOLES = 1000                # in the arrays of a request
    MAX_ROWS = 64                   # of a route
    MAX_DEDUPE = 8                  # rows that go into a hashed messageId
    PARAM_DEPTH = 32                # nesting of JSON in a parameter
    MAX_RECORD = 1048576            # bytes of a record whose request is small
    SHAPE_SETS = 16                 # kept shapes lie in sets,
    SHAPE_WAYS = 4                  # so many in each
    SHAPE_PAIRS = 64                # pairs of one
    SHAPE_STEPS = 80                # values that it writes
    SHAPE_GATES = 8
    SHAPE_TEXT = 4096               # constant bytes
    REC_HEAD = 64                   # at most, of what a record has before its tree and is not constant
    REC_SCRATCH = 4096              # bytes of decoded text that there is always room for
    REC_BULK = 262144               # a form of more bytes is a large one
    UUID_TEXT = 36
    REC_VALUE = 16                  # at most, of a value that is a number or a time, or of a text's head

# --- values -----------------------------------------------------------------------------------------------------------

cdef enum:
    TIME_TEXT = 24                  # 2026-01-31T23:59:59.999Z

cdef struct Decimal:                # digits of a parameter
    bint negative
    bint has_fraction
    uint64_t whole
    uint32_t nanos                  # the fraction in billionths

cdef struct Time:
    int64_t seconds                 # since the Unix epoch
    uint32_t nanos

cdef struct Pair:                   # raw bytes of one parameter
    Cursor name
    Cursor value
    int name_flags                  # CharClass bits seen
    int value_flags

# --- the tree ---------------------------------------------------------------------------------------------------------

cdef enum:
    NOT_INDEX = -1
    INDEX_TOO_LARGE = -2

cdef struct Segment:                # a name of a path
    Span name
    uint32_t hash
    int16_t index                   # of an array, or NOT_INDEX, INDEX_TOO_LARGE

cdef enum:                          # what path_cut says instead of a count
    PATH_EMPTY = -1
    PATH_PROTO = -2
    PATH_DEEP = -3

cdef enum:
    NODE_FREE                       # forgotten by a conflict
    NODE_LEAF                       # text
    NODE_PACKED                     # msgpack
    NODE_MAP
    NODE_ARRAY

cdef enum:
    PUT_DONE
    PUT_REPEATED
    PUT_INDEX                       # the index is too large
    PUT_FAILED                      # out of memory

cdef struct Node:
    Span name
    Span value
    uint32_t hash                   # of the name
    int32_t parent                  # -1: a root
    int32_t first                   # members, a list in order
    int32_t last
    int32_t next
    int32_t previous
    uint32_t count                  # of members
    uint32_t age                    # raised when the members are forgotten
    uint32_t born                   # the parent's age when it became a member
    int16_t index                   # its place if the parent is an array
    byte state
    bint used                       # a pair has set it, even if a conflict has removed it since

cdef struct Tree:
    Node* nodes                     # 0: the event; 1: values kept aside
    uint64_t* slots                 # generation << 32 | node
    int32_t count
    int32_t cap
    uint32_t mask
    uint32_t generation
    int32_t put                     # the node that tree_put set
    int32_t arrays                  # made since the reset; 0: no holes to look for
    bint failed                     # out of memory

# --- the plan ---------------------------------------------------------------------------------------------------------

cdef struct Names:                  # a closed set of names, found by hash
    Segment* all
    int16_t* table
    uint32_t mask
    int count

cdef struct Path:                   # constant segments
    Segment* at
    int length

cdef struct Row:                    # dialect.Field
    Segment source
    Path target
    Path otherwise
    int kind
    int required                    # a Reason or NO_REASON
    int nonempty
    int max_chars
    int gate                        # row whose value `when` names, or -1
    int variable                    # path segment it reads, or -1
    Span gate_value
    Span if_empty
    bint has_if_empty
    bint unquote
    bint tidy
    bint trusted
    bint ignored                    # if its value is unusable
    bint aside                      # read into the second root, placed when everything is known
    bint is_timestamp

cdef struct Default:                # Dialect.defaults
    Path target
    Span packed

cdef struct Route:                  # dialect.Route
    int index
    int protocol                    # number of its dialect
    int methods                     # bits, 1 << Method
    Row* rows
    int count
    int key                         # row of the writeKey
    int rest                        # row of '*', or -1
    Names names                     # of rows
    Segment* identity
    int identity_count
    Default* defaults
    int default_count
    Segment* receipt
    int receipt_count
    int dedupe[MAX_DEDUPE]          # rows
    int dedupe_count
    bint first                      # of a repeated key counts
    bint drop_bad
    bint skew
    bint variables                  # the path has some
    bint visitor                    # anonymousId may come from the visitor cookie
    bint personal                   # its type is about a person only: identify, alias, group
    bint python                     # a handler answers it
    uint64_t shared                 # bits of the dialects that have this route
    Span head                       # packed members `protocol` and `type`
    Span path
    int replies[3][4]               # by AcceptClass and Outcome

cdef enum:                          # what the client's Accept header asks for
    ACCEPT_IMAGE
    ACCEPT_TEXT
    ACCEPT_OTHER

cdef enum:
    OUT_STORED
    OUT_REFUSED
    OUT_UNAVAILABLE
    OUT_LIMITED
    OUTCOMES

cdef struct Match:                  # what a method and path lead to
    const Route* route              # NULL: none
    int methods                     # that the path answers; 0: unknown path
    int protocol                    # number of the dialect whose path it is

cdef enum:
    FIELD_TEXT
    FIELD_TIME
    FIELD_MAP
    FIELD_SERVER

cdef enum:                          # names that the core itself sets or asks for, in the order of _KNOWN_NAMES
    N_MESSAGE_ID
    N_TIMESTAMP
    N_ORIGINAL_TIMESTAMP
    N_SENT_AT
    N_CONTEXT
    N_CLIENT
    N_IP
    N_USER_AGENT
    N_REFERRER
    N_WRITE_KEY
    KNOWN_COUNT

cdef enum:                          # names that an anonymised event has not, in the order of _PERSONAL_NAMES
    P_ANONYMOUS_ID
    P_USER_ID
    P_PREVIOUS_ID
    P_SESSION_ID
    P_TRAITS
    PERSONAL

cdef enum:                          # config.IpPolicy
    IP_KEEP
    IP_TRUNCATE
    IP_DROP

cdef enum:                          # config.GpcPolicy
    GPC_IGNORE
    GPC_ANONYMISE
    GPC_DROP

cdef struct Source:                 # config.Source
    Span packed                     # packed member `source`
    uint64_t protocols              # bits
    bint enabled
    bint trust_client_ip
    int number                      # in the order of the configuration
    int ip                          # its policies
    int gpc
    Names origins                   # count 0: all
    int cell                        # of its rate limit, or -1
    uint64_t interval               # ns between two events at that rate

cdef struct Alias:                  # a prefix of paths that stands for another
    Span prefix
    Span target

cdef struct Visitor:                # config.Visitor
    bint on
    Span name                       # of the cookie, with the '='

cdef enum ParamsResult:             # what a parameter of kind params holds; its beginning is JsonResult's
    PRM_OBJECT
    PRM_BAD_JSON
    PRM_BAD_ENCODING
    PRM_TOO_DEEP
    PRM_NOT_AN_OBJECT
    PRM_BAD_BASE64
    PRM_BLANK

cdef enum:                          # members that are no properties, in the order of _PARAMS_SPECIAL
    PRM_EMAIL
    PRM_UUID
    PRM_FBID
    PRM_TOKEN
    PRM_SPECIALS

cdef struct ParamsNames:
    Names special                   # those members,
    Path targets[PRM_SPECIALS]      # and where they go
    Segment properties
    Segment error                   # of context, with what else it has if the parameter could not be read
    Segment text
    Segment length
    Segment sha256
    Span errors[PRM_BLANK]          # texts of the results

cdef struct Owned:                  # before each array of a Plan
    Owned* next
    uint64_t align

cdef struct PlanData:
    const byte* blob                # all constant bytes
    Route* routes
    int route_count
    Names paths                     # of routes without variables
    int path_routes[256][4]         # of those, by Method up to M_PUT: number of the route, or -1
    Names fields                    # of the record
    int field_types[64]
    uint64_t numeric                # bits of the fields in which a number becomes text
    Names sources
    Source* source_rows
    Source general                  # what holds where no source is known
    Source strictest                # the strictest privacy rules of all, for what was refused before it was known
    Span protocols[64]              # packed members `protocol`
    Alias* aliases                  # the longest prefix first
    int alias_count
    Visitor visitor
    uint64_t* cells                 # of rate limits, shared with other workers; NULL: there are none
    Segment known[KNOWN_COUNT]
    ParamsNames params
    Segment personal[PERSONAL]

# --- a request --------------------------------------------------------------------------------------------------------

cdef enum:                          # Header: the kept ones
    H_HOST
    H_ORIGIN
    H_REFERER
    H_USER_AGENT
    H_ACCEPT
    H_CONTENT_TYPE
    H_CONTENT_ENCODING
    H_REQUEST_METHOD
    H_REQUEST_HEADERS
    H_COOKIE
    H_FORWARDED_PROTO
    HEADER_COUNT

cdef enum:                          # Method
    M_GET
    M_HEAD
    M_POST
    M_PUT
    M_OPTIONS
    M_CONNECT
    M_OTHER

cdef struct Request:
    const byte* head                # where the spans' bytes are; valid while the request is handled
    const byte* body
    Py_ssize_t body_len
    uint32_t line_len               # of the request line with its CRLF
    uint32_t head_len               # of the head with its blank line
    Span target
    Span path
    Span query
    Span method_name
    Span headers[HEADER_COUNT]      # len 0: absent
    Span forwarded[8]               # values of X-Forwarded-For, in order
    int forwarded_count
    int method
    int minor                       # HTTP/1.minor
    int hosts                       # Host headers seen
    bint close                      # Connection: close
    bint keep_alive                 # Connection: keep-alive
    bint upgrade                    # has an Upgrade header
    bint expect
    bint chunked
    bint has_length
    bint non_ascii                  # the target has bytes >= 0x80
    bint gpc                        # Sec-GPC: 1 or DNT: 1
    bint secure                     # came by TLS, as far as is known
    uint64_t length                 # Content-Length
    const byte* ip                  # text
    int ip_len
    const byte* alias               # the bytes of IN_ALIAS
    Time received

# --- JSON ---------------------------------------------------------------------------------------------------------------

cdef enum JsonResult:
    JSN_OK
    JSN_BAD                         # not RFC 8259
    JSN_ENCODING                    # not UTF-8
    JSN_DEEP                        # too many maps and arrays in one another

cdef struct JsonName:               # a name of a map that is still open
    Py_ssize_t at                   # in the Pack
    Py_ssize_t len                  # with its header
    uint64_t tag

cdef struct JsonEdit:               # what is changed when the document is complete
    Py_ssize_t at
    Py_ssize_t drop                 # bytes taken away
    Py_ssize_t count                # members to announce there,
    int head                        # in a map (0x80) or an array (0x90); 0: nothing

cdef struct Json:                   # a transcoder; zeroed once, then reused for many documents
    Cursor src
    Pack* out
    int left                        # levels that may still be opened,
    int top                         # and how many are left in the outermost map
    bint screened                   # names that `params` ignores are left out
    JsonResult result
    Py_ssize_t error                # offset of the first bad byte
    Py_ssize_t protos               # `__proto__` members left out
    Pack names                      # of JsonName
    Pack edits                      # of JsonEdit
    Pack table
    Pack copy

cdef enum Extra:                    # texts of a record that are no pair's
    X_IP
    X_USER_AGENT
    X_REFERRER
    X_RECEIPT
    X_ID                            # a new messageId
    EXTRAS

cdef enum:
    SHAPE_VALUES = SHAPE_PAIRS + EXTRAS

cdef enum:                          # what the rows demand of a pair's value
    G_FILLED = 1                    # is not empty
    G_UNQUOTED = 2                  # has no quotes around it
    G_TIDY = 4                      # visible ASCII only
    G_SEEN = 8                      # is not blank
    G_SHORT = 16                    # has no more than max_chars
    G_IDENTITY = 32                 # if it is not blank, the event has an identity

cdef struct Part:                   # a pair of a shape
    uint16_t at                     # its name in the shape's text, raw, with the '='
    uint16_t len
    uint16_t guards
    uint16_t bare                   # it has no '='
    uint32_t max_chars

cdef struct Gate:                   # a row's `when`
    int row
    int pair                        # that it looks at
    bint open                       # what was decided

cdef struct Step:                   # of writing a record: constant bytes, then a value
    uint16_t at                     # in the shape's text
    uint16_t len
    uint16_t value                  # number of the pair, or SHAPE_PAIRS and an Extra
    uint16_t kind                   # K_DOTPATH: no value

cdef struct Leaf:                   # of a tree that was written: its value, and where that is now
    Span value
    Py_ssize_t start
    Py_ssize_t end

cdef struct Leaves:
    int count
    Leaf all[SHAPE_STEPS]

cdef struct Shape:                  # the names of a query, and how its record is written
    int route                       # Route.index + 1; 0: free
    int marks                       # '&' in the query
    int present                     # bits by Extra: address and headers that there are
    int pairs
    int steps
    int gate_count
    int key                         # pairs: the writeKey,
    int time                        # the event's time, or -1,
    int time_kind
    int sent                        # and two that it is reckoned from, or -1
    int original
    int uses                        # bits by Extra
    int used                        # bytes of text
    bint trusted                    # the source has trust_client_ip
    int ip                          # and this policy
    bint identity                   # a pair with G_IDENTITY must not be blank
    bint idle                       # not used since another one wanted the place
    uint64_t skipped
    Py_ssize_t fixed                # bytes that a record needs but for its pairs' values, at most
    uint32_t members                # of the tree's root
    Part parts[SHAPE_PAIRS]
    Gate gates[SHAPE_GATES]
    Step all[SHAPE_STEPS]
    byte text[SHAPE_TEXT + 16]      # a block can be read anywhere

cdef struct Rec:                    # working memory of one request, reused by the next
    Bases bases
    Pack scratch
    Pack packed
    Pack alias                      # a path that an alias stands for
    Tree tree
    Json json
    Shape* shapes                   # SHAPE_SETS * SHAPE_WAYS of them and a draft; NULL: none
    uint64_t shaped                 # records that a shape has written
    int place                       # the first shape of the set, or -1
    int marks
    int present
    Py_ssize_t need                 # bytes for the record, at most
    int noted                       # for a shape that may be kept: the pairs' names with '=', values and absent '='
    Span names[SHAPE_PAIRS]
    Span values[SHAPE_PAIRS]
    bint bare[SHAPE_PAIRS]
    Span given[MAX_ROWS]            # the text that a row settled; at SPAN_NONE: none
    Span made[MAX_ROWS]             # what its kind made of it; len 0: nothing
    int converted                   # how many of these
    Span extra[EXTRAS]              # in the tree; len 0: not there
    Leaves leaves
    Py_ssize_t members_at           # where the tree's members begin in the Pack
    Span key
    byte receipt[TIME_TEXT]         # the last time of receipt as text; NUL: there was none
    int64_t receipt_second
    Span time_text                  # what `time` was read from last,
    int time_kind                   # as what,
    int times                       # and how often anything was
    const PlanData* plan
    const Route* route
    const Source* source            # NULL: none configured
    const Request* request
    int protocol                    # number of the dialect that it is recorded as
    Span type                       # text; at SPAN_NONE: the route's
    bint anonymous                  # the source anonymises, and the request asks for it
    bint issued                     # `visitor` is new
    bint visited                    # `visitor` was made for an earlier event of the request
    byte visitor[UUID_TEXT]        # the cookie's id
    int32_t slots[MAX_ROWS]         # node of each row, or -1
    int32_t known[KNOWN_COUNT]      # root members
    int pairs
    bint bulky                      # a large form was read, and the buffers are as large
    uint64_t skipped                # pairs with a `__proto__` segment
    bint timed                      # `time` is the client's
    bint misfit                     # a listed field had the wrong type, or was a time that is none
    bint closed                     # the context is whole already
    bint moved                      # context.client has members that the client put elsewhere
    bint dedupe                     # the messageId is to be a hash
    Time time
    Span bad_time                   # the client's unusable time; len 0: none
    Span secret                     # text whose SHA-256 is still to be made; len 0: none
    Span secret_at                  # the place of its digits, in the scratch buffer

cdef struct Address:
    byte bytes[16]
    int size                        # 4 or 16

cdef struct Network:
    byte prefix[16]
    int size
    int bits

# --- answers ----------------------------------------------------------------------------------------------------------

cdef struct Template:               # one prebuilt answer
    byte* data                      # head, CORS lines for no Origin, blank line, body
    uint32_t date_at
    uint32_t head_len               # up to the CORS lines
    uint32_t cors_len               # up to the blank line
    uint32_t body_at
    uint32_t len

cdef enum AnswerFlag:
    A_HEAD = 1                      # no body
    A_CLOSE = 2                     # Connection: close
    A_KEEP = 4                      # HTTP/1.0: Connection: keep-alive
    A_DURABLE = 8                   # only true once its batch is stored
    A_RAW = 16                      # a whole answer stands behind the Origin
    A_COOKIE = 32                   # a new visitor's id stands there
    A_SECURE = 64                   # the client speaks https
    A_NO_CORS = 128                 # the page may not read it

cdef struct Answer:                 # one that waits for its turn
    int16_t reply
    int16_t reason
    int16_t unavailable             # the reply if the batch could not be stored
    uint16_t flags
    uint32_t text_at                # texts in Connection.side: Origin, then a whole answer or a visitor's id, then
    uint32_t text_len               # the whole answer if the batch could not be stored
    uint32_t origin_len             # of these; 0: none
    uint32_t raw_len
    uint64_t batch

cdef struct Body:                   # of a request that is being read
    Pack head                       # its head, kept for when it is whole
    Pack data                       # decoded
    Py_ssize_t room                 # bytes reserved for it
    Py_ssize_t wire                 # bytes so far as they were sent
    Py_ssize_t left                 # of the body, or of the chunk
    int chunk                       # a ChunkState
    bint chunked
    bint complete                   # httptools has seen its end

# --- counters: the worker's part of the shared page ----------------------------------------------------------------------

cpdef enum _Counter:                # 64-bit words
    C_HEARTBEAT_MS                  # Unix time
    C_STATE                         # 0 starting, 1 serving, 2 draining, 3 ended
    C_CONNECTIONS                   # open now
    C_CONNECTIONS_TOTAL
    C_CONNECTIONS_REFUSED
    C_REQUESTS
    C_BYTES_IN
    C_BYTES_OUT
    C_NOT_FOUND
    C_METHOD_NOT_ALLOWED
    C_PREFLIGHTS
    C_TIMEOUTS
    C_SKIPPED_PAIRS                 # with a `__proto__` segment
    C_REJECTS_KEPT
    C_REJECTS_NOT_KEPT
    C_REJECT_BYTES
    C_EVENT_BYTES
    C_COMMITS
    C_COMMIT_FAILURES
    C_COMMIT_NANOS
    C_STORABLE                      # 1 while the last commit succeeded
    C_INFLIGHT_BYTES
    C_PAUSED
    C_REJECT_BUDGET                 # bytes of rejects that may still be kept; set by the supervisor
    COUNTER_COUNT

cdef enum:                          # where the arrays of a worker's part begin
    PAGE_REASONS = 64
    PAGE_PROTOCOLS = 96             # events stored, by protocol
    PAGE_COMMIT_TIMES = 160         # commits by duration: bucket i is below 2^i microseconds
    PAGE_BATCH_SIZES = 192          # commits by events: bucket i is below 2^i
    PAGE_WORDS = 512                # 4 KiB
    PAGE_BUCKETS = 32
cdef enum ItemKind:                 # what one msgpack header announces
    ITEM_BAD
    ITEM_NIL
    ITEM_FALSE
    ITEM_TRUE
    ITEM_UINT                       # num: the value
    ITEM_INT                        # num: the value in two's complement
    ITEM_FLOAT                      # num: the bits of a float, and of a double:
    ITEM_DOUBLE
    ITEM_STR                        # num: bytes, at text
    ITEM_BIN
    ITEM_EXT
    ITEM_FIXEXT
    ITEM_ARRAY                      # num: members that follow
    ITEM_MAP                        # num: pairs that follow

cdef struct Item:
    ItemKind kind
    int ext                         # the type number of an extension
    uint64_t num
    const byte* text

cdef struct Seen:                   # what `scan` found
    Py_ssize_t records
    Py_ssize_t moments              # records that have a usable receivedAt
    Time least
    Time greatest
