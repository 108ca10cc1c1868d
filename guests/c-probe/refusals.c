/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "probe.h"

#define UNALIGNED  STRANDLINE_UNALIGNED
#define INVALID    STRANDLINE_INVALID_PARAMETER
#define OUTSIDE    STRANDLINE_OUT_OF_RANGE

static const uint64_t TOP = UINT64_C(1) << 63;

static struct request with_range(struct request r, uint64_t start, uint64_t bytes)
{
    r.x1 = start;
    r.x2 = bytes;
    return r;
}

/* What may be wrong with the range of start, sync and clear. `end` is where it has to end at the latest. */
static void ranges(const struct memory *m, struct request r, uint64_t end)
{
    uint64_t start = r.x1, bytes = r.x2, last = UINT64_MAX - PAGE + 1;
    expect("address not of a page", with_range(r, start + 8, bytes), UNALIGNED, start + 8);
    expect("length not of pages", with_range(r, start, bytes + 1), UNALIGNED, bytes + 1);
    expect("length 0", with_range(r, start, 0), INVALID, 0);
    expect("an end that wraps", with_range(r, last, 2 * PAGE), OUTSIDE, 2 * PAGE);
    expect("an end that wraps to 0", with_range(r, last, PAGE), OUTSIDE, PAGE);
    expect("a length that wraps", with_range(r, start, last), OUTSIDE, last);
    expect("past the end of what it must lie in", with_range(r, start, end - start + PAGE), OUTSIDE, end);
    expect("a length of 2^62", with_range(r, start, UINT64_C(1) << 62), OUTSIDE, end);
    expect("from below RAM", with_range(r, m->ram_start - PAGE, PAGE), OUTSIDE, m->ram_start - PAGE);
    expect("UART registers", with_range(r, UART, PAGE), OUTSIDE, UART);
    expect("PCI memory window", with_range(r, PCI_WINDOW, PAGE), OUTSIDE, PCI_WINDOW);
    expect("PCI configuration space", with_range(r, ECAM, PAGE), OUTSIDE, ECAM);
    expect("behind RAM", with_range(r, m->ram_end, PAGE), OUTSIDE, m->ram_end);
}

static struct request with_buffer(struct request r, int in_x3, uint64_t buffer)
{
    if (in_x3)
        r.x3 = buffer;
    else
        r.x1 = buffer;
    return r;
}

/* What may be wrong with a buffer of more than 8 bytes. */
static void buffers(const struct memory *m, struct request r, int in_x3)
{
    uint64_t right = m->buffer;
    expect("buffer not 8-aligned (4)", with_buffer(r, in_x3, right + 4), UNALIGNED, right + 4);
    expect("buffer not 8-aligned (1)", with_buffer(r, in_x3, right + 1), UNALIGNED, right + 1);
    expect("buffer at 0", with_buffer(r, in_x3, 0), OUTSIDE, 0);
    expect("buffer that begins below RAM", with_buffer(r, in_x3, m->ram_start - 8), OUTSIDE, m->ram_start - PAGE);
    expect("buffer that ends behind RAM", with_buffer(r, in_x3, m->ram_end - 8), OUTSIDE, m->ram_end);
    expect("buffer behind RAM", with_buffer(r, in_x3, m->ram_end), OUTSIDE, m->ram_end);
    expect("buffer in UART registers", with_buffer(r, in_x3, UART), OUTSIDE, UART);
    expect("buffer in the PCI memory window", with_buffer(r, in_x3, PCI_WINDOW), OUTSIDE, PCI_WINDOW);
    expect("buffer in PCI configuration space", with_buffer(r, in_x3, ECAM), OUTSIDE, ECAM);
    expect("buffer beyond the address size", with_buffer(r, in_x3, UINT64_C(1) << 52), OUTSIDE, UINT64_C(1) << 52);
    expect("buffer whose end wraps", with_buffer(r, in_x3, UINT64_MAX - 7), OUTSIDE, UINT64_MAX - 7);
}

/* Registers that `r` doesn't have: bit n stands for x(n+1). */
static void unused(struct request r, unsigned registers)
{
    static const char *const TRIED[] = {"something in unused x1", "something in unused x2", "something in unused x3",
                                        "something in unused x4", "something in unused x5"};
    for (unsigned i = 0; i < 5; i++) {
        struct request wrong_one = r;
        uint64_t *const at[] = {&wrong_one.x1, &wrong_one.x2, &wrong_one.x3, &wrong_one.x4, &wrong_one.x5};
        if ((registers >> i & 1) == 0)
            continue;
        *at[i] = TOP;
        expect(TRIED[i], wrong_one, INVALID, TOP);
    }
}

static void start(const struct memory *m)
{
    struct request r = {STRANDLINE_START, m->logged, LOGGED_BYTES, PAGE, 0, 0};
    static const uint64_t GRANULES[] = {0, 2, 2048, 8192, 65536, 1 << 22, (UINT64_C(1) << 32) + 4096};
    ranges(m, r, m->ram_end);
    for (size_t i = 0; i < sizeof GRANULES / sizeof GRANULES[0]; i++) {
        r.x3 = GRANULES[i];
        expect("a granule that features doesn't name", r, INVALID, GRANULES[i]);
    }
    r.x3 = PAGE;
    static const uint64_t TIERS[] = {3, 0xff, 5 << 8, 0xff00, 1 << 16, UINT64_C(1) << 63};
    for (size_t i = 0; i < sizeof TIERS / sizeof TIERS[0]; i++) {
        r.x4 = TIERS[i];
        expect("x4 is no tiers", r, INVALID, TIERS[i]);
    }
    if (tiers >> 8 > STRANDLINE_DMA_TIER_HARDWARE) {
        r.x4 = STRANDLINE_DMA_TIER_HARDWARE << 8;
        expect("devices' tier weaker than x4 demands", r, STRANDLINE_NOT_SUPPORTED, tiers);
    } else {
        not_tried("start", "devices' tier weaker than x4 demands", "there is no weaker one here");
    }
    if ((tiers & 0xff) > STRANDLINE_CPU_TIER_HARDWARE) {
        r.x4 = STRANDLINE_CPU_TIER_HARDWARE;
        expect("CPU's tier weaker than x4 demands", r, STRANDLINE_NOT_SUPPORTED, tiers);
    } else {
        not_tried("start", "CPU's tier weaker than x4 demands", "there is no weaker one here");
    }
    r.x4 = 0;
    r.x5 = 1;
    expect("a step without a first", r, INVALID, 1);
}

static void read_pages(const struct memory *m)
{
    struct request r = {STRANDLINE_READ, m->logged, LOGGED_BYTES, m->buffer, 0, 0};
    ranges(m, r, m->ram_end);
    /* A buffer may end behind RAM by more than its first page. */
    r.x2 = PAGE;
    buffers(m, r, 1);
    unused(r, 0x08);
    for (r.x5 = 1; r.x5 <= 16; r.x5 *= 16)
        expect("a step that can't be this call's", r, INVALID, r.x5);
}

void refusals_without_a_log(const struct memory *m)
{
    struct request read = {STRANDLINE_SYNC, m->logged, LOGGED_BYTES, m->buffer, STRANDLINE_CPU, 0};
    struct request faults = {STRANDLINE_FAULTS, m->buffer, 4, 0, 0, 0};
    struct request status = {STRANDLINE_STATUS, m->buffer, sizeof(struct strandline_log_status), 0, 0, 0};
    start(m);
    read_pages(m);
    expect("no log is on", read, STRANDLINE_DENIED, 0);
    read.id = STRANDLINE_CLEAR;
    expect("no log is on", read, STRANDLINE_DENIED, 0);
    expect("no log is on", (struct request){STRANDLINE_STOP, 0, 0, 0, 0, 0}, STRANDLINE_DENIED, 0);
    unused((struct request){STRANDLINE_FEATURES, 0, 0, 0, 0, 0}, 0x1f);
    unused((struct request){STRANDLINE_STOP, 0, 0, 0, 0, 0}, 0x0f);
    unused(status, 0x1c);
    unused(faults, 0x1c);
    faults.id = STRANDLINE_DEVICES;
    unused(faults, 0x1c);
    faults.id = STRANDLINE_FAULTS;
    buffers(m, status, 0);
    status.x2 = 12;
    expect("length not a multiple of 8", status, UNALIGNED, 12);
    buffers(m, faults, 0);
}

static void read_or_clear(const struct memory *m, uint64_t id)
{
    struct request r = {id, m->logged, LOGGED_BYTES, m->buffer, STRANDLINE_CPU, 0};
    static const uint64_t FLAGS[] = {0, 8, 8 | STRANDLINE_CPU, STRANDLINE_CLEAR_DELIVERED, UINT64_MAX};
    ranges(m, r, m->logged + LOGGED_BYTES);
    expect("RAM before the log's range", with_range(r, m->logged - PAGE, PAGE), OUTSIDE, m->logged - PAGE);
    buffers(m, r, 1);
    for (size_t i = 0; i < sizeof FLAGS / sizeof FLAGS[0]; i++) {
        r.x4 = FLAGS[i];
        expect("flags: no source, or a reserved bit", r, INVALID, FLAGS[i]);
    }
    r.x4 = STRANDLINE_DMA | TOP;
    expect("flags: no source, or a reserved bit", r, INVALID, r.x4);
    r.x4 = STRANDLINE_CPU;
    for (r.x5 = 1; r.x5 <= 32768; r.x5 *= 32768)
        expect("a step that can't be this call's", r, INVALID, r.x5);
}

void refusals_with_a_log(const struct memory *m)
{
    struct request again = {STRANDLINE_START, m->logged, LOGGED_BYTES, PAGE, 0, 0};
    struct request clear = {STRANDLINE_CLEAR, m->logged, LOGGED_BYTES, m->buffer, 0, 0};
    expect("while a log is on", again, STRANDLINE_BUSY, 0);
    expect("another range while a log is on", with_range(again, m->buffer, PAGE), STRANDLINE_BUSY, 0);
    read_or_clear(m, STRANDLINE_SYNC);
    read_or_clear(m, STRANDLINE_CLEAR);
    clear.x4 = STRANDLINE_CPU | STRANDLINE_CLEAR_DELIVERED;
    expect("the flag that is sync's alone", clear, INVALID, clear.x4);
    expect("a step without a first", (struct request){STRANDLINE_STOP, 0, 0, 0, 0, 1}, INVALID, 1);
}
