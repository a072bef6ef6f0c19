/* load: the load generator of the benchmarks. One thread on epoll, loopback only, always bounded in time.
 *
 *     load HOST PORT --template FILE [--connections N] [--depth N] [--seconds S] [--warmup S] [--requests N]
 *          [--first N] [--rate R] [--new-connection] [--status N] [--length N] [--cpu-of PID]...
 *
 * A slot is one connection. It writes a batch of `depth` requests at once, waits for all of their answers, then
 * writes the next batch (closed loop). With `--rate` batches become due on a fixed timetable instead and go to the
 * slot that has been idle longest; an answer's latency counts from the time its batch was due, so that a server that
 * stalls is charged for the requests that had to wait (no coordinated omission). What was due in the window counts even
 * if its answer came after it, and what could not be sent at all counts with the time that it had waited by then.
 *
 * The template is one request, its head with LF or CRLF. Every `@@@@@@@@` in it becomes the request's number, so that
 * numbers 0 .. sent-1 can be looked for in what the server stored (`--first N`: from N on). Sending stops after the window, and what is under
 * way is still read: without failures `sent` and `answered` are equal.
 *
 * Every answer is read whole and must have the status, the length and no `X-Fastpixel: dropped`. A wrong answer is
 * counted and the run goes on; a slot whose connection breaks counts its unanswered requests and is retired.
 *
 * The window lies between warm-up and stop. Rates, latencies and the CPU time of the processes of `--cpu-of` belong to
 * it alone: the clocks of those processes are read here, at its two ends, because any other process would be late.
 * One line of JSON on stdout. Not supported: chunked answers, TLS, IPv6.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    MARK = 8, MAX_MARKS = 256, MAX_CONNECTIONS = 10000, MAX_DEPTH = 256, MAX_TEMPLATE = 65536, MAX_PIDS = 64,
    MAX_SECONDS = 3600, MAX_REQUESTS = 100000000 /* what fits a mark */, ANSWER_ROOM = 2048, EVENTS = 512,
    SOURCES = 64, BUCKETS = 64 * 64
};

typedef uint64_t u64;

static const u64 NS = 1000000000, DRAIN_NS = 5000000000;

static void die(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, values);
    fputc('\n', stderr);
    exit(2);
}

/* ---- clocks ---- */

static u64 clock_read(clockid_t clock)
{
    struct timespec t;
    if (clock_gettime(clock, &t)) die("a process of --cpu-of ended during the run");
    return (u64)t.tv_sec * NS + (u64)t.tv_nsec;
}

static u64 clock_now(void) { return clock_read(CLOCK_MONOTONIC); }

typedef struct { int count; clockid_t clocks[MAX_PIDS]; } Processes;

static void processes_add(Processes *p, int pid)
{
    if (p->count == MAX_PIDS) die("at most %d --cpu-of", MAX_PIDS);
    if (clock_getcpuclockid(pid, &p->clocks[p->count++])) die("no process %d", pid);
}

static u64 processes_cpu(const Processes *p)
{
    u64 sum = 0;
    for (int i = 0; i < p->count; i++) sum += clock_read(p->clocks[i]);
    return sum;
}

/* What all cores did, from /proc/stat in clock ticks: tells whether something else ran beside the benchmark. */
typedef struct { u64 busy_us, steal_us; } Machine;

static Machine machine_read(void)
{
    u64 t[8], tick_us = 1000000 / (u64)sysconf(_SC_CLK_TCK);
    FILE *file = fopen("/proc/stat", "r");
    if (!file) die("/proc/stat: %s", strerror(errno));
    int found = fscanf(file, "cpu %lu %lu %lu %lu %lu %lu %lu %lu", t, t + 1, t + 2, t + 3, t + 4, t + 5, t + 6, t + 7);
    if (found != 8) die("/proc/stat: 8 times of all cores are expected in its first line");
    fclose(file);
    return (Machine){(t[0] + t[1] + t[2] + t[5] + t[6]) * tick_us, t[7] * tick_us};
}

/* ---- histogram: 64 buckets for each power of two, so a value is off by less than 1/64 ---- */

typedef struct { u64 count, max, buckets[BUCKETS]; } Histogram;

static void histogram_add(Histogram *h, u64 value)
{
    int shift = value < 128 ? 0 : 63 - __builtin_clzll(value) - 6;
    h->buckets[(u64)shift * 64 + (value >> shift)]++;
    h->count++;
    if (value > h->max) h->max = value;
}

static u64 bucket_top(u64 i)
{
    if (i < 128) return i;
    u64 shift = i / 64 - 1, mantissa = i % 64 + 64;
    return ((mantissa + 1) << shift) - 1;
}

static u64 histogram_at(const Histogram *h, double quantile)
{
    u64 rank = (u64)(quantile * (double)h->count), seen = 0;
    for (u64 i = 0; i < BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen > rank) return bucket_top(i) < h->max ? bucket_top(i) : h->max;
    }
    return h->max;
}

/* ---- options ---- */

typedef struct {
    struct sockaddr_in to;
    const char *template;
    int connections, depth, status;
    long length;
    u64 requests, first;
    double seconds, warmup, rate;
    bool fresh;
    Processes processes;
} Options;

static double number(const char *name, const char *text, double low, double high)
{
    char *end;
    double value = strtod(text, &end);
    if (*end || end == text || !(value >= low && value <= high))
        die("--%s %s: a number from %g to %g is needed", name, text, low, high);
    return value;
}

static void option_set(Options *o, const char *name, const char *text)
{
    if (!strcmp(name, "template")) o->template = text;
    else if (!strcmp(name, "connections")) o->connections = (int)number(name, text, 1, MAX_CONNECTIONS);
    else if (!strcmp(name, "depth")) o->depth = (int)number(name, text, 1, MAX_DEPTH);
    else if (!strcmp(name, "requests")) o->requests = (u64)number(name, text, 1, MAX_REQUESTS);
    else if (!strcmp(name, "first")) o->first = (u64)number(name, text, 0, MAX_REQUESTS);
    else if (!strcmp(name, "seconds")) o->seconds = number(name, text, 0.01, MAX_SECONDS);
    else if (!strcmp(name, "warmup")) o->warmup = number(name, text, 0, MAX_SECONDS);
    else if (!strcmp(name, "rate")) o->rate = number(name, text, 0.1, 1e7);
    else if (!strcmp(name, "status")) o->status = (int)number(name, text, 100, 599);
    else if (!strcmp(name, "length")) o->length = (long)number(name, text, 0, 1 << 20);
    else if (!strcmp(name, "cpu-of")) processes_add(&o->processes, (int)number(name, text, 1, 1 << 30));
    else o->fresh = true;
}

static void options_target(Options *o, char **words, int count)
{
    if (count != 2 || !o->template) die("usage: load HOST PORT --template FILE [options]");
    o->to.sin_family = AF_INET;
    o->to.sin_port = htons((uint16_t)number("port", words[1], 1, 65535));
    if (inet_pton(AF_INET, words[0], &o->to.sin_addr) != 1 || strncmp(words[0], "127.", 4))
        die("%s: only a 127.x.y.z address is loaded", words[0]);
    if (o->fresh && o->depth != 1) die("--new-connection sends one request a connection: no --depth");
    if (o->requests > MAX_REQUESTS - o->first) o->requests = MAX_REQUESTS - o->first;
}

static Options options_read(int argc, char **argv)
{
    static const struct option names[] = {
        {"template", 1, 0, 0}, {"connections", 1, 0, 0}, {"depth", 1, 0, 0}, {"requests", 1, 0, 0},
        {"first", 1, 0, 0}, {"seconds", 1, 0, 0}, {"warmup", 1, 0, 0}, {"rate", 1, 0, 0}, {"status", 1, 0, 0}, {"length", 1, 0, 0},
        {"cpu-of", 1, 0, 0}, {"new-connection", 0, 0, 0}, {0, 0, 0, 0}};
    Options o = {.connections = 64, .depth = 1, .status = 200, .length = 43, .requests = MAX_REQUESTS, .seconds = 3};
    int index, found;
    while ((found = getopt_long(argc, argv, "", names, &index)) != -1) {
        if (found == '?') exit(2);
        option_set(&o, names[index].name, optarg);
    }
    options_target(&o, argv + optind, argc - optind);
    return o;
}

/* ---- template ---- */

typedef struct { char *bytes; size_t size; int marks; size_t at[MAX_MARKS]; } Template;

static size_t file_read(const char *path, char *into, size_t room)
{
    FILE *file = fopen(path, "rb");
    if (!file) die("%s: %s", path, strerror(errno));
    size_t size = fread(into, 1, room, file);
    if (size == room) die("%s: a template has less than %zu bytes", path, room);
    fclose(file);
    return size;
}

/* Line ends of the head become CRLF; a body follows as it is. */
static void template_fold(Template *t, const char *raw, size_t size)
{
    bool head = true;
    for (size_t i = 0; i < size; i++) {
        if (head && raw[i] == '\r') continue;
        if (head && raw[i] == '\n') t->bytes[t->size++] = '\r';
        t->bytes[t->size++] = raw[i];
        if (head && t->size >= 4 && !memcmp(t->bytes + t->size - 4, "\r\n\r\n", 4)) head = false;
    }
    if (head) die("the template's head does not end with an empty line");
}

static void template_close(Template *t)
{
    static const char KEEP[] = "Connection: keep-alive\r\n", CLOSE[] = "Connection: close\r\n";
    char *found = memmem(t->bytes, t->size, KEEP, sizeof KEEP - 1);
    if (!found) die("--new-connection needs the line Connection: keep-alive in the template, to replace it");
    char *rest = found + sizeof KEEP - 1;
    memcpy(found, CLOSE, sizeof CLOSE - 1);
    memmove(found + sizeof CLOSE - 1, rest, (size_t)(t->bytes + t->size - rest));
    t->size -= sizeof KEEP - sizeof CLOSE;
}

static void template_find_marks(Template *t)
{
    char *from = t->bytes, *end = t->bytes + t->size, *found;
    for (; (found = memmem(from, (size_t)(end - from), "@@@@@@@@", MARK)); from = found + MARK) {
        if (t->marks == MAX_MARKS) die("at most %d marks in a template", MAX_MARKS);
        t->at[t->marks++] = (size_t)(found - t->bytes);
    }
}

static Template template_load(const Options *o)
{
    static char raw[MAX_TEMPLATE];
    size_t size = file_read(o->template, raw, sizeof raw);
    Template t = {.bytes = malloc(2 * size + 1)};
    if (!t.bytes) die("out of memory");
    template_fold(&t, raw, size);
    if (o->fresh) template_close(&t);
    template_find_marks(&t);
    return t;
}

static void template_number(const Template *t, char *request, u64 n)
{
    char digits[MARK];
    for (int i = MARK - 1; i >= 0; i--, n /= 10) digits[i] = (char)('0' + n % 10);
    for (int i = 0; i < t->marks; i++) memcpy(request + t->at[i], digits, MARK);
}

/* ---- answer: done (good or wrong), need more, or broken ---- */

typedef enum { MORE, GOOD, WRONG_STATUS, WRONG_LENGTH, DROPPED, BROKEN } Verdict;

typedef struct { int status; long length; bool dropped; } Head;

static bool is_header(const char *line, size_t size, const char *name, size_t name_size)
{
    return size > name_size && line[name_size] == ':' && !strncasecmp(line, name, name_size);
}

static void head_line(Head *h, const char *line, size_t size)
{
    if (is_header(line, size, "Content-Length", 14)) h->length = strtol(line + 15, NULL, 10);
    else if (is_header(line, size, "X-Fastpixel", 11)) h->dropped = memmem(line, size, "dropped", 7) != NULL;
}

static Verdict head_judge(const Head *h, const Options *o)
{
    if (h->status != o->status) return WRONG_STATUS;
    if (h->length != o->length) return WRONG_LENGTH;
    return h->dropped ? DROPPED : GOOD;
}

/* Walks the head line by line; an answer that came in pieces is walked again from its start. */
static Verdict answer_read(const Options *o, const char *p, size_t size, size_t *used)
{
    Head head = {.length = -1};
    const char *end = p + size, *line = p, *next;
    for (;; line = next + 1) {
        if (!(next = memchr(line, '\n', (size_t)(end - line)))) return MORE;
        size_t length = (size_t)(next - line) - (next > line && next[-1] == '\r');
        if (line == p) head.status = length > 12 && !memcmp(p, "HTTP/1.", 7) ? atoi(p + 9) : 0;
        else if (!length) break;
        else head_line(&head, line, length);
    }
    if (!head.status || head.length < 0) return BROKEN;
    if (end - (next + 1) < head.length) return MORE;
    *used = (size_t)(next + 1 - p) + (size_t)head.length;
    return head_judge(&head, o);
}

/* ---- the run ---- */

typedef enum { WARM, MEASURE, DRAIN, DONE } Phase;

typedef struct {
    int fd, source;
    uint32_t interest;          /* what epoll watches for; 0: not registered */
    bool busy;
    int unanswered;
    u64 started;
    char *out, *in;
    size_t out_size, out_done, in_size;
} Slot;

typedef struct {
    Options o;
    Template t;
    Slot *slots;
    Slot **idle;                /* ring: the slot idle longest is used next */
    size_t idle_first, idle_count;
    size_t in_room;
    int poller, alive, busy;
    Phase phase;
    u64 phase_ends, began, batches;
    u64 sent, answered, measured, failures, unsent, bytes;
    const char *first_failure;
    u64 window_began, window_ended, cpu_began, cpu_ended, own_began, own_ended;
    Machine machine_began, machine_ended;
    Histogram latency;
} Load;

static void load_fail(Load *l, u64 count, const char *why)
{
    l->failures += count;
    if (!l->first_failure) l->first_failure = why;
}

static bool load_may_send(const Load *l) { return l->phase < DRAIN && l->sent < l->o.requests; }

/* ---- slot ---- */

static void slot_watch(Load *l, Slot *s, uint32_t interest)
{
    if (s->interest == interest) return;
    struct epoll_event event = {.events = interest, .data.ptr = s};
    if (epoll_ctl(l->poller, s->interest ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, s->fd, &event))
        die("epoll_ctl: %s", strerror(errno));
    s->interest = interest;
}

static void slot_hang_up(Slot *s)
{
    close(s->fd);
    s->fd = -1;
    s->interest = 0;
    s->in_size = 0;
}

static void slot_retire(Load *l, Slot *s, const char *why)
{
    load_fail(l, s->unanswered ? (u64)s->unanswered : 1, why);
    slot_hang_up(s);
    l->busy -= s->busy;
    s->busy = false;
    l->alive--;
}

/* A connection a request: many source addresses, so that ports resting in TIME_WAIT never run out.
 * The kernel picks the port at connect, when it knows the whole address pair (IP_BIND_ADDRESS_NO_PORT). */
static void slot_spread(const Slot *s)
{
    int one = 1;
    struct sockaddr_in from = {.sin_family = AF_INET,
                               .sin_addr = {htonl(0x7f000100u + 1 + (unsigned)(s->source % SOURCES))}};
    setsockopt(s->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    setsockopt(s->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(s->fd, (struct sockaddr *)&from, sizeof from)) die("bind: %s", strerror(errno));
}

static bool slot_connect(Load *l, Slot *s)
{
    int one = 1;
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s->fd < 0) die("socket: %s", strerror(errno));
    setsockopt(s->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (l->o.fresh) slot_spread(s);
    return !connect(s->fd, (struct sockaddr *)&l->o.to, sizeof l->o.to) || errno == EINPROGRESS;
}

/* While the connection is being made send() says EAGAIN, and EPOLLOUT reports when it is there. */
static void slot_write(Load *l, Slot *s)
{
    while (s->out_done < s->out_size) {
        ssize_t sent = send(s->fd, s->out + s->out_done, s->out_size - s->out_done, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) { slot_watch(l, s, EPOLLIN | EPOLLOUT); return; }
        if (sent < 0) { slot_retire(l, s, errno == ECONNREFUSED ? "connection refused" : "connection lost"); return; }
        s->out_done += (size_t)sent;
    }
    slot_watch(l, s, EPOLLIN);
}

static void slot_fill(Load *l, Slot *s)
{
    u64 left = l->o.requests - l->sent;
    int count = left < (u64)l->o.depth ? (int)left : l->o.depth;
    u64 first = l->o.first + l->sent;
    for (int i = 0; i < count; i++) template_number(&l->t, s->out + (size_t)i * l->t.size, first + (u64)i);
    s->out_size = (size_t)count * l->t.size;
    s->out_done = 0;
    s->unanswered = count;
    l->sent += (u64)count;
}

static void slot_start(Load *l, Slot *s, u64 at)
{
    slot_fill(l, s);
    s->started = at;
    s->busy = true;
    l->busy++;
    if (s->fd < 0 && !slot_connect(l, s)) slot_retire(l, s, "connection refused");
    else slot_write(l, s);
}

static void slot_rest(Load *l, Slot *s)
{
    s->busy = false;
    l->busy--;
    if (!l->o.rate && load_may_send(l)) { slot_start(l, s, clock_now()); return; }
    l->idle[(l->idle_first + l->idle_count++) % (size_t)l->o.connections] = s;
}

static void slot_count(Load *l, Slot *s, Verdict verdict, size_t size, u64 now)
{
    static const char *const why[] = {[WRONG_STATUS] = "wrong status", [WRONG_LENGTH] = "wrong length",
                                      [DROPPED] = "X-Fastpixel: dropped"};
    s->unanswered--;
    if (verdict != GOOD) { load_fail(l, 1, why[verdict]); return; }
    l->answered++;
    bool late = l->phase == DRAIN && l->o.rate && s->started < l->window_ended;
    if (l->phase == MEASURE || late) histogram_add(&l->latency, now > s->started ? now - s->started : 0);
    if (l->phase != MEASURE) return;
    l->measured++;
    l->bytes += size;
}

/* Takes every whole answer of what has come; false: the connection cannot be read on. */
static bool slot_answers(Load *l, Slot *s)
{
    size_t from = 0, used;
    u64 now = clock_now();
    while (from < s->in_size) {
        Verdict verdict = answer_read(&l->o, s->in + from, s->in_size - from, &used);
        if (verdict == MORE) break;
        if (verdict == BROKEN || !s->unanswered) return false;
        slot_count(l, s, verdict, used, now);
        from += used;
    }
    s->in_size -= from;
    memmove(s->in, s->in + from, s->in_size);
    return s->in_size < l->in_room;
}

/* The end of a connection is an answer's end with --new-connection, and a failure everywhere else. */
static void slot_ended(Load *l, Slot *s)
{
    if (!l->o.fresh || s->unanswered) { slot_retire(l, s, "connection lost"); return; }
    slot_hang_up(s);
    slot_rest(l, s);
}

static void slot_read(Load *l, Slot *s)
{
    ssize_t size = recv(s->fd, s->in + s->in_size, l->in_room - s->in_size, 0);
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0) { slot_ended(l, s); return; }
    s->in_size += (size_t)size;
    if (!slot_answers(l, s)) slot_retire(l, s, "not an answer");
    else if (!s->unanswered && !l->o.fresh) slot_rest(l, s);
}

static void slot_event(Load *l, Slot *s, uint32_t events)
{
    if (events & EPOLLOUT) slot_write(l, s);
    if (s->fd >= 0 && events & (EPOLLIN | EPOLLHUP | EPOLLERR)) slot_read(l, s);
}

/* ---- loop ---- */

static Slot slot_new(const Load *l, int number)
{
    size_t size = (size_t)l->o.depth * l->t.size;
    Slot s = {.fd = -1, .source = number, .out = malloc(size), .in = malloc(l->in_room)};
    if (!s.out || !s.in) die("out of memory");
    for (int i = 0; i < l->o.depth; i++) memcpy(s.out + (size_t)i * l->t.size, l->t.bytes, l->t.size);
    return s;
}

static void load_open(Load *l)
{
    l->in_room = (size_t)l->o.length * (size_t)l->o.depth + (size_t)l->o.depth * ANSWER_ROOM;
    l->slots = calloc((size_t)l->o.connections, sizeof *l->slots);
    l->idle = calloc((size_t)l->o.connections, sizeof *l->idle);
    l->poller = epoll_create1(EPOLL_CLOEXEC);
    if (!l->slots || !l->idle || l->poller < 0) die("out of memory or descriptors");
    for (int i = 0; i < l->o.connections; i++) {
        l->slots[i] = slot_new(l, i);
        l->idle[i] = &l->slots[i];
    }
    l->idle_count = (size_t)l->o.connections;
    l->alive = l->o.connections;
}

static u64 load_due(const Load *l)
{
    return l->began + (u64)((double)l->batches * l->o.depth / l->o.rate * (double)NS);
}

static void load_feed(Load *l, u64 now)
{
    while (l->idle_count && load_may_send(l) && (!l->o.rate || load_due(l) <= now)) {
        Slot *s = l->idle[l->idle_first];
        l->idle_first = (l->idle_first + 1) % (size_t)l->o.connections;
        l->idle_count--;
        u64 at = l->o.rate ? load_due(l) : clock_now();
        l->batches++;
        slot_start(l, s, at);
    }
}

static void window_open(Load *l)
{
    l->phase = MEASURE;
    l->machine_began = machine_read();
    l->window_began = clock_now();
    l->phase_ends = l->window_began + (u64)(l->o.seconds * (double)NS);
    l->cpu_began = processes_cpu(&l->o.processes);
    l->own_began = clock_read(CLOCK_PROCESS_CPUTIME_ID);
}

/* Batches that were due and never sent would have had the longest latencies: they are counted, not hidden. */
static void window_unsent(Load *l, u64 now)
{
    for (; l->o.rate && load_may_send(l) && load_due(l) < now; l->batches++) {
        l->unsent += (u64)l->o.depth;
        for (int i = 0; i < l->o.depth; i++) histogram_add(&l->latency, now - load_due(l));
    }
}

static void window_close(Load *l, u64 now)
{
    l->window_ended = now;
    l->cpu_ended = processes_cpu(&l->o.processes);
    l->own_ended = clock_read(CLOCK_PROCESS_CPUTIME_ID);
    l->machine_ended = machine_read();
    window_unsent(l, now);
    l->phase = DRAIN;
    l->phase_ends = now + DRAIN_NS;
}

static void load_give_up(Load *l)
{
    for (int i = 0; i < l->o.connections; i++) {
        Slot *s = &l->slots[i];
        if (s->busy) slot_retire(l, s, s->unanswered ? "no answer" : "connection not closed by the server");
    }
}

static void load_phase(Load *l, u64 now)
{
    bool spent = !l->alive || (l->sent >= l->o.requests && !l->busy);
    if (l->phase == WARM && (now >= l->phase_ends || spent)) window_open(l);
    if (l->phase == MEASURE && (now >= l->phase_ends || spent)) window_close(l, now);
    if (l->phase != DRAIN) return;
    if (now >= l->phase_ends) load_give_up(l);
    if (!l->busy) l->phase = DONE;
}

static int load_wait(Load *l, struct epoll_event *events, u64 now)
{
    u64 until = l->phase_ends;
    if (l->o.rate && l->idle_count && load_may_send(l) && load_due(l) < until) until = load_due(l);
    u64 wait = until > now ? until - now : 0;
    struct timespec timeout = {.tv_sec = (time_t)(wait / NS), .tv_nsec = (long)(wait % NS)};
    int ready = epoll_pwait2(l->poller, events, EVENTS, &timeout, NULL);
    if (ready < 0 && errno != EINTR) die("epoll_pwait2: %s", strerror(errno));
    return ready;
}

static void load_run(Load *l)
{
    struct epoll_event events[EVENTS];
    l->began = clock_now();
    l->phase_ends = l->began + (u64)(l->o.warmup * (double)NS);
    for (u64 now = l->began; load_phase(l, now), l->phase != DONE; now = clock_now()) {
        load_feed(l, now);
        int ready = load_wait(l, events, clock_now());
        for (int i = 0; i < ready; i++) slot_event(l, events[i].data.ptr, events[i].events);
    }
}

static double micros(u64 ns) { return (double)ns / 1000; }

static void load_print(const Load *l)
{
    const Histogram *h = &l->latency;
    printf("{\"requests\": %lu, \"seconds\": %.6f, \"failures\": %lu, ", l->measured,
           (double)(l->window_ended - l->window_began) / (double)NS, l->failures);
    if (l->first_failure) printf("\"first_failure\": \"%s\", ", l->first_failure);
    printf("\"sent\": %lu, \"answered\": %lu, \"unsent\": %lu, ", l->sent, l->answered, l->unsent);
    printf("\"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, \"max_us\": %.1f, ", micros(histogram_at(h, 0.5)),
           micros(histogram_at(h, 0.99)), micros(histogram_at(h, 0.999)), micros(h->max));
    if (l->o.processes.count) printf("\"cpu_us\": %.1f, ", micros(l->cpu_ended - l->cpu_began));
    printf("\"load_cpu_us\": %.1f, \"busy_us\": %lu, \"steal_us\": %lu, \"bytes\": %lu}\n",
           micros(l->own_ended - l->own_began), l->machine_ended.busy_us - l->machine_began.busy_us,
           l->machine_ended.steal_us - l->machine_began.steal_us, l->bytes);
}

int main(int argc, char **argv)
{
    static Load l;
    prctl(PR_SET_TIMERSLACK, 1);        /* the timetable of --rate is finer than the default 50 us */
    l.o = options_read(argc, argv);
    l.t = template_load(&l.o);
    load_open(&l);
    load_run(&l);
    load_print(&l);
    return 0;
}
