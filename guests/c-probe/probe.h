/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The parts of the probe. Each fills rows of the table.
 */
#ifndef PROBE_H
#define PROBE_H

#include "table.h"

/* The memory the parts work with: RAM that holds neither the program nor the device tree. */
struct memory {
    uint64_t ram_start, ram_end;
    /* LOGGED pages that are logged, at a multiple of 2 MiB; the pages around them are the VM's too. */
    uint64_t logged;
    /* Where bitmaps and records go: 8 MiB, not logged. */
    uint64_t buffer;
};

/* Pages of the log that most parts work with: neither a multiple of 64 nor all of a 2 MiB block. */
#define LOGGED       UINT64_C(100)
#define LOGGED_BYTES (LOGGED * PAGE)
/* 64-bit words of its bitmap. */
#define LOGGED_WORDS UINT64_C(2)

/* What features says in x4. */
extern uint64_t tiers;

/* UID, revision, features; SMCCC and PSCI; identifiers that don't exist; registers that are kept. */
void firmware(const struct memory *m);
/* Every error that the state of the log does not make, call by call. */
void refusals_without_a_log(const struct memory *m);
void refusals_with_a_log(const struct memory *m);
/* What the steps of start and stop promise, and what is refused between them. */
void steps_of_start_and_stop(const struct memory *m);
/* A log is on, of LOGGED pages: every flag of sync and clear. */
void reading(const struct memory *m);
/* What read delivers, with a log and without. */
void copying(const struct memory *m);
/* Logs of 2 MiB and 1 GiB blocks, and demands for tiers that are met. */
void granules_and_tiers(const struct memory *m);
void adaptive(const struct memory *m);
/* Ranges larger than a step of sync. */
void steps_of_sync(const struct memory *m);
/* What status and faults write. */
void records(const struct memory *m);
/* A start for which there are no frames. */
void no_memory(const struct memory *m);
/* DMA, logged and stopped; where the VM has QEMU's edu device. */
void device(const struct memory *m);
/* How long a call that does nothing takes. */
void cost_of_a_call(void);

#endif
