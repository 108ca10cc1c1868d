/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "probe.h"

/* One word more than the bitmap has, to see that it isn't touched. */
#define GUARD UINT64_C(0x6a6a6a6a6a6a6a6a)

/* Puts a mask into the buffer, for clear; and the guard behind it. */
static void put_mask(const struct memory *m, uint64_t low, uint64_t high)
{
    write64(m->buffer, low);
    write64(m->buffer + 8, high);
    write64(m->buffer + 16, GUARD);
    maintain(m->buffer, 24);
}

static uint64_t ones(uint64_t bits)
{
    uint64_t count = 0;
    for (; bits != 0; bits &= bits - 1)
        count++;
    return count;
}

/* Makes a sync or clear of the whole log, and holds pages and bitmap against what is wanted. */
static void pages(const char *tried, const struct memory *m, uint64_t id, uint64_t flags, uint64_t low, uint64_t high)
{
    struct request r = {id, m->logged, LOGGED_BYTES, m->buffer, flags, 0};
    uint64_t count = ones(low) + ones(high);
    const char *call = id == STRANDLINE_SYNC ? "sync" : "clear";
    if (id == STRANDLINE_SYNC)
        put_mask(m, ~low, ~high);
    struct strandline_result result = expect(tried, r, STRANDLINE_DONE, 0);
    maintain(m->buffer, 24);
    expect_value(call, "  x2: pages", count, result.x2);
    expect_value(call, "  x3: tiers", tiers, result.x3);
    expect_value(call, "  bitmap: pages 0 to 63", low, read64(m->buffer));
    expect_value(call, "  bitmap: pages 64 to 99, and 0 behind them", high, read64(m->buffer + 8));
    expect_value(call, "  the word behind the bitmap is not touched", GUARD, read64(m->buffer + 16));
}

static void touch(const struct memory *m, uint64_t page)
{
    write64(m->logged + page * PAGE, page);
    __asm__ volatile("dsb sy" ::: "memory");
}

static uint64_t state(const struct memory *m)
{
    maintain(m->buffer, 8);
    make((struct request){STRANDLINE_STATUS, m->buffer, 8, 0, 0, 0});
    maintain(m->buffer, 8);
    return read64(m->buffer);
}

/* Of a range that is not one block, a start and a stop have several steps. */
void steps_of_start_and_stop(const struct memory *m)
{
    struct request start = {STRANDLINE_START, m->logged, LOGGED_BYTES, PAGE, 0, 0};
    struct request read = {STRANDLINE_SYNC, m->logged, LOGGED_BYTES, m->buffer, STRANDLINE_CPU, 0};
    struct request stop = {STRANDLINE_STOP, 0, 0, 0, 0, 0};
    expect_value("status", "state: off", STRANDLINE_LOG_STATE_OFF, state(m));
    struct strandline_result first = expect("first step", start, STRANDLINE_MORE, ANY);
    expect_value("start", "  x2: tiers", tiers, first.x2);
    expect_value("status", "state: starting", STRANDLINE_LOG_STATE_STARTING, state(m));
    expect("first step again, while it has not ended", start, STRANDLINE_BUSY, 0);
    start.x2 += PAGE;
    expect("another range, while it has not ended", start, STRANDLINE_BUSY, 0);
    start.x2 -= PAGE;
    start.x5 = first.x1 + 1;
    expect("a step that was not handed out", start, STRANDLINE_INVALID_PARAMETER, start.x5);
    expect("while a start has not ended", read, STRANDLINE_BUSY, 0);
    read.id = STRANDLINE_CLEAR;
    expect("while a start has not ended", read, STRANDLINE_BUSY, 0);
    expect_value("stop", "undoes a start that has not ended", (uint64_t)STRANDLINE_DONE, (uint64_t)finish(stop).x0);
    expect_value("status", "state: off", STRANDLINE_LOG_STATE_OFF, state(m));

    start.x5 = 0;
    struct strandline_result done = finish(start);
    expect_value("start", "all steps", (uint64_t)STRANDLINE_DONE, (uint64_t)done.x0);
    expect_value("start", "  x3: it has split blocks", 1, done.x3 != 0);
    expect_value("status", "state: on", STRANDLINE_LOG_STATE_ON, state(m));
    struct strandline_result step = expect("first step", stop, STRANDLINE_MORE, ANY);
    expect_value("status", "state: stopping", STRANDLINE_LOG_STATE_STOPPING, state(m));
    start.x5 = 0;
    expect("while a stop has not ended", start, STRANDLINE_BUSY, 0);
    expect("while a stop has not ended", read, STRANDLINE_BUSY, 0);
    read.id = STRANDLINE_SYNC;
    expect("while a stop has not ended", read, STRANDLINE_BUSY, 0);
    stop.x5 = step.x1 + 1;
    expect("a step that was not handed out", stop, STRANDLINE_INVALID_PARAMETER, stop.x5);
    stop.x5 = 0;
    expect_value("stop", "goes on with x5 = 0", (uint64_t)STRANDLINE_DONE, (uint64_t)finish(stop).x0);
    expect("twice", stop, STRANDLINE_DENIED, 0);
}

void reading(const struct memory *m)
{
    const uint64_t sync = STRANDLINE_SYNC, clear = STRANDLINE_CLEAR, cpu = STRANDLINE_CPU;
    const uint64_t clearing = cpu | STRANDLINE_CLEAR_DELIVERED;
    pages("CPU: nothing was written yet", m, sync, cpu, 0, 0);
    touch(m, 3);
    touch(m, 64);
    touch(m, 99);
    pages("CPU: pages 3, 64 and 99 were written", m, sync, cpu, 1 << 3, UINT64_C(1) << 35 | 1);
    pages("CPU: they are kept", m, sync, cpu, 1 << 3, UINT64_C(1) << 35 | 1);
    pages("CPU, CLEAR_DELIVERED", m, sync, clearing, 1 << 3, UINT64_C(1) << 35 | 1);
    pages("CPU: they have left the log", m, sync, cpu, 0, 0);
    touch(m, 5);
    touch(m, 6);
    touch(m, 70);
    put_mask(m, 1 << 5 | 1 << 7, UINT64_MAX << 36);
    pages("CPU: of the mask 5, 7 and what is behind the last, 5 was dirty", m, clear, cpu, 1 << 5, 0);
    pages("CPU: the others are there still", m, sync, cpu, 1 << 6, 1 << 6);
    put_mask(m, UINT64_MAX, UINT64_MAX);
    pages("CPU: a mask of all", m, clear, cpu, 1 << 6, 1 << 6);

    struct request inside = {sync, m->logged, LOGGED_BYTES, m->logged + 9 * PAGE, clearing, 0};
    expect("CPU: the bitmap lies in the log", inside, STRANDLINE_DONE, 0);
    pages("CPU, CLEAR_DELIVERED: EL2's write counts as the vCPU's", m, sync, clearing, 1 << 9, 0);

    touch(m, 10);
    struct request part = {sync, m->logged + 8 * PAGE, 4 * PAGE, m->buffer, clearing, 0};
    struct strandline_result result = expect("CPU: a part of the log", part, STRANDLINE_DONE, 0);
    maintain(m->buffer, 8);
    expect_value("sync", "  x2: pages", 1, result.x2);
    expect_value("sync", "  bitmap begins with the part", 1 << 2, read64(m->buffer));
    pages("CPU: the part has left the log", m, sync, cpu, 0, 0);
}

/* The call copies 40 pages in three steps; the last word of each page tells them apart. */
void copying(const struct memory *m)
{
    const uint64_t pages = 40, to = m->buffer + 8;
    struct request r = {STRANDLINE_READ, m->logged, pages * PAGE, to, 0, 0};
    for (uint64_t page = 0; page < pages; page++) {
        write64(m->logged + (page + 1) * PAGE - 8, GUARD + page);
        write64(to + (page + 1) * PAGE - 8, 0);
    }
    write64(to + pages * PAGE, GUARD);
    maintain(m->logged, pages * PAGE);
    maintain(to, pages * PAGE + 8);
    expect("the first step", r, STRANDLINE_MORE, 16);
    struct strandline_result all = finish(r);
    maintain(to, pages * PAGE + 8);
    expect_value("read", "  x2 of all steps: pages", pages, all.x2);
    uint64_t right = 0;
    for (uint64_t page = 0; page < pages; page++)
        right += read64(to + (page + 1) * PAGE - 8) == GUARD + page;
    expect_value("read", "  pages that are as the original", pages, right);
    expect_value("read", "  the word behind the buffer is not touched", GUARD, read64(to + pages * PAGE));
    r.x2 = PAGE;
    expect("one page", r, STRANDLINE_DONE, 0);
}

void granules_and_tiers(const struct memory *m)
{
    const uint64_t stop = STRANDLINE_STOP, big = 2 * MIB;
    struct request r = {STRANDLINE_START, m->logged, big, big, tiers, 0};
    struct strandline_result done = finish(r);
    expect_value("start", "a granule of 2 MiB, the tiers there are demanded", 0, (uint64_t)done.x0);
    struct request sync = {STRANDLINE_SYNC, m->logged, big, m->buffer, STRANDLINE_CPU | STRANDLINE_CLEAR_DELIVERED, 0};
    expect_value("sync", "CPU: nothing was written yet", 0, finish(sync).x2);
    touch(m, 300);
    expect_value("sync", "CPU: the block is reported whole", big / PAGE, finish(sync).x2);
    expect_value("sync", "CPU: it has left the log", 0, finish(sync).x2);
    expect_value("stop", "a log of blocks", 0, (uint64_t)finish((struct request){stop, 0, 0, 0, 0, 0}).x0);
    r.x3 = UINT64_C(1) << 30;
    r.x4 = 0;
    expect_value("start", "a granule of 1 GiB", 0, (uint64_t)finish(r).x0);
    expect_value("stop", "a log of blocks", 0, (uint64_t)finish((struct request){stop, 0, 0, 0, 0, 0}).x0);
}

/* What is written becomes pages, in a view that adapts; where none does, there is no such log. */
void adaptive(const struct memory *m)
{
    const uint64_t big = 2 * MIB;
    struct request r = {STRANDLINE_START, m->logged, big, STRANDLINE_GRANULE_ADAPTIVE, 0, 0};
    struct strandline_result done;
    do {
        done = make(r);
        r.x5 = done.x1;
    } while (done.x0 == STRANDLINE_MORE);
    if (done.x0 == STRANDLINE_NOT_SUPPORTED) {
        expect_value("start", "adaptive, where no view adapts: x1", 0, done.x1);
        return;
    }
    expect_value("start", "adaptive", (uint64_t)STRANDLINE_DONE, (uint64_t)done.x0);
    expect_value("start", "  x2: tiers, and what adapts", tiers, done.x2 & 0xffff);
    expect_value("start", "  x2: nothing else", 0, done.x2 >> 18);
    struct request sync = {STRANDLINE_SYNC, m->logged, big, m->buffer, STRANDLINE_CPU | STRANDLINE_CLEAR_DELIVERED, 0};
    finish(sync);
    const uint64_t whole = (done.x2 & STRANDLINE_ADAPTS_CPU) != 0 ? big / PAGE : 1;
    touch(m, 300);
    expect_value("sync", "CPU, adaptive: the first write to a block", whole, finish(sync).x2);
    touch(m, 300);
    expect_value("sync", "CPU, adaptive: the next one, by pages", 1, finish(sync).x2);
    expect_value("stop", "an adaptive log", 0, (uint64_t)finish((struct request){STRANDLINE_STOP, 0, 0, 0, 0, 0}).x0);
}

/* A log of 4 GiB would have 32 steps; of what there is, all but the program's first 16 MiB. */
void steps_of_sync(const struct memory *m)
{
    const uint64_t step = 32768, start = m->buffer + 8 * MIB, bytes = m->ram_end - start;
    struct request r = {STRANDLINE_SYNC, start, bytes, m->buffer, STRANDLINE_CPU, 0};
    if (bytes / PAGE <= step) {
        not_tried("sync", "more than one step", "the VM has too little RAM (give it 256M)");
        return;
    }
    struct strandline_result all = finish((struct request){STRANDLINE_START, start, bytes, PAGE, 0, 0});
    expect_value("start", "a log of nearly all RAM", (uint64_t)STRANDLINE_DONE, (uint64_t)all.x0);
    write64(start + (step + 1) * PAGE, 1);
    write64(start + PAGE, 1);
    expect("the first step of several", r, STRANDLINE_MORE, step);
    maintain(m->buffer, 16);
    expect_value("sync", "  its first word", 1 << 1, read64(m->buffer));
    r.x5 = step;
    write64(m->buffer + step / 8, GUARD);
    maintain(m->buffer + step / 8, 8);
    expect("the second step, twice", r, bytes / PAGE > 2 * step ? STRANDLINE_MORE : STRANDLINE_DONE, ANY);
    expect("the second step, twice", r, bytes / PAGE > 2 * step ? STRANDLINE_MORE : STRANDLINE_DONE, ANY);
    maintain(m->buffer + step / 8, 8);
    expect_value("sync", "  its first word", 1 << 1, read64(m->buffer + step / 8));
    r.x5 = step + 64;
    expect("a step that can't be this call's", r, STRANDLINE_INVALID_PARAMETER, r.x5);
    r.x5 = (bytes / PAGE + step) / step * step;
    expect("a step behind the range", r, STRANDLINE_INVALID_PARAMETER, r.x5);
    r.x5 = 0;
    struct strandline_result done = finish(r);
    expect_value("sync", "all steps: pages", 2, done.x2);
    expect_value("stop", "the large log", (uint64_t)STRANDLINE_DONE,
                 (uint64_t)finish((struct request){STRANDLINE_STOP, 0, 0, 0, 0, 0}).x0);
}

void no_memory(const struct memory *m)
{
    struct strandline_log_status *status = (struct strandline_log_status *)(uintptr_t)m->buffer;
    struct request r = {STRANDLINE_START, m->ram_start, m->ram_end - m->ram_start, PAGE, 0, 0};
    maintain(m->buffer, sizeof *status);
    make((struct request){STRANDLINE_STATUS, m->buffer, sizeof *status, 0, 0, 0});
    maintain(m->buffer, sizeof *status);
    uint64_t free_frames = read64((uintptr_t)&status->free_frames);
    struct strandline_result got = expect_at_last("all RAM, with too few frames", r, STRANDLINE_NO_MEMORY, ANY);
    expect_value("start", "  x1: frames needed, more than there are", 1, got.x1 > free_frames);
    r.x2 = 2 * MIB;
    expect_value("start", "a log for which there are enough", (uint64_t)STRANDLINE_DONE, (uint64_t)finish(r).x0);
    expect_value("stop", "and its end", (uint64_t)STRANDLINE_DONE,
                 (uint64_t)finish((struct request){STRANDLINE_STOP, 0, 0, 0, 0, 0}).x0);
}
