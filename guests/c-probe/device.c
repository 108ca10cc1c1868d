/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * QEMU's edu device (docs/specs/edu in QEMU), which copies between its buffer and memory on demand.
 */
#include "probe.h"

#define SLOT        UINT64_C(1)                 /* 00:01.0 */
#define CONFIG      (ECAM + (SLOT << 15))
#define STREAM      (SLOT << 3)                 /* the requester ID: bus 0, device 1, function 0 */
#define EDU         UINT32_C(0x11e81234)        /* device and vendor */
#define COMMAND     4
#define BAR0        0x10
#define MEMORY_AND_MASTER 6u
#define DMA_FROM    0x80
#define DMA_TO      0x88
#define DMA_BYTES   0x90
#define DMA_COMMAND 0x98
#define DMA_START   UINT64_C(1)
#define TO_MEMORY   UINT64_C(2)
#define INSIDE      UINT64_C(0x40000)           /* the device's own buffer, as its DMA engine addresses it */

static uint64_t registers;

/* One copy of 8 bytes; waits until the device has ended it. */
static void copy(uint64_t from, uint64_t to, uint64_t direction)
{
    write64(registers + DMA_FROM, from);
    write64(registers + DMA_TO, to);
    write64(registers + DMA_BYTES, 8);
    write64(registers + DMA_COMMAND, DMA_START | direction);
    while ((read64(registers + DMA_COMMAND) & DMA_START) != 0)
        ;
}

static uint64_t sync_of(const char *tried, const struct memory *m, uint64_t flags)
{
    struct request r = {STRANDLINE_SYNC, m->logged, LOGGED_BYTES, m->buffer, flags, 0};
    return expect(tried, r, STRANDLINE_DONE, 0).x2;
}

/* A log is on. */
static void dma_is_logged(const struct memory *m)
{
    const uint64_t clearing = STRANDLINE_CLEAR_DELIVERED;
    int assumed = tiers >> 8 == STRANDLINE_DMA_TIER_ASSUME;
    /* What the device is to write is not what is there already: a digest would not tell. */
    write64(m->buffer, ~read64(m->logged + 40 * PAGE));
    maintain(m->buffer, 8);
    copy(m->buffer, INSIDE, 0);
    sync_of("CPU and DMA, CLEAR_DELIVERED", m, STRANDLINE_CPU | STRANDLINE_DMA | clearing);
    copy(INSIDE, m->logged + 40 * PAGE, TO_MEMORY);
    expect_value("sync", "  CPU: a device's write is none of the vCPU's", 0, sync_of("CPU", m, STRANDLINE_CPU));
    expect_value("sync", assumed ? "  DMA: tier assume reports every page" : "  DMA: the page that was written",
                 assumed ? LOGGED : 1, sync_of("DMA", m, STRANDLINE_DMA));
    maintain(m->buffer, 8);
    expect_value("sync", "  the bit of the page is set", 1, read64(m->buffer) >> 40 & 1);
    expect_value("sync", assumed ? "  CPU and DMA: every page" : "  CPU and DMA: the page", assumed ? LOGGED : 1,
                 sync_of("CPU and DMA, CLEAR_DELIVERED", m, STRANDLINE_CPU | STRANDLINE_DMA | clearing));
    expect_value("sync", assumed ? "  DMA: every page, by every sync" : "  DMA: it has left the log",
                 assumed ? LOGGED : 0, sync_of("DMA", m, STRANDLINE_DMA));
    write64(m->buffer, UINT64_MAX);
    write64(m->buffer + 8, UINT64_MAX);
    maintain(m->buffer, 16);
    struct request clear = {STRANDLINE_CLEAR, m->logged, LOGGED_BYTES, m->buffer, STRANDLINE_DMA, 0};
    struct strandline_result cleared = expect("DMA: a mask of all", clear, STRANDLINE_DONE, 0);
    expect_value("clear", "  x2: pages discarded", assumed ? LOGGED : 0, cleared.x2);
}

static void record(const struct memory *m, const char *tried, uint64_t ipa, uint64_t access)
{
    for (uint64_t at = 0; at < 64; at += 8)
        write64(m->buffer + at, 0);
    maintain(m->buffer, 64);
    struct request r = {STRANDLINE_FAULTS, m->buffer, 1, 0, 0, 0};
    struct strandline_result got = expect(tried, r, STRANDLINE_DONE, 1);
    maintain(m->buffer, 64);
    expect_value("faults", "  x2: none lost", 0, got.x2);
    expect_value("faults", "  stream", STREAM, read64(m->buffer + offsetof(struct strandline_fault_record, stream)));
    expect_value("faults", "  kind: translation", 0x10,
                 read64(m->buffer + offsetof(struct strandline_fault_record, kind)));
    expect_value("faults", "  page", ipa,
                 read64(m->buffer + offsetof(struct strandline_fault_record, ipa)) & ~(PAGE - 1));
    expect_value("faults", "  access", access,
                 read64(m->buffer + offsetof(struct strandline_fault_record, access)));
    while (make(r).x1 != 0) /* one access can make several records */
        ;
}

void device(const struct memory *m)
{
    if (read32(CONFIG) != EDU) {
        uint64_t none = sync_of("DMA: the VM owns no device", m, STRANDLINE_DMA);
        expect_value("sync", "  pages", 0, none);
        not_tried("faults", "records of a device", "the VM has no edu device at 00:01.0");
        return;
    }
    registers = read32(CONFIG + BAR0) & ~UINT32_C(15);
    write32(CONFIG + COMMAND, MEMORY_AND_MASTER);
    dma_is_logged(m);
    copy(INSIDE, 0x1000, TO_MEMORY);
    record(m, "a device's write outside RAM", 0x1000, STRANDLINE_FAULT_WRITE);
    copy(m->ram_end, INSIDE, 0);
    record(m, "a device's read outside RAM", m->ram_end, 0);
}
