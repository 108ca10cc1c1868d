/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * NAME
 *     strandline.h - Strandline's hypercalls, for guest kernels in C and C++
 *
 * SYNOPSIS
 *     #include "strandline.h"
 *
 *     struct strandline_result strandline_call(uint64_t id, uint64_t x1, uint64_t x2, uint64_t x3,
 *                                              uint64_t x4, uint64_t x5);
 *
 * DESCRIPTION
 *     A log tells which 4 KiB pages of a VM's memory were written, by its vCPUs or by its devices' DMA, while
 *     everything runs. A guest starts a log over a range of its RAM, reads and cleans it in rounds, and stops it.
 *
 *     The contract is docs/hypercalls.md: this header gives its numbers, and of each call what it takes and answers.
 *     It needs <stdint.h> alone, and is C11 and C++17 as well.
 *
 *     Discovery: a node compatible with "strandline,strandline" in the device tree; then STRANDLINE_UID, whose
 *     answer is the four words below; then STRANDLINE_FEATURES.
 *
 * CALLING
 *     HVC #0 at EL1 by SMCCC 1.3 (Arm DEN 0028). w0 is the function identifier, x1 to x5 are the arguments: those
 *     that a call below doesn't name are 0. x0 to x3 are results, x4 is a result of STRANDLINE_FEATURES alone; every
 *     other register is kept. Addresses are guest physical addresses of the caller's own RAM. Words have 64 bits.
 *
 *     A caller whose data cache is off cleans and invalidates a buffer (DC CIVAC, then DSB SY) before the call and
 *     after it.
 *
 * RETURN VALUE
 *     x0, signed: STRANDLINE_DONE, STRANDLINE_MORE, or an error, which is negative. On STRANDLINE_MORE a bounded part
 *     is done: call again with the same arguments and x5 = the returned x1. On an error nothing has been changed by
 *     that call (but see STRANDLINE_UNTRUSTED), x2 and x3 are 0, and x1 tells what was wrong. Take a negative value
 *     that this header doesn't have for a failure: later versions may add some.
 *
 * VERSIONS
 *     A program works with the major version it was written for and any minor at or above it. In later minor versions
 *     there may be more calls (bits of x2 of STRANDLINE_FEATURES), flags, granules, tiers (each one new is to be taken
 *     for the weakest), states, errors, and fields at the end of struct strandline_log_status; none of them changes
 *     what is here. Results that are 0 today may come to mean something.
 */
#ifndef STRANDLINE_H
#define STRANDLINE_H

#include <stdint.h>

/* The version described here: major << 16 | minor. */
#define STRANDLINE_VERSION   UINT64_C(0x3)

/* Bytes of a page: what one bit of a bitmap stands for; and how many pages one word of it stands for. */
#define STRANDLINE_PAGE_BYTES      UINT64_C(4096)
#define STRANDLINE_PAGES_PER_WORD  UINT64_C(64)

/* ---- FUNCTION IDENTIFIERS ------------------------------------------------------------------------------------- */

/* Which interface this is. A 32-bit call without arguments.
 * Results: w0..w3 = STRANDLINE_UID_0..3.
 */
#define STRANDLINE_UID       UINT64_C(0x8600ff01)

/* Its version. A 32-bit call without arguments.
 * Results: w0 = major, w1 = minor.
 */
#define STRANDLINE_REVISION  UINT64_C(0x8600ff03)

/* What it can do. No arguments.
 * Results: x1 = version, as STRANDLINE_VERSION; x2 = calls: bit n stands for the identifier 0xc6000000 + n;
 *          x3 = granules of a start: bit n stands for 2^n bytes; x4 = tiers a log would have.
 * Errors:  BUSY (another vCPU is at work on the log: call again).
 */
#define STRANDLINE_FEATURES  UINT64_C(0xc6000000)

/* Starts a log.
 * Arguments: x1 = first address, x2 = length in bytes: multiples of 4096; x3 = granule: 4096, or 2 MiB or 1 GiB: blocks
 *            larger than it are split, others are reported whole; or STRANDLINE_GRANULE_ADAPTIVE; x4 = the weakest tiers that will do, 0 in a byte of it
 *            where any will; x5 = step, 0 at first.
 * Results:   x1 = next step; x2 = tiers of this log, and of an adaptive one STRANDLINE_ADAPTS_... where views adapt
 *            (the others have pages from the beginning); x3 = blocks split by this start so far.
 * Errors:    UNALIGNED, INVALID_PARAMETER (length 0, granule, x4, step); OUT_OF_RANGE (not all of it is RAM); BUSY (a
 *            log is on, or being started or stopped); NO_MEMORY (x1 = frames needed in all); NOT_SUPPORTED (the
 *            hardware can't log, or no view adapts: x1 = 0; or not as x4 demands: x1 = the tiers there are); UNTRUSTED (hardware stopped answering: the start was undone).
 */
#define STRANDLINE_START     UINT64_C(0xc6000001)

/* Writes the bitmap of pages written since they were last cleaned: page i of the range is bit i % 64 of word i / 64.
 * Arguments: x1 = first address, x2 = length: a part of the log's range; x3 = bitmap, 8-aligned, with room for a bit
 *            a page in whole words; x4 = STRANDLINE_CPU, STRANDLINE_DMA or both, and STRANDLINE_CLEAR_DELIVERED or
 *            not; x5 = step, 0 at first.
 * Results:   x1 = next step; x2 = pages reported by this step; x3 = tiers.
 * Errors:    UNALIGNED, INVALID_PARAMETER (length 0, flags, step); OUT_OF_RANGE (range not in the log's, bitmap not in
 *            RAM); DENIED (no log); BUSY (a start or stop has not ended); UNTRUSTED.
 */
#define STRANDLINE_SYNC      UINT64_C(0xc6000002)

/* Takes the pages that a mask names out of the log.
 * Arguments: as of STRANDLINE_SYNC, x3 = mask, which is replaced by those of its pages that were dirty; x4 =
 *            STRANDLINE_CPU, STRANDLINE_DMA or both.
 * Results:   x1 = next step; x2 = pages discarded by this step; x3 = tiers.
 * Errors:    as of STRANDLINE_SYNC.
 */
#define STRANDLINE_CLEAR     UINT64_C(0xc6000003)

/* Ends the log; what was not read is dropped. Ends also one that is UNTRUSTED, and undoes a start that has not ended.
 * Arguments: x5 = step, 0 at first.
 * Results:   x1 = next step.
 * Errors:    DENIED (no log); INVALID_PARAMETER (step); BUSY (another vCPU is at work on the log, or did not stop in time:
 *            the stop may have begun, call again with x5 = 0); UNTRUSTED (the log has ended all the same).
 */
#define STRANDLINE_STOP      UINT64_C(0xc6000004)

/* Writes a struct strandline_log_status, or as much of it as there is room for.
 * Arguments: x1 = buffer, 8-aligned; x2 = its length in bytes, a multiple of 8.
 * Results:   x1 = bytes written.
 * Errors:    UNALIGNED, OUT_OF_RANGE, BUSY.
 */
#define STRANDLINE_STATUS    UINT64_C(0xc6000005)

/* Writes a struct strandline_fault_record for each access of the VM's own devices that was stopped, oldest first.
 * Arguments: x1 = buffer, 8-aligned; x2 = records it has room for.
 * Results:   x1 = records written, at most 64; x2 = records lost since the last call.
 * Errors:    UNALIGNED, OUT_OF_RANGE, BUSY.
 */
#define STRANDLINE_FAULTS    UINT64_C(0xc6000006)

/* Reads pages of the caller's RAM. In a log of the tier digest what is delivered here is what a page is compared with
 * from then on: a page is reported until these bytes are what memory holds.
 * Arguments: x1 = first address, x2 = length: multiples of 4096; x3 = buffer of as many bytes, 8-aligned; x5 = step, 0
 *            at first.
 * Results:   x1 = next step; x2 = pages read by this step.
 * Errors:    UNALIGNED, INVALID_PARAMETER (length 0, step); OUT_OF_RANGE (not all of range and buffer is RAM); BUSY (a
 *            start or stop has not ended).
 */
#define STRANDLINE_READ      UINT64_C(0xc6000007)

/* Writes a struct strandline_device_record for each of the VM's own devices.
 * Arguments: x1 = buffer, 8-aligned; x2 = records it has room for.
 * Results:   x1 = records written; x2 = devices there are.
 * Errors:    UNALIGNED, OUT_OF_RANGE, BUSY.
 */
#define STRANDLINE_DEVICES   UINT64_C(0xc6000008)

/* The UID 53747261-6e64-4c69-8e65-4c6f67456c32 as STRANDLINE_UID answers it. */
#define STRANDLINE_UID_0     UINT32_C(0x61727453)
#define STRANDLINE_UID_1     UINT32_C(0x694c646e)
#define STRANDLINE_UID_2     UINT32_C(0x6f4c658e)
#define STRANDLINE_UID_3     UINT32_C(0x326c4567)

/* ---- STATUS, in x0 -------------------------------------------------------------------------------------------- */

/* All of it is done. */
#define STRANDLINE_DONE               INT64_C(0)
/* A part is done: call again with x5 = the returned x1. */
#define STRANDLINE_MORE               INT64_C(1)
/* The call, or what it needs of the hardware, does not exist here. x1 = the function identifier; of start: 0. */
#define STRANDLINE_NOT_SUPPORTED      INT64_C(-1)
/* An argument has a value it may not have. x1 = that value. */
#define STRANDLINE_INVALID_PARAMETER  INT64_C(-3)
/* An address or length is not aligned as the call wants it. x1 = that value. */
#define STRANDLINE_UNALIGNED          INT64_C(-16)
/* A range lies outside what it must lie in. x1 = the first page outside, or what made its end wrap. */
#define STRANDLINE_OUT_OF_RANGE       INT64_C(-17)
/* No log is on. */
#define STRANDLINE_DENIED             INT64_C(-18)
/* A log is on, or being started or stopped, or another vCPU is at work on it. */
#define STRANDLINE_BUSY               INT64_C(-19)
/* Table frames are lacking. x1 = how many 4 KiB frames the call needs in all. */
#define STRANDLINE_NO_MEMORY          INT64_C(-20)
/* Hardware stopped answering: stop the log and start it again. */
#define STRANDLINE_UNTRUSTED          INT64_C(-21)

/* ---- GRANULES ------------------------------------------------------------------------------------------------ */

/* Of a start: blocks become pages where something is written, and blocks again where nothing is any more. */
#define STRANDLINE_GRANULE_ADAPTIVE   UINT64_C(1)
/* In x2 of such a start: the view of the vCPUs adapts; all those of the devices do. */
#define STRANDLINE_ADAPTS_CPU         UINT64_C(0x10000)
#define STRANDLINE_ADAPTS_DMA         UINT64_C(0x20000)

/* ---- TIERS: how writes come to be known; the CPU's in bits 7:0, the weakest of the devices' in bits 15:8 ------- */

#define STRANDLINE_CPU_TIER_NONE      UINT64_C(0) /* Not at all: there can be no log. */
#define STRANDLINE_CPU_TIER_HARDWARE  UINT64_C(1) /* By hardware dirty state. */
#define STRANDLINE_CPU_TIER_FAULTS    UINT64_C(2) /* By write-protect faults. */

#define STRANDLINE_DMA_TIER_NONE      UINT64_C(0) /* The VM owns no device. */
#define STRANDLINE_DMA_TIER_HARDWARE  UINT64_C(1) /* By the SMMU's dirty state. */
#define STRANDLINE_DMA_TIER_STALL     UINT64_C(2) /* By stalled accesses. */
#define STRANDLINE_DMA_TIER_DIGEST    UINT64_C(3) /* By comparing contents. */
#define STRANDLINE_DMA_TIER_ASSUME    UINT64_C(4) /* Every page a device may write is always reported. */

/* ---- FLAGS of sync and clear, in x4 ---------------------------------------------------------------------------- */

/* Writes of vCPUs. */
#define STRANDLINE_CPU              UINT64_C(1)
/* Writes of devices. */
#define STRANDLINE_DMA              UINT64_C(2)
/* Sync alone: what is delivered leaves the log. */
#define STRANDLINE_CLEAR_DELIVERED  UINT64_C(4)

/* ---- RECORDS --------------------------------------------------------------------------------------------------- */

/* Values of strandline_log_status.state. */
#define STRANDLINE_LOG_STATE_OFF        UINT64_C(0)
#define STRANDLINE_LOG_STATE_STARTING   UINT64_C(1)
#define STRANDLINE_LOG_STATE_ON         UINT64_C(2)
#define STRANDLINE_LOG_STATE_STOPPING   UINT64_C(3)
#define STRANDLINE_LOG_STATE_UNTRUSTED  UINT64_C(4)

/* Values of strandline_log_status.key_source. */
#define STRANDLINE_KEY_SOURCE_NONE      UINT64_C(0) /* There is no key. */
#define STRANDLINE_KEY_SOURCE_CPU       UINT64_C(1) /* The CPU's generator. */
#define STRANDLINE_KEY_SOURCE_FIRMWARE  UINT64_C(2) /* A seed left by firmware. */
#define STRANDLINE_KEY_SOURCE_COUNTER   UINT64_C(3) /* A counter: it may be guessed. */

/* What the status call writes. */
struct strandline_log_status {
    /* STRANDLINE_LOG_STATE_... */
    uint64_t state;
    /* Tiers of the log, or of one that would be started. */
    uint64_t tiers;
    /* The logged range: first address, and bytes; 0 and 0 where no log is on. */
    uint64_t start;
    uint64_t bytes;
    /* Leaves and table frames of the view of the vCPUs. */
    uint64_t cpu_blocks_1g;
    uint64_t cpu_blocks_2m;
    uint64_t cpu_pages_4k;
    uint64_t cpu_tables;
    /* The same of the views of the devices, together. */
    uint64_t dma_blocks_1g;
    uint64_t dma_blocks_2m;
    uint64_t dma_pages_4k;
    uint64_t dma_tables;
    /* So far: blocks split by starts, and made by stops, in all views; pages reported by syncs. */
    uint64_t blocks_split;
    uint64_t blocks_merged;
    uint64_t pages_reported;
    /* So far: commands to the SMMUs in front of the VM's devices; of these TLBI_S12_VMALL, TLBI_S2_IPA, SYNC. */
    uint64_t smmu_commands;
    uint64_t smmu_tlbi_vmall;
    uint64_t smmu_tlbi_ipa;
    uint64_t smmu_syncs;
    /* 4 KiB frames left for tables. */
    uint64_t free_frames;
    /* Write-protect faults of the VM's vCPUs that were answered so far. */
    uint64_t write_faults;
    /* STRANDLINE_KEY_SOURCE_...: where the randomness of the key of its digests comes from. */
    uint64_t key_source;
    /* So far: how often starts and stops held the vCPUs, to change the size of their translations. */
    uint64_t holds;
    /* What a digest costs: EL2's memory for a page, in bytes; nanoseconds to read a page, and to read it and make its
     * digest, as measured at boot (0: they were not). */
    uint64_t digest_bytes;
    uint64_t page_read_ns;
    uint64_t page_digest_ns;
    /* So far, by syncs and clears of adaptive logs, in all views: blocks split; blocks made by merging; blocks found dirty
     * that stayed blocks (no frame was free, or a step had split as many as it may). */
    uint64_t splits_by_syncs;
    uint64_t merges_by_syncs;
    uint64_t splits_refused;
};

/* What the devices call writes, one for each device. */
struct strandline_device_record {
    /* The device's stream identifier: of a PCI function its requester ID. */
    uint64_t stream;
    /* STRANDLINE_DMA_TIER_...: how its writes come to be known. */
    uint64_t tier;
};

/* What the faults call writes, one for each access that was stopped. */
struct strandline_fault_record {
    /* The device's stream identifier: of a PCI function its requester ID. */
    uint64_t stream;
    /* The event's number (IHI 0070 section 7.3): 0x10 translation, 0x11 address size, 0x12 access flag,
     * 0x13 permission. */
    uint64_t kind;
    /* The guest address it aimed at. */
    uint64_t ipa;
    /* STRANDLINE_FAULT_..., ORed. */
    uint64_t access;
};

/* A write; a read where it is not set. */
#define STRANDLINE_FAULT_WRITE  UINT64_C(1)
/* An instruction fetch. */
#define STRANDLINE_FAULT_FETCH  UINT64_C(2)

/* ---- THE CALL -------------------------------------------------------------------------------------------------- */

/* What a call leaves in x0 to x4. */
struct strandline_result {
    int64_t x0;
    uint64_t x1;
    uint64_t x2;
    uint64_t x3;
    uint64_t x4;
};

#ifdef __aarch64__
/* Makes one call, or one step of it. */
static inline struct strandline_result strandline_call(uint64_t id, uint64_t a1, uint64_t a2, uint64_t a3,
                                                       uint64_t a4, uint64_t a5)
{
    register uint64_t x0 __asm__("x0") = id;
    register uint64_t x1 __asm__("x1") = a1;
    register uint64_t x2 __asm__("x2") = a2;
    register uint64_t x3 __asm__("x3") = a3;
    register uint64_t x4 __asm__("x4") = a4;
    register uint64_t x5 __asm__("x5") = a5;
    struct strandline_result result;
    /* All other registers are kept, by SMCCC 1.1 and by Strandline. */
    __asm__ volatile("hvc #0" : "+r"(x0), "+r"(x1), "+r"(x2), "+r"(x3), "+r"(x4) : "r"(x5) : "memory");
    result.x0 = (int64_t)x0;
    result.x1 = x1;
    result.x2 = x2;
    result.x3 = x3;
    result.x4 = x4;
    return result;
}
#endif

#endif
