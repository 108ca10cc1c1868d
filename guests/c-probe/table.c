/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "table.h"

uint64_t rows, wrong;

struct name {
    uint64_t value;
    const char *text;
};

static const struct name CALLS[] = {
    {STRANDLINE_UID, "uid"},           {STRANDLINE_REVISION, "revision"}, {STRANDLINE_FEATURES, "features"},
    {STRANDLINE_START, "start"},       {STRANDLINE_SYNC, "sync"},         {STRANDLINE_CLEAR, "clear"},
    {STRANDLINE_STOP, "stop"},         {STRANDLINE_STATUS, "status"},     {STRANDLINE_FAULTS, "faults"},
    {STRANDLINE_READ, "read"},
    {0, 0},
};

static const struct name STATUSES[] = {
    {(uint64_t)STRANDLINE_DONE, "DONE"},
    {(uint64_t)STRANDLINE_MORE, "MORE"},
    {(uint64_t)STRANDLINE_NOT_SUPPORTED, "NOT_SUPPORTED"},
    {(uint64_t)STRANDLINE_INVALID_PARAMETER, "INVALID_PARAMETER"},
    {(uint64_t)STRANDLINE_UNALIGNED, "UNALIGNED"},
    {(uint64_t)STRANDLINE_OUT_OF_RANGE, "OUT_OF_RANGE"},
    {(uint64_t)STRANDLINE_DENIED, "DENIED"},
    {(uint64_t)STRANDLINE_BUSY, "BUSY"},
    {(uint64_t)STRANDLINE_NO_MEMORY, "NO_MEMORY"},
    {(uint64_t)STRANDLINE_UNTRUSTED, "UNTRUSTED"},
    {0, 0},
};

/* The name of `value`, or its digits, which go into `digits`. */
static const char *name_of(const struct name *names, uint64_t value, char *digits)
{
    for (; names->text != 0; names++)
        if (names->value == value)
            return names->text;
    hexadecimal(digits, value);
    return digits;
}

static void put_answer(int64_t x0, uint64_t x1)
{
    char digits[20], text[48];
    const char *status = name_of(STATUSES, (uint64_t)x0, digits);
    size_t length = length_of(status);
    for (size_t i = 0; i <= length; i++)
        text[i] = status[i];
    if (x1 != ANY) {
        text[length] = ' ';
        hexadecimal(text + length + 1, x1);
    }
    put_padded(text, 38);
}

static void end_row(int ok, const char *more)
{
    rows++;
    wrong += !ok;
    put(ok ? "ok" : "WRONG");
    put(ok ? "" : more);
    put("\n");
}

static void begin_row(const char *call, const char *tried)
{
    put_padded(call, 11);
    put_padded(tried, 56);
}

void table_head(void)
{
    begin_row("call", "tried");
    put_padded("expected", 38);
    put_padded("got", 38);
    put("ok\n");
}

void not_tried(const char *call, const char *tried, const char *reason)
{
    begin_row(call, tried);
    put("not tried: ");
    put(reason);
    put("\n");
}

void expect_value(const char *call, const char *tried, uint64_t wanted, uint64_t got)
{
    char text[20];
    begin_row(call, tried);
    hexadecimal(text, wanted);
    put_padded(text, 38);
    hexadecimal(text, got);
    put_padded(text, 38);
    end_row(wanted == got, "");
}

struct strandline_result make(struct request r)
{
    return strandline_call(r.id, r.x1, r.x2, r.x3, r.x4, r.x5);
}

struct strandline_result finish(struct request r)
{
    struct strandline_result result;
    uint64_t sum = 0;
    do {
        result = make(r);
        sum += result.x2;
        r.x5 = result.x1;
    } while (result.x0 == STRANDLINE_MORE);
    if (result.x0 == STRANDLINE_DONE)
        result.x2 = sum;
    return result;
}

/* The whole state of the log as it can be asked for. */
static struct strandline_log_status before, after;

static void snapshot(struct strandline_log_status *to)
{
    maintain((uintptr_t)to, sizeof *to);
    strandline_call(STRANDLINE_STATUS, (uintptr_t)to, sizeof *to, 0, 0, 0);
    maintain((uintptr_t)to, sizeof *to);
}

static int unchanged(void)
{
    const uint64_t *a = (const uint64_t *)&before, *b = (const uint64_t *)&after;
    for (size_t i = 0; i < sizeof before / 8; i++)
        if (a[i] != b[i])
            return 0;
    return 1;
}

static struct strandline_result tell(const char *tried, struct request r, int64_t x0, uint64_t x1,
                                     struct strandline_result (*how)(struct request))
{
    char digits[20];
    const char *more = "";
    snapshot(&before);
    struct strandline_result got = how(r);
    snapshot(&after);
    int ok = got.x0 == x0 && (x1 == ANY || got.x1 == x1);
    if (ok && x0 < 0) {
        if (got.x2 != 0 || got.x3 != 0 || got.x4 != r.x4) {
            ok = 0;
            more = ": x2 or x3 is not 0, or x4 was not kept";
        } else if (!unchanged()) {
            ok = 0;
            more = ": the log was changed";
        }
    }
    begin_row(name_of(CALLS, r.id, digits), tried);
    put_answer(x0, x1);
    put_answer(got.x0, x1 == ANY && ok ? ANY : got.x1);
    end_row(ok, more);
    return got;
}

struct strandline_result expect(const char *tried, struct request r, int64_t x0, uint64_t x1)
{
    return tell(tried, r, x0, x1, make);
}

struct strandline_result expect_at_last(const char *tried, struct request r, int64_t x0, uint64_t x1)
{
    return tell(tried, r, x0, x1, finish);
}
