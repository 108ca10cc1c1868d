/* SPDX-License-Identifier: MIT OR Apache-2.0 */
#include "probe.h"

#define GUARD UINT64_C(0x6a6a6a6a6a6a6a6a)
#define FIELD(name) read64(m->buffer + offsetof(struct strandline_log_status, name))

static void status_of(const struct memory *m, const char *tried, uint64_t bytes, uint64_t written)
{
    for (uint64_t at = 0; at < 256; at += 8)
        write64(m->buffer + at, GUARD);
    maintain(m->buffer, 256);
    expect(tried, (struct request){STRANDLINE_STATUS, m->buffer, bytes, 0, 0, 0}, STRANDLINE_DONE, written);
    maintain(m->buffer, 256);
    expect_value("status", "  the word behind what was written is not touched", GUARD, read64(m->buffer + written));
}

void records(const struct memory *m)
{
    const uint64_t all = sizeof(struct strandline_log_status);
    expect("no room, and so no buffer", (struct request){STRANDLINE_STATUS, 0, 0, 0, 0, 0}, STRANDLINE_DONE, 0);
    status_of(m, "room for one field", 8, 8);
    status_of(m, "all of it", all, all);
    expect_value("status", "  state: on", STRANDLINE_LOG_STATE_ON, FIELD(state));
    expect_value("status", "  tiers", tiers, FIELD(tiers));
    expect_value("status", "  start", m->logged, FIELD(start));
    expect_value("status", "  bytes", LOGGED_BYTES, FIELD(bytes));
    expect_value("status", "  the vCPUs' view has the log's pages, and tables", 1,
                 FIELD(cpu_pages_4k) >= LOGGED && FIELD(cpu_tables) >= 2);
    expect_value("status", "  blocks were split, pages reported, frames are free", 1,
                 FIELD(blocks_split) != 0 && FIELD(pages_reported) != 0 && FIELD(free_frames) != 0);
    expect_value("status", "  blocks were merged (of the start that was undone)", 1, FIELD(blocks_merged) != 0);
    if (tiers >> 8 == STRANDLINE_DMA_TIER_NONE) {
        expect_value("status", "  no device: no view, no commands", 0, FIELD(dma_tables) | FIELD(smmu_commands));
    } else {
        expect_value("status", "  the devices' view has the log's pages, and tables", 1,
                     FIELD(dma_pages_4k) >= LOGGED && FIELD(dma_tables) >= 2);
        expect_value("status", "  commands: all, and of each kind", 1,
                     FIELD(smmu_commands) >= FIELD(smmu_tlbi_vmall) + FIELD(smmu_tlbi_ipa) + FIELD(smmu_syncs) &&
                         FIELD(smmu_tlbi_vmall) != 0 && FIELD(smmu_syncs) != 0);
    }
    expect("more room than it has", (struct request){STRANDLINE_STATUS, m->buffer, UINT64_C(1) << 40, 0, 0, 0},
           STRANDLINE_DONE, all);
    expect("no room, and so no buffer", (struct request){STRANDLINE_FAULTS, 0, 0, 0, 0, 0}, STRANDLINE_DONE, 0);
    expect("none has happened", (struct request){STRANDLINE_FAULTS, m->buffer, 64, 0, 0, 0}, STRANDLINE_DONE, 0);
    expect("more room than a call fills", (struct request){STRANDLINE_FAULTS, m->buffer, UINT64_MAX, 0, 0, 0},
           STRANDLINE_DONE, 0);
}
