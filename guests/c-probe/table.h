/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The table that the probe prints: call, what was tried, expected, got, ok.
 */
#ifndef TABLE_H
#define TABLE_H

#include "machine.h"
#include "strandline.h"

/* A call as it is made. */
struct request {
    uint64_t id, x1, x2, x3, x4, x5;
};

/* Any value of x1 is right. */
#define ANY UINT64_C(0xa11a11a11a11a11a)

/* Makes the call. */
struct strandline_result make(struct request r);

/* Repeats a call until it has ended, x5 = 0 at first; x2 of all steps together is in the result's x2. */
struct strandline_result finish(struct request r);

/* Makes the call, which must answer x0 and x1. A refusal must also leave x2 and x3 zero, x4 as it was, and the log as it
 * was. Gives back what it answered. */
struct strandline_result expect(const char *tried, struct request r, int64_t x0, uint64_t x1);

/* The same of a call that is repeated until it has ended. */
struct strandline_result expect_at_last(const char *tried, struct request r, int64_t x0, uint64_t x1);

/* The same of a value that was looked at. */
void expect_value(const char *call, const char *tried, uint64_t wanted, uint64_t got);

/* A row that can't be tried on this machine, and why. */
void not_tried(const char *call, const char *tried, const char *reason);

/* Rows so far, and how many of them were not as expected. */
extern uint64_t rows, wrong;

/* Prints the head of the table. */
void table_head(void);

#endif
